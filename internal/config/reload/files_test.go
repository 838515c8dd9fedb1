package reload_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// write replaces a file, as a plain save does.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// must fails the test if a step of its preparation fails.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// load reads rules as check does.
func load(paths []string, opts reload.FileOptions) (*config.Rules, error) {
	return (&reload.Files{Paths: paths, Options: opts}).Load(rulefile.NewParser(rulefile.Options{MaxBytes: opts.MaxBytes}).Parse)
}

// TestExamples loads config/examples as serve does.
func TestExamples(t *testing.T) {
	rules, err := load([]string{"../../../config/examples"}, reload.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range rules.Warnings {
		t.Errorf("an example gives a warning: %v", w)
	}
	if !slices.Contains(names(rules), "edge") {
		t.Errorf("domains %v, want one to be edge", names(rules))
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("tree/b.yaml"), domain("b"))
	write(t, at("tree/a"), domain("a"))
	write(t, at("tree/sub/deep/c.yml"), domain("c"))
	write(t, at("tree/.hidden/d.yaml"), domain("d"))
	write(t, at("tree/.e.yaml"), domain("e"))
	write(t, at("outside/f.yaml"), domain("f"))
	must(t, os.Symlink("../../outside", at("tree/sub/link")))
	must(t, os.Symlink("outside/f.yaml", at("one.yaml")))
	// A volume as Kubernetes mounts it, one file of it in a subdirectory.
	write(t, at("volume/..2026_01/g.yaml"), domain("g"))
	write(t, at("volume/..2026_01/sub/h.yaml"), domain("h"))
	must(t, os.Symlink("..2026_01", at("volume/..data")))
	must(t, os.Symlink("..data/g.yaml", at("volume/g.yaml")))
	must(t, os.Symlink("..data/sub", at("volume/sub")))
	must(t, os.Mkdir(at("empty"), 0o755))
	write(t, at("loop/i.yaml"), domain("i"))
	must(t, os.Symlink("..", at("loop/up")))
	must(t, os.Symlink("self", at("self")))
	must(t, os.Symlink("nowhere", at("dangling")))
	must(t, syscall.Mkfifo(at("fifo"), 0o600))
	write(t, at("bad.yaml"), "domain: [")
	write(t, at("large.yaml"), domain("large")+"#"+strings.Repeat("x", 1000))

	for _, tt := range []struct {
		name  string
		paths []string
		opts  reload.FileOptions
		want  []string // domains in order
		err   []string // problems, without the directory
	}{
		{name: "nothing"},
		{name: "a file", paths: []string{"tree/b.yaml"}, want: []string{"b"}},
		{name: "a directory", paths: []string{"tree"}, want: []string{"e", "d", "b", "c", "f"}},
		{name: "files of any name", paths: []string{"tree"}, opts: reload.FileOptions{AnyName: true}, want: []string{"e", "d", "a", "b", "c", "f"}},
		{name: "without dot files", paths: []string{"tree"}, opts: reload.FileOptions{SkipDotFiles: true}, want: []string{"b", "c", "f"}},
		{name: "paths in order", paths: []string{"volume", "tree/a"}, want: []string{"g", "h", "a"}},
		{name: "a dot file by name", paths: []string{"tree/.e.yaml"}, opts: reload.FileOptions{SkipDotFiles: true}, want: []string{"e"}},
		{name: "a link", paths: []string{"one.yaml"}, want: []string{"f"}},
		{name: "an empty directory", paths: []string{"empty"}},
		{name: "several that fail", paths: []string{"gone.yaml", "bad.yaml", "tree/b.yaml/x", "dangling"}, err: []string{
			"gone.yaml: can't be read: no such file or directory; write the path of a file or directory with rules",
			"tree/b.yaml/x: can't be read: not a directory; keep nothing but files with rules there",
			"dangling: can't be read: it is a link to nowhere, which does not exist; put back what it leads to, or remove the link",
			"bad.yaml:2:1: not YAML: did not find expected node content while parsing a flow node; mend the syntax, there or just above",
		}},
		{name: "a loop", paths: []string{"loop"}, err: []string{
			"loop/up/loop: can't be read: a link to a directory above it; keep nothing but files with rules there",
		}, opts: reload.FileOptions{SkipDotFiles: true}},
		{name: "a link to itself", paths: []string{"self"}, err: []string{"self: can't be read: too many levels of symbolic links; keep nothing but files with rules there"}},
		{name: "a pipe", paths: []string{"fifo"}, err: []string{"fifo: can't be read: neither a file nor a directory (p---------); keep nothing but files with rules there"}},
		{name: "large", paths: []string{"large.yaml"}, opts: reload.FileOptions{MaxBytes: 1000}, err: []string{"large.yaml: larger than 1000 bytes; split it into several domains"}},
		{name: "a file twice", paths: []string{"tree/b.yaml", "tree", "tree/sub/../b.yaml", "outside", "one.yaml"}, want: []string{"b", "e", "d", "c", "f"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var paths []string
			for _, p := range tt.paths {
				paths = append(paths, at(p))
			}
			rules, err := load(paths, tt.opts)
			if bad, ok := errors.AsType[*config.Invalid](err); ok {
				var got []string
				for _, p := range bad.Problems {
					got = append(got, strings.ReplaceAll(p.Error(), dir+"/", ""))
				}
				if tt.name == "a loop" { // it leads over the other files of the directory
					got = slices.DeleteFunc(got, func(s string) bool { return !strings.Contains(s, "above it") })
				}
				if !reflect.DeepEqual(got, tt.err) {
					t.Errorf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.err, "\n"))
				}
				return
			}
			if err != nil || tt.err != nil {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if got := names(rules); !slices.Equal(got, tt.want) {
				t.Errorf("domains %v, want %v", got, tt.want)
			}
		})
	}
}

