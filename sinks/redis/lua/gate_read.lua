-- What a gateway needs of a partition's gate.
-- KEYS: gate   Answers {generation, open, milliseconds since everything acknowledged by then was applied}.
local gate = redis.call('HMGET', KEYS[1], 'generation', 'open', 'applied_at_millis')
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
return {gate[1] or '', gate[2] or '', string.format('%.0f', now - (tonumber(gate[3]) or 0))}
