package soak

import (
	"bytes"
	"context"
	"encoding/csv"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

var (
	duration = flag.Duration("duration", 3*time.Second, "of the load; growth is judged from two minutes on")
	output   = flag.String("csv", "", "a file for the samples")
)

const (
	judged  = 2 * time.Minute // the shortest run in which growth would show
	callers = 4               // of each service
	pause   = 4 * time.Millisecond
	mebi    = 1 << 20
)

// As in production: the race detector has memory of its own.
func TestMain(m *testing.M) { os.Exit(harness.MainAsShipped(m)) }

// rules limit in all six ways, on keys that come and go within seconds. Versions
// differ in limits, bursts, rates and strictness, under which counters go on.
func rules(version int) string {
	return fmt.Sprintf(`
domain: edge
descriptors:
  - {key: fixed, rate_limit: {window: 2s, requests_per_unit: %[1]d}}
  - {key: sliding, rate_limit: {algorithm: sliding_window, window: 2s, requests_per_unit: %[1]d}}
  - {key: strict, rate_limit: {algorithm: hybrid, strict: %[3]t, window: 2s, requests_per_unit: %[1]d}}
  - {key: log, rate_limit: {algorithm: sliding_log, window: 2s, requests_per_unit: %[1]d}}
  - {key: token, rate_limit: {algorithm: token_bucket, window: %[2]ds, requests_per_unit: %[1]d, burst: %[2]d}}
  - {key: leaky, detailed_metric: true, rate_limit: {algorithm: leaky_bucket, window: 2s, requests_per_unit: %[1]d}}
  - key: two
    rate_limits:
      - {algorithm: sliding_window, window: 1s, requests_per_unit: %[1]d}
      - {algorithm: token_bucket, window: 5s, requests_per_unit: 30}
      - {algorithm: leaky_bucket, window: %[2]ds, requests_per_unit: %[1]d, denied_hits: count, shadow_mode: true}
`, 10+version%5, 2+version%3, version%2 == 0)
}

var keys = []string{"fixed", "sliding", "strict", "log", "token", "leaky", "two", "admin"}

// soaked is a service under load.
type soaked struct {
	*harness.Service
	name  string
	rules string // its file
	calls atomic.Int64
	edits atomic.Int64 // of rules, by the admin API
	busy  atomic.Int64 // edits that the store had no time for
	value atomic.Int64 // of the next key
}

// TestSoak loads a service with counters in memory and one with counters in Redis,
// and at last compares how much they need with what they needed when they had
// become warm.
func TestSoak(t *testing.T) {
	dir := t.TempDir()
	start := func(name string, settings ...string) *soaked {
		s := &soaked{name: name, rules: filepath.Join(dir, name+".yaml")}
		if err := os.WriteFile(s.rules, []byte(rules(0)), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Service = harness.StartService(t, s.rules, append(settings, "--log-level", "error")...)
		return s
	}
	memory := start("memory", "--admin-rules-file", filepath.Join(dir, "admin.json"))
	server := redistest.Start(t, redistest.Config{})
	services := []*soaked{memory, start("redis", "REDIS_URL=redis://"+server.Addr, "REDIS_TIMEOUT=2s", "LOCAL_CACHE_SIZE_IN_BYTES=100000")}

	all := newSamples(services, server)
	ctx, stop := context.WithTimeout(t.Context(), *duration)
	defer stop()
	var load sync.WaitGroup
	for _, s := range services {
		for range callers {
			client := rls.NewRateLimitServiceClient(s.Dial(t))
			load.Go(func() { s.ask(ctx, t, client) })
		}
		load.Go(func() { s.askJSON(ctx, t) })
		load.Go(func() { s.editRules(ctx, t) })
		load.Go(func() { s.readAdmin(ctx, t) })
		load.Go(func() { s.reload(ctx, t) })
	}
	every := max(time.Second, *duration/360)
	for tick(ctx, every) {
		all.take(t)
	}
	load.Wait()

	all.save(t)
	for _, s := range services {
		t.Logf("%s: %d calls", s.name, s.calls.Load())
		if s.calls.Load() == 0 {
			t.Errorf("%s: no call was made", s.name)
		}
		if edits, busy := s.edits.Load(), s.busy.Load(); busy > 1+edits/50 {
			t.Errorf("%s: of %d edits of rules the store had no time for %d", s.name, edits, busy)
		}
	}
	if *duration < judged {
		t.Logf("growth is not judged in less than %v", judged)
		return
	}
	for i := range all.series {
		if err := all.series[i].grew(); err != nil {
			t.Error(err)
		}
	}
}

// tick waits, and reports whether to go on.
func tick(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// within returns the context of a call that was begun before ctx is done, and may
// go on after that.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
}

// ask makes calls for keys of which most are new, and some are asked again, looked
// at or given back to.
func (s *soaked) ask(ctx context.Context, t *testing.T, client rls.RateLimitServiceClient) {
	for i := 0; tick(ctx, pause); i++ {
		value := s.value.Add(1)
		if i%4 != 0 {
			value %= 50
		}
		request := harness.Request("edge", 1, keys[i%len(keys)], fmt.Sprint("key ", value))
		d := request.Descriptors[0]
		switch i % 10 {
		case 7:
			d.IsNegativeHits = true
		case 8:
			d.HitsAddend.Value = 0
		case 9:
			request.Descriptors = append(request.Descriptors, harness.Request("edge", 2, "fixed", "second").Descriptors...)
		}
		call, cancel := within(ctx)
		_, err := client.ShouldRateLimit(call, request)
		cancel()
		if status.Code(err) != codes.OK {
			t.Errorf("%s: %v", s.name, err)
			return
		}
		s.calls.Add(1)
	}
}

func (s *soaked) askJSON(ctx context.Context, t *testing.T) {
	for i := 0; tick(ctx, 100*time.Millisecond); i++ {
		body := fmt.Sprintf(`{"domain":"edge","descriptors":[{"entries":[{"key":"token","value":"json %d"}]}]}`, i)
		s.web(ctx, t, http.MethodPost, "http://"+s.HTTP+"/json", body, http.StatusOK, http.StatusTooManyRequests)
	}
}

// editRules makes, changes and deletes a rule by the admin API.
func (s *soaked) editRules(ctx context.Context, t *testing.T) {
	at := "http://" + s.Admin + "/admin/rules"
	for i := 0; tick(ctx, 2*time.Second); i++ {
		rule := fmt.Sprintf("domain: extra\ndescriptors: [{key: admin%d, rate_limit: {unit: minute, requests_per_unit: %d}}]\n", i%3, 1+i%7)
		// Accepted is what is kept, but not in force while the file has a mistake. On a
		// busy machine Redis may not answer in time, of which the answer tells.
		s.edits.Add(1)
		if s.web(ctx, t, http.MethodPost, at, rule, http.StatusOK, http.StatusCreated, http.StatusAccepted,
			http.StatusServiceUnavailable) == http.StatusServiceUnavailable {
			s.busy.Add(1)
		}
	}
}

func (s *soaked) readAdmin(ctx context.Context, t *testing.T) {
	paths := []string{"/admin/rules", "/admin/stats", "/admin/counters?domain=edge&descriptor=fixed=second", "/rlconfig", "/", "/stats"}
	for i := 0; tick(ctx, 500*time.Millisecond); i++ {
		s.web(ctx, t, http.MethodGet, "http://"+s.Admin+paths[i%len(paths)], "", http.StatusOK)
	}
}

// reload saves the rules again, every fifth time with a mistake.
func (s *soaked) reload(ctx context.Context, t *testing.T) {
	for i := 1; tick(ctx, 3*time.Second); i++ {
		text := rules(i)
		if i%5 == 0 {
			text = "domain: edge\ndescriptors: [{key: fixed, rate_limit: {unit: fortnight}}]"
		}
		draft := s.rules + ".draft"
		if err := os.WriteFile(draft, []byte(text), 0o600); err != nil {
			t.Error(err)
			return
		}
		if err := os.Rename(draft, s.rules); err != nil {
			t.Error(err)
			return
		}
	}
}

// web makes an HTTP request that must be answered with one of the statuses, and
// returns which.
func (s *soaked) web(ctx context.Context, t *testing.T, method, url, body string, want ...int) int {
	call, cancel := within(ctx)
	defer cancel()
	request, err := http.NewRequestWithContext(call, method, url, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	request.Header.Set("Content-Type", "application/yaml")
	if strings.HasPrefix(body, "{") {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Errorf("%s: %s %s: %v", s.name, method, url, err)
		return 0
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if !slices.Contains(want, answer.StatusCode) {
		t.Errorf("%s: %s %s: %s, want %v\n%s %v", s.name, method, url, answer.Status, want, text, err)
	}
	return answer.StatusCode
}

// samples are all series of a run.
type samples struct {
	services []*soaked
	server   *redistest.Server
	began    time.Time
	at       []time.Duration // since then
	series   []series
}

// What each service says of itself, and by how much the last quarter of a run may
// exceed the second.
var measured = []struct {
	name, metric string
	ratio, more  float64
}{
	{"resident bytes", "process_resident_memory_bytes", 0.10, 8 * mebi},
	{"heap bytes", "go_memstats_heap_inuse_bytes", 0.15, 4 * mebi},
	{"goroutines", "go_goroutines", 0, 10},
	{"file descriptors", "process_open_fds", 0, 10},
}

func newSamples(services []*soaked, server *redistest.Server) *samples {
	a := &samples{services: services, server: server, began: time.Now()}
	for _, s := range services {
		for _, m := range measured {
			a.series = append(a.series, series{name: s.name + " " + m.name, ratio: m.ratio, more: m.more})
		}
	}
	a.series = append(a.series,
		series{name: "keys in Redis", ratio: 0.1, more: 200},
		series{name: "bytes in Redis", ratio: 0.1, more: mebi})
	return a
}

func (a *samples) take(t *testing.T) {
	t.Helper()
	var values []float64
	for _, s := range a.services {
		page := s.Get(t, s.Admin, "/metrics")
		for _, m := range measured {
			values = append(values, metric(t, page, m.metric))
		}
	}
	for _, text := range []string{a.server.Text("DBSIZE"), a.server.Info("used_memory")} {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, n)
	}
	a.at = append(a.at, time.Since(a.began))
	for i := range a.series {
		a.series[i].values = append(a.series[i].values, values[i])
	}
}

// metric returns the value of a metric without labels.
func metric(t *testing.T, page, name string) float64 {
	t.Helper()
	for line := range strings.Lines(page) {
		if text, found := strings.CutPrefix(line, name+" "); found {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// save writes the samples where -csv says: a column for each series, after that of
// the seconds.
func (a *samples) save(t *testing.T) {
	t.Helper()
	if *output == "" {
		return
	}
	head := []string{"seconds"}
	for _, s := range a.series {
		head = append(head, s.name)
	}
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	rows := [][]string{head}
	for i, at := range a.at {
		row := []string{strconv.FormatFloat(at.Seconds(), 'f', 1, 64)}
		for _, s := range a.series {
			row = append(row, strconv.FormatFloat(s.values[i], 'f', -1, 64))
		}
		rows = append(rows, row)
	}
	if err := w.WriteAll(rows); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*output, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