// TestLoadSkips reads a directory with files that editors and people leave beside rules.
func TestLoadSkips(t *testing.T) {
	left := []string{
		"a.yaml~", ".a.yaml.~1~", "#a.yaml#", ".#b.yaml", // Emacs
		".a.yaml.swp", ".a.yaml.swo", ".a.yaml.swx", ".a.yaml.swpx", "4913", // Vim
		"a.yaml___jb_tmp___", "a.yaml___jb_old___", ".goutputstream-X1Y2Z3", ".a.yaml.kate-swp",
	}
	others := []string{"README.md", "a.yaml.bak", "a.yaml.orig", "a.yaml.tmp", "rules", "sub/notes.txt", "pipe"}
	read := []string{"a.yaml", "b.YML", "c.json", ".d.yaml", "sub.d~/e.yaml", "4914.yaml", "x.swp.yaml", "swp/y.yaml"}

	dir := t.TempDir()
	for i, name := range slices.Concat(left, others, read) {
		switch path := filepath.Join(dir, name); name {
		case ".#b.yaml":
			must(t, os.Symlink("somebody@host.4711:1700000000", path))
		case "pipe":
			must(t, syscall.Mkfifo(path, 0o600))
		default:
			write(t, path, domain("domain-"+strings.Repeat("i", i+1)))
		}
	}
	for _, tt := range []struct {
		name string
		opts reload.FileOptions
		left []string
		read []string
		err  string
	}{
		{"by name", reload.FileOptions{}, slices.Concat(left, others), read, ""},
		{"any name", reload.FileOptions{AnyName: true}, left, slices.Concat(others[:len(others)-1], read), "neither a file nor a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var skipped, sources []string
			f := reload.Files{Paths: []string{dir}, Options: tt.opts, Skipped: func(path, why string) {
				name, err := filepath.Rel(dir, path)
				must(t, err)
				skipped = append(skipped, name)
				if editors := slices.Contains(left, name); editors != (why == "an editor has left it behind") {
					t.Errorf("%s is skipped because %s", name, why)
				}
			}}
			all, err := f.Sources(t.Context())
			if (tt.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v", err)
			}
			for _, source := range all {
				name, err := filepath.Rel(dir, source.Name)
				must(t, err)
				sources = append(sources, name)
			}
			for what, lists := range map[string][2][]string{"skipped": {skipped, tt.left}, "read": {sources, tt.read}} {
				slices.Sort(lists[0])
				want := slices.Sorted(slices.Values(lists[1]))
				if !slices.Equal(lists[0], want) {
					t.Errorf("%s %q\nwant %q", what, lists[0], want)
				}
			}
		})
	}
	for _, name := range []string{"a.yaml~", "README.md"} { // by their own names
		rules, err := load([]string{filepath.Join(dir, name)}, reload.FileOptions{})
		if err != nil || len(rules.Domains) != 1 {
			t.Errorf("%s named: rules %v, error %v", name, rules, err)
		}
	}
}

