package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"

	"gopkg.in/yaml.v3"
)

type rulesCmd struct {
	List   rulesListCmd   `cmd:"" help:"List the rules in force, with their keys and where they come from."`
	Apply  rulesApplyCmd  `cmd:"" help:"Create or update rules while the service runs."`
	Delete rulesDeleteCmd `cmd:"" help:"Delete rules that were created while the service ran."`
}

// Where a running service takes, and lists, rules.
const rulesPath = "/admin/rules"

type rulesListCmd struct {
	adminClient
	Domain string `short:"d" placeholder:"NAME" help:"Only rules of this domain."`
	Name   string `placeholder:"NAME" help:"Only rules with a limit of this name."`
	Source string `enum:"file,xds,admin," default:"" placeholder:"file|xds|admin" help:"Only rules from there."`
	Output string `short:"o" enum:"table,yaml,json" default:"table" help:"table, yaml (as rule files, which apply reads) or json (as the API answers)."`
}

// listedRule is a rule as the admin API lists it.
type listedRule struct {
	Key, Domain, Path, Source, Location string
	Entries                             []listedEntry
	Rule                                json.RawMessage // in the grammar of rule files
	Overrides                           *struct{ Source, Location string }
}

func (c *rulesListCmd) Run(con console) error {
	query := url.Values{}
	for name, value := range map[string]string{"domain": c.Domain, "name": c.Name, "source": c.Source} {
		if value != "" {
			query.Set(name, value)
		}
	}
	var text json.RawMessage
	if err := c.do(http.MethodGet, rulesPath, query, "", nil, &text); err != nil {
		return err
	}
	var list struct {
		Domains []struct{ Domain, Consume string }
		Rules   []listedRule
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	switch c.Output {
	case "json":
		return indent(con.out, text)
	case "yaml":
		consume := map[string]string{}
		for _, d := range list.Domains {
			consume[d.Domain] = d.Consume
		}
		return writeDomains(con.out, list.Rules, consume)
	}
	table := tabwriter.NewWriter(con.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEY\tDOMAIN\tRULE\tLIMIT\tFROM")
	for _, r := range list.Rules {
		from := r.Location
		if r.Overrides != nil {
			from += ", overrides " + r.Overrides.Location
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", r.Key, r.Domain, r.Path, describeRule(r.Rule), from)
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

// describeRule describes a rule's limits in few words.
func describeRule(text json.RawMessage) string {
	var rule struct {
		Limit  *limitText  `json:"rate_limit"`
		Limits []limitText `json:"rate_limits"`
		Shadow bool        `json:"shadow_mode"`
		Quota  bool        `json:"quota_mode"`
	}
	if err := json.Unmarshal(text, &rule); err != nil {
		return "?"
	}
	if rule.Limit != nil {
		rule.Limits = append(rule.Limits, *rule.Limit)
	}
	var texts []string
	for _, l := range rule.Limits {
		texts = append(texts, l.String())
	}
	out := strings.Join(texts, " and ")
	if rule.Shadow {
		out += " (shadow)"
	}
	if rule.Quota {
		out += " (quota)"
	}
	return out
}

// limitText is what is shown of a limit.
type limitText struct {
	Requests                uint32 `json:"requests_per_unit"`
	Unit, Window, Algorithm string
	Unlimited               bool
	Shadow                  bool `json:"shadow_mode"`
}

// String returns such as "100/minute token_bucket".
func (l limitText) String() string {
	if l.Unlimited {
		return "unlimited"
	}
	out := strings.TrimSpace(fmt.Sprintf("%d/%s %s", l.Requests, l.Unit+l.Window, l.Algorithm))
	if l.Shadow {
		out += " (shadow)"
	}
	return out
}

// listedEntry is one step of the way to a rule.
type listedEntry struct {
	Key, Value     string
	ShareThreshold bool `json:"share_threshold"`
	ValueToMetric  bool `json:"value_to_metric"`
}

// writeDomains writes rules as one document for each domain.
func writeDomains(out io.Writer, rules []listedRule, consume map[string]string) error {
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
		var rule yaml.Node
		if err := yaml.Unmarshal(r.Rule, &rule); err != nil { // JSON is YAML
			return err
		}
		plain(&rule)
		// Rules come before those below them, so that nothing is there yet.
		at.Content = rule.Content[0].Content
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

// below returns the descriptor below another, or a domain, which it adds if need be.
func below(n *yaml.Node, e listedEntry) *yaml.Node {
	level := get(n, "descriptors")
	if level == nil {
		level = &yaml.Node{Kind: yaml.SequenceNode}
		set(n, "descriptors", level)
	}
	for _, d := range level.Content {
		v := get(d, "value")
		if get(d, "key").Value == e.Key && (v == nil && e.Value == "" || v != nil && v.Value == e.Value) {
			return d
		}
	}
	d := mapping("key", e.Key)
	if e.Value != "" {
		set(d, "value", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: e.Value})
	}
	for key, on := range map[string]bool{"share_threshold": e.ShareThreshold, "value_to_metric": e.ValueToMetric} {
		if on {
			set(d, key, &yaml.Node{Kind: yaml.ScalarNode, Value: "true"})
		}
	}
	level.Content = append(level.Content, d)
	return d
}

// plain takes the style of JSON off.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plain(c)
	}
}

type rulesApplyCmd struct {
	Files []string `arg:"" name:"file" help:"Rule files, YAML or JSON; - is standard input. A file may hold several domains, separated by lines of ---. One mistake in any of them, and nothing is applied."`
	adminClient
	DryRun  bool `help:"Say what would change, and change nothing."`
	Replace bool `help:"Have the domain's admin rules be those of the file and no others."`
}

// Help says what comes of rules that are applied.
func (rulesApplyCmd) Help() string {
	return `Rules of the same domain, keys and values are updated, and override those of files and of xDS; others stay. They survive restarts and reach every replica.

Example: ratelimit rules apply slower.yaml --dry-run`
}

// writeResult is the answer to a write of rules.
type writeResult struct {
	Revision uint64
	InForce  bool `json:"in_force"`
	Changes  []struct{ Change, Key, Domain, Path string }
	Warnings []adminRuleProblem
	Problems []string
}

func (c *rulesApplyCmd) Run(con console) error {
	type part struct {
		file string
		text []byte
	}
	var parts []part
	for _, file := range c.Files {
		text, err := readRules(file)
		if err != nil {
			return err
		}
		parts = append(parts, part{file, text})
	}
	apply := func(p part, dryRun bool) (result writeResult, err error) {
		query := flags(map[string]bool{"dry_run": dryRun, "replace": c.Replace})
		err = c.do(http.MethodPost, rulesPath, query, "application/yaml", p.text, &result)
		return result, report(con.err, p.file, err)
	}
	if len(parts) > 1 && !c.DryRun { // all of them or, as far as mistakes go, none
		for _, p := range parts {
			if _, err := apply(p, true); err != nil {
				return err
			}
		}
	}
	var failed error
	for _, p := range parts {
		result, err := apply(p, c.DryRun)
		if err != nil {
			return err
		}
		for _, w := range result.Warnings {
			fmt.Fprintf(con.err, "warning: %s\n", w.in(p.file))
		}
		failed = cmp.Or(result.print(con, c.DryRun), failed)
	}
	return failed
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

func readRules(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(file)
}

// print lists the changes. Rules that are stored, but not in force, are a failure.
func (r *writeResult) print(con console, dryRun bool) error {
	for _, c := range r.Changes {
		verb := ""
		if dryRun && c.Change != "unchanged" {
			verb = "would be "
		}
		fmt.Fprintf(con.out, "%s%s  %s  %s  %s\n", verb, c.Change, c.Key, c.Domain, c.Path)
	}
	if dryRun || r.InForce {
		return nil
	}
	fmt.Fprintln(con.err, "The rules are stored, but not in force, because loading failed:")
	for _, p := range r.Problems {
		fmt.Fprintln(con.err, p)
	}
	return errReported
}

type rulesDeleteCmd struct {
	Keys []string `arg:"" name:"key" help:"Keys of rules, as list shows them."`
	adminClient
	DryRun bool `help:"Say what would change, and change nothing."`
}

func (c *rulesDeleteCmd) Run(con console) error {
	for _, key := range c.Keys {
		var result writeResult
		if err := c.do(http.MethodDelete, rulesPath+"/"+key, flags(map[string]bool{"dry_run": c.DryRun}), "", nil, &result); err != nil {
			return err
		}
		if err := result.print(con, c.DryRun); err != nil {
			return err
		}
	}
	return nil
}
