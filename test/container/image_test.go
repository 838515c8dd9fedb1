//go:build linux

package container

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/distlimiter/ratelimit/test/integration/harness"
	"github.com/distlimiter/ratelimit/test/namespace"
)

// image is the configuration of an image. Its files are in root.
type image struct {
	root     string
	env      map[string]string
	command  []string
	uid, gid int
}

// buildImage makes the files and the configuration of the Dockerfile's image in dir.
func buildImage(dir string) error {
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		return err
	}
	joined := regexp.MustCompile(`\\\n\s*`).ReplaceAllString(string(text), "")
	i := image{root: filepath.Join(dir, "root"), env: map[string]string{}}
	built := filepath.Join(dir, "ratelimit")
	stage := 0
	for line := range strings.Lines(joined) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case instruction == "FROM":
			stage++
		case instruction == "RUN" && strings.Contains(rest, "go build"):
			err = compile(strings.Replace(rest, "/out/ratelimit", built, 1))
		case stage < 2 || instruction == "" || instruction == "#" || instruction == "EXPOSE":
		case instruction == "COPY":
			fields := strings.Fields(rest)
			err = i.copy(strings.Replace(fields[1], "/out/ratelimit", built, 1), fields[2])
		case instruction == "USER":
			_, err = fmt.Sscanf(rest, "%d:%d", &i.uid, &i.gid)
		case instruction == "ENV":
			for assignment := range strings.FieldsSeq(rest) {
				name, value, _ := strings.Cut(assignment, "=")
				i.env[name] = value
			}
		case instruction == "CMD":
			err = json.Unmarshal([]byte(rest), &i.command)
		default:
			err = fmt.Errorf("an instruction that these tests do not know")
		}
		if err != nil {
			return fmt.Errorf("Dockerfile: %s: %w", strings.TrimSpace(line), err)
		}
	}
	config, err := json.Marshal(map[string]any{"env": i.env, "command": i.command, "uid": i.uid, "gid": i.gid})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600)
}

// compile runs the Dockerfile's build command here.
func compile(command string) error {
	build := exec.Command("sh", "-ec", command)
	build.Dir = "../.."
	build.Env = append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+runtime.GOARCH, "VERSION=v0.0.0-test")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func (i image) copy(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	path := filepath.Join(i.root, to)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o755)
}

func readImage(t *testing.T) image {
	t.Helper()
	dir := namespace.Dir()
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Env      map[string]string
		Command  []string
		UID, GID int
	}
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return image{root: filepath.Join(dir, "root"), env: c.Env, command: c.Command, uid: c.UID, gid: c.GID}
}

// container is what an engine is told besides the image.
type container struct {
	command []string          // instead of the image's
	env     map[string]string // on top of the image's
	uid     int               // instead of the image's
	mounts  map[string]string // path in the container → directory here, read-only
	hosts   []string          // names that lead to this machine
}

// start runs the container. Its end by anything but SIGTERM fails the test.
func (i image) start(t *testing.T, c container) *harness.Process {
	t.Helper()
	return harness.StartCommand(t, "container", i.prepare(t, c))
}

// prepare makes the root file system and returns the command that runs in it.
func (i image) prepare(t *testing.T, c container) *exec.Cmd {
	t.Helper()
	root := t.TempDir()
	// Temporary directories are for their owner; this one is seen by another user.
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(root, os.DirFS(i.root)); err != nil {
		t.Fatal(err)
	}
	// Engines write this file into every container.
	write(t, filepath.Join(root, "etc", "hosts"), "127.0.0.1 localhost "+strings.Join(c.hosts, " ")+"\n")
	mount(t, root, root)
	for at, dir := range c.mounts {
		inside := filepath.Join(root, at)
		if err := os.MkdirAll(inside, 0o755); err != nil {
			t.Fatal(err)
		}
		mount(t, dir, inside)
	}
	readOnly(t, root)

	command := i.command
	if c.command != nil {
		command = c.command
	}
	uid, gid := i.uid, i.gid
	if c.uid != 0 {
		uid, gid = c.uid, c.uid
	}
	environment := maps.Clone(i.env)
	maps.Copy(environment, c.env)
	cmd := &exec.Cmd{Path: command[0], Args: command, Dir: "/", Env: []string{"PATH=/bin"}}
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		cmd.Env = append(cmd.Env, name+"="+environment[name])
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return cmd
}

// mount makes dir visible at a path until the test ends.
func mount(t *testing.T, dir, at string) {
	t.Helper()
	if err := unix.Mount(dir, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s at %s: %v", dir, at, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", at, err)
		}
	})
	if dir != at {
		readOnly(t, at)
	}
}

func readOnly(t *testing.T, at string) {
	t.Helper()
	if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		t.Fatalf("make %s read-only: %v", at, err)
	}
}

// write writes a file that every user may read, and its directory.
func write(t *testing.T, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestImageHoldsTheBinaryAndLittleElse(t *testing.T) {
	i := readImage(t)
	var files []string
	err := fs.WalkDir(os.DirFS(i.root), ".", func(path string, d fs.DirEntry, err error) error {
		if !d.IsDir() {
			files = append(files, "/"+path)
		}
		return err
	})
	if want := []string{"/bin/ratelimit", "/etc/ssl/certs/ca-certificates.crt"}; err != nil || !slices.Equal(files, want) {
		t.Errorf("the image holds %v (%v), want %v", files, err, want)
	}
	if i.uid == 0 || i.gid == 0 {
		t.Errorf("it runs as %d:%d", i.uid, i.gid)
	}
	isStatic(t, filepath.Join(i.root, "bin", "ratelimit"))

	out, err := i.prepare(t, container{command: []string{"/bin/ratelimit", "version"}}).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "ratelimit v0.0.0-test ") {
		t.Errorf("version: %v: %s", err, out)
	}
}
