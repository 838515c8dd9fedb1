-- sliding_log: follows internal/algo/sliding_log.go.
-- Value: the number of entries, the slot of the next one and the number of slots
-- in 4 bytes each and the newest entry in 8, then a ring of timestamps in 8 bytes
-- each, in ascending order.
-- A small ring is read and written whole. Of a large ring only the slots that are
-- needed are read and written, so a hit costs the same whatever the size.
--
-- State: {base, the number of entries of now that were pushed, the number of newest
-- entries of the base that were popped before that, the number of entries, the number
-- of slots}. The base is the content of the key: {key, next, slots, the whole value if
-- it is small, the entries read so far}. All entries pushed in one script have the same
-- time. So a state is always the base with some entries popped and some pushed, and the
-- ring is never copied.

local HEADER = 20
local SMALL = HEADER + 8 * 128
local MOST = 65537 -- slots

local function params(numbers, at)
  local limit, window, slots = unpack('<ddd', numbers, at)
  return { limit = limit, window = window, slots = slots }
end

local function load(key)
  local value = attempt('GETRANGE', key, 0, SMALL - 1)
  local base = { key = key, next = 0, slots = 0, value = '', entries = {} }
  if not value then return { base, 0, 0, 0, 0 }, true end -- a foreign type
  if #value <= HEADER then return { base, 0, 0, 0, 0 }, value ~= '' end
  local size, next, slots, newest = unpack('<I4I4I4I8', value)
  local length = HEADER + 8 * slots
  if slots > MOST or length ~= #value and (length < SMALL or #value < SMALL) then
    return { base, 0, 0, 0, 0 }, true -- damaged
  end
  if size > slots or next == 0 or next > slots then size, next = 0, slots end -- damaged
  base.next, base.slots, base.entries[0] = next, slots, newest
  base.value = length == #value and value or nil
  return { base, 0, 0, size, slots }, true
end

-- slot returns the slot of the i-th newest entry of the base, counting from 0.
local function slot(base, i) return (base.next - 1 - i) % base.slots end

-- raw returns the i-th newest entry of the base.
local function raw(base, i)
  local entry = base.entries[i]
  if entry then return entry end
  local at = HEADER + 8 * slot(base, i)
  if base.value then
    entry = unpack('<I8', base.value, at + 1)
  else
    local bytes = call('GETRANGE', base.key, at, at + 7)
    entry = #bytes == 8 and unpack('<I8', bytes) or 0
  end
  base.entries[i] = entry
  return entry
end

-- entry returns the i-th newest entry, at most now.
local function entry(s, i)
  if i < s[2] then return now end
  return min(raw(s[1], i - s[2] + s[3]), now)
end

-- first returns the least i in [0, n) for which holds(i), or n. It searches from the
-- end, because the result is usually near it.
local function first(n, holds)
  local low, high, step = 0, n, 1
  while low < high do
    local i = step and max(high - step, low) or floor((low + high) / 2)
    if holds(i) then
      high = i
      step = step and step * 2
    else
      low, step = i + 1, nil
    end
  end
  return low
end

local function settle(s, p)
  local base, pushed, popped, size = s[1], s[2], s[3], s[4]
  if size > 0 and pushed == 0 and raw(base, popped) > now then -- the clock stepped back
    pushed = first(size, function(i) return raw(base, popped + i) <= now end)
    popped = popped + pushed
  end
  local gone = now - p.window
  local settled = { base, pushed, popped, size, s[5] }
  if size > 0 and entry(settled, 0) <= gone then size = 0 end -- also what damage put in the future
  size = first(size, function(i) return entry(settled, i) <= gone end)
  settled[2], settled[4] = min(pushed, size), size
  return settled
end

local function charge(s, p, n)
  local add, slots = min(n, p.slots), s[5]
  if add == 0 then return s end
  local size = max(s[4], min(s[4] + add, p.slots))
  if size > slots then slots = min(max(size, 2 * slots, 4), p.slots) end
  return { s[1], min(s[2] + add, size), s[3], size, slots }
end

local function refund(s, _, n)
  local back = min(n, s[4])
  local pushed = min(back, s[2])
  return { s[1], s[2] - pushed, s[3] + back - pushed, s[4] - back, s[5] }
end

-- segment returns the slots from the oldest-th to the newest-th entry of the base.
local function segment(base, oldest, newest)
  local from, to = slot(base, oldest), slot(base, newest)
  local function get(a, b)
    if base.value then return base.value:sub(HEADER + 8 * a + 1, HEADER + 8 * b + 8) end
    return call('GETRANGE', base.key, HEADER + 8 * a, HEADER + 8 * b + 7)
  end
  if from <= to then return get(from, to) end
  return get(from, base.slots - 1) .. get(0, to)
end

local function store(key, s, p, expiry)
  local base, pushed, popped, size, slots = s[1], s[2], s[3], s[4], s[5]
  local newest = expiry - p.window
  local added = pack('<I8', now):rep(pushed)
  if base.value or slots ~= base.slots then -- write it whole, the oldest entry first
    local value = pack('<I4I4I4I8', size, size, slots, newest)
    if size > pushed then value = value .. segment(base, popped + size - pushed - 1, popped) end
    return save(key, value .. added .. ('\0'):rep(8 * (slots - size)), expiry)
  end
  local at = (base.next - popped) % slots
  local fit = min(pushed, slots - at) -- before the ring starts over
  if fit > 0 then call('SETRANGE', key, HEADER + 8 * at, added:sub(1, 8 * fit)) end
  if pushed > fit then call('SETRANGE', key, HEADER, added:sub(8 * fit + 1)) end
  local next = (at + pushed) % slots
  call('SETRANGE', key, 0, pack('<I4I4I4I8', size, next == 0 and slots or next, slots, newest))
  call('PEXPIREAT', key, ceil(expiry / 1000) + hold)
end

-- reply returns the number of entries, the time of the oldest, and the time of the
-- entry that must leave before n hits pass; 0 for none.
local function reply(s, p, n)
  local size = s[4]
  local oldest = size > 0 and entry(s, size - 1) or 0
  local blocking = n <= p.limit and n > p.limit - size and entry(s, p.limit - n) or 0
  return pack('<ddd', size, oldest, blocking)
end

return {
  params = params,
  load = load,
  settle = settle,
  fits = function(s, p, n) return n <= p.limit - s[4] end,
  left = function(s, p) return p.limit - s[4] end,
  charge = charge,
  refund = refund,
  expiry = function(s, p) return s[4] > 0 and entry(s, 0) + p.window or 0 end,
  store = store,
  reply = reply,
  partial = true,
}
