-- Puts a tenant's applied state into its slot in parts. Until the last one the slot is nobody's: it has no generation,
-- so nothing is admitted and nothing applied.
-- KEYS: state, then for 'begin' holds, overlay, placed and the done keys that may be there, for 'part' the key it goes to
-- ARGV: epoch, token of this attempt, then
--   'begin', cursor, the done keys' hours, hours of an attempt before that are among them ('' for none)
--   'part', seconds the key lives ('' for ever), field, value, ...
--   'end', cursor, generation, topic id
-- Answers {'K'}, {'F', epoch} fenced, {'A', cursor} the slot is as far already, {'H', hours} of an attempt before, whose
-- keys must go too, {'G'} what was begun is lost.
local state, token, step = KEYS[1], ARGV[2], ARGV[3]
local slot = redis.call('HMGET', state, 'epoch', 'generation', 'cursor', 'restoring', 'hours')
if slot[1] and tonumber(slot[1]) > tonumber(ARGV[1]) then return {'F', slot[1]} end
if step == 'begin' then
  if slot[2] and (tonumber(slot[3]) or 0) >= tonumber(ARGV[4]) then return {'A', slot[3]} end
  if slot[5] and slot[5] ~= ARGV[5] and slot[5] ~= ARGV[6] then return {'H', slot[5]} end
  redis.call('UNLINK', unpack(KEYS))
  redis.call('HSET', state, 'epoch', ARGV[1], 'restoring', token, 'hours', ARGV[5])
  return {'K'}
end
if slot[4] ~= token then return {'G'} end
if step == 'part' then
  redis.call('HSET', KEYS[2], unpack(ARGV, 5))
  if ARGV[4] ~= '' then redis.call('EXPIRE', KEYS[2], ARGV[4]) end
else
  redis.call('HSET', state, 'cursor', ARGV[4], 'generation', ARGV[5], 'topic_id', ARGV[6], 'open', '0')
  redis.call('HDEL', state, 'restoring', 'hours')
end
return {'K'}
