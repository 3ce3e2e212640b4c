#!/usr/bin/env bash
# Measures rsyslog: raw lines over TCP in, one file out. Only loopback, a temporary directory, nothing left behind.
#
#   run_rsyslog.sh LINES LINE_BYTES CONNECTIONS GENERATOR_COMMAND...
#       {port} in the command becomes the port, {lines}, {line_bytes} and {connections} the numbers, for example
#           run_rsyslog.sh 8000000 250 16 logweir bench send --address tcp://127.0.0.1:{port} \
#               --connections {connections} --lines {lines} --line-bytes {line_bytes}
#       prints one line
#           rsyslog lines=N seconds=S lines_per_second=R cpu_seconds=C verified_lines=M
#       and on standard error what else was seen. Seconds run from the start of the generator to the last write to the
#       file (its mtime); cpu_seconds are rsyslogd's own, verified_lines are lines counted in the file. The exit code
#       is 0 only when the generator succeeded and all lines are there.
#
#   run_rsyslog.sh start DIR                      starts it with its files in DIR (empty or new), prints the port
#   run_rsyslog.sh wait DIR LINES LINE_BYTES      waits until that many lines are in DIR/out.log
#   run_rsyslog.sh stop DIR                       stops it; DIR stays
#
# LINE_BYTES may be with or without the newline. Environment: RSYSLOG_WORKERS (1; 2 is faster and reorders lines),
# RSYSLOG_PORT (0: any free one), PEER_DIR (where the temporary directory is made: put it on the filesystem under
# test; TMPDIR otherwise).
# Needs rsyslogd 8.2302 or later (Debian: apt-get install --no-install-recommends rsyslog; no service is needed).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

readonly MAX_BYTES=3000000000 # refuse runs that would write more
readonly STALL_SECONDS=5      # the generator is done and the file no longer grows: these lines are lost

die() {
    echo "run_rsyslog.sh: $*" >&2
    exit 1
}

size_of() { stat -c %s "$1" 2>/dev/null || echo 0; }
lines_in() { wc -l <"$1"; }

