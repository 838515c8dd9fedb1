//go:build linux

package pages

import (
	"os"
	"path/filepath"
	"testing"
)

// daemons run beside the commands that follow. The port is open when they are ready.
var daemons = map[string]int{
	"make run":             8081,
	"REDIS_URL=":           8081,
	"TRACING_ENABLED=true": 8081,
	"envoy -c":             10000,
}

// step prepares a session.
type step interface {
	prepare(t *testing.T, s *session)
}

// file is a file of the tree, and its text.
type file struct{ name, text string }

func (f file) prepare(t *testing.T, s *session) {
	path := filepath.Join(s.dir, f.name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(f.text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// beside is a command that runs beside those of the page, and the port that it opens.
type beside struct {
	command string
	port    int
}

func (b beside) prepare(t *testing.T, s *session) { s.start(t, b.command, b.port) }

// before is a command that runs before those of the page.
type before string

func (b before) prepare(t *testing.T, s *session) {
	if code, output := s.run(t, string(b)); code != 0 {
		t.Fatalf("%s ends with %d:\n%s", b, code, output)
	}
}

const (
	slow       = "runs for minutes or hours; part of a release"
	cluster    = "needs a Kubernetes cluster; deploy/ and test/integration test the manifests"
	engine     = "needs a container engine; test/container makes and runs the image without one"
	everyTest  = "runs this test"
	whyTest    = "TestScript in cmd/ratelimit runs it"
	pythonTest = "make test-python runs the program in the real frameworks"
)

// elsewhere are programs that have nothing to work with here, and why.
var elsewhere = map[string]string{
	"docker":   engine,
	"helm":     cluster,
	"istioctl": cluster,
	"kubectl":  cluster,
}

// expected says of each page what its commands find, and which of them do not run, by their
// beginnings, and why.
var expected = map[string]struct {
	setup  []step
	notRun map[string]string
}{
	"README.md": {
		notRun: map[string]string{
			"make test":  everyTest,
			"go install": "needs a release",
		},
	},
	"CONTRIBUTING.md": {notRun: map[string]string{"make check": everyTest, "make test": everyTest}},
	"docs/admin.md": {
		setup: []step{
			file{"rules/edge.yaml", "domain: edge\ndescriptors:\n  - key: user\n    rate_limit: {algorithm: token_bucket, unit: day, requests_per_unit: 100}\n"},
			file{"slower.yaml", "domain: edge\ndescriptors:\n  - key: user\n    rate_limit: {unit: minute, requests_per_unit: 5}\n"},
			beside{"ratelimit serve --config rules --admin-rules-file admin.json", 8081},
		},
	},
	"docs/changing-rules.md": {
		setup: []step{
			before("mkdir rules deployed"),
			before(`printf 'domain: edge\ndescriptors:\n  - key: user\n    rate_limit: {unit: minute, requests_per_unit: 10}\n  - key: path\n    rate_limit: {unit: minute, requests_per_unit: 10}\n' >deployed/edge.yaml`),
			before(`sed '4s/unit:/algorithm: token_bucket, unit:/' deployed/edge.yaml >rules/edge.yaml`),
		},
	},
	"docs/client-go.md": {notRun: map[string]string{"go ": "TestFirstMinuteOfThePage in client runs it"}},
	"docs/client-python.md": {
		notRun: map[string]string{
			"python3 -m venv":  pythonTest,
			"venv/bin/uvicorn": pythonTest,
			"for i in":         pythonTest,
			"curl -si":         pythonTest,
		},
	},
	"docs/why.md":           {notRun: map[string]string{"ratelimit ": whyTest}},
	"docs/envoy-gateway.md": {notRun: map[string]string{"for i in": cluster}},
	"docs/istio.md":         {notRun: map[string]string{"for i in": cluster}},
	"docs/migrating.md": {
		setup: []step{file{"limits.yaml", `
- {namespace: edge, max_value: 10, seconds: 60, conditions: ["descriptors[0]['method'] == 'POST'"], variables: ["descriptors[0]['user']"]}
- {namespace: edge, max_value: 100, seconds: 60, conditions: [], variables: ["descriptors[0]['user']"]}
- {namespace: edge, max_value: 1000, seconds: 1, conditions: [], variables: []}
`}},
	},
	"docs/performance.md":     {notRun: map[string]string{"make bench": slow}},
	"docs/redis.md":           {setup: []step{beside{"redis-server --save ''", 6379}}},
	"docs/rules.md":           {setup: []step{before(`awk '/^domain: api$/ {on = 1} /^` + "```" + `$/ {on = 0} on' docs/rules.md >org.yaml`)}},
	"docs/dev/lean-front.md":  {notRun: map[string]string{"cd test": slow}},
	"docs/dev/performance.md": {notRun: map[string]string{"make": slow}},
	"docs/dev/reliability.md": {notRun: map[string]string{"make": slow, "cd test": slow}},
}
