package settings_test

import (
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/settings"
)

func TestInvalidMogrifiers(t *testing.T) {
	for _, c := range []struct {
		env  env
		says string
	}{
		{nil, "set both DOG_STATSD_MOGRIFIER_X_PATTERN"},
		{env{"DOG_STATSD_MOGRIFIER_X_PATTERN": "a"}, "set both"},
		{env{"DOG_STATSD_MOGRIFIER_X_PATTERN": "(", "DOG_STATSD_MOGRIFIER_X_NAME": "a"}, "DOG_STATSD_MOGRIFIER_X_PATTERN: error parsing"},
		{env{"DOG_STATSD_MOGRIFIER_X_PATTERN": "a", "DOG_STATSD_MOGRIFIER_X_NAME": "a", "DOG_STATSD_MOGRIFIER_X_TAGS": "a"}, `"a": write key:value`},
	} {
		_, err := settings.ReadMogrifiers(c.env.get, []string{"X"})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: got %v, want %q", c.env, err, c.says)
		}
	}
}
