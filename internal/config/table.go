package config

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/distlimiter/ratelimit/internal/descriptor/sets"
)

// Table makes a limit follow the value of an entry of the request descriptor, such as
// its plan. The entry is no part of the counter: what was used under one row stays used
// under another.
type Table struct {
	// By is the key of the entry.
	By string
	// Rows are in the order of their values.
	Rows []Row
}

// Row is the limit for one value of the entry: a limit without a table, which differs from
// the one with the table in RequestsPerUnit and Algo alone.
type Row struct {
	Value string
	Limit *Limit
}

// MaxRows is how many values a table may have: each is a limit of its own, ready to
// decide.
const MaxRows = 256

// Follows returns the key of the entry that the descriptor's limits follow; empty if
// they have no tables. All tables of a descriptor follow the same entry.
func (d *Descriptor) Follows() string {
	for _, l := range d.Limits {
		if l.Table != nil {
			return l.Table.By
		}
	}
	return ""
}

// For returns the limit that applies to a descriptor with these entries: of one with a
// table that of the first entry for which it has a row, else the limit itself, which is
// the table's default. row is the value of the row; empty and false for the default.
func (l *Limit) For(entries []sets.Entry) (limit *Limit, row string, ok bool) {
	if l.Table == nil {
		return l, "", false
	}
	for _, e := range entries {
		if e.Key != l.Table.By {
			continue
		}
		i, found := slices.BinarySearchFunc(l.Table.Rows, e.Value, func(r Row, value string) int { return strings.Compare(r.Value, value) })
		if found {
			return l.Table.Rows[i].Limit, e.Value, true
		}
	}
	return l.Default(), "", false
}

// Default returns the limit without its table.
func (l *Limit) Default() *Limit {
	if l.Table == nil {
		return l
	}
	d := *l
	d.Table = nil
	return &d
}

// All returns the limit, which of one with a table is the default, and those of the
// table's rows.
func (l *Limit) All() iter.Seq[*Limit] {
	return func(yield func(*Limit) bool) {
		if !yield(l) || l.Table == nil {
			return
		}
		for _, r := range l.Table.Rows {
			if !yield(r.Limit) {
				return
			}
		}
	}
}

// shownRows is how many rows the text of a limit shows.
const shownRows = 6

// text returns the table in the text of a limit, such as "1000 for plan=gold, 100 for
// plan=silver, else 10".
func (t *Table) text(otherwise uint32) string {
	var b strings.Builder
	for i, r := range t.Rows {
		if i == shownRows && len(t.Rows) > shownRows+1 {
			fmt.Fprintf(&b, "%d more, ", len(t.Rows)-i)
			break
		}
		fmt.Fprintf(&b, "%d for %s=%s, ", r.Limit.RequestsPerUnit, Quote(t.By), Quote(r.Value))
	}
	fmt.Fprintf(&b, "else %d", otherwise)
	return b.String()
}

// Percent is a part of a limit in hundredths of a percent. 0: none.
type Percent uint32

// OnePercent is 1%.
const OnePercent Percent = 100

// Of returns the part of n, rounded up, at least 1. ok is false if it is beyond uint32.
func (p Percent) Of(n uint32) (part uint32, ok bool) {
	const whole = 100 * 100
	x := max(1, (uint64(p)*uint64(n)+whole-1)/whole)
	return uint32(x), x <= 1<<32-1
}

// String returns it as rules have it, such as "20%" or "12.5%".
func (p Percent) String() string {
	text := fmt.Sprintf("%d.%02d", p/100, p%100)
	return strings.TrimRight(strings.TrimRight(text, "0"), ".") + "%"
}

// ParsePercent reads a decimal number with up to two decimals, from 0.01 to 10000.
func ParsePercent(text string) (Percent, bool) {
	whole, part, hasPart := strings.Cut(text, ".")
	if hasPart && (part == "" || len(part) > 2) {
		return 0, false
	}
	n, err := strconv.ParseUint(whole+(part + "00")[:2], 10, 32)
	return Percent(n), err == nil && whole != "" && n >= 1 && n <= 10000*100
}
