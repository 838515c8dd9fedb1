package plots

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/distlimiter/ratelimit/bench/figures"
	"github.com/distlimiter/ratelimit/bench/report"
)

func TestPerformanceFilesShowTheFiguresThatAreKept(t *testing.T) {
	data, err := figures.Read(filepath.Join(docs, "dev", "performance.json"))
	if err != nil {
		t.Fatal(err)
	}
	drawings, err := Performance(data)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, d := range drawings {
		files = append(files, d.File)
		got, err := os.ReadFile(filepath.Join(docs, "dev", "img", d.File))
		if err != nil || !bytes.Equal(got, d.SVG) {
			t.Errorf("docs/dev/img/%s is out of date (%v): run make performance-docs", d.File, err)
		}
	}
	shows(t, "dev/performance.md", files)
}

func TestPerformance(t *testing.T) {
	base, hot, million := report.Scenarios()[0], report.Scenarios()[2], report.Scenarios()[3]
	row := func(s report.Scenario, server, backend, mode string, cpu float64) *report.Row {
		r := &report.Row{Scenario: s, Server: server, Backend: backend, Mode: mode}
		if backend != "" {
			r.Algorithm = report.DefaultAlgorithm.String()
		}
		r.Samples = []report.Sample{{Answers: 1000, Seconds: 0.1, ServerCPU: cpu, StoreCPU: cpu / 3}}
		for _, p := range []float64{0, 50, 99, 99.99} {
			r.Distribution = append(r.Distribution, report.Quantile{Percent: p, Micros: cpu * (1 + p)})
		}
		return r
	}
	floor, ours := row(base, report.FloorSame, "", "", 20.25), row(base, "ratelimit", "redis", "", 31.5)
	filled := row(million, "ratelimit", "memory", "", 21)
	filled.BytesPerKey = 123.4
	data := &figures.Data{
		Report: &report.Report{
			Rows:    []*report.Row{floor, ours, row(hot, "ratelimit", "redis", report.Combined, 22), filled},
			Latency: [][]*report.Row{{floor, ours}},
		},
		Libraries: []figures.Result{{Store: "memory", Class: "token_bucket", Library: "other", Keys: 1_000_000, Procs: 1, Figures: map[string]float64{"B/key": 345.6}}},
	}
	drawings, err := Performance(data)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"performance_server.svg":    {report.FloorSame, "20.2", "redis, token_bucket", "31.5", base.Title},
		"performance_redis.svg":     {"redis, token_bucket, hot key combined", "10.5", "7.3"},
		"performance_bytes.svg":     {"memory, token_bucket", "123", "other, token_bucket", "346"},
		"performance_latency_1.svg": {"99.9", "Latency of 10000 requests/s: redis, token_bucket", report.FloorSame},
	}
	for _, d := range drawings {
		got := texts(t, d)
		for _, text := range want[d.File] {
			if !bytes.Contains(got, []byte(text)) {
				t.Errorf("%s does not say %q: %q", d.File, text, got)
			}
		}
		delete(want, d.File)
	}
	if len(want) > 0 {
		t.Errorf("not drawn: %v", want)
	}
	if none, err := Performance(new(figures.Data)); err != nil || len(none) > 0 {
		t.Errorf("of nothing: %d drawings, %v", len(none), err)
	}
}

// texts returns what a drawing says.
func texts(t *testing.T, d Drawing) (all []byte) {
	t.Helper()
	decoder := xml.NewDecoder(bytes.NewReader(d.SVG))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(fmt.Errorf("%s: %w", d.File, err))
		}
		if text, ok := token.(xml.CharData); ok {
			all = append(append(all, text...), '\n')
		}
	}
}
