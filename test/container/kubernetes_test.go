//go:build linux

package container

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/health/grpc_health_v1"
	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// object is what a kubelet takes from a Deployment, a ConfigMap or a Service.
type object struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string // of a ConfigMap
	Spec     struct {
		Ports    []struct{ Port int } // of a Service
		Template struct {
			Spec struct {
				SecurityContext struct {
					RunAsUser int `yaml:"runAsUser"`
				} `yaml:"securityContext"`
				Containers []containerSpec
				Volumes    []struct {
					Name      string
					ConfigMap struct{ Name string } `yaml:"configMap"`
				}
			}
		}
	}
}

type containerSpec struct {
	SecurityContext struct {
		RunAsUser int `yaml:"runAsUser"`
	} `yaml:"securityContext"`
	Command      []string
	Env          []struct{ Name, Value string }
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	StartupProbe   probe `yaml:"startupProbe"`
	ReadinessProbe probe `yaml:"readinessProbe"`
	LivenessProbe  probe `yaml:"livenessProbe"`
}

type probe struct {
	HTTPGet   *struct{ Path, Port string } `yaml:"httpGet"`
	TCPSocket *struct{ Port string }       `yaml:"tcpSocket"`
	GRPC      *struct{ Port int }
}

// port returns a port of the container by its name, or by its number.
func (c containerSpec) port(name string) int {
	for _, p := range c.Ports {
		if p.Name == name {
			return p.ContainerPort
		}
	}
	number, _ := strconv.Atoi(name)
	return number
}

// probe reports whether a probe of the container succeeds.
func (c containerSpec) probe(t *testing.T, p probe) bool {
	t.Helper()
	switch {
	case p.HTTPGet != nil:
		return status(c.port(p.HTTPGet.Port), p.HTTPGet.Path) == http.StatusOK
	case p.TCPSocket != nil:
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.port(p.TCPSocket.Port)))
		if err != nil {
			return false
		}
		return conn.Close() == nil
	case p.GRPC != nil:
		health := grpc_health_v1.NewHealthClient(harness.ServiceAt(t, p.GRPC.Port).Dial(t))
		answer, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		return err == nil && answer.Status == grpc_health_v1.HealthCheckResponse_SERVING
	}
	t.Fatal("a probe of nothing")
	return false
}

// pod is a Deployment's, with the directories of its ConfigMaps.
type pod struct {
	containerSpec
	container
	configMaps map[string]string
}

// readPod reads a manifest of deploy/. Its volumes are the ConfigMaps there, and
// those that are given.
func readPod(t *testing.T, manifest string, volumes map[string]string) pod {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(harness.Root(t), "deploy", manifest))
	if err != nil {
		t.Fatal(err)
	}
	p := pod{configMaps: map[string]string{}}
	var deployment object
	for documents := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var o object
		if err := documents.Decode(&o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		switch o.Kind {
		case "Deployment":
			deployment = o
		case "ConfigMap":
			p.configMaps[o.Metadata.Name] = shared(t)
			for file, text := range o.Data {
				o.Data[file] = inYears(text)
			}
			updateConfigMap(t, p.configMaps[o.Metadata.Name], o.Data)
		}
	}
	spec := deployment.Spec.Template.Spec
	for _, v := range spec.Volumes {
		if _, given := volumes[v.Name]; !given {
			volumes[v.Name] = p.configMaps[v.ConfigMap.Name]
		}
	}
	p.containerSpec = spec.Containers[0]
	p.container = container{command: p.Command, uid: cmp.Or(p.SecurityContext.RunAsUser, spec.SecurityContext.RunAsUser), env: map[string]string{}, mounts: map[string]string{}}
	for _, e := range p.Env {
		p.env[e.Name] = e.Value
	}
	for _, m := range p.VolumeMounts {
		p.mounts[m.MountPath] = volumes[m.Name]
	}
	return p
}

// updateConfigMap writes the volume of a ConfigMap as the kubelet does: files are
// links through ..data, which is swapped when all of them are there.
func updateConfigMap(t *testing.T, dir string, data map[string]string) {
	t.Helper()
	versions, err := filepath.Glob(filepath.Join(dir, "..version*"))
	version := fmt.Sprintf("..version%d", len(versions))
	for file, text := range data {
		write(t, filepath.Join(dir, version, file), text)
		if e := os.Symlink(filepath.Join("..data", file), filepath.Join(dir, file)); !errors.Is(e, os.ErrExist) {
			err = errors.Join(err, e)
		}
	}
	next := filepath.Join(dir, "..data_tmp")
	if err = errors.Join(err, os.Symlink(version, next), os.Rename(next, filepath.Join(dir, "..data"))); err != nil {
		t.Fatal(err)
	}
}

