-- Keeps the last closed window of each provider, model and region, and the cursor of the health partition.
-- KEYS: cursor, index, then one hash per event
-- ARGV: epoch, cursor the sink believes in, next cursor, topic id, events as MessagePack: {offset, name, window end, {field, value, ...}}
-- Answers {'K', cursor}, {'F', epoch} fenced, {'G', cursor} gap.
local place = redis.call('HMGET', KEYS[1], 'epoch', 'cursor')
if place[1] and tonumber(place[1]) > tonumber(ARGV[1]) then return {'F', place[1]} end
local cursor = tonumber(place[2]) or 0
if cursor < tonumber(ARGV[2]) then return {'G', string.format('%.0f', cursor)} end
for index, event in ipairs(cmsgpack.unpack(ARGV[5])) do
  local key = KEYS[2 + index]
  if event[1] >= cursor and event[3] >= (tonumber(redis.call('HGET', key, 'window_end')) or 0) then
    redis.call('HSET', key, unpack(event[4]))
    redis.call('SADD', KEYS[2], event[2])
  end
end
cursor = string.format('%.0f', math.max(cursor, tonumber(ARGV[3])))
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'cursor', cursor, 'topic_id', ARGV[4])
return {'K', cursor}
