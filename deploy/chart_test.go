package deploy

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the plain manifests in kubernetes/ anew from the chart")

const chartDir = "helm/distlimiter"

// render returns what the chart makes of values, as one stream.
func render(values map[string]any, managedBy string) (string, error) {
	return renderChart(chartDir, values, managedBy)
}

// renderChart is render of the chart in a directory or an archive.
func renderChart(path string, values map[string]any, managedBy string) (string, error) {
	chart, err := loader.Load(path)
	if err != nil {
		return "", err
	}
	all, err := util.ToRenderValues(chart, values, common.ReleaseOptions{Name: "distlimiter", Namespace: "rate-limit", IsInstall: true}, common.DefaultCapabilities)
	if err != nil {
		return "", err
	}
	all["Release"].(map[string]any)["Service"] = managedBy
	files, err := engine.Render(chart, all)
	if err != nil {
		return "", err
	}
	var stream strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if text := strings.TrimSpace(files[name]); text != "" && strings.HasSuffix(name, ".yaml") {
			fmt.Fprintf(&stream, "---\n%s\n", text)
		}
	}
	return stream.String(), nil
}

// valuesOf reads a file of testdata/values; "" is no values at all.
func valuesOf(t *testing.T, name string) map[string]any {
	t.Helper()
	values := map[string]any{}
	if name == "" {
		return values
	}
	text, err := os.ReadFile(filepath.Join("testdata", "values", name))
	if err == nil {
		err = yaml.UnmarshalStrict(text, &values)
	}
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// rendered returns the objects that the chart makes of a file of values.
func rendered(t *testing.T, name string) []runtime.Object {
	t.Helper()
	stream, err := render(valuesOf(t, name), "Helm")
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, []byte(stream))
}

func valueFiles(t *testing.T) []string {
	t.Helper()
	files, err := os.ReadDir(filepath.Join("testdata", "values"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no values: %v", err)
	}
	names := []string{""}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

func TestLint(t *testing.T) {
	for _, name := range valueFiles(t) {
		for _, m := range lint.RunAll(chartDir, valuesOf(t, name), "rate-limit").Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("%s: %v", name, m)
			}
		}
	}
}

func TestObjectsFitTogether(t *testing.T) {
	for _, name := range valueFiles(t) {
		t.Run("values="+name, func(t *testing.T) {
			all := rendered(t, name)
			deployments := only[*appsv1.Deployment](all)
			if len(deployments) != 1 {
				t.Fatalf("%d deployments", len(deployments))
			}
			d := deployments[0]
			checkPod(t, d, all)
			checkSelectors(t, d, all)
			checkAutoscaling(t, d, all)
			checkMetrics(t, d, all)
		})
	}
}

