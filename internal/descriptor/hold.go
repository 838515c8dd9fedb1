package descriptor

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// meets reports whether a rule on sets of entries applies to a descriptor that meets its
// conditions, in a domain with holds. A rule that holds wants the entry that identifies
// the request. A descriptor that settles meets the rules that it settles. It meets others
// only if they name the settling entry: a settlement is no request of its own.
func (d *Domain) meets(r *Rule, entries []Entry) bool {
	hold := r.Config.Hold
	if hold != nil && !hasKey(entries, hold.By) {
		return false
	}
	if hold != nil && slices.Contains(entries, hold.SettledBy) {
		return true
	}
	for _, e := range entries {
		if d.settling[e] && !slices.ContainsFunc(r.Config.Set.Match, func(c sets.Condition) bool { return c.Key == e.Key }) {
			return false
		}
	}
	return true
}

func hasKey(entries []Entry, key string) bool {
	return slices.ContainsFunc(entries, func(e Entry) bool { return e.Key == key })
}

// HoldOf returns the request for which a descriptor that meets the rule asks or settles;
// the zero Hold if the rule does not hold.
func (r *Rule) HoldOf(entries []Entry) (h algo.Hold) {
	hold := r.Config.Hold
	if hold == nil {
		return h
	}
	var room [128]byte
	id, said := room[:0], false
	for i := range entries {
		if e := &entries[i]; e.Key == hold.By {
			id = append(binary.AppendUvarint(id, uint64(len(e.Value))), e.Value...)
			said = said || e.Value != ""
		}
	}
	if said { // else requests without an ID would share what they hold
		// Hashed, so that no client can choose an ID that collides with another's.
		sum := sha256.Sum256(id)
		h.ID = max(binary.BigEndian.Uint64(sum[:]), 1)
	}
	h.Settles = slices.Contains(entries, hold.SettledBy)
	return h
}

// Requests returns the entries for a look at counters without a request. It adds an entry
// with an empty value for each missing key by which a rule of the domain identifies
// requests.
func (d *Domain) Requests(entries []Entry) []Entry {
	if d.settling == nil {
		return entries
	}
	entries = slices.Clip(entries)
	for i := range d.limitRules {
		if hold := d.limitRules[i].Config.Hold; hold != nil && !hasKey(entries, hold.By) {
			entries = append(entries, Entry{Key: hold.By})
		}
	}
	return entries
}
