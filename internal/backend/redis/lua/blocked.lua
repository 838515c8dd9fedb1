-- blocked: a limit of 0. Nothing passes, and nothing is remembered: what a
-- higher limit left goes at the next call.

local nothing = {}

return {
  params = function() end,
  load = function() return nothing, true end,
  settle = function() return nothing end,
  fits = function() return false end,
  left = function() return 0 end,
  charge = function() return nothing end,
  refund = function() return nothing end,
  expiry = function() return 0 end,
  reply = function() return '' end,
}
