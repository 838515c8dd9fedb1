// Package overload owns what a gRPC server does when more is asked of it than it
// can answer: it refuses a part of the requests, cheaply and with a clear code, so
// that the others are answered before their clients have given up; and it refuses
// connections beyond a number. How requests are answered is left to others.
//
// A server that takes on whatever comes has a queue that only grows: soon each
// answer is older than its client's patience, and all work is for nothing. The
// queue of a gRPC server are the goroutines that could run and wait for a processor,
// and behind them what has not been read yet, for the reader of a connection waits
// like everybody else. So the [Shedder] watches how long they wait. When that is too
// long it bounds how many requests may wait for their turn, and refuses those beyond
// where it costs least: when their headers have been read, before there is a
// goroutine for them. With few to wait for, the readers keep up, and what they let
// pass is fresh.
//
// Requests that wait for something else, such as Redis or the rest of their own
// message, are no load and count for nothing here. That also means that nobody can
// have others refused by opening streams and leaving them.
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
	// interval is how often the wait for a processor is read. Short beside what a
	// client waits, long beside what reading it costs.
	interval = 10 * time.Millisecond
	// perProcessor is how many requests may wait for their turn for each processor,
	// which is one or two milliseconds' work, when their clients wait for as long as
	// Envoy does by default. More patient ones may find more before them: up to
	// mostPatient times as many.
	perProcessor = 64
	patience     = 20 * time.Millisecond
	mostPatient  = 8
	// generation is after how long a request is taken not to wait for its turn, but
	// for its client to send the rest. It is at least that, at most twice.
	generation = 50 * time.Millisecond
	// longest is the longest deadline of a request that Tap refuses. grpc-go keeps
	// the timer of such a request until it fires: a client that floods with deadlines
	// of hours would fill the memory. Without a deadline there is no timer.
	longest = time.Second
)

// Options of a Shedder.
type Options struct {
	// Method is the full name of the one that may be refused. Others, such as health
	// checks, are not.
	Method string
	// Target is how long goroutines may wait for a processor. Required.
	Target time.Duration
	// Wait returns the mean time for which goroutines waited for a processor since it
	// was last asked, and whether there were enough to tell. Default what the runtime
	// measures.
	Wait func() (mean time.Duration, ok bool)
	// Names say how an operator sets Target: GRPC.MaxWait.
	Names named.Fields
	// Log is told of refusals, once a second. Required.
	Log *zap.Logger
}

// Shedder refuses requests while there are more than can be answered. It refuses
// none before Run. It is safe for concurrent use.
type Shedder struct {
	opts    Options
	most    int64
	refused error

	overloaded atomic.Bool
	// waiting are the requests of this generation, and of the one before, that wait
	// for their turn; only while overloaded.
	waiting    [2]atomic.Int64
	generation atomic.Uint32

	count, expired atomic.Uint64
	lastWait       atomic.Int64 // ns
	metrics        []prometheus.Collector
}

// New returns a Shedder.
func New(o Options) *Shedder {
	s := &Shedder{opts: o, most: int64(perProcessor * runtime.GOMAXPROCS(0))}
	// Not Unavailable, which stands for a replica that is gone: retry policies name
	// it, and a retry is what an overloaded service needs least; and Envoy's outlier
	// detection takes it for a 503, ejects the replica and has the others do its work.
	s.refused = status.Error(codes.ResourceExhausted, "the rate limit service is overloaded and did not decide: give it more processors or replicas (see "+o.Names.Of("GRPC.MaxWait")+")")
	s.metrics = []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "ratelimit_overload_refused_total",
			Help: "Requests refused because there were more than could be answered.",
		}, func() float64 { return float64(s.count.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "ratelimit_overload_expired_total",
			Help: "Requests not decided because their client had given up before their turn.",
		}, func() float64 { return float64(s.expired.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ratelimit_overload",
			Help: "1 while requests are refused that would have to wait for their turn behind too many.",
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
	detector := Detector{Target: s.opts.Target}
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
		s.overloaded.Store(detector.Update(wait, refused > before, now.Sub(last)))
		s.lastWait.Store(int64(wait))
		last, before = now, refused
		if refused > saidBefore && now.Sub(said) > time.Second {
			s.opts.Log.Warn("overloaded: requests were refused", zap.Uint64("refused", refused-saidBefore), zap.Duration("wait", wait), zap.Duration("most", s.opts.Target))
			said, saidBefore = now, refused
		}
	}
}

// turn begins a generation and forgets those that wait of the one before the last.
func (s *Shedder) turn() {
	next := s.generation.Load() + 1
	s.waiting[next&1].Store(0)
	s.generation.Store(next)
}

// Overloaded reports whether more than a few requests that wait are too many.
func (s *Shedder) Overloaded() bool { return s.overloaded.Load() }

// Tap implements [tap.ServerInHandle].
func (s *Shedder) Tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if !s.overloaded.Load() || info.FullMethodName != s.opts.Method {
		return ctx, nil
	}
	t := &turn{Context: ctx, generation: s.generation.Load()}
	wait := patience
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

// mostFor returns how many requests may wait before one whose client waits so long.
func (s *Shedder) mostFor(wait time.Duration) int64 {
	return s.most * int64(min(max(wait, patience), mostPatient*patience)) / int64(patience)
}

// turn is the context of a request that waits for its turn, or that is to be
// refused then.
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

// Admit is to be called when it is a request's turn, with its context. The error, for
// the client, says that it is not to be decided: because there is too much to do, or
// because nobody waits for it any more. A decision charges a counter, and whoever has
// given up will ask again or has let the request pass.
func (s *Shedder) Admit(ctx context.Context) error {
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
