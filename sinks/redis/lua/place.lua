-- Adds a hold to the overlay of holds that the log has not confirmed, iff every leg fits.
-- KEYS: state, holds, overlay, leases, done (of the hold's hour)
-- ARGV: generation, hold id, overlay milliseconds, tombstone milliseconds, number of legs, then per leg: counter, amount,
--       limit. Amounts are texts of nano-units; a number is only ever compared: limits stay below 2^53, every sum of
--       non-negative doubles that leaves the exact range is above every limit, and sums change by HINCRBY alone.
-- Answers {'P'} placed, {'R', leg, remaining} refused, {'C', why} closed, {'X', field} conflict.
local generation, hold, legs = ARGV[1], ARGV[2], tonumber(ARGV[5])
local names, pending = {'generation', 'open'}, {hold}
local body = {}
for leg = 1, legs do
  local counter = ARGV[3 * leg + 3]
  names[2 * leg + 1] = 'p:' .. counter
  names[2 * leg + 2] = 'h:' .. counter
  pending[leg + 1] = '=' .. counter
  body[2 * leg - 1] = counter
  body[2 * leg] = ARGV[3 * leg + 4]
end
body = table.concat(body, ' ')

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Entries that were not pinned in time fall away and leave a tombstone, so that a late confirm refuses; a tombstone goes
-- when nobody can ask any more. A few per call keep the overlay swept without a sweeper.
local ended = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 32)
for _, old in ipairs(ended) do
  local entry = redis.call('HGET', KEYS[3], old)
  if entry and string.sub(entry, 1, 1) == 'o' then
    for counter, amount in string.gmatch(string.sub(entry, 2), '(%S+) (%d+)') do
      if amount ~= '0' and redis.call('HINCRBY', KEYS[3], '=' .. counter, '-' .. amount) == 0 then
        redis.call('HDEL', KEYS[3], '=' .. counter)
      end
    end
    redis.call('HSET', KEYS[3], old, 'd' .. string.sub(entry, 2))
    redis.call('ZADD', KEYS[4], string.format('%.0f', now + tonumber(ARGV[4])), old)
  else
    redis.call('HDEL', KEYS[3], old)
    redis.call('ZREM', KEYS[4], old)
  end
end

local applied = redis.call('HMGET', KEYS[1], unpack(names))
if not applied[1] then return {'C', 'tenant'} end
if applied[1] ~= generation then return {'C', 'generation'} end
if applied[2] ~= '1' then return {'C', 'rebuilding'} end

local overlay = redis.call('HMGET', KEYS[3], unpack(pending))

-- The first field in which two bodies differ.
local function difference(known)
  local ours, theirs = string.gmatch(body, '%S+'), string.gmatch(known, '%S+')
  local fields = {'limit_id', 'currency', 'window_start', 'window_end'}
  while true do
    local a, b = ours(), theirs()
    if not a or not b then return 'legs' end
    if a ~= b then
      local x, y, at = string.gmatch(a, '[^|]+'), string.gmatch(b, '[^|]+'), 0
      while true do
        at = at + 1
        local p, q = x(), y()
        if p ~= q then return fields[at] or 'legs' end
      end
    end
    if ours() ~= theirs() then return 'amount_nano' end
  end
end

-- The same id again: the same answer, or a conflict.
local known = overlay[1] and string.sub(overlay[1], 2) or redis.call('HGET', KEYS[2], hold)
if known then
  if known == body then return {'P'} end
  return {'X', difference(known)}
end
local done = redis.call('HGET', KEYS[5], hold)
if done then
  if string.sub(done, 2, 9) ~= string.sub(redis.sha1hex(body), 1, 8) then return {'X', 'legs'} end
  local leg, remaining = string.match(done, '^f%x+ (%d+) (%d+)$')
  if leg then return {'R', leg, remaining} end
  return {'P'}
end
local made = tonumber(string.sub(hold, 1, 8) .. string.sub(hold, 10, 13), 16) or 0
if made < now - tonumber(ARGV[4]) then return {'C', 'old'} end

for leg = 1, legs do
  local used = (tonumber(applied[2 * leg + 1]) or 0) + (tonumber(applied[2 * leg + 2]) or 0) + (tonumber(overlay[leg + 1]) or 0)
  local limit = tonumber(ARGV[3 * leg + 5])
  if used + tonumber(ARGV[3 * leg + 4]) > limit then
    local remaining = string.format('%.0f', math.max(0, limit - used))
    redis.call('HSET', KEYS[5], hold, 'f' .. string.sub(redis.sha1hex(body), 1, 8) .. ' ' .. leg .. ' ' .. remaining)
    redis.call('PEXPIRE', KEYS[5], string.format('%.0f', tonumber(ARGV[4]) + 3600000))
    return {'R', tostring(leg), remaining}
  end
end
for leg = 1, legs do
  if ARGV[3 * leg + 4] ~= '0' then redis.call('HINCRBY', KEYS[3], '=' .. ARGV[3 * leg + 3], ARGV[3 * leg + 4]) end
end
redis.call('HSET', KEYS[3], hold, 'o' .. body)
redis.call('ZADD', KEYS[4], string.format('%.0f', now + tonumber(ARGV[3])), hold)
return {'P'}
