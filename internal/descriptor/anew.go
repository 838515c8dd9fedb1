package descriptor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
)

// Replacement is what becomes of counters when rules replace others.
type Replacement struct {
	// Changes are the limits whose counters do not go on, in the order of the new
	// rules; those that are gone come last, in the order of the old ones.
	Changes []CounterChange
	// Kept is how many of the new limits go on with counters, whatever else of them
	// changed. A limit may do so for some descriptors and be among Changes for others.
	Kept int
	// Partial reports that too many rules overlap for all to be compared.
	Partial bool
}

// CounterChange is what becomes of the counters of one limit.
type CounterChange struct {
	Domain string
	// Old is the limit that charged the counters before; nil if none did. New is the
	// limit that applies to the same descriptors now; nil if none does.
	Old, New *CountedLimit
	// Why says why the counters begin anew. Empty unless there are both limits.
	Why string
	// Example is a descriptor to which this happens; nil if it happens to all that the
	// limits apply to. An … in it stands for any other text.
	Example Entries
	// Partly reports that something else becomes of the limit for other descriptors than
	// those like Example.
	Partly bool
}

// CountedLimit is a limit that has counters.
type CountedLimit struct {
	// Path is the rule's, as in Rule.
	Path string `json:"path"`
	// Limit is the limit in words, such as "token_bucket, 100 per minute, burst 20".
	Limit string `json:"limit"`
	// Pos is where it is written: file:line:column.
	Pos string `json:"pos"`
}

// Replace says which counters begin anew when next replaces old: those whose keys
// differ. Rules are not compared by their names: it looks descriptors up in both, and they
// stand for all descriptors that there are; see [comparison]. So a rule may take over the
// counters of another one, and a rule that stays may be gone for some descriptors.
func Replace(old, next *config.Rules) (r Replacement) {
	c := comparison{filler: fillerOf(old, next), known: map[[2]*Rule]bool{}, times: map[*Rule]int{}}
	c.compare(Compile(old), Compile(next))
	type of struct {
		rule  *Rule
		limit *config.Limit
	}
	kept := map[of]bool{}
	for _, e := range c.found {
		for _, p := range pairs(e.before, e.after) {
			if p.old != nil && p.next != nil && p.old.goesOnAs(p.next) {
				kept[of{e.next, p.next.limit}] = true
				continue
			}
			change := CounterChange{Domain: e.domain, Example: e.example}
			if p.old != nil {
				change.Old = p.old.describe()
				change.Partly = c.times[e.old] > 1
			}
			if p.next != nil {
				change.New = p.next.describe()
				change.Partly = c.times[e.next] > 1
			}
			if p.old != nil && p.next != nil {
				change.Why = p.old.whyNot(p.next)
			}
			change.Partly = change.Partly && e.example != nil
			r.Changes = append(r.Changes, change)
		}
	}
	r.Kept, r.Partial = len(kept), c.effort.spent()
	return r
}

// counter is a counter that a descriptor charges.
type counter struct {
	key   string
	shard int
	rule  *Rule
	limit *config.Limit
	same  bool // paired
}

// countersOf returns the counters that a descriptor charges when the rule applies to it.
func (d *Domain) countersOf(rule *Rule, entries []Entry) (counters []*counter) {
	for i, l := range rule.Config.Limits {
		if key := rule.AppendKey(nil, entries, i); len(key) > 0 {
			counters = append(counters, &counter{key: string(key), shard: d.Shard(key), rule: rule, limit: l})
		}
	}
	return counters
}

// goesOnAs reports whether the counter of next is this one. A counter whose key is
// the same, but that is decided together with others, has another place in a
// Redis Cluster.
func (c *counter) goesOnAs(next *counter) bool { return c.key == next.key && c.shard == next.shard }

func (c *counter) describe() *CountedLimit {
	return &CountedLimit{Path: c.rule.Path, Limit: c.limit.String(), Pos: c.limit.Pos.String()}
}

// pair is a limit before and after; one of them may be missing.
type pair struct{ old, next *counter }

