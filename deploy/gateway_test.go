package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"
)

// moduleDir returns where the files of a module are that this one requires.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil || len(dir) < 2 {
		t.Fatalf("go list -m %s: %v", module, err)
	}
	return strings.TrimSpace(string(dir))
}

func deploymentIn(t *testing.T, path string) *appsv1.Deployment {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return only[*appsv1.Deployment](objects(t, text))[0]
}

// What test/container starts must be what Envoy Gateway starts.
func TestRecordOfEnvoyGatewaysPod(t *testing.T) {
	ours := deploymentIn(t, filepath.Join("testdata", "envoy-gateway.yaml")).Spec.Template.Spec
	theirs := deploymentIn(t, filepath.Join(moduleDir(t, "github.com/envoyproxy/gateway"),
		"internal", "infrastructure", "kubernetes", "ratelimit", "testdata", "deployments", "enable-tracing.yaml")).Spec.Template.Spec
	theirs.Containers[0].Image = ours.Containers[0].Image // which is what users change
	if !equality.Semantic.DeepEqual(ours, theirs) {
		a, _ := yaml.Marshal(ours)
		b, _ := yaml.Marshal(theirs)
		t.Errorf("recorded:\n%s\nEnvoy Gateway's:\n%s", a, b)
	}
}

var (
	fence    = regexp.MustCompile("(?s)\n```yaml\n(.*?\n)```") // a block of a page
	manifest = regexp.MustCompile(`(?m)^apiVersion: \S`)
)

// Every manifest in the documentation decodes, and so do those for Istio and AI Gateway.
func TestManifestsElsewhere(t *testing.T) {
	var files []string
	for _, pattern := range []string{"../envoy/istio/*.yaml", "../envoy/ai-gateway/*.yaml", "../docs/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: no files (%v)", pattern, err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		blocks := [][]byte{text}
		if filepath.Ext(file) == ".md" {
			blocks = nil
			for _, b := range fence.FindAllSubmatch(text, -1) {
				blocks = append(blocks, b[1])
			}
		}
		for _, block := range blocks {
			for _, doc := range documents(t, block) {
				if !manifest.Match(doc) || bytes.Contains(doc, []byte(notAtHand)) {
					continue
				}
				if _, err := decode(doc); err != nil {
					t.Errorf("%s: %v\n%s", file, err, doc)
				}
			}
		}
	}
}

// notAtHand is an API whose types no module proxy has.
const notAtHand = "apiVersion: aigateway.envoyproxy.io/"

// What test/integration gives the service must be what Envoy Gateway sends it.
func TestRecordOfWhatEnvoyGatewaySends(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "test", "integration", "testdata", "envoy-gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	theirs := filepath.Join(moduleDir(t, "github.com/envoyproxy/gateway"), "internal", "xds", "translator", "testdata", "out", "ratelimit-config")
	for _, doc := range documents(t, text) {
		var record struct {
			From      string           `json:"from"`
			Resources []map[string]any `json:"resources"`
		}
		if err := yaml.Unmarshal(doc, &record); err != nil {
			t.Fatal(err)
		}
		sent, err := os.ReadFile(filepath.Join(theirs, record.From+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var resources []map[string]any
		for _, doc := range documents(t, sent) {
			var r map[string]any
			if err := yaml.Unmarshal(doc, &r); err != nil {
				t.Fatal(err)
			}
			resources = append(resources, withoutEmpty(r).(map[string]any))
		}
		if !reflect.DeepEqual(record.Resources, resources) {
			a, _ := yaml.Marshal(record.Resources)
			b, _ := yaml.Marshal(resources)
			t.Errorf("%s: recorded\n%s\nEnvoy Gateway's\n%s", record.From, a, b)
		}
	}
}

// withoutEmpty returns a value without fields that say nothing.
func withoutEmpty(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, field := range v {
			if field = withoutEmpty(field); field == nil || field == false || field == "" {
				delete(v, key)
			} else {
				v[key] = field
			}
		}
	case []any:
		if len(v) == 0 {
			return nil
		}
		for i := range v {
			v[i] = withoutEmpty(v[i])
		}
	}
	return v
}
