package sets

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/match/cidr"
)

// Compile returns the index of rules. The error is of type [Errors] and holds all mistakes
// in them. The task may be nil.
func Compile(rules []Rule, task *background.Task) (*Index, error) {
	c := compile(rules, task)
	if len(c.errors) > 0 {
		return nil, c.errors
	}
	return c.index(), nil
}

// Check returns the error that Compile would return; nil if the rules are valid.
func Check(rules []Rule, task *background.Task) error {
	if c := compile(rules, task); len(c.errors) > 0 {
		return c.errors
	}
	return nil
}

func compile(rules []Rule, task *background.Task) *compiler {
	c := &compiler{rules: make([]rule, len(rules)), countBy: make([][]string, len(rules)), tally: tally{}, sets: map[string]*set{}, task: task}
	n := 0
	for i := range rules {
		n += len(rules[i].Match)
	}
	c.conditions = make([]condition, 0, n)
	names := make(map[string]bool, len(rules))
	for i := range rules {
		c.at, c.rule = i, &rules[i]
		switch {
		case c.rule.Name == "":
			c.refuse(&Error{NoName: true, What: "no name", Remedy: "write name: and a text of its own: it names the counters"})
		case names[c.rule.Name]:
			c.refuse(&Error{What: "another limit of the domain has this name", Remedy: "give it a name of its own: it names the counters"})
		}
		names[c.rule.Name] = true
		c.compileRule()
		task.Step()
	}
	return c
}

// compiler compiles rules one by one, and then files them.
type compiler struct {
	at         int // of the rule being compiled
	rule       *Rule
	rules      []rule
	countBy    [][]string
	conditions []condition // of all rules
	tally      tally
	sets       map[string]*set // by their members: rules share those that are few
	id         []byte          // reused
	errors     Errors
	task       *background.Task
}

func (c *compiler) refuse(e *Error) {
	e.Rule, e.Name = c.at, c.rule.Name
	c.errors = append(c.errors, e)
}

func (c *compiler) compileRule() {
	from := len(c.conditions)
	for i := range c.rule.Match {
		in := &c.rule.Match[i]
		if slices.ContainsFunc(c.rule.Match[:i], func(other Condition) bool { return other.Key == in.Key }) {
			c.refuse(&Error{Key: in.Key, What: fmt.Sprintf("key %q twice in match", in.Key), Remedy: "write all that is asked of a key in one place"})
			continue
		}
		c.conditions = append(c.conditions, c.condition(in))
	}
	c.rules[c.at].conditions = c.conditions[from:len(c.conditions):len(c.conditions)]
	c.countBy[c.at] = slices.Sorted(slices.Values(c.rule.CountBy))
	for i, key := range c.rule.CountBy {
		required := slices.ContainsFunc(c.rule.Match, func(in Condition) bool { return in.Key == key && !in.Absent })
		switch {
		case key == "":
			c.refuse(&Error{InCountBy: true, What: "an empty key in count_by", Remedy: "write the key of an entry"})
		case slices.Contains(c.rule.CountBy[:i], key):
			c.refuse(&Error{InCountBy: true, Key: key, What: fmt.Sprintf("key %q twice in count_by", key), Remedy: "remove one"})
		case !required:
			c.refuse(&Error{InCountBy: true, Key: key, What: fmt.Sprintf("count_by names %q, which match does not require to be present", key),
				Remedy: fmt.Sprintf("add %s: {} to match", key)})
		}
	}
}

func (c *compiler) condition(in *Condition) condition {
	if in.Key == "" {
		c.refuse(&Error{What: "a condition in match without a key", Remedy: "write the key of an entry"})
	}
	if in.Absent && (in.Any.given() || in.Not.given()) {
		c.refuse(&Error{Key: in.Key, What: fmt.Sprintf("key %q is asked to be absent and to have values", in.Key), Remedy: "remove absent or the values"})
	}
	out := condition{key: in.Key, absent: in.Absent, any: c.set(in.Key, &in.Any), not: c.set(in.Key, &in.Not)}
	if out.any != nil && out.any.all() {
		out.any = nil // the key only has to be present
	}
	return out
}

// set returns a compiled set; nil if in is empty.
func (c *compiler) set(key string, in *Set) *set {
	for _, list := range [...][]string{in.Values, in.CIDRs} {
		if list != nil && len(list) == 0 {
			c.refuse(&Error{Key: key, What: fmt.Sprintf("key %q: an empty list, which no value is in", key), Remedy: "list values, or remove it"})
		}
	}
	n := len(in.Values) + len(in.CIDRs)
	if n == 0 {
		return nil
	}
	if n <= few {
		if s := c.sets[string(c.identify(in))]; s != nil {
			return s
		}
	}
	members := make([]member, 0, len(in.Values)+len(in.CIDRs))
	for _, v := range in.Values {
		members = append(members, textMember(v))
	}
	for _, text := range in.CIDRs {
		p, err := cidr.Parse(text)
		if err != nil {
			e := &Error{Key: key, Value: text, What: err.Error()}
			if wrong, is := errors.AsType[*cidr.Error](err); is {
				e.What, e.Remedy = fmt.Sprintf("key %q: %s", key, wrong.What), wrong.Remedy
			}
			c.refuse(e)
			continue
		}
		members = append(members, addressMember(p))
	}
	s := newSet(members, c.task)
	if n <= few && len(members) == n {
		c.sets[string(c.id)] = s
	}
	return s
}

