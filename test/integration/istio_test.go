package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// envoyFilter is the part of Istio's EnvoyFilter that the manifests use.
type envoyFilter struct {
	Spec struct {
		ConfigPatches []configPatch `yaml:"configPatches"`
	}
}

type configPatch struct {
	ApplyTo string `yaml:"applyTo"`
	Match   struct {
		Listener struct {
			FilterChain struct {
				Filter struct {
					Name      string
					SubFilter struct{ Name string } `yaml:"subFilter"`
				}
			} `yaml:"filterChain"`
		}
		Cluster struct {
			Service    string
			PortNumber int `yaml:"portNumber"`
		}
		RouteConfiguration struct {
			Vhost struct {
				Name  string
				Route struct{ Name string }
			}
		} `yaml:"routeConfiguration"`
	}
	Patch struct {
		Operation string
		Value     map[string]any
	}
}

// withIstio applies the patches of a manifest in envoy/istio to its configuration in
// testdata, as Istio would to its own, and returns the result. A patch that
// matches nothing fails the test; Istio would ignore it.
func withIstio(t *testing.T, manifest string) string {
	t.Helper()
	base, ok := istioBases[manifest]
	if !ok {
		t.Fatalf("nothing to apply %s to", manifest)
	}
	var bootstrap map[string]any
	text, err := os.ReadFile(filepath.Join("testdata", base))
	if err == nil {
		err = yaml.Unmarshal(text, &bootstrap)
	}
	if err != nil {
		t.Fatal(err)
	}
	stream, err := os.ReadFile(harness.Config(t, filepath.Join("istio", manifest)))
	if err != nil {
		t.Fatal(err)
	}
	for documents := yaml.NewDecoder(bytes.NewReader(stream)); ; {
		var filter envoyFilter
		if err := documents.Decode(&filter); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for i, p := range filter.Spec.ConfigPatches {
			if n := p.apply(bootstrap["static_resources"].(map[string]any)); n == 0 {
				t.Errorf("%s: patch %d, %s, matches nothing", manifest, i, p.ApplyTo)
			}
		}
	}
	patched, err := yaml.Marshal(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	return string(patched)
}

// apply patches what matches, and returns how much that was.
func (p configPatch) apply(resources map[string]any) (matches int) {
	merge := func(into map[string]any) {
		mergeMessages(into, p.Patch.Value)
		matches++
	}
	vhost := p.Match.RouteConfiguration.Vhost
	switch p.ApplyTo + " " + p.Patch.Operation {
	case "HTTP_FILTER INSERT_BEFORE":
		filter := p.Match.Listener.FilterChain.Filter
		if found := managers(resources, filter.Name); len(found) > 0 { // another listener stands for the upstream
			manager := found[0]
			for i, f := range list(manager["http_filters"]) {
				if f["name"] == filter.SubFilter.Name {
					filters := manager["http_filters"].([]any)
					manager["http_filters"] = append(append(append([]any{}, filters[:i]...), p.Patch.Value), filters[i:]...)
					matches++
				}
			}
		}
	case "CLUSTER MERGE":
		name := fmt.Sprintf("outbound|%d||%s", p.Match.Cluster.PortNumber, p.Match.Cluster.Service)
		for _, c := range list(resources["clusters"]) {
			if c["name"] == name {
				merge(c)
			}
		}
	case "VIRTUAL_HOST MERGE":
		for _, h := range hosts(resources) {
			if h["name"] == vhost.Name {
				merge(h)
			}
		}
	case "HTTP_ROUTE MERGE":
		for _, h := range hosts(resources) {
			for _, r := range list(h["routes"]) {
				if h["name"] == vhost.Name && r["name"] == vhost.Route.Name {
					merge(r)
				}
			}
		}
	}
	return matches
}

func managers(resources map[string]any, name string) (all []map[string]any) {
	for _, l := range list(resources["listeners"]) {
		for _, chain := range list(l["filter_chains"]) {
			for _, f := range list(chain["filters"]) {
				if f["name"] == name {
					all = append(all, f["typed_config"].(map[string]any))
				}
			}
		}
	}
	return all
}

func hosts(resources map[string]any) (all []map[string]any) {
	for _, m := range managers(resources, "envoy.filters.network.http_connection_manager") {
		all = append(all, list(m["route_config"].(map[string]any)["virtual_hosts"])...)
	}
	return all
}

func list(v any) (maps []map[string]any) {
	items, _ := v.([]any)
	for _, item := range items {
		maps = append(maps, item.(map[string]any))
	}
	return maps
}

// mergeMessages merges as protobuf does: fields of messages one by one, lists one
// after the other. An Any is replaced as a whole, because its bytes are one field.
func mergeMessages(into, from map[string]any) {
	for key, value := range from {
		was, isMap := into[key].(map[string]any)
		now, both := value.(map[string]any)
		switch _, isAny := now["@type"]; {
		case isMap && both && !isAny:
			mergeMessages(was, now)
		case isList(into[key]) && isList(value):
			into[key] = append(append([]any{}, into[key].([]any)...), value.([]any)...)
		default:
			into[key] = value
		}
	}
}

func isList(v any) bool {
	_, ok := v.([]any)
	return ok
}

// istioBases are what the manifests in envoy/istio are applied to.
var istioBases = map[string]string{"ingress-gateway.yaml": "istio-gateway.yaml", "sidecar.yaml": "istio-sidecar.yaml"}

func TestIstioManifestsAreValid(t *testing.T) {
	t.Parallel()
	manifests, err := filepath.Glob(harness.Config(t, "istio/*.yaml"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	for _, manifest := range manifests {
		t.Run(filepath.Base(manifest), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "envoy.yaml")
			write(t, path, withIstio(t, filepath.Base(manifest)))
			out, err := exec.Command(harness.Tool(t, "envoy"), "--mode", "validate", "--config-path", path).CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func startIstio(t *testing.T, manifest string) *harness.Envoy {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, path, example(t, "edge.yaml"))
	return harness.StartEnvoyConfig(t, withIstio(t, manifest), harness.StartService(t, path))
}

func TestIstioGateway(t *testing.T) {
	t.Parallel()
	envoy := startIstio(t, "ingress-gateway.yaml")
	exhaust(t, envoy, 10, "x-user", "alice")
	get(t, envoy, http.StatusOK, "x-user", "bob")
	// The route's limit, of 30, counts all clients together, and its host's still hold.
	for i := range 30 {
		if answer := envoy.Get(t, "/login", "x-user", fmt.Sprint("client ", i)); answer.Status != http.StatusOK {
			t.Fatalf("log-in %d: %d", i, answer.Status)
		}
	}
	for path, status := range map[string]int{"/login": http.StatusTooManyRequests, "/": http.StatusOK} {
		if answer := envoy.Get(t, path, "x-user", "carol"); answer.Status != status {
			t.Errorf("%s: status %d, want %d", path, answer.Status, status)
		}
	}
	if answer := envoy.Get(t, "/login", "x-user", "alice"); answer.Header.Get("Retry-After") == "" {
		t.Errorf("no Retry-After: %v", answer.Header)
	}
}

func TestIstioSidecar(t *testing.T) {
	t.Parallel()
	envoy := startIstio(t, "sidecar.yaml")
	exhaust(t, envoy, 10, "x-user", "alice")
	post := func(status int) {
		t.Helper()
		answer, err := envoy.Do(http.MethodPost, 10000, "/login?next=/")
		if err != nil || answer.Status != status {
			t.Fatalf("POST /login: %d (%v), want %d", answer.Status, err, status)
		}
	}
	for range 30 {
		post(http.StatusOK)
	}
	post(http.StatusTooManyRequests)
	if answer := envoy.Get(t, "/login"); answer.Status != http.StatusOK {
		t.Errorf("the form is limited as well: %d", answer.Status)
	}
}
