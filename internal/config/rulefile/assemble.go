package rulefile

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
)

// builder joins the domains of several sources.
type builder struct {
	opts       Options
	task       *background.Task
	domains    map[string]*config.Domain
	order      []*config.Domain
	entries    map[*config.Domain]map[config.NodeKey]place // top level of each domain
	overriding map[string]map[config.NodeKey]place         // the same of rules that override, by domain
	consume    map[*config.Domain]config.Pos               // where the consume of a domain is written
	settled    map[*config.Domain]bool                     // finished in an earlier parse
	replaced   []reference
	adjust     []*config.Adjustment
	problems   []config.Problem
	warnings   []config.Problem
}

// place is the position of a descriptor, and its index in its level.
type place struct {
	config.Pos
	index int
}

// reference is a position at which a limit names another limit of its domain.
type reference struct {
	domain, from, name string
	missing            config.Problem // if no limit has that name
	mutual             config.Problem // if the other limit names this one too
}

func (b *builder) add(doc *document) {
	d, domain, source := &doc.decoder, doc.domain, doc.source
	if doc.index == 1 && source.Origin == config.FromFile {
		b.warnings = append(b.warnings, config.Problem{Pos: config.Pos{File: source.Name, Line: doc.Document.Lines + 1, Column: 1},
			What:   "envoyproxy/ratelimit ignores all but the first document of a file; here, these rules are in force as well",
			Remedy: "see that they are meant to be, or remove them"})
	}
	if doc.same != nil {
		b.domains[domain.Name] = domain
		b.order = append(b.order, domain)
		b.settled[domain] = true
		return
	}
	if domain != nil && domain.Name != "" {
		domain.Walk(func(node *config.Descriptor) {
			b.task.Step()
			node.Origin = source.Origin
		})
		d.followedOnTheWay(domain)
		if source.Origin == config.FromAdmin {
			b.override(d, domain)
		} else {
			b.addDomain(d, domain)
		}
		for _, ref := range d.replaced {
			ref.domain = domain.Name
			b.replaced = append(b.replaced, ref)
		}
	}
	if source.Origin == config.FromAdmin && d.adjustAt != (config.Pos{}) {
		d.problemAt(d.adjustAt, "adjust is for files", "write it in a file that the service reads; a rule itself may be written here")
	}
	b.adjust = append(b.adjust, d.adjust...)
	b.problems = append(b.problems, inOrder(d.problems)...)
	b.warnings = append(b.warnings, inOrder(d.warnings)...)
}

// addDomain adds a domain. If another source has it already, it adds the descriptors.
func (b *builder) addDomain(d *decoder, domain *config.Domain) {
	into, exists := b.domains[domain.Name]
	if !exists {
		b.domains[domain.Name] = domain
		b.order = append(b.order, domain)
		b.entries[domain] = d.unique(domain, nil, b.task)
		b.mergeConsume(d, domain, domain)
		return
	}
	if !b.opts.MergeDomains {
		d.problems = append(d.problems, config.Problem{Pos: domain.Pos, Path: "domain",
			What:   fmt.Sprintf("the domain %q is already given at %s", yamlfile.Abridge(domain.Name), into.Pos),
			Remedy: "write its rules in one file, or allow domains to be merged: " + b.opts.Names.Either("MergeDomains")})
		return
	}
	b.entries[into] = d.unique(domain, b.entries[into], b.task)
	into.Descriptors = append(into.Descriptors, domain.Descriptors...)
	into.Limits = append(into.Limits, domain.Limits...)
	b.mergeConsume(d, domain, into)
}

// override lays a domain over that of other sources. Documents that override do not
// override each other.
func (b *builder) override(d *decoder, domain *config.Domain) {
	b.overriding[domain.Name] = d.unique(domain, b.overriding[domain.Name], b.task)
	into, exists := b.domains[domain.Name]
	if !exists {
		b.domains[domain.Name] = domain
		b.order = append(b.order, domain)
		return
	}
	into.Override(domain)
}

// mergeConsume takes consume from the source that has it, and refuses two that disagree.
func (b *builder) mergeConsume(d *decoder, domain, into *config.Domain) {
	said, exists := b.consume[into]
	switch {
	case !d.consume.present():
		return
	case exists && into.Consume != domain.Consume:
		d.problemIn("consume", d.consume.n, "the domain says otherwise at "+said.String(), "write the same, or write it once")
	}
	into.Consume, into.ConsumeGiven = domain.Consume, true
	b.consume[into] = d.pos(d.consume.n)
}

