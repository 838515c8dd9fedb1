//go:build linux

package pages

import (
	"archive/zip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGoInstall runs the go install of the README, with a module proxy that has this tree as
// a release, as far as compiling. It fails for what keeps a module from being installed, such
// as a replace in go.mod, or an embedded file that is not in the module.
func TestGoInstall(t *testing.T) {
	const module, version = "github.com/distlimiter/ratelimit", "v0.1.0"
	var install string
	for _, b := range blocks(markdown(t)["README.md"]) {
		for _, c := range commands(b) {
			if strings.HasPrefix(c.text, "go install ") {
				install = strings.TrimSpace(c.text)
			}
		}
	}
	if install == "" {
		t.Fatal("README.md has no go install")
	}
	proxy := t.TempDir()
	release(t, filepath.Join(proxy, filepath.FromSlash(module), "@v"), module, version)
	downloaded := filepath.Join(goEnv(t, "GOMODCACHE"), "cache", "download")
	cmd := exec.Command("bash", "-c", install)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(),
		"PATH="+filepath.Join(goEnv(t, "GOROOT"), "bin")+":"+os.Getenv("PATH"), "GOTOOLCHAIN=local",
		"GOMODCACHE="+t.TempDir(), "GOFLAGS=-modcacherw -trimpath -n", "CGO_ENABLED=0",
		"GOPROXY=file://"+proxy+",file://"+downloaded, "GOSUMDB=off", "GOPRIVATE=")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), module+"@"+version+"/cmd/ratelimit") {
		t.Errorf("%s: %v\n%s", install, err, out)
	}
}

// release puts this tree into a directory of a module proxy, without the modules below it.
func release(t *testing.T, dir, module, version string) {
	t.Helper()
	root := tree(t)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	gomod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"list":            version + "\n",
		version + ".info": `{"Version": "` + version + `", "Time": "2026-12-01T00:00:00Z"}`,
		version + ".mod":  string(gomod),
		"../@latest":      `{"Version": "` + version + `", "Time": "2026-12-01T00:00:00Z"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	archive, err := os.Create(filepath.Join(dir, version+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	files := zip.NewWriter(archive)
	err = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != root {
				return filepath.SkipDir
			}
			return nil
		}
		name, _ := filepath.Rel(root, path)
		w, err := files.Create(module + "@" + version + "/" + filepath.ToSlash(name))
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
}
