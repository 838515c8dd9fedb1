package rulefile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/spell"
)

// Bounds on the work for one source.
const (
	maxDepth    = 1000    // nested lists and mappings; a level of descriptors is two
	maxExpanded = 1000000 // nodes reached through aliases
)

// reader walks the YAML nodes of one source and records every problem with its position.
// It reads a node as gopkg.in/yaml.v2, the parser of envoyproxy/ratelimit, would. Merged
// and explicit keys apply in the order in which they are written. Booleans may be yes or
// off. Null is the zero value.
type reader struct {
	file     string
	lines    int // in the file before line 1 of the nodes
	path     []step
	problems []config.Problem
	warnings []config.Problem

	open     map[*yaml.Node]bool // anchored nodes being read: an alias to one would not end
	depth    int
	aliases  int // aliases being followed
	expanded int // nodes reached through them
	bomb     bool
	maxText  int64 // bytes of text that may be reached through aliases
	copied   int64 // bytes of text reached through aliases
}

// step is one step of the path from the document: a key or, if that is empty, an index.
type step struct {
	key   string
	index int
}

func (r *reader) push(key string)     { r.path = append(r.path, step{key: key}) }
func (r *reader) pushIndex(index int) { r.path = append(r.path, step{index: index}) }
func (r *reader) pop()                { r.path = r.path[:len(r.path)-1] }

func (r *reader) pathString() string {
	var b strings.Builder
	for _, s := range r.path {
		switch {
		case s.key == "":
			fmt.Fprintf(&b, "[%d]", s.index)
			continue
		case b.Len() > 0:
			b.WriteByte('.')
		}
		b.WriteString(plainKey(s.key))
	}
	return b.String()
}

// plainKey quotes a key that would make the path ambiguous. Only metadata and mistakes
// have such keys.
func plainKey(key string) string {
	for _, c := range key {
		if c != '_' && c != '-' && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return strconv.Quote(yamlfile.Abridge(key))
		}
	}
	return yamlfile.Abridge(key)
}

func (r *reader) pos(n *yaml.Node) config.Pos {
	return config.Pos{File: r.file, Line: r.lines + n.Line, Column: n.Column}
}

func (r *reader) report(n *yaml.Node, what, remedy string) config.Problem {
	return config.Problem{Pos: r.pos(n), Path: r.pathString(), What: what, Remedy: remedy}
}

func (r *reader) problem(n *yaml.Node, what, remedy string) {
	r.problems = append(r.problems, r.report(n, what, remedy))
}

func (r *reader) warn(n *yaml.Node, what, remedy string) {
	r.warnings = append(r.warnings, r.report(n, what, remedy))
}

// problemIn and warnIn report on a field of the node at the path.
func (r *reader) problemIn(key string, n *yaml.Node, what, remedy string) {
	r.push(key)
	r.problem(n, what, remedy)
	r.pop()
}

func (r *reader) warnIn(key string, n *yaml.Node, what, remedy string) {
	r.push(key)
	r.warn(n, what, remedy)
	r.pop()
}

// enter returns the list or mapping that n stands for. The caller must call leave after
// reading it. enter refuses nodes whose reading would not end, or would take too long.
func (r *reader) enter(n *yaml.Node) (target *yaml.Node, ok bool) {
	target = yamlfile.Resolve(n)
	switch {
	case r.bomb:
		return nil, false
	case r.open[target]:
		r.problem(n, fmt.Sprintf("the anchor %q contains itself", target.Anchor), "write out what is meant")
		return nil, false
	case r.depth == maxDepth:
		r.problem(n, fmt.Sprintf("nested more than %d levels deep", maxDepth), "use fewer levels")
		return nil, false
	}
	r.depth++
	if n != target {
		r.aliases++
	}
	if target.Anchor != "" {
		if r.open == nil {
			r.open = map[*yaml.Node]bool{}
		}
		r.open[target] = true
	}
	if r.aliases > 0 {
		r.expanded += 1 + len(target.Content)
		if r.bomb = r.expanded > maxExpanded; r.bomb {
			r.problem(n, fmt.Sprintf("aliases expand to more than %d values", maxExpanded), "use fewer of them, or several files")
		}
	}
	return target, true
}

