package rulefile

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
)

var tableKeys = newKeys(false, "by", "values", "default")

// rawTable is requests_per_unit as a table, as written.
type rawTable struct {
	n         *yaml.Node // nil: not a table
	by        field[string]
	rows      []rawRow
	rowsAt    *yaml.Node
	otherwise field[uint32]
	bad       bool // reported
}

type rawRow struct {
	value    string
	at       *yaml.Node
	requests field[uint32]
}

// setRequests reads requests_per_unit: a number, or a table.
func (d *decoder) setRequests(raw *rawRate, n *yaml.Node) {
	raw.table = rawTable{}
	if resolve(n).Kind != yaml.MappingNode {
		d.number(n, &raw.requests)
		return
	}
	t := &raw.table
	t.n = n
	d.mapping(n, tableKeys, func(key string, value *yaml.Node) {
		switch key {
		case "by":
			d.text(value, &t.by)
		case "values":
			d.setRows(t, value)
		case "default":
			d.number(value, &t.otherwise)
		}
	})
	raw.requests = field[uint32]{v: t.otherwise.v, n: n, bad: t.otherwise.bad}
}

func (d *decoder) setRows(t *rawTable, n *yaml.Node) {
	t.rows, t.rowsAt = nil, n
	target, ok := d.enter(n)
	if !ok {
		t.bad = true
		return
	}
	defer d.leave(n)
	if target.Kind != yaml.MappingNode {
		d.problem(n, "want a mapping, found "+describe(target), "write the entry's values with their limits, such as gold: 1000")
		t.bad = true
		return
	}
	seen := make(map[string]bool, len(target.Content)/2)
	for i := 0; i+1 < len(target.Content); i += 2 {
		key, value := resolve(target.Content[i]), target.Content[i+1]
		switch {
		case isMerge(key):
			d.problem(key, "<< in a table", "write its values out")
			continue
		case key.Kind != yaml.ScalarNode || isNull(key):
			d.problem(key, "a value must be a string, found "+describe(key), "write a value of the entry")
			continue
		case seen[key.Value]:
			d.problemIn(key.Value, key, fmt.Sprintf("duplicate key %q", yamlfile.Abridge(key.Value)), "remove one of them")
			continue
		case strings.Contains(key.Value, "*"):
			d.problemIn(key.Value, key, "a * in a value of a table", "write exact values; default serves all others")
			continue
		}
		seen[key.Value] = true
		d.copies(target.Content[i], key)
		row := rawRow{value: key.Value, at: key}
		d.push(key.Value)
		if d.number(value, &row.requests); row.requests.missing() {
			d.problem(value, "the limit is missing", "write a number")
		}
		d.pop()
		t.rows = append(t.rows, row)
	}
	if len(t.rows) == 0 && len(target.Content) == 0 {
		d.problem(n, "a table without values", "write some, such as gold: 1000, or one number as requests_per_unit")
	}
	if len(t.rows) > config.MaxRows {
		d.problem(t.rows[config.MaxRows].at, fmt.Sprintf("%d values", len(t.rows)), fmt.Sprintf("write at most %d", config.MaxRows))
		t.rows = t.rows[:config.MaxRows]
	}
}

// checkTable validates a table, except for the limits of its rows.
func (d *decoder) checkTable(t *rawTable) {
	if t.n == nil {
		return
	}
	d.push("requests_per_unit")
	defer d.pop()
	switch {
	case t.by.bad || resolve(t.n).Kind != yaml.MappingNode: // reported already
	case t.by.v == "":
		d.problemIn("by", t.by.at(t.n), "the entry is missing or empty", "write by: and the key of the entry that the limit follows, such as plan")
	}
	if t.rowsAt == nil && !t.bad {
		d.problemIn("values", t.n, "the values are missing", "write values: and the limit for each, such as {gold: 1000}")
	}
	if t.otherwise.missing() {
		d.problemIn("default", t.n, "the default is missing", "write default: and the limit for all other values, and for descriptors without the entry")
	}
}

// table compiles the limits of a table's rows, which differ from l only in their numbers.
func (d *decoder) table(raw *rawLimit, l *config.Limit, p algo.Params) {
	t := raw.rate().table
	if t.n == nil {
		return
	}
	if raw.lease.given() {
		d.problemIn("lease", raw.lease.n, "lease together with a table", "remove one of the two: what replicas take ahead is a part of one limit")
	}
	l.Table = &config.Table{By: t.by.v}
	slices.SortFunc(t.rows, func(a, b rawRow) int { return strings.Compare(a.value, b.value) })
	for _, row := range t.rows {
		r := *l
		r.Table, r.RequestsPerUnit = nil, row.requests.v
		q := p
		q.Limit = row.requests.v
		var fits bool
		if l.BurstPercent != 0 {
			if q.Burst, fits = l.BurstPercent.Of(q.Limit); !fits {
				d.problemIn("requests_per_unit", row.at, fmt.Sprintf("%v of %d is more than %d", l.BurstPercent, q.Limit, uint32(math.MaxUint32)), "write a smaller burst")
				continue
			}
		}
		compiled, err := algo.New(q)
		if bad, is := errors.AsType[*algo.ParamError](err); is {
			d.problemIn("requests_per_unit", row.at, bad.What, bad.Remedy)
		}
		r.Algo = compiled
		l.Table.Rows = append(l.Table.Rows, config.Row{Value: row.value, Limit: &r})
	}
}

