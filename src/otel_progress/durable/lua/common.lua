-- What the scripts share. KEYS[1] is the hash of the operation; all other keys begin with its name.
local base = KEYS[1]
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local function each(list, size, call)
  for from = 1, #list, size do
    call(unpack(list, from, math.min(from + size - 1, #list)))
  end
end
local function items(path)
  return base .. ':done:' .. path, base .. ':failed:' .. path
end
local function forget(path)
  local done, failed = items(path)
  redis.call('DEL', done, failed)
  redis.call('HDEL', base .. ':scopes', path)
  redis.call('HDEL', base .. ':hands', path)
  redis.call('HDEL', base .. ':states', 'state:' .. path, 'result:' .. path, 'order:' .. path)
end
-- Nothing is in hand any more. Returns scope, key and number of deaths of each key that is blamed, as JSON.
local function empty_hands(blamed)
  local counted = {}
  local hands = redis.call('HGETALL', base .. ':hands')
  for at = 1, #hands, 2 do
    for _, item in ipairs(blamed and cjson.decode(hands[at + 1]) or {}) do
      local deaths = redis.call('HINCRBY', base .. ':deaths', hands[at] .. '\0' .. item, 1)
      counted[#counted + 1] = {hands[at], item, deaths}
    end
  end
  redis.call('DEL', base .. ':hands')
  return cjson.encode(counted)
end
local function each_key(call)
  for _, path in ipairs(redis.call('HKEYS', base .. ':scopes')) do
    local done, failed = items(path)
    call(done)
    call(failed)
  end
  for _, part in ipairs({'', ':scopes', ':states', ':hands', ':deaths', ':aside'}) do
    call(base .. part)
  end
end
local function keep(seconds)
  each_key(function(key) redis.call('EXPIRE', key, seconds) end)
end
-- What runs never expires: a server whose clock jumps would delete what a process holds.
local function persist()
  if redis.call('TTL', base) >= 0 then
    each_key(function(key) redis.call('PERSIST', key) end)
  end
end
