-- Tells how far a budgets partition is applied; also the heartbeat of its sink.
-- KEYS: gate, tenants
-- ARGV: epoch, generation, cursor, open ('0', '1', '' leaves it), applied-at milliseconds ('' leaves it), end offset,
--       whether the slots are still being made anew ('1', or ''), next offset to read, then tenant, cursor, ... that moved
-- Answers {'K', now milliseconds}, {'F', epoch} fenced, {'N', generation} other generation or none ('').
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'generation', 'cursor')
if gate[1] and tonumber(gate[1]) > tonumber(ARGV[1]) then return {'F', gate[1]} end
if gate[2] ~= ARGV[2] then return {'N', gate[2] or ''} end
if (tonumber(gate[3]) or 0) > tonumber(ARGV[3]) then return {'N', gate[2]} end
local lag = string.format('%.0f', math.max(0, tonumber(ARGV[6]) - tonumber(ARGV[3])))
redis.call('HSET', KEYS[1], 'cursor', ARGV[3], 'end_offset', ARGV[6], 'lag', lag, 'rebuilding', ARGV[7],
  'read', ARGV[8])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'open', ARGV[4]) end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'applied_at_millis', ARGV[5]) end
for index = 9, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[index], ARGV[index + 1]) end
local clock = redis.call('TIME')
return {'K', string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))}
