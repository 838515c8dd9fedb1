package config

import (
	"crypto/sha256"
	"slices"
	"strconv"
	"strings"

	"github.com/distlimiter/ratelimit/internal/match/cidr"
)

// HasList reports whether the descriptor has a list of values or ranges instead of one
// value.
func (d *Descriptor) HasList() bool { return d.AnyOf.Values != nil || d.AnyOf.CIDRs != nil }

// Bounds on the text of a list. A longer text is cut and ends with a digest.
const (
	maxListText = 100 // bytes
	keptOfList  = 40
)

// ValueText returns the value for names of rules and keys of counters. Of a list it
// returns the members in the order of their bytes, such as [GET|POST|cidr:10.0.0.0/8].
// Two lists have the same text if and only if they have the same members. A long text
// ends with a digest.
func (d *Descriptor) ValueText() string {
	if !d.HasList() {
		return d.Value
	}
	members := make([]string, 0, len(d.AnyOf.Values)+len(d.AnyOf.CIDRs))
	for _, v := range d.AnyOf.Values {
		members = append(members, quoteMember(v))
	}
	for _, text := range d.AnyOf.CIDRs {
		if p, err := cidr.Parse(text); err == nil { // rules are valid; mistakes are reported elsewhere
			text = p.String()
		}
		members = append(members, cidrMark+text)
	}
	slices.Sort(members)
	text := strings.Join(members, "|")
	if len(text) <= maxListText {
		return "[" + text + "]"
	}
	kept, size := 0, 0
	for kept < len(members) && size+len(members[kept]) <= keptOfList {
		size += len(members[kept])
		kept++
	}
	digest := sha256.Sum256([]byte(text))
	rest := moreMark + strconv.Itoa(len(members)-kept) + ":" + idEncoding.EncodeToString(digest[:])[:idLength]
	return "[" + strings.Join(append(members[:kept:kept], rest), "|") + "]"
}

// Prefixes in the text of a list: of a range, and of the number of members left out.
const (
	cidrMark = "cidr:"
	moreMark = "+"
)

// quoteMember quotes a value that could be mistaken for the text around it.
func quoteMember(v string) string {
	if strings.ContainsAny(v, "|[]") || strings.HasPrefix(v, cidrMark) || strings.HasPrefix(v, moreMark) {
		return strconv.Quote(v)
	}
	return Quote(v)
}
