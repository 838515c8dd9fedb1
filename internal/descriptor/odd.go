package descriptor

import "strings"

// An odd match is one by way of the joint between key and value: the entry
// a_b=c on the configured a=b_c, or the key a_b on the configured a=b. It needs
// a configured key that is the entry's up to some underscore, or the other way
// round, or a * in a key, which few rules have: step sends only those here.

// split is one way to read an entry as a configured key and a value.
type split struct {
	key  uint32 // record
	way  uint64 // the hash of the way there
	rest string // value
}

// splits returns the ways to read the entry for which the level has the key,
// the entry's own first, then from the shortest key to the longest.
func (d *Domain) splits(at uint32, way uint64, key, value string) []split {
	var found []split
	try := func(key string) (split, bool) {
		keyWay := hash(way, keyEdge, key)
		k := d.find(keyWay, at, keyEdge, key)
		return split{key: k, way: keyWay}, k != none
	}
	if s, ok := try(key); ok {
		s.rest = value
		found = append(found, s)
	}
	for i := range len(key) {
		if key[i] == '_' {
			if s, ok := try(key[:i]); ok {
				s.rest = key[i+1:] + "_" + value
				found = append(found, s)
			}
		}
	}
	longest := d.levels[d.records[at].level-1].longest
	for i := 0; i < len(value) && len(key)+1+i <= longest; i++ {
		if value[i] == '_' {
			if s, ok := try(key + "_" + value[:i]); ok {
				s.rest = value[i+1:]
				found = append(found, s)
			}
		}
	}
	return found
}

// stepOddly is step for all cases.
func (d *Domain) stepOddly(at uint32, way uint64, key, value string) (uint32, uint64) {
	splits := d.splits(at, way, key, value)
	if r, way := d.exact(at, way, splits, key, value); r != none {
		return r, way
	}
	if c := d.firstWildcard(at, splits, key, value); c != nothing {
		return c.record, d.ways[c.record]
	}
	return d.keyOnly(at, way, key)
}

// exact finds the descriptor whose joined key and value are the entry's.
func (d *Domain) exact(at uint32, way uint64, splits []split, key, value string) (uint32, uint64) {
	for _, s := range splits {
		valueWay := hash(s.way, valueEdge, s.rest)
		if v := d.find(valueWay, s.key, valueEdge, s.rest); v != none {
			return v, valueWay
		}
	}
	if len(key)+1+len(value) <= d.levels[d.records[at].level-1].longest {
		return d.key(at, way, key+"_"+value)
	}
	return none, 0
}

// firstWildcard finds the first pattern of the level that matches the entry.
func (d *Domain) firstWildcard(at uint32, splits []split, key, value string) candidate {
	best := nothing
	for _, s := range splits {
		if i := d.records[s.key].set; i != 0 {
			best = d.wildcard(i-1, s.rest, best)
		}
	}
	if i := d.levels[d.records[at].level-1].set; i != 0 {
		best = d.wildcard(i-1, key+"_"+value, best)
	}
	return best
}

// keyOnly finds the descriptor whose joined key and value are the entry's key.
func (d *Domain) keyOnly(at uint32, way uint64, key string) (uint32, uint64) {
	if k, keyWay := d.key(at, way, key); k != none {
		return k, keyWay
	}
	if i := strings.IndexByte(key, '_'); i < 0 {
		return none, 0
	}
	for i := range len(key) {
		if key[i] != '_' {
			continue
		}
		keyWay := hash(way, keyEdge, key[:i])
		if k := d.find(keyWay, at, keyEdge, key[:i]); k != none {
			valueWay := hash(keyWay, valueEdge, key[i+1:])
			if v := d.find(valueWay, k, valueEdge, key[i+1:]); v != none {
				return v, valueWay
			}
		}
	}
	return none, 0
}

// key finds the descriptor of this key without a value.
func (d *Domain) key(at uint32, way uint64, key string) (uint32, uint64) {
	keyWay := hash(way, keyEdge, key)
	if k := d.find(keyWay, at, keyEdge, key); k != none && d.records[k].flags&isNode != 0 {
		return k, keyWay
	}
	return none, 0
}
