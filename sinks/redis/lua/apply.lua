-- Applies one tenant's events of a batch to its slot: the rule of processors/budgets/fold.py, and the cursor with it.
-- KEYS: state, holds, overlay, then the done keys of the holds' hours
-- ARGV: epoch, generation, open for a new slot ('0' or '1'), cursor the sink believes in, next cursor, topic id,
--       tombstone seconds, events as MessagePack: {offset, kind, hold id, index of its done key, {counter, amount, ...}}
--       with counters and amounts as texts; '1' when they lie below the cursor, set aside until now: each is applied
--       once, which the slot remembers.
-- Answers {'K', cursor}, {'F', epoch} fenced, {'G', cursor} gap, {'N', generation} other generation.
local state, holds, overlay = KEYS[1], KEYS[2], KEYS[3]
local slot = redis.call('HMGET', state, 'epoch', 'generation', 'cursor', 'swept', 'restoring', 'sweeping')
local epoch, believed, following = tonumber(ARGV[1]), tonumber(ARGV[4]), tonumber(ARGV[5])
if slot[1] and tonumber(slot[1]) > epoch then return {'F', slot[1]} end
local cursor = tonumber(slot[3]) or 0
-- A slot that is being restored is nobody's yet, whatever is in it.
if cursor < believed or slot[5] then return {'G', string.format('%.0f', cursor)} end
if not slot[2] then
  redis.call('HSET', state, 'generation', ARGV[2], 'open', ARGV[3], 'topic_id', ARGV[6])
elseif slot[2] ~= ARGV[2] then
  return {'N', slot[2]}
end

local events = cmsgpack.unpack(ARGV[8])

-- What is kept of these holds, read at once: body in holds, entry in the overlay, how it ended. Changes are made here and
-- written at the end, together: a hold placed and resolved by one call is never written to holds at all.
local function reader(key, names)
  local first, now = {}, {}
  if #names > 0 then
    for place, value in ipairs(redis.call('HMGET', key, unpack(names))) do
      first[names[place]], now[names[place]] = value, value
    end
  end
  return { key = key, first = first, now = now }
end

