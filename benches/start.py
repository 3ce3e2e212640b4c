#!/usr/bin/env python3
"""How soon, how idle, how small: what a sidecar costs.

    benches/start.py BINARY [--runs 30] [--seconds 20] [--rate 10000] [--write 250]

1. From exec to READY=1 (sd_notify) on an empty data directory, median of the runs; a pause between them, so that one does not
   clean up while the next starts. Default configuration, and config/sidecar.toml.
2. Idle for ten seconds with config/sidecar.toml: context switches of all threads (a thread that sleeps has none), and VmRSS.
3. The same at `--rate` lines of 250 bytes a second (BINARY bench send): CPU time of the server, of one core.
"""
import argparse, os, pathlib, select, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

here = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("binary")
parser.add_argument("--runs", type=int, default=30)
parser.add_argument("--seconds", type=int, default=20)
parser.add_argument("--rate", type=int, default=10000)
parser.add_argument("--write", default="250", help="bytes of each write of the sender")
parser.add_argument("--limit-start-ms", type=float, help="exit code 1 if the median start with the defaults takes longer")
options = parser.parse_args()
binary = str(pathlib.Path(options.binary).resolve())


def run_ns(task):
    """CPU time of a thread, in nanoseconds; one that has just ended has none to show."""
    try:
        return int(open(f"{task}/schedstat").read().split()[0])
    except FileNotFoundError:
        return 0


class Running:
    """A server in a directory of its own; ready when the constructor returns."""

    def __init__(self, *args):
        self.dir = tempfile.mkdtemp(prefix="logweir-start.")
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(self.dir + "/notify")
        notify.settimeout(10)
        environment = {"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": self.dir + "/notify"}
        command = [binary, "serve", *args]
        begin = time.perf_counter()
        # close_fds=False: Python spawns by vfork then, which does not copy its memory.
        self.log = open(self.dir + "/log", "wb")
        self.process = subprocess.Popen(command, cwd=self.dir, env=environment, stdout=self.log, stderr=self.log,
                                        close_fds=False)
        while b"READY=1" not in notify.recv(4096).split(b"\n"):
            pass
        self.start_ms = (time.perf_counter() - begin) * 1000
        tasks = f"/proc/{self.process.pid}/task"
        self.cpu_ms = sum(run_ns(f"{tasks}/{task}") for task in os.listdir(tasks)) / 1e6
        # What the manager would keep (FDSTORE=1) arrives here and is dropped with the socket.
        self.notify = notify

    def status(self, key):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith(key + ":"):
                return line.split()[1]

    def switches(self):
        sums = {}
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            name, total = "", 0
            for line in open(f"/proc/{self.process.pid}/task/{task}/status"):
                key, _, value = line.partition(":")
                if key == "Name":
                    name = value.strip()
                elif key.endswith("ctxt_switches"):
                    total += int(value)
            sums[f"{name}/{task}"] = total
        return sums

    def cpu_seconds(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        return ", ".join(f"{key} {self.status(key)}" for key in ["VmRSS", "RssAnon", "RssFile"])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        if code:
            sys.exit(f"exit code {code}:\n" + open(self.dir + "/log").read())
        shutil.rmtree(self.dir)


def starts(label, *args):
    times, cpu = [], []
    for _ in range(options.runs):
        server = Running(*args)
        times.append(server.start_ms)
        cpu.append(server.cpu_ms)
        server.stop()
        time.sleep(0.05)
    times.sort()
    median = statistics.median(times)
    print(f"start, {label}: median {median:.1f} ms, {times[0]:.1f} to {times[-1]:.1f}, {len(times)} runs; CPU time of all "
          f"threads until then {statistics.median(cpu):.1f} ms")
    return median


sidecar = ["--config", str(here / "config/sidecar.toml"), "--admin", "127.0.0.1:0"]
print(f"{binary}: {os.path.getsize(binary) / 2**20:.2f} MiB")
median = starts("defaults", "--listen", "tcp://127.0.0.1:0", "--admin", "127.0.0.1:0")
starts("config/sidecar.toml", *sidecar)
for engine in ["io_uring", "epoll"]:
    server = Running(*sidecar, "--set", f"engine={engine}")
    time.sleep(2)
    rss = [server.status("VmRSS")]
    before = server.switches()
    time.sleep(10)
    after = server.switches()
    woken = {name: n - before.get(name, 0) for name, n in after.items() if n != before.get(name, 0)}
    print(f"idle 10 s, {engine}: {sum(woken.values())} context switches of {len(after)} threads {woken or ''}")
    send = [binary, "bench", "send", "--address", f"unix://{server.dir}/logweir.sock", "-c", "1", "-b", "250"]
    subprocess.run([*send, "-n", "5000"], check=True, stdout=subprocess.DEVNULL)
    time.sleep(1)
    rss.append(server.status("VmRSS"))
    begin, cpu = time.monotonic(), server.cpu_seconds()
    # A line a write, as a program that logs does; the sender batches otherwise.
    subprocess.run([*send, "-n", str(options.rate * options.seconds), "--rate", str(options.rate), "-w", options.write],
                   check=True, stdout=subprocess.DEVNULL)
    took, cpu = time.monotonic() - begin, server.cpu_seconds() - cpu
    rss.append(server.status("VmRSS"))
    print(f"{options.rate} lines/s, {options.write} bytes a write, for {took:.1f} s, {engine}: {100 * cpu / took:.2f} % of a core")
    print(f"memory in kB, {engine}: {rss[0]} idle, {rss[1]} after 5,000 lines, {rss[2]} at the end ({server.memory()})")
    server.stop()
if options.limit_start_ms and median > options.limit_start_ms:
    sys.exit(f"the start takes {median:.1f} ms, not {options.limit_start_ms}")
