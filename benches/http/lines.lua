-- wrk: one line of 200 bytes per POST. Use: wrk -t2 -c64 -d10s -s lines.lua http://127.0.0.1:9880/
-- The last line printed is for run.sh: RESULT requests=N microseconds=N not_2xx=N errors=N p50_us=N p99_us=N

wrk.method = "POST"
wrk.headers["Content-Type"] = "text/plain"
wrk.body = string.rep("a line of two hundred bytes ", 8):sub(1, 199) .. "\n"

function done(summary, latency, requests)
    local e = summary.errors
    print(string.format("RESULT requests=%d microseconds=%d not_2xx=%d errors=%d p50_us=%d p99_us=%d", summary.requests,
        summary.duration, e.status, e.connect + e.read + e.write + e.timeout, latency:percentile(50),
        latency:percentile(99)))
end
