-- Write a batch. ARGV: the fence, the batch as JSON, seconds of the lease, seconds to keep once it ended.
local batch = cjson.decode(ARGV[2])
local time = now()
local status, fence = unpack(redis.call('HMGET', base, 'status', 'fence'))
if not fence then
  return 'deleted'
end
if fence ~= ARGV[1] then
  return 'lost'
end
if status ~= 'running' then
  return batch.ended and batch.ended[1] == status and 'again' or 'lost'  -- an answer that did not arrive
end
local suspects = redis.call('EXISTS', base .. ':deaths') == 1
for _, scope in ipairs(batch.scopes) do
  local path = scope.path
  local done, failed = items(path)
  redis.call('HSETNX', base .. ':scopes', path, 0)
  if scope.done then
    each(scope.done, 1000, function(...) redis.call('SADD', done, ...); redis.call('SREM', failed, ...) end)
    if suspects then
      for _, item in ipairs(scope.done) do
        redis.call('HDEL', base .. ':deaths', path .. '\0' .. item)
      end
    end
  end
  if scope.failed then
    each(scope.failed, 1000, function(...) redis.call('SADD', failed, ...); redis.call('SREM', done, ...) end)
  end
  if scope.hand then
    redis.call('HSET', base .. ':hands', path, scope.hand)
  end
end
for _, state in ipairs(batch.states) do
  redis.call('HSETNX', base .. ':scopes', state[1], 0)
  redis.call('HSET', base .. ':states', state[2] .. ':' .. state[1], state[3])
end
for _, prefix in ipairs(batch.closed) do
  for _, path in ipairs(redis.call('HKEYS', base .. ':scopes')) do
    if string.sub(path, 1, #prefix) == prefix then
      forget(path)
    end
  end
end
for field, value in pairs(batch.fields) do
  redis.call('HSET', base, field, value)
end
if batch.saves then
  redis.call('HSET', base, 'checkpoint_at', time)
end
redis.call('HSET', base, 'seen_at', time, 'lease_until', time + ARGV[3])
local answer = 'ok'
if batch.ended then
  if batch.died then
    answer = empty_hands(true)
  end
  redis.call('HSET', base, 'status', batch.ended[1], 'reason', batch.ended[2], 'ended_at', time, 'lease_until', 0)
  redis.call('DEL', base .. ':hands')
end
if batch.ended then
  keep(ARGV[4])
else
  persist()
end
return answer