// checkPod follows what the pod refers to, and checks what it may do.
func checkPod(t *testing.T, d *appsv1.Deployment, all []runtime.Object) {
	t.Helper()
	pod := d.Spec.Template.Spec
	c := pod.Containers[0]

	volumes := map[string]corev1.Volume{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = v
	}
	mounted := map[string]bool{}
	for _, m := range c.VolumeMounts {
		if _, ok := volumes[m.Name]; !ok {
			t.Errorf("mount of %s, which is no volume", m.Name)
		}
		if m.SubPath != "" {
			t.Errorf("%s has a subPath: it would never be updated", m.Name)
		}
		mounted[m.Name] = true
	}
	for name := range volumes {
		if !mounted[name] {
			t.Errorf("volume %s is mounted nowhere", name)
		}
	}
	if rules, ok := volumes["rules"]; ok {
		made := only[*corev1.ConfigMap](all)
		if rules.ConfigMap.Name == "distlimiter-rules" && !slices.ContainsFunc(made, func(m *corev1.ConfigMap) bool { return m.Name == rules.ConfigMap.Name }) {
			t.Error("the pod refers to rules that the chart does not make")
		}
		if env(c, "CONFIG_PATH") != "/config" {
			t.Error("rules are mounted that the service is not told of")
		}
	} else if env(c, "CONFIG_PATH") != "" {
		t.Error("CONFIG_PATH without rules")
	}
	for _, e := range c.Env {
		for _, mount := range []string{"/certs/", "/client-ca/", "/redis-certs/"} {
			if strings.HasPrefix(e.Value, mount) && !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath+"/" == mount }) {
				t.Errorf("%s=%s is not mounted", e.Name, e.Value)
			}
		}
	}

	for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		switch {
		case p.HTTPGet != nil:
			port(t, c, p.HTTPGet.Port)
		case p.TCPSocket != nil:
			port(t, c, p.TCPSocket.Port)
		case p.GRPC != nil:
			port(t, c, intstr.FromInt32(p.GRPC.Port))
			if env(c, "GRPC_SERVER_USE_TLS") == "true" {
				t.Error("the kubelet cannot probe gRPC over TLS")
			}
		default:
			t.Errorf("a probe of nothing: %+v", p)
		}
	}

	s := c.SecurityContext
	if !*pod.SecurityContext.RunAsNonRoot || *pod.SecurityContext.RunAsUser == 0 || !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation ||
		!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("more rights than it needs: %+v, %+v", pod.SecurityContext, s)
	}
	if *pod.AutomountServiceAccountToken || *pod.EnableServiceLinks {
		t.Error("the pod gets a token or service links, and needs neither")
	}
	accounts := only[*corev1.ServiceAccount](all)
	if len(accounts) == 1 && accounts[0].Name != pod.ServiceAccountName || len(accounts) == 0 && pod.ServiceAccountName != "default" {
		t.Errorf("service account %s, of %v", pod.ServiceAccountName, accounts)
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Limits.Memory().IsZero() {
		t.Errorf("resources: %+v", c.Resources)
	}
}

// checkSelectors checks that whatever selects pods selects those of d.
func checkSelectors(t *testing.T, d *appsv1.Deployment, all []runtime.Object) {
	t.Helper()
	c := d.Spec.Template.Spec.Containers[0]
	selects := func(what string, s *metav1.LabelSelector) {
		t.Helper()
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil || selector.Empty() || !selector.Matches(labels.Set(d.Spec.Template.Labels)) {
			t.Errorf("%s selects %v (%v), and not the pods %v", what, selector, err, d.Spec.Template.Labels)
		}
	}
	selects("the deployment", d.Spec.Selector)
	for _, s := range d.Spec.Template.Spec.TopologySpreadConstraints {
		selects("the spread", s.LabelSelector)
	}
	for _, b := range only[*policyv1.PodDisruptionBudget](all) {
		selects("the disruption budget", b.Spec.Selector)
	}
	for _, s := range only[*corev1.Service](all) {
		selects("the service", metav1.SetAsLabelSelector(s.Spec.Selector))
		for _, p := range s.Spec.Ports {
			port(t, c, p.TargetPort)
		}
	}
	for _, p := range only[*networkingv1.NetworkPolicy](all) {
		selects("the network policy", &p.Spec.PodSelector)
		reachable := 0
		for _, rule := range p.Spec.Ingress {
			if len(rule.From) == 0 {
				t.Error("the network policy lets in everyone, from outside the cluster too")
			}
			for _, in := range rule.Ports {
				port(t, c, *in.Port)
				reachable++
			}
		}
		if reachable != len(c.Ports) {
			t.Errorf("the network policy lets in on %d of %d ports", reachable, len(c.Ports))
		}
	}
}

func checkAutoscaling(t *testing.T, d *appsv1.Deployment, all []runtime.Object) {
	t.Helper()
	scalers := only[*autoscalingv2.HorizontalPodAutoscaler](all)
	if len(scalers) == 0 {
		if d.Spec.Replicas == nil {
			t.Error("nobody says how many replicas")
		}
		return
	}
	if d.Spec.Replicas != nil {
		t.Error("each deployment would undo the autoscaler's work")
	}
	target := scalers[0].Spec.ScaleTargetRef
	if target.Kind != "Deployment" || target.APIVersion != "apps/v1" || target.Name != d.Name {
		t.Errorf("scales %+v", target)
	}
	if *scalers[0].Spec.MinReplicas > scalers[0].Spec.MaxReplicas {
		t.Errorf("%d to %d replicas", *scalers[0].Spec.MinReplicas, scalers[0].Spec.MaxReplicas)
	}
}

