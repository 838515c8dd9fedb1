// Package visible owns what others' words look like on a terminal and in the log:
// all of them are seen, and none does anything.
package visible

import (
	"fmt"
	"io"
	"unicode/utf8"
)

// Writer is a writer on which no text controls a terminal: descriptors, names of
// rules and what other servers answer are others' words, and may hold escape
// sequences. It writes control characters, those that turn the direction of text,
// and bytes that are no UTF-8 as \u001b; inside strings of JSON they stay what
// they were.
type Writer struct {
	To io.Writer
	// OneLine is for logs, of which each write is a line: only the last line end
	// stays one, so that nobody makes up lines.
	OneLine bool
}

// Write implements io.Writer. Each call writes whole characters.
func (v Writer) Write(text []byte) (int, error) {
	var out []byte // nil as long as all of it can stay
	kept := 0
	for i := 0; i < len(text); {
		c, size := rune(text[i]), 1
		if c >= utf8.RuneSelf {
			c, size = utf8.DecodeRune(text[i:])
		}
		if v.hides(c, size) && !(c == '\n' && i == len(text)-1) {
			out = fmt.Appendf(append(out, text[kept:i]...), `\u%04x`, c)
			kept = i + size
		}
		i += size
	}
	if out == nil {
		return v.To.Write(text)
	}
	if _, err := v.To.Write(append(out, text[kept:]...)); err != nil {
		return 0, err
	}
	return len(text), nil
}

// hides reports whether c could control a terminal.
func (v Writer) hides(c rune, size int) bool {
	switch {
	case c == '\n':
		return v.OneLine
	case c == '\t':
		return false
	case c == utf8.RuneError:
		return size == 1
	case c < 0x80:
		return c < ' ' || c == 0x7f
	}
	return c < 0xa0 || // C1, to which ESC and another character are the same
		c == 0x061c || c >= 0x200e && c <= 0x200f || c >= 0x2028 && c <= 0x202e || c >= 0x2066 && c <= 0x2069
}
