package rulefile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// The documents below are the grammar, for writing rules back as YAML or JSON.

type domainDocument struct {
	Domain      string               `yaml:"domain" json:"domain"`
	Consume     string               `yaml:"consume,omitempty" json:"consume,omitempty"`
	Limits      []setDocument        `yaml:"limits,omitempty" json:"limits,omitempty"`
	Descriptors []descriptorDocument `yaml:"descriptors,omitempty" json:"descriptors,omitempty"`
}

type setDocument struct {
	Name           string          `yaml:"name" json:"name"`
	Match          map[string]any  `yaml:"match,omitempty" json:"match,omitempty"`
	CountBy        []string        `yaml:"count_by,omitempty" json:"count_by,omitempty"`
	Hold           *holdDocument   `yaml:"hold,omitempty" json:"hold,omitempty"`
	RateLimit      *limitDocument  `yaml:"rate_limit,omitempty" json:"rate_limit,omitempty"`
	RateLimits     []limitDocument `yaml:"rate_limits,omitempty" json:"rate_limits,omitempty"`
	ShadowMode     bool            `yaml:"shadow_mode,omitempty" json:"shadow_mode,omitempty"`
	QuotaMode      bool            `yaml:"quota_mode,omitempty" json:"quota_mode,omitempty"`
	DetailedMetric bool            `yaml:"detailed_metric,omitempty" json:"detailed_metric,omitempty"`
	Metadata       map[string]any  `yaml:"metadata,omitempty" json:"metadata,omitempty"`
}

type descriptorDocument struct {
	Key            string               `yaml:"key" json:"key"`
	Value          any                  `yaml:"value,omitempty" json:"value,omitempty"`
	RateLimit      *limitDocument       `yaml:"rate_limit,omitempty" json:"rate_limit,omitempty"`
	RateLimits     []limitDocument      `yaml:"rate_limits,omitempty" json:"rate_limits,omitempty"`
	ShadowMode     bool                 `yaml:"shadow_mode,omitempty" json:"shadow_mode,omitempty"`
	QuotaMode      bool                 `yaml:"quota_mode,omitempty" json:"quota_mode,omitempty"`
	ShareThreshold bool                 `yaml:"share_threshold,omitempty" json:"share_threshold,omitempty"`
	DetailedMetric bool                 `yaml:"detailed_metric,omitempty" json:"detailed_metric,omitempty"`
	ValueToMetric  bool                 `yaml:"value_to_metric,omitempty" json:"value_to_metric,omitempty"`
	Metadata       map[string]any       `yaml:"metadata,omitempty" json:"metadata,omitempty"`
	Descriptors    []descriptorDocument `yaml:"descriptors,omitempty" json:"descriptors,omitempty"`
}

type limitDocument struct {
	Name            string             `yaml:"name,omitempty" json:"name,omitempty"`
	Algorithm       string             `yaml:"algorithm,omitempty" json:"algorithm,omitempty"`
	RequestsPerUnit any                `yaml:"requests_per_unit,omitempty" json:"requests_per_unit,omitempty"`
	Unit            string             `yaml:"unit,omitempty" json:"unit,omitempty"`
	UnitMultiplier  uint32             `yaml:"unit_multiplier,omitempty" json:"unit_multiplier,omitempty"`
	Window          any                `yaml:"window,omitempty" json:"window,omitempty"` // string or windowDocument
	Burst           any                `yaml:"burst,omitempty" json:"burst,omitempty"`
	TokenBucket     *bucketDocument    `yaml:"token_bucket,omitempty" json:"token_bucket,omitempty"`
	Strict          bool               `yaml:"strict,omitempty" json:"strict,omitempty"`
	SubWindows      int                `yaml:"sub_windows,omitempty" json:"sub_windows,omitempty"`
	DeniedHits      string             `yaml:"denied_hits,omitempty" json:"denied_hits,omitempty"`
	Unlimited       bool               `yaml:"unlimited,omitempty" json:"unlimited,omitempty"`
	ShadowMode      bool               `yaml:"shadow_mode,omitempty" json:"shadow_mode,omitempty"`
	Replaces        []replacesDocument `yaml:"replaces,omitempty" json:"replaces,omitempty"`
	OnBackendError  string             `yaml:"on_backend_error,omitempty" json:"on_backend_error,omitempty"`
	Lease           float64            `yaml:"lease,omitempty" json:"lease,omitempty"`
	RawBody         string             `yaml:"raw_body,omitempty" json:"raw_body,omitempty"`
	RequestHeaders  map[string]string  `yaml:"request_headers,omitempty" json:"request_headers,omitempty"`
}

