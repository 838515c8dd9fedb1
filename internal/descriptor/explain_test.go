package descriptor_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

func at(line int, d *config.Descriptor) *config.Descriptor {
	d.Pos = config.Pos{File: "edge.yaml", Line: line, Column: 5}
	return d
}

func explained() *descriptor.Matcher {
	perUser := limit(algo.Params{Algorithm: algo.Hybrid, Limit: 100, Window: time.Minute, Burst: 20, Strict: true, Refill: algo.Rate{Hits: 2, Per: time.Second}})
	perUser.Name = "per_user"
	free := at(9, leaf("plan", "free"))
	free.Limits = append(free.Limits, &config.Limit{Name: "rest", Unlimited: true})
	free.ShadowMode, free.QuotaMode = true, true
	return descriptor.Compile(&config.Rules{Domains: []*config.Domain{
		{Name: "empty"},
		{Name: "edge", Descriptors: []*config.Descriptor{
			at(3, &config.Descriptor{Key: "user", Value: "alice", Descriptors: []*config.Descriptor{
				at(5, leaf("path", "/x*")),
				at(6, leaf("path", "")),
			}}),
			at(7, &config.Descriptor{Key: "user", Value: "a*", Limits: []*config.Limit{perUser}}),
			at(8, leaf("remote_address", "")),
			free,
		}},
	}})
}

func TestExplain(t *testing.T) {
	m := explained()
	for _, test := range []struct {
		name, domain string
		entries      []descriptor.Entry
		outcome      descriptor.Outcome
		text         string
	}{
		{"unknown domain", "egde", []descriptor.Entry{{Key: "user"}}, descriptor.UnknownDomain, `
there are no rules for domain egde; nearest: edge, empty
`},
		{"no entries", "edge", nil, descriptor.NoEntries, `
the descriptor has no entries
`},
		{"no descriptors", "empty", []descriptor.Entry{{Key: "user"}}, descriptor.NoMatch, `
domain empty has no descriptors
`},
		{"unknown value", "edge", []descriptor.Entry{{Key: "user", Value: "lice"}}, descriptor.NoMatch, `
nothing matches entry 1, user=lice; nearest: user=alice (edge.yaml:3:5), user=a* (edge.yaml:7:5)

1. user=lice
   exact     none
   wildcard  none
   key_only  none
`},
		{"unknown key", "edge", []descriptor.Entry{{Key: "remote_addres", Value: "10.0.0.1"}}, descriptor.NoMatch, `
nothing matches entry 1, remote_addres=10.0.0.1; nearest: remote_address (edge.yaml:8:5), user=alice (edge.yaml:3:5), plan=free (edge.yaml:9:5)

1. remote_addres=10.0.0.1
   exact     none
   wildcard  none
   key_only  none
`},
		{"no limit, though a wildcard has one", "edge", []descriptor.Entry{{Key: "user", Value: "alice"}}, descriptor.NoLimit, `
user=alice (edge.yaml:3:5) has no limit; below it there are rules for descriptors with another entry: path; user=a* (edge.yaml:7:5) has one, but exact is preferred to wildcard

1. user=alice
   exact     user=alice (edge.yaml:3:5)  <- lands here
   wildcard  user=a* (edge.yaml:7:5)
   key_only  none
`},
		{"too deep", "edge", []descriptor.Entry{{Key: "user", Value: "adam"}, {Key: "path", Value: "/x"}}, descriptor.TooDeep, `
there is nothing below user=a* (edge.yaml:7:5): it takes descriptors of 1, this one has 2

1. user=adam
   exact     none
   wildcard  user=a* (edge.yaml:7:5)  <- lands here
   key_only  none
`},
		{"matched", "edge", []descriptor.Entry{{Key: "user", Value: "alice"}, {Key: "path", Value: "/x \x00"}}, descriptor.Matched, `
rule user_alice.path_/x* (edge.yaml:5:5) applies

1. user=alice
   exact     user=alice (edge.yaml:3:5)  <- lands here
   wildcard  user=a* (edge.yaml:7:5)
   key_only  none

2. path="/x \x00"
   exact     none
   wildcard  path=/x* (edge.yaml:5:5)  <- lands here
   key_only  path (edge.yaml:6:5)

rule user_alice.path_/x*
   token_bucket, 100 per minute
   counter   "4:edge|4:user=5:alice|4:path=4:/x \x00|tb"
`},
		{"all parameters", "edge", []descriptor.Entry{{Key: "user", Value: "adam"}}, descriptor.Matched, `
rule user_a* (edge.yaml:7:5) applies

1. user=adam
   exact     none
   wildcard  user=a* (edge.yaml:7:5)  <- lands here
   key_only  none

rule user_a*
   per_user: hybrid, 100 per minute, burst 20, refill_rate 2/second, strict
   counter   4:edge|4:user=4:adam|hy2:1m
`},
		{"modes and an unlimited limit", "edge", []descriptor.Entry{{Key: "plan", Value: "free"}}, descriptor.Matched, `
rule plan_free (edge.yaml:9:5) applies

1. plan=free
   exact     plan=free (edge.yaml:9:5)  <- lands here
   wildcard  none
   key_only  none

rule plan_free
   shadow mode: decided and counted, answered OK
   quota mode: over limit only when all such descriptors of the request are
   token_bucket, 100 per minute
   counter   4:edge|4:plan=4:free|tb
   rest: unlimited
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := m.Explain(test.domain, test.entries)
			if x.Outcome != test.outcome {
				t.Errorf("outcome %s, want %s", x.Outcome, test.outcome)
			}
			if got, want := x.String(), strings.TrimPrefix(test.text, "\n"); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			if d := m.Domain(test.domain); d != nil && (d.Lookup(test.entries) != nil) != (x.Rule != nil) {
				t.Errorf("Lookup gives %+v", d.Lookup(test.entries))
			}
		})
	}
}

func TestExplainJSON(t *testing.T) {
	got, err := json.Marshal(explained().Explain("edge", []descriptor.Entry{{Key: "user", Value: "adam"}}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"domain":"edge","entries":[{"key":"user","value":"adam"}],"outcome":"matched",` +
		`"reason":"rule user_a* (edge.yaml:7:5) applies",` +
		`"levels":[{"entry":{"key":"user","value":"adam"},"tried":[{"how":"exact"},` +
		`{"how":"wildcard","found":{"key":"user","value":"a*","pos":"edge.yaml:7:5","has_limit":true,"has_descriptors":false}},{"how":"key_only"}]}],` +
		`"rule":{"index":2,"path":"user_a*","pos":"edge.yaml:7:5","limits":[{"name":"per_user","algorithm":"hybrid",` +
		`"limit":"per_user: hybrid, 100 per minute, burst 20, refill_rate 2/second, strict","counter_key":"4:edge|4:user=4:adam|hy2:1m"}]}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
