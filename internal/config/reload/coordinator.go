// Package reload brings rules into force. It reads and watches the files that hold them,
// reloads when a source has changed, keeps the last good rules when a reload fails, and
// records history and metrics. It leaves the grammar of rules to a function, Load.
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
	defaultDelay    = 100 * time.Millisecond
	defaultPatience = 30 * time.Second
	watchEnd        = time.Second // how long Run waits for watchers to end
	firstRetry      = time.Second // after a failure that may pass; doubles up to lastRetry
	lastRetry       = time.Minute
	historySize     = 50
	maxRecorded     = 100 // problems or warnings in an Attempt
)

// Options set up a Coordinator.
type Options struct {
	// Providers give the sources. Rules are loaded in this order.
	Providers []Provider
	// Load makes rules of their sources. It is called by one goroutine at a time.
	Load Load
	// AllowNoRules accepts files without any rule where there were some before.
	// Otherwise that is an error, ErrNoRulesLeft, and the old rules stay.
	AllowNoRules bool
	// Names are what operators call these options, for errors.
	Names named.Fields
	// Delay is how long sources must be quiet after a change before they are
	// read. If changes go on for ten times as long, they are read nevertheless.
	// 0 means 100 ms.
	Delay time.Duration
	// Patience is how long an attempt waits for a provider to read its sources, before
	// it goes on without. 0 means 30 s.
	Patience time.Duration
	// Log receives one line for each attempt that loads or fails. Nil: no log.
	Log *zap.Logger
	// OnReload is called after every attempt; for tests. May be nil.
	OnReload func(Attempt)
}

// Coordinator keeps the rules in force. On Reload, or when a provider sees a change, it
// loads and validates the newest rules, passes them to its subscribers, and swaps.
//
// A bad provider does not hold up the others. The coordinator adopts the newest sources
// of the largest set of providers whose sources are valid together. Each other provider
// keeps its last good sources.
type Coordinator struct {
	opts        Options
	rules       atomic.Pointer[config.Rules]
	loading     sync.Mutex // one attempt at a time; guards the fields below
	subscribers []func(*config.Rules) error
	feeds       []*feed

	// unread gets a value when sources could not be read.
	unread chan struct{}

	mu     sync.Mutex
	status Status
}

// New returns a coordinator that has loaded nothing yet.
func New(opts Options) *Coordinator {
	opts.Delay, opts.Patience = cmp.Or(opts.Delay, defaultDelay), cmp.Or(opts.Patience, defaultPatience)
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

// Subscribe adds a function that is called with all rules that come into force from now
// on. Subscribers are called one after the other, in the order of subscription. If one
// returns an error, the rules don't come into force, and the subscribers before it are
// called again with the old rules. apply must not call Reload.
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
	looks, changes := make(signal, 1), make(signal, 1)
	var watchers sync.WaitGroup
	for _, p := range c.opts.Providers {
		watchers.Go(func() { c.watch(ctx, p, looks, changes) })
	}
	c.coalesce(ctx, looks, changes)
	ended := make(chan struct{})
	go func() {
		watchers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(watchEnd): // a disk that does not answer must not hold up the end
	}
	return nil
}

// signal is a channel with room for one signal, which stands for any number of them.
type signal chan struct{}

