package backend

import (
	"errors"
	"sync"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// PartialError is the error of a Decide that decided some checks of a request and
// failed to decide others. A store that is in one place never needs it.
type PartialError struct {
	// Errs has one element for each check of the request: nil where out holds a
	// decision, otherwise why there is none and nothing can be said of what was
	// charged.
	Errs []error
}

// Error implements error. It says each cause once.
func (e *PartialError) Error() string { return errors.Join(e.Unwrap()...).Error() }

// Unwrap returns the causes, each once.
func (e *PartialError) Unwrap() (causes []error) {
	known := map[string]bool{}
	for _, err := range e.Errs {
		if err != nil && !known[err.Error()] {
			known[err.Error()] = true
			causes = append(causes, err)
		}
	}
	return causes
}

// Failure returns what Decide returns for the errors of its checks: nil if all were
// decided, a *PartialError if some were, and all their causes if none was.
func Failure(errs []error) error {
	failed := 0
	for _, err := range errs {
		if err != nil {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	partial := &PartialError{Errs: errs}
	if failed == len(errs) {
		return errors.Join(partial.Unwrap()...)
	}
	return partial
}

// ErrorOf returns the error of the i-th check of a request for which Decide
// returned err, nil if that check was decided.
func ErrorOf(err error, i int) error {
	if partial, is := errors.AsType[*PartialError](err); is {
		return partial.Errs[i]
	}
	return err
}

// Split groups the checks of a request by the store that decides them. Each part is in the
// order of the request. storeOf is called once for each check, in that order too.
func Split[Store comparable](checks []Check, storeOf func(i int) Store) (parts []*Part) {
	partOf := map[Store]*Part{}
	for i := range checks {
		store := storeOf(i)
		p := partOf[store]
		if p == nil {
			p = new(Part)
			partOf[store] = p
			parts = append(parts, p)
		}
		p.Add(i, checks[i])
	}
	return parts
}

// DecideParts decides the parts of a request at the same time. checks are those of the
// request, and out has an element for the decision on each of them.
//
// A descriptor may have checks in several parts. Each part decides its own in one step.
// What one part has charged is given back when another refuses. Until then other requests
// may be refused because of it, but none passes that should not. The error is as that of
// Backend.Decide.
func DecideParts(checks []Check, parts []*Part, out []algo.Decision, decide func(p *Part) error) error {
	errs := decideAll(parts, out, decide)
	settle(checks, parts, out, errs, decide)
	return Failure(errs)
}

// decideAll returns the errors of the checks, for Failure: nil if there are none.
func decideAll(parts []*Part, out []algo.Decision, decide func(p *Part) error) (errs []error) {
	failures := make([]error, len(parts))
	var others sync.WaitGroup
	for i, p := range parts[1:] {
		others.Go(func() { failures[i+1] = decide(p) })
	}
	failures[0] = decide(parts[0])
	others.Wait()
	for i, p := range parts {
		if failures[i] != nil && errs == nil {
			errs = make([]error, len(out))
		}
		p.Report(failures[i], out, errs)
	}
	return errs
}

// Part is those checks of a request that one of several stores decides.
type Part struct {
	Request
	At  []int           // where each check is in the request
	Out []algo.Decision // of each check
}

// Add adds a check, which is the at-th of the request.
func (p *Part) Add(at int, c Check) {
	p.Checks, p.At, p.Out = append(p.Checks, c), append(p.At, at), append(p.Out, algo.Decision{})
}

// Report hands on what became of the part: err is what Decide returned for it, out
// gets the decisions and errs the errors of the request's checks. Without err errs
// is left alone.
func (p *Part) Report(err error, out []algo.Decision, errs []error) {
	for i, at := range p.At {
		if failed := ErrorOf(err, i); failed != nil {
			errs[at] = failed
		} else {
			out[at] = p.Out[i]
		}
	}
}

// settle makes up for what the parts could not know of each other: a part of a
// descriptor that passed is given back when the other part did not, and one that
// was refused for a limit in shadow mode alone is charged. An error leaves charged
// what was to be given back, which at worst refuses. Whether a descriptor passes
// that was decided in part is for the caller to say, who also makes up for it.
func settle(checks []Check, parts []*Part, out []algo.Decision, errs []error, decide func(p *Part) error) {
	var all []*Part
	for _, p := range parts {
		amends := &Part{}
		for from, to := range Descriptors(p.Checks) {
			start, end := DescriptorAt(checks, p.At[from])
			if errs != nil && Failure(errs[start:end]) != nil {
				continue
			}
			passes := Passes(checks[start:end], out[start:end])
			if passed := Passes(p.Checks[from:to], p.Out[from:to]); passed == passes {
				continue
			}
			for i := from; i < to; i++ {
				c := p.Checks[i]
				if !p.Out[i].Allowed || c.Hits <= 0 || c.Hold.Settles || c.Limit.DeniedHits() == algo.Count && !c.Limit.Holds() {
					continue // charged as part of a denied call, or not to be
				}
				if !passes {
					c.Undo(true)
				}
				amends.Add(p.At[i], c)
			}
		}
		if len(amends.At) > 0 {
			all = append(all, amends)
		}
	}
	if all == nil {
		return
	}
	amended := make([]algo.Decision, len(out))
	failed := decideAll(all, amended, decide)
	for _, p := range all {
		for _, at := range p.At {
			if len(failed) == 0 || failed[at] == nil {
				out[at] = amended[at]
				out[at].Allowed, out[at].Settled, out[at].RetryAfter = true, false, 0 // as was found first
			}
		}
	}
}
