package descriptor_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// drawChanged draws a level that has come of another one: some descriptors are as they
// were, some have lost or won values, ranges, limits or a table, some are gone, some are
// new, and some have changed places.
func drawChanged(t *rapid.T, level []*config.Descriptor, depth int) (changed []*config.Descriptor) {
	taken := map[string]bool{}
	for _, d := range level {
		if rapid.Uint8Range(0, 5).Draw(t, "gone") == 0 {
			continue
		}
		c := *d
		switch {
		case rapid.Bool().Draw(t, "as it was"):
		case d.HasList():
			c.AnyOf = sets.Set{Values: drawPart(t, d.AnyOf.Values), CIDRs: drawPart(t, d.AnyOf.CIDRs)}
			if len(c.AnyOf.Values)+len(c.AnyOf.CIDRs) == 0 {
				continue
			}
		case len(d.Limits) > 0:
			c.Limits = drawLimits(t)
		}
		c.Descriptors = drawChanged(t, d.Descriptors, depth-1)
		changed = append(changed, &c)
		for _, v := range append(values(&c), c.AnyOf.CIDRs...) {
			taken[c.Key+"="+v] = true
		}
	}
	for _, d := range drawLevel(t, depth, 3) {
		if !slices.ContainsFunc(append(values(d), d.AnyOf.CIDRs...), func(v string) bool { return taken[d.Key+"="+v] }) {
			changed = append(changed, d)
		}
	}
	return rapid.Permutation(changed).Draw(t, "order")
}

func drawPart(t *rapid.T, list []string) (part []string) {
	for _, v := range list {
		if rapid.Bool().Draw(t, "stays") {
			part = append(part, v)
		}
	}
	return part
}

func drawLimits(t *rapid.T) []*config.Limit {
	l := limit(algo.Params{Algorithm: rapid.SampledFrom([]algo.Algorithm{algo.TokenBucket, algo.SlidingLog}).Draw(t, "algorithm"), Limit: 1, Window: time.Minute})
	if by := rapid.SampledFrom([]string{"", "", "f", "a"}).Draw(t, "by"); by != "" {
		l.Table = &config.Table{By: by}
	}
	return []*config.Limit{l}
}

// number gives each limit a place of its own.
func number(file string, r *config.Rules) *config.Rules {
	line := 0
	for _, d := range r.Domains {
		d.Walk(func(c *config.Descriptor) {
			c.Limits = slices.Clone(c.Limits)
			for i, l := range c.Limits {
				line++
				numbered := *l
				numbered.Pos = config.Pos{File: file, Line: line, Column: 1}
				c.Limits[i] = &numbered
			}
		})
	}
	return r
}

// becomes returns the places of the limits that apply to a descriptor before and after;
// empty if their counter goes on.
func becomes(old, next *descriptor.Domain, entries []descriptor.Entry) (at [2]string) {
	var keys [2]string
	for i, d := range []*descriptor.Domain{old, next} {
		if r := d.Lookup(entries); r != nil {
			at[i], keys[i] = r.Config.Limits[0].Pos.String(), string(r.AppendKey(nil, entries, 0))
		}
	}
	if keys[0] == keys[1] {
		return [2]string{}
	}
	return at
}

// isOdd reports whether some entry lands somewhere only because its key and value are
// joined, and neither level has its key.
func isOdd(old, next []*config.Descriptor, entries []descriptor.Entry) bool {
	for _, e := range entries {
		was, _ := modelStep(old, e)
		is, _ := modelStep(next, e)
		if was == nil && is == nil {
			continue
		}
		known := slices.ContainsFunc(slices.Concat(old, next), func(d *config.Descriptor) bool { return d.Key == e.Key })
		for _, d := range []*config.Descriptor{was, is} {
			if !known && d != nil && !glob(d.Key, e.Key) {
				return true
			}
		}
		if old = nil; was != nil {
			old = was.Descriptors
		}
		if next = nil; is != nil {
			next = is.Descriptors
		}
	}
	return false
}

