-- hybrid: a bucket and a window, sliding or strict; follows internal/algo/hybrid.go.
-- State: {the bucket's, the window's}.
-- Value: the bucket's, then the window's.

local bucket = program(BUCKET)

local function params(numbers, at)
  local window = program((unpack('<d', numbers, at + 64)))
  local p = { bucket = bucket.params(numbers, at), kind = window, window = window.params(numbers, at + 72) }
  p.limit = p.window.limit
  return p
end

-- decode returns the state that is packed in value from the at-th byte on.
local function decode(value, at, p)
  if #value < at + bucket.bytes then return { { 0, 0, 0, 0, 0 }, { 0, 0, 0 } } end
  return { bucket.decode(value, at), p.kind.decode(value, at + bucket.bytes) }
end

local function encode(s, p) return bucket.encode(s[1]) .. p.kind.encode(s[2], p.window) end

local function load(key, p)
  local value, there = read(key)
  return decode(value or '', 1, p), there
end

return {
  params = params,
  load = load,
  decode = decode,
  settle = function(s, p) return { bucket.settle(s[1], p.bucket), p.kind.settle(s[2], p.window) } end,
  fits = function(s, p, n) return bucket.fits(s[1], p.bucket, n) and p.kind.fits(s[2], p.window, n) end,
  left = function(s, p) return min(bucket.left(s[1], p.bucket), p.kind.left(s[2], p.window)) end,
  charge = function(s, p, n) return { bucket.charge(s[1], p.bucket, n), p.kind.charge(s[2], p.window, n) } end,
  refund = function(s, p, n) return { bucket.refund(s[1], p.bucket, n), p.kind.refund(s[2], p.window, n) } end,
  expiry = function(s, p) return max(bucket.expiry(s[1]), p.kind.expiry(s[2], p.window)) end,
  store = function(key, s, p, at) save(key, encode(s, p), at) end,
  encode = encode,
  reply = function(s, p) return bucket.reply(s[1], p.bucket) .. p.kind.reply(s[2], p.window) end,
}
