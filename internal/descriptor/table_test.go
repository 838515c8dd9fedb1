package descriptor

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/background"
)

// TestFindVerifies gives find the hash of another edge, as in a collision. It must not take
// one edge for the other.
func TestFindVerifies(t *testing.T) {
	long := strings.Repeat("a", inlineSize)
	e := newEdges(0)
	for i := range 100 {
		key := e.add(rootEdge, keyEdge, fmt.Sprintf("key%d", i))
		for _, value := range []string{"", "b", long, long + "b", long + strings.Repeat("b", maxSize)} {
			e.add(key, valueEdge, value)
		}
	}
	table, slots := newTable(e.list, background.New())
	for i := 1; i < len(e.list); i++ {
		x := &e.list[i]
		up := slots[x.up]
		slot, r := table.find(x.way, up, x.kind, x.text)
		if slot != slots[i] || r == nil {
			t.Fatalf("%.20q: found in slot %d, want %d", x.text, slot, slots[i])
		}
		for name, found := range map[string]func() (uint32, *record){
			"another place above": func() (uint32, *record) { return table.find(x.way, up+1, x.kind, x.text) },
			"another kind":        func() (uint32, *record) { return table.find(x.way, up, x.kind+1, x.text) },
			"a longer text":       func() (uint32, *record) { return table.find(x.way, up, x.kind, x.text+"x") },
			"another hash":        func() (uint32, *record) { return table.find(x.way^1<<63, up, x.kind, x.text) },
			"another text": func() (uint32, *record) {
				if x.text == "" {
					return none, nil
				}
				return table.find(x.way, up, x.kind, "x"+x.text[1:])
			},
		} {
			if slot, r := found(); slot != none || r != nil {
				t.Errorf("%.20q: %s found slot %d", x.text, name, slot)
			}
		}
	}
}

// TestHash checks that texts which differ in any one byte, or in length, or come
// after different ways or by different kinds, have different hashes.
func TestHash(t *testing.T) {
	seen := map[uint64]string{}
	check := func(way uint64, k kind, text string) {
		id := fmt.Sprintf("%d %d %q", way, k, text)
		h := hash(way, k, text)
		if other, ok := seen[h]; ok && other != id {
			t.Errorf("%s and %s have the same hash", id, other)
		}
		seen[h] = id
	}
	random := rand.New(rand.NewPCG(1, 2))
	ways := []uint64{random.Uint64(), random.Uint64(), random.Uint64()} // as hashes are
	for size := range 40 {
		text := make([]byte, size)
		for i := range text {
			text[i] = "ab"[random.IntN(2)]
		}
		for _, way := range ways {
			for k := range kinds {
				check(way, k, string(text))
				for i := range text {
					for bit := range 8 {
						text[i] ^= 1 << bit
						check(way, k, string(text))
						text[i] ^= 1 << bit
					}
				}
			}
		}
	}
}
