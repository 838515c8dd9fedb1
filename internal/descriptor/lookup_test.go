package descriptor_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

func node(key, value string, below ...*config.Descriptor) *config.Descriptor {
	return &config.Descriptor{Key: key, Value: value, Descriptors: below}
}

// entries reads "key=value,key=value".
func entries(s string) (entries []descriptor.Entry) {
	for e := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(e, "=")
		entries = append(entries, descriptor.Entry{Key: key, Value: value})
	}
	return entries
}

func TestLookup(t *testing.T) {
	long := strings.Repeat("a value longer than a record ", 3)
	huge := strings.Repeat("x", 1<<16+1)
	for _, test := range []struct {
		name  string
		rules []*config.Descriptor
		want  map[string]string // entries: path of the rule
	}{
		{
			name: "exact, then wildcard, then key only",
			rules: []*config.Descriptor{
				leaf("user", ""), leaf("user", "a*"), leaf("user", "alice"),
			},
			want: map[string]string{"user=alice": "user_alice", "user=adam": "user_a*", "user=bob": "user", "user=": "user", "user=Alice": "user", "User=alice": ""},
		},
		{
			name: "the first wildcard in the file",
			rules: []*config.Descriptor{
				leaf("path", "/a/b*"), leaf("path", "*.png"), leaf("path", "/a/*"), leaf("path", "*a*b*a*"), leaf("path", "/*"),
			},
			want: map[string]string{
				"path=/a/b.png": "path_/a/b*", "path=/a/c.png": "path_*.png", "path=/a/c": "path_/a/*",
				"path=bananaba": "path_*a*b*a*", "path=/bananaba": "path_*a*b*a*", "path=/": "path_/*", "path=x": "",
			},
		},
		{
			name:  "stars stand for nothing too, and literals do not overlap",
			rules: []*config.Descriptor{leaf("k", "ab*ba"), leaf("k", "x**y"), leaf("k", "*z*")},
			want:  map[string]string{"k=abba": "k_ab*ba", "k=aba": "", "k=ab-ba": "k_ab*ba", "k=xy": "k_x**y", "k=x.y": "k_x**y", "k=z": "k_*z*", "k=yx": ""},
		},
		{
			name:  "a pattern's own text is an exact value",
			rules: []*config.Descriptor{leaf("k", "*"), leaf("k", "a*")},
			want:  map[string]string{"k=a*": "k_a*", "k=a": "k_*", "k=*": "k_*", "k=": "k_*"},
		},
		{
			name:  "the choice is final",
			rules: []*config.Descriptor{node("user", "alice"), leaf("user", "a*"), node("user", "bob", leaf("path", "/x")), node("user", "b*", leaf("path", "/y")), leaf("user", "")},
			want:  map[string]string{"user=alice": "", "user=bob": "", "user=bob,path=/y": "", "user=bob,path=/x": "user_bob.path_/x", "user=ben,path=/y": "user_b*.path_/y", "user=carl": "user"},
		},
		{
			name:  "the depths must agree",
			rules: []*config.Descriptor{node("a", "", leaf("b", "", leaf("c", ""))), leaf("d", "")},
			want:  map[string]string{"a=1": "", "a=1,b=2": "a.b", "a=1,b=2,c=3": "a.b.c", "a=1,b=2,c=3,d=4": "", "d=1,d=1": "", "b=2": "", "b=2,a=1": ""},
		},
		{
			name:  "values and keys below do not mix",
			rules: []*config.Descriptor{leaf("a", "", leaf("x", "")), leaf("a", "x")},
			want:  map[string]string{"a=x": "a_x", "a=y,x=1": "a.x", "a=x,x=1": "", "x=1": ""},
		},
		{
			name:  "below wildcards",
			rules: []*config.Descriptor{node("h", "*.com", leaf("p", "/*"), leaf("p", "/x")), node("h", "*", leaf("p", ""))},
			want:  map[string]string{"h=a.com,p=/x": "h_*.com.p_/x", "h=a.com,p=/y": "h_*.com.p_/*", "h=a.com,p=": "", "h=b,p=": "h_*.p", "h=*.com,p=/x": "h_*.com.p_/x"},
		},
		{
			name:  "keys and values are joined",
			rules: []*config.Descriptor{leaf("a", "b_c"), leaf("d_e", ""), leaf("f", "*_g"), leaf("h*", "i")},
			want: map[string]string{
				"a_b=c": "a_b_c", "a_b_c=d": "a_b_c", "a=b_c": "a_b_c", "d=e": "d_e", "d_e=f": "d_e",
				"f_x=g": "f_*_g", "f_x_g=": "", "f=_g": "f_*_g", "h=i": "h*_i", "hello=i": "h*_i", "hello=j": "", "h*_i=x": "h*_i",
			},
		},
		{
			name:  "a joint in configured keys only",
			rules: []*config.Descriptor{leaf("d_e", ""), leaf("f_g", "h")},
			want:  map[string]string{"d=e": "d_e", "d=e_": "", "f=g_h": "f_g_h", "f_g=h": "f_g_h", "d": "", "f_g_h=": "f_g_h"},
		},
		{
			name:  "a joint in the entries' keys only",
			rules: []*config.Descriptor{leaf("a", "b_c"), leaf("a", "x*")},
			want:  map[string]string{"a_b=c": "a_b_c", "a_b_c=": "a_b_c", "a_x=y": "a_x*", "a_y=x": "", "a_b_d=c": ""},
		},
		{
			name:  "of two ways to read it, the entry's own",
			rules: []*config.Descriptor{node("a", "b_c"), leaf("a_b", "c"), leaf("a_b_c", "")},
			want:  map[string]string{"a_b=c": "a_b_c", "a=b_c": "", "a_b_c=d": "a_b_c"},
		},
		{
			name:  "the first of equals",
			rules: []*config.Descriptor{node("a", "b", leaf("c", "")), leaf("a", "b"), node("a", "x*"), leaf("a", "x*")},
			want:  map[string]string{"a=b": "", "a=b,c=": "a_b.c", "a=xy": ""},
		},
		{
			name:  "any length",
			rules: []*config.Descriptor{leaf(long, long), leaf("k", huge), leaf("k", long+"*"+long)},
			want:  map[string]string{long + "=" + long: long + "_" + long, "k=" + huge: "k_" + huge, "k=" + huge[1:]: "", "k=" + long + huge + long: "k_" + long + "*" + long},
		},
		{
			name:  "any bytes",
			rules: []*config.Descriptor{leaf("\x00", "\xff|:"), leaf("\x00", "\xff*\x00")},
			want:  map[string]string{"\x00=\xff|:": "\x00_\xff|:", "\x00=\xff\x00": "\x00_\xff*\x00", "\x00=\xff\x00\x01": ""},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			rules := rules("edge", test.rules...)
			m := descriptor.Compile(rules)
			for text, want := range test.want {
				got := ""
				if r := m.Domain("edge").Lookup(entries(text)); r != nil {
					got = r.Path
				}
				if got != want {
					t.Errorf("%q: got %q, want %q", text, got, want)
				}
				checkModel(t, rules.Domains[0], m.Domain("edge"), entries(text))
			}
			if r := m.Domain("edge").Lookup(nil); r != nil {
				t.Errorf("no entries: %+v", r)
			}
		})
	}
}

