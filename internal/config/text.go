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
		rate := strconv.FormatUint(uint64(p.Limit), 10)
		if l.Table != nil {
			rate = l.Table.text(p.Limit)
		}
		if p.Algorithm.AlwaysHolds() {
			fmt.Fprintf(&b, "%s, %s at once", p.Algorithm, rate)
		} else {
			fmt.Fprintf(&b, "%s, %s per %s", p.Algorithm, rate, unit+window)
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
		switch {
		case l.BurstPercent != 0 && l.Table != nil:
			add(true, "burst", l.BurstPercent)
		case l.BurstPercent != 0:
			add(true, "burst", fmt.Sprintf("%d (%s)", p.Burst, l.BurstPercent))
		default:
			add(p.Burst != 0, "burst", p.Burst)
		}
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
	headers := make([]string, len(l.RequestHeaders))
	for i, h := range l.RequestHeaders {
		headers[i] = h.Name + "=" + Quote(h.Value)
	}
	add(len(headers) > 0, "request_headers", strings.Join(headers, " "))
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
			for _, a := range l.AdjustedBy {
				fmt.Fprintf(b, ", adjusted_by: %s", a.By)
			}
			if h := d.Hold; h != nil {
				fmt.Fprintf(b, ", by: %s, settled_by: %s=%s", Quote(h.By), Quote(h.SettledBy.Key), Quote(h.SettledBy.Value))
			}
			b.WriteByte('\n')
		}
		dumpLevel(b, path, d.Descriptors)
	}
}

// beyondRate lists what the unit and requests of envoyproxy/ratelimit leave out.
func (l *Limit) beyondRate() (all []detail) {
	if l.Unlimited {
		return []detail{{"unlimited", "true"}}
	}
	p := l.Algo.Params()
	if p.Algorithm != algo.FixedWindow {
		all = append(all, detail{"algorithm", p.Algorithm.String()})
	}
	switch {
	case p.Algorithm.AlwaysHolds():
	case !p.Calendar.IsZero():
		all = append(all, detail{"window", p.Calendar.String()})
	case l.Unit.Duration() != p.Window:
		all = append(all, detail{"window", FormatDuration(p.Window)})
	}
	if l.Table != nil {
		all = append(all, detail{"by " + l.Table.By, l.Table.text(l.RequestsPerUnit)})
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

// Window returns the limit's window in words: a unit, a duration, or what a calendar
// says, such as "calendar month (Europe/Berlin, from the 15th)"; nothing if it has none.
func (l *Limit) Window() (unit, window string) {
	p := l.Algo.Params()
	switch {
	case p.Algorithm.AlwaysHolds():
		return "", ""
	case !p.Calendar.IsZero():
		return "", p.Calendar.String()
	}
	length := p.Window
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
