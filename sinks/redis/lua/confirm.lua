-- Pins a hold whose PLACED is acknowledged: from here only the sink removes it.
-- KEYS: state, holds, overlay, done (of the hold's hour)   ARGV: generation, hold id
-- Answers 'K' confirmed, 'G' other generation or closed, 'D' dropped, 'R' resolved already, 'U' unknown.
local slot = redis.call('HMGET', KEYS[1], 'generation', 'open')
if slot[1] ~= ARGV[1] or slot[2] ~= '1' then return 'G' end
local entry = redis.call('HGET', KEYS[3], ARGV[2])
if entry then
  local status = string.sub(entry, 1, 1)
  -- Dropped once is dropped for good, also when its PLACED was applied since: its room may have been given away between.
  if status == 'd' then return 'D' end
  if status == 'o' then redis.call('HSET', KEYS[3], ARGV[2], 'p' .. string.sub(entry, 2)) end
  return 'K'
end
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then return 'K' end
if redis.call('HEXISTS', KEYS[4], ARGV[2]) == 1 then return 'R' end
return 'U'
