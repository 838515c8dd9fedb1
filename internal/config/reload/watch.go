package reload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// maxLinks bounds the symbolic links that one path may lead through.
	maxLinks = 40
	// gather is how long events are collected. A thousand new files must not make
	// this process list their directory a thousand times.
	gather = 10 * time.Millisecond
)

// Watch calls changed when the sources may have changed: when a file, or a directory or
// link on the path to it, is written, renamed, removed or created. It watches directories
// rather than files, because editors and ConfigMaps replace the old file by a new one.
func (f *Files) Watch(ctx context.Context, changed func()) error {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("this system can't watch files: %w%s", err, watchRemedy(err))
	}
	defer events.Close()
	w, err := f.watch(events)
	if err != nil {
		return err
	}
	changed() // files may have changed between the last load and now
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-events.Events:
			if due == nil && w.concerns(event.Name) {
				due = time.After(gather)
			}
		case err := <-events.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return err
			}
			if due == nil {
				due = time.After(gather)
			}
		case <-due:
			due = nil
			// Watch the present files before they are read. A change in between is
			// read, and a later one is seen.
			if w, err = f.watch(events); err != nil {
				return err
			}
			changed()
		}
	}
}

// watching is the set of directories that matter, by their real paths.
type watching struct {
	opts   FileOptions
	events *fsnotify.Watcher
	dirs   map[string]*watched
	err    error
}

// watched holds the names that matter in a directory.
type watched struct {
	// names always matter: they lead to files and directories.
	names map[string]bool
	// all means that every name that Options don't skip matters too: the directory
	// has rules.
	all bool
}

// watch watches everything that matters now, and stops watching the rest.
func (f *Files) watch(events *fsnotify.Watcher) (*watching, error) {
	w := &watching{opts: f.Options, events: events, dirs: map[string]*watched{}}
	tree := walker{opts: f.Options, dir: w.all, link: w.follow,
		file: func(string) error { return nil }, failed: w.missed}
	for _, path := range f.Paths {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		w.follow(abs)
		if err := tree.walk(abs); err != nil {
			w.missed(abs, err)
		}
	}
	for _, dir := range events.WatchList() {
		if _, matters := w.dirs[dir]; !matters {
			_ = events.Remove(dir) // it may be gone already
		}
	}
	return w, w.err
}

// missed handles a path that can't be read. If it is missing or forbidden, the watch
// notices when that changes. If the process has too many open files, it would not, which
// is an error.
func (w *watching) missed(path string, err error) {
	if w.err == nil && tooManyOpen(err) {
		w.err = unreadable(path, err)
	}
}

// concerns reports whether an event on path matters. An event from a directory that was
// moved, and is not known by this path, does.
func (w *watching) concerns(path string) bool {
	dir, exists := w.dirs[filepath.Dir(path)]
	name := filepath.Base(path)
	switch {
	case !exists || dir.names[name]:
		return true
	case !dir.all || w.opts.hides(name):
		return false
	}
	switch w.opts.skips(name) {
	case "":
		return true
	case leftover:
		return false
	}
	// A new directory, or a link to one, may have any name. Known ones are among the
	// names, so that their removal matters too.
	info, err := os.Lstat(path)
	return err == nil && (info.IsDir() || info.Mode().Type() == fs.ModeSymlink)
}

// all watches a directory with rules.
func (w *watching) all(dir string) {
	w.one(filepath.Dir(dir), filepath.Base(dir)) // which is watched for all, or for this name
	w.in(dir).all = true
}

// one watches for one name in a directory given by its real path.
func (w *watching) one(dir, name string) { w.in(dir).names[name] = true }

// in returns the names that matter in a directory and watches it from now on.
func (w *watching) in(dir string) *watched {
	d, exists := w.dirs[dir]
	if !exists {
		w.add(dir)
		d = &watched{names: map[string]bool{}}
		w.dirs[dir] = d
	}
	return d
}

// add watches a directory, even if it is watched already, because another directory may
// have taken its place. It ignores a directory that is gone, because the watch on its
// parent notices, and one that this process may not list, because that rarely changes.
func (w *watching) add(dir string) {
	err := w.events.Add(dir)
	if err != nil && w.err == nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		w.err = fmt.Errorf("%s can't be watched: %w%s", dir, err, watchRemedy(err))
	}
}

// watchRemedy returns the advice for an error: which of the system's limits is too low.
func watchRemedy(err error) string {
	switch {
	case tooManyOpen(err):
		return "; raise fs.inotify.max_user_instances, or the limit of open files"
	case errors.Is(err, syscall.ENOSPC):
		return "; raise fs.inotify.max_user_watches"
	}
	return ""
}

// follow watches every step of an absolute path: each directory above it for the next
// name. It does the same for the targets of links.
func (w *watching) follow(path string) {
	at := string(filepath.Separator)
	rest := steps(path)
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		w.one(at, name)
		next := filepath.Join(at, name)
		target, err := os.Readlink(next)
		if err != nil { // no link, or nothing at all: then the rest adds nothing
			at = next
			continue
		}
		if links++; links > maxLinks {
			return
		}
		if filepath.IsAbs(target) {
			at = string(filepath.Separator)
		}
		rest = append(steps(target), rest...)
	}
}

func steps(path string) []string {
	return strings.FieldsFunc(path, func(c rune) bool { return c == filepath.Separator })
}
