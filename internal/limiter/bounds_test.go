package limiter_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// sized records how many checks the store was asked for.
type sized struct {
	backend.Backend
	checks int
}

func (s *sized) Decide(ctx context.Context, req *backend.Request, out []algo.Decision) error {
	s.checks = len(req.Checks)
	return s.Backend.Decide(ctx, req, out)
}

// TestLimitsOfARequestAreBounded sends descriptors of 16 limits each, up to the bound
// of a request and beyond it. Both stores decide requests up to the bound, and neither
// is asked about larger ones.
func TestLimitsOfARequestAreBounded(t *testing.T) {
	limits := make([]string, 16)
	for i := range limits {
		limits[i] = fmt.Sprintf("{window: %ds, requests_per_unit: 5}", i+1)
	}
	rules := "domain: edge\ndescriptors: [{key: user, rate_limits: [" + strings.Join(limits, ", ") + "]}]"
	var descriptors []*ask
	for i := range 65 {
		descriptors = append(descriptors, desc(fmt.Sprintf("user=%d", i)))
	}
	test := func(t *testing.T, set ...func(*limiter.Options)) {
		asked := &sized{}
		f := serve(t, rules, append(set, func(o *limiter.Options) {
			asked.Backend = o.Backend
			o.Backend = asked
		})...)
		answer, err := f.decide(t.Context(), "edge", descriptors[:64]...)
		if err != nil || answer.OverallCode != ok || asked.checks != 1024 {
			t.Fatalf("1024 limits: %v, error %v, %d checks", answer.OverallCode, err, asked.checks)
		}
		asked.checks = 0
		_, err = f.decide(t.Context(), "edge", descriptors...)
		if failureOf(err) != badRequest || !strings.Contains(err.Error(), "descriptors[64]: the descriptors up to this one") || !strings.Contains(err.Error(), "1024") || asked.checks != 0 {
			t.Errorf("1040 limits: error %v, %d checks", err, asked.checks)
		}
	}
	t.Run("memory", func(t *testing.T) { test(t) })
	t.Run("redis", func(t *testing.T) {
		b := redistest.Open(t, redis.New, redis.Options{Addrs: []string{redistest.Start(t, redistest.Config{}).Addr}, Timeout: 20 * time.Second, DialTimeout: 20 * time.Second, Log: logger(t)})
		test(t, func(o *limiter.Options) { o.Backend = b })
	})
}
