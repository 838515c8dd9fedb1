package descriptor

import (
	"errors"
	"fmt"
	"strings"
)

// Entries is a request descriptor in the form key=value,key=value. A backslash escapes a
// comma, a backslash, or an equals sign in a key. A key alone has the empty value.
type Entries []Entry

// UnmarshalText implements encoding.TextUnmarshaler.
func (e *Entries) UnmarshalText(text []byte) error {
	*e = nil
	var key *string // of an entry whose value is being read
	var part strings.Builder
	end := func() error {
		entry := Entry{Key: part.String()}
		if key != nil {
			entry = Entry{Key: *key, Value: part.String()}
		}
		if entry.Key == "" {
			return fmt.Errorf("entry %d of %q has no key: write key=value,key=value", len(*e)+1, text)
		}
		*e = append(*e, entry)
		key = nil
		part.Reset()
		return nil
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			part.WriteByte(text[i])
		case c == '\\':
			return errors.New(`a \ at the end escapes nothing: write \\ for a backslash`)
		case c == '=' && key == nil:
			k := part.String()
			key = &k
			part.Reset()
		case c == ',':
			if err := end(); err != nil {
				return err
			}
		default:
			part.WriteByte(c)
		}
	}
	return end()
}

// String writes e so that UnmarshalText reads it back.
func (e Entries) String() string {
	escapeKey := strings.NewReplacer(`\`, `\\`, `,`, `\,`, `=`, `\=`)
	escapeValue := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	var b strings.Builder
	for i, entry := range e {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(escapeKey.Replace(entry.Key))
		if entry.Value != "" {
			b.WriteByte('=')
			b.WriteString(escapeValue.Replace(entry.Value))
		}
	}
	return b.String()
}
