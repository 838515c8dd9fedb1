package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/background"
)

// Overlay applies adjustments to rules: a default first, then those that the rules hold,
// one after the other. If two set a field, the later one wins. The result depends on the
// rules alone. An overlay remembers the domains of the last rules. If a domain and its
// adjustments are the same again, it returns the same domain. Only one goroutine may use
// it at a time.
type Overlay struct {
	byDefault *selector // nil: none
	selectors map[string]*selector
	domains   map[*Domain]*layer
}

// NewOverlay returns an overlay with a default, for which Check must return nil.
func NewOverlay(d Default) *Overlay {
	o := &Overlay{}
	if a := d.adjustment(); a != nil {
		o.byDefault = newSelector(a)
	}
	return o
}

// Apply returns a copy of rules with the adjustments applied. An adjustment must not make
// a limit from a file, where adjustments come from too, invalid: then the error is an
// *Invalid. A limit from elsewhere goes on without the adjustment, because its sender does
// not know of the adjustment. Unadjusted lists such limits.
func (o *Overlay) Apply(rules *Rules) (*Rules, error) {
	by := o.selectorsOf(rules.Adjust)
	if len(by) == 0 {
		o.selectors, o.domains = nil, nil
		return rules, nil
	}
	task := background.New()
	defer task.Close()
	out := *rules
	out.Domains = make([]*Domain, len(rules.Domains))
	domains := make(map[*Domain]*layer, len(rules.Domains))
	for i, d := range rules.Domains {
		task.Step()
		l := &layer{by: slices.DeleteFunc(slices.Clone(by), func(s *selector) bool { return !s.domain.match(d.Name) })}
		if known := o.domains[d]; known != nil && slices.Equal(known.by, l.by) {
			l = known
		} else {
			l.apply(d, task)
		}
		out.Domains[i], domains[d] = l.domain, l
	}
	report := reportOn(by, domains, rules.Domains)
	if len(report.errors) > 0 {
		return nil, &Invalid{Problems: report.errors}
	}
	out.Warnings = slices.Concat(rules.Warnings, report.warnings)
	out.Unadjusted = report.unadjusted
	o.domains, o.selectors = domains, make(map[string]*selector, len(by))
	for _, s := range by {
		o.selectors[s.By] = s
	}
	return &out, nil
}

// selectorsOf returns the default and a selector for each adjustment. It reuses those of
// the last rules where the adjustment is the same.
func (o *Overlay) selectorsOf(all []*Adjustment) (by []*selector) {
	if o.byDefault != nil {
		by = append(by, o.byDefault)
	}
	for _, a := range all {
		s := o.selectors[a.By]
		if s == nil || !reflect.DeepEqual(s.Adjustment, a) {
			s = newSelector(a)
		}
		by = append(by, s)
	}
	return by
}

// selector is an adjustment with its selection compiled.
type selector struct {
	*Adjustment
	domain, path, name text
}

func newSelector(a *Adjustment) *selector {
	return &selector{a, newText(a.Selects.Domain), newText(a.Selects.Path), newText(a.Selects.Name)}
}

// selects reports whether it adjusts a limit. The limit's domain must match already.
func (s *selector) selects(d *Descriptor, l *Limit, path string) bool {
	if s.Selects.Unnamed {
		return takesDefault(d, l)
	}
	return s.path.match(path) && s.name.match(l.Name)
}

// layer is a domain after some adjustments.
type layer struct {
	by      []*selector
	domain  *Domain // as adjusted; the original if nothing changed
	met     map[*selector]bool
	clashes []clash

	// Only during apply:
	task   *background.Task
	limits map[algo.Params]*algo.Limit
	last   []*Adjustment // of the previous limit, mostly equal to those of the next
	picked []*selector   // reused
}

// clash is a limit that an adjustment would make invalid.
type clash struct {
	by    *selector
	limit Pos
	what  string // the limit, and why it would be invalid
	why   *algo.ParamError
	own   bool // the limit is from a file, like the adjustment
	more  int  // further limits with the same by and own
}

