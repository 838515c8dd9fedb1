-- Decides one check alone: internal/algo's Limit.Step, but for a shadow.

local kind, bits = plan:byte(1, 2)
local hits, denied, at = unpack('<dd', ARGV[4])
local key, program = KEYS[1], define(kind)
local p = program.params(ARGV[4], at)
local needed = room(hits, denied)

local stored, there = program.load(key, p)
local s = program.settle(stored, p)
local fits, charged = true, hits
if hits < 0 then
  s = program.refund(s, p, -hits)
else
  fits = program.fits(s, p, needed)
  if not fits and denied ~= COUNT then
    charged = denied == DRAIN and hits > 0 and program.left(s, p) or 0
  end
  if not fits and bits % 16 >= 8 then charged = 0 end -- a shadow
  if charged > 0 then s = program.charge(s, p, charged) end
end
if hits ~= 0 then finish(key, program, p, s, charged ~= 0 or not same(s, stored), there) end

return pack('<dB', now, fits and 1 or 0) .. program.reply(s, p, needed)
