package redis

import (
	"encoding/binary"
	"math"
	"strconv"
	"sync"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/keys"
)

// The flags of an entry of the plan: see lua/decide.lua.
const (
	flagRequest = 1 << iota
	flagDescriptor
	flagAllOrNothing
	flagShadow
	flagQuota
	flagAlone
)

// planBytes is the length of an entry of the plan.
const planBytes = 6

const (
	// maxHits is the most hits that are told to Redis, which counts no further.
	maxHits = 1<<53 - 1
	// maxRun is how many requests an entry decides at the most, and maxRunHits how
	// many hits each of them may ask for: their sum stays small.
	maxRun, maxRunHits = math.MaxUint8, 1 << 24
)

// encoder puts ops into the keys and arguments of one call of the script, each
// key and each kind of check once. Then it reads the answer.
type encoder struct {
	naming  keys.Naming
	places  map[keyed]int // from 0, in the order of keys
	kinds   map[kind]int
	runs    []int // of each place: the entry that an equal check may still join, or -1
	keys    text
	args    text
	plan    []byte
	entries []entry // of the plan
	of      []int   // of each check: its entry
	numbers []float64
	strings []string
	reply   reply
	now     func() int64 // about what Redis' clock shows, in µs since the epoch
}

// keyed is what has a state of its own: a key under an algorithm, whose programs
// read each other's states.
type keyed struct {
	of        keys.ID
	algorithm algo.Algorithm
}

// kind is what makes the arguments of two checks equal.
type kind struct {
	limit  *algo.Limit
	hits   int64
	before int64
	hold   algo.Hold
}

// entry is one of the plan: a check that shares the fate of others, or a run of
// equal ones of which each stands alone.
type entry struct {
	op    *op
	check int
	alone bool
	state [2]int // what was found, in reply.words, unless it is told in part
}

// told reports whether the answer tells of the entry what was left, rather than what
// was found.
func (e *entry) told() bool {
	return !e.alone || e.op.checks[e.check].Limit.AnswersInPart()
}

// text is strings in one piece.
type text struct {
	bytes []byte
	ends  []int
}

func (t *text) end() { t.ends = append(t.ends, len(t.bytes)) }

func (t *text) reset() { t.bytes, t.ends = t.bytes[:0], t.ends[:0] }

func (t *text) appendTo(list []string) []string {
	all, start := string(t.bytes), 0
	for _, end := range t.ends {
		list = append(list, all[start:end])
		start = end
	}
	return list
}

var encoders = sync.Pool{New: func() any {
	return &encoder{places: map[keyed]int{}, kinds: map[kind]int{}}
}}

// free gives the encoder up.
func (e *encoder) free() {
	e.reset()
	encoders.Put(e)
}

// reset makes the encoder fit for another call, and drops what would keep requests
// from being collected.
func (e *encoder) reset() {
	clear(e.places)
	clear(e.kinds)
	clear(e.entries)
	e.runs, e.plan, e.entries, e.of, e.strings = e.runs[:0], e.plan[:0], e.entries[:0], e.of[:0], e.strings[:0]
	e.keys.reset()
	e.args.reset()
}

// firstKind is the index of the first check's arguments among all: before them
// come the time, how long to hold keys, and the plan.
const firstKind = 4

// encode returns the keys and arguments of the call. now is empty or a time that
// a test controls. What it returns is valid until the encoder is given up, but
// for the strings in it, which are never changed.
func (e *encoder) encode(ops []*op, now string, hold int64) (keys, args []string) {
	for _, o := range ops {
		for start, end := range backend.Descriptors(o.checks) {
			for i := start; i < end; i++ {
				e.check(o, i, flags(o, i, start, end))
			}
		}
	}
	e.strings = e.keys.appendTo(e.strings)
	e.strings = append(e.strings, now, strconv.FormatInt(hold, 10), string(e.plan))
	e.strings = e.args.appendTo(e.strings)
	return e.strings[:len(e.keys.ends)], e.strings[len(e.keys.ends):]
}

