-- Decides any number of checks, by the definition of
-- internal/backend/backendtest/reference.go.

-- By place, which is a key under a program: the key, the state, the check whose
-- limit it is settled by, the state as it was stored, whether the key is there,
-- and the last check that may have changed it.
local key, state, settled_by, stored, there, changed = {}, {}, {}, {}, {}, {}
local places, answers, parsed = {}, {}, {}

-- By number of a check in its request: the check, its place, its flags, whether
-- it fitted, and the state before it was tried.
local check, place, flags, fitted, before = {}, {}, {}, {}, {}

-- read returns the i-th check of the plan, its place and its flags.
local function read(i)
  local kind, bits, k1, k0, a1, a0 = plan:byte(6 * i - 5, 6 * i)
  local k, arg = k1 * 256 + k0, a1 * 256 + a0
  local c, at = parsed[arg], k * 16 + kind
  if not c then
    c = parse(kind, ARGV[arg])
    parsed[arg] = c
  end
  if not key[at] then
    key[at] = KEYS[k]
    state[at], there[at] = c.program.load(KEYS[k], c.p)
    stored[at] = state[at]
  end
  return c, at, bits
end

-- flag says whether the bits have the flag.
local function flag(bits, value) return bits % (value + value) >= value end

-- current returns the state at the place, settled by the check's own limit.
local function current(c, at)
  if settled_by[at] == c then return state[at] end
  return c.program.settle(state[at], c.p)
end

local function keep(c, at, s)
  if not changed[at] then places[#places + 1] = at end
  state[at], settled_by[at], changed[at] = s, c, c
end

-- try charges the i-th check if it fits, and says whether it did.
local function try(i)
  local c, at = check[i], place[i]
  before[i] = state[at]
  local s = current(c, at)
  local fits = true
  if c.hits < 0 then
    s = c.program.refund(s, c.p, -c.hits)
  else
    fits = c.program.fits(s, c.p, c.needed)
    if fits and c.hits > 0 then s = c.program.charge(s, c.p, c.hits) end
  end
  if c.hits ~= 0 then keep(c, at, s) end
  fitted[i] = fits
  return fits
end

-- undo takes back what was tried from check a to check b.
local function undo(a, b)
  for i = b, a, -1 do state[place[i]], settled_by[place[i]] = before[i], nil end
end

-- deny charges the i-th check as part of a denied call.
local function deny(i)
  local c, at = check[i], place[i]
  if c.hits == 0 then return end
  local s, n = current(c, at), 0
  if c.hits < 0 then
    s = c.program.refund(s, c.p, -c.hits)
  elseif not flag(flags[i], 8) then
    if c.denied == COUNT then
      n = c.hits
    elseif c.denied == DRAIN and not fitted[i] then
      n = c.program.left(s, c.p)
    end
    if n > 0 then s = c.program.charge(s, c.p, n) end
  end
  keep(c, at, s)
end

-- report answers the checks from a to b of the request whose first answer has
-- the number base + 1.
local function report(base, a, b)
  for i = a, b do
    answers[base + i] = answer(check[i], current(check[i], place[i]), fitted[i])
  end
end

-- request decides one request of n checks.
local function request(base, n)
  local refused, quotas, quotas_refused = false, 0, 0
  local first = 1
  while first <= n do
    local last, passes = first, try(first)
    while last < n and not flag(flags[last + 1], 2) do
      last = last + 1
      passes = try(last) and passes
    end
    if not passes then
      undo(first, last)
      for i = first, last do deny(i) end
    end
    report(base, first, last)
    if flag(flags[first], 16) then
      quotas = quotas + 1
      if not passes then quotas_refused = quotas_refused + 1 end
    elseif not passes and not flag(flags[first], 8) then
      refused = true
    end
    first = last + 1
  end
  if flag(flags[1], 4) and (refused or quotas > 0 and quotas == quotas_refused) then
    undo(1, n)
    first = 1
    for i = 1, n do
      deny(i)
      if i == n or flag(flags[i + 1], 2) then
        report(base, first, i)
        first = i + 1
      end
    end
  end
end

local count, base = #plan / 6, 0
while base < count do
  local n = 0
  repeat
    n = n + 1
    check[n], place[n], flags[n] = read(base + n)
  until base + n == count or plan:byte(6 * (base + n) + 2) % 2 == 1
  if n == 1 then
    local c, at = check[1], place[1]
    local s, fits = step(c, current(c, at), flag(flags[1], 8))
    if c.hits ~= 0 then keep(c, at, s) end
    answers[base + 1] = answer(c, s, fits)
  else
    request(base, n)
  end
  base = base + n
end

for _, at in ipairs(places) do finish(key[at], changed[at], state[at], stored[at], there[at]) end

return pack('<d', now) .. table.concat(answers)
