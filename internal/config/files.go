package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Load reads and validates rules from files and directories, of which every
// file counts, in subdirectories too. The error is an *Invalid with every
// problem of every file.
func Load(paths []string, opts Options) (*Rules, error) {
	sources, err := (&Files{Paths: paths, Options: opts}).Sources(context.Background())
	if err != nil {
		return newParser(opts).parseAll(sources, []error{err})
	}
	return Parse(sources, opts)
}

// Files provides the rules of files and directories.
type Files struct {
	// Paths are read in this order, the files of a directory by name.
	Paths   []string
	Options Options
}

// Origin implements Provider.
func (f *Files) Origin() Origin { return FromFile }

// Sources reads all files. The error is an *Invalid with a problem for each
// that can't be read; the sources are the others.
func (f *Files) Sources(ctx context.Context) ([]Source, error) {
	var sources []Source
	var problems []Problem
	w := walker{opts: f.Options, file: func(path string) error {
		data, err := readFile(path, f.Options.maxBytes())
		if err == nil {
			sources = append(sources, Source{Name: path, Data: data})
		}
		return err
	}, failed: func(path string, err error) {
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
func unreadable(path string, err error) Problem {
	p := Problem{Pos: Pos{File: path}}
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

// walker visits files and directories by name, following links.
type walker struct {
	opts    Options
	dir     func(path string) // called before a directory is listed; may be nil
	link    func(path string) // called before a link in a directory is followed; may be nil
	file    func(path string) error
	failed  func(path string, err error)
	parents []os.FileInfo // directories being listed: a link to one of them would not end
}

func (w *walker) walk(path string) {
	if err := w.visit(path); err != nil {
		w.failed(path, err)
	}
}

func (w *walker) visit(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return w.list(path, info)
	case !info.Mode().IsRegular():
		return fmt.Errorf("neither a file nor a directory (%s)", info.Mode().Type())
	}
	return w.file(path)
}

func (w *walker) list(path string, info os.FileInfo) error {
	for _, parent := range w.parents {
		if os.SameFile(parent, info) {
			return errors.New("a link to a directory above it")
		}
	}
	if w.dir != nil {
		w.dir(path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	w.parents = append(w.parents, info)
	for _, e := range entries {
		w.entry(filepath.Join(path, e.Name()), e)
	}
	w.parents = w.parents[:len(w.parents)-1]
	return nil
}

// entry leaves out what Options say, and what Kubernetes keeps beside the links
// that people see: ..data and directories such as ..2026_01_02.
func (w *walker) entry(path string, e fs.DirEntry) {
	if strings.HasPrefix(e.Name(), "..") || w.opts.SkipDotFiles && strings.HasPrefix(e.Name(), ".") {
		return
	}
	if e.Type() == fs.ModeSymlink && w.link != nil {
		w.link(path)
	}
	if !e.Type().IsRegular() {
		w.walk(path)
	} else if err := w.file(path); err != nil {
		w.failed(path, err)
	}
}
