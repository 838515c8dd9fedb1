package config

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/background"
)

// Digest returns a digest of all that the rules say, wherever they come from. Equal rules
// have equal digests. The order of descriptors is part of it, the order of domains is not.
func (r *Rules) Digest() [sha256.Size]byte {
	task := background.New()
	defer task.Close()
	h := sha256.New()
	domains := slices.SortedFunc(slices.Values(r.Domains), func(a, b *Domain) int { return strings.Compare(a.Name, b.Name) })
	for _, domain := range domains {
		fmt.Fprintf(h, "%q %v\n", domain.Name, domain.Consume)
		var level func(depth int, descriptors []*Descriptor)
		level = func(depth int, descriptors []*Descriptor) {
			for _, d := range descriptors {
				metadata, _ := json.Marshal(d.Metadata) // JSON-like values only
				set, _ := json.Marshal(d.Set)           // texts alone
				hold, _ := json.Marshal(d.Hold)
				fmt.Fprintf(h, "%d %q %q %q %t %t %t %t %t %s %s %s\n", depth, d.Key, d.Value, d.AnyOf,
					d.ShadowMode, d.QuotaMode, d.ShareThreshold, d.DetailedMetric, d.ValueToMetric, metadata, set, hold)
				for _, l := range slices.Concat(d.Limits, rowsOf(d.Limits)) {
					var p algo.Params
					if l.Algo != nil {
						p = l.Algo.Params()
					}
					by := ""
					if l.Table != nil {
						by = "by " + l.Table.By
						for _, r := range l.Table.Rows {
							fmt.Fprintf(h, "%q ", r.Value)
						}
					}
					fmt.Fprintf(h, "%q %d %q %t %t %+v %d %d %d %q %d %v %q %q\n", by, l.BurstPercent, l.Name, l.Unlimited, l.ShadowMode, p,
						l.RequestsPerUnit, l.Unit, l.UnitMultiplier, l.Replaces, l.OnBackendError, l.Lease, l.RawBody, l.RequestHeaders)
				}
				task.Step()
				level(depth+1, d.Descriptors)
			}
		}
		level(0, domain.Descriptors)
		level(0, domain.Limits)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// rowsOf returns the limits of the tables of limits.
func rowsOf(limits []*Limit) (rows []*Limit) {
	for _, l := range limits {
		if l.Table != nil {
			for _, r := range l.Table.Rows {
				rows = append(rows, r.Limit)
			}
		}
	}
	return rows
}
