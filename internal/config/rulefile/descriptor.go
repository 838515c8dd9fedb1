package rulefile

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

var descriptorKeys = newKeys(true, "key", "value", "rate_limit", "rate_limits", "shadow_mode", "quota_mode",
	"share_threshold", "detailed_metric", "value_to_metric", "metadata", "descriptors")

// rawDescriptor is a descriptor as written.
type rawDescriptor struct {
	key, value                                                         field[string]
	anyOf                                                              sets.Set   // instead of value
	listAt                                                             *yaml.Node // where it is
	listBad                                                            bool       // reported
	limit                                                              *rawLimit
	limits                                                             field[[]*rawLimit]
	shadowMode, quotaMode, shareThreshold, detailedMetric, valueMetric field[bool]
	metadata                                                           map[string]any
	metadataAt                                                         *yaml.Node
	descriptors                                                        []*config.Descriptor
	unread                                                             bool // no mapping: reported
}

// descriptors reads one level of descriptors. It leaves repetitions on the top level to
// the builder, which knows the descriptors of other sources.
func (d *decoder) descriptors(n *yaml.Node) []*config.Descriptor {
	var level []*config.Descriptor // nil when empty
	if yamlfile.IsNull(n) {
		return nil
	}
	if size := len(yamlfile.Resolve(n).Content); size > 0 {
		level = make([]*config.Descriptor, 0, size)
	}
	d.list(n, "descriptors", func(n *yaml.Node) { level = append(level, d.descriptor(n)) })
	return level
}

func (d *decoder) descriptor(n *yaml.Node) *config.Descriptor {
	var raw rawDescriptor
	raw.unread = !d.mapping(n, descriptorKeys, func(key string, value *yaml.Node) { d.setDescriptor(&raw, key, value) })
	d.checkList(&raw)
	out := &config.Descriptor{
		Key: raw.key.v, Value: raw.value.v, AnyOf: raw.anyOf,
		ShadowMode: raw.shadowMode.v, QuotaMode: raw.quotaMode.v, ShareThreshold: raw.shareThreshold.v,
		DetailedMetric: raw.detailedMetric.v, ValueToMetric: raw.valueMetric.v,
		Metadata: raw.metadata, Descriptors: raw.descriptors, Pos: d.pos(n),
	}
	if raw.unread {
		return out
	}
	d.checkEntry(n, &raw)
	out.Limits = d.limitsOf(&raw)
	d.checkFollowed(&raw, out)
	d.checkEffect(&raw, out)
	d.checkShadow(&raw)
	if len(out.Descriptors) > 1 {
		d.uniqueIn(descriptors, out.Descriptors, nil, nil)
	}
	return out
}

func (d *decoder) setDescriptor(raw *rawDescriptor, key string, value *yaml.Node) {
	switch key {
	case "key":
		d.text(value, &raw.key)
	case "value":
		d.setValue(raw, value)
	case "rate_limit":
		d.setRateLimit(raw, value)
	case "rate_limits":
		d.setRateLimits(raw, value)
	case "shadow_mode":
		d.boolean(value, &raw.shadowMode)
	case "quota_mode":
		d.boolean(value, &raw.quotaMode)
	case "share_threshold":
		d.boolean(value, &raw.shareThreshold)
	case "detailed_metric":
		d.boolean(value, &raw.detailedMetric)
	case "value_to_metric":
		d.boolean(value, &raw.valueMetric)
	case "metadata":
		d.setMetadata(raw, value)
	case "descriptors":
		raw.descriptors = d.descriptors(value)
	}
}

// setRateLimit reads a limit. If a merge key has already set one, it reads into that one:
// keys that are not written again stay.
func (d *decoder) setRateLimit(raw *rawDescriptor, n *yaml.Node) {
	if yamlfile.IsNull(n) {
		if raw.limit == nil {
			d.warn(n, "rate_limit is empty: nothing is limited", "remove it, or write unit and requests_per_unit")
		}
		raw.limit = nil
		return
	}
	if raw.limit == nil {
		raw.limit = &rawLimit{}
	}
	d.rawLimit(n, raw.limit)
}

func (d *decoder) setRateLimits(raw *rawDescriptor, n *yaml.Node) {
	raw.limits = field[[]*rawLimit]{n: n}
	if yamlfile.IsNull(n) {
		return
	}
	raw.limits.bad = !d.list(n, "rate limits", func(n *yaml.Node) {
		limit := &rawLimit{}
		d.rawLimit(n, limit)
		raw.limits.v = append(raw.limits.v, limit)
	})
}

