package cidr_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/match/cidr"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ text, want, remedy string }{
		{text: "10.0.0.0/8", want: "10.0.0.0/8"},
		{text: "0.0.0.0/0", want: "0.0.0.0/0"},
		{text: "192.0.2.1/32", want: "192.0.2.1/32"},
		{text: "2001:db8::/32", want: "2001:db8::/32"},
		{text: "2001:0DB8:0:0::/32", want: "2001:db8::/32"},
		{text: "::/0", want: "::/0"},
		{text: "::ffff:10.0.0.0/104", want: "10.0.0.0/8"},
		{text: "::ffff:0:0/96", want: "0.0.0.0/0"},
		{text: "10.0.0.0", remedy: "write 10.0.0.0/32 for this address alone"},
		{text: "2001:db8::1", remedy: "write 2001:db8::1/128 for this address alone"},
		{text: "10.1.2.3/8", remedy: "write 10.0.0.0/8, or 10.1.2.3/32 for this address alone"},
		{text: "::ffff:10.1.2.3/104", remedy: "write 10.0.0.0/8, or 10.1.2.3/32 for this address alone"},
		{text: "fe80::%eth0/10", remedy: "write fe80::/10"},
		{text: "10.0.0.0/33", remedy: "write one such as 10.0.0.0/8 or 2001:db8::/32"},
		{text: "10.0.0.0/08", remedy: "write one such as 10.0.0.0/8 or 2001:db8::/32"},
		{text: "10.0.0.0/", remedy: "write one such as 10.0.0.0/8 or 2001:db8::/32"},
		{text: "10.0.0/8", remedy: "write one such as 10.0.0.0/8 or 2001:db8::/32"},
		{text: "10.0.0.0/8/8", remedy: "write one such as 10.0.0.0/8 or 2001:db8::/32"},
		{text: "", remedy: "write one such as 10.0.0.0/8 or 2001:db8::/32"},
		{text: "localhost/8", remedy: "write one such as 10.0.0.0/8 or 2001:db8::/32"},
	} {
		p, err := cidr.Parse(c.text)
		var wrong *cidr.Error
		switch {
		case c.remedy == "" && (err != nil || p.String() != c.want):
			t.Errorf("%q: got %s, %v; want %s", c.text, p, err, c.want)
		case c.remedy != "" && (!errors.As(err, &wrong) || wrong.Remedy != c.remedy || !strings.Contains(wrong.What, c.text)):
			t.Errorf("%q: got %v; want the remedy %q", c.text, err, c.remedy)
		}
	}
}

func TestOf(t *testing.T) {
	for value, want := range map[string]string{
		"192.0.2.1":           "192.0.2.1/32",
		"::ffff:192.0.2.1":    "192.0.2.1/32",
		"::FFFF:c000:201":     "192.0.2.1/32",
		"2001:db8::1":         "2001:db8::1/128",
		"fe80::1%eth0":        "fe80::1/128",
		"10.0.0.0/8":          "10.0.0.0/8", // masked_remote_address
		"10.1.2.3/8":          "10.0.0.0/8",
		"2001:db8:1:2::/64":   "2001:db8:1:2::/64",
		"::ffff:10.0.0.0/104": "10.0.0.0/8",
		"::ffff:0:0/90":       "::ffc0:0:0/90",
		"192.0.2.1:8080":      "",
		"[2001:db8::1]":       "",
		"192.0.2":             "",
		"192.0.2.256":         "",
		"192.0.2.01":          "",
		"alice":               "",
		"":                    "",
		"/8":                  "",
		"::/129":              "",
	} {
		p, ok := cidr.Of(value)
		if ok != (want != "") || ok && p.String() != want {
			t.Errorf("%q: got %s, %t; want %q", value, p, ok, want)
		}
	}
}

func TestOfDoesNotAllocate(t *testing.T) {
	for _, value := range []string{"192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "fe80::1%eth0", "10.0.0.0/8", "alice", "deadbeef", "api.example.com", ""} {
		if n := testing.AllocsPerRun(100, func() { cidr.Of(value) }); n != 0 {
			t.Errorf("%q: %v allocations", value, n)
		}
	}
}

// FuzzOf compares with net/netip.
func FuzzOf(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "::ffff:192.0.2.1", "::ffff:1.2.3.4/96", "::1%a/b", "1.2.3.4/", "::/128", "a:b.c.d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if strings.Contains(value, "%") {
			return // netip takes any zone, and none of a prefix
		}
		got, ok := cidr.Of(value)
		var want netip.Prefix
		if a, err := netip.ParseAddr(value); err == nil {
			a = a.WithZone("").Unmap()
			want = netip.PrefixFrom(a, a.BitLen())
		} else if p, err := netip.ParsePrefix(value); err == nil {
			want = p.Masked()
			if want.Addr().Is4In6() && p.Bits() >= 96 {
				want = netip.PrefixFrom(want.Addr().Unmap(), p.Bits()-96)
			}
		}
		if got != want || ok != got.IsValid() {
			t.Fatalf("%q: got %s, %t; want %s", value, got, ok, want)
		}
	})
}

// drawPrefix draws prefixes that nest, of both families.
func drawPrefix(t *rapid.T) netip.Prefix {
	bits := rapid.SampledFrom([]uint32{0, 0x0a000000, 0x0a800000, 0x0affffff, 0xffffffff}).Draw(t, "bits")
	if rapid.Bool().Draw(t, "v4") {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], bits)
		p, _ := netip.AddrFrom4(b).Prefix(rapid.IntRange(0, 32).Draw(t, "length"))
		return p
	}
	var b [16]byte
	binary.BigEndian.PutUint32(b[rapid.SampledFrom([]int{0, 8, 12}).Draw(t, "at"):], bits)
	p, _ := netip.AddrFrom16(b).Prefix(rapid.IntRange(0, 128).Draw(t, "length"))
	return p
}

func likeAScan(t *rapid.T) {
	prefixes := rapid.SliceOfNDistinct(rapid.Custom(drawPrefix), 0, 50, rapid.ID).Draw(t, "prefixes")
	table := cidr.New(prefixes, nil)
	longest := func(p netip.Prefix, but int) int {
		best := -1
		for i, q := range prefixes {
			if i != but && q.Addr().BitLen() == p.Addr().BitLen() && q.Bits() <= p.Bits() && q.Contains(p.Addr()) && (best < 0 || q.Bits() > prefixes[best].Bits()) {
				best = i
			}
		}
		return best
	}
	for i, p := range prefixes {
		if got, want := table.Parent(i), longest(p, i); got != want {
			t.Fatalf("%s: the parent of %s is %d, want %d", prefixes, p, got, want)
		}
	}
	for range 20 {
		p := drawPrefix(t)
		if got, want := table.Longest(p), longest(p, -1); got != want {
			t.Fatalf("%s: the longest of %s is %d, want %d", prefixes, p, got, want)
		}
	}
}

func TestLongest(t *testing.T) { rapid.Check(t, likeAScan) }
