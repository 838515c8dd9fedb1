// Package ownfile replaces files that belong to this program, and no others. The content
// of the files, and the time to write them, are left to the packages that use them.
//
// It writes a new file beside the old one and renames it when all of it is on disk, so
// that a crash leaves one of the two intact. Before that it checks the old file. A
// symbolic link, a directory, a pipe, a device, or a file that does not begin like one
// of this program's files is left as it is, and the error is [ErrForeign]. The check
// comes right before the rename, not with it: a file that another process puts there in
// the microseconds between them is replaced.
package ownfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
)

// ErrForeign is wrapped by errors about a path that is not a file of this program, and
// so is neither moved, replaced nor written to. The errors name the path and the reason.
var ErrForeign = errors.New("left as it is")

// headBytes is how many bytes of a file are enough to recognise it.
const headBytes = 512

// File is a file that this program alone writes. It need not exist yet.
type File struct {
	Path string
	// Ours reports whether a file that begins like this is one of this program's.
	// It gets at most the first 512 bytes; none of an empty file.
	Ours func(head []byte) bool
	// What names such a file in errors, with its article, as in "a snapshot".
	What string
}

// Check returns nil if there is no file, or one that may be replaced.
func (f File) Check() error {
	file, err := f.Open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return file.Close()
}

// Open opens the file for reading. It never waits for the other end of a pipe. The
// error is [io/fs.ErrNotExist] if there is none.
func (f File) Open() (*os.File, error) { return f.open(os.O_RDONLY) }

// Update opens the file, which must exist, and calls change to write to it. When
// it returns nil the change is on disk.
func (f File) Update(change func(*os.File) error) error {
	file, err := f.open(os.O_RDWR)
	if err != nil {
		return err
	}
	err = change(file)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func (f File) open(flag int) (*os.File, error) {
	info, err := os.Lstat(f.Path) // before opening: to open a device may have effects
	if err != nil {
		return nil, err
	}
	if err := f.checkKind(info); err != nil {
		return nil, err
	}
	// It may be another file by now.
	file, err := os.OpenFile(f.Path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := f.checkContent(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func (f File) checkKind(info fs.FileInfo) error {
	switch kind := info.Mode().Type(); {
	case kind.IsRegular():
		return nil
	case kind == fs.ModeSymlink:
		target, err := os.Readlink(f.Path)
		if err != nil {
			return err
		}
		return f.foreign("is a symbolic link: name what it leads to, " + target)
	case kind.IsDir():
		return f.foreign("is a directory: name a file in it")
	default:
		return f.foreign(fmt.Sprintf("is not a regular file (%s): name another", kind))
	}
}

// checkContent leaves an open file at its start if it is this program's.
func (f File) checkContent(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := f.checkKind(info); err != nil {
		return err
	}
	head := make([]byte, headBytes)
	n, err := io.ReadFull(file, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if !f.Ours(head[:n]) {
		return f.foreign("is not " + f.What + ": name a file that does not exist yet, or move this one away")
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}

func (f File) foreign(why string) error {
	return fmt.Errorf("%s %s; it is %w", f.Path, why, ErrForeign)
}

// CheckWritable returns early the error that would keep Replace from writing.
func (f File) CheckWritable() error {
	temporary, err := f.create()
	if err != nil {
		return err
	}
	return errors.Join(temporary.Close(), os.Remove(temporary.Name()))
}

// Replace calls write to write a new file, which only its owner can read, and replaces
// the old file, if any. When it returns nil, the new file is on disk; after an error,
// the old one still is.
func (f File) Replace(write func(io.Writer) error) error {
	temporary, err := f.create()
	if err != nil {
		return err
	}
	err = write(temporary)
	if err == nil {
		err = temporary.Sync()
	}
	if err == nil {
		err = f.Check()
	}
	if err == nil {
		err = os.Rename(temporary.Name(), f.Path)
	}
	if errors.Is(err, syscall.EBUSY) {
		err = fmt.Errorf("%w: it is a mount point: mount the directory in place of the file", err)
	}
	if err != nil {
		return errors.Join(err, temporary.Close(), os.Remove(temporary.Name()))
	}
	return errors.Join(temporary.Close(), f.syncDir())
}

// create makes a temporary file beside the file. The lock on it, held until it is
// closed, shows Clean that it is still being written.
func (f File) create() (*os.File, error) {
	dir, name := f.split()
	for {
		temporary, err := os.CreateTemp(dir, "."+name+".ratelimit-*.tmp") // mode 0600
		if err != nil {
			return nil, err
		}
		if err := lock(temporary, syscall.LOCK_EX); err != nil {
			return nil, errors.Join(err, temporary.Close(), os.Remove(temporary.Name()))
		}
		// Clean may have removed it before it was locked.
		if _, err := os.Lstat(temporary.Name()); err == nil {
			return temporary, nil
		}
		if err := temporary.Close(); err != nil {
			return nil, err
		}
	}
}

// Clean removes temporary files of processes that were killed while they wrote this
// file. Temporary files that are still being written stay.
func (f File) Clean() error {
	dir, name := f.split()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	pattern := regexp.MustCompile(`^\.` + regexp.QuoteMeta(name) + `\.ratelimit-[0-9]+\.tmp$`)
	var errs []error
	for _, e := range entries {
		if e.Type().IsRegular() && pattern.MatchString(e.Name()) {
			errs = append(errs, removeAbandoned(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// removeAbandoned removes a file that no process has locked.
func removeAbandoned(path string) error {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) { // it has been renamed, or removed by another
		return nil
	}
	if err != nil {
		return err
	}
	err = lock(file, syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = nil
	case err == nil:
		if err = os.Remove(path); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return errors.Join(err, file.Close())
}

// lock locks an open file until it is closed or its process ends.
func lock(file *os.File, how int) error {
	for {
		err := syscall.Flock(int(file.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// SetAside renames the file, which must exist, by adding the suffix, and returns its new
// path. It replaces a file that was set aside before.
func (f File) SetAside(suffix string) (string, error) {
	aside := f
	aside.Path += suffix
	if err := errors.Join(f.Check(), aside.Check()); err != nil {
		return "", err
	}
	if err := os.Rename(f.Path, aside.Path); err != nil {
		return "", err
	}
	return aside.Path, f.syncDir()
}

func (f File) split() (dir, name string) {
	return filepath.Dir(f.Path), filepath.Base(f.Path)
}

// syncDir flushes a rename to disk.
func (f File) syncDir() error {
	name, _ := f.split()
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
