package reload

import (
	"strings"
	"testing"
	"time"
)

func TestClassify(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	samples := []sample{{at(0), 100}, {at(10), 200}, {at(19), 300}, {at(20), 400}, {at(35), 500}, {at(40), 600}}
	r := classify(100, samples, []attempt{
		{Time: at(30), Duration: 10 * time.Millisecond, Outcome: "loaded"},
		{Time: at(10), Duration: 10 * time.Millisecond, Outcome: "loaded"},
		{Time: at(40), Duration: 10 * time.Millisecond, Outcome: "failed"},
		{Time: at(-10), Duration: time.Minute, Outcome: "loaded"}, // before measuring
	})
	if len(r.Reloads) != 2 || r.During.TotalCount() != 3 || r.During.Max() != 500 || r.During.Min() != 200 ||
		r.Between.TotalCount() != 3 || r.Between.Max() != 600 || r.Between.Min() != 100 {
		t.Errorf("%d reloads, during %d answers of %d to %d, between %d of %d to %d", len(r.Reloads),
			r.During.TotalCount(), r.During.Min(), r.During.Max(), r.Between.TotalCount(), r.Between.Min(), r.Between.Max())
	}
	var out strings.Builder
	if err := r.Write(&out); err != nil || !strings.HasPrefix(out.String(), "2 reloads at 100 requests a second: 10ms on average") {
		t.Errorf("%v: %s", err, out.String())
	}
	if err := classify(100, samples, nil).Write(&out); err == nil {
		t.Error("without reloads: no error")
	}
}
