-- Sends what a file has, one request a line: path, a header's name, its value, a body; tabs between them.
-- Prints how many were sent, in how many microseconds, and how many failed.
local requests, at = {}, 0

function init(arguments)
  for line in io.lines(arguments[1]) do
    local path, header, value, body = line:match("^([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)$")
    local headers = {["Content-Type"] = "application/json"}
    if header ~= "" then headers[header] = value end
    requests[#requests + 1] = wrk.format(body == "" and "GET" or "POST", path, headers, body ~= "" and body or nil)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary)
  local errors = summary.errors
  local odd = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.stderr:write(string.format("%d %d %d\n", summary.requests, summary.duration, odd))
end
