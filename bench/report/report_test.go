package report

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/testprogram"
)

// samples with these processor times per request, the store's a tenth of it.
func samples(cpu ...float64) (list []Sample) {
	for i, c := range cpu {
		list = append(list, Sample{
			Answers: 1000, Refused: 100 * i, Seconds: 0.1, ServerCPU: c, StoreCPU: c / 10, P50: 10 * c, P99: 20 * c, P999: 30 * c, Lag: c,
		})
	}
	return list
}

// example has a machine that slows down: medians of ratios must not mind.
func example() *Report {
	s := Scenarios()[0]
	floor := &Row{Scenario: s, Server: FloorSame, Samples: samples(10, 20, 40)}
	tuned := &Row{Scenario: s, Server: FloorTuned, Samples: samples(8, 16, 32)}
	for _, f := range []*Row{floor, tuned} {
		for i := range f.Samples {
			f.Samples[i].StoreCPU = 0
		}
	}
	ours := &Row{Scenario: s, Server: "new", Backend: "redis", Algorithm: "hybrid", Mode: Plain, Samples: samples(15, 30, 60), BytesPerKey: 99.6, AtRest: 34e6, Peak: 47e6}
	return &Report{
		Notes: []string{"no lease today"}, Time: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), Machine: "abacus", Connections: 4, InFlight: 64,
		Rounds: 3, Rows: []*Row{floor, tuned, ours}, Latency: [][]*Row{{floor, ours}}, Rates: [][]*Row{{floor, tuned, ours}},
		Envoy:   []*Row{{Scenario: s, Server: NoFilter, Samples: samples(9, 9, 9)}, ours},
		Freezes: []Freeze{{Server: "new, `on_backend_error: allow`", Frozen: 5 * time.Second, Timeout: 20 * time.Millisecond, Due: 2500, Failed: 25, Prompt: 2400, P50: 2.04, P99: 20, Longest: 27.4, Recovery: 0.125}},
	}
}

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := example().Markdown(&b); err != nil {
		t.Fatal(err)
	}
	const want = `abacus, 2026-11-24. Medians of 3 interleaved rounds; 64 requests in flight on 4 connections where the table does not say otherwise, servers on one core, load and Redis on the other.

no lease today

### 1 descriptor, 10,000 keys

| server | CPU µs per request | × floor | × tuned floor | Redis CPU µs | × floor | requests/s | core busy | over limit | bytes per key |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| floor, same options | 20.0 | 1.00 | 1.25 |  |  | 10000 | 20 % | 10 % |  |
| floor, same options, tuned | 16.0 | 0.80 | 1.00 |  |  | 10000 | 16 % | 10 % |  |
| new: redis, hybrid, plain | 30.0 | 1.50 | 1.88 | 3.0 | 0.15 | 10000 | 30 % | 10 % | 100 |

### Latency at 10000 requests/s, half of what saturates the last row: 1 descriptor, 10,000 keys

| server | p50 µs | p99 µs | × floor | p99.9 µs | × floor | of them the load's own p99 µs |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| floor, same options | 200 | 400 | 1.00 | 600 | 1.00 | 20 |
| new: redis, hybrid, plain | 300 | 600 | 1.50 | 900 | 1.50 | 30 |

### CPU at 10000 requests/s: 1 descriptor, 10,000 keys

| server | CPU µs per request | × tuned floor | Redis CPU µs |
| --- | ---: | ---: | ---: |
| floor, same options | 20.0 | 1.25 |  |
| floor, same options, tuned | 16.0 | 1.00 |  |
| new: redis, hybrid, plain | 30.0 | 1.88 | 3.0 |

### Through Envoy at 10000 requests/s: 1 descriptor, 10,000 keys

| rate limit service | its CPU µs per request | p50 µs | added | p99 µs | added |
| --- | ---: | ---: | ---: | ---: | ---: |
| no rate limit filter | 9.0 | 90 | 0 | 180 | 0 |
| new: redis, hybrid, plain | 30.0 | 300 | 210 | 600 | 420 |

### Resident memory of the process, MB

| server | at rest | at the most |
| --- | ---: | ---: |
| new: redis, hybrid, plain | 34 | 47 |

### Redis frozen for 5s, 500 requests a second

| server | timeout | median, ms | 99th percentile, ms | longest, ms | errors | OK within 20ms | normal again after |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| new, ` + "`on_backend_error: allow`" + ` | 20ms | 2.0 | 20 | 27 | 1 % | 96 % | 0.12 s |
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}

func TestSummaryHasARowForEachLoadAndStore(t *testing.T) {
	r := example()
	first, eight := Scenarios()[0], Scenarios()[1]
	r.Rows[2].Mode = ""
	r.Rows = append(r.Rows,
		&Row{Scenario: first, Server: "new", Backend: "redis", Algorithm: "token_bucket", Samples: samples(12, 24, 48)},
		&Row{Scenario: first, Server: "new", Backend: "memory", Algorithm: "hybrid", Samples: samples(11, 22, 44), BytesPerKey: 150},
		&Row{Scenario: eight, Server: FloorTuned, Samples: samples(10)},
		&Row{Scenario: eight, Server: FloorSame, Samples: samples(20)},
		&Row{Scenario: eight, Server: "new", Backend: "memory", Algorithm: "hybrid", Samples: samples(14)})
	for i := range r.Rows[4].Samples {
		r.Rows[4].Samples[i].StoreCPU = 0
	}
	r.Rows[7].Samples[0].StoreCPU = 0
	var b bytes.Buffer
	if err := r.Summary(&b); err != nil {
		t.Fatal(err)
	}
	const want = `abacus, 2026-11-24. Medians of 3 interleaved rounds; 64 requests in flight on 4 connections where the table does not say otherwise, servers on one core, load and Redis on the other.

