package harness

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/freeport"
)

// The ports that the files in envoy/ name.
const (
	listenerPort = 10000
	adminPort    = 9901
	servicePort  = 8081
)

// Envoy is a running Envoy with a configuration of envoy/.
type Envoy struct {
	*Process
	ports  map[int]int // port in the file → port in use
	client *http.Client
}

// Config returns the path of a file in envoy/.
func Config(t testing.TB, file string) string {
	t.Helper()
	return filepath.Join(Root(t), "envoy", file)
}

// StartEnvoy runs Envoy with a file of envoy/ in front of the service, as
// StartEnvoyConfig does.
func StartEnvoy(t testing.TB, file string, services ...*Service) *Envoy {
	t.Helper()
	config, err := os.ReadFile(Config(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return StartEnvoyConfig(t, string(config), services...)
}

// StartEnvoyConfig runs Envoy with a configuration in front of services and waits until
// Envoy is ready. In the configuration the first service is on port 8081, the next on
// 8082. StartEnvoyConfig changes only ports, to free ones, and deadlines, as [Patient] does,
// because a busy machine may exceed any deadline that is right in production, and Envoy
// would then answer without the service.
func StartEnvoyConfig(t testing.TB, config string, services ...*Service) *Envoy {
	t.Helper()
	e := &Envoy{ports: map[int]int{}, client: &http.Client{Timeout: timeout}}
	t.Cleanup(e.client.CloseIdleConnections)
	for i, s := range services {
		e.ports[servicePort+i] = s.grpcPort
	}
	text := regexp.MustCompile(`port_value: \d+`).ReplaceAllStringFunc(config, func(match string) string {
		port, err := strconv.Atoi(strings.TrimPrefix(match, "port_value: "))
		if err != nil {
			t.Fatalf("%s: %v", match, err)
		}
		if e.ports[port] == 0 {
			e.ports[port] = freeport.ForTest(t).Number
		}
		return fmt.Sprintf("port_value: %d", e.ports[port])
	})
	text = Patient(text)
	path := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e.Process = Start(t, "envoy", Tool(t, "envoy"),
		"--config-path", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning",
		"--file-flush-interval-msec", "100") // of access logs
	Eventually(t, "Envoy is ready", func() bool {
		e.running(t)
		answer, err := e.client.Get(e.URL(adminPort, "/ready"))
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	return e
}

// Patient returns a configuration of Envoy whose deadlines a busy machine does not exceed.
func Patient(config string) string {
	return regexp.MustCompile(`(?m)^( +(?:timeout|connect_timeout|max_interval)): .*`).ReplaceAllString(config, "$1: 10s")
}

// URL returns the URL of a path at the listener that has the port in the file.
func (e *Envoy) URL(port int, path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", e.ports[port], path)
}

// Answer is the answer that a client of Envoy gets.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Get requests a path from the listener on port 10000 of the file. Headers are
// names and values in turn.
func (e *Envoy) Get(t testing.TB, path string, headers ...string) Answer {
	t.Helper()
	answer, err := e.Do(http.MethodGet, listenerPort, path, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// Do requests a path from the listener that has the port in the file. It may be
// called from any goroutine.
func (e *Envoy) Do(method string, port int, path string, headers ...string) (Answer, error) {
	request, err := http.NewRequest(method, e.URL(port, path), http.NoBody)
	if err != nil {
		return Answer{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := e.client.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return Answer{Status: response.StatusCode, Header: response.Header, Body: string(body)}, err
}
