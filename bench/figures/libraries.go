package figures

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// Result holds the medians of one limiter.
type Result struct {
	Store   string // memory or redis
	Class   string // the algorithm
	Library string
	Keys    int
	Procs   int
	Callers int `json:",omitempty"` // of Redis
	// Figures by the units of the benchmarks, such as ns/op.
	Figures map[string]float64
}

// Ours is the name of this project among the libraries.
const Ours = "distlimiter"

// remarks are notes on libraries for a fair comparison.
var remarks = map[string]string{
	"x-time-rate+xsync":              "answers yes or no only; keys are never forgotten",
	"x-time-rate-alone-without-keys": "one limiter for all, no look-up: does less, shown for what keys cost",
	"sethvargo-go-limiter":           "refills once in a window",
	"throttled/memory":               "keys are never forgotten",
	"throttled/redis":                "several commands, tried again when another replica was faster",
	"ulule-limiter":                  "windows begin with a key's first hit",
	"mennanov-limiters/memory":       "one lock for all keys",
	"mennanov-limiters/redis":        "an object in this process for each key besides",
	"redis_rate":                     "floating-point seconds",
}

// ParseLibraries reads the output of the benchmarks of the module libraries, run
// any number of times.
func ParseLibraries(r io.Reader) ([]Result, error) {
	var results []Result
	samples := map[string][][]float64{} // by index of the result and unit
	reader := benchfmt.NewReader(r, "benchmarks")
	for reader.Scan() {
		line, ok := reader.Result().(*benchfmt.Result)
		if !ok {
			if bad, is := reader.Result().(*benchfmt.SyntaxError); is {
				return nil, bad
			}
			continue
		}
		found, err := parseName(line.Name)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(results, found.same)
		if at < 0 {
			at = len(results)
			found.Figures = map[string]float64{}
			results = append(results, found)
		}
		for _, v := range line.Values {
			value, unit := v.Value, v.Unit
			if v.OrigUnit != "" {
				value, unit = v.OrigValue, v.OrigUnit
			}
			for len(samples[unit]) <= at {
				samples[unit] = append(samples[unit], nil)
			}
			samples[unit][at] = append(samples[unit][at], value)
		}
	}
	for unit, lists := range samples {
		for at, list := range lists {
			if len(list) > 0 {
				results[at].Figures[unit] = median(list)
			}
		}
	}
	return results, reader.Err()
}

func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func (r *Result) same(o Result) bool {
	return r.Store == o.Store && r.Class == o.Class && r.Library == o.Library && r.Keys == o.Keys && r.Procs == o.Procs && r.Callers == o.Callers
}

// parseName reads from a benchmark's name what it measures.
func parseName(name benchfmt.Name) (Result, error) {
	base, parts := name.Parts()
	r := Result{Store: strings.ToLower(string(base)), Procs: 1}
	for _, part := range parts {
		text := strings.TrimPrefix(string(part), "/")
		if procs, ok := strings.CutPrefix(text, "-"); ok {
			text = "procs=" + procs
		}
		key, value, _ := strings.Cut(text, "=")
		var err error
		switch key {
		case "class":
			r.Class = value
		case "library":
			r.Library = value
		case "keys":
			r.Keys, err = strconv.Atoi(value)
		case "procs":
			r.Procs, err = strconv.Atoi(value)
		case "callers":
			r.Callers, err = strconv.Atoi(value)
		}
		if err != nil {
			return r, fmt.Errorf("benchmark %s: %w", name, err)
		}
	}
	if r.Class == "" || r.Library == "" || r.Keys == 0 {
		return r, fmt.Errorf("benchmark %s: not one of the module libraries", name)
	}
	return r, nil
}

// column of a table of libraries, in which all are ranked.
type column struct {
	title, format        string
	keys, procs, callers int
	unit                 string
	scale                float64
}

// finder finds the figures of a library; nil if it has none.
type finder func(keys, procs, callers int) map[string]float64

func (c *column) of(find finder) float64 { return find(c.keys, c.procs, c.callers)[c.unit] * c.scale }

func (c *column) measured(find finder) bool {
	_, ok := find(c.keys, c.procs, c.callers)[c.unit]
	return ok
}

const (
	few  = 10_000
	many = 1_000_000
	// crowd is the number of concurrent callers in the benchmarks of Redis.
	crowd = 64
)

