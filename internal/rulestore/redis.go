package rulestore

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
)

// RedisOptions say where in Redis the rules are kept.
type RedisOptions struct {
	// Client returns the client, or why there is none yet. Required. Who wants the
	// rules that are there to be in force from the start waits for it before.
	Client func() (rueidis.Client, error)
	// Prefix begins the key. Required.
	Prefix string
	// Copy, if not nil, keeps a copy of the last set seen, for a start while
	// Redis is away.
	Copy *File
	// Poll is how often to look for changes; 0 means 250 ms.
	Poll time.Duration
	// Timeout bounds every call; 0 means 1 s.
	Timeout time.Duration
	// Log is required.
	Log *zap.Logger
}

const (
	defaultPoll    = 250 * time.Millisecond
	defaultTimeout = time.Second
	remind         = time.Second
)

// Redis keeps rules in one hash of Redis, for all replicas. Each looks for
// changes a few times a second, so that one that was cut off needs no other way
// to catch up. A Redis that comes back with an older set, or none, is given the
// newest that any replica knows.
type Redis struct {
	opts RedisOptions
	key  string

	mu    sync.Mutex
	known Set
}

var _ Store = (*Redis)(nil)

//go:embed save.lua
var saveScript string

var save = rueidis.NewLuaScript(saveScript)

// NewRedis returns a store in Redis. The error is that of a copy that can't be read.
func NewRedis(o RedisOptions) (*Redis, error) {
	if o.Poll == 0 {
		o.Poll = defaultPoll
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	r := &Redis{opts: o, key: o.Prefix + ":admin-rules"}
	if o.Copy != nil {
		known, err := o.Copy.Load(context.Background())
		if err != nil {
			return nil, err
		}
		r.known = known
	}
	return r, nil
}

// Load implements Store.
func (r *Redis) Load(ctx context.Context) (Set, error) {
	set, err := r.load(ctx)
	known := r.last()
	if err != nil {
		return known, err
	}
	if set.Revision >= known.Revision {
		r.learn(set)
		return set, nil
	}
	// Redis has lost what is known here, unless known is what has been saved since.
	err = r.save(ctx, set, known)
	switch {
	case errors.Is(err, ErrConflict): // another replica was faster, and the next look shows what it did
	case err != nil:
		return known, fmt.Errorf("%w: it has lost admin rules, which are not restored: %w", ErrUnavailable, err)
	default:
		r.opts.Log.Warn("Redis had lost admin rules: they are restored", zap.Uint64("found", set.Revision), zap.Uint64("restored", known.Revision))
	}
	return known, nil
}

// last returns the last set that is known.
func (r *Redis) last() Set {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known
}

// learn remembers a set that is stored, unless a later one is known.
func (r *Redis) learn(set Set) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if set.Revision < r.known.Revision || set.Token() == r.known.Token() {
		return
	}
	r.known = set
	if r.opts.Copy != nil {
		if err := r.opts.Copy.replace(set); err != nil {
			r.opts.Log.Error("no copy of the admin rules is kept: a start while Redis is away would do without them", zap.Error(err))
		}
	}
}

// load reads what Redis has.
func (r *Redis) load(ctx context.Context) (Set, error) {
	client, err := r.opts.Client()
	if err != nil {
		return Set{}, unavailable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	fields, err := client.Do(ctx, client.B().Hgetall().Key(r.key).Build()).AsStrMap()
	switch {
	case err != nil:
		return Set{}, unavailable(err)
	case len(fields) == 0:
		return Set{}, nil
	}
	set, err := decode([]byte(fields["set"]))
	if err != nil {
		return Set{}, fmt.Errorf("the key %s in Redis holds no admin rules that can be read: %w", r.key, err)
	}
	set.token = fields["token"]
	return set, nil
}

func unavailable(err error) error {
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Save implements Store.
func (r *Redis) Save(ctx context.Context, prev, next Set) error {
	err := r.save(ctx, prev, next)
	if err == nil {
		r.learn(next)
	}
	return err
}

func (r *Redis) save(ctx context.Context, prev, next Set) error {
	client, err := r.opts.Client()
	if err != nil {
		return unavailable(err)
	}
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	stored, err := save.Exec(ctx, client, []string{r.key}, []string{prev.Token(), next.Token(), string(text)}).AsInt64()
	switch {
	case err != nil:
		if refused, ok := rueidis.IsRedisErr(err); ok && !away(refused.Error()) {
			return fmt.Errorf("redis refused to save the admin rules: %w", err)
		}
		return unavailable(err)
	case stored == 0:
		return ErrConflict
	}
	return nil
}

// away says whether an answer of Redis is that of a server that can't work now.
func away(answer string) bool {
	code, _, _ := strings.Cut(answer, " ")
	switch code {
	case "LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "NOREPLICAS", "READONLY":
		return true
	}
	return false
}

// Watch implements Store.
func (r *Redis) Watch(ctx context.Context, changed func()) error {
	changed() // what came between the last load and now
	ticker := time.NewTicker(r.opts.Poll)
	defer ticker.Stop()
	told, at := "", time.Time{} // of the last token that was news
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		token, err := r.token(ctx)
		if err != nil {
			continue
		}
		notLoaded := token != r.last().Token() && time.Since(at) > remind
		if token != told || notLoaded {
			changed()
			told, at = token, time.Now()
		}
	}
}

// token returns that of the set in Redis.
func (r *Redis) token(ctx context.Context) (string, error) {
	client, err := r.opts.Client()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	token, err := client.Do(ctx, client.B().Hget().Key(r.key).Field("token").Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return "", nil
	}
	return token, err
}