// identify returns an identifier that is equal for sets with the same members. It is valid
// until the next call.
func (c *compiler) identify(in *Set) []byte {
	c.id = binary.AppendUvarint(c.id[:0], uint64(len(in.Values)))
	for _, list := range [...][]string{in.Values, in.CIDRs} {
		for _, text := range list {
			c.id = append(binary.AppendUvarint(c.id, uint64(len(text))), text...)
		}
	}
	return c.id
}

// index files the rules.
func (c *compiler) index() *Index {
	for i := range c.rules {
		for j := range c.rules[i].conditions {
			c.rules[i].conditions[j].count(c.tally)
		}
		c.task.Step()
	}
	x := &Index{rules: c.rules, countBy: c.countBy, keys: map[string]*finder{}}
	keys := map[string]finderBuilder{}
	for i := range c.rules {
		c.task.Step()
		r := &c.rules[i]
		best := -1
		var least cost
		for j := range r.conditions {
			cost, ok := r.conditions[j].cost(c.tally)
			if ok && (best < 0 || cost.less(least)) {
				best, least = j, cost
			}
		}
		if best < 0 {
			x.always = append(x.always, newOwner(i).knowing(len(r.conditions) == 0, false))
			continue
		}
		r.conditions[0], r.conditions[best] = r.conditions[best], r.conditions[0]
		key := r.conditions[0].key
		if keys[key] == nil {
			keys[key] = finderBuilder{}
		}
		r.file(newOwner(i), keys[key], c.tally)
	}
	for key, b := range keys {
		x.keys[key] = b.build(c.task)
		for l, owners := range b {
			x.addCrowd(Crowd{Key: key, Value: l.String()}, owners)
			c.task.Step()
		}
	}
	x.addCrowd(Crowd{}, x.always)
	slices.SortFunc(x.crowds, func(a, b Crowd) int {
		return cmp.Or(cmp.Compare(b.Rules, a.Rules), strings.Compare(a.Key, b.Key), strings.Compare(a.Value, b.Value))
	})
	return x
}

// addCrowd adds a crowd if the owners are many. Rules that are sure to apply do not count,
// because a descriptor is refused after a few of them.
func (x *Index) addCrowd(c Crowd, owners []owner) {
	if len(owners) < crowd {
		return
	}
	for _, o := range owners {
		if o&applies == 0 {
			c.Rules++
		}
	}
	if c.Rules >= crowd {
		x.crowds = append(x.crowds, c)
	}
}

// cost is the cost of filing a rule under a condition.
type cost struct {
	shared  int // the most rules that share one of the condition's anchors
	members int
}

func (c cost) less(d cost) bool {
	if c.shared != d.shared {
		return c.shared < d.shared
	}
	return c.members < d.members
}

// presence is the factor by which the presence of a key must be rarer than a value for a
// rule to be filed under it. Values vary from one descriptor to the next, keys hardly do.
const presence = 8

// present is the member of a condition without Any: the key is present.
var present = member{literal: literal{kind: every}}

// anyMembers returns the members of Any, or present if there is no Any.
func (c *condition) anyMembers() []member {
	if c.any == nil {
		return []member{present}
	}
	return c.any.members
}

func (c *condition) count(t tally) {
	if c.absent {
		return
	}
	members := c.anyMembers()
	for i := range members {
		t.add(c.key, &members[i])
	}
}

// cost returns the cost of filing a rule under the condition, if that is possible.
func (c *condition) cost(t tally) (cost, bool) {
	if c.absent {
		return cost{}, false
	}
	members := c.anyMembers()
	worst := cost{members: len(members)}
	for i := range members {
		l, shared := t.rarest(c.key, &members[i])
		if l.kind == every {
			shared *= presence
		}
		worst.shared = max(worst.shared, shared)
	}
	return worst, true
}

// file files the rule, with the owner o, under its first condition.
func (r *rule) file(o owner, b finderBuilder, t tally) {
	c := &r.conditions[0]
	members := c.anyMembers()
	for i := range members {
		m := &members[i]
		l, _ := t.rarest(c.key, m)
		just := m.isJust(l)
		known := o.knowing(just && len(r.conditions) == 1 && c.not == nil, just)
		if n := len(b[l]); n == 0 || b[l][n-1] != known { // a value that is listed twice
			b[l] = append(b[l], known)
		}
	}
}

// knowing returns o with the facts that finding its literal proves: the rule applies, or a
// value is in its first condition's Any.
func (o owner) knowing(ruleApplies, anyIsMet bool) owner {
	if ruleApplies {
		o |= applies
	}
	if anyIsMet {
		o |= isMet
	}
	return o
}
