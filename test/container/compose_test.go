//go:build linux

package container

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// composeService is what an engine takes from a service of docker-compose.yaml.
type composeService struct {
	Command     []string
	Environment map[string]string
	Volumes     []string
	Healthcheck struct{ Test []string }
}

// container returns the service as a container, with the directories that it
// mounts from the project.
func (s composeService) container(root string) container {
	c := container{env: s.Environment, mounts: map[string]string{}}
	for _, v := range s.Volumes {
		parts := strings.Split(v, ":")
		c.mounts[parts[1]] = filepath.Join(root, parts[0])
	}
	return c
}

func TestCompose(t *testing.T) {
	root := harness.Root(t)
	var file struct{ Services map[string]composeService }
	text, err := os.ReadFile(filepath.Join(root, "docker-compose.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	// Names of services lead to their containers; here all of them are this machine.
	hosts := filepath.Join(shared(t), "hosts")
	write(t, hosts, "127.0.0.1 localhost redis ratelimit envoy\n")
	mount(t, hosts, "/etc/hosts")

	redis := file.Services["redis"].Command
	harness.Start(t, "redis", harness.Tool(t, redis[0]), append(redis[1:], "--bind", "127.0.0.1", "--dir", t.TempDir())...)

	service := file.Services["ratelimit"]
	c := service.container(root)
	c.hosts = []string{"redis"}
	c.env["REDIS_TIMEOUT"] = "10s" // a busy machine may need longer than is right in production
	image := readImage(t)
	image.start(t, c)
	check := c
	check.command = service.Healthcheck.Test[1:]
	harness.Eventually(t, "the health check succeeds", func() bool { return image.prepare(t, check).Run() == nil })

	config, err := os.ReadFile(filepath.Join(root, "deploy", "compose", "envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	envoy := harness.StartEnvoyConfig(t, string(config), harness.ServiceAt(t, 8081))
	// The tenth token of alice's bucket; one more comes every six seconds.
	refused := false
	for range 100 {
		if envoy.Get(t, "/", "x-user", "alice").Status == http.StatusTooManyRequests {
			refused = true
			break
		}
	}
	if !refused {
		t.Error("a hundred requests at once, and none refused")
	}
	if got := status(9090, "/metrics"); got != http.StatusOK {
		t.Errorf("/metrics: %d", got)
	}
}
