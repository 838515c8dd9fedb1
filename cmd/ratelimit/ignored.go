package main

import (
	"os"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// ignored are variables of envoyproxy/ratelimit that have no effect here, and why.
// Those of Redis are in its package.
var ignored = map[string]string{
	"EXPIRATION_JITTER_MAX_SECONDS":            "keys expire when their state means nothing any more",
	"PROMETHEUS_MAPPER_YAML":                   "metrics have the names of the default mapping",
	"PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS": "times are in seconds",
	"RUNTIME_WATCH_ROOT":                       "the root and the files in it are both watched",
}

// warnOfIgnored names each variable that is set and has no effect.
func warnOfIgnored(log *zap.Logger) {
	environment := os.Environ()
	slices.Sort(environment)
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		why := ignored[name]
		if strings.HasPrefix(name, "MEMCACHE_") {
			why = "memcached is not used: use BACKEND_TYPE=redis or memory"
		}
		if why != "" && value != "" {
			log.Warn("a setting has no effect", zap.String("warning", name+" has no effect: "+why))
		}
	}
}
