package limiter

import (
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// table makes a limit follow an entry: each value in it has a limit of its own. The
// limit that has the table applies to all other values.
type table struct {
	by   string
	rows map[string]*Limit
}

// compileTable returns the table of a limit; nil if it has none. limit is the compiled
// default.
func (l *Limiter) compileTable(limit *Limit, t *config.Table) (*table, error) {
	if t == nil {
		return nil, nil
	}
	out := &table{by: t.By, rows: make(map[string]*Limit, len(t.Rows))}
	for _, r := range t.Rows {
		row := *limit
		row.Algo, row.RequestsPerUnit, row.onError = r.Limit.Algo, r.Limit.RequestsPerUnit, r.Limit.OnBackendError
		if err := l.compileLimit(&row); err != nil {
			return nil, err
		}
		out.rows[r.Value] = &row
	}
	return out, nil
}

// of returns the limit for a descriptor with these entries: see [config.Limit.For].
func (l *Limit) of(entries []descriptor.Entry) *Limit {
	if l.table == nil {
		return l
	}
	for i := range entries {
		if entries[i].Key == l.table.by {
			if row := l.table.rows[entries[i].Value]; row != nil {
				return row
			}
		}
	}
	return l
}

// countIn sets the statistics of a candidate and of all its rows.
func (l *Limit) countIn(s *stats.Rule) {
	l.stats = s
	if l.table != nil {
		for _, row := range l.table.rows {
			row.stats = s
		}
	}
}
