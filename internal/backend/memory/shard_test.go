package memory

import (
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// model is the expected content of a shard, in a map.
type model struct {
	*shard
	seed   maphash.Seed
	narrow int // how many leading bits are the same in all hashes, for deep tables
	now    int64
	keys   map[string]modelKey
}

var unbounded = bounds{math.MaxInt, math.MaxInt64}

type modelKey struct {
	room   int
	state  algo.State
	expiry int64
}

// TestShardModel applies random operations to a shard. It compares the content with a
// map, and checks that the structure is valid.
func TestShardModel(t *testing.T) {
	seed := maphash.MakeSeed()
	rapid.Check(t, func(t *rapid.T) {
		m := &model{
			shard: &shard{bounds: rapid.SampledFrom([]bounds{
				unbounded, {1, math.MaxInt64}, {50, math.MaxInt64}, {math.MaxInt, 1}, {math.MaxInt, 50_000}, {100, 20_000},
			}).Draw(t, "bounds")},
			seed:   seed,
			narrow: rapid.SampledFrom([]int{0, 12}).Draw(t, "equal bits"),
			now:    1e15,
			keys:   map[string]modelKey{},
		}
		t.Repeat(map[string]func(*rapid.T){
			"put":    m.put,
			"forget": m.forgetOne,
			"sweep":  m.sweepSome,
			"":       m.check,
		})
	})
}

func (m *model) hash(key string) uint64 {
	return uint64(uint32(maphash.String(m.seed, key)) >> m.narrow)
}

func (m *model) name(n int) string { return fmt.Sprintf("%*d", n%60, n) }

// put keeps the states of some keys, new or not.
func (m *model) put(t *rapid.T) {
	first := rapid.IntRange(0, 2000).Draw(t, "first key")
	room := rapid.IntRange(2, inlineLog).Draw(t, "room")
	expires := rapid.Int64Range(1, 1000).Draw(t, "expires in")
	for n := range rapid.IntRange(1, 400).Draw(t, "keys") {
		key := m.name(first + n)
		if old, ok := m.keys[key]; ok {
			room = old.room
		}
		words := room
		if room == inlineLog {
			words = []int{3, 6, 7, 100, 1000}[n%5]
		}
		k := modelKey{room, make(algo.State, words), m.now + expires + int64(n)}
		for i := range k.state {
			k.state[i] = uint64(n*i) + 1
		}
		size := roundWords(headWords + room + keyWords(len(key)))
		e := m.findIn(size, m.hash(key), []byte(key))
		if !e.kept() {
			m.makeRoom(m.now)
			e = m.add(size, m.hash(key), []byte(key))
		}
		m.setState(e, k.state)
		e.record().mark(k.expiry, rank(n))
		m.trim(e, m.hash(key), []byte(key), m.now)
		m.keys[key] = k
		if !m.findIn(size, m.hash(key), []byte(key)).kept() {
			t.Fatalf("%q went to make room for itself", key)
		}
	}
}

func (m *model) forgetOne(t *rapid.T) {
	key := m.name(rapid.IntRange(0, 2400).Draw(t, "key"))
	k, kept := m.keys[key]
	if got := m.forgetKey(m.hash(key), []byte(key), m.now); m.bounds == unbounded && got != (kept && k.expiry > m.now) {
		t.Fatalf("forgot %q: %t", key, got)
	}
	delete(m.keys, key)
}

func (m *model) sweepSome(t *rapid.T) {
	m.now += rapid.Int64Range(0, 1000).Draw(t, "µs")
	m.sweep(m.now, rapid.IntRange(0, 5000).Draw(t, "keys"))
}

func (m *model) check(t *rapid.T) {
	if m.count > m.bounds.keys {
		t.Fatalf("%d keys, more than %d", m.count, m.bounds.keys)
	}
	if m.bytes() > m.bounds.bytes && m.count > 1 {
		t.Fatalf("%d keys take %d bytes, more than %d", m.count, m.bytes(), m.bounds.bytes)
	}
	for key, k := range m.keys {
		e := m.findIn(roundWords(headWords+k.room+keyWords(len(key))), m.hash(key), []byte(key))
		switch {
		case !e.kept() && k.expiry > m.now && m.bounds == unbounded:
			t.Fatalf("%q is lost", key)
		case !e.kept():
			delete(m.keys, key)
		case !slices.Equal(m.state(e), k.state) || e.record().expiry() != k.expiry:
			t.Fatalf("%q holds %v until %d, want %v until %d", key, m.state(e), e.record().expiry(), k.state, k.expiry)
		}
	}
	if m.count != len(m.keys) {
		t.Fatalf("%d keys counted, %d there", m.count, len(m.keys))
	}
	total, inLogs, logWords, tabled := 0, 0, 0, int64(0)
	for place, table := range m.tables {
		if table.place != place || m.byLength[table.words] != table || table.records == 0 {
			t.Fatalf("table %d of %d records is kept wrongly", table.words, table.records)
		}
		total += table.records
		tabled += table.bytes()
		logWords += table.logWords
		inLogs += checkTable(t, table)
	}
	if total != m.count {
		t.Fatalf("%d records for %d keys", total, m.count)
	}
	if tabled != m.tabled {
		t.Fatalf("tables take %d bytes, counted %d", tabled, m.tabled)
	}
	words := 0
	for _, state := range m.logs.states {
		words += len(state)
	}
	if words != m.logs.words || words != logWords {
		t.Fatalf("%d words of logs, counted %d, and %d by tables", words, m.logs.words, logWords)
	}
	if inUse := len(m.logs.states) - len(m.logs.vacant); inLogs != inUse {
		t.Fatalf("%d logs in use, %d referred to", inUse, inLogs)
	}
}

// TestEqualHashes fills a page at the greatest depth, which takes a broken hash.
func TestEqualHashes(t *testing.T) {
	s := &shard{bounds: unbounded}
	key := func(n int) []byte { return fmt.Appendf(nil, "%3d", n) }
	for n := range pageRecords { // of 10 words
		if e := s.add(10, 7, key(n)); !e.kept() {
			t.Fatalf("no room for key %d", n)
		}
	}
	if s.add(10, 7, key(pageRecords)).kept() {
		t.Fatalf("there is room for more than %d", pageRecords)
	}
	for n := range pageRecords {
		e := s.findIn(10, 7, key(n))
		if !e.kept() {
			t.Fatalf("key %d is lost", n)
		}
		s.forget(e)
	}
	if s.count != 0 || len(s.tables) != 0 {
		t.Fatalf("%d keys are left", s.count)
	}
}

// TestRefusedGoLast fills a shard with keys that have nothing left, nearly all of them
// refused. In every other sample of 16, all would be refused.
func TestRefusedGoLast(t *testing.T) {
	const keys, added = 2000, 40
	seed := maphash.MakeSeed()
	s := &shard{bounds: bounds{keys, math.MaxInt64}}
	add := func(n int, k rank) {
		key := fmt.Appendf(nil, "%d", n)
		s.makeRoom(1)
		e := s.add(10, maphash.Bytes(seed, key), key)
		e.record().setStateWords(2)
		e.record().mark(2, k)
	}
	count := func() (refusedKeys int) {
		for range s.count {
			if s.advance(byRecords).record().rank() == refused {
				refusedKeys++
			}
		}
		return refusedKeys
	}
	for n := range keys {
		if n%20 == 0 {
			add(n, exhausted)
		} else {
			add(n, refused)
		}
	}
	if n := count(); n != keys*19/20 {
		t.Fatalf("%d keys were refused in a round of the sweep, want %d", n, keys*19/20)
	}
	for n := range added {
		add(keys+n, refused)
	}
	if lost := keys*19/20 + added - count(); lost > added/4 {
		t.Errorf("%d of %d evicted keys were refused ones, with 100 that were not", lost, added)
	}
}

// TestWorkPerKey bounds the records that a request visits to make room for its key,
// whatever the shard holds. Others wait for the lock for that long.
func TestWorkPerKey(t *testing.T) {
	const keys, now = 20_000, int64(1e15)
	for _, tt := range []struct {
		name   string
		full   bool
		expiry func(i int) int64
		rank   func(i int) rank
		most   int
	}{
		{"room", false, func(int) int64 { return now + 1 }, func(int) rank { return 0 }, sweepPerKey},
		{"full", true, func(int) int64 { return now + 1 }, func(int) rank { return 0 }, sweepPerKey + evictFrom},
		{"all used up", true, func(int) int64 { return now + 1 }, func(int) rank { return exhausted }, sweepPerKey + evictFromAtMost},
		{"all refused", true, func(int) int64 { return now + 1 }, func(int) rank { return refused }, sweepPerKey + evictFromAtMost},
		{"all expired", true, func(int) int64 { return now - 1 }, func(int) rank { return refused }, sweepPerKey + evictFrom},
		{"one of many expired", true, func(i int) int64 { return now + int64(min(i%1000, 1)) }, func(int) rank { return refused }, sweepPerKey + evictFromAtMost},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &shard{bounds: unbounded}
			seed := maphash.MakeSeed()
			put := func(i int) {
				key := fmt.Sprintf("%08d", i)
				e := s.add(headWords+2+1, maphash.String(seed, key), []byte(key))
				s.setState(e, algo.State{1, 2})
				e.record().mark(tt.expiry(i), tt.rank(i))
			}
			for i := range keys {
				put(i)
			}
			if tt.full {
				s.bounds.keys = keys
			}
			for i := range 1000 {
				// The turn of a single table counts how often it had one.
				table := s.tables[0]
				before, records := table.turns[byRecords], table.records
				s.makeRoom(now)
				if visited := int((table.turns[byRecords] - before) / (1 << 50 / uint64(records))); visited > tt.most {
					t.Fatalf("came by %d records, want %d at most", visited, tt.most)
				}
				put(keys + i)
			}
		})
	}
}

