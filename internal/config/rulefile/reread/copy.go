package reread

import "github.com/distlimiter/ratelimit/internal/config"

// moved returns a copy of descriptors, in another file and the given number of lines
// further down.
func moved(level []*config.Descriptor, file string, lines int) []*config.Descriptor {
	var m mover
	m.count(level)
	m.file, m.lines = file, lines
	m.nodes, m.limits = make([]config.Descriptor, m.nodesLeft), make([]config.Limit, m.limitsLeft)
	m.nodeRefs, m.limitRefs = make([]*config.Descriptor, m.nodesLeft), make([]*config.Limit, m.limitsLeft)
	return m.level(level)
}

// mover makes copies with as few allocations as possible.
type mover struct {
	file                  string
	lines                 int
	nodesLeft, limitsLeft int
	nodes                 []config.Descriptor
	nodeRefs              []*config.Descriptor
	limits                []config.Limit
	limitRefs             []*config.Limit
}

func (m *mover) count(level []*config.Descriptor) {
	m.nodesLeft += len(level)
	for _, d := range level {
		m.limitsLeft += len(d.Limits)
		m.count(d.Descriptors)
	}
}

func (m *mover) pos(p config.Pos) config.Pos {
	return config.Pos{File: m.file, Line: p.Line + m.lines, Column: p.Column}
}

func (m *mover) level(level []*config.Descriptor) []*config.Descriptor {
	if level == nil {
		return nil
	}
	out := take(&m.nodeRefs, len(level))
	nodes := take(&m.nodes, len(level))
	for i, d := range level {
		c := &nodes[i]
		*c = *d
		c.Pos = m.pos(d.Pos)
		if d.Limits != nil {
			c.Limits = take(&m.limitRefs, len(d.Limits))
			limits := take(&m.limits, len(d.Limits))
			for j, l := range d.Limits {
				limits[j] = *l
				limits[j].Pos = m.pos(l.Pos)
				limits[j].Table = m.table(l.Table)
				c.Limits[j] = &limits[j]
			}
		}
		c.Descriptors = m.level(d.Descriptors)
		out[i] = c
	}
	return out
}

// table copies a table, which few limits have.
func (m *mover) table(t *config.Table) *config.Table {
	if t == nil {
		return nil
	}
	c := &config.Table{By: t.By, Rows: make([]config.Row, len(t.Rows))}
	for i, r := range t.Rows {
		limit := *r.Limit
		limit.Pos = m.pos(limit.Pos)
		c.Rows[i] = config.Row{Value: r.Value, Limit: &limit}
	}
	return c
}

// take cuts off and returns the first n elements.
func take[T any](from *[]T, n int) []T {
	taken := (*from)[:n:n]
	*from = (*from)[n:]
	return taken
}
