package docs

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

var update = flag.Bool("update", false, "write the tables that the code gives into algorithms.md")

// TestSmallLimits compares the tables of algorithms.md that stand between its two
// marks with what the algorithms admit.
func TestSmallLimits(t *testing.T) {
	const file, begin, end = "algorithms.md", "<!-- small limits: go test ./docs -update -->\n", "<!-- end of small limits -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	got, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no %q and %q", file, begin, end)
	}
	want := "\n"
	for _, c := range clients {
		want += c.name + ":\n\n" + smallLimits(t, c.share) + "\n"
	}
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("%s differs from what the code gives; run go test ./docs -update. The code gives\n%s", file, want)
	}
	if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// clients are the clients of the tables; share is the part of its limit that one gets.
var clients = []struct {
	name  string
	share func(*testing.T, *algo.Limit) float64
}{
	{"A greedy client, which asks all the time", greedy},
	{"A steady client 5 % below the limit, for which 95 % is all that it asks for", steady},
	{"The most that comes in one trailing window, of a client that takes all just before the end of a window and then waits", bunching},
}

// smallLimits returns a table of the shares that a client gets of small limits per second.
func smallLimits(t *testing.T, share func(*testing.T, *algo.Limit) float64) string {
	t.Helper()
	columns := []algo.Params{
		{Algorithm: algo.SlidingWindow},
		{Algorithm: algo.Hybrid},
		{Algorithm: algo.SlidingWindow, Strict: true},
		{Algorithm: algo.Hybrid, Strict: true},
		{Algorithm: algo.SlidingLog},
	}
	var b strings.Builder
	b.WriteString("| limit |")
	for _, p := range columns {
		b.WriteString(" `" + p.Algorithm.String() + "`")
		if p.Strict {
			b.WriteString(" strict")
		}
		b.WriteString(" |")
	}
	b.WriteString("\n| --: |" + strings.Repeat(" --: |", len(columns)) + "\n")
	for _, limit := range []uint32{1, 2, 3, 5, 10, 20} {
		fmt.Fprintf(&b, "| %d/s |", limit)
		for _, p := range columns {
			p.Limit, p.Window = limit, time.Second
			l, err := algo.New(p)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, " %.0f %% |", 100*share(t, l))
		}
		b.WriteString("\n")
	}
	return b.String()
}

const (
	epoch   = 1_800_000_000_000_000 // µs: a multiple of a second
	second  = 1_000_000             // µs
	seconds = 1000                  // for which a client calls
)

// greedy asks all the time. After a refusal nothing passes before the wait that the
// refusal names.
func greedy(_ *testing.T, l *algo.Limit) float64 {
	var state algo.State
	admitted := 0
	for now := int64(epoch); now < epoch+seconds*second; {
		var d algo.Decision
		if state, d = l.Step(state, now, 1); d.Allowed {
			admitted++
			continue
		}
		now += d.RetryAfter.Microseconds()
	}
	return float64(admitted) / float64(l.Params().Limit) / seconds
}

// steady sends its hits evenly, 5 % more slowly than the limit.
func steady(_ *testing.T, l *algo.Limit) float64 {
	var state algo.State
	hits := int64(l.Params().Limit) * seconds * 95 / 100
	admitted := 0
	for i := range hits {
		var d algo.Decision
		if state, d = l.Step(state, epoch+i*seconds*second/hits, 1); d.Allowed {
			admitted++
		}
	}
	return float64(admitted) / float64(l.Params().Limit) / seconds
}

// bunching takes all remaining hits just before the end of a window, and takes all again as
// late as possible while both are in one trailing window.
func bunching(t *testing.T, l *algo.Limit) float64 {
	var state algo.State
	admitted := int64(0)
	for _, now := range []int64{epoch + second - 1, epoch + 2*second - 2} {
		_, look := l.Step(state, now, 0)
		if look.Remaining <= 0 {
			continue
		}
		var d algo.Decision
		if state, d = l.Step(state, now, look.Remaining); !d.Allowed {
			t.Fatalf("%d remain and do not pass", look.Remaining)
		}
		admitted += look.Remaining
	}
	return float64(admitted) / float64(l.Params().Limit)
}
