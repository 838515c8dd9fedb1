package server

import (
	"context"
	"fmt"
	"strings"
	"testing"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/live"
	"github.com/distlimiter/ratelimit/internal/server/wire"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// BenchmarkWire measures a request without grpc-go: from the bytes that come in to those
// that go out, in memory.
func BenchmarkWire(b *testing.B) {
	run := func(name string, s *Service, descriptors int) {
		b.Run(name, func(b *testing.B) {
			msg := &pb.RateLimitRequest{Domain: "edge"}
			for range descriptors {
				msg.Descriptors = append(msg.Descriptors, &common.RateLimitDescriptor{Entries: []*common.RateLimitDescriptor_Entry{{Key: "user", Value: "alice"}}})
			}
			data, err := proto.Marshal(msg)
			if err != nil {
				b.Fatal(err)
			}
			c := codec{encoding.GetCodecV2(protocodec.Name)}
			received := mem.BufferSlice{mem.SliceBuffer(data)}
			decode := func(v any) error { return c.Unmarshal(received, v) }
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				a, err := s.handle(s, ctx, decode, nil)
				if err != nil {
					b.Fatal(err)
				}
				out, err := c.Marshal(a)
				if err != nil {
					b.Fatal(err)
				}
				out.Free()
			}
		})
	}
	for i, name := range algo.Algorithms() {
		if !algo.Algorithm(i).AlwaysHolds() {
			run(name, benchmarked(b, name, Options{}, nil), 1)
		}
	}
	run("eight", benchmarked(b, algo.TokenBucket.String(), Options{}, nil), 8)
	run("headers", benchmarked(b, algo.TokenBucket.String(), Options{Headers: Headers{Limit: "RateLimit-Limit", Remaining: "RateLimit-Remaining", Reset: "RateLimit-Reset"}}, nil), 1)
	for _, watchers := range []int{0, 1, 3} {
		feed := new(live.Feed)
		for range watchers {
			w, err := feed.Watch(live.Filter{})
			if err != nil {
				b.Fatal(err)
			}
			go func() {
				for {
					select {
					case <-w.Events():
					case <-w.Done():
						return
					}
				}
			}()
		}
		run(fmt.Sprintf("watchers=%d", watchers), benchmarked(b, algo.TokenBucket.String(), Options{}, feed), 1)
		feed.Close()
	}
	for _, n := range []int{10, 100_000} { // one of which applies as well
		var limits strings.Builder
		for i := range n {
			fmt.Fprintf(&limits, "\n  - {name: n%d, match: {user: \"%d\"}, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 10000}}", i, i)
		}
		yaml := "domain: edge\nlimits:" + limits.String() + "\ndescriptors: [{key: user, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 10000}}]"
		run(fmt.Sprintf("limits=%d, none applies", n), benchmarkedRules(b, yaml, Options{}, nil), 1)
		run(fmt.Sprintf("limits=%d, one applies", n), benchmarkedRules(b, strings.Replace(yaml, `"5"`, "alice", 1), Options{}, nil), 1)
	}
}

func benchmarked(b *testing.B, algorithm string, o Options, feed *live.Feed) *Service {
	return benchmarkedRules(b, fmt.Sprintf("domain: edge\ndescriptors: [{key: user, rate_limit: {algorithm: %s, unit: hour, requests_per_unit: 10000}}]", algorithm), o, feed)
}

func benchmarkedRules(b *testing.B, yaml string, o Options, feed *live.Feed) *Service {
	store := memory.New(memory.Options{})
	b.Cleanup(func() {
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	o.Stats = stats.New(0)
	l := limiter.New(limiter.Options{Backend: store, Log: zap.NewNop(), Stats: o.Stats, Live: feed, Encode: wire.EncodeLimit})
	rules, err := rulefile.Parse([]rulefile.Source{{Name: "bench.yaml", Data: []byte(yaml)}}, rulefile.Options{})
	if err != nil {
		b.Fatal(err)
	}
	if err := l.SetRules(rules); err != nil {
		b.Fatal(err)
	}
	return New(l, o)
}
