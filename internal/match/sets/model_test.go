package sets_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// The model is the simplest index with the same meaning: a scan.

func modelLookup(rules []sets.Rule, entries []sets.Entry) (found []int) {
	for i, r := range rules {
		if !slices.ContainsFunc(r.Match, func(c sets.Condition) bool { return !modelMeets(c, entries) }) {
			found = append(found, i)
		}
	}
	return found
}

func modelMeets(c sets.Condition, entries []sets.Entry) bool {
	var values []string
	for _, e := range entries {
		if e.Key == c.Key {
			values = append(values, e.Value)
		}
	}
	if c.Absent {
		return len(values) == 0
	}
	isMet := c.Any.Values == nil && c.Any.CIDRs == nil
	for _, v := range values {
		if modelHas(c.Not, v) {
			return false
		}
		isMet = isMet || modelHas(c.Any, v)
	}
	return isMet && len(values) > 0
}

func modelHas(s sets.Set, value string) bool {
	return slices.ContainsFunc(s.Values, func(v string) bool { return glob(v, value) }) ||
		slices.ContainsFunc(s.CIDRs, func(c string) bool { return inside(c, value) })
}

// glob reports whether pattern matches s, by trying everything.
func glob(pattern, s string) bool {
	if pattern == "" {
		return s == ""
	}
	if pattern[0] == '*' {
		return glob(pattern[1:], s) || s != "" && glob(pattern, s[1:])
	}
	return s != "" && s[0] == pattern[0] && glob(pattern[1:], s[1:])
}

// inside reports whether value is an address or prefix of addresses in outer.
func inside(outer, value string) bool {
	p, ok := addressesOf(value)
	o, _ := addressesOf(outer)
	return ok && o.Bits() <= p.Bits() && o.Contains(p.Addr())
}

func addressesOf(text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return p, false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

// text draws short strings of few letters, so that many of them match.
func text(letters string, least, most int) *rapid.Generator[string] {
	return rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte(letters)), least, most), func(b []byte) string { return string(b) })
}

var (
	keys    = rapid.SampledFrom([]string{"a", "b", "c", "d"})
	stem    = "a-text-that-is-about-as-long-as-a-record-" // and a bit more or less
	long    = rapid.Map(text("xy", 0, 3), func(s string) string { return stem[2*len(s):] + s })
	values  = rapid.OneOf(text("xy", 0, 2), long, rapid.Map(long, func(s string) string { return s + "*" }), rapid.Map(long, func(s string) string { return "*" + s }), text("xy", 1, 5), text("xy*", 1, 5), rapid.Map(text("xy", 1, 3), func(s string) string { return s + "*" }))
	ranges  = rapid.SampledFrom([]string{"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/9", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "::/0", "2001:db8::/32", "2001:db8:1::/48", "::ffff:10.1.0.0/112", "::ffc0:0:0/90"})
	request = rapid.Custom(func(t *rapid.T) sets.Entry {
		return sets.Entry{Key: rapid.OneOf(keys, rapid.Just("other")).Draw(t, "key"), Value: rapid.OneOf(
			text("xy", 0, 6), text("xy*", 0, 6), long, rapid.Map(long, func(s string) string { return s + "x" }),
			rapid.SampledFrom([]string{"10.1.2.3", "10.1.2.4", "10.200.0.1", "192.0.2.1", "::ffff:10.1.2.3", "2001:db8::1", "2001:db8:1::1", "::1", "10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32", "::/0", "10.1.2"}),
		).Draw(t, "value")}
	})
)

func drawSet(t *rapid.T, name string) (s sets.Set) {
	most := rapid.SampledFrom([]int{1, 1, 1, 3, 20}).Draw(t, name+" size")
	switch rapid.IntRange(0, 5).Draw(t, name) {
	case 0:
		s.CIDRs = rapid.SliceOfN(ranges, 1, most).Draw(t, "cidrs")
	case 1:
		s.CIDRs = rapid.SliceOfN(ranges, 1, most).Draw(t, "cidrs")
		s.Values = rapid.SliceOfN(values, 1, most).Draw(t, "values")
	default:
		s.Values = rapid.SliceOfN(values, 1, most).Draw(t, "values")
	}
	return s
}

func drawRule(t *rapid.T, name string) sets.Rule {
	r := sets.Rule{Name: name}
	for _, key := range rapid.SliceOfNDistinct(keys, 0, 3, rapid.ID).Draw(t, "keys") {
		c := sets.Condition{Key: key}
		switch rapid.IntRange(0, 8).Draw(t, "condition") {
		case 0: // present
		case 1:
			c.Absent = true
		case 2:
			c.Not = drawSet(t, "not")
		case 3:
			c.Any, c.Not = drawSet(t, "any"), drawSet(t, "not")
		default:
			c.Any = drawSet(t, "any")
		}
		if !c.Absent && rapid.Bool().Draw(t, "count") {
			r.CountBy = append(r.CountBy, key)
		}
		r.Match = append(r.Match, c)
	}
	return r
}

func drawRules(t *rapid.T) []sets.Rule {
	rules := make([]sets.Rule, rapid.SampledFrom([]int{1, 3, 30, 100}).Draw(t, "rules"))
	for i := range rules {
		rules[i] = drawRule(t, fmt.Sprint(i))
	}
	return rules
}

