-- Note how the process of an attempt died. ARGV: the attempt, how.
local status, attempt = unpack(redis.call('HMGET', base, 'status', 'attempt'))
if attempt ~= ARGV[1] or (status ~= 'running' and status ~= 'lost') then
  return 0
end
if status == 'running' then
  count_deaths()
end
redis.call('HSETNX', base, 'ended_at', now())
return redis.call('HSET', base, 'status', 'lost', 'reason', ARGV[2], 'lease_until', 0)
