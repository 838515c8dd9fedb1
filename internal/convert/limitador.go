package convert

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// limitador reads a list of limits: from a file of its own, a ConfigMap, or the resource
// of Limitador's operator.
func (c *converter) limitador(root yamlfile.Node) {
	if !root.IsMapping() {
		c.limitadorLimits(root)
		return
	}
	fields := root.Values()
	kind := textOf(fields["kind"])
	switch kind {
	case "ConfigMap":
		for _, f := range fields["data"].Fields() {
			for _, d := range f.Value.Nested() {
				if d.IsList() {
					c.limitadorLimits(d)
				} else {
					c.notCarried(d, f.Name+" is not a list of limits", "")
				}
			}
		}
	case "Limitador":
		spec := fields["spec"].Values()
		if limits := spec["limits"]; limits.Present() {
			c.limitadorLimits(limits)
		} else {
			c.notCarried(root, "the resource has no limits", "give the file or ConfigMap that has them")
		}
	default:
		root.Problem("neither a list of limits nor a ConfigMap or Limitador", "give a file of limits of Limitador")
	}
}

// limitadorLimit is what identifies a limit in Limitador.
type limitadorLimit struct{ namespace, seconds, conditions, variables string }

func (c *converter) limitadorLimits(n yamlfile.Node) {
	known := map[limitadorLimit]config.Pos{}
	for _, e := range n.List() {
		c.limitadorLimit(e, known)
	}
}

func (c *converter) limitadorLimit(n yamlfile.Node, known map[limitadorLimit]config.Pos) {
	if !n.IsMapping() {
		n.Problem("want a limit, found "+n.String(), "write namespace, max_value, seconds, conditions and variables")
		return
	}
	fields := map[string]yamlfile.Node{}
	for _, f := range n.Fields() {
		switch f.Name {
		case "id", "namespace", "max_value", "seconds", "name", "conditions", "variables":
			fields[f.Name] = f.Value
		default:
			c.notCarried(f.Key, fmt.Sprintf("%s of a limit", f.Name), "check whether a key of rules has the same effect")
		}
	}
	for _, key := range []string{"namespace", "max_value", "seconds"} {
		if !fields[key].Present() {
			n.Problem("the limit has no "+key, "write it")
			return
		}
	}
	namespace := textOf(fields["namespace"])
	hits, isNumber := c.number(fields["max_value"])
	seconds, isWhole := fields["seconds"].Int(0, math.MaxInt64)
	if !isNumber || !isWhole {
		return
	}
	if longest := int64(algo.MaxWindow / time.Second); seconds < 1 || seconds > longest {
		c.notCarried(fields["seconds"], fmt.Sprintf("a limit for %d seconds", seconds), fmt.Sprintf("a window has 1 second to %d days: write a limit of your own", longest/86400))
		return
	}
	same := limitadorLimit{namespace, fmt.Sprint(seconds), sortedTexts(fields["conditions"]), sortedTexts(fields["variables"])}
	if at, is := known[same]; is {
		c.notCarried(n, fmt.Sprintf("the limit at %s has the same namespace, seconds, conditions and variables, and Limitador has one counter for both", at), "keep one of them")
		return
	}
	known[same] = n.Pos()
	set, ok := c.limitadorSet(fields)
	if !ok {
		return
	}
	limit := c.limit(n, hits, time.Duration(seconds)*time.Second, algo.DeniedDefault)
	if limit == nil {
		return
	}
	limit.Name = textOf(fields["name"])
	domain := c.domain(namespace)
	set.Name = c.nameIn(domain, cmp.Or(limit.Name, textOf(fields["id"]), nameOf(set)))
	domain.Limits = append(domain.Limits, &config.Descriptor{Set: &set, Limits: []*config.Limit{limit}})
	c.result.Limits++
}

// limitadorSet returns the requests to which a limit applies. If rules can't express that,
// limitadorSet lists it, and ok is false.
func (c *converter) limitadorSet(fields map[string]yamlfile.Node) (set sets.Rule, ok bool) {
	ok = true
	fail := func(n yamlfile.Node, kind string, err error) {
		ok = false
		what := fmt.Sprintf("the %s %q: %v: the limit is left out", kind, yamlfile.Abridge(textOf(n)), err)
		if impossible, is := errors.AsType[*inexpressible](err); is {
			c.notCarried(n, what, impossible.remedy)
		} else {
			c.notCarried(n, what, "remove the limit")
		}
	}
	for _, n := range fields["conditions"].List() {
		text, _ := n.Text()
		e, err := parseExpr(text)
		var list []sets.Condition
		if err == nil {
			list, err = e.conditions(false)
		}
		var merged []sets.Condition
		if err == nil {
			merged, err = merge(append(slices.Clone(set.Match), list...))
		}
		if err != nil {
			fail(n, "condition", err)
			continue
		}
		set.Match = merged
	}
	for _, n := range fields["variables"].List() {
		text, _ := n.Text()
		e, err := parseExpr(text)
		if err == nil && e.op != "entry" {
			err = cannot("write descriptors[0]['key']", "it is not an entry")
		}
		if err == nil && slices.ContainsFunc(set.Match, func(m sets.Condition) bool { return m.Key == e.text && m.Absent }) {
			err = errNever
		}
		if err != nil {
			fail(n, "variable", err)
			continue
		}
		set.Match = present(set.Match, e.text)
		if !slices.Contains(set.CountBy, e.text) {
			set.CountBy = append(set.CountBy, e.text)
		}
	}
	return set, ok
}

// textOf returns the text of a scalar; empty if there is none.
func textOf(n yamlfile.Node) string {
	text, _ := n.Text()
	return text
}

// sortedTexts returns the texts of a list in sorted order.
func sortedTexts(n yamlfile.Node) string {
	var texts []string
	for _, e := range n.List() {
		texts = append(texts, textOf(e))
	}
	slices.Sort(texts)
	return strings.Join(slices.Compact(texts), "\x00")
}

// nameOf returns a name for a rule: its keys, with their values if they have any.
func nameOf(set sets.Rule) string {
	if len(set.Match) == 0 {
		return "everything"
	}
	var parts []string
	for _, m := range set.Match {
		part := m.Key
		switch {
		case m.Absent:
			part = "no-" + part
		case len(m.Any.Values) > 0:
			part += "_" + strings.Join(m.Any.Values, "+")
		case len(m.Not.Values) > 0:
			part += "_not_" + strings.Join(m.Not.Values, "+")
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ".")
}
