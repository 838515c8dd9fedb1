package adminclient

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config"
)

// rulesPath is the path at which a running service takes and lists rules.
const rulesPath = "/admin/rules"

// ListedRule is a rule as the admin API lists it.
type ListedRule struct {
	Key, Domain, Path, Source, Location, Limits string
	Entries                                     []ListedEntry
	Rule                                        json.RawMessage // in the grammar of rule files, before adjustments
	Written                                     string          // its limits before them
	Adjusted                                    []config.AdjustedBy
	Overrides                                   *struct{ Source, Location string }
}

// RuleList is the rules in force.
type RuleList struct {
	text    json.RawMessage
	Domains []struct{ Domain, Consume string }
	Rules   []ListedRule
}

// Rules lists the rules in force. domain, name of a limit and source (file, xds or
// admin) narrow the list; an empty one matches any.
func (c *Client) Rules(domain, name, source string) (*RuleList, error) {
	query := given(map[string]string{"domain": domain, "name": name, "source": source})
	var list RuleList
	if err := c.Do(http.MethodGet, rulesPath, query, "", nil, &list.text); err != nil {
		return nil, err
	}
	return &list, json.Unmarshal(list.text, &list)
}

// isKey matches the keys of rules.
var isKey = regexp.MustCompile(`^[a-z2-7]{20}$`)

// KeyOf returns the key of the rule that name identifies, by its key or by a path such
// as user_alice or limits.writes. It looks in one domain, or in all if domain is empty.
func (c *Client) KeyOf(domain, name string) (string, error) {
	if isKey.MatchString(name) {
		return name, nil
	}
	list, err := c.Rules(domain, "", "")
	if err != nil {
		return "", err
	}
	var found []ListedRule
	for _, r := range list.Rules {
		if r.Path == name {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no rule has the key or path %q: see the list of rules", name)
	case 1:
		return found[0].Key, nil
	}
	var all []string
	for _, r := range found {
		all = append(all, r.Key+" in "+r.Domain)
	}
	return "", fmt.Errorf("%d rules have the path %q: %s: give a key", len(found), name, strings.Join(all, ", "))
}

// WriteJSON writes the list as the service sent it.
func (l *RuleList) WriteJSON(out io.Writer) error { return indent(out, l.text) }

// WriteYAML writes the list as rule files.
func (l *RuleList) WriteYAML(out io.Writer) error {
	consume := map[string]string{}
	for _, d := range l.Domains {
		consume[d.Domain] = d.Consume
	}
	return writeDomains(out, l.Rules, consume)
}

// WriteTable writes the list for people to read.
func (l *RuleList) WriteTable(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEY\tDOMAIN\tRULE\tLIMIT\tFROM")
	for _, r := range l.Rules {
		from := []string{r.Location}
		if r.Overrides != nil {
			from = append(from, "overrides "+r.Overrides.Location)
		}
		for _, a := range r.Adjusted {
			from = append(from, "adjusted by "+a.By)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", r.Key, r.Domain, r.Path, r.Limits, strings.Join(from, ", "))
	}
	return table.Flush()
}

func indent(out io.Writer, text []byte) error {
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, text, "", "  "); err != nil {
		return err
	}
	pretty.WriteByte('\n')
	_, err := pretty.WriteTo(out)
	return err
}

// ListedEntry is one step of the path to a rule.
type ListedEntry struct {
	Key, Value     string
	Values         json.RawMessage // the list of which Value is the text
	ShareThreshold bool            `json:"share_threshold"`
	ValueToMetric  bool            `json:"value_to_metric"`
}

// writeDomains writes rules as one YAML document for each domain.
func writeDomains(out io.Writer, rules []ListedRule, consume map[string]string) error {
	var names []string
	documents := map[string]*yaml.Node{}
	for _, r := range rules {
		at := documents[r.Domain]
		if at == nil {
			at = mapping("domain", r.Domain)
			if consume[r.Domain] == "all_or_nothing" {
				set(at, "consume", &yaml.Node{Kind: yaml.ScalarNode, Value: consume[r.Domain]})
			}
			documents[r.Domain] = at
			names = append(names, r.Domain)
		}
		for _, e := range r.Entries {
			at = below(at, e)
		}
		if len(r.Entries) == 0 { // it is on sets of entries
			limit := &yaml.Node{Kind: yaml.MappingNode}
			limits := list(at, "limits")
			limits.Content, at = append(limits.Content, limit), limit
		}
		var rule yaml.Node
		if err := yaml.Unmarshal(r.Rule, &rule); err != nil { // JSON is YAML
			return err
		}
		plain(&rule)
		// Rules come before those below them, so the node is still empty.
		at.Content = rule.Content[0].Content
	}
	if len(names) == 0 {
		return nil // the encoder can't write a stream without documents
	}
	encoder := yaml.NewEncoder(out)
	encoder.SetIndent(2)
	for _, name := range names {
		if err := encoder.Encode(documents[name]); err != nil {
			return err
		}
	}
	return encoder.Close()
}

// mapping returns a mapping with one key.
func mapping(key, value string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	set(n, key, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value})
	return n
}

