package reload

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// FileOptions say which files of directories are read, and how much of them.
type FileOptions struct {
	// SkipDotFiles leaves out files and directories whose names begin with a dot.
	// Names that begin with two dots, by which Kubernetes swaps the content of
	// its volumes, are always left out.
	SkipDotFiles bool
	// AnyName takes the files of directories whatever their names, as
	// envoyproxy/ratelimit does, but for what editors leave behind. Otherwise only
	// those count that end in .yaml, .yml or .json.
	AnyName bool
	// MaxBytes bounds each file. One byte more is read at most, so that the grammar
	// can tell. 0 means DefaultMaxBytes.
	MaxBytes int64
}

// Files provides the rules of files and directories, with all that is below them.
//
// A file that is named by a path is read, whatever its name. In directories files
// count that are YAML or JSON by their names, or with [FileOptions.AnyName] all, but
// never those that editors leave behind. Links are followed. A file or directory to
// which several paths lead, through links, is read once, by the first of them.
type Files struct {
	// Paths are read in this order, the files of a directory by name.
	Paths   []string
	Options FileOptions
	// Skipped is called for each file of a directory that is not read because of its
	// name, with the reason, whenever the directory is. May be nil.
	Skipped func(path, why string)
}

// Load reads the files and has load validate the rules. The error is an *Invalid with
// every problem of every file.
func (f *Files) Load(load Load) (*config.Rules, error) {
	sources, err := f.Sources(context.Background())
	rules, invalid := load(sources)
	if err != nil {
		return nil, allOf(err, invalid)
	}
	return rules, invalid
}

// Origin implements Provider.
func (f *Files) Origin() config.Origin { return config.FromFile }

// Sources reads all files. The error is an *Invalid with a problem for each
// that can't be read; the sources are the others.
func (f *Files) Sources(ctx context.Context) ([]rulefile.Source, error) {
	var sources []rulefile.Source
	var problems []config.Problem
	w := walker{opts: f.Options, file: func(path string) error {
		data, err := readFile(path, cmp.Or(f.Options.MaxBytes, rulefile.DefaultMaxBytes))
		if err == nil {
			sources = append(sources, rulefile.Source{Name: path, Data: data})
		}
		return err
	}, skipped: f.Skipped, failed: func(path string, err error) {
		problems = append(problems, unreadable(path, err))
	}}
	for _, path := range f.Paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		w.walk(path)
	}
	return sources, invalid(problems)
}

// unreadable says what to do about a file that can't be read.
func unreadable(path string, err error) config.Problem {
	p := config.Problem{Pos: config.Pos{File: path}}
	if underlying, ok := errors.AsType[*fs.PathError](err); ok {
		err = underlying.Err
	}
	p.What = "can't be read: " + err.Error()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.Remedy = "write the path of a file or directory with rules"
	case errors.Is(err, fs.ErrPermission):
		p.Remedy = "allow this process to read it"
	case tooManyOpen(err):
		p.Remedy = "raise the limit of open files (ulimit -n, or LimitNOFILE of systemd)"
	default:
		p.Remedy = "keep nothing but files with rules there"
	}
	return p
}

func tooManyOpen(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// readFile reads at most one byte more than the bound, which Parse then refuses.
func readFile(path string, bound int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var data bytes.Buffer
	if info, err := f.Stat(); err == nil { // for large files not to be copied as they come
		data.Grow(int(min(info.Size(), bound)) + bytes.MinRead)
	}
	_, err = data.ReadFrom(io.LimitReader(f, bound+1))
	return data.Bytes(), err
}

// Why a file of a directory is not read.
const (
	notByName = "its name does not end in .yaml, .yml or .json"
	leftover  = "an editor has left it behind"
)

// leftovers are the names of files that editors leave behind, for good or for a
// moment: backups, copies of what is not saved yet, locks, and tests of what they may
// do. Rules that are meant have no such names.
var leftovers = regexp.MustCompile(`~$` + // most
	`|^\.?#` + // Emacs
	`|^\..*\.sw[a-z]x?$|^4913$` + // Vim
	`|___jb_(tmp|old)___$` + // JetBrains
	`|^\.goutputstream-` + // GNOME
	`|\.kate-swp$`) // KDE

// skips returns why a file of this name, in a directory, is not read; empty if it is.
func (o FileOptions) skips(name string) (why string) {
	switch {
	case leftovers.MatchString(name):
		return leftover
	case o.AnyName:
		return ""
	}
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return ""
	}
	return notByName
}

// hides reports whether an entry of a directory counts for nothing, whatever it is:
// what Options leave out, and what Kubernetes keeps beside the links that people see,
// ..data and directories such as ..2026_01_02.
func (o FileOptions) hides(name string) bool {
	return strings.HasPrefix(name, "..") || o.SkipDotFiles && strings.HasPrefix(name, ".")
}

// walker visits files and directories by name, following links, each of them once.
type walker struct {
	opts    FileOptions
	dir     func(canonical string) // called before a directory is listed; may be nil
	link    func(path string)      // called before a link in a directory is followed; may be nil
	file    func(path string) error
	skipped func(path, why string) // may be nil
	failed  func(path string, err error)

	// By real paths:
	seen    map[string]bool // what has been visited
	listing map[string]bool // directories that are being listed: a link to one of them would not end
}

// walk visits what a path leads to.
func (w *walker) walk(path string) {
	if err := w.visit(path, false); err != nil {
		w.failed(path, err)
	}
}

// visit follows links, unless they lead from a directory to files that it skips.
func (w *walker) visit(path string, entry bool) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if entry && !info.IsDir() && w.skip(path) {
		return nil
	}
	canonical, err := realPath(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return w.list(path, canonical)
	case !info.Mode().IsRegular():
		return fmt.Errorf("neither a file nor a directory (%s)", info.Mode().Type())
	}
	return w.read(path, canonical)
}

// realPath returns the one absolute path without links.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// first reports whether a real path is seen for the first time.
func (w *walker) first(canonical string) bool {
	if w.seen[canonical] {
		return false
	}
	if w.seen == nil {
		w.seen, w.listing = map[string]bool{}, map[string]bool{}
	}
	w.seen[canonical] = true
	return true
}

func (w *walker) read(path, canonical string) error {
	if !w.first(canonical) {
		return nil
	}
	return w.file(path)
}

func (w *walker) skip(path string) bool {
	why := w.opts.skips(filepath.Base(path))
	if why != "" && w.skipped != nil {
		w.skipped(path, why)
	}
	return why != ""
}

func (w *walker) list(path, canonical string) error {
	if w.listing[canonical] {
		return errors.New("a link to a directory above it")
	}
	if !w.first(canonical) {
		return nil
	}
	if w.dir != nil {
		w.dir(canonical)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	w.listing[canonical] = true
	for _, e := range entries {
		if w.opts.hides(e.Name()) {
			continue
		}
		at := filepath.Join(path, e.Name())
		if err := w.entry(at, filepath.Join(canonical, e.Name()), e.Type()); err != nil {
			w.failed(at, err)
		}
	}
	delete(w.listing, canonical)
	return nil
}

// entry visits an entry of a directory. A link of an editor's, which leads nowhere, is
// not followed.
func (w *walker) entry(path, canonical string, kind fs.FileMode) error {
	switch {
	case kind.IsDir():
		return w.list(path, canonical)
	case kind == fs.ModeSymlink && w.opts.skips(filepath.Base(path)) != leftover:
		if w.link != nil {
			w.link(path)
		}
		return w.visit(path, true)
	case w.skip(path):
		return nil
	case kind.IsRegular():
		return w.read(path, canonical)
	}
	return w.visit(path, true)
}
