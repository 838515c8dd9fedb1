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
	"sync/atomic"
	"syscall"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// FileOptions choose the files of directories to read, and bound their size.
type FileOptions struct {
	// SkipDotFiles leaves out files and directories whose names begin with a dot.
	// Names that begin with two dots, by which Kubernetes swaps the content of
	// its volumes, are always left out.
	SkipDotFiles bool
	// AnyName reads the files of directories whatever their names, as
	// envoyproxy/ratelimit does, except for those that editors leave behind.
	// Otherwise only names that end in .yaml, .yml or .json are read.
	AnyName bool
	// MaxBytes bounds each file. At most one byte more is read, by which the parser
	// sees that the file is too large. 0 means DefaultMaxBytes.
	MaxBytes int64
	// MaxNames bounds the names in the directories that one path leads to. What has more is
	// no directory of rules: it is / or someone's home, named by mistake, and reading all of
	// it would take minutes. 0 means 100,000.
	MaxNames int
}

// Files provides the rules of files and of directories with their subdirectories.
//
// A path may name a file of any name. In directories it reads files with the names of
// YAML or JSON, or all files with [FileOptions.AnyName], but never those that editors
// leave behind. It follows links. If several paths lead to one file or directory, it is
// read once, by the first of them.
type Files struct {
	// Paths are read in this order, the files of a directory by name.
	Paths   []string
	Options FileOptions
	// Skipped is called, each time a directory is read, for each of its files that is
	// not read because of its name, with the reason. May be nil.
	Skipped func(path, why string)

	at atomic.Pointer[string] // what Reading returns
}

// Load reads the files and calls load with them. The error is a *config.Invalid with every
// problem of every file.
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

// Sources reads all files. The error is a *config.Invalid with a problem for each file
// that can't be read. The sources are the other files.
func (f *Files) Sources(ctx context.Context) ([]rulefile.Source, error) {
	var sources []rulefile.Source
	var problems []config.Problem
	var skipped []skip
	w := walker{opts: f.Options, at: func(path string) { f.at.Store(&path) }, file: func(path string) error {
		data, err := readFile(path, cmp.Or(f.Options.MaxBytes, rulefile.DefaultMaxBytes))
		if err == nil {
			sources = append(sources, rulefile.Source{Name: path, Data: data})
		}
		return err
	}, skipped: func(path, why string) { skipped = append(skipped, skip{path, why}) }, failed: func(path string, err error) {
		problems = append(problems, unreadable(path, err))
	}}
	for _, path := range f.Paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		read, wrong := len(sources), len(problems)
		skipped = nil
		err := w.walk(path)
		if isTooManyNames(err) { // then what is there has nothing to do with rules
			sources, problems, skipped = sources[:read], problems[:wrong], nil
		}
		if err != nil {
			w.failed(path, err)
		}
		for _, s := range skipped {
			if f.Skipped != nil {
				f.Skipped(s.path, s.why)
			}
		}
	}
	return sources, invalid(problems)
}

// skip is a file that is not read.
type skip struct{ path, why string }

// Reading implements Reader.
func (f *Files) Reading() string {
	if path := f.at.Load(); path != nil {
		return *path
	}
	return ""
}

// unreadable returns the problem of a file that can't be read, with a remedy.
func unreadable(path string, err error) config.Problem {
	p := config.Problem{Pos: config.Pos{File: path}}
	if underlying, ok := errors.AsType[*fs.PathError](err); ok {
		err = underlying.Err
	}
	p.What = "can't be read: " + err.Error()
	target, noLink := os.Readlink(path)
	switch {
	case path == "": // of a variable that is not set, perhaps
		p.What, p.Remedy = "a path is empty", "write the path of a file or directory with rules"
	case errors.Is(err, fs.ErrNotExist) && noLink == nil:
		p.What = fmt.Sprintf("can't be read: it is a link to %s, which does not exist", target)
		p.Remedy = "put back what it leads to, or remove the link"
	case errors.Is(err, fs.ErrNotExist):
		p.Remedy = "write the path of a file or directory with rules"
	case errors.Is(err, fs.ErrPermission):
		p.Remedy = "allow this process to read it"
	case isTooManyNames(err):
		p.Remedy = "name the directory with the rules"
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
	if info, err := f.Stat(); err == nil { // so that the buffer need not grow
		data.Grow(int(min(info.Size(), bound)) + bytes.MinRead)
	}
	_, err = data.ReadFrom(io.LimitReader(f, bound+1))
	return data.Bytes(), err
}

// Reasons why a file of a directory is not read.
const (
	notByName = "its name does not end in .yaml, .yml or .json"
	leftover  = "an editor has left it behind"
)

// leftovers are the names of files that editors leave behind, some of them for a moment
// only: backups, unsaved copies, locks, and tests of permissions. Nobody gives such names
// to rules.
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

// hides reports whether an entry of a directory is ignored, be it a file or a directory.
// The options leave some out. Kubernetes keeps others beside the links that people see:
// ..data and directories such as ..2026_01_02.
func (o FileOptions) hides(name string) bool {
	return strings.HasPrefix(name, "..") || o.SkipDotFiles && strings.HasPrefix(name, ".")
}

const defaultMaxNames = 100_000

// tooManyNames is the error of a path that leads to more names than this bound.
type tooManyNames int

// Error implements error.
func (n tooManyNames) Error() string {
	return fmt.Sprintf("it leads to more than %d files and directories", int(n))
}

func isTooManyNames(err error) bool {
	_, is := errors.AsType[tooManyNames](err)
	return is
}

// walker visits files and directories in the order of their names. It follows links, and
// visits each file and directory once.
type walker struct {
	opts    FileOptions
	at      func(path string)      // called before anything is read; may be nil
	dir     func(canonical string) // called before a directory is listed; may be nil
	link    func(path string)      // called before a link in a directory is followed; may be nil
	file    func(path string) error
	skipped func(path, why string)       // may be nil
	failed  func(path string, err error) // called for what a directory has

	names int // in the directories that the path of walk leads to

	// By real paths:
	seen    map[string]bool // visited
	listing map[string]bool // directories being listed: following a link to one would not end
}

// walk visits the file or directory at a path.
func (w *walker) walk(path string) error {
	w.names = 0
	return w.visit(path, false)
}

// visit follows links, except links in a directory to files that are skipped.
func (w *walker) visit(path string, entry bool) error {
	w.reads(path)
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
	w.reads(path)
	return w.file(path)
}

func (w *walker) reads(path string) {
	if w.at != nil {
		w.at(path)
	}
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
	w.reads(path)
	if w.dir != nil {
		w.dir(canonical)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	w.names += len(entries)
	if most := cmp.Or(w.opts.MaxNames, defaultMaxNames); w.names > most {
		return tooManyNames(most)
	}
	w.listing[canonical] = true
	for _, e := range entries {
		if w.opts.hides(e.Name()) {
			continue
		}
		at := filepath.Join(path, e.Name())
		err := w.entry(at, filepath.Join(canonical, e.Name()), e.Type())
		if isTooManyNames(err) {
			return err
		}
		if err != nil {
			w.failed(at, err)
		}
	}
	delete(w.listing, canonical)
	return nil
}

// entry visits an entry of a directory. It does not follow the links of editors, which
// lead nowhere.
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
