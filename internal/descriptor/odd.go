package descriptor

// An odd match splits the joined key and value of an entry at another place: the entry
// a_b=c matches the configured a=b_c, and the key a_b matches the configured a=b. It needs
// a configured key that equals the entry's key up to an underscore, or the other way
// round, or a * in a key. Few rules have such keys, and step calls this code only for
// them.

// split is one way to read an entry as a configured key and a value.
type split struct {
	key   place
	set   uint32 // index of the key's wildcards
	value string
}

// splits returns the splits whose key the level has. The entry's own comes first, then the
// others from the shortest key to the longest.
func (d *Domain) splits(at place, key, value string) (found []split) {
	if k, set := d.key(at, key); k != nowhere {
		found = append(found, split{k, set, value})
	}
	longest := d.level(at).longest
	for i := range min(len(key), longest+1) {
		if key[i] != '_' {
			continue
		}
		if k, set := d.key(at, key[:i]); k != nowhere {
			found = append(found, split{k, set, key[i+1:] + "_" + value})
		}
	}
	for i := 0; i < len(value) && len(key)+1+i <= longest; i++ {
		if value[i] != '_' {
			continue
		}
		if k, set := d.key(at, key+"_"+value[:i]); k != nowhere {
			found = append(found, split{k, set, value[i+1:]})
		}
	}
	return found
}

// stepOddly does the same as step, for odd matches too.
func (d *Domain) stepOddly(at place, key, value string) place {
	splits := d.splits(at, key, value)
	if p := d.exact(at, splits, key, value); p != nowhere {
		return p
	}
	if c := d.inRange(at, key, value); c.slot != none {
		return d.landing(c)
	}
	if c := d.firstWildcard(at, splits, key, value); c.slot != none {
		return d.landing(c)
	}
	return d.keyOnly(at, key)
}

// exact finds the descriptor whose joined key and value are the entry's.
func (d *Domain) exact(at place, splits []split, key, value string) place {
	for _, s := range splits {
		if v := d.value(s.key, s.value); v != nowhere {
			return v
		}
	}
	if len(key)+1+len(value) > d.level(at).longest {
		return nowhere
	}
	return d.keyNode(at, key+"_"+value)
}

// inRange finds the longest range that covers the value. Only ranges of the entry's own
// key count, because an address can't be split.
func (d *Domain) inRange(at place, key, value string) candidate {
	_, r := d.tree.find(hash(at.way, keyEdge, key), at.slot, keyEdge, key)
	if r == nil || r.flags()&hasRanges == 0 {
		return nothing
	}
	return d.longest(r.land, value)
}

// firstWildcard finds the first pattern of the level that matches the entry.
func (d *Domain) firstWildcard(at place, splits []split, key, value string) candidate {
	best := nothing
	for _, s := range splits {
		if s.set != 0 {
			best = d.wildcard(s.set-1, s.value, best)
		}
	}
	if set := d.level(at).set; set != 0 {
		best = d.wildcard(set-1, key+"_"+value, best)
	}
	return best
}

// keyOnly finds the descriptor whose joined key and value are the entry's key.
func (d *Domain) keyOnly(at place, key string) place {
	if k := d.keyNode(at, key); k != nowhere {
		return k
	}
	for i := range min(len(key), d.level(at).longest+1) {
		if key[i] != '_' {
			continue
		}
		if k, _ := d.key(at, key[:i]); k != nowhere {
			if v := d.value(k, key[i+1:]); v != nowhere {
				return v
			}
		}
	}
	return nowhere
}

// key finds a key of the level below, and the set of its wildcards.
func (d *Domain) key(at place, key string) (place, uint32) {
	way := hash(at.way, keyEdge, key)
	k, r := d.tree.find(way, at.slot, keyEdge, key)
	if r == nil {
		return nowhere, 0
	}
	return place{k, r.flags(), way}, r.set
}

// keyNode finds the descriptor of this key without a value.
func (d *Domain) keyNode(at place, key string) place {
	if k, _ := d.key(at, key); k != nowhere && k.flags&isNode != 0 {
		return k
	}
	return nowhere
}

// value finds the descriptor of this value of a key.
func (d *Domain) value(k place, value string) place {
	way := hash(k.way, valueEdge, value)
	v, r := d.tree.find(way, k.slot, valueEdge, value)
	switch {
	case r == nil:
		return nowhere
	case r.flags()&isMember != 0:
		return d.member(r)
	}
	return place{v, r.flags(), way}
}