// apply adjusts the domain.
func (y *layer) apply(d *Domain, task *background.Task) {
	y.domain = d
	if len(y.by) == 0 {
		return
	}
	y.task, y.limits, y.met = task, map[algo.Params]*algo.Limit{}, map[*selector]bool{}
	descriptors, limits := y.level(d, d.Descriptors, ""), y.level(d, d.Limits, "")
	if !same(descriptors, d.Descriptors) || !same(limits, d.Limits) {
		c := *d
		c.Descriptors, c.Limits = descriptors, limits
		y.domain = &c
	}
	y.task, y.limits, y.last, y.picked = nil, nil, nil, nil
}

// same reports whether two lists are the same slice.
func same(a, b []*Descriptor) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// level returns a list of descriptors as adjusted: the list itself if nothing changes.
func (y *layer) level(domain *Domain, list []*Descriptor, above string) []*Descriptor {
	out := list
	for i, d := range list {
		y.task.Step()
		path := d.NamePart()
		if above != "" {
			path = d.nameBelow(above)
		}
		if adjusted := y.descriptor(domain, d, path); adjusted != d {
			if same(out, list) {
				out = slices.Clone(list)
			}
			out[i] = adjusted
		}
	}
	return out
}

func (y *layer) descriptor(domain *Domain, d *Descriptor, path string) *Descriptor {
	limits, inShadow := y.limitsOf(domain, d, path)
	if d.Overridden != nil { // it must be valid too when it comes into force again
		_, _ = y.limitsOf(domain, d.Overridden, path)
	}
	below := y.level(domain, d.Descriptors, path)
	if limits == nil && same(below, d.Descriptors) {
		return d
	}
	c := *d
	c.Descriptors = below
	if limits != nil {
		c.Written, c.Limits, c.ShadowMode = d, limits, inShadow
	}
	return &c
}

// limitsOf returns the limits of a descriptor as adjusted, nil if none changes, and
// whether the descriptor is in shadow mode. If an adjustment enforces one limit of a
// descriptor in shadow mode, the mode moves to each of the other limits.
func (y *layer) limitsOf(domain *Domain, d *Descriptor, path string) (limits []*Limit, inShadow bool) {
	inShadow = d.ShadowMode
	enforced := make([]bool, len(d.Limits))
	for i, l := range d.Limits {
		if l.Unlimited {
			continue
		}
		adjusted, shadow := y.limit(domain, d, l, path)
		if adjusted == l {
			continue
		}
		if limits == nil {
			limits = slices.Clone(d.Limits)
		}
		limits[i] = adjusted
		enforced[i] = shadow != nil && !*shadow
		inShadow = inShadow && !enforced[i]
	}
	if d.ShadowMode && !inShadow {
		for i, l := range limits {
			if !enforced[i] {
				c := *l
				c.ShadowMode = true
				limits[i] = &c
			}
		}
	}
	return limits, inShadow
}

// limit returns a limit as adjusted, and the shadow mode that an adjustment sets, if any.
// Without an adjustment it returns the limit itself. It leaves out an adjustment as a
// whole if it would make the limit invalid.
func (y *layer) limit(domain *Domain, d *Descriptor, l *Limit, path string) (adjusted *Limit, shadow *bool) {
	by := y.picked[:0]
	for _, s := range y.by {
		if s.selects(d, l, path) {
			by = append(by, s)
			y.met[s] = true
		}
	}
	y.picked = by
	for len(by) > 0 {
		out, shadow, err := y.change(d, l, by)
		if err == nil {
			return out, shadow
		}
		i := blamed(by, err.Param)
		y.refuse(domain, d, l, path, by[i], err)
		by = slices.Delete(by, i, i+1)
	}
	return l, nil
}