// finish does the checks and defaults that need all sources.
func (b *builder) finish() {
	names := map[limitID]bool{}
	for _, domain := range b.order {
		b.warnings = append(b.warnings, eclipsed(domain, b.task)...)
		if b.settled[domain] {
			continue
		}
		domain.Walk(func(d *config.Descriptor) {
			b.task.Step()
			for _, l := range d.Limits {
				names[limitID{domain.Name, l.Name}] = true
				drop := b.opts.DropDenied || domain.Consume == config.AllOrNothing || d.Set != nil || hasOthers(d, l)
				for l := range l.All() {
					settleDeniedHits(l, drop)
				}
			}
		})
	}
	type replacement struct{ domain, from, name string }
	replaces := make(map[replacement]bool, len(b.replaced))
	for _, ref := range b.replaced {
		replaces[replacement{ref.domain, ref.from, ref.name}] = true
	}
	for _, ref := range b.replaced {
		switch {
		case !names[limitID{ref.domain, ref.name}]:
			b.warnings = append(b.warnings, ref.missing)
		case replaces[replacement{ref.domain, ref.name, ref.from}]:
			b.warnings = append(b.warnings, ref.mutual)
		}
	}
}

// unique reports descriptors that repeat the key and value, or the name, of another in
// the lists of a domain. seen holds those of earlier sources.
func (d *decoder) unique(domain *config.Domain, seen map[config.NodeKey]place, task *background.Task) map[config.NodeKey]place {
	seen = d.uniqueIn(descriptors, domain.Descriptors, seen, task)
	return d.uniqueIn(limits, domain.Limits, seen, task)
}

// uniqueIn is unique for the list of a key.
func (d *decoder) uniqueIn(key string, level []*config.Descriptor, seen map[config.NodeKey]place, task *background.Task) map[config.NodeKey]place {
	if seen == nil {
		seen = make(map[config.NodeKey]place, len(level))
	}
	d.push(key)
	defer d.pop()
	pathTo := func(index int) string {
		d.pushIndex(index)
		defer d.pop()
		return d.pathString()
	}
	for i, descriptor := range level {
		task.Step()
		for e := range descriptor.NodeKeys() {
			first, exists := seen[e]
			switch {
			case e.Key == "" && e.Set == "": // reported already
			case exists && first.index == i && first.Pos == descriptor.Pos: // a list repeats a value: reported already
			case exists:
				at := first.String()
				if first.Line == 0 { // from a message, which has no lines
					at += ": " + pathTo(first.index)
				}
				what, remedy := entryText(e), "remove one, or write both limits as rate_limits of one"
				if descriptor.Set != nil {
					what, remedy = fmt.Sprintf("the name %q", yamlfile.Abridge(e.Set)), "give it a name of its own: it names the counters"
				}
				d.problems = append(d.problems, config.Problem{Pos: descriptor.Pos, Path: pathTo(i), What: fmt.Sprintf("%s is already given at %s", what, at), Remedy: remedy})
			default:
				seen[e] = place{descriptor.Pos, i}
			}
		}
	}
	return seen
}

// settleDeniedHits gives a limit its default denied_hits. That is drop if the limit is
// charged together with others, because a request that is refused as a whole charges
// nothing.
func settleDeniedHits(l *config.Limit, drop bool) {
	if !drop || l.Algo == nil || l.Algo.DeniedHits() == algo.Drop {
		return
	}
	params := l.Algo.Params()
	if params.DeniedHits != algo.DeniedDefault {
		return
	}
	params.DeniedHits = algo.Drop
	if settled, err := algo.New(params); err == nil { // the same limit with other denied_hits
		l.Algo = settled
	}
}

// hasOthers reports whether l is charged together with other limits, or would be without
// shadow mode. Candidates do not count, because a rehearsal changes nothing for others.
func hasOthers(d *config.Descriptor, l *config.Limit) bool {
	return slices.ContainsFunc(d.Limits, func(other *config.Limit) bool { return other != l && !d.Candidate(other) })
}

// entryText returns the key and value for errors: user or user=alice.
func entryText(e config.NodeKey) string {
	if value := e.Value + e.List; value != "" {
		return yamlfile.Abridge(e.Key) + "=" + yamlfile.Abridge(value)
	}
	return yamlfile.Abridge(e.Key)
}

// limitID identifies a limit by its domain and name.
type limitID struct{ domain, name string }

// inOrder sorts the problems of one source by position and drops repetitions, because each
// alias repeats the problems of its anchor.
func inOrder(problems []config.Problem) []config.Problem {
	slices.SortStableFunc(problems, func(a, b config.Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(problems, func(a, b config.Problem) bool {
		return a.Pos == b.Pos && a.What == b.What && (a.Line != 0 || a.Path == b.Path)
	})
}
