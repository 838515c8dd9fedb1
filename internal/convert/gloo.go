package convert

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// settingsDomain is the domain in which Gloo sends the descriptors of its Settings.
const settingsDomain = "custom"

// gloo reads a resource with rules of Gloo's server.
func (c *converter) gloo(root yamlfile.Node) {
	fields := root.Values()
	if !root.IsMapping() {
		return // reported
	}
	kind := textOf(fields["kind"])
	switch kind {
	case "List":
		for _, e := range fields["items"].List() {
			c.gloo(e)
		}
	case "Settings":
		c.glooRules(settingsDomain, fields["spec"].Values()["ratelimit"])
	case "RateLimitConfig", "RateLimitServerConfig":
		c.glooRules(glooName(fields["metadata"]), fields["spec"].Values()["raw"])
	case "": // a part of a resource, as in documents
		spec := fields["spec"].Values()
		switch {
		case spec["ratelimit"].Present():
			c.glooRules(settingsDomain, spec["ratelimit"])
			return
		case spec["raw"].Present():
			c.glooRules(settingsDomain, spec["raw"])
			return
		case !fields["descriptors"].Present() && !fields["setDescriptors"].Present():
			root.Problem("neither a resource nor descriptors or setDescriptors", "give a RateLimitConfig, RateLimitServerConfig or Settings of Gloo")
			return
		}
		c.glooRules(settingsDomain, root)
	default:
		c.notCarried(root, "a "+yamlfile.Abridge(kind)+" has no rules of the rate limit server", "configure what it asks of Envoy there: docs/migrating.md says how")
	}
}

// glooName returns "namespace.name" of a resource.
func glooName(metadata yamlfile.Node) string {
	fields := metadata.Values()
	namespace, name := textOf(fields["namespace"]), textOf(fields["name"])
	if namespace == "" {
		return cmp.Or(name, settingsDomain)
	}
	return namespace + "." + name
}

// glooRules reads the rules of a resource.
func (c *converter) glooRules(name string, n yamlfile.Node) {
	domain := c.domain(name)
	for _, f := range n.Fields() {
		switch f.Name {
		case "descriptors":
			var rules []*glooRule
			domain.Descriptors = c.glooLevel(domain.Descriptors, f.Value.List(), nil, &rules)
			c.weigh(domain, rules)
		case "setDescriptors", "set_descriptors":
			c.glooSets(domain, f.Value)
		case "rateLimits", "rate_limits":
			if len(f.Value.List()) > 0 {
				c.notCarried(f.Key, "actions are Envoy's, and not part of rules", "write them as rate_limits of Envoy's routes, those of setActions as the actions of one descriptor")
			}
		default:
			c.notCarried(f.Key, f.Name+" is not part of rules", "")
		}
	}
}

// glooRule is a descriptor with a limit.
type glooRule struct {
	name   string
	limit  *config.Limit
	weight int64
	always bool // applies whatever the weights of others
}

// glooDescriptor reads a descriptor and everything below it, and adds the descriptors that
// have limits to rules. It returns nil if the descriptor can't be carried over.
func (c *converter) glooDescriptor(n yamlfile.Node, above []string, rules *[]*glooRule) *config.Descriptor {
	d := &config.Descriptor{}
	rule := &glooRule{}
	var weight, always, below yamlfile.Node
	for _, f := range n.Fields() {
		switch f.Name {
		case "key":
			d.Key = textOf(f.Value)
		case "value":
			if d.Value = textOf(f.Value); !c.literal(f.Value, d.Value) {
				return nil
			}
		case "rateLimit", "rate_limit":
			rule.limit = c.glooLimit(f.Value, algo.DeniedDefault)
		case "descriptors":
			below = f.Value
		case "weight":
			weight = f.Value
			rule.weight, _ = f.Value.Int(0, math.MaxUint32)
		case "alwaysApply", "always_apply":
			always = f.Key
			rule.always, _ = f.Value.Bool()
		default:
			c.notCarried(f.Key, f.Name+" of a descriptor", "check whether a key of rules has the same effect")
		}
	}
	if d.Key == "" {
		if n.IsMapping() {
			n.Problem("the descriptor has no key", "write it")
		}
		return nil
	}
	path := append(slices.Clone(above), d.NamePart())
	switch {
	case rule.limit != nil:
		rule.name = strings.Join(path, ".")
		d.Limits = []*config.Limit{rule.limit}
		*rules = append(*rules, rule)
		c.result.Limits++
	case rule.weight != 0:
		c.notCarried(weight, "the weight of a descriptor without a rateLimit", "write rate_limit: {unlimited: true} with replaces, if it is to keep other limits from applying")
	case rule.always:
		c.notCarried(always, "alwaysApply of a descriptor without a rateLimit", "remove it")
	}
	d.Descriptors = c.glooLevel(nil, below.List(), path, rules)
	return d
}

// glooLevel adds the descriptors of one level to those that it has. Of two with the same
// key and value rules can have the first only.
func (c *converter) glooLevel(level []*config.Descriptor, list []yamlfile.Node, above []string, rules *[]*glooRule) []*config.Descriptor {
	for _, n := range list {
		named := &config.Descriptor{}
		for _, f := range n.Fields() {
			switch f.Name {
			case "key":
				named.Key = textOf(f.Value)
			case "value":
				named.Value = textOf(f.Value)
			}
		}
		if slices.ContainsFunc(level, func(d *config.Descriptor) bool { return d.NamePart() == named.NamePart() }) {
			c.notCarried(n, fmt.Sprintf("the descriptor %s a second time in its level: it is left out", config.Quote(named.NamePart())), "write it once, with what both have")
			continue
		}
		if d := c.glooDescriptor(n, above, rules); d != nil {
			level = append(level, d)
		}
	}
	return level
}

