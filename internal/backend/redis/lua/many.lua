-- Decides any number of checks, by the definition of
-- internal/backend/backendtest/reference.go.

-- By check: what to check, the key, the place of the state, flags, whether it
-- fitted, the state before it was tried, and the answer.
local spec, key, place, flags, fitted, before, answer = {}, {}, {}, {}, {}, {}, {}
-- By place: the state, the state as it was stored, whether the key is there, and
-- the last check that may have changed it.
local state, stored, there, changed = {}, {}, {}, {}
local places = {}

-- flag says whether the check has the flag.
local function flag(i, bit) return flags[i] % (bit + bit) >= bit end

-- parse returns what to check.
local function parse(kind, numbers)
  local hits, denied, at = unpack('<dd', numbers)
  local program = program(kind)
  return { program = program, p = program.params(numbers, at), hits = hits, denied = denied, room = room(hits, denied) }
end

-- current returns the state of the check's counter, settled by its own limit.
local function current(i)
  local c, at = spec[i], place[i]
  local s = state[at]
  if not s then
    s, there[at] = c.program.load(key[i], c.p)
    state[at], stored[at] = s, s
  end
  return c.program.settle(s, c.p)
end

local function keep(i, s)
  local at = place[i]
  if not changed[at] then places[#places + 1] = at end
  state[at], changed[at] = s, i
end

-- try charges the check if it fits, and says whether it did.
local function try(i)
  local c, s = spec[i], current(i)
  before[i] = state[place[i]]
  local fits = true
  if c.hits < 0 then
    s = c.program.refund(s, c.p, -c.hits)
  else
    fits = c.program.fits(s, c.p, c.room)
    if fits and c.hits > 0 then s = c.program.charge(s, c.p, c.hits) end
  end
  if c.hits ~= 0 then keep(i, s) end
  fitted[i] = fits
  return fits
end

-- undo takes back what was tried from check a to check b.
local function undo(a, b)
  for i = b, a, -1 do state[place[i]] = before[i] end
end

-- deny charges the check as part of a denied call.
local function deny(i)
  local c = spec[i]
  if c.hits == 0 then return end
  local s, n = current(i), 0
  if c.hits < 0 then
    s = c.program.refund(s, c.p, -c.hits)
  elseif not flag(i, 8) then
    if c.denied == COUNT then
      n = c.hits
    elseif c.denied == DRAIN and not fitted[i] then
      n = c.program.left(s, c.p)
    end
    if n > 0 then s = c.program.charge(s, c.p, n) end
  end
  keep(i, s)
end

local function report(a, b)
  for i = a, b do
    local c = spec[i]
    answer[i] = (fitted[i] and '\1' or '\0') .. c.program.reply(current(i), c.p, c.room)
  end
end

-- request decides the checks from a to b.
local function request(a, b)
  local refused, quotas, quotas_refused = false, 0, 0
  local first = a
  while first <= b do
    local last, passes = first, try(first)
    while last < b and not flag(last + 1, 2) do
      last = last + 1
      passes = try(last) and passes
    end
    if not passes then
      undo(first, last)
      for i = first, last do deny(i) end
    end
    report(first, last)
    if flag(first, 16) then
      quotas = quotas + 1
      if not passes then quotas_refused = quotas_refused + 1 end
    elseif not passes and not flag(first, 8) then
      refused = true
    end
    first = last + 1
  end
  if flag(a, 4) and (refused or quotas > 0 and quotas == quotas_refused) then
    undo(a, b)
    first = a
    for i = a, b do
      deny(i)
      if i == b or flag(i + 1, 2) then
        report(first, i)
        first = i + 1
      end
    end
  end
end

local count = #plan / 6
local parsed = {}
for i = 1, count do
  local kind, bits, k1, k0, a1, a0 = plan:byte(6 * i - 5, 6 * i)
  local arg = a1 * 256 + a0
  local c = parsed[arg]
  if not c then
    c = parse(kind, ARGV[arg])
    parsed[arg] = c
  end
  spec[i], flags[i] = c, bits
  key[i], place[i] = KEYS[k1 * 256 + k0], (k1 * 256 + k0) * 16 + kind
end

local first = 1
for i = 1, count do
  if i == count or flag(i + 1, 1) then
    request(first, i)
    first = i + 1
  end
end

for _, at in ipairs(places) do
  local i = changed[at]
  local c, s = spec[i], state[at]
  finish(key[i], c.program, c.p, s, not same(s, stored[at]), there[at])
end

return pack('<d', now) .. table.concat(answer)
