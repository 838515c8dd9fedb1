-- concurrency: follows internal/algo/concurrency.go. It is only ever inside of hold.
-- State and value: none.

local function params(numbers, at) return { limit = unpack('<d', numbers, at) } end

local function same(s) return s end

return {
  params = params,
  decode = function() return {} end,
  settle = same,
  fits = function(_, p, n) return n <= p.limit end,
  left = function(_, p) return p.limit end,
  charge = same,
  refund = same,
  expiry = function() return 0 end,
  encode = function() return '' end,
  reply = function() return '' end,
}
