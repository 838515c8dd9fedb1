package descriptor

import (
	"bytes"
	"strconv"
)

// Counter is a decoded counter key.
type Counter struct {
	Domain string
	// Limit is the name of the rule on sets of entries; empty for rules of the tree.
	Limit   string
	Entries []CounterEntry
	// Tag names algorithm and window.
	Tag string
	// Override reports whether the limit came with the request.
	Override bool
}

// CounterEntry is an entry in a counter key.
type CounterEntry struct {
	Entry
	// Shared reports whether all values that match the pattern Value share the
	// counter. With List, all values of the list with the text Value share it.
	Shared, List bool
}

// ParseKey decodes a key of AppendKey or AppendOverrideKey, or the start of one. Of a
// start it returns the fields that are whole; complete reports whether key is whole.
func ParseKey(key []byte) (c Counter, complete bool) {
	var ok bool
	if c.Domain, key, ok = cutSized(key); !ok || len(key) == 0 || key[0] != '|' {
		return Counter{}, false
	}
	key = key[1:]
	if len(key) > 0 && key[0] == '@' {
		if c.Limit, key, ok = cutSized(key[1:]); !ok || len(key) == 0 {
			return c, false
		}
		key = key[1:]
	}
	for len(key) > 0 && '0' <= key[0] && key[0] <= '9' {
		var e CounterEntry
		var rest []byte
		if e.Key, rest, ok = cutSized(key); !ok || len(rest) == 0 {
			return c, false
		}
		e.Shared, e.List = rest[0] != '=', rest[0] == '&'
		if e.Value, rest, ok = cutSized(rest[1:]); !ok || len(rest) == 0 {
			return c, false
		}
		c.Entries = append(c.Entries, e)
		key = rest[1:]
	}
	key, c.Override = bytes.CutPrefix(key, []byte("!"))
	c.Tag = string(key)
	return c, c.Tag != ""
}

// cutSized decodes a text of appendSized, and returns the rest of key.
func cutSized(key []byte) (s string, rest []byte, ok bool) {
	size, rest, found := bytes.Cut(key, []byte(":"))
	n, err := strconv.Atoi(string(size))
	if !found || err != nil || n < 0 || n > len(rest) {
		return "", nil, false
	}
	return string(rest[:n]), rest[n:], true
}

// RuleOf returns the rule whose counters have keys like this one. It returns nil if there
// is none, or if the rule has a key with a *, from which it can't be recognised.
func (m *Matcher) RuleOf(key []byte) *Rule {
	c, complete := ParseKey(key)
	d := m.Domain(c.Domain)
	if !complete || c.Override || d == nil {
		return nil
	}
	var r *Rule
	if i, is := d.byName[c.Limit]; is && c.Limit != "" {
		r = &d.limitRules[i]
	} else if c.Limit == "" {
		r = d.ruleOf(c.Entries)
	}
	if r == nil {
		return nil
	}
	entries := make([]Entry, len(c.Entries))
	for i, e := range c.Entries {
		entries[i] = e.Entry
	}
	for i := range r.Config.Limits {
		if bytes.Equal(r.AppendKey(nil, entries, i), key) {
			return r
		}
	}
	return nil
}

// ruleOf returns the rule to which counted entries lead. A shared entry leads to the
// pattern that it names.
func (d *Domain) ruleOf(entries []CounterEntry) *Rule {
	at := d.top
	for i := range entries {
		if at.flags&hasLevel == 0 {
			return nil
		}
		if e := &entries[i]; e.List {
			at = d.listAt(at, e.Key, e.Value)
		} else {
			at = d.step(at, e.Key, e.Value)
		}
		if at.slot == none {
			return nil
		}
	}
	if at.flags&hasRule == 0 {
		return nil
	}
	return &d.rules[at.slot]
}
