package figures_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/bench/figures"
	"github.com/distlimiter/ratelimit/bench/report"
)

const docs = "../../docs/dev"

func TestDocsShowTheFiguresThatAreKept(t *testing.T) {
	data, err := figures.Read(filepath.Join(docs, "performance.json"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(docs, "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	if want, err := data.Update(string(text)); err != nil || want != string(text) {
		t.Errorf("docs/dev/performance.md is out of date (%v): run make performance-docs", err)
	}
}

// Two rounds on one and two processors, and one line that says something else.
const output = `goos: linux
pkg: github.com/distlimiter/ratelimit/bench/libraries
BenchmarkMemory/class=token_bucket/library=distlimiter/keys=10000/decide         	 300000	 100.0 ns/op	 100.0 cpu-ns/op	 90.00 B/key	 0 B/op	 0 allocs/op
BenchmarkMemory/class=token_bucket/library=distlimiter/keys=10000/decide-2       	 300000	 60.0 ns/op	 60.0 cpu-ns/op	 90.00 B/key	 0 B/op	 0 allocs/op
BenchmarkMemory/class=token_bucket/library=distlimiter/keys=1000000/decide         	 300000	 300.0 ns/op	 300.0 cpu-ns/op	 100.4 B/key	 0 B/op	 0 allocs/op
BenchmarkMemory/class=token_bucket/library=throttled/keys=1000000/decide         	 300000	 200.0 ns/op	 200.0 cpu-ns/op	 150.0 B/key	 48 B/op	 2 allocs/op
BenchmarkMemory/class=token_bucket/library=throttled/keys=1000000/decide         	 300000	 220.0 ns/op	 220.0 cpu-ns/op	 150.0 B/key	 48 B/op	 2 allocs/op
BenchmarkRedis/class=token_bucket/library=distlimiter/keys=10000/callers=1         	 5000	 50000 ns/op	 110.0 B/key	 30000 cpu-ns/op	 1.000 reads/op	 15000 redis-ns/op	 10 B/op	 1 allocs/op
BenchmarkRedis/class=token_bucket/library=throttled/keys=10000/callers=1         	 5000	 90000 ns/op	 120.0 B/key	 60000 cpu-ns/op	 2.000 reads/op	 16000 redis-ns/op	 10 B/op	 1 allocs/op
PASS
`

func TestLibraries(t *testing.T) {
	results, err := figures.ParseLibraries(strings.NewReader(output))
	if err != nil {
		t.Fatal(err)
	}
	data := &figures.Data{Libraries: results}
	var b strings.Builder
	if err := data.LibrariesMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	const want = `### In memory

| algorithm | library | 10,000 keys: CPU ns | on 2 cores: ns | 1,000,000 keys: CPU ns | on 2 cores: ns | bytes of a key | |
| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |
| token_bucket | distlimiter | 100 | 60 | 300 | – | 100 |  |
| token_bucket | throttled | – | – | **210** | – | 150 | keys are never forgotten |

### In Redis

| algorithm | library | round trips | one caller waits µs | 64 callers: CPU µs | Redis' CPU µs | bytes of a key | |
| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |
| token_bucket | distlimiter | 1.0 | 50 | – | – | – |  |
| token_bucket | throttled | 2.0 | 90 | – | – | – | several commands, tried again when another replica was faster |
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
	if names, bytes := data.BytesPerKey("token_bucket"); !reflect.DeepEqual(names, []string{"distlimiter", "throttled"}) || bytes[1] != 150 {
		t.Errorf("%v: %v bytes", names, bytes)
	}
	for _, bad := range []string{"BenchmarkMemory/class=x/keys=1 1 5 ns/op\n", "BenchmarkMemory/class=x/library=y/keys=z 1 5 ns/op\n", "BenchmarkMemory one\n"} {
		if _, err := figures.ParseLibraries(strings.NewReader(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestFilesAreReadAsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "figures.json")
	empty, err := figures.Read(path)
	if err != nil || empty.Report != nil {
		t.Fatalf("no file: %+v, %v", empty, err)
	}
	d := &figures.Data{
		Report: &report.Report{
			Machine: "abacus",
			Rows:    []*report.Row{{Server: "x", Samples: []report.Sample{{Answers: 1234567, Seconds: 0.400123456, ServerCPU: 12.3456, P50: 1234.5678, StoreCPU: 0.00012345678}}}},
		},
		Libraries: []figures.Result{{Store: "memory", Figures: map[string]float64{"ns/op": 123.456}}},
	}
	if err := d.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := figures.Read(path)
	if err != nil || !reflect.DeepEqual(got, d) {
		t.Errorf("%v: %+v, wrote %+v", err, got, d)
	}
	want := report.Sample{Answers: 1234567, Seconds: 0.4001, ServerCPU: 12.35, P50: 1235, StoreCPU: 0.000123}
	if s := got.Report.Rows[0].Samples[0]; s != want {
		t.Errorf("%+v, want %+v", s, want)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := figures.Read(path); err == nil || !strings.Contains(err.Error(), "figures.json") {
		t.Errorf("half a file: %v", err)
	}
}

func TestUpdateNeedsItsMarkers(t *testing.T) {
	d := new(figures.Data)
	if _, err := d.Update("# Performance\n"); err == nil || !strings.Contains(err.Error(), "<!-- begin report -->") {
		t.Errorf("%v", err)
	}
	text := "a\n<!-- begin report -->\nold\n<!-- end report -->\nb\n<!-- begin libraries -->\n<!-- end libraries -->\nc\n"
	got, err := d.Update(text)
	if err != nil || strings.Contains(got, "old") || strings.Count(got, "Not measured yet.") != 2 || !strings.HasSuffix(got, "c\n") {
		t.Errorf("%v: %q", err, got)
	}
	if again, err := d.Update(got); err != nil || again != got {
		t.Errorf("%v: not the same when done again: %q", err, again)
	}
}
