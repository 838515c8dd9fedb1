package watch

import (
	"strings"
	"testing"
	"time"
)

// A round that was slow for all changes no ratio.
func TestRatiosAreThoseWithinRounds(t *testing.T) {
	us := time.Microsecond
	r := Result{Watchers: []int{0, 3}, CPU: [][]time.Duration{{10 * us, 40 * us, 10 * us}, {11 * us, 44 * us, 11 * us}}}
	var out strings.Builder
	if err := r.Write(&out); err != nil || !strings.HasSuffix(out.String(), "| 0 | 10.00 µs | 1.00 × |\n| 3 | 11.00 µs | 1.10 × |\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
