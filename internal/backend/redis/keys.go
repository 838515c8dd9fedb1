package redis

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/distlimiter/ratelimit/internal/backend"
)

// id is a counter's key cut down to 128 bits of SHA-256: what tells counters
// apart in Redis and here. It makes the key of every counter short and as long
// as any other, and keeps what descriptors hold (addresses, tokens) out of Redis.
type id [16]byte

func idOf(key []byte) id {
	sum := sha256.Sum256(key)
	return id(sum[:])
}

// naming is how counters are named in Redis:
//
//	prefix:id             by default
//	prefix:{shard}:id     where keys are spread, when the check has a shard
//	prefix:{shard}:key    when keys are to be read by people; {shard} as above
//
// A hash tag is always a hash of fixed length: a descriptor's own braces are
// written as \x7b, so that none of them makes one.
type naming struct {
	prefix string
	tagged bool // keys have hash tags, for they are spread over several servers
	plain  bool
}

func (n naming) append(dst []byte, c *backend.Check, of id) []byte {
	dst = append(append(dst, n.prefix...), ':')
	if n.tagged && c.Shard > 0 {
		shard := idOf(c.Key[:c.Shard])
		dst = hex.AppendEncode(append(dst, '{'), shard[:3])
		dst = append(dst, '}', ':')
	}
	if n.plain {
		return append(dst, strings.ReplaceAll(strconv.QuoteToASCII(string(c.Key)), "{", `\x7b`)...)
	}
	return append(dst, of[:]...)
}
