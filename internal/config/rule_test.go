package config_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

func parse(t rapid.TB, sources ...rulefile.Source) *config.Rules {
	t.Helper()
	rules, err := rulefile.Parse(sources, rulefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// byID returns the rules as JSON, without the descriptors below them.
func byID(t rapid.TB, rules *config.Rules) map[string]string {
	all := map[string]string{}
	for r := range rules.All() {
		text, err := json.Marshal(rulefile.Descriptor{Descriptor: r.Descriptor().WithoutChildren()})
		if err != nil {
			t.Fatal(err)
		}
		if all[r.ID()] != "" {
			t.Fatalf("two rules have the ID %s", r.ID())
		}
		all[r.ID()] = string(text)
	}
	return all
}

// someDomain draws a domain with few names, so that two of them have rules in common.
func someDomain(t *rapid.T, label string) string {
	var level func(depth int) []map[string]any
	level = func(depth int) []map[string]any {
		list := []map[string]any{}
		for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "a_b", "c"}), 0, 3, rapid.ID).Draw(t, label+" keys") {
			for _, value := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"", "b", "x*"}), 1, 2, rapid.ID).Draw(t, label+" values") {
				node := map[string]any{"key": key, "value": value}
				if rapid.Bool().Draw(t, label+" limits") {
					node["rate_limit"] = map[string]any{"unit": "minute", "requests_per_unit": rapid.IntRange(1, 1000).Draw(t, label+" limit")}
				}
				if depth < 3 {
					node["descriptors"] = level(depth + 1)
				}
				list = append(list, node)
			}
		}
		return list
	}
	text, err := json.Marshal(map[string]any{"domain": "edge", "descriptors": level(1)})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestAdminRulesOverride checks that the rules of a file and of the admin API are in force
// together, and that the latter win where they have the same ID.
func TestAdminRulesOverride(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base, over := someDomain(t, "file"), someDomain(t, "admin")
		file := rulefile.Source{Name: "f", Data: []byte(base)}
		admin := rulefile.Source{Name: "a", Data: []byte(over), Origin: config.FromAdmin}
		ofFile, ofAdmin := byID(t, parse(t, file)), byID(t, parse(t, admin))
		want := maps.Clone(ofFile)
		maps.Copy(want, ofAdmin)

		merged := parse(t, admin, file)
		if got := byID(t, merged); !maps.Equal(got, want) {
			t.Fatalf("%s under %s:\n got %v\nwant %v", base, over, got, want)
		}
		for r := range merged.All() {
			d := r.Descriptor()
			_, fromAdmin := ofAdmin[r.ID()]
			_, both := ofFile[r.ID()]
			if (d.Origin == config.FromAdmin) != fromAdmin || (d.Overridden != nil) != (fromAdmin && both) {
				t.Fatalf("%s is from %v and overrides %v", r.Name(), d.Origin, d.Overridden)
			}
			if d.Overridden != nil && (d.Overridden.Origin != config.FromFile || d.Overridden.Pos.File != "f") {
				t.Fatalf("%s overrides what is from %v at %v", r.Name(), d.Overridden.Origin, d.Overridden.Pos)
			}
		}
	})
}

// TestPutAndRemove edits a domain and compares it with a map from ID to rule,
// also after it was written and read back.
func TestPutAndRemove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		domain := &config.Domain{Name: "edge"}
		want := map[string]string{}
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			if ids := slices.Sorted(maps.Keys(want)); len(ids) > 0 && rapid.Bool().Draw(t, "remove") {
				id := rapid.SampledFrom(ids).Draw(t, "id")
				if !domain.Remove(id) || domain.Remove(id) {
					t.Fatalf("%s was not removed just once", id)
				}
				delete(want, id)
			} else {
				other := parse(t, rulefile.Source{Name: "other", Data: []byte(someDomain(t, "put"))})
				maps.Copy(want, byID(t, other))
				domain.Put(other.Domains[0])
			}
			if got := byID(t, &config.Rules{Domains: []*config.Domain{domain}}); !maps.Equal(got, want) {
				t.Fatalf("got %v\nwant %v", got, want)
			}
			text, err := json.Marshal(rulefile.Domain{Domain: domain})
			if err != nil {
				t.Fatal(err)
			}
			again := parse(t, rulefile.Source{Name: "again", Data: text})
			if got := byID(t, again); !maps.Equal(got, want) {
				t.Fatalf("read back: got %v\nwant %v", got, want)
			}
			domain = again.Domains[0]
		}
	})
}

// TestID pins IDs, because clients have stored them.
func TestID(t *testing.T) {
	rules := parse(t, rulefile.Source{Name: "f", Data: []byte(`domain: edge
descriptors:
  - key: user
    rate_limit: {unit: minute, requests_per_unit: 5}
    descriptors: [{key: path, value: /x, rate_limit: {unit: minute, requests_per_unit: 5}}]
  - {key: user, value: path, rate_limit: {unit: minute, requests_per_unit: 5}}
  - {key: user_path, rate_limit: {unit: minute, requests_per_unit: 5}}
`)})
	var got []string
	for r := range rules.All() {
		got = append(got, fmt.Sprintf("%s %s", r.ID(), r.Name()))
		if !regexp.MustCompile(`^[a-z2-7]{20}$`).MatchString(r.ID()) {
			t.Errorf("ID %q", r.ID())
		}
	}
	want := []string{"vsmdmudzfakzvre5iddt user", "ehgpapbatczdq4wc5gyq user.path_/x", "f3bt5fktw225kn54wqen user_path", "bqpe4lm5cui7h5yskwdj user_path"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
