package descriptor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/match/sets"
	"github.com/distlimiter/ratelimit/internal/spell"
)

// Outcome says how a look-up ended.
type Outcome string

// The outcomes.
const (
	Matched       Outcome = "matched"        // a rule applies
	UnknownDomain Outcome = "unknown_domain" // there are no rules for the domain
	NoEntries     Outcome = "no_entries"     // the descriptor is empty
	NoMatch       Outcome = "no_match"       // an entry matches nothing on its level
	NoLimit       Outcome = "no_limit"       // the last entry lands on a descriptor without a limit
	TooDeep       Outcome = "too_deep"       // there are more entries than levels
)

// How says by what an entry matches a descriptor of the configuration.
type How string

// The ways to match, the preferred first.
const (
	Exact    How = "exact"
	Range    How = "range" // of addresses, the longest; listed only if there is one
	Wildcard How = "wildcard"
	KeyOnly  How = "key_only"
)

// Explanation says which rule applies to a descriptor and why, or why none does.
type Explanation struct {
	Domain  string  `json:"domain"`
	Entries []Entry `json:"entries"`
	Outcome Outcome `json:"outcome"`
	// Reason is the outcome in words.
	Reason string `json:"reason"`
	// Levels are the steps down the tree of rules, one for each entry that was
	// looked at.
	Levels []Step `json:"levels,omitempty"`
	// Rule is what applies, if the outcome is Matched.
	Rule *ExplainedRule `json:"rule,omitempty"`
	// Limits are the rules on sets of entries that apply as well.
	Limits []*ExplainedRule `json:"limits,omitempty"`
	// Unmet are some of those that do not, the ones that lack least first.
	Unmet []UnmetRule `json:"unmet,omitempty"`
	// Nearest are the domains whose names are most like an unknown one.
	Nearest []string `json:"nearest,omitempty"`
}

// UnmetRule is a rule on sets of entries that does not apply.
type UnmetRule struct {
	Path string `json:"path"`
	Pos  string `json:"pos"`
	// Keys are those of the conditions that the descriptor does not meet.
	Keys []string `json:"keys"`
	// Why says why the rule does not apply although its own conditions are met.
	Why string `json:"why,omitempty"`
}

// Step is how one entry was matched.
type Step struct {
	Entry Entry `json:"entry"`
	// Tried are the ways to match, the preferred first. The first that has a
	// descriptor won.
	Tried []Attempt `json:"tried"`
	// Nearest are the descriptors most like the entry, if none matches.
	Nearest []NodeInfo `json:"nearest,omitempty"`
	// Skipped reports that the entry leads nowhere. The rule on which the other entries
	// land has a table that follows it.
	Skipped bool `json:"skipped,omitempty"`
}

// Attempt is one way to match an entry and the descriptor that it finds, if any.
type Attempt struct {
	How   How       `json:"how"`
	Found *NodeInfo `json:"found,omitempty"`
}

// NodeInfo is a node of a rule file, as explanations and warnings show it.
type NodeInfo struct {
	Key string `json:"key"`
	// Value is the text of the list where List.
	Value string `json:"value,omitempty"`
	List  bool   `json:"list,omitempty"`
	// Pos is where it is written: file:line:column.
	Pos string `json:"pos"`
	// HasLimit reports whether it has a limit, HasDescriptors whether there are
	// descriptors below it.
	HasLimit       bool `json:"has_limit"`
	HasDescriptors bool `json:"has_descriptors"`
}

// ExplainedRule is the rule that applies.
type ExplainedRule struct {
	Index      int    `json:"index"`
	Path       string `json:"path"`
	Pos        string `json:"pos"`
	ShadowMode bool   `json:"shadow_mode,omitempty"`
	QuotaMode  bool   `json:"quota_mode,omitempty"`
	// Hold says how requests that hold are told apart, and what settles them, and
	// Settles that this descriptor does.
	Hold    string           `json:"hold,omitempty"`
	Settles bool             `json:"settles,omitempty"`
	Limits  []ExplainedLimit `json:"limits"`
}

