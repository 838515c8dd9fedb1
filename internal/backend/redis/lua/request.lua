-- Decides requests of several checks, by the definition of
-- internal/backend/backendtest/reference.go.

-- By number of a check in its request: the check, its key, its flags, whether it
-- fitted, and the state before it was tried.
local check, place, flags, fitted, before = {}, {}, {}, {}, {}

-- try charges the i-th check if it fits.
local function try(i)
  local c, k = check[i], place[i]
  local s = current(c, k)
  before[i] = state[k]
  local fits = true
  if c.back then
    fits = not c.settles or c.program.holds(s, c.p)
    s = c.program.refund(s, c.p, -c.hits)
  else
    fits = c.program.fits(s, c.p, c.needed)
    if fits and c.hits > 0 then s = c.program.charge(s, c.p, c.hits) end
  end
  if not c.looks then keep(c, k, s) end
  fitted[i] = fits
end

-- undo takes back what was tried from check a to check b.
local function undo(a, b)
  for i = b, a, -1 do state[place[i]], settled_by[place[i]] = before[i], nil end
end

-- deny charges the i-th check as part of a denied call.
local function deny(i)
  local c, k = check[i], place[i]
  if c.looks then return end
  local s, n = current(c, k), 0
  if c.back then
    s = c.program.refund(s, c.p, -c.hits)
  else
    if c.denied == COUNT then
      n = c.hits
    elseif c.denied == DRAIN and not fitted[i] then
      n = c.program.left(s, c.p)
    end
    if n > 0 then s = c.spend(s, c.p, n) end
  end
  keep(c, k, s)
end

-- report answers the checks from a to b of the request whose answers come after
-- the base-th.
local function report(base, a, b)
  for i = a, b do
    local c = check[i]
    answers[base + 2 * i - 1] = fitted[i] and '\1' or '\0'
    answers[base + 2 * i] = c.program.reply(current(c, place[i]), c.p, c.needed)
  end
end

-- enforced reports whether any of the checks from a to b is.
local function enforced(a, b)
  for i = a, b do
    if not flag(flags[i], 8) then return true end
  end
  return false
end

-- passes reports whether the descriptor of the checks from a to b does: those in
-- shadow mode do not matter beside others, and settlements refuse nothing.
local function passes(a, b, live)
  for i = a, b do
    if not fitted[i] and not check[i].settles and not (live and flag(flags[i], 8)) then return false end
  end
  return true
end

-- decide decides one request of n checks.
local function decide(n)
  local refused, quotas, quotas_refused = false, 0, 0
  local first, base = 1, said
  while first <= n do
    local last = first
    try(first)
    while last < n and not flag(flags[last + 1], 2) do
      last = last + 1
      try(last)
    end
    local live = enforced(first, last)
    local passing = passes(first, last, live)
    if not passing then undo(first, last) end
    for i = first, last do
      if not passing or not fitted[i] and not check[i].settles then deny(i) end
    end
    report(base, first, last)
    if flag(flags[first], 16) then
      quotas = quotas + 1
      if not passing then quotas_refused = quotas_refused + 1 end
    elseif not passing and live then
      refused = true
    end
    first = last + 1
  end
  said = base + 2 * n
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

-- request decides the request that begins at that byte of the plan, and returns
-- where the next one does.
return function(at)
  local n = 0
  repeat
    n = n + 1
    local bits, k1, k0, a1, a0 = plan:byte(at, at + 4)
    check[n], place[n], flags[n] = checks[a1 * 256 + a0], k1 * 256 + k0, bits
    at = at + 6
  until at > #plan or plan:byte(at) % 2 == 1
  decide(n)
  return at
end
