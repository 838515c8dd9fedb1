package config

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"iter"
	"slices"
)

// Rule is a descriptor with limits, with the way that leads to it.
type Rule struct {
	Domain *Domain
	// Path leads from the domain's top level to the rule, its last element. A rule on
	// sets of entries is alone in it.
	Path []*Descriptor
}

// All returns all rules, parents before those below them, those on sets of
// entries after the others of their domain, in the order in which they are written.
func (r *Rules) All() iter.Seq[Rule] {
	return func(yield func(Rule) bool) {
		for _, domain := range r.Domains {
			if !domain.all(yield) {
				return
			}
		}
	}
}

// All returns the rules of the domain.
func (d *Domain) All() iter.Seq[Rule] {
	return func(yield func(Rule) bool) { d.all(yield) }
}

func (d *Domain) all(yield func(Rule) bool) bool {
	return d.rules(nil, d.Descriptors, yield) && d.rules(nil, d.Limits, yield)
}

func (d *Domain) rules(above, level []*Descriptor, yield func(Rule) bool) bool {
	for _, node := range level {
		path := slices.Concat(above, []*Descriptor{node})
		if len(node.Limits) > 0 && !yield(Rule{d, path}) {
			return false
		}
		if !d.rules(path, node.Descriptors, yield) {
			return false
		}
	}
	return true
}

// Descriptor is the rule itself.
func (r Rule) Descriptor() *Descriptor { return r.Path[len(r.Path)-1] }

// Name joins the keys and values that lead to the rule, as envoyproxy/ratelimit
// does: "user_alice.path". Rules that differ in where the joints are share one.
func (r Rule) Name() string {
	name := ""
	for i, d := range r.Path {
		if i == 0 {
			name = d.NamePart()
		} else {
			name = d.nameBelow(name)
		}
	}
	return name
}

// NamePart is the descriptor's part of the names of rules: "user_alice", or "user" if it
// has no value, or "method_[GET|POST]" of a list. That of a rule on sets of entries is "limits." and its name.
func (d *Descriptor) NamePart() string {
	if d.Set != nil {
		return "limits." + d.Set.Name
	}
	if d.Value == "" && !d.HasList() {
		return d.Key
	}
	return d.Key + "_" + d.ValueText()
}

func (d *Descriptor) nameBelow(parent string) string { return parent + "." + d.NamePart() }

// idLength is the number of characters of an ID. They have 5 bits each: enough that no
// two rules share an ID.
const idLength = 20

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ID returns what the rule is known by from outside: lower-case letters and
// digits, made of the domain and the keys and values that lead to it, or its name.
func (r Rule) ID() string {
	h := sha256.New()
	write := func(s string) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(s)))
		h.Write(size[:])
		h.Write([]byte(s))
	}
	write(r.Domain.Name)
	for _, d := range r.Path {
		if d.Set != nil {
			write(d.Set.Name)
			continue
		}
		if d.HasList() {
			write("") // which is no key: a list is no value with the same text
		}
		write(d.Key)
		write(d.ValueText())
	}
	return idEncoding.EncodeToString(h.Sum(nil))[:idLength]
}

// Put adds what other says to the domain: rules that are there already, by their
// keys and values, are replaced where they are, others come last. The rest stays.
// Other must not be used any more.
func (d *Domain) Put(other *Domain) { d.lay(other, false) }

// Remove removes the rule of that ID, and descriptors that lead nowhere then.
// Rules below it stay. It reports whether there was one.
func (d *Domain) Remove(id string) bool {
	for r := range d.All() {
		if r.ID() != id {
			continue
		}
		bare := r.Descriptor()
		bare.Hold = nil
		bare.Limits, bare.ShadowMode, bare.QuotaMode, bare.DetailedMetric, bare.Metadata = nil, false, false, false, nil
		d.Descriptors, d.Limits = prune(d.Descriptors), prune(d.Limits)
		return true
	}
	return false
}

// prune drops descriptors that neither limit nor lead to one that does.
func prune(level []*Descriptor) []*Descriptor {
	return slices.DeleteFunc(level, func(d *Descriptor) bool {
		d.Descriptors = prune(d.Descriptors)
		return len(d.Limits) == 0 && len(d.Descriptors) == 0
	})
}