start() {
    local dir=$1 config
    command -v rsyslogd >/dev/null || die "rsyslogd is missing (Debian package rsyslog)"
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    [[ -z $(ls -A "$dir") ]] || die "$dir is not empty"

    config=$(<"$here/rsyslog.conf.in")
    config=${config//@DIR@/$dir}
    config=${config//@PORT@/${RSYSLOG_PORT:-0}}
    config=${config//@WORKERS@/${RSYSLOG_WORKERS:-1}}
    printf '%s\n' "$config" >"$dir/rsyslog.conf"

    # -n: not a daemon; -C: do not change directory; -i: a pid file of its own.
    rsyslogd -n -C -f "$dir/rsyslog.conf" -i "$dir/rsyslogd.pid" </dev/null >"$dir/messages" 2>&1 &
    echo $! >"$dir/pid"
    for _ in {1..100}; do
        [[ -s $dir/port ]] && break
        kill -0 "$(<"$dir/pid")" 2>/dev/null || break
        sleep 0.1
    done
    if [[ ! -s $dir/port ]]; then
        cat "$dir/messages" >&2
        stop "$dir"
        die "rsyslogd did not start"
    fi
    port=$(<"$dir/port")
}

# Until LINES lines are there, or GENERATOR_PID is gone and the file stands still. Looks at the size, which costs
# nothing, and counts lines only once there may be enough of them.
wait_for_lines() {
    local file=$1/out.log lines=$2 line_bytes=$3 generator_pid=${4:-} size seen=0 still_since=$SECONDS
    while :; do
        size=$(size_of "$file")
        if ((size >= lines * line_bytes)) && (($(lines_in "$file") >= lines)); then return 0; fi
        if ((size > seen)) || { [[ -n $generator_pid ]] && kill -0 "$generator_pid" 2>/dev/null; }; then
            seen=$size
            still_since=$SECONDS
        elif ((SECONDS - still_since > STALL_SECONDS)); then
            return 1
        fi
        sleep 0.2
    done
}

stop() {
    local dir=$1 pid
    [[ -s $dir/pid ]] || return 0
    pid=$(<"$dir/pid")
    rm -f "$dir/pid"
    [[ $(cat "/proc/$pid/comm" 2>/dev/null) == rsyslogd ]] || return 0
    kill -TERM "$pid"
    for _ in {1..600}; do
        # A zombie has ended too: its parent may be the shell that has yet to wait for it.
        [[ $(cut -d ' ' -f 3 "/proc/$pid/stat" 2>/dev/null || echo Z) == Z ]] && return 0
        sleep 0.1
    done
    kill -KILL "$pid"
}

cpu_ticks() { # of a process: user and system time
    local stat
    stat=$(<"/proc/$1/stat")
    stat=${stat##*) }
    # shellcheck disable=SC2086
    set -- $stat
    echo $((${12} + ${13}))
}

measure() {
    local lines=$1 line_bytes=$2 connections=$3
    shift 3
    ((lines * (line_bytes + 1) <= MAX_BYTES)) || die "that would write more than $MAX_BYTES bytes"

    local parent=${PEER_DIR:-${TMPDIR:-/tmp}}
    run_dir=$(mktemp -d "$parent/rsyslog-peer.XXXXXX")
    generator=
    # shellcheck disable=SC2317
    clean_up() {
        [[ -z $generator ]] || kill -TERM "$generator" 2>/dev/null || true
        stop "$run_dir"
        rm -rf "$run_dir"
    }
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    start "$run_dir"
    local file=$run_dir/out.log pid words=() word
    pid=$(<"$run_dir/pid")
    for word in "$@"; do
        word=${word//'{port}'/$port}
        word=${word//'{lines}'/$lines}
        word=${word//'{line_bytes}'/$line_bytes}
        words+=("${word//'{connections}'/$connections}")
    done
    echo "rsyslog: port $port, workers ${RSYSLOG_WORKERS:-1}" >&2

    local cpu_before started ended cpu_after peak verified size hertz complete=1 generator_code=0
    cpu_before=$(cpu_ticks "$pid")
    started=$(date +%s.%N)
    "${words[@]}" </dev/null >&2 &
    generator=$!
    wait_for_lines "$run_dir" "$lines" "$line_bytes" "$generator" || complete=0
    wait "$generator" || generator_code=$?
    generator=
    ended=$(stat -c %.9Y "$file" 2>/dev/null || echo "$started")
    cpu_after=$(cpu_ticks "$pid")
    peak=$(awk '/^VmHWM/ { printf "%d", $2 / 1024 }' "/proc/$pid/status")
    hertz=$(getconf CLK_TCK)
    stop "$run_dir"
    verified=$(lines_in "$file" 2>/dev/null || echo 0)
    size=$(size_of "$file")

    echo "rsyslog: bytes $size, peak memory $peak MiB, generator's exit code $generator_code" >&2
    [[ ! -s $run_dir/messages ]] || sed 's/^/rsyslogd: /' "$run_dir/messages" >&2
    awk -v lines="$lines" -v from="$started" -v to="$ended" -v ticks=$((cpu_after - cpu_before)) -v hertz="$hertz" \
        -v verified="$verified" 'BEGIN {
            seconds = to - from
            printf "rsyslog lines=%d seconds=%.3f lines_per_second=%.0f cpu_seconds=%.2f verified_lines=%d\n",
                lines, seconds, (seconds > 0 ? verified / seconds : 0), ticks / hertz, verified
        }'
    ((complete == 1 && generator_code == 0 && verified == lines))
}

case "${1:-}:$#" in
start:2)
    start "$2"
    echo "$port"
    ;;
wait:4) wait_for_lines "$2" "$3" "$4" || die "the file no longer grows: $(lines_in "$2/out.log") of $3 lines" ;;
stop:2) stop "$2" ;;
[0-9]*)
    (($# >= 4)) || die "LINES LINE_BYTES CONNECTIONS GENERATOR_COMMAND..."
    measure "$@"
    ;;
*) sed -n '2,/^set -/{/^set -/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
