package reload

import (
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/config"
)

// Outcome is the result of a reload.
type Outcome string

// The outcomes.
const (
	Loaded    Outcome = "loaded"    // new rules are in force
	Partly    Outcome = "partly"    // new rules are in force, but some sources are bad: their last good rules stay
	Unchanged Outcome = "unchanged" // the sources are those in force
	Failed    Outcome = "failed"    // some sources are bad: the rules in force stay
	Waiting   Outcome = "waiting"   // there are no rules yet
)

// Attempt is the record of one attempt to load rules.
type Attempt struct {
	Time     time.Time     `json:"time"`
	Duration time.Duration `json:"duration_ns"`
	Outcome  Outcome       `json:"outcome"`
	// Generation, Hash, Domains and Rules are of the rules in force afterwards.
	// Generations count the rules that came into force, from 1; 0 is none yet.
	Generation uint64 `json:"generation"`
	Hash       string `json:"hash,omitempty"` // of their sources
	Domains    int    `json:"domains"`
	Rules      int    `json:"rules"`
	// Problems are the reasons why it failed: the first hundred as text. Warnings
	// likewise. Omitted counts the rest of both.
	Problems []string `json:"problems,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Omitted  int      `json:"omitted,omitempty"`
}

// Status summarises all attempts to load rules.
type Status struct {
	// Last is the last attempt, which may have failed. Zero before the first.
	Last Attempt `json:"last"`
	// LastSuccess is when all sources were last found valid.
	LastSuccess time.Time `json:"last_success,omitzero"`
	// InForceSince is when the rules in force came into force.
	InForceSince time.Time `json:"in_force_since,omitzero"`
	// Successes and Failures count attempts, including those that changed nothing,
	// but not the second look that Run takes at sources when it begins to watch them.
	// An attempt with a bad source is a failure.
	Successes uint64 `json:"successes"`
	Failures  uint64 `json:"failures"`
	// Sources has the state of each provider's last sources, in the providers' order.
	Sources []SourceStatus `json:"sources"`
	// History holds the last attempts that loaded, failed, or succeeded after a
	// failure, newest first.
	History []Attempt `json:"history"`
}

// SourceState is the state of a provider's sources.
type SourceState string

// The states of sources.
const (
	SourceGood    SourceState = "good"    // in force
	SourceWaiting SourceState = "waiting" // none yet
	SourceBad     SourceState = "bad"     // not in force, or not all of them
)

// SourceStatus describes the sources of one provider.
type SourceStatus struct {
	Source string      `json:"source"` // as Origin.String
	State  SourceState `json:"state"`
	// InForce reports whether any sources of this provider are in force.
	InForce bool `json:"in_force"`
	// Partial reports whether bad sources are in force except for the Problems.
	Partial bool `json:"partial,omitempty"`
	// LastSuccess is when all of them were last in force.
	LastSuccess time.Time `json:"last_success,omitzero"`
	Failures    uint64    `json:"failures"`
	// Problems are the reasons why they are bad: the first hundred. Omitted counts
	// the rest.
	Problems []string `json:"problems,omitempty"`
	Omitted  int      `json:"omitted,omitempty"`
}

// record counts and logs an attempt, and calls OnReload.
func (c *Coordinator) record(r Attempt, offers []*offer, look bool) {
	c.mu.Lock()
	last := c.status.Last
	r.Generation, r.Hash, r.Domains, r.Rules = last.Generation, last.Hash, last.Domains, last.Rules
	if rules := c.rules.Load(); r.Outcome == Loaded || r.Outcome == Partly {
		r.Generation++
		r.Hash, r.Domains, r.Rules = hashOf(offers), len(rules.Domains), rules.Len()
		r.Warnings, r.Omitted = texts(rules.Warnings)
	}
	anyNews := false
	for i, o := range offers {
		status, news := o.status(r.Time, c.status.Sources[i])
		c.status.Sources[i] = status
		r.Problems = append(r.Problems, status.Problems...)
		r.Omitted += status.Omitted
		if anyNews = anyNews || news; news && status.State == SourceBad {
			c.logBad(status)
		}
	}
	c.logOutcome(r)
	c.remember(r, anyNews, look)
	c.mu.Unlock()
	if c.opts.OnReload != nil {
		c.opts.OnReload(r)
	}
}

// logBad logs the problems of a source.
func (c *Coordinator) logBad(s SourceStatus) {
	what := "rules not loaded: the old ones stay"
	switch {
	case s.Partial:
		what = "some of what a source says is not in force"
	case !s.InForce:
		what = "rules not loaded: there are none from this source"
	}
	c.opts.Log.Error(what, zap.String("source", s.Source), zap.Strings("problems", s.Problems), zap.Int("omitted", s.Omitted))
}

func (c *Coordinator) logOutcome(r Attempt) {
	log := c.opts.Log.With(zap.Duration("took", r.Duration), zap.Uint64("generation", r.Generation))
	switch r.Outcome {
	case Loaded, Partly:
		log.Info("rules loaded", zap.Int("domains", r.Domains), zap.Int("rules", r.Rules), zap.Strings("warnings", r.Warnings))
	case Unchanged, Failed, Waiting:
		log.Debug("no new rules", zap.String("outcome", string(r.Outcome)))
	}
}

// remember counts an attempt and adds it to the history if it differs from the last.
// c.mu is held.
func (c *Coordinator) remember(r Attempt, news, look bool) {
	s := &c.status
	last, generation := s.Last.Outcome, s.Last.Generation
	s.Last = r
	if r.Generation != generation {
		s.InForceSince = r.Time
	}
	switch r.Outcome {
	case Loaded, Unchanged:
		if r.Outcome == Loaded || !look {
			s.Successes++
		}
		s.LastSuccess = r.Time
	case Failed, Partly:
		s.Failures++
	case Waiting:
	}
	switch {
	case r.Outcome == Unchanged && (last == Loaded || last == Unchanged):
		return
	case (r.Outcome == Failed || r.Outcome == Waiting) && r.Outcome == last && !news:
		return
	}
	s.History = slices.Insert(s.History, 0, r)
	s.History = s.History[:min(len(s.History), historySize)]
}

func problemTexts(err error) ([]string, int) {
	if bad, ok := errors.AsType[*config.Invalid](err); ok {
		return texts(bad.Problems)
	}
	if partial, ok := errors.AsType[*Partial](err); ok {
		return texts(partial.Problems)
	}
	return []string{err.Error()}, 0
}

func texts(problems []config.Problem) (texts []string, omitted int) {
	omitted = max(0, len(problems)-maxRecorded)
	for _, p := range problems[:len(problems)-omitted] {
		texts = append(texts, p.Error())
	}
	return texts, omitted
}
