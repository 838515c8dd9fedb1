package descriptor

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/match/cidr"
)

// Two matchers are compared by values that stand for all values. Whatever the rules tell
// apart, each class of values has one that is tried:
//
//   - Every exact value stands for itself.
//   - The addresses of a range behave alike, except those of the ranges and exact values
//     within it. So each range has an address outside of those.
//   - Most values that match a pattern match no other one. A pattern with a filler, which
//     is in no rule, in place of each * is such a value: only a * matches a filler, and a *
//     matches any text in its place.
//   - For the same reason two patterns that overlap have one value for each way in which
//     their literals may follow each other.
//   - The filler alone is a value that no rule names.

// fillerOf returns a text that occurs in no key and in no value of the rules.
func fillerOf(all ...*config.Rules) string {
	filler := '…' // reads as "anything" in reports
	within := func(s string) bool { return strings.ContainsRune(s, filler) }
	taken := func(d *config.Descriptor) bool {
		return within(d.Key) || within(d.Value) || slices.ContainsFunc(d.AnyOf.Values, within)
	}
	for ; ; filler++ {
		used := false
		for _, rules := range all {
			for _, domain := range rules.Domains {
				domain.Walk(func(d *config.Descriptor) {
					used = used || taken(d)
					if d.Set == nil {
						return
					}
					for _, c := range d.Set.Match {
						used = used || slices.ContainsFunc(c.Any.Values, within) || slices.ContainsFunc(c.Not.Values, within)
					}
				})
			}
		}
		if !used {
			return string(filler)
		}
	}
}

// witnesses collects values that stand for all values of a key. Those that read best come
// first.
type witnesses struct {
	filler string
	list   []string
	seen   map[string]bool
	effort *effort
}

func (w *witnesses) add(values ...string) {
	for _, v := range values {
		if w.seen == nil {
			w.seen = map[string]bool{}
		}
		if !w.seen[v] {
			w.seen[v] = true
			w.list = append(w.list, v)
		}
	}
}

// addRanges adds values for each range. others are the exact values and patterns of the
// key.
func (w *witnesses) addRanges(ranges []netip.Prefix, others []string) {
	if len(ranges) == 0 {
		return
	}
	all := slices.Clone(ranges)
	for _, v := range others {
		if p, ok := cidr.Of(v); ok {
			all = append(all, p) // it is told apart from the range around it
		}
	}
	all = slices.CompactFunc(slices.SortedFunc(slices.Values(all), netip.Prefix.Compare), func(a, b netip.Prefix) bool { return a == b })
	own := cidr.Own(all)
	for i, p := range all {
		if own[i].IsValid() {
			w.add(own[i].String())
		}
		w.add(p.String()) // as masked_remote_address has it
	}
	for _, v := range others {
		if !isPattern(v) {
			continue
		}
		for _, part := range [...]string{"0", "0.0", "0.0.0", "0.0.0.0", "0::", "::"} {
			if address := strings.ReplaceAll(v, "*", part); plausible(address) {
				w.add(address)
			}
		}
	}
}

func plausible(address string) bool { _, ok := cidr.Of(address); return ok }

// addPatterns adds a value for each pattern.
func (w *witnesses) addPatterns(patterns []string) {
	for _, p := range patterns {
		w.add(strings.ReplaceAll(p, "*", w.filler))
	}
}

// addOverlaps adds the values for each two patterns, one of either list.
func (w *witnesses) addOverlaps(some, others []string) {
	for _, p := range some {
		for _, q := range others {
			if w.effort.spend(1); w.effort.spent() {
				return
			}
			if p != q {
				w.add(overlaps(p, q, w.filler, w.effort)...)
			}
		}
	}
}

// addOrdered adds the values for patterns of which the first that matches decides, before
// and after a change. Of the patterns that stayed, and in their order, no two need a value
// of their own: the first of them that matches is the same one before and after.
func (w *witnesses) addOrdered(before, after []string) {
	w.addPatterns(before)
	w.addPatterns(after)
	stayed := inOrder(before, after)
	moved := func(p string) bool { return !stayed[p] }
	w.addOverlaps(slices.Collect(filter(before, moved)), after)
	w.addOverlaps(slices.Collect(filter(before, func(p string) bool { return stayed[p] })), slices.Collect(filter(after, moved)))
}