// ExplainedLimit is one limit of the rule that applies.
type ExplainedLimit struct {
	Name      string `json:"name,omitempty"`
	Unlimited bool   `json:"unlimited,omitempty"`
	// ShadowMode: it decides and counts, and refuses nobody.
	ShadowMode bool `json:"shadow_mode,omitempty"`
	// Algorithm is empty if unlimited.
	Algorithm string `json:"algorithm,omitempty"`
	// Limit is the text of the limit, with its name; see [config.Limit.String].
	Limit string `json:"limit"`
	// Adjusted are the adjustments that made the limit so of what is Written, in their
	// order. Both are empty if none did.
	Adjusted []config.AdjustedBy `json:"adjusted,omitempty"`
	Written  string              `json:"written,omitempty"`
	// Table says which row of the table applies; nil if the limit has none. Limit is the
	// text of that row.
	Table *ExplainedTable `json:"table,omitempty"`
	// CounterKey is the key of the entries' counter, before what the store puts
	// around it. Empty if unlimited.
	CounterKey string `json:"counter_key,omitempty"`
}

// ExplainedTable is the table of a limit.
type ExplainedTable struct {
	// By is the key of the entry that the limit follows, Value its value in the row that
	// applies.
	By    string `json:"by"`
	Value string `json:"value,omitempty"`
	// Default: none does, but the table's default.
	Default bool `json:"default,omitempty"`
	// All is the text of the limit with its table.
	All string `json:"all"`
}

// Explain looks entries up as Lookup and LookupSets do and says what happens on the way.
func (m *Matcher) Explain(domain string, entries []Entry) Explanation {
	x := m.explainTree(domain, entries)
	d := m.Domain(domain)
	if d == nil || d.limits == nil {
		return x
	}
	applying, _, err := d.LookupSets(nil, nil, entries, true)
	if err != nil {
		x.Reason = err.Error()
		return x
	}
	paths := make([]string, len(applying))
	for i, r := range applying {
		x.Limits = append(x.Limits, explainRule(r, entries))
		paths[i] = config.Quote(r.Path)
	}
	switch also := strings.Join(paths, ", "); {
	case also == "":
	case x.Outcome == Matched:
		x.Reason += ", and " + also
	default:
		x.Outcome, x.Reason = Matched, fmt.Sprintf("%s: %s; of the tree, nothing does: %s", plural(len(paths), "this rule applies", "these rules apply"), also, x.Reason)
	}
	for i := range d.limitRules {
		r := &d.limitRules[i]
		u := UnmetRule{Path: r.Path, Pos: r.Config.Pos.String(), Keys: d.unmet(r, entries)}
		if len(u.Keys) == 0 && d.settling != nil && !d.meets(r, entries) {
			u.Keys, u.Why = d.settledBy(r, entries)
		}
		if len(u.Keys) > 0 {
			at, _ := slices.BinarySearchFunc(x.Unmet, len(u.Keys), func(u UnmetRule, n int) int { return cmp.Compare(len(u.Keys), n+1) })
			x.Unmet = slices.Insert(x.Unmet, at, u)
			x.Unmet = x.Unmet[:min(len(x.Unmet), maxNearest)]
		}
	}
	if x.Outcome != Matched && len(x.Unmet) > 0 {
		x.Reason += "; of the limits on sets, the nearest is " + x.Unmet[0].String()
	}
	return x
}

