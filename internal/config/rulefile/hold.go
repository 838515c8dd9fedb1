package rulefile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

var holdKeys = newKeys(false, "by", "expires", "settled_by")

const holdRemedy = "write hold: {by: request_id, expires: 60s, settled_by: {phase: done}}"

// rawHold is the hold of a rule as written.
type rawHold struct {
	n           *yaml.Node
	by, expires field[string]
	settledBy   *yaml.Node
	settled     []sets.Entry
	expiry      time.Duration // 0 if it is not written as one
	unread      bool          // no mapping: reported
}

func (d *decoder) hold(n *yaml.Node) *rawHold {
	if yamlfile.IsNull(n) {
		return nil
	}
	raw := &rawHold{n: n}
	raw.unread = !d.mapping(n, holdKeys, func(key string, value *yaml.Node) {
		switch key {
		case "by":
			d.text(value, &raw.by)
		case "expires":
			d.text(value, &raw.expires)
			raw.expiry = d.expiry(&raw.expires)
		case "settled_by":
			raw.settledBy, raw.settled = value, d.settledBy(value)
		}
	})
	return raw
}

// expiry reads for how long is held.
func (d *decoder) expiry(text *field[string]) time.Duration {
	if text.bad || !text.present() {
		return 0
	}
	expires, err := parseDuration(text.v)
	const remedy = "write a duration with its unit, longer than the longest request, such as 60s or 5m"
	switch {
	case err != nil:
		d.problem(text.n, fmt.Sprintf("%q is not a duration", yamlfile.Abridge(text.v)), remedy)
	case expires > algo.MaxWindow:
		d.problem(text.n, fmt.Sprintf("a hold can't expire after %s: 366d is the most", text.v), remedy)
	case expires < algo.MinWindow || expires%time.Microsecond != 0:
		d.problem(text.n, fmt.Sprintf("a hold can't expire after %s: 1ms is the least, in whole microseconds", text.v), remedy)
	default:
		return expires
	}
	return 0
}

// settledBy reads the entry that settles.
func (d *decoder) settledBy(n *yaml.Node) (entries []sets.Entry) {
	d.ownKeys(n, ownKeys{
		of: "settled_by", want: "write the entry that the descriptor has when the request has ended, such as {phase: done}", key: "the key of an entry",
		empty: "an entry without a key", again: "remove one of them",
	}, func(key, node *yaml.Node) {
		var value field[string]
		d.text(node, &value)
		switch {
		case value.bad: // reported already
		case value.v == "":
			d.problem(key, "an entry without a value", "write both, such as {phase: done}")
		default:
			if strings.Contains(key.Value+value.v, "*") {
				d.warn(node, fmt.Sprintf("the * in %s=%s stands for itself", yamlfile.Abridge(key.Value), yamlfile.Abridge(value.v)), "write the one entry that the descriptor has when the request has ended, such as {phase: done}")
			}
			entries = append(entries, sets.Entry{Key: key.Value, Value: value.v})
		}
	})
	return entries
}

