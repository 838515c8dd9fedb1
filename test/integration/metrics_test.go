package integration

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// TestMetricNames compares the names, types and labels of all metrics with a list, for
// dashboards and alerts are built on them: those of envoyproxy/ratelimit, which are what
// the mapping in front of its statsd names makes of these, and our own. Who changes one
// on purpose changes testdata/metrics.txt, and says so in the changelog.
func TestMetricNames(t *testing.T) {
	t.Parallel()
	want, wantSent := metricsList(t)
	sent := listenStatsd(t)
	certificates := redistest.NewTLS(t)
	server := redistest.Start(t, redistest.Config{TLS: certificates})
	dir := t.TempDir()
	rules := filepath.Join(dir, "rules.yaml")
	const text = `
domain: edge
descriptors:
  - key: user
    rate_limits:
      - {unit: year, requests_per_unit: 2}
      - {unit: year, requests_per_unit: 2, name: cand, shadow_mode: true}
    descriptors:
      - {key: path, shadow_mode: true, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: brief, rate_limit: {algorithm: token_bucket, unit: year, requests_per_unit: 2}}
`
	write(t, rules, text)
	start := func(settings ...string) *harness.Service {
		s := harness.StartBare(t, settings...)
		s.AwaitHealthy(t)
		return s
	}
	settings := []string{
		"USE_STATSD=true", "STATSD_HOST=" + sent.host, "STATSD_PORT=" + sent.port, "STATS_FLUSH_INTERVAL=50ms",
		"RUNTIME_ROOT=" + dir, "RUNTIME_APPDIRECTORY=.",
	}
	withRedis := append(patiently("REDIS_SOCKET_TYPE=tcp"), settings...)
	seconds := redistest.Start(t, redistest.Config{})
	overTLS := startOverTLS(t, certificates, settings...)
	inMemory := start(append(settings, "BACKEND_TYPE=memory", "SHADOW_MODE=true")...)
	inRedis := start(append(withRedis, "REDIS_URL="+server.Addr, "REDIS_TLS=true", "LOCAL_CACHE_SIZE_IN_BYTES=100000",
		"REDIS_TLS_CACERT="+certificates.CA, "REDIS_TLS_CLIENT_CERT="+certificates.ClientCert, "REDIS_TLS_CLIENT_KEY="+certificates.ClientKey)...)
	inTwo := start(append(withRedis, "REDIS_URL="+seconds.Addr, "REDIS_PERSECOND=true", "REDIS_PERSECOND_SOCKET_TYPE=tcp", "REDIS_PERSECOND_URL="+seconds.Addr)...)
	asked := []*harness.Service{inMemory, inRedis}
	for range 4 {
		for _, s := range asked {
			s.Ask(t, harness.Request("edge", 1, "user", "alice"))
			s.Ask(t, harness.Request("edge", 1, "user", "alice", "path", "/"))
			s.Ask(t, harness.Request("edge", 1, "brief", "alice"))
			s.Ask(t, harness.Request("edge", 1, "nothing", "alice"))
			s.Ask(t, harness.Request("nobody", 1, "user", "alice"))
		}
	}
	refuse := func(s *harness.Service, request *rls.RateLimitRequest) {
		t.Helper()
		if answer, err := rls.NewRateLimitServiceClient(s.Dial(t)).ShouldRateLimit(t.Context(), request); err == nil {
			t.Errorf("decided: %v", answer)
		}
	}
	refuse(inRedis, harness.Request("", 1, "user", "alice"))
	server.Kill()
	refuse(inRedis, harness.Request("edge", 1, "user", "bob"))
	write(t, rules, "domain: [")
	got := sent.await(t, wantSent)

	families := map[string]*family{}
	for _, s := range append(asked, overTLS) {
		readFamilies(t, s.Get(t, s.Admin, "/metrics"), families)
	}
	for _, bound := range []string{"0.25", "0.5", "2.5", "5", "10"} { // which dashboards of envoyproxy/ratelimit ask for
		if !strings.Contains(inMemory.Get(t, inMemory.Admin, "/metrics"), `ratelimit_service_response_time_seconds_bucket{grpc_method="ShouldRateLimit",le="`+bound+`"}`) {
			t.Errorf("response times have no bucket to %s s", bound)
		}
	}
	ofTwo := map[string]*family{}
	said := inTwo.Get(t, inTwo.Admin, "/metrics")
	readFamilies(t, said, ofTwo)
	maps.DeleteFunc(ofTwo, func(name string, _ *family) bool { return !strings.HasPrefix(name, "ratelimit_redis_") })
	for _, server := range []string{"main", "per_second"} {
		if !strings.Contains(said, `ratelimit_redis_connected{redis="`+server+`"} 1`) {
			t.Errorf("with REDIS_PERSECOND no series is of redis=%q", server)
		}
	}
	for _, these := range []map[string]*family{families, ofTwo} {
		for name, f := range these {
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", name, f.kind, strings.Join(f.labels, ","))))
		}
	}
	slices.Sort(got)
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("gone: %s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("new: %s", line)
		}
	}
}

