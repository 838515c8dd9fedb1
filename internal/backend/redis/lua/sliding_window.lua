-- sliding_window: follows internal/algo/sliding_window.go.
-- State: {the end of the window in force, its count, the count before}.
-- Value: the count before times SMALL and the count, for the end is when the key
-- expires, or a window earlier while there is a count. Large counts, and an end
-- that is not a whole millisecond, need more: 'S', the end in 7 bytes and the
-- counts in 5 bytes each.

local SMALL = 16777216 -- 2^24

local function params(numbers, at)
  local limit, window, bound = unpack('<ddd', numbers, at)
  return { limit = limit, window = window, bound = bound }
end

-- decode returns the state that is packed in value from the at-th byte on.
local function decode(value, at)
  if not value or #value ~= at + 17 or value:byte(at) ~= 83 then return { 0, 0, 0 } end
  local e, count, before = unpack('<I7I5I5', value, at + 1)
  return { e, count, before }
end

local function load(key, p)
  local value, there = read(key)
  local counts = value and digits(value)
  local e = counts and expires(key)
  if not e then return decode(value, 1), there end
  local count = counts % SMALL
  if count > 0 then e = e - p.window end
  return { e, count, (counts - count) / SMALL }, there
end

local function settle(s, p)
  local e, count, before = s[1], s[2], s[3]
  if e > now + p.window then -- the clock stepped back
    e = now + p.window
  elseif now - p.window >= e then
    count, before = 0, 0
  elseif now >= e then
    e, count, before = e + p.window, 0, count
  end
  count, before = min(count, p.bound), min(before, p.bound)
  if count == 0 and before == 0 then e = aligned(p.window) end
  return { e, count, before }
end

local function left(s, p)
  local fading = s[3]
  if fading ~= 0 then
    local quotient, rest = ratio(s[1] - now, fading, p.window)
    fading = rest > 0 and quotient + 1 or quotient
  end
  return p.limit - s[2] - fading
end

local function charge(s, p, n)
  return { s[1], s[2] + max(0, min(n, left(s, p) + p.bound - p.limit)), s[3] }
end

local function refund(s, p, n)
  local first = min(s[2], n)
  local count, before = s[2] - first, s[3] - min(s[3], n - first)
  return { count == 0 and before == 0 and aligned(p.window) or s[1], count, before }
end

local function expiry(s, p)
  if s[2] ~= 0 then return s[1] + p.window end
  return s[3] ~= 0 and s[1] or 0
end

local function encode(s) return pack('<c1I7I5I5', 'S', s[1], s[2], s[3]) end

local function store(key, s, _, at)
  if at % 1000 == 0 and s[2] < SMALL and s[3] < SMALL then
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
