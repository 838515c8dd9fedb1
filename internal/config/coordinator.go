package config

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/named"
)

// Provider is a place that rules come from.
type Provider interface {
	// Origin is the kind of place. A coordinator has at most one provider of each.
	Origin() Origin
	// Sources returns the rules as they are now. With an error they don't come into
	// force: the last good ones of this provider stay, and the error is reported
	// together with the problems of the sources beside it. Sources is called again
	// after a while. Two errors mean something else: ErrWaiting is no failure, and
	// with a *Partial the sources beside it come into force.
	Sources(ctx context.Context) ([]Source, error)
	// Watch calls changed whenever Sources may return something else, and at
	// least once after it has begun to look. It returns when ctx is done, or with
	// an error when it can't watch any more; it is called again after a while.
	Watch(ctx context.Context, changed func()) error
}

// Verdicts is a Provider that is told what became of its sources. What is bad about
// them stays so until it sees a change: it is not asked again before.
type Verdicts interface {
	// Verdict is called after each attempt: with nil if what Sources returned last
	// is in force, or else with the reason why it is not.
	Verdict(err error)
}

// ErrWaiting is the error of a provider that has not heard of any rules yet, and
// that will see a change when it does.
var ErrWaiting = errors.New("no rules yet")

// Partial is the error of a provider some of whose sources can't be used. It
// returns the others, or older ones in their place, beside it.
type Partial struct {
	Problems []Problem // never empty
}

// Error returns one line per problem.
func (e *Partial) Error() string { return (&Invalid{e.Problems}).Error() }

// Outcome is what became of a reload.
type Outcome string

// The outcomes.
const (
	Loaded    Outcome = "loaded"    // new rules are in force
	Partly    Outcome = "partly"    // new rules are in force, but some sources are bad: their last good rules stay
	Unchanged Outcome = "unchanged" // the sources are those in force
	Failed    Outcome = "failed"    // some sources are bad: the rules in force stay
	Waiting   Outcome = "waiting"   // there are no rules yet
)