// TestADirectoryGivenByMistake loads a directory that has far more files than one of rules,
// beside a good file, as of somebody who names / instead of ./. The directory has nothing
// in it that can be read as rules, and one problem is enough.
func TestADirectoryGivenByMistake(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "edge.yaml")
	write(t, file, domain("edge"))
	write(t, filepath.Join(dir, "a.yaml"), "what: ever")
	write(t, filepath.Join(dir, "README"), "what: ever")
	for _, sub := range []string{"b", "c"} {
		must(t, os.Mkdir(filepath.Join(dir, sub), 0o700))
		for i := range 5 {
			must(t, os.Symlink("nowhere", filepath.Join(dir, sub, fmt.Sprint(i))))
		}
	}
	f := reload.Files{Paths: []string{file, dir}, Options: reload.FileOptions{MaxNames: 13}, Skipped: func(path, _ string) { t.Errorf("%s is skipped", path) }}
	sources, err := f.Sources(t.Context())
	if want := dir + ": can't be read: it leads to more than 13 files and directories; name the directory with the rules"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if len(sources) != 1 || sources[0].Name != file {
		t.Errorf("%d sources", len(sources))
	}
	f = reload.Files{Paths: f.Paths, Options: reload.FileOptions{MaxNames: 14}}
	if _, err := f.Sources(t.Context()); err == nil || strings.Count(err.Error(), "it is a link to nowhere") != 10 {
		t.Errorf("at the bound: error %v", err)
	}
}

// TestReadingNamesThePathThatIsRead is for the error of a disk that does not answer.
func TestReadingNamesThePathThatIsRead(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), domain("a"))
	write(t, filepath.Join(dir, "b.yaml"), domain("b"))
	for want, paths := range map[string][]string{
		"":                           {},
		filepath.Join(dir, "b.yaml"): {dir},
		filepath.Join(dir, "a.yaml"): {filepath.Join(dir, "b.yaml"), filepath.Join(dir, "a.yaml")},
		filepath.Join(dir, "none"):   {dir, filepath.Join(dir, "none")},
	} {
		f := reload.Files{Paths: paths}
		_, _ = f.Sources(t.Context())
		if got := f.Reading(); got != want {
			t.Errorf("%q: %s, want %s", paths, got, want)
		}
	}
}

// TestLoadDiamonds makes 2^30 paths lead to a file, with a link to a file beside it.
func TestLoadDiamonds(t *testing.T) {
	dir := t.TempDir()
	at := func(level int) string { return filepath.Join(dir, strings.Repeat("x", level+1)) }
	const levels = 30 // the system follows 40 links of a path
	for level := range levels {
		must(t, os.Mkdir(at(level), 0o755))
		must(t, os.Symlink(at(level+1), filepath.Join(at(level), "left")))
		must(t, os.Symlink(at(level+1), filepath.Join(at(level), "right")))
	}
	write(t, filepath.Join(at(levels), "a.yaml"), domain("a"))
	must(t, os.Symlink("a.yaml", filepath.Join(at(levels), "b.yaml")))
	rules, err := load([]string{at(0), at(levels)}, reload.FileOptions{})
	if err != nil || !slices.Equal(names(rules), []string{"a"}) {
		t.Fatalf("rules %v, error %v", rules, err)
	}
	want := filepath.Join(at(0), strings.Repeat("left/", levels), "a.yaml")
	if got := rules.Domains[0].Pos.File; got != want {
		t.Errorf("read by %s, want the first path, %s", got, want)
	}

	w := watch(t, at(0))
	w.awaitDomains("the first rules", "a")
	write(t, filepath.Join(at(levels), "a.yaml"), domain("b"))
	w.awaitDomains("a change", "b")
}

// watcher is a coordinator that watches real files.
type watcher struct {
	t       *testing.T
	c       *reload.Coordinator
	reloads chan reload.Attempt
}

// watch starts a coordinator on the paths and waits for it to watch.
func watch(t *testing.T, paths ...string) *watcher {
	t.Helper()
	w := newWatcher(t, paths...)
	w.run()
	return w
}

// newWatcher returns a watcher that has loaded nothing and does not watch yet.
func newWatcher(t *testing.T, paths ...string) *watcher {
	w := &watcher{t: t, reloads: make(chan reload.Attempt, 1000)}
	w.c = reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse,
		Providers: []reload.Provider{&reload.Files{Paths: paths}},
		Delay:     time.Millisecond,
		Log:       zaptest.NewLogger(t),
		OnReload:  func(r reload.Attempt) { w.reloads <- r },
	})
	return w
}