// weigh makes each rule replace the rules of a lower weight in the same request, except
// those that always apply.
func (c *converter) weigh(domain *config.Domain, rules []*glooRule) {
	for _, r := range rules {
		for _, lower := range rules {
			if lower.weight < r.weight && !lower.always {
				c.replace(domain, r.limit, lower.limit, lower.name)
			}
		}
	}
}

// replace makes a limit replace another one, which gets a name if it has none.
func (c *converter) replace(domain *config.Domain, l, other *config.Limit, name string) {
	if other.Name == "" {
		other.Name = c.nameIn(domain, name)
	}
	l.Replaces = append(l.Replaces, other.Name)
}

// glooLimit reads a rateLimit. If it can't be carried over, glooLimit lists it and returns
// nil.
func (c *converter) glooLimit(n yamlfile.Node, denied algo.DeniedHits) *config.Limit {
	var hits uint32
	unit := config.UnitUnknown
	at := n
	for _, f := range n.Fields() {
		switch f.Name {
		case "unit":
			at, unit = f.Value, config.ParseUnit(textOf(f.Value))
		case "requestsPerUnit", "requests_per_unit":
			hits, _ = c.number(f.Value)
		default:
			c.notCarried(f.Key, f.Name+" of a rateLimit", "check whether a key of rules has the same effect")
		}
	}
	if unit == config.UnitUnknown {
		c.notCarried(at, "a limit with no unit or an unknown one: it is left out", "write SECOND, MINUTE, HOUR, DAY, WEEK, MONTH or YEAR")
		return nil
	}
	return c.limit(n, hits, unit.Duration(), denied)
}

// glooSet is a rule on sets of entries.
type glooSet struct {
	set    sets.Rule
	limit  *config.Limit
	always bool // applies whether or not an earlier rule matches
}

// glooSets reads setDescriptors. The first that matches applies, and so do those that
// always apply.
func (c *converter) glooSets(domain *config.Domain, n yamlfile.Node) {
	var rules []*glooSet
	for _, e := range n.List() {
		if r := c.glooSet(e); r != nil {
			r.set.Name = c.nameIn(domain, nameOf(r.set))
			domain.Limits = append(domain.Limits, &config.Descriptor{Set: &r.set, Limits: []*config.Limit{r.limit}})
			rules = append(rules, r)
			c.result.Limits++
		}
	}
	for i, r := range rules {
		for _, later := range rules[i+1:] {
			if !later.always && !excludes(r.set, later.set) {
				c.replace(domain, r.limit, later.limit, "later."+later.set.Name)
			}
		}
	}
}

// excludes reports whether no descriptor matches both rules.
func excludes(a, b sets.Rule) bool {
	return slices.ContainsFunc(a.Match, func(x sets.Condition) bool {
		return slices.ContainsFunc(b.Match, func(y sets.Condition) bool {
			return x.Key == y.Key && x.Any.Values != nil && y.Any.Values != nil && x.Any.Values[0] != y.Any.Values[0]
		})
	})
}

func (c *converter) glooSet(n yamlfile.Node) *glooSet {
	r := &glooSet{}
	ok := true
	for _, f := range n.Fields() {
		switch f.Name {
		case "simpleDescriptors", "simple_descriptors":
			for _, e := range f.Value.List() {
				ok = c.glooSimple(e, &r.set) && ok
			}
		case "rateLimit", "rate_limit":
			r.limit = c.glooLimit(f.Value, algo.Count) // as Gloo counts: rules on sets drop refused hits
			ok = ok && r.limit != nil
		case "alwaysApply", "always_apply":
			r.always, _ = f.Value.Bool()
		default:
			c.notCarried(f.Key, f.Name+" of a setDescriptor", "check whether a key of rules has the same effect")
		}
	}
	if ok && r.limit == nil && n.IsMapping() {
		c.notCarried(n, "a setDescriptor without a rateLimit: it is left out", "write a limit with rate_limit: {unlimited: true} and replaces, if it is to keep later ones from applying")
	}
	if !ok || r.limit == nil {
		return nil
	}
	return r
}

// glooSimple adds a simpleDescriptor. It reports whether rules can express it.
func (c *converter) glooSimple(n yamlfile.Node, set *sets.Rule) bool {
	fields := n.Mapping("key", "value")
	condition := sets.Condition{Key: textOf(fields["key"])}
	switch value := textOf(fields["value"]); {
	case condition.Key == "":
		if n.IsMapping() {
			n.Problem("the simpleDescriptor has no key", "write it")
		}
		return false
	case slices.ContainsFunc(set.Match, func(m sets.Condition) bool { return m.Key == condition.Key }):
		c.notCarried(n, fmt.Sprintf("the key %q twice in a setDescriptor: it is left out", yamlfile.Abridge(condition.Key)), "write it once")
		return false
	case value == "":
		set.CountBy = append(set.CountBy, condition.Key)
	case !c.literal(fields["value"], value):
		return false
	default:
		condition.Any.Values = []string{value}
	}
	set.Match = append(set.Match, condition)
	return true
}
