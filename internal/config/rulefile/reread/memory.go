// Package reread owns what of a text need not be read again: it splits texts into
// documents and runs of descriptors, and remembers what each was parsed to. It does not
// know the grammar.
package reread

import (
	"crypto/sha256"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
)

// Digest tells texts apart.
type Digest [sha256.Size]byte

// Sum returns the digest of data.
func Sum(data []byte, task *background.Task) (sum Digest) {
	h := sha256.New()
	task.Hash(h, data)
	h.Sum(sum[:0])
	return sum
}

// DocumentID tells documents apart that may be read differently.
type DocumentID struct {
	Name   string // of the source
	Origin config.Origin
	Lines  int // before the document
	Digest Digest
}

// Remembered is the domain that was made of a document, and of no other with it.
type Remembered struct {
	*config.Domain
	runs []Digest
}

// Level are the descriptors of a run as they were first read, so many lines down.
// They are never handed out.
type Level struct {
	descriptors []*config.Descriptor
	lines       int
}

// NewLevel returns a copy of descriptors that were read so many lines down.
func NewLevel(descriptors []*config.Descriptor, lines int) *Level {
	return &Level{moved(descriptors, "", 0), lines}
}

// At returns a copy of the descriptors so many lines down in a file.
func (l *Level) At(file string, lines int) []*config.Descriptor {
	return moved(l.descriptors, file, lines-l.lines)
}

// Memory remembers the rules that were valid last: what was made of each of their
// documents and runs. It takes about as much memory as the rules do. A nil Memory
// remembers nothing.
type Memory struct {
	documents map[DocumentID]*Remembered
	runs      map[Digest]*Level
}

// NewMemory returns a memory of no rules.
func NewMemory() *Memory { return &Memory{} }

// Document returns what was made of a document; nil if it is not remembered.
func (m *Memory) Document(id DocumentID) *Remembered {
	if m == nil {
		return nil
	}
	return m.documents[id]
}

// Run returns what was made of a run; nil if it is not remembered.
func (m *Memory) Run(d Digest) *Level {
	if m == nil {
		return nil
	}
	return m.runs[d]
}

// Made is what was made of a document. It may be what is remembered of it, or else
// a domain, nil for none worth remembering, and what was made of its runs.
type Made struct {
	ID     DocumentID
	Again  *Remembered
	Domain *config.Domain
	Runs   map[Digest]*Level
}

// Keep remembers these documents, which are those of valid rules, and none else.
func (m *Memory) Keep(all []Made) {
	if m == nil {
		return
	}
	next := Memory{make(map[DocumentID]*Remembered, len(all)), make(map[Digest]*Level, len(m.runs))}
	for _, made := range all {
		if made.Again != nil {
			next.documents[made.ID] = made.Again
			for _, digest := range made.Again.runs {
				next.runs[digest] = m.runs[digest]
			}
			continue
		}
		whole := &Remembered{Domain: made.Domain}
		for digest, level := range made.Runs {
			next.runs[digest] = level
			whole.runs = append(whole.runs, digest)
		}
		if made.Domain != nil {
			next.documents[made.ID] = whole
		}
	}
	*m = next
}
