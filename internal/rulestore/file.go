package rulestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/ownfile"
)

// File keeps rules in a file of this process alone, which is replaced as a
// whole. It may be edited or restored by others while nothing is saved.
type File struct {
	file ownfile.File
	mu   sync.Mutex // from reading to replacing
}

var _ Store = (*File)(nil)

// begins is how every set begins that this program has written, or an editor has
// indented.
var begins = regexp.MustCompile(`^\s*\{\s*"(revision|domains)"\s*:`)

// NewFile returns a store in the file, which need not exist yet. The error says
// why it could not be written; it wraps [ownfile.ErrForeign] if something else is
// there. What was left by processes that were killed while they wrote it is removed.
func NewFile(path string) (*File, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	dir, err := os.Stat(filepath.Dir(path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no directory %s: make it, or name a file elsewhere", filepath.Dir(path))
	case err != nil:
		return nil, err
	case !dir.IsDir():
		return nil, fmt.Errorf("%s is no directory", filepath.Dir(path))
	}
	f := &File{file: ownfile.File{Path: path, Ours: begins.Match, What: "a file of admin rules"}}
	if err := f.file.Check(); err != nil {
		return nil, err
	}
	// A directory that can only be read is no reason not to read.
	if err := f.file.Clean(); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		return nil, err
	}
	return f, nil
}

// Load implements Store.
func (f *File) Load(context.Context) (Set, error) {
	text, err := f.read()
	if errors.Is(err, fs.ErrNotExist) {
		return Set{}, nil
	}
	if err != nil {
		return Set{}, fmt.Errorf("the admin rules: %w", err)
	}
	set, err := decode(text)
	if err != nil {
		return Set{}, fmt.Errorf("%s holds no admin rules that can be read: %w; restore it, or remove it to do without them", f.file.Path, err)
	}
	return set, nil
}

func (f *File) read() ([]byte, error) {
	file, err := f.file.Open()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(file)
}

// Save implements Store.
func (f *File) Save(ctx context.Context, prev, next Set) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := f.Load(ctx)
	if err != nil {
		return err
	}
	if now.Token() != prev.Token() {
		return ErrConflict
	}
	return f.replace(next)
}

func (f *File) replace(set Set) error {
	text, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return err
	}
	err = f.file.Replace(func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
	if err != nil {
		return fmt.Errorf("saving the admin rules: %w", err)
	}
	return nil
}

// Watch implements Store.
func (f *File) Watch(ctx context.Context, changed func()) error {
	return (&config.Files{Paths: []string{f.file.Path}}).Watch(ctx, changed)
}