// TestReplaceAgreesWithLookups looks random descriptors up in the old and the new rules.
// Each pair of limits that it meets must be among the changes if their counters differ,
// and the example of each change must show it.
func TestReplaceAgreesWithLookups(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := drawLevel(t, 3, 8)
		before := number("old", rules("edge", first...))
		after := number("new", rules("edge", drawChanged(t, first, 3)...))
		old, next := descriptor.Compile(before).Domain("edge"), descriptor.Compile(after).Domain("edge")
		found := map[[2]string]bool{}
		for _, c := range descriptor.Replace(before, after).Changes {
			var at [2]string
			for i, l := range []*descriptor.CountedLimit{c.Old, c.New} {
				if l != nil {
					at[i] = l.Pos
				}
			}
			found[at] = true
			if got := becomes(old, next, c.Example); got != at {
				t.Fatalf("the example of %q leads to %q", c, got)
			}
		}
		keys := []string{"f"}
		offered := []string{"", "b"}
		for _, r := range []*config.Rules{before, after} {
			r.Domains[0].Walk(func(d *config.Descriptor) {
				keys = append(keys, strings.ReplaceAll(d.Key, "*", "c"))
				offered = append(append(offered, values(d)...), d.AnyOf.CIDRs...)
			})
		}
		entry := rapid.Custom(func(t *rapid.T) descriptor.Entry {
			value := rapid.OneOf(rapid.SampledFrom(offered), text("ab_c", 0, 6), rapid.SampledFrom(addresses)).Draw(t, "value")
			return descriptor.Entry{Key: rapid.SampledFrom(keys).Draw(t, "key"), Value: strings.ReplaceAll(value, "*", rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "star"))}
		})
		for range 60 {
			entries := rapid.SliceOfN(entry, 1, 4).Draw(t, "entries")
			if isOdd(before.Domains[0].Descriptors, after.Domains[0].Descriptors, entries) {
				continue
			}
			if at := becomes(old, next, entries); at != [2]string{} && !found[at] {
				t.Fatalf("%q: %q is not among the changes", entries, at)
			}
		}
	})
}

// TestReplaceAgreesWithLookupsOfSets does the same for rules on sets of entries.
func TestReplaceAgreesWithLookupsOfSets(t *testing.T) {
	some := func(t *rapid.T) (s sets.Set) {
		s.Values = rapid.SliceOfN(text("ab**", 1, 4), 0, 3).Draw(t, "values")
		s.CIDRs = rapid.SliceOfN(ruleRange, 0, 2).Draw(t, "ranges")
		if len(s.Values) == 0 {
			s.Values = nil
		}
		if len(s.CIDRs) == 0 {
			s.CIDRs = nil
		}
		return s
	}
	draw := func(t *rapid.T, file string) *config.Rules {
		var limits []*config.Descriptor
		for _, name := range []string{"one", "two"} {
			d := &config.Descriptor{Set: &sets.Rule{Name: name}, Limits: []*config.Limit{perMinute(1)}}
			for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID).Draw(t, "keys") {
				c := sets.Condition{Key: key}
				if c.Absent = rapid.Uint8Range(0, 4).Draw(t, "absent") == 0; !c.Absent {
					c.Any, c.Not = some(t), some(t)
				}
				d.Set.Match = append(d.Set.Match, c)
			}
			if rapid.Uint8Range(0, 3).Draw(t, "hold") == 0 {
				d.Hold = &config.Hold{By: rapid.SampledFrom([]string{"id", "b"}).Draw(t, "by"), SettledBy: descriptor.Entry{Key: "phase", Value: rapid.SampledFrom([]string{"done", "end"}).Draw(t, "settled by")}}
			}
			limits = append(limits, d)
		}
		return number(file, &config.Rules{Domains: []*config.Domain{{Name: "edge", Limits: limits}}})
	}
	applies := func(d *descriptor.Domain, name string, entries []descriptor.Entry) bool {
		all, _, _ := d.LookupSets(nil, nil, entries, true)
		return slices.ContainsFunc(all, func(r *descriptor.Rule) bool { return r.Config.Set.Name == name })
	}
	rapid.Check(t, func(t *rapid.T) {
		before, after := draw(t, "old"), draw(t, "new")
		old, next := descriptor.Compile(before).Domain("edge"), descriptor.Compile(after).Domain("edge")
		found := map[string]bool{}
		for _, c := range descriptor.Replace(before, after).Changes {
			switch {
			case c.Example == nil: // all that it applies to
			case c.New == nil:
				name := strings.TrimPrefix(c.Old.Path, "limits.")
				found["gone "+name] = true
				if !applies(old, name, c.Example) || applies(next, name, c.Example) {
					t.Fatalf("the example of %q does not show it", c)
				}
			case c.Old == nil:
				name := strings.TrimPrefix(c.New.Path, "limits.")
				found["new "+name] = true
				if applies(old, name, c.Example) || !applies(next, name, c.Example) {
					t.Fatalf("the example of %q does not show it", c)
				}
			}
		}
		value := rapid.OneOf(text("abc", 0, 4), rapid.SampledFrom(addresses))
		for range 60 {
			var entries []descriptor.Entry
			for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "id", "phase"}), 0, 5, rapid.ID).Draw(t, "keys") {
				v := value.Draw(t, "value")
				if key == "phase" {
					v = rapid.SampledFrom([]string{"done", "end"}).Draw(t, "phase")
				}
				entries = append(entries, descriptor.Entry{Key: key, Value: v})
			}
			for _, name := range []string{"one", "two"} {
				was, is := applies(old, name, entries), applies(next, name, entries)
				if was && !is && !found["gone "+name] || is && !was && !found["new "+name] {
					t.Fatalf("%s, %q: applied %v, applies %v, and that is not among the changes", name, entries, was, is)
				}
			}
		}
	})
}