no lease today

### CPU of a request

| load | counters in | CPU µs | of the tuned floor | × tuned floor | × floor | Redis' CPU µs | × floor | requests/s |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 1 descriptor, 10,000 keys | redis | 24.0–30.0 | 16.0 | 1.50–1.88 | 1.20–1.50 | 2.4–3.0 | 0.12–0.15 | 10000 |
| 1 descriptor, 10,000 keys | memory | 22.0 | 16.0 | 1.38 | 1.10 |  |  | 10000 |
| 8 descriptors, 10,000 keys each | memory | 14.0 | 10.0 | 1.40 | 0.70 |  |  | 10000 |

### By algorithm: 1 descriptor, 10,000 keys

| algorithm | memory: CPU µs | Redis: CPU µs | Redis' CPU µs | memory: bytes of a key | Redis: bytes of a key |
| --- | ---: | ---: | ---: | ---: | ---: |
| hybrid | 22.0 | 30.0 | 3.0 | 150 | 100 |
| token_bucket |  | 24.0 | 2.4 |  |  |

### Latency at half of the rate that saturates the store: 1 descriptor, 10,000 keys

| requests/s | counters in | p50 µs | p99 µs | × floor | p99.9 µs | × floor |
| ---: | --- | ---: | ---: | ---: | ---: | ---: |
| 10000 | floor, same options | 200 | 400 | 1.00 | 600 | 1.00 |
| 10000 | redis | 300 | 600 | 1.50 | 900 | 1.50 |

### Through Envoy at 10000 requests/s: 1 descriptor, 10,000 keys

| rate limit service | its CPU µs per request | p50 µs | added | p99 µs | added |
| --- | ---: | ---: | ---: | ---: | ---: |
| no rate limit filter | 9.0 | 90 | 0 | 180 | 0 |
| new: redis, hybrid | 30.0 | 300 | 210 | 600 | 420 |
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}

func TestJSONHoldsEverything(t *testing.T) {
	var b bytes.Buffer
	if err := example().JSON(&b); err != nil {
		t.Fatal(err)
	}
	got := new(Report)
	if err := json.Unmarshal(b.Bytes(), got); err != nil || !reflect.DeepEqual(got, example()) {
		t.Errorf("%v: %+v", err, got)
	}
}

func TestBenchmarks(t *testing.T) {
	var b bytes.Buffer
	if err := example().Benchmarks(&b, "new"); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 7 ||
		lines[1] != "BenchmarkServe/scenario=base/backend=redis/algorithm=hybrid/mode=plain 1000 15000 cpu-ns/req 1.5000 x-floor 1500 store-cpu-ns/req" ||
		lines[6] != "BenchmarkLatency/scenario=base/backend=redis/algorithm=hybrid/mode=plain 1000 600000 p50-ns 1200000 p99-ns" {
		t.Errorf("got\n%s", b.String())
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 2}, 2}} {
		if got := middle(c.of); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.of, got, c.want)
		}
	}
}

// programs builds the floor and the service.
func programs(t *testing.T) (floor, ratelimit string) {
	dir := t.TempDir()
	for _, program := range []struct{ dir, name string }{{"..", "floor"}, {"../..", "ratelimit"}} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, program.name), "./cmd/"+program.name)
		cmd.Dir = program.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return filepath.Join(dir, "floor"), filepath.Join(dir, "ratelimit")
}

