#!/usr/bin/env python3
"""Datagrams in, one file out: logweir, rsyslog's imudp (tuned) and the bare loop of `bench null-sink --udp`, in turn.

    udp.py BINARY [--runs 5] [--datagrams 1000000] [--rates 100000,200000,0] [--subjects logweir,rsyslog,sink] [--segments]

A rate of 0 is as fast as `bench send` can. For each rate and subject it prints the median (and the least and the greatest) of: datagrams a
second that were in the file at the end (until it did not grow any more), the share that was lost, and CPU time for each that was kept. Only loopback, a temporary directory, nothing left
behind. rsyslogd is that of PATH, or the one that `.ci/extract-syslog` has unpacked (LOGWEIR_SYSLOG_PEERS).
"""
import argparse, os, pathlib, shutil, socket, statistics, subprocess, tempfile, time, urllib.request

BYTES, SOCKETS = 250, 8
PEERS = pathlib.Path(os.environ.get("LOGWEIR_SYSLOG_PEERS", "/var/tmp/logweir-syslog-peers"))
# One reasonable choice; other batches and numbers of threads were not swept.
RSYSLOG = """global(workDirectory="{dir}")
module(load="imudp" batchSize="128" threads="{threads}" timeRequery="8")
template(name="raw" type="string" string="%rawmsg%\\n")
input(type="imudp" port="{port}" address="127.0.0.1" rcvbufSize="16m" ruleset="out" rateLimit.interval="0")
ruleset(name="out" queue.type="FixedArray" queue.size="1000000" queue.dequeueBatchSize="4096" queue.workerThreads="1") {{
    action(type="omfile" file="{dir}/out.log" template="raw" asyncWriting="off" ioBufferSize="256k" flushOnTXEnd="off")
}}
"""


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stands_still(count, patience=1.5):
    """The count when it has not changed for a while, and since when."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < patience:
        time.sleep(0.05)
        if (now := count()) != last:
            last, since = now, time.monotonic()
    return last, since


def listens(port):
    return any(line.split()[1].endswith(f":{port:04X}") for line in open("/proc/net/udp").readlines()[1:])


def logweir(binary, dir, port):
    admin = free_port(socket.SOCK_STREAM)
    (dir / "c.toml").write_text(f'[listener.udp]\nprotocol = "syslog"\naddress = "udp://127.0.0.1:{port}"\n')
    args = ["serve", "--config", dir / "c.toml", "--data-dir", dir / "data", "--admin", f"127.0.0.1:{admin}"]
    process = subprocess.Popen([binary, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def count():
        text = urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics").read().decode()
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("logweir_durable_lines_total")]
        return sum(int(float(value)) for _, value in rows)

    return process, count


def rsyslog(_, dir, port, threads=2):
    (dir / "rsyslog.conf").write_text(RSYSLOG.format(dir=dir, port=port, threads=threads))
    command, env = ["rsyslogd"], dict(os.environ)
    if (PEERS / "usr/sbin/rsyslogd").is_file():
        libraries = [PEERS / "usr/lib/x86_64-linux-gnu", PEERS / "lib/x86_64-linux-gnu"]
        env["LD_LIBRARY_PATH"] = ":".join(map(str, libraries))
        command = [PEERS / "usr/sbin/rsyslogd", "-M", PEERS / "usr/lib/x86_64-linux-gnu/rsyslog"]
    process = subprocess.Popen([*command, "-n", "-C", "-f", dir / "rsyslog.conf", "-i", dir / "pid"], env=env)
    out = dir / "out.log"

    def count():
        return out.stat().st_size // BYTES if out.exists() else 0

    return process, count


def sink(binary, dir, port):
    process = subprocess.Popen(
        [binary, "bench", "null-sink", "--udp", f"127.0.0.1:{port}", "--dir", dir], stdout=subprocess.DEVNULL
    )
    return process, lambda: (dir / "null-sink.log").stat().st_size // BYTES


def run(binary, subject, rate, datagrams, more):
    dir, port = pathlib.Path(tempfile.mkdtemp(prefix="logweir-udp.")), free_port(socket.SOCK_DGRAM)
    process = None
    try:
        process, count = subject(binary, dir, port)
        while not listens(port):
            time.sleep(0.02)
        time.sleep(0.3)
        before = cpu(process.pid)
        send = ["bench", "send", "--udp", f"127.0.0.1:{port}", "-c", SOCKETS, "-b", BYTES, "-n", datagrams, "--rate", rate]
        begun = time.monotonic()
        subprocess.run([binary, *map(str, send), *more], check=True, stdout=subprocess.DEVNULL)
        over = time.monotonic()
        if subject is sink:  # it writes the last piece when it ends, after a second without datagrams
            used = cpu(process.pid) - before
            process.wait()
            kept = count()
        else:
            kept, over = stands_still(count)
            used = cpu(process.pid) - before
        return kept / (over - begun), 1 - kept / datagrams, used * 1e6 / max(kept, 1)
    finally:
        if process and process.poll() is None:
            process.terminate()
            process.wait()
        shutil.rmtree(dir)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--segments", action="store_true", help="bench send --segments: the generator takes little of the cores")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--datagrams", type=int, default=1_000_000)
    parser.add_argument("--rates", default="100000,200000,0")
    parser.add_argument("--subjects", default="logweir,rsyslog,sink")
    args = parser.parse_args()
    subjects = [{"logweir": logweir, "rsyslog": rsyslog, "sink": sink}[name] for name in args.subjects.split(",")]
    for rate in map(int, args.rates.split(",")):
        results = {subject: [] for subject in subjects}
        for _ in range(args.runs):
            for subject in subjects:
                results[subject].append(run(args.binary, subject, rate, args.datagrams, ["--segments"] if args.segments else []))
        for subject, all in results.items():
            say = lambda i, form: f"{form(statistics.median(r[i] for r in all))} ({form(min(r[i] for r in all))} to {form(max(r[i] for r in all))})"
            print(
                f"rate {rate or 'max'}: {subject.__name__:8} kept/s {say(0, '{:.0f}'.format)}, lost {say(1, '{:.2%}'.format)}, "
                f"CPU us each {say(2, '{:.2f}'.format)}",
                flush=True,
            )


main()
