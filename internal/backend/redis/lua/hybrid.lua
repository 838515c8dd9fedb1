-- hybrid: a bucket and a window, sliding or strict; follows internal/algo/hybrid.go.
-- State: {the bucket's, the window's}.
-- Value: 'H', the bucket in 11 bytes, then the window's value.

local bucket = program(BUCKET)

local function params(numbers, at)
  local window = program((unpack('<d', numbers, at + 56)))
  return { bucket = bucket.params(numbers, at), kind = window, window = window.params(numbers, at + 64) }
end

local function load(key, p)
  local value, there = read(key)
  if not value or #value < 12 or value:byte() ~= 72 then return { { 0, 0 }, p.kind.decode() }, there end
  return { bucket.decode(value:sub(2, 12)), p.kind.decode(value:sub(13)) }, there
end

-- both applies the operation of that name to both parts.
local function both(name)
  return function(s, p, n)
    return { bucket[name](s[1], p.bucket, n), p.kind[name](s[2], p.window, n) }
  end
end

return {
  params = params,
  load = load,
  settle = both('settle'),
  fits = function(s, p, n) return bucket.fits(s[1], p.bucket, n) and p.kind.fits(s[2], p.window, n) end,
  left = function(s, p) return min(bucket.left(s[1], p.bucket), p.kind.left(s[2], p.window)) end,
  charge = both('charge'),
  refund = both('refund'),
  expiry = function(s, p) return max(bucket.expiry(s[1]), p.kind.expiry(s[2], p.window)) end,
  store = function(key, s, p, at)
    save(key, 'H' .. bucket.encode(s[1]) .. p.kind.encode(s[2], p.window), at)
  end,
  reply = function(s, p) return bucket.reply(s[1]) .. p.kind.reply(s[2], p.window) end,
}
