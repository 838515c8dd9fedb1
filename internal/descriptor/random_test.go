package descriptor_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

func limit(p algo.Params) *config.Limit {
	l, err := algo.New(p)
	if err != nil {
		panic(err)
	}
	return &config.Limit{Algo: l}
}

func perMinute(n uint32) *config.Limit {
	return limit(algo.Params{Algorithm: algo.TokenBucket, Limit: n, Window: time.Minute})
}

func rules(name string, descriptors ...*config.Descriptor) *config.Rules {
	return &config.Rules{Domains: []*config.Domain{{Name: name, Descriptors: descriptors}}}
}

// text draws short strings of few letters, so that many of them match.
func text(letters string, least, most int) *rapid.Generator[string] {
	return rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte(letters)), least, most), func(b []byte) string { return string(b) })
}

var (
	ruleKeys  = []*rapid.Generator[string]{text("ab", 1, 2), text("ab_", 1, 4), text("ab_*", 1, 4)}
	ruleValue = rapid.OneOf(rapid.Just(""), text("ab_", 1, 4), text("ab_**", 1, 6), text("ab_**", 1, 6))
	ruleRange = rapid.SampledFrom([]string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "::/0", "2001:db8::/32", "2001:db8::1/128"})
	addresses = []string{"10.1.2.3", "10.1.2.9", "10.9.9.9", "192.0.2.1", "::ffff:10.1.2.3", "::ffff:10.9.0.0/112", "2001:db8::1", "2001:db9::1", "10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "10.1.2", "10.1.2.300"}
	entry     = rapid.Custom(func(t *rapid.T) descriptor.Entry {
		return descriptor.Entry{
			Key:   rapid.OneOf(rapid.SampledFrom([]string{"a", "b", "a_b", "f"}), text("ab_*", 0, 5)).Draw(t, "key"),
			Value: rapid.OneOf(text("ab_*", 0, 7), text("ab_*", 0, 7), rapid.SampledFrom(addresses)).Draw(t, "value"),
		}
	})
)

func drawLevel(t *rapid.T, depth, size int) []*config.Descriptor {
	var level []*config.Descriptor
	seen := map[[2]string]bool{}
	ruleKey := rapid.SampledFrom(ruleKeys).Draw(t, "keys")
	for range rapid.IntRange(0, size).Draw(t, "descriptors") {
		d := &config.Descriptor{Key: ruleKey.Draw(t, "key"), Value: ruleValue.Draw(t, "value")}
		if !strings.Contains(d.Key, "*") && rapid.Uint8Range(0, 3).Draw(t, "list") == 0 {
			d.Value = ""
			d.AnyOf.Values = rapid.SliceOfN(ruleValue.Filter(func(v string) bool { return v != "" }), 0, 4).Draw(t, "values")
			d.AnyOf.CIDRs = rapid.SliceOfN(ruleRange, 0, 3).Draw(t, "ranges")
		}
		again := func(list []string) bool {
			return slices.ContainsFunc(list, func(v string) bool { return seen[[2]string{d.Key, v}] })
		}
		if again(values(d)) || again(d.AnyOf.CIDRs) || d.HasList() && len(d.AnyOf.Values)+len(d.AnyOf.CIDRs) == 0 {
			continue
		}
		for _, v := range append(values(d), d.AnyOf.CIDRs...) {
			seen[[2]string{d.Key, v}] = true
		}
		flags := rapid.Uint8().Draw(t, "flags")
		d.ShareThreshold, d.DetailedMetric, d.ValueToMetric = flags&1 != 0, flags&6 == 6, flags&8 != 0
		if flags&48 != 0 {
			d.Limits = []*config.Limit{perMinute(1)}
			if flags&128 != 0 {
				d.Limits[0].Table = &config.Table{By: rapid.SampledFrom([]string{"f", "f", "a", "b"}).Draw(t, "by")}
			}
		}
		if depth > 1 && flags&64 != 0 {
			d.Descriptors = drawLevel(t, depth-1, size/2)
		}
		level = append(level, d)
	}
	return level
}

// likeTheModel compares the matcher with the model on random trees and
// descriptors.
func likeTheModel(t *rapid.T) {
	rules := rules("edge", drawLevel(t, 3, rapid.SampledFrom([]int{4, 60}).Draw(t, "size"))...)
	d := descriptor.Compile(rules).Domain("edge")
	for range 20 {
		entries := rapid.SliceOfN(entry, 0, 4).Draw(t, "entries")
		checkModel(t, rules.Domains[0], d, entries)
	}
}

func TestModel(t *testing.T) { rapid.Check(t, likeTheModel) }

func FuzzModel(f *testing.F) { f.Fuzz(rapid.MakeFuzz(likeTheModel)) }

type failer interface {
	Helper()
	Fatalf(string, ...any)
}

func checkModel(t failer, model *config.Domain, d *descriptor.Domain, entries []descriptor.Entry) {
	t.Helper()
	want, got, all := modelLookup(model, entries), d.Lookup(entries), entries
	switch {
	case want == nil && got == nil:
		return
	case want == nil:
		t.Fatalf("%q: got %s, want no rule", entries, got.Path)
	case got == nil || got.Config != want:
		t.Fatalf("%q: got %+v, want %q", entries, got, joined(want))
	}
	way, entries, _ := modelWalk(model, entries)
	metric := modelMetric(way, entries)
	for i, l := range way {
		if !got.Detailed && (l.Key != entries[i].Key || entries[i].Value == "") {
			metric = got.Path // whichever of its spellings the request uses
		}
	}
	if got := string(got.AppendMetricKey(nil, all)); got != metric {
		t.Fatalf("%q: metric %q, want %q", all, got, metric)
	}
	if with, without := string(got.AppendKey(nil, all, 0)), string(got.AppendKey(nil, entries, 0)); with != without {
		t.Fatalf("%q: counter %q, and %q without what is skipped", all, with, without)
	}
}

// wildcardsLikeTheModel compares the matcher with the model on levels of many patterns.
// They share enough starts, ends and middles to be indexed in every way.
func wildcardsLikeTheModel(t *rapid.T) {
	const long = "a-value-that-does-not-fit-into-one-cache-line-of-the-table/"
	part := text("abc", 1, 6)
	end := rapid.SampledFrom([]string{"", "", "", "a", "ab", "cab", long})
	fewest := rapid.IntRange(0, 1).Draw(t, "fewest") // 0: some match whatever comes
	pattern := rapid.Custom(func(t *rapid.T) string {
		middles := rapid.SliceOfN(part, fewest, 3).Draw(t, "middles")
		return end.Draw(t, "prefix") + "*" + strings.Join(append(middles, ""), "*") + end.Draw(t, "suffix")
	})
	size := rapid.SampledFrom([]int{5, 50, 300}).Draw(t, "size")
	var level []*config.Descriptor
	seen := map[string]bool{}
	for _, p := range rapid.SliceOfN(pattern, size, size).Draw(t, "patterns") {
		if !seen[p] {
			seen[p] = true
			level = append(level, leaf("k", p))
		}
	}
	rules := rules("edge", level...)
	d := descriptor.Compile(rules).Domain("edge")
	for range 20 {
		value := end.Draw(t, "start") + text("abc", 0, 25).Draw(t, "middle") + end.Draw(t, "end")
		checkModel(t, rules.Domains[0], d, []descriptor.Entry{{Key: "k", Value: value}})
	}
}

func TestManyWildcards(t *testing.T) { rapid.Check(t, wildcardsLikeTheModel) }

func FuzzManyWildcards(f *testing.F) { f.Fuzz(rapid.MakeFuzz(wildcardsLikeTheModel)) }