func (d *decoder) setMetadata(raw *rawDescriptor, n *yaml.Node) {
	if yamlfile.IsNull(n) {
		raw.metadata = nil
		return
	}
	if raw.metadata == nil {
		raw.metadata = map[string]any{}
	}
	raw.metadataAt = n
	d.metadata(n, raw.metadata)
	if len(raw.metadata) == 0 {
		raw.metadata = nil
	}
}

// limitsOf validates the descriptor's limits.
func (d *decoder) limitsOf(raw *rawDescriptor) (limits []*config.Limit) {
	if raw.limit != nil {
		d.push("rate_limit")
		limits = append(limits, d.limit(raw.limit))
		d.pop()
	}
	if !raw.limits.present() {
		return limits
	}
	d.push("rate_limits")
	defer d.pop()
	switch {
	case raw.limit != nil:
		d.problem(raw.limits.n, "rate_limit and rate_limits together", "move rate_limit into the list")
	case len(raw.limits.v) == 0:
		d.problem(raw.limits.n, "the list is empty", "write at least one limit, or remove it")
	case len(raw.limits.v) > config.MaxLimits:
		d.problem(raw.limits.v[config.MaxLimits].n, fmt.Sprintf("%d limits, and a request may meet %d at most", len(raw.limits.v), config.MaxLimits), "write fewer")
	}
	for i, limit := range raw.limits.v {
		d.pushIndex(i)
		l := d.limit(limit)
		if l.Unlimited && len(raw.limits.v) > 1 {
			d.problemIn("unlimited", limit.unlimited.n, "unlimited among other limits", "write it alone, or remove it")
		}
		if limit.lease.present() && len(raw.limits.v) > 1 {
			d.warnIn("lease", limit.lease.n, "no effect among other limits, with which it is decided in one step", "write it where there is one limit, or remove it")
		}
		limits = append(limits, l)
		d.pop()
	}
	return limits
}

// checkEntry validates key, value and the fields that depend on them.
func (d *decoder) checkEntry(n *yaml.Node, raw *rawDescriptor) {
	if raw.key.v == "" && !raw.key.bad {
		d.problemIn("key", raw.key.at(n), "the key is missing or empty", "write the key of a descriptor entry, such as remote_address")
	}
	for _, f := range []struct {
		name string
		field[string]
	}{{"key", raw.key}, {"value", raw.value}} {
		if f.v != strings.TrimSpace(f.v) {
			d.warnIn(f.name, f.n, fmt.Sprintf("%q begins or ends with white space", yamlfile.Abridge(f.v)), "only requests with the same white space match")
		}
	}
	inKey := strings.Contains(raw.key.v, "*")
	if inKey && raw.key.v != raw.value.v { // Envoy Gateway gives both the name of a route
		d.warnIn("key", raw.key.n, "a * in a key", "wildcards are meant for values: write them there")
	}
	if raw.shareThreshold.v && !inKey && raw.listAt == nil && !strings.Contains(raw.value.v, "*") {
		d.problemIn("share_threshold", raw.shareThreshold.n, "share_threshold without a wildcard", "write a value with *, a list or a range, or remove share_threshold")
	}
}

// checkEffect warns of fields without effect.
func (d *decoder) checkEffect(raw *rawDescriptor, out *config.Descriptor) {
	if len(out.Limits) > 0 {
		return
	}
	for _, f := range []struct {
		name string
		set  bool
		n    *yaml.Node
	}{
		{"shadow_mode", raw.shadowMode.v, raw.shadowMode.n},
		{"quota_mode", raw.quotaMode.v, raw.quotaMode.n},
		{"detailed_metric", raw.detailedMetric.v, raw.detailedMetric.n},
		{"metadata", raw.metadata != nil, raw.metadataAt},
	} {
		if f.set {
			d.warnIn(f.name, f.n, "no effect without a rate_limit beside it", "move it to a descriptor with one")
		}
	}
}

// checkShadow warns of a limit in shadow mode that replaces others. As in
// envoyproxy/ratelimit, the limits that it replaces do not apply.
func (d *decoder) checkShadow(raw *rawDescriptor) {
	if !raw.shadowMode.v {
		return
	}
	warn := func(limit *rawLimit) {
		if len(limit.replaces.v) > 0 {
			d.warnIn("replaces", limit.replaces.n, "takes effect in shadow mode too: the limits that it names do not apply, and this one lets everything pass", "remove replaces until shadow_mode is removed")
		}
	}
	if raw.limit != nil {
		d.push("rate_limit")
		warn(raw.limit)
		d.pop()
	}
	d.push("rate_limits")
	for i, limit := range raw.limits.v {
		d.pushIndex(i)
		warn(limit)
		d.pop()
	}
	d.pop()
}
