package prefix_test

import (
	"math/bits"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/match/prefix"
)

// text counts how often a look-up cuts it.
type text string

var cuts int

func (t text) Len() int { return len(t) }

func (t text) Cut(n int) text {
	cuts++
	return t[:n]
}

func likeAScan(t *rapid.T) {
	letters := rapid.SampledFrom([]string{"a", "ab", "abc"}).Draw(t, "letters")
	some := func(most int) *rapid.Generator[text] {
		return rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte(letters)), 0, most), func(b []byte) text { return text(b) })
	}
	prefixes := rapid.SliceOfNDistinct(some(20), 0, 60, rapid.ID).Draw(t, "prefixes")
	lengths := map[int]bool{}
	for _, p := range prefixes {
		lengths[len(p)] = true
	}
	longest := func(s text, but int) int {
		best := -1
		for i, p := range prefixes {
			if i != but && strings.HasPrefix(string(s), string(p)) && (best < 0 || len(p) > len(prefixes[best])) {
				best = i
			}
		}
		return best
	}
	table := prefix.New(prefixes, nil)
	for i, p := range prefixes {
		if got, want := table.Parent(i), longest(p, i); got != want {
			t.Fatalf("%q: the parent of %q is %d, want %d", prefixes, p, got, want)
		}
	}
	for _, s := range rapid.SliceOfN(some(30), 1, 30).Draw(t, "texts") {
		cuts = 0
		got, want := table.Longest(s), longest(s, -1)
		if got != want {
			t.Fatalf("%q: the longest of %q is %d, want %d", prefixes, s, got, want)
		}
		if most := bits.Len(uint(len(lengths))); cuts > most {
			t.Fatalf("%d probes for %d lengths, want at most %d", cuts, len(lengths), most)
		}
	}
}

func TestLongest(t *testing.T) { rapid.Check(t, likeAScan) }

func FuzzLongest(f *testing.F) { f.Fuzz(rapid.MakeFuzz(likeAScan)) }