// settledBy returns the entries' keys that keep a rule from applying although its
// conditions are met, and why: the entries settle what other rules hold.
func (d *Domain) settledBy(left *Rule, entries []Entry) (keys []string, why string) {
	for _, e := range entries {
		if !d.settling[e] || slices.Contains(keys, e.Key) || slices.ContainsFunc(left.Config.Set.Match, func(c sets.Condition) bool { return c.Key == e.Key }) {
			continue
		}
		keys = append(keys, e.Key)
		for i := range d.limitRules {
			if r := &d.limitRules[i]; why == "" && r.Config.Hold != nil && r.Config.Hold.SettledBy == e {
				why = fmt.Sprintf("%s settles what %s holds, and is no request of its own", entryText(e), config.Quote(r.Path))
			}
		}
	}
	return keys, why
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

func (m *Matcher) explainTree(domain string, entries []Entry) Explanation {
	x := Explanation{Domain: domain, Entries: entries}
	d := m.Domain(domain)
	switch {
	case d == nil:
		x.Outcome = UnknownDomain
		all := slices.Sorted(maps.Keys(m.domains))
		x.Nearest = nearest(all, domain, func(s string) string { return s })
		x.Reason = fmt.Sprintf("there are no rules for domain %s%s", config.Quote(domain), listed("; nearest: ", x.Nearest, config.Quote))
		if len(all) > len(x.Nearest) {
			x.Reason += listed("; there are: ", all[:min(len(all), maxListed)], config.Quote)
		}
		if len(all) > maxListed {
			x.Reason += fmt.Sprintf(" and %d more", len(all)-maxListed)
		}
		return x
	case len(entries) == 0:
		x.Outcome, x.Reason = NoEntries, "the descriptor has no entries"
		return x
	case d.top.flags&hasLevel == 0:
		x.Outcome, x.Reason = NoMatch, fmt.Sprintf("domain %s has no descriptors", config.Quote(domain))
		return x
	}
	at := d.top
	follows := d.followedBy(entries)
	for i, e := range entries {
		if follows != "" && e.Key == follows && (at.flags&hasLevel == 0 || d.step(at, e.Key, e.Value).slot == none) {
			x.Levels = append(x.Levels, Step{Entry: e, Tried: []Attempt{}, Skipped: true})
			continue
		}
		if at.flags&hasLevel == 0 {
			x.Outcome = TooDeep
			x.Reason = fmt.Sprintf("there is nothing below %s: it takes descriptors of %d, this one has %d", d.infoAt(at), i, len(entries))
			return x
		}
		step := d.explainStep(at, e)
		x.Levels = append(x.Levels, step)
		if at = d.step(at, e.Key, e.Value); at.slot == none {
			x.Outcome = NoMatch
			x.Reason = fmt.Sprintf("nothing matches entry %d, %s%s", i+1, entryText(e), listed("; nearest: ", step.Nearest, NodeInfo.String))
			if other := d.inOtherOrder(entries); other != nil {
				x.Reason += fmt.Sprintf("; the order counts, and %s matches", Entries(other))
			}
			return x
		}
	}
	if at.flags&hasRule == 0 {
		x.Outcome, x.Reason = NoLimit, d.explainNoLimit(at, x.Levels[len(x.Levels)-1])
		return x
	}
	x.Outcome, x.Rule = Matched, explainRule(&d.rules[at.slot], entries)
	x.Reason = fmt.Sprintf("rule %s applies", located(config.Quote(x.Rule.Path), x.Rule.Pos))
	return x
}

// maxReordered is how many entries are tried in other orders: 720 look-ups at most.
const maxReordered = 6

// inOtherOrder returns entries in an order in which a rule of the tree applies; nil if there
// is none, or if there are too many to try.
func (d *Domain) inOtherOrder(entries []Entry) []Entry {
	if len(entries) < 2 || len(entries) > maxReordered {
		return nil
	}
	order := slices.Clone(entries)
	var try func(n int) bool
	try = func(n int) bool { // all orders of those from n on
		if n == len(order) {
			return d.Lookup(order) != nil
		}
		for i := n; i < len(order); i++ {
			order[n], order[i] = order[i], order[n]
			if try(n + 1) {
				return true
			}
			order[n], order[i] = order[i], order[n]
		}
		return false
	}
	if !try(0) {
		return nil
	}
	return order
}

// followedBy returns the key of the entry that the rule follows that applies; empty if
// there is none.
func (d *Domain) followedBy(entries []Entry) string {
	if r := d.Lookup(entries); r != nil && r.follow != nil {
		return r.follow.key
	}
	return ""
}

func (d *Domain) explainStep(at place, e Entry) Step {
	splits := d.splits(at, e.Key, e.Value)
	step := Step{Entry: e, Tried: []Attempt{
		{How: Exact, Found: d.infoAt(d.exact(at, splits, e.Key, e.Value))},
		{How: Wildcard, Found: d.infoAt(d.landing(d.firstWildcard(at, splits, e.Key, e.Value)))},
		{How: KeyOnly, Found: d.infoAt(d.keyOnly(at, e.Key))},
	}}
	if len(d.ranges) > 0 {
		if found := d.infoAt(d.landing(d.inRange(at, e.Key, e.Value))); found != nil {
			step.Tried = slices.Insert(step.Tried, 1, Attempt{How: Range, Found: found})
		}
	}
	if step.Won() == nil {
		for _, c := range d.level(at).nearest(e) {
			step.Nearest = append(step.Nearest, *newNodeInfo(c))
		}
	}
	return step
}

// explainNoLimit says what at leads on to, and what else the last entry matches.
func (d *Domain) explainNoLimit(at place, last Step) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s has no limit", d.infoAt(at))
	if at.flags&hasLevel != 0 {
		var keys []string
		for _, c := range d.level(at).descriptors {
			if !slices.Contains(keys, c.Key) {
				keys = append(keys, c.Key)
			}
			if len(keys) == maxNearest {
				break
			}
		}
		fmt.Fprintf(&b, "; below it there are rules for descriptors with another entry%s", listed(": ", keys, config.Quote))
	}
	for _, a := range last.Tried {
		if won := last.Won(); a.Found != nil && a.How != won.How && a.Found.HasLimit {
			fmt.Fprintf(&b, "; %s has one, but %s is preferred to %s", a.Found, won.How, a.How)
			break
		}
	}
	return b.String()
}

