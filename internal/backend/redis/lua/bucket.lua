-- bucket: token_bucket and leaky_bucket; follows internal/algo/bucket.go.
-- State: {the TAT, its part in units of 1/hits µs}.
-- Value: part·1001 + how much earlier than the key's expiry the TAT is, in µs.

local function params(numbers, at)
  local hits, period, capacity, full, full_part, bound, bound_part = unpack('<ddddddd', numbers, at)
  return {
    hits = hits, period = period, capacity = capacity,
    full = full, full_part = full_part, bound = bound, bound_part = bound_part,
  }
end

local function load(key)
  local value, there = read(key)
  local number = value and digits(value)
  local at = number and expires(key)
  if not at then return { 0, 0 }, there end
  local early = number % 1001
  return { at - early, (number - early) / 1001 }, there
end

local function less(x, x_part, y, y_part) return x < y or x == y and x_part < y_part end

-- cost returns how far n hits move the TAT. Most ask for what the last one did.
local function cost(p, n)
  if p.n ~= n then
    p.n, p.cost, p.cost_part = n, ratio(p.period, n, p.hits)
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

local function settle(s, p)
  local tat, part = s[1], min(s[2], p.hits - 1)
  if tat < now then return { now, 0 } end
  if less(p.bound, p.bound_part, tat - now, part) then return { now + p.bound, p.bound_part } end
  return part == s[2] and s or { tat, part }
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
  if room < 0 then return 0 end
  local hits, rest = ratio(room, p.hits, p.period)
  return hits + floor((rest + part) / p.period)
end

local function charge(s, p, n)
  if n < 2 * p.capacity then
    local ahead, part = plus(s, p, n)
    if not less(p.bound, p.bound_part, ahead, part) then return { now + ahead, part } end
  end
  return { now + p.bound, p.bound_part }
end

local function refund(s, p, n)
  if n < 2 * p.capacity then
    local cost, part = cost(p, n)
    local tat
    tat, part = s[1] - cost, s[2] - part
    if part < 0 then tat, part = tat - 1, part + p.hits end
    if tat >= now then return { tat, part } end
  end
  return { now, 0 }
end

local function expiry(s) return s[2] > 0 and s[1] + 1 or s[1] end

local function store(key, s, _, at)
  local early = ceil(at / 1000) * 1000 - s[1]
  save(key, text(s[2] * 1001 + early), at)
end

return {
  params = params,
  load = load,
  decode = function(value, at)
    local tat, part = unpack('<I7I4', value, at)
    return { tat, part }
  end,
  settle = settle,
  fits = fits,
  left = left,
  charge = charge,
  refund = refund,
  expiry = expiry,
  store = store,
  encode = function(s) return pack('<I7I4', s[1], s[2]) end,
  reply = function(s) return pack('<dd', s[1], s[2]) end,
}