// checkMetrics checks that Prometheus finds the service and its port, that the
// service is told of the same port, and that alerts come along.
func checkMetrics(t *testing.T, d *appsv1.Deployment, all []runtime.Object) {
	t.Helper()
	c := d.Spec.Template.Spec.Containers[0]
	service := only[*corev1.Service](all)[0]
	for _, m := range only[*monitoring.ServiceMonitor](all) {
		selector, err := metav1.LabelSelectorAsSelector(&m.Spec.Selector)
		if err != nil || selector.Empty() || !selector.Matches(labels.Set(service.Labels)) {
			t.Errorf("the monitor selects %v (%v), and not the service %v", selector, err, service.Labels)
		}
		for _, e := range m.Spec.Endpoints {
			found := false
			for _, p := range service.Spec.Ports {
				if p.Name == e.Port {
					found = true
					if target := port(t, c, p.TargetPort); env(c, "PROMETHEUS_ADDR") != ":"+fmt.Sprint(target.ContainerPort) || env(c, "PROMETHEUS_PATH") != e.Path {
						t.Errorf("metrics are at %s%s, and the monitor asks %s%s", env(c, "PROMETHEUS_ADDR"), env(c, "PROMETHEUS_PATH"), fmt.Sprint(target.ContainerPort), e.Path)
					}
				}
			}
			if !found {
				t.Errorf("the service has no port %s", e.Port)
			}
		}
	}
	for _, r := range only[*monitoring.PrometheusRule](all) {
		if len(r.Spec.Groups) == 0 || len(r.Spec.Groups[0].Rules) == 0 {
			t.Error("no alerts")
		}
	}
}

// env returns a variable's value, "" if it is not set or comes from elsewhere.
func env(c corev1.Container, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// port fails the test unless the container has the port.
func port(t *testing.T, c corev1.Container, p intstr.IntOrString) corev1.ContainerPort {
	t.Helper()
	for _, have := range c.Ports {
		if have.Name == p.StrVal || p.StrVal == "" && have.ContainerPort == p.IntVal {
			return have
		}
	}
	t.Errorf("the container has no port %s", p.String())
	return corev1.ContainerPort{}
}

func TestRedisPortsAreOpen(t *testing.T) {
	for name, want := range map[string][]int32{
		"":                  {53, 53},
		"redis.yaml":        {53, 53, 6379},
		"sentinel-tls.yaml": {53, 53, 26379, 6379},
		"xds.yaml":          {53, 53, 6379, 7001, 18001},
		"ai-gateway.yaml":   {53, 53, 6379, 18002},
		"everything.yaml":   {53, 53, 6380, 6379},
	} {
		var got []int32
		for _, rule := range only[*networkingv1.NetworkPolicy](rendered(t, name))[0].Spec.Egress {
			for _, p := range rule.Ports {
				got = append(got, p.Port.IntVal)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: egress to %v, want %v", name, got, want)
		}
	}
}

func TestPasswordComesFromItsSecret(t *testing.T) {
	c := only[*appsv1.Deployment](rendered(t, "sentinel-tls.yaml"))[0].Spec.Template.Spec.Containers[0]
	i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "REDIS_PASSWORD" })
	if i < 0 || c.Env[i].ValueFrom.SecretKeyRef.Name != "redis-password" || c.Env[i].ValueFrom.SecretKeyRef.Key != "password" {
		t.Errorf("REDIS_PASSWORD is not the Secret's: %+v", c.Env)
	}
}

