package ruletest

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// runner runs one test. Its rules are compiled as in the service; its counters and its
// clock are its own.
type runner struct {
	limiter *limiter.Limiter
	store   *memory.Store
	now     atomic.Int64 // µs since the Unix epoch
	result  *Test
}

// run runs a test under these rules.
func (t *test) run(rules *config.Rules, dropDenied bool) (Test, error) {
	result := Test{Name: t.name, Line: t.node.Pos().Line, Failures: []Failure{}}
	r := &runner{result: &result}
	r.store = memory.New(memory.Options{Clock: r.now.Load, SweepCycle: -1})
	defer r.store.Close()
	r.limiter = limiter.New(limiter.Options{
		Backend: r.store, Local: r.store, // it never fails, so nothing is decided locally
		Log: zap.NewNop(), Stats: stats.New(0), DropRefused: dropDenied,
	})
	if err := r.limiter.SetRules(rules); err != nil {
		return result, err
	}
	defer r.limiter.Close()
	for i := range t.steps {
		r.step(&t.steps[i], t.start)
	}
	result.Passed = len(result.Failures) == 0
	return result, nil
}

// step sends the requests of a step. It reports only the first with an unexpected answer.
func (r *runner) step(s *step, start time.Time) {
	allowed := 0
	var request limiter.Request
	failures := len(r.result.Failures)
	for i := range s.repeat {
		at := s.at + time.Duration(i)*s.every
		now := start.Add(at)
		r.now.Store(now.UnixMicro())
		s.fill(&request)
		err := r.limiter.Decide(context.Background(), &request, now)
		r.result.Requests++
		if len(r.result.Failures) > failures {
			continue
		}
		c := &comparison{runner: r, step: s, request: &request, number: i + 1, at: at}
		if err != nil {
			c.fail(s.node, "", -1, "a decision", err.Error())
			continue
		}
		if !request.OverLimit {
			allowed++
		}
		c.compareVerdict()
		if i == s.repeat-1 {
			c.compareStatuses()
			if want := s.want.allowed; want.node.Present() && want.v != allowed {
				c.fail(want.node, "allowed", -1, strconv.Itoa(want.v), strconv.Itoa(allowed))
			}
		}
	}
}

// fill makes r the request of the step.
func (s *step) fill(r *limiter.Request) {
	r.Reset()
	r.Domain = s.domain
	for _, a := range s.descriptors {
		d := r.AddDescriptor(a.entries...)
		d.Override = a.override
		if a.hasHits {
			d.Hits, d.HasHits, d.Negative = uint64(max(a.hits, -a.hits)), true, a.hits < 0
		}
	}
}

// comparison compares an answer with what was expected.
type comparison struct {
	*runner
	step    *step
	request *limiter.Request
	number  int
	at      time.Duration
}

func (c *comparison) compareVerdict() {
	want := c.step.want.verdict
	if !want.node.Present() || want.v == c.request.OverLimit {
		return
	}
	at := -1 // the descriptor that decided
	for i := range c.request.Descriptors {
		if c.request.Descriptors[i].OverLimit || at < 0 && &c.request.Descriptors[i].Status == c.request.Minimum {
			at = i
			break
		}
	}
	if at < 0 && len(c.request.Descriptors) == 1 {
		at = 0
	}
	c.fail(want.node, "verdict", at, verdict(want.v), verdict(c.request.OverLimit))
}

