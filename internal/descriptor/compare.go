package descriptor

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/match/cidr"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// comparison walks through two matchers at once. It finds each pair of an old and a new
// rule that apply to the same descriptor, and each rule beside which the other matcher has
// none. See witness.go for why it finds all of them.
//
// Left out are descriptors whose entries have no key of the rules, though a joint may let
// them match; see odd.go.
type comparison struct {
	filler string
	effort effort
	found  []encounter
	known  map[[2]*Rule]bool
	times  map[*Rule]int // how many pairs a rule is in
}

// encounter is an old and a new rule that apply to the same descriptor; one of them may be
// nil.
type encounter struct {
	domain    string
	old, next *Rule
	before    []*counter
	after     []*counter
	example   Entries // nil: every descriptor that either rule applies to
}

func (c *comparison) compare(old, next *Matcher) {
	names := slices.Collect(maps.Keys(old.domains))
	names = slices.AppendSeq(names, maps.Keys(next.domains))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		d := [2]*Domain{old.Domain(name), next.Domain(name)}
		w := walk{comparison: c, domains: d, visited: map[position]bool{}, known: map[*Domain]map[uint32]*keyed{d[0]: {}, d[1]: {}}}
		w.from([2]stand{standOf(d[0]), standOf(d[1])})
		c.compareSets(d)
	}
	order := func(r *Rule) int {
		if r == nil {
			return math.MaxInt // what is gone comes last
		}
		return r.Index
	}
	slices.SortStableFunc(c.found, func(a, b encounter) int {
		return cmp.Or(cmp.Compare(order(a.next), order(b.next)), cmp.Compare(order(a.old), order(b.old)))
	})
}

// meet adds a pair, unless it is known.
func (c *comparison) meet(domains [2]*Domain, rules [2]*Rule, entries, example Entries) {
	if c.known[rules] {
		return
	}
	c.known[rules] = true
	e := encounter{old: rules[0], next: rules[1], example: slices.Clone(example)}
	for i, r := range rules {
		if r == nil {
			continue
		}
		e.domain = r.Domain
		c.times[r]++
		found := domains[i].countersOf(r, entries)
		if i == 0 {
			e.before = found
		} else {
			e.after = found
		}
	}
	c.found = append(c.found, e)
}

// walk walks down the trees of a domain.
type walk struct {
	*comparison
	domains [2]*Domain // the old one and the new one; nil: there is none
	visited map[position]bool
	known   map[*Domain]map[uint32]*keyed // by slot
	entries Entries
}

// stand is where entries have led in one tree, by a walk that may skip those of one key;
// see [Domain.skip].
type stand struct {
	at      place
	skipped string // the key of those skipped; empty: none
}

// position identifies a pair of stands, one in each tree.
type position struct {
	slots   [2]uint32
	skipped [2]string
}

func standOf(d *Domain) stand {
	if d == nil {
		return stand{at: nowhere}
	}
	return stand{at: d.top}
}

// after returns where an entry leads from a stand.
func (d *Domain) after(s stand, key, value string) stand {
	switch {
	case s.at.slot == none:
		return s
	case s.at.flags&hasLevel != 0:
		if next := d.step(s.at, key, value); next.slot != none {
			return stand{next, s.skipped}
		}
	}
	if d.skips(s, key) {
		return stand{s.at, key}
	}
	return stand{at: nowhere}
}

// skips reports whether a walk may skip entries of a key.
func (d *Domain) skips(s stand, key string) bool {
	return s.at.slot != none && slices.Contains(d.followed, key) && (s.skipped == "" || s.skipped == key)
}

// ruleAt returns the rule that applies to a descriptor that ends at a stand; nil for none.
func (d *Domain) ruleAt(s stand) *Rule {
	if s.at.slot == none || s.at.flags&hasRule == 0 {
		return nil
	}
	r := &d.rules[s.at.slot]
	if s.skipped != "" && (r.follow == nil || r.follow.key != s.skipped) {
		return nil
	}
	return r
}

