-- A sliding window of ten slices and the one that has begun, in one hash: slice
-- number -> requests. The oldest slice counts whole although a part of it is out
-- of the window already. So no window of the full length ever has more than the
-- limit, and a request is refused at most a tenth of the window too long.
--
-- KEYS[1]: the hash. ARGV: length of the window in ms, limit, cost.
-- Gives: 1 when it may go on, how many are left, ms until it may come again, ms
-- until nothing is counted any more.
--
-- The time is the server's, so that routers need not agree on theirs.
local slice = math.ceil(tonumber(ARGV[1]) / 10)
local limit, cost = tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local current = math.floor(now / slice)

local used, newest, slices = 0, 0, {}
local held = redis.call('HGETALL', KEYS[1])
for i = 1, #held, 2 do
  local at, count = tonumber(held[i]), tonumber(held[i + 1])
  if at < current - 10 then
    redis.call('HDEL', KEYS[1], held[i])
  else
    used = used + count
    newest = math.max(newest, at)
    slices[#slices + 1] = {at, count}
  end
end

if used + cost <= limit then
  redis.call('HINCRBY', KEYS[1], current, cost)
  redis.call('PEXPIRE', KEYS[1], slice * 12)
  return {1, limit - used - cost, 0, (math.max(newest, current) + 11) * slice - now}
end

table.sort(slices, function(a, b) return a[1] < b[1] end)
local over, again = used + cost - limit, 0
for _, of in ipairs(slices) do
  over = over - of[2]
  again = (of[1] + 11) * slice - now
  if over <= 0 then break end
end
return {0, math.max(limit - used, 0), again, (newest + 11) * slice - now}