func explainRule(r *Rule, entries []Entry) *ExplainedRule {
	x := &ExplainedRule{
		Index: r.Index, Path: r.Path, Pos: r.Config.Pos.String(),
		ShadowMode: r.Config.ShadowMode, QuotaMode: r.Config.QuotaMode,
	}
	if r.Config.Hold != nil {
		x.Hold, x.Settles = r.Config.Hold.String(), r.HoldOf(entries).Settles
	}
	for i, l := range r.Config.Limits {
		l, row, found := l.For(entries)
		limit := ExplainedLimit{Name: l.Name, Unlimited: l.Unlimited, ShadowMode: l.ShadowMode, Limit: l.String()}
		if t := r.Config.Limits[i].Table; t != nil {
			limit.Table = &ExplainedTable{By: t.By, Value: row, Default: !found, All: r.Config.Limits[i].String()}
		}
		if !l.Unlimited {
			limit.Algorithm = l.Algo.Params().Algorithm.String()
			limit.CounterKey = string(r.AppendKey(nil, entries, i))
		}
		if limit.Adjusted = config.DescribeAdjustments(l.AdjustedBy); limit.Adjusted != nil {
			limit.Written = r.Config.WrittenText(i)
		}
		x.Limits = append(x.Limits, limit)
	}
	return x
}

func newNodeInfo(c *config.Descriptor) *NodeInfo {
	return &NodeInfo{Key: c.Key, Value: c.ValueText(), List: c.HasList(), Pos: c.Pos.String(), HasLimit: len(c.Limits) > 0, HasDescriptors: len(c.Descriptors) > 0}
}

// infoAt returns the node at a place; nil if it is nowhere.
func (d *Domain) infoAt(at place) *NodeInfo {
	if at.slot == none {
		return nil
	}
	return newNodeInfo(d.nodes[at.slot].config)
}

// Won returns the attempt that decided; nil if the entry matches nothing.
func (s *Step) Won() *Attempt {
	for i := range s.Tried {
		if s.Tried[i].Found != nil {
			return &s.Tried[i]
		}
	}
	return nil
}

// maxNearest is how many likely alternatives are named.
const maxNearest = 3

// maxListed is how many domains are named.
const maxListed = 20

// nearest returns the descriptors most like e: by value if there are any of its
// key, else the first of each key.
func (l *level) nearest(e Entry) []*config.Descriptor {
	var same, first []*config.Descriptor
	seen := map[string]bool{}
	for _, c := range l.descriptors {
		if c.Key == e.Key {
			same = append(same, c)
		}
		if !seen[c.Key] {
			seen[c.Key] = true
			first = append(first, c)
		}
	}
	if same != nil {
		return nearest(same, e.Value, (*config.Descriptor).ValueText)
	}
	return nearest(first, e.Key, func(c *config.Descriptor) string { return c.Key })
}

// nearest returns those of all whose text is most like s, the likest first.
func nearest[T any](all []T, s string, text func(T) string) []T {
	type ranked struct {
		of       T
		distance int
	}
	var best []ranked
	for _, t := range all {
		limit := spell.MaxCompared
		if len(best) == maxNearest {
			limit = best[maxNearest-1].distance
		}
		r := ranked{t, spell.Distance(text(t), s, limit)}
		i, _ := slices.BinarySearchFunc(best, r, func(a, b ranked) int { return cmp.Compare(a.distance, b.distance+1) })
		best = slices.Insert(best, i, r)
		best = best[:min(len(best), maxNearest)]
	}
	out := make([]T, len(best))
	for i, r := range best {
		out[i] = r.of
	}
	return out
}

