-- bucket: token_bucket and leaky_bucket; follows internal/algo/bucket.go.
-- State: {the TAT, its part in units of 1/hits µs, and on record the hits and the
-- period of the rate and the most hits that can be owed}.
-- Value: that, in 7, 4, 4, 6 and 5 bytes, and a check on it in 2, for a damaged
-- rate could block for years.

local BYTES = 28
local MAX_WINDOW = 31622400000000
local FURTHEST = 3162240000000000

local function params(numbers, at)
  local hits, period, capacity, most, full, full_part, bound, bound_part = unpack('<dddddddd', numbers, at)
  return {
    limit = capacity, hits = hits, period = period, capacity = capacity, most = most,
    full = full, full_part = full_part, bound = bound, bound_part = bound_part,
  }
end

-- check tells a state from one in which a byte or more have changed.
local function check(tat, part, hits, period, most)
  return (tat + 3 * part + 5 * hits + 7 * period + 11 * most) % 65521
end

-- decode returns the state that is packed in value from the at-th byte on.
local function decode(value, at)
  if #value < at + BYTES - 1 then return { 0, 0, 0, 0, 0 } end
  local tat, part, hits, period, most, sum = unpack('<I7I4I4I6I5I2', value, at)
  if sum ~= check(tat, part, hits, period, most) then return { 0, 0, 0, 0, 0 } end
  return { tat, part, hits, period, most }
end

local function load(key)
  local value, there = read(key)
  if not value or #value ~= BYTES then return { 0, 0, 0, 0, 0 }, there end
  return decode(value, 1), there
end

local function less(x, x_part, y, y_part) return x < y or x == y and x_part < y_part end

-- times returns how far n hits move the TAT at a rate.
local function times(n, hits, period)
  local micros, part = ratio(period, n, hits)
  if micros >= FURTHEST then return FURTHEST, 0 end
  return micros, part
end

-- cost is times at the rate of p. Most ask for what the last one did.
local function cost(p, n)
  if p.n ~= n then
    p.n, p.cost, p.cost_part = n, times(n, p.hits, p.period)
  end
  return p.cost, p.cost_part
end

-- plus returns how far the TAT lies ahead of now after n more hits.
local function plus(s, p, n)
  local cost, part = cost(p, n)
  part = part + s[2]
  if part >= p.hits then part, cost = part - p.hits, cost + 1 end
  return s[1] - now + cost, part
end

-- owed returns the most hits that can be owed by a counter that owes that much.
local function owed(p, ahead, part)
  local hits, rest = ratio(ahead, p.hits, p.period)
  return max(p.most, hits + ceil((rest + part) / p.period))
end

-- settle_other settles a state that records another rate, or more owed hits.
local function settle_other(s, p, ahead, part)
  local hits, period, most = s[3], s[4], min(s[5], MOST_OWED)
  if hits == 0 or period == 0 or period > MAX_WINDOW then hits, period, most = 1, 1, 0 end -- damaged
  part = min(part, hits - 1)
  local bound, bound_part = times(most, hits, period)
  if less(bound, bound_part, ahead, part) then ahead, part = bound, bound_part end
  if p.hits == 0 then return { now + ahead, part, s[3], s[4], s[5] } end
  if hits ~= p.hits or period ~= p.period then
    local whole, rest = ratio(ahead, hits, period)
    rest = rest + part
    whole, rest = whole + floor(rest / period), rest % period
    ahead, part = times(whole, p.hits, p.period)
    if period ~= p.period then
      local units, more = ratio(p.period, rest, period)
      rest = more > 0 and units + 1 or units
    end
    part = part + rest
    ahead, part = ahead + floor(part / p.hits), part % p.hits
    if ahead >= FURTHEST then ahead, part = FURTHEST, 0 end
  end
  return { now + ahead, part, p.hits, p.period, owed(p, ahead, part) }
end

local function settle(s, p)
  local ahead, part = s[1] - now, s[2]
  if ahead < 0 or ahead == 0 and part == 0 then return { now, 0, p.hits, p.period, p.most } end
  if s[3] ~= p.hits or s[4] ~= p.period or s[5] ~= p.most then return settle_other(s, p, ahead, part) end
  if less(p.bound, p.bound_part, ahead, part) then -- the clock stepped back
    return { now + p.bound, p.bound_part, s[3], s[4], s[5] }
  end
  return s
end

local function fits(s, p, n)
  if n > p.capacity then return false end
  local ahead, part = plus(s, p, n)
  return not less(p.full, p.full_part, ahead, part)
end

-- left does not say how deep a debt is: 0.
local function left(s, p)
  local room, part = p.full - (s[1] - now), p.full_part - s[2]
  if part < 0 then room, part = room - 1, part + p.hits end
  if room < 0 or p.hits == 0 then return 0 end
  local hits, rest = ratio(room, p.hits, p.period)
  return hits + floor((rest + part) / p.period)
end

local function charge(s, p, n)
  if not less(s[1] - now, s[2], p.bound, p.bound_part) then return s end
  local ahead, part = p.bound, p.bound_part
  if n < 2 * p.capacity then
    ahead, part = plus(s, p, n)
    if less(p.bound, p.bound_part, ahead, part) then ahead, part = p.bound, p.bound_part end
  end
  return { now + ahead, part, s[3], s[4], s[5] }
end

local function refund(s, p, n)
  if n < MOST_OWED then
    local micros, part
    if p.hits > 0 then
      micros, part = cost(p, n)
    elseif s[3] > 0 and s[4] > 0 then
      micros, part = times(n, s[3], s[4])
    else
      return { now, 0, s[3], s[4], s[5] }
    end
    local tat = s[1] - micros
    part = s[2] - part
    if part < 0 then tat, part = tat - 1, part + s[3] end
    if tat >= now then
      local most = s[5]
      if p.hits > 0 and most ~= p.most then most = owed(p, tat - now, part) end
      return { tat, part, s[3], s[4], most }
    end
  end
  return { now, 0, s[3], s[4], p.hits > 0 and p.most or s[5] }
end

local function expiry(s) return s[2] > 0 and s[1] + 1 or s[1] end

local function encode(s)
  local tat, part, hits, period, most = s[1], s[2], s[3], s[4], s[5]
  return pack('<I7I4I4I6I5I2', tat, part, hits, period, most, check(tat, part, hits, period, most))
end

-- reply leaves out the rate on record, which settle has made that of p unless p
-- has none.
local function reply(s, p)
  if p.hits == 0 then return pack('<ddddd', s[1], s[2], s[5], s[3], s[4]) end
  return pack('<ddd', s[1], s[2], s[5])
end

return {
  params = params,
  load = load,
  decode = decode,
  bytes = BYTES,
  settle = settle,
  fits = fits,
  left = left,
  charge = charge,
  refund = refund,
  expiry = expiry,
  store = function(key, s, _, at) save(key, encode(s), at) end,
  encode = encode,
  reply = reply,
}
