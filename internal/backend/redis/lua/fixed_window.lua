-- fixed_window: follows internal/algo/fixed_window.go.
-- State: {the end of the window in force, the hits counted in it}; a third part
-- if the key holds the count alone.
-- Value: the count alone, for the window ends when the key expires. An end that the
-- expiry does not tell needs more: 'F', the end and the count in 7 bytes each.

local function params(numbers, at)
  local limit, window = unpack('<dd', numbers, at)
  return { limit = limit, window = window }
end

-- decode returns the state that is packed in value from the at-th byte on.
local function decode(value, at)
  if #value ~= at + 14 or byte(value, at) ~= 70 then return { 0, 0 } end
  local e, count = unpack('<I7I7', value, at + 1)
  return { e, count }
end

local function encode(s) return pack('<c1I7I7', 'F', s[1], s[2]) end

local function load(key, p)
  local value, there = read(key)
  local count = value and digits(value)
  if count then return { expires(key, p.window) or 0, count, byte(value) ~= 48 }, there end -- not with a leading 0
  return decode(value or '', 1), there
end

local function settle(s, p)
  if s[2] == 0 or now >= s[1] then return { aligned(p.window), 0 } end
  if s[1] > now + p.window or s[2] > MAX_COUNT then -- the clock may have stepped back
    return { min(s[1], now + p.window), min(s[2], MAX_COUNT) }
  end
  return s
end

local function refund(s, p, n)
  local count = s[2] - min(s[2], n)
  if count == 0 then return { aligned(p.window), 0 } end
  return { s[1], count }
end

local function store(key, s, p, expiry, stored)
  if s[1] % p.window ~= 0 or p.window < SHORT_FORM or s[2] >= 1e15 then
    save(key, encode(s), expiry)
  elseif stored[3] and stored[1] == s[1] then
    call('INCRBY', key, text(s[2] - stored[2])) -- it expires as before
  else
    save(key, text(s[2]), expiry)
  end
end

return {
  params = params,
  load = load,
  decode = decode,
  settle = settle,
  fits = function(s, p, n) return n <= p.limit - s[2] end,
  left = function(s, p) return p.limit - s[2] end,
  charge = function(s, _, n) return { s[1], s[2] + min(n, MAX_COUNT - s[2]) } end,
  refund = refund,
  expiry = function(s) return s[2] == 0 and 0 or s[1] end,
  store = store,
  encode = encode,
  reply = function(s) return pack('<dd', s[1], s[2]) end,
}