// run begins to watch.
func (w *watcher) run() {
	t := w.t
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	<-w.reloads // Watch asks for one when it has begun
}

// await waits for rules that the condition holds for.
func (w *watcher) await(what string, ok func(*config.Rules) bool) {
	w.t.Helper()
	timeout := time.After(20 * time.Second)
	for !ok(w.c.Rules()) {
		select {
		case <-w.reloads:
		case <-timeout:
			w.t.Fatalf("%s: did not happen; last reload %+v", what, w.c.Status().Last)
		}
	}
}

// awaitLimit waits until the first limit of the first domain is n.
func (w *watcher) awaitLimit(what string, n uint32) {
	w.t.Helper()
	w.await(what, func(r *config.Rules) bool {
		return r != nil && len(r.Domains) > 0 && len(r.Domains[0].Descriptors) > 0 && r.Domains[0].Descriptors[0].Limits[0].RequestsPerUnit == n
	})
}

// awaitDomains waits until these domains are in force.
func (w *watcher) awaitDomains(what string, want ...string) {
	w.t.Helper()
	w.await(what, func(r *config.Rules) bool { return r != nil && slices.Equal(names(r), want) })
}

// awaitFailure waits for a reload that fails with such a problem.
func (w *watcher) awaitFailure(what, problem string) {
	w.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case r := <-w.reloads:
			if r.Outcome == reload.Failed && strings.Contains(strings.Join(r.Problems, "\n"), problem) {
				return
			}
		case <-timeout:
			w.t.Fatalf("%s: did not fail with %q; last reload %+v", what, problem, w.c.Status().Last)
		}
	}
}

func TestWatchFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.yaml")
	write(t, path, domain("edge", 1))
	w := watch(t, path)
	w.awaitLimit("the first rules", 1)

	write(t, path, domain("edge", 2))
	w.awaitLimit("a plain save", 2)

	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("  bad\n")
	must(t, err)
	w.awaitFailure("a bad line", path+":3:")
	w.awaitLimit("the old rules stay", 2)
	must(t, f.Truncate(int64(len(domain("edge", 2)))))
	must(t, f.Close())
	w.await("the line is gone", func(*config.Rules) bool { return w.c.Status().Last.Outcome == reload.Unchanged })

	write(t, path+".new", domain("edge", 3))
	must(t, os.Rename(path+".new", path))
	w.awaitLimit("a rename over the file", 3)

	must(t, os.Rename(path, path+"~"))
	write(t, path, domain("edge", 4))
	must(t, os.Remove(path+"~"))
	w.awaitLimit("a save that keeps a backup", 4)

	must(t, os.Remove(path))
	w.awaitFailure("the file is gone", path+": can't be read")
	w.awaitLimit("the old rules stay", 4)
	write(t, path, domain("edge", 5))
	w.awaitLimit("the file is back", 5)
}

func TestWatchDirectory(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "not", "there")
	w := watch(t, dir)
	if w.c.Rules() != nil || w.c.Status().Failures == 0 {
		t.Fatalf("rules %v from a directory that isn't there", w.c.Rules())
	}

	write(t, filepath.Join(dir, "a.yaml"), domain("a"))
	w.awaitDomains("the directory appears", "a")
	write(t, filepath.Join(dir, "b.yaml"), domain("b"))
	w.awaitDomains("another file", "a", "b")
	write(t, filepath.Join(dir, "sub", "sub", "c.yaml"), domain("c"))
	w.awaitDomains("new directories in it", "a", "b", "c")
	write(t, filepath.Join(dir, "sub", "sub", "c.yaml"), domain("d"))
	w.awaitDomains("a change in a new directory", "a", "b", "d")
	must(t, os.Remove(filepath.Join(dir, "a.yaml")))
	w.awaitDomains("a file is gone", "b", "d")
	must(t, os.Rename(filepath.Join(dir, "sub"), filepath.Join(root, "sub")))
	w.awaitDomains("a directory is moved away", "b")
	must(t, os.Rename(filepath.Join(root, "sub"), filepath.Join(dir, "sub")))
	w.awaitDomains("a directory is moved back", "b", "d")
	write(t, filepath.Join(dir, "sub", "sub", "c.yaml"), domain("e"))
	w.awaitDomains("a change in a directory that was moved", "b", "e")

	must(t, os.Rename(filepath.Join(root, "not"), filepath.Join(root, "gone")))
	w.awaitFailure("all is gone", dir+": can't be read")
	w.awaitDomains("the old rules stay", "b", "e")
	write(t, filepath.Join(dir, "f.yaml"), domain("f"))
	w.awaitDomains("the directory is back", "f")

	write(t, filepath.Join(root, "next", "there", "g.yaml"), domain("g"))
	must(t, os.Rename(filepath.Join(root, "not"), filepath.Join(root, "last")))
	must(t, os.Rename(filepath.Join(root, "next"), filepath.Join(root, "not")))
	w.awaitDomains("another directory in its place", "g")
	write(t, filepath.Join(dir, "g.yaml"), domain("h"))
	w.awaitDomains("a change in that one", "h")
}