// checkFollowed refuses tables that follow different entries. It also refuses a table that
// follows an entry that leads to the descriptor or is part of its counters' keys.
func (d *decoder) checkFollowed(raw *rawDescriptor, out *config.Descriptor) {
	followed := out.Follows()
	check := func(at *rawLimit, l *config.Limit) {
		t := at.rate().table
		switch {
		case l.Table == nil || l.Table.By == "":
		case l.Table.By != followed:
			d.problemIn("requests_per_unit", t.by.at(t.n), fmt.Sprintf("the table follows %s, and another one of the same descriptor %s", yamlfile.Abridge(l.Table.By), yamlfile.Abridge(followed)), "let all tables of a descriptor follow one entry")
		case out.Set != nil && slices.Contains(out.Set.CountBy, followed):
			d.problemIn("requests_per_unit", t.by.at(t.n), fmt.Sprintf("the table follows %s, which count_by names", yamlfile.Abridge(followed)), "remove it from count_by: what was used under one value stays used under another")
		case out.Key == followed:
			d.problemIn("requests_per_unit", t.by.at(t.n), fmt.Sprintf("the table follows %s, which is the key of this descriptor", yamlfile.Abridge(followed)), "follow another entry, or write this limit under limits, with match and count_by")
		}
	}
	if raw.limit != nil && len(out.Limits) > 0 {
		d.push("rate_limit")
		check(raw.limit, out.Limits[0])
		d.pop()
		return
	}
	d.push("rate_limits")
	for i, at := range raw.limits.v {
		d.pushIndex(i)
		check(at, out.Limits[i])
		d.pop()
	}
	d.pop()
}

// setBurst reads a number of requests, or a percentage of the limit.
func (d *decoder) setBurst(n *yaml.Node, burst *field[uint32], percent *field[config.Percent]) {
	*burst, *percent = field[uint32]{}, field[config.Percent]{}
	target := resolve(n)
	number, isPercent := strings.CutSuffix(strings.TrimSpace(target.Value), "%")
	if target.Kind != yaml.ScalarNode || target.Tag != "!!str" || !isPercent {
		d.number(n, burst)
		return
	}
	value, ok := config.ParsePercent(strings.TrimSpace(number))
	*percent = field[config.Percent]{v: value, n: n, bad: !ok}
	if !ok {
		d.problem(n, fmt.Sprintf("%q is no percentage", yamlfile.Abridge(target.Value)), "write one such as 20% or 12.5%, with two decimals at most, from 0.01% to 10000%")
	}
}

// writtenRequests returns requests_per_unit as it is written.
func writtenRequests(l *config.Limit, limit uint32) any {
	if l.Table == nil {
		return limit
	}
	doc := tableDocument{By: l.Table.By, Values: make(map[string]uint32, len(l.Table.Rows)), Default: limit}
	for _, r := range l.Table.Rows {
		doc.Values[r.Value] = r.Limit.RequestsPerUnit
	}
	return doc
}

type tableDocument struct {
	By      string            `yaml:"by" json:"by"`
	Values  map[string]uint32 `yaml:"values" json:"values"`
	Default uint32            `yaml:"default" json:"default"`
}

// writtenBurst returns a burst as it is written; nil if the limit has none.
func writtenBurst(l *config.Limit, burst uint32) any {
	switch {
	case l.BurstPercent != 0:
		return l.BurstPercent.String()
	case burst != 0:
		return burst
	}
	return nil
}

// followedOnTheWay reports tables of a tree that can't see the entry that they follow,
// because the entry leads to a descriptor itself and the walk does not skip it. If that
// descriptor is on the path to the limit, it is a mistake; otherwise it is a warning.
func (d *decoder) followedOnTheWay(domain *config.Domain) {
	tables := false
	domain.Walk(func(c *config.Descriptor) { tables = tables || c.Set == nil && c.Follows() != "" })
	if !tables {
		return
	}
	keysOf := func(level []*config.Descriptor) map[string]config.Pos {
		keys := make(map[string]config.Pos, 1)
		for _, c := range level {
			if _, is := keys[c.Key]; !is {
				keys[c.Key] = c.Pos
			}
		}
		return keys
	}
	var way []*config.Descriptor
	var beside []map[string]config.Pos
	var walk func(level []*config.Descriptor, keys map[string]config.Pos)
	walk = func(level []*config.Descriptor, keys map[string]config.Pos) {
		beside = append(beside, keys)
		for _, c := range level {
			below := keysOf(c.Descriptors)
			if followed := c.Follows(); followed != "" && followed != c.Key { // that is reported already
				d.checkWay(c, followed, way, append(beside, below))
			}
			way = append(way, c)
			walk(c.Descriptors, below)
			way = way[:len(way)-1]
		}
		beside = beside[:len(beside)-1]
	}
	walk(domain.Descriptors, keysOf(domain.Descriptors))
}

func (d *decoder) checkWay(c *config.Descriptor, followed string, way []*config.Descriptor, beside []map[string]config.Pos) {
	for _, above := range way {
		if above.Key == followed {
			d.problemAt(c.Pos, fmt.Sprintf("the table follows %s, whose value leads to it at %s", yamlfile.Abridge(followed), above.Pos), "write this limit without that level, for the walk skips the entry, or under limits, with match and count_by")
			return
		}
	}
	for _, keys := range beside {
		if pos, is := keys[followed]; is {
			d.warnings = append(d.warnings, config.Problem{Pos: c.Pos,
				What:   fmt.Sprintf("the table follows %s, but where the entry comes at that level it leads to %s instead", yamlfile.Abridge(followed), pos),
				Remedy: "write one of the two under limits, with match and count_by"})
			return
		}
	}
}
