package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	istio "istio.io/api/networking/v1"
	"istio.io/api/networking/v1alpha3"
	"istio.io/api/type/v1beta1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// envoyFilters returns the EnvoyFilters of a manifest in envoy/istio.
func envoyFilters(t *testing.T, manifest string) (names []string, filters []*v1alpha3.EnvoyFilter) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "envoy", "istio", manifest))
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range documents(t, text) {
		object, err := decodeIstio(doc)
		if err != nil || object == nil {
			t.Fatalf("%s: no EnvoyFilter (%v):\n%s", manifest, err, doc)
		}
		names = append(names, object.Namespace+"/"+object.Name)
		filters = append(filters, object.spec.(*v1alpha3.EnvoyFilter))
	}
	return names, filters
}

// Istio ignores what these would be about without a word.
func TestIstioPatchesFitWhatTheyMatch(t *testing.T) {
	for _, manifest := range []string{"ingress-gateway.yaml", "sidecar.yaml"} {
		names, filters := envoyFilters(t, manifest)
		asked, known := "", ""
		for i, filter := range filters {
			if (filter.GetWorkloadSelector() == nil) == (len(filter.GetTargetRefs()) == 0) {
				t.Errorf("%s: %s: exactly one of workloadSelector and targetRefs must be set", manifest, names[i])
			}
			for _, p := range filter.GetConfigPatches() {
				var fits bool
				match, value := p.GetMatch(), p.GetPatch().GetValue().AsMap()
				switch p.GetApplyTo() {
				case v1alpha3.EnvoyFilter_HTTP_FILTER:
					fits = match.GetListener().GetFilterChain().GetFilter().GetSubFilter().GetName() != ""
					for _, key := range []string{"typed_config", "rate_limit_service", "grpc_service", "envoy_grpc"} {
						value, _ = value[key].(map[string]any)
					}
					asked, _ = value["cluster_name"].(string)
				case v1alpha3.EnvoyFilter_CLUSTER:
					fits = match.GetCluster() != nil
					known = fmt.Sprintf("outbound|%d||%s", match.GetCluster().GetPortNumber(), match.GetCluster().GetService())
				case v1alpha3.EnvoyFilter_VIRTUAL_HOST:
					fits = match.GetRouteConfiguration().GetVhost().GetName() != ""
				case v1alpha3.EnvoyFilter_HTTP_ROUTE:
					fits = match.GetRouteConfiguration().GetVhost().GetRoute().GetName() != ""
				}
				if !fits || match.GetContext() == v1alpha3.EnvoyFilter_ANY {
					t.Errorf("%s: %s: a patch of %v matches %v", manifest, names[i], p.GetApplyTo(), match)
				}
			}
		}
		if asked == "" || asked != known {
			t.Errorf("%s: the filter asks %q, and the patched cluster is %q", manifest, asked, known)
		}
	}
}

// The gateways and routes of docs/istio.md are those that the manifest patches, in both of
// Istio's APIs.
func TestIstioPageFitsItsManifest(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "istio.md"))
	if err != nil {
		t.Fatal(err)
	}
	var (
		targets []*v1beta1.PolicyTargetReference
		hosts   = map[string][]string{} // by the API, host:port of the gateway's servers
		routes  = map[string][]string{} // by the API, names
		spaces  = map[string]string{}   // by the API, the gateway's namespace
		gateAPI string                  // name of the Gateway API's gateway
	)
	for _, block := range fence.FindAllSubmatch(page, -1) {
		for _, doc := range documents(t, block[1]) {
			if !manifest.Match(doc) {
				// The part of an EnvoyFilter that replaces the selector.
				filter, err := decodeIstio(append([]byte("apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: x}\n"), doc...))
				if err != nil {
					t.Fatalf("%v\n%s", err, doc)
				}
				targets = filter.spec.(*v1alpha3.EnvoyFilter).GetTargetRefs()
				continue
			}
			if object, err := decodeIstio(doc); err != nil {
				t.Fatal(err)
			} else if object != nil {
				switch spec := object.spec.(type) {
				case *istio.Gateway:
					spaces["istio"] = object.Namespace
					for _, server := range spec.GetServers() {
						for _, host := range server.GetHosts() {
							hosts["istio"] = append(hosts["istio"], fmt.Sprintf("%s:%d", host, server.GetPort().GetNumber()))
						}
					}
				case *istio.VirtualService:
					for _, route := range spec.GetHttp() {
						routes["istio"] = append(routes["istio"], route.GetName())
					}
				}
				continue
			}
			object, err := decode(doc)
			if err != nil {
				t.Fatal(err)
			}
			switch object := object.(type) {
			case *gateway.Gateway:
				gateAPI, spaces["gateway"] = object.Name, object.Namespace
				for _, listener := range object.Spec.Listeners {
					hosts["gateway"] = append(hosts["gateway"], fmt.Sprintf("%s:%d", *listener.Hostname, listener.Port))
				}
			case *gateway.HTTPRoute:
				for _, rule := range object.Spec.Rules {
					routes["gateway"] = append(routes["gateway"], string(*rule.Name))
				}
			}
		}
	}
	if len(targets) != 1 || targets[0].GetGroup() != gateway.GroupName || targets[0].GetKind() != "Gateway" || targets[0].GetName() != gateAPI || gateAPI == "" {
		t.Errorf("targetRefs %v, and the gateway is %q", targets, gateAPI)
	}
	names, filters := envoyFilters(t, "ingress-gateway.yaml")
	for _, api := range []string{"istio", "gateway"} {
		for i, filter := range filters {
			if namespace, _, _ := strings.Cut(names[i], "/"); namespace != spaces[api] {
				t.Errorf("%s: the EnvoyFilter %s is not in the gateway's namespace %q", api, names[i], spaces[api])
			}
			for _, p := range filter.GetConfigPatches() {
				vhost := p.GetMatch().GetRouteConfiguration().GetVhost()
				if host := vhost.GetName(); host != "" && !slices.Contains(hosts[api], host) {
					t.Errorf("%s: no %s among %v", api, host, hosts[api])
				}
				if route := vhost.GetRoute().GetName(); route != "" && !slices.Contains(routes[api], route) {
					t.Errorf("%s: no %s among %v", api, route, routes[api])
				}
			}
		}
	}
}
