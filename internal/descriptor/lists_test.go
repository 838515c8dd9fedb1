package descriptor_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// list is a descriptor with a list of values, some of which may be ranges.
func list(key string, values ...string) *config.Descriptor {
	d := leaf(key, "")
	for _, v := range values {
		if _, err := netip.ParsePrefix(v); err == nil {
			d.AnyOf.CIDRs = append(d.AnyOf.CIDRs, v)
		} else {
			d.AnyOf.Values = append(d.AnyOf.Values, v)
		}
	}
	return d
}

func shared(d *config.Descriptor) *config.Descriptor {
	d.ShareThreshold = true
	return d
}

func followed(d *config.Descriptor, by string, rows ...config.Row) *config.Descriptor {
	d.Limits[0].Table = &config.Table{By: by, Rows: rows}
	return d
}

func TestListsAndRanges(t *testing.T) {
	below := list("method", "GET", "PUT")
	below.Descriptors = []*config.Descriptor{leaf("path", ""), list("path", "/x", "/y*")}
	d := descriptor.Compile(rules("e",
		list("a", "10.0.0.0/8", "2001:db8::/32"), list("a", "10.1.0.0/16", "10.9.9.9"), list("a", "10.1.2.3", "10.2*"), leaf("a", "10.*"), leaf("a", ""),
		list("masked_remote_address", "10.0.0.0/8"), below, leaf("method", "POST"),
	)).Domain("e")
	for text, want := range map[string]string{
		"a=10.3.0.1": "a_[cidr:10.0.0.0/8|cidr:2001:db8::/32]", "a=::ffff:10.3.0.1": "a_[cidr:10.0.0.0/8|cidr:2001:db8::/32]",
		"a=2001:DB8::1": "a_[cidr:10.0.0.0/8|cidr:2001:db8::/32]", "a=2001:db9::1": "a",
		"a=10.1.0.1": "a_[10.9.9.9|cidr:10.1.0.0/16]", "a=10.9.9.9": "a_[10.9.9.9|cidr:10.1.0.0/16]",
		"a=10.1.2.3": "a_[10.1.2.3|10.2*]",                                                                             // an exact value before a range
		"a=10.2.0.1": "a_[cidr:10.0.0.0/8|cidr:2001:db8::/32]",                                                         // a range before a pattern
		"a=10.2.x":   "a_[10.1.2.3|10.2*]",                                                                             // the first pattern
		"a=10.x":     "a_10.*", "a=x": "a", "a=10.1.0.0/24": "a_[10.9.9.9|cidr:10.1.0.0/16]", "a=10.0.0.0/7": "a_10.*", // no range has all of it
		"masked_remote_address=10.7.0.0/16": "masked_remote_address_[cidr:10.0.0.0/8]", "masked_remote_address=10.0.0.0/8": "masked_remote_address_[cidr:10.0.0.0/8]",
		"method=GET": "method_[GET|PUT]", "method=PUT,path=/x": "method_[GET|PUT].path_[/x|/y*]", "method=GET,path=/yy": "method_[GET|PUT].path_[/x|/y*]",
		"method=GET,path=/": "method_[GET|PUT].path", "method=POST": "method_POST", "method=HEAD": "",
	} {
		got := ""
		if r := d.Lookup(entries(text)); r != nil {
			got = r.Path
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"a=10.1.2.3", "a=10.3.0.1", "a=2001:db8::1", "method=GET,path=/x"} {
		e := entries(text)
		if n := testing.AllocsPerRun(100, func() { d.Lookup(e) }); n != 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}

// TestKeysOfLists: each value has a counter of its own, unless the values share one; then
// the order of the list does not matter, and a long list does not make long keys.
func TestKeysOfLists(t *testing.T) {
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprint("value-", i))
	}
	m := descriptor.Compile(rules("e",
		list("own", "b", "a"), shared(list("all", "b", "a*", "10.0.0.0/8")), shared(list("many", many...)), list("below", "x", "y"),
	))
	d := m.Domain("e")
	for text, want := range map[string]string{
		"own=a": "1:e|3:own=1:a|tb", "own=b": "1:e|3:own=1:b|tb",
		"all=b": "1:e|3:all&22:[a*|b|cidr:10.0.0.0/8]|tb", "all=aa": "1:e|3:all&22:[a*|b|cidr:10.0.0.0/8]|tb", "all=10.1.2.3": "1:e|3:all&22:[a*|b|cidr:10.0.0.0/8]|tb",
		"many=value-7": "1:e|4:many&72:[value-0|value-1|value-10|value-100|value-101|+995:",
	} {
		e := entries(text)
		r := d.Lookup(e)
		key := r.AppendKey(nil, e, 0)
		if !strings.HasPrefix(string(key), want) {
			t.Errorf("%s: %s, want %s", text, key, want)
		}
		if got := m.RuleOf(key); got != r {
			t.Errorf("%s leads to %+v", key, got)
		}
	}
	if got := descriptor.Compile(rules("e", shared(list("all", "10.0.0.0/8", "a*", "b")))).RuleOf([]byte("1:e|3:all&22:[a*|b|cidr:10.0.0.0/8]|tb")); got == nil {
		t.Error("another order is another counter")
	}
}

