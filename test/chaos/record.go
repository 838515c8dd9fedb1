package chaos

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// record holds the events and answers of a run. Times are in µs since the epoch by the
// machine's clock, which all processes of the run share.
type record struct {
	plan    *plan
	calls   []call
	faults  []fault    // of the store
	cuts    []cut      // when counters may have been lost
	moves   []span     // of slots: each key that moved may be late by that long
	stale   []span     // when a master that had been replaced may have answered
	outages []outage   // of replicas
	rules   []ruleFile // by domain
	log     []string   // all actions, for people
	came    []string   // results of actions that no plan decides
	lives   map[behaviour]int
}

// Possible results of actions.
const (
	masterReplaced = "frozen master replaced"
	keyMoved       = "key moved"
)

// call is a request with its answer. It took effect, if at all, at a moment between sent and
// got.
type call struct {
	client, step    int
	replica, domain int
	sent, got       int64
	code            codes.Code
	text            string // of an error
	over            bool   // the whole answer
	asks            []ask
	answers         []answer // of each ask; nil with an error
}

func (c *call) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "client %d step %d, replica %d, %s to %s: ", c.client, c.step, c.replica, clockTime(c.sent), clockTime(c.got))
	if c.code != codes.OK {
		fmt.Fprintf(&b, "%v %s", c.code, c.text)
	}
	for i, a := range c.asks {
		fmt.Fprintf(&b, " r%d%q hits=%d", a.rule, a.values, a.hits)
		if a.id != "" {
			fmt.Fprintf(&b, " of %q", a.id)
		}
		if a.settles {
			b.WriteString(" settles")
		}
		if c.answers != nil {
			fmt.Fprintf(&b, " → %+v", c.answers[i])
		}
	}
	return b.String()
}

func clockTime(us int64) string { return time.UnixMicro(us).UTC().Format("15:04:05.000000") }

// answer is the answer to one descriptor.
type answer struct {
	ok        bool
	name      string // of the limit; empty: none applies
	limit     uint32
	remaining uint32
	wait      int64 // s: duration_until_reset
	vague     bool  // remaining and wait are not known
}

// span is a time from one moment to another, both included.
type span struct{ from, to int64 }

// touches reports whether the spans have a moment in common.
func (s span) touches(o span) bool { return s.from <= o.to && o.from <= s.to }

// fault is a time in which the store may not have decided.
type fault struct {
	span
	kind string
}

// cut is a moment within the span from which counters are not bound by earlier hits, because
// they were lost or for another reason.
type cut struct {
	span
	replica int           // whose counters; -1: all
	back    time.Duration // by how much the clock stepped back; 0 for other reasons
}

type outage struct {
	span
	replica int
}

// ruleFile is the history of the rules of a domain. Versions are numbered from 1.
type ruleFile struct {
	wrote     []int64 // when the version began to be written; by version
	confirmed []confirmation
	changes   []change
}

// confirmation records that a replica had the version in force at a time.
type confirmation struct {
	replica, version int
	at               int64
}

// change is the time in which replicas may have had any of these versions.
type change struct {
	span
	first, last int
}

// limitRef is the content of a limit's name.
type limitRef struct{ rule, limit, version int }

func (d *domain) parse(name string) (limitRef, error) {
	var r limitRef
	if _, err := fmt.Sscanf(name, "r%d.%d@%d", &r.rule, &r.limit, &r.version); err != nil {
		return r, fmt.Errorf("limit %q: %w", name, err)
	}
	if r.version < 1 || r.version >= len(d.versions) || r.rule < 0 || r.rule >= len(d.rules) ||
		r.limit < 0 || r.limit >= len(d.versions[r.version][r.rule]) {
		return r, fmt.Errorf("limit %q was never written", name)
	}
	return r, nil
}

// siblings is the number of rules at the start of each domain that differ only in the value
// of one key. If one is left out, the next applies.
const siblings = 3

// lands returns the rule that applies in a version to a request made for a rule; -1 for
// none.
func (d *domain) lands(version, rule int) int {
	for i := rule; ; i++ {
		switch {
		case d.versions[version][i] != nil:
			return i
		case i >= siblings-1:
			return -1
		}
	}
}

// capacity returns the most hits that can ever pass at once.
func capacity(p algo.Params) int64 {
	switch {
	case p.Limit == 0:
		return 0
	case slides(p) && drains(p):
		return min(int64(p.Limit), int64(p.Burst))
	case drains(p):
		return int64(p.Burst)
	}
	return int64(p.Limit)
}

// windowed reports whether the algorithm counts hits in a window.
func windowed(p algo.Params) bool { return slides(p) || !drains(p) }

// rate returns how many hits of a bucket drain in a µs. It is 0 for a limit of 0, under
// which the bucket drains on at its old rate.
func rate(p algo.Params) float64 {
	switch {
	case p.Limit == 0:
		return 0
	case p.Refill != (algo.Rate{}):
		return float64(p.Refill.Hits) / float64(p.Refill.Per.Microseconds())
	}
	return float64(p.Limit) / float64(p.Window.Microseconds())
}

// mostOwed returns how many hits a bucket may be charged at most.
func mostOwed(p algo.Params) float64 {
	most := float64(p.Burst)
	switch {
	case p.Limit == 0:
		return 0
	case indebts(p):
		most *= 2
	}
	return most
}

// indebts reports whether more than its limit may be charged to a counter: by refused
// requests, or by those that settle.
func indebts(p algo.Params) bool { return p.DeniedHits == algo.Count || expires(p) != 0 }

// mostCounted returns how many hits a window may count at most.
func mostCounted(p algo.Params) int64 {
	most := int64(p.Limit)
	switch {
	case p.Algorithm == algo.FixedWindow:
		return 1 << 50
	case !indebts(p) || most == 0:
	case p.Algorithm == algo.SlidingLog:
		most++
	default:
		most *= 2
	}
	return most
}

// parts returns the number of parts of a strict window; 0 for others.
func parts(p algo.Params) int64 {
	switch {
	case !p.Strict:
		return 0
	case p.SubWindows == 0:
		return algo.DefaultSubWindows
	}
	return int64(p.SubWindows)
}

// memory returns how many µs it takes a window to forget a hit.
func memory(p algo.Params) int64 {
	window := p.Window.Microseconds()
	switch n := parts(p); {
	case !windowed(p):
		return 0
	case n > 0:
		return (n + 1) * ((window + n - 1) / n)
	case slides(p):
		return 2 * window
	}
	return window
}
