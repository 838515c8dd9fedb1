package limiter_test

import (
	"context"
	"slices"
	"testing"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// seen is a backend that records the shards of the checks that it forwards.
type seen struct {
	backend.Backend
	shards []string
}

func (s *seen) Decide(ctx context.Context, req *backend.Request, out []algo.Decision) error {
	for _, c := range req.Checks {
		s.shards = append(s.shards, string(c.Key[:c.Shard]))
	}
	return s.Backend.Decide(ctx, req, out)
}

// TestShards shows which counters a spread backend must keep together, and that
// neither other limits of the rule nor what other descriptors replace matter.
func TestShards(t *testing.T) {
	const descriptors = `
descriptors:
  - key: user
    rate_limits: [{unit: second, requests_per_unit: 9}, {name: daily, unit: day, requests_per_unit: 99}]
  - {key: vip, rate_limit: {unit: day, requests_per_unit: 9, replaces: [{name: daily}]}}
`
	for consume, want := range map[string][]string{
		"each":           {"4:edge|4:user=1:a|", "4:edge|4:user=1:a|", "4:edge|4:user=1:a|", "4:edge|3:vip=1:a|"},
		"all_or_nothing": {"4:edge|", "4:edge|", "4:edge|", "4:edge|"},
	} {
		s := &seen{}
		f := serve(t, "domain: edge\nconsume: "+consume+descriptors, func(o *limiter.Options) { s.Backend, o.Backend = o.Backend, s })
		f.ask(desc("user=a"))
		f.ask(desc("user=a"), desc("vip=a"))
		if !slices.Equal(s.shards, want) {
			t.Errorf("%s: %q, want %q", consume, s.shards, want)
		}
	}
}
