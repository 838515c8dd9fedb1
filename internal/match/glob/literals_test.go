package glob

import (
	"slices"
	"strings"
	"testing"
)

// checkLinear runs the automaton over s as Each does, and counts.
func checkLinear(t *testing.T, l *Literals, s string) {
	t.Helper()
	depth := make([]int, len(l.states)) // length of the text that a state stands for
	for at, st := range l.states {
		for i := range uint32(st.below) {
			depth[st.first+i] = depth[at] + 1
		}
	}
	transitions, at := 0, uint32(0)
	for i := range len(s) {
		want := l.step(at, s[i])
		for at != 0 { // back until a state goes on by this byte
			transitions++
			st := &l.states[at]
			if i := strings.IndexByte(string(l.labels[st.first:st.first+uint32(st.below)]), s[i]); i >= 0 {
				break
			}
			if depth[st.fail] >= depth[at] {
				t.Fatalf("state %d, %d deep, fails to %d, %d deep", at, depth[at], st.fail, depth[st.fail])
			}
			at = st.fail
		}
		at = want
		for hit := l.states[at].report; hit != 0; {
			next := l.states[l.states[hit].fail].report
			if next != 0 && depth[next] >= depth[hit] {
				t.Fatalf("the report of state %d leads to %d", hit, next)
			}
			hit = next
		}
	}
	if transitions > 2*len(s) {
		t.Fatalf("%d transitions over %d bytes", transitions, len(s))
	}
}

// FuzzLiterals takes literals, separated by line ends, and a text. It checks that each
// literal that occurs is found once, and that a hostile text costs at most two steps for
// each of its bytes.
func FuzzLiterals(f *testing.F) {
	f.Add("a\naa\naaa\nab", strings.Repeat("a", 100)+"b")
	f.Add("she\nhe\nhers\nhis", "ushers")
	f.Add("\x00\n\xff\n\xff\x00", "\xff\x00\xff")
	f.Add("abc\nbc\nc\nbcd", "xabcdabcd")
	f.Fuzz(func(t *testing.T, lines, text string) {
		text = text[:min(len(text), 1<<14)]
		literals := slices.DeleteFunc(strings.Split(lines, "\n"), func(s string) bool { return s == "" })
		slices.Sort(literals)
		literals = slices.Compact(literals)
		if len(literals) == 0 {
			return
		}
		ids := make([]uint32, len(literals))
		var want []uint32
		for i, l := range literals {
			ids[i] = uint32(3*i + 1)
			if strings.Contains(text, l) {
				want = append(want, ids[i])
			}
		}
		l := NewLiterals(literals, ids)
		for range 2 { // also when the set of those seen is used again
			var got []uint32
			l.Each(text, func(id uint32) { got = append(got, id) })
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Fatalf("%q in %q: found %d, want %d", literals, text, got, want)
			}
		}
		checkLinear(t, l, text)
	})
}
