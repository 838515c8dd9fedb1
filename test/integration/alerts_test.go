package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/tlsfiles/tlstest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// job is what Prometheus scrapes under one name, and what happens to it.
type job struct {
	services []*harness.Service
	usual    func() // requests, again and again
	fault    func() // once
	during   func() // from then on again and again, until the alerts fire
	repair   func()
	alerts   []string // that the fault has fire
	mended   []string // that no longer fire after the repair, others look back for longer
}

// ofTheMachine are alerts that may fire everywhere, because a machine that is busy with
// other tests makes the service slow, and so do faults of the store.
var ofTheMachine = []string{"RateLimitSlow", "RateLimitOverloaded"}

// alert is what Prometheus says of one that fires.
type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	State       string            `json:"state"`
}

// firing returns the alerts that fire now.
func (p prometheus) firing(t *testing.T) (all []alert) {
	t.Helper()
	answer, err := http.Get("http://" + p.addr + "/api/v1/alerts")
	if err != nil {
		return nil // it starts
	}
	defer answer.Body.Close()
	var body struct{ Data struct{ Alerts []alert } }
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		return nil
	}
	return slices.DeleteFunc(body.Data.Alerts, func(a alert) bool { return a.State != "firing" })
}

// evaluated waits until the alert rules have been evaluated on what was scraped from now on.
func (p prometheus) evaluated(t *testing.T) {
	t.Helper()
	since := time.Now().Add(4 * time.Second) // the longest wait of an alert, and a scrape
	harness.Eventually(t, "the alert rules are evaluated again", func() bool {
		answer, err := http.Get("http://" + p.addr + "/api/v1/rules")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		var body struct {
			Data struct {
				Groups []struct{ LastEvaluation time.Time }
			}
		}
		err = json.NewDecoder(answer.Body).Decode(&body)
		return err == nil && len(body.Data.Groups) == 1 && body.Data.Groups[0].LastEvaluation.After(since)
	})
}

// names returns the names of the alerts of a job.
func names(all []alert, job string) (names []string) {
	for _, a := range all {
		if a.Labels["job"] == job {
			names = append(names, a.Labels["alertname"])
		}
	}
	return names
}

// again calls do until the test ends, or until what it returns is called.
func again(t *testing.T, do func()) (stop func()) {
	t.Helper()
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-over:
				return
			case <-time.After(50 * time.Millisecond):
				do()
			}
		}
	}()
	stop = sync.OnceFunc(func() {
		close(over)
		<-done
	})
	t.Cleanup(stop)
	return stop
}

