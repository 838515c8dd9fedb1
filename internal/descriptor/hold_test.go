package descriptor_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/descriptor"
)

const held = `
domain: edge
limits:
  - name: in_flight
    match: {user: {}}
    count_by: [user]
    hold: {by: id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 10}
  - name: other
    hold: {by: id, expires: 60s, settled_by: {stage: end}}
    rate_limit: {unit: hour, requests_per_unit: 10}
  - name: requests
    match: {user: {}}
    rate_limit: {unit: hour, requests_per_unit: 10}
  - name: phases
    match: {phase: {}}
    rate_limit: {unit: hour, requests_per_unit: 10}
`

func TestWhatADescriptorWithAHoldMeets(t *testing.T) {
	d := descriptor.Compile(parse(t, "test.yaml", held)).Domain("edge")
	for text, want := range map[string][]string{
		"user=a":                           {"limits.requests"},
		"user=a,id=1":                      {"limits.in_flight", "limits.other", "limits.requests"},
		"user=a,id=1,phase=begin":          {"limits.in_flight", "limits.other", "limits.requests", "limits.phases"},
		"user=a,id=1,phase=done":           {"limits.in_flight", "limits.phases"},
		"user=a,phase=done":                {"limits.phases"},
		"phase=done,id=1":                  {"limits.phases"},
		"id=1,stage=end":                   {"limits.other"},
		"user=a,id=1,phase=done,stage=end": {"limits.in_flight", "limits.other"},
	} {
		var entries descriptor.Entries
		if err := entries.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		for _, first := range []bool{true, false} {
			rules, _, err := d.LookupSets(nil, nil, entries, first)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range rules {
				got = append(got, r.Path)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s meets %v, want %v", text, got, want)
			}
		}
	}
}

func TestRequestsAreToldApart(t *testing.T) {
	m := descriptor.Compile(parse(t, "test.yaml", held))
	at := slices.IndexFunc(m.Rules(), func(r *descriptor.Rule) bool { return r.Path == "limits.in_flight" })
	r := m.Rules()[at]
	hold := func(text string) (id uint64, settles bool) {
		var entries descriptor.Entries
		if err := entries.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		h := r.HoldOf(entries)
		return h.ID, h.Settles
	}
	one, settles := hold("user=a,id=1")
	if one == 0 || settles {
		t.Errorf("%d, settles %t", one, settles)
	}
	if id, settles := hold("phase=done,id=1"); id != one || !settles {
		t.Errorf("the end of it: %d, settles %t", id, settles)
	}
	for _, other := range []string{"id=2", "id=11", "id=1,id=1", "id=1 "} {
		if id, _ := hold(other); id == one {
			t.Errorf("%q is told apart from id=1 by nothing", other)
		}
	}
	if id, _ := hold("id="); id != 0 {
		t.Error("an empty ID is one")
	}
	split, _ := hold("id=a,id=bc")
	if other, _ := hold("id=ab,id=c"); split == other {
		t.Error("IDs of several entries are told apart by nothing but their text in a row")
	}
}

func TestExplainTellsOfHolds(t *testing.T) {
	m := descriptor.Compile(parse(t, "test.yaml", held))
	for text, want := range map[string]string{
		"user=a,id=1":            "hold by id, settled by phase=done",
		"user=a,id=1,phase=done": "this descriptor settles",
		"user=a":                 "limits.in_flight (test.yaml:4:5): id\n",
		"user=b,id=1,phase=done": "limits.requests (test.yaml:12:5): left out: phase=done settles what limits.in_flight holds, and is no request of its own\n",
		"user=e,id=":             "rule limits.in_flight",
		"thing=a":                "domain edge has no descriptors; of the limits on sets, the nearest is limits.other (test.yaml:9:5): id\n",
		"user=c,id=2":            `in_flight|4:user=1:c|cc"`,
		"user=d,id=2":            `|@5:other|fw:1h,hold`,
	} {
		var entries descriptor.Entries
		if err := entries.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := m.Explain("edge", entries).String(); !strings.Contains(got, strings.TrimSuffix(want, `"`)) {
			t.Errorf("%s:\n%s\nwants %s", text, got, want)
		}
	}
}
