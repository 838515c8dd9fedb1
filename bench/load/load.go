// Package load sends requests to an HTTP/2 server and measures how long the answers take.
// In the closed loop it keeps a number of requests in flight; in the open loop it sends a
// number a second. It is a single thread that polls its connections, so it needs only a
// fraction of a gRPC server's time for the same requests, and one core can keep a server
// busy. The content of the requests is left to a [Workload].
//
// Latency counts from the time when a request was due. In the closed loop that is when it
// was sent. In the open loop it is its time in the schedule, sent or not: a server that
// stalls makes all requests of that time late, and they count as late (no coordinated
// omission).
//
// It runs on Linux only.
package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// Options of a run.
type Options struct {
	// Address is a TCP address.
	Address  string
	Workload Workload
	// Connections is how many connections share the requests. At least 1.
	Connections int
	// InFlight is how many requests the closed loop keeps in flight.
	InFlight int
	// Rate is how many requests a second are due in the open loop, at random times
	// as from many independent clients. 0: closed loop.
	Rate float64
	// Patience is how long after it was due a request of the open loop is given up, by a
	// reset of its stream, as Envoy does after its timeout. With Patience, an answer other
	// than OK or over limit is counted and is no error. 0: never give up.
	Patience time.Duration
	// Most is how many requests a connection has in flight at most. Further requests are
	// not sent and count as unsent, as with Envoy's circuit breaker. 0: no bound.
	Most int
	// Warmup is how long to send before measuring, Duration how long to measure,
	// but until there is an answer to speak of, or only until Requests (0: no
	// bound) have been answered.
	Warmup, Duration time.Duration
	Requests         int
	// Begin and End, if set, are called when the measured interval begins and ends.
	Begin, End func() error
	// Each, if set, is called for each answer of the measured interval, errors among them,
	// with the time when the request was due.
	Each func(due time.Time, latency time.Duration, code codes.Code)
	// Seed of everything random.
	Seed uint64
}

// Result of a run.
type Result struct {
	Answers int // in the measured interval
	Refused int // of them: over limit
	// Late were given up, Unsent were beyond [Options.Most]. Failed are answers by
	// gRPC code other than OK, which are in none of the other numbers; a stream that
	// the server reset is Canceled.
	Late, Unsent int
	Failed       map[codes.Code]int
	Elapsed      time.Duration
	// Latency of the answers, in nanoseconds.
	Latency *hdrhistogram.Histogram
	// Lag of the open loop: how long after they were due requests were handed to their
	// connections, in nanoseconds. It is part of Latency, and caused only by this program
	// or its core.
	Lag *hdrhistogram.Histogram
}

// PerSecond is the rate of answers.
func (r *Result) PerSecond() float64 { return float64(r.Answers) / r.Elapsed.Seconds() }

// longestSilence is how long a server may leave all requests unanswered.
const longestSilence = 30 * time.Second

// generator is a run in progress.
type generator struct {
	Options
	conns  []*conn
	polls  []unix.PollFd
	random *rand.Rand
	start  time.Time

	next      time.Duration // when the next request of the open loop is due
	turn      int           // of the connections to send it
	measuring bool
	result    Result
}

// Run sends until the measured interval ends. An answer other than OK or over
// limit is an error, and so is a connection that ends.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Connections < 1 || o.Rate == 0 && o.InFlight < o.Connections {
		return nil, fmt.Errorf("%d requests in flight on %d connections: at least 1 on each", o.InFlight, o.Connections)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := preciseTimers(); err != nil {
		return nil, err
	}
	g := &generator{Options: o, random: rand.New(rand.NewPCG(o.Seed, 0))}
	g.result.Failed = map[codes.Code]int{}
	g.result.Latency = hdrhistogram.New(1, int64(longestSilence), 3)
	g.result.Lag = hdrhistogram.New(1, int64(longestSilence), 3)
	defer func() {
		for _, c := range g.conns {
			c.close()
		}
	}()
	for range o.Connections {
		c, err := dial(o.Address, o.Workload)
		if err != nil {
			return nil, err
		}
		c.patience = o.Patience
		g.conns = append(g.conns, c)
		g.polls = append(g.polls, unix.PollFd{Fd: int32(c.fd)})
	}
	if err := g.run(ctx); err != nil {
		return nil, err
	}
	return &g.result, nil
}