func filter(list []string, is func(string) bool) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, s := range list {
			if is(s) && !yield(s) {
				return
			}
		}
	}
}

// inOrder returns as many texts as possible that are in both lists, in the same order.
func inOrder(before, after []string) map[string]bool {
	at := make(map[string]int, len(after))
	for i, s := range slices.Backward(after) {
		at[s] = i
	}
	// The longest ascending sequence of places in after. ends has the least last element
	// of each length.
	type link struct{ at, previous int }
	var links []link
	var ends []int // indices of links
	for _, s := range before {
		i, is := at[s]
		if !is {
			continue
		}
		n, again := slices.BinarySearchFunc(ends, i, func(e, i int) int { return cmp.Compare(links[e].at, i) })
		if again {
			continue
		}
		l := link{i, -1}
		if n > 0 {
			l.previous = ends[n-1]
		}
		links = append(links, l)
		if n == len(ends) {
			ends = append(ends, 0)
		}
		ends[n] = len(links) - 1
	}
	found := make(map[string]bool, len(ends))
	if len(ends) > 0 {
		for l := ends[len(ends)-1]; l >= 0; l = links[l].previous {
			found[after[links[l].at]] = true
		}
	}
	return found
}

// mostOverlaps bounds the ways in which two patterns are followed at once. It is reached by patterns with many *.
const mostOverlaps = 64

// overlaps returns texts that both patterns match: one for each order in which their
// literals may come, and for each way in which the end of a literal may be the start of
// another one.
func overlaps(p, q, filler string, e *effort) []string {
	if !mayOverlap(p, q) {
		return nil
	}
	e.spend(len(p) * len(q) / 16)
	m := meeting{p: p, q: q, filler: filler, dead: make([]bool, (len(p)+1)*(len(q)+1))}
	m.follow(0, 0)
	return m.found
}

// mayOverlap reports whether the literals at the starts and at the ends agree.
func mayOverlap(p, q string) bool {
	agree := func(a, b string, has func(s, part string) bool) bool { return has(a, b) || has(b, a) }
	first := func(s string) string { return s[:strings.IndexByte(s, '*')] }
	last := func(s string) string { return s[strings.LastIndexByte(s, '*')+1:] }
	return agree(first(p), first(q), strings.HasPrefix) && agree(last(p), last(q), strings.HasSuffix)
}

// meeting follows two patterns at once.
type meeting struct {
	p, q, filler string
	text         []byte
	dead         []bool // by position in both: nothing is found from there
	found        []string
	ends         int // how many ways led to the end, also to a text that is found already
}

// follow adds the texts that go on from positions in both patterns. It reports whether
// there are any.
func (m *meeting) follow(i, j int) (ok bool) {
	at := i*(len(m.q)+1) + j
	if m.dead[at] || m.ends == mostOverlaps {
		return !m.dead[at]
	}
	starP, starQ := i < len(m.p) && m.p[i] == '*', j < len(m.q) && m.q[j] == '*'
	n := len(m.text)
	switch {
	case i == len(m.p) && j == len(m.q):
		m.ends++
		if text := string(m.text); !slices.Contains(m.found, text) {
			m.found = append(m.found, text)
		}
		return true
	case starP && starQ:
		if !strings.HasSuffix(string(m.text), m.filler) {
			m.text = append(m.text, m.filler...)
		}
		ok = m.follow(i+1, j)
		ok = m.follow(i, j+1) || ok
	case starP:
		ok = m.follow(i+1, j)
		if j < len(m.q) {
			m.text = append(m.text, m.q[j])
			ok = m.follow(i, j+1) || ok
		}
	case starQ:
		ok = m.follow(i, j+1)
		if i < len(m.p) {
			m.text = append(m.text, m.p[i])
			ok = m.follow(i+1, j) || ok
		}
	case i < len(m.p) && j < len(m.q) && m.p[i] == m.q[j]:
		m.text = append(m.text, m.p[i])
		ok = m.follow(i+1, j+1)
	}
	m.text = m.text[:n]
	m.dead[at] = !ok
	return ok
}

// effort bounds a comparison.
type effort int

// mostEffort is some seconds of work.
const mostEffort effort = 20_000_000

func (e *effort) spend(n int) { *e += effort(n) }

func (e *effort) spent() bool { return *e >= mostEffort }
