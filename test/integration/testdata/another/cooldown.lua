-- cooldown: follows internal/algo/cooldown.go.
-- State: {when the next call may pass}. Value: the same.

return {
  params = function(numbers, at)
    local limit, window = unpack('<dd', numbers, at)
    return { limit = limit, window = window }
  end,
  load = function(key)
    local value, there = read(key)
    return { value and tonumber(value) or 0 }, there
  end,
  settle = function(s, p)
    local at = min(s[1], now + p.window)
    return { at > now and at or 0 }
  end,
  fits = function(s, p, n) return s[1] == 0 and n <= p.limit end,
  left = function(s, p) return s[1] == 0 and p.limit or 0 end,
  charge = function(_, p) return { now + p.window } end,
  refund = function() return { 0 } end,
  expiry = function(s) return s[1] end,
  store = function(key, s, _, expiry) save(key, text(s[1]), expiry) end,
  reply = function(s) return pack('<d', s[1]) end,
}