func (r *reader) leave(n *yaml.Node) {
	target := yamlfile.Resolve(n)
	r.depth--
	if n != target {
		r.aliases--
	}
	if target.Anchor != "" {
		delete(r.open, target)
	}
}

// keys are the keys that a mapping may have.
type keys struct {
	names []string // at most 32
	index map[string]int
	// lenient mappings also accept every key that envoyproxy/ratelimit knows
	// anywhere, without effect, as it does.
	lenient bool
}

func newKeys(lenient bool, names ...string) *keys {
	k := &keys{names: names, index: make(map[string]int, len(names)), lenient: lenient}
	for i, name := range names {
		k.index[name] = i
	}
	return k
}

// lenientKeys are the keys that envoyproxy/ratelimit accepts in every mapping.
var lenientKeys = newKeys(false, "domain", "key", "value", "descriptors", "rate_limit", "unit", "requests_per_unit",
	"unlimited", "shadow_mode", "quota_mode", "name", "replaces", "detailed_metric", "value_to_metric", "share_threshold", "metadata")

// mapping reads n as a mapping with these keys and calls set for each, with the path
// leading to the value. The keys of a merge key's mappings come where the merge key is
// written. set may thus see a key twice; the later value counts. mapping returns false,
// and has reported why, if n is no mapping.
func (r *reader) mapping(n *yaml.Node, k *keys, set func(key string, value *yaml.Node)) bool {
	target, ok := r.enter(n)
	if !ok {
		return false
	}
	defer r.leave(n)
	if target.Kind != yaml.MappingNode {
		r.problem(n, "want a mapping, found "+yamlfile.Describe(target), fmt.Sprintf("write a mapping with keys such as %q", k.names[0]))
		return false
	}
	var seen uint32
	for i := 0; i+1 < len(target.Content); i += 2 {
		key, value := yamlfile.Resolve(target.Content[i]), target.Content[i+1]
		if yamlfile.IsMerge(key) {
			before := seen
			r.merge(value, k, func(name string, value *yaml.Node) {
				if before&(1<<k.index[name]) != 0 {
					r.warn(key, fmt.Sprintf("<< replaces the %s written before it", name), "write << first")
				}
				set(name, value)
			})
			continue
		}
		if key.Kind != yaml.ScalarNode || key.Tag != "!!str" {
			r.problem(key, "a key must be a string, found "+yamlfile.Describe(key), "write one of "+strings.Join(k.names, ", "))
			continue
		}
		index, known := k.index[key.Value]
		if !known {
			r.unknownKey(key, k)
			continue
		}
		if seen&(1<<index) != 0 {
			r.problemIn(key.Value, key, fmt.Sprintf("duplicate key %q", key.Value), "remove one of them")
			continue
		}
		seen |= 1 << index
		r.push(key.Value)
		set(key.Value, value)
		r.pop()
	}
	return true
}

// ownKeys holds the texts of errors on a mapping whose keys are the user's own.
type ownKeys struct {
	of    string // what the mapping is
	want  string // remedy for a value that is no mapping
	key   string // what a key is
	empty string // mistake: an empty key; empty: it is none
	again string // remedy for a key that is written twice
}

