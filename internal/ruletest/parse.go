package ruletest

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// maxRepeat bounds the requests of a step, so that a test takes a second and not a day.
const maxRepeat = 1_000_000

// defaultStart is when tests begin that name no start: a Monday, the first of a month.
var defaultStart = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// suite is a file of tests.
type suite struct {
	paths  []string          // of rules
	inline []rulefile.Source // rules in the file itself
	tests  []test
}

type test struct {
	node  yamlfile.Node
	name  string
	start time.Time
	steps []step
}

// step is a request, or the same one several times.
type step struct {
	node        yamlfile.Node
	at          time.Duration // since the start, of the first request
	domain      string        // empty: the only domain of the rules
	descriptors []ask
	repeat      int
	every       time.Duration // between the requests
	want        expectation
}

// ask is a descriptor of a request.
type ask struct {
	entries  descriptor.Entries
	hits     int64 // below 0 gives back
	hasHits  bool
	override *limiter.Override
}

// expectation is the expected answer to a request.
type expectation struct {
	verdict field[bool] // over limit
	allowed field[int]  // how many of the requests pass
	all     []status    // of each descriptor; empty: anything
}

// status is the expected answer to a descriptor. A field that is not given may be
// anything.
type status struct {
	verdict    field[bool]
	shadow     field[bool]
	rule, name field[string]
	remaining  field[int64]
	reset      field[time.Duration]
}

// field is a value with its place. Without a place it is not given.
type field[T any] struct {
	v    T
	node yamlfile.Node
}

// decode reads the tests of a file. Paths of rules are relative to dir.
func decode(root yamlfile.Node, dir string) *suite {
	s := &suite{}
	fields := root.Mapping("rules", "domain", "start", "tests")
	if n := fields["rules"]; n.Present() {
		s.addRules(n, dir)
	}
	start := defaultStart
	if n := fields["start"]; n.Present() {
		start = timestamp(n, start)
	}
	domain, _ := fields["domain"].Text()
	for _, e := range fields["tests"].List() {
		s.tests = append(s.tests, decodeTest(e, domain, start))
	}
	if len(s.tests) == 0 && root.IsMapping() {
		root.Problem("no tests", "write tests: and a list of them, each with a name and steps")
	}
	return s
}

// addRules adds the rules of a file or directory, rules written in place of a path, or a
// list of these.
func (s *suite) addRules(n yamlfile.Node, dir string) {
	switch {
	case n.IsList():
		for _, e := range n.List() {
			if e.IsList() {
				e.Problem("a list in a list", "write one list")
				continue
			}
			s.addRules(e, dir)
		}
	case n.IsMapping():
		s.inline = append(s.inline, rulefile.Source{Name: n.Pos().File, Node: n.YAML()})
	default:
		switch path, ok := n.Text(); {
		case !ok: // reported
		case path == "":
			n.Problem("no rules", "write the path of a file or directory, or the rules themselves")
		case filepath.IsAbs(path):
			s.paths = append(s.paths, path)
		default:
			s.paths = append(s.paths, filepath.Join(dir, path))
		}
	}
}

func decodeTest(n yamlfile.Node, domain string, start time.Time) test {
	t := test{node: n, start: start}
	fields := n.Mapping("name", "start", "domain", "steps")
	if f := fields["name"]; f.Present() {
		t.name, _ = f.Text()
	} else if n.IsMapping() {
		n.Problem("the test has no name", "write name: and what it shows")
	}
	if f := fields["start"]; f.Present() {
		t.start = timestamp(f, start)
	}
	if f := fields["domain"]; f.Present() {
		domain, _ = f.Text()
	}
	now := time.Duration(0)
	for _, e := range fields["steps"].List() {
		s := decodeStep(e, domain, t.start, now)
		now = s.at + time.Duration(s.repeat-1)*s.every
		t.steps = append(t.steps, s)
	}
	if len(t.steps) == 0 && n.IsMapping() {
		n.Problem("the test has no steps", "write steps: and a list of requests")
	}
	return t
}