func TestLimitsThatMoveAreListed(t *testing.T) {
	const five = "rate_limit: {unit: minute, requests_per_unit: 5}"
	for name, test := range map[string]struct {
		old, next string
		want      []string
	}{
		"a value leaves a list": {
			edge("- {key: user, value: [alice, bob, carol], " + five + "}"), edge("- {key: user, value: [alice, bob], " + five + "}"),
			[]string{"old:3:55: edge user_[alice|bob|carol]: partly, such as for user=carol: gone: fixed_window, 5 per minute"},
		},
		"a list becomes one value": {
			edge("- {key: user, value: [alice, bob], " + five + "}"), edge("- {key: user, value: bob, " + five + "}"),
			[]string{"old:3:48: edge user_[alice|bob]: partly, such as for user=alice: gone: fixed_window, 5 per minute"},
		},
		"a range gets narrower": {
			edge("- {key: ip, value: {cidr: 10.0.0.0/8}, " + five + "}"), edge("- {key: ip, value: {cidr: 10.0.0.0/16}, " + five + "}"),
			[]string{"old:3:52: edge ip_[cidr:10.0.0.0/8]: partly, such as for ip=10.1.0.0: gone: fixed_window, 5 per minute"},
		},
		"a range within a range gets another window": {
			edge("- {key: ip, value: {cidr: 10.0.0.0/8}, " + five + "}"),
			edge("- {key: ip, value: {cidr: 10.0.0.0/8}, "+five+"}", "- {key: ip, value: {cidr: 10.0.0.0/16}, rate_limit: {unit: hour, requests_per_unit: 5}}"),
			[]string{"new:4:53: edge ip_[cidr:10.0.0.0/16]: begins anew: window changed: fixed_window, 5 per minute (old:3:52) -> fixed_window, 5 per hour"},
		},
		"a pattern goes": {
			edge("- {key: path, value: ['/a*', '/b*'], " + five + "}"), edge("- {key: path, value: ['/a*'], " + five + "}"),
			[]string{"old:3:50: edge path_[/a*|/b*]: partly, such as for path=/b…: gone: fixed_window, 5 per minute"},
		},
		"patterns change places": {
			edge("- {key: path, value: '/a*', "+five+"}", "- {key: path, value: '*.png', rate_limit: {unit: hour, requests_per_unit: 5}}"),
			edge("- {key: path, value: '*.png', rate_limit: {unit: hour, requests_per_unit: 5}}", "- {key: path, value: '/a*', "+five+"}"),
			[]string{"new:3:43: edge path_*.png: partly, such as for path=/a….png: begins anew: window changed: fixed_window, 5 per minute (old:3:41) -> fixed_window, 5 per hour"},
		},
		"a table becomes a number": {
			edge("- {key: user, rate_limit: {unit: minute, requests_per_unit: {by: plan, values: {gold: 9}, default: 5}}}"), edge("- {key: user, " + five + "}"),
			[]string{"old:3:27: edge user: partly, such as for user=…,plan=…: gone: fixed_window, 9 for plan=gold, else 5 per minute"},
		},
		"a table follows another entry": {
			edge("- {key: user, rate_limit: {unit: minute, requests_per_unit: {by: q, values: {gold: 9}, default: 5}}}"),
			edge("- {key: user, rate_limit: {unit: minute, requests_per_unit: {by: p, values: {gold: 9}, default: 5}}}"),
			[]string{
				"new:3:27: edge user: partly, such as for user=…,p=…: new: fixed_window, 9 for p=gold, else 5 per minute",
				"old:3:27: edge user: partly, such as for user=…,q=…: gone: fixed_window, 9 for q=gold, else 5 per minute",
			},
		},
		"only one user is limited still": {
			edge("- {key: user, " + five + "}"), edge("- {key: user, value: alice, " + five + "}"),
			[]string{"old:3:27: edge user: partly, such as for user=…: gone: fixed_window, 5 per minute"},
		},
		"a condition gets narrower": {
			"domain: edge\nlimits:\n- {name: w, match: {plan: [gold, silver], user: {}}, count_by: [user], " + five + "}",
			"domain: edge\nlimits:\n- {name: w, match: {plan: gold, user: {}}, count_by: [user], " + five + "}",
			[]string{"old:3:84: edge limits.w: partly, such as for user=…,plan=silver: gone: fixed_window, 5 per minute, denied_hits drop"},
		},
		"a condition more": {
			"domain: edge\nlimits:\n- {name: w, match: {user: {}}, count_by: [user], " + five + "}",
			"domain: edge\nlimits:\n- {name: w, match: {user: {not: [root]}, debug: {absent: true}}, count_by: [user], " + five + "}",
			[]string{"old:3:62: edge limits.w: partly, such as for user=root: gone: fixed_window, 5 per minute, denied_hits drop"},
		},
		"other requests are told apart": {
			"domain: edge\nlimits:\n- {name: w, match: {user: {}}, count_by: [user], hold: {by: id, expires: 60s, settled_by: {phase: done}}, " + five + "}",
			"domain: edge\nlimits:\n- {name: w, match: {user: {}}, count_by: [user], hold: {by: request_id, expires: 60s, settled_by: {phase: done}}, " + five + "}",
			[]string{
				"new:3:127: edge limits.w: partly, such as for request_id=…,user=…: new: fixed_window, 5 per minute, hold 1m",
				"old:3:119: edge limits.w: partly, such as for id=…,user=…: gone: fixed_window, 5 per minute, hold 1m",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := descriptor.Replace(parse(t, "old", test.old), parse(t, "new", test.next))
			texts := make([]string, len(got.Changes))
			for i, c := range got.Changes {
				texts[i] = c.String()
			}
			if g, w := strings.Join(texts, "\n"), strings.Join(test.want, "\n"); g != w || got.Partial {
				t.Errorf("got\n%s\nwant\n%s", g, w)
			}
		})
	}
}

// TestReplaceComparesManyRulesInFull holds that patterns which stay are not compared with
// each other, so that many of them are not too many.
func TestReplaceComparesManyRulesInFull(t *testing.T) {
	const many = 20_000
	var level []*config.Descriptor
	for i := range many {
		level = append(level, leaf("user", fmt.Sprintf("u%d", i)), leaf("path", fmt.Sprintf("/%d/*", i)))
	}
	before := rules("e", level...)
	after := rules("e", append([]*config.Descriptor{leaf("path", "/7/a*"), leaf("path", "*.png")}, level[:len(level)-1]...)...)
	got := descriptor.Replace(before, after)
	if got.Partial || len(got.Changes) != 2 { // the last pattern is gone, and *.png is new
		t.Errorf("partial %v, %d changes, the first %v", got.Partial, len(got.Changes), got.Changes[:min(5, len(got.Changes))])
	}
}
