#!/usr/bin/env python3
"""What one hostile client costs the others: figures, not a test. As root (a small file system is mounted).

    benches/hostile.py BINARY [--engine epoll|io_uring] [--only lines,buffers,handshakes,documents] [--seconds 8]

lines       16 connections to a public TCP listener, 560 kB of an unfinished line each, then a little more each second: how long a
            client of a private Unix listener waits for each of its answers
buffers     a full disk with 40 senders on a listener that blocks and one idle connection elsewhere; then 24 HTTP clients that
            pipeline requests and read no answer, and one idle connection: how much of a core the server takes
handshakes  600 connections a second that send the first byte of a TLS handshake and hang up: how long five proper clients take to
            get in, and how many connections are held at the end
documents   64 connections, each of which sends a document of 16 MiB at the same time, three times: the server's peak of memory beside
            what it prints that it takes at most, and the answers
"""
import argparse, collections, json, os, re, resource, shutil, socket, ssl, statistics, subprocess, sys, tempfile, threading, time, urllib.request

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("binary")
parser.add_argument("--engine", default="auto")
parser.add_argument("--only", default="lines,buffers,handshakes,documents")
parser.add_argument("--seconds", type=float, default=8)
args = parser.parse_args()
binary = os.path.abspath(args.binary)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)


