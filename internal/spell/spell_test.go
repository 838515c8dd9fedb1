package spell_test

import (
	"testing"

	"github.com/distlimiter/ratelimit/internal/spell"
)

func TestSuggest(t *testing.T) {
	known := []string{"serve", "check", "explain"}
	for word, want := range map[string]string{
		"chekc": `did you mean "check"?`,
		"serv":  `did you mean "serve"?`,
		"EXP":   `did you mean "explain"?`,
		"stop":  "write one of serve, check, explain",
		"":      "write one of serve, check, explain",
	} {
		if got := spell.Suggest(word, known); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}
