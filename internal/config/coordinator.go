package config

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/background"
)

// Provider is a place that rules come from.
type Provider interface {
	// Sources returns what the rules are now. An error does not make the sources
	// beside it worthless: they are parsed, for all problems to be found at once.
	Sources(ctx context.Context) ([]Source, error)
	// Watch calls changed whenever Sources may return something else, and at
	// least once after it has begun to look. It returns when ctx is done, or with
	// an error when it can't watch any more; it is called again after a while.
	Watch(ctx context.Context, changed func()) error
}

// Outcome is what became of a reload.
type Outcome string

// The outcomes.
const (
	Loaded    Outcome = "loaded"    // new rules are in force
	Unchanged Outcome = "unchanged" // the sources are those in force
	Failed    Outcome = "failed"    // the rules in force stay
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
	// LastSuccess is when the sources were last found valid.
	LastSuccess time.Time `json:"last_success,omitzero"`
	// Successes and Failures count attempts, those that changed nothing too.
	Successes uint64 `json:"successes"`
	Failures  uint64 `json:"failures"`
	// History holds the last attempts that loaded or failed, or with which
	// failing ended, newest first.
	History []Reload `json:"history"`
}

const (
	defaultDelay = 100 * time.Millisecond
	retryDelay   = 10 * time.Second // until a provider that failed watches again
	historySize  = 50
	maxRecorded  = 100 // problems or warnings in a Reload
)

// CoordinatorOptions set up a Coordinator.
type CoordinatorOptions struct {
	// Providers give the sources, which count in this order.
	Providers []Provider
	Options   Options
	// Delay is how long sources must be quiet after a change before they are
	// read; changes that go on for ten times as long are read on the way.
	// 0 means 100 ms.
	Delay time.Duration
	// Log receives one line for each attempt that loads or fails. Nil: none.
	Log *zap.Logger
	// OnReload is called after every attempt, for metrics. May be nil.
	OnReload func(Reload)
}

// Coordinator keeps the rules in force. It loads them when told to or when a
// provider sees a change, validates them, tells its subscribers, and swaps. An
// attempt that fails changes nothing.
type Coordinator struct {
	opts        CoordinatorOptions
	rules       atomic.Pointer[Rules]
	loading     sync.Mutex // one attempt at a time; guards what follows
	subscribers []func(*Rules) error
	parser      *parser

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
	return &Coordinator{opts: opts, parser: p}
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
	for ctx.Err() == nil {
		err := p.Watch(ctx, changed)
		if ctx.Err() != nil {
			return
		}
		c.opts.Log.Error("changes of the rules are not seen; trying again", zap.Error(err), zap.Duration("in", retryDelay))
		select {
		case <-ctx.Done():
		case <-time.After(retryDelay):
		}
	}
}

// coalesce reloads when changes have stopped coming for the delay, or have kept
// coming for ten times as long.
func (c *Coordinator) coalesce(ctx context.Context, changes <-chan struct{}) {
	quiet := time.NewTimer(0)
	quiet.Stop()
	var deadline time.Time // zero: nothing to do
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
			deadline = time.Time{}
			_ = c.Reload(ctx) // recorded and logged
		}
	}
}

// Reload loads the rules now. Its error, an *Invalid when the rules are at
// fault, is recorded and logged already.
func (c *Coordinator) Reload(ctx context.Context) error {
	c.loading.Lock()
	defer c.loading.Unlock()
	start := time.Now()
	rules, hash, err := c.load(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r := Reload{Time: start, Outcome: Failed}
	switch {
	case err != nil:
	case rules == nil:
		r.Outcome = Unchanged
	default:
		if err = c.apply(rules); err == nil {
			r.Outcome = Loaded
			c.rules.Store(rules)
		}
	}
	r.Duration = time.Since(start)
	c.record(r, hash, err)
	return err
}

// load returns no rules when the sources are those in force.
func (c *Coordinator) load(ctx context.Context) (*Rules, string, error) {
	var sources []Source
	var unread []error
	for _, p := range c.opts.Providers {
		s, err := p.Sources(ctx)
		sources = append(sources, s...)
		if err != nil {
			unread = append(unread, err)
		}
	}
	hash := hashOf(sources)
	if len(unread) == 0 && c.rules.Load() != nil && hash == c.inForce().Hash {
		return nil, hash, nil
	}
	if c.rules.Load() != nil { // there are requests now: half of the cores are theirs
		c.parser.workers = max(1, runtime.GOMAXPROCS(0)/2)
	}
	rules, err := c.parser.parseAll(sources, unread)
	return rules, hash, err
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

// inForce returns the last record, whose rules are those in force.
func (c *Coordinator) inForce() Reload {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status.Last
}

// record notes, logs and hands on what became of an attempt.
func (c *Coordinator) record(r Reload, hash string, err error) {
	last := c.inForce()
	r.Generation, r.Hash, r.Domains, r.Rules = last.Generation, last.Hash, last.Domains, last.Rules
	log := c.opts.Log.With(zap.Duration("took", r.Duration))
	switch r.Outcome {
	case Loaded:
		rules := c.rules.Load()
		r.Generation++
		r.Hash, r.Domains, r.Rules = hash, len(rules.Domains), rules.Len()
		r.Warnings, r.Omitted = texts(rules.Warnings)
		log.Info("rules loaded", zap.Int("domains", r.Domains), zap.Int("rules", r.Rules),
			zap.Uint64("generation", r.Generation), zap.Strings("warnings", r.Warnings))
	case Unchanged:
		log.Debug("rules unchanged", zap.Uint64("generation", r.Generation))
	case Failed:
		r.Problems, r.Omitted = problemTexts(err)
		log.Error("rules not loaded: the old ones stay", zap.Strings("problems", r.Problems), zap.Int("omitted", r.Omitted),
			zap.Uint64("generation", r.Generation))
	}
	c.remember(r, last)
	if c.opts.OnReload != nil {
		c.opts.OnReload(r)
	}
}

func (c *Coordinator) remember(r, last Reload) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.status
	s.Last = r
	if r.Outcome == Failed {
		s.Failures++
	} else {
		s.Successes++
		s.LastSuccess = r.Time
	}
	if r.Outcome == Unchanged && last.Outcome != Failed {
		return
	}
	s.History = slices.Insert(s.History, 0, r)
	s.History = s.History[:min(len(s.History), historySize)]
}

func problemTexts(err error) ([]string, int) {
	if bad, ok := errors.AsType[*Invalid](err); ok {
		return texts(bad.Problems)
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

// hashOf returns a digest of names and contents.
func hashOf(sources []Source) string {
	task := background.New()
	defer task.Close()
	h := sha256.New()
	write := func(s []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		writeTo(h, s, task)
	}
	for _, s := range sources {
		write([]byte(s.Name))
		write(s.Data)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
