-- wrk: as lines.lua, but 16 requests are sent at once and all their answers awaited (HTTP pipelining).

wrk.method = "POST"
wrk.headers["Content-Type"] = "text/plain"
wrk.body = string.rep("a line of two hundred bytes ", 8):sub(1, 199) .. "\n"

local depth, batch = 16, nil

function init(args)
    local requests = {}
    for i = 1, depth do
        requests[i] = wrk.format()
    end
    batch = table.concat(requests)
end

function request()
    return batch
end

function done(summary, latency, requests)
    local e = summary.errors
    print(string.format("RESULT requests=%d microseconds=%d not_2xx=%d errors=%d", summary.requests, summary.duration,
        e.status, e.connect + e.read + e.write + e.timeout))
end
