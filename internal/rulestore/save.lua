-- Replaces the admin rules if they are still those that the caller knows.
--
-- KEYS[1]  hash with the fields token, which tells sets apart, and set
-- ARGV[1]  token of the set that is to be replaced; empty: there is none
-- ARGV[2]  token of the new set
-- ARGV[3]  the new set, as JSON
-- ARGV[4]  1 if the caller could not read what is there: a set is kept in the
--          field unusable, and a key that is no hash is replaced
--
-- Returns 1 if it is stored, 0 if the rules are others.
local token = redis.pcall('HGET', KEYS[1], 'token') or ''
if type(token) == 'table' then -- an error: it is no hash
  if ARGV[1] ~= '' or ARGV[4] ~= '1' then
    return 0
  end
  redis.call('DEL', KEYS[1])
  token = ''
end
if token ~= ARGV[1] then
  return 0
end
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[1], 'unusable', redis.call('HGET', KEYS[1], 'set') or '')
end
redis.call('HSET', KEYS[1], 'token', ARGV[2], 'set', ARGV[3])
return 1
