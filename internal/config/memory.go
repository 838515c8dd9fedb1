package config

import (
	"crypto/sha256"
	"hash"
	"slices"

	"github.com/distlimiter/ratelimit/internal/background"
)

type digest [sha256.Size]byte

// documentID tells documents apart that may be read differently.
type documentID struct {
	name   string
	origin Origin
	lines  int // before it
	digest digest
}

// sumOf returns the digest of data.
func sumOf(data []byte, task *background.Task) (sum digest) {
	h := sha256.New()
	writeTo(h, data, task)
	h.Sum(sum[:0])
	return sum
}

// writeTo hashes data, a tenth of a millisecond's worth at a time.
func writeTo(h hash.Hash, data []byte, task *background.Task) {
	for piece := range slices.Chunk(data, 128<<10) {
		h.Write(piece)
		task.Yield()
	}
}

// domainOf is the domain that was made of a document, and of no other with it.
type domainOf struct {
	*Domain
	runs []digest
}

// descriptorsOf are the descriptors of a run as they were first read, so many
// lines down. They are never handed out.
type descriptorsOf struct {
	level []*Descriptor
	lines int
}

// recall looks for the document among those that are remembered.
func (p *parser) recall(d *document, task *background.Task) {
	if p.known == nil || int64(len(d.source.Data)) > p.opts.maxBytes() {
		return
	}
	d.id = documentID{d.source.Name, d.source.Origin, d.span.lines, sumOf(d.data, task)}
	if same, ok := p.known[d.id]; ok {
		d.same, d.domain = &same, same.Domain
	}
}

// keep remembers the documents, which are those of valid rules, and none else.
func (p *parser) keep(documents []*document) {
	known, runs := make(map[documentID]domainOf, len(documents)), make(map[digest]descriptorsOf, len(p.runs))
	for _, d := range documents {
		if d.same != nil {
			known[d.id] = *d.same
			for _, digest := range d.same.runs {
				runs[digest] = p.runs[digest]
			}
			continue
		}
		made := domainOf{Domain: d.domain}
		for i := range d.parts {
			if part := &d.parts[i]; part.memory != nil {
				runs[part.digest] = *part.memory
				made.runs = append(made.runs, part.digest)
			}
		}
		if d.isPlain() && !d.shared {
			known[d.id] = made
		}
	}
	p.known, p.runs = known, runs
}