// checkHold validates the hold of a rule, beside what else the rule says. It returns
// nil for none.
func (d *decoder) checkHold(raw *rawHold, set *sets.Rule, countBy *yaml.Node) *config.Hold {
	if raw == nil {
		return nil
	}
	h := &config.Hold{By: raw.by.v, Expires: raw.expiry}
	d.push("hold")
	defer d.pop()
	named := func(key string) (c sets.Condition, is bool) {
		i := slices.IndexFunc(set.Match, func(c sets.Condition) bool { return c.Key == key })
		if i < 0 {
			return c, false
		}
		return set.Match[i], true
	}
	switch of, is := named(raw.by.v); {
	case raw.unread || raw.by.bad: // reported already
	case raw.by.v == "":
		d.problemIn("by", raw.by.at(raw.n), "by is missing or empty", "write the key of the entry that says which request it is, such as by: request_id")
	case slices.Contains(set.CountBy, raw.by.v):
		d.problemIn("by", lastScalar(countBy, raw.by.v), fmt.Sprintf("count_by names %q, so that each request would have a counter of its own", yamlfile.Abridge(raw.by.v)), "remove it from count_by")
	case is && of.Absent:
		d.problemIn("by", raw.by.n, fmt.Sprintf("match wants %q to be absent, and a descriptor without it does not meet the rule", yamlfile.Abridge(raw.by.v)), "remove that condition")
	}
	if !raw.unread && raw.expires.missing() && !raw.expires.bad {
		d.problemIn("expires", raw.n, "expires is missing", "write when a hold ends that nobody settles: longer than the longest request, such as expires: 60s")
	}
	switch {
	case raw.unread:
	case raw.settledBy == nil:
		d.problemIn("settled_by", raw.n, "settled_by is missing", "write the entry that the descriptor has when the request has ended, such as settled_by: {phase: done}")
	case len(raw.settled) > 1:
		d.problemIn("settled_by", raw.settledBy, "more than one entry", "write the one that says that the request has ended")
	case len(raw.settled) == 0:
		if at := yamlfile.Resolve(raw.settledBy); at.Kind == yaml.MappingNode && len(at.Content) == 0 {
			d.problemIn("settled_by", raw.settledBy, "no entry", "write one, such as {phase: done}")
		}
	default:
		h.SettledBy = raw.settled[0]
		key := h.SettledBy.Key
		if _, is := named(key); is {
			d.problemIn("settled_by", raw.settledBy, fmt.Sprintf("match names %q too, so that the rule would not apply both to the request and to its settlement", yamlfile.Abridge(key)), "remove that condition")
		}
		if key == raw.by.v {
			d.problemIn("settled_by", raw.settledBy, fmt.Sprintf("%q is also by", yamlfile.Abridge(key)), "name two entries")
		}
	}
	return h
}

// holds gives the limits of a rule its hold.
func (raw *rawDescriptor) holds(hold *rawHold) {
	if raw.limit != nil {
		raw.limit.hold = hold
	}
	for _, l := range raw.limits.v {
		l.hold = hold
	}
}

// checkHeld refuses the fields of a limit that make no sense with a hold.
func (d *decoder) checkHeld(raw *rawLimit) {
	for _, f := range []struct {
		key, why, remedy string
		n                *yaml.Node
		given            bool
	}{
		{"unlimited", "nothing is held without a limit", "remove it, or hold", raw.unlimited.n, raw.unlimited.v},
		{"lease", "hits that are taken ahead belong to no request", "remove it, or hold", raw.lease.n, raw.lease.present()},
		{"denied_hits", "a refused request holds nothing, and its settlement charges it", "remove it", raw.deniedHits.n, raw.deniedHits.present() && raw.deniedHits.v != algo.Drop.String()},
	} {
		if f.given {
			d.problemIn(f.key, f.n, f.key+" together with hold: "+f.why, f.remedy)
		}
	}
}

// concurrency validates the numbers of an algorithm that limits nothing but what is
// held.
func (d *decoder) concurrency(raw *rawLimit, l *config.Limit, p *algo.Params) {
	p.Limit, l.RequestsPerUnit = raw.requests.v, raw.requests.v
	if raw.requests.missing() {
		d.warnIn("requests_per_unit", raw.n, "requests_per_unit is missing: every request is over the limit", "write how many may be in flight at once")
	}
	for _, f := range []struct {
		key string
		n   *yaml.Node
	}{{"unit", raw.unit.n}, {"window", raw.window.n}} {
		if f.n != nil {
			d.problemIn(f.key, f.n, fmt.Sprintf("%s has no %s: it limits how many are in flight at once", p.Algorithm, f.key), "remove it")
		}
	}
	if raw.hold == nil {
		d.problemIn("algorithm", raw.algorithm.n, fmt.Sprintf("%s without a hold", p.Algorithm), "move the limit to limits: of the domain, and beside it "+holdRemedy)
		return
	}
	p.Window = raw.hold.expiry
}
