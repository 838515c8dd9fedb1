package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/descriptor/glob"
)

// Adjustment is a rule about rules: it changes the limits that it selects, wherever
// their rules come from. An [Overlay] applies it.
type Adjustment struct {
	// By says who makes it: the place where it is written, or a setting.
	By string
	// Pos is that place, and Path leads to it in its document. Both are zero for a setting.
	Pos  Pos
	Path string
	// Selects is which limits it changes, Set what it makes of them.
	Selects Selection
	Set     Change
}

// Selection is a choice of limits. Each text is held against the whole of one name; each
// * in it stands for zero or more characters, and an empty one for any name.
type Selection struct {
	Domain string
	Path   string // of the rule, as Rule.Name
	Name   string // of the limit
	// Unnamed chooses the limits for which a default algorithm is; see [Default].
	Unnamed bool
}

// Change is what an adjustment sets of a limit. The zero value of a field leaves the
// limit's own. What a limit admits in the long run, and what it is called, is no part
// of it: that is for its rule to say.
type Change struct {
	// Algorithm takes with it those of the limit's parameters that it has too.
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

// String lists what is set, as the text of a limit has it: "algorithm token_bucket,
// burst 20%".
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

// AdjustedBy is an adjustment as people and programs are told of it.
type AdjustedBy struct {
	By  string `json:"by"`  // file:line:column, or the setting
	Set string `json:"set"` // such as "algorithm token_bucket, burst 20%"
}

// Told returns what to tell of adjustments.
func Told(all []*Adjustment) (list []AdjustedBy) {
	for _, a := range all {
		list = append(list, AdjustedBy{a.By, a.Set.String()})
	}
	return list
}

// String returns "place: what is set".
func (a AdjustedBy) String() string { return a.By + ": " + a.Set }

// AdjustedBy returns what has adjusted the descriptor's limits, each once.
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

// WrittenText is the text of the i-th limit before it was adjusted, with the mode of its
// descriptor if that was adjusted, too.
func (d *Descriptor) WrittenText(i int) string {
	w := d.AsWritten()
	text := w.Limits[i].String()
	if w.ShadowMode && !d.ShadowMode {
		text += " (shadow_mode)"
	}
	return text
}

// AsWritten returns the descriptor as its source has it, before adjustments. What is
// below it is not to be looked at.
func (d *Descriptor) AsWritten() *Descriptor {
	if d.Written != nil {
		return d.Written
	}
	return d
}

// Burst is a capacity: a number of hits, or a part of the limit. The zero Burst is none.
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

// String writes what ParseBurst reads; nothing for none.
func (b Burst) String() string {
	switch {
	case b.Percent > 0:
		return b.Percent.String()
	case b.Hits > 0:
		return strconv.FormatUint(uint64(b.Hits), 10)
	}
	return ""
}

// Of returns the burst of a limit. A percentage is rounded up, to at least 1 and at most
// what a limit may be.
func (b Burst) Of(limit uint32) uint32 {
	if b.Percent == 0 {
		return b.Hits
	}
	if part, ok := b.Percent.Of(limit); ok {
		return part
	}
	return math.MaxUint32
}

// Default is the algorithm of limits for which none is written. It is not for those whose
// meaning it would change: quotas, holds, windows of a calendar, and those of a day or
// more, such as a budget.
type Default struct {
	// Algorithm may be FixedWindow, the zero value: that is what such limits have.
	Algorithm algo.Algorithm
	Burst     Burst
	// By says what sets it.
	By string
}

// Check reports a burst that the algorithm does not take. The error is a *algo.ParamError.
func (d Default) Check() error {
	if d.Burst == (Burst{}) || d.Algorithm.Takes(algo.TakesBurst) {
		return nil
	}
	return &algo.ParamError{Param: "burst", What: fmt.Sprintf("%s has no burst", d.Algorithm), Remedy: "leave it out, or use " + algo.Taking(algo.TakesBurst)}
}

// adjustment returns what a default comes to; nil if it changes nothing.
func (d Default) adjustment() *Adjustment {
	if d.Algorithm == algo.FixedWindow {
		return nil
	}
	return &Adjustment{By: d.By, Selects: Selection{Unnamed: true}, Set: Change{Algorithm: &d.Algorithm, Burst: d.Burst}}
}

// takesDefault reports whether a default algorithm is for a limit of the descriptor. It
// is the one place that knows which limits mean just the window that they have.
func takesDefault(d *Descriptor, l *Limit) bool {
	p := l.Algo.Params()
	return !l.AlgorithmGiven && !d.QuotaMode && d.Hold == nil && p.Calendar.IsZero() && p.Window < Day.Duration()
}

// text is a part of a Selection, ready to be held against names.
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
