package secretfile_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/secretfile"
)

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for _, tt := range []struct{ content, want string }{
		{"", ""},
		{"hush", "hush"},
		{" hush \r\n\n", " hush "},
		{strings.Repeat("x", 64<<10), strings.Repeat("x", 64<<10)},
	} {
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := secretfile.Read(path); err != nil || !bytes.Equal(got, []byte(tt.want)) {
			t.Errorf("%.20q: %.20q, %v", tt.content, got, err)
		}
	}
	if err := os.WriteFile(path, make([]byte, 64<<10+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		path:           "more than 65536 bytes",
		"/dev/zero":    "/dev/zero is no secret",
		path + "/none": "not a directory",
		t.TempDir():    "is a directory",
	} {
		if _, err := secretfile.Read(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}
