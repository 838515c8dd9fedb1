-- sliding_window: follows internal/algo/sliding_window.go.
-- State: {the end of the window in force, its count, the count before}.
-- Value: the count before times SMALL plus the count. The end follows from the expiry:
-- the key is kept until the end or, while the count is not 0, for a window longer. Large
-- counts, and an end that does not follow from the expiry, need a longer form: 'S', the
-- end in 7 bytes and the counts in 5 bytes each.

local SMALL = 16777216 -- 2^24

local function params(numbers, at)
  local limit, window, bound = unpack('<ddd', numbers, at)
  return { limit = limit, window = window, bound = bound }
end

-- decode returns the state that is packed in value from byte at on. It may be that of
-- a strict window.
local function decode(value, at)
  if byte(value, at) == 87 then return program(STRICT_WINDOW).decode(value, at) end
  if #value ~= at + 17 or byte(value, at) ~= 83 then return { 0, 0, 0 } end
  local e, count, before = unpack('<I7I5I5', value, at + 1)
  return { e, count, before }
end

local function load(key, p)
  local value, there = read(key)
  if not value then return { 0, 0, 0 }, there end
  local counts = digits(value)
  local e = counts and expires(key, p.window)
  if not e then return decode(value, 1), there end
  local count = counts % SMALL
  if count > 0 then e = e - p.window end
  return { e, count, (counts - count) / SMALL }, there
end

-- faded returns how many hits of the count before still count.
local function faded(e, before, p)
  if before == 0 then return 0 end
  return (ratio(e - now, before, p.window))
end

-- forget returns the state without a count before that has faded below one hit. When
-- nothing is counted it also drops the windows' phase.
local function forget(e, count, before, p)
  if before * (e - now) < p.window then before = 0 end
  if count == 0 and before == 0 then e = aligned(p.window) end
  return { e, count, before }
end

local function settle(s, p)
  if #s ~= 3 then s = program(STRICT_WINDOW).adopt(s, p.window, 1, p.window) end
  local e, count, before = s[1], s[2], s[3]
  if e > now + p.window then -- the clock stepped back
    e = now + p.window
  elseif now - p.window >= e then
    count, before = 0, 0
  elseif now >= e then
    e, count, before = e + p.window, 0, count
  end
  return forget(e, min(count, MOST_OWED), min(before, MOST_OWED), p)
end

local function left(s, p) return p.limit - s[2] - faded(s[1], s[3], p) end

local function charge(s, p, n)
  return { s[1], s[2] + max(0, min(n, left(s, p) + p.bound - p.limit)), s[3] }
end

local function refund(s, p, n)
  local first = min(s[2], n)
  return forget(s[1], s[2] - first, s[3] - min(s[3], n - first), p)
end

-- fades returns how long before the end of its window the count has faded to 0:
-- one less than the window by the count, rounded up.
local function fades(count, p) return floor((p.window - 1) / count) end

local function expiry(s, p)
  if s[2] ~= 0 then return s[1] + p.window - fades(s[2], p) end
  return s[3] ~= 0 and s[1] - fades(s[3], p) or 0
end

local function encode(s) return pack('<c1I7I5I5', 'S', s[1], s[2], s[3]) end

local function store(key, s, p)
  local at = s[2] ~= 0 and s[1] + p.window or s[1]
  if at % p.window == 0 and p.window >= SHORT_FORM and s[2] < SMALL and s[3] < SMALL then
    save(key, text(s[3] * SMALL + s[2]), at)
  else
    save(key, encode(s), at)
  end
end

return {
  params = params,
  load = load,
  decode = decode,
  settle = settle,
  fits = function(s, p, n) return n <= left(s, p) end,
  left = left,
  charge = charge,
  refund = refund,
  expiry = expiry,
  store = store,
  encode = encode,
  reply = function(s) return pack('<ddd', s[1], s[2], s[3]) end,
}
