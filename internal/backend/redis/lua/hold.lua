-- hold: what requests hold, around what is used; follows internal/algo/hold.go.
-- State: {the state of what is used, the requests that hold, the hits that they hold,
-- the number of requests, how many were last found expired, when that was}.
-- A request is 19 bytes of a string: its ID in 8, when it expires in 7 (µs since the
-- epoch) and its hits in 4. The first to expire is the first.
-- Value: 'H', a check on what follows it up to the requests in 2 bytes, the hits in 6,
-- the number of requests in 2, how many were found expired in 2 and when in 7; the
-- requests; what is used, or nothing if nothing is: it may tell that from the time alone,
-- and not when the clock has stepped back since.

local EACH, FIRST, FORMAT = 19, 20, '<c1I2I6I2I2I7'
local LOST_AFTER = 60000000
local NOBODY = ('\0'):rep(8)

local function params(numbers, at)
  local settles, high, low, expires, most, kind = unpack('<dddddd', numbers, at)
  local inner = program(kind)
  local used = inner.params(numbers, at + 48)
  return {
    settles = settles == 1, id = pack('>I4I4', high, low), expires = expires, most = most,
    inner = inner, used = used, limit = used.limit,
  }
end

local function check(hits, count, expired, at) return (hits + 3 * count + 5 * expired + at) % 65521 end

local function load(key, p)
  local value, there = read(key)
  if value and #value >= FIRST and byte(value) == 72 then
    local _, sum, hits, count, expired, at = unpack(FORMAT, value)
    local last = FIRST + EACH * count
    if sum == check(hits, count, expired, at) and #value >= last then
      return { p.inner.decode(value, last + 1, p.used), value:sub(FIRST + 1, last), hits, count, expired, at }, there
    end
  end
  return { p.inner.decode('', 1, p.used), '', 0, 0, 0, 0 }, there
end

-- ends returns when the i-th request expires, counted from 0, and its hits.
local function ends(requests, i) return unpack('<I7I4', requests, EACH * i + 9) end

-- cut returns requests none of which holds beyond the bound.
local function cut(requests, count, bound)
  local parts = {}
  for i = 0, count - 1 do
    local at, hits = ends(requests, i)
    parts[i + 1] = requests:sub(EACH * i + 1, EACH * i + 8) .. pack('<I7I4', min(at, bound), hits)
  end
  return table.concat(parts)
end

local function settle(s, p)
  local requests, hits, count, expired, when = s[2], s[3], s[4], s[5], s[6]
  if when ~= now then expired, when = 0, 0 end -- so that it is said once
  if count > 0 then
    local bound, gone = now + p.expires, 0
    local first, last = ends(requests, 0), ends(requests, count - 1)
    if first > bound or last > bound then requests = cut(requests, count, bound) end
    while gone < count do
      local at, cost = ends(requests, gone)
      if at > now then break end
      gone, hits = gone + 1, hits - cost
    end
    if gone > 0 then
      requests, count = requests:sub(EACH * gone + 1), count - gone
      if now < last + LOST_AFTER then expired, when = min(expired + gone, p.most), now end
    end
    if hits < 0 or hits > MOST_OWED then requests, hits, count = '', 0, 0 end -- damaged
  end
  return { p.inner.settle(s[1], p.used), requests, hits, count, expired, when }
end

-- place returns where a request is in the string and its hits; nil if it holds nothing.
local function place(s, id)
  local at = find(s[2], id, 1, true)
  while at and at % EACH ~= 1 do at = find(s[2], id, at + 1, true) end
  if not at then return nil end
  local hits = unpack('<I4', s[2], at + 15)
  return at, hits
end

-- without returns the state without the request at that place.
local function without(s, at, hits)
  return { s[1], s[2]:sub(1, at - 1) .. s[2]:sub(at + EACH), s[3] - hits, s[4] - 1, s[5], s[6] }
end

-- own is place for the request that asks; one without an ID holds nothing.
local function own(s, p)
  if p.id ~= NOBODY then return place(s, p.id) end
end

local function fits(s, p, n)
  local at, hits = own(s, p)
  if n > 0 and not at and s[4] >= p.most then return false end
  return p.inner.fits(s[1], p.used, n + s[3] - (hits or 0))
end

local function used(s, state) return { state, s[2], s[3], s[4], s[5], s[6] } end

local function charge(s, p, n)
  local at, hits = own(s, p)
  if at then s = without(s, at, hits) end
  local requests = s[2] .. p.id .. pack('<I7I4', now + p.expires, n) -- the last to expire: settle lets nobody hold for longer
  return { s[1], requests, s[3] + n, s[4] + 1, s[5], s[6] }
end

-- spend charges what is used, and holds nothing.
local function spend(s, p, n) return used(s, p.inner.charge(s[1], p.used, n)) end

local function refund(s, p, n)
  if p.settles then
    local at, hits = own(s, p)
    if at then s = without(s, at, hits) end
    return n < 0 and spend(s, p, -n) or s
  end
  while n > 0 do
    local at, hits = place(s, p.id)
    if not at then return used(s, p.inner.refund(s[1], p.used, n)) end
    if hits > n then
      local requests = s[2]:sub(1, at + 14) .. pack('<I4', hits - n) .. s[2]:sub(at + EACH)
      return { s[1], requests, s[3] - n, s[4], s[5], s[6] }
    end
    s, n = without(s, at, hits), n - hits
  end
  return s
end

local function left(s, p)
  local remaining = p.inner.left(s[1], p.used) - s[3]
  return s[4] >= p.most and min(remaining, 0) or remaining
end

local function expiry(s, p)
  local at = p.inner.expiry(s[1], p.used)
  if s[6] > 0 then at = max(at, s[6] + 1) end -- the call that found it says so
  if s[4] == 0 then return at end
  local last = ends(s[2], s[4] - 1)
  return max(at, last + LOST_AFTER)
end

local function store(key, s, p, at)
  local head = pack(FORMAT, 'H', check(s[3], s[4], s[5], s[6]), s[3], s[4], s[5], s[6])
  local state = p.inner.expiry(s[1], p.used) > now and p.inner.encode(s[1], p.used) or ''
  save(key, head .. s[2] .. state, at)
end

local function reply(s, p)
  local last = s[4] > 0 and ends(s[2], s[4] - 1) or 0
  return p.inner.reply(s[1], p.used) .. pack('<dddd', s[3], s[4], last, s[5])
end

return {
  params = params,
  load = load,
  settle = settle,
  holds = function(s, p) return own(s, p) ~= nil end,
  fits = fits,
  left = left,
  charge = charge,
  spend = spend,
  refund = refund,
  expiry = expiry,
  store = store,
  reply = reply,
  partial = true,
}