// TestNumbersOfEnvAreWrittenOut: Helm reads numbers as floating-point ones, and the service
// takes no exponents.
func TestNumbersOfEnvAreWrittenOut(t *testing.T) {
	c := deployment(t, "{env: {LOCAL_CACHE_SIZE_IN_BYTES: 10485760, NEAR_LIMIT_RATIO: 0.75, SHADOW_MODE: true, EXTRA_TAGS: 'a=\"b\"'}}").Spec.Template.Spec.Containers[0]
	for name, want := range map[string]string{
		"LOCAL_CACHE_SIZE_IN_BYTES": "10485760", "NEAR_LIMIT_RATIO": "0.75", "SHADOW_MODE": "true", "EXTRA_TAGS": `a="b"`,
	} {
		if got := env(c, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestProbesRestartNoPodThatWaits: /healthcheck fails while a control plane or a Redis that
// health depends on is away. A restart mends neither, and delays the return.
func TestProbesRestartNoPodThatWaits(t *testing.T) {
	for _, name := range valueFiles(t) {
		c := only[*appsv1.Deployment](rendered(t, name))[0].Spec.Template.Spec.Containers[0]
		for what, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe} {
			if probe.TCPSocket == nil {
				t.Errorf("%s: the %s probe asks for more than the port: %+v", name, what, probe.ProbeHandler)
			}
		}
	}
}

// TestASnapshotIsSavedBeforeItIsRead: in a rolling update the new pod would start before the
// old one stops, and read a snapshot of long ago.
func TestASnapshotIsSavedBeforeItIsRead(t *testing.T) {
	for values, want := range map[string]appsv1.DeploymentStrategyType{
		"{}": appsv1.RollingUpdateDeploymentStrategyType, "{env: {SNAPSHOT_FILE: /counters/snapshot}}": appsv1.RecreateDeploymentStrategyType,
	} {
		if got := deployment(t, values).Spec.Strategy.Type; got != want {
			t.Errorf("%s: %s, want %s", values, got, want)
		}
	}
}

// deployment returns the deployment that the chart makes of values in YAML.
func deployment(t *testing.T, text string) *appsv1.Deployment {
	t.Helper()
	var values map[string]any
	if err := yaml.Unmarshal([]byte(text), &values); err != nil {
		t.Fatal(err)
	}
	stream, err := render(values, "Helm")
	if err != nil {
		t.Fatal(err)
	}
	return only[*appsv1.Deployment](objects(t, []byte(stream)))[0]
}

// TestVariablesAreTheServices: each that a pod is given is one of env.example, for the
// service ignores a name that it does not know, and is given once. The chart's env takes
// all of the others.
func TestVariablesAreTheServices(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "env.example"))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]any{}
	for _, m := range regexp.MustCompile(`(?m)^#([A-Z][A-Z0-9_]*)=`).FindAllStringSubmatch(string(text), -1) {
		known[m[1]] = "x"
	}
	if len(known) < 100 {
		t.Fatalf("only %d variables", len(known))
	}
	for _, name := range valueFiles(t) {
		seen := map[string]bool{}
		for _, e := range only[*appsv1.Deployment](rendered(t, name))[0].Spec.Template.Spec.Containers[0].Env {
			if known[e.Name] == nil {
				t.Errorf("%s: the service has no variable %s", name, e.Name)
			}
			if seen[e.Name] {
				t.Errorf("%s: %s is given twice", name, e.Name)
			}
			seen[e.Name] = true
		}
	}
	for _, own := range only[*appsv1.Deployment](rendered(t, "bare.yaml"))[0].Spec.Template.Spec.Containers[0].Env {
		delete(known, own.Name)
	}
	if _, err := render(map[string]any{"env": known}, "Helm"); err != nil {
		t.Errorf("env does not take all variables: %v", err)
	}
}

