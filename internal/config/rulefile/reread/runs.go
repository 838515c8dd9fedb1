package reread

import (
	"bytes"
	"hash/maphash"

	"github.com/distlimiter/ratelimit/internal/background"
)

// The YAML parser takes a second for a document of a hundred thousand rules, and mostly
// one line of it has changed. So documents are parsed in runs of whole descriptors, and
// unchanged runs are not parsed again. This also saves memory: the YAML nodes of a run,
// some twenty times its size, are garbage before the next run is parsed.

// Run is a sequence of top-level descriptors of a document. Parsed by itself, its text is
// a list of Count descriptors.
type Run struct {
	Text  []byte
	First int // index of the first
	Count int
	Lines int // of the document before the text
}

// Layout describes the text of a document whose list of descriptors comes last and is in
// block style. Most documents are written so.
type Layout struct {
	Head []byte // the text before the first descriptor; ends with the key descriptors
	Key  int    // the line of that key, from 1
	Runs []Run
	// column is where all top-level descriptors begin, from 1.
	Column int
}

// The length of runs is about 32 descriptors on average. So little is parsed again when
// one has changed, and many share the cost of beginning a document.
const (
	RunLength  = 32
	largestRun = 64 << 10 // bytes after which a run takes no further descriptors
)

// Splitter cuts documents into runs. Mostly the text of a descriptor alone decides whether
// a run ends with it, so that a change moves no other ends.
type Splitter struct {
	seed   maphash.Seed
	Length uint64 // average length of runs; the most is four times that; 0: don't split
}

// NewSplitter returns a splitter with the average length RunLength.
func NewSplitter() Splitter { return Splitter{maphash.MakeSeed(), RunLength} }

// Split returns the layout of a document, with its runs, and reports whether the document
// can be split. It looks only at how lines begin, so the apparent start of a descriptor
// may be in the middle of a string. Only parsing the parts proves the layout. It is right
// if each part alone is a document without error, and the last key of the first part is
// descriptors, without a value. The proof has two steps.
//
// First, each part begins with an element of the list. YAML is read from left to right. A
// string, flow collection or block scalar either ends at a line with the indentation of
// the list, or goes on. If it goes on at the end of a document, that is an error. So if
// the parser reaches the end of a part without an error, none of them was open.
//
// Second, a part is read like the same lines in the document. Only indentation, directives
// and anchors work across elements. A part keeps its indentation, and Split refuses
// directives. An alias whose anchor is in another part is an error. An alias whose anchor
// comes before it in its own part means that anchor in any case.
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
	began, last := 0, 0 // start of the run, and of its last descriptor
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
			return Layout{}, false // a directive, or another document
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
	at   int // start of the next line
	read int // number of lines read
}

// next returns the next line with its line break; empty after the last.
func (r *lineReader) next() (text []byte) {
	text = r.data[r.at:]
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		text = text[:i+1]
	}
	r.at += len(text)
	r.read++
	return text
}

// isDirective reports whether a line begins like a directive, which may change the meaning
// of tags.
func isDirective(line []byte) bool { return line[0] == '%' }

// ends reports whether a run ends with this descriptor.
func (s Splitter) ends(text []byte) bool { return maphash.Bytes(s.seed, text)%s.Length == 0 }

// isListKey reports whether a line reads only "descriptors:".
func isListKey(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("descriptors:"))
	if !ok {
		return false
	}
	text := bytes.TrimLeft(rest, " ")
	return len(bytes.TrimRight(text, "\r\n")) == 0 || len(text) < len(rest) && text[0] == '#'
}

// lineKind classifies a line by how it begins.
type lineKind int

const (
	otherLine lineKind = iota
	emptyLine          // empty, or a comment
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
