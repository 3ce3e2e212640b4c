#!/usr/bin/env bash
# Measures HTTP ingest with wrk: one line of 200 bytes per POST, answered when it is durable, next to nginx that answers
# 204 and keeps nothing. Only loopback, a temporary directory, nothing left behind.
#
#   run.sh [--pairs N] [--seconds S] [--connections "64 256"] [--ack durable|written|received] [--logweir PROGRAM]
#       N pairs (5) of logweir and nginx in turn, S seconds (5) each, for 64 and 256 connections and for 64 connections
#       that pipeline 16 requests. Prints a line for every pair
#           pair=1 connections=64 pipelined=no logweir=R nginx=R ratio=Q requests_per_sync=N p50_us=N p99_us=N
#       (requests per second, and the ratio of the two; no latencies where requests are pipelined: wrk does not measure
#       them there), and the medians at the end. Then, where vegeta is installed, the
#       latencies at a constant rate (--rate R, 2000). The exit code is 0 only when every answer was a 2xx and the lines
#       on disk were as many as those at least.
#
# Without --logweir it is built from here. Environment: BENCH_DIR (where the temporary directory is made: put it on the
# filesystem under test; TMPDIR otherwise).
# Needs wrk, nginx and curl (Debian: apt-get install --no-install-recommends wrk nginx-light curl).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

readonly MAX_BYTES=2000000000 # a run is ended when it has written so much
readonly DEPTH=16             # as in pipelined.lua

pairs=5 seconds=5 connections="64 256" ack=durable program="" rate=2000

die() {
    echo "run.sh: $*" >&2
    exit 1
}

usage() {
    sed -n '2,/^set -/{/^set -/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
    exit 2
}

while (($#)); do
    case $1 in
    --pairs) pairs=${2:?} ;;
    --seconds) seconds=${2:?} ;;
    --connections) connections=${2:?} ;;
    --ack) ack=${2:?} ;;
    --logweir) program=${2:?} ;;
    --rate) rate=${2:?} ;;
    *) usage ;;
    esac
    shift 2
done
for command in wrk nginx curl; do
    command -v "$command" >/dev/null || die "$command is missing"