// startPod starts the pod and waits until its probes succeed.
func startPod(t *testing.T, p pod) *harness.Process {
	t.Helper()
	process := readImage(t).start(t, p.container)
	for what, probe := range map[string]probe{"startup": p.StartupProbe, "readiness": p.ReadinessProbe, "liveness": p.LivenessProbe} {
		harness.Eventually(t, "the "+what+" probe succeeds", func() bool { return p.probe(t, probe) })
	}
	return process
}

// limit returns the limit that the service reports for a user of the domain edge.
func limit(t *testing.T, service *harness.Service) uint32 {
	t.Helper()
	return service.Ask(t, harness.Request("edge", 0, "user", "alice")).GetStatuses()[0].GetCurrentLimit().GetRequestsPerUnit()
}

func TestPodWithCountersInMemory(t *testing.T) {
	p := readPod(t, "kubernetes/memory.yaml", map[string]string{})
	process := startPod(t, p)
	service := harness.ServiceAt(t, p.port("grpc"))
	envoy := harness.StartEnvoy(t, "http.yaml", service)
	exhaust(t, envoy, 20, "/", "x-user", "alice")
	metrics := service.Get(t, fmt.Sprintf("127.0.0.1:%d", p.port("metrics")), p.env["PROMETHEUS_PATH"])
	if want := `ratelimit_decisions_total{domain="edge",result="denied",rule="user"} 1`; !strings.Contains(metrics, want+"\n") {
		t.Errorf("no %s in the metrics", want)
	}
	if got := limit(t, service); got != 100 {
		t.Fatalf("the limit is %d a minute, want that of the ConfigMap: 100", got)
	}

	updateConfigMap(t, p.configMaps["distlimiter-rules"], map[string]string{
		"edge.yaml": "domain: edge\ndescriptors: [{key: user, rate_limit: {unit: minute, requests_per_unit: 7}}]\n",
	})
	harness.Eventually(t, "the ConfigMap's new rules are in force", func() bool { return limit(t, service) == 7 })

	stopped := make(chan struct{})
	go func() {
		process.Stop(t)
		close(stopped)
	}()
	harness.Eventually(t, "the readiness probe fails", func() bool { return !p.probe(t, p.ReadinessProbe) })
	if got := service.Ask(t, harness.Request("edge", 1, "user", "bob")).OverallCode; got != rls.RateLimitResponse_OK {
		t.Errorf("while it drains: %v", got)
	}
	<-stopped
}

func TestPodsShareCountersInRedis(t *testing.T) {
	redis := harness.Start(t, "redis", harness.Tool(t, "redis-server"), "--bind", "127.0.0.1", "--port", "6379", "--save", "", "--dir", t.TempDir())
	p := readPod(t, "kubernetes/redis.yaml", map[string]string{})
	p.hosts = []string{"redis"}
	p.env["DRAIN_DELAY"] = "0s"    // nobody balances load here
	p.env["REDIS_TIMEOUT"] = "10s" // a busy machine may need longer than is right in production
	startPod(t, p)
	first := harness.ServiceAt(t, p.port("grpc"))

	// Pods have addresses of their own; here another has other ports.
	second := p
	second.env = maps.Clone(p.env)
	second.env["GRPC_PORT"], second.env["PORT"], second.env["DEBUG_PORT"], second.env["PROMETHEUS_ADDR"] = "18081", "18080", "16070", ":19090"
	readImage(t).start(t, second.container)
	healthy(t, 18080)
	other := harness.ServiceAt(t, 18081)

	for i := range 20 {
		for _, s := range []*harness.Service{first, other} {
			want := rls.RateLimitResponse_OK
			if i >= 10 {
				want = rls.RateLimitResponse_OVER_LIMIT
			}
			if got := s.Ask(t, harness.Request("edge", 1, "user", "alice")).OverallCode; got != want {
				t.Fatalf("request %d: %v, want %v", i, got, want)
			}
		}
	}
	redis.Stop(t)
	// Liveness does not depend on Redis: a restart would not bring it back.
	if !p.probe(t, p.LivenessProbe) {
		t.Error("not alive without Redis")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := rls.NewRateLimitServiceClient(first.Dial(t)).ShouldRateLimit(ctx, harness.Request("edge", 1, "user", "bob")); err == nil {
		t.Error("a decision without Redis, though on_backend_error is error")
	}
}
