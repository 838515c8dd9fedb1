// Package algotest holds the test vectors of the algorithms: sequences of calls
// on one counter, with every field of every expected decision. They are JSON
// files beside this package, which any implementation of the algorithms can run;
// vectors/README.md describes the format. The package leaves running them to the
// tests of each implementation.
package algotest

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

//go:embed vectors/*.json
var files embed.FS

// Vector is one sequence of calls on one counter that starts unused.
type Vector struct {
	File  string // the base name of its file
	Name  string // unique within the file
	Why   string // the behaviour that it shows
	Steps []Step
}

// Step is one call and its expected answer.
type Step struct {
	Params algo.Params // the rule in force: it may change between steps
	Now    int64       // microseconds since the epoch
	Hits   int64
	Hold   algo.Hold // of a limit that holds: which request it is
	Want   algo.Decision
	Note   string // where the expected values come from, if that is not obvious
}

// Vectors returns all vectors, sorted by file name and then in the order of the
// file. An error names the file and the part that cannot be read.
func Vectors() ([]Vector, error) {
	entries, err := files.ReadDir("vectors")
	if err != nil {
		return nil, err
	}
	var all []Vector
	for _, e := range entries {
		vs, err := read(e.Name())
		if err != nil {
			return nil, fmt.Errorf("vectors/%s: %w", e.Name(), err)
		}
		all = append(all, vs...)
	}
	return all, nil
}

// The JSON of a file. Times are in microseconds.
type (
	vectorJSON struct {
		Name   string     `json:"name"`
		Why    string     `json:"why"`
		Params paramsJSON `json:"params"`
		Steps  []stepJSON `json:"steps"`
	}
	paramsJSON struct {
		Algorithm  string        `json:"algorithm"`
		Limit      uint32        `json:"limit"`
		Window     int64         `json:"window"`
		Hold       int64         `json:"hold"`
		Calendar   *calendarJSON `json:"calendar"`
		Burst      uint32        `json:"burst"`
		Refill     rateJSON      `json:"refill"`
		Strict     bool          `json:"strict"`
		SubWindows int           `json:"sub_windows"`
		DeniedHits string        `json:"denied_hits"`
	}
	calendarJSON struct {
		Every  string `json:"every"`
		Zone   string `json:"zone"`
		Starts int    `json:"starts"`
	}
	rateJSON struct {
		Hits uint32 `json:"hits"`
		Per  int64  `json:"per"`
	}
	stepJSON struct {
		Params     *paramsJSON `json:"params"`
		Now        int64       `json:"now"`
		Hits       int64       `json:"hits"`
		Request    uint64      `json:"request"`
		Settles    bool        `json:"settles"`
		Settled    bool        `json:"settled"`
		Held       uint16      `json:"held"`
		Expired    uint16      `json:"expired"`
		Allowed    bool        `json:"allowed"`
		Remaining  int64       `json:"remaining"`
		ResetAfter int64       `json:"reset_after"`
		RetryAfter int64       `json:"retry_after"` // -1: never
		Note       string      `json:"note"`
	}
)

func read(file string) ([]Vector, error) {
	text, err := files.ReadFile("vectors/" + file)
	if err != nil {
		return nil, err
	}
	var in []vectorJSON
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return nil, err
	}
	var out []Vector
	for _, v := range in {
		steps, err := v.steps()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Name, err)
		}
		out = append(out, Vector{File: file, Name: v.Name, Why: v.Why, Steps: steps})
	}
	return out, nil
}

func (v vectorJSON) steps() ([]Step, error) {
	p, err := v.Params.parse()
	if err != nil {
		return nil, err
	}
	var out []Step
	for i, s := range v.Steps {
		if s.Params != nil {
			if p, err = s.Params.parse(); err != nil {
				return nil, fmt.Errorf("step %d: %w", i, err)
			}
		}
		retry := micros(s.RetryAfter)
		if s.RetryAfter < 0 {
			retry = algo.Never
		}
		out = append(out, Step{Params: p, Now: s.Now, Hits: s.Hits, Hold: algo.Hold{ID: s.Request, Settles: s.Settles}, Note: s.Note, Want: algo.Decision{
			Allowed: s.Allowed, Remaining: s.Remaining, Settled: s.Settled, Held: s.Held, Expired: s.Expired, ResetAfter: micros(s.ResetAfter), RetryAfter: retry,
		}})
	}
	return out, nil
}

func (p paramsJSON) parse() (algo.Params, error) {
	out := algo.Params{
		Limit: p.Limit, Window: micros(p.Window), Hold: micros(p.Hold),
		Burst: p.Burst, Refill: algo.Rate{Hits: p.Refill.Hits, Per: micros(p.Refill.Per)},
		Strict: p.Strict, SubWindows: p.SubWindows,
	}
	var err error
	if out.Algorithm, err = algo.ParseAlgorithm(p.Algorithm); err != nil {
		return out, err
	}
	if c := p.Calendar; c != nil {
		out.Calendar = algo.Calendar{Zone: c.Zone, Starts: c.Starts}
		if out.Calendar.Every, err = algo.ParsePeriod(c.Every); err != nil {
			return out, err
		}
	}
	if p.DeniedHits != "" {
		out.DeniedHits, err = algo.ParseDeniedHits(p.DeniedHits)
	}
	return out, err
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
