package rulefile

import (
	"fmt"
	"math"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
)

// metadata reads any mapping and adds its keys to those of into. Values are nil, bool,
// float64, string, []any and map[string]any, as in JSON.
func (r *reader) metadata(n *yaml.Node, into map[string]any) {
	target, ok := r.enter(n)
	if !ok {
		return
	}
	defer r.leave(n)
	if target.Kind != yaml.MappingNode {
		r.problem(n, "want a mapping, found "+yamlfile.Describe(target), "write keys and values")
		return
	}
	seen := make(map[string]bool, len(target.Content)/2)
	for i := 0; i+1 < len(target.Content); i += 2 {
		key, value := yamlfile.Resolve(target.Content[i]), target.Content[i+1]
		if yamlfile.IsMerge(key) {
			r.mergeMetadata(value, into)
			continue
		}
		if key.Kind != yaml.ScalarNode {
			r.problem(key, "a key must be a string, found "+yamlfile.Describe(key), "write a name")
			continue
		}
		if seen[key.Value] {
			r.problemIn(key.Value, key, fmt.Sprintf("duplicate key %q", key.Value), "remove one of them")
			continue
		}
		seen[key.Value] = true
		r.copies(target.Content[i], key)
		r.push(key.Value)
		into[key.Value] = r.anything(value)
		r.pop()
	}
}

func (r *reader) mergeMetadata(n *yaml.Node, into map[string]any) {
	target, ok := r.enter(n)
	if !ok {
		return
	}
	if target.Kind != yaml.SequenceNode {
		r.leave(n)
		r.metadata(n, into)
		return
	}
	defer r.leave(n)
	for _, element := range slices.Backward(target.Content) {
		r.metadata(element, into)
	}
}

func (r *reader) anything(n *yaml.Node) any {
	switch target := yamlfile.Resolve(n); target.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(target.Content)/2)
		r.metadata(n, m)
		return m
	case yaml.SequenceNode:
		list := make([]any, 0, len(target.Content))
		r.list(n, "values", func(n *yaml.Node) { list = append(list, r.anything(n)) })
		return list
	default:
		return r.scalar(n)
	}
}

func (r *reader) scalar(n *yaml.Node) any {
	target := yamlfile.Resolve(n)
	if yamlfile.IsNull(target) {
		return nil
	}
	if value, ok := boolean(target); ok {
		return value
	}
	if value, ok := number(target); ok {
		if !math.IsNaN(value) && !math.IsInf(value, 0) {
			r.warnOctal(n, value)
			return value
		}
		r.warn(n, target.Value+" is no number in JSON", "it is passed on as a string")
		return target.Value
	}
	var text field[string]
	r.text(n, &text)
	return text.v
}
