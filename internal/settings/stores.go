package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/app"
)

// store is a kind of store: a row of the registry.
type store struct {
	kind string // as BACKEND_TYPE names it
	// chosenBy are variables of which any chooses this store if BACKEND_TYPE is not set.
	chosenBy []string
	read     func(Getenv) (app.Store, error)
}

// stores is the registry. The first store is the default.
var stores = []store{
	{kind: "memory", read: readMemory},
	{kind: "redis", chosenBy: redisVariables, read: readRedisStore},
}

// given returns a variable that chooses the store; empty if none does.
func (s store) given(getenv Getenv) string {
	for _, name := range s.chosenBy {
		if getenv(name) != "" {
			return name
		}
	}
	return ""
}

// StoreKind returns the kind of store that the text names. Case does not matter.
func StoreKind(text string) (string, error) {
	kind := strings.ToLower(text)
	if kind == "memcache" {
		return "", errors.New("memcache can't decide several limits in one atomic step: use redis, with REDIS_URL, for counters that replicas share, or memory for those of one")
	}
	kinds := make([]string, len(stores))
	for i, s := range stores {
		kinds[i] = s.kind
	}
	if !slices.Contains(kinds, kind) {
		return "", fmt.Errorf("unknown backend %q: use %s", text, strings.Join(kinds, " or "))
	}
	return kind, nil
}

// ReadStore returns the store that the environment chooses, by BACKEND_TYPE or else by
// any variable of just one store. The error lists everything wrong with its settings.
func ReadStore(getenv Getenv) (app.Store, error) {
	getenv = withoutLinks(getenv)
	e := environment{get: getenv}
	e.seconds("RATE_LIMITER_DEFAULT_TTL", time.Hour) // only checked: counters expire sooner in any case
	chosen, err := choose(getenv)
	if err := errors.Join(append(e.errs, err)...); err != nil {
		return app.Store{}, err
	}
	return chosen.read(getenv)
}

// withoutLinks hides the REDIS_PORT that Docker and Kubernetes set for a service called
// redis, and REDIS_PERSECOND_PORT for one called redis-persecond. It is not a number but a
// URL, such as tcp://10.0.0.1:6379.
func withoutLinks(getenv Getenv) Getenv {
	return func(name string) string {
		value := getenv(name)
		if (name == "REDIS_PORT" || name == perSecond+"_PORT") && strings.Contains(value, "://") {
			return ""
		}
		return value
	}
}

func choose(getenv Getenv) (store, error) {
	chosen, from := stores[0], ""
	if text := getenv("BACKEND_TYPE"); text != "" {
		kind, err := StoreKind(text)
		if err != nil {
			return chosen, fmt.Errorf("BACKEND_TYPE is %s: %w", text, err)
		}
		chosen = stores[slices.IndexFunc(stores, func(s store) bool { return s.kind == kind })]
		from = "BACKEND_TYPE is " + kind
	}
	for _, s := range stores {
		name := s.given(getenv)
		switch {
		case name == "" || from != "" && s.kind == chosen.kind:
		case from == "":
			chosen, from = s, name+" is set"
		default:
			return chosen, fmt.Errorf("%s, but %s is set: leave one of them out", from, name)
		}
	}
	return chosen, nil
}

// readMemory returns the store in the memory of this process, which has no variables of
// its own.
func readMemory(getenv Getenv) (app.Store, error) {
	e := environment{get: getenv}
	two := e.boolean(perSecond, false)
	if err := errors.Join(e.errs...); err != nil {
		return app.Store{}, err
	}
	if two {
		return app.Store{}, errors.New(perSecond + " is true, but counters are in memory: set REDIS_URL too, or leave it out")
	}
	return app.Store{Kind: "memory", Name: "memory", Warnings: withoutPerSecond(getenv)}, nil
}
