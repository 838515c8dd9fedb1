package rulestore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// Kind says how an edit changes a rule.
type Kind string

// The kinds.
const (
	Created   Kind = "created"
	Updated   Kind = "updated"
	Deleted   Kind = "deleted"
	Unchanged Kind = "unchanged"
)

// Change describes how an edit changes one rule.
type Change struct {
	Kind             Kind
	ID, Domain, Path string
	// Before and After are the rule in the grammar as JSON, without the rules below it.
	// Nil means that the rule did not exist before, or no longer exists.
	Before, After json.RawMessage
}

// Put returns the set with the rules of a domain. They replace the set's rules with the
// same keys and values; with replace, they replace all of the set's rules of the domain.
// If a value is in a list of another rule, Put removes it from that list. The changes
// come in this order: the given rules, then rules whose lists were shortened, then
// deleted rules. A set that does not change keeps its revision. The caller must not use
// domain any more.
func (s Set) Put(domain *config.Domain, replace bool) (Set, []Change, error) {
	before, err := s.domain(domain.Name)
	if err != nil {
		return Set{}, nil, err
	}
	given, err := rulesOf(domain)
	if err != nil {
		return Set{}, nil, err
	}
	old, err := rulesOf(before)
	if err != nil {
		return Set{}, nil, err
	}
	changes := make([]Change, 0, len(given.order))
	for _, c := range given.order {
		c.Before, c.Kind = old.byID[c.ID], Updated
		switch {
		case c.Before == nil:
			c.Kind = Created
		case bytes.Equal(c.Before, c.After):
			c.Kind = Unchanged
		}
		changes = append(changes, c)
	}
	after := domain
	if !replace {
		before.Put(domain)
		after = before
	}
	all, err := rulesOf(after)
	if err != nil {
		return Set{}, nil, err
	}
	for _, c := range all.order {
		if given.byID[c.ID] == nil && old.byID[c.ID] == nil { // the rest of a list
			c.Kind = Created
			changes = append(changes, c)
		}
	}
	for _, c := range old.order {
		if all.byID[c.ID] == nil {
			c.Kind, c.Before, c.After = Deleted, c.After, nil
			changes = append(changes, c)
		}
	}
	next, err := s.with(after)
	return next, changes, err
}

// Delete returns the set without the rule of that ID. The change is nil if the set has
// no such rule.
func (s Set) Delete(id string) (Set, *Change, error) {
	for name := range s.Domains {
		domain, err := s.domain(name)
		if err != nil {
			return Set{}, nil, err
		}
		rules, err := rulesOf(domain)
		if err != nil {
			return Set{}, nil, err
		}
		for _, c := range rules.order {
			if c.ID != id {
				continue
			}
			domain.Remove(id)
			c.Kind, c.Before, c.After = Deleted, c.After, nil
			next, err := s.with(domain)
			return next, &c, err
		}
	}
	return s, nil, nil
}

// domain returns a domain of the set; an empty one if the set has none of that name. If
// the stored text can't be used, it returns the last usable one.
func (s Set) domain(name string) (*config.Domain, error) {
	text := s.Domains[name]
	if bad, is := s.aside[name]; is {
		text = bad.good
	}
	if text == nil {
		return &config.Domain{Name: name}, nil
	}
	domain, err := parse(name, text)
	if err != nil {
		return nil, fmt.Errorf("the stored admin rules of the domain %q are not valid: %w", name, err)
	}
	return domain, nil
}

// with returns the set with the domain as it is now, or without it if it is empty.
func (s Set) with(domain *config.Domain) (Set, error) {
	next := Set{Revision: s.Revision + 1, Domains: maps.Clone(s.Domains), aside: maps.Clone(s.aside)}
	delete(next.aside, domain.Name)
	if next.Domains == nil {
		next.Domains = map[string]json.RawMessage{}
	}
	if len(domain.Descriptors)+len(domain.Limits) == 0 {
		delete(next.Domains, domain.Name)
	} else {
		text, err := json.Marshal(rulefile.Domain{Domain: domain})
		if err != nil {
			return Set{}, err
		}
		next.Domains[domain.Name] = text
	}
	if !s.unusable && bytes.Equal(s.Domains[domain.Name], next.Domains[domain.Name]) {
		return s, nil
	}
	return next, nil
}

// listing holds the rules of a domain as changes in which only After is set yet.
type listing struct {
	order []Change
	byID  map[string]json.RawMessage
}

func rulesOf(domain *config.Domain) (listing, error) {
	l := listing{byID: map[string]json.RawMessage{}}
	for r := range domain.All() {
		text, err := json.Marshal(rulefile.Descriptor{Descriptor: r.Descriptor().WithoutChildren()})
		if err != nil {
			return l, err
		}
		c := Change{ID: r.ID(), Domain: domain.Name, Path: r.Name(), After: text}
		l.order = append(l.order, c)
		l.byID[c.ID] = text
	}
	return l, nil
}
