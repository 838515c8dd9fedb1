package rulestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/distlimiter/ratelimit/internal/config"
)

// File keeps rules in a file of this process alone, which is replaced as a
// whole. It may be edited or restored by others while nothing is saved.
type File struct {
	path string
	mu   sync.Mutex // from reading to replacing
}

var _ Store = (*File)(nil)

// NewFile returns a store in the file, which need not exist yet. The error says
// why it could not be written.
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
	return &File{path: path}, nil
}

// Load implements Store.
func (f *File) Load(context.Context) (Set, error) {
	text, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Set{}, nil
	}
	if err != nil {
		return Set{}, fmt.Errorf("the admin rules: %w", err)
	}
	set, err := decode(text)
	if err != nil {
		return Set{}, fmt.Errorf("%s holds no admin rules that can be read: %w; restore it, or remove it to do without them", f.path, err)
	}
	return set, nil
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

// replace writes a new file beside the old one, and renames it when all of it is
// on disk: a crash leaves one of the two.
func (f *File) replace(set Set) error {
	text, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return err
	}
	dir, name := filepath.Split(f.path)
	beside := filepath.Join(dir, "."+name+".new")
	if err := write(beside, append(text, '\n')); err != nil {
		return fmt.Errorf("saving the admin rules: %w", errors.Join(err, os.Remove(beside)))
	}
	if err := os.Rename(beside, f.path); err != nil {
		return fmt.Errorf("saving the admin rules: %w", err)
	}
	return syncDir(dir)
}

// write leaves a file of which all is on disk, for its owner only. What a crash
// left there is removed, rather than written to: it may be a link, or another's.
func write(path string, text []byte) (err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.Write(text); err != nil {
		return err
	}
	return file.Sync()
}

// syncDir puts a rename on disk.
func syncDir(path string) (err error) {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return dir.Sync()
}

// Watch implements Store.
func (f *File) Watch(ctx context.Context, changed func()) error {
	return (&config.Files{Paths: []string{f.path}}).Watch(ctx, changed)
}
