-- calendar_window: follows internal/algo/calendar_window.go.
-- State and value: those of fixed_window. Windows of a calendar end at whole seconds.

local fixed = program(FIXED_WINDOW)

-- params finds the window of now among the boundaries that were sent. The sender
-- chose them by its own clock.
local function params(numbers, at)
  local limit, b1, b2, b3, b4, b5 = unpack('<dddddd', numbers, at)
  local p = { limit = limit, window = SHORT_FORM }
  if now < b1 or now >= b4 then
    elsewhen = true
  elseif now < b2 then
    p.ends, p.next = b2, b3
  elseif now < b3 then
    p.ends, p.next = b3, b4
  else
    p.ends, p.next = b4, b5
  end
  return p
end

local function settle(s, p)
  local e = s[1]
  if s[2] == 0 or now >= e then return { p.ends, 0 } end
  if e > p.next then e = p.ends end -- the clock stepped back
  if e ~= s[1] or s[2] > MAX_COUNT then return { e, min(s[2], MAX_COUNT) } end
  return s
end

local function refund(s, p, n)
  local count = s[2] - min(s[2], n)
  return { count == 0 and p.ends or s[1], count }
end

return {
  params = params,
  load = fixed.load,
  settle = settle,
  fits = fixed.fits,
  left = fixed.left,
  charge = fixed.charge,
  refund = refund,
  expiry = fixed.expiry,
  store = fixed.store,
  reply = fixed.reply,
}
