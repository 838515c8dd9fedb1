package chaos

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

var (
	seed     = flag.Uint64("seed", 0, "of the first run, the next ones follow; 0 draws one")
	duration = flag.Duration("duration", 0, "for how long to begin runs; 0 for one short run")
	length   = flag.Duration("length", 20*time.Second, "of the traffic of a run")
)

// quick is the length of the run in make test.
const quick = 6 * time.Second

func TestMain(m *testing.M) {
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxiproxy's toxics trace themselves
	os.Exit(harness.Main(m))
}

// TestChaos makes runs, each from a seed of its own.
func TestChaos(t *testing.T) {
	next, until, traffic := *seed, time.Now().Add(*duration), *length
	if next == 0 {
		next = 1 + uint64(rand.Uint32())
	}
	if *duration == 0 {
		traffic = quick
	}
	var all summary
	defer func() { fmt.Println(&all) }()
	for ; ; next++ {
		t.Run(fmt.Sprint("seed=", next), func(t *testing.T) {
			p := newPlan(next, traffic)
			all.runs++ // before it may fail
			defer func() {
				if t.Skipped() {
					all.inconclusive++
				}
			}()
			rec, v := run(t, p)
			all.add(rec, v)
			t.Logf("%s, %s: %d calls, %d hits admitted, %d refused, %d errors, %d without the store, %d by leases that exceeded a limit by %d, %d counters, fullest %.2f, %d holds granted, %d at once, recovered in %v, machine stalled %d times",
				p.store(), p.front, len(rec.calls), v.admitted, v.refused, v.errors, v.without, v.leased, v.ahead, v.counters, v.fullest, v.granted, v.inFlight, v.recovery.Round(time.Millisecond), v.stalls)
			if v.slowest != nil {
				t.Logf("the last answer without the store after a fault: %v", v.slowest)
			}
			if len(v.findings) > 0 {
				rec.print(os.Stdout, v) // and the services what they logged, as the test has failed
				t.Errorf("%d findings; again with: go test ./test/chaos -run TestChaos -seed %d -duration 1s -length %v", len(v.findings), next, traffic)
			}
		})
		if t.Failed() || !time.Now().Before(until) {
			return
		}
	}
}

// summary is a line for docs/dev/reliability.md.
type summary struct {
	runs, calls, counters, errors, refused, findings, stalls int
	leased, granted, inFlight                                int
	inconclusive                                             int // of runs
	admitted, ahead                                          int64
	faults, came                                             map[string]int
	lives                                                    map[behaviour]int
	recovery                                                 time.Duration
}

func (s *summary) add(r *record, v *verdict) {
	s.calls += len(r.calls)
	s.counters += v.counters
	s.errors += v.errors
	s.refused += v.refused
	s.leased += v.leased
	s.granted += v.granted
	s.inFlight = max(s.inFlight, v.inFlight)
	s.ahead = max(s.ahead, v.ahead)
	s.admitted += v.admitted
	s.findings += len(v.findings)
	s.stalls += v.stalls
	s.recovery = max(s.recovery, v.recovery)
	if s.faults == nil {
		s.faults, s.came, s.lives = map[string]int{}, map[string]int{}, map[behaviour]int{}
	}
	for does, n := range r.lives {
		s.lives[does] += n
	}
	for _, what := range r.came {
		s.came[what]++
	}
	for _, e := range r.plan.events {
		if e.kind != storeHeal && e.kind != replicaStart {
			s.faults[e.kind]++
		}
	}
}

// String is a row of a table, with the faults by kind after it.
func (s *summary) String() string {
	total, kinds := 0, []string(nil)
	for _, kind := range slices.Sorted(maps.Keys(s.faults)) {
		total += s.faults[kind]
		kinds = append(kinds, fmt.Sprintf("%s %d", kind, s.faults[kind]))
	}
	for _, what := range slices.Sorted(maps.Keys(s.came)) {
		kinds = append(kinds, fmt.Sprintf("%s %d", what, s.came[what]))
	}
	var lives []string
	for _, does := range slices.Sorted(maps.Keys(s.lives)) {
		lives = append(lives, fmt.Sprintf("%s %d", does, s.lives[does]))
	}
	return fmt.Sprintf("| runs | steps | hits admitted | refused | by leases | errors, all with a reason | counters | faults | longest recovery | machine stalled | violations |\n"+
		"| %d | %d | %d | %d | %d | %d | %d | %d | %v | %d | %d |\nfaults: %s; leases exceeded a limit by at most %d; inconclusive runs: %d\n"+
		"holds granted: %d, at most %d at once; requests that hold: %s",
		s.runs, s.calls, s.admitted, s.refused, s.leased, s.errors, s.counters, total, s.recovery.Round(time.Millisecond), s.stalls, s.findings, strings.Join(kinds, ", "), s.ahead, s.inconclusive,
		s.granted, s.inFlight, strings.Join(lives, ", "))
}
