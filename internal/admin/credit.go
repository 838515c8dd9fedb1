package admin

import (
	"context"
	"math"
	"net/http"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// creditRequest names the counters of a descriptor, and the hits to give back.
type creditRequest struct {
	descriptorJSON
	Hits  int64  `json:"hits"`
	Limit string `json:"limit"` // its name, or the path of its rule; empty: all counters of this descriptor alone
}

// creditedJSON is a counter to which hits were given back.
type creditedJSON struct {
	Counter           string  `json:"counter"`
	Rule              string  `json:"rule"`
	Name              string  `json:"name,omitempty"`
	Given             int64   `json:"given"`
	Remaining         int64   `json:"remaining"`
	ResetAfterSeconds float64 `json:"reset_after_seconds"`
}

// credit gives hits back. A counter holds no more than its limit, so no more hits are
// given than were used. If none were used, the request is refused.
func (a api) credit(w http.ResponseWriter, r *http.Request) error {
	if _, err := flags(r); err != nil {
		return err
	}
	var of creditRequest
	if err := readJSON(w, r, &of); err != nil {
		return err
	}
	if err := of.check(); err != nil {
		return err
	}
	if of.Hits < 1 || of.Hits > math.MaxUint32 {
		return refuse(http.StatusBadRequest, "hits: %d: send 1 to %d; to charge hits, send a request", of.Hits, uint32(math.MaxUint32))
	}
	text := descriptor.Entries(of.Entries)
	met, shared, holding := 0, 0, 0
	gets := func(rule *descriptor.Rule, limit *config.Limit) bool {
		met++
		if limit.Algo.Params().Algorithm.AlwaysHolds() { // what is held belongs to a request
			holding++
			return false
		}
		if of.Limit != "" {
			return of.Limit == limit.Name || of.Limit == rule.Path
		}
		all := isShared(rule)
		if all {
			shared++
		}
		return !all
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookTimeout)
	defer cancel()
	credited, err := a.Limiter.Credit(ctx, of.Domain, of.Entries, of.Hits, gets)
	switch {
	case err != nil:
		return refuseAs(backendFailed, "The hits may not be given back", http.StatusServiceUnavailable, "%v", err)
	case met == 0:
		return refuse(http.StatusNotFound, "no limit applies to %s in domain %s: POST /admin/explain says why", text, of.Domain)
	case len(credited) == 0 && holding > 0:
		return refuse(http.StatusConflict, "a limit on what is held at once gets no credit, and of those that apply to %s no other is meant: what a request holds is released by POST /admin/reset with its request ID", text)
	case len(credited) == 0 && shared == met:
		return refuse(http.StatusConflict, "all descriptors share the counters of %s: select one with limit", text)
	case len(credited) == 0:
		return refuse(http.StatusNotFound, "no limit that applies to %s is named %q, and neither is its rule: GET /admin/counters lists them", text, of.Limit)
	}
	out := struct {
		Counters []creditedJSON `json:"counters"`
	}{}
	given := int64(0)
	for _, c := range credited {
		given += c.GivenBack
		out.Counters = append(out.Counters, creditedJSON{
			Counter: string(c.Check.Key), Rule: c.Rule.Path, Name: c.Limit.Name, Given: c.GivenBack,
			Remaining: max(c.Decision.Remaining, 0), ResetAfterSeconds: c.Decision.ResetAfter.Seconds(),
		})
	}
	if given == 0 {
		return refuseAs(nothingUsed, "There is nothing to give back", http.StatusConflict,
			"%s has used nothing, and a counter never holds more than its limit: to allow more, raise the limit (POST /admin/rules)", text)
	}
	a.audit(r, "credit", zap.String("domain", abridge(of.Domain)), zap.String("descriptor", abridge(text.String())),
		zap.String("limit", abridge(of.Limit)), zap.Int64("hits", of.Hits), zap.Any("counters", out.Counters))
	answer(w, http.StatusOK, out)
	return nil
}

// isShared reports whether a rule has one counter for all descriptors.
func isShared(rule *descriptor.Rule) bool {
	set := rule.Config.Set
	return set != nil && len(set.CountBy) == 0
}
