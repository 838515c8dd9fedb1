package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// hostile is text that a client may send in a descriptor.
const hostile = "x\n2026-01-01T00:00:00Z\terror\tforged\r\x1b[2J\u009b31m\x7f\u202e\xff\x00\u2028"

// TestCommandsShowWhatTheyAreGiven has commands print hostile text.
func TestCommandsShowWhatTheyAreGiven(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte("domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: day, requests_per_unit: 1}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"explain", file, "--domain", "edge", "user=" + hostile},
		{"explain", file, "--domain", hostile, "user=x"},
		{"check", hostile},
		{"rules", "list", "--addr", "http://127.0.0.1:1/" + hostile},
		{hostile},
	} {
		var stdout, stderr bytes.Buffer
		execute(args, &stdout, &stderr)
		text := stdout.String() + stderr.String()
		if i := strings.IndexFunc(text, func(c rune) bool { return c != '\n' && c != '\t' && c != '\ufffd' && !unicode.IsGraphic(c) }); i >= 0 || text == "" {
			t.Errorf("%q: %q", args, text)
		}
	}
}
