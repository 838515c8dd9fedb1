//go:build linux

package container

import (
	"debug/buildinfo"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// realGateway is the variable with the program of Envoy Gateway. `make gateway` sets it, for
// to build the program takes longer than all of CI.
const realGateway = "ENVOY_GATEWAY"

// policy is a BackendTrafficPolicy with global limits, and what clients then get. Its route
// is the path of the same name.
type policy struct {
	name  string
	rules string   // of the policy, in YAML
	also  []string // other routes of the policy
	asks  []ask
}

// ask is requests of one kind, one after the other.
type ask struct {
	path    string // below that of the policy's route; with a method before it, if it is not GET
	headers string // as "x-user: alice, x-plan: free"
	want    string // the statuses of the answers
	limit   string // of the last answer, x-ratelimit-limit; "none" if it must have none
}

// Limits are of years, because no window may end during the test, except where the test
// is about the unit.
var policies = []policy{
	{name: "all", rules: "[{limit: {requests: 3, unit: Year}}]", asks: []ask{
		{want: "200 200 200 429 429", limit: "3, 3;w=31536000"},
	}},
	{name: "distinct", rules: "[{clientSelectors: [{headers: [{name: x-user, type: Distinct}]}], limit: {requests: 2, unit: Year}}]", asks: []ask{
		{headers: "x-user: alice", want: "200 200 429"},
		{headers: "x-user: bob", want: "200 200 429"},
		{want: "200 200 200"},
	}},
	{name: "exact", rules: "[{clientSelectors: [{headers: [{name: x-plan, type: Exact, value: free}]}], limit: {requests: 2, unit: Year}}]", asks: []ask{
		{headers: "x-plan: free", want: "200 200 429"},
		{headers: "x-plan: pro", want: "200 200 200"},
	}},
	{name: "regex", rules: "[{clientSelectors: [{headers: [{name: x-plan, type: RegularExpression, value: 'gold.*'}]}], limit: {requests: 2, unit: Year}}]", asks: []ask{
		{headers: "x-plan: gold1", want: "200 200"},
		{headers: "x-plan: gold2", want: "429"}, // all that match share a counter
		{headers: "x-plan: pro", want: "200 200 200"},
	}},
	{name: "inverted", rules: "[{clientSelectors: [{headers: [{name: x-plan, type: Exact, value: admin, invert: true}]}], limit: {requests: 2, unit: Year}}]", asks: []ask{
		{headers: "x-plan: admin", want: "200 200 200"},
		{headers: "x-plan: other", want: "200 200 429"},
	}},
	{name: "cidr", rules: "[{clientSelectors: [{sourceCIDR: {type: Exact, value: 10.1.0.0/16}}], limit: {requests: 2, unit: Year}}]", asks: []ask{
		{headers: "x-forwarded-for: 10.1.0.1", want: "200 200"},
		{headers: "x-forwarded-for: 10.1.9.9", want: "429"},
		{headers: "x-forwarded-for: 10.9.9.9", want: "200 200 200"},
	}},
	{name: "cidr-distinct", rules: "[{clientSelectors: [{sourceCIDR: {type: Distinct, value: 10.2.0.0/16}}], limit: {requests: 2, unit: Year}}]", asks: []ask{
		{headers: "x-forwarded-for: 10.2.0.1", want: "200 200 429"},
		{headers: "x-forwarded-for: 10.2.9.9", want: "200 200 429"},
		{headers: "x-forwarded-for: 10.9.9.9", want: "200 200 200"},
	}},
	{name: "cidr-inverted", rules: "[{clientSelectors: [{sourceCIDR: {type: Exact, value: 10.3.0.0/16, invert: true}}], limit: {requests: 2, unit: Year}}]", asks: []ask{
		{headers: "x-forwarded-for: 10.3.0.1", want: "200 200 200"},
		{headers: "x-forwarded-for: 10.4.9.9", want: "200 200 429"},
	}},
	{name: "ipv6", rules: "[{clientSelectors: [{sourceCIDR: {type: Distinct, value: '2001:db8::/32'}}], limit: {requests: 2, unit: Year}}]", asks: []ask{
		{headers: "x-forwarded-for: 2001:db8::1", want: "200 200 429"},
		{headers: "x-forwarded-for: 2001:db8::2", want: "200 200 429"},
		{headers: "x-forwarded-for: 2001:db9::2", want: "200 200 200"},
	}},
	{name: "method", rules: "[{clientSelectors: [{methods: [{value: POST}, {value: PUT}]}], limit: {requests: 2, unit: Year}}]", asks: []ask{
		{want: "200 200 200"},
		{path: "POST ", want: "200 200"},
		{path: "PUT ", want: "429"},
	}},
	{name: "path", rules: "[{clientSelectors: [{path: {type: PathPrefix, value: /path/hot}}], limit: {requests: 2, unit: Year}}]", asks: []ask{
		{path: "/cold", want: "200 200 200"},
		{path: "/hot/x", want: "200 200 429"},
	}},
	{name: "query", rules: "[{clientSelectors: [{queryParams: [{name: key, type: Distinct}]}], limit: {requests: 2, unit: Year}}]", asks: []ask{
		{path: "?key=a", want: "200 200 429"},
		{path: "?key=b", want: "200 200 429"},
		{want: "200 200 200"},
	}},
	{name: "everything", rules: `[{clientSelectors: [{
			headers: [{name: x-user, type: Distinct}, {name: x-plan, type: Exact, value: free}],
			methods: [{value: GET}], path: {type: PathPrefix, value: /everything/a}, sourceCIDR: {type: Distinct, value: 0.0.0.0/0},
		}], limit: {requests: 2, unit: Year}}]`, asks: []ask{
		{path: "/a", headers: "x-user: u1, x-plan: free, x-forwarded-for: 10.9.0.1", want: "200 200 429"},
		{path: "/a", headers: "x-user: u2, x-plan: free, x-forwarded-for: 10.9.0.1", want: "200 200 429"},
		{path: "/a", headers: "x-user: u1, x-plan: free, x-forwarded-for: 10.9.0.2", want: "200 200 429"},
		{path: "POST /a", headers: "x-user: u1, x-plan: free, x-forwarded-for: 10.9.0.1", want: "200 200 200"},
		{path: "/b", headers: "x-user: u1, x-plan: free, x-forwarded-for: 10.9.0.1", want: "200 200 200"},
	}},
	{name: "several-rules", rules: `[
			{clientSelectors: [{headers: [{name: x-user, type: Distinct}]}], limit: {requests: 2, unit: Year}},
			{clientSelectors: [{headers: [{name: x-user, type: Exact, value: vip}]}], limit: {requests: 5, unit: Year}},
			{limit: {requests: 7, unit: Year}},
		]`, asks: []ask{
		{headers: "x-user: vip", want: "200 200 429 429"},
		{want: "200 200 200 429"}, // refused requests have used the limit of all, as with envoyproxy/ratelimit
	}},
	{name: "shared", also: []string{"shared-too"}, rules: "[{limit: {requests: 3, unit: Year}, shared: true}]", asks: []ask{
		{want: "200 200"},
		{path: "-too", want: "200 429"},
	}},
	{name: "shadow", rules: "[{limit: {requests: 2, unit: Year}, shadowMode: true}]", asks: []ask{
		{want: "200 200 200 200"},
	}},
	{name: "month", rules: "[{limit: {requests: 2, unit: Month}}]", asks: []ask{
		{want: "200 200 429", limit: "2, 2;w=2592000"},
	}},
	{name: "zero", rules: "[{limit: {requests: 0, unit: Year}}]", asks: []ask{
		{want: "429 429"},
	}},
	{name: "no-headers", rules: "[{limit: {requests: 3, unit: Year}, xRateLimitHeaders: 'Off'}]", asks: []ask{
		{want: "200 200 200 429", limit: "none"},
	}},
	// One for each request and six for each answer; Envoy charges them when it has answered.
	{name: "cost", rules: `[{
			clientSelectors: [{headers: [{name: x-user, type: Distinct}]}], limit: {requests: 10, unit: Year},
			cost: {response: {from: Metadata, metadata: {namespace: shop, key: tokens}}},
		}]`, asks: []ask{
		{headers: "x-user: a", want: "200 200 429 429"},
		{headers: "x-user: b", want: "200 200 429 429"},
	}},
	{name: "brought", rules: "[{limit: {requests: 3, unit: Year, fromMetadata: {namespace: shop, key: limit}}}]", asks: []ask{
		{want: "200 200 200 200 200 429 429", limit: "5, 5;w=31536000"},
	}},
	{name: "hourly", rules: "[{limit: {requests: 10, unit: Hour}}]", asks: []ask{
		{want: "200 200 200 200 200 200 200 200 200 200 429", limit: "10, 10;w=3600"},
	}},
	{name: "edited", rules: "[{limit: {requests: 1, unit: Year}}]", asks: []ask{
		{want: "200 429"},
	}},
}

// smooth is what clients get once limits have another algorithm and a burst of 20 %.
var smooth = map[string]ask{
	"hourly": {want: "200 200 429", limit: "10, 10;w=3600"},
	"month":  {want: "429"}, // longer units keep their windows, and so their counters
	"all":    {want: "429"},
}

// plenty is a policy that never refuses: its route answers when everything is in place.
var plenty = policy{name: "plenty", rules: "[{limit: {requests: 1000000, unit: Year}}]"}

// objects returns the HTTPRoutes and the policy as Envoy Gateway reads them.
func (p policy) objects() string {
	const header = "---\napiVersion: %s\nkind: %s\nmetadata: {name: %s, namespace: default}\nspec:\n"
	var text, targets strings.Builder
	for _, route := range append([]string{p.name}, p.also...) {
		fmt.Fprintf(&text, header, "gateway.networking.k8s.io/v1", "HTTPRoute", route)
		fmt.Fprintf(&text, "  parentRefs: [{name: eg}]\n  rules: [{matches: [{path: {type: PathPrefix, value: /%s}}], backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: upstream}]}]\n", route)
		fmt.Fprintf(&targets, "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: %s}, ", route)
	}
	fmt.Fprintf(&text, header, "gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy", p.name)
	fmt.Fprintf(&text, "  targetRefs: [%s]\n  rateLimit: {type: Global, global: {rules: %s}}\n", targets.String(), p.rules)
	return text.String()
}

// ask makes the requests and returns the statuses, and x-ratelimit-limit of the last answer.
// settled is called after each.
func (p policy) ask(t *testing.T, a ask, settled func()) (statuses, limit string) {
	t.Helper()
	method, path, found := strings.Cut(a.path, " ")
	if !found {
		method, path = http.MethodGet, a.path
	}
	for range strings.FieldsSeq(a.want) {
		request, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:8888/"+p.name+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		for header := range strings.SplitSeq(a.headers, ", ") {
			if name, value, found := strings.Cut(header, ": "); found {
				request.Header.Set(name, value)
			}
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		statuses += fmt.Sprint(" ", answer.StatusCode)
		limit = "none"
		if values := answer.Header.Values("X-Ratelimit-Limit"); len(values) > 0 {
			limit = strings.Join(values, "; ")
		}
		settled()
	}
	return strings.TrimSpace(statuses), limit
}

// envoyGateway is Envoy Gateway in a directory of its own.
type envoyGateway struct{ program, dir string }

// newEnvoyGateway makes the directory: with objects, the Envoy that it runs, and
// certificates of its own making.
func newEnvoyGateway(t *testing.T, program string, all []policy) envoyGateway {
	t.Helper()
	g := envoyGateway{program, shared(t)}
	for from, to := range map[string]string{"envoy-gateway.yaml": ".", "gateway.yaml": "objects"} {
		text, err := os.ReadFile(filepath.Join("testdata", "real-gateway", from))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(g.dir, to, from), string(text))
	}
	g.publish(t, all)
	home := filepath.Join(g.dir, "home")
	// Where Envoy Gateway would download Envoy to.
	downloaded := filepath.Join(home, "data", "envoy-versions", "1.40.0", "bin")
	envoy, err := filepath.EvalSymlinks(harness.Tool(t, "envoy"))
	if err == nil {
		err = os.MkdirAll(downloaded, 0o755)
	}
	if err == nil {
		err = os.Symlink(envoy, filepath.Join(downloaded, "envoy"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, "certgen", "--local", "--config-home", home).CombinedOutput(); err != nil {
		t.Fatalf("certgen: %v\n%s", err, out)
	}
	readable(t, g.certs())
	return g
}

// certs is the directory with the certificates of the rate-limit service.
func (g envoyGateway) certs() string {
	return filepath.Join(g.dir, "home", "certs", "envoy-rate-limit")
}

// start runs it after the rate-limit service: where it reads files it has a port for probes
// that is the service's, and does without if the port is taken.
func (g envoyGateway) start(t *testing.T) {
	t.Helper()
	server := exec.Command(g.program, "server", "--config-path", "envoy-gateway.yaml")
	server.Dir = g.dir
	server.SysProcAttr = &syscall.SysProcAttr{Chroot: rootWith(t, g.certs(), "/certs")} // where Envoy looks for the authority
	harness.StartCommand(t, "envoy-gateway", server)
}

// publish writes the policies, all at once, as editors that replace a file do.
func (g envoyGateway) publish(t *testing.T, all []policy) {
	t.Helper()
	var text strings.Builder
	for _, p := range all {
		text.WriteString(p.objects())
	}
	draft := filepath.Join(g.dir, "policies.yaml")
	write(t, draft, text.String())
	if err := os.Rename(draft, filepath.Join(g.dir, "objects", "policies.yaml")); err != nil {
		t.Fatal(err)
	}
}

// readable lets every user read a directory.
func readable(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return os.Chmod(path, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// rootWith returns a root file system that is this one with a directory more. It is made
// in memory, over a directory of the mount namespace, and never removed file by file: what
// it shows are the machine's own files.
func rootWith(t *testing.T, dir, at string) string {
	t.Helper()
	const root = "/mnt"
	entries, err := os.ReadDir("/")
	if err == nil {
		err = unix.Mount("tmpfs", root, "tmpfs", 0, "mode=755")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for _, entry := range entries {
		from, to := "/"+entry.Name(), filepath.Join(root, entry.Name())
		switch {
		case from == root:
			continue
		case entry.Type()&fs.ModeSymlink != 0:
			var target string
			if target, err = os.Readlink(from); err == nil {
				err = os.Symlink(target, to)
			}
		case entry.IsDir():
			if err = os.Mkdir(to, 0o755); err == nil {
				err = unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
			}
		}
		if err != nil {
			t.Fatalf("%s: %v", from, err)
		}
	}
	inside := filepath.Join(root, at)
	if err := os.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, dir, inside)
	return root
}

// serveUpstream answers requests that pass.
func serveUpstream(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:3000")
	if err != nil {
		t.Fatal(err)
	}
	upstream := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Minute}
	go func() { _ = upstream.Serve(listener) }()
	t.Cleanup(func() { upstream.Close() })
}

// TestRealEnvoyGateway sends requests through Envoy Gateway and the Envoy that it runs, with
// a policy of each kind, to the image that takes the place of its own rate-limit service.
func TestRealEnvoyGateway(t *testing.T) {
	name := os.Getenv(realGateway)
	if name == "" {
		t.Skip("make gateway builds Envoy Gateway and runs this")
	}
	program := harness.Tool(t, name)
	built, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	serveUpstream(t)
	all := append(slices.Clone(policies), plenty)
	gateway := newEnvoyGateway(t, program, all)
	p := gatewayPod(t, gateway.certs())
	p.env["PROMETHEUS_ADDR"] = "127.0.0.1:19002" // Envoy Gateway itself has the port, here on the same machine
	service := startPod(t, p)
	gateway.start(t)
	inPlace := func() {
		t.Helper()
		harness.Eventually(t, "a request passes through everything", func() bool { return status(8888, "/plenty") == http.StatusOK })
	}
	inPlace()
	noWarnings(t, service)

	requests, began := 0, time.Now()
	metrics := harness.ServiceAt(t, 8081)
	metrics.Admin = "127.0.0.1:19002"
	decided := func() float64 {
		return metrics.Metric(t, `ratelimit_service_response_time_seconds_count{grpc_method="ShouldRateLimit"}`)
	}
	check := func(t *testing.T, p policy, a ask) {
		t.Helper()
		requests += len(strings.Fields(a.want))
		before := decided()
		got, limit := p.ask(t, a, func() {
			if p.name == "cost" { // one call asks, and a second one charges
				before += 2
				harness.Eventually(t, "the cost is charged", func() bool { return decided() >= before })
			}
		})
		if got != a.want || a.limit != "" && limit != a.limit {
			t.Errorf("%q with %q: %s, x-ratelimit-limit %s; want %s, %s", a.path, a.headers, got, limit, a.want, a.limit)
		}
	}
	for _, p := range policies {
		t.Run(p.name, func(t *testing.T) {
			for _, a := range p.asks {
				check(t, p, a)
			}
		})
	}

	t.Run("a policy is edited", func(t *testing.T) {
		i := slices.IndexFunc(all, func(p policy) bool { return p.name == "edited" })
		all[i].rules = strings.Replace(all[i].rules, "requests: 1,", "requests: 1000000,", 1)
		loads := service.Count("rules loaded")
		gateway.publish(t, all)
		// No requests meanwhile: Envoy Gateway needs the processors to read its objects anew.
		harness.Eventually(t, "the new rules come", func() bool { return service.Count("rules loaded") > loads })
		harness.Eventually(t, "the limit is the new one", func() bool { return status(8888, "/edited") == http.StatusOK })
		check(t, all[i], ask{want: "200", limit: "1000000, 1000000;w=31536000"})
	})

	t.Run("default algorithm", func(t *testing.T) {
		service.Stop(t)
		p.env["DEFAULT_ALGORITHM"], p.env["DEFAULT_BURST"] = "token_bucket", "20%"
		startPod(t, p)
		inPlace()
		for _, p := range policies {
			if a, ok := smooth[p.name]; ok {
				check(t, p, a)
			}
		}
	})
	t.Logf("Envoy Gateway %s: %d policies, %d requests in %v", built.Main.Version, len(policies), requests, time.Since(began).Round(time.Second))
}
