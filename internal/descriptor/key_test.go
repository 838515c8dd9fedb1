package descriptor_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

func TestAppendKey(t *testing.T) {
	share := func(d *config.Descriptor) *config.Descriptor {
		d.ShareThreshold = true
		return d
	}
	d := descriptor.Compile(rules("edge|", []*config.Descriptor{
		leaf("user", "alice", leaf("path", "")),
		share(leaf("path", "/*", leaf("method", ""))),
		share(leaf("h*", "x")),
		share(leaf("a", "b_*")),
		share(leaf("c_d", "e_*")),
		leaf("any", "*"),
	}...)).Domain("edge|")
	for text, want := range map[string]string{
		"user=alice":             "5:edge||4:user=5:alice|tb",
		"user=alice,path=":       "5:edge||4:user=5:alice|4:path=0:|tb",
		"user=alice,path=a|1:b=": "5:edge||4:user=5:alice|4:path=6:a|1:b=|tb",
		"path=/x":                "5:edge||4:path~2:/*|tb",
		"path=/*":                "5:edge||4:path~2:/*|tb",
		"path=/x,method=GET":     "5:edge||4:path~2:/*|6:method=3:GET|tb",
		"host=x":                 "5:edge||4:host*4:h*_x|tb",
		"hello=x":                "5:edge||5:hello*4:h*_x|tb",
		"h*_x=y":                 "5:edge||4:h*_x=1:y|tb", // by its key alone
		"a=b_c":                  "5:edge||1:a~3:b_*|tb",
		"a_b=c":                  "5:edge||1:a~3:b_*|tb",
		"a_b_*=c":                "5:edge||5:a_b_**5:a_b_*|tb",
		"c=d_e_f":                "5:edge||3:c_d~3:e_*|tb",
		"any=*":                  "5:edge||3:any=1:*|tb",
	} {
		e := entries(text)
		r := d.Lookup(e)
		if r == nil {
			t.Errorf("%q: no rule", text)
			continue
		}
		if got := string(r.AppendKey([]byte("x"), e, 0)); got != "x"+want {
			t.Errorf("%q: got %q, want %q", text, got, "x"+want)
		}
	}
}

func TestTags(t *testing.T) {
	const us, ms, day = time.Microsecond, time.Millisecond, 24 * time.Hour
	for _, test := range []struct {
		params algo.Params
		want   string
	}{
		{algo.Params{Algorithm: algo.FixedWindow, Limit: 1, Window: time.Second}, "fw:1s"},
		{algo.Params{Algorithm: algo.FixedWindow, Limit: 9, Window: time.Second}, "fw:1s"},
		{algo.Params{Limit: 1, Calendar: algo.Calendar{Every: algo.EveryMonth, Zone: "Europe/Berlin", Starts: 15}}, "fw:month-15@Europe/Berlin"},
		{algo.Params{Limit: 9, Calendar: algo.Calendar{Every: algo.EveryMonth}}, "fw:month-1@UTC"},
		{algo.Params{Limit: 1, Calendar: algo.Calendar{Every: algo.EveryWeek, Starts: 7}}, "fw:week-7@UTC"},
		{algo.Params{Limit: 1, Calendar: algo.Calendar{Every: algo.EveryQuarter, Zone: "America/Argentina/Buenos_Aires"}}, "fw:quarter@America/Argentina/Buenos_Aires"},
		{algo.Params{Algorithm: algo.SlidingWindow, Limit: 1, Window: 90 * time.Second}, "sw2:90s"},
		{algo.Params{Algorithm: algo.SlidingWindow, Limit: 1, Window: time.Hour, Strict: true}, "sw2:1h"},
		{algo.Params{Algorithm: algo.SlidingWindow, Limit: 1, Window: time.Hour, Strict: true, SubWindows: 6}, "sw2:1h"},
		{algo.Params{Algorithm: algo.SlidingLog, Limit: 1, Window: 1500 * ms}, "sl:1500ms"},
		{algo.Params{Algorithm: algo.TokenBucket, Limit: 1, Window: 365 * day, Burst: 5}, "tb"},
		{algo.Params{Algorithm: algo.LeakyBucket, Limit: 1, Window: 1001 * us}, "lb"},
		{algo.Params{Algorithm: algo.Hybrid, Limit: 1, Window: time.Minute}, "hy2:1m"},
		{algo.Params{Algorithm: algo.Hybrid, Limit: 1, Window: time.Minute, Refill: algo.Rate{Hits: 1, Per: time.Minute}}, "hy2:1m"},
		{algo.Params{Algorithm: algo.Hybrid, Limit: 1, Window: time.Minute, Refill: algo.Rate{Hits: 1, Per: time.Second}, Strict: true, SubWindows: 3}, "hy2:1m"},
	} {
		t.Run(test.want, func(t *testing.T) {
			l := limit(test.params)
			d := descriptor.Compile(rules("e", &config.Descriptor{Key: "k", Limits: []*config.Limit{l}})).Domain("e")
			e := entries("k=v")
			if got, want := string(d.Lookup(e).AppendKey(nil, e, 0)), "1:e|1:k=1:v|"+test.want; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if got, want := string(d.AppendOverrideKey(nil, nil, e, l.Algo)), "1:e|1:k=1:v|!"+test.want; got != want {
				t.Errorf("override: got %q, want %q", got, want)
			}
		})
	}
}

