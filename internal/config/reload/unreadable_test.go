package reload

import (
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

// TestRemediesNameTheCause checks the remedies for the system's errors.
func TestRemediesNameTheCause(t *testing.T) {
	for err, want := range map[error]string{
		syscall.EMFILE: "raise the limit of open files",
		syscall.ENFILE: "raise the limit of open files",
		syscall.EACCES: "allow this process to read it",
		syscall.ENOENT: "write the path of a file",
	} {
		p := unreadable("a.yaml", &fs.PathError{Op: "open", Path: "a.yaml", Err: err})
		if !strings.Contains(p.Remedy, want) || !strings.Contains(p.What, err.Error()) {
			t.Errorf("%v: %v", err, p)
		}
	}
	for err, want := range map[error]string{syscall.EMFILE: "max_user_instances", syscall.ENOSPC: "max_user_watches", syscall.EIO: ""} {
		if got := watchRemedy(err); !strings.Contains(got, want) {
			t.Errorf("%v: %q", err, got)
		}
	}
}