// pairs says which limit became which: the one of that name, else one that is
// the same, else the one that has its counter, else the next that is left.
func pairs(old, next []*counter) []pair {
	out := make([]pair, len(next))
	for _, alike := range []func(o, n *counter) bool{
		func(o, n *counter) bool { return o.limit.Name != "" && o.limit.Name == n.limit.Name },
		sameRate,
		func(o, n *counter) bool { return o.key == n.key },
		func(*counter, *counter) bool { return true },
	} {
		for i, n := range next {
			out[i].next = n
			if out[i].old != nil {
				continue
			}
			at := slices.IndexFunc(old, func(o *counter) bool { return !o.same && alike(o, n) })
			if at >= 0 {
				out[i].old, old[at].same = old[at], true
			}
		}
	}
	var gone []pair
	for _, o := range old {
		if !o.same {
			gone = append(gone, pair{old: o})
		}
	}
	return slices.Concat(out, gone)
}

// sameRate compares all but what a refused call charges, whose default is another
// one where there are several limits.
func sameRate(a, b *counter) bool {
	x, y := a.limit.Algo.Params(), b.limit.Algo.Params()
	x.DeniedHits = y.DeniedHits
	return x == y
}

// whyNot says why the counter of next is not this one.
func (c *counter) whyNot(next *counter) string {
	if c.key == next.key {
		return "consume changed, and with it the counters' place in a Redis Cluster; elsewhere they go on"
	}
	var why []string
	before, _ := ParseKey([]byte(c.key))
	after, _ := ParseKey([]byte(next.key))
	switch {
	case slices.Equal(before.Entries, after.Entries):
	case before.Limit != "":
		why = append(why, "count_by changed")
	default:
		why = append(why, sharing(before.Entries, after.Entries))
	}
	if before.Tag != after.Tag {
		why = append(why, c.whyTag(next))
	}
	return strings.Join(why, "; ")
}

// sharing says how the entries of a descriptor are counted otherwise.
func sharing(before, after []CounterEntry) string {
	shares := func(e CounterEntry) bool { return e.Shared }
	switch was, is := slices.ContainsFunc(before, shares), slices.ContainsFunc(after, shares); {
	case is && !was:
		return "values share a counter that had one each"
	case was && !is:
		return "values have a counter each that shared one"
	}
	return "other values share the counter"
}

// whyTag says why the keys of the limits end otherwise.
func (c *counter) whyTag(next *counter) string {
	alone := func(l *config.Limit) string { return tags([]*config.Limit{l})[0] }
	if alone(c.limit) == alone(next.limit) {
		return "its place among the limits of its kind changed"
	}
	old, now := c.limit.Algo.Params(), next.limit.Algo.Params()
	for _, differs := range []struct {
		what string
		is   bool
	}{
		{"algorithm", old.Algorithm != now.Algorithm}, {"window", old.Window != now.Window || old.Calendar != now.Calendar}, {"strict", old.Strict != now.Strict},
		{"sub_windows", old.SubWindows != now.SubWindows}, {"refill", old.Refill != now.Refill}, {"hold", old.Hold != now.Hold},
	} {
		if differs.is {
			return differs.what + " changed"
		}
	}
	return "the counters' keys changed"
}

// String returns the change in one line, such as
//
//	new.yaml:4:17: edge user: begins anew: algorithm changed: fixed_window, 5 per minute (old.yaml:4:17) -> token_bucket, 5 per minute, burst 5
func (c CounterChange) String() string {
	at := func(l *CountedLimit) string {
		name := fmt.Sprintf("%s: %s %s", l.Pos, config.Quote(c.Domain), config.Quote(l.Path))
		if c.Partly {
			name += ": partly, such as for " + config.Quote(c.Example.String())
		}
		return name
	}
	switch {
	case c.Old == nil:
		return fmt.Sprintf("%s: new: %s", at(c.New), c.New.Limit)
	case c.New == nil:
		return fmt.Sprintf("%s: gone: %s", at(c.Old), c.Old.Limit)
	}
	return fmt.Sprintf("%s: begins anew: %s: %s -> %s", at(c.New), c.Why, located(c.Old.Limit, c.Old.Pos), c.New.Limit)
}
