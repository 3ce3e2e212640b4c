#!/usr/bin/env bash
# Durable requests a second over many streams, and over one: each connection of wrk writes to the streams in turn.
#
#     benches/http/streams.sh BINARY [STREAMS=64] [SECONDS=5] [PAIRS=3]
set -euo pipefail
binary=$(realpath "$1") streams=${2:-64} seconds=${3:-5} pairs=${4:-3}
work=$(mktemp -d "${TMPDIR:-/tmp}/logweir-streams.XXXXXX")
server=
trap 'kill -9 $server 2>/dev/null || true; rm -rf "$work"' EXIT

names=$(seq -f '"s%02g"' -s ', ' 1 "$streams")
cat >"$work/c.toml" <<C
[admin]
address = "off"
[listener.web]
protocol = "http"
address = "tcp://127.0.0.1:0"
streams = [$names]
C
for i in $(seq -f 's%02g' 1 "$streams"); do printf '[stream.%s]\nreserve_step = "1MiB"\n' "$i" >>"$work/c.toml"; done
line=$(head -c 199 /dev/zero | tr '\0' x)
cat >"$work/w.lua" <<L
local n, body = 0, "$line\n"
request = function()
    n = n % streams + 1
    local path = streams == 1 and "/" or string.format("/ingest/s%02d", n)
    return wrk.format("POST", path, nil, body)
end
L
measure() { # measure STREAMS: requests a second
    rm -rf "$work/data"
    "$binary" serve --config "$work/c.toml" --data-dir "$work/data" >"$work/out" 2>/dev/null &
    server=$!
    until grep -qs "Read it back" "$work/out"; do kill -0 $server; done
    local port
    port=$(sed -n 's/.*lines from .*:\([0-9]*\) .*/\1/p' "$work/out")
    { echo "streams = $1"; cat "$work/w.lua"; } >"$work/r.lua"
    wrk -t 1 -c 64 -d "${seconds}s" -s "$work/r.lua" "http://127.0.0.1:$port/" | sed -n 's/^Requests\/sec: *//p'
    kill -TERM $server
    wait $server
}
for _ in $(seq "$pairs"); do
    many=$(measure "$streams") one=$(measure 1)
    echo "$streams streams $many/s, one $one/s, ratio $(awk "BEGIN { printf \"%.2f\", $many / $one }")"
done
