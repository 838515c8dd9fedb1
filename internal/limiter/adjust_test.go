package limiter_test

import (
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// adjusted sets the rules with token buckets as the default.
func (f *fixture) adjusted(yaml string) {
	f.t.Helper()
	rules, err := rulefile.Parse([]rulefile.Source{{Name: "edge.yaml", Data: []byte(yaml)}}, rulefile.Options{})
	if err == nil {
		rules, err = config.NewOverlay(config.Default{Algorithm: algo.TokenBucket, Burst: config.Burst{Percent: 50 * config.OnePercent}}).Apply(rules)
	}
	if err == nil {
		err = f.SetRules(rules)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// TestReplacesGoesOnUnderADefault, because names stay.
func TestReplacesGoesOnUnderADefault(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors: []\n")
	f.adjusted(`
domain: edge
descriptors:
  - {key: user, rate_limit: {name: base, unit: hour, requests_per_unit: 2}}
  - {key: premium, rate_limit: {name: more, unit: hour, requests_per_unit: 6, replaces: [{name: base}]}}
`)
	if got := f.admitted(5, desc("user=a"), desc("premium=a")); got != 3 {
		t.Errorf("admitted %d, want the burst of the replacing limit, 3", got)
	}
	if st := f.ask(desc("user=a")).Statuses[0]; st.CurrentLimit.Name != "base" || st.Code != ok {
		t.Errorf("the replaced limit: %+v", st)
	}
}

// TestCostsAfterTheFactAreChargedUnderADefault: a request looks, and the cost of its answer
// is charged when it is over, whether or not there is room. A client with little left must
// not go on for ever.
func TestCostsAfterTheFactAreChargedUnderADefault(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors: []\n")
	f.adjusted("domain: edge\ndescriptors: [{key: tenant, rate_limit: {unit: hour, requests_per_unit: 3600}}]\n")
	look := func() code { return f.ask(withHits(desc("tenant=a"), 0)).OverallCode }
	for i, step := range []struct {
		costs uint64
		want  code // of the look after it
	}{{1795, ok}, {600, over}} {
		if got := look(); got != ok {
			t.Fatalf("before answer %d: %v", i, got)
		}
		f.ask(withHits(desc("tenant=a"), step.costs))
		if got := look(); got != step.want {
			t.Errorf("after answer %d, which costs %d: %v, want %v", i, step.costs, got, step.want)
		}
	}
	f.advance(590 * time.Second) // one a second leaks; 595 are owed
	if got := look(); got != over {
		t.Errorf("while hits are owed: %v", got)
	}
	f.advance(10 * time.Second)
	if got := look(); got != ok {
		t.Errorf("when they are paid: %v", got)
	}
}
