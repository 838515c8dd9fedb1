package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	located "go.yaml.in/yaml/v4"

	"github.com/distlimiter/ratelimit/internal/config"
)

// SyntaxError returns the problem of a text that gopkg.in/yaml.v3 refuses with err, with
// its usual cause as the remedy. data begins after the given number of lines of the file.
// yaml.v3 knows at most the line of an error. Its successor knows the column too, and is
// used for nothing else.
func SyntaxError(file string, lines int, data []byte, err error) config.Problem {
	pos, what := config.Pos{File: file, Line: 1, Column: 1}, strings.TrimPrefix(err.Error(), "yaml: ")
	if load, ok := errors.AsType[*located.LoadError](locate(data)); ok {
		pos.Line, pos.Column, what = load.Mark.Line, load.Mark.Column, load.Message
		if load.ContextMsg != "" {
			what += " " + load.ContextMsg
		}
		if began := load.ContextMark; began.Line != 0 && began != load.Mark {
			what += fmt.Sprintf(" that began at %d:%d", lines+began.Line, began.Column)
		}
	} else if n, _ := fmt.Sscanf(what, "line %d:", &pos.Line); n == 1 {
		_, what, _ = strings.Cut(what, ": ")
	}
	pos.Line += lines
	remedy := "mend the syntax, there or just above"
	switch {
	case strings.Contains(what, "cannot start any token"):
		remedy = "indent with spaces, not tabs; quote a value that begins with @, % or `"
	case strings.Contains(what, "anchor"), strings.Contains(what, "alias"):
		remedy = `quote a value that begins with * or &, as in "*.example.com"`
	case strings.Contains(what, "mapping values are not allowed"):
		remedy = "quote a value that holds a colon and a space; indent keys of one mapping alike"
	}
	return config.Problem{Pos: pos, What: "not YAML: " + what, Remedy: remedy}
}

// locate returns the first error of data with its position.
func locate(data []byte) error {
	stream := located.NewDecoder(bytes.NewReader(data))
	for {
		var n located.Node
		if err := stream.Decode(&n); err != nil {
			return err
		}
	}
}
