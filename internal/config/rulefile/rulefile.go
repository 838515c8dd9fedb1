// Package rulefile owns the grammar of rules: YAML to rules, and back, with file, line
// and column of all that is wrong, and what to write instead. Where texts come from, and
// when they are read again, is for reload.
package rulefile

import (
	"runtime"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile/reread"
	"github.com/distlimiter/ratelimit/internal/named"
)

// DefaultMaxBytes is the largest source that is read unless Options say otherwise.
const DefaultMaxBytes = 64 << 20

// Options say how sources are read.
type Options struct {
	// MergeDomains lets several sources give rules for one domain. Otherwise a
	// domain belongs to one source.
	MergeDomains bool
	// DropDenied makes drop the default of denied_hits for fixed_window, too.
	DropDenied bool
	// MaxBytes bounds each source. 0 means DefaultMaxBytes.
	MaxBytes int64
	// Names say how an operator sets these options.
	Names named.Fields
}

func (o Options) maxBytes() int64 {
	if o.MaxBytes > 0 {
		return o.MaxBytes
	}
	return DefaultMaxBytes
}

// Source is a text of rules, YAML (or JSON) documents, each of them a domain, or a list
// of adjustments; or, with Read or Node, one domain in another form.
type Source struct {
	// Name is the file, or what else says where the rules come from. It is the
	// File of every Pos.
	Name string
	Data []byte
	// Read makes sense of Data that is no text. Nil: it is.
	Read func(data []byte) (Message, error)
	// Node is a domain that is part of another document of the file Name. Nil: it is
	// not. It is for Parse alone: a Parser knows sources again by their Data.
	Node *yaml.Node
	// Origin is the kind of place that the rules come from. Those of FromAdmin
	// override others; see Origin.
	Origin config.Origin
}

// Parse reads and validates the rules of all sources. The error is an *Invalid
// with every problem of every source. No sources make empty rules. Adjustments are
// read, and left to a config.Overlay to apply.
func Parse(sources []Source, opts Options) (*config.Rules, error) {
	return newParser(opts).Parse(sources)
}

// Parser parses sources again and again, and reads only what has changed since the
// last that were valid. Domains that are made of the same document as then are the
// same, too. It is for one goroutine at a time.
type Parser struct {
	opts Options
	reread.Splitter
	memory  *reread.Memory
	workers int
}

// NewParser returns a parser that remembers nothing yet.
func NewParser(opts Options) *Parser {
	p := newParser(opts)
	p.memory = reread.NewMemory()
	return p
}

// newParser returns a parser that never remembers.
func newParser(opts Options) *Parser {
	return &Parser{opts: opts, Splitter: reread.NewSplitter(), workers: runtime.GOMAXPROCS(0)}
}

// Parse is the function Parse. After the first rules that are valid it leaves half of
// the cores to others: there are requests then.
func (p *Parser) Parse(sources []Source) (*config.Rules, error) {
	task := background.New()
	defer task.Close()
	documents := p.documents(sources, task)
	b := builder{opts: p.opts, task: task, domains: map[string]*config.Domain{}, entries: map[*config.Domain]map[config.Place]place{}, consume: map[*config.Domain]config.Pos{}, settled: map[*config.Domain]bool{}}
	for _, overriding := range []bool{false, true} {
		for _, d := range documents {
			if (d.source.Origin == config.FromAdmin) == overriding {
				b.add(d)
			}
		}
	}
	if len(b.problems) > 0 {
		return nil, &config.Invalid{Problems: b.problems}
	}
	b.finish()
	p.keep(documents)
	p.workers = max(1, runtime.GOMAXPROCS(0)/2)
	return &config.Rules{Domains: b.order, Warnings: b.warnings, Adjust: b.adjust}, nil
}
