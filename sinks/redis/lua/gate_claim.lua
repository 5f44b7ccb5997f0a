-- Takes ownership of a budgets partition: a new epoch fences every earlier owner.
-- KEYS: gate, tenants
-- Answers {epoch, generation, open, cursor, topic id, whether it is being rebuilt ('1'), tenants as name,
-- cursor, ...}; '' for what is not there.
local gate = redis.call('HMGET', KEYS[1], 'epoch', 'generation', 'open', 'cursor', 'topic_id', 'rebuilding')
local clock = redis.call('TIME')
-- From the clock, so that an epoch of before a loss is never given out again.
local epoch = math.max(clock[1] * 1000 + math.floor(clock[2] / 1000), (tonumber(gate[1]) or 0) + 1)
epoch = string.format('%.0f', epoch)
redis.call('HSET', KEYS[1], 'epoch', epoch)
return {epoch, gate[2] or '', gate[3] or '', gate[4] or '', gate[5] or '', gate[6] or '',
  redis.call('HGETALL', KEYS[2])}