// TestGrowth bounds the copying when a table grows: some records, and a directory
// whose size stays near the number of pages.
func TestGrowth(t *testing.T) {
	const keys = 200_000 // more than a shard has by default
	seed := maphash.MakeSeed()
	table := newTable(headWords + 2 + 1)
	for i := range keys {
		key := fmt.Sprintf("%08d", i)
		table.add(uint32(maphash.String(seed, key)), []byte(key))
	}
	if got, most := 8*len(table.directory), keys; got > most {
		t.Errorf("a directory of %d bytes for %d keys, want %d at most: it is copied at once", got, keys, most)
	}
	if most := table.most(); most > pageRecords {
		t.Errorf("%d records a page, want %d at most: they are copied at once", most, pageRecords)
	}
}

// TestWalkOverMerges merges pages with ones that a walk has visited, and splits pages
// ahead of it.
func TestWalkOverMerges(t *testing.T) {
	const keys = 5000
	seed := maphash.MakeSeed()
	s := &shard{bounds: unbounded}
	key := func(n int) []byte { return fmt.Appendf(nil, "%d", n) }
	hash := func(key []byte) uint64 { return maphash.Bytes(seed, key) }
	for n := range keys {
		s.add(10, hash(key(n)), key(n))
	}
	seen := map[string]bool{}
	var at cursor
	walk := func(pages int) {
		for range pages {
			page, words := s.copyPage(&at, nil)
			if words == 0 {
				return
			}
			for r := range slices.Chunk(page, words) {
				key := string(record(r).key())
				if seen[key] {
					t.Fatalf("%q comes twice", key)
				}
				seen[key] = true
			}
		}
	}
	walk(s.tables[0].pages / 3)
	if len(seen) == 0 || len(seen) > keys/2 {
		t.Fatalf("%d keys in a third of the pages", len(seen))
	}
	pages := s.tables[0].pages
	for n := range keys {
		if n%16 != 0 {
			s.forgetKey(hash(key(n)), key(n), 0)
		}
	}
	if s.tables[0].pages > pages/2 {
		t.Fatalf("%d pages, of %d", s.tables[0].pages, pages)
	}
	walk(1)
	for n := range keys {
		s.add(10, hash(key(keys+n)), key(keys+n))
	}
	walk(math.MaxInt)
	for n := 0; n < keys; n += 16 {
		if !seen[string(key(n))] {
			t.Errorf("key %d is left out", n)
		}
	}
}

