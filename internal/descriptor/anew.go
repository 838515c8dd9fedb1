package descriptor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor/cidr"
)

// Replacement is what becomes of counters when rules replace others.
type Replacement struct {
	// Changes are the limits whose counters do not go on, in the order of the new
	// rules; those that are gone come last, in the order of the old ones.
	Changes []CounterChange
	// Kept is how many limits keep their counters, whatever else of them changed.
	Kept int
}

// CounterChange is what becomes of the counters of one limit.
type CounterChange struct {
	Domain string
	// Old is the limit that charged the counters before; nil if none did. New is the
	// limit that applies to the same descriptors now; nil if none does.
	Old, New *CountedLimit
	// Why says why the counters begin anew. Empty unless there are both limits.
	Why string
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
// differ. Rules are not compared by their names. For each rule it takes a
// descriptor that leads to the rule and looks up which one applies to it in the
// other rules, so that a rule may also take over the counters of another one.
func Replace(old, next *config.Rules) Replacement {
	c := comparison{old: Compile(old), next: Compile(next), seen: map[[2]*Rule]bool{}}
	for rule := range next.All() {
		c.compare(rule, c.next)
	}
	for rule := range old.All() {
		c.compare(rule, c.old)
	}
	return c.found
}

// comparison collects what differs.
type comparison struct {
	old, next *Matcher
	seen      map[[2]*Rule]bool // pairs of an old and a new rule
	found     Replacement
}

// compare compares what applies to a descriptor that leads to the rule of one of
// the matchers.
func (c *comparison) compare(rule config.Rule, of *Matcher) {
	domain := rule.Domain.Name
	var before, after counters
	if set := rule.Descriptor().Set; set != nil {
		before, after = countersOfSet(c.old, domain, set.Name), countersOfSet(c.next, domain, set.Name)
	} else {
		entries := of.Domain(domain).Example(rule, fillers...)
		if entries == nil {
			return
		}
		before, after = countersOf(c.old, domain, entries), countersOf(c.next, domain, entries)
	}
	pair := [2]*Rule{before.rule, after.rule}
	if c.seen[pair] {
		return
	}
	c.seen[pair] = true
	for _, p := range pairs(before.list, after.list) {
		if p.old != nil && p.next != nil && p.old.goesOnAs(p.next) {
			c.found.Kept++
			continue
		}
		change := CounterChange{Domain: domain}
		if p.old != nil {
			change.Old = p.old.describe()
		}
		if p.next != nil {
			change.New = p.next.describe()
		}
		if p.old != nil && p.next != nil {
			change.Why = p.old.whyNot(p.next)
		}
		c.found.Changes = append(c.found.Changes, change)
	}
}

// fillers stand for values that a rule leaves open. Several, for one of them may
// be what another rule is for.
var fillers = []string{"any value", "", "0", "~"}

// Example returns entries that lead to the rule; nil if there are none, because others
// always go before it. The fillers stand, one after the other until one will do, for
// what the rule leaves open.
func (d *Domain) Example(rule config.Rule, fillers ...string) Entries {
	if set := rule.Descriptor().Set; set != nil {
		return d.exampleOfSet(set, fillers)
	}
	for _, filler := range fillers {
		entries := make(Entries, len(rule.Path))
		examples := make([][]string, len(rule.Path))
		tries := 1
		for i, c := range rule.Path {
			entries[i].Key = strings.ReplaceAll(c.Key, "*", filler)
			examples[i] = exampleValues(c, filler)
			tries = max(tries, len(examples[i]))
		}
		for try := range tries {
			for i := range entries {
				entries[i].Value = examples[i][min(try, len(examples[i])-1)]
			}
			if r := d.Lookup(entries); r != nil && r.Config == rule.Descriptor() {
				return entries
			}
		}
	}
	return nil
}

// mostExamples bounds how many values of a list are tried.
const mostExamples = 100

// exampleValues returns values that lead to the descriptor, if no other one goes before
// it. Of a range they are the first address, the last, and the range itself.
func exampleValues(c *config.Descriptor, filler string) (all []string) {
	if !c.HasList() {
		if c.Value == "" {
			return []string{filler}
		}
		return []string{strings.ReplaceAll(c.Value, "*", filler)}
	}
	for _, v := range c.AnyOf.Values {
		all = append(all, strings.ReplaceAll(v, "*", filler))
	}
	for _, text := range c.AnyOf.CIDRs {
		if p, err := cidr.Parse(text); err == nil {
			all = append(all, p.Addr().String(), cidr.Last(p).String(), p.String())
		}
	}
	return all[:min(len(all), mostExamples)]
}

// counters are those that a descriptor charges.
type counters struct {
	rule *Rule // nil for none
	list []*counter
}

// counter is one of them.
type counter struct {
	key   string
	shard int
	rule  *Rule
	limit *config.Limit
	same  bool // paired
}

func countersOf(m *Matcher, domain string, entries []Entry) (c counters) {
	d := m.Domain(domain)
	if d == nil {
		return c
	}
	if rule := d.Lookup(entries); rule != nil {
		c = d.countersOf(rule, entries)
	}
	return c
}

// countersOfSet returns the counters of a rule on sets of entries, which has the same
// ones for as long as it has its name and what it counts by.
func countersOfSet(m *Matcher, domain, name string) (c counters) {
	d := m.Domain(domain)
	if d == nil {
		return c
	}
	at, is := d.byName[name]
	if !is {
		return c
	}
	rule := &d.limitRules[at]
	var entries []Entry
	for _, key := range rule.Config.Set.CountBy {
		entries = append(entries, Entry{Key: key, Value: fillers[0]})
	}
	return d.countersOf(rule, entries)
}

func (d *Domain) countersOf(rule *Rule, entries []Entry) counters {
	c := counters{rule: rule}
	for i, l := range c.rule.Config.Limits {
		if key := c.rule.AppendKey(nil, entries, i); len(key) > 0 {
			c.list = append(c.list, &counter{key: string(key), shard: d.Shard(key), rule: c.rule, limit: l})
		}
	}
	return c
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
		return fmt.Sprintf("%s: %s %s", l.Pos, config.Quote(c.Domain), config.Quote(l.Path))
	}
	switch {
	case c.Old == nil:
		return fmt.Sprintf("%s: new: %s", at(c.New), c.New.Limit)
	case c.New == nil:
		return fmt.Sprintf("%s: gone: %s", at(c.Old), c.Old.Limit)
	}
	return fmt.Sprintf("%s: begins anew: %s: %s -> %s", at(c.New), c.Why, located(c.Old.Limit, c.Old.Pos), c.New.Limit)
}