class Server:
    def __init__(self, work, config, data=None):
        path = os.path.join(work, "c.toml")
        with open(path, "w") as f:
            f.write(f'engine = "{args.engine}"\n{config}')
        data = data or os.path.join(work, "data")
        command = [binary, "serve", "--config", path, "--data-dir", data, "--admin", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.ports, self.memory = {}, None
        for line in self.process.stdout:
            found = re.search(r"lines from\s+\S*:(\d+)\s+\(listener (\w+)\)", line)
            if found:
                self.ports[found[2]] = int(found[1])
            if "memory" in line and not self.memory:
                self.memory = line.strip()
            if "metrics" in line:
                self.admin = re.search(r"http://([\d.:]+)/", line)[1]
            if "Read it back" in line:
                break

    def cpu(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metric(self, name):
        text = urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=60).read().decode()
        return sum(float(l.rsplit(" ", 1)[1]) for l in text.splitlines() if l.startswith(name))

    def share_of_a_core(self):
        time.sleep(1)
        before, start = self.cpu(), time.monotonic()
        time.sleep(args.seconds)
        return 100 * (self.cpu() - before) / (time.monotonic() - start)

    def end(self):
        self.process.kill()
        self.process.wait()


ONE = "[placement]\nshards = 1\nreactors_per_shard = 1\n"
WEB = '[listener.web]\nprotocol = "http"\naddress = "tcp://127.0.0.1:0"\nidle_timeout = "0s"\n'


def connect(port, data=b"", block=True, receive=None):
    s = socket.socket()
    if receive:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    s.connect(("127.0.0.1", port))
    s.setblocking(block)
    sent = 0
    try:
        while sent < len(data):
            sent += s.send(data[sent:])
    except BlockingIOError:
        pass
    return s


def lines(work):
    unix = os.path.join(work, "s")
    server = Server(work, f'[listener.public]\naddress = "tcp://127.0.0.1:0"\n[listener.private]\naddress = "unix://{unix}"\nreply = "count"\n')

    def ask(count, seconds):
        s = socket.socket(socket.AF_UNIX)
        s.connect(unix)
        s.settimeout(60)
        times, end = [], time.monotonic() + seconds
        while len(times) < count and time.monotonic() < end:
            start = time.monotonic()
            s.sendall(b"p" * 200 + b"\n")
            s.recv(64)
            times.append((time.monotonic() - start) * 1000)
            time.sleep(0.02)
        return f"median {statistics.median(times):.1f} ms, longest {max(times):.1f} ms of {len(times)} answers"

    print("lines, alone:", ask(100, args.seconds))
    held, over = [connect(server.ports["public"], b"a" * 560_000, False) for _ in range(16)], threading.Event()

    def trickle():
        while not over.wait(0.05):
            for i, s in enumerate(held):
                try:
                    s.send(b"a" * 1000)
                except BlockingIOError:
                    pass
                except OSError:
                    held[i] = connect(server.ports["public"], b"a" * 560_000, False)

    thread = threading.Thread(target=trickle)
    thread.start()
    time.sleep(0.5)
    print("lines, beside 16 unfinished ones:", ask(300, 2 * args.seconds), flush=True)
    over.set()
    thread.join()
    server.end()


def buffers(work):
    small = os.path.join(work, "small")
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", small], check=True)
    try:
        server = Server(work, f'[buffer]\nmemory = "64MiB"\n{ONE}[storage]\nsegment_size = "4MiB"\nreserve_step = "1MiB"\n[listener.lines]\naddress = "tcp://127.0.0.1:0"\n{WEB}', small + "/data")
        line = (b"x" * 249 + b"\n") * 4000
        first = [connect(server.ports["lines"], line, False) for _ in range(60)]
        deadline = time.monotonic() + 20
        while server.metric("logweir_disk_full{") == 0 and time.monotonic() < deadline:
            for s in first:
                try:
                    s.send(line)
                except BlockingIOError:
                    pass
        senders = [connect(server.ports["lines"]) for _ in range(40)]
        for _ in range(60):
            for s in senders:
                s.send(b"y" * 99 + b"\n")
            time.sleep(0.01)
        idle = connect(server.ports["web"])
        print(f"buffers, disk full: {server.share_of_a_core():.1f} % of a core", flush=True)
        server.end()
    finally:
        subprocess.run(["umount", small], check=True)
    server = Server(work, ONE + WEB)
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na\n"
    deaf = [connect(server.ports["web"], b"", False, 4096) for _ in range(24)]
    quiet = 0
    while quiet < 500:  # until none takes any more
        quiet += 1
        for s in deaf:
            try:
                s.send(request)
                quiet = 0
            except OSError:
                pass
        time.sleep(0.001)
    idle = connect(server.ports["web"])
    print(f"buffers, 24 that read no answers: {server.share_of_a_core():.1f} % of a core", flush=True)
    server.end()


def documents(work):
    text = json.dumps("x" * 200 + "\n" + "é" * 20).encode()
    pair, size = b'["1",%s]' % text, 16_700_000  # just below 16 MiB, which is the most that a document may have
    loki = b'{"streams":[{"stream":{"job":"a"},"values":[%s]}]}' % b",".join([pair] * (size // (len(pair) + 1)))
    record = b'{"timeUnixNano":"1","body":{"stringValue":%s},"attributes":[{"key":"k","value":{"stringValue":"v"}}]}' % text
    otlp = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%s]}]}]}' % b",".join([record] * (size // (len(record) + 1)))
    deep = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"attributes":[{"key":"k","value":{"stringValue":"%s"}}]}]}]}]}' % (b"v" * size)
    for name, path, body in [("loki", "/loki/api/v1/push", loki), ("otlp", "/v1/logs", otlp), ("one attribute", "/v1/logs", deep)]:
        apis = WEB.replace("\n", '\napis = ["loki", "otlp"]\n', 1)
        server = Server(work, apis, os.path.join(work, "data-" + name.split()[0] + str(len(body))))
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        answers, start = collections.Counter(), threading.Barrier(64)

        def send():
            start.wait()
            for _ in range(3):
                try:
                    s = socket.create_connection(("127.0.0.1", server.ports["web"]), timeout=120)
                    s.sendall(head)
                    for at in range(0, len(body), 1 << 16):
                        s.sendall(body[at:at + (1 << 16)])
                except OSError:
                    pass  # it was answered before its end
                try:
                    answers[s.recv(4096)[9:12].decode() or "none"] += 1
                except OSError as e:
                    answers[type(e).__name__] += 1
                s.close()

        threads = [threading.Thread(target=send) for _ in range(64)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        status = open(f"/proc/{server.process.pid}/status").read()
        peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
        print(f"documents, {name} of {len(body) / 1048576:.1f} MiB: peak {peak:.0f} MiB, printed {server.memory}; {dict(answers)}", flush=True)
        server.end()


def handshakes(work):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-keyout", f"{work}/k", "-out", f"{work}/c"], check=True, capture_output=True)
    server = Server(work, f'[listener.tls]\naddress = "tcp://127.0.0.1:0"\ntls_cert = "{work}/c"\ntls_key = "{work}/k"\n')
    over = threading.Event()

    def flood():
        while not over.is_set():
            start = time.monotonic()
            for i in range(6):
                s = socket.socket()
                s.bind((f"127.0.0.{2 + i % 4}", 0))
                s.connect(("127.0.0.1", server.ports["tls"]))
                s.send(b"\x16")
                s.close()
            time.sleep(max(0, 0.01 - (time.monotonic() - start)))

    thread = threading.Thread(target=flood)
    thread.start()
    time.sleep(3)
    context = ssl.create_default_context(cafile=f"{work}/c")
    context.check_hostname = False
    times = []
    for _ in range(5):
        start = time.monotonic()
        try:
            s = socket.create_connection(("127.0.0.1", server.ports["tls"]), timeout=5)
            context.wrap_socket(s).send(b"hello\n")
            times.append((time.monotonic() - start) * 1000)
        except OSError:
            times.append(None)
    got = [t for t in times if t is not None]
    held = server.metric("logweir_connections{")
    over.set()
    thread.join()
    longest = f", longest {max(got):.0f} ms" if got else ""
    print(f"handshakes: {len(got)} of 5 proper clients got in{longest}; {held:.0f} connections held", flush=True)
    server.end()


for name in args.only.split(","):
    work = tempfile.mkdtemp(prefix="hostile-", dir=os.environ.get("TMPDIR", "/tmp"))
    try:
        {"lines": lines, "buffers": buffers, "handshakes": handshakes, "documents": documents}[name](work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
