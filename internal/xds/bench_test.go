package xds

import (
	"fmt"
	"testing"

	rls "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// manyRules is a resource of n rules, each with a value of its own.
func manyRules(tb testing.TB, n int) *anypb.Any {
	tb.Helper()
	c := &rls.RateLimitConfig{Name: "edge", Domain: "edge"}
	for i := range n {
		c.Descriptors = append(c.Descriptors, &rls.RateLimitDescriptor{
			Key: "user", Value: fmt.Sprintf("u%06d", i),
			RateLimit: &rls.RateLimitPolicy{Unit: rls.RateLimitUnit_MINUTE, RequestsPerUnit: uint32(i + 1)},
		})
	}
	resource, err := anypb.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return resource
}

// BenchmarkAccept goes from a resource of 50,000 rules, 1 MB, to rules.
func BenchmarkAccept(b *testing.B) {
	resources := []*anypb.Any{manyRules(b, 50_000)}
	b.SetBytes(int64(len(resources[0].Value)))
	b.ReportAllocs()
	for b.Loop() {
		sources, err := toSources(resources)
		if err != nil {
			b.Fatal(err)
		}
		rules, err := rulefile.Parse(sources, rulefile.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if rules.Len() != 50_000 {
			b.Fatalf("%d rules", rules.Len())
		}
	}
}