func set(n *yaml.Node, key string, value *yaml.Node) {
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, value)
}

// get returns the value of a key in a mapping; nil if it has none.
func get(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// list returns the list of a key, and adds it if it is missing.
func list(n *yaml.Node, key string) *yaml.Node {
	l := get(n, key)
	if l == nil {
		l = &yaml.Node{Kind: yaml.SequenceNode}
		set(n, key, l)
	}
	return l
}

// below returns the descriptor below another, or below a domain, and adds it if it is
// missing.
func below(n *yaml.Node, e ListedEntry) *yaml.Node {
	level := list(n, "descriptors")
	for _, d := range level.Content {
		v := get(d, "value")
		if get(d, "key").Value == e.Key && sameValue(v, e.value()) {
			return d
		}
	}
	d := mapping("key", e.Key)
	if v := e.value(); v != nil {
		set(d, "value", v)
	}
	for key, on := range map[string]bool{"share_threshold": e.ShareThreshold, "value_to_metric": e.ValueToMetric} {
		if on {
			set(d, key, &yaml.Node{Kind: yaml.ScalarNode, Value: "true"})
		}
	}
	level.Content = append(level.Content, d)
	return d
}

// value returns the entry's value as a rule file has it; nil if it has none.
func (e *ListedEntry) value() *yaml.Node {
	var list yaml.Node
	switch {
	case e.Values != nil && yaml.Unmarshal(e.Values, &list) == nil && len(list.Content) > 0:
		plain(list.Content[0])
		return list.Content[0]
	case e.Value != "":
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: e.Value}
	}
	return nil
}

// sameValue reports whether two values are the same. Each may be nil.
func sameValue(a, b *yaml.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Kind == b.Kind && a.Value == b.Value && slices.EqualFunc(a.Content, b.Content, sameValue)
}

// plain removes the style of JSON.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plain(c)
	}
}

// WriteResult is the answer to a change of rules.
type WriteResult struct {
	DryRun   bool `json:"dry_run"`
	Revision uint64
	InForce  bool `json:"in_force"`
	Changes  []struct{ Change, Key, Domain, Path string }
	Warnings []config.Problem
	Problems []string
}

// WriteChanges writes a line for each change; for a dry run, for each change that would
// happen.
func (r *WriteResult) WriteChanges(out io.Writer) {
	for _, c := range r.Changes {
		verb := ""
		if r.DryRun && c.Change != "unchanged" {
			verb = "would be "
		}
		fmt.Fprintf(out, "%s%s  %s  %s  %s\n", verb, c.Change, c.Key, c.Domain, c.Path)
	}
}

// flags are parameters that are 1 or absent.
func flags(set map[string]bool) url.Values {
	query := url.Values{}
	for name, on := range set {
		if on {
			query.Set(name, "1")
		}
	}
	return query
}

// Apply creates or updates rules. With replace, the rules of the text replace all admin
// rules of its domains. A dry run changes nothing.
func (c *Client) Apply(text []byte, dryRun, replace bool) (result WriteResult, err error) {
	err = c.Do(http.MethodPost, rulesPath, flags(map[string]bool{"dry_run": dryRun, "replace": replace}), "application/yaml", text, &result)
	return result, err
}

// File is a text of rules and its name.
type File struct {
	Name string
	Text []byte
}

// ApplyAll applies files one after the other and hands each result to done. If any of
// them holds a mistake, it applies none. An error is about the file of that name.
func (c *Client) ApplyAll(files []File, dryRun, replace bool, done func(file string, r *WriteResult)) (name string, err error) {
	if len(files) > 1 && !dryRun {
		if name, err := c.ApplyAll(files, true, replace, func(string, *WriteResult) {}); err != nil {
			return name, err
		}
	}
	for _, f := range files {
		result, err := c.Apply(f.Text, dryRun, replace)
		if err != nil {
			return f.Name, err
		}
		done(f.Name, &result)
	}
	return "", nil
}

// Delete deletes the rule of a key.
func (c *Client) Delete(key string, dryRun bool) (result WriteResult, err error) {
	err = c.Do(http.MethodDelete, rulesPath+"/"+key, flags(map[string]bool{"dry_run": dryRun}), "", nil, &result)
	return result, err
}
