// Package visible makes text from others safe to show on a terminal and in the log:
// every character is visible, and none controls the terminal.
package visible

import (
	"fmt"
	"io"
	"unicode/utf8"
)

// Writer is a writer through which no text can control a terminal. Descriptors, names
// of rules and answers of other servers may hold escape sequences. Writer escapes
// control characters, characters that change the direction of text, and bytes that are
// not UTF-8, in the form \u001b. Inside strings of JSON that form keeps their meaning.
type Writer struct {
	To io.Writer
	// OneLine is for logs, where each write is one line. It escapes every line end but
	// the last, so that no text can forge lines.
	OneLine bool
}

// Write implements io.Writer. Each call writes whole characters.
func (v Writer) Write(text []byte) (int, error) {
	var out []byte // nil as long as nothing needs escaping
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
	return c < 0xa0 || // C1, which is equivalent to ESC and another character
		c == 0x061c || c >= 0x200e && c <= 0x200f || c >= 0x2028 && c <= 0x202e || c >= 0x2066 && c <= 0x2069
}
