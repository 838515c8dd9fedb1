package descriptor

import "strings"

// An odd match is one by way of the joint between key and value: the entry
// a_b=c on the configured a=b_c, or the key a_b on the configured a=b. It needs
// a configured key that is the entry's up to some underscore, or the other way
// round, or a * in a key, which few rules have: step sends only those here.

// split is one way to read an entry as a configured key and a value.
type split struct {
	key  uint32 // record
	hash uint64 // of the way there
	rest string // value
}

// splits returns the ways to read the entry for which the level has the key,
// the entry's own first, then from the shortest key to the longest.
func (d *Domain) splits(at uint32, h uint64, key, value string) []split {
	var found []split
	try := func(key string) (split, bool) {
		hk := d.hash(h, keyEdge, key)
		k := d.find(hk, at, keyEdge, key)
		return split{key: k, hash: hk}, k != none
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
func (d *Domain) stepOddly(at uint32, h uint64, key, value string) (uint32, uint64) {
	splits := d.splits(at, h, key, value)
	if r, h := d.exact(at, h, splits, key, value); r != none {
		return r, h
	}
	if p := d.firstWildcard(at, splits, key, value); p != nil {
		return p.record, p.hash
	}
	return d.keyOnly(at, h, key)
}

// exact finds the descriptor whose joined key and value are the entry's.
func (d *Domain) exact(at uint32, h uint64, splits []split, key, value string) (uint32, uint64) {
	for _, s := range splits {
		hv := d.hash(s.hash, valueEdge, s.rest)
		if v := d.find(hv, s.key, valueEdge, s.rest); v != none {
			return v, hv
		}
	}
	if len(key)+1+len(value) <= d.levels[d.records[at].level-1].longest {
		return d.key(at, h, key+"_"+value)
	}
	return none, 0
}

// firstWildcard finds the first pattern of the level that matches the entry.
func (d *Domain) firstWildcard(at uint32, splits []split, key, value string) (best *pattern) {
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
func (d *Domain) keyOnly(at uint32, h uint64, key string) (uint32, uint64) {
	if k, hk := d.key(at, h, key); k != none {
		return k, hk
	}
	if i := strings.IndexByte(key, '_'); i < 0 {
		return none, 0
	}
	for i := range len(key) {
		if key[i] != '_' {
			continue
		}
		hk := d.hash(h, keyEdge, key[:i])
		if k := d.find(hk, at, keyEdge, key[:i]); k != none {
			hv := d.hash(hk, valueEdge, key[i+1:])
			if v := d.find(hv, k, valueEdge, key[i+1:]); v != none {
				return v, hv
			}
		}
	}
	return none, 0
}

// key finds the descriptor of this key without a value.
func (d *Domain) key(at uint32, h uint64, key string) (uint32, uint64) {
	hk := d.hash(h, keyEdge, key)
	if k := d.find(hk, at, keyEdge, key); k != none && d.records[k].flags&isNode != 0 {
		return k, hk
	}
	return none, 0
}
