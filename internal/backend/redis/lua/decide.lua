-- Decides requests one after the other, all in one atomic step.
--
-- KEYS     the counters' keys, each once
-- ARGV[1]  when it is, in µs since the epoch; '' asks this server's clock
-- ARGV[2]  for how many ms a key is kept beyond its expiry: 0, but in tests
-- ARGV[3]  the plan, 6 bytes an entry: flags, which of KEYS and which of ARGV (high
--          byte first, counting from 1), and how often
-- ARGV[4…] what to check: the program in a byte, and as doubles the hits, what
--          denied hits do, when hits are no longer given back (µs since the
--          epoch; 0 for never), and the numbers of algo.Limit.AppendNumbers and
--          AppendBoundaries; equal ones once; of a limit that holds, three more
--          before those: 1 if the check settles, and the halves of its request's ID
--
-- Flags: 1 a request begins, 2 a descriptor begins, 4 the request is all or
-- nothing, 8 the check is in shadow mode, 16 the descriptor is a quota, 32 the
-- request is this one check, and as many equal ones follow at once as the entry
-- says.
--
-- Returns the time as a double. If boundaries are not those around it, nothing is
-- decided, and that is all. Else there follows what internal/backend/redis/reply.go
-- reads: for each entry with flag 32 the state that it found, as its program's reply
-- says it, from which the decisions follow; for any other entry, and for a program that
-- cannot say its state, a byte, 1 if it fitted, and the state that was left.
--
-- Any program has
--   params(numbers, at)  its parameters p, from the at-th byte of numbers
--   load(key, p)         the state s that the key holds, and whether it holds anything
--   settle, charge, refund(s, p, n), fits(s, p, n), left(s, p), expiry(s, p)
--                        as in internal/algo; a state is never changed in place
--   store(key, s, p, expiry, stored)
--   reply(s, p, n)       the state as internal/backend/redis/reply.go reads it
--   partial              if that does not say all of it
--
-- hold also has
--   holds(s, p)          whether the request of the check holds anything
--   spend(s, p, n)       charges what a denied call does, where charge would hold it

now = tonumber(ARGV[1])
local time = call('TIME')
real = time[1] * 1000000 + time[2]
now = now or real
hold = tonumber(ARGV[2])

local COUNT, DRAIN = 1, 3

-- checks[arg] is what to check: the hits, what denied hits do, how many hits must
-- fit for the check to do so (a look needs room for one or, when denied hits count
-- and the limit is not 0, the limit not to be exceeded), and the program with its
-- parameters. back: it gives back, or settles, which needs no room and is done
-- whatever else is refused.
local checks = {}
for arg = 4, #ARGV do
  local kind, hits, denied, before, at = unpack('<Bddd', ARGV[arg])
  if hits < 0 and before > 0 and now >= before then hits = 0 end
  local program = program(kind)
  local p, needed = program.params(ARGV[arg], at), hits
  if hits == 0 and (denied ~= COUNT or p.limit == 0) then needed = 1 end
  local settles = p.settles
  checks[arg] = {
    hits = hits, denied = denied, needed = needed, program = program, p = p,
    looks = hits == 0 and not settles, back = hits < 0 or settles, settles = settles, spend = program.spend or program.charge,
  }
end

-- By key: the state, the check whose limit it is settled by, the state as it was
-- stored, whether the key is there, and the last check that may have changed it.
local state, settled_by, stored, there, changed = {}, {}, {}, {}, {}
local places, answers, said = {}, {}, 0 -- said: the number of answers

local plan = ARGV[3]

-- current returns the state of the key, settled by the check's own limit.
local function current(c, k)
  local s = state[k]
  if not s then
    s, there[k] = c.program.load(KEYS[k], c.p)
    state[k], stored[k] = s, s
  elseif settled_by[k] == c then
    return s
  end
  return c.program.settle(s, c.p)
end

local function keep(c, k, s)
  if not changed[k] then places[#places + 1] = k end
  state[k], settled_by[k], changed[k] = s, c, c
end

-- answer adds what is said of a check.
local function answer(c, s, fitted)
  answers[said + 1] = fitted and '\1' or '\0'
  answers[said + 2] = c.program.reply(s, c.p, c.needed)
  said = said + 2
end

-- flag reports whether the bits have the flag.
local function flag(bits, value) return bits % (value + value) >= value end

-- run decides requests of one check each, all alike: algo.Limit.Step. Hits that
-- fit one after the other do so at once, and so do those that are charged for
-- being denied.
local function run(c, k, count)
  local program, p, hits = c.program, c.p, c.hits
  local s, fitted = current(c, k), 0
  if not program.partial then
    said = said + 1
    answers[said] = program.reply(s, p)
  end
  if c.back then
    if not c.settles or program.holds(s, p) then fitted = count end
    s = program.refund(s, p, -hits)
  elseif hits == 0 then
    if program.partial then answer(c, s, program.fits(s, p, c.needed)) end
    return
  else
    if count > 1 then
      fitted = max(0, min(floor(program.left(s, p) / hits), count))
    elseif program.fits(s, p, hits) then
      fitted = 1
    end
    if fitted > 0 then s = program.charge(s, p, fitted * hits) end
    if fitted < count then
      if c.denied == COUNT then
        s = c.spend(s, p, (count - fitted) * hits)
      elseif c.denied == DRAIN then
        local left = program.left(s, p)
        if left > 0 then s = c.spend(s, p, left) end
      end
    end
  end
  if program.partial then answer(c, s, fitted == count) end
  keep(c, k, s)
end
