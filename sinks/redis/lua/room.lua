-- Whether there is room under a tenant's limits: what place.lua and extend.lua have in common; stands before each.
-- KEYS: state, holds, overlay, placed, done (of the hold's hour), and what place.lua alone uses
-- ARGV: generation, hold id, overlay milliseconds, tombstone milliseconds, number of legs, then per leg: counter, amount,
--       limit. Amounts are texts of nano-units; a number is only ever compared: hard limits stay below 2^53 and soft
--       ones are 2^62, so a sum of non-negative doubles that leaves the exact range is above every hard limit, and above a
--       soft one only when it is (docs/decisions/0169); sums change by HINCRBY alone.
-- Answers {'C', why} when closed; else what follows answers.
-- Overlay: hold id to status, end of its time (milliseconds), space, body; hold id and + to what the log has yet to raise
-- the hold by; =counter to sum; ! to where the next look at its fields begins. Placed: hold ids in the order placed.
local generation, hold, legs = ARGV[1], ARGV[2], tonumber(ARGV[5])
local state, holds, overlay, placed, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local TIDY_ONE_IN, AT_ONCE = 16, 32
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
local waiting
local function look() waiting = redis.call('HMGET', overlay, unpack(pending)) end
look()
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Entries that were not pinned in time fall away and leave a tombstone, so that a late confirm refuses; a tombstone goes
-- when nobody can ask any more. Only here are entries dropped, and until then they count, so a confirm that is late but
-- earlier is safe. What would end later than anything placed now is of before a step back of the clock, and waits for no
-- time to come again.
local function drop(id, entry)
  local status, till, its = string.match(entry, '^([od])(%d+) (.*)$')
  local ends = tonumber(till)
  if not status or (ends > now and (status == 'd' or ends <= now + tonumber(ARGV[3]))) then return end
  if status == 'd' then return redis.call('HDEL', overlay, id) end
  for counter, amount in string.gmatch(its, '(%S+) (%d+)') do
    if amount ~= '0' and redis.call('HINCRBY', overlay, '=' .. counter, '-' .. amount) == 0 then
      redis.call('HDEL', overlay, '=' .. counter)
    end
  end
  return redis.call('HSET', overlay, id, 'd' .. string.format('%.0f', now + tonumber(ARGV[4])) .. ' ' .. its)
end

-- Looks at the holds placed first until one of them still has time: each is looked at once, however many wait. The server
-- does nothing else meanwhile, so what is not needed now is a slice at a time (docs/decisions/0177).
local function sweep(slices)
  repeat
    local ids = redis.call('LRANGE', placed, 0, AT_ONCE - 1)
    if #ids == 0 then return end
    local over = 0
    for at, entry in ipairs(redis.call('HMGET', overlay, unpack(ids))) do
      local waits = entry and string.sub(entry, 1, 1) == 'o' and not drop(ids[at], entry)
      if not waits and over == at - 1 then over = at end
    end
    redis.call('LTRIM', placed, over, -1)
    slices = slices - 1
  until over < #ids or slices == 0
end

-- Some fields of the overlay, on from where the call before ended: what no other way leads to, tombstones nearly all of it.
local function tidy()
  local seen = redis.call('HSCAN', overlay, waiting[2] or '0', 'COUNT', AT_ONCE)
  for at = 1, #seen[2], 2 do drop(seen[2][at], seen[2][at + 1]) end
  redis.call('HSET', overlay, '!', seen[1])
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
  if clock[2] % TIDY_ONE_IN == 0 then
    sweep(1)
    tidy()
    look()
  end
  local leg = lacking_now(more)
  if leg then
    sweep(math.huge)
    look()
    leg = lacking_now(more)
  end
  return leg
end

-- What a limit has left, as text.
local function remaining(leg)
  return string.format('%.0f', math.max(0, tonumber(ARGV[3 * leg + 5]) - used(leg)))
end

