package cidr

import (
	"iter"
	"net/netip"

	"github.com/distlimiter/ratelimit/internal/match/prefix"
)

// Lengths returns the lengths of the IPv4 prefixes, or of the IPv6 prefixes, in order. The
// caller must not change them. Lengths and Nodes are all that [Search] needs to search a
// copy of the table elsewhere.
func (t *Table) Lengths(is4 bool) []int {
	if is4 {
		return t.v4.table.Lengths()
	}
	return t.v6.table.Lengths()
}

// Text is a prefix in as few bytes as possible: the address and the length. Texts of IPv4
// and IPv6 differ in size.
type Text struct {
	bytes [17]byte
	size  int
}

// Bytes returns the text.
func (t *Text) Bytes() []byte { return t.bytes[:t.size] }

// newText returns the text of the first length bits of an address.
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

// Nodes returns the texts of prefixes and of the markers that lead the search to longer
// ones. With each comes the index of the longest prefix that covers it; -1 if there is
// none.
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

// Search does the same as Longest on a copy of the table elsewhere. probe reports whether
// the copy has a node of that text. The last node that it has knows the longest prefix.
func Search(lengths []int, p netip.Prefix, probe func(text Text) bool) {
	prefix.Search(lengths, p.Bits(), func(length int) bool { return probe(newText(p, length)) })
}
