// Package rulestore owns the rules that come from the admin API: how they are
// edited, and where they are kept so that they survive restarts and reach every
// replica. What they mean, and that they override others, is config's; who may
// change them is admin's.
package rulestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/config"
)

// Errors of stores, to be tested with errors.Is.
var (
	// ErrConflict is that of saving over rules that have changed meanwhile.
	ErrConflict = errors.New("the admin rules have changed meanwhile")
	// ErrUnavailable is that of a store that can't be reached now. Whether it
	// then saved is not known.
	ErrUnavailable = errors.New("the store of the admin rules can't be reached")
)

// Store keeps one set of rules. Implementations are safe for concurrent use.
type Store interface {
	// Load returns the set that is stored; none is the zero Set. With
	// ErrUnavailable it returns the last set that it knows.
	Load(ctx context.Context) (Set, error)
	// Save replaces prev by next. When it returns nil next is stored for good;
	// whatever happens meanwhile, one of the two is. It fails with ErrConflict
	// if prev is not what is stored.
	Save(ctx context.Context, prev, next Set) error
	// Watch is as config.Provider's.
	Watch(ctx context.Context, changed func()) error
}

// Set is the admin rules as they were after some change. It is immutable.
type Set struct {
	// Revision counts changes.
	Revision uint64 `json:"revision"`
	// Domains holds each domain by its name, in the grammar of rule files as JSON.
	Domains map[string]json.RawMessage `json:"domains"`

	token string // as stored; empty for a set that is not stored yet
}

// Token tells sets apart: those of one revision too, of which there may be two
// where a Redis has lost the last seconds.
func (s Set) Token() string {
	if s.Revision == 0 || s.token != "" {
		return s.token
	}
	text, err := json.Marshal(s)
	if err != nil {
		return "" // no JSON in Domains: decode and Put see to that
	}
	sum := sha256.Sum256(text)
	return fmt.Sprintf("%d-%x", s.Revision, sum[:8])
}

// decode reads a set as it is stored.
func decode(text []byte) (Set, error) {
	var s Set
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&s)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the set of rules")
		}
	}
	if err == nil && s.Revision == 0 {
		err = errors.New("it has no revision")
	}
	for name, domain := range s.Domains {
		var compact bytes.Buffer
		err = errors.Join(err, json.Compact(&compact, domain))
		s.Domains[name] = compact.Bytes()
	}
	return s, err
}

// sources returns the domains for config, by name.
func (s Set) sources() []config.Source {
	var sources []config.Source
	for _, name := range slices.Sorted(maps.Keys(s.Domains)) {
		sources = append(sources, config.Source{Name: "admin:" + name, Data: s.Domains[name], Origin: config.FromAdmin})
	}
	return sources
}

// Provider is a config.Provider of what a store holds. A store that can't be
// reached is no reason to do without the rules that are known of it, nor without
// those of other providers.
type Provider struct {
	Store Store
	Log   *zap.Logger

	unavailable atomic.Bool
}

var _ config.Provider = (*Provider)(nil)

// Origin implements config.Provider.
func (p *Provider) Origin() config.Origin { return config.FromAdmin }

// Sources implements config.Provider.
func (p *Provider) Sources(ctx context.Context) ([]config.Source, error) {
	set, err := p.Store.Load(ctx)
	gone := errors.Is(err, ErrUnavailable)
	if p.unavailable.Swap(gone) != gone {
		if gone {
			p.Log.Warn("the admin rules are as last known", zap.Uint64("revision", set.Revision), zap.Error(err))
		} else {
			p.Log.Info("the admin rules are those stored again", zap.Uint64("revision", set.Revision))
		}
	}
	if err != nil && !gone {
		return nil, err
	}
	return set.sources(), nil
}

// Watch implements config.Provider.
func (p *Provider) Watch(ctx context.Context, changed func()) error {
	return p.Store.Watch(ctx, changed)
}
