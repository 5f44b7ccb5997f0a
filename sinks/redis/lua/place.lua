-- Adds a hold to the overlay of holds that the log has not confirmed, iff every leg fits. Follows room.lua.
-- KEYS after those of room.lua: refused (of the hold's minute); ARGV after its: how long a refusal is remembered and how
-- old the hold id is by the clock of whoever asks, milliseconds. A refusal holds nothing, so it is kept for as long as an
-- attempt may be asked for again: a caller who is refused all day takes no room that others need.
-- Answers {'P'} placed, {'R', leg, remaining} refused, {'C', why} closed, {'X', field} conflict.

-- The first field in which two bodies differ.
local function difference(known)
  local ours, theirs = string.gmatch(body, '%S+'), string.gmatch(known, '%S+')
  local fields = {'limit_id', 'currency', 'window_start', 'window_end'}
  while true do
    local a, b = ours(), theirs()
    if not a or not b then return 'legs' end
    if a ~= b then
      local x, y, at = string.gmatch(a, '[^|]+'), string.gmatch(b, '[^|]+'), 0
      while true do
        at = at + 1
        if x() ~= y() then return fields[at] or 'legs' end
      end
    end
    if ours() ~= theirs() then return 'amount_nano' end
  end
end

-- The same id again: the same answer, or a conflict.
local known = waiting[1] and string.match(waiting[1], ' (.*)$') or redis.call('HGET', holds, hold)
if known then
  if known == body then return {'P'} end
  return {'X', difference(known)}
end
local ended = redis.call('HGET', done, hold)
if ended then
  if string.sub(ended, 2, 9) ~= string.sub(redis.sha1hex(body), 1, 8) then return {'X', 'legs'} end
  return {'P'}
end
local refused, remembered = KEYS[6], ARGV[3 * legs + 6]
local before = redis.call('HGET', refused, hold)
if before then
  local digest, leg, left = string.match(before, '^(%x+) (%d+) (%d+)$')
  if digest ~= string.sub(redis.sha1hex(body), 1, 8) then return {'X', 'legs'} end
  return {'R', leg, left}
end

local made = tonumber(string.sub(hold, 1, 8) .. string.sub(hold, 10, 13), 16) or 0
if made < now - tonumber(ARGV[4]) or tonumber(ARGV[3 * legs + 7]) > tonumber(remembered) then return {'C', 'old'} end

local more = {}
for leg = 1, legs do more[leg] = tonumber(ARGV[3 * leg + 4]) end
local leg = lacking(more)
if leg then
  local left = remaining(leg)
  redis.call('HSET', refused, hold, string.sub(redis.sha1hex(body), 1, 8) .. ' ' .. leg .. ' ' .. left)
  redis.call('PEXPIRE', refused, remembered)
  return {'R', tostring(leg), left}
end
for each = 1, legs do
  if ARGV[3 * each + 4] ~= '0' then redis.call('HINCRBY', overlay, '=' .. ARGV[3 * each + 3], ARGV[3 * each + 4]) end
end
redis.call('HSET', overlay, hold, 'o' .. string.format('%.0f', now + tonumber(ARGV[3])) .. ' ' .. body)
redis.call('RPUSH', placed, hold)
return {'P'}
