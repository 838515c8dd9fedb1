-- Decides one check alone.

local kind, bits = plan:byte(1, 2)
local c = parse(kind, ARGV[4])
local stored, there = c.program.load(KEYS[1], c.p)
local s, fitted = step(c, c.program.settle(stored, c.p), bits % 16 >= 8)
local said = answer(c, s, fitted) -- before finish: a large log is read in place
if c.hits ~= 0 then finish(KEYS[1], c, s, stored, there) end
return pack('<d', now) .. said
