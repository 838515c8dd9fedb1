package plots

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

const docs = "../../docs"

func TestFilesShowWhatTheCodeDoes(t *testing.T) {
	var files []string
	for _, p := range All() {
		files = append(files, p.File)
		want, err := p.SVG()
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(docs, "img", p.File))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/img/%s is out of date (%v): run make plots", p.File, err)
		}
	}
	shows(t, "algorithms.md", files)
}

// shows has a page of the documentation show no drawing but these.
func shows(t *testing.T, page string, files []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(docs, page))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(text), "](img/")[1:] {
		file, _, _ := strings.Cut(part, ")")
		if !slices.Contains(files, file) {
			t.Errorf("docs/%s shows img/%s, which is not drawn", page, file)
		}
	}
}

func TestTrailing(t *testing.T) {
	at := func(seconds ...int) (hits []hit) {
		for _, s := range seconds {
			hits = append(hits, hit{time.Duration(s) * time.Second, true}, hit{time.Duration(s) * time.Second, false})
		}
		return hits
	}
	s := time.Second
	for _, c := range []struct {
		name string
		hits []hit
		want []point
	}{
		{"none", nil, []point{{0, 0}}},
		{"one", at(5), []point{{0, 0}, {5 * s, 1}, {65 * s, 0}}},
		{"leaving before entering", at(5, 65), []point{{0, 0}, {5 * s, 1}, {65 * s, 0}, {65 * s, 1}, {125 * s, 0}}},
		{"overlapping", at(5, 6), []point{{0, 0}, {5 * s, 1}, {6 * s, 2}, {65 * s, 1}, {66 * s, 0}}},
	} {
		if got := trailing(c.hits); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// The traffic brings out what the guide says of each algorithm.
func TestTrafficTellsAlgorithmsApart(t *testing.T) {
	for _, p := range All() {
		hits, err := p.run()
		if err != nil {
			t.Fatal(err)
		}
		most := 0
		for _, pt := range trailing(hits) {
			most = max(most, pt.n)
		}
		want := limit
		switch {
		case p.Params.Algorithm == algo.FixedWindow:
			want = 2 * limit
		case p.Params.Algorithm == algo.SlidingWindow && !p.Params.Strict:
			want = limit * 3 / 2 // when the traffic begins in the middle of a window
		case p.Params.Algorithm == algo.TokenBucket:
			want = limit + burst
		}
		if most < want-1 || most > want {
			t.Errorf("%s: at most %d in a window, want %d", p.title(), most, want)
		}
	}
}

func TestTitle(t *testing.T) {
	all := All()
	if got := all[len(all)-1].title(); got != "hybrid, 60 per minute, burst 20, strict" {
		t.Errorf("got %q", got)
	}
}
