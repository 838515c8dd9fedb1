package config_test

import (
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/config"
)

// TestDigestTellsRulesApart that are equal in number, and not the same rules read from
// elsewhere.
func TestDigestTellsRulesApart(t *testing.T) {
	const text = "domain: edge\ndescriptors:\n  - key: user\n    rate_limit: {unit: minute, requests_per_unit: 5}\n    descriptors: [{key: path, metadata: {a: 1}, rate_limit: {unlimited: true}}]\n"
	const other = "domain: shop\ndescriptors: [{key: user, rate_limit: {unit: minute, requests_per_unit: 5}}]\n"
	digest := func(texts ...string) string {
		t.Helper()
		sources := make([]config.Source, len(texts))
		for i, text := range texts {
			sources[i] = config.Source{Name: strings.Repeat("x", len(text)%7+1) + ".yaml", Data: []byte(text)}
			sources[i].Name = string(rune('a'+i)) + sources[i].Name
		}
		rules, err := config.Parse(sources, config.Options{})
		if err != nil {
			t.Fatal(err)
		}
		d := rules.Digest()
		return string(d[:])
	}
	whole := digest(text, other)
	if digest(other, "# the same\n"+text) != whole {
		t.Error("order of domains, places and comments matter")
	}
	for _, c := range [][2]string{
		{"unit: minute", "unit: hour"}, {"requests_per_unit: 5", "requests_per_unit: 6"}, {"{a: 1}", "{a: 2}"}, {"key: user", "key: usr"},
		{"requests_per_unit: 5}", "requests_per_unit: 5, name: x}"}, {"requests_per_unit: 5}", "requests_per_unit: 5, algorithm: token_bucket}"},
		{"key: path,", "key: path, shadow_mode: true,"}, {"domain: edge", "domain: edge2"}, {"requests_per_unit: 5}", "requests_per_unit: 5, on_backend_error: allow}"},
	} {
		changed := strings.Replace(text, c[0], c[1], 1)
		if changed == text {
			t.Fatalf("%s is not there", c[0])
		}
		if digest(changed, other) == whole {
			t.Errorf("%s instead of %s makes no difference", c[1], c[0])
		}
	}
}