func TestAnswersAreVariables(t *testing.T) {
	for name, want := range map[string][4]string{"": {}, "everything.yaml": {"true", "x-ratelimit-rule", "true", "true"}} {
		c := only[*appsv1.Deployment](rendered(t, name))[0].Spec.Template.Spec.Containers[0]
		if got := [4]string{env(c, "LIMIT_RESPONSE_HEADERS_ENABLED"), env(c, "LIMIT_RULE_HEADER"), env(c, "RESPONSE_WHY_METADATA"), env(c, "OVERRIDES_BY_VALUE")}; got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestDefaultAlgorithmReachesTheService(t *testing.T) {
	for values, want := range map[string][2]string{"xds.yaml": {"token_bucket", "20%"}, "redis.yaml": {}} {
		c := only[*appsv1.Deployment](rendered(t, values))[0].Spec.Template.Spec.Containers[0]
		if got := [2]string{env(c, "DEFAULT_ALGORITHM"), env(c, "DEFAULT_BURST")}; got != want {
			t.Errorf("%s: %q, want %q", values, got, want)
		}
	}
}

func TestWhatWouldNotWorkIsRefused(t *testing.T) {
	for _, c := range []struct{ values, want string }{
		{"{replicas: 2}", "redis.url"},
		{"{autoscaling: {enabled: true}}", "redis.url"},
		{"{grpc: {clientCASecret: ca}}", "grpc.tlsSecret"},
		{"{answers: {ruleHeader: x-rule}}", "answers.headers"},
		{"{env: {LOG_LEVEL: debug}}", "env.LOG_LEVEL: the chart sets this variable by a value of its own"},
		{"{redis: {url: redis:6379}, env: {REPLICAS: 5}}", "env.REPLICAS: the chart sets"},
		{"{answers: {headers: true, ruleHeader: x rule}}", "/answers/ruleHeader"},
		{"{replica: 2}", "'replica' not allowed"},
		{"{redis: {uri: x}}", "'uri' not allowed"},
		{"{shutdown: {delay: 5}}", "/shutdown/delay"},
		{"{shutdown: {delay: 30s}}", "the pod would be killed after 30 s, before it has stopped: the delay of 30s and the timeout of 10s need 45"},
		{"{shutdown: {timeout: 1m0.5s, gracePeriodSeconds: 70}}", "need 71"},
		{"{log: {level: loud}}", "/log/level"},
		{"{rules: {edge: 'domain: edge'}}", "propertyName 'edge'"},
		{"{metrics: {port: 80}}", "/metrics/port"},
		{"{defaultBurst: much}", "/defaultBurst"},
		{"{defaultBurst: 0}", "/defaultBurst"},
	} {
		var values map[string]any
		if err := yaml.Unmarshal([]byte(c.values), &values); err != nil {
			t.Fatal(err)
		}
		if _, err := render(values, "Helm"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.values, err, c.want)
		}
	}
}

// The plain manifests are the chart's, for those who do without Helm.
func TestPlainManifestsAreTheCharts(t *testing.T) {
	for file, values := range map[string]string{"memory.yaml": "", "redis.yaml": "redis.yaml", "ai-gateway.yaml": "ai-gateway.yaml"} {
		stream, err := render(valuesOf(t, values), "kubectl")
		if err != nil {
			t.Fatal(err)
		}
		want := "# Made from helm/distlimiter: go test ./... -update\n" + stream
		path := filepath.Join("kubernetes", file)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s is not what the chart makes now (%v): run go test ./... -update in deploy/", path, err)
		}
	}
}

// TestArchive packs the chart as `helm package` does: the archive has the name that
// docs/dev/releasing.md pushes, holds all that the directory does, and makes the same of
// values.
func TestArchive(t *testing.T) {
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := chartutil.Save(chart, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if want := "distlimiter-" + chart.Metadata.AppVersion + ".tgz"; filepath.Base(archive) != want {
		t.Errorf("the archive is %s, want %s", filepath.Base(archive), want)
	}
	for _, name := range valueFiles(t) {
		want, err := render(valuesOf(t, name), "Helm")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := renderChart(archive, valuesOf(t, name), "Helm"); err != nil || got != want {
			t.Errorf("values=%s: the archive makes (%v)\n%s\nand the directory\n%s", name, err, got, want)
		}
	}
}
