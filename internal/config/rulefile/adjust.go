package rulefile

import (
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
)

// adjust is the key of a document of adjustments.
const adjust = "adjust"

var (
	adjustmentKeys = newKeys(false, "rules", "set")
	selectionKeys  = newKeys(false, "domain", "path", "name")
	changeKeys     = newKeys(false, "algorithm", "burst", "strict", "sub_windows", "denied_hits", "on_backend_error", "lease", "raw_body", "shadow_mode")
)

// adjustIn returns the key of adjustments in a document; nil if it has none.
func adjustIn(n *yaml.Node) *yaml.Node {
	root := yamlfile.Resolve(n)
	for i := 0; root.Kind == yaml.MappingNode && i+1 < len(root.Content); i += 2 {
		if key := yamlfile.Resolve(root.Content[i]); key.Kind == yaml.ScalarNode && key.Value == adjust {
			return key
		}
	}
	return nil
}

// adjustments reads a document of adjustments, whose key is the node at.
func (d *decoder) adjustments(n, at *yaml.Node) {
	d.adjustAt = d.pos(at)
	before := len(d.problems)
	var beside []string
	d.mapping(n, rootKeys, func(key string, value *yaml.Node) {
		switch {
		case key != adjust:
			beside = append(beside, key)
		case !yamlfile.IsNull(value):
			d.list(value, "adjustments", func(n *yaml.Node) { d.adjust = append(d.adjust, d.adjustment(n)) })
		}
	})
	switch {
	case len(beside) > 0:
		d.problemIn(adjust, at, "adjust beside "+strings.Join(beside, " and "), "write adjust in a document of its own: it is for the rules of all domains")
	case len(d.adjust) == 0 && len(d.problems) == before:
		d.warnIn(adjust, at, "there are no adjustments", "write some, or remove the file")
	}
}

func (d *decoder) adjustment(n *yaml.Node) *config.Adjustment {
	a := &config.Adjustment{By: d.pos(n).String(), Pos: d.pos(n), Path: d.pathString()}
	var rules, set bool
	isMapping := d.mapping(n, adjustmentKeys, func(key string, value *yaml.Node) {
		switch key {
		case "rules":
			rules, a.Selects = true, d.selection(value)
		case "set":
			set, a.Set = true, d.change(value)
		}
	})
	if isMapping && !rules {
		d.problemIn("rules", n, "rules is missing", `write which: rules: {domain: "*", path: "*remote_address*"}`)
	}
	if isMapping && !set {
		d.problemIn("set", n, "set is missing", "write what to set: set: {algorithm: token_bucket, burst: 20%}")
	}
	return a
}

func (d *decoder) selection(n *yaml.Node) (s config.Selection) {
	given, before := false, len(d.problems)
	d.mapping(n, selectionKeys, func(key string, value *yaml.Node) {
		var f field[string]
		d.text(value, &f)
		if f.present() && f.v == "" {
			d.problem(value, "an empty text selects nothing", `write "*" for any, or leave it out`)
		}
		given = given || f.n != nil
		switch key {
		case "domain":
			s.Domain = f.v
		case "path":
			s.Path = f.v
		case "name":
			s.Name = f.v
		}
	})
	if !given && len(d.problems) == before {
		d.problem(n, "neither domain, path nor name", `write one of them, as explain prints it; domain: "*" is all rules`)
	}
	return s
}

// change reads the parameters that an adjustment sets.
func (d *decoder) change(n *yaml.Node) (c config.Change) {
	var raw rawLimit
	given, before := false, len(d.problems)
	d.mapping(n, changeKeys, func(key string, value *yaml.Node) {
		given = given || !yamlfile.IsNull(value)
		switch key {
		case "algorithm":
			d.text(value, &raw.algorithm)
		case "burst":
			d.burst(value, &raw.burst)
		case "strict":
			d.boolean(value, &raw.strict)
		case "sub_windows":
			d.number(value, &raw.subWindows)
		case "denied_hits":
			d.text(value, &raw.deniedHits)
		case "on_backend_error":
			d.text(value, &raw.onBackendError)
		case "lease":
			d.share(value, &raw.lease)
		case "raw_body":
			d.text(value, &raw.rawBody)
		case "shadow_mode":
			d.boolean(value, &raw.shadowMode)
		}
	})
	if !given && len(d.problems) == before {
		d.problem(n, "nothing is set", "write one of "+strings.Join(changeKeys.names, ", "))
	}
	algorithm, known := d.algorithm(&raw)
	if raw.algorithm.present() && known {
		c.Algorithm = &algorithm
	} else {
		algorithm = algo.Hybrid // it takes all parameters: the rules' algorithms are not known here
	}
	d.checkFields(&raw, algorithm)
	c.Burst, c.SubWindows, c.Lease, c.RawBody = raw.burst.v, int(raw.subWindows.v), raw.lease.v, raw.rawBody.v
	c.Strict, c.ShadowMode = optional(raw.strict), optional(raw.shadowMode)
	var err error
	if raw.deniedHits.present() {
		c.DeniedHits, err = algo.ParseDeniedHits(raw.deniedHits.v)
		d.problemFrom("denied_hits", raw.deniedHits.n, err)
	}
	if raw.onBackendError.present() {
		c.OnBackendError, err = config.ParseBackendErrorMode(raw.onBackendError.v)
		d.problemFrom("on_backend_error", raw.onBackendError.n, err)
	}
	d.checkRawBody(&raw)
	return c
}

// optional returns a pointer to the value of a field; nil if it is not given.
func optional(f field[bool]) *bool {
	if !f.present() {
		return nil
	}
	return &f.v
}
