package rulefile

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// Bounds on a rule on sets of entries.
const (
	maxConditions = 64
	maxSetName    = 256 // bytes: it is part of counter keys
)

var (
	setKeys = newKeys(false, "name", "match", "count_by", "hold", "rate_limit", "rate_limits", "shadow_mode", "quota_mode",
		"detailed_metric", "metadata")
	conditionKeys = newKeys(false, "any", "cidr", "not", "absent")
	cidrKeys      = newKeys(false, "cidr")
)

// sets reads a domain's rules on sets of entries.
func (d *decoder) sets(n *yaml.Node) (rules []*config.Descriptor) {
	if yamlfile.IsNull(n) {
		return nil
	}
	d.list(n, "limits", func(n *yaml.Node) { rules = append(rules, d.setRule(n)) })
	return rules
}

func (d *decoder) setRule(n *yaml.Node) *config.Descriptor {
	var raw rawDescriptor
	var name field[string]
	var match, countBy *yaml.Node
	var hold *rawHold
	set := &sets.Rule{}
	raw.unread = !d.mapping(n, setKeys, func(key string, value *yaml.Node) {
		switch key {
		case "name":
			d.text(value, &name)
		case "match":
			match, set.Match = value, d.match(value)
		case "count_by":
			countBy, set.CountBy = value, nil
			d.texts(value, &set.CountBy)
		case "hold":
			hold = d.hold(value)
		default:
			d.setDescriptor(&raw, key, value)
		}
	})
	set.Name = name.v
	out := &config.Descriptor{
		Set: set, ShadowMode: raw.shadowMode.v, QuotaMode: raw.quotaMode.v, DetailedMetric: raw.detailedMetric.v, Metadata: raw.metadata, Pos: d.pos(n),
	}
	if raw.unread {
		return out
	}
	switch {
	case name.bad: // reported already
	case name.v == "":
		d.problemIn("name", name.at(n), "the name is missing or empty", "write name: and a text of its own: it names the counters")
	case strings.ContainsFunc(name.v, unicode.IsControl):
		d.problemIn("name", name.n, "a name with control characters", "names go into counters and metrics: write printable text")
	case len(name.v) > maxSetName:
		d.problemIn("name", name.n, fmt.Sprintf("longer than %d bytes", maxSetName), "write a shorter name")
	}
	if raw.limit == nil && raw.limits.missing() {
		d.problem(n, "neither rate_limit nor rate_limits", "write rate_limit: {unit: minute, requests_per_unit: 100}")
	}
	if len(set.Match) > maxConditions {
		d.problemIn("match", match, fmt.Sprintf("%d conditions", len(set.Match)), fmt.Sprintf("write at most %d", maxConditions))
	}
	out.Hold = d.checkHold(hold, set, countBy)
	raw.holds(hold)
	out.Limits = d.limitsOf(&raw)
	d.checkFollowed(&raw, out)
	d.checkShadow(&raw)
	if wrong, is := errors.AsType[sets.Errors](sets.Check([]sets.Rule{*set}, nil)); is {
		for _, e := range wrong {
			d.setProblem(e, match, countBy)
		}
	}
	return out
}

// setProblem reports what is wrong with a rule where it is written.
func (d *decoder) setProblem(e *sets.Error, match, countBy *yaml.Node) {
	switch {
	case e.NoName: // reported already
	case e.InCountBy:
		d.problemIn("count_by", lastScalar(countBy, e.Key), e.What, e.Remedy)
	default:
		d.push("match")
		at, value := valueOf(match, e.Key)
		if e.Value != "" {
			at = lastScalar(value, e.Value)
		}
		d.problemIn(e.Key, at, e.What, e.Remedy)
		d.pop()
	}
}

// valueOf returns the key and the value of that key in a mapping that has it.
func valueOf(n *yaml.Node, key string) (at, value *yaml.Node) {
	content := yamlfile.Resolve(n).Content
	for i := 0; i+1 < len(content); i += 2 {
		if k := yamlfile.Resolve(content[i]); k.Kind == yaml.ScalarNode && k.Value == key {
			return k, content[i+1]
		}
	}
	return n, n
}

// lastScalar returns the last scalar at or below n that has this text, else n.
func lastScalar(n *yaml.Node, text string) *yaml.Node {
	if at := textsAt(n)[text]; at != nil {
		return at
	}
	return n
}

// match reads the conditions of a rule, which have the keys of entries.
func (d *decoder) match(n *yaml.Node) (conditions []sets.Condition) {
	if yamlfile.IsNull(n) {
		return nil
	}
	d.ownKeys(n, ownKeys{
		of: "match", want: "write the keys of entries with the values that they must have, such as method: [POST, PUT]", key: "the key of an entry",
		empty: "a condition without a key", again: "write all that is asked of a key in one place",
	}, func(key, value *yaml.Node) {
		c := sets.Condition{Key: key.Value}
		d.condition(value, &c)
		conditions = append(conditions, c)
	})
	return conditions
}

func (d *decoder) condition(n *yaml.Node, c *sets.Condition) {
	if yamlfile.Resolve(n).Kind != yaml.MappingNode {
		d.values(n, &c.Any)
		return
	}
	var absent field[bool]
	d.mapping(n, conditionKeys, func(key string, value *yaml.Node) {
		switch key {
		case "any":
			d.values(value, &c.Any)
		case "cidr":
			d.texts(value, &c.Any.CIDRs)
		case "not":
			d.values(value, &c.Not)
		case "absent":
			d.boolean(value, &absent)
		}
	})
	if c.Absent = absent.v; absent.present() && !absent.v {
		d.problemIn("absent", absent.n, "absent: false", "write true, or {} if the key must be present")
	}
}

// values reads a set of values: a text, addresses, or a list of these.
func (d *decoder) values(n *yaml.Node, set *sets.Set) {
	switch target := yamlfile.Resolve(n); {
	case yamlfile.IsNull(target):
		d.problem(n, "want a value, found nothing", "write {} for any value")
	case target.Kind == yaml.SequenceNode:
		if len(target.Content) == 0 {
			set.Values = []string{}
		}
		d.list(n, "values", func(n *yaml.Node) {
			if yamlfile.Resolve(n).Kind == yaml.SequenceNode {
				d.problem(n, "a list in a list", "write one list")
				return
			}
			d.values(n, set)
		})
	case target.Kind == yaml.MappingNode:
		d.mapping(n, cidrKeys, func(_ string, value *yaml.Node) { d.texts(value, &set.CIDRs) })
	default:
		d.appendText(n, &set.Values)
	}
}

// texts reads a text or a list of texts.
func (d *decoder) texts(n *yaml.Node, out *[]string) {
	if yamlfile.Resolve(n).Kind != yaml.SequenceNode {
		d.appendText(n, out)
		return
	}
	if *out == nil {
		*out = []string{}
	}
	d.list(n, "texts", func(n *yaml.Node) { d.appendText(n, out) })
}

func (d *decoder) appendText(n *yaml.Node, out *[]string) {
	if yamlfile.IsNull(n) {
		d.problem(n, "want a string, found nothing", "write one value")
		return
	}
	var text field[string]
	if d.text(n, &text); !text.bad {
		*out = append(*out, text.v)
	}
}
