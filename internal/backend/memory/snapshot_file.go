package memory

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/distlimiter/ratelimit/internal/ownfile"
)

// Snapshot is the file in which a store keeps its counters over restarts. It is
// safe for concurrent use.
type Snapshot struct {
	store *Store
	file  ownfile.File

	mu   sync.Mutex  // serializes Load, Save and Forget
	last os.FileInfo // of the file that was last loaded or saved; nil: none
	end  int64       // of its valid content, in bytes
}

// Loaded is the result of loading a snapshot.
type Loaded struct {
	Keys      int       // taken over
	Forgotten int       // left out, because they were forgotten after the save
	Saved     time.Time // zero for a file that is empty
}

// Snapshot returns the snapshot file of the store at path. The file need not exist; an
// empty file counts as none. The error says why the store could not be saved there; it
// wraps [ownfile.ErrForeign] if the file is not a snapshot. Snapshot removes the
// leftovers of processes that were killed during a save.
func (s *Store) Snapshot(path string) (*Snapshot, error) {
	f := ownfile.File{Path: path, What: "a snapshot",
		Ours: func(head []byte) bool { return len(head) == 0 || isSnapshot(head) }}
	if err := f.Check(); err != nil {
		return nil, err
	}
	if err := errors.Join(f.CheckWritable(), f.Clean()); err != nil {
		return nil, fmt.Errorf("a snapshot could not be saved: %w", err)
	}
	return &Snapshot{store: s, file: f}, nil
}

// Load is [Store.Load] of the file. The error is [io/fs.ErrNotExist] if there is none,
// and wraps [ErrSnapshotDamaged] or [ErrSnapshotVersion] if it can't be used.
func (s *Snapshot) Load() (Loaded, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.file.Open()
	if err != nil {
		return Loaded{}, fmt.Errorf("loading a snapshot: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Loaded{}, fmt.Errorf("loading a snapshot: %w", err)
	}
	if info.Size() == 0 {
		return Loaded{}, nil
	}
	loaded, end, err := s.store.load(f)
	if err != nil {
		return Loaded{}, fmt.Errorf("%s: %w", s.file.Path, err)
	}
	s.last, s.end = info, end
	return loaded, nil
}

// Save writes the file, which only its owner can read. It replaces the old file in
// one step, once the snapshot is on disk.
func (s *Snapshot) Save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.file.Replace(s.store.Save)
	if err == nil {
		s.last, err = os.Lstat(s.file.Path)
	}
	if err != nil {
		return fmt.Errorf("saving a snapshot: %w", err)
	}
	s.end = s.last.Size()
	return nil
}

// SetAside renames a file that can't be used, and returns its new path.
func (s *Snapshot) SetAside() (string, error) { return s.file.SetAside(".unusable") }

// Forget marks keys in the file, after [Store.Reset] has removed them from the store,
// so that a load does not bring them back. When it returns nil, the marks are on disk.
// It appends the keys and does not write the snapshot again.
func (s *Snapshot) Forget(keys [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(keys) == 0 {
		return nil
	}
	err := s.file.Update(func(f *os.File) error {
		info, err := f.Stat()
		if err != nil || info.Size() == 0 {
			return err
		}
		if s.last == nil || !os.SameFile(s.last, info) {
			return errors.New("the file has another snapshot than the one that this process loaded or saved")
		}
		// Remove the remains of a write that failed.
		if err := f.Truncate(s.end); err != nil {
			return err
		}
		if _, err := f.Seek(s.end, io.SeekStart); err != nil {
			return err
		}
		out := snapshotWriter{w: f}
		for _, key := range keys {
			if err := out.forget(key); err != nil {
				return err
			}
		}
		if err := out.flush(); err != nil {
			return err
		}
		end, err := f.Seek(0, io.SeekCurrent)
		if err == nil {
			s.end = end
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("marking counters as forgotten in %s: %w", s.file.Path, err)
	}
	return nil
}