var memoryColumns = []column{
	{title: "10,000 keys: CPU ns", format: "%.0f", keys: few, procs: 1, unit: "cpu-ns/op", scale: 1},
	{title: "on 2 cores: ns", format: "%.0f", keys: few, procs: 2, unit: "ns/op", scale: 1},
	{title: "1,000,000 keys: CPU ns", format: "%.0f", keys: many, procs: 1, unit: "cpu-ns/op", scale: 1},
	{title: "on 2 cores: ns", format: "%.0f", keys: many, procs: 2, unit: "ns/op", scale: 1},
	{title: "bytes of a key", format: "%.0f", keys: many, procs: 1, unit: "B/key", scale: 1},
}

var redisColumns = []column{
	{title: "round trips", format: "%.1f", keys: few, procs: 1, callers: 1, unit: "reads/op", scale: 1},
	{title: "one caller waits µs", format: "%.0f", keys: few, procs: 1, callers: 1, unit: "ns/op", scale: 1e-3},
	{title: "64 callers: CPU µs", format: "%.1f", keys: few, procs: 1, callers: crowd, unit: "cpu-ns/op", scale: 1e-3},
	{title: "Redis' CPU µs", format: "%.1f", keys: few, procs: 1, callers: crowd, unit: "redis-ns/op", scale: 1e-3},
	{title: "bytes of a key", format: "%.0f", keys: few, procs: 1, callers: crowd, unit: "B/key", scale: 1},
}

// LibrariesMarkdown writes the tables of libraries. A figure that is ahead of ours by more
// than 2 % is bold.
func (d *Data) LibrariesMarkdown(w io.Writer) error {
	var b strings.Builder
	if len(d.Libraries) == 0 {
		b.WriteString("Not measured yet.\n")
	}
	for _, store := range []struct {
		name, title string
		columns     []column
	}{{"memory", "In memory", memoryColumns}, {"redis", "In Redis", redisColumns}} {
		var classes []string
		for _, r := range d.Libraries {
			if r.Store == store.name && !slices.Contains(classes, r.Class) {
				classes = append(classes, r.Class)
			}
		}
		if len(classes) == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "### %s\n\n| algorithm | library |", store.title)
		for _, c := range store.columns {
			fmt.Fprintf(&b, " %s |", c.title)
		}
		b.WriteString(" |\n| --- | --- |" + strings.Repeat(" ---: |", len(store.columns)) + " --- |\n")
		for _, class := range classes {
			d.classRows(&b, store.name, class, store.columns)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (d *Data) classRows(b *strings.Builder, store, class string, columns []column) {
	ours := d.find(store, class, Ours)
	for _, library := range d.libraries(store, class) {
		fmt.Fprintf(b, "| %s | %s |", class, library)
		find := d.find(store, class, library)
		for _, c := range columns {
			if !c.measured(find) {
				b.WriteString(" – |")
				continue
			}
			value := c.of(find)
			text := fmt.Sprintf(c.format, value)
			if value > 0 && value < 0.98*c.of(ours) {
				text = "**" + text + "**"
			}
			fmt.Fprintf(b, " %s |", text)
		}
		fmt.Fprintf(b, " %s |\n", remark(library, store))
	}
}

// remark returns the notes on a library.
func remark(library, store string) string {
	var parts []string
	for _, name := range []string{library, library + "/" + store} {
		if text := remarks[name]; text != "" {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, "; ")
}

func (d *Data) libraries(store, class string) (names []string) {
	for _, r := range d.Libraries {
		if r.Store == store && r.Class == class && !slices.Contains(names, r.Library) {
			names = append(names, r.Library)
		}
	}
	return names
}

func (d *Data) find(store, class, library string) finder {
	return func(keys, procs, callers int) map[string]float64 {
		want := Result{Store: store, Class: class, Library: library, Keys: keys, Procs: procs, Callers: callers}
		if at := slices.IndexFunc(d.Libraries, want.same); at >= 0 {
			return d.Libraries[at].Figures
		}
		return nil
	}
}

// BytesPerKey returns for each library how many bytes of memory a key takes.
func (d *Data) BytesPerKey(class string) (names []string, bytes []float64) {
	for _, name := range d.libraries("memory", class) {
		if b := d.find("memory", class, name)(many, 1, 0)["B/key"]; b >= 1 {
			names, bytes = append(names, name), append(bytes, b)
		}
	}
	return names, bytes
}
