package config

import (
	"fmt"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/background"
)

// DefaultMaxBytes is the largest source that is read unless Options say otherwise.
const DefaultMaxBytes = 64 << 20

// Options say how sources are read.
type Options struct {
	// MergeDomains lets several sources give rules for one domain. Otherwise a
	// domain belongs to one source.
	MergeDomains bool
	// SkipDotFiles leaves out files and directories whose names begin with a dot.
	// Names that begin with two dots, by which Kubernetes swaps the content of
	// its volumes, are always left out.
	SkipDotFiles bool
	// AnyName takes the files of directories whatever their names, as
	// envoyproxy/ratelimit does, but for what editors leave behind. Otherwise only
	// those count that end in .yaml, .yml or .json.
	AnyName bool
	// DropDenied makes drop the default of denied_hits for fixed_window, too.
	DropDenied bool
	// MaxBytes bounds each source. 0 means DefaultMaxBytes.
	MaxBytes int64
}

func (o Options) maxBytes() int64 {
	if o.MaxBytes > 0 {
		return o.MaxBytes
	}
	return DefaultMaxBytes
}

// Source is a text of rules, YAML (or JSON) documents, each of them a domain; or,
// with Read, one domain in another form.
type Source struct {
	// Name is the file, or what else says where the rules come from. It is the
	// File of every Pos.
	Name string
	Data []byte
	// Read makes sense of Data that is no text. Nil: it is.
	Read func(data []byte) (Message, error)
	// Origin is the kind of place that the rules come from. Those of FromAdmin
	// override others; see Origin.
	Origin Origin
}

// Parse reads and validates the rules of all sources. The error is an *Invalid
// with every problem of every source. No sources make empty rules.
func Parse(sources []Source, opts Options) (*Rules, error) {
	return newParser(opts).parse(sources)
}

// builder puts the domains of several sources together.
type builder struct {
	opts     Options
	task     *background.Task
	domains  map[string]*Domain
	order    []*Domain
	entries  map[*Domain]map[entry]place // top level of each domain
	consume  map[*Domain]Pos             // where a domain says how it consumes
	settled  map[*Domain]bool            // finished before
	replaced []reference
	problems []Problem
	warnings []Problem
}

// entry tells the descriptors of one level apart.
type entry struct{ key, value string }

// place is where a descriptor is given, among those of its level.
type place struct {
	Pos
	index int
}

// reference is a place that names another limit of its domain.
type reference struct {
	domain, from, name string
	missing            Problem // should there be none
	mutual             Problem // should the other name this one
}

