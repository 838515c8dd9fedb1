package yamlfile

import (
	"strconv"

	"gopkg.in/yaml.v3"
)

// Resolve follows an alias.
func Resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// IsNull reports whether a value is null or empty.
func IsNull(n *yaml.Node) bool {
	n = Resolve(n)
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

// IsMerge reports whether a key merges other mappings into its own.
func IsMerge(key *yaml.Node) bool {
	key = Resolve(key)
	return key.Kind == yaml.ScalarNode && key.Value == "<<" && key.Tag == "!!merge"
}

// Describe names a value in an error.
func Describe(n *yaml.Node) string {
	n = Resolve(n)
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case IsNull(n):
		return "nothing"
	case n.Tag == "!!str":
		return "the string " + strconv.Quote(Abridge(n.Value))
	}
	return Abridge(n.Value)
}
