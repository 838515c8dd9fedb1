package settings

import (
	"slices"
	"strings"
)

// ignored are variables of envoyproxy/ratelimit that have no effect here, and why. The
// variables of Redis are in withoutEffect.
var ignored = map[string]string{
	"EXPIRATION_JITTER_MAX_SECONDS":            "keys expire when their state means nothing any more",
	"PROMETHEUS_MAPPER_YAML":                   "metrics have the names of the default mapping",
	"PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS": "times are in seconds",
	"RUNTIME_WATCH_ROOT":                       "the root and the files in it are both watched",
}

// WithoutEffect names each variable of an environment, as os.Environ returns it, that
// is set and has no effect here, and says why.
func WithoutEffect(environment []string) (warnings []string) {
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		why := ignored[name]
		if strings.HasPrefix(name, "MEMCACHE_") {
			why = "memcached is not used: use BACKEND_TYPE=redis or memory"
		}
		if why != "" && value != "" {
			warnings = append(warnings, name+" has no effect: "+why)
		}
	}
	slices.Sort(warnings)
	return warnings
}
