-- Whether there is room under a tenant's limits: what place.lua and extend.lua have in common; stands before each.
-- KEYS: state, holds, overlay, done (of the hold's hour), and what place.lua alone uses
-- ARGV: generation, hold id, overlay milliseconds, tombstone milliseconds, number of legs, then per leg: counter, amount,
--       limit. Amounts are texts of nano-units; a number is only ever compared: hard limits stay below 2^53 and soft
--       ones are 2^62, so a sum of non-negative doubles that leaves the exact range is above every hard limit, and above a
--       soft one only when it is (docs/decisions/0169); sums change by HINCRBY alone.
-- Answers {'C', why} when closed; else what follows answers.
-- Overlay: hold id to status, end of its time (milliseconds), space, body; hold id and + to what the log has yet to raise
-- the hold by; =counter to sum; ! to when it was last swept.
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
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Entries that were not pinned in time fall away and leave a tombstone, so that a late confirm refuses; a tombstone goes
-- when nobody can ask any more. Only a sweep drops, and until then the entry counts, so a confirm that is late but
-- earlier than the sweep is safe. Swept when room is missing, and now and then so that nothing piles up. What was swept
-- or would end later than anything placed now is of before a step back of the clock, and waits for no time to come again.
local function sweep()
  local since = now - (tonumber(waiting[2]) or 0)
  if since >= 0 and since < SWEEP_MILLIS then return end
  local entries = redis.call('HGETALL', overlay)
  for at = 1, #entries, 2 do
    local old, status, till, its = entries[at], string.match(entries[at + 1], '^([od])(%d+) (.*)$')
    local ends = tonumber(till)
    if status and (ends <= now or (status == 'o' and ends > now + tonumber(ARGV[3]))) then
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

-- The first leg on which this more does not fit; a leg with none is not looked at.
local function lacking_now(more)
  for leg = 1, legs do
    if more[leg] and used(leg) + more[leg] > tonumber(ARGV[3 * leg + 5]) then return leg end
  end
end

local function lacking(more)
  if clock[2] % SWEEP_ONE_IN == 0 then sweep() end
  local leg = lacking_now(more)
  if leg then
    sweep()
    leg = lacking_now(more)
  end
  return leg
end

-- What a limit has left, as text.
local function remaining(leg)
  return string.format('%.0f', math.max(0, tonumber(ARGV[3 * leg + 5]) - used(leg)))
end

