-- strict_window: follows internal/algo/strict_window.go.
-- State: {the end of the current part, its count, the counts before it, newest
-- first: parts + 1 counts in all, and a 0}.
-- Value: 'W', the parts in a byte, the end in 7 bytes and the counts in 5 bytes
-- each, without the trailing counts that are 0.

local function params(numbers, at)
  local limit, window, bound, parts, part = unpack('<ddddd', numbers, at)
  return { limit = limit, window = window, bound = bound, parts = parts, part = part }
end

-- decode returns the state that is packed in value from byte at on. It may be that of
-- a sliding window, or have another number of parts.
local function decode(value, at)
  if byte(value, at) == 83 then return program(SLIDING_WINDOW).decode(value, at) end
  local s = { 0, 0, 0 }
  if byte(value, at) ~= 87 or #value < at + 8 or (#value - at - 8) % 5 ~= 0 then return s end
  local parts = byte(value, at + 1)
  s[1] = unpack('<I7', value, at + 2)
  for i = 2, parts + 3 do
    local from = at + 9 + 5 * (i - 2)
    s[i] = from < #value and unpack('<I5', value, from) or 0
  end
  return s
end

-- settled settles a state that has parts parts.
local function settled(s, parts, part)
  local e, gone = s[1], 0
  if e > now + part then -- the clock stepped back
    e = now + part
  elseif e <= now - parts * part then
    gone = parts + 1
  elseif e <= now then
    gone = floor((now - e) / part) + 1
    e = e + gone * part
  end
  local result, counted = {}, false
  for i = 0, parts do
    local count = i >= gone and min(s[i - gone + 2], MOST_OWED) or 0
    result[i + 2] = count
    counted = counted or count > 0
  end
  result[1] = counted and e or aligned(part)
  result[parts + 3] = 0
  return result
end

-- adopt converts a state of another layout: it returns an end and parts + 1 counts.
local function adopt(s, window, parts, part)
  local length, last = window, 3
  if #s == 3 then
    s = program(SLIDING_WINDOW).settle(s, { window = window })
  else
    last = #s - 1
    length = ceil(window / (#s - 3))
    s = settled(s, #s - 3, length)
  end
  local adopted = { aligned(part) }
  for i = 2, parts + 2 do adopted[i] = 0 end
  for i = 2, last do
    local latest = min(s[1] - (i - 2) * length - 1, now)
    local at = floor((adopted[1] - 1 - latest) / part) + 2
    if at <= parts + 2 then adopted[at] = adopted[at] + s[i] end
  end
  return adopted
end

local function settle(s, p)
  if #s ~= p.parts + 3 then
    s = adopt(s, p.window, p.parts, p.part)
    s[p.parts + 3] = 0
  end
  return settled(s, p.parts, p.part)
end

local function left(s, p)
  local room = p.limit
  for i = 2, p.parts + 2 do room = room - s[i] end
  return room
end

local function charge(s, p, n)
  local charged = { s[1], s[2] + max(0, min(n, left(s, p) + p.bound - p.limit)) }
  for i = 3, p.parts + 3 do charged[i] = s[i] end
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
  refunded[p.parts + 3] = 0
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
  local value = { pack('<c1BI7', 'W', p.parts, s[1]) }
  for i = 2, last do value[i] = pack('<I5', s[i]) end
  return table.concat(value)
end

local function reply(s, p)
  local words = {}
  for i = 1, p.parts + 3 do words[i] = pack('<d', s[i]) end
  return table.concat(words)
end

return {
  params = params,
  load = function(key, p)
    local value, there = read(key)
    if value and digits(value) then return program(SLIDING_WINDOW).load(key, p) end
    return value and decode(value, 1) or { 0, 0, 0 }, there
  end,
  decode = decode,
  adopt = adopt,
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
