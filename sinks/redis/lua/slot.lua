-- Claims, opens or closes one tenant's slot; another generation empties its overlay: pins and tombstones count under the
-- generation they were made in, and every confirmed hold's PLACED is in the log before the barrier.
-- KEYS: state, overlay, placed
-- ARGV: epoch, generation ('' leaves it), open ('0', '1', '' leaves it), topic id, cursor of a new slot ('' makes none)
-- Answers {'K', cursor ('' when there is no slot), generation ('restoring' for one that is half restored)},
-- {'F', epoch} fenced.
local slot = redis.call('HMGET', KEYS[1], 'epoch', 'generation', 'cursor', 'restoring')
if slot[1] and tonumber(slot[1]) > tonumber(ARGV[1]) then return {'F', slot[1]} end
if slot[4] then return {'K', '', 'restoring'} end
if not slot[2] then
  if ARGV[5] == '' then return {'K', '', ''} end
  slot[2], slot[3] = '', ARGV[5]
  redis.call('HSET', KEYS[1], 'cursor', ARGV[5], 'topic_id', ARGV[4], 'generation', ARGV[2], 'open', '0')
end
if ARGV[2] ~= '' and ARGV[2] ~= slot[2] then
  redis.call('UNLINK', KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[1], 'generation', ARGV[2])
  slot[2] = ARGV[2]
end
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'open', ARGV[3]) end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
return {'K', slot[3], slot[2]}