type holdDocument struct {
	By        string            `yaml:"by" json:"by"`
	Expires   string            `yaml:"expires" json:"expires"`
	SettledBy map[string]string `yaml:"settled_by" json:"settled_by"`
}

type bucketDocument struct {
	Capacity   any    `yaml:"capacity,omitempty" json:"capacity,omitempty"`
	RefillRate string `yaml:"refill_rate,omitempty" json:"refill_rate,omitempty"`
}

type windowDocument struct {
	Calendar string `yaml:"calendar" json:"calendar"`
	Timezone string `yaml:"timezone" json:"timezone"`
	Starts   any    `yaml:"starts,omitempty" json:"starts,omitempty"` // string or int
}

type replacesDocument struct {
	Name string `yaml:"name" json:"name"`
}

// Domain is a domain to be written as YAML or JSON in the grammar. What is read back
// means the same: it has the limits that its source has, which will be adjusted again.
type Domain struct{ *config.Domain }

// MarshalYAML implements yaml.Marshaler.
func (d Domain) MarshalYAML() (any, error) { return domainOf(d.Domain), nil }

// MarshalJSON implements json.Marshaler.
func (d Domain) MarshalJSON() ([]byte, error) { return marshalJSON(domainOf(d.Domain)) }

// Descriptor is a descriptor to be written, with those below it, as YAML or JSON in the
// grammar.
type Descriptor struct{ *config.Descriptor }

// MarshalYAML implements yaml.Marshaler.
func (d Descriptor) MarshalYAML() (any, error) { return documentOf(d.Descriptor), nil }

// MarshalJSON implements json.Marshaler.
func (d Descriptor) MarshalJSON() ([]byte, error) { return marshalJSON(documentOf(d.Descriptor)) }

// marshalJSON writes JSON that YAML reads the same: characters that YAML does not
// take literally, or takes for the end of a line, are escaped.
func marshalJSON(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil || !bytes.ContainsFunc(text, mustEscape) {
		return text, err
	}
	var b bytes.Buffer
	for _, c := range string(text) {
		if mustEscape(c) {
			fmt.Fprintf(&b, `\u%04x`, c)
		} else {
			b.WriteRune(c)
		}
	}
	return b.Bytes(), nil
}

func mustEscape(c rune) bool { return c == 0x85 || c == 0xfeff || c >= 0x7f && isControl(c) }

func domainOf(d *config.Domain) domainDocument {
	doc := domainDocument{Domain: d.Name, Descriptors: documents(d.Descriptors)}
	for _, set := range d.Limits {
		doc.Limits = append(doc.Limits, setOf(set))
	}
	if d.ConsumeGiven {
		doc.Consume = d.Consume.String()
	}
	return doc
}

func documents(level []*config.Descriptor) []descriptorDocument {
	docs := make([]descriptorDocument, len(level))
	for i, d := range level {
		docs[i] = descriptorOf(d)
	}
	return docs
}

func descriptorOf(d *config.Descriptor) descriptorDocument {
	written := d.AsWritten()
	doc := descriptorDocument{
		Key: d.Key, Value: Values(d), ShadowMode: written.ShadowMode, QuotaMode: d.QuotaMode, ShareThreshold: d.ShareThreshold,
		DetailedMetric: d.DetailedMetric, ValueToMetric: d.ValueToMetric, Metadata: d.Metadata, Descriptors: documents(d.Descriptors),
	}
	doc.RateLimit, doc.RateLimits = limitsOf(written)
	return doc
}

// documentOf returns the document of a descriptor of either kind.
func documentOf(d *config.Descriptor) any {
	if d.Set != nil {
		return setOf(d)
	}
	return descriptorOf(d)
}

