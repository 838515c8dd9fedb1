package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/distlimiter/ratelimit/internal/limiter"
)

// TestErrorsOfRequestsNameTheFlag that would prevent them, and only flags that there
// are.
func TestErrorsOfRequestsNameTheFlag(t *testing.T) {
	parser, err := newParser(new(commands))
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]bool{}
	for _, command := range parser.Model.Children {
		for _, group := range command.AllFlags(false) {
			for _, f := range group {
				flags["--"+f.Name] = true
			}
		}
	}
	for option, flag := range optionFlags {
		err := fmt.Errorf("descriptors[0]: %w", &limiter.OptionError{Option: option, Err: errors.New("too much")})
		if got, want := hint(&limiter.RequestError{Err: err}), " (see "+flag+")"; got != want {
			t.Errorf("%s: %q, want %q", option, got, want)
		}
		if !flags[flag] {
			t.Errorf("%s: there is no flag %s", option, flag)
		}
	}
	if got := hint(errors.New("another")); got != "" {
		t.Errorf("an error that names no option: %q", got)
	}
}
