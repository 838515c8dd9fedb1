package config

import (
	"hash/maphash"
	"runtime"

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

// parser parses sources. One that remembers does anew only what it has not parsed
// before.
type parser struct {
	opts Options
	splitter
	workers int
	// What is remembered; nil: nothing.
	known map[documentID]domainOf
	runs  map[digest]descriptorsOf
}

func newParser(opts Options) *parser {
	return &parser{opts: opts, splitter: splitter{maphash.MakeSeed(), runLength}, workers: runtime.GOMAXPROCS(0)}
}

// remember has the parser remember the last rules that were valid. Domains that
// are made of the same document as before are the same then, too. It takes about as
// much memory as the rules do.
func (p *parser) remember() {
	p.known, p.runs = map[documentID]domainOf{}, map[digest]descriptorsOf{}
}

// parse is Parse.
func (p *parser) parse(sources []Source) (*Rules, error) {
	task := background.New()
	defer task.Close()
	documents := p.documents(sources, task)
	b := builder{opts: p.opts, task: task, domains: map[string]*Domain{}, entries: map[*Domain]map[entry]place{}, consume: map[*Domain]Pos{}, settled: map[*Domain]bool{}}
	for _, overriding := range []bool{false, true} {
		for _, d := range documents {
			if (d.source.Origin == FromAdmin) == overriding {
				b.add(d)
			}
		}
	}
	if err := invalid(b.problems); err != nil {
		return nil, err
	}
	b.finish()
	if p.runs != nil {
		p.keep(documents)
	}
	return &Rules{Domains: b.order, Warnings: b.warnings}, nil
}

// parseAll parses the sources also when others could not be read, for all
// problems to be reported together.
func (p *parser) parseAll(sources []Source, unread []error) (*Rules, error) {
	rules, err := p.parse(sources)
	if len(unread) == 0 {
		return rules, err
	}
	return nil, allOf(append(unread, err)...)
}
