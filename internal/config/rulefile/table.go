package rulefile

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/match/sets"
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
	if yamlfile.Resolve(n).Kind != yaml.MappingNode {
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
	t.bad = !d.ownKeys(n, ownKeys{
		of: "a table", want: "write the entry's values with their limits, such as gold: 1000", key: "a value of the entry", again: "remove one of them",
	}, func(key, value *yaml.Node) {
		row := rawRow{value: key.Value, at: key}
		if strings.Contains(key.Value, "*") {
			d.problem(key, "a * in a value of a table", "write exact values; default serves all others")
			return
		}
		if d.number(value, &row.requests); row.requests.missing() {
			d.problem(value, "the limit is missing", "write a number")
		}
		t.rows = append(t.rows, row)
	})
	if target := yamlfile.Resolve(n); target.Kind == yaml.MappingNode && len(target.Content) == 0 {
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
	case t.by.bad || yamlfile.Resolve(t.n).Kind != yaml.MappingNode: // reported already
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
	if raw.lease.present() {
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
	followed := out.TableKey()
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
		default:
			if why := unfollowed(out, followed); why != "" {
				d.warnIn("requests_per_unit", t.by.at(t.n), fmt.Sprintf("the table follows %s, %s: its default serves every request", yamlfile.Abridge(followed), why), "follow another entry, or write one number")
			}
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

// unfollowed says why no request that a rule on sets of entries limits has a row of a table
// that follows this key; empty if one may.
func unfollowed(rule *config.Descriptor, key string) string {
	switch {
	case rule.Set == nil:
	case slices.ContainsFunc(rule.Set.Match, func(c sets.Condition) bool { return c.Key == key && c.Absent }):
		return "which match wants to be absent"
	case rule.Hold != nil && key == rule.Hold.SettledBy.Key:
		return "which only settlements have"
	case rule.Hold != nil && key == rule.Hold.By:
		return "which says which request it is"
	}
	return ""
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

// followedOnTheWay refuses tables of a tree that follow the key of a descriptor on the path
// to them: that entry leads there, and the walk does not skip it.
func (d *decoder) followedOnTheWay(domain *config.Domain) {
	for rule := range withTables(domain, nil) {
		c := rule.Descriptor()
		for _, above := range rule.Path[:len(rule.Path)-1] {
			if above.Key == c.TableKey() {
				d.problemAt(c.Pos, fmt.Sprintf("the table follows %s, whose value leads to it at %s", yamlfile.Abridge(above.Key), above.Pos), "write this limit without that level (the walk skips the entry), or under limits, with match and count_by")
				break
			}
		}
	}
}

// withTables returns the rules of a tree that have tables.
func withTables(domain *config.Domain, task *background.Task) iter.Seq[config.Rule] {
	return func(yield func(config.Rule) bool) {
		tables := false // most domains have none
		domain.Walk(func(c *config.Descriptor) {
			task.Step()
			tables = tables || c.Set == nil && c.TableKey() != ""
		})
		if !tables {
			return
		}
		for rule := range domain.All() {
			if c := rule.Descriptor(); c.Set == nil && c.TableKey() != "" && !yield(rule) {
				return
			}
		}
	}
}

// eclipsed warns of tables in a tree that some descriptors do not meet because the entry
// that the table follows leads elsewhere: beside the table or the descriptors above it, or
// below it. It looks at the rules of all sources together.
func eclipsed(domain *config.Domain, task *background.Task) (warnings []config.Problem) {
	keys := map[*config.Descriptor]map[string]*config.Descriptor{} // of a level, by its first
	find := func(level []*config.Descriptor, key string) *config.Descriptor {
		if len(level) == 0 {
			return nil
		}
		if keys[level[0]] == nil {
			known := make(map[string]*config.Descriptor, 1)
			for _, c := range slices.Backward(level) {
				known[c.Key] = c
			}
			keys[level[0]] = known
		}
		return keys[level[0]][key]
	}
	for rule := range withTables(domain, task) {
		c := rule.Descriptor()
		follows, level := c.TableKey(), domain.Descriptors
		for i := 0; ; i++ {
			if by := find(level, follows); by != nil && !slices.Contains(rule.Path, by) { // that is reported already
				at := by.Pos.String()
				if by.Origin == config.FromAdmin { // where nobody can look
					at = "an admin rule"
				}
				warnings = append(warnings, config.Problem{Pos: c.Pos,
					What:   fmt.Sprintf("the table of %s follows %s, but not where that entry leads to %s (%s) instead", yamlfile.Abridge(rule.Name()), yamlfile.Abridge(follows), yamlfile.Abridge(by.NamePart()), at),
					Remedy: "write one of the two under limits, with match and count_by"})
				break
			}
			if i == len(rule.Path) {
				break
			}
			level = rule.Path[i].Descriptors
		}
	}
	return warnings
}