done
if [[ -z $program ]]; then
    cargo build --release --manifest-path "$here/../../Cargo.toml" >&2
    program=$(cargo metadata --no-deps --format-version 1 --manifest-path "$here/../../Cargo.toml" |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/logweir
fi
[[ -x $program ]] || die "$program cannot be run"

run_dir=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/http-bench.XXXXXX")
server="" generator=""
stop() { # the server that runs, with its exit code
    local pid=$server
    server=
    [[ -n $pid ]] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid"
}
# shellcheck disable=SC2317
clean_up() {
    [[ -z $generator ]] || kill -TERM "$generator" 2>/dev/null || true
    [[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true
    wait
    rm -rf "$run_dir"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fetch() { curl --noproxy '*' -fsS --max-time 5 "$@"; }

answers() { # answers URL: as soon as it does
    for _ in {1..200}; do
        if fetch -o "$run_dir/answer" "$1" 2>/dev/null; then return 0; fi
        kill -0 "$server" 2>/dev/null || return 1
        sleep 0.05
    done
    return 1
}

start_logweir() { # sets url and admin
    rm -rf "$run_dir/data"
    cat >"$run_dir/logweir.toml" <<TOML
data_dir = "$run_dir/data"
[admin]
address = "127.0.0.1:0"
[listener.web]
protocol = "http"
address = "tcp://127.0.0.1:0"
ack = "$ack"
TOML
    : >"$run_dir/introduction"
    "$program" serve --config "$run_dir/logweir.toml" </dev/null >"$run_dir/introduction" 2>"$run_dir/log" &
    server=$!
    for _ in {1..200}; do
        grep -q 'Read it back' "$run_dir/introduction" && break
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    url=http://$(sed -n 's|^ *lines from  *http://\([^ ]*\) .*|\1|p' "$run_dir/introduction")/
    admin=$(sed -n 's|^ *metrics  *\(http://[^/ ]*\)/.*|\1|p' "$run_dir/introduction")
    if [[ -z $admin ]] || ! answers "${url}readyz"; then
        cat "$run_dir/log" >&2
        die "logweir did not start"
    fi
}

# Small groups go to a commit log a moment after the start, where there is one: what is measured is how it goes on.
await_commit_log() {
    for _ in {1..60}; do
        (($(metric logweir_commit_logs) == 0)) || return 0
        sleep 0.05
    done
}

start_nginx() { # sets url
    local port config
    for _ in {1..5}; do
        port=$((20000 + RANDOM % 12000))
        config=$(<"$here/nginx.conf.in")
        config=${config//@DIR@/$run_dir}
        printf '%s\n' "${config//@PORT@/$port}" >"$run_dir/nginx.conf"
        nginx -p "$run_dir" -e "$run_dir/nginx-error.log" -c "$run_dir/nginx.conf" </dev/null 2>/dev/null &
        server=$!
        url=http://127.0.0.1:$port/
        if answers "$url"; then return 0; fi
        stop 2>/dev/null || true # its port was taken
    done
    cat "$run_dir/nginx-error.log" >&2
    die "nginx did not start"
}

metric() { # metric NAME [LABEL]: the sum over all series of that name that have the label
    fetch "$admin/metrics" |
        awk -v name="$1{" -v label="${2:-}" 'index($0, name) == 1 && index($0, label) { sum += $NF } END { printf "%d", sum }'
}

value() { sed -n "s/^RESULT .*$1=\([0-9]*\).*/\1/p" "$run_dir/result"; }

load() { # load SCRIPT CONNECTIONS SECONDS: what wrk says is in $run_dir/result; ends early when the data grow too large
    wrk -t2 -c"$2" -d"$3"s --timeout 20s -s "$here/$1" "$url" >"$run_dir/result" &
    generator=$!
    while kill -0 "$generator" 2>/dev/null; do
        if (($(du -sb "$run_dir" | cut -f 1) > MAX_BYTES)); then
            echo "run.sh: more than $MAX_BYTES bytes: this run is cut short" >&2
            kill -INT "$generator"
            break
        fi
        sleep 0.2
    done
    wait "$generator" || die "wrk failed: $(<"$run_dir/result")"
    generator=
    (($(value not_2xx) == 0 && $(value errors) == 0)) || {
        cat "$run_dir/result" >&2
        die "not every request was answered with 2xx"
    }
    (($(value requests) > 0)) || die "no request was answered"
}

per_second() { awk -v n="$(value requests)" -v us="$(value microseconds)" 'BEGIN { printf "%.0f", n * 1e6 / us }'; }

# The metrics settle once the last connections are closed.
verify() { # verify: stops logweir and counts; sets accepted and per_sync
    local syncs lines
    for _ in {1..200}; do
        (($(metric logweir_connections) == 0)) && break
        sleep 0.05
    done
    accepted=$(metric logweir_http_responses_total 'status="204"')
    syncs=$(metric logweir_syncs_total)
    stop || die "logweir did not end well: $(<"$run_dir/log")"
    lines=$("$program" cat --data-dir "$run_dir/data" | wc -l)
    ((lines >= accepted && accepted >= $(value requests))) ||
        die "$lines lines on disk, $accepted answers of 204, $(value requests) seen by the client"
    per_sync=$(awk -v a="$accepted" -v s="$syncs" 'BEGIN { printf "%.1f", s ? a / s : 0 }')
    rm -rf "$run_dir/data"
}

median() { sort -g | awk '{ v[NR] = $1 } END { m = int((NR + 1) / 2); print NR % 2 ? v[m] : (v[m] + v[m + 1]) / 2 }'; }

measure() { # measure SCRIPT CONNECTIONS PIPELINED
    local pair ours theirs ratio table=$run_dir/table latency
    : >"$table"
    for ((pair = 1; pair <= pairs; pair++)); do
        start_logweir
        await_commit_log
        load "$1" "$2" "$seconds"
        ours=$(per_second)
        latency=""
        [[ $3 != no ]] || latency=" p50_us=$(value p50_us) p99_us=$(value p99_us)"
        verify
        start_nginx
        load "$1" "$2" "$seconds"
        theirs=$(per_second)
        stop || die "nginx did not end well"
        ratio=$(awk -v a="$ours" -v b="$theirs" 'BEGIN { printf "%.3f", a / b }')
        echo "$ours $theirs $ratio $per_sync" >>"$table"
        echo "pair=$pair connections=$2 pipelined=$3 logweir=$ours nginx=$theirs ratio=$ratio requests_per_sync=$per_sync$latency"
    done
    column_median() { cut -d ' ' -f "$1" "$table" | median; }
    medians+=("median connections=$2 pipelined=$3 logweir=$(column_median 1) nginx=$(column_median 2) ratio=$(column_median 3) requests_per_sync=$(column_median 4)")
}

medians=()
for count in $connections; do
    measure lines.lua "$count" no
done
measure pipelined.lua "${connections%% *}" "$DEPTH"
printf '%s\n' "${medians[@]}"

if command -v vegeta >/dev/null; then
    start_logweir
    targets=$(<"$here/vegeta.targets")
    targets=${targets//@URL@/$url}
    printf '%s\n' "${targets//@BODY@/@$here/body.txt}" >"$run_dir/targets"
    vegeta attack -targets "$run_dir/targets" -rate "$rate" -duration "${seconds}s" -timeout 20s >"$run_dir/attack"
    vegeta report -type text "$run_dir/attack"
    sent=$(vegeta report -type json "$run_dir/attack" | sed 's/.*"status_codes":{\([^}]*\)}.*/\1/')
    [[ $sent =~ ^\"204\":([0-9]+)$ ]] || die "not every request was answered with 204: $sent"
    echo "RESULT requests=${BASH_REMATCH[1]}" >"$run_dir/result"
    verify
    echo "vegeta rate=$rate requests=$(value requests) requests_per_sync=$per_sync"
else
    echo "SKIPPED vegeta: it is not installed"
fi
