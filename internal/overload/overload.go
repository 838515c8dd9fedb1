// Package overload protects a gRPC server from more requests than it can answer. It
// refuses some of the requests, cheaply and with a clear code, so that the others are
// answered before their clients give up. It also limits the number of connections.
// Answering requests is left to others.
//
// The queue of a server that accepts every request only grows under overload. Soon every
// answer arrives after its client has given up, and all work is wasted. The queue of a
// gRPC server consists of the runnable goroutines that wait for a processor, and of the
// data behind them that is not read yet, because the reader of a connection waits like
// every other goroutine. So the [Shedder] watches how long goroutines wait. When they
// wait too long, it bounds how many requests may wait for their turn. It refuses the
// others at the cheapest point: after their headers have been read, before they have a
// goroutine. The queue is then short, the readers keep up, and the requests that they
// let pass are fresh.
//
// Requests that wait for something else, such as Redis or the rest of their own message,
// are no load and do not count here. So a client cannot get others refused by opening
// streams and abandoning them.
package overload

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/distlimiter/ratelimit/internal/named"
)

const (
	// interval is how often the wait for a processor is read: short compared with the
	// deadline of a client, long compared with the cost of reading.
	interval = 10 * time.Millisecond
	// perProcessor is how many requests may wait for their turn for each processor, if
	// their clients wait for envoyTimeout, as Envoy does by default. That many are one or
	// two milliseconds of work. Clients with longer deadlines may find more requests
	// before theirs: up to mostFactor times as many.
	perProcessor = 64
	envoyTimeout = 20 * time.Millisecond
	mostFactor   = 8
	// generation is how long a request counts as waiting for its turn: at least this
	// long, at most twice as long. After that it is assumed to wait for its client to
	// send the rest.
	generation = 50 * time.Millisecond
	// longest is the longest deadline of a request that Tap refuses. grpc-go keeps the
	// timer of a refused request until it fires, so a client that floods with deadlines
	// of hours would fill the memory. Without a deadline there is no timer.
	longest = time.Second
)

// Options of a Shedder.
type Options struct {
	// Method is the full name of the method whose requests may be refused. Requests of
	// other methods, such as health checks, never are.
	Method string
	// Target is how long goroutines may wait for a processor. Required.
	Target time.Duration
	// Wait returns the mean time that goroutines waited for a processor since the last
	// call, and whether there were enough waits for a mean. The default is the runtime's
	// own measurement.
	Wait func() (mean time.Duration, ok bool)
	// Names say how an operator sets Target: GRPC.MaxWait.
	Names named.Fields
	// Log gets a warning about refusals, at most once a second. Required.
	Log *zap.Logger
}

// Shedder refuses requests while there are more than the service can answer. It refuses
// none before Run. It is safe for concurrent use.
type Shedder struct {
	opts    Options
	most    int64
	refused error

	overloaded, closed atomic.Bool
	// waiting counts the requests of this generation and of the one before that wait for
	// their turn. It is kept only while overloaded.
	waiting    [2]atomic.Int64
	generation atomic.Uint32

	count, expired, late atomic.Uint64
	lastWait             atomic.Int64 // ns
	metrics              []prometheus.Collector
}

