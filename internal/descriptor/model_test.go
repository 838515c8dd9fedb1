package descriptor_test

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// The model is the simplest matcher with the same meaning.

type how string

const (
	exact    how = "exact"
	inRange  how = "range"
	wildcard how = "wildcard"
	keyOnly  how = "key only"
)

func join(key, value string) string { return key + "_" + value }

func joined(d *config.Descriptor) string {
	if d.Value == "" && !d.HasList() {
		return d.Key
	}
	return join(d.Key, d.ValueText())
}

// values returns the exact values and patterns of a descriptor, as if each were on a
// descriptor of its own; an empty one stands for no value.
func values(d *config.Descriptor) []string {
	if d.HasList() {
		return d.AnyOf.Values
	}
	return []string{d.Value}
}

func joinedValues(d *config.Descriptor) (all []string) {
	for _, v := range values(d) {
		if v == "" {
			all = append(all, d.Key)
		} else {
			all = append(all, join(d.Key, v))
		}
	}
	return all
}

// covered returns the longest of the descriptor's ranges that cover the value; -1 if
// none does.
func covered(d *config.Descriptor, value string) int {
	address, err := netip.ParsePrefix(value)
	if err != nil {
		a, err := netip.ParseAddr(value)
		if err != nil {
			return -1
		}
		address = netip.PrefixFrom(a, a.BitLen())
	}
	longest := -1
	for _, text := range d.AnyOf.CIDRs {
		p := netip.MustParsePrefix(text)
		a, bits := address.Addr(), address.Bits()
		if a.Is4In6() && bits >= 96 {
			a, bits = a.Unmap(), bits-96
		}
		if p.Contains(a) && p.Bits() <= bits {
			longest = max(longest, p.Bits())
		}
	}
	return longest
}

// glob reports whether pattern matches s, by trying everything.
func glob(pattern, s string) bool {
	reach := make([]bool, len(s)+1) // s[:i] is matched by the pattern so far
	reach[0] = true
	for _, c := range []byte(pattern) {
		next := make([]bool, len(s)+1)
		for i := range reach {
			switch {
			case c == '*':
				next[i] = reach[i] || i > 0 && next[i-1]
			case i > 0:
				next[i] = reach[i-1] && s[i-1] == c
			}
		}
		reach = next
	}
	return reach[len(s)]
}

// modelStep returns the descriptor of the level on which e lands.
func modelStep(level []*config.Descriptor, e descriptor.Entry) (*config.Descriptor, how) {
	var best *config.Descriptor
	better := func(d *config.Descriptor, key, value string) bool {
		own := func(d *config.Descriptor) bool { return d.Key == key && slices.Contains(values(d), value) }
		return best == nil || own(d) && !own(best) || !own(best) && len(d.Key) < len(best.Key)
	}
	for _, d := range level {
		if slices.Contains(joinedValues(d), join(e.Key, e.Value)) && better(d, e.Key, e.Value) {
			best = d
		}
	}
	if best != nil {
		return best, exact
	}
	longest := -1
	for _, d := range level {
		if n := covered(d, e.Value); d.Key == e.Key && n > longest {
			best, longest = d, n
		}
	}
	if best != nil {
		return best, inRange
	}
	for _, d := range level {
		for _, j := range joinedValues(d) {
			if strings.Contains(j, "*") && glob(j, join(e.Key, e.Value)) {
				return d, wildcard
			}
		}
	}
	for _, d := range level {
		if slices.Contains(joinedValues(d), e.Key) && better(d, e.Key, "") {
			best = d
		}
	}
	return best, keyOnly
}

// landing is one step of a way down.
type landing struct {
	*config.Descriptor
	how
}

// modelWalk returns where entries land one after the other, those entries, and the others,
// which lead nowhere.
func modelWalk(domain *config.Domain, entries []descriptor.Entry) (way []landing, leading, others []descriptor.Entry) {
	level := domain.Descriptors
	for _, e := range entries {
		d, how := modelStep(level, e)
		if d == nil {
			others = append(others, e)
			continue
		}
		way, leading = append(way, landing{d, how}), append(leading, e)
		level = d.Descriptors
	}
	return way, leading, others
}

// modelLookup returns the descriptor whose limits apply; nil if none.
func modelLookup(domain *config.Domain, entries []descriptor.Entry) *config.Descriptor {
	way, _, others := modelWalk(domain, entries)
	if len(way) == 0 || len(way[len(way)-1].Limits) == 0 {
		return nil
	}
	rule := way[len(way)-1].Descriptor
	for _, e := range others {
		if e.Key != rule.TableKey() || e.Key == "" {
			return nil
		}
	}
	return rule
}

// modelMetric returns the name of statistics as envoyproxy/ratelimit builds it,
// without the domain.
func modelMetric(way []landing, entries []descriptor.Entry) string {
	pattern := func(i int) string { return strings.TrimPrefix(joined(way[i].Descriptor), entries[i].Key+"_") }
	shares := func(i int) bool { return (way[i].how == wildcard || way[i].HasList()) && way[i].ShareThreshold }
	anyShares := false
	for i := range way {
		anyShares = anyShares || shares(i)
	}
	detailed := way[len(way)-1].DetailedMetric
	var names []string
	for i, l := range way {
		e := entries[i]
		value := ""
		switch {
		case shares(i) && pattern(i) != "":
			value = pattern(i)
		case detailed || l.how == exact && !l.HasList() || l.ValueToMetric:
			value = e.Value
		case l.how == wildcard || l.HasList():
			value = pattern(i)
		}
		if value != "" || detailed && !anyShares {
			names = append(names, join(e.Key, value))
		} else {
			names = append(names, e.Key)
		}
	}
	return strings.Join(names, ".")
}
