package admin

import (
	"encoding/json"
	"testing"
	"time"
)

func TestReplicaTellsHowItIs(t *testing.T) {
	healthy := true
	started := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	f := newFixture(t, func(o *Options) {
		o.Replica = Replica{Name: "ratelimit-7d4f", Version: "v1.2.3", Started: started, Store: "Redis", StoreHealthy: func() bool { return healthy }}
	})
	ask := func() (r replicaJSON) {
		if err := json.Unmarshal([]byte(f.get(t, "/admin/replica")), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := ask()
	if age := time.Since(r.Time); age < 0 || age > time.Minute {
		t.Errorf("its clock is %v", r.Time)
	}
	r.Time = time.Time{}
	if want := (replicaJSON{Name: "ratelimit-7d4f", Version: "v1.2.3", Started: started, Serving: true, Store: storeJSON{"Redis", true}, Values: true}); r != want {
		t.Errorf("got  %+v\nwant %+v", r, want)
	}
	healthy = false
	f.health.Shutdown()
	if r := ask(); r.Serving || r.Store.Healthy {
		t.Errorf("draining, without its store: %+v", r)
	}
}

func TestReplicaTellsWhatIsForAnyone(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Access = Access{ReadOnly: true, public: true} })
	var r replicaJSON
	if err := json.Unmarshal([]byte(f.get(t, "/admin/replica")), &r); err != nil {
		t.Fatal(err)
	}
	if !r.ReadOnly || r.Values {
		t.Errorf("a read-only address for anyone: %+v", r)
	}
}
