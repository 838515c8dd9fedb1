package sets_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// active is how many different descriptors a benchmark cycles through, drawn at
// random. A thousand and their rules stay in a CPU's second cache, as clients that
// are active do; a hundred thousand miss it on every look-up.
var active = []int{1000, 100_000}

// shape is a way to write a rule, and a descriptor that goes with it.
type shape struct {
	name    string
	rule    func(i int) sets.Rule
	request func(i int) []sets.Entry
	misses  bool
}

func rule(i int, conditions ...sets.Condition) sets.Rule {
	return sets.Rule{Name: fmt.Sprint("rule-", i), Match: conditions}
}

func anyOf(key string, values ...string) sets.Condition {
	return sets.Condition{Key: key, Any: sets.Set{Values: values}}
}

func within(key string, cidrs ...string) sets.Condition {
	return sets.Condition{Key: key, Any: sets.Set{CIDRs: cidrs}}
}

// pairs returns entries of these keys and values in turn.
func pairs(texts ...string) (entries []sets.Entry) {
	for i := 0; i < len(texts); i += 2 {
		entries = append(entries, sets.Entry{Key: texts[i], Value: texts[i+1]})
	}
	return entries
}

func address(i int) string { return fmt.Sprintf("10.%d.%d.7", i>>8&0xff, i&0xff) }

func network(i int) string { return fmt.Sprintf("10.%d.%d.0/24", i>>8&0xff, i&0xff) }

func user(i int) string { return fmt.Sprintf("customer-%06d", i) }

var (
	plans   = []string{"gold", "silver", "bronze"}
	methods = []string{"GET", "POST", "PUT", "DELETE"}
)

// path returns paths of many lengths.
func path(i int) string {
	return fmt.Sprintf("/api/v%d/tenants/%d/%.*s", i%3, i, i%23, "collections-of-resources")
}

var shapes = []shape{
	{
		name: "exact", rule: func(i int) sets.Rule { return rule(i, anyOf("user", user(i))) },
		request: func(i int) []sets.Entry { return pairs("user", user(i)) },
	},
	{
		name: "prefix", rule: func(i int) sets.Rule { return rule(i, anyOf("path", fmt.Sprintf("/tenant-%06d/*", i))) },
		request: func(i int) []sets.Entry { return pairs("path", fmt.Sprintf("/tenant-%06d/orders/4711", i)) },
	},
	{
		name: "prefix-many-lengths", rule: func(i int) sets.Rule { return rule(i, anyOf("path", path(i)+"/*")) },
		request: func(i int) []sets.Entry { return pairs("path", path(i)+"/4711") },
	},
	{
		name: "suffix", rule: func(i int) sets.Rule { return rule(i, anyOf("host", fmt.Sprintf("*.shop-%06d.example.com", i))) },
		request: func(i int) []sets.Entry { return pairs("host", fmt.Sprintf("www.shop-%06d.example.com", i)) },
	},
	{
		name: "middle", rule: func(i int) sets.Rule { return rule(i, anyOf("agent", fmt.Sprintf("*Bot-%06d/*", i))) },
		request: func(i int) []sets.Entry {
			return pairs("agent", fmt.Sprintf("Mozilla/5.0 (compatible; Bot-%06d/2.1; +http://example.com)", i))
		},
	},
	{
		name: "cidr", rule: func(i int) sets.Rule { return rule(i, within("remote_address", network(i))) },
		request: func(i int) []sets.Entry { return pairs("remote_address", address(i)) },
	},
	{
		name: "cidr-masked", rule: func(i int) sets.Rule { return rule(i, within("masked_remote_address", network(i))) },
		request: func(i int) []sets.Entry { return pairs("masked_remote_address", network(i)) },
	},
	{
		name: "list", rule: func(i int) sets.Rule {
			return rule(i, anyOf("user", user(i), "other-"+user(i), "third-"+user(i)), anyOf("method", "POST", "PUT"))
		},
		request: func(i int) []sets.Entry { return pairs("method", "PUT", "user", "third-"+user(i)) },
	},
	{
		// Hundreds of rules have the plan, and all have the key user.
		name: "shared-keys", rule: func(i int) sets.Rule {
			return rule(i, anyOf("plan", plans[i%3]), anyOf("user", user(i)))
		},
		request: func(i int) []sets.Entry { return pairs("user", user(i), "plan", plans[i%3]) },
	},
	{
		name: "three-conditions", rule: func(i int) sets.Rule {
			return rule(i, anyOf("method", methods[i%4]), anyOf("path", fmt.Sprintf("/tenant-%06d/*", i)), sets.Condition{Key: "plan", Not: sets.Set{Values: []string{"internal"}}})
		},
		request: func(i int) []sets.Entry {
			return pairs("plan", "gold", "path", fmt.Sprintf("/tenant-%06d/orders", i), "method", methods[i%4])
		},
	},
	{
		name: "miss-value", rule: func(i int) sets.Rule { return rule(i, anyOf("user", user(i))) },
		request: func(i int) []sets.Entry { return pairs("user", "un"+user(i)) }, misses: true,
	},
	{
		name: "miss-key", rule: func(i int) sets.Rule { return rule(i, anyOf("user", user(i))) },
		request: func(i int) []sets.Entry { return pairs("tenant", user(i)) }, misses: true,
	},
	{
		name: "miss-condition", rule: func(i int) sets.Rule { return rule(i, anyOf("user", user(i)), anyOf("plan", plans[i%3])) },
		request: func(i int) []sets.Entry { return pairs("user", user(i), "plan", plans[(i+1)%3]) }, misses: true,
	},
}

func compile(b *testing.B, s *shape, n int) *sets.Index {
	rules := make([]sets.Rule, n)
	for i := range rules {
		rules[i] = s.rule(i)
	}
	x, err := sets.Compile(rules, nil)
	if err != nil {
		b.Fatal(err)
	}
	return x
}

func BenchmarkLookup(b *testing.B) {
	for _, s := range shapes {
		for _, active := range active {
			for _, n := range []int{10, 1000, 100_000} {
				if s.name == "cidr" || s.name == "cidr-masked" {
					n = min(n, 1<<16) // networks
				}
				b.Run(fmt.Sprintf("%s/active=%d/rules=%d", s.name, active, n), func(b *testing.B) {
					x := compile(b, &s, n)
					in := make([][]sets.Entry, active)
					for i := range in {
						in[i] = s.request(rand.IntN(n))
					}
					found := make([]int, 0, 16)
					want := 1
					if s.misses {
						want = 0
					}
					b.ReportAllocs()
					i := 0
					for b.Loop() {
						found, _ = x.Lookup(found[:0], in[i], 16)
						if len(found) != want {
							b.Fatalf("%q: found %d", in[i], found)
						}
						if i++; i == active {
							i = 0
						}
					}
				})
			}
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, s := range shapes {
		if s.misses {
			continue
		}
		b.Run(s.name+"/rules=100000", func(b *testing.B) {
			rules := make([]sets.Rule, 100_000)
			for i := range rules {
				rules[i] = s.rule(i)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := sets.Compile(rules, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