// startOverTLS starts a service that takes gRPC by TLS. The harness can't ask it.
func startOverTLS(t *testing.T, certificates *redistest.TLS, variables ...string) *harness.Service {
	t.Helper()
	s := harness.StartBare(t, append(variables,
		"BACKEND_TYPE=memory", "GRPC_SERVER_USE_TLS=true", "GRPC_SERVER_TLS_CERT="+certificates.ServerCert, "GRPC_SERVER_TLS_KEY="+certificates.ServerKey)...)
	harness.Eventually(t, "the service over TLS answers", func() bool {
		conn, err := net.Dial("tcp", s.Admin)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return s
}

// metricsList returns the lines of testdata/metrics.txt, and the names among them that
// are sent to statsd.
func metricsList(t *testing.T) (lines, sent []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "metrics.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		lines = append(lines, line)
		if name, is := strings.CutSuffix(line, " statsd"); is {
			sent = append(sent, name)
		}
	}
	return lines, sent
}

// family is a metric with all its series.
type family struct {
	kind   string
	labels []string // of any of them, sorted
}

var (
	typeLine  = regexp.MustCompile(`^# TYPE (ratelimit_\w+) (\w+)`)
	seriesOf  = regexp.MustCompile(`^(ratelimit_\w+?)(?:_bucket|_sum|_count)?\{(.*)\} `)
	labelName = regexp.MustCompile(`(\w+)="(?:[^"\\]|\\.)*"`)
)

// readFamilies adds those of our own in a text of /metrics.
func readFamilies(t *testing.T, text string, families map[string]*family) {
	t.Helper()
	for line := range strings.Lines(text) {
		if m := typeLine.FindStringSubmatch(line); m != nil {
			if f := families[m[1]]; f != nil && f.kind != m[2] {
				t.Errorf("%s is a %s and a %s", m[1], f.kind, m[2])
			} else if f == nil {
				families[m[1]] = &family{kind: m[2]}
			}
			continue
		}
		m := seriesOf.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		f := families[m[1]]
		if f == nil { // the end of its name is not that of a histogram's
			f = families[line[:strings.IndexByte(line, '{')]]
		}
		for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" && !slices.Contains(f.labels, l[1]) {
				f.labels = append(f.labels, l[1])
			}
		}
		slices.Sort(f.labels)
	}
}

// statsd is a server that notes which counters it was sent.
type statsd struct {
	host, port string

	mu    sync.Mutex
	names map[string]bool
}

func listenStatsd(t *testing.T) *statsd {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // as clients of envoyproxy/ratelimit's service do
	if err != nil {
		t.Fatal(err)
	}
	s := &statsd{names: map[string]bool{}}
	if s.host, s.port, err = net.SplitHostPort(listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			readers.Go(func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					name, _, _ := strings.Cut(lines.Text(), ":")
					s.mu.Lock()
					s.names[name] = true
					s.mu.Unlock()
				}
			})
		}
	})
	t.Cleanup(func() { // services, which were started later, have ended
		listener.Close()
		readers.Wait()
	})
	return s
}

// await waits until these have come, and returns all that have, as testdata/metrics.txt
// has them.
func (s *statsd) await(t *testing.T, names []string) (all []string) {
	t.Helper()
	i := 0
	defer func() {
		if t.Failed() {
			t.Logf("%s has not come", names[i])
		}
	}()
	harness.Eventually(t, "statsd has all names of the list", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i < len(names)-1 && s.names[names[i]] {
			i++
		}
		return s.names[names[i]]
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.names {
		all = append(all, name+" statsd")
	}
	return all
}
