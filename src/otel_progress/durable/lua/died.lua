-- Note how the process of an attempt died. ARGV: the attempt, how, whether what was in hand is blamed for it, seconds to keep.
local status, attempt = unpack(redis.call('HMGET', base, 'status', 'attempt'))
if attempt ~= ARGV[1] or (status ~= 'running' and status ~= 'lost') then
  return '[]'
end
local counted = '[]'
if status == 'running' then
  counted = empty_hands(ARGV[3] == '1')
end
redis.call('HSETNX', base, 'ended_at', now())
redis.call('HSET', base, 'status', 'lost', 'reason', ARGV[2], 'lease_until', 0)
keep(ARGV[4])
return counted
