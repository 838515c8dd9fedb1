package reread

import (
	"bytes"

	"github.com/distlimiter/ratelimit/internal/background"
)

// MaxDocuments bounds the documents of one source.
const MaxDocuments = 10000

// Document is one YAML document of a source.
type Document struct {
	Data  []byte
	Lines int // of the source before the document
}

// Cut returns the documents of a source. It leaves out empty ones, unless all are empty.
//
// It looks only at lines that begin with --- or ...: YAML does not allow such lines inside
// a document, not even in a quoted string or a block scalar. Cut does not see a document
// that begins after a line break other than \n, or one beyond MaxDocuments. It stays part
// of the document before it, where reading it fails.
func Cut(data []byte, task *background.Task) []Document {
	if !bytes.Contains(data, []byte("\n---")) && !bytes.Contains(data, []byte("\n...")) {
		return []Document{{Data: data}}
	}
	var spans []Document
	lines := lineReader{data: data}
	var s Document
	began := 0
	// started: a marker began this document. written: it is not empty.
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

// marker reports whether a line begins with a marker between documents, and returns the
// rest of the line.
func marker(line []byte, mark string) (rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(line, []byte(mark))
	return rest, ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// isBlank reports whether a line is empty or holds only a comment.
func isBlank(line []byte) bool {
	line = bytes.TrimLeft(line, " \t\r\n")
	return len(line) == 0 || line[0] == '#'
}
