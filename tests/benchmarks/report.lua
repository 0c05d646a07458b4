-- Prepares the requests, and prints the run as one line of JSON.
-- Arguments: method, bytes of the request body, how many connections to call in turn, steps from one to the next.
-- There is no `response` function, which would slow wrk down. wrk counts a status above 399 as an error of status and
-- an answer that takes longer than 2 s as a time-out; times are in microseconds.
local prepared, turn = {}, 0

function init(arguments)
  local size, selected, step = tonumber(arguments[2]), tonumber(arguments[3]), tonumber(arguments[4])
  wrk.method = arguments[1]
  if size > 0 then wrk.body = string.rep("x", size) end
  if selected == 1 then return end
  for number = 1, selected do
    local path = string.gsub(wrk.path, "/c0/", "/c" .. (number - 1) * step .. "/")
    prepared[number] = wrk.format(nil, path)
  end
  request = function()
    turn = turn % selected + 1
    return prepared[turn]
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "bytes": %d, "refused": %d, "broken": %d, "p50": %d, "p99": %d}\n',
    summary.requests, summary.duration, summary.bytes, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
