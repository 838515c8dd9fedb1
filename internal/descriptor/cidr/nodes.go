package cidr

import (
	"iter"
	"net/netip"

	"github.com/distlimiter/ratelimit/internal/descriptor/prefix"
)

// Lengths returns the lengths that the prefixes of IPv4 have, or those of IPv6, in order.
// They must not be changed. With Nodes they are all that [Search] needs in another place.
func (t *Table) Lengths(is4 bool) []int {
	if is4 {
		return t.v4.table.Lengths()
	}
	return t.v6.table.Lengths()
}

// Text is a prefix in as few bytes as can be: the address and the length. Those of IPv4
// and IPv6 differ in length.
type Text struct {
	bytes [17]byte
	size  int
}

// Bytes returns the text.
func (t *Text) Bytes() []byte { return t.bytes[:t.size] }

// newText returns the text of the first so many bits of an address.
func newText(p netip.Prefix, length int) (t Text) {
	if p.Addr().Is4() {
		k := newKey4(p).Cut(length)
		for i := range 5 {
			t.bytes[i] = byte(k >> (32 - 8*i))
		}
		t.size = 5
		return t
	}
	k := newKey6(p).Cut(length)
	for i := range 8 {
		t.bytes[i], t.bytes[8+i] = byte(k.high>>(56-8*i)), byte(k.low>>(56-8*i))
	}
	t.bytes[16], t.size = byte(length), 17
	return t
}

// Nodes returns the texts of prefixes, and of what leads the search to longer ones, with
// the index of the longest prefix that covers each; -1 if there is none.
func (t *Table) Nodes() iter.Seq2[Text, int] {
	return func(yield func(Text, int) bool) {
		for k, longest := range t.v4.table.Nodes() {
			a := uint32(k >> 8)
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}), k.Len())
			if !yield(newText(p, k.Len()), t.v4.id(longest)) {
				return
			}
		}
		for k, longest := range t.v6.table.Nodes() {
			var text Text
			for i := range 8 {
				text.bytes[i], text.bytes[8+i] = byte(k.high>>(56-8*i)), byte(k.low>>(56-8*i))
			}
			text.bytes[16], text.size = byte(k.length), 17
			if !yield(text, t.v6.id(longest)) {
				return
			}
		}
	}
}

// Search is Longest in another place. probe reports whether there is a node of that text.
// The last for which there is one knows the longest prefix.
func Search(lengths []int, p netip.Prefix, probe func(text Text) bool) {
	prefix.Search(lengths, p.Bits(), func(length int) bool { return probe(newText(p, length)) })
}
