// Package reload owns how rules come into force: the files that hold them, noticing that
// a source has changed, one attempt at a time, what is kept when it fails, and the history
// and metrics of all that. It knows the grammar as a function, Load.
package reload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/named"
)

const (
	defaultDelay = 100 * time.Millisecond
	firstRetry   = time.Second // after what may pass: it doubles up to lastRetry
	lastRetry    = time.Minute
	historySize  = 50
	maxRecorded  = 100 // problems or warnings in an Attempt
)

// Options set up a Coordinator.
type Options struct {
	// Providers give the sources, which count in this order.
	Providers []Provider
	// Load makes rules of their sources. It is called by one goroutine at a time.
	Load Load
	// AllowNoRules takes files without any rule where there were some. Otherwise
	// that is a mistake, ErrNoRulesLeft, and the rules that were there stay.
	AllowNoRules bool
	// Names say how an operator sets these.
	Names named.Fields
	// Delay is how long sources must be quiet after a change before they are
	// read; changes that go on for ten times as long are read on the way.
	// 0 means 100 ms.
	Delay time.Duration
	// Log receives one line for each attempt that loads or fails. Nil: none.
	Log *zap.Logger
	// OnReload is called after every attempt, for metrics. May be nil.
	OnReload func(Attempt)
}

// Coordinator keeps the rules in force. It loads them when told to or when a
// provider sees a change, validates them, tells its subscribers, and swaps.
//
// Each provider stands alone. Rules are made of the newest sources of as many
// providers as can be in force together; a provider whose newest sources are bad,
// by themselves or beside the others, goes on with its last good ones.
type Coordinator struct {
	opts        Options
	rules       atomic.Pointer[config.Rules]
	loading     sync.Mutex // one attempt at a time; guards what follows
	subscribers []func(*config.Rules) error
	feeds       []*feed

	// unread gets a value when sources could not be read.
	unread chan struct{}

	mu     sync.Mutex
	status Status
}

// New returns a coordinator that has loaded nothing yet.
func New(opts Options) *Coordinator {
	opts.Delay = cmp.Or(opts.Delay, defaultDelay)
	if opts.Log == nil {
		opts.Log = zap.NewNop()
	}
	c := &Coordinator{opts: opts, unread: make(chan struct{}, 1)}
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
func (c *Coordinator) Subscribe(apply func(*config.Rules) error) {
	c.loading.Lock()
	defer c.loading.Unlock()
	c.subscribers = append(c.subscribers, apply)
}

// Rules returns the rules in force; nil before there are any.
func (c *Coordinator) Rules() *config.Rules { return c.rules.Load() }

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
	c.tellUnadjusted(offers)
	err := failuresOf(offers)
	r := Attempt{Time: start, Outcome: Unchanged, Duration: time.Since(start)}
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
func (c *Coordinator) Check(origin config.Origin, sources []rulefile.Source) error {
	c.loading.Lock()
	defer c.loading.Unlock()
	var all []rulefile.Source
	for _, f := range c.feeds {
		if f.Origin() == origin {
			all = append(all, sources...)
		} else {
			all = append(all, f.inForce...)
		}
	}
	_, err := c.opts.Load(all)
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
func (c *Coordinator) withProblems(sources []rulefile.Source, unread error) error {
	if len(sources) == 0 {
		return unread
	}
	_, err := c.opts.Load(sources)
	return allOf(unread, err)
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
		if set == 0 {
			continue
		}
		err := c.try(offers)
		if errors.Is(err, ErrWaiting) { // no source is to blame
			continue
		}
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

// tellUnadjusted gives the files, in which adjustments are, an error for those that are
// not in force for rules from elsewhere.
func (c *Coordinator) tellUnadjusted(offers []*offer) {
	rules := c.rules.Load()
	if rules == nil || len(rules.Unadjusted) == 0 {
		return
	}
	for _, o := range offers {
		if o.Origin() == config.FromFile {
			o.refused(&Partial{rules.Unadjusted})
		}
	}
}

// mayGrow reports whether others than the offers that are chosen may have rules later.
func mayGrow(offers []*offer) bool {
	return slices.ContainsFunc(offers, func(o *offer) bool { return !o.chosen })
}

// try brings into force the sources of the offers that are chosen, with those in
// force of the others. If it fails nothing has changed. While there are no rules, and
// others may come, it fails with ErrWaiting.
func (c *Coordinator) try(offers []*offer) error {
	var sources []rulefile.Source
	for _, o := range offers {
		if o.chosen {
			sources = append(sources, o.sources...)
		} else {
			sources = append(sources, o.inForce...)
		}
	}
	old := c.rules.Load()
	rules, err := c.opts.Load(sources)
	if err != nil {
		return err
	}
	if old == nil && len(rules.Domains) == 0 && mayGrow(offers) {
		return ErrWaiting // to serve without any limit would be worse than not to serve
	}
	if !c.opts.AllowNoRules && old.Has(config.FromFile) && !rules.Has(config.FromFile) {
		return fmt.Errorf("%w, or start with %s to go on without", ErrNoRulesLeft, c.opts.Names.Of("AllowNoRules"))
	}
	if err := c.apply(rules); err != nil {
		return err
	}
	c.rules.Store(rules)
	return nil
}

// apply tells the subscribers, and takes it back when one refuses.
func (c *Coordinator) apply(rules *config.Rules) error {
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
