package reread

import (
	"bytes"
	"hash/maphash"

	"github.com/distlimiter/ratelimit/internal/background"
)

// A document of a hundred thousand rules takes YAML a second, and mostly one line
// of it has changed. So documents are parsed in runs of whole descriptors, and
// runs that were there before are not parsed again. It has another advantage: what
// YAML makes of a run, some twenty times its size, is garbage before the next.

// Run is some of the top-level descriptors of a document. As a document of its own it
// is a list of Count of them.
type Run struct {
	Text  []byte
	First int // index of the first
	Count int
	Lines int // before the text
}

// Layout is how a document is written whose list of descriptors is its last
// part and in block style, as people and programs mostly write it.
type Layout struct {
	Head []byte // all before the first descriptor: ends with the key descriptors
	Key  int    // the line of that key, from 1
	Runs []Run
	// column is where all top-level descriptors begin, from 1.
	Column int
}

// How long runs are: some 32 descriptors on average, so that little is parsed for
// one that has changed, and the cost of beginning a document is shared by many.
const (
	RunLength  = 32
	largestRun = 64 << 10 // bytes from which a run takes no more
)

// Splitter cuts documents into runs. Where runs end is up to the text of the
// descriptor there alone, mostly, so that a change moves no other ends.
type Splitter struct {
	seed   maphash.Seed
	Length uint64 // of runs, on average, and at most four times as long; 0: documents stay whole
}

// NewSplitter returns one of runs of RunLength.
func NewSplitter() Splitter { return Splitter{maphash.MakeSeed(), RunLength} }

// Split returns the layout of a document, with its runs, and whether it has one that
// can be split. It looks at how lines begin and no closer; what it takes for the start
// of a descriptor may be in the middle of a string. So the parts have to be parsed
// before one can tell, and it is right if each of them alone is a document without error, and the last key of
// the first is descriptors, without a value:
//
// YAML is read from left to right. If the reader meets the end of a part without
// complaint, no string, flow collection or block scalar was open, for all of them
// end where a line has the indentation of the list or else go on, which at the end
// of a document is an error. What begins the next part is thus indeed an element
// of the list. A part is read like the same lines in the document because nothing
// but indentation, which it keeps, directives, which are refused here, and anchors
// work across elements. An alias whose anchor is in another part is an error, and
// one with an anchor before it in its own part means that one in any case.
func (s Splitter) Split(data []byte, task *background.Task) (l Layout, ok bool) {
	if bytes.HasPrefix(data, []byte("\ufeff%")) {
		return Layout{}, false
	}
	lines := lineReader{data: data}
	for l.Key == 0 {
		task.Step()
		switch text := lines.next(); {
		case len(text) == 0, isDirective(text):
			return Layout{}, false
		case isListKey(text):
			l.Key = lines.read
		}
	}
	var r Run
	began, last := 0, 0 // where the run did, and the last descriptor
	end := func(at int) {
		r.Text = data[began:at]
		l.Runs = append(l.Runs, r)
	}
	for {
		task.Step()
		at, above := lines.at, lines.read
		text := lines.next()
		if len(text) == 0 {
			break
		}
		if isDirective(text) || bytes.HasPrefix(text, []byte("---")) || bytes.HasPrefix(text, []byte("...")) {
			return Layout{}, false // what is read changes, or another document begins
		}
		indent, kind := lineOf(text)
		first := l.Column == 0
		switch {
		case kind == emptyLine:
		case kind == itemLine && first:
			l.Column, l.Head, began, last = indent+1, data[:at], at, at
			r = Run{Count: 1, Lines: above}
		case first, indent+1 < l.Column, kind == otherLine && indent+1 == l.Column:
			return Layout{}, false
		case indent+1 == l.Column:
			if at-began >= largestRun || uint64(r.Count) >= 4*s.Length || s.ends(data[last:at]) {
				end(at)
				r = Run{First: r.First + r.Count, Lines: above}
				began = at
			}
			last = at
			r.Count++
		}
	}
	if l.Column == 0 {
		return Layout{}, false
	}
	end(len(data))
	return l, true
}

// lineReader reads lines.
type lineReader struct {
	data []byte
	at   int // where the next begins
	read int // how many there were
}

// next returns a line with its end; nothing after the last.
func (r *lineReader) next() (text []byte) {
	text = r.data[r.at:]
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		text = text[:i+1]
	}
	r.at += len(text)
	r.read++
	return text
}

// isDirective says whether a line begins as a directive does, which may change what
// tags mean.
func isDirective(line []byte) bool { return line[0] == '%' }

// ends says whether a run ends with this descriptor.
func (s Splitter) ends(text []byte) bool { return maphash.Bytes(s.seed, text)%s.Length == 0 }

// isListKey says whether a line reads "descriptors:" and no more.
func isListKey(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("descriptors:"))
	if !ok {
		return false
	}
	text := bytes.TrimLeft(rest, " ")
	return len(bytes.TrimRight(text, "\r\n")) == 0 || len(text) < len(rest) && text[0] == '#'
}

// lineKind is what a line may be, by how it begins.
type lineKind int

const (
	otherLine lineKind = iota
	emptyLine          // nothing, or a comment
	itemLine           // an element of a list in block style
)

func lineOf(text []byte) (indent int, kind lineKind) {
	for indent < len(text) && text[indent] == ' ' {
		indent++
	}
	text = bytes.TrimRight(text[indent:], "\r\n")
	switch {
	case len(text) == 0, text[0] == '#':
		return indent, emptyLine
	case text[0] == '-' && (len(text) == 1 || text[1] == ' '):
		return indent, itemLine
	}
	return indent, otherLine
}
