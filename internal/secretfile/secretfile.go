// Package secretfile reads secrets, such as tokens and passwords, from files.
package secretfile

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// most bounds a secret in bytes. What is larger is another file, or a device that never
// ends.
const most = 64 << 10

// Read returns the content of a file without the line ends after it. The error says what
// is wrong with the file.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if len(text) > most {
		return nil, fmt.Errorf("%s is no secret: it has more than %d bytes", path, most)
	}
	return bytes.TrimRight(text, "\r\n"), nil
}
