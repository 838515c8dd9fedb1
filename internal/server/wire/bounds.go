package wire

import (
	"cmp"
	"fmt"

	"github.com/distlimiter/ratelimit/internal/limiter"
)

// Bounds limits the size of a request, against mistakes and attacks; 0 means the default.
type Bounds struct {
	Descriptors int // DefaultMaxDescriptors
	Entries     int // of one descriptor; DefaultMaxEntries
	EntryBytes  int // of the keys and values of one descriptor together; DefaultMaxEntryBytes
}

// Defaults of Bounds.
const (
	DefaultMaxDescriptors = 64
	DefaultMaxEntries     = 32
	// DefaultMaxEntryBytes is more than all headers that Envoy lets a client send by default
	// (60 KiB). A request beyond a bound is not decided, and Envoy may let it pass.
	DefaultMaxEntryBytes = 64 << 10
)

// The names of the bounds in a *limiter.OptionError.
const (
	BoundDescriptors = "Bounds.Descriptors"
	BoundEntries     = "Bounds.Entries"
	BoundEntryBytes  = "Bounds.EntryBytes"
)

// OrDefaults returns the bounds, with the default for each that is 0.
func (b Bounds) OrDefaults() Bounds {
	return Bounds{
		Descriptors: cmp.Or(b.Descriptors, DefaultMaxDescriptors),
		Entries:     cmp.Or(b.Entries, DefaultMaxEntries),
		EntryBytes:  cmp.Or(b.EntryBytes, DefaultMaxEntryBytes),
	}
}

// excess returns an error for a descriptor with too many entries, or with keys and values
// of too many bytes; nil if it is within the bounds.
func (b *Bounds) excess(descriptor, entries, bytes int) error {
	switch {
	case entries > b.Entries:
		return tooLarge(BoundEntries, "descriptors[%d] has %d entries: at most %d are accepted", descriptor, entries, b.Entries)
	case bytes > b.EntryBytes:
		return tooLarge(BoundEntryBytes, "descriptors[%d] has keys and values of %d bytes: at most %d are accepted", descriptor, bytes, b.EntryBytes)
	}
	return nil
}

// exceeded returns an error for a request with too many descriptors, or else that of its
// first descriptor that exceeds a bound.
func (b *Bounds) exceeded(descriptors int, first error) error {
	if descriptors > b.Descriptors {
		return tooLarge(BoundDescriptors, "%d descriptors in a request: at most %d are accepted", descriptors, b.Descriptors)
	}
	return first
}

func tooLarge(bound, format string, args ...any) error {
	return &limiter.RequestError{Err: &limiter.OptionError{Option: bound, Err: fmt.Errorf(format, args...)}}
}