// preciseTimers makes the kernel wake this thread at the requested time. By default it may
// do so up to 50 µs later to save interrupts.
func preciseTimers() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0))
}

func (g *generator) run(ctx context.Context) error {
	g.start = time.Now()
	if g.Rate == 0 {
		for i := range g.InFlight {
			g.conns[i%len(g.conns)].ask(0)
		}
	}
	if err := g.until(ctx, g.Warmup); err != nil {
		return err
	}
	g.measuring = true
	if g.Begin != nil {
		if err := g.Begin(); err != nil {
			return err
		}
	}
	began := g.now()
	if err := g.until(ctx, began+g.Duration); err != nil {
		return err
	}
	g.result.Elapsed = g.now() - began
	if g.End != nil {
		return g.End()
	}
	return nil
}

func (g *generator) now() time.Duration { return time.Since(g.start) }

// until sends and receives until the end of a phase.
func (g *generator) until(ctx context.Context, end time.Duration) error {
	heard := g.now()
	for {
		now := g.now()
		switch {
		case now >= end && (!g.measuring || g.result.Answers > 0 || g.Patience > 0), g.Requests > 0 && g.result.Answers >= g.Requests:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case g.Patience == 0 && now-heard > longestSilence:
			return fmt.Errorf("%s: no answer in %v", g.Address, longestSilence)
		}
		g.schedule(now)
		for i, c := range g.conns {
			if late := c.giveUp(now); g.measuring {
				g.result.Late += late
			}
			if err := c.flush(); err != nil {
				return fmt.Errorf("%s: %w", g.Address, err)
			}
			g.polls[i].Events = unix.POLLIN
			if len(c.out) > 0 {
				g.polls[i].Events |= unix.POLLOUT
			}
		}
		answered, err := g.wait(end)
		if err != nil {
			return fmt.Errorf("%s: %w", g.Address, err)
		}
		if answered {
			heard = g.now()
		}
	}
}

// schedule hands the requests that have become due to the connections.
func (g *generator) schedule(now time.Duration) {
	if g.Rate == 0 {
		return
	}
	for ; g.next <= now; g.next += time.Duration(g.random.ExpFloat64() / g.Rate * float64(time.Second)) {
		if g.measuring {
			_ = g.result.Lag.RecordValue(min(int64(now-g.next), g.result.Lag.HighestTrackableValue()))
		}
		c := g.conns[g.turn%len(g.conns)]
		g.turn++
		switch {
		case g.Most == 0 || len(c.streams)+len(c.due) < g.Most:
			c.ask(g.next)
		case g.measuring:
			g.result.Unsent++
		}
	}
}

// wait waits for answers until the next request is due, and handles them.
func (g *generator) wait(end time.Duration) (answered bool, err error) {
	if g.Rate > 0 {
		end = min(end, g.next)
	}
	timeout := unix.NsecToTimespec(max(0, min(end-g.now(), time.Second)).Nanoseconds())
	if _, err := unix.Ppoll(g.polls, &timeout, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("ppoll: %w", err)
	}
	for i, c := range g.conns {
		if g.polls[i].Revents == 0 {
			continue
		}
		if err := c.receive(); err != nil {
			return false, err
		}
		now := g.now()
		for _, a := range c.answers {
			answered = true
			if g.measuring && g.Each != nil {
				g.Each(g.start.Add(a.due), now-a.due, a.code)
			}
			if a.code != codes.OK {
				if g.measuring {
					g.result.Failed[a.code]++
				}
				continue
			}
			g.record(a, now)
			if g.Rate == 0 {
				c.ask(now)
			}
		}
		c.answers = c.answers[:0]
	}
	return answered, nil
}

func (g *generator) record(a answer, now time.Duration) {
	if !g.measuring {
		return
	}
	g.result.Answers++
	if a.refused {
		g.result.Refused++
	}
	// A value beyond the histogram's range counts as its end.
	_ = g.result.Latency.RecordValue(min(int64(now-a.due), g.result.Latency.HighestTrackableValue()))
}