func TestMatcher(t *testing.T) {
	m := descriptor.Compile(&config.Rules{Domains: []*config.Domain{
		{Name: "a", Descriptors: []*config.Descriptor{node("x", "", leaf("y", "z")), leaf("x", "1", leaf("y", ""))}},
		{Name: "b", Consume: config.AllOrNothing, Descriptors: []*config.Descriptor{leaf("x", "")}},
		{Name: "c"},
	}})
	var got []string
	for i, r := range m.Rules() {
		got = append(got, r.Domain+" "+r.Path)
		if r.Index != i {
			t.Errorf("rule %d has index %d", i, r.Index)
		}
	}
	if got, want := strings.Join(got, ", "), "a x.y_z, a x_1, a x_1.y, b x"; got != want {
		t.Errorf("rules %s, want %s", got, want)
	}
	if d := m.Domain("b"); d.Name() != "b" || d.Consume() != config.AllOrNothing || d.Lookup(entries("x=1")) != m.Rules()[3] {
		t.Errorf("domain b: %s %v", d.Name(), d.Consume())
	}
	if m.Domain("a").Consume() != config.Each || m.Domain("c").Lookup(entries("x=1")) != nil || m.Domain("d") != nil {
		t.Error("domains mixed up")
	}
}

// TestRecompile checks that matchers that take over domains equal new ones, and do not
// change the matchers that the domains come from.
func TestRecompile(t *testing.T) {
	domain := func(name string, values ...string) *config.Domain {
		d := &config.Domain{Name: name}
		for _, v := range values {
			d.Descriptors = append(d.Descriptors, leaf("x", v, leaf("y", "")))
		}
		return d
	}
	a, b, c := domain("a", "1", "2*", "3"), domain("b", "1"), domain("c", "1", "*4*")
	m := new(descriptor.Matcher)
	for _, domains := range [][]*config.Domain{
		{a, b, c}, {a, domain("b", "1"), c}, {domain("a", "1"), b, c}, {c, b, a}, {b}, {a, b}, {domain("a"), b, c}, {},
	} {
		before, rulesBefore := m, m.Rules()
		indices := make([]int, len(rulesBefore))
		for i, r := range rulesBefore {
			indices[i] = r.Index
		}
		rules := &config.Rules{Domains: domains}
		m = before.Recompile(rules)
		fresh := descriptor.Compile(rules)
		if len(m.Rules()) != len(fresh.Rules()) {
			t.Fatalf("%d rules, want %d", len(m.Rules()), len(fresh.Rules()))
		}
		for i, want := range fresh.Rules() {
			got := m.Rules()[i]
			if got.Index != i || got.Domain != want.Domain || got.Path != want.Path || got.Config != want.Config {
				t.Errorf("rule %d is %+v, want %+v", i, got, want)
			}
		}
		for _, d := range domains {
			for _, text := range []string{"x=1", "x=22,y=5", "x=3,y=1", "x=040", "x=5"} {
				got, want := m.Domain(d.Name).Lookup(entries(text)), fresh.Domain(d.Name).Lookup(entries(text))
				if (got == nil) != (want == nil) || got != nil && (got != m.Rules()[want.Index] || got.Config != want.Config) {
					t.Errorf("%s: %s: got %+v, want %+v", d.Name, text, got, want)
				}
			}
		}
		for i, r := range rulesBefore {
			if r.Index != indices[i] {
				t.Errorf("rule %d of the matcher before now has index %d", indices[i], r.Index)
			}
		}
	}
}

