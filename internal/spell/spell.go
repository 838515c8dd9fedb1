// Package spell measures how similar two texts are, and suggests a correction for a
// misspelt word.
package spell

import (
	"fmt"
	"strings"
)

// Suggest returns the remedy for an unknown word: the most similar known word, or, if
// none is similar, all of them.
func Suggest(word string, known []string) string {
	word = strings.ToLower(word)
	best, least := "", 1+len(word)/3
	for _, k := range known {
		d := len(word) + len(k) // far apart
		if len(word) <= 2*len(k) && len(k) <= 2*len(word) {
			d = Distance(word, k, least+1)
		}
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

// MaxCompared is how many bytes of a text are compared.
const MaxCompared = 64

// Distance returns how many bytes must be inserted, removed or replaced to make a
// into b (Levenshtein), or limit if it is not less.
func Distance(a, b string, limit int) int {
	a, b = a[:min(len(a), MaxCompared)], b[:min(len(b), MaxCompared)]
	if max(len(a)-len(b), len(b)-len(a)) >= limit {
		return limit
	}
	var row [MaxCompared + 1]int // one row of the matrix: the distance from a[:i] to b[:j]
	for j := range len(b) + 1 {
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
	return min(row[len(b)], limit)
}