// ownKeys reads n as such a mapping and calls each for its keys, with the path leading
// to the value. It returns false, and has reported why, if n is no mapping.
func (r *reader) ownKeys(n *yaml.Node, k ownKeys, each func(key, value *yaml.Node)) bool {
	target, ok := r.enter(n)
	if !ok {
		return false
	}
	defer r.leave(n)
	if target.Kind != yaml.MappingNode {
		r.problem(n, "want a mapping, found "+yamlfile.Describe(target), k.want)
		return false
	}
	seen := make(map[string]bool, len(target.Content)/2)
	for i := 0; i+1 < len(target.Content); i += 2 {
		key, value := yamlfile.Resolve(target.Content[i]), target.Content[i+1]
		switch {
		case yamlfile.IsMerge(key):
			r.problem(key, "<< in "+k.of, "write its keys out")
			continue
		case key.Kind != yaml.ScalarNode || yamlfile.IsNull(key):
			r.problem(key, "a key must be a string, found "+yamlfile.Describe(key), "write "+k.key)
			continue
		case key.Value == "" && k.empty != "":
			r.problem(key, k.empty, "write "+k.key)
			continue
		case seen[key.Value]:
			r.problemIn(key.Value, key, fmt.Sprintf("duplicate key %q", yamlfile.Abridge(key.Value)), k.again)
			continue
		}
		seen[key.Value] = true
		r.copies(target.Content[i], key)
		r.push(key.Value)
		each(key, value)
		r.pop()
	}
	return true
}

func (r *reader) unknownKey(key *yaml.Node, k *keys) {
	if _, ok := lenientKeys.index[key.Value]; ok && k.lenient {
		r.warnIn(key.Value, key, fmt.Sprintf("%q has no effect here", key.Value), "write one of "+strings.Join(k.names, ", "))
		return
	}
	r.problemIn(key.Value, key, fmt.Sprintf("unknown key %q", yamlfile.Abridge(key.Value)), suggest(key.Value, k))
}

// bursts are other names for the capacity of a bucket: those of Envoy Gateway, Kong, nginx
// and Envoy's own local limits.
var bursts = map[string]bool{"burst_limit": true, "burst_size": true, "burst_capacity": true, "max_burst": true, "max_tokens": true}

// onSets are the keys of rules on sets of entries that no descriptor has.
var onSets = map[string]bool{"hold": true, "match": true, "count_by": true}

// suggest returns the remedy for an unknown key.
func suggest(key string, k *keys) string {
	_, isLimit := limitKeys.index[key]
	_, isDescriptor := descriptorKeys.index[key]
	switch {
	case bursts[key] && (k == limitKeys || k == descriptorKeys):
		return "for bursts write burst, with algorithm: token_bucket, in rate_limit"
	case key == "tests" && k.names[0] == "domain":
		return "this is a file of tests: keep it out of the directories of rules"
	case k == descriptorKeys && onSets[key]:
		return "that is for limits: of the domain: write the rule there, with match in place of key and value"
	case isLimit && k == descriptorKeys:
		return "write it in rate_limit"
	case k == changeKeys && (isLimit || isDescriptor):
		return "that is for the rule to say; write one of " + strings.Join(k.names, ", ")
	}
	return spell.Suggest(key, k.names)
}

// merge reads the value of a merge key: a mapping, or a list of mappings, of which the
// first has precedence.
func (r *reader) merge(n *yaml.Node, k *keys, set func(key string, value *yaml.Node)) {
	switch target := yamlfile.Resolve(n); target.Kind {
	case yaml.MappingNode:
		r.mapping(n, k, set)
	case yaml.SequenceNode:
		if target, ok := r.enter(n); ok {
			defer r.leave(n)
			for _, element := range slices.Backward(target.Content) {
				r.mapping(element, k, set)
			}
		}
	default:
		r.problem(n, "<< wants a mapping, found "+yamlfile.Describe(target), "write <<: *anchor")
	}
}

// list reads n as a list and calls each for its elements, with the path leading to the
// element. It returns false, and has reported why, if n is no list.
func (r *reader) list(n *yaml.Node, of string, each func(n *yaml.Node)) bool {
	target, ok := r.enter(n)
	if !ok {
		return false
	}
	defer r.leave(n)
	if target.Kind != yaml.SequenceNode {
		r.problem(n, fmt.Sprintf("want a list of %s, found %s", of, yamlfile.Describe(target)), "begin each element with -")
		return false
	}
	for i, element := range target.Content {
		r.pushIndex(i)
		each(element)
		r.pop()
	}
	return true
}
