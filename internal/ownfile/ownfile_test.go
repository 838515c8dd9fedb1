package ownfile_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/distlimiter/ratelimit/internal/ownfile"
)

const mark = "ours\n"

func file(path string) ownfile.File {
	return ownfile.File{Path: path, What: "a file of ours", Ours: func(head []byte) bool { return bytes.HasPrefix(head, []byte(mark)) }}
}

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// names lists a directory.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	f := file(filepath.Join(dir, "state"))
	for _, content := range []string{mark + "1", mark + "2"} {
		must(t, f.Replace(text(content)))
		got, err := os.ReadFile(f.Path)
		must(t, err)
		info, err := os.Stat(f.Path)
		must(t, err)
		if string(got) != content || info.Mode() != 0o600 {
			t.Errorf("%q of mode %v, want %q of 0600", got, info.Mode(), content)
		}
	}
	full := errors.New("disk full")
	if err := f.Replace(func(io.Writer) error { return full }); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
	got, err := os.ReadFile(f.Path)
	must(t, err)
	if string(got) != mark+"2" || !slices.Equal(names(t, dir), []string{"state"}) {
		t.Errorf("after an error: %q among %v", got, names(t, dir))
	}
}

// foreigners are things that may be where a file of ours is to be, by name.
func foreigners(t *testing.T, dir string) []string {
	must(t, os.WriteFile(filepath.Join(dir, "rules.yaml"), []byte("domain: edge\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "empty"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "short"), []byte(mark[:3]), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "good"), []byte(mark), 0o644))
	must(t, os.Symlink("good", filepath.Join(dir, "link")))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	must(t, os.Mkdir(filepath.Join(dir, "directory"), 0o755))
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	all := []string{"rules.yaml", "empty", "short", "link", "dangling", "directory", "pipe"}
	// The device of /dev/null; making it takes privileges.
	if err := syscall.Mknod(filepath.Join(dir, "device"), syscall.S_IFCHR|0o666, 1<<8|3); err == nil {
		all = append(all, "device")
	}
	return all
}

// TestForeignIsLeftAlone holds every operation to it, whatever is at the path.
func TestForeignIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range foreigners(t, dir) {
		f := file(filepath.Join(dir, name))
		before, err := os.Lstat(f.Path)
		must(t, err)
		all := names(t, dir)
		_, setAside := f.SetAside(".aside")
		_, open := f.Open()
		for what, err := range map[string]error{
			"Check": f.Check(), "Open": open, "SetAside": setAside,
			"Replace": f.Replace(text(mark)),
			"Update":  f.Update(func(file *os.File) error { return file.Truncate(0) }),
		} {
			if !errors.Is(err, ownfile.ErrForeign) || !strings.Contains(err.Error(), f.Path) {
				t.Errorf("%s: %s: error %v", name, what, err)
			}
		}
		after, err := os.Lstat(f.Path)
		must(t, err)
		if !os.SameFile(before, after) || before.Mode() != after.Mode() || before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime()) {
			t.Errorf("%s was %v and is %v", name, before, after)
		}
		if got := names(t, dir); !slices.Equal(got, all) {
			t.Errorf("%s: the directory holds %v, before %v", name, got, all)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was made through a link: %v", err)
	}
}

// TestForeignThatComesWhileWriting puts another file in place after the start.
func TestForeignThatComesWhileWriting(t *testing.T) {
	dir := t.TempDir()
	f := file(filepath.Join(dir, "state"))
	must(t, f.Check())
	err := f.Replace(func(w io.Writer) error {
		must(t, os.WriteFile(f.Path, []byte("theirs"), 0o644))
		return text(mark)(w)
	})
	if !errors.Is(err, ownfile.ErrForeign) {
		t.Errorf("error %v", err)
	}
	if got, err := os.ReadFile(f.Path); string(got) != "theirs" || err != nil {
		t.Errorf("%q, error %v", got, err)
	}
}

func TestSetAside(t *testing.T) {
	dir := t.TempDir()
	f := file(filepath.Join(dir, "state"))
	for _, content := range []string{mark + "1", mark + "2"} { // the second replaces the first
		must(t, f.Replace(text(content)))
		aside, err := f.SetAside(".unusable")
		must(t, err)
		if got, err := os.ReadFile(aside); string(got) != content || err != nil {
			t.Errorf("%s holds %q, error %v", aside, got, err)
		}
	}
	must(t, os.WriteFile(f.Path+".unusable", []byte("theirs"), 0o644))
	must(t, f.Replace(text(mark)))
	if _, err := f.SetAside(".unusable"); !errors.Is(err, ownfile.ErrForeign) {
		t.Errorf("another's file was replaced: error %v", err)
	}
}

func TestUpdate(t *testing.T) {
	f := file(filepath.Join(t.TempDir(), "state"))
	add := func(file *os.File) error {
		if _, err := file.Seek(0, io.SeekEnd); err != nil {
			return err
		}
		return text("more")(file)
	}
	if err := f.Update(add); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: error %v", err)
	}
	must(t, f.Replace(text(mark)))
	must(t, f.Update(add))
	if got, err := os.ReadFile(f.Path); string(got) != mark+"more" || err != nil {
		t.Errorf("%q, error %v", got, err)
	}
}

func TestCheckWritable(t *testing.T) {
	dir := t.TempDir()
	must(t, file(filepath.Join(dir, "state")).CheckWritable())
	if got := names(t, dir); len(got) > 0 {
		t.Errorf("%v was left behind", got)
	}
	if err := file(filepath.Join(dir, "missing", "state")).CheckWritable(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: error %v", err)
	}
}

// writerFile, when set, makes the test binary a process that writes the file and
// is killed before it has finished.
const writerFile = "OWNFILE_TEST_WRITER_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerFile); path != "" {
		err := file(path).Replace(func(io.Writer) error {
			os.Stdout.WriteString("writing\n")
			_, err := io.ReadAll(os.Stdin) // until killed
			return err
		})
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestCleanAfterAKill kills a process while it writes. What it leaves is removed,
// what another still writes is not, and neither is what only looks alike.
func TestCleanAfterAKill(t *testing.T) {
	dir := t.TempDir()
	f := file(filepath.Join(dir, "state"))
	others := []string{".state.123", ".state.new", ".state.ratelimit-x.tmp", ".states.ratelimit-1.tmp", "state.ratelimit-1.tmp"}
	for _, name := range others {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	must(t, os.Symlink("state", filepath.Join(dir, ".state.ratelimit-1.tmp")))
	must(t, f.Clean())
	kept := names(t, dir)
	if len(kept) != len(others)+1 {
		t.Errorf("%v is left of others' files", kept)
	}

	writer := exec.Command(os.Args[0])
	writer.Env = append(os.Environ(), writerFile+"="+f.Path)
	stdin, err := writer.StdinPipe()
	must(t, err)
	defer stdin.Close()
	stdout, err := writer.StdoutPipe()
	must(t, err)
	must(t, writer.Start())
	if _, err := io.ReadFull(stdout, make([]byte, len("writing\n"))); err != nil {
		t.Fatal(err)
	}
	must(t, f.Clean())
	if got := names(t, dir); len(got) != len(kept)+1 {
		t.Errorf("%v while a process writes, want its file to stay", got)
	}
	must(t, writer.Process.Kill())
	_ = writer.Wait() // it was killed
	if got := names(t, dir); len(got) != len(kept)+1 {
		t.Errorf("%v after a kill, want one file left behind", got)
	}
	must(t, f.Clean())
	if got := names(t, dir); !slices.Equal(got, kept) {
		t.Errorf("%v, want %v", got, kept)
	}
}