// volume is a directory in which Kubernetes keeps a ConfigMap.
type volume struct {
	t   *testing.T
	dir string
}

// swap sets the volume's files as the kubelet does: a new directory, then a link
// renamed over ..data, then links to new names, then the old directory removed.
func (v volume) swap(version string, files map[string]string) {
	v.t.Helper()
	for name, text := range files {
		write(v.t, filepath.Join(v.dir, version, name), text)
	}
	data := filepath.Join(v.dir, "..data")
	old, _ := os.Readlink(data)
	must(v.t, os.Symlink(version, data+"_tmp"))
	must(v.t, os.Rename(data+"_tmp", data))
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		err := os.Symlink("..data/"+first, filepath.Join(v.dir, first))
		if !errors.Is(err, os.ErrExist) {
			must(v.t, err)
		}
	}
	if old != "" {
		must(v.t, os.RemoveAll(filepath.Join(v.dir, old)))
	}
}

func TestWatchConfigMap(t *testing.T) {
	v := volume{t, filepath.Join(t.TempDir(), "volume")}
	v.swap("..1", map[string]string{"a.yaml": domain("a", 1), "sub/b.yaml": domain("b", 1)})
	directory := watch(t, v.dir)
	file := watch(t, filepath.Join(v.dir, "a.yaml"))
	directory.awaitDomains("the first rules", "a", "b")
	file.awaitLimit("the first rules of one file", 1)

	v.swap("..2", map[string]string{"a.yaml": domain("a", 2), "sub/b.yaml": domain("b", 1)})
	directory.awaitLimit("a swap", 2)
	file.awaitLimit("a swap seen by one file", 2)

	v.swap("..3", map[string]string{"a.yaml": domain("a", 3), "sub/b.yaml": domain("c", 1)})
	directory.awaitDomains("a swap of what lies in a subdirectory", "a", "c")
	file.awaitLimit("another swap", 3)

	v.swap("..4", map[string]string{"a.yaml": "domain: a\ndescriptors: 5", "sub/b.yaml": domain("c", 1)})
	directory.awaitFailure("a bad swap", "want a list")
	file.awaitFailure("a bad swap seen by one file", "want a list")
	v.swap("..5", map[string]string{"a.yaml": domain("a", 4), "sub/b.yaml": domain("c", 1), "d.yaml": domain("d", 1)})
	directory.awaitDomains("a good one again, with a new key", "a", "d", "c")
	file.awaitLimit("a good one again", 4)
}

// TestWatchRuntimeRoot swaps the link RUNTIME_ROOT, far above the rules.
func TestWatchRuntimeRoot(t *testing.T) {
	root := t.TempDir()
	current := filepath.Join(root, "current")
	point := func(target string) {
		t.Helper()
		must(t, os.Symlink(target, current+".new"))
		must(t, os.Rename(current+".new", current))
	}
	for i := range 3 {
		write(t, filepath.Join(root, "releases", string(rune('1'+i)), "ratelimit", "config", "edge.yaml"), domain("edge", i+1))
	}
	point("releases/1")
	w := watch(t, filepath.Join(current, "ratelimit", "config"))
	w.awaitLimit("the first rules", 1)
	point("releases/2")
	w.awaitLimit("a swap of the link", 2)
	write(t, filepath.Join(root, "releases", "2", "ratelimit", "config", "edge.yaml"), domain("edge", 9))
	w.awaitLimit("a change behind the new link", 9)
	point(filepath.Join(root, "releases", "3"))
	w.awaitLimit("a swap to an absolute link", 3)

	must(t, os.Remove(current))
	w.awaitFailure("the link is gone", "can't be read")
	point("releases/1")
	w.awaitLimit("the link is back", 1)
	must(t, os.Rename(filepath.Join(root, "releases"), filepath.Join(root, "archive")))
	w.awaitFailure("what the link leads to is gone", "can't be read")
	point("archive/2")
	w.awaitLimit("a link to another place", 9)
}