// from goes down from stands in both trees.
func (w *walk) from(stands [2]stand) {
	p := position{[2]uint32{stands[0].at.slot, stands[1].at.slot}, [2]string{stands[0].skipped, stands[1].skipped}}
	if p.slots == [2]uint32{none, none} || w.visited[p] {
		return
	}
	w.visited[p] = true
	var rules [2]*Rule
	for i, d := range w.domains {
		if d != nil {
			rules[i] = d.ruleAt(stands[i])
		}
	}
	if rules != [2]*Rule{} {
		w.meet(w.domains, rules, w.entries, w.entries)
	}
	levels := [2]*keyed{w.below(0, stands[0]), w.below(1, stands[1])}
	for _, key := range w.keys(levels, stands) {
		for _, value := range w.values(levels, key) {
			if w.effort.spend(1); w.effort.spent() {
				return
			}
			var next [2]stand
			for i, d := range w.domains {
				next[i] = stand{at: nowhere}
				if d != nil {
					next[i] = d.after(stands[i], key, value)
				}
			}
			w.entries = append(w.entries, Entry{Key: key, Value: value})
			w.from(next)
			w.entries = w.entries[:len(w.entries)-1]
		}
	}
}

// keyed is a level by its keys.
type keyed struct {
	descriptors []*config.Descriptor
	keys        []string         // without a *, in their order
	stars       []int            // descriptors with a * in the key
	at          map[string][]int // by key
	longer      map[string][]string
}

// below returns the level below a stand; nil if there is none.
func (w *walk) below(i int, s stand) *keyed {
	if s.at.slot == none || s.at.flags&hasLevel == 0 {
		return nil
	}
	d := w.domains[i]
	if k := w.known[d][s.at.slot]; k != nil {
		return k
	}
	k := &keyed{descriptors: d.level(s.at).descriptors, at: map[string][]int{}, longer: map[string][]string{}}
	for i, c := range k.descriptors {
		if isPattern(c.Key) {
			k.stars = append(k.stars, i)
			continue
		}
		if k.at[c.Key] == nil {
			k.keys = append(k.keys, c.Key)
			for _, start := range starts(c.Key) {
				k.longer[start] = append(k.longer[start], c.Key)
			}
		}
		k.at[c.Key] = append(k.at[c.Key], i)
	}
	w.known[d][s.at.slot] = k
	return k
}

// starts returns the parts of a key before each underscore.
func starts(key string) (all []string) {
	for i := range len(key) {
		if key[i] == '_' {
			all = append(all, key[:i])
		}
	}
	return all
}

// keys returns the keys of the levels, those of patterns with the filler, and the keys that
// a walk may skip.
func (w *walk) keys(levels [2]*keyed, stands [2]stand) []string {
	keys := witnesses{filler: w.filler, effort: &w.effort}
	var stars [2][]string
	for i := len(levels) - 1; i >= 0; i-- { // the new keys first
		if k := levels[i]; k != nil {
			keys.add(k.keys...)
			for _, at := range k.stars {
				stars[i] = append(stars[i], k.descriptors[at].Key)
			}
		}
	}
	keys.addPatterns(slices.Concat(stars[1], stars[0]))
	keys.addOverlaps(stars[0], stars[1])
	for i, d := range w.domains {
		if d == nil {
			continue
		}
		for _, key := range d.followed {
			if d.skips(stands[i], key) {
				keys.add(key)
			}
		}
	}
	return keys.list
}

// values returns the values that are tried for a key.
func (w *walk) values(levels [2]*keyed, key string) []string {
	values := witnesses{filler: w.filler, effort: &w.effort}
	var patterns [2][]string
	var ranges []netip.Prefix
	for i := len(levels) - 1; i >= 0; i-- {
		if levels[i] == nil {
			continue
		}
		for _, c := range levels[i].leadingFrom(key) {
			for _, v := range valuesFor(c, key) {
				if isPattern(v) {
					patterns[i] = append(patterns[i], v)
				} else {
					values.add(v)
				}
			}
			if c.Key == key {
				ranges = appendRanges(ranges, c.AnyOf.CIDRs)
			}
		}
	}
	values.addRanges(ranges, slices.Concat(values.list, patterns[0], patterns[1]))
	values.addOrdered(patterns[0], patterns[1])
	values.add(w.filler)
	return values.list
}

func appendRanges(dst []netip.Prefix, texts []string) []netip.Prefix {
	for _, text := range texts {
		if p, err := cidr.Parse(text); err == nil { // rules are valid
			dst = append(dst, p)
		}
	}
	return dst
}

