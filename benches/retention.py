#!/usr/bin/env python3
"""How long retention takes to delete many segments, beside `rm -r` of the same files, in turn.

    benches/retention.py BINARY [SEGMENTS=64000] [PAIRS=3] [DIR=.]

Each segment has a text of one line and a trail. The server may keep next to nothing (`max_bytes`), so its first look takes them
all. Its figures: from the start of the process until all are gone, the part of it from the first deletion on, and the CPU time that it took. Retention runs at the lowest priority: on a machine that has other work it takes as long as that lets it.
"""
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

binary, segments, pairs, place = os.path.abspath(sys.argv[1]), 64_000, 3, "."
if len(sys.argv) > 2:
    segments = int(sys.argv[2])
if len(sys.argv) > 3:
    pairs = int(sys.argv[3])
if len(sys.argv) > 4:
    place = sys.argv[4]


def fill(stream):
    """The trail is of a format of its own; one that cannot be read is as old as the next one."""
    os.makedirs(stream)
    for sequence in range(1, segments + 1):
        for ending, content in (("log", b"a line\n"), ("trail", b"\0" * 200)):
            fd = os.open(f"{stream}/000-{sequence:010}.{ending}", os.O_WRONLY | os.O_CREAT)
            os.write(fd, content)
            os.close(fd)
    os.sync()


def left(stream):
    return sum(1 for name in os.listdir(stream) if name.endswith(".log"))


def retention(work):
    data = f"{work}/data"
    fill(f"{data}/default")
    config = f"{work}/c.toml"
    with open(config, "w") as file:
        file.write(
            '[admin]\naddress = "off"\n[storage]\nsegment_size = "64KiB"\nreserve_step = "0B"\n'
            '[retention]\nmax_bytes = "256KiB"\n[listener.l]\naddress = "tcp://127.0.0.1:0"\n'
        )
    start = time.monotonic()
    with open(f"{work}/log", "wb") as log:
        server = subprocess.Popen([binary, "serve", "--config", config, "--data-dir", data], stdout=log, stderr=log)
        begun = None
        while (count := left(f"{data}/default")) > 1_000:
            if begun is None and count < segments:
                begun = time.monotonic()
            if server.poll() is not None:
                sys.exit(open(f"{work}/log").read())
            time.sleep(0.05)
        end = time.monotonic()
        server.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(server.pid, 0)
    shutil.rmtree(data)
    return end - start, end - (begun or end), usage.ru_utime + usage.ru_stime


def rm(work):
    fill(f"{work}/files")
    start = time.monotonic()
    subprocess.run(["rm", "-r", f"{work}/files"], check=True)
    return time.monotonic() - start


results = []
for _ in range(pairs):
    with tempfile.TemporaryDirectory(dir=place) as work:
        (took, part, cpu), plain = retention(work), rm(work)
    results.append((took, part, cpu, plain))
    print(f"{segments} segments: {took:.2f} s (deleting {part:.2f} s, CPU {cpu:.2f} s), rm -r {plain:.2f} s", flush=True)
median = [statistics.median(column) for column in zip(*results)]
print(f"medians: {median[0]:.2f} s (deleting {median[1]:.2f} s, CPU {median[2]:.2f} s), rm -r {median[3]:.2f} s")
