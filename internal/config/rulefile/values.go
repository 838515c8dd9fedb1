package rulefile

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/match/cidr"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// setValue reads the value of a descriptor: a text, addresses, or a list of these.
func (d *decoder) setValue(raw *rawDescriptor, n *yaml.Node) {
	raw.value, raw.anyOf, raw.listAt = field[string]{}, sets.Set{}, nil
	switch yamlfile.Resolve(n).Kind {
	case yaml.SequenceNode, yaml.MappingNode:
		raw.listAt = n
		before := len(d.problems)
		d.values(n, &raw.anyOf)
		raw.listBad = len(d.problems) > before
	default:
		d.text(n, &raw.value)
	}
}

// checkList validates a list of values. One with a single value means that value.
func (d *decoder) checkList(raw *rawDescriptor) {
	if raw.listAt == nil {
		return
	}
	d.push("value")
	defer d.pop()
	before := len(d.problems)
	values, cidrs := raw.anyOf.Values, raw.anyOf.CIDRs
	var places map[string]*yaml.Node
	at := func(text string) *yaml.Node {
		if places == nil {
			places = textsAt(raw.listAt)
		}
		if n := places[text]; n != nil {
			return n
		}
		return raw.listAt
	}
	problem := func(value, what, remedy string) { d.problem(at(value), what, remedy) }
	if strings.Contains(raw.key.v, "*") {
		d.problem(raw.listAt, "a list of values beside a * in the key", "write the keys out, each with the list")
	}
	if len(values)+len(cidrs) == 0 && !raw.listBad {
		d.problem(raw.listAt, "an empty list, which no value is in", "list values, or remove it to match any value")
	}
	again := func(text, shown string) {
		problem(text, fmt.Sprintf("%q is in the list already", yamlfile.Abridge(shown)), "remove one of them")
	}
	seen := make(map[string]bool, len(values))
	for _, v := range values {
		switch {
		case v == "":
			problem(v, "an empty value in a list", "remove it; a descriptor without value matches any value")
		case seen[v]:
			again(v, v)
		case v != strings.TrimSpace(v) && len(values)+len(cidrs) > 1:
			d.warn(at(v), fmt.Sprintf("%q begins or ends with white space", yamlfile.Abridge(v)), "only requests with the same white space match")
		}
		seen[v] = true
	}
	ranges := make(map[netip.Prefix]bool, len(cidrs))
	for _, text := range cidrs {
		p, err := cidr.Parse(text)
		if bad, is := errors.AsType[*cidr.Error](err); is {
			problem(text, bad.What, bad.Remedy)
		} else if ranges[p] {
			again(text, p.String())
		}
		ranges[p] = true
	}
	if len(d.problems) == before && len(values) == 1 && len(cidrs) == 0 {
		raw.value, raw.anyOf = field[string]{v: values[0], n: raw.listAt}, sets.Set{} // checkEntry validates it
		raw.shareThreshold.v = raw.shareThreshold.v && strings.Contains(values[0], "*")
	}
}

// textsAt returns the last node of each text at or below n. It visits what aliases stand
// for once, so that it takes no longer than the file is.
func textsAt(n *yaml.Node) map[string]*yaml.Node {
	places, visited := map[string]*yaml.Node{}, map[*yaml.Node]bool{}
	var visit func(n *yaml.Node)
	visit = func(n *yaml.Node) {
		target := yamlfile.Resolve(n)
		if target.Kind == yaml.ScalarNode {
			places[target.Value] = n
			return
		}
		if visited[target] {
			return
		}
		visited[target] = true
		for _, c := range target.Content {
			visit(c)
		}
	}
	visit(n)
	return places
}

// Values returns a descriptor's value as it is written: a text or a list; nil if it has
// none.
func Values(d *config.Descriptor) any {
	if d.HasList() {
		return valuesOf(d.AnyOf)
	}
	if d.Value == "" {
		return nil
	}
	return d.Value
}

// maskedAddress is the key of Envoy's action that sends prefixes.
const maskedAddress = "masked_remote_address"

// prefixHints returns a hint for each value that looks like a range of addresses but
// matches only entries with the same text.
func prefixHints(r *config.Rules) (hints []config.Problem) {
	hint := func(d *config.Descriptor, key string, values []string) {
		if key == maskedAddress {
			return
		}
		for _, v := range values {
			if _, err := cidr.Parse(v); err == nil {
				hints = append(hints, config.Problem{Pos: d.Pos,
					What:   fmt.Sprintf("%s=%s matches the text %q alone, no address in it", yamlfile.Abridge(key), v, v),
					Remedy: fmt.Sprintf("write {cidr: %q} to match the addresses in it", v)})
			}
		}
	}
	for _, domain := range r.Domains {
		domain.Walk(func(d *config.Descriptor) {
			if d.Set == nil {
				hint(d, d.Key, slices.Concat([]string{d.Value}, d.AnyOf.Values))
				return
			}
			for _, c := range d.Set.Match {
				hint(d, c.Key, slices.Concat(c.Any.Values, c.Not.Values))
			}
		})
	}
	return hints
}