// leadingFrom returns the descriptors to which an entry of that key may lead, in their
// order.
func (k *keyed) leadingFrom(key string) []*config.Descriptor {
	all := slices.Concat(k.at[key], k.stars)
	for _, start := range starts(key) {
		all = append(all, k.at[start]...)
	}
	for _, longer := range k.longer[key] {
		all = append(all, k.at[longer]...)
	}
	slices.Sort(all)
	found := make([]*config.Descriptor, len(all))
	for i, at := range all {
		found[i] = k.descriptors[at]
	}
	return found
}

// valuesFor returns the values and patterns with which an entry of that key leads to the
// descriptor; none for any value.
func valuesFor(c *config.Descriptor, key string) (all []string) {
	own := []string{c.Value}
	if c.HasList() {
		own = c.AnyOf.Values
	}
	for _, v := range own {
		switch {
		case c.Key != key && v == "":
			all = append(all, rests(c.Key, key+"_")...)
		case c.Key != key:
			all = append(all, rests(c.Key+"_"+v, key+"_")...)
		case v != "":
			all = append(all, v)
		}
	}
	return all
}

// rests returns what may follow a start in texts that match a pattern, or that are the
// text if it has no *.
func rests(pattern, start string) (all []string) {
	reach := make([]bool, len(pattern)+1) // the start so far may end at this byte of the pattern
	reach[0] = true
	for i := range len(start) {
		next := make([]bool, len(reach))
		for at := range pattern {
			star := pattern[at] == '*'
			switch {
			case !reach[at]:
			case star:
				reach[at+1] = true // it stands for nothing more
				next[at] = true
			case pattern[at] == start[i]:
				next[at+1] = true
			}
		}
		reach = next
	}
	for at, is := range reach {
		if is && (at == 0 || pattern[at-1] != '*' || !reach[at-1]) {
			all = append(all, pattern[at:])
		}
	}
	return all
}

// compareSets compares the rules on sets of entries of a domain. A rule keeps its counters
// as long as it keeps its name and its count_by, but it may apply to other descriptors
// than before.
func (c *comparison) compareSets(domains [2]*Domain) {
	var names []string
	for _, d := range domains {
		if d != nil {
			names = slices.AppendSeq(names, maps.Keys(d.byName))
		}
	}
	slices.Sort(names)
	var settling []Entry
	if s := [2]map[Entry]bool{settlingOf(domains[0]), settlingOf(domains[1])}; !maps.Equal(s[0], s[1]) {
		for e := range s[0] {
			settling = append(settling, e)
		}
		for e := range s[1] {
			settling = append(settling, e)
		}
		slices.SortFunc(settling, func(a, b Entry) int {
			return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Value, b.Value))
		})
	}
	for _, name := range slices.Compact(names) {
		var rules [2]*Rule
		var counted Entries
		for i, d := range domains {
			if d == nil {
				continue
			}
			if at, is := d.byName[name]; is {
				rules[i] = &d.limitRules[at]
				for _, key := range rules[i].Config.Set.CountBy {
					counted = append(counted, Entry{Key: key, Value: c.filler})
				}
			}
		}
		slices.SortFunc(counted, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
		c.meet(domains, rules, slices.Compact(counted), nil)
		if rules[0] != nil && rules[1] != nil {
			c.compareConditions(domains, rules, settling)
		}
	}
}

func settlingOf(d *Domain) map[Entry]bool {
	if d == nil {
		return nil
	}
	return d.settling
}

