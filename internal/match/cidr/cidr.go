// Package cidr owns prefixes of IP addresses in rules and in requests. It parses them and
// finds the longest that covers an address.
//
// An IPv4 address that is written as IPv6 (::ffff:192.0.2.1) counts as the IPv4 address,
// in rules and in requests.
package cidr

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/match/prefix"
)

// Error is a mistake in a prefix of a rule.
type Error struct {
	What   string // such as `"10.0.0.0/33" is not a prefix of addresses`
	Remedy string // such as "write 10.0.0.0/8 or 2001:db8::/32"
}

func (e *Error) Error() string { return e.What + ": " + e.Remedy }

// Parse returns the prefix of a rule, such as 10.0.0.0/8 or 2001:db8::/32. The length is
// required. No bits beyond it may be set, because the author of 10.1.2.3/8 may have meant
// 10.1.2.3/32. The error is an *[Error].
func Parse(text string) (netip.Prefix, error) {
	p, ok := parse(text)
	if !ok {
		return netip.Prefix{}, &Error{fmt.Sprintf("%q is not a prefix of addresses", text), "write one such as 10.0.0.0/8 or 2001:db8::/32"}
	}
	host := p.Addr().Unmap()
	switch masked := p.Masked(); {
	case !strings.Contains(text, "/"):
		return netip.Prefix{}, &Error{fmt.Sprintf("%q is an address without the length of a prefix", text), fmt.Sprintf("write %s for this address alone", p)}
	case strings.Contains(text, "%"):
		return netip.Prefix{}, &Error{fmt.Sprintf("%q has a zone, which prefixes don't have", text), "write " + masked.String()}
	case p != masked:
		return netip.Prefix{}, &Error{fmt.Sprintf("%q has bits beyond its length", text),
			fmt.Sprintf("write %s, or %s for this address alone", masked, netip.PrefixFrom(host, host.BitLen()))}
	}
	return p, nil
}

// Of returns the addresses that a value of a request stands for. The value is a single
// address, such as Envoy's remote_address, or a prefix, such as its
// masked_remote_address. Of ignores the zone of an address and bits beyond a prefix. It
// allocates only for a value that looks like an address but is not one.
func Of(value string) (netip.Prefix, bool) {
	p, ok := parse(value)
	if !ok {
		return p, false
	}
	return p.Masked(), true
}

// Covers reports whether all addresses of inner are in outer.
func Covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// Last returns the last address of a prefix.
func Last(p netip.Prefix) netip.Addr {
	bytes := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(bytes); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes) // of 4 or 16 bytes
	return last
}

// Own returns, for each prefix, an address that it covers and no other prefix within it;
// the zero Addr if there is none. The prefixes must be distinct and sorted, as by
// [netip.Prefix.Compare].
func Own(prefixes []netip.Prefix) []netip.Addr {
	own := make([]netip.Addr, len(prefixes))
	var around []int // the prefixes that cover the current one, the widest first
	for i, p := range prefixes {
		for len(around) > 0 && !Covers(prefixes[around[len(around)-1]], p) {
			around = around[:len(around)-1]
		}
		own[i] = p.Addr()
		if len(around) > 0 {
			// Those within a prefix come in the order of their addresses, so the address
			// is free once one of them begins after it.
			up := around[len(around)-1]
			if p.Contains(own[up]) {
				own[up] = Last(p).Next()
			}
			if !prefixes[up].Contains(own[up]) {
				own[up] = netip.Addr{}
			}
		}
		around = append(around, i)
	}
	return own
}

// parse returns a prefix as written, with the bits beyond its length.
func parse(text string) (netip.Prefix, bool) {
	address, length, hasLength := strings.Cut(text, "/")
	address, _, _ = strings.Cut(address, "%")
	if !plausible(address) {
		return netip.Prefix{}, false
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, false
	}
	n := a.BitLen()
	if hasLength {
		if n = number(length); n < 0 || n > a.BitLen() {
			return netip.Prefix{}, false
		}
	}
	if mapped := a.BitLen() - 32; a.Is4In6() && n >= mapped {
		a, n = a.Unmap(), n-mapped
	}
	return netip.PrefixFrom(a, n), true
}

