package reread

import (
	"bytes"

	"github.com/distlimiter/ratelimit/internal/background"
)

// MaxDocuments is how many documents one source may hold.
const MaxDocuments = 10000

// Document is one YAML document of a source.
type Document struct {
	Data  []byte
	Lines int // before it
}

// Cut returns the documents of a source without those in which nothing is written,
// unless that is all there is.
//
// It looks only at lines that begin with --- or ...: YAML allows them nowhere in a
// document, not even in a quoted string or a block scalar. What it does not see, a
// document that begins after a line break other than \n or that is one too many, stays
// part of the one before it, where reading it fails.
func Cut(data []byte, task *background.Task) []Document {
	if !bytes.Contains(data, []byte("\n---")) && !bytes.Contains(data, []byte("\n...")) {
		return []Document{{Data: data}}
	}
	var spans []Document
	lines := lineReader{data: data}
	var s Document
	began := 0
	// started: this document is marked as begun. written: there is something in it.
	started, written := false, false
	end := func(at, above int) {
		if s.Data = data[began:at]; written {
			spans = append(spans, s)
		}
		s, began = Document{Lines: above}, at
		started, written = false, false
	}
	for {
		task.Step()
		at, above := lines.at, lines.read
		line := lines.next()
		if len(line) == 0 || len(spans) == MaxDocuments-1 {
			break
		}
		rest, begins := marker(line, "---")
		_, ends := marker(line, "...")
		switch {
		case begins:
			if started || written {
				end(at, above)
			}
			started, written = true, !isBlank(rest)
		case ends:
			end(lines.at, lines.read)
		case !isBlank(line) && (started || !isDirective(line)):
			written = true
		}
	}
	if s.Data = data[began:]; written || len(spans) == MaxDocuments-1 {
		spans = append(spans, s)
	}
	if spans == nil {
		return []Document{{Data: data}}
	}
	return spans
}

// marker reports whether a line begins with a marker between documents, and returns
// what follows it there.
func marker(line []byte, mark string) (rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(line, []byte(mark))
	return rest, ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// isBlank reports whether nothing is written in a line but a comment.
func isBlank(line []byte) bool {
	line = bytes.TrimLeft(line, " \t\r\n")
	return len(line) == 0 || line[0] == '#'
}
