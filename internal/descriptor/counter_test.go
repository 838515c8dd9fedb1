package descriptor_test

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// TestRuleOf checks that a counter's key leads back to its rule, unless a key of the rules
// has a *.
func TestRuleOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := descriptor.Compile(rules("edge|", drawLevel(t, 3, rapid.SampledFrom([]int{4, 60}).Draw(t, "size"))...))
		d := m.Domain("edge|")
		for range 20 {
			entries := rapid.SliceOfN(entry, 1, 3).Draw(t, "entries")
			r := d.Lookup(entries)
			if r == nil {
				continue
			}
			key := r.AppendKey(nil, entries, 0)
			c, complete := descriptor.ParseKey(key)
			if !complete || c.Domain != "edge|" || len(c.Entries) != len(entries) && r.Config.TableKey() == "" || c.Tag != "tb" || c.Override {
				t.Fatalf("%q was read as %+v", key, c)
			}
			starKey := false
			for _, r := range m.Rules() {
				starKey = starKey || strings.Contains(r.Path, "*") // or a value has
			}
			if got := m.RuleOf(key); got != r && !(starKey && got == nil) {
				t.Fatalf("%q of %+v leads to %+v", key, r, got)
			}
		}
	})
}

// TestParseKey decodes keys of any bytes, and the whole fields of any start of one.
func TestParseKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringN(1, 5, -1).Draw(t, "domain")
		entries := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) descriptor.Entry {
			return descriptor.Entry{Key: rapid.StringN(0, 12, -1).Draw(t, "key"), Value: rapid.StringN(0, 12, -1).Draw(t, "value")}
		}), 0, 3).Draw(t, "entries")
		l := perMinute(5)
		d := descriptor.Compile(rules(name)).Domain(name)
		key := d.AppendOverrideKey(nil, nil, entries, l.Algo)
		want := descriptor.Counter{Domain: name, Tag: "tb", Override: true}
		for _, e := range entries {
			want.Entries = append(want.Entries, descriptor.CounterEntry{Entry: e})
		}
		if got, complete := descriptor.ParseKey(key); !complete || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: got %+v, %v; want %+v", key, got, complete, want)
		}
		part := key[:rapid.IntRange(0, len(key)).Draw(t, "length")]
		got, _ := descriptor.ParseKey(part)
		if len(got.Entries) > len(entries) || len(got.Entries) > 0 && !reflect.DeepEqual(got.Entries, want.Entries[:len(got.Entries)]) {
			t.Fatalf("%q: got %+v", part, got)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	for _, key := range []string{"4:edge|4:user=5:alice|fw:1m", "4:edge|4:path~2:/*|!tb", "4:edge|4:host*4:h*_x|sw2:1d", "", "x", "9:edge", "-1:|", "4:edge|1:"} {
		f.Add([]byte(key))
	}
	m := descriptor.Compile(rules("edge", leaf("user", ""), leaf("path", "/*")))
	f.Fuzz(func(t *testing.T, key []byte) {
		if r := m.RuleOf(key); r != nil && r.Domain != "edge" {
			t.Errorf("%q leads to %+v", key, r)
		}
	})
}

// TestSharedKey shows the forms that share a counter.
func TestSharedKey(t *testing.T) {
	for key, want := range map[string]descriptor.CounterEntry{
		"1:e|4:path~2:/*|fw:1m":   {Entry: descriptor.Entry{Key: "path", Value: "/*"}, Shared: true},
		"1:e|4:host*4:h*_x|fw:1m": {Entry: descriptor.Entry{Key: "host", Value: "h*_x"}, Shared: true},
		"1:e|4:user=0:|fw:1m":     {Entry: descriptor.Entry{Key: "user"}},
	} {
		c, complete := descriptor.ParseKey([]byte(key))
		if !complete || len(c.Entries) != 1 || c.Entries[0] != want || c.Tag != "fw:1m" {
			t.Errorf("%s: %+v, %v", key, c, complete)
		}
	}
}
