-- Carries out the plan, and stores the states that it changes.

-- same compares states, which are lists of numbers and of such lists.
local function same(x, y)
  for i = 1, #x do
    if x[i] ~= y[i] and not (type(x[i]) == 'table' and same(x[i], y[i])) then return false end
  end
  return #x == #y
end

if elsewhen then return pack('<d', now) end

local request, at = nil, 1
while at < #plan do
  local bits, k1, k0, a1, a0, count = plan:byte(at, at + 5)
  if bits >= 32 then
    run(checks[a1 * 256 + a0], k1 * 256 + k0, count)
    at = at + 6
  else
    request = request or define_request()
    at = request(at)
  end
end

-- Write only now: until here, large logs are read in place.
for i = 1, #places do
  local k = places[i]
  local c, s = changed[k], state[k]
  local expiry = c.program.expiry(s, c.p)
  if expiry > now then
    if s ~= stored[k] and not same(s, stored[k]) then c.program.store(KEYS[k], s, c.p, expiry, stored[k]) end
  elseif there[k] then
    call('DEL', KEYS[k])
  end
end

return pack('<d', now) .. table.concat(answers)
