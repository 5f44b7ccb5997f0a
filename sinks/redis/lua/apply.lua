-- Applies one tenant's events of a batch to its slot: the rule of processors/budgets/fold.py, and the cursor with it.
-- KEYS: state, holds, overlay, then the done keys of the holds' hours
-- ARGV: epoch, generation, open for a new slot ('0' or '1'), cursor the sink believes in, next cursor, topic id,
--       tombstone seconds, events as MessagePack: {offset, kind, hold id, index of its done key, {counter, amount, ...}}
--       with counters and amounts as texts; '1' when they lie below the cursor, set aside until now: each is applied
--       once, which the slot remembers.
-- Answers {'K', cursor}, {'F', epoch} fenced, {'G', cursor} gap, {'N', generation} other generation.
local state, holds, overlay = KEYS[1], KEYS[2], KEYS[3]
local slot = redis.call('HMGET', state, 'epoch', 'generation', 'cursor')
local epoch, believed, following = tonumber(ARGV[1]), tonumber(ARGV[4]), tonumber(ARGV[5])
if slot[1] and tonumber(slot[1]) > epoch then return {'F', slot[1]} end
local cursor = tonumber(slot[3]) or 0
if cursor < believed then return {'G', string.format('%.0f', cursor)} end
if not slot[2] then
  redis.call('HSET', state, 'generation', ARGV[2], 'open', ARGV[3], 'topic_id', ARGV[6])
elseif slot[2] ~= ARGV[2] then
  return {'N', slot[2]}
end

local function add(key, field, amount, keep)
  if amount == '0' or amount == '-0' then return end
  if redis.call('HINCRBY', key, field, amount) == 0 and not keep then redis.call('HDEL', key, field) end
end

local function each(body, act)
  for counter, amount in string.gmatch(body, '(%S+) (%d+)') do act(counter, amount) end
end

local function text(legs) return table.concat(legs, ' ') end

local function post(legs)
  for i = 1, #legs, 2 do add(state, 'p:' .. legs[i], legs[i + 1], true) end
end

local function digest(body) return string.sub(redis.sha1hex(body), 1, 8) end

-- Whether the hold was in the overlay, not dropped; it leaves it.
local function leave_overlay(hold)
  local entry = redis.call('HGET', overlay, hold)
  if not entry or string.sub(entry, 1, 1) == 'd' then return false end
  each(string.match(entry, ' (.*)$'), function(counter, amount) add(overlay, '=' .. counter, '-' .. amount) end)
  redis.call('HDEL', overlay, hold)
  return true
end

local function seen(hold, done)
  local ended = redis.call('HGET', done, hold)
  return redis.call('HEXISTS', holds, hold) == 1 or (ended and string.sub(ended, 1, 1) ~= 'f')
end

local function place(hold, legs, done)
  -- What was in the overlay can't have been applied before: place looks first, and this takes it out.
  if not leave_overlay(hold) and seen(hold, done) then return end
  for i = 1, #legs, 2 do add(state, 'h:' .. legs[i], legs[i + 1]) end
  redis.call('HSET', holds, hold, text(legs))
end

local function extend(hold, body, legs)
  local asked, after = {}, {}
  for i = 1, #legs, 2 do asked[legs[i]] = legs[i + 1] end
  each(body, function(counter, amount)
    local new = asked[counter]
    -- Texts of non-negative integers: the longer is the larger, then the later in order.
    if new and (#new > #amount or (#new == #amount and new > amount)) then
      add(state, 'h:' .. counter, new)
      add(state, 'h:' .. counter, '-' .. amount)
      amount = new
    end
    after[#after + 1] = counter
    after[#after + 1] = amount
  end)
  redis.call('HSET', holds, hold, text(after))
end

local function resolve(kind, hold, body, legs, done)
  each(body, function(counter, amount) add(state, 'h:' .. counter, '-' .. amount) end)
  redis.call('HDEL', holds, hold)
  local ended = (kind == 'COMMITTED' and 'c' or kind == 'RELEASED' and 'r' or 'x') .. digest(body)
  if kind ~= 'RELEASED' then post(legs) end
  if kind == 'EXPIRED' then ended = ended .. ' ' .. text(legs) end
  redis.call('HSET', done, hold, ended)
end

local function commit_late(hold, legs, done)
  local ended = redis.call('HGET', done, hold)
  if not ended or string.sub(ended, 1, 1) ~= 'x' then return end
  each(string.sub(ended, 11), function(counter, amount) add(state, 'p:' .. counter, '-' .. amount, true) end)
  post(legs)
  redis.call('HSET', done, hold, 'c' .. string.sub(ended, 2, 9))
end

local function due(offset)
  if ARGV[9] ~= '1' then return offset >= cursor end
  return redis.call('HSETNX', state, 'r:' .. string.format('%.0f', offset), '1') == 1
end

for _, event in ipairs(cmsgpack.unpack(ARGV[8])) do
  local kind, hold, legs = event[2], event[3], event[5]
  local done = KEYS[3 + event[4]]
  if due(event[1]) then
    if kind == 'PLACED' then
      place(hold, legs, done)
    else
      local body = redis.call('HGET', holds, hold)
      if body and kind == 'EXTENDED' then
        extend(hold, body, legs)
      elseif body then
        resolve(kind, hold, body, legs, done)
      elseif kind == 'COMMITTED' then
        commit_late(hold, legs, done)
      end
    end
  end
end
for index = 4, #KEYS do redis.call('EXPIRE', KEYS[index], string.format('%.0f', tonumber(ARGV[7]) + 3600)) end
if following > cursor then cursor = following end
cursor = string.format('%.0f', cursor)
redis.call('HSET', state, 'cursor', cursor, 'epoch', ARGV[1])
return {'K', cursor}