func (b *builder) add(doc *document) {
	d, domain, source := &doc.decoder, doc.domain, doc.source
	if doc.index == 1 && source.Origin == FromFile {
		b.warnings = append(b.warnings, Problem{Pos: Pos{source.Name, doc.span.lines + 1, 1},
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
		domain.walk(func(node *Descriptor) {
			b.task.Step()
			node.Origin = source.Origin
		})
		if source.Origin == FromAdmin {
			b.override(d, domain)
		} else {
			b.addDomain(d, domain)
		}
		for _, ref := range d.replaced {
			ref.domain = domain.Name
			b.replaced = append(b.replaced, ref)
		}
	}
	b.problems = append(b.problems, inOrder(d.problems)...)
	b.warnings = append(b.warnings, inOrder(d.warnings)...)
}

// addDomain adds a domain, or its descriptors to what another source gave it.
func (b *builder) addDomain(d *decoder, domain *Domain) {
	into, exists := b.domains[domain.Name]
	if !exists {
		b.domains[domain.Name] = domain
		b.order = append(b.order, domain)
		b.entries[domain] = d.unique(domain.Descriptors, nil, b.task)
		b.mergeConsume(d, domain, domain)
		return
	}
	if !b.opts.MergeDomains {
		d.problems = append(d.problems, Problem{Pos: domain.Pos, Path: "domain",
			What:   fmt.Sprintf("the domain %q is already given at %s", abridge(domain.Name), into.Pos),
			Remedy: "write its rules in one file, or allow domains to be merged"})
		return
	}
	b.entries[into] = d.unique(domain.Descriptors, b.entries[into], b.task)
	into.Descriptors = append(into.Descriptors, domain.Descriptors...)
	b.mergeConsume(d, domain, into)
}

// override puts a domain over what other sources gave it.
func (b *builder) override(d *decoder, domain *Domain) {
	d.unique(domain.Descriptors, nil, b.task)
	into, exists := b.domains[domain.Name]
	if !exists {
		b.domains[domain.Name] = domain
		b.order = append(b.order, domain)
		return
	}
	if domain.ConsumeGiven {
		into.Consume, into.ConsumeGiven = domain.Consume, true
	}
	into.Descriptors = lay(into.Descriptors, domain.Descriptors, true)
}

// mergeConsume takes what any one source says, and refuses two that disagree.
func (b *builder) mergeConsume(d *decoder, domain, into *Domain) {
	said, exists := b.consume[into]
	switch {
	case !d.consume.given():
		return
	case exists && into.Consume != domain.Consume:
		d.problemIn("consume", d.consume.n, "the domain says otherwise at "+said.String(), "write the same, or write it once")
	}
	into.Consume, into.ConsumeGiven = domain.Consume, true
	b.consume[into] = d.pos(d.consume.n)
}

// finish does what needs all sources.
func (b *builder) finish() {
	names := map[entry]bool{}
	for _, domain := range b.order {
		if b.settled[domain] {
			continue
		}
		domain.walk(func(d *Descriptor) {
			b.task.Step()
			for _, l := range d.Limits {
				names[entry{domain.Name, l.Name}] = true
				l.settleDeniedHits(b.opts.DropDenied || domain.Consume == AllOrNothing || d.hasOthers(l))
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
		case !names[entry{ref.domain, ref.name}]:
			b.warnings = append(b.warnings, ref.missing)
		case replaces[replacement{ref.domain, ref.name, ref.from}]:
			b.warnings = append(b.warnings, ref.mutual)
		}
	}
}

// decoder reads the document of one source, or a part of it.
type decoder struct {
	reader
	replaced []reference // without their domain
	consume  field[string]

	// elsewhere is the empty list of descriptors that stands for those that are
	// in other parts, which are read already. Nil: none.
	elsewhere *yaml.Node
	read      []*Descriptor
}

var rootKeys = newKeys(true, "domain", descriptors, "consume")

func (d *decoder) problemAt(pos Pos, what, remedy string) {
	d.problems = append(d.problems, Problem{Pos: pos, What: what, Remedy: remedy})
}

// badText returns the place of the first byte that no YAML text can hold. If there is
// none it says whether there are line breaks other than \n and \r\n.
func badText(data []byte, task *background.Task) (pos Pos, what string, oddBreaks bool) {
	pos = Pos{Line: 1, Column: 1}
	for i := 0; i < len(data); {
		c, size := rune(data[i]), 1
		if c >= utf8.RuneSelf {
			c, size = utf8.DecodeRune(data[i:])
		}
		switch {
		case c == utf8.RuneError && size == 1:
			return pos, fmt.Sprintf("the byte 0x%02x is not UTF-8", data[i]), false
		case isControl(c):
			return pos, fmt.Sprintf("the character %U has no place in YAML", c), false
		case c == '\n':
			task.Step()
			pos.Line++
			pos.Column = 0
		case c == '\r':
			oddBreaks = oddBreaks || i+1 == len(data) || data[i+1] != '\n'
		case c == 0x85, c == 0x2028, c == 0x2029:
			oddBreaks = true
		}
		pos.Column++
		i += size
	}
	return pos, "", oddBreaks
}

// isControl says whether YAML leaves c out of its character set.
func isControl(c rune) bool {
	switch c {
	case '\t', '\n', '\r', 0x85:
		return false
	}
	return c < ' ' || c >= 0x7f && c < 0xa0 || c == 0xfffe || c == 0xffff
}

func (d *decoder) root(n *yaml.Node) *Domain {
	domain := &Domain{Pos: d.pos(n)}
	var name field[string]
	d.mapping(n, rootKeys, func(key string, value *yaml.Node) {
		switch key {
		case "domain":
			d.text(value, &name)
		case "consume":
			d.text(value, &d.consume)
		case descriptors:
			if domain.Descriptors = d.read; value != d.elsewhere {
				domain.Descriptors = d.descriptors(value)
			}
		}
	})
	domain.Name, domain.ConsumeGiven = name.v, d.consume.given()
	switch {
	case name.v != "":
		domain.Pos = d.pos(name.n)
	case name.bad || resolve(n).Kind != yaml.MappingNode: // reported already
	default:
		d.problemIn("domain", name.at(n), "the domain is missing or empty", `write "domain: name", as in Envoy's rate limit filter`)
	}
	switch d.consume.v {
	case "", "each":
	case "all_or_nothing":
		domain.Consume = AllOrNothing
	default:
		d.problemIn("consume", d.consume.n, fmt.Sprintf("unknown value %q", abridge(d.consume.v)), "write each or all_or_nothing")
	}
	if domain.Descriptors == nil && resolve(n).Kind == yaml.MappingNode {
		d.warnIn("descriptors", n, "the domain has no descriptors: nothing is limited", "write some")
	}
	return domain
}

// unique reports descriptors of one level that repeat another's key and value.
// seen holds those that are there already.
func (d *decoder) unique(level []*Descriptor, seen map[entry]place, task *background.Task) map[entry]place {
	if seen == nil {
		seen = make(map[entry]place, len(level))
	}
	d.push(descriptors)
	defer d.pop()
	pathTo := func(index int) string {
		d.pushIndex(index)
		defer d.pop()
		return d.pathString()
	}
	for i, descriptor := range level {
		task.Step()
		e := entry{descriptor.Key, descriptor.Value}
		first, exists := seen[e]
		switch {
		case e.key == "": // reported already
		case exists:
			at := first.String()
			if first.Line == 0 { // it was no text
				at += ": " + pathTo(first.index)
			}
			d.problems = append(d.problems, Problem{Pos: descriptor.Pos, Path: pathTo(i),
				What:   fmt.Sprintf("%s is already given at %s", descriptor.describe(), at),
				Remedy: "remove one, or write both limits as rate_limits of one"})
		default:
			seen[e] = place{descriptor.Pos, i}
		}
	}
	return seen
}
