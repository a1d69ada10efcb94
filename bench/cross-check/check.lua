-- For wrk: checks status and body of every answer, as weir-bench does.
--   wrk -s check.lua http://IP:PORT/ -- BYTES
local expected
local threads = {}
bad = 0

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local letters = {}
  for i = 0, tonumber(args[1]) - 1 do
    letters[#letters + 1] = string.char(97 + i % 26)
  end
  expected = table.concat(letters)
  wrk.headers["Host"] = "bench"
end

function response(status, _, body)
  if status ~= 200 or body ~= expected then
    bad = bad + 1
  end
end

function done(summary)
  local errors = summary.errors
  local all = errors.connect + errors.read + errors.write + errors.timeout
  for _, thread in ipairs(threads) do
    all = all + thread:get("bad")
  end
  print("checked: " .. summary.requests .. " requests, " .. all .. " bad")
end
