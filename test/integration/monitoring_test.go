package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/freeport"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// monitoring returns the path of a file of the chart's.
func monitoring(t *testing.T, file string) string {
	t.Helper()
	return filepath.Join(harness.Root(t), "deploy", "helm", "distlimiter", "monitoring", file)
}

func TestAlertRules(t *testing.T) {
	t.Parallel()
	unitTests := filepath.Join(harness.Root(t), "deploy", "testdata", "alerts_test.yaml")
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", monitoring(t, "alerts.yaml")},
		{"test", "rules", unitTests},
	} {
		if out, err := exec.Command(harness.Tool(t, "promtool"), args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	for name := range alerts(t) {
		for file, mention := range map[string]string{
			unitTests: `{alertname="` + name + `"`, // a test has it fire
			filepath.Join(harness.Root(t), "docs", "deploy.md"): "| " + name + " |",
		} {
			if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), mention) {
				t.Errorf("%s says nothing of %s (%v)", file, name, err)
			}
		}
	}
}

// alerts returns the expressions of the alert rules, by name.
func alerts(t *testing.T) map[string]string {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	text, err := os.ReadFile(monitoring(t, "alerts.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, r := range file.Groups[0].Rules {
		all[r.Alert] = r.Expr
	}
	return all
}

// dashboard is what matters here of Grafana's.
type dashboard struct {
	Annotations struct{ List []struct{ Expr string } }
	Templating  struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []struct {
		Title   string
		Targets []struct{ Expr, LegendFormat string }
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile(monitoring(t, "dashboard.json"))
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// prometheus is a running Prometheus.
type prometheus struct {
	*harness.Process
	addr string
}

// target is what a Prometheus scrapes under the name of a job.
type target struct {
	job      string
	services []*harness.Service
}

// startPrometheus starts a Prometheus that scrapes the services.
func startPrometheus(t *testing.T, services ...*harness.Service) prometheus {
	t.Helper()
	return startPrometheusOf(t, "", target{"ratelimit", services})
}

// startPrometheusOf starts a Prometheus that scrapes targets, and evaluates the rules of a
// file ten times a second; an empty path is no rules. It scrapes every two seconds, so that
// answers of a busy machine are in time.
func startPrometheusOf(t *testing.T, rules string, targets ...target) prometheus {
	t.Helper()
	var text strings.Builder
	text.WriteString("global: {scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 100ms}\n")
	if rules != "" {
		fmt.Fprintf(&text, "rule_files: [%s]\n", rules)
	}
	text.WriteString("scrape_configs:\n")
	for _, target := range targets {
		var addrs []string
		for _, s := range target.services {
			addrs = append(addrs, s.Admin)
		}
		fmt.Fprintf(&text, "  - {job_name: %s, static_configs: [{targets: [%s]}]}\n", target.job, strings.Join(addrs, ", "))
	}
	config := filepath.Join(t.TempDir(), "prometheus.yaml")
	write(t, config, text.String())
	addr := freeport.ForTest(t).Addr()
	p := harness.Start(t, "prometheus", harness.Tool(t, "prometheus"),
		"--config.file", config, "--storage.tsdb.path", t.TempDir(), "--web.listen-address", addr, "--log.level", "warn")
	return prometheus{p, addr}
}

// query returns the labels of the series that an expression has now.
func (p prometheus) query(t *testing.T, expr string) (series []map[string]string) {
	t.Helper()
	answer, err := http.Get("http://" + p.addr + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return nil // it starts
	}
	defer answer.Body.Close()
	var body struct {
		Error string
		Data  struct{ Result json.RawMessage }
	}
	if answer.StatusCode == http.StatusServiceUnavailable {
		return nil
	}
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil || body.Error != "" {
		t.Fatalf("%s: %s (%v)", expr, body.Error, err)
	}
	var result []struct{ Metric map[string]string }
	if err := json.Unmarshal(body.Data.Result, &result); err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	for _, r := range result {
		series = append(series, r.Metric)
	}
	return series
}

// has waits until an expression has a series with the labels.
func (p prometheus) has(t *testing.T, what, expr string, labels ...string) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%s: %s has series with %q", what, expr, labels), func() bool {
		return slices.ContainsFunc(p.query(t, expr), func(series map[string]string) bool {
			return !slices.ContainsFunc(labels, func(l string) bool { return series[l] == "" })
		})
	})
}

