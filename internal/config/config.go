// Package config owns what rules are: domains, descriptors and limits, their names, the
// one text of a limit, and how rules of one source override those of another. It reads
// no YAML and no files: rulefile makes rules of texts, reload of what changes, and
// descriptor matches them.
package config

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// Rules is a validated, immutable set of domains, in file order.
type Rules struct {
	Domains []*Domain
	// Warnings are oddities that load all the same, as they do in envoyproxy/ratelimit.
	Warnings []Problem
	// Adjust are the rules about rules, in the order in which an [Overlay] applies them.
	Adjust []*Adjustment
	// Unadjusted are about rules that go on without an adjustment; see [Overlay.Apply].
	Unadjusted []Problem
}

// Consume says what a request with several descriptors is charged.
type Consume uint8

// The ways to charge a request with several descriptors.
const (
	Each         Consume = iota // each limited descriptor on its own, as envoyproxy/ratelimit does
	AllOrNothing                // all of them, or none when one is over
)

// String returns the name that rules use: "each" or "all_or_nothing".
func (c Consume) String() string {
	if c == AllOrNothing {
		return "all_or_nothing"
	}
	return "each"
}

// Domain is a set of rules of its own.
type Domain struct {
	Name    string
	Consume Consume
	// ConsumeGiven reports whether Consume was written, rather than the default.
	ConsumeGiven bool
	Descriptors  []*Descriptor
	// Limits are the rules on sets of entries: each has a Set.
	Limits []*Descriptor
	Pos    Pos
}

// Descriptor is one node of a domain's tree of rules, or a rule on sets of entries.
type Descriptor struct {
	// Set names the rule and says to which descriptors it applies, if it is one on
	// sets of entries; Key, Value and Descriptors are empty then. Nil: it is a node.
	Set *sets.Rule
	Key string
	// Value is empty (any value), exact, or a pattern in which each * stands for
	// zero or more characters.
	Value string
	// AnyOf stands instead of Value: a list of exact values and patterns, and ranges of
	// addresses. Each of them leads here as a Value of its own would.
	AnyOf sets.Set
	// Limits is empty when the node only leads to others. All of them must pass.
	Limits []*Limit
	// Hold makes the limits hold what requests ask for; nil: they charge it. Only a rule
	// on sets of entries has one.
	Hold           *Hold
	ShadowMode     bool
	QuotaMode      bool
	ShareThreshold bool
	DetailedMetric bool
	ValueToMetric  bool
	// Metadata goes into the answer's dynamic metadata. JSON-like values only.
	Metadata    map[string]any
	Descriptors []*Descriptor
	// Origin is where the node comes from.
	Origin Origin
	// Overridden is what is not in force because of this rule, without what is
	// below it. Nil: nothing.
	Overridden *Descriptor
	// Written is the rule before its limits were adjusted; see [Descriptor.AsWritten].
	// Nil: they are as written.
	Written *Descriptor
	Pos     Pos
}

// Len returns the number of descriptors that have limits.
func (r *Rules) Len() (n int) {
	for _, domain := range r.Domains {
		domain.Walk(func(d *Descriptor) {
			if len(d.Limits) > 0 {
				n++
			}
		})
	}
	return n
}

// WithoutChildren returns the descriptor without those below it.
func (d *Descriptor) WithoutChildren() *Descriptor {
	bare := *d
	bare.Descriptors = nil
	return &bare
}

// Has reports whether there is a rule of that origin, in force or overridden.
func (r *Rules) Has(o Origin) bool {
	return r != nil && slices.ContainsFunc(r.Domains, func(d *Domain) bool { return hasRule(d.Descriptors, o) || hasRule(d.Limits, o) })
}

func hasRule(level []*Descriptor, o Origin) bool {
	return slices.ContainsFunc(level, func(d *Descriptor) bool {
		return d.Origin == o && len(d.Limits) > 0 || d.Overridden != nil && d.Overridden.Origin == o || hasRule(d.Descriptors, o)
	})
}

// Walk calls f for every descriptor of the domain, parents first, then for the rules
// on sets of entries.
func (d *Domain) Walk(f func(*Descriptor)) {
	walk(d.Descriptors, f)
	walk(d.Limits, f)
}

func walk(level []*Descriptor, f func(*Descriptor)) {
	for _, d := range level {
		f(d)
		walk(d.Descriptors, f)
	}
}

// InShadow reports whether the whole descriptor is in shadow mode: it says so, or
// all its limits do.
func (d *Descriptor) InShadow() bool {
	return d.ShadowMode || !slices.ContainsFunc(d.Limits, func(l *Limit) bool { return !l.ShadowMode })
}

// Candidate reports whether l is in shadow mode beside limits that are enforced.
func (d *Descriptor) Candidate(l *Limit) bool { return l.ShadowMode && !d.InShadow() }

// CandidateName returns what statistics call the i-th limit when it is a candidate.
func (d *Descriptor) CandidateName(i int) string {
	return cmp.Or(d.Limits[i].Name, "#"+strconv.Itoa(i+1))
}

// MaxSets is how many rules on sets of entries may apply to one request descriptor.
const MaxSets = 64

// MaxLimits is how many limits a descriptor may have: one with more could never be
// decided, because a request may not meet more.
const MaxLimits = 1024
