-- Let an operation expire whose lease is over, as its process may be dead. ARGV: seconds to keep.
local status, till = unpack(redis.call('HMGET', base, 'status', 'lease_until'))
if status == 'running' and tonumber(till) < now() and redis.call('TTL', base) < 0 then
  keep(ARGV[1])
end