func setOf(d *config.Descriptor) setDocument {
	d = d.AsWritten()
	doc := setDocument{
		Name: d.Set.Name, CountBy: d.Set.CountBy, ShadowMode: d.ShadowMode, QuotaMode: d.QuotaMode,
		DetailedMetric: d.DetailedMetric, Metadata: d.Metadata, Match: make(map[string]any, len(d.Set.Match)),
	}
	doc.RateLimit, doc.RateLimits = limitsOf(d)
	if h := d.Hold; h != nil {
		doc.Hold = &holdDocument{By: h.By, Expires: config.FormatDuration(h.Expires), SettledBy: map[string]string{h.SettledBy.Key: h.SettledBy.Value}}
	}
	for _, c := range d.Set.Match {
		doc.Match[c.Key] = conditionOf(c)
	}
	return doc
}

func conditionOf(c sets.Condition) any {
	in, not := valuesOf(c.Any), valuesOf(c.Not)
	switch {
	case c.Absent:
		return map[string]any{"absent": true}
	case in == nil && not == nil:
		return map[string]any{}
	case not == nil:
		return in
	case in == nil:
		return map[string]any{"not": not}
	}
	return map[string]any{"any": in, "not": not}
}

// valuesOf returns a list of the values of the set, nil if there are none.
func valuesOf(s sets.Set) (list []any) {
	for _, v := range s.Values {
		list = append(list, v)
	}
	if len(s.CIDRs) > 0 {
		list = append(list, map[string]any{"cidr": s.CIDRs})
	}
	return list
}

// limitsOf returns the limits of a descriptor in the form for one or for several.
func limitsOf(d *config.Descriptor) (one *limitDocument, several []limitDocument) {
	if len(d.Limits) == 1 {
		limit := limitOf(d.Limits[0])
		return &limit, nil
	}
	for _, l := range d.Limits {
		several = append(several, limitOf(l))
	}
	return nil, several
}

// windowOf returns how a limit's window is written: as a unit or as a window.
func windowOf(l *config.Limit) (unit string, window any) {
	c := l.Algo.Params().Calendar
	if c.IsZero() {
		unit, duration := l.Window()
		if duration == "" {
			return unit, nil
		}
		return "", duration
	}
	doc := windowDocument{Calendar: c.Every.String(), Timezone: c.Zone}
	switch {
	case c.Starts <= 1: // as without it
	case c.Every == algo.EveryWeek:
		doc.Starts = strings.ToLower(c.Weekday().String())
	default:
		doc.Starts = c.Starts
	}
	return "", doc
}

func limitOf(l *config.Limit) limitDocument {
	doc := limitDocument{Name: l.Name, Unlimited: l.Unlimited, ShadowMode: l.ShadowMode, Lease: l.Lease, RawBody: l.RawBody}
	for _, name := range l.Replaces {
		doc.Replaces = append(doc.Replaces, replacesDocument{name})
	}
	for _, h := range l.RequestHeaders {
		if doc.RequestHeaders == nil {
			doc.RequestHeaders = map[string]string{}
		}
		doc.RequestHeaders[h.Name] = h.Value
	}
	if l.OnBackendError != config.BackendErrorDefault {
		doc.OnBackendError = l.OnBackendError.String()
	}
	if l.Unlimited {
		return doc
	}
	p := l.Algo.Params()
	doc.RequestsPerUnit = writtenRequests(l, p.Limit)
	doc.Unit, doc.Window = windowOf(l)
	if unit, n := config.Measure(p.Window); p.Calendar.IsZero() && !p.Algorithm.AlwaysHolds() && (unit != l.Unit || n != l.UnitMultiplier) {
		doc.Unit, doc.UnitMultiplier, doc.Window = l.Unit.String(), l.UnitMultiplier, nil // as current_limit reports it
	}
	doc.Burst, doc.Strict, doc.SubWindows = writtenBurst(l, p.Burst), p.Strict, p.SubWindows
	if l.AlgorithmGiven || p.Algorithm != algo.FixedWindow {
		doc.Algorithm = p.Algorithm.String()
	}
	if p.DeniedHits != algo.DeniedDefault {
		doc.DeniedHits = p.DeniedHits.String()
	}
	if p.Refill != (algo.Rate{}) {
		doc.TokenBucket = &bucketDocument{Capacity: doc.Burst, RefillRate: config.FormatRate(p.Refill)}
		doc.Burst = nil
	}
	return doc
}