func (s signal) send() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// watch keeps a provider watching. A failure does not stop the service: Reload still
// works, and the provider may be able to watch again later.
func (c *Coordinator) watch(ctx context.Context, p Provider, looks, changes signal) {
	wait := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		var looked atomic.Bool
		err := p.Watch(ctx, func() {
			if looked.Swap(true) {
				changes.send()
			} else {
				looks.send()
			}
		})
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lastRetry { // it worked for a while: this is a new failure
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

// coalesce reloads when no change has come for the delay, or when changes have kept
// coming for ten times as long. Sources that could not be read are tried again without a
// change, after ever longer waits. A look is a watch that has begun: sources may have
// changed before it.
func (c *Coordinator) coalesce(ctx context.Context, looks, changes signal) {
	quiet, retry := time.NewTimer(0), time.NewTimer(0)
	quiet.Stop()
	retry.Stop()
	var deadline time.Time // zero: nothing to do
	look := true           // there was no change since the last reload
	wait := firstRetry
	soon := func() {
		now := time.Now()
		if deadline.IsZero() {
			deadline = now.Add(10 * c.opts.Delay)
		}
		quiet.Reset(min(c.opts.Delay, deadline.Sub(now)))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-looks:
			soon()
		case <-changes:
			look = false
			soon()
		case <-quiet.C:
			_ = c.reload(ctx, look) // recorded and logged
			deadline, look, wait = time.Time{}, true, firstRetry
		case <-c.unread:
			retry.Reset(wait)
			wait = min(2*wait, lastRetry)
		case <-retry.C:
			_ = c.Reload(ctx)
		}
	}
}

// Reload loads the rules now. It returns nil if all newest sources are in force, and
// otherwise a Failures with the mistakes of each provider, which is already recorded and
// logged. It returns ErrWaiting while there are no rules and no mistakes.
func (c *Coordinator) Reload(ctx context.Context) error { return c.reload(ctx, false) }

// reload is Reload. A look that finds nothing new is not counted: nobody has asked for it.
func (c *Coordinator) reload(ctx context.Context, look bool) error {
	c.loading.Lock()
	defer c.loading.Unlock()
	start := time.Now()
	offers := c.ask(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	changed := c.adopt(offers)
	c.reportUnadjusted(offers)
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
	c.record(r, offers, look)
	for _, o := range offers {
		if v, ok := o.Provider.(Acknowledger); ok {
			v.Acknowledge(o.err)
		}
	}
	return err
}

// Check returns the rules that would be in force if sources replaced those of the provider
// of that origin, beside the sources in force of the others. The error says why they could
// not. It changes nothing.
func (c *Coordinator) Check(origin config.Origin, sources []rulefile.Source) (*config.Rules, error) {
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
	return c.opts.Load(all)
}

// ask reads the newest sources of all providers.
func (c *Coordinator) ask(ctx context.Context) []*offer {
	offers := make([]*offer, len(c.feeds))
	for i, f := range c.feeds {
		o := &offer{feed: f}
		var stale bool
		o.sources, stale, o.err = f.read(ctx, c.opts.Patience)
		o.sum = sumOfSources(o.sources)
		_, partial := errors.AsType[*Partial](o.err)
		o.usable = o.err == nil || partial
		if !o.usable && !errors.Is(o.err, ErrWaiting) {
			o.err = c.withProblems(o.sources, o.err)
			c.readAgain(f)
		} else if stale {
			c.readAgain(f)
		}
		offers[i] = o
	}
	return offers
}

// readAgain makes Run retry sources that could not be read, after a while.
func (c *Coordinator) readAgain(f *feed) {
	if _, final := f.Provider.(Acknowledger); final {
		return
	}
	select {
	case c.unread <- struct{}{}:
	default: // a retry is due already
	}
}

// withProblems adds the mistakes in the sources that could be read to the reason why
// others could not.
func (c *Coordinator) withProblems(sources []rulefile.Source, unread error) error {
	if len(sources) == 0 {
		return unread
	}
	_, err := c.opts.Load(sources)
	return allOf(unread, err)
}

// adopt brings the new offers into force: all of them, or the largest set that is valid
// together with the sources in force of the others. It gives the rest an error, and
// reports whether new rules are in force.
func (c *Coordinator) adopt(offers []*offer) (changed bool) {
	var news []*offer
	for _, o := range offers {
		if o.usable && o.isNew() {
			news = append(news, o)
		}
	}
	tried := map[uint]error{} // by set, as bits of news
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

// reportUnadjusted gives the file provider an error if some adjustments, which are in files,
// are not in force for rules from elsewhere.
func (c *Coordinator) reportUnadjusted(offers []*offer) {
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

// mayGrow reports whether a provider that is not chosen may have rules later.
func mayGrow(offers []*offer) bool {
	return slices.ContainsFunc(offers, func(o *offer) bool { return !o.chosen })
}

// try brings the sources of the chosen offers into force, with those in force of the
// others. If it fails, nothing has changed. It fails with ErrWaiting while there are no
// rules and others may come.
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
		return ErrWaiting // serving without any limit would be worse than not serving
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

// apply passes rules to the subscribers. If one refuses, those before it get the old
// rules again.
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
