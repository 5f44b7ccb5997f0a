-- Adds a hold to the overlay of holds that the log has not confirmed, iff every leg fits.
-- KEYS: state, holds, overlay, done (of the hold's hour)
-- ARGV: generation, hold id, overlay milliseconds, tombstone milliseconds, number of legs, then per leg: counter, amount,
--       limit. Amounts are texts of nano-units; a number is only ever compared: limits stay below 2^53, every sum of
--       non-negative doubles that leaves the exact range is above every limit, and sums change by HINCRBY alone.
-- Answers {'P'} placed, {'R', leg, remaining} refused, {'C', why} closed, {'X', field} conflict.
-- Overlay: hold id to status, end of its time (milliseconds), space, body; =counter to sum; ! to when it was last swept.
local generation, hold, legs = ARGV[1], ARGV[2], tonumber(ARGV[5])
local state, holds, overlay, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local SWEEP_MILLIS, SWEEP_ONE_IN = 250, 1024
local names, pending = {'generation', 'open'}, {hold, '!'}
local body = {}
for leg = 1, legs do
  local counter = ARGV[3 * leg + 3]
  names[2 * leg + 1] = 'p:' .. counter
  names[2 * leg + 2] = 'h:' .. counter
  pending[leg + 2] = '=' .. counter
  body[2 * leg - 1] = counter
  body[2 * leg] = ARGV[3 * leg + 4]
end
body = table.concat(body, ' ')

local applied = redis.call('HMGET', state, unpack(names))
if not applied[1] then return {'C', 'tenant'} end
if applied[1] ~= generation then return {'C', 'generation'} end
if applied[2] ~= '1' then return {'C', 'rebuilding'} end
local waiting = redis.call('HMGET', overlay, unpack(pending))

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
        if x() ~= y() then return fields[at] or 'legs' end
      end
    end
    if ours() ~= theirs() then return 'amount_nano' end
  end
end

-- The same id again: the same answer, or a conflict.
local known = waiting[1] and string.match(waiting[1], ' (.*)$') or redis.call('HGET', holds, hold)
if known then
  if known == body then return {'P'} end
  return {'X', difference(known)}
end
local ended = redis.call('HGET', done, hold)
if ended then
  if string.sub(ended, 2, 9) ~= string.sub(redis.sha1hex(body), 1, 8) then return {'X', 'legs'} end
  local leg, remaining = string.match(ended, '^f%x+ (%d+) (%d+)$')
  if leg then return {'R', leg, remaining} end
  return {'P'}
end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local made = tonumber(string.sub(hold, 1, 8) .. string.sub(hold, 10, 13), 16) or 0
if made < now - tonumber(ARGV[4]) then return {'C', 'old'} end

-- Entries that were not pinned in time fall away and leave a tombstone, so that a late confirm refuses; a tombstone goes
-- when nobody can ask any more. Only a sweep drops, and until then the entry counts, so a confirm that is late but
-- earlier than the sweep is safe. Swept when room is missing, and now and then so that nothing piles up.
local function sweep()
  if now - (tonumber(waiting[2]) or 0) < SWEEP_MILLIS then return end
  local entries = redis.call('HGETALL', overlay)
  for at = 1, #entries, 2 do
    local old, status, till, its = entries[at], string.match(entries[at + 1], '^([od])(%d+) (.*)$')
    if status and tonumber(till) <= now then
      if status == 'o' then
        for counter, amount in string.gmatch(its, '(%S+) (%d+)') do
          if amount ~= '0' and redis.call('HINCRBY', overlay, '=' .. counter, '-' .. amount) == 0 then
            redis.call('HDEL', overlay, '=' .. counter)
          end
        end
        redis.call('HSET', overlay, old, 'd' .. string.format('%.0f', now + tonumber(ARGV[4])) .. ' ' .. its)
      else
        redis.call('HDEL', overlay, old)
      end
    end
  end
  redis.call('HSET', overlay, '!', string.format('%.0f', now))
  waiting = redis.call('HMGET', overlay, unpack(pending))
end

local function used(leg)
  return (tonumber(applied[2 * leg + 1]) or 0) + (tonumber(applied[2 * leg + 2]) or 0) + (tonumber(waiting[leg + 2]) or 0)
end

-- The first leg that does not fit.
local function lacking()
  for leg = 1, legs do
    if used(leg) + tonumber(ARGV[3 * leg + 4]) > tonumber(ARGV[3 * leg + 5]) then return leg end
  end
end

if clock[2] % SWEEP_ONE_IN == 0 then sweep() end
local leg = lacking()
if leg then
  sweep()
  leg = lacking()
end
if leg then
  local remaining = string.format('%.0f', math.max(0, tonumber(ARGV[3 * leg + 5]) - used(leg)))
  redis.call('HSET', done, hold, 'f' .. string.sub(redis.sha1hex(body), 1, 8) .. ' ' .. leg .. ' ' .. remaining)
  redis.call('PEXPIRE', done, string.format('%.0f', tonumber(ARGV[4]) + 3600000))
  return {'R', tostring(leg), remaining}
end
for each = 1, legs do
  if ARGV[3 * each + 4] ~= '0' then redis.call('HINCRBY', overlay, '=' .. ARGV[3 * each + 3], ARGV[3 * each + 4]) end
end
redis.call('HSET', overlay, hold, 'o' .. string.format('%.0f', now + tonumber(ARGV[3])) .. ' ' .. body)
return {'P'}
