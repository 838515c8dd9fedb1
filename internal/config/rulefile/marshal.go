package rulefile

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
)

// The documents below are the grammar, for writing rules back as YAML or JSON.

type domainDocument struct {
	Domain      string               `yaml:"domain" json:"domain"`
	Consume     string               `yaml:"consume,omitempty" json:"consume,omitempty"`
	Descriptors []descriptorDocument `yaml:"descriptors,omitempty" json:"descriptors,omitempty"`
}

type descriptorDocument struct {
	Key            string               `yaml:"key" json:"key"`
	Value          string               `yaml:"value,omitempty" json:"value,omitempty"`
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
	RequestsPerUnit *uint32            `yaml:"requests_per_unit,omitempty" json:"requests_per_unit,omitempty"`
	Unit            string             `yaml:"unit,omitempty" json:"unit,omitempty"`
	Window          string             `yaml:"window,omitempty" json:"window,omitempty"`
	Burst           uint32             `yaml:"burst,omitempty" json:"burst,omitempty"`
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
}

type bucketDocument struct {
	Capacity   uint32 `yaml:"capacity,omitempty" json:"capacity,omitempty"`
	RefillRate string `yaml:"refill_rate,omitempty" json:"refill_rate,omitempty"`
}

type replacesDocument struct {
	Name string `yaml:"name" json:"name"`
}

// Domain is a domain to be written as YAML or JSON in the grammar. What is read back
// means the same.
type Domain struct{ *config.Domain }

// MarshalYAML implements yaml.Marshaler.
func (d Domain) MarshalYAML() (any, error) { return domainOf(d.Domain), nil }

// MarshalJSON implements json.Marshaler.
func (d Domain) MarshalJSON() ([]byte, error) { return marshalJSON(domainOf(d.Domain)) }

// Descriptor is a descriptor to be written, with those below it, as YAML or JSON in the
// grammar.
type Descriptor struct{ *config.Descriptor }

// MarshalYAML implements yaml.Marshaler.
func (d Descriptor) MarshalYAML() (any, error) { return descriptorOf(d.Descriptor), nil }

// MarshalJSON implements json.Marshaler.
func (d Descriptor) MarshalJSON() ([]byte, error) { return marshalJSON(descriptorOf(d.Descriptor)) }

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
	doc := descriptorDocument{
		Key: d.Key, Value: d.Value, ShadowMode: d.ShadowMode, QuotaMode: d.QuotaMode, ShareThreshold: d.ShareThreshold,
		DetailedMetric: d.DetailedMetric, ValueToMetric: d.ValueToMetric, Metadata: d.Metadata, Descriptors: documents(d.Descriptors),
	}
	if len(d.Limits) == 1 {
		limit := limitOf(d.Limits[0])
		doc.RateLimit = &limit
		return doc
	}
	for _, l := range d.Limits {
		doc.RateLimits = append(doc.RateLimits, limitOf(l))
	}
	return doc
}

func limitOf(l *config.Limit) limitDocument {
	doc := limitDocument{Name: l.Name, Unlimited: l.Unlimited, ShadowMode: l.ShadowMode, Lease: l.Lease, RawBody: l.RawBody}
	for _, name := range l.Replaces {
		doc.Replaces = append(doc.Replaces, replacesDocument{name})
	}
	if l.OnBackendError != config.BackendErrorDefault {
		doc.OnBackendError = l.OnBackendError.String()
	}
	if l.Unlimited {
		return doc
	}
	p := l.Algo.Params()
	doc.RequestsPerUnit = &p.Limit
	doc.Unit, doc.Window = l.Window()
	doc.Burst, doc.Strict, doc.SubWindows = p.Burst, p.Strict, p.SubWindows
	if p.Algorithm != algo.FixedWindow {
		doc.Algorithm = p.Algorithm.String()
	}
	if p.DeniedHits != algo.DeniedDefault {
		doc.DeniedHits = p.DeniedHits.String()
	}
	if p.Refill != (algo.Rate{}) {
		doc.TokenBucket = &bucketDocument{Capacity: p.Burst, RefillRate: config.FormatRate(p.Refill)}
		doc.Burst = 0
	}
	return doc
}
