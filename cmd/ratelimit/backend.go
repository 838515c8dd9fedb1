package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/backend/persecond"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
)

// backendKind is where counters live; empty leaves it to the other settings.
type backendKind string

// UnmarshalText implements encoding.TextUnmarshaler. Case does not matter.
func (k *backendKind) UnmarshalText(text []byte) error {
	switch kind := strings.ToLower(string(text)); kind {
	case "memory", "redis":
		*k = backendKind(kind)
		return nil
	case "memcache":
		return errors.New("memcache can't decide several limits in one atomic step: use redis, with REDIS_URL, for counters that replicas share, or memory for those of one")
	}
	return fmt.Errorf("unknown backend %q: use memory or redis", text)
}

// stores are what the environment and the flags say of where counters live.
type stores struct {
	main      redis.Settings
	perSecond *redis.Settings // nil without a Redis of its own
}

// spread reports whether the counters of a request may be on several servers, of
// which none can decide all of them in one step.
func (s *stores) spread() bool {
	return s.perSecond != nil || s.main.Backend == "redis" && s.main.Redis.Mode.Spreads()
}

// readStores reads the settings of Redis. Everything wrong with them is in the error.
func (c *serveCmd) readStores() (s stores, err error) {
	if s.main, err = redis.FromEnvironment(c.redisVariable); err != nil {
		return s, err
	}
	if s.main.Backend == "redis" && c.Snapshot != "" {
		return s, errors.New("--snapshot is for counters in memory, and these are in Redis, which keeps them over a restart: leave it out")
	}
	if !c.RedisPerSecond {
		return s, nil
	}
	if s.main.Backend != "redis" {
		return s, errors.New("REDIS_PERSECOND is true, and counters are in memory: set REDIS_URL too, or leave it out")
	}
	second, err := redis.FromEnvironment(perSecondVariable)
	if err != nil {
		return s, fmt.Errorf("the REDIS_PERSECOND_ settings, named without PERSECOND: %w", err)
	}
	s.perSecond = &second
	return s, nil
}

// redisVariable is os.Getenv, as flags change it.
func (c *serveCmd) redisVariable(name string) string {
	value := os.Getenv(name)
	switch name {
	case "BACKEND_TYPE":
		return string(c.Backend)
	case "REDIS_URL":
		return c.RedisURL
	case "REDIS_PERSECOND": // see perSecondVariable
		return ""
	case "REPLICAS":
		return strconv.Itoa(c.Replicas)
	case "REDIS_PORT":
		// What Docker and Kubernetes set for a service called redis is no number.
		if strings.Contains(value, "://") {
			return ""
		}
	}
	return value
}

// perSecondVariable gives the settings of the Redis for limits per second, as if
// it were the only one. What has no variable of its own is the same for both.
func perSecondVariable(name string) string {
	if name == "BACKEND_TYPE" {
		return "redis"
	}
	rest, isRedis := strings.CutPrefix(name, "REDIS_")
	switch {
	case strings.HasPrefix(rest, "TLS_"):
		if secure, err := strconv.ParseBool(os.Getenv("REDIS_PERSECOND_TLS")); err == nil && secure {
			return os.Getenv(name)
		}
		if strings.HasPrefix(os.Getenv("REDIS_PERSECOND_URL"), "rediss://") {
			return os.Getenv(name)
		}
		return "" // the files are for the other Redis
	case !isRedis, strings.HasPrefix(rest, "BREAK_"), rest == "COMBINING", rest == "PLAIN_KEYS", rest == "DIAL_TIMEOUT":
		return os.Getenv(name)
	}
	return os.Getenv("REDIS_PERSECOND_" + rest)
}

// redisPatience is how long the start waits for Redis, so that the first request
// finds it, before the service starts without.
const redisPatience = 2 * time.Second

// open connects the store of the counters.
func (s *service) open(ctx context.Context) error {
	s.backend = s.store
	if s.stores.main.Backend != "redis" {
		return nil
	}
	others, err := s.connect(ctx, &s.stores.main)
	if err != nil {
		return err
	}
	s.backend = others
	s.metrics = append(s.metrics, others)
	if s.stores.perSecond == nil {
		return nil
	}
	seconds, err := s.connect(ctx, s.stores.perSecond)
	if err != nil {
		return err
	}
	s.backend = &persecond.Backend{Seconds: seconds, Others: others}
	s.metrics = nil
	for name, b := range map[string]*redis.Backend{"main": others, "per_second": seconds} {
		s.metrics = append(s.metrics, prometheus.WrapCollectorWith(prometheus.Labels{"redis": name}, b))
	}
	return nil
}

func (s *service) connect(ctx context.Context, settings *redis.Settings) (*redis.Backend, error) {
	for _, w := range settings.Warnings {
		s.log.Warn("a setting of Redis is odd", zap.String("warning", w))
	}
	settings.Redis.Log = s.log.Named("redis")
	b, err := redis.New(settings.Redis)
	if err != nil {
		return nil, err
	}
	s.redis = append(s.redis, b)
	ctx, cancel := context.WithTimeout(ctx, redisPatience)
	defer cancel()
	if err := b.Ready(ctx); err != nil {
		s.log.Error("starting without Redis: until there is a connection, on_backend_error decides", zap.Error(err))
	}
	return b, nil
}

// close waits for what requests give back, and drops the connections of the stores.
func (s *service) close() error {
	if s.decider != nil {
		s.decider.Close()
	}
	for _, b := range s.redis {
		b.Close()
	}
	return s.store.Close()
}
