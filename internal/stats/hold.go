package stats

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Holds are what became of what requests under a rule asked to hold. What is held now
// is Granted less Settled and Expired, summed up over all replicas.
type Holds struct {
	// Granted are requests that were let hold.
	Granted uint64 `json:"granted"`
	// Settled are requests that gave back what they held when they ended.
	Settled uint64 `json:"settled"`
	// Unheld are settlements for which nothing was held: of requests that were refused,
	// and of those whose hold had expired.
	Unheld uint64 `json:"unheld"`
	// Expired are requests that never settled.
	Expired uint64 `json:"expired"`
	// Full are requests that were refused because as many held as a counter keeps.
	Full uint64 `json:"full"`
}

type holds struct{ granted, settled, unheld, expired, full atomic.Uint64 }

// Hold counts what one call did to what is held. It is counted for a rule alone, and not
// for the values of detailed metrics.
func (r *Rule) Hold(done Holds) {
	h := r.holds.Load()
	if h == nil {
		r.holds.CompareAndSwap(nil, new(holds))
		h = r.holds.Load()
	}
	for _, c := range [...]struct {
		count *atomic.Uint64
		n     uint64
	}{{&h.granted, done.Granted}, {&h.settled, done.Settled}, {&h.unheld, done.Unheld}, {&h.expired, done.Expired}, {&h.full, done.Full}} {
		if c.n > 0 {
			c.count.Add(c.n)
		}
	}
}

// Holds returns what was counted of holds; given is false for a rule that never had
// any.
func (r *Rule) Holds() (counted Holds, given bool) {
	h := r.holds.Load()
	if h == nil {
		return counted, false
	}
	return Holds{
		Granted: h.granted.Load(), Settled: h.settled.Load(), Unheld: h.unheld.Load(), Expired: h.expired.Load(), Full: h.full.Load(),
	}, true
}

var (
	holdsTotal = prometheus.NewDesc("ratelimit_holds_total", "Requests under rules with a hold, by what became of it: granted, settled, unheld (a settlement for which nothing was held), expired or full.", []string{"domain", "rule", "result"}, nil)

	holdResults = []struct {
		name string
		read func(Holds) uint64
	}{
		{"expired", func(h Holds) uint64 { return h.Expired }},
		{"full", func(h Holds) uint64 { return h.Full }},
		{"granted", func(h Holds) uint64 { return h.Granted }},
		{"settled", func(h Holds) uint64 { return h.Settled }},
		{"unheld", func(h Holds) uint64 { return h.Unheld }},
	}
)

func collectHolds(out chan<- prometheus.Metric, rules []ruleCounts) {
	for i := range rules {
		counted, given := rules[i].of.Holds()
		if !given {
			continue
		}
		for _, result := range holdResults {
			out <- prometheus.MustNewConstMetric(holdsTotal, prometheus.CounterValue, float64(result.read(counted)),
				*rules[i].domain.Value, *rules[i].rule.Value, result.name)
		}
	}
}
