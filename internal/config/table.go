package config

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// Table makes a limit follow the value of an entry of the request descriptor, such as
// its plan. The entry is no part of the counter's key: hits charged under one row still
// count under another.
type Table struct {
	// By is the key of the entry.
	By string
	// Rows are in the order of their values.
	Rows []Row
}

// Row is the limit for one value of the entry. Limit has no table. It differs from the
// limit with the table only in RequestsPerUnit and Algo.
type Row struct {
	Value string
	Limit *Limit
}

// MaxRows bounds the values of a table, because each has a compiled limit of its own.
const MaxRows = 256

// TableKey is the key of the entry that the tables of the descriptor's limits follow; empty
// if they have no tables. All tables of a descriptor follow the same entry.
func (d *Descriptor) TableKey() string {
	for _, l := range d.Limits {
		if l.Table != nil {
			return l.Table.By
		}
	}
	return ""
}

// For returns the limit that applies to a descriptor with these entries. If the limit has
// a table, the first entry with a row decides; without one the table's default applies.
// row is the value of the row. It is empty, and ok is false, for the default.
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

// All returns the limit, which is the default if it has a table, and the limits of the
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

// shownRows bounds the rows that the text of a limit shows.
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

// Of returns the percentage of n, rounded up, at least 1. ok is false if it is beyond
// uint32.
func (p Percent) Of(n uint32) (part uint32, ok bool) {
	const whole = 100 * uint64(OnePercent)
	x := max(1, (uint64(p)*uint64(n)+whole-1)/whole)
	return uint32(x), x <= 1<<32-1
}

// String returns the percentage as rules write it, such as "20%" or "12.5%".
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
	return Percent(n), err == nil && whole != "" && n >= 1 && n <= 10000*uint64(OnePercent)
}