// change returns a copy of a limit with one or more adjustments applied.
func (y *layer) change(d *Descriptor, l *Limit, by []*selector) (out *Limit, shadow *bool, err *algo.ParamError) {
	c := *l
	for _, s := range by {
		set := &s.Set
		if set.Lease != 0 && (l.Table != nil || l.Algo.Holds()) {
			return nil, nil, &algo.ParamError{Param: "lease", What: "a limit that holds, or one from a table, takes no lease", Remedy: "leave lease out for such limits"}
		}
		switch {
		case l.Algo.Holds() && set.Algorithm != nil:
			return nil, nil, &algo.ParamError{Param: "algorithm", What: "a limit that holds keeps its algorithm", Remedy: "leave algorithm out for such limits"}
		case l.Algo.Holds() && set.DeniedHits != algo.DeniedDefault:
			return nil, nil, &algo.ParamError{Param: "denied_hits", What: "a refused request of a limit that holds is charged by its settlement", Remedy: "leave denied_hits out for such limits"}
		case set.Algorithm != nil && set.Algorithm.AlwaysHolds():
			return nil, nil, needsHold(*set.Algorithm)
		}
		if set.OnBackendError != BackendErrorDefault {
			c.OnBackendError = set.OnBackendError
		}
		if set.Lease != 0 {
			c.Lease = set.Lease
		}
		if set.RawBody != "" {
			c.RawBody = set.RawBody
		}
		if set.ShadowMode != nil {
			shadow, c.ShadowMode = set.ShadowMode, *set.ShadowMode && !d.ShadowMode
		}
	}
	if err := y.setParams(&c, by); err != nil {
		return nil, nil, err
	}
	if l.Table != nil {
		c.Table = &Table{By: l.Table.By, Rows: slices.Clone(l.Table.Rows)}
		for i := range c.Table.Rows {
			row := *c.Table.Rows[i].Limit
			if err := y.setParams(&row, by); err != nil {
				return nil, nil, err
			}
			c.Table.Rows[i].Limit = &row
		}
	}
	c.AdjustedBy = y.adjustments(by)
	return &c, shadow, nil
}

// setParams applies the parameters of the algorithm that some adjustments set.
func (y *layer) setParams(l *Limit, by []*selector) *algo.ParamError {
	p, denied := l.Algo.Params(), l.Algo.DeniedHits()
	for _, s := range by {
		s.Set.onParams(&p)
		if s.Set.DeniedHits != algo.DeniedDefault {
			denied = s.Set.DeniedHits
		}
		if s.Set.Burst != (Burst{}) {
			l.BurstPercent = s.Set.Burst.Percent
		}
	}
	if p.Burst == 0 {
		l.BurstPercent = 0
	}
	if p == l.Algo.Params() {
		return nil
	}
	compiled, err := y.compile(p, denied)
	if err == nil {
		l.Algo = compiled
	}
	return err
}

// onParams applies the change to the parameters of an algorithm.
func (c *Change) onParams(p *algo.Params) {
	if c.Algorithm != nil && *c.Algorithm != p.Algorithm {
		p.Algorithm = *c.Algorithm
		if !p.Algorithm.Takes(algo.TakesBurst) {
			p.Burst = 0
		}
		if !p.Algorithm.Takes(algo.TakesRefill) {
			p.Refill = algo.Rate{}
		}
		if !p.Algorithm.Takes(algo.TakesStrict) {
			p.Strict, p.SubWindows = false, 0
		}
	}
	if c.Burst != (Burst{}) {
		p.Burst = c.Burst.Of(p.Limit)
	}
	if c.Strict != nil {
		if p.Strict = *c.Strict; !p.Strict {
			p.SubWindows = 0
		}
	}
	if c.SubWindows != 0 {
		p.SubWindows = c.SubWindows
	}
	if c.DeniedHits != algo.DeniedDefault {
		p.DeniedHits = c.DeniedHits
	}
}

// compile returns the limit of p with the given denied hits. If the algorithm has them by
// default, the limit's parameters leave them out, and so does its text.
func (y *layer) compile(p algo.Params, denied algo.DeniedHits) (*algo.Limit, *algo.ParamError) {
	l := y.limits[p]
	if l == nil {
		var err error
		if l, err = algo.New(p); err != nil {
			if bad, ok := errors.AsType[*algo.ParamError](err); ok {
				return nil, bad
			}
			return nil, &algo.ParamError{What: err.Error()}
		}
		y.limits[p] = l
	}
	if l.DeniedHits() != denied {
		p.DeniedHits = denied
		return y.compile(p, denied)
	}
	return l, nil
}

