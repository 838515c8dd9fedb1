package sets

import (
	"hash/maphash"
	"math/bits"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/match/prefix"
)

// texts is an immutable hash table of texts. A record takes one cache line and holds the
// text itself if it is short, so most look-ups wait for memory once. Each table has its
// own random seed, so that no client can cause collisions.
type texts struct {
	seed    maphash.Seed
	records []record // by hash, or the next free one; half of them are free
	long    []string
	lists   [][]owner
}

// record is a text and its owners.
type record struct {
	hash   uint32 // 0: the record is free
	size   uint32 // of the text
	first  owner  // nobody: a marker of affixes
	rest   uint32 // 1 + the index of the other owners in lists; 0: none
	up     uint32 // 1 + the index of the longest shorter affix; 0: none
	long   uint32 // index of a text that is not inline
	inline [inlineSize]byte
}

const inlineSize = 40

// nobody is no owner.
const nobody = ^owner(0)

// newTexts returns a table with room for n texts.
func newTexts(n int) *texts {
	return &texts{seed: maphash.MakeSeed(), records: make([]record, 2*n+1)}
}

// slot returns the index of the record of a text, or of a free one if there is none.
func (t *texts) slot(text string) (slot uint64, hash uint32) {
	h := maphash.String(t.seed, text)
	slot, _ = bits.Mul64(h, uint64(len(t.records)))
	hash = uint32(h) | 1
	for {
		r := &t.records[slot]
		if r.hash == 0 || r.hash == hash && int(r.size) == len(text) && t.is(r, text) {
			return slot, hash
		}
		if slot++; slot == uint64(len(t.records)) {
			slot = 0
		}
	}
}

// is reports whether the record's text, which has the same length, is text.
func (t *texts) is(r *record, text string) bool {
	if len(text) <= inlineSize {
		return string(r.inline[:len(text)]) == text
	}
	return t.long[r.long] == text
}

// find returns the record of a text; nil if there is none.
func (t *texts) find(text string) *record {
	slot, _ := t.slot(text)
	if r := &t.records[slot]; r.hash != 0 {
		return r
	}
	return nil
}

// add adds a new text with its owners. Without owners it is a marker.
func (t *texts) add(text string, owners []owner) {
	slot, hash := t.slot(text)
	r := &t.records[slot]
	*r = record{hash: hash, size: uint32(len(text)), first: nobody}
	if len(text) > inlineSize {
		r.long = uint32(len(t.long))
		t.long = append(t.long, text)
	}
	copy(r.inline[:], text)
	if len(owners) > 0 {
		r.first = owners[0]
	}
	if len(owners) > 1 {
		t.lists = append(t.lists, owners[1:])
		r.rest = uint32(len(t.lists))
	}
}

// each calls found with the owners of the record, until found returns false. It reports
// whether found never did.
func (t *texts) each(r *record, found func(owner) bool) bool {
	if r.first != nobody && !found(r.first) {
		return false
	}
	return r.rest == 0 || eachOf(t.lists[r.rest-1], found)
}

func eachOf(owners []owner, found func(owner) bool) bool {
	for _, o := range owners {
		if !found(o) {
			return false
		}
	}
	return true
}

// affixes finds the texts with which a value starts, or those with which it ends.
type affixes struct {
	texts
	lengths []int
	ends    bool
}

// startOf is a text that is cut to its start.
type startOf string

// Len returns the length in bytes.
func (s startOf) Len() int { return len(s) }

// Cut returns the first length bytes.
func (s startOf) Cut(length int) startOf { return s[:length] }

// endOf is a text that is cut to its end.
type endOf string

// Len returns the length in bytes.
func (s endOf) Len() int { return len(s) }

// Cut returns the last length bytes.
func (s endOf) Cut(length int) endOf { return s[len(s)-length:] }

// affix is a startOf or an endOf.
type affix[K any] interface {
	~string
	prefix.Key[K]
}

func newAffixes[K affix[K]](owners map[K][]owner, ends bool, task *background.Task) *affixes {
	list := make([]K, 0, len(owners))
	for k := range owners {
		list = append(list, k)
		task.Step()
	}
	table := prefix.New(list, task)
	n := 0
	for range table.Nodes() {
		n++
	}
	a := &affixes{*newTexts(n), table.Lengths(), ends}
	for k := range table.Nodes() {
		a.add(string(k), owners[k])
		task.Step()
	}
	up := func(longest int) uint32 {
		if longest < 0 {
			return 0
		}
		slot, _ := a.slot(string(list[longest]))
		return 1 + uint32(slot)
	}
	for k, longest := range table.Nodes() {
		a.find(string(k)).up = up(longest)
		task.Step()
	}
	for i, k := range list {
		a.find(string(k)).up = up(table.Parent(i))
		task.Step()
	}
	return a
}

// each does the same as finder.each, for these texts.
func (a *affixes) each(value string, found func(owner) bool) bool {
	var longest *record
	prefix.Search(a.lengths, len(value), func(n int) bool {
		affix := value[:n]
		if a.ends {
			affix = value[len(value)-n:]
		}
		r := a.find(affix)
		if r != nil {
			longest = r
		}
		return r != nil
	})
	for r := longest; r != nil; r = &a.records[r.up-1] {
		if !a.texts.each(r, found) {
			return false
		}
		if r.up == 0 {
			break
		}
	}
	return true
}
