-- Code that all programs share. Numbers in Lua are doubles. Every value here is a
-- whole number, times are in microseconds, and intermediate results that must be
-- exact stay below 2^53.

local call, pcall = redis.call, redis.pcall
local pack, unpack = struct.pack, struct.unpack
local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max
local format, find, byte = string.format, string.find, string.byte
local tonumber, type = tonumber, type

-- now is the time of the script (µs since the epoch), and real the same by this
-- server's clock. hold is how many milliseconds a key is kept beyond its expiry. It
-- is 0, except under a clock that a test controls, which differs from this server's.
local now, real, hold

-- Whether boundaries of a calendar were sent that do not surround now.
local elsewhen = false

-- MOST_OWED is the most hits that a counter of any limit can hold, debt included: see
-- internal/algo/bucket.go.
local MOST_OWED = 8589934590

-- MAX_COUNT is where counts of windows saturate.
local MAX_COUNT = 9007199254740991

-- ratio returns the quotient and the remainder of x·n/c, for x < 2^52, n < 2^48
-- and c < 2^45. A quotient of 2^53 or more is not exact.
local function ratio(x, n, c)
  local product = x * n
  if product < 4503599627370496 then -- 2^52: exact, and its quotient does not round up
    local rest = product % c
    return (product - rest) / c, rest
  end
  local r = x % c
  local whole, part, rest = (x - r) / c * n, 0, 0
  for digit = n < 68719476736 and 5 or 7, 0, -1 do -- long multiplication and division in digits of 6 bits
    local t = rest * 64 + r * (floor(n / 64 ^ digit) % 64)
    rest = t % c
    part = part * 64 + (t - rest) / c
  end
  return whole + part, rest
end

-- aligned returns the first multiple of window after now.
local function aligned(window) return now - now % window + window end

-- SHORT_FORM is the shortest window whose end need not be in the value, because it
-- follows from the expiry of the key. Servers report the expiry to a millisecond, and
-- less exactly after a stall, but the end is a multiple of the window.
local SHORT_FORM = 1000000

-- expires returns when the key expires, to the nearest multiple of the window (µs
-- since the epoch), or nil if it never does.
local function expires(key, window)
  local left = call('PTTL', key)
  if left < 0 then return nil end
  return floor((real + (left - hold) * 1000) / window + 0.5) * window
end

-- attempt calls a command that reads. It returns nil if the key has a foreign type. Any
-- other error ends the script: if the user may not read, for example, no counter would seem
-- to be in use, and nothing would be limited.
local function attempt(command, ...)
  local value = pcall(command, ...)
  if type(value) ~= 'table' then return value end
  if not find(value.err, 'WRONGTYPE', 1, true) then call(command, ...) end -- fails again
end

-- read returns the key's value, and whether the key exists. The value is nil if the
-- key does not exist or has a foreign type.
local function read(key)
  local value = attempt('GET', key)
  return value or nil, value ~= false
end

-- text returns a whole number as Redis stores it, without an exponent. It is quicker
-- than the conversion of Redis itself.
local function text(n) return format('%d', n) end

-- save stores the value until expiry (µs). Many keys share an expiry, so its text is
-- kept.
local saved_until, stamp
local function save(key, value, expiry)
  if expiry ~= saved_until then
    saved_until, stamp = expiry, text(ceil(expiry / 1000) + hold - floor(real / 1000))
  end
  call('SET', key, value, 'PX', stamp)
end

-- digits returns a short value that is a whole number as a number; nil for any other
-- value. Redis stores such a value without an allocation of its own.
local function digits(value)
  if #value < 16 and find(value, '^%d+$') then return tonumber(value) end
end
