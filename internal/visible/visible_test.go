package visible_test

import (
	"bytes"
	"testing"

	"github.com/distlimiter/ratelimit/internal/visible"
)

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "",
		"plain\ttext, ünï, 日本\n": "plain\ttext, ünï, 日本\n",
		"two\nlines\n":           "two\nlines\n",
		"\x1b[31mred\x1b[0m":     `\u001b[31mred\u001b[0m`,
		"a\rb\x00\x07\x7f":       `a\u000db\u0000\u0007\u007f`,
		"\u009b31m\u0085":        `\u009b31m\u0085`,
		"abc\u202edcb\u2066":     `abc\u202edcb\u2066`,
		"\u2028x\u200f\u061c":    `\u2028x\u200f\u061c`,
		"\xff\xc2":               `\ufffd\ufffd`,
		"\ufffd is a character":  "\ufffd is a character",
	} {
		var out bytes.Buffer
		if n, err := (visible.Writer{To: &out}).Write([]byte(text)); n != len(text) || err != nil || out.String() != want {
			t.Errorf("%q: %d, %v, %q; want %q", text, n, err, out.String(), want)
		}
	}
	var out bytes.Buffer
	if _, err := (visible.Writer{To: &out, OneLine: true}).Write([]byte("one\ntwo\n\n")); err != nil || out.String() != `one\u000atwo\u000a`+"\n" {
		t.Errorf("one line: %q, %v", out.String(), err)
	}
}
