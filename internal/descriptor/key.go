package descriptor

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
)

// A counter key names the domain, every entry and what the state means:
//
//	4:edge|4:user=5:alice|4:path~2:/*|fw:1m
//
// Each name is preceded by its length in bytes, so that no two descriptors share
// a key, whatever bytes they hold. Those of a rule on sets of entries name the rule
// and, of the entries, those that it counts by: 4:edge|@6:writes|4:user=5:alice|tb.
// ~ stands before a pattern whose values share
// the counter, & before the text of a list of values or ranges, * before the joined key and pattern if the entry's key is not the
// configured one. The tag at the end is the algorithm and, of one that counts in
// windows, its window, which may be one of a calendar: fw:month-15@Europe/Berlin, and
// ,hold if there is one around it; #2 for the second limit of that tag; and ! before it for a
// limit that came with the request. What may change while a counter lives on is no
// part of it: limit, burst, the rate of a bucket, how strict a window is, and the entry
// that a table follows. The
// 2 in sw2 and hy2 tells their states from those of versions before.

// AppendKey appends the key of the counter of one of the rule's limits, by its
// index in Config.Limits, for entries that Lookup has led to the rule. An
// unlimited limit has no counter: nothing is appended.
func (r *Rule) AppendKey(dst []byte, entries []Entry, limit int) []byte {
	f := r.keys
	tag := f.tags[limit]
	if tag == "" {
		return dst
	}
	if r.set != nil {
		return r.appendSetKey(dst, entries, tag)
	}
	dst = append(dst, f.prefix...)
	var room [8]Entry
	entries = r.leading(room[:0], entries)
	for i := range entries {
		e := &entries[i]
		if f.levels != nil {
			if n := f.levels[i]; n.shared != "" && n.matches(e) {
				dst = n.appendShared(dst, e)
				continue
			}
		}
		dst = appendEntry(dst, e)
	}
	return append(dst, tag...)
}

// keyForm is what is not the entries' in the counter keys of a rule.
type keyForm struct {
	prefix string   // the domain
	tags   []string // by limit: how its keys end; empty: unlimited
	levels []*node  // from the domain's top level to the rule's; nil if they don't matter
}

// AppendOverrideKey appends the key of the counter of a limit that came with the
// request, instead of those of rule; nil if no rule applies.
func (d *Domain) AppendOverrideKey(dst []byte, rule *Rule, entries []Entry, l *algo.Limit) []byte {
	dst = append(dst, d.prefix...)
	var room [8]Entry
	if rule != nil {
		entries = rule.leading(room[:0], entries)
	}
	for i := range entries {
		dst = appendEntry(dst, &entries[i])
	}
	return appendTag(append(dst, '!'), l.Params())
}

func appendEntry(dst []byte, e *Entry) []byte {
	dst = append(appendSized(dst, e.Key), '=')
	return append(appendSized(dst, e.Value), '|')
}

// appendSized appends s with its length before it.
func appendSized(dst []byte, s string) []byte {
	dst = append(strconv.AppendUint(dst, uint64(len(s)), 10), ':')
	return append(dst, s...)
}

// appendShared appends what stands for an entry that shares its counter. As in
// envoyproxy/ratelimit, entries that match by another key than is configured, by
// way of the joint or of a * in the key, share it with those of their own key.
func (n *node) appendShared(dst []byte, e *Entry) []byte {
	if n.config.HasList() || !n.starKey && (len(e.Key) == len(n.config.Key) || strings.HasPrefix(n.joined, e.Key+"_")) {
		return append(dst, n.shared...)
	}
	dst = append(appendSized(dst, e.Key), '*')
	return append(appendSized(dst, n.joined), '|')
}

// sharedText returns what stands in counter keys for entries that land on n, if
// their values share a counter.
func sharedText(n *node) string {
	mark := byte('~')
	switch {
	case !n.config.ShareThreshold:
		return ""
	case n.config.HasList():
		mark = '&'
	case n.match == nil:
		return ""
	}
	text := append(appendSized(nil, n.config.Key), mark)
	return string(appendSized(text, n.config.ValueText())) + "|"
}

// matches reports whether e, which landed on n, matches n's pattern, or is one of n's list.
// Otherwise it landed there by its key alone.
func (n *node) matches(e *Entry) bool {
	if n.config.HasList() {
		return true
	}
	if n.match == nil {
		return false
	}
	return len(e.Key) == len(n.config.Key) && n.config.Value != "" || n.match.Match(e.Key+"_"+e.Value)
}

func appendTag(dst []byte, p algo.Params) []byte {
	tag, windowed := p.Algorithm.Tag()
	dst = append(dst, tag...)
	switch {
	case !p.Calendar.IsZero():
		dst = appendCalendar(append(dst, ':'), p.Calendar)
	case windowed:
		dst = appendPeriod(append(dst, ':'), p.Window)
	}
	if p.Hold != 0 {
		dst = append(dst, ",hold"...)
	}
	return dst
}

// appendCalendar appends a calendar as month-15@Europe/Berlin.
func appendCalendar(dst []byte, c algo.Calendar) []byte {
	dst = append(dst, c.Every.String()...)
	if c.Starts > 0 {
		dst = strconv.AppendInt(append(dst, '-'), int64(c.Starts), 10)
	}
	return append(append(dst, '@'), c.Zone...)
}