// Reload is the record of one attempt to load rules.
type Reload struct {
	Time     time.Time     `json:"time"`
	Duration time.Duration `json:"duration_ns"`
	Outcome  Outcome       `json:"outcome"`
	// Generation, Hash, Domains and Rules are of the rules in force afterwards.
	// Generations count the rules that came into force, from 1; 0 is none yet.
	Generation uint64 `json:"generation"`
	Hash       string `json:"hash,omitempty"` // of their sources
	Domains    int    `json:"domains"`
	Rules      int    `json:"rules"`
	// Problems are why it failed, or warnings: the first hundred as text. Omitted
	// is how many more there were.
	Problems []string `json:"problems,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Omitted  int      `json:"omitted,omitempty"`
}

// Status is how loading the rules has gone.
type Status struct {
	// Last is the last attempt, which may have failed. Zero before the first.
	Last Reload `json:"last"`
	// LastSuccess is when all sources were last found valid.
	LastSuccess time.Time `json:"last_success,omitzero"`
	// Successes and Failures count attempts, those that changed nothing too. An
	// attempt with a bad source is a failure.
	Successes uint64 `json:"successes"`
	Failures  uint64 `json:"failures"`
	// Sources tells how each provider's last sources were, in the providers' order.
	Sources []SourceStatus `json:"sources"`
	// History holds the last attempts that loaded or failed, or with which
	// failing ended, newest first.
	History []Reload `json:"history"`
}

// SourceState is how the sources of a provider are.
type SourceState string

// The states of sources.
const (
	SourceGood    SourceState = "good"    // in force
	SourceWaiting SourceState = "waiting" // there are none yet
	SourceBad     SourceState = "bad"     // not in force, or not all of them
)

// SourceStatus is how the sources of one provider are.
type SourceStatus struct {
	Source string      `json:"source"` // as Origin.String
	State  SourceState `json:"state"`
	// InForce reports whether any sources of this provider are in force.
	InForce bool `json:"in_force"`
	// LastSuccess is when they were last all in force.
	LastSuccess time.Time `json:"last_success,omitzero"`
	Failures    uint64    `json:"failures"`
	// Problems are why they are bad: the first hundred.
	Problems []string `json:"problems,omitempty"`
	Omitted  int      `json:"omitted,omitempty"`
}

const (
	defaultDelay = 100 * time.Millisecond
	firstRetry   = time.Second // after what may pass: it doubles up to lastRetry
	lastRetry    = time.Minute
	historySize  = 50
	maxRecorded  = 100 // problems or warnings in a Reload
)

// CoordinatorOptions set up a Coordinator.
type CoordinatorOptions struct {
	// Providers give the sources, which count in this order.
	Providers []Provider
	Options   Options
	// AllowNoRules takes files without any rule where there were some. Otherwise
	// that is a mistake, and the rules that were there stay.
	AllowNoRules bool
	// Delay is how long sources must be quiet after a change before they are
	// read; changes that go on for ten times as long are read on the way.
	// 0 means 100 ms.
	Delay time.Duration
	// Log receives one line for each attempt that loads or fails. Nil: none.
	Log *zap.Logger
	// Names say how an operator sets these.
	Names named.Fields
	// OnReload is called after every attempt, for metrics. May be nil.
	OnReload func(Reload)
}

// Coordinator keeps the rules in force. It loads them when told to or when a
// provider sees a change, validates them, tells its subscribers, and swaps.
//
// Each provider stands alone. Rules are made of the newest sources of as many
// providers as can be in force together; a provider whose newest sources are bad,
// by themselves or beside the others, goes on with its last good ones.
type Coordinator struct {
	opts        CoordinatorOptions
	rules       atomic.Pointer[Rules]
	loading     sync.Mutex // one attempt at a time; guards what follows
	subscribers []func(*Rules) error
	parser      *parser
	feeds       []*feed

	// unread gets a value when sources could not be read.
	unread chan struct{}

	mu     sync.Mutex
	status Status
}

// NewCoordinator returns a coordinator that has loaded nothing yet.
func NewCoordinator(opts CoordinatorOptions) *Coordinator {
	opts.Delay = cmp.Or(opts.Delay, defaultDelay)
	if opts.Log == nil {
		opts.Log = zap.NewNop()
	}
	p := newParser(opts.Options)
	p.remember()
	c := &Coordinator{opts: opts, parser: p, unread: make(chan struct{}, 1)}
	for _, provider := range opts.Providers {
		c.feeds = append(c.feeds, &feed{Provider: provider})
		c.status.Sources = append(c.status.Sources, SourceStatus{Source: provider.Origin().String(), State: SourceWaiting})
	}
	return c
}

// Subscribe has apply called with all rules that come into force from now on,
// one after the other and in the order of subscription. When one subscriber
// returns an error, the rules don't come into force, and those before it are
// called again with the old ones. apply must not call the coordinator's Reload.
func (c *Coordinator) Subscribe(apply func(*Rules) error) {
	c.loading.Lock()
	defer c.loading.Unlock()
	c.subscribers = append(c.subscribers, apply)
}

// Rules returns the rules in force; nil before there are any.
func (c *Coordinator) Rules() *Rules { return c.rules.Load() }

// Status returns how loading has gone.
func (c *Coordinator) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.History = slices.Clone(s.History)
	s.Sources = slices.Clone(s.Sources)
	return s
}

// Run reloads after each change that a provider sees, until ctx is done, which
// is no error.
func (c *Coordinator) Run(ctx context.Context) error {
	changes := make(chan struct{}, 1)
	changed := func() {
		select {
		case changes <- struct{}{}:
		default:
		}
	}
	var watchers sync.WaitGroup
	defer watchers.Wait()
	for _, p := range c.opts.Providers {
		watchers.Go(func() { c.watch(ctx, p, changed) })
	}
	c.coalesce(ctx, changes)
	return nil
}

// watch keeps a provider watching. One that fails is no reason to stop serving:
// Reload still works, and it may be able to watch again later.
func (c *Coordinator) watch(ctx context.Context, p Provider, changed func()) {
	wait := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		err := p.Watch(ctx, changed)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lastRetry { // it was well: this is a new failure
			wait = firstRetry
		}
		c.opts.Log.Error("changes of the rules are not seen; trying again",
			zap.Stringer("source", p.Origin()), zap.Error(err), zap.Duration("in", wait))
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, lastRetry)
	}
}

// coalesce reloads when changes have stopped coming for the delay, or have kept
// coming for ten times as long. What could not be read is tried again without a
// change, after ever longer waits.
func (c *Coordinator) coalesce(ctx context.Context, changes <-chan struct{}) {
	quiet, retry := time.NewTimer(0), time.NewTimer(0)
	quiet.Stop()
	retry.Stop()
	var deadline time.Time // zero: nothing to do
	wait := firstRetry
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
			now := time.Now()
			if deadline.IsZero() {
				deadline = now.Add(10 * c.opts.Delay)
			}
			quiet.Reset(min(c.opts.Delay, deadline.Sub(now)))
		case <-quiet.C:
			deadline, wait = time.Time{}, firstRetry
			_ = c.Reload(ctx) // recorded and logged
		case <-c.unread:
			retry.Reset(wait)
			wait = min(2*wait, lastRetry)
		case <-retry.C:
			_ = c.Reload(ctx)
		}
	}
}

// Reload loads the rules now. Its error is a Failures with what is wrong with the
// sources of each provider, and nil if all newest sources are in force. It is
// recorded and logged already. ErrWaiting is the error while there are no rules
// and none that are bad.
func (c *Coordinator) Reload(ctx context.Context) error {
	c.loading.Lock()
	defer c.loading.Unlock()
	start := time.Now()
	offers := c.ask(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	changed := c.adopt(offers)
	err := failuresOf(offers)
	r := Reload{Time: start, Outcome: Unchanged, Duration: time.Since(start)}
	switch {
	case changed && err != nil:
		r.Outcome = Partly
	case changed:
		r.Outcome = Loaded
	case err != nil:
		r.Outcome = Failed
	case c.rules.Load() == nil:
		r.Outcome, err = Waiting, ErrWaiting
	}
	c.record(r, offers)
	for _, o := range offers {
		if v, ok := o.Provider.(Verdicts); ok {
			v.Verdict(o.err)
		}
	}
	return err
}

// Check reports why sources could not come into force in place of those of the
// provider of that origin, beside what is in force of the others; nil if they
// could. Nothing changes.
func (c *Coordinator) Check(origin Origin, sources []Source) error {
	c.loading.Lock()
	defer c.loading.Unlock()
	var all []Source
	for _, f := range c.feeds {
		if f.Origin() == origin {
			all = append(all, sources...)
		} else {
			all = append(all, f.inForce...)
		}
	}
	_, err := c.parser.parse(all)
	return err
}

// ask reads the newest sources of all providers.
func (c *Coordinator) ask(ctx context.Context) []*offer {
	offers := make([]*offer, len(c.feeds))
	for i, f := range c.feeds {
		o := &offer{feed: f}
		o.sources, o.err = f.Sources(ctx)
		o.sum = sumOfSources(o.sources)
		_, partial := errors.AsType[*Partial](o.err)
		o.usable = o.err == nil || partial
		if !o.usable && !errors.Is(o.err, ErrWaiting) {
			o.err = c.withProblems(o.sources, o.err)
			c.readAgain(f)
		}
		offers[i] = o
	}
	return offers
}

// readAgain has Run read sources again after a while that could not be read.
func (c *Coordinator) readAgain(f *feed) {
	if _, final := f.Provider.(Verdicts); final {
		return
	}
	select {
	case c.unread <- struct{}{}:
	default: // it will
	}
}

// withProblems adds to the reason why some sources can't be read what is wrong
// with the others.
func (c *Coordinator) withProblems(sources []Source, unread error) error {
	if len(sources) == 0 {
		return unread
	}
	_, err := newParser(c.opts.Options).parseAll(sources, []error{unread})
	return err
}

// adopt brings into force what is new in the offers, or as many of the new ones
// as go together with what is in force of the others. It gives the rest an error,
// and reports whether new rules are in force.
func (c *Coordinator) adopt(offers []*offer) (changed bool) {
	var news []*offer
	for _, o := range offers {
		if o.usable && o.isNew() {
			news = append(news, o)
		}
	}
	tried := map[uint]error{} // by the set of news
	for _, set := range subsets(len(news)) {
		for i, o := range news {
			o.chosen = set&(1<<i) != 0
		}
		if set == 0 || c.rules.Load() == nil && isNothing(offers) {
			continue
		}
		err := c.try(offers)
		tried[set] = err
		if err != nil {
			continue
		}
		for i, o := range news {
			if o.chosen {
				o.adopted()
			} else {
				o.refused(tried[set|1<<i])
			}
		}
		return true
	}
	for i, o := range news {
		o.refused(tried[1<<i])
	}
	return false
}

// isNothing reports whether the offers that are chosen have no rules, and others
// may still come. Serving without any limit would then be worse than not to serve.
func isNothing(offers []*offer) bool {
	n, all := 0, true
	for _, o := range offers {
		if o.chosen {
			n += len(o.sources)
		} else {
			all = false
		}
	}
	return n == 0 && !all
}

// try brings into force the sources of the offers that are chosen, with those in
// force of the others. If it fails nothing has changed.
func (c *Coordinator) try(offers []*offer) error {
	var sources []Source
	for _, o := range offers {
		if o.chosen {
			sources = append(sources, o.sources...)
		} else {
			sources = append(sources, o.inForce...)
		}
	}
	old := c.rules.Load()
	if old != nil { // there are requests now: half of the cores are theirs
		c.parser.workers = max(1, runtime.GOMAXPROCS(0)/2)
	}
	rules, err := c.parser.parse(sources)
	if err != nil {
		return err
	}
	if !c.opts.AllowNoRules && old.has(FromFile) && !rules.has(FromFile) {
		return &Invalid{[]Problem{{What: "no rule is left in the files, which had some",
			Remedy: "put the rules back, or start with " + c.opts.Names.Of("AllowNoRules") + " to go on without"}}}
	}
	if err := c.apply(rules); err != nil {
		return err
	}
	c.rules.Store(rules)
	return nil
}

// apply tells the subscribers, and takes it back when one refuses.
func (c *Coordinator) apply(rules *Rules) error {
	for i, apply := range c.subscribers {
		err := apply(rules)
		if err == nil {
			continue
		}
		if old := c.rules.Load(); old != nil {
			for _, undo := range c.subscribers[:i] {
				err = errors.Join(err, undo(old))
			}
		}
		return err
	}
	return nil
}

// record notes, logs and hands on what became of an attempt.
func (c *Coordinator) record(r Reload, offers []*offer) {
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
	c.remember(r, anyNews)
	c.mu.Unlock()
	if c.opts.OnReload != nil {
		c.opts.OnReload(r)
	}
}

// logBad tells what is wrong with a source.
func (c *Coordinator) logBad(s SourceStatus) {
	what := "rules not loaded: the old ones stay"
	if !s.InForce {
		what = "rules not loaded: there are none from this source"
	}
	c.opts.Log.Error(what, zap.String("source", s.Source), zap.Strings("problems", s.Problems), zap.Int("omitted", s.Omitted))
}

func (c *Coordinator) logOutcome(r Reload) {
	log := c.opts.Log.With(zap.Duration("took", r.Duration), zap.Uint64("generation", r.Generation))
	switch r.Outcome {
	case Loaded, Partly:
		log.Info("rules loaded", zap.Int("domains", r.Domains), zap.Int("rules", r.Rules), zap.Strings("warnings", r.Warnings))
	case Unchanged, Failed, Waiting:
		log.Debug("no new rules", zap.String("outcome", string(r.Outcome)))
	}
}

// remember counts an attempt and adds it to the history if it says something new.
// c.mu is held.
func (c *Coordinator) remember(r Reload, news bool) {
	s := &c.status
	last := s.Last.Outcome
	s.Last = r
	switch r.Outcome {
	case Loaded, Unchanged:
		s.Successes++
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
	if bad, ok := errors.AsType[*Invalid](err); ok {
		return texts(bad.Problems)
	}
	if partial, ok := errors.AsType[*Partial](err); ok {
		return texts(partial.Problems)
	}
	return []string{err.Error()}, 0
}

func texts(problems []Problem) (texts []string, omitted int) {
	omitted = max(0, len(problems)-maxRecorded)
	for _, p := range problems[:len(problems)-omitted] {
		texts = append(texts, p.Error())
	}
	return texts, omitted
}
