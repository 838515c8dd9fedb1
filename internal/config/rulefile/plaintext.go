package rulefile

import (
	"fmt"
	"unicode/utf8"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
)

// badText returns the position of the first byte that YAML text can't hold. If there is
// none, it reports whether there are line breaks other than \n and \r\n.
func badText(data []byte, task *background.Task) (pos config.Pos, what string, oddBreaks bool) {
	pos = config.Pos{Line: 1, Column: 1}
	for i := 0; i < len(data); {
		c, size := rune(data[i]), 1
		if c >= utf8.RuneSelf {
			c, size = utf8.DecodeRune(data[i:])
		}
		switch {
		case c == utf8.RuneError && size == 1:
			return pos, fmt.Sprintf("the byte 0x%02x is not UTF-8", data[i]), false
		case isControl(c):
			return pos, fmt.Sprintf("the character %U has no place in YAML", c), false
		case c == '\n':
			task.Step()
			pos.Line++
			pos.Column = 0
		case c == '\r':
			oddBreaks = oddBreaks || i+1 == len(data) || data[i+1] != '\n'
		case c == 0x85, c == 0x2028, c == 0x2029:
			oddBreaks = true
		}
		pos.Column++
		i += size
	}
	return pos, "", oddBreaks
}

// isControl reports whether YAML leaves c out of its character set.
func isControl(c rune) bool {
	switch c {
	case '\t', '\n', '\r', 0x85:
		return false
	}
	return c < ' ' || c >= 0x7f && c < 0xa0 || c == 0xfffe || c == 0xffff
}