func TestSeveralLimits(t *testing.T) {
	second := limit(algo.Params{Algorithm: algo.TokenBucket, Limit: 10, Window: time.Second})
	limits := []*config.Limit{perMinute(100), second, perMinute(50), {Unlimited: true}, perMinute(20)}
	d := descriptor.Compile(rules("e", &config.Descriptor{Key: "k", Limits: limits})).Domain("e")
	e := entries("k=v")
	for i, want := range []string{"tb", "tb#2", "tb#3", "", "tb#4"} {
		if want != "" {
			want = "1:e|1:k=1:v|" + want
		}
		if got := string(d.Lookup(e).AppendKey(nil, e, i)); got != want {
			t.Errorf("limit %d: got %q, want %q", i, got, want)
		}
	}
}

// TestACandidateTakesNoCounter: one in front of a limit that is enforced is counted
// under a number of its own.
func TestACandidateTakesNoCounter(t *testing.T) {
	live, candidate := perMinute(5), perMinute(3)
	candidate.ShadowMode = true
	for _, limits := range [][]*config.Limit{{candidate, live}, {live, candidate}} {
		d := descriptor.Compile(rules("e", &config.Descriptor{Key: "k", Limits: limits})).Domain("e")
		e := entries("k=v")
		for i, l := range limits {
			want := "1:e|1:k=1:v|tb"
			if l == candidate {
				want += "#2"
			}
			if got := string(d.Lookup(e).AppendKey(nil, e, i)); got != want {
				t.Errorf("limit %d: got %q, want %q", i, got, want)
			}
		}
	}
}

// decodeKey reads a counter key back: the domain and the entries with the mark
// between key and value.
func decodeKey(key string) (domain string, entries []descriptor.Entry, marks, tag string, err error) {
	sized := func() (s string) {
		if err != nil {
			return ""
		}
		digits, rest, _ := strings.Cut(key, ":")
		n, bad := strconv.Atoi(digits)
		if bad != nil || n < 0 || n >= len(rest) {
			err = fmt.Errorf("a length is missing before %q", key)
			return ""
		}
		s, key = rest[:n], rest[n:]
		return s
	}
	next := func() (c byte) {
		c, key = key[0], key[1:]
		return c
	}
	domain = sized()
	for err == nil && next() == '|' && key[0] >= '0' && key[0] <= '9' {
		e := descriptor.Entry{Key: sized()}
		if err == nil {
			marks += string(next())
		}
		e.Value = sized()
		entries = append(entries, e)
	}
	return domain, entries, marks, key, err
}

var anyText = rapid.OneOf(
	rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 20), func(b []byte) string { return string(b) }),
	text("\x00|={}:~*!_1", 0, 12),
)