func TestTextsOfListsDiffer(t *testing.T) {
	seen := map[string][]string{}
	for _, d := range []*config.Descriptor{
		list("k", "a", "b"), list("k", "a|b"), list("k", "a", "b", "c"), list("k", "cidr:10.0.0.0|8", "x"), list("k", "10.0.0.0/8", "x"), list("k", "[a", "b]"),
		list("k", `"a"`, "b"), list("k", "+1:x", "a"), list("k", "a", " b"), leaf("k", "[a|b]"), list("k", "+1"), leaf("k", "+1"),
	} {
		id := config.Rule{Domain: &config.Domain{}, Path: []*config.Descriptor{d}}.ID()
		for _, text := range []string{fmt.Sprintf("%t %s", d.HasList(), d.ValueText()), id} {
			if other := seen[text]; other != nil {
				t.Errorf("%v and %v are both %s", other, d.AnyOf, text)
			}
			seen[text] = append(slices.Clone(d.AnyOf.Values), d.Value)
		}
	}
}

func TestMetricsOfLists(t *testing.T) {
	detailed := list("a", "x", "y")
	detailed.DetailedMetric = true
	byValue := list("b", "x", "10.0.0.0/8")
	byValue.ValueToMetric = true
	both := shared(list("c", "x", "y"))
	both.ValueToMetric = true
	d := descriptor.Compile(rules("e", detailed, byValue, both, list("d", "x", "y"))).Domain("e")
	for text, want := range map[string]string{"a=x": "a_x", "b=10.1.2.3": "b_10.1.2.3", "c=y": "c_[x|y]", "d=x": "d_[x|y]"} {
		e := entries(text)
		r := d.Lookup(e)
		if got := string(r.AppendMetricKey(nil, e)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestHiddenValuesOfLists(t *testing.T) {
	mark := func(level ...*config.Descriptor) *config.Rules {
		for i, d := range level {
			at(i+1, d)
		}
		return rules("e", level...)
	}
	for _, test := range []struct {
		rules *config.Rules
		want  []string
	}{
		{mark(leaf("k", "a*"), list("k", "ab*", "x")), []string{"edge.yaml:2:5: the value ab* of k=[ab*|x] (edge.yaml:2:5) never applies: k=a* (edge.yaml:1:5)"}},
		{mark(leaf("k", "a*"), list("k", "ab*", "ac*")), []string{
			"edge.yaml:2:5: the value ab* of k=[ab*|ac*] (edge.yaml:2:5) never applies: k=a* (edge.yaml:1:5)", "edge.yaml:2:5: k=[ab*|ac*] can never apply: k=a* (edge.yaml:1:5)"}},
		{mark(list("k", "a*", "x"), leaf("k", "ab*")), []string{"edge.yaml:2:5: k=ab* can never apply: k=[a*|x] (edge.yaml:1:5)"}},
		{mark(list("k", "a*", "ab*")), []string{"edge.yaml:1:5: the value ab* of k=[a*|ab*] (edge.yaml:1:5) makes no difference: a*, in the same list"}},
		{mark(list("k", "10.0.0.0/8", "10.1.0.0/16"), list("k", "10.2.0.0/16"), list("k", "11.0.0.0/8", "11.1.1.0/24"), list("k", "11.1.0.0/16")), []string{
			"edge.yaml:1:5: the value 10.1.0.0/16 of k=[cidr:10.0.0.0/8|cidr:10.1.0.0/16] (edge.yaml:1:5) makes no difference: 10.0.0.0/8, in the same list"}},
		{mark(list("k", "*", "x"), leaf("k", "")), []string{
			"edge.yaml:1:5: the value x of k=[*|x] (edge.yaml:1:5) makes no difference: a pattern or a range of the same list matches it; leave it out", "edge.yaml:2:5: k can never apply: k=[*|x] (edge.yaml:1:5)"}},
		{mark(list("k", "10.0.0.0/8", "a"), leaf("k", "10.*"), leaf("k", "")), nil},
	} {
		var got []string
		for _, p := range descriptor.Hidden(test.rules) {
			text, _, _ := strings.Cut(p.Error(), " matches all")
			got = append(got, strings.TrimSuffix(text, ","))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
	}
}

func TestExplainListsAndTables(t *testing.T) {
	gold := config.Row{Value: "gold", Limit: perMinute(1000)}
	gold.Limit.RequestsPerUnit = 1000
	m := descriptor.Compile(rules("edge", at(1, list("a", "10.0.0.0/8", "x")), at(2, leaf("a", "")), at(3, followed(leaf("user", ""), "plan", gold))))
	for text, want := range map[string]string{
		"a=10.1.2.3": `rule a_[cidr:10.0.0.0/8|x] (edge.yaml:1:5) applies

1. a=10.1.2.3
   exact     none
   range     a=[cidr:10.0.0.0/8|x] (edge.yaml:1:5)  <- lands here
   wildcard  none
   key_only  a (edge.yaml:2:5)
`,
		"plan=gold,user=u": `rule user (edge.yaml:3:5) applies

1. plan=gold
   skipped: the rule's limit follows it, and it leads nowhere

2. user=u
   exact     none
   wildcard  none
   key_only  user (edge.yaml:3:5)  <- lands here

rule user
   token_bucket, 1000 per minute
   table     the row for plan=gold, of token_bucket, 1000 for plan=gold, else 100 per minute
   counter   4:edge|4:user=1:u|tb
`,
		"user=u": `rule user (edge.yaml:3:5) applies

1. user=u
   exact     none
   wildcard  none
   key_only  user (edge.yaml:3:5)  <- lands here

rule user
   token_bucket, 100 per minute
   table     no row for plan: its default, of token_bucket, 1000 for plan=gold, else 100 per minute
   counter   4:edge|4:user=1:u|tb
`,
	} {
		if got := m.Explain("edge", entries(text)).String(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", text, got, want)
		}
	}
}

// TestExamplesOfLists: a descriptor leads to each list, even if earlier descriptors take
// some of its values.
func TestExamplesOfLists(t *testing.T) {
	r := rules("e", list("k", "10.0.0.0/8", "x"), list("k", "10.0.0.0/16"), list("k", "10.0.0.0/24", "10.255.255.255/32"), leaf("k", "10.0.0.0"), leaf("k", "10.0.255.255"), list("l", "z*", "b"), leaf("l", ""))
	d := descriptor.Compile(r).Domain("e")
	for rule := range r.All() {
		e := d.Example(rule, "any")
		if e == nil || d.Lookup(e).Config != rule.Descriptor() {
			t.Errorf("%s: %v", rule.Name(), e)
		}
	}
}

// TestReplaceKnowsListsAndTables: neither a value that joins a list nor a table changes a
// counter that there was.
func TestReplaceKnowsListsAndTables(t *testing.T) {
	gold := config.Row{Value: "gold", Limit: perMinute(1000)}
	before := rules("e", list("k", "a", "b"), shared(list("s", "a", "b")), leaf("user", ""))
	after := rules("e", list("k", "a", "b", "c"), shared(list("s", "a", "b", "c")), followed(leaf("user", ""), "plan", gold))
	got := descriptor.Replace(before, after)
	texts := make([]string, len(got.Changes))
	for i, c := range got.Changes {
		texts[i] = c.String()
	}
	want := []string{
		": e k_[a|b|c]: partly, such as for k=c: new: token_bucket, 100 per minute",
		": e s_[a|b|c]: partly, such as for s=a: begins anew: other values share the counter: token_bucket, 100 per minute -> token_bucket, 100 per minute",
		": e s_[a|b|c]: partly, such as for s=c: new: token_bucket, 100 per minute",
		": e user: partly, such as for user=…,plan=…: new: token_bucket, 0 for plan=gold, else 100 per minute",
	}
	if !slices.Equal(texts, want) || got.Kept != 2 {
		t.Errorf("%d kept, changes\n%s", got.Kept, strings.Join(texts, "\n"))
	}
}
