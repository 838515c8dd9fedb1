package hit

import (
	"slices"
	"time"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// firstCount is how many requests First sends.
const firstCount = 20

// Limits reports whether the rules limit anything.
func Limits(rules *config.Rules) bool {
	for rule := range rules.All() {
		if slices.ContainsFunc(rule.Descriptor().Limits, func(l *config.Limit) bool { return !l.Unlimited }) {
			return true
		}
	}
	return false
}

// First returns requests that show a limit at work: the first are OK, and one before
// the end is over limit. ok is false if no limit of the rules shows that.
func First(rules *config.Rules, matcher *descriptor.Matcher) (first Requests, ok bool) {
	for rule := range rules.All() {
		hits := hitsThatShow(rule.Descriptor())
		if hits == 0 {
			continue
		}
		if e := matcher.Domain(rule.Domain.Name).Example(rule, "demo", "", "0"); e != nil {
			return Requests{Domain: rule.Domain.Name, Descriptors: []descriptor.Entries{e}, Hits: hits, Count: firstCount}, true
		}
	}
	return Requests{}, false
}

// hitsThatShow returns hits per request such that, of firstCount requests, the first
// pass and the last do not. It returns 0 if there are none: because the rule refuses
// nothing, or everything, or gives hits back as fast as the requests charge them.
func hitsThatShow(d *config.Descriptor) (hits int64) {
	if d.ShadowMode {
		return 0
	}
	for _, l := range d.Limits {
		if l.Unlimited || l.ShadowMode {
			continue
		}
		most, p := l.Algo.Capacity(), l.Algo.Params()
		while := float64(20 * time.Millisecond) // more than the requests take
		if p.Algorithm.AlwaysHolds() {
			while = 0 // nothing comes back but what expires
		}
		if most == 0 || float64(p.Limit)*while/float64(p.Length()) > float64(most)/2 {
			return 0
		}
		if h := (most + firstCount/2 - 1) / (firstCount / 2); hits == 0 || h < hits {
			hits = h
		}
	}
	return hits
}
