// Package release tests what a release publishes beside the image and the chart: the Go
// module, from which users install the command and import the package client.
package release

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// released is the module as a release publishes it.
var released = module.Version{Path: "github.com/distlimiter/ratelimit", Version: "v0.1.0"}

// source is a file of the repository, by its path in the module's zip.
type source struct{ root, path string }

func (s source) Path() string                 { return s.path }
func (s source) Lstat() (os.FileInfo, error)  { return os.Lstat(filepath.Join(s.root, s.path)) }
func (s source) Open() (io.ReadCloser, error) { return os.Open(filepath.Join(s.root, s.path)) }

// publish writes the module to a proxy's directory, with the files that git has or would
// take. The zip leaves out the other modules of the repository, as each zip of a module
// does.
func publish(t *testing.T, proxy string) {
	t.Helper()
	root := harness.Root(t)
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatalf("%v: %v", list, err)
	}
	var files []zip.File
	for path := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		s := source{root, path}
		if info, err := s.Lstat(); err == nil && info.Mode().IsRegular() { // neither removed nor a link
			files = append(files, s)
		}
	}
	dir := filepath.Join(proxy, filepath.FromSlash(released.Path), "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	archive, err := os.Create(filepath.Join(dir, released.Version+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	if err := zip.Create(archive, released, files); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := json.Marshal(struct {
		Version string
		Time    time.Time
	}{released.Version, time.Unix(0, 0).UTC()})
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string][]byte{"list": []byte(released.Version + "\n"), released.Version + ".mod": mod, released.Version + ".info": info} {
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// goOf returns a runner of the go command for somebody with an empty GOPATH; it returns
// where the go command installs ratelimit. Our module comes from a proxy's directory, and
// what it requires from the machine's module cache, because a network would hide a missing
// requirement. The build cache is the machine's, and the flags are those of the image, so
// that only our own packages are compiled.
func goOf(t *testing.T) func(t *testing.T, dir string, args ...string) string {
	t.Helper()
	proxy, gopath := t.TempDir(), t.TempDir()
	publish(t, proxy)
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T, dir string, args ...string) string {
		t.Helper()
		command := exec.Command("go", args...)
		command.Dir = dir
		command.Env = append(os.Environ(),
			"GOPATH="+gopath, "GOMODCACHE=", "GOBIN=", "GOWORK=off", "CGO_ENABLED=0",
			"GOFLAGS=-trimpath -modcacherw", // so that the test can remove it
			"GOPROXY=file://"+proxy+",file://"+filepath.Join(strings.TrimSpace(string(cache)), "cache", "download"),
			"GOSUMDB=off")
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
		return filepath.Join(gopath, "bin", "ratelimit")
	}
}

// TestModule installs the command, and builds a program that imports the package client,
// with nothing but the zip of the module: no file of the repository outside of it, and no
// directive that the go command refuses in a dependency.
func TestModule(t *testing.T) {
	goCommand := goOf(t)
	t.Run("go install at latest", func(t *testing.T) {
		installed := goCommand(t, t.TempDir(), "install", released.Path+"/cmd/ratelimit@latest")
		for _, tt := range []struct {
			args []string
			want string
		}{
			{[]string{"--version"}, "ratelimit " + released.Version + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n"},
			{[]string{"schema"}, `"$schema"`}, // one of the files that the binary embeds
		} {
			out, err := exec.Command(installed, tt.args...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), tt.want) {
				t.Errorf("%q: %v: %s, want %q", tt.args, err, out, tt.want)
			}
		}
	})
	t.Run("import of client", func(t *testing.T) {
		dir := t.TempDir()
		for file, text := range map[string]string{
			"go.mod":  "module example.com/shop\n\ngo 1.26.8\n",
			"main.go": "package main\n\nimport \"" + released.Path + "/client\"\n\nfunc main() { _ = client.Entry{} }\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		goCommand(t, dir, "get", released.Path+"/client@latest")
		goCommand(t, dir, "build", "-o", os.DevNull, ".")
	})
}
