package rulefile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile/reread"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
)

// document is one document of a source while it is read, and the result.
type document struct {
	source Source
	reread.Document
	index int // in the source
	decoder
	maxBytes int64          // of the source, also written out
	domain   *config.Domain // nil if it can't be read
	shared   bool           // other documents have rules for the domain

	id   reread.DocumentID  // if the parser remembers
	same *reread.Remembered // if unchanged: domain is its domain

	oddBreaks bool // line breaks other than \n and \r\n, which make lines hard to count

	layout reread.Layout
	head   *yaml.Node
	parts  []part // of the layout, by run
}

// part is a run after it was read.
type part struct {
	decoder
	digest reread.Digest
	level  []*config.Descriptor
	memory *reread.Level
	ok     bool // false: the run is not the list that split took it for
}

// documents reads all sources.
func (p *Parser) documents(sources []Source, task *background.Task) []*document {
	all := make([]*document, 0, len(sources))
	var fresh []*document
	for _, source := range sources {
		spans := []reread.Document{{Data: source.Data}}
		if source.Read == nil && source.Node == nil && int64(len(source.Data)) <= p.opts.maxBytes() { // a larger one is refused
			spans = reread.Cut(source.Data, task)
		}
		for i, t := range spans {
			d := &document{source: source, Document: t, index: i, maxBytes: p.opts.maxBytes()}
			d.decoder = d.newDecoder()
			all = append(all, d)
			if p.recall(d, task); d.same == nil {
				fresh = append(fresh, d)
			}
		}
	}
	p.read(fresh, task)
	// The domain of several documents changes when they are joined, so it must be a
	// new one.
	count := map[string]int{}
	for _, d := range all {
		if d.domain != nil {
			count[d.domain.Name]++
		}
	}
	var again []*document
	for _, d := range all {
		if d.domain != nil && count[d.domain.Name] > 1 {
			if d.shared = true; d.same != nil {
				d.same = nil
				again = append(again, d)
			}
		}
	}
	p.read(again, task)
	return all
}

// newDecoder returns a new decoder of the document.
func (d *document) newDecoder() decoder {
	return decoder{reader: reader{file: d.source.Name, lines: d.Document.Lines, maxText: d.maxBytes}}
}

// read reads documents.
func (p *Parser) read(documents []*document, task *background.Task) {
	var jobs []func(*background.Task)
	for _, d := range documents {
		d.domain = nil
		switch {
		case d.isTooLarge():
		case d.source.Read != nil:
			jobs = append(jobs, d.decodeMessage)
		case d.source.Node != nil:
			jobs = append(jobs, d.decodeNode)
		case !d.isText(task):
		case p.Length > 0 && !d.oddBreaks && d.split(p.Splitter, task):
			for i := range d.parts {
				jobs = append(jobs, func(task *background.Task) { d.decodePart(i, p.memory, task) })
			}
		default:
			jobs = append(jobs, d.decodeWhole)
		}
	}
	p.do(jobs)
	for _, d := range documents {
		if d.parts != nil && !d.join() {
			d.decodeWhole(task)
		}
	}
}

// do runs jobs on the number of threads that the parser may use.
func (p *Parser) do(jobs []func(*background.Task)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(p.workers, len(jobs)) {
		workers.Go(func() {
			task := background.New()
			defer task.Close()
			for i := next.Add(1) - 1; i < int64(len(jobs)); i = next.Add(1) - 1 {
				jobs[i](task)
				task.Yield()
			}
		})
	}
	workers.Wait()
}

// isTooLarge refuses a document that is larger than the bound.
func (d *document) isTooLarge() bool {
	if int64(len(d.source.Data)) <= d.maxBytes {
		return false
	}
	d.problemAt(config.Pos{File: d.file}, fmt.Sprintf("larger than %d bytes", d.maxBytes), "split it into several domains")
	return true
}

// isText refuses a document that is not UTF-8 text.
func (d *document) isText(task *background.Task) bool {
	pos, what, oddBreaks := badText(d.Data, task)
	if what != "" {
		pos.File = d.file
		pos.Line += d.Document.Lines
		d.problemAt(pos, what, "save the file as UTF-8 text")
		return false
	}
	d.oddBreaks = oddBreaks
	return true
}

// split divides the document into parts that can be read apart.
func (d *document) split(s reread.Splitter, task *background.Task) (ok bool) {
	if d.layout, ok = s.Split(d.Data, task); !ok {
		return false
	}
	if d.head, ok = single(d.layout.Head, task); !ok || adjustIn(d.head) != nil {
		return false
	}
	if d.elsewhere, ok = listKey(&d.layout, d.head); ok {
		d.parts = make([]part, len(d.layout.Runs))
	}
	return ok
}

// single reads text that is one document without errors.
func single(text []byte, task *background.Task) (root *yaml.Node, ok bool) {
	stream := newStream(text, task)
	var document, next yaml.Node
	if err := stream.Decode(&document); err != nil {
		return nil, false
	}
	return document.Content[0], errors.Is(stream.Decode(&next), io.EOF)
}

// decodePart reads a run, unless the memory has it.
func (d *document) decodePart(i int, memory *reread.Memory, task *background.Task) {
	p, r := &d.parts[i], &d.layout.Runs[i]
	p.decoder = d.newDecoder()
	p.lines += r.Lines
	if memory != nil {
		p.digest = sha256.Sum256(r.Text)
		if p.memory = memory.Run(p.digest); p.memory != nil {
			p.level, p.ok = p.memory.At(d.file, p.lines), true
			return
		}
	}
	root, ok := single(r.Text, task)
	if !ok || !isList(&d.layout, r, root) {
		return
	}
	p.ok = true
	p.depth = 2 // the document and its list
	p.push(descriptors)
	p.level = make([]*config.Descriptor, r.Count)
	for i, element := range root.Content {
		p.pushIndex(r.First + i)
		p.level[i] = p.descriptor(element)
		p.pop()
	}
	if memory != nil && p.expanded == 0 && p.copied == 0 && p.isPlain() {
		p.memory = reread.NewLevel(p.level, p.lines)
	}
}

