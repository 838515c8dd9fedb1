package descriptor_test

import (
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// model is the matcher as it would be if only its meaning mattered.

type how string

const (
	exact    how = "exact"
	wildcard how = "wildcard"
	keyOnly  how = "key only"
)

func join(key, value string) string { return key + "_" + value }

func joined(d *config.Descriptor) string {
	if d.Value == "" {
		return d.Key
	}
	return join(d.Key, d.Value)
}

// glob says whether pattern matches s, by trying everything.
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
		own := func(d *config.Descriptor) bool { return d.Key == key && d.Value == value }
		return best == nil || own(d) && !own(best) || !own(best) && len(d.Key) < len(best.Key)
	}
	for _, d := range level {
		if joined(d) == join(e.Key, e.Value) && better(d, e.Key, e.Value) {
			best = d
		}
	}
	if best != nil {
		return best, exact
	}
	for _, d := range level {
		if strings.Contains(joined(d), "*") && glob(joined(d), join(e.Key, e.Value)) {
			return d, wildcard
		}
	}
	for _, d := range level {
		if joined(d) == e.Key && better(d, e.Key, "") {
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

// modelWalk returns where the entries land one after the other, as far as they do.
func modelWalk(domain *config.Domain, entries []descriptor.Entry) (way []landing) {
	level := domain.Descriptors
	for _, e := range entries {
		d, how := modelStep(level, e)
		if d == nil {
			break
		}
		way = append(way, landing{d, how})
		level = d.Descriptors
	}
	return way
}

// modelLookup returns the descriptor whose limits apply; nil if none.
func modelLookup(domain *config.Domain, entries []descriptor.Entry) *config.Descriptor {
	way := modelWalk(domain, entries)
	if len(way) == 0 || len(way) < len(entries) || len(way[len(way)-1].Limits) == 0 {
		return nil
	}
	return way[len(way)-1].Descriptor
}

// modelMetric returns the name of statistics as envoyproxy/ratelimit builds it,
// without the domain.
func modelMetric(way []landing, entries []descriptor.Entry) string {
	pattern := func(i int) string { return strings.TrimPrefix(joined(way[i].Descriptor), entries[i].Key+"_") }
	shares := func(i int) bool { return way[i].how == wildcard && way[i].ShareThreshold }
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
		case detailed || l.how == exact || l.ValueToMetric:
			value = e.Value
		case l.how == wildcard:
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
