// Package spell owns what to suggest for a word that is written wrong.
package spell

import (
	"fmt"
	"strings"
)

// Suggest returns the remedy for a word that is not one of those known: the one most
// like it, if any is, or else all of them.
func Suggest(word string, known []string) string {
	word = strings.ToLower(word)
	best, least := "", 1+len(word)/3
	for _, k := range known {
		d := distance(word, k)
		if len(word) > 2 && strings.HasPrefix(k, word) {
			d = 1
		}
		if d <= least {
			best, least = k, d-1
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "write one of " + strings.Join(known, ", ")
}

// distance is how many bytes must be inserted, deleted or replaced to make b of
// a, counted no further than need be to tell that they are far apart.
func distance(a, b string) int {
	if len(a) > 2*len(b) || len(b) > 2*len(a) {
		return len(a) + len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