// TestHostile would take forever if matching backtracked.
func TestHostile(t *testing.T) {
	var level []*config.Descriptor
	for i := range 50 {
		level = append(level, leaf("k", strings.Repeat("*a", 50+i)+"*b*"), leaf("k", strings.Repeat("a*", 50+i)+"b"))
	}
	level = append(level, leaf("_", "_"))
	d := descriptor.Compile(rules("edge", level...)).Domain("edge")
	underscores := strings.Repeat("_", 1<<20)
	for _, e := range []descriptor.Entry{
		{Key: "k", Value: strings.Repeat("a", 1<<16)}, {Key: underscores, Value: underscores}, {Key: "_", Value: underscores},
	} {
		if r := d.Lookup([]descriptor.Entry{e}); r != nil {
			t.Errorf("matched %s", r.Path)
		}
	}
}

func TestConcurrentLookups(t *testing.T) {
	d := descriptor.Compile(rules("edge", leaves("agent", "*bot-%d/*")(100)...)).Domain("edge")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				want := fmt.Sprintf("agent_*bot-%d/*", i%100)
				r := d.Lookup([]descriptor.Entry{{Key: "agent", Value: fmt.Sprintf("a bot-%d/1 and bot-%d/1", i%100, i%100)}})
				if r == nil || r.Path != want {
					t.Errorf("got %+v, want %s", r, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestLookupDoesNotAllocate(t *testing.T) {
	level := append(leaves("tenant", "customer-%d")(100), leaf("tenant", ""), leaf("remote_address", ""), node("user", "", leaf("path", "/x")))
	level = append(level, leaves("path", "/%d/*")(100)...)
	level = append(level, leaves("path", "/*/%d")(100)...)
	d := descriptor.Compile(rules("edge", level...)).Domain("edge")
	long := strings.Repeat("long", 1000)
	for _, text := range []string{
		"tenant=customer-7", "tenant=" + long, "remote_address=10.0.0.1", "user=alice,path=/x", "unknown=" + long, "remote=" + long,
		"path=/7/" + long, "path=/" + long + "/7", "path=/" + long,
	} {
		e := entries(text)
		if n := testing.AllocsPerRun(100, func() { d.Lookup(e) }); n != 0 {
			t.Errorf("%.20s: %v allocations", text, n)
		}
		if r := d.Lookup(e); r != nil {
			key := make([]byte, 0, 8192)
			if n := testing.AllocsPerRun(100, func() { key = r.AppendKey(key[:0], e, 0) }); n != 0 {
				t.Errorf("%.20s: %v allocations for its key", text, n)
			}
		}
	}
}