// adjustments returns the adjustments as a list that limits share.
func (y *layer) adjustments(by []*selector) []*Adjustment {
	if !slices.EqualFunc(y.last, by, func(a *Adjustment, s *selector) bool { return a == s.Adjustment }) {
		y.last = make([]*Adjustment, len(by))
		for i, s := range by {
			y.last[i] = s.Adjustment
		}
	}
	return y.last
}

// blamed returns the index of the adjustment that makes a parameter invalid: the last that
// sets it, or else the last that sets the algorithm.
func blamed(by []*selector, param string) int {
	found := len(by) - 1
	for i, s := range by {
		if s.Set.Algorithm != nil {
			found = i
		}
	}
	for i, s := range by {
		if s.Set.sets(param) {
			found = i
		}
	}
	return found
}

func (c *Change) sets(param string) bool {
	switch param {
	case "burst":
		return c.Burst != (Burst{})
	case "strict":
		return c.Strict != nil
	case "sub_windows":
		return c.SubWindows != 0
	case "denied_hits":
		return c.DeniedHits != algo.DeniedDefault
	case "lease":
		return c.Lease != 0
	}
	return false
}

// refuse records that a limit can't be adjusted. For each adjustment it keeps one limit
// from files and one from elsewhere, and counts the others.
func (y *layer) refuse(domain *Domain, d *Descriptor, l *Limit, path string, by *selector, why *algo.ParamError) {
	own := d.Origin == FromFile
	for i := range y.clashes {
		if c := &y.clashes[i]; c.by == by && c.own == own {
			c.more++
			return
		}
	}
	y.clashes = append(y.clashes, clash{by: by, limit: l.Pos, own: own, why: why,
		what: fmt.Sprintf("the limit of %s in domain %s (%s) can't be so: %s", Quote(path), Quote(domain.Name), l.Pos, why.What)})
}

// report holds the problems of adjustments.
type report struct{ errors, warnings, unadjusted []Problem }

// reportOn collects the problems of all domains, in the order of the adjustments.
func reportOn(by []*selector, layers map[*Domain]*layer, domains []*Domain) (r report) {
	met := map[*selector]bool{}
	all := map[*selector]map[bool]*clash{}
	for _, d := range domains {
		for s := range layers[d].met {
			met[s] = true
		}
		for _, c := range layers[d].clashes {
			if all[c.by] == nil {
				all[c.by] = map[bool]*clash{}
			}
			if first := all[c.by][c.own]; first != nil {
				first.more += 1 + c.more
			} else {
				all[c.by][c.own] = &c
			}
		}
	}
	for _, s := range by {
		own, others := all[s][true], all[s][false]
		switch {
		case s.Selects.Unnamed:
			for _, c := range []*clash{own, others} {
				if c != nil {
					r.warnings = append(r.warnings, Problem{Pos: c.limit, What: s.By + " is not for all limits: " + c.text() + ": it stays as it is written", Remedy: "name an algorithm in the rule"})
				}
			}
			continue
		case !met[s]:
			r.warnings = append(r.warnings, Problem{Pos: s.Pos, Path: s.Path + ".rules", What: "no limit is selected", Remedy: "write domain, path and name as explain prints them; each * stands for any characters"})
		}
		if own != nil {
			r.errors = append(r.errors, Problem{Pos: s.Pos, Path: s.Path + ".set", What: own.text(), Remedy: own.why.Remedy + "; or select other rules"})
		}
		if others != nil {
			r.unadjusted = append(r.unadjusted, Problem{Pos: s.Pos, Path: s.Path + ".set", What: others.text() + ": it goes on without this adjustment", Remedy: others.why.Remedy + "; or select other rules"})
		}
	}
	return r
}

func (c *clash) text() string {
	if c.more > 0 {
		return fmt.Sprintf("%s (and %d more)", c.what, c.more)
	}
	return c.what
}
