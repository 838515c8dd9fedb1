// Package keys owns the names of counters in Redis, and the IDs that distinguish
// counters there and in this service.
package keys

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/distlimiter/ratelimit/internal/backend"
)

// ID is the first 128 bits of the SHA-256 of a counter's key. It distinguishes
// counters in Redis and here. All IDs are short and of one length, and keep the
// content of descriptors (addresses, tokens) out of Redis.
type ID [16]byte

// IDOf returns the ID of a counter's key.
func IDOf(key []byte) ID {
	sum := sha256.Sum256(key)
	return ID(sum[:])
}

// Naming is how counters are named in Redis:
//
//	prefix:id             by default
//	prefix:{shard}:id     where keys are spread, when the check has a shard
//	prefix:{shard}:key    when people should read the keys; {shard} as above
//	prefix:{shard}:hex    the ID, when such a key has more than 1 KiB
//
// A hash tag is always a hash of fixed length. A descriptor's own opening braces are
// written as \x7b, so that they never begin a hash tag.
type Naming struct {
	Prefix string
	Tagged bool // keys have hash tags, because they are spread over several servers
	Plain  bool // keys are readable by people
}

// mostPlain bounds, in bytes, the keys that are readable. Clients choose how long the values
// in a key are. Beyond some 16 KiB twemproxy closes the connection, with the calls of others,
// and until then Redis' memory would fill with what is in them.
const mostPlain = 1 << 10

// Append appends to dst the name of a check's counter, whose ID is of.
func (n Naming) Append(dst []byte, c *backend.Check, of ID) []byte {
	dst = append(append(dst, n.Prefix...), ':')
	if n.Tagged && c.Shard > 0 {
		shard := IDOf(c.Key[:c.Shard])
		dst = hex.AppendEncode(append(dst, '{'), shard[:3])
		dst = append(dst, '}', ':')
	}
	switch {
	case n.Plain && len(c.Key) > mostPlain:
		return hex.AppendEncode(dst, of[:]) // a readable key begins with a quote
	case n.Plain:
		return append(dst, strings.ReplaceAll(strconv.QuoteToASCII(string(c.Key)), "{", `\x7b`)...)
	}
	return append(dst, of[:]...)
}

// Slot identifies keys that may go in one call. It is 0 for all keys of one server;
// where keys are spread, it is derived from the part that selects their slot.
type Slot uint64

// Slot returns the slot of a check's counter, whose ID is of.
func (n Naming) Slot(c *backend.Check, of ID) Slot {
	switch {
	case !n.Tagged:
		return 0
	case c.Shard > 0:
		of = IDOf(c.Key[:c.Shard])
		return Slot(of[0]) | Slot(of[1])<<8 | Slot(of[2])<<16
	}
	return Slot(binary.LittleEndian.Uint64(of[:]))
}
