package settings

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/distlimiter/ratelimit/internal/stats/statsd"
)

// statsdHost is the default of the flag.
const statsdHost = "localhost"

// WantsStatsd reports whether to send counts because a host is named, by the variable or
// by the flag, although no variable turns sending on or off.
func WantsStatsd(getenv Getenv, host string) bool {
	return (getenv("STATSD_HOST") != "" || host != statsdHost) && getenv("USE_STATSD") == ""
}

// ReadMogrifiers reads the mogrifiers of these names from
// DOG_STATSD_MOGRIFIER_<name>_PATTERN, _NAME and _TAGS (key:value, …).
func ReadMogrifiers(getenv Getenv, names []string) ([]statsd.Mogrifier, error) {
	var list []statsd.Mogrifier
	for _, name := range names {
		prefix := "DOG_STATSD_MOGRIFIER_" + name
		pattern, to, tags := getenv(prefix+"_PATTERN"), getenv(prefix+"_NAME"), getenv(prefix+"_TAGS")
		if pattern == "" || to == "" {
			return nil, fmt.Errorf("mogrifier %s: set both %s_PATTERN and %s_NAME", name, prefix, prefix)
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, fmt.Errorf("%s_PATTERN: %w", prefix, err)
		}
		m := statsd.Mogrifier{Pattern: re, Name: to, Tags: map[string]string{}}
		for tag := range strings.SplitSeq(tags, ",") {
			key, value, ok := strings.Cut(tag, ":")
			switch {
			case tag == "":
			case !ok || key == "" || value == "":
				return nil, fmt.Errorf("%s_TAGS: %q: write key:value, separated by commas", prefix, tag)
			default:
				m.Tags[key] = value
			}
		}
		list = append(list, m)
	}
	return list, nil
}