// timestamp reads a point of time.
func timestamp(n yamlfile.Node, otherwise time.Time) time.Time {
	text, ok := n.Text()
	if !ok {
		return otherwise
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || at.Year() < 1970 || at.Year() > 9999 {
		n.Problem(fmt.Sprintf("%q is not a point of time", yamlfile.Abridge(text)), "write one such as 2026-03-29T00:00:00Z or 2026-03-29T02:00:00+01:00")
		return otherwise
	}
	return at
}

// decodeStep reads a step that comes after now.
func decodeStep(n yamlfile.Node, domain string, start time.Time, now time.Duration) step {
	s := step{node: n, at: now, domain: domain, repeat: 1}
	fields := n.Mapping("at", "after", "domain", "descriptors", "hits", "repeat", "every", "expect")
	at, after := fields["at"], fields["after"]
	switch {
	case at.Present() && after.Present():
		after.Problem("at and after together", "write one of them")
	case after.Present():
		d, _ := after.Duration()
		s.at += d
	case at.Present():
		s.at = pointOf(at, start)
		if s.at < now {
			at.Problem(fmt.Sprintf("%v is before the request above, at %v", s.at, now), "write a later time: the clock of a test only goes on")
			s.at = now
		}
	}
	if f := fields["domain"]; f.Present() {
		s.domain, _ = f.Text()
	}
	if f := fields["repeat"]; f.Present() {
		repeat, ok := f.Int(1, maxRepeat)
		if ok {
			s.repeat = int(repeat)
		}
	}
	if f := fields["every"]; f.Present() {
		s.every, _ = f.Duration()
		if s.every > algo.MaxWindow {
			f.Problem(fmt.Sprintf("%v is longer than any window", s.every), fmt.Sprintf("write at most %v", algo.MaxWindow))
			s.every = 0
		}
	}
	hits := field[int64]{v: 1}
	if f := fields["hits"]; f.Present() {
		hits = hitsOf(f)
	}
	if f := fields["descriptors"]; f.Present() {
		s.descriptors = decodeDescriptors(f, hits)
	}
	if len(s.descriptors) == 0 && n.IsMapping() {
		n.Problem("the step has no descriptors", "write descriptors: [user=alice], or several")
	}
	if f := fields["expect"]; f.Present() {
		s.want = decodeExpectation(f, len(s.descriptors))
	}
	return s
}

// pointOf reads a time since the start, or a point of time.
func pointOf(n yamlfile.Node, start time.Time) time.Duration {
	if text, ok := n.Text(); ok && strings.ContainsAny(text, "T:") {
		return timestamp(n, start).Sub(start)
	}
	d, _ := n.Duration()
	return d
}

func hitsOf(n yamlfile.Node) field[int64] {
	v, _ := n.Int(-math.MaxUint32, math.MaxUint32)
	return field[int64]{v, n}
}

// decodeDescriptors reads one descriptor or a list of them.
func decodeDescriptors(n yamlfile.Node, hits field[int64]) (asks []ask) {
	if !n.IsList() {
		return []ask{decodeDescriptor(n, hits)}
	}
	for _, e := range n.List() {
		asks = append(asks, decodeDescriptor(e, hits))
	}
	return asks
}

func decodeDescriptor(n yamlfile.Node, hits field[int64]) ask {
	a := ask{hits: hits.v, hasHits: hits.node.Present()}
	if !n.IsMapping() {
		a.entries = textEntries(n)
		return a
	}
	fields := n.Mapping("entries", "hits", "limit")
	if f := fields["entries"]; !f.Present() {
		n.Problem("the descriptor has no entries", "write entries: user=alice,path=/x")
	} else if f.IsList() {
		for _, e := range f.List() {
			a.entries = append(a.entries, decodeEntry(e))
		}
	} else {
		a.entries = textEntries(f)
	}
	if f := fields["hits"]; f.Present() {
		own := hitsOf(f)
		a.hits, a.hasHits = own.v, true
	}
	if f := fields["limit"]; f.Present() {
		a.override = decodeOverride(f)
	}
	return a
}

func textEntries(n yamlfile.Node) (entries descriptor.Entries) {
	text, ok := n.Text()
	if !ok {
		return nil
	}
	if err := entries.UnmarshalText([]byte(text)); err != nil {
		n.Problem(err.Error(), `write \, for a comma in a value, or entries: [{key: …, value: …}]`)
	}
	return entries
}

func decodeEntry(n yamlfile.Node) (e descriptor.Entry) {
	fields := n.Mapping("key", "value")
	e.Key, _ = fields["key"].Text()
	e.Value, _ = fields["value"].Text()
	if e.Key == "" && n.IsMapping() {
		n.Problem("the entry has no key", "write key: and value:")
	}
	return e
}

// decodeOverride reads the override of a request.
func decodeOverride(n yamlfile.Node) *limiter.Override {
	o := &limiter.Override{}
	fields := n.Mapping("requests_per_unit", "unit", "unit_multiplier")
	if f := fields["requests_per_unit"]; f.Present() {
		v, _ := f.Int(0, math.MaxUint32)
		o.RequestsPerUnit = uint32(v)
	} else if n.IsMapping() {
		n.Problem("the limit has no requests_per_unit", "write a number")
	}
	if f := fields["unit"]; f.Present() {
		text, ok := f.Text()
		if o.Unit = config.ParseUnit(text); ok && o.Unit == config.UnitUnknown {
			f.Problem(fmt.Sprintf("unknown unit %q", yamlfile.Abridge(text)), "write second, minute, hour, day, week, month or year")
		}
	} else if n.IsMapping() {
		n.Problem("the limit has no unit", "write second, minute, hour, day, week, month or year")
	}
	if f := fields["unit_multiplier"]; f.Present() {
		v, _ := f.Int(1, math.MaxUint32)
		o.UnitMultiplier, o.HasMultiplier = uint32(v), true
	}
	return o
}

// statusKeys are the keys that may describe the answer to a descriptor.
var statusKeys = []string{"verdict", "shadow", "rule", "name", "remaining", "reset"}

// decodeExpectation reads the expected answer to a request with that number of
// descriptors.
func decodeExpectation(n yamlfile.Node, descriptors int) (want expectation) {
	if n.IsScalar() {
		want.verdict = verdictOf(n)
		return want
	}
	fields := n.Mapping(append([]string{"allowed", "descriptors"}, statusKeys...)...)
	list, allowed := fields["descriptors"], fields["allowed"]
	if f := fields["verdict"]; f.Present() {
		want.verdict = verdictOf(f)
		if allowed.Present() {
			allowed.Problem("verdict and allowed together", "write allowed to say how many pass, or verdict if all are answered alike")
		}
	}
	delete(fields, "verdict") // that of the request
	if allowed.Present() {
		v, _ := allowed.Int(0, maxRepeat)
		want.allowed = field[int]{int(v), allowed}
	}
	whole := statusOf(fields)
	switch {
	case list.Present():
		elements := list.List()
		for _, e := range elements {
			want.all = append(want.all, decodeStatus(e))
		}
		if len(elements) != descriptors && list.IsList() {
			list.Problem(fmt.Sprintf("%d of %d descriptors", len(elements), descriptors), "write one for each, and {} for those of which nothing is expected")
		}
		if of := whole.first(); of.Present() {
			of.Problem("beside descriptors", "write it for the descriptor that it is about")
		}
	case whole == status{}:
	case descriptors == 1:
		want.all = []status{whole}
	default:
		whole.first().Problem(fmt.Sprintf("of which of the %d descriptors?", descriptors), "write it under descriptors: [{…}, {…}], one for each")
	}
	return want
}

func decodeStatus(n yamlfile.Node) (s status) {
	if n.IsScalar() {
		s.verdict = verdictOf(n)
		return s
	}
	return statusOf(n.Mapping(statusKeys...))
}

func statusOf(fields map[string]yamlfile.Node) (s status) {
	if f := fields["verdict"]; f.Present() {
		s.verdict = verdictOf(f)
	}
	if f := fields["shadow"]; f.Present() {
		s.shadow.node = f
		s.shadow.v, _ = f.Bool()
	}
	for _, t := range []struct {
		key  string
		into *field[string]
	}{{"rule", &s.rule}, {"name", &s.name}} {
		t.into.node = fields[t.key]
		t.into.v, _ = t.into.node.Text()
	}
	if f := fields["remaining"]; f.Present() {
		s.remaining.node = f
		s.remaining.v, _ = f.Int(0, math.MaxUint32)
	}
	if f := fields["reset"]; f.Present() {
		s.reset.node = f
		if s.reset.v, _ = f.Duration(); s.reset.v%time.Second != 0 {
			f.Problem(fmt.Sprintf("%v is not whole seconds", s.reset.v), "write it rounded up: an answer says it in whole seconds")
		}
	}
	return s
}

// first returns the place of a field that is given.
func (s *status) first() yamlfile.Node {
	for _, n := range []yamlfile.Node{s.shadow.node, s.rule.node, s.name.node, s.remaining.node, s.reset.node} {
		if n.Present() {
			return n
		}
	}
	return yamlfile.Node{}
}

// verdictOf reads OK or OVER_LIMIT.
func verdictOf(n yamlfile.Node) field[bool] {
	text, ok := n.Text()
	if over := strings.EqualFold(text, "OVER_LIMIT"); ok && !over && !strings.EqualFold(text, "OK") {
		n.Problem(fmt.Sprintf("unknown verdict %q", yamlfile.Abridge(text)), "write OK or OVER_LIMIT")
	} else {
		return field[bool]{over, n}
	}
	return field[bool]{}
}
