// Package cidr owns prefixes of IP addresses in rules and in requests: how they are
// written, and which is the longest for an address.
//
// An IPv4 address that is written as IPv6 (::ffff:192.0.2.1) is the IPv4 address,
// in rules and in requests.
package cidr

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/descriptor/prefix"
)

// Error says what is wrong with a prefix in a rule.
type Error struct {
	What   string // such as `"10.0.0.0/33" is not a prefix of addresses`
	Remedy string // such as "write 10.0.0.0/8 or 2001:db8::/32"
}

func (e *Error) Error() string { return e.What + ": " + e.Remedy }

// Parse returns the prefix of a rule, such as 10.0.0.0/8 or 2001:db8::/32. A length
// is required, and there must be no bits beyond it: with 10.1.2.3/8 the writer may
// have meant 10.1.2.3/32. An error is an *[Error].
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

// Of returns the addresses that a value of a request stands for: an address alone,
// such as Envoy's remote_address, or a prefix, such as its masked_remote_address.
// The zone of an address and bits beyond a prefix do not matter. It allocates only
// for what looks like an address and is none.
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

// parse returns a prefix with the bits beyond its length as they are written.
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

// plausible reports whether text may be an address. netip.ParseAddr says so as
// well, but allocates its error: most values that are none end here.
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

// number returns the decimal number of one to three digits that text is; -1 if it
// is none.
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
	v4, v6 family
	parent []int
}

// family is the prefixes of one length of addresses.
type family struct {
	table *prefix.Table[key]
	ids   []int // by index in table: as given to New
}

// New returns a table of prefixes as [Parse] returns them, which must be distinct.
func New(prefixes []netip.Prefix, task *background.Task) *Table {
	t := &Table{parent: make([]int, len(prefixes))}
	for _, f := range []struct {
		*family
		is4 bool
	}{{&t.v4, true}, {&t.v6, false}} {
		var keys []key
		for i, p := range prefixes {
			if p.Addr().Is4() == f.is4 {
				keys, f.ids = append(keys, key(p)), append(f.ids, i)
			}
		}
		f.table = prefix.New(keys, task)
		for i, id := range f.ids {
			t.parent[id] = f.id(f.table.Parent(i))
		}
	}
	return t
}

func (f *family) id(i int) int {
	if i < 0 {
		return -1
	}
	return f.ids[i]
}

// Longest returns the index, as given to New, of the longest prefix that covers all
// of p; -1 if there is none. p is as [Of] returns it.
func (t *Table) Longest(p netip.Prefix) int {
	f := &t.v6
	if p.Addr().Is4() {
		f = &t.v4
	}
	return f.id(f.table.Longest(key(p)))
}

// Parent returns the index of the longest other prefix that covers prefix i; -1 if
// there is none.
func (t *Table) Parent(i int) int { return t.parent[i] }

// key is a prefix as [prefix.Table] takes it.
type key netip.Prefix

// Len returns the length in bits.
func (k key) Len() int { return netip.Prefix(k).Bits() }

// Cut returns the first so many bits.
func (k key) Cut(length int) key {
	p, _ := netip.Prefix(k).Addr().Prefix(length) // an error would be a length beyond the address
	return key(p)
}
