-- strict_window: follows internal/algo/strict_window.go.
-- State: {the end of the current part, its count, the counts before it, newest
-- first: parts + 1 counts in all}.
-- Value: 'W', the end in 7 bytes and the counts in 5 bytes each, without the
-- trailing counts that are 0.

local function params(numbers, at)
  local limit, bound, parts, part = unpack('<dddd', numbers, at)
  return { limit = limit, bound = bound, parts = parts, part = part }
end

-- decode returns the state that is packed in value from the at-th byte on.
local function decode(value, at)
  local s = { 0 }
  if value and #value >= at + 7 and value:byte(at) == 87 and (#value - at - 7) % 5 == 0 then
    s[1] = unpack('<I7', value, at + 1)
    for i = at + 8, #value, 5 do s[#s + 1] = unpack('<I5', value, i) end
  end
  return s
end

local function settle(s, p)
  local e, gone = s[1], 0
  if e > now + p.part then -- the clock stepped back
    e = now + p.part
  elseif e <= now - p.parts * p.part then
    gone = p.parts + 1
  elseif e <= now then
    gone = floor((now - e) / p.part) + 1
    e = e + gone * p.part
  end
  local settled, room = {}, p.bound
  for i = 0, p.parts do
    local count = i >= gone and min(s[i - gone + 2] or 0, room) or 0
    settled[i + 2] = count
    room = room - count
  end
  settled[1] = room == p.bound and aligned(p.part) or e
  return settled
end

local function left(s, p)
  local room = p.limit
  for i = 2, p.parts + 2 do room = room - s[i] end
  return room
end

local function charge(s, p, n)
  local charged = { s[1], s[2] + min(n, left(s, p) + p.bound - p.limit) }
  for i = 3, p.parts + 2 do charged[i] = s[i] end
  return charged
end

local function refund(s, p, n)
  local refunded, total = { s[1] }, 0
  for i = 2, p.parts + 2 do
    local back = min(s[i], n)
    n = n - back
    refunded[i] = s[i] - back
    total = total + refunded[i]
  end
  if total == 0 then refunded[1] = aligned(p.part) end
  return refunded
end

local function expiry(s, p)
  for i = 0, p.parts do
    if s[i + 2] ~= 0 then return s[1] + (p.parts - i) * p.part end
  end
  return 0
end

local function encode(s, p)
  local last = p.parts + 2
  while last > 2 and s[last] == 0 do last = last - 1 end
  local value = { pack('<c1I7', 'W', s[1]) }
  for i = 2, last do value[i] = pack('<I5', s[i]) end
  return table.concat(value)
end

local function reply(s, p)
  local words = {}
  for i = 1, p.parts + 2 do words[i] = pack('<d', s[i]) end
  return table.concat(words)
end

return {
  params = params,
  load = function(key)
    local value, there = read(key)
    return decode(value, 1), there
  end,
  decode = decode,
  settle = settle,
  fits = function(s, p, n) return n <= left(s, p) end,
  left = left,
  charge = charge,
  refund = refund,
  expiry = expiry,
  store = function(key, s, p, at) save(key, encode(s, p), at) end,
  encode = encode,
  reply = reply,
}