// plausible reports whether text may be an address. It sorts out most other values,
// because netip.ParseAddr allocates its error.
func plausible(text string) bool {
	dots, colons := 0, 0
	for i := range len(text) {
		switch c := text[i]; {
		case c == '.':
			dots++
		case c == ':':
			colons++
		case c < '0' || c > '9' && c < 'A' || c > 'F' && c < 'a' || c > 'f':
			return false
		}
	}
	return colons >= 2 || dots == 3
}

// number returns the value of a decimal number of one to three digits; -1 if text is not
// such a number.
func number(text string) int {
	if len(text) == 0 || len(text) > 3 || len(text) > 1 && text[0] == '0' {
		return -1
	}
	n := 0
	for i := range len(text) {
		c := text[i] - '0'
		if c > 9 {
			return -1
		}
		n = 10*n + int(c)
	}
	return n
}

// Table finds the longest of many prefixes that covers an address, in at most 6
// probes of a hash map for IPv4 and 8 for IPv6. It is immutable and safe for
// concurrent use.
type Table struct {
	v4     family[key4]
	v6     family[key6]
	parent []int
}

// family holds the prefixes of IPv4 or those of IPv6.
type family[K prefix.Key[K]] struct {
	table *prefix.Table[K]
	ids   []int // by index in table: as given to New
}

// New returns a table of prefixes. They must come from [Parse] and be distinct.
func New(prefixes []netip.Prefix, task *background.Task) *Table {
	t := &Table{parent: make([]int, len(prefixes))}
	t.v4 = newFamily(prefixes, true, newKey4, t.parent, task)
	t.v6 = newFamily(prefixes, false, newKey6, t.parent, task)
	return t
}

func newFamily[K prefix.Key[K]](prefixes []netip.Prefix, is4 bool, keyOf func(netip.Prefix) K, parent []int, task *background.Task) (f family[K]) {
	var keys []K
	for i, p := range prefixes {
		if p.Addr().Is4() == is4 {
			keys, f.ids = append(keys, keyOf(p)), append(f.ids, i)
		}
	}
	f.table = prefix.New(keys, task)
	for i, id := range f.ids {
		parent[id] = f.id(f.table.Parent(i))
	}
	return f
}

func (f *family[K]) id(i int) int {
	if i < 0 {
		return -1
	}
	return f.ids[i]
}

// Longest returns the index, as given to New, of the longest prefix that covers all
// of p; -1 if there is none. p must come from [Of].
func (t *Table) Longest(p netip.Prefix) int {
	if p.Addr().Is4() {
		return t.v4.id(t.v4.table.Longest(newKey4(p)))
	}
	return t.v6.id(t.v6.table.Longest(newKey6(p)))
}

// Parent returns the index of the longest other prefix that covers prefix i; -1 if
// there is none.
func (t *Table) Parent(i int) int { return t.parent[i] }

// The keys are prefixes in as few bytes as possible, which makes large tables fast.
type (
	// key4 is an IPv4 prefix: the address, then 8 bits of its length.
	key4 uint64
	// key6 is an IPv6 prefix.
	key6 struct{ high, low, length uint64 }
)

func newKey4(p netip.Prefix) key4 {
	b := p.Addr().As4()
	return key4(binary.BigEndian.Uint32(b[:]))<<8 | key4(p.Bits())
}

// Len returns the length in bits.
func (k key4) Len() int { return int(k & 0xff) }

// Cut returns the first length bits.
func (k key4) Cut(length int) key4 {
	return k>>8>>(32-length)<<(32-length)<<8 | key4(length)
}

func newKey6(p netip.Prefix) key6 {
	b := p.Addr().As16()
	return key6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]), uint64(p.Bits())}
}

// Len returns the length in bits.
func (k key6) Len() int { return int(k.length) }

// Cut returns the first length bits.
func (k key6) Cut(length int) key6 {
	high, low := min(length, 64), max(length-64, 0)
	return key6{k.high >> (64 - high) << (64 - high), k.low >> (64 - low) << (64 - low), uint64(length)}
}