// appendPeriod appends d in the largest unit that divides it.
func appendPeriod(dst []byte, d time.Duration) []byte {
	for _, u := range [...]struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}, {time.Microsecond, "us"}} {
		if d%u.length == 0 {
			return append(strconv.AppendInt(dst, int64(d/u.length), 10), u.name...)
		}
	}
	return dst
}

// keyForm returns the form for rules with such limits, most of which are alike.
func (b *builder) keyForm(limits []*config.Limit) *keyForm {
	b.id = append(b.id[:0], b.domain.prefix...)
	for _, l := range limits {
		if !l.Unlimited {
			b.id = appendTag(b.id, l.Algo.Params())
		}
		if l.ShadowMode {
			b.id = append(b.id, '~')
		}
		b.id = append(b.id, ' ')
	}
	f := b.forms[string(b.id)]
	if f == nil {
		f = &keyForm{prefix: b.domain.prefix, tags: tags(limits)}
		b.forms[string(b.id)] = f
	}
	return f
}

// tags returns how the keys of the limits end. Limits of one tag are numbered in
// their order, those in shadow mode after the others: a candidate takes no counter
// of a limit that is enforced, wherever it stands.
func tags(limits []*config.Limit) []string {
	tags := make([]string, len(limits))
	for _, shadow := range [...]bool{false, true} {
		for i, l := range limits {
			if l.Unlimited || l.ShadowMode != shadow {
				continue
			}
			tag := string(appendTag(nil, l.Algo.Params()))
			name := tag
			for n := 2; slices.Contains(tags, name); n++ {
				name = tag + "#" + strconv.Itoa(n)
			}
			tags[i] = name
		}
	}
	return tags
}

// AppendMetricKey appends the name, without the domain, under which statistics
// of these entries are kept, as envoyproxy/ratelimit gives it: the rule's path,
// but with the entries' own values on levels with value_to_metric, and on all
// levels if the rule has detailed_metric; of a rule on sets of entries those of
// count_by. Values that share a threshold are
// named by their pattern. The entries are ones that Lookup has led to the rule.
func (r *Rule) AppendMetricKey(dst []byte, entries []Entry) []byte {
	if !r.Detailed {
		return append(dst, r.Path...)
	}
	if r.set != nil {
		return r.appendSetMetricKey(dst, entries)
	}
	var room [8]Entry
	entries = r.leading(room[:0], entries)
	shares := r.shares(entries)
	for i := range entries {
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = r.appendMetricLevel(dst, i, &entries[i], shares)
	}
	return dst
}

// shares reports whether the entries share a threshold with others.
func (r *Rule) shares(entries []Entry) bool {
	for i := range entries {
		if n := r.keys.levels[i]; n.config.ShareThreshold && n.byPattern(&entries[i]) {
			return true
		}
	}
	return false
}

func (r *Rule) appendMetricLevel(dst []byte, i int, e *Entry, shares bool) []byte {
	dst = append(dst, e.Key...)
	value := r.keys.levels[i].metricValue(e, r.Config.DetailedMetric)
	if value != "" || r.Config.DetailedMetric && !shares {
		dst = append(append(dst, '_'), value...)
	}
	return dst
}

// MetricLevels returns the first two levels of what AppendMetricKey appends; the second
// is empty if there is none. Without entries they are those of the rule's path.
func (r *Rule) MetricLevels(entries []Entry) (first, second string) {
	if !r.Detailed || entries == nil {
		first, second = r.Path[:r.ends[0]], r.Path[r.ends[0]:r.ends[1]]
		return first, strings.TrimPrefix(second, ".")
	}
	if r.set != nil {
		first, second, _ = strings.Cut(string(r.appendSetMetricKey(nil, entries)), ".")
		return first, second
	}
	entries = r.leading(nil, entries)
	shares := r.shares(entries)
	first = string(r.appendMetricLevel(nil, 0, &entries[0], shares))
	if len(entries) > 1 {
		second = string(r.appendMetricLevel(nil, 1, &entries[1], shares))
	}
	return first, second
}

// metricValue returns how e's value is shown in metrics.
func (n *node) metricValue(e *Entry, detailed bool) string {
	byPattern := n.byPattern(e)
	text := strings.TrimPrefix(n.joined, e.Key+"_")
	switch {
	case byPattern && n.config.ShareThreshold && text != "":
		return text
	case detailed || n.config.ValueToMetric:
		return e.Value
	case byPattern:
		return text
	case n.isJoined(e):
		return e.Value
	}
	return ""
}

// byPattern reports whether e matches n's pattern and is not the pattern itself.
func (n *node) byPattern(e *Entry) bool { return n.matches(e) && !n.isJoined(e) }

// isJoined reports whether e's joined key and value are n's.
func (n *node) isJoined(e *Entry) bool {
	rest, ok := strings.CutPrefix(n.joined, e.Key)
	return ok && len(rest) == 1+len(e.Value) && rest[0] == '_' && rest[1:] == e.Value
}

// Shard returns the length of the part of a counter key of this domain that says
// which counters are decided together with it: what comes before the tag, which
// all limits of a descriptor have in common; in a domain that is all or nothing
// the domain alone.
func (d *Domain) Shard(key []byte) int {
	if d.config.Consume == config.AllOrNothing {
		return len(d.prefix)
	}
	return bytes.LastIndexByte(key, '|') + 1
}
