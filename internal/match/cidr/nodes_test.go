package cidr_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/distlimiter/ratelimit/internal/match/cidr"
)

// TestSearchElsewhere holds that a search over the nodes finds what the table does.
func TestSearchElsewhere(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	address := func() netip.Addr {
		if random.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, byte(random.IntN(3)), byte(random.IntN(3)), byte(random.IntN(256))})
		}
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::%x", random.IntN(3), random.IntN(3)))
	}
	var prefixes []netip.Prefix
	seen := map[netip.Prefix]bool{}
	for range 500 {
		a := address()
		p := netip.PrefixFrom(a, random.IntN(a.BitLen()+1)).Masked()
		if !seen[p] {
			seen[p] = true
			prefixes = append(prefixes, p)
		}
	}
	table := cidr.New(prefixes, nil)
	nodes := map[string]int{}
	for text, longest := range table.Nodes() {
		nodes[string(text.Bytes())] = longest
	}
	for range 5000 {
		a := address()
		p := netip.PrefixFrom(a, a.BitLen()-random.IntN(9)).Masked()
		got := -1
		cidr.Search(table.Lengths(a.Is4()), p, func(text cidr.Text) bool {
			longest, is := nodes[string(text.Bytes())]
			if is && longest >= 0 {
				got = longest
			}
			return is
		})
		if want := table.Longest(p); got != want {
			t.Fatalf("%s: %d, want %d", p, got, want)
		}
	}
}
