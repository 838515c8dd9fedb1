package config

import (
	"time"

	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// Hold makes the limits of a rule on sets of entries hold what a request asks for, until
// the request settles or the hold expires. A descriptor without the entry SettledBy
// asks, one with it settles.
type Hold struct {
	// By is the key of the entry that identifies the request. The entry is no part of the
	// counter, and a descriptor without it does not meet the rule.
	By string
	// Expires is how long a request holds if no settlement comes.
	Expires time.Duration
	// SettledBy is the entry of the descriptor that comes when the request has ended.
	SettledBy sets.Entry
}

// String returns how requests are told apart, and what settles them.
func (h *Hold) String() string {
	return "hold by " + Quote(h.By) + ", settled by " + Quote(h.SettledBy.Key) + "=" + Quote(h.SettledBy.Value)
}
