-- Decides requests one after the other, all in one atomic step.
--
-- KEYS     the counters' keys, each once
-- ARGV[1]  when it is, in µs since the epoch; '' asks this server's clock
-- ARGV[2]  for how many ms a key is kept beyond its expiry: 0, but in tests
-- ARGV[3]  the checks in order, 6 bytes each: the program, flags, which of KEYS
--          and which of ARGV (high byte first, counting from 1)
-- ARGV[4…] what to check, as doubles: the hits, what denied hits do, when hits
--          are no longer given back (µs since the epoch; 0 for never), and the
--          numbers of algo.Limit.AppendNumbers; equal ones once
--
-- Flags: 1 a request begins, 2 a descriptor begins, 4 the request is all or
-- nothing, 8 the descriptor is a shadow, 16 it is a quota.
--
-- Returns the time as a double, then for each check a byte, 1 if it fitted, and
-- what its program's reply says of the state that its descriptor left.
--
-- One check alone, which is what most calls are, is decided by one.lua, which
-- creates little; many.lua decides anything.
--
-- Any program has
--   params(numbers, at)  its parameters p, from the at-th byte of numbers
--   load(key, p)         the state s that the key holds, and whether it holds anything
--   settle, charge, refund(s, p, n), fits(s, p, n), left(s, p), expiry(s, p)
--                        as in internal/algo; a state is never changed in place
--   store(key, s, p, expiry)
--   reply(s, p, n)       the state as internal/backend/redis/reply.go reads it

now = tonumber(ARGV[1])
if not now then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end
hold = tonumber(ARGV[2])

local COUNT, DRAIN = 1, 3

-- parse returns what to check: the hits, what denied hits do, how many hits must
-- fit for the check to do so (a look needs room for one or, when denied hits
-- count, the limit not to be exceeded), and the program with its parameters.
local function parse(kind, numbers)
  local hits, denied, before, at = unpack('<ddd', numbers)
  if hits < 0 and before > 0 and now >= before then hits = 0 end
  local needed = hits
  if hits == 0 and denied ~= COUNT then needed = 1 end
  local program = program(kind)
  return { hits = hits, denied = denied, needed = needed, program = program, p = program.params(numbers, at) }
end

-- step decides one check that stands alone, of a settled state: algo.Limit.Step,
-- but for a shadow. It returns the state and whether the check fitted.
local function step(c, s, shadow)
  local program, p, hits = c.program, c.p, c.hits
  if hits < 0 then return program.refund(s, p, -hits), true end
  if program.fits(s, p, c.needed) then
    if hits > 0 then s = program.charge(s, p, hits) end
    return s, true
  end
  if hits > 0 and not shadow then
    if c.denied == COUNT then
      s = program.charge(s, p, hits)
    elseif c.denied == DRAIN then
      local left = program.left(s, p)
      if left > 0 then s = program.charge(s, p, left) end
    end
  end
  return s, false
end

-- answer returns what is said of a check.
local function answer(c, s, fitted)
  return (fitted and '\1' or '\0') .. c.program.reply(s, c.p, c.needed)
end

-- same compares states, which are lists of numbers and of such lists.
local function same(x, y)
  for i = 1, #x do
    if x[i] ~= y[i] and not (type(x[i]) == 'table' and same(x[i], y[i])) then return false end
  end
  return #x == #y
end

-- finish keeps the state that checks left behind, unless it is as it was.
local function finish(key, c, s, stored, there)
  local expiry = c.program.expiry(s, c.p)
  if expiry > now then
    if not same(s, stored) then c.program.store(key, s, c.p, expiry) end
  elseif there then
    call('DEL', key)
  end
end

local plan = ARGV[3]