// The real programs, briefly: everything but the figures must be right.
func TestRun(t *testing.T) {
	floor, ratelimit := programs(t)
	envoy, err := exec.LookPath("envoy")
	if err != nil {
		if envoy, err = filepath.Abs("../../.cache/bin/envoy"); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Run(t.Context(), Options{
		Floor: floor, TunedFloor: floor, Builds: []Build{{Name: "ratelimit", Path: ratelimit}},
		Backends: []string{"memory"}, Scenarios: []string{"base", "refused", "many", "holds"},
		Latency: true, Envoy: envoy, EnvoyRate: 200, Rounds: 1, Warmup: 10 * time.Millisecond, Duration: 100 * time.Millisecond,
		Connections: 2, InFlight: 16, Progress: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, row := range r.Rows {
		names = append(names, row.Name())
		if len(row.Samples) != 1 {
			t.Fatalf("%s: %d samples", row.Name(), len(row.Samples))
		}
		s := row.Samples[0]
		if s.Answers == 0 || s.ServerCPU <= 0 || s.Seconds < 0.1 || s.P50 <= 0 || s.P99 < s.P50 {
			t.Errorf("%s: %+v", row.Name(), s)
		}
		if admitted := row.Scenario.Name == "base" || row.Scenario.Name == "holds" || row.isFloor(); admitted && s.Refused > 0 {
			t.Errorf("%s: %d of %d refused", row.Name(), s.Refused, s.Answers)
		}
	}
	want := []string{
		"scenario=base/server=floor-default-options", "scenario=base/server=floor-same-options", "scenario=base/server=floor-same-options-tuned",
		"scenario=base/backend=memory/algorithm=fixed_window", "scenario=base/backend=memory/algorithm=sliding_window",
		"scenario=base/backend=memory/algorithm=sliding_log", "scenario=base/backend=memory/algorithm=token_bucket",
		"scenario=base/backend=memory/algorithm=leaky_bucket", "scenario=base/backend=memory/algorithm=hybrid",
		"scenario=refused/server=floor-default-options", "scenario=refused/server=floor-same-options", "scenario=refused/server=floor-same-options-tuned",
		"scenario=refused/backend=memory/algorithm=token_bucket",
		"scenario=many/server=floor-default-options", "scenario=many/server=floor-same-options", "scenario=many/server=floor-same-options-tuned",
		"scenario=many/backend=memory/algorithm=token_bucket",
		"scenario=holds/server=floor-default-options", "scenario=holds/server=floor-same-options", "scenario=holds/server=floor-same-options-tuned",
		"scenario=holds/backend=memory/algorithm=token_bucket", "scenario=holds/backend=memory/algorithm=concurrency",
	}
	if !reflect.DeepEqual(names, want) {
		t.Errorf("got %q", names)
	}
	if len(r.Latency) != 1 || len(r.Latency[0]) != 4 || len(r.Envoy) != 5 {
		t.Fatalf("latency %v, Envoy %v: want the floors and the service, and once nothing", r.Latency, r.Envoy)
	}
	for _, row := range append(r.Envoy, r.Latency[0]...) {
		s := row.Samples[0]
		if s.Answers == 0 || s.Refused > 0 || s.P50 <= 0 || s.Lag <= 0 || s.Lag > s.P999 {
			t.Errorf("open loop: %s: %+v", row.title(), s)
		}
		last := Quantile{}
		for _, q := range row.Distribution {
			if q.Percent < last.Percent || q.Micros < last.Micros {
				t.Errorf("open loop: %s: %v after %v", row.title(), q, last)
			}
			last = q
		}
		if last.Micros < s.P99 || len(row.Distribution) != len(percents) {
			t.Errorf("open loop: %s: a distribution up to %v, p99 %v", row.title(), last, s.P99)
		}
	}
}

// While Redis is frozen, each rule answers as it says.
func TestFreeze(t *testing.T) {
	testprogram.Path(t, "redis-server")
	floor, ratelimit := programs(t)
	r, err := Run(t.Context(), Options{
		Floor: floor, TunedFloor: floor, Builds: []Build{{Name: "ratelimit", Path: ratelimit}}, Backends: []string{"redis"},
		Scenarios: []string{"base"}, Algorithms: []string{"fixed_window"}, Rounds: 1, Duration: 100 * time.Millisecond,
		Freeze: []time.Duration{20 * time.Millisecond}, Frozen: time.Second, Connections: 2, InFlight: 16, Progress: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, answer := range []string{"error", "allow", "local"} {
		f := r.Freezes[i]
		if f.Server != "ratelimit, `on_backend_error: "+answer+"`" || f.Due < 100 || f.P50 <= 0 || f.Longest < f.P99 {
			t.Errorf("%s: %+v", answer, f)
		}
		if answer == "error" && f.Prompt > 0 || answer != "error" && f.Prompt == 0 {
			t.Errorf("%s: %d answers of %d are OK and prompt", answer, f.Prompt, f.Due)
		}
	}
}

func TestOthersAreKnownByTheirNames(t *testing.T) {
	for service, variants := range map[string]int{"envoyproxy/ratelimit": 2, "limitador": 3, "gloo": 0} {
		others, err := Others(service, "program")
		if len(others) != variants || (err == nil) != (variants > 0) {
			t.Errorf("%s: %d, %v", service, len(others), err)
		}
	}
}

// What tells the rows of a hot key apart is how they are started.
func TestHotKeyModes(t *testing.T) {
	b := &bench{Options: Options{Backends: []string{"memory", "redis"}, Builds: []Build{{Name: "x"}}}}
	hot := Scenarios()[2]
	rows := b.rows(hot)
	if len(rows) != 4*6 || rows[0].Mode != "" || rows[6].Mode != Plain || rows[23].Mode != Leased {
		t.Errorf("%d rows: %+v", len(rows), rows)
	}
	for _, row := range rows {
		path, err := row.rules(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil || strings.Contains(string(text), "lease:") != (row.Mode == Leased) {
			t.Errorf("%s: %v\n%s", row.Name(), err, text)
		}
	}
	if n := len(b.rows(Scenarios()[0])); n != 2*6 {
		t.Errorf("%d rows of the first scenario", n)
	}
}
