// Package figures owns the figures in docs/dev/performance.md, which it stores in
// docs/dev/performance.json, and the tables of them. The figures come from package report
// and, as output of Go benchmarks, from the module libraries. Package plots draws them.
package figures

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/bench/report"
)

// Data holds all figures. Either part may be missing.
type Data struct {
	Report    *report.Report `json:",omitempty"`
	Libraries []Result       `json:",omitempty"`
}

// Read reads the figures from a file. A file that does not exist has none.
func Read(path string) (*Data, error) {
	d := new(Data)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// ReadReport reads a file that [report.Report.JSON] wrote.
func ReadReport(path string) (*report.Report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(report.Report)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// Write writes the figures to a file, with their significant digits, one line for each row.
func (d *Data) Write(path string) error {
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return err
	}
	// Decode into the types again, for the order of their fields.
	if text, err = json.Marshal(rounded(tree)); err != nil {
		return err
	}
	*d = Data{}
	if err := json.Unmarshal(text, d); err != nil {
		return err
	}
	if text, err = json.Marshal(d); err != nil {
		return err
	}
	for _, begin := range []string{`{"Scenario":`, `{"Store":`} {
		text = bytes.ReplaceAll(text, []byte(begin), []byte("\n"+begin))
	}
	return os.WriteFile(path, append(text, '\n'), 0o644) //nolint:gosec // documentation is for everybody
}

// rounded rounds all numbers of a JSON document that have a fraction.
func rounded(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = rounded(v[k])
		}
	case []any:
		for i := range v {
			v[i] = rounded(v[i])
		}
	case json.Number:
		f, err := v.Float64()
		if err != nil || f == math.Trunc(f) {
			return v
		}
		// Four digits before or after the point.
		scale := math.Pow(10, min(max(3-math.Floor(math.Log10(math.Abs(f))), 0), 6))
		return math.Round(f*scale) / scale
	}
	return v
}

// The generated parts of docs/dev/performance.md, between lines that mark them.
const (
	reportPart    = "report"
	librariesPart = "libraries"
)

// Update puts the tables into the text of docs/dev/performance.md.
func (d *Data) Update(text string) (string, error) {
	for _, part := range []struct {
		name  string
		write func(io.Writer) error
	}{{reportPart, d.report}, {librariesPart, d.LibrariesMarkdown}} {
		begin, end := fmt.Sprintf("<!-- begin %s -->\n", part.name), fmt.Sprintf("<!-- end %s -->\n", part.name)
		before, rest, ok := strings.Cut(text, begin)
		_, after, ends := strings.Cut(rest, end)
		if !ok || !ends {
			return "", fmt.Errorf("docs/dev/performance.md: no lines %q and %q to put tables between", strings.TrimSpace(begin), strings.TrimSpace(end))
		}
		var tables strings.Builder
		if err := part.write(&tables); err != nil {
			return "", err
		}
		text = before + begin + "\n" + tables.String() + "\n" + end + after
	}
	return text, nil
}

func (d *Data) report(w io.Writer) error {
	if d.Report == nil {
		_, err := io.WriteString(w, "Not measured yet.\n")
		return err
	}
	if err := d.Report.Summary(w); err != nil {
		return err
	}
	// The same plots as package plots draws: only measured figures have one.
	images := []string{"![CPU per request of each server](img/performance_server.svg)"}
	rows := d.Report.Rows
	if slices.ContainsFunc(rows, func(r *report.Row) bool { return r.Backend == "redis" }) {
		images = append(images, "![CPU per request of Redis](img/performance_redis.svg)")
	}
	if slices.ContainsFunc(rows, func(r *report.Row) bool { return r.BytesPerKey > 0 }) {
		images = append(images, "![Memory per key](img/performance_bytes.svg)")
	}
	for i := range d.Report.Latency {
		images = append(images, fmt.Sprintf("![Latency by percentage of requests](img/performance_latency_%d.svg)", i+1))
	}
	_, err := fmt.Fprintf(w, "\n### Plots\n\n%s\n", strings.Join(images, "\n\n"))
	return err
}
