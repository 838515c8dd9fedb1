package redis

import (
	"encoding/binary"
	"math"
	"strconv"
	"sync"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// The flags of a check in the plan: see lua/decide.lua.
const (
	flagRequest = 1 << iota
	flagDescriptor
	flagAllOrNothing
	flagShadow
	flagQuota
)

// planBytes is the length of a check in the plan.
const planBytes = 6

// maxHits is the most hits that are told to Redis, which counts no further.
const maxHits = 1<<53 - 1

// encoder puts ops into the keys and arguments of one call of the script, each
// key and each kind of check once.
type encoder struct {
	naming  naming
	buf     []byte
	ends    []int // of keys, then of checks' arguments, in buf
	keys    map[id]int
	kinds   map[kind]int
	plan    []byte
	numbers []float64
	strings []string
	reply   reply // to read the answer with
}

// kind is what makes the arguments of two checks equal.
type kind struct {
	limit  *algo.Limit
	hits   int64
	before int64
}

var encoders = sync.Pool{New: func() any {
	return &encoder{keys: map[id]int{}, kinds: map[kind]int{}}
}}

// firstKind is the index of the first check's arguments among all: before them
// come the time, how long to hold keys, and the plan.
const firstKind = 4

// encode returns the keys and arguments of the call. now is empty or a time that
// a test controls. What it returns is valid until the encoder's next use, but
// for the strings in it, which are never changed.
func (e *encoder) encode(ops []*op, now string, hold int64) (keys, args []string) {
	clear(e.keys)
	clear(e.kinds)
	e.buf, e.ends, e.plan, e.strings = e.buf[:0], e.ends[:0], e.plan[:0], e.strings[:0]
	for _, o := range ops {
		for i := range o.checks {
			e.key(&o.checks[i], o.ids[i])
		}
	}
	nKeys := len(e.ends)
	for _, o := range ops {
		for i := range o.checks {
			e.check(o, i)
		}
	}
	nArgs := len(e.ends) - nKeys
	e.buf = append(e.buf, e.plan...)

	text := string(e.buf)
	start := 0
	for _, end := range e.ends[:nKeys] {
		e.strings = append(e.strings, text[start:end])
		start = end
	}
	e.strings = append(e.strings, now, strconv.FormatInt(hold, 10), text[len(text)-len(e.plan):])
	for _, end := range e.ends[nKeys : nKeys+nArgs] {
		e.strings = append(e.strings, text[start:end])
		start = end
	}
	return e.strings[:nKeys], e.strings[nKeys:]
}

func (e *encoder) key(c *backend.Check, of id) {
	if _, known := e.keys[of]; known {
		return
	}
	e.buf = e.naming.append(e.buf, c, of)
	e.ends = append(e.ends, len(e.buf))
	e.keys[of] = len(e.ends)
}

// check adds the i-th check of the op to the plan.
func (e *encoder) check(o *op, i int) {
	c := &o.checks[i]
	k := kind{c.Limit, min(max(c.Hits, -maxHits), maxHits), o.before}
	arg, known := e.kinds[k]
	if !known {
		arg = firstKind + len(e.kinds)
		e.kinds[k] = arg
		e.numbers = append(e.numbers[:0], float64(k.hits), float64(c.Limit.DeniedHits()), float64(k.before))
		e.numbers = c.Limit.AppendNumbers(e.numbers)
		for _, n := range e.numbers {
			e.buf = binary.LittleEndian.AppendUint64(e.buf, math.Float64bits(n))
		}
		e.ends = append(e.ends, len(e.buf))
	}
	e.plan = append(e.plan, byte(c.Limit.Program()), flags(o, i))
	e.plan = binary.BigEndian.AppendUint16(e.plan, uint16(e.keys[o.ids[i]]))
	e.plan = binary.BigEndian.AppendUint16(e.plan, uint16(arg))
}

func flags(o *op, i int) (bits byte) {
	if i == 0 {
		bits |= flagRequest
	}
	if i == 0 || o.checks[i].Descriptor != o.checks[i-1].Descriptor {
		bits |= flagDescriptor
	}
	if o.allOrNothing {
		bits |= flagAllOrNothing
	}
	switch o.checks[i].Role {
	case backend.Shadow:
		bits |= flagShadow
	case backend.Quota:
		bits |= flagQuota
	}
	return bits
}
