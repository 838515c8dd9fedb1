package descriptor_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// active is how many different descriptors a benchmark cycles through, drawn at
// random. A thousand and their rules stay in a CPU's second cache, as clients that
// are active do; a hundred thousand miss it on every look-up.
var active = []int{1000, 100_000}

// shape is a way to write n rules, and descriptors that go with them.
type shape struct {
	name  string
	rules func(n int) []*config.Descriptor
	// request returns the i-th of n descriptors.
	request func(i, n int) []descriptor.Entry
	misses  bool
}

func leaf(key, value string, below ...*config.Descriptor) *config.Descriptor {
	return &config.Descriptor{Key: key, Value: value, Limits: []*config.Limit{perMinute(100)}, Descriptors: below}
}

func leaves(key, format string) func(n int) []*config.Descriptor {
	return func(n int) (level []*config.Descriptor) {
		for i := range n {
			level = append(level, leaf(key, fmt.Sprintf(format, i)))
		}
		return level
	}
}

func one(key, format string) func(i, n int) []descriptor.Entry {
	return func(i, _ int) []descriptor.Entry {
		return []descriptor.Entry{{Key: key, Value: fmt.Sprintf(format, i)}}
	}
}

// addressRules are rules for n ranges of three lengths, each by its format, of which most
// have the first.
func addressRules(formats ...string) func(n int) []*config.Descriptor {
	return func(n int) (level []*config.Descriptor) {
		for i := range n {
			d := leaf("remote_address", "")
			d.AnyOf.CIDRs = []string{fmt.Sprintf(formats[max(0, i%10-7)], 10+i>>16, i>>8&0xff, i&0xff)}
			level = append(level, d)
		}
		return level
	}
}

// addressIn returns addresses of those ranges.
func addressIn(format string) func(i, n int) []descriptor.Entry {
	return func(i, _ int) []descriptor.Entry {
		return []descriptor.Entry{{Key: "remote_address", Value: fmt.Sprintf(format, 10+i>>16, i>>8&0xff, i&0xff)}}
	}
}

// tree nests n rules in three levels, most of them on the last.
func tree(n int) (top []*config.Descriptor) {
	for i := 0; n > 0; i++ {
		tenant := leaf("tenant", fmt.Sprintf("tenant-%05d", i))
		n--
		for j := 0; j < 3 && n > 0; j++ {
			path := leaf("path", fmt.Sprintf("/api/v1/%d", j))
			n--
			for k := 0; k < 3 && n > 0; k++ {
				path.Descriptors = append(path.Descriptors, leaf("method", []string{"GET", "POST", "PUT"}[k]))
				n--
			}
			tenant.Descriptors = append(tenant.Descriptors, path)
		}
		top = append(top, tenant)
	}
	return top
}

var shapes = []shape{
	{name: "exact", rules: leaves("tenant", "customer-%06d"), request: one("tenant", "customer-%06d")},
	{name: "exact-uuid", rules: leaves("tenant", "6ba7b810-9dad-11d1-80b4-%012d"), request: one("tenant", "6ba7b810-9dad-11d1-80b4-%012d")},
	{
		name: "exact-3-levels", rules: tree,
		request: func(i, n int) []descriptor.Entry {
			tenants := max(1, n/13) // that are complete
			return []descriptor.Entry{
				{Key: "tenant", Value: fmt.Sprintf("tenant-%05d", i%tenants)},
				{Key: "path", Value: fmt.Sprintf("/api/v1/%d", i%2)}, {Key: "method", Value: "GET"},
			}
		},
	},
	{
		name: "key-only",
		rules: func(n int) []*config.Descriptor {
			return append(leaves("tenant", "customer-%06d")(n-1), leaf("remote_address", ""))
		},
		request: one("remote_address", "10.20.%d.30"),
	},
	{
		name: "default-beside-values", // a value without a rule of its own
		rules: func(n int) []*config.Descriptor {
			return append(leaves("tenant", "customer-%06d")(n-1), leaf("tenant", ""))
		},
		request: one("tenant", "unknown-%06d"),
	},
	{name: "miss", rules: leaves("tenant", "customer-%06d"), request: one("tenant", "unknown-%06d"), misses: true},
	{
		name: "list", // of two values
		rules: func(n int) (level []*config.Descriptor) {
			for i := range n {
				d := leaf("tenant", "")
				d.AnyOf.Values = []string{fmt.Sprintf("customer-%06d", i), fmt.Sprintf("client-%06d", i)}
				level = append(level, d)
			}
			return level
		},
		request: one("tenant", "client-%06d"),
	},
	{name: "ipv4-range", rules: addressRules("%d.%d.%d.0/24", "%d.%d.%d.7/32", "%d.%d.%d.0/25"), request: addressIn("%d.%d.%d.7")},
	{name: "ipv6-range", rules: addressRules("2001:db8:%x:%02x%02x::/64", "2001:db8:%x:%02x%02x::7/128", "2001:db8:%x:%02x%02x::/72"), request: addressIn("2001:db8:%x:%02x%02x::7")},
	{name: "wildcard-prefix", rules: leaves("path", "/tenant-%06d/*"), request: one("path", "/tenant-%06d/orders/4711")},
	{name: "wildcard-suffix", rules: leaves("host", "*.shop-%06d.example.com"), request: one("host", "www.shop-%06d.example.com")},
	{name: "wildcard-both", rules: leaves("path", "/api/*/shop-%06d"), request: one("path", "/api/v1/shop-%06d")},
	{name: "wildcard-middle", rules: leaves("agent", "*Bot-%06d/*"), request: one("agent", "Mozilla/5.0 (compatible; Bot-%06d/2.1; +http://example.com)")},
}

// benchmark runs f on descriptors in random order.
func (s *shape) benchmark(b *testing.B, f func(*descriptor.Domain, []descriptor.Entry) bool) {
	for _, active := range active {
		for _, n := range []int{10, 1000, 100_000} {
			b.Run(fmt.Sprintf("%s/active=%d/rules=%d", s.name, active, n), func(b *testing.B) {
				d := descriptor.Compile(rules("edge", s.rules(n)...)).Domain("edge")
				in := make([][]descriptor.Entry, active)
				for i := range in {
					in[i] = s.request(rand.IntN(n), n)
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if !f(d, in[i]) {
						b.Fatalf("%q: not as expected", in[i])
					}
					if i++; i == active {
						i = 0
					}
				}
			})
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, s := range shapes {
		s.benchmark(b, func(d *descriptor.Domain, entries []descriptor.Entry) bool {
			return (d.Lookup(entries) == nil) == s.misses
		})
	}
}

// BenchmarkLookupAndKey is the matcher's work for a request.
func BenchmarkLookupAndKey(b *testing.B) {
	var key []byte
	for _, s := range shapes {
		if s.name == "key-only" || s.name == "exact" || s.name == "exact-3-levels" {
			s.benchmark(b, func(d *descriptor.Domain, entries []descriptor.Entry) bool {
				key = d.Lookup(entries).AppendKey(key[:0], entries, 0)
				return len(key) > 0
			})
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, s := range shapes {
		b.Run(s.name+"/rules=100000", func(b *testing.B) {
			r := rules("edge", s.rules(100_000)...)
			b.ReportAllocs()
			for b.Loop() {
				descriptor.Compile(r)
			}
		})
	}
}