func (c *comparison) compareStatuses() {
	for i, want := range c.step.want.all {
		d := &c.request.Descriptors[i]
		if want.verdict.node.Present() && want.verdict.v != d.OverLimit {
			c.fail(want.verdict.node, "verdict", i, verdict(want.verdict.v), verdict(d.OverLimit))
		}
		if rule := c.request.RuleOf(&d.Status); want.rule.node.Present() && want.rule.v != rule {
			c.fail(want.rule.node, "rule", i, orNone(want.rule.v), orNone(rule))
		}
		name := ""
		if d.Limit != nil {
			name = d.Limit.Name
		}
		if want.name.node.Present() && want.name.v != name {
			c.fail(want.name.node, "name", i, orNone(want.name.v), orNone(name))
		}
		if got := int64(d.Remaining); want.remaining.node.Present() && want.remaining.v != got {
			c.fail(want.remaining.node, "remaining", i, strconv.FormatInt(want.remaining.v, 10), strconv.FormatInt(got, 10))
		}
		if got := wholeSeconds(d.PassesAfter); want.reset.node.Present() && want.reset.v != got {
			c.fail(want.reset.node, "reset", i, want.reset.v.String(), got.String())
		}
		if got := c.inShadow(i); want.shadow.node.Present() && want.shadow.v != got {
			c.fail(want.shadow.node, "shadow", i, strconv.FormatBool(want.shadow.v), strconv.FormatBool(got))
		}
	}
}

// inShadow reports whether a limit in shadow mode would have refused a descriptor.
func (c *comparison) inShadow(i int) bool {
	entries := c.request.Entries[c.request.Descriptors[i].From:c.request.Descriptors[i].To]
	for reason := range c.limiter.Reasons(c.request) {
		if reason.Shadow && len(reason.Entries) > 0 && len(entries) > 0 && &reason.Entries[0] == &entries[0] {
			return true
		}
	}
	return false
}

// wholeSeconds rounds up to whole seconds, as answers do.
func wholeSeconds(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}

func verdict(over bool) string {
	if over {
		return "OVER_LIMIT"
	}
	return "OK"
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// fail reports that the field what of the i-th descriptor is not as expected at the place
// n. If i is below 0, it is about the whole request.
func (c *comparison) fail(n yamlfile.Node, what string, i int, want, got string) {
	pos := n.Pos()
	f := Failure{
		File: pos.File, Line: pos.Line, Column: pos.Column, Path: n.Path(), Test: c.result.Name,
		Request: c.number, of: c.step.repeat, At: c.at.String(), Field: what, Want: want, Got: got,
	}
	if i >= 0 {
		d := &c.request.Descriptors[i]
		f.Descriptor = c.step.descriptors[i].entries.String()
		f.Rule = c.request.RuleOf(&d.Status)
		if d.Limit != nil {
			f.Limit = c.request.LimitOf(&d.Status)
		}
		if pos, known := c.posOf(f.Rule); known {
			f.RuleAt = pos.String()
		}
	}
	c.result.Failures = append(c.result.Failures, f)
}

// posOf returns the place of a rule of the step's domain.
func (c *comparison) posOf(path string) (config.Pos, bool) {
	for _, rule := range c.limiter.Matcher().Rules() {
		if rule.Domain == c.request.Domain && rule.Path == path {
			return rule.Config.Pos, true
		}
	}
	return config.Pos{}, false
}

// String returns "file:line:column: path: what was expected, and what happened".
func (f Failure) String() string {
	what := fmt.Sprintf("test %q", f.Test)
	if f.of > 1 {
		what += fmt.Sprintf(", request %d of %d", f.Request, f.of)
	}
	what += " at " + f.At
	if f.Descriptor != "" {
		what += ", " + f.Descriptor
	}
	what += fmt.Sprintf(": want %s, got %s", f.Want, f.Got)
	switch {
	case f.Limit != "" && f.Rule == "":
		what += fmt.Sprintf("; decided by the limit that the request brings (%s)", f.Limit)
	case f.Limit != "":
		what += fmt.Sprintf("; decided by %s at %s (%s)", f.Rule, f.RuleAt, f.Limit)
	case f.Rule != "":
		what += fmt.Sprintf("; no limit of %s at %s applies", f.Rule, f.RuleAt)
	case f.Descriptor != "":
		what += "; no rule applies"
	}
	return config.Problem{Pos: config.Pos{File: f.File, Line: f.Line, Column: f.Column}, Path: f.Path, What: what}.Error()
}