func likeTheModel(t *rapid.T) {
	rules := drawRules(t)
	x, err := sets.Compile(rules, nil)
	if err != nil {
		t.Fatal(err)
	}
	dst := []int{-1}
	for range 20 {
		entries := rapid.SliceOfN(request, 0, 5).Draw(t, "entries")
		want := modelLookup(rules, entries)
		got, more := x.Lookup(dst, entries, len(rules))
		if got[0] != -1 || !slices.Equal(got[1:], want) || more {
			t.Fatalf("%+v\n%q: found %d, %t; want %d", rules, entries, got[1:], more, want)
		}
		for i, r := range rules {
			var unmet []string
			for _, c := range r.Match {
				if !modelMeets(c, entries) {
					unmet = append(unmet, c.Key)
				}
			}
			slices.Sort(unmet)
			if got := x.Unmet(i, entries); !slices.Equal(got, unmet) {
				t.Fatalf("%+v\n%q: does not meet %q, want %q", r, entries, got, unmet)
			}
		}
		most := rapid.IntRange(0, len(want)).Draw(t, "most")
		got, more = x.Lookup(nil, entries, most)
		if len(got) != most || more != (most < len(want)) || !slices.IsSorted(got) || slices.ContainsFunc(got, func(i int) bool { return !slices.Contains(want, i) }) {
			t.Fatalf("%+v\n%q: found %d, %t; want %d of %d", rules, entries, got, more, most, want)
		}
		for _, i := range want {
			checkCounted(t, x, rules, i, entries)
		}
	}
}

func checkCounted(t *rapid.T, x *sets.Index, rules []sets.Rule, i int, entries []sets.Entry) {
	var want []sets.Entry
	for _, key := range slices.Sorted(slices.Values(rules[i].CountBy)) {
		for _, e := range entries {
			if e.Key == key {
				want = append(want, e)
			}
		}
	}
	if got := x.AppendCounted(nil, i, entries); !slices.Equal(got, want) {
		t.Fatalf("%+v\n%q: counted by %q, want %q", rules[i], entries, got, want)
	}
}

func TestModel(t *testing.T) { rapid.Check(t, likeTheModel) }

func FuzzModel(f *testing.F) { f.Fuzz(rapid.MakeFuzz(likeTheModel)) }

// TestErrorsAllAtOnce compiles rules with every possible mistake.
func TestErrorsAllAtOnce(t *testing.T) {
	rules := []sets.Rule{
		{Name: "a", Match: []sets.Condition{{Key: "k", Any: sets.Set{CIDRs: []string{"10.0.0.0/8", "10.0.0.0/33", "10.1.2.3/8"}}}}},
		{Name: "a", CountBy: []string{"user"}},
		{Match: []sets.Condition{{Key: "k"}, {Key: "k", Absent: true}, {}}},
		{Name: "b", Match: []sets.Condition{{Key: "k", Absent: true}, {Key: "l", Absent: true, Not: sets.Set{Values: []string{"x"}}}}, CountBy: []string{"k", "k", ""}},
		{Name: "c", Match: []sets.Condition{
			{Key: "k", Any: sets.Set{Values: []string{}}, Not: sets.Set{CIDRs: []string{}}},
			{Key: "l", Any: sets.Set{CIDRs: []string{}}, Not: sets.Set{Values: []string{}}},
			{Key: "m", Not: sets.Set{CIDRs: []string{"x"}, Values: []string{"*"}}},
		}},
		{Name: "fine", Match: []sets.Condition{{Key: "k", Not: sets.Set{Values: []string{"x"}}}}, CountBy: []string{"k"}},
	}
	_, err := sets.Compile(rules, nil)
	var errs sets.Errors
	if !errors.As(err, &errs) {
		t.Fatalf("got %T, want Errors", err)
	}
	want := []string{
		`0 key "k": "10.0.0.0/33" is not a prefix of addresses`,
		`0 key "k": "10.1.2.3/8" has bits beyond its length`,
		`1 another limit of the domain has this name`,
		`1 count_by names "user", which match does not require to be present`,
		`2 no name`,
		`2 key "k" twice in match`,
		`2 a condition in match without a key`,
		`3 key "l" is asked to be absent and to have values`,
		`3 count_by names "k", which match does not require to be present`,
		`3 key "k" twice in count_by`,
		`3 an empty key in count_by`,
		`4 key "k": an empty list, which no value is in`,
		`4 key "k": an empty list, which no value is in`,
		`4 key "l": an empty list, which no value is in`,
		`4 key "l": an empty list, which no value is in`,
		`4 key "m": "x" is not a prefix of addresses`,
	}
	var got []string
	for _, e := range errs {
		line := fmt.Sprint(e.Rule, " ", e.What)
		got = append(got, line)
		if e.What == "" || e.Remedy == "" || !strings.Contains(e.Error(), e.Remedy) {
			t.Errorf("%s: %v", line, e)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if valid := sets.Check(rules, nil); valid == nil || valid.Error() != err.Error() {
		t.Errorf("Check: %v", valid)
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != len(want) {
		t.Errorf("%d lines for %d errors", len(lines), len(want))
	}
}
