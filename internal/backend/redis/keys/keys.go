// Package keys owns how counters are named in Redis, and what tells them apart
// there and in this service.
package keys

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/distlimiter/ratelimit/internal/backend"
)

// ID is a counter's key cut down to 128 bits of SHA-256: what tells counters
// apart in Redis and here. It makes the key of every counter short and as long
// as any other, and keeps what descriptors hold (addresses, tokens) out of Redis.
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
//	prefix:{shard}:key    when keys are to be read by people; {shard} as above
//
// A hash tag is always a hash of fixed length: a descriptor's own braces are
// written as \x7b, so that none of them makes one.
type Naming struct {
	Prefix string
	Tagged bool // keys have hash tags, for they are spread over several servers
	Plain  bool // for people
}

// Append appends the name of the counter of a check, whose ID is of.
func (n Naming) Append(dst []byte, c *backend.Check, of ID) []byte {
	dst = append(append(dst, n.Prefix...), ':')
	if n.Tagged && c.Shard > 0 {
		shard := IDOf(c.Key[:c.Shard])
		dst = hex.AppendEncode(append(dst, '{'), shard[:3])
		dst = append(dst, '}', ':')
	}
	if n.Plain {
		return append(dst, strings.ReplaceAll(strconv.QuoteToASCII(string(c.Key)), "{", `\x7b`)...)
	}
	return append(dst, of[:]...)
}

// Place is what keys have in common that go in one call: 0 for all of a server;
// where keys are spread it is made of what chooses their slot.
type Place uint64

// Place returns the place of the counter of a check, whose ID is of.
func (n Naming) Place(c *backend.Check, of ID) Place {
	switch {
	case !n.Tagged:
		return 0
	case c.Shard > 0:
		of = IDOf(c.Key[:c.Shard])
		return Place(of[0]) | Place(of[1])<<8 | Place(of[2])<<16
	}
	return Place(binary.LittleEndian.Uint64(of[:]))
}