// compareConditions looks for a descriptor to which only the old rule of a name applies,
// and for one to which only the new rule applies. Conditions do not depend on each other,
// so it changes one entry of a descriptor at a time.
func (c *comparison) compareConditions(domains [2]*Domain, rules [2]*Rule, settling []Entry) {
	old, next := rules[0].Config, rules[1].Config
	sameHold := old.Hold == nil && next.Hold == nil || old.Hold != nil && next.Hold != nil && *old.Hold == *next.Hold
	if len(settling) == 0 && sameHold && slices.EqualFunc(old.Set.Match, next.Set.Match, sameCondition) {
		return
	}
	keys, values := c.conditionValues(old, next)
	for _, e := range settling {
		if !slices.Contains(keys, e.Key) {
			keys = append(keys, e.Key)
		}
		values[e.Key] = append(values[e.Key], e.Value)
	}
	for i, only := range [...][2]*Rule{{rules[0], nil}, {nil, rules[1]}} {
		d, rule := domains[i], rules[i]
		base, ok := d.meeting(rule, keys, values)
		if !ok {
			continue
		}
		for _, key := range keys {
			without := slices.DeleteFunc(slices.Clone(base), func(e Entry) bool { return e.Key == key })
			tries := []Entries{without}
			for _, v := range values[key] {
				tries = append(tries, append(slices.Clone(without), Entry{Key: key, Value: v}))
			}
			for _, entries := range tries {
				if len(entries) == 0 { // no descriptor is empty
					entries = Entries{{Key: c.filler, Value: c.filler}}
				}
				if c.effort.spend(1); !c.effort.spent() && d.applies(rule, entries) && !domains[1-i].applies(rules[1-i], entries) {
					c.meet(domains, only, entries, entries)
				}
			}
		}
	}
}

func sameCondition(a, b sets.Condition) bool {
	same := func(a, b sets.Set) bool { return slices.Equal(a.Values, b.Values) && slices.Equal(a.CIDRs, b.CIDRs) }
	return a.Key == b.Key && a.Absent == b.Absent && same(a.Any, b.Any) && same(a.Not, b.Not)
}

// conditionValues returns the keys that either rule knows, and values that stand for all
// values of each.
func (c *comparison) conditionValues(rules ...*config.Descriptor) (keys []string, values map[string][]string) {
	of := map[string][]sets.Condition{}
	know := func(key string) {
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	for _, r := range rules {
		for _, cond := range r.Set.Match {
			know(cond.Key)
			of[cond.Key] = append(of[cond.Key], cond)
		}
		if r.Hold != nil {
			know(r.Hold.By)
			know(r.Hold.SettledBy.Key)
		}
	}
	values = map[string][]string{}
	for _, key := range keys {
		w := witnesses{filler: c.filler, effort: &c.effort}
		var patterns [][]string // of each set of values
		var ranges []netip.Prefix
		for _, cond := range of[key] {
			for _, set := range [...]sets.Set{cond.Any, cond.Not} {
				var of []string
				for _, v := range set.Values {
					if isPattern(v) {
						of = append(of, v)
					} else {
						w.add(v)
					}
				}
				patterns = append(patterns, of)
				ranges = appendRanges(ranges, set.CIDRs)
			}
		}
		w.addRanges(ranges, append(slices.Clone(w.list), slices.Concat(patterns...)...))
		w.addPatterns(slices.Concat(patterns...))
		for i, some := range patterns {
			for _, others := range patterns[i+1:] {
				w.addOverlaps(some, others)
			}
		}
		w.add(c.filler)
		for _, r := range rules {
			if r.Hold != nil && r.Hold.SettledBy.Key == key {
				w.add(r.Hold.SettledBy.Value)
			}
		}
		values[key] = w.list
	}
	return keys, values
}

// meeting returns a descriptor to which a rule on sets of entries applies, with these
// values of these keys.
func (d *Domain) meeting(r *Rule, keys []string, values map[string][]string) (entries Entries, ok bool) {
	for _, key := range keys {
		met := func(entries []Entry) bool { return !slices.Contains(d.unmet(r, entries), key) }
		if met(nil) {
			continue
		}
		at := slices.IndexFunc(values[key], func(v string) bool { return met([]Entry{{Key: key, Value: v}}) })
		if at < 0 {
			return nil, false
		}
		entries = append(entries, Entry{Key: key, Value: values[key][at]})
	}
	return entries, d.applies(r, entries)
}

// applies reports whether a rule on sets of entries applies to a descriptor.
func (d *Domain) applies(r *Rule, entries []Entry) bool {
	return len(d.unmet(r, entries)) == 0 && (d.settling == nil || d.meets(r, entries))
}

// unmet returns the keys of which a rule on sets of entries asks something else.
func (d *Domain) unmet(r *Rule, entries []Entry) []string {
	keys := d.limits.Unmet(r.set.at, entries)
	if hold := r.Config.Hold; hold != nil && !hasKey(entries, hold.By) && !slices.Contains(keys, hold.By) {
		keys = append(keys, hold.By)
	}
	return keys
}