// New returns a Shedder.
func New(o Options) *Shedder {
	s := &Shedder{opts: o, most: int64(perProcessor * runtime.GOMAXPROCS(0))}
	// Not Unavailable, which means that a replica is gone. Retry policies name it, and
	// retries are the last thing that an overloaded service needs. Envoy's outlier
	// detection counts it as a 503 and ejects the replica, which leaves its work to the
	// others.
	s.refused = status.Error(codes.ResourceExhausted, "the rate limit service is overloaded and did not decide: give it more processors or replicas (see "+o.Names.Of("GRPC.MaxWait")+")")
	s.metrics = []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "ratelimit_overload_refused_total",
			Help: "Requests refused because there were more than the service could answer.",
		}, func() float64 { return float64(s.count.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "ratelimit_overload_expired_total",
			Help: "Requests not decided because their clients had given up before their turn.",
		}, func() float64 { return float64(s.expired.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "ratelimit_overload_late_total",
			Help: "Answers whose clients had given up before they came. Only the lean front knows of them.",
		}, func() float64 { return float64(s.late.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ratelimit_overload",
			Help: "1 while work waits for a processor for too long. Requests that would have to wait behind too many others are refused then, except by the lean front with counters in memory.",
		}, func() float64 {
			if s.Overloaded() {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ratelimit_overload_wait_seconds",
			Help: "Mean time for which goroutines last waited for a processor.",
		}, func() float64 { return time.Duration(s.lastWait.Load()).Seconds() }),
	}
	return s
}

// Run watches until the context ends.
func (s *Shedder) Run(ctx context.Context) error {
	detector := detector{target: s.opts.Target}
	meanWait := s.opts.Wait
	if meanWait == nil {
		meanWait = newWaits().mean
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	defer s.overloaded.Store(false)
	last, turned := time.Now(), time.Now()
	var said time.Time
	var before, saidBefore uint64
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		now := time.Now()
		if now.Sub(turned) >= generation {
			turned = now
			s.turn()
		}
		wait, ok := meanWait()
		if !ok {
			continue
		}
		refused := s.count.Load()
		s.overloaded.Store(detector.update(wait, refused > before, now.Sub(last)))
		s.lastWait.Store(int64(wait))
		last, before = now, refused
		if refused > saidBefore && now.Sub(said) > time.Second {
			s.opts.Log.Warn("overloaded: requests were refused", zap.Uint64("refused", refused-saidBefore), zap.Duration("wait", wait), zap.Duration("most", s.opts.Target))
			said, saidBefore = now, refused
		}
	}
}

// turn begins a generation, and stops counting the waiting requests of the generation
// before the last.
func (s *Shedder) turn() {
	next := s.generation.Load() + 1
	s.waiting[next&1].Store(0)
	s.generation.Store(next)
}

// Overloaded reports whether the Shedder bounds how many requests may wait.
func (s *Shedder) Overloaded() bool { return s.overloaded.Load() }

// Tap implements [tap.ServerInHandle].
func (s *Shedder) Tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if s.closed.Load() {
		return nil, errClosed
	}
	if !s.overloaded.Load() || info.FullMethodName != s.opts.Method {
		return ctx, nil
	}
	t := &turn{Context: ctx, generation: s.generation.Load()}
	wait := envoyTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	if s.waiting[0].Load()+s.waiting[1].Load() < s.mostFor(wait) {
		s.waiting[t.generation&1].Add(1)
		return t, nil
	}
	if wait > longest {
		t.refused = true
		return t, nil
	}
	s.count.Add(1)
	return nil, s.refused
}

// mostFor returns how many requests may wait before one whose client waits for wait.
func (s *Shedder) mostFor(wait time.Duration) int64 {
	return s.most * int64(min(max(wait, envoyTimeout), mostFactor*envoyTimeout)) / int64(envoyTimeout)
}

// turn is the context of a request that waits for its turn, or that Admit will refuse.
type turn struct {
	context.Context
	generation uint32
	refused    bool
}

type turnKey struct{}

// Value implements [context.Context].
func (t *turn) Value(key any) any {
	if key == (turnKey{}) {
		return t
	}
	return t.Context.Value(key)
}

// Admit must be called with the context of a request when it is the request's turn. An
// error, meant for the client, says that the request must not be decided: because the
// service is overloaded, or because the client has given up. A decision would charge a
// counter, although such a client will ask again or has let its request pass.
func (s *Shedder) Admit(ctx context.Context) error {
	if s.closed.Load() {
		return errClosed
	}
	if s.overloaded.Load() {
		if t, ok := ctx.Value(turnKey{}).(*turn); ok {
			if t.refused {
				s.count.Add(1)
				return s.refused
			}
			if s.generation.Load()-t.generation < 2 {
				s.waiting[t.generation&1].Add(-1)
			}
		}
	}
	if err := ctx.Err(); err != nil {
		s.expired.Add(1)
		return status.FromContextError(err).Err()
	}
	return nil
}

// Close makes the Shedder refuse all requests from now on. Call it before connections are
// closed while requests are under way: no answer to them arrives any more.
func (s *Shedder) Close() { s.closed.Store(true) }

var errClosed = status.Error(codes.Unavailable, "the rate limit service has stopped, and did not decide")

// Late counts an answer that came too late.
func (s *Shedder) Late() { s.late.Add(1) }

// Describe implements [prometheus.Collector].
func (s *Shedder) Describe(out chan<- *prometheus.Desc) {
	for _, c := range s.metrics {
		c.Describe(out)
	}
}

// Collect implements [prometheus.Collector].
func (s *Shedder) Collect(out chan<- prometheus.Metric) {
	for _, c := range s.metrics {
		c.Collect(out)
	}
}
