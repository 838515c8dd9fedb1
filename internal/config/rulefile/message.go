package rulefile

import (
	"iter"
	"math"
	"slices"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
)

// Message is a domain that does not come from text, such as one that a control plane
// sends. Its rules mean the same as those of a text with the same values. Problems have
// the name of the source and a path, such as descriptors[3].rate_limit.unit, but no line.
type Message struct {
	Domain string
	// Descriptors yields the top level, each descriptor as a mapping in the grammar.
	// The parser does not keep a mapping after it has read it.
	Descriptors iter.Seq[*Mapping]
}

// Mapping is a mapping in the grammar. The zero Mapping is empty.
type Mapping struct {
	node yaml.Node
	at   map[string]int // index of each key in the node's content; nil while there are few
}

// Value is a value in the grammar.
type Value struct {
	node *yaml.Node
}

// Set sets the value of a key, and replaces a value that it has.
func (m *Mapping) Set(key string, v Value) {
	if i := m.index(key); i >= 0 {
		m.node.Content[i+1] = v.node
		return
	}
	name, known := keyNodes[key]
	if !known {
		name = Text(key).node
	}
	if m.node.Content == nil {
		m.node.Content = make([]*yaml.Node, 0, 8)
	}
	if m.at != nil {
		m.at[key] = len(m.node.Content)
	}
	m.node.Content = append(m.node.Content, name, v.node)
}

// Delete removes a key if the mapping has it.
func (m *Mapping) Delete(key string) {
	if i := m.index(key); i >= 0 {
		m.node.Content = slices.Delete(m.node.Content, i, i+2)
		m.at = nil
	}
}

// Len returns the number of keys.
func (m *Mapping) Len() int { return len(m.node.Content) / 2 }

// Value returns the mapping as a value of another. The mapping must not be changed after
// that.
func (m *Mapping) Value() Value {
	m.node.Kind, m.node.Tag = yaml.MappingNode, "!!map"
	return Value{&m.node}
}

func (m *Mapping) index(key string) int {
	const few = 32
	if m.at == nil && m.Len() > few {
		m.at = make(map[string]int, 2*m.Len())
		for i := 0; i < len(m.node.Content); i += 2 {
			m.at[m.node.Content[i].Value] = i
		}
	}
	if m.at != nil {
		if i, exists := m.at[key]; exists {
			return i
		}
		return -1
	}
	for i := 0; i < len(m.node.Content); i += 2 {
		if m.node.Content[i].Value == key {
			return i
		}
	}
	return -1
}

// keyNodes are nodes of the grammar's keys, which all mappings share.
var keyNodes = func() map[string]*yaml.Node {
	nodes := map[string]*yaml.Node{}
	for _, k := range []*keys{rootKeys, descriptorKeys, limitKeys, replacesKeys} {
		for _, name := range k.names {
			nodes[name] = Text(name).node
		}
	}
	return nodes
}()

// Text returns a string. It stays a string even if it looks like a number or a boolean.
func Text(s string) Value {
	return Value{&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}}
}

// Bool returns a boolean.
func Bool(b bool) Value { return scalar("!!bool", strconv.FormatBool(b)) }

// Int returns a whole number.
func Int(n int64) Value { return scalar("!!int", strconv.FormatInt(n, 10)) }

// Float returns a number, which need not be whole or finite.
func Float(f float64) Value {
	text := strconv.FormatFloat(f, 'g', -1, 64)
	switch { // as YAML writes them
	case math.IsNaN(f):
		text = ".nan"
	case math.IsInf(f, 1):
		text = ".inf"
	case math.IsInf(f, -1):
		text = "-.inf"
	}
	return scalar("!!float", text)
}

// Null returns an explicit null.
func Null() Value { return scalar("!!null", "null") }

// List returns a list.
func List(elements []Value) Value {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: make([]*yaml.Node, len(elements))}
	for i, e := range elements {
		n.Content[i] = e.node
	}
	return Value{n}
}

func scalar(tag, value string) Value {
	return Value{&yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}}
}

// decodeMessage reads a document that is a message.
func (d *document) decodeMessage(task *background.Task) {
	d.decoder = d.newDecoder()
	m, err := d.source.Read(d.Data)
	if err != nil {
		d.problemAt(config.Pos{File: d.file}, err.Error(), "send it again, well-formed")
		return
	}
	d.depth = 2 // of the document and its list
	d.push(descriptors)
	for descriptor := range m.Descriptors {
		task.Step()
		d.pushIndex(len(d.read))
		d.read = append(d.read, d.descriptor(descriptor.Value().node))
		d.pop()
	}
	d.pop()
	d.depth = 0
	d.elsewhere = List(nil).node
	var root Mapping
	root.Set("domain", Text(m.Domain))
	root.Set(descriptors, Value{d.elsewhere})
	d.domain = d.root(root.Value().node)
}
