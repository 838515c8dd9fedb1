// Package rulestore owns the rules of the admin API: it edits them, and stores them so
// that they survive restarts and reach every replica. Package config defines their
// meaning and how they override other rules. Package admin decides who may change them.
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
	"sync"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// MaxBytes bounds the stored form of a set, which is one value or file.
const MaxBytes = rulefile.DefaultMaxBytes

// revisionBits bounds revisions: Lua counts exactly up to 2^53.
const revisionBits = 52

// Errors of stores. Test for them with errors.Is.
var (
	// ErrConflict is the error of saving over rules that have changed meanwhile.
	ErrConflict = errors.New("the admin rules have changed meanwhile")
	// ErrUnavailable is the error of a store that can't be reached now. The store may
	// have saved the set all the same.
	ErrUnavailable = errors.New("the store of the admin rules can't be reached")
	// ErrUnusable is the error of a store that holds something else than readable rules.
	// Saving replaces it.
	ErrUnusable = errors.New("the stored admin rules can't be used")
	// ErrTooLarge is the error of saving a set whose stored form exceeds MaxBytes.
	ErrTooLarge = errors.New("the admin rules are too large")
)

// Store keeps one set of rules. Implementations are safe for concurrent use.
type Store interface {
	// Load returns the stored set, or the zero Set if there is none. With ErrUnavailable
	// it returns the last set that it knows. With ErrUnusable it returns an empty set
	// that stands for the stored content.
	Load(ctx context.Context) (Set, error)
	// Save replaces prev by next. When it returns nil, next is stored durably. If it is
	// interrupted, one of the two is stored. It fails with ErrConflict if the stored set
	// is not prev.
	Save(ctx context.Context, prev, next Set) error
	// Watch does what reload.Provider's does.
	Watch(ctx context.Context, changed func()) error
}

// Set holds the admin rules after some change. It is immutable.
type Set struct {
	// Revision counts changes.
	Revision uint64 `json:"revision"`
	// Domains holds each domain by its name, in the grammar of rule files as JSON.
	Domains map[string]json.RawMessage `json:"domains"`

	hasToken bool             // token is known; otherwise it is derived from the content
	token    string           // empty if nothing is stored
	unusable bool             // this set stands for other content of the store
	aside    map[string]aside // domains whose text can't be used
}

// aside is a domain whose stored text can't be used.
type aside struct {
	why  error
	good json.RawMessage // the last usable text; nil if not known
}

// Unusable returns why the stored rules of a domain can't be used; nil if they can.
// A change of the domain replaces them.
func (s Set) Unusable(domain string) error { return s.aside[domain].why }

// Token identifies a set. The revision is not enough: two sets may have the same
// revision if a Redis has lost the last seconds.
func (s Set) Token() string {
	if s.hasToken || s.Revision == 0 {
		return s.token
	}
	text, err := json.Marshal(s)
	if err != nil {
		return "" // not possible: decode and Put let only JSON into Domains
	}
	sum := sha256.Sum256(text)
	return fmt.Sprintf("%d-%x", s.Revision, sum[:8])
}

// decoder decodes what a store has, which is read far more often than it changes: several
// times for each write. It is safe for concurrent use.
type decoder struct {
	mu  sync.Mutex
	sum [sha256.Size]byte // of the text of set
	set Set               // the last one
}

// decode is as the function of that name. The set has its token.
func (d *decoder) decode(text []byte) (Set, error) {
	sum := sha256.Sum256(text)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sum == sum {
		return d.set, nil
	}
	set, err := decode(text)
	if err == nil {
		set.token, set.hasToken = set.Token(), true
		d.sum, d.set = sum, set
	}
	return set, err
}

// decode reads the stored form of a set.
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

// source returns the text of a domain as a source of rules.
func source(name string, text json.RawMessage) rulefile.Source {
	return rulefile.Source{Name: "admin:" + name, Data: text, Origin: config.FromAdmin}
}

// sources returns the domains as sources of rules, in order of their names. For a domain
// that can't be used it returns the last good text.
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
		return nil, fmt.Errorf("the rules stored for the domain %q are those of %q", name, found)
	}
	return rules.Domains[0], nil
}
