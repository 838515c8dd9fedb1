// Package reread saves the parser from reading unchanged text again. It splits texts into
// documents and runs of descriptors, and remembers the result of parsing each. It leaves
// the grammar to rulefile.
package reread

import (
	"crypto/sha256"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
)

// Digest is a checksum that identifies a text.
type Digest [sha256.Size]byte

// Sum returns the digest of data.
func Sum(data []byte, task *background.Task) (sum Digest) {
	h := sha256.New()
	task.Hash(h, data)
	h.Sum(sum[:0])
	return sum
}

// DocumentID identifies a document by all that its reading depends on.
type DocumentID struct {
	Name   string // of the source
	Origin config.Origin
	Lines  int // of the source before the document
	Digest Digest
}

// Remembered is a domain whose rules came from one document alone.
type Remembered struct {
	*config.Domain
	runs []Digest
}

// Level holds the descriptors of a run as they were first read, with the number of lines
// before them. Callers get only copies.
type Level struct {
	descriptors []*config.Descriptor
	lines       int
}

// NewLevel returns a Level with a copy of descriptors that were read with that number of
// lines before them.
func NewLevel(descriptors []*config.Descriptor, lines int) *Level {
	return &Level{moved(descriptors, "", 0), lines}
}

// At returns a copy of the descriptors, in a file and with that number of lines before
// them.
func (l *Level) At(file string, lines int) []*config.Descriptor {
	return moved(l.descriptors, file, lines-l.lines)
}

// Memory remembers the results of parsing each document and run of the last valid rules.
// It needs about as much memory as the rules. A nil Memory remembers nothing.
type Memory struct {
	documents map[DocumentID]*Remembered
	runs      map[Digest]*Level
}

// NewMemory returns an empty memory.
func NewMemory() *Memory { return &Memory{} }

// Document returns the result of a document; nil if the memory does not have it.
func (m *Memory) Document(id DocumentID) *Remembered {
	if m == nil {
		return nil
	}
	return m.documents[id]
}

// Run returns the result of a run; nil if the memory does not have it.
func (m *Memory) Run(d Digest) *Level {
	if m == nil {
		return nil
	}
	return m.runs[d]
}

// Made is the result of parsing a document: either the one from the memory, or a domain
// and the results of its runs. The domain is nil if it is not worth remembering.
type Made struct {
	ID     DocumentID
	Again  *Remembered
	Domain *config.Domain
	Runs   map[Digest]*Level
}

// Keep remembers these documents, which must be those of valid rules, and forgets all
// others.
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
