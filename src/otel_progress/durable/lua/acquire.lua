-- Take an operation. ARGV: fields of the claim as JSON, the fence that was seen, whether its holder is gone, whether to
-- forget what was kept, seconds of the lease, whether what was in hand is blamed for a death.
local claim = cjson.decode(ARGV[1])
local time = now()
local status, fence, till = unpack(redis.call('HMGET', base, 'status', 'fence', 'lease_until'))
local gone = ARGV[3] == '1' and fence == ARGV[2]
if status == 'running' and tonumber(till) > time and not gone then
  return {'held', '0', '[]'}
end
local counted = '[]'
if status == 'running' then
  counted = empty_hands(ARGV[6] == '1')
end
if ARGV[4] == '1' then
  for _, path in ipairs(redis.call('HKEYS', base .. ':scopes')) do
    forget(path)
  end
  redis.call('DEL', base .. ':deaths', base .. ':aside')
end
local attempt = redis.call('HINCRBY', base, 'attempt', 1)
fence = redis.call('HINCRBY', base, 'fence', 1)
for field, value in pairs(claim) do
  redis.call('HSET', base, field, value)
end
redis.call('HDEL', base, 'reason', 'ended_at')
redis.call('HSET', base, 'status', 'running', 'started_at', time, 'seen_at', time, 'lease_until', time + ARGV[5])
persist()
return {tostring(attempt), tostring(fence), counted}