local function write(kept)
  local set, gone = {}, {}
  for hold, value in pairs(kept.now) do
    if value ~= kept.first[hold] then
      if value then
        set[#set + 1] = hold
        set[#set + 1] = value
      else
        gone[#gone + 1] = hold
      end
    end
  end
  if #set > 0 then redis.call('HSET', kept.key, unpack(set)) end
  if #gone > 0 then redis.call('HDEL', kept.key, unpack(gone)) end
end

local names, unconfirmed, by_done, done_of = {}, {}, {}, {}
for _, event in ipairs(events) do
  local hold, index = event[3], event[4]
  if not done_of[hold] then
    done_of[hold] = index
    names[#names + 1] = hold
    unconfirmed[#unconfirmed + 1] = hold
    unconfirmed[#unconfirmed + 1] = hold .. '+'
    by_done[index] = by_done[index] or {}
    table.insert(by_done[index], hold)
  end
end
local open_holds, entries, ends = reader(holds, names), reader(overlay, unconfirmed), {}
for index, of_done in pairs(by_done) do ends[index] = reader(KEYS[3 + index], of_done) end

-- Sums change by HINCRBY only. Changes of one field are added up first, as long as they are exact in a double.
local EXACT = 9000000000000000
local sums = { [state] = {}, [overlay] = {} }
local kept_at_zero = {}

local function change(key, field, amount)
  if redis.call('HINCRBY', key, field, string.format('%.0f', amount)) == 0 and not kept_at_zero[field] then
    redis.call('HDEL', key, field)
  end
end

local function add(key, field, amount, keep)
  if amount == '0' or amount == '-0' then return end
  if keep then kept_at_zero[field] = true end
  local number, before = tonumber(amount), sums[key][field] or 0
  if math.abs(number) + math.abs(before) > EXACT then
    change(key, field, before)
    before = 0
  end
  sums[key][field] = before + number
end

local function write_sums()
  for key, fields in pairs(sums) do
    for field, amount in pairs(fields) do
      if amount ~= 0 then change(key, field, amount) end
    end
  end
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
  local entry = entries.now[hold]
  if not entry or string.sub(entry, 1, 1) == 'd' then return false end
  each(string.match(entry, ' (.*)$'), function(counter, amount) add(overlay, '=' .. counter, '-' .. amount) end)
  entries.now[hold] = false
  return true
end

-- What the hold was to be raised by leaves the overlay: as much as it was raised by now (counter to number), or all of it.
local function leave_growth(hold, raised)
  local entry = entries.now[hold .. '+']
  if not entry then return end
  local rest, remains = {}, false
  each(string.match(entry, ' (.*)$'), function(counter, amount)
    local waits = tonumber(amount)
    local gone = raised and math.min(raised[counter] or 0, waits) or waits
    add(overlay, '=' .. counter, string.format('%.0f', -gone))
    remains = remains or gone < waits
    rest[#rest + 1] = counter
    rest[#rest + 1] = string.format('%.0f', waits - gone)
  end)
  entries.now[hold .. '+'] = remains and 'e0 ' .. text(rest)
end

local function seen(hold, done)
  return open_holds.now[hold] or done.now[hold]
end

local function place(hold, legs, done)
  -- What was in the overlay can't have been applied before: place looks first, and this takes it out.
  if not leave_overlay(hold) and seen(hold, done) then return end
  for i = 1, #legs, 2 do add(state, 'h:' .. legs[i], legs[i + 1]) end
  open_holds.now[hold] = text(legs)
end

local function extend(hold, body, legs)
  local asked, after, raised = {}, {}, {}
  for i = 1, #legs, 2 do asked[legs[i]] = legs[i + 1] end
  each(body, function(counter, amount)
    local new = asked[counter]
    -- Texts of non-negative integers: the longer is the larger, then the later in order.
    if new and (#new > #amount or (#new == #amount and new > amount)) then
      add(state, 'h:' .. counter, new)
      add(state, 'h:' .. counter, '-' .. amount)
      raised[counter] = tonumber(new) - tonumber(amount)
      amount = new
    end
    after[#after + 1] = counter
    after[#after + 1] = amount
  end)
  open_holds.now[hold] = text(after)
  leave_growth(hold, raised)
end

local function resolve(kind, hold, body, legs, done)
  each(body, function(counter, amount) add(state, 'h:' .. counter, '-' .. amount) end)
  open_holds.now[hold] = false
  leave_growth(hold)
  local ended = (kind == 'COMMITTED' and 'c' or kind == 'RELEASED' and 'r' or 'x') .. digest(body)
  if kind ~= 'RELEASED' then post(legs) end
  if kind == 'EXPIRED' then ended = ended .. ' ' .. text(legs) end
  done.now[hold] = ended
end

local function commit_late(hold, legs, done)
  local ended = done.now[hold]
  if not ended or string.sub(ended, 1, 1) ~= 'x' then return end
  each(string.sub(ended, 11), function(counter, amount) add(state, 'p:' .. counter, '-' .. amount, true) end)
  post(legs)
  done.now[hold] = 'c' .. string.sub(ended, 2, 9)
end

local function due(offset)
  if ARGV[9] ~= '1' then return offset >= cursor end
  return redis.call('HSETNX', state, 'r:' .. string.format('%.0f', offset), '1') == 1
end

for _, event in ipairs(events) do
  local kind, hold, legs = event[2], event[3], event[5]
  local done = ends[event[4]]
  if due(event[1]) then
    if kind == 'PLACED' then
      place(hold, legs, done)
    else
      local body = open_holds.now[hold]
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
-- What was posted in windows that ended long ago is the ledger's alone: nobody asks for their room any more. A sum that is
-- held still waits for its end. The server's own clock decides, whatever the clocks of gateways say. Nobody is admitted
-- while a script runs, and counters of a total never end: so each batch looks at some fields only, on from where the batch
-- before ended, until all were seen.
local SWEEP_SECONDS, FIELDS_AT_ONCE = 3600, 1000
local function sweep()
  local now, from = tonumber(redis.call('TIME')[1]), slot[6]
  if not from then
    if slot[4] and now - tonumber(slot[4]) < SWEEP_SECONDS then return end
    redis.call('HSET', state, 'swept', string.format('%.0f', now))
    if not slot[4] then return end
  end
  local over, gone = (now - 2 * tonumber(ARGV[7]) - SWEEP_SECONDS) * 1000000, {}
  local seen = redis.call('HSCAN', state, from or '0', 'MATCH', 'p:*', 'COUNT', FIELDS_AT_ONCE)
  for index = 1, #seen[2], 2 do
    local counter, ends = string.match(seen[2][index], '^p:(.*|(%d+))$')
    if ends and ends ~= '0' and tonumber(ends) < over and redis.call('HEXISTS', state, 'h:' .. counter) == 0 then
      gone[#gone + 1] = seen[2][index]
    end
  end
  if #gone > 0 then redis.call('HDEL', state, unpack(gone)) end
  if seen[1] ~= '0' then
    redis.call('HSET', state, 'sweeping', seen[1])
  elseif from then
    redis.call('HDEL', state, 'sweeping')
  end
end

write(entries)
write(open_holds)
for _, done in pairs(ends) do write(done) end
write_sums()
for index = 4, #KEYS do redis.call('EXPIRE', KEYS[index], string.format('%.0f', tonumber(ARGV[7]) + 3600)) end
if following > cursor then cursor = following end
cursor = string.format('%.0f', cursor)
redis.call('HSET', state, 'cursor', cursor, 'epoch', ARGV[1])
sweep()
return {'K', cursor}
