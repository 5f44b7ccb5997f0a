-- Takes ownership of the health partition.
-- KEYS: cursor   ARGV: topic id   Answers {epoch, cursor, topic id}; '' for what is not there.
local place = redis.call('HMGET', KEYS[1], 'epoch', 'cursor', 'topic_id')
local clock = redis.call('TIME')
local epoch = math.max(clock[1] * 1000 + math.floor(clock[2] / 1000), (tonumber(place[1]) or 0) + 1)
epoch = string.format('%.0f', epoch)
redis.call('HSET', KEYS[1], 'epoch', epoch)
return {epoch, place[2] or '', place[3] or ''}