// String returns the explanation for people to read.
func (x Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", x.Reason)
	for i, s := range x.Levels {
		fmt.Fprintf(&b, "\n%d. %s\n", i+1, entryText(s.Entry))
		if s.Skipped {
			b.WriteString("   skipped: the rule's limit follows it, and it leads nowhere\n")
		}
		won := s.Won()
		for j := range s.Tried {
			a := &s.Tried[j]
			found := "none"
			if a.Found != nil {
				found = a.Found.String()
			}
			if a == won {
				found += "  <- lands here"
			}
			fmt.Fprintf(&b, "   %-9s %s\n", a.How, found)
		}
	}
	if x.Rule != nil {
		x.Rule.write(&b)
	}
	for _, r := range x.Limits {
		r.write(&b)
	}
	for i, u := range x.Unmet {
		if i == 0 {
			b.WriteString("\ndo not apply, by the keys whose conditions are not met:\n")
		}
		fmt.Fprintf(&b, "   %s\n", u)
	}
	return b.String()
}

// String returns the rule, its place, and why it does not apply.
func (u UnmetRule) String() string {
	name := located(config.Quote(u.Path), u.Pos)
	if u.Why != "" {
		return name + ": left out: " + u.Why
	}
	return name + listed(": ", u.Keys, config.Quote)
}

func (r *ExplainedRule) write(b *strings.Builder) {
	fmt.Fprintf(b, "\nrule %s\n", config.Quote(r.Path))
	if r.ShadowMode {
		b.WriteString("   shadow mode: decided and counted, answered OK\n")
	}
	if r.QuotaMode {
		b.WriteString("   quota mode: over limit only when all such descriptors of the request are\n")
	}
	if r.Hold != "" {
		fmt.Fprintf(b, "   %s\n", r.Hold)
	}
	if r.Settles {
		b.WriteString("   this descriptor settles: what its request holds goes back, and its hits are charged\n")
	}
	for _, l := range r.Limits {
		fmt.Fprintf(b, "   %s\n", l)
	}
}

// Enforced names the limits that apply, each by its rule, where that is written, its text
// and what adjusts it: those that refuse, and those in shadow mode.
func (x *Explanation) Enforced() (enforced, shadow []string) {
	rules := x.Limits
	if x.Rule != nil {
		rules = append([]*ExplainedRule{x.Rule}, rules...)
	}
	for _, r := range rules {
		for _, l := range r.Limits {
			by := func(a config.AdjustedBy) string { return a.By }
			text := fmt.Sprintf("rule %s: %s%s", located(config.Quote(r.Path), r.Pos), l.Limit, listed(", adjusted by ", l.Adjusted, by))
			switch {
			case l.Unlimited:
			case r.ShadowMode || l.ShadowMode:
				shadow = append(shadow, text)
			default:
				enforced = append(enforced, text)
			}
		}
	}
	return enforced, shadow
}

// String returns the limit in one line or more.
func (l ExplainedLimit) String() string {
	if l.Unlimited {
		return l.Limit
	}
	lines := []string{l.Limit}
	if l.Written != "" {
		lines = append(lines, "written   "+l.Written)
	}
	for _, a := range l.Adjusted {
		lines = append(lines, "adjusted  "+a.String())
	}
	if t := l.Table; t != nil && t.Default {
		lines = append(lines, fmt.Sprintf("table     no row for %s: its default, of %s", config.Quote(t.By), t.All))
	} else if t != nil {
		lines = append(lines, fmt.Sprintf("table     the row for %s, of %s", entryText(Entry{Key: t.By, Value: t.Value}), t.All))
	}
	return strings.Join(append(lines, "counter   "+config.Quote(l.CounterKey)), "\n   ")
}

// String returns the node as key=value (file:line:column).
func (p NodeInfo) String() string {
	return located(entryText(Entry{Key: p.Key, Value: p.Value}), p.Pos)
}

func located(name, pos string) string {
	if pos == "" {
		return name
	}
	return name + " (" + pos + ")"
}

// entryText returns key=value, or the key alone if there is no value.
func entryText(e Entry) string {
	if e.Value == "" {
		return config.Quote(e.Key)
	}
	return config.Quote(e.Key) + "=" + config.Quote(e.Value)
}

// listed returns lead and the items, or nothing if there are none.
func listed[T any](lead string, items []T, text func(T) string) string {
	if len(items) == 0 {
		return ""
	}
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = text(item)
	}
	return lead + strings.Join(texts, ", ")
}
