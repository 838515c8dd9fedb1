package app

import (
	"context"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/distlimiter/ratelimit/internal/backend"
)

// healthServices are the names that health checks ask for: the whole server, the rate
// limit service, and the name that envoyproxy/ratelimit uses.
var healthServices = []string{"", rls.RateLimitService_ServiceDesc.ServiceName, "ratelimit"}

// healthInterval is how often health is updated, and so how stale it may be.
const healthInterval = 100 * time.Millisecond

// keepHealth publishes until ctx is done whether the service wants requests. Draining,
// which the health server knows by itself, overrides everything else.
func (s *service) keepHealth(ctx context.Context) error {
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.sayHealth()
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *service) sayHealth() {
	state := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if s.healthy() {
		state = grpc_health_v1.HealthCheckResponse_SERVING
	}
	for _, name := range healthServices {
		s.health.SetServingStatus(name, state)
	}
}

func (s *service) healthy() bool {
	rules, want := s.rules.Rules(), s.opts.Rules
	if rules == nil && !want.ForceStart || want.HealthyWithRules && (rules == nil || len(rules.Domains) == 0) {
		return false
	}
	return !s.opts.Store.NeededForHealth || backend.Healthy(s.backend)
}
