-- Adds to the overlay what a standing hold is to hold more, iff it fits on every leg. Follows room.lua; amounts are those
-- it is to hold in all, and never lower what it holds. The same amounts again add nothing.
-- Time does not end what was added: it leaves when the log's EXTENDED raises the hold, or when the hold is resolved.
-- Answers {'P'} added, {'R', leg, remaining} refused, {'C', why} closed, {'N'} no such hold stands, {'X', field} conflict.
local entry = waiting[1]
local held = redis.call('HGET', holds, hold) or (entry and string.match(entry, '^p%d+ (.*)$'))
-- One that fell away is never confirmed, also when its PLACED was applied since.
if not held or (entry and string.sub(entry, 1, 1) == 'd') then return {'N'} end

local raised = redis.call('HGET', overlay, hold .. '+')
local before = string.gmatch(raised and string.match(raised, ' (.*)$') or '', '(%S+) (%d+)')
local more, after, grows, count = {}, {}, false, 0
for counter, amount in string.gmatch(held, '(%S+) (%d+)') do
  count = count + 1
  if counter ~= ARGV[3 * count + 3] then return {'X', 'legs'} end
  local _, waits = before()
  waits = tonumber(waits or '0')
  local lacks = tonumber(ARGV[3 * count + 4]) - tonumber(amount) - waits
  if lacks > 0 then
    more[count], waits, grows = lacks, waits + lacks, true
  end
  after[2 * count - 1] = counter
  after[2 * count] = string.format('%.0f', waits)
end
if count ~= legs then return {'X', 'legs'} end

local leg = lacking(more)
if leg then return {'R', tostring(leg), remaining(leg)} end
for each = 1, legs do
  if more[each] then
    redis.call('HINCRBY', overlay, '=' .. ARGV[3 * each + 3], string.format('%.0f', more[each]))
  end
end
if grows then redis.call('HSET', overlay, hold .. '+', 'e0 ' .. table.concat(after, ' ')) end
return {'P'}