// keysAreInjective decodes keys. No two descriptors share a key, because a key encodes all
// its parts in only one way.
func keysAreInjective(t *rapid.T) {
	domain := anyText.Draw(t, "domain")
	entries := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) descriptor.Entry {
		return descriptor.Entry{Key: anyText.Draw(t, "key"), Value: anyText.Draw(t, "value")}
	}), 1, 4).Draw(t, "entries")

	// A rule of the entries' keys, of which some share their values' counter.
	var top config.Descriptor
	last := &top
	want := append([]descriptor.Entry(nil), entries...)
	marks := ""
	for i, e := range entries {
		below := &config.Descriptor{Key: e.Key}
		mark := "="
		if rapid.Bool().Draw(t, "shared") {
			below.Value, below.ShareThreshold = "*"+e.Value, true
			mark = "~"
			want[i].Value = below.Value
			if strings.Contains(e.Key, "*") {
				mark = "*"
				want[i].Value = join(e.Key, below.Value)
			}
		}
		marks += mark
		last.Descriptors = []*config.Descriptor{below}
		last = below
	}
	last.Limits = []*config.Limit{perMinute(1)}
	d := descriptor.Compile(rules(domain, top.Descriptors...)).Domain(domain)
	r := d.Lookup(entries)
	if r == nil {
		t.Fatalf("%q matches nothing", entries)
	}
	check := func(key []byte, want []descriptor.Entry, wantMarks, wantTag string) {
		gotDomain, got, gotMarks, tag, err := decodeKey(string(key))
		if err != nil || gotDomain != domain || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) || gotMarks != wantMarks || tag != wantTag {
			t.Fatalf("%q reads as %q %q %s %s (%v), want %q %q %s %s", key, gotDomain, got, gotMarks, tag, err, domain, want, wantMarks, wantTag)
		}
	}
	check(r.AppendKey(nil, entries, 0), want, marks, "tb")
	check(d.AppendOverrideKey(nil, nil, entries, r.Config.Limits[0].Algo), entries, strings.Repeat("=", len(entries)), "!tb")
}

func TestKeysAreInjective(t *testing.T) { rapid.Check(t, keysAreInjective) }

func FuzzKeysAreInjective(f *testing.F) { f.Fuzz(rapid.MakeFuzz(keysAreInjective)) }

func TestAppendMetricKey(t *testing.T) {
	flagged := func(flags, key, value string, below ...*config.Descriptor) *config.Descriptor {
		d := leaf(key, value, below...)
		d.DetailedMetric, d.ValueToMetric, d.ShareThreshold = strings.Contains(flags, "d"), strings.Contains(flags, "v"), strings.Contains(flags, "s")
		return d
	}
	d := descriptor.Compile(rules("edge",
		leaf("plain", "", leaf("w", "x*"), leaf("e", "x")),
		flagged("v", "route", "", flagged("v", "user", "a*", leaf("id", "")), flagged("vs", "user", "s*"), leaf("user", "")),
		flagged("d", "det", "", flagged("d", "user", ""), flagged("", "tail", "")),
		flagged("s", "shared", "x*", flagged("d", "user", "")),
		flagged("s", "h*", ""),
	)).Domain("edge")
	for text, want := range map[string]struct {
		metric   string
		detailed bool
	}{
		"plain=1":                {"plain", false},
		"plain=1,w=xy":           {"plain.w_x*", false},
		"plain=1,e=x":            {"plain.e_x", false},
		"route=r":                {"route_r", true},
		"route=":                 {"route", true},
		"route=r,user=al":        {"route_r.user_al", true},
		"route=r,user=al,id=7":   {"route_r.user_al.id", true},
		"route=r,user=sam":       {"route_r.user_s*", true},
		"route=r,user=bob":       {"route_r.user", true},
		"det=1":                  {"det_1", true},
		"det=1,user=":            {"det_1.user_", true},
		"det=1,tail=2":           {"det.tail", false},
		"shared=xy,user=u":       {"shared_x*.user_u", true},
		"shared=xy,user=":        {"shared_x*.user", true},
		"shared=xy":              {"shared_x*", false},
		"host=a":                 {"host_h*", true},
		"shared=x*,user=literal": {"shared_x*.user_literal", true},
	} {
		e := entries(text)
		r := d.Lookup(e)
		if r == nil {
			t.Errorf("%q: no rule", text)
			continue
		}
		if got := string(r.AppendMetricKey(nil, e)); got != want.metric || r.Detailed != want.detailed {
			t.Errorf("%q: got %q (detailed %v), want %q (%v)", text, got, r.Detailed, want.metric, want.detailed)
		}
	}
}

// TestShard checks that the limits of a descriptor have the same shard, for any entries.
func TestShard(t *testing.T) {
	compile := func(consume config.Consume) *descriptor.Domain {
		r := rules("edge|", leaf("user", ""))
		r.Domains[0].Consume = consume
		return descriptor.Compile(r).Domain("edge|")
	}
	const before = "5:edge||4:user=3:|a!|"
	for _, key := range []string{before + "fw:1m", before + "hy2:1m#2", before + "!fw:1m"} {
		if got := compile(config.Each).Shard([]byte(key)); key[:got] != before {
			t.Errorf("%s: the shard is %s", key, key[:got])
		}
		if got := compile(config.AllOrNothing).Shard([]byte(key)); key[:got] != "5:edge||" {
			t.Errorf("%s, all or nothing: the shard is %s", key, key[:got])
		}
	}
}
