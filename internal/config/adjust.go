package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/match/glob"
)

// Adjustment is a rule about rules: it changes the limits that it selects, wherever
// their rules come from. An [Overlay] applies it.
type Adjustment struct {
	// By names where it is written: a place in a file, or a setting.
	By string
	// Pos is that place, and Path leads to it in its document. Both are zero for a setting.
	Pos  Pos
	Path string
	// Selects chooses the limits to change. Set is the change.
	Selects Selection
	Set     Change
}

// Selection chooses limits. Each text must match the whole of one name. A * in it matches
// zero or more characters. An empty text matches any name.
type Selection struct {
	Domain string
	Path   string // of the rule, as Rule.Name
	Name   string // of the limit
	// Unnamed chooses the limits that a default algorithm applies to; see [Default].
	Unnamed bool
}

// Change holds the parameters of a limit that an adjustment sets. The zero value of a
// field keeps the limit's own. A change cannot set the name of a limit or how much it
// admits in the long run: only its rule does.
type Change struct {
	// Algorithm keeps those of the limit's parameters that it takes as well.
	Algorithm      *algo.Algorithm
	Burst          Burst
	Strict         *bool
	SubWindows     int
	DeniedHits     algo.DeniedHits
	OnBackendError BackendErrorMode
	Lease          float64
	RawBody        string
	ShadowMode     *bool
}

// String lists the parameters that are set, as the text of a limit does: "algorithm
// token_bucket, burst 20%".
func (c *Change) String() string {
	var all []string
	add := func(given bool, key string, value any) {
		if given {
			all = append(all, fmt.Sprintf("%s %v", key, value))
		}
	}
	if c.Algorithm != nil {
		add(true, "algorithm", *c.Algorithm)
	}
	add(c.Burst != Burst{}, "burst", c.Burst)
	if c.Strict != nil {
		add(true, "strict", *c.Strict)
	}
	add(c.SubWindows != 0, "sub_windows", c.SubWindows)
	add(c.DeniedHits != algo.DeniedDefault, "denied_hits", c.DeniedHits)
	add(c.OnBackendError != BackendErrorDefault, "on_backend_error", c.OnBackendError)
	add(c.Lease != 0, "lease", c.Lease)
	add(c.RawBody != "", "raw_body", fmt.Sprintf("%d bytes", len(c.RawBody)))
	if c.ShadowMode != nil {
		add(true, "shadow_mode", *c.ShadowMode)
	}
	return strings.Join(all, ", ")
}

// AdjustedBy describes an adjustment for people and for JSON.
type AdjustedBy struct {
	By  string `json:"by"`  // file:line:column, or the setting
	Set string `json:"set"` // such as "algorithm token_bucket, burst 20%"
}

// DescribeAdjustments returns the descriptions of adjustments.
func DescribeAdjustments(all []*Adjustment) (list []AdjustedBy) {
	for _, a := range all {
		list = append(list, AdjustedBy{a.By, a.Set.String()})
	}
	return list
}

// String returns "place: parameters".
func (a AdjustedBy) String() string { return a.By + ": " + a.Set }

// AdjustedBy returns the adjustments of the descriptor's limits, each once.
func (d *Descriptor) AdjustedBy() (all []*Adjustment) {
	seen := map[*Adjustment]bool{}
	for _, l := range d.Limits {
		for _, a := range l.AdjustedBy {
			if !seen[a] {
				seen[a] = true
				all = append(all, a)
			}
		}
	}
	return all
}

// WrittenText returns the text of the i-th limit before it was adjusted. If the mode of
// its descriptor was adjusted too, the text ends with the mode as written.
func (d *Descriptor) WrittenText(i int) string {
	w := d.AsWritten()
	text := w.Limits[i].String()
	if w.ShadowMode && !d.ShadowMode {
		text += " (shadow_mode)"
	}
	return text
}

// AsWritten returns the descriptor as its source has it, before adjustments. Callers must
// not look at the descriptors below it.
func (d *Descriptor) AsWritten() *Descriptor {
	if d.Written != nil {
		return d.Written
	}
	return d
}

