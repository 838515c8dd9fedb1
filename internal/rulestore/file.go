package rulestore

import (
	"context"
	"crypto/sha256"
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

	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/ownfile"
)

// File keeps rules in a file that only this process uses, and replaces it as a whole.
// Others may edit or restore the file while nothing is saved.
type File struct {
	file ownfile.File
	mu   sync.Mutex // from reading to replacing
	last decoder
}

var _ Store = (*File)(nil)

// begins matches the beginning of every set that this program has written or an editor
// has indented. It also matches an empty file, or one of zero bytes, which a full disk
// or a crash may leave.
var begins = regexp.MustCompile(`^[\s\x00]*($|\{\s*"(revision|domains)"\s*:)`)

// NewFile returns a store in the file, which need not exist yet. The error says why the
// file could not be written; it wraps [ownfile.ErrForeign] if the path holds something
// else. NewFile removes temporary files of processes that were killed while they wrote.
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
		return nil, fmt.Errorf("%s is not a directory", filepath.Dir(path))
	}
	f := &File{file: ownfile.File{Path: path, Ours: begins.Match, What: "a file of admin rules"}}
	if err := f.file.Check(); err != nil {
		return nil, err
	}
	// A read-only directory must not keep the file from being read.
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
	if errors.Is(err, ownfile.ErrForeign) {
		return Set{hasToken: true, token: "foreign", unusable: true}, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	if err != nil {
		return Set{}, fmt.Errorf("the admin rules: %w", err)
	}
	set, err := f.last.decode(text)
	if err != nil {
		sum := sha256.Sum256(text)
		return Set{hasToken: true, token: fmt.Sprintf("unusable-%x", sum[:8]), unusable: true}, fmt.Errorf("%w: %s: %w", ErrUnusable, f.file.Path, err)
	}
	return set, nil
}

// read returns the content of the file, up to one byte more than a set may have.
func (f *File) read() ([]byte, error) {
	file, err := f.file.Open()
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
	if err != nil && (!now.unusable || errors.Is(err, ownfile.ErrForeign)) {
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

// setAside renames a file that can't be used, so that its content is not lost.
func (f *File) setAside() error {
	_, err := f.file.SetAside(".unusable")
	return err
}

func (f *File) replace(set Set) error {
	text, err := json.MarshalIndent(set, "", "  ")
	if len(text) >= MaxBytes { // the bound is on the set, not on its indentation
		text, err = json.Marshal(set)
	}
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
	return (&reload.Files{Paths: []string{f.file.Path}}).Watch(ctx, changed)
}
