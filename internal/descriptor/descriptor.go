// Package descriptor owns the compiled matcher: from a domain and the entries
// of a request descriptor to the rule that applies and the keys of its
// counters. A [Matcher] is immutable; a reload compiles a new one.
package descriptor

import "github.com/distlimiter/ratelimit/internal/config"

// Entry is one key and value of a request descriptor.
type Entry struct{ Key, Value string }

// Rule is one descriptor of the configuration that has limits.
type Rule struct {
	// Index is dense over all rules of the matcher: 0 … Matcher.Len()-1.
	Index int
	// Domain and Path name the rule in statistics and logs. Path joins the
	// configured keys and values, as envoyproxy/ratelimit does: "user_alice.path".
	Domain, Path string
	// Config is the node the rule was compiled from.
	Config *config.Descriptor
}
