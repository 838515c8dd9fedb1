package rulestore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// Provider is a reload.Provider of the rules in a store. All access to the store goes
// through it, so that every saved set can be loaded again.
//
// While the store can't be reached, the last known rules stay in force. A stored domain
// that can't be used, because it is damaged or something else wrote it, is set aside:
// its last good rules are in force beside those of the other domains, and the next
// change replaces it.
type Provider struct {
	Store Store
	// Check returns the rules that would be in force with these sources and those of
	// other providers. The error says why they can't. If Check is nil, they always can.
	Check func([]rulefile.Source) (*config.Rules, error)
	// MaxBytes bounds the stored form of a set; 0 means the package's MaxBytes.
	MaxBytes int
	Log      *zap.Logger

	mu          sync.Mutex
	known       Set // the last set loaded
	good        map[string]json.RawMessage
	proven      map[string]json.RawMessage // usable texts, stored or not
	unavailable bool
}

var (
	_ reload.Provider = (*Provider)(nil)
	_ reload.Reader   = (*Provider)(nil)
	_ Store           = (*Provider)(nil)
)

// Origin implements reload.Provider.
func (p *Provider) Origin() config.Origin { return config.FromAdmin }

// Reading implements reload.Reader.
func (p *Provider) Reading() string {
	if file, is := p.Store.(*File); is {
		return file.file.Path
	}
	return ""
}

// Sources implements reload.Provider.
func (p *Provider) Sources(ctx context.Context) ([]rulefile.Source, error) {
	set, err := p.Load(ctx)
	p.sayAvailable(set, err)
	switch {
	case errors.Is(err, ErrUnusable):
		return set.sources(), &reload.Partial{Problems: []config.Problem{{What: err.Error(), Remedy: "restore it; the next change of admin rules replaces it"}}}
	case err != nil && !errors.Is(err, ErrUnavailable):
		return nil, err
	case len(set.aside) == 0:
		return set.sources(), nil
	}
	var problems []config.Problem
	for _, name := range slices.Sorted(maps.Keys(set.aside)) {
		problems = append(problems, config.Problem{
			What:   fmt.Sprintf("the stored admin rules of the domain %q are set aside: %v", name, set.aside[name].why),
			Remedy: "write the domain's admin rules again",
		})
	}
	return set.sources(), &reload.Partial{Problems: problems}
}

// sayAvailable logs when the store goes and when it is back.
func (p *Provider) sayAvailable(set Set, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gone := errors.Is(err, ErrUnavailable)
	if p.unavailable == gone {
		return
	}
	if p.unavailable = gone; gone {
		p.Log.Warn("the admin rules are as last known", zap.Uint64("revision", set.Revision), zap.Error(err))
	} else {
		p.Log.Info("the admin rules are those stored again", zap.Uint64("revision", set.Revision))
	}
}

// Load returns the stored set. With any error it returns the last known set; with
// ErrUnusable, that set may be changed and saved.
func (p *Provider) Load(ctx context.Context) (Set, error) {
	set, err := p.Store.Load(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil, errors.Is(err, ErrUnavailable):
		set.aside = p.sift(set)
		p.good = make(map[string]json.RawMessage, len(set.Domains))
		for name, text := range set.Domains {
			if bad, is := set.aside[name]; is {
				text = bad.good
			}
			if text != nil {
				p.good[name] = text
			}
		}
		p.known = set
		p.forget()
	case errors.Is(err, ErrUnusable):
		revision := max(set.Revision, p.known.Revision)
		set = Set{Revision: revision, Domains: p.known.Domains, aside: p.known.aside, hasToken: true, token: set.token, unusable: true}
	default:
		set = p.known
	}
	return set, err
}

// sift returns the domains whose text can't be used. p.mu is held.
func (p *Provider) sift(set Set) map[string]aside {
	var bad map[string]aside
	for name, text := range set.Domains {
		if bytes.Equal(p.proven[name], text) {
			continue
		}
		if _, err := parse(name, text); err != nil {
			if bad == nil {
				bad = map[string]aside{}
			}
			bad[name] = aside{why: err, good: p.good[name]}
			continue
		}
		if p.proven == nil {
			p.proven = map[string]json.RawMessage{}
		}
		p.proven[name] = text
	}
	return bad
}

// forget drops the proven texts of domains that are gone. p.mu is held.
func (p *Provider) forget() {
	maps.DeleteFunc(p.proven, func(name string, _ json.RawMessage) bool { return p.known.Domains[name] == nil })
}

// Try returns the rules that would be in force once a set is saved; nil without Check. It
// renders the text to store and reads it back, beside the rules of all other providers. The
// error says why the set can't be saved: it is ErrTooLarge or a parse error.
func (p *Provider) Try(next Set) (*config.Rules, error) {
	text, err := json.Marshal(next)
	if err != nil {
		return nil, err
	}
	if most := cmp.Or(p.MaxBytes, MaxBytes); len(text) > most {
		return nil, fmt.Errorf("%w: %d bytes as they are stored, of at most %d", ErrTooLarge, len(text), most)
	}
	stored, err := decode(text)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	stored.aside = p.sift(stored)
	p.mu.Unlock()
	for name, bad := range stored.aside {
		if next.Unusable(name) == nil {
			return nil, bad.why
		}
	}
	if p.Check == nil {
		return nil, nil
	}
	return p.Check(stored.sources())
}

// Save implements Store. It refuses a set that could not be loaded again: see Try.
func (p *Provider) Save(ctx context.Context, prev, next Set) error {
	if _, err := p.Try(next); err != nil {
		return err
	}
	return p.Store.Save(ctx, prev, next)
}

// Watch implements reload.Provider.
func (p *Provider) Watch(ctx context.Context, changed func()) error {
	return p.Store.Watch(ctx, changed)
}
