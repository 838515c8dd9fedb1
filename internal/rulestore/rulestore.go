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

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// MaxBytes bounds the stored form of a set, which is one value or file.
const MaxBytes = rulefile.DefaultMaxBytes

// revisionBits bounds revisions: Lua counts exactly up to 2^53.
const revisionBits = 52

// Errors of stores, to be tested with errors.Is.
var (
	// ErrConflict is that of saving over rules that have changed meanwhile.
	ErrConflict = errors.New("the admin rules have changed meanwhile")
	// ErrUnavailable is that of a store that can't be reached now. Whether it
	// then saved is not known.
	ErrUnavailable = errors.New("the store of the admin rules can't be reached")
	// ErrUnusable is that of a store in which something else is stored than rules
	// that can be read. Saving replaces it.
	ErrUnusable = errors.New("the stored admin rules can't be used")
	// ErrTooLarge is that of saving a set whose stored form is above MaxBytes.
	ErrTooLarge = errors.New("the admin rules are too large")
)

// Store keeps one set of rules. Implementations are safe for concurrent use.
type Store interface {
	// Load returns the set that is stored; none is the zero Set. With
	// ErrUnavailable it returns the last set that it knows, with ErrUnusable an
	// empty one that stands for what is stored.
	Load(ctx context.Context) (Set, error)
	// Save replaces prev by next. When it returns nil next is stored for good;
	// whatever happens meanwhile, one of the two is. It fails with ErrConflict
	// if prev is not what is stored.
	Save(ctx context.Context, prev, next Set) error
	// Watch is as reload.Provider's.
	Watch(ctx context.Context, changed func()) error
}

// Set is the admin rules as they were after some change. It is immutable.
type Set struct {
	// Revision counts changes.
	Revision uint64 `json:"revision"`
	// Domains holds each domain by its name, in the grammar of rule files as JSON.
	Domains map[string]json.RawMessage `json:"domains"`

	stored   bool             // token is what the store says; otherwise it is made of the content
	token    string           // as stored; empty where nothing is
	unusable bool             // something else is stored, for which this set stands
	aside    map[string]aside // domains whose text can't be used
}

// aside is a domain whose stored text can't be used.
type aside struct {
	why  error
	good json.RawMessage // what was last stored that can; nil: not known
}

// Aside returns why the stored rules of a domain can't be used; nil if they can.
// A change of the domain replaces them.
func (s Set) Aside(domain string) error { return s.aside[domain].why }

// Token tells sets apart: those of one revision too, of which there may be two
// where a Redis has lost the last seconds.
func (s Set) Token() string {
	if s.stored || s.Revision == 0 {
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
	if err == nil && (s.Revision == 0 || s.Revision >= 1<<revisionBits) {
		err = errors.New("it has no revision")
	}
	for name, domain := range s.Domains {
		var compact bytes.Buffer
		err = errors.Join(err, json.Compact(&compact, domain))
		s.Domains[name] = compact.Bytes()
	}
	return s, err
}

// source returns the text of a domain for config.
func source(name string, text json.RawMessage) rulefile.Source {
	return rulefile.Source{Name: "admin:" + name, Data: text, Origin: config.FromAdmin}
}

// sources returns the domains for config, by name: of those that can't be used the
// last good ones.
func (s Set) sources() []rulefile.Source {
	var sources []rulefile.Source
	for _, name := range slices.Sorted(maps.Keys(s.Domains)) {
		text := s.Domains[name]
		if bad, is := s.aside[name]; is {
			text = bad.good
		}
		if text != nil {
			sources = append(sources, source(name, text))
		}
	}
	return sources
}

// parse reads the stored text of a domain.
func parse(name string, text json.RawMessage) (*config.Domain, error) {
	rules, err := rulefile.Parse([]rulefile.Source{source(name, text)}, rulefile.Options{})
	if err != nil {
		return nil, err
	}
	if found := rules.Domains[0].Name; found != name {
		return nil, fmt.Errorf("what is stored for the domain %q are rules of %q", name, found)
	}
	return rules.Domains[0], nil
}
