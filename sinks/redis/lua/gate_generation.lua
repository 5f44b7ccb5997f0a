-- Begins a generation of a budgets partition, closed. Unique for ever: the server's run id and its clock.
-- KEYS: gate, tenants   ARGV: epoch, run id, cursor, topic id, whether the slots are made
-- anew ('1', or ''): until gate_write ends that, nobody goes on from what they say
-- Answers {'K', generation}, {'F', epoch} fenced.
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'generation')
if gate[1] and tonumber(gate[1]) > tonumber(ARGV[1]) then return {'F', gate[1]} end
local clock = redis.call('TIME')
local number = clock[1] * 1000 + math.floor(clock[2] / 1000)
local last = tonumber(string.match(gate[2] or '', ':(%d+)$')) or 0
local generation = ARGV[2] .. ':' .. string.format('%.0f', math.max(number, last + 1))
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'generation', generation, 'open', '0', 'cursor', ARGV[3],
  'topic_id', ARGV[4], 'applied_at_millis', '0', 'rebuilding', ARGV[5], 'read', ARGV[3])
return {'K', generation}