// check adds the i-th check of the op to the plan, with these flags. Of those that stand alone it
// joins an equal one before it, if between them no other was for the same key: the
// order of checks of different keys does not matter.
func (e *encoder) check(o *op, i int, bits byte) {
	c := &o.checks[i]
	place, arg := e.place(c, o.ids[i]), e.arg(c, o.before)
	alone := bits&flagAlone != 0
	if run := e.runs[place]; alone && run >= 0 && e.joins(run, arg, bits) {
		e.plan[run*planBytes+planBytes-1]++
		e.of = append(e.of, run)
		return
	}
	e.runs[place] = -1
	if alone && c.Hits > 0 && c.Hits <= maxRunHits && !c.Limit.AnswersInPart() {
		e.runs[place] = len(e.entries)
	}
	e.of = append(e.of, len(e.entries))
	e.entries = append(e.entries, entry{op: o, check: i, alone: alone})
	e.plan = append(e.plan, bits)
	e.plan = binary.BigEndian.AppendUint16(e.plan, uint16(place+1))
	e.plan = binary.BigEndian.AppendUint16(e.plan, uint16(arg))
	e.plan = append(e.plan, 1)
}

// joins reports whether one more check with that argument and those flags may join
// the run.
func (e *encoder) joins(run, arg int, bits byte) bool {
	as := e.plan[run*planBytes:]
	return as[0] == bits && int(binary.BigEndian.Uint16(as[3:])) == arg && as[5] < maxRun
}

func (e *encoder) place(c *backend.Check, of keys.ID) int {
	k := keyed{of, c.Limit.Params().Algorithm}
	at, known := e.places[k]
	if !known {
		at = len(e.places)
		e.places[k] = at
		e.keys.bytes = e.naming.Append(e.keys.bytes, c, of)
		e.keys.end()
		e.runs = append(e.runs, -1)
	}
	return at
}

func (e *encoder) arg(c *backend.Check, before int64) int {
	k := kind{c.Limit, min(max(c.Hits, -maxHits), maxHits), before, c.Hold}
	at, known := e.kinds[k]
	if known {
		return at
	}
	at = firstKind + len(e.kinds)
	e.kinds[k] = at
	e.numbers = append(e.numbers[:0], float64(k.hits), float64(c.Limit.DeniedHits()), float64(k.before))
	if c.Limit.Holds() {
		e.numbers = appendHold(e.numbers, c.Hold)
	}
	e.numbers = c.Limit.AppendNumbers(e.numbers)
	if c.Limit.HasCalendar() {
		e.numbers = c.Limit.AppendBoundaries(e.numbers, e.now())
	}
	e.args.bytes = append(e.args.bytes, byte(c.Limit.Program()))
	for _, n := range e.numbers {
		e.args.bytes = binary.LittleEndian.AppendUint64(e.args.bytes, math.Float64bits(n))
	}
	e.args.end()
	return at
}

// appendHold appends what a limit that holds needs to know of a check.
func appendHold(numbers []float64, h algo.Hold) []float64 {
	settles := 0.0
	if h.Settles {
		settles = 1
	}
	return append(numbers, settles, float64(h.ID>>32), float64(h.ID&math.MaxUint32))
}

// flags of the i-th check of the op, of the descriptor whose checks are from start
// to end. What descriptors are not all or nothing are decided like requests of
// their own.
func flags(o *op, i, start, end int) (bits byte) {
	first := i == start
	switch {
	case len(o.checks) == 1, !o.allOrNothing && end-start == 1:
		bits |= flagAlone | flagRequest
	case o.allOrNothing:
		bits |= flagAllOrNothing
		if i == 0 {
			bits |= flagRequest
		}
	case first:
		bits |= flagRequest
	}
	if first {
		bits |= flagDescriptor
		if backend.RoleOf(o.checks[start:end]) == backend.Quota {
			bits |= flagQuota
		}
	}
	if o.checks[i].Role == backend.Shadow {
		bits |= flagShadow
	}
	return bits
}