// selector is a metric with the labels that are asked of it.
var (
	selector    = regexp.MustCompile(`(?:ratelimit|process|go)_\w+(?:\{[^}]*\})?`)
	legendLabel = regexp.MustCompile(`\{\{(\w+)\}\}`)
	labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
)

// everySelector returns the selectors of an expression.
func everySelector(expr string) (all []string) {
	return slices.Compact(slices.Sorted(slices.Values(selector.FindAllString(expr, -1))))
}

func TestDashboardAndAlertsHaveTheirMetrics(t *testing.T) {
	t.Parallel()
	// Rules of two levels, one of them in shadow mode, and one that holds.
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, rules, `
domain: edge
descriptors:
  - key: user
    rate_limit: {unit: year, requests_per_unit: 2}
    descriptors:
      - {key: path, shadow_mode: true, rate_limit: {unit: year, requests_per_unit: 2}}
limits:
  - name: in_flight
    match: {tenant: {}}
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 2}
`)
	certificates := redistest.NewTLS(t) // whose end is a metric
	services := []*harness.Service{harness.StartService(t, rules)}
	overTLS := startOverTLS(t, certificates, "RUNTIME_ROOT="+filepath.Dir(rules), "RUNTIME_APPDIRECTORY=.")
	services = append(services, harness.StartService(t, rules, patiently(
		"REDIS_SOCKET_TYPE=tcp", "REDIS_URL="+redistest.Start(t, redistest.Config{TLS: certificates}).Addr, "REDIS_TLS=true",
		"REDIS_TLS_CACERT="+certificates.CA, "REDIS_TLS_CLIENT_CERT="+certificates.ClientCert, "REDIS_TLS_CLIENT_KEY="+certificates.ClientKey,
	)...))
	for _, s := range services {
		for range 3 {
			s.Ask(t, harness.Request("edge", 1, "user", "alice"))
			s.Ask(t, harness.Request("edge", 1, "user", "alice", "path", "/"))
			s.Ask(t, harness.Request("nobody", 1, "user", "alice"))
			s.Ask(t, harness.Request("edge", 1, "tenant", "acme", "request_id", "1"))
		}
	}
	p := startPrometheus(t, append(services, overTLS)...)
	d := readDashboard(t)

	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		parts := labelValues.FindStringSubmatch(v.Definition)
		if parts == nil {
			t.Fatalf("variable %s: %s", v.Name, v.Definition)
		}
		p.has(t, "variable "+v.Name, regexp.MustCompile(`\$\w+`).ReplaceAllString(parts[1], ".*"), parts[2])
	}
	resolve := func(expr string) string {
		expr = strings.ReplaceAll(expr, "$__rate_interval", "10s")
		for _, v := range d.Templating.List {
			expr = strings.ReplaceAll(expr, `"$`+v.Name+`"`, `".*"`)
		}
		return expr
	}
	panels := 0
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			var labels []string
			for _, l := range legendLabel.FindAllStringSubmatch(target.LegendFormat, -1) {
				labels = append(labels, l[1])
			}
			p.has(t, panel.Title, resolve(target.Expr), labels...)
			for _, s := range everySelector(resolve(target.Expr)) {
				p.has(t, panel.Title, s)
			}
			panels++
		}
	}
	if panels < 30 {
		t.Errorf("%d panels only", panels)
	}
	for _, a := range d.Annotations.List {
		for _, s := range everySelector(resolve(a.Expr)) {
			p.has(t, "annotation", s)
		}
	}
	all := alerts(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, s := range everySelector(all[name]) {
			p.has(t, name, s)
		}
	}
}
