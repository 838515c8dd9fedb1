package redis

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/refusals"
)

// reply reads what the script returned: the states that checks found, or what of
// the states that they left does for an answer. The decisions are computed here,
// by algo itself.
type reply struct {
	rest  []byte
	short bool
	now   int64      // µs since the epoch
	words algo.State // of states, one after the other
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

// elsewhen reports whether an answer says that boundaries that were sent are not those
// around the time by Redis' clock, and returns that, in µs since the epoch. Nothing is
// decided then.
func elsewhen(answer []byte) (now int64, is bool) {
	if len(answer) != 8 {
		return 0, false
	}
	r := reply{rest: answer}
	return r.number(), true
}

// decode fills in the decisions of the ops that were asked for by the encoder in a
// call that was sent then, and has the refusals among them remembered.
func (e *encoder) decode(b []byte, ops []*op, sent time.Time, memory *refusals.Memory) error {
	r := &e.reply
	*r = reply{rest: b, words: r.words[:0]}
	r.now = r.number()
	for i := range e.entries {
		if at := &e.entries[i]; at.repliesAfter() {
			at.op.out[at.check] = r.decision(at)
		} else {
			at.state = r.state(at.op.checks[at.check].Limit)
		}
	}
	if r.short || len(r.rest) > 0 {
		return fmt.Errorf("%w: its reply of %d bytes does not match the request", ErrReply, len(b))
	}
	n := 0
	for _, o := range ops {
		o.now = r.now
		for i := range o.checks {
			at := &e.entries[e.of[n]]
			state := r.words[at.state[0]:at.state[1]]
			if !at.repliesAfter() {
				c := o.checks[i]
				if o.void(&c, r.now) {
					c.Hits = 0
				}
				_, o.out[i] = c.Limit.Decide(state, r.now, c.Hits)
			}
			if len(o.epochs) > 0 { // else nothing is remembered, or it is a lease's own
				memory.Remember(&o.checks[i], o.ids[i], refusals.Found{Decision: o.out[i], State: state, At: r.now, Sent: sent, Epoch: o.epochs[i]})
			}
			n++
		}
	}
	return nil
}

// void reports whether the check gives back what has died meanwhile.
func (o *op) void(c *backend.Check, now int64) bool {
	return c.Hits < 0 && o.before > 0 && now >= o.before
}

// state reads a state, and returns where in words it is.
func (r *reply) state(l *algo.Limit) (at [2]int) {
	at[0] = len(r.words)
	r.words = l.AppendState(r.words, r.number)
	at[1] = len(r.words)
	return at
}

// decision reads the decision of a check, and where its state is in words.
func (r *reply) decision(of *entry) algo.Decision {
	c, allowed := &of.op.checks[of.check], r.fitted()
	if c.Limit.AnswersInPart() {
		return c.Held().Answer(r.now, c.Hits, allowed, r.number)
	}
	of.state = r.state(c.Limit)
	return c.Limit.Report(r.words[of.state[0]:of.state[1]], r.now, c.Hits, allowed)
}
