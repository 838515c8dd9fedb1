package settings

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/app"
	"github.com/distlimiter/ratelimit/internal/backend/persecond"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/named"
	"github.com/distlimiter/ratelimit/internal/rulestore"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// perSecond is the variable that gives limits per second a Redis of their own.
const perSecond = "REDIS_PERSECOND"

// readRedisStore reads the settings of Redis, and of the per-second Redis if there is
// one.
func readRedisStore(getenv Getenv) (app.Store, error) {
	main, err := ReadRedis(getenv)
	if err != nil {
		return app.Store{}, err
	}
	main.Options.Names = redisNames("REDIS")
	servers := []Redis{main}
	e := environment{get: getenv}
	two := e.boolean(perSecond, false)
	if err := errors.Join(e.errs...); err != nil {
		return app.Store{}, err
	}
	if two {
		second, err := ReadRedis(perSecondRedis(getenv))
		if err != nil {
			return app.Store{}, fmt.Errorf("the %s_ settings, named without PERSECOND: %w", perSecond, err)
		}
		second.Options.Names = redisNames(perSecond)
		servers = append(servers, second)
	}
	s := app.Store{
		Kind:            "redis",
		Name:            "Redis",
		Spread:          two || main.Options.Mode.Spreads(),
		NeededForHealth: main.NeededForHealth,
		Certificates:    map[string]tlsfiles.Files{},
		Open:            func(log *zap.Logger) (*app.OpenStore, error) { return openRedis(servers, log) },
	}
	if !two {
		s.Warnings = withoutPerSecond(getenv)
	}
	for i, use := range []string{"redis", "redis_per_second"}[:len(servers)] {
		s.Warnings = append(s.Warnings, servers[i].Warnings...)
		if files := servers[i].Options.TLS; files != nil {
			s.Certificates[use] = tlsfiles.Files{Cert: files.Cert, Key: files.Key}
		}
	}
	return s, nil
}

// withoutPerSecond returns a warning if there are variables of a per-second Redis, and
// there is none.
func withoutPerSecond(getenv Getenv) (warnings []string) {
	if idle := perSecondVariables(getenv); len(idle) > 0 {
		warnings = append(warnings, fmt.Sprintf("%s: no effect without %s=true", strings.Join(idle, ", "), perSecond))
	}
	return warnings
}

// perSecondVariables returns the variables of the per-second Redis that are set.
func perSecondVariables(getenv Getenv) (set []string) {
	second := perSecondRedis(func(name string) string {
		if strings.HasPrefix(name, perSecond+"_") && getenv(name) != "" {
			set = append(set, name)
		}
		return ""
	})
	for _, name := range redisVariables {
		second(name)
	}
	slices.Sort(set)
	return slices.Compact(set)
}

// perSecondRedis returns the environment of the per-second Redis as if it were the only
// Redis. Settings without a variable of their own are the same for both.
func perSecondRedis(getenv Getenv) Getenv {
	return func(name string) string {
		rest, isRedis := strings.CutPrefix(name, "REDIS_")
		switch {
		case strings.HasPrefix(rest, "TLS_"):
			if secure, err := strconv.ParseBool(getenv(perSecond + "_TLS")); err == nil && secure {
				return getenv(name)
			}
			if strings.HasPrefix(getenv(perSecond+"_URL"), "rediss://") {
				return getenv(name)
			}
			return "" // the files belong to the other Redis
		case !isRedis, strings.HasPrefix(rest, "BREAK_"), rest == "COMBINING", rest == "PLAIN_KEYS", rest == "DIAL_TIMEOUT":
			return getenv(name)
		}
		return getenv(perSecond + "_" + rest)
	}
}

// redisNames returns how an operator sets the fields of options that messages name.
func redisNames(prefix string) named.Fields {
	return func(field string) (flag, variable string) {
		if field == "Mode" {
			return "", prefix + "_TYPE"
		}
		return "", ""
	}
}

// openRedis opens one Redis, and the per-second Redis if there is one.
func openRedis(servers []Redis, log *zap.Logger) (_ *app.OpenStore, err error) {
	var open []*redis.Backend
	closeAll := func() {
		for _, b := range open {
			b.Close()
		}
	}
	for _, s := range servers {
		s.Options.Log = log.Named("redis")
		b, err := redis.New(s.Options)
		if err != nil {
			closeAll()
			return nil, err
		}
		open = append(open, b)
	}
	main := open[0]
	s := &app.OpenStore{
		Backend: main,
		Metrics: []prometheus.Collector{main},
		Ready: func(ctx context.Context) (err error) {
			for _, b := range open {
				err = errors.Join(err, b.Ready(ctx))
			}
			return err
		},
		Rules: func(file *rulestore.File, log *zap.Logger) rulestore.Store {
			return rulestore.NewRedis(rulestore.RedisOptions{Client: main.Client, Prefix: main.Prefix(), Copy: file, Log: log})
		},
		Close: closeAll,
	}
	if len(open) > 1 {
		s.Backend = &persecond.Backend{Seconds: open[1], Others: main}
		s.Metrics = nil
		for i, name := range []string{"main", "per_second"} {
			s.Metrics = append(s.Metrics, prometheus.WrapCollectorWith(prometheus.Labels{"redis": name}, open[i]))
		}
	}
	return s, nil
}
