package pages

import (
	"slices"
	"testing"
)

func TestCommandsOfABlock(t *testing.T) {
	page := "text\n\n```console\n$ first one \\\n    goes on\nprinted\n\n  more\n$ second\n```\n\n1. a list\n\n   ```sh\n   # why\n   third   # and why\n\n   fourth\n   ```\n\n```yaml\na: b\n```\n"
	var got []command
	for _, b := range blocks(page) {
		if b.language != "yaml" {
			got = append(got, commands(b)...)
		}
	}
	want := []command{
		{4, "first one \\\n    goes on\n", "printed\n\n  more\n", true},
		{9, "second\n", "", true},
		{16, "third   # and why\n", "", false},
		{18, "fourth\n", "", false},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestWhatAPageShows(t *testing.T) {
	for _, c := range []struct {
		shown, output string
		want          bool
	}{
		{"a\nb\n", "a\nb\n", true},
		{"a\nb\n", "a\nb", true},
		{"a\n", "a\r\n", true},
		{"a\n", "a\nb\n", false},
		{"a\nb\n", "a\n", false},
		{"took … ms\n", "took 12.5 ms\n", true},
		{"took … ms\n", "took 12\n.5 ms\n", false},
		{"a\n…\nd\n", "a\nb\nc\nd\n", true},
		{"a\n…\nd\n", "a\nd\n", true},
		{"a\n…\n", "a\nb\nc\n", true},
		{"a.c\n", "abc\n", false},
		{"", "", true},
		{"", "a\n", false},
	} {
		if got := shows(c.shown, c.output); got != c.want {
			t.Errorf("shows(%q, %q) = %v", c.shown, c.output, got)
		}
	}
}
