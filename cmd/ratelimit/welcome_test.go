package main

import (
	"testing"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

func TestFirstCommand(t *testing.T) {
	const limit = "rate_limit: {unit: minute, requests_per_unit: 10}"
	for _, tt := range []struct{ name, descriptors, want string }{
		{"key alone", "[{key: user, " + limit + "}]", "user=demo"},
		{"exact value", "[{key: user, value: alice, " + limit + "}]", "user=alice"},
		{"pattern", "[{key: path, value: /api/*/x*, " + limit + "}]", "path=/api//x"},
		{"any value", "[{key: path, value: '*', " + limit + "}]", "path=demo"},
		{"unlimited is passed over", "[{key: a, rate_limit: {unlimited: true}}, {key: b, " + limit + "}]", "b=demo"},
		{"nested", "[{key: a, descriptors: [{key: b, value: x, " + limit + "}]}]", "a=demo,b=x"},
		{"quoted for the shell", `[{key: q, value: "it's, $HOME", ` + limit + "}]", `'q=it'\''s\, $HOME'`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules := parse(t, "{domain: edge, descriptors: "+tt.descriptors+"}")
			want := "ratelimit hit --domain edge " + tt.want + " -n 20"
			if got := firstCommand(rules, defaultGRPCAddr); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			e := firstLimited(rules.Domains[0].Descriptors, nil)
			if rule := descriptor.Compile(rules).Domain("edge").Lookup(e); rule == nil {
				t.Errorf("%v matches no rule", e)
			}
		})
	}
	if got, want := firstCommand(parse(t, "{domain: edge, descriptors: [{key: a, rate_limit: {unlimited: true}}]}"), defaultGRPCAddr),
		"add a rate_limit to the rules: they limit nothing yet"; got != want {
		t.Errorf("without a limit: %s, want %s", got, want)
	}
}

func parse(t *testing.T, text string) *config.Rules {
	t.Helper()
	rules, err := rulefile.Parse([]rulefile.Source{{Name: "rules.yaml", Data: []byte(text)}}, rulefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}