// Burst is a capacity: a number of hits, or a percentage of the limit. The zero Burst is
// none.
type Burst struct {
	Hits    uint32
	Percent Percent
}

// ParseBurst reads "20" or "20%". The error is a *algo.ParamError.
func ParseBurst(text string) (b Burst, err error) {
	digits, isPart := strings.CutSuffix(strings.TrimSpace(text), "%")
	ok := false
	if isPart {
		b.Percent, ok = ParsePercent(strings.TrimSpace(digits))
	} else {
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 32)
		b.Hits, ok = uint32(n), err == nil && n > 0
	}
	if !ok {
		return Burst{}, &algo.ParamError{Param: "burst", What: fmt.Sprintf("%q is no burst", text),
			Remedy: fmt.Sprintf("write a whole number from 1 to %d, or a percentage of the limit, such as 20%%", uint32(math.MaxUint32))}
	}
	return b, nil
}

// String returns a text that ParseBurst reads. It is empty for the zero Burst.
func (b Burst) String() string {
	switch {
	case b.Percent > 0:
		return b.Percent.String()
	case b.Hits > 0:
		return strconv.FormatUint(uint64(b.Hits), 10)
	}
	return ""
}

// Of returns the burst of a limit in hits. A percentage is rounded up. The result is at
// least 1 and at most the largest limit.
func (b Burst) Of(limit uint32) uint32 {
	if b.Percent == 0 {
		return b.Hits
	}
	if part, ok := b.Percent.Of(limit); ok {
		return part
	}
	return math.MaxUint32
}

// Default is the algorithm of limits for which none is written. It does not apply to
// limits whose meaning it would change: quotas, holds, windows of a calendar, and windows
// of a day or more, such as a budget.
type Default struct {
	// Algorithm may be FixedWindow, the zero value, which changes nothing.
	Algorithm algo.Algorithm
	Burst     Burst
	// By names the setting.
	By string
}

// Check reports a burst that the algorithm does not take. The error is a *algo.ParamError.
func (d Default) Check() error {
	if d.Algorithm.AlwaysHolds() {
		return needsHold(d.Algorithm)
	}
	if d.Burst == (Burst{}) || d.Algorithm.Takes(algo.TakesBurst) {
		return nil
	}
	return &algo.ParamError{Param: "burst", What: fmt.Sprintf("%s has no burst", d.Algorithm), Remedy: "leave it out, or use " + algo.AlgorithmsWith(algo.TakesBurst)}
}

// needsHold is the error of an algorithm that only a rule with a hold can have.
func needsHold(a algo.Algorithm) *algo.ParamError {
	return &algo.ParamError{Param: "algorithm", What: fmt.Sprintf("%s needs a hold, which only a rule can have", a), Remedy: "write it in the rule, or use another algorithm"}
}

// adjustment returns the default as an adjustment; nil if it changes nothing.
func (d Default) adjustment() *Adjustment {
	if d.Algorithm == algo.FixedWindow {
		return nil
	}
	return &Adjustment{By: d.By, Selects: Selection{Unnamed: true}, Set: Change{Algorithm: &d.Algorithm, Burst: d.Burst}}
}

// takesDefault reports whether a default algorithm applies to a limit of the descriptor.
// Only this function knows which limits depend on their very window.
func takesDefault(d *Descriptor, l *Limit) bool {
	p := l.Algo.Params()
	return !l.AlgorithmGiven && !d.QuotaMode && d.Hold == nil && p.Calendar.IsZero() && p.Window < Day.Duration()
}

// text is one text of a Selection, compiled for matching.
type text struct {
	any     bool
	exact   string
	pattern *glob.Pattern // nil: exact
}

func newText(s string) text {
	switch {
	case strings.Trim(s, "*") == "":
		return text{any: true}
	case strings.Contains(s, "*"):
		p := glob.Parse(s)
		return text{pattern: &p}
	}
	return text{exact: s}
}

func (t *text) match(name string) bool {
	switch {
	case t.any:
		return true
	case t.pattern != nil:
		return t.pattern.Match(name)
	}
	return t.exact == name
}