// checkTable checks the structure of a table, and returns the number of records whose
// states are in logs.
func checkTable(t *rapid.T, table *table) (inLogs int) {
	records, blocks, pages := 0, 0, 0
	for hash := uint64(0); hash <= math.MaxUint32; {
		p := table.page(uint32(hash))
		next := p.end(hash)
		first, n := table.span(uint32(hash), p.depth)
		for _, same := range table.directory[first : first+n] {
			if same != p {
				t.Fatalf("the directory has a page within a page")
			}
		}
		for i := range p.used {
			r := table.record(p, i)
			if uint64(r.hash()) < hash || uint64(r.hash()) >= next {
				t.Fatalf("hash %#x is in the page from %#x to %#x", r.hash(), hash, next)
			}
			if tag := p.tags[i/8] >> (i % 8 * 8) & 0xff; tag != uint64(r.hash()&0xff) {
				t.Fatalf("tag %#x for hash %#x", tag, r.hash())
			}
			if r.isElsewhere() {
				inLogs++
			}
		}
		records += p.used
		for i, block := range p.blocks {
			if block != nil {
				blocks++
			} else if i<<table.shift < p.used {
				t.Fatalf("block %d is missing, with %d records", i, p.used)
			}
		}
		pages++
		hash = next
	}
	if records != table.records || blocks != table.blocks || pages != table.pages {
		t.Fatalf("%d records, %d blocks, %d pages; counted %d, %d, %d",
			records, blocks, pages, table.records, table.blocks, table.pages)
	}
	return inLogs
}