// join puts the document together from its parts.
func (d *document) join() bool {
	expanded, copied := 0, int64(0)
	for i := range d.parts {
		p := &d.parts[i]
		expanded += p.expanded
		copied += p.copied
		if !p.ok || expanded > maxExpanded || copied > d.maxBytes {
			return false
		}
	}
	last := d.layout.Runs[len(d.parts)-1]
	d.read = make([]*config.Descriptor, 0, last.First+last.Count)
	for i := range d.parts {
		p := &d.parts[i]
		d.read = append(d.read, p.level...)
		d.problems = append(d.problems, p.problems...)
		d.warnings = append(d.warnings, p.warnings...)
		d.replaced = append(d.replaced, p.replaced...)
	}
	d.domain = d.root(d.head)
	return true
}

// isPlain reports whether reading gave only descriptors. Problems, warnings and references
// hold positions in the document. They are not worth remembering, because they would have
// to move with it.
func (d *decoder) isPlain() bool {
	return len(d.problems)+len(d.warnings)+len(d.replaced) == 0
}

// decodeWhole reads the document in one piece. Its domain stays nil when it is
// not one mapping.
func (d *document) decodeWhole(task *background.Task) {
	d.decoder = d.newDecoder()
	d.parts = nil
	stream := newStream(d.Data, task)
	var root, next yaml.Node
	switch err := stream.Decode(&root); {
	case errors.Is(err, io.EOF) || err == nil && yamlfile.IsNull(root.Content[0]):
		what := "the document is empty"
		if len(d.Data) == len(d.source.Data) {
			what = "the file is empty"
		}
		d.problemAt(d.pos(&yaml.Node{Line: 1, Column: 1}), what, `write "domain: name" and its descriptors`)
		return
	case err != nil:
		d.problems = append(d.problems, yamlfile.SyntaxError(d.file, d.lines, d.Data, err))
		return
	}
	switch err := stream.Decode(&next); {
	case err == nil:
		d.problemAt(d.pos(&next), "another document begins here, and is not read",
			fmt.Sprintf("begin each with a line of ---, after a plain line break, at most %d in a file", reread.MaxDocuments))
	case !errors.Is(err, io.EOF):
		d.problems = append(d.problems, yamlfile.SyntaxError(d.file, d.lines, d.Data, err))
	}
	d.domain = d.root(root.Content[0])
}

// decodeNode reads a domain that is part of another document.
func (d *document) decodeNode(*background.Task) {
	d.decoder = d.newDecoder()
	d.domain = d.root(d.source.Node)
}

// newStream returns a decoder of YAML that yields to other work.
func newStream(text []byte, task *background.Task) *yaml.Decoder {
	return yaml.NewDecoder(&yielding{bytes.NewReader(text), task})
}

// yielding yields on each read. The YAML decoder reads half a KiB at a time.
type yielding struct {
	io.Reader
	task *background.Task
}

func (y *yielding) Read(p []byte) (int, error) {
	y.task.Yield()
	return y.Reader.Read(p)
}

// recall looks up the document in the memory.
func (p *Parser) recall(d *document, task *background.Task) {
	if p.memory == nil || int64(len(d.source.Data)) > p.opts.maxBytes() {
		return
	}
	d.id = reread.DocumentID{Name: d.source.Name, Origin: d.source.Origin, Lines: d.Document.Lines, Digest: reread.Sum(d.Data, task)}
	if d.same = p.memory.Document(d.id); d.same != nil {
		d.domain = d.same.Domain
	}
}

// keep remembers the documents. They must be those of valid rules.
func (p *Parser) keep(documents []*document) {
	if p.memory == nil {
		return
	}
	all := make([]reread.Made, len(documents))
	for i, d := range documents {
		all[i] = reread.Made{ID: d.id, Again: d.same, Runs: make(map[reread.Digest]*reread.Level, len(d.parts))}
		for j := range d.parts {
			if part := &d.parts[j]; part.memory != nil {
				all[i].Runs[part.digest] = part.memory
			}
		}
		if d.isPlain() && !d.shared {
			all[i].Domain = d.domain
		}
	}
	p.memory.Keep(all)
}

// listKey returns the value of the last key of a head, if it is the key with which the
// head of a document must end.
func listKey(l *reread.Layout, root *yaml.Node) (value *yaml.Node, ok bool) {
	if root.Kind != yaml.MappingNode || root.Style != 0 || len(root.Content) < 2 {
		return nil, false
	}
	key, value := root.Content[len(root.Content)-2], root.Content[len(root.Content)-1]
	return value, key.Kind == yaml.ScalarNode && key.Style == 0 && key.Value == descriptors && key.Tag == "!!str" &&
		key.Line == l.Key && key.Column == 1 && value.Kind == yaml.ScalarNode && value.Tag == "!!null" && value.Value == "" && value.Anchor == ""
}

// isList reports whether a run was read as the list that it was taken for.
func isList(l *reread.Layout, r *reread.Run, root *yaml.Node) bool {
	return root.Kind == yaml.SequenceNode && root.Style == 0 && root.Column == l.Column && len(root.Content) == r.Count
}
