package redis

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// reply reads what the script returned: the states that the checks left, from
// which the decisions are computed here, by algo itself.
type reply struct {
	rest  []byte
	short bool
	now   int64 // µs since the epoch
	state algo.State
	// seen is told of each check when it has been read, with the state that it
	// left; without, for a sliding log. May be nil.
	seen func(o *op, i int, state algo.State)
}

func (r *reply) number() int64 {
	if len(r.rest) < 8 {
		r.short = true
		return 0
	}
	n := math.Float64frombits(binary.LittleEndian.Uint64(r.rest))
	r.rest = r.rest[8:]
	return int64(n)
}

func (r *reply) fitted() bool {
	if len(r.rest) == 0 {
		r.short = true
		return false
	}
	fitted := r.rest[0] == 1
	r.rest = r.rest[1:]
	return fitted
}

// decode fills in the decisions of the ops that were asked.
func (r *reply) decode(b []byte, ops []*op) error {
	*r = reply{rest: b, state: r.state, seen: r.seen}
	r.now = r.number()
	for _, o := range ops {
		o.now = r.now
		for i := range o.checks {
			o.out[i] = r.decision(o.checks[i].Limit, o.checks[i].Hits)
			if r.seen != nil && !r.short {
				r.seen(o, i, r.state)
			}
		}
	}
	if r.short || len(r.rest) > 0 {
		return fmt.Errorf("%w: its answer of %d bytes is not one to the question", ErrReply, len(b))
	}
	return nil
}

func (r *reply) decision(l *algo.Limit, hits int64) algo.Decision {
	allowed := r.fitted()
	if l.Program() == algo.ProgramSlidingLog {
		return r.logDecision(l, hits, allowed)
	}
	r.state = r.state[:0]
	for range l.Words() {
		r.state = append(r.state, uint64(r.number()))
	}
	return l.Report(r.state, r.now, hits, allowed)
}

// logDecision is what Limit.Report says of a log whose entries stayed in Redis:
// their number, the oldest, and the one that must leave for the hits to pass.
func (r *reply) logDecision(l *algo.Limit, hits int64, allowed bool) algo.Decision {
	size, oldest, blocking := r.number(), r.number(), r.number()
	p := l.Params()
	d := algo.Decision{Allowed: allowed, Remaining: int64(p.Limit) - size}
	if size > 0 {
		d.ResetAfter = r.leaves(oldest, p.Window)
	}
	switch {
	case allowed:
	case hits > int64(p.Limit):
		d.RetryAfter = algo.Never
	case blocking > 0:
		d.RetryAfter = r.leaves(blocking, p.Window)
	}
	return d
}

// leaves returns in how long an entry of that time leaves the window; one that a
// damaged log has out of order may have left.
func (r *reply) leaves(entry int64, window time.Duration) time.Duration {
	return max(0, time.Duration(entry-r.now)*time.Microsecond+window)
}
