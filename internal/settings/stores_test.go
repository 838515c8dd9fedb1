package settings_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/settings"
)

// TestReadStore shows where counters live by what the environment says.
func TestReadStore(t *testing.T) {
	for name, test := range map[string]struct {
		env    env
		want   string
		spread bool
	}{
		"nothing":               {env{}, "memory", false},
		"memory":                {env{"BACKEND_TYPE": "memory"}, "memory", false},
		"redis, and no address": {env{"BACKEND_TYPE": "Redis"}, "redis", false},
		"any setting of Redis":  {env{"REDIS_POOL_SIZE": "10"}, "redis", false},
		"Docker's port":         {env{"REDIS_HOST": "r", "REDIS_PORT": "tcp://10.0.0.1:6379"}, "redis", false},
		"no port but Docker's":  {env{"REDIS_PORT": "tcp://10.0.0.1:6379"}, "memory", false},
		"a cluster":             {env{"REDIS_URL": "a:1,b:2", "REDIS_TYPE": "CLUSTER"}, "redis", true},
		"a Redis per second":    {env{"REDIS_URL": "r:1", "REDIS_PERSECOND": "true", "REDIS_PERSECOND_URL": "s:1"}, "redis", true},
		"none per second":       {env{"REDIS_PERSECOND": "false"}, "memory", false},
		"0 per second":          {env{"REDIS_PERSECOND": "0"}, "memory", false},
		"a link per second":     {env{"REDIS_URL": "r:1", "REDIS_PERSECOND": "true", "REDIS_PERSECOND_URL": "s:1", "REDIS_PERSECOND_PORT": "tcp://10.0.0.1:6379"}, "redis", true},
		"an hour":               {env{"RATE_LIMITER_DEFAULT_TTL": "60"}, "memory", false},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := settings.ReadStore(test.env.get)
			if err != nil {
				t.Fatal(err)
			}
			if s.Kind != test.want || s.Spread != test.spread || (s.Open == nil) != (test.want == "memory") {
				t.Errorf("got %+v, want %s, spread: %v", s, test.want, test.spread)
			}
		})
	}
}

// TestPerSecondVariablesAreReadAsTheOthers, which TestReadRedis looks at: what is wrong or
// odd about one is said.
func TestPerSecondVariablesAreReadAsTheOthers(t *testing.T) {
	base := env{"REDIS_URL": "r:1", "REDIS_PERSECOND": "true", "REDIS_PERSECOND_URL": "s:1"}
	for _, name := range []string{"TIMEOUT", "POOL_SIZE", "PIPELINE_WINDOW"} {
		e := maps.Clone(base)
		e["REDIS_PERSECOND_"+name] = "much"
		if _, err := settings.ReadStore(e.get); err == nil || !strings.Contains(err.Error(), "REDIS_PERSECOND_ settings") || !strings.Contains(err.Error(), "REDIS_"+name+` is "much"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	e := maps.Clone(base)
	e["REDIS_PERSECOND_SENTINEL_AUTH"] = "hush"
	if s, err := settings.ReadStore(e.get); err != nil || len(s.Warnings) != 1 || !strings.HasPrefix(s.Warnings[0], "REDIS_SENTINEL_AUTH has no effect") {
		t.Errorf("%v, warnings %q", err, s.Warnings)
	}
}

// TestPerSecondVariablesNeedTheirSwitch checks the warning about them, with each store.
func TestPerSecondVariablesNeedTheirSwitch(t *testing.T) {
	for _, other := range []env{{}, {"REDIS_URL": "r:1"}} {
		e := env{"REDIS_PERSECOND_URL": "s:1", "REDIS_PERSECOND_TIMEOUT": "1s"}
		maps.Copy(e, other)
		want := []string{"REDIS_PERSECOND_TIMEOUT, REDIS_PERSECOND_URL: no effect without REDIS_PERSECOND=true"}
		if s, err := settings.ReadStore(e.get); err != nil || !slices.Equal(s.Warnings, want) {
			t.Errorf("%v: %v, warnings %q, want %q", e, err, s.Warnings, want)
		}
	}
}

func TestReadStoreErrors(t *testing.T) {
	for name, test := range map[string]struct {
		env  env
		want []string // all in the error
	}{
		"unknown":                  {env{"BACKEND_TYPE": "floppy"}, []string{"BACKEND_TYPE", "floppy", "memory or redis"}},
		"memcache":                 {env{"BACKEND_TYPE": "memcache"}, []string{"BACKEND_TYPE", "memcache", "use redis", "or memory"}},
		"memory, and Redis":        {env{"BACKEND_TYPE": "memory", "REDIS_URL": "r:1"}, []string{"BACKEND_TYPE is memory", "REDIS_URL", "leave one of them out"}},
		"memory, and per second":   {env{"REDIS_PERSECOND": "true"}, []string{"REDIS_PERSECOND", "REDIS_URL"}},
		"not a TTL":                {env{"RATE_LIMITER_DEFAULT_TTL": "-1"}, []string{"RATE_LIMITER_DEFAULT_TTL", "3600"}},
		"a wrong one per second":   {env{"REDIS_URL": "r:1", "REDIS_PERSECOND": "true", "REDIS_PERSECOND_TYPE": "ring"}, []string{"REDIS_PERSECOND_ settings", "ring"}},
		"neither true nor false":   {env{"REDIS_URL": "r:1", "REDIS_PERSECOND": "often"}, []string{"REDIS_PERSECOND", "true or false"}},
		"a wrong setting of Redis": {env{"REDIS_TYPE": "ring"}, []string{"REDIS_TYPE", "SENTINEL"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := settings.ReadStore(test.env.get)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not name %s", err, want)
				}
			}
		})
	}
}
