package rulestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	text, err := f.read()
	if errors.Is(err, fs.ErrNotExist) {
		return Set{}, nil
	}
	if err != nil {
		return Set{}, fmt.Errorf("the admin rules: %w", err)
	}
	set, err := decode(text)
	if err != nil {
		sum := sha256.Sum256(text)
		return Set{stored: true, token: fmt.Sprintf("unusable-%x", sum[:8]), unusable: true}, fmt.Errorf("%w: %s: %w", ErrUnusable, f.path, err)
	}
	return set, nil
}

// read returns the content of the file, at most one byte more than may be stored.
func (f *File) read() ([]byte, error) {
	if info, err := os.Stat(f.path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: name another", f.path)
	}
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, MaxBytes+1))
}

// Save implements Store.
func (f *File) Save(ctx context.Context, prev, next Set) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := f.Load(ctx)
	if err != nil && !now.unusable {
		return err
	}
	if now.Token() != prev.Token() {
		return ErrConflict
	}
	if now.unusable {
		if err := f.setAside(); err != nil {
			return err
		}
	}
	return f.replace(next)
}

// setAside renames a file that can't be used, so that nothing is lost with it. One
// that never was a set of rules stays where it is: its path was given by mistake.
func (f *File) setAside() error {
	text, err := f.read()
	if err != nil {
		return err
	}
	if text = bytes.Trim(text, " \t\r\n\x00"); len(text) > 0 && text[0] != '{' {
		return fmt.Errorf("%s is a file of something else: move it away, or name another for admin rules", f.path)
	}
	return os.Rename(f.path, f.path+".unusable")
}

// replace writes a new file beside the old one, and renames it when all of it is
// on disk: a crash leaves one of the two.
func (f *File) replace(set Set) error {
	text, err := json.MarshalIndent(set, "", "  ")
	if len(text) >= MaxBytes { // which is no bound on how far people would indent
		text, err = json.Marshal(set)
	}
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
