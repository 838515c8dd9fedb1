package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// String is the one text of a limit, which explain, check, the admin API, its page and
// rules list show, such as "login: token_bucket, 100 per minute, burst 20". All but
// the rate is as the limit is written.
func (l *Limit) String() string {
	var b strings.Builder
	if l.Name != "" {
		b.WriteString(Quote(l.Name) + ": ")
	}
	if l.Unlimited {
		b.WriteString("unlimited")
	} else {
		p := l.Algo.Params()
		unit, window := l.Window()
		if p.Algorithm.AlwaysHolds() {
			fmt.Fprintf(&b, "%s, %d at once", p.Algorithm, p.Limit)
		} else {
			fmt.Fprintf(&b, "%s, %d per %s", p.Algorithm, p.Limit, unit+window)
		}
	}
	for _, d := range l.details() {
		b.WriteString(", " + d.key)
		if d.value != "true" {
			b.WriteString(" " + d.value)
		}
	}
	if l.ShadowMode {
		b.WriteString(", shadow_mode")
	}
	for _, name := range l.Replaces {
		b.WriteString(", replaces " + Quote(name))
	}
	return b.String()
}

// LimitsText is the one text of a rule's limits, in one line.
func (d *Descriptor) LimitsText() string {
	texts := make([]string, len(d.Limits))
	for i, l := range d.Limits {
		texts[i] = l.String()
	}
	out := strings.Join(texts, "; ")
	if d.ShadowMode {
		out += " (shadow_mode)"
	}
	if d.QuotaMode {
		out += " (quota_mode)"
	}
	if d.Hold != nil {
		out += " (" + d.Hold.String() + ")"
	}
	return out
}

// detail is a field of a limit with its value.
type detail struct{ key, value string }

// details are the fields that a limit has beyond its rate, and that
// envoyproxy/ratelimit does not know.
func (l *Limit) details() (all []detail) {
	add := func(given bool, key string, value any) {
		if given {
			all = append(all, detail{key, fmt.Sprint(value)})
		}
	}
	if !l.Unlimited {
		p := l.Algo.Params()
		add(p.Burst != 0, "burst", p.Burst)
		if p.Refill != (algo.Rate{}) {
			add(true, "refill_rate", FormatRate(p.Refill))
		}
		add(p.Strict, "strict", true)
		add(p.SubWindows != 0, "sub_windows", p.SubWindows)
		add(p.DeniedHits != algo.DeniedDefault, "denied_hits", p.DeniedHits)
		if expires := l.Expires(); expires != 0 {
			add(true, "hold", FormatDuration(expires))
		}
	}
	add(l.OnBackendError != BackendErrorDefault, "on_backend_error", l.OnBackendError)
	add(l.Lease != 0, "lease", l.Lease)
	add(l.RawBody != "", "raw_body", fmt.Sprintf("%d bytes", len(l.RawBody)))
	return all
}

// String lists every limit of the domain on a line of its own, in file order and
// as envoyproxy/ratelimit prints them, with what it does not know at the end.
func (d *Domain) String() string {
	var b strings.Builder
	d.dump(&b)
	return b.String()
}

// String lists the limits of all domains.
func (r *Rules) String() string {
	var b strings.Builder
	for _, domain := range r.Domains {
		domain.dump(&b)
	}
	return b.String()
}

func (d *Domain) dump(b *strings.Builder) {
	dumpLevel(b, d.Name, d.Descriptors)
	dumpLevel(b, d.Name, d.Limits)
}

// dumpLevel writes the lines that envoyproxy/ratelimit's users know from its /rlconfig,
// and may search or parse. So the rate is in its words, the fields are "key: value",
// and names and replaces, which it prints nowhere, are left out.
func dumpLevel(b *strings.Builder, parent string, level []*Descriptor) {
	for _, d := range level {
		path := d.nameBelow(parent)
		for _, l := range d.Limits {
			fmt.Fprintf(b, "%s: unit=%s requests_per_unit=%d, shadow_mode: %t, quota_mode: %t", path,
				strings.ToUpper(l.Unit.String()), l.RequestsPerUnit, d.ShadowMode || l.ShadowMode, d.QuotaMode)
			for _, f := range append(l.beyondRate(), l.details()...) {
				fmt.Fprintf(b, ", %s: %s", f.key, f.value)
			}
			if h := d.Hold; h != nil {
				fmt.Fprintf(b, ", by: %s, settled_by: %s=%s", Quote(h.By), Quote(h.SettledBy.Key), Quote(h.SettledBy.Value))
			}
			b.WriteByte('\n')
		}
		dumpLevel(b, path, d.Descriptors)
	}
}

// beyondRate is what the unit and requests of envoyproxy/ratelimit do not tell.
func (l *Limit) beyondRate() (all []detail) {
	if l.Unlimited {
		return []detail{{"unlimited", "true"}}
	}
	if a := l.Algo.Params().Algorithm; a != algo.FixedWindow {
		all = append(all, detail{"algorithm", a.String()})
	}
	if _, window := l.Window(); window != "" {
		all = append(all, detail{"window", window})
	}
	return all
}

// Expires is for how long the limit holds; 0: it charges.
func (l *Limit) Expires() time.Duration {
	p := l.Algo.Params()
	if p.Algorithm.AlwaysHolds() {
		return p.Window
	}
	return p.Hold
}

// Window returns how the limit's window is written: as a unit or as a duration, or
// not at all if it has none.
func (l *Limit) Window() (unit, window string) {
	if l.Algo.Params().Algorithm.AlwaysHolds() {
		return "", ""
	}
	length := l.Algo.Params().Window
	if unit, n := Measure(length); n == 1 && unit != UnitUnknown {
		return unit.String(), ""
	}
	return "", FormatDuration(length)
}

// Quote returns s, in quotes if it is empty or would be hard to tell from its
// surroundings.
func Quote(s string) string {
	plain := func(r rune) bool {
		return r != utf8.RuneError && r != '"' && unicode.IsGraphic(r) && !unicode.IsSpace(r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return strconv.Quote(s)
}