// TestOneStartIsOneSuccess checks that the second look at files, when watching begins, is
// counted only if they have changed since they were loaded, and that each later one is.
func TestOneStartIsOneSuccess(t *testing.T) {
	for _, test := range []struct {
		name      string
		between   string // limit of the file when watching begins
		successes uint64
	}{
		{"unchanged", domain("edge", 1), 1},
		{"changed between the load and the watch", domain("edge", 2), 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "edge.yaml")
			write(t, path, domain("edge", 1))
			w := newWatcher(t, path)
			must(t, w.c.Reload(t.Context()))
			<-w.reloads
			write(t, path, test.between)
			w.run()
			if s := w.c.Status(); s.Successes != test.successes || s.Failures != 0 {
				t.Errorf("%d successes and %d failures after the start, want %d and 0", s.Successes, s.Failures, test.successes)
			}
			write(t, path, test.between)
			<-w.reloads
			if s := w.c.Status(); s.Successes+s.Failures <= test.successes { // a reader may meet an empty file
				t.Errorf("%d successes and %d failures after a save that changed nothing, want more than %d", s.Successes, s.Failures, test.successes)
			}
		})
	}
}

// TestWatchIgnoresSkipped checks that a new skipped file does not cause a reload, and that
// a new directory of any name does.
func TestWatchIgnoresSkipped(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "edge.yaml")
	write(t, path, domain("edge", 1))
	w := watch(t, dir)
	w.awaitLimit("the first rules", 1)
	attempts := func() uint64 { s := w.c.Status(); return s.Successes + s.Failures }
	before := attempts()
	for range 100 {
		for _, name := range []string{".edge.yaml.swp", "edge.yaml~", "4913", "README.md", "..2026_01"} {
			write(t, filepath.Join(dir, name), "x")
			must(t, os.Remove(filepath.Join(dir, name)))
		}
		must(t, os.Symlink("nobody@nowhere.1", filepath.Join(dir, ".#edge.yaml")))
		must(t, os.Remove(filepath.Join(dir, ".#edge.yaml")))
	}
	write(t, path, domain("edge", 2))
	w.awaitLimit("a change of the file itself", 2)
	if got := attempts() - before; got > 3 { // a plain save truncates, then writes
		t.Errorf("read %d times for one change", got)
	}

	other := filepath.Join(t.TempDir(), "other")
	write(t, filepath.Join(other, "a.yaml"), domain("a"))
	must(t, os.Symlink(other, filepath.Join(dir, "link")))
	w.awaitDomains("a link to a directory", "edge", "a")
	must(t, os.Remove(filepath.Join(dir, "link")))
	w.awaitDomains("the link is gone", "edge")
	must(t, os.Rename(other, filepath.Join(dir, "moved")))
	w.awaitDomains("a directory", "edge", "a")
	must(t, os.RemoveAll(filepath.Join(dir, "moved")))
	w.awaitDomains("the directory is gone", "edge")
	must(t, os.Symlink(other, filepath.Join(dir, "link")))
	w.awaitFailure("a link to nothing yet", "can't be read")
	write(t, filepath.Join(other, "a.yaml"), domain("b"))
	w.awaitDomains("where the link leads to is there", "edge", "b")
	write(t, filepath.Join(dir, "README.md"), "x")
	must(t, os.Rename(filepath.Join(dir, "README.md"), filepath.Join(dir, "c.yaml")))
	w.awaitFailure("a file gets the name of rules", "c.yaml")
}

// TestWatchIgnoresNeighbours checks that changes of files beside the rules do not cause a
// reload.
func TestWatchIgnoresNeighbours(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "edge.yaml")
	write(t, path, domain("edge", 1))
	w := watch(t, path)
	attempts := func() uint64 { s := w.c.Status(); return s.Successes + s.Failures }
	before := attempts()
	for range 100 {
		write(t, filepath.Join(dir, "neighbour"), "x")
	}
	write(t, path, domain("edge", 2))
	w.awaitLimit("a change of the file itself", 2)
	if got := attempts() - before; got > 3 { // a plain save truncates, then writes
		t.Errorf("read %d times for one change", got)
	}
}