// quickAlerts writes the alert rules with waits of a hundred milliseconds for a minute.
func quickAlerts(t *testing.T) (path string) {
	t.Helper()
	text, err := os.ReadFile(monitoring(t, "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "alerts.yaml")
	write(t, path, regexp.MustCompile(`(?m)^( +for: \d+)m$`).ReplaceAllString(string(text), "${1}00ms"))
	return path
}

// many is a request of n descriptors.
func many(n int, key string, value func(i int) string) *rls.RateLimitRequest {
	request := &rls.RateLimitRequest{Domain: "edge"}
	for i := range n {
		request.Descriptors = append(request.Descriptors, &ratelimitv3.RateLimitDescriptor{Entries: []*ratelimitv3.RateLimitDescriptor_Entry{{Key: key, Value: value(i)}}})
	}
	return request
}

// TestAlertsFireOnFaults makes the fault of each alert happen to the real service, while a
// real Prometheus scrapes it and evaluates the alert rules. Before, no alert fires; then
// those of the fault and no others; and after the repair, no more.
func TestAlertsFireOnFaults(t *testing.T) {
	t.Parallel()
	const rules = `
domain: edge
descriptors:
  - {key: user, rate_limit: {unit: year, requests_per_unit: 1000000000}}
  - {key: second, rate_limit: {unit: second, requests_per_unit: 1000000000}}
  - {key: nobody, rate_limit: {unit: year, requests_per_unit: 0}}
`
	start := func(settings ...string) (service *harness.Service, path string) {
		path = writeRules(t, rules)
		return harness.StartService(t, path, settings...), path
	}
	authority := tlstest.NewAuthority(t)
	certificate := func(from, until time.Duration) *redistest.TLS {
		cert, key := authority.IssueFrom("server", "127.0.0.1", from, until)
		return &redistest.TLS{ServerCert: cert, ServerKey: key}
	}
	ask := func(to *harness.Service, requests ...*rls.RateLimitRequest) func() {
		client := rls.NewRateLimitServiceClient(to.Dial(t))
		return func() {
			for _, r := range requests {
				_, _ = client.ShouldRateLimit(t.Context(), r) // faults make errors
			}
		}
	}
	ordinary := harness.Request("edge", 1, "user", "alice")

	store, years, seconds, busy := redistest.Start(t, redistest.Config{}), redistest.Start(t, redistest.Config{}), redistest.Start(t, redistest.Config{}), redistest.Start(t, redistest.Config{})
	well, _ := start()
	away, _ := start(patiently("REDIS_URL=redis://" + store.Addr)...)
	part, _ := start(patiently("REDIS_URL=redis://"+years.Addr, "REDIS_PERSECOND=true", "REDIS_PERSECOND_URL=redis://"+seconds.Addr)...)
	slow, _ := start(patiently("REDIS_URL=redis://" + busy.Addr)...)
	refuses, refused := start()
	same, _ := start()
	differs, different := start()
	clients, _ := start()
	full, _ := start("--max-keys", "10")
	crowded, _ := start("--max-connections", "5")
	flooded, _ := start("--max-wait", "1ns", "--grpc-front", "grpc-go")
	late, _ := start("--backend", "memory", "--grpc-front", "lean") // which refuses nothing then
	overTLS := startOverTLS(t, certificate(-time.Hour, 10*time.Hour), "RUNTIME_ROOT="+filepath.Dir(writeRules(t, rules)), "RUNTIME_APPDIRECTORY=.")

	// crowd asks too much of a service until that shows.
	crowd := func(to *harness.Service, shows func() bool) func() {
		client := rls.NewRateLimitServiceClient(to.Dial(t))
		return func() {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var crowd sync.WaitGroup
			for range 1000 {
				crowd.Go(func() {
					for ctx.Err() == nil { // as impatient as Envoy: few of these may wait
						impatient, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
						_, _ = client.ShouldRateLimit(impatient, ordinary)
						cancel()
					}
				})
			}
			harness.Eventually(t, "there is too much", shows)
			stop()
			crowd.Wait()
		}
	}
	toFull := rls.NewRateLimitServiceClient(full.Dial(t))
	next := 0
	jobs := map[string]*job{
		"well": {services: []*harness.Service{well}, usual: ask(well, ordinary)},
		"away": {
			services: []*harness.Service{away}, usual: ask(away, ordinary),
			fault: store.Kill, repair: store.Restart,
			alerts: []string{"RateLimitRedisAway", "RateLimitNoDecisions"}, mended: []string{"RateLimitRedisAway"},
		},
		"part": {
			services: []*harness.Service{part}, usual: ask(part, ordinary, harness.Request("edge", 1, "second", "x")),
			fault: seconds.Kill, repair: seconds.Restart,
			alerts: []string{"RateLimitRedisSuspended", "RateLimitNoDecisions"}, mended: []string{"RateLimitRedisSuspended"},
		},
		"slow": {
			services: []*harness.Service{slow}, usual: ask(slow, ordinary),
			fault: func() { // somebody else's keys take its memory
				busy.Do("EVAL", "for i = 1, 5000 do redis.call('SET', 'other:' .. i, string.rep('x', 1000)) end", "0")
				busy.Do("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
				busy.Do("CONFIG", "SET", "maxmemory", "4mb")
			},
			during: func() { busy.Do("CLIENT", "PAUSE", "50", "ALL") },
			alerts: []string{"RateLimitRedisEvicts", "RateLimitSlow"},
		},
		"refuses": {
			services: []*harness.Service{refuses}, usual: ask(refuses, ordinary),
			fault: func() { rename(t, refused, "domain: edge\ndescriptors: [{key: ''}]\n") }, repair: func() { rename(t, refused, rules) },
			alerts: []string{"RateLimitRulesRefused"}, mended: []string{"RateLimitRulesRefused"},
		},
		"differ": {
			services: []*harness.Service{same, differs}, usual: ask(same, ordinary),
			fault:  func() { rename(t, different, rules+"  - {key: more, rate_limit: {unit: day, requests_per_unit: 1}}\n") },
			repair: func() { rename(t, different, rules) },
			alerts: []string{"RateLimitRulesDiffer"}, mended: []string{"RateLimitRulesDiffer"},
		},
		"clients": {
			services: []*harness.Service{clients}, usual: ask(clients, ordinary),
			during: ask(clients, harness.Request("unheard-of", 1, "user", "alice"), &rls.RateLimitRequest{}, many(50, "nobody", func(i int) string { return fmt.Sprint(i) })),
			alerts: []string{"RateLimitUnknownDomain", "RateLimitBadRequests", "RateLimitRefusesMost"},
		},
		"full": {
			services: []*harness.Service{full}, usual: ask(full, ordinary),
			during: func() {
				next += 50
				_, _ = toFull.ShouldRateLimit(t.Context(), many(50, "user", func(i int) string { return fmt.Sprint(next + i) }))
			},
			alerts: []string{"RateLimitStoreFull"},
		},
		"crowded": {
			services: []*harness.Service{crowded}, usual: ask(crowded, ordinary),
			during: func() {
				for range 6 {
					if conn, err := net.Dial("tcp", crowded.GRPC); err == nil {
						defer conn.Close()
					}
				}
			},
			alerts: []string{"RateLimitConnectionsRefused"},
		},
		"flooded": {
			services: []*harness.Service{flooded}, usual: ask(flooded, ordinary),
			fault:  crowd(flooded, func() bool { return flooded.Metric(t, "ratelimit_overload_refused_total") > 0 }),
			alerts: []string{"RateLimitOverloaded"},
		},
		"late": {
			services: []*harness.Service{late}, usual: ask(late, ordinary),
			fault: crowd(late, func() bool {
				return late.Metric(t, "ratelimit_overload_late_total") > 0.1*late.Metric(t, `ratelimit_service_response_time_seconds_count{grpc_method="ShouldRateLimit"}`)
			}),
			alerts: []string{"RateLimitOverloaded"},
		},
		"tls": {
			services: []*harness.Service{overTLS},
			fault:    func() { certificate(-10*time.Hour, time.Hour) }, repair: func() { certificate(-time.Hour, 10*time.Hour) },
			alerts: []string{"RateLimitCertificateEnds"}, mended: []string{"RateLimitCertificateEnds"},
		},
	}
	expected := map[string]bool{
		"RateLimitGone":          true, // below
		"RateLimitMetricsFolded": true, // takes 10,000 series
	}
	var scraped []target
	for name, j := range jobs {
		scraped = append(scraped, target{name, j.services})
		for _, a := range j.alerts {
			expected[a] = true
		}
		if j.usual != nil {
			again(t, j.usual)
		}
	}
	for name := range alerts(t) {
		if !expected[name] {
			t.Errorf("no fault of this test is for %s", name)
		}
	}
	p := startPrometheusOf(t, quickAlerts(t), scraped...)
	harness.Eventually(t, "all jobs are scraped", func() bool {
		return len(p.query(t, "count by (job) (ratelimit_config_generation)")) == len(jobs) &&
			len(p.query(t, "sum by (job) (rate(ratelimit_service_response_time_seconds_count[5m])) > 0")) == len(jobs)-1 // tls has no traffic
	})
	p.evaluated(t)
	for _, a := range p.firing(t) {
		if !slices.Contains(ofTheMachine, a.Labels["alertname"]) {
			t.Errorf("before any fault: %v", a)
		}
	}

	for _, name := range slices.Sorted(maps.Keys(jobs)) {
		if j := jobs[name]; j.fault != nil {
			j.fault()
		}
	}
	var stops []func()
	for _, j := range jobs {
		if j.during != nil {
			stops = append(stops, again(t, j.during))
		}
	}
	for name, j := range jobs {
		for _, a := range j.alerts {
			harness.Eventually(t, a+" fires for "+name, func() bool { return slices.Contains(names(p.firing(t), name), a) })
		}
	}
	all := p.firing(t)
	for name, j := range jobs {
		for _, a := range names(all, name) {
			if !slices.Contains(j.alerts, a) && !slices.Contains(ofTheMachine, a) {
				t.Errorf("%s fires for %s, whose fault is another", a, name)
			}
		}
	}
	for _, a := range all {
		for name, text := range a.Annotations {
			if strings.Contains(text, "<no value>") || strings.Contains(text, "<error") {
				t.Errorf("%s of %s: %s", name, a.Labels["alertname"], text)
			}
		}
	}

	for _, stop := range stops {
		stop()
	}
	for _, j := range jobs {
		if j.repair != nil {
			j.repair()
		}
	}
	for name, j := range jobs {
		for _, a := range j.mended {
			harness.Eventually(t, a+" no longer fires for "+name, func() bool { return !slices.Contains(names(p.firing(t), name), a) })
		}
	}
	for _, j := range jobs {
		for _, s := range j.services {
			s.Stop(t)
		}
	}
	harness.Eventually(t, "RateLimitGone fires", func() bool {
		return slices.ContainsFunc(p.firing(t), func(a alert) bool { return a.Labels["alertname"] == "RateLimitGone" })
	})
}
