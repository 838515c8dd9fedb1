package config

import (
	"fmt"
	"strings"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// String lists every limit of the domain on a line of its own, in file order and
// as envoyproxy/ratelimit prints them, with what it does not know at the end.
func (d *Domain) String() string {
	var b strings.Builder
	dumpLevel(&b, d.Name, d.Descriptors)
	return b.String()
}

// String lists the limits of all domains.
func (r *Rules) String() string {
	var b strings.Builder
	for _, domain := range r.Domains {
		dumpLevel(&b, domain.Name, domain.Descriptors)
	}
	return b.String()
}

func dumpLevel(b *strings.Builder, parent string, level []*Descriptor) {
	for _, d := range level {
		path := parent + "." + d.Key
		if d.Value != "" {
			path += "_" + d.Value
		}
		for _, l := range d.Limits {
			fmt.Fprintf(b, "%s: unit=%s requests_per_unit=%d, shadow_mode: %t, quota_mode: %t%s\n", path,
				strings.ToUpper(l.Unit.String()), l.RequestsPerUnit, d.ShadowMode || l.ShadowMode, d.QuotaMode, l.beyondIncumbent())
		}
		dumpLevel(b, path, d.Descriptors)
	}
}

// beyondIncumbent lists what envoyproxy/ratelimit has no word for.
func (l *Limit) beyondIncumbent() string {
	if l.Unlimited {
		return ", unlimited: true"
	}
	var b strings.Builder
	add := func(name string, value any) { fmt.Fprintf(&b, ", %s: %v", name, value) }
	p := l.Algo.Params()
	if p.Algorithm != algo.FixedWindow {
		add("algorithm", p.Algorithm)
	}
	if _, window := l.Window(); window != "" {
		add("window", window)
	}
	if p.Burst != 0 {
		add("burst", p.Burst)
	}
	if p.Refill != (algo.Rate{}) {
		add("refill_rate", FormatRate(p.Refill))
	}
	if p.Strict {
		add("strict", true)
	}
	if p.DeniedHits != algo.DeniedDefault {
		add("denied_hits", p.DeniedHits)
	}
	return b.String()
}

// Window returns how the limit's window is written: as a unit or as a duration.
func (l *Limit) Window() (unit, window string) {
	length := l.Algo.Params().Window
	if l.UnitMultiplier == 1 && l.Unit.Duration() == length {
		return l.Unit.String(), ""
	}
	return "", FormatDuration(length)
}
