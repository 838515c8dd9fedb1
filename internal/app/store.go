package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/rulestore"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// Store says where counters live, and how to open it.
type Store struct {
	// Kind is its name in settings, such as redis, and Name its proper name: Redis.
	Kind, Name string
	// Spread says that the counters of a request may be on several servers, of which
	// none can decide all of them in one step.
	Spread bool
	// NeededForHealth makes the service unhealthy while the store is.
	NeededForHealth bool
	// Warnings name settings that are odd, and say why.
	Warnings []string
	// Certificates are those that this service shows to the store, by what they are for.
	Certificates map[string]tlsfiles.Files
	// Open opens it. nil: counters live in the memory of this process.
	Open func(log *zap.Logger) (*OpenStore, error)
}

// OpenStore is a store that is open, with its other services.
type OpenStore struct {
	backend.Backend
	Metrics []prometheus.Collector
	// Ready waits for the first connection. Its error says why there is none when ctx is done.
	Ready func(ctx context.Context) error
	// Rules returns the store's own place for the rules of the admin API. The fallback
	// is for a start without the store; nil for none. If Rules is nil, only the file
	// keeps them.
	Rules func(fallback *rulestore.File, log *zap.Logger) rulestore.Store
	Close func()
}

// startTimeout is how long the service waits for the store at the start, so that the
// first request finds it, before it starts without.
const startTimeout = 2 * time.Second

// open connects the store of the counters.
func (s *service) open(ctx context.Context) (err error) {
	s.backend = s.store
	from := s.opts.Store
	for _, w := range from.Warnings {
		s.log.Warn("a setting of the store is odd", zap.String("warning", w))
	}
	if from.Open == nil {
		return nil
	}
	if s.shared, err = from.Open(s.log); err != nil {
		return err
	}
	s.backend, s.metrics = s.shared.Backend, append(s.metrics, s.shared.Metrics...)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.shared.Ready(ctx); err != nil {
		s.log.Error("starting without "+from.Name+": until there is a connection, on_backend_error decides", zap.Error(err))
	}
	return nil
}

// close waits until requests have given their hits back, and closes the connections of
// the stores.
func (s *service) close() error {
	if s.limiter != nil {
		s.limiter.Close()
	}
	if s.shared != nil {
		s.shared.Close()
	}
	return s.store.Close()
}
