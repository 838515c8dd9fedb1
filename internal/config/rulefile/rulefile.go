// Package rulefile owns the grammar of rules. It reads rules from YAML and writes them
// back. It reports each mistake with file, line, column and a remedy. It leaves to package
// reload where texts come from and when they are read again.
package rulefile

import (
	"runtime"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile/reread"
	"github.com/distlimiter/ratelimit/internal/named"
)

// DefaultMaxBytes bounds each source unless Options set another bound.
const DefaultMaxBytes = 64 << 20

// Options change how sources are read.
type Options struct {
	// MergeDomains allows several sources to have rules for one domain. Otherwise
	// that is an error.
	MergeDomains bool
	// DropDenied makes drop the default of denied_hits for fixed_window, too.
	DropDenied bool
	// MaxBytes bounds each source. 0 means DefaultMaxBytes.
	MaxBytes int64
	// Names are what operators call these options, for errors.
	Names named.Fields
}

func (o Options) maxBytes() int64 {
	if o.MaxBytes > 0 {
		return o.MaxBytes
	}
	return DefaultMaxBytes
}

// Source is a text of YAML or JSON documents. Each document is a domain or a list of
// adjustments. With Read or Node, a source is one domain in another form.
type Source struct {
	// Name is the file, or another name of the place that the rules come from. It is
	// the File of every Pos.
	Name string
	Data []byte
	// Read decodes Data that is not text. Nil: Data is text.
	Read func(data []byte) (Message, error)
	// Node is a domain that is part of another document of the file Name. Nil: the
	// source has Data. Only the function Parse takes it, because a Parser recognises
	// sources by their Data.
	Node *yaml.Node
	// Origin is the kind of place that the rules come from. Rules of FromAdmin
	// override others; see [config.Origin].
	Origin config.Origin
}

// Parse reads and validates the rules of all sources. The error is a *config.Invalid with
// every problem of every source. Without sources the rules are empty. Parse reads
// adjustments, but leaves it to a config.Overlay to apply them.
func Parse(sources []Source, opts Options) (*config.Rules, error) {
	return newParser(opts).Parse(sources)
}

// Parser parses sources repeatedly. It reads only the text that has changed since the last
// valid rules. If a domain's document is the same as then, the domain is the same pointer
// too. Only one goroutine may use it at a time.
type Parser struct {
	opts Options
	reread.Splitter
	memory  *reread.Memory
	workers int
}

// NewParser returns a parser with an empty memory.
func NewParser(opts Options) *Parser {
	p := newParser(opts)
	p.memory = reread.NewMemory()
	return p
}

// newParser returns a parser without a memory.
func newParser(opts Options) *Parser {
	return &Parser{opts: opts, Splitter: reread.NewSplitter(), workers: runtime.GOMAXPROCS(0)}
}

// Parse does the same as the function Parse. After the first valid rules it leaves half of
// the cores to requests.
func (p *Parser) Parse(sources []Source) (*config.Rules, error) {
	task := background.New()
	defer task.Close()
	documents := p.documents(sources, task)
	b := builder{opts: p.opts, task: task, domains: map[string]*config.Domain{}, entries: map[*config.Domain]map[config.NodeKey]place{}, overriding: map[string]map[config.NodeKey]place{}, consume: map[*config.Domain]config.Pos{}, settled: map[*config.Domain]bool{}}
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
