-- Notes that a revision of the admin rules was stored, unless a later one was.
--
-- KEYS[1]  key of the number
-- ARGV[1]  revision
local marked = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
if marked < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 1
