package rulestore

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/backend/redis/transient"
)

// RedisOptions say where in Redis the rules are kept.
type RedisOptions struct {
	// Client returns the client, or why there is none yet. Required. To have the stored
	// rules in force from the start, wait for a client before the first load.
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

// Redis keeps rules in one hash of Redis, for all replicas. Each replica looks for
// changes a few times a second, so a replica that was cut off catches up the same way. If
// Redis comes back with an older set, or none, the replicas store the newest set that any
// of them knows. A second key holds the last revision. If only the hash is gone, someone
// has deleted it on purpose, and it is not restored.
type Redis struct {
	opts RedisOptions
	key  string
	read decoder

	mu       sync.Mutex
	known    Set
	marked   uint64 // the revision to which this replica last set the second key
	unusable bool   // Redis holds something else than a set
}

var _ Store = (*Redis)(nil)

var (
	//go:embed save.lua
	saveScript string
	//go:embed mark.lua
	markScript string

	save = rueidis.NewLuaScript(saveScript)
	mark = rueidis.NewLuaScript(markScript)
)

// NewRedis returns a store in Redis. It sets aside a copy that can't be read.
func NewRedis(o RedisOptions) *Redis {
	o.Poll, o.Timeout = cmp.Or(o.Poll, defaultPoll), cmp.Or(o.Timeout, defaultTimeout)
	r := &Redis{opts: o, key: o.Prefix + ":admin-rules"}
	if o.Copy != nil {
		known, err := o.Copy.Load(context.Background())
		if err != nil {
			o.Log.Error("the copy of the admin rules can't be used: a start while Redis is away does without them", zap.Error(err))
		}
		if known.unusable {
			if err := o.Copy.setAside(); err != nil {
				o.Log.Error("no copy of the admin rules is kept", zap.Error(err))
				r.opts.Copy = nil
			}
			known = Set{}
		}
		r.known = known
	}
	return r
}

// Load implements Store.
func (r *Redis) Load(ctx context.Context) (Set, error) {
	set, err := r.load(ctx)
	known := r.last()
	r.setUnusable(set.unusable)
	switch {
	case set.unusable:
		set.Revision = max(set.Revision, known.Revision)
		return set, err
	case err != nil:
		return known, err
	}
	if set.Revision >= known.Revision {
		r.learn(set)
		return set, r.mark(ctx, set.Revision)
	}
	// Redis has lost the known set, unless known was saved after this load.
	err = r.save(ctx, set, known)
	switch {
	case errors.Is(err, ErrConflict): // another replica was faster: the next poll shows its set
	case err != nil:
		return known, fmt.Errorf("%w: it has lost admin rules, which are not restored: %w", ErrUnavailable, err)
	default:
		r.opts.Log.Warn("Redis had lost admin rules: they are restored", zap.Uint64("found", set.Revision), zap.Uint64("restored", known.Revision))
	}
	return known, nil
}

func (r *Redis) setUnusable(is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unusable = is
}

// last returns the last known set.
func (r *Redis) last() Set {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known
}

// learn remembers a stored set, unless a later one is known.
func (r *Redis) learn(set Set) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if set.Revision < r.known.Revision || set.Token() == r.known.Token() && set.Revision == r.known.Revision {
		return
	}
	r.known = set
	if r.opts.Copy != nil {
		if err := r.opts.Copy.replace(set); err != nil {
			r.opts.Log.Error("no copy of the admin rules is kept: a start while Redis is away would do without them", zap.Error(err))
		}
	}
}

// load reads the set from Redis.
func (r *Redis) load(ctx context.Context) (Set, error) {
	client, err := r.opts.Client()
	if err != nil {
		return Set{}, unavailable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	fields, err := client.Do(ctx, client.B().Hgetall().Key(r.key).Build()).AsStrMap()
	switch {
	case isWrongType(err):
		return r.unreadable(ctx, client, "", errors.New("it is not a hash"))
	case err != nil:
		return Set{}, unavailable(err)
	case len(fields) == 0:
		revision, err := r.revision(ctx, client)
		return Set{Revision: revision, hasToken: true}, err
	}
	set, err := r.read.decode([]byte(fields["set"]))
	if err != nil {
		return r.unreadable(ctx, client, fields["token"], err)
	}
	set.hasToken, set.token = true, fields["token"]
	return set, nil
}

// unreadable returns a set that stands for other content of the key.
func (r *Redis) unreadable(ctx context.Context, client rueidis.Client, token string, why error) (Set, error) {
	revision, err := r.revision(ctx, client)
	if err != nil {
		return Set{}, err
	}
	if number, _, ok := strings.Cut(token, "-"); ok { // as Set.Token makes them
		if inToken, err := strconv.ParseUint(number, 10, revisionBits); err == nil {
			revision = max(revision, inToken)
		}
	}
	return Set{Revision: revision, hasToken: true, token: token, unusable: true}, fmt.Errorf("%w: the key %s in Redis: %w", ErrUnusable, r.key, why)
}

// revision returns the last revision stored; 0 if Redis does not know it.
func (r *Redis) revision(ctx context.Context, client rueidis.Client) (uint64, error) {
	text, err := client.Do(ctx, client.B().Get().Key(r.revisionKey()).Build()).ToString()
	if err != nil && !rueidis.IsRedisNil(err) && !isWrongType(err) {
		return 0, unavailable(err)
	}
	revision, err := strconv.ParseUint(text, 10, revisionBits)
	if err != nil {
		return 0, nil //nolint:nilerr // the key is absent or holds something else
	}
	return revision, nil
}

func (r *Redis) revisionKey() string { return r.key + ":revision" }

// mark records in Redis that a revision was stored.
func (r *Redis) mark(ctx context.Context, revision uint64) error {
	r.mu.Lock()
	done := r.marked >= revision
	r.mu.Unlock()
	if done {
		return nil
	}
	client, err := r.opts.Client()
	if err != nil {
		return unavailable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	if err := mark.Exec(ctx, client, []string{r.revisionKey()}, []string{strconv.FormatUint(revision, 10)}).Error(); err != nil {
		return unavailable(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.marked = max(r.marked, revision)
	return nil
}

func isWrongType(err error) bool {
	refused, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(refused.Error(), "WRONGTYPE")
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
	replacing := "0"
	if prev.unusable {
		replacing = "1"
	}
	stored, err := save.Exec(ctx, client, []string{r.key}, []string{prev.Token(), next.Token(), string(text), replacing}).AsInt64()
	switch {
	case err != nil:
		if refused, ok := rueidis.IsRedisErr(err); ok && !transient.Is(refused.Error()) {
			return fmt.Errorf("redis refused to save the admin rules: %w", err)
		}
		return unavailable(err)
	case stored == 0:
		return ErrConflict
	}
	r.mu.Lock()
	r.marked = 0 // Redis may have lost the mark, too
	r.mu.Unlock()
	if err := r.mark(ctx, next.Revision); err != nil {
		r.opts.Log.Warn("a deletion of the admin rules' key would be taken for a loss until the next look", zap.Error(err))
	}
	return nil
}

// Watch implements Store.
func (r *Redis) Watch(ctx context.Context, changed func()) error {
	changed() // something may have changed since the last load
	ticker := time.NewTicker(r.opts.Poll)
	defer ticker.Stop()
	announced, at := "", time.Time{} // the last token reported as a change, and when
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
		notLoaded := !r.isUnusable() && token != r.last().Token() && time.Since(at) > remind
		if token != announced || notLoaded {
			changed()
			announced, at = token, time.Now()
		}
	}
}

func (r *Redis) isUnusable() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unusable
}

// token returns the token of the set in Redis.
func (r *Redis) token(ctx context.Context) (string, error) {
	client, err := r.opts.Client()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	token, err := client.Do(ctx, client.B().Hget().Key(r.key).Field("token").Build()).ToString()
	switch {
	case rueidis.IsRedisNil(err):
		return "", nil
	case isWrongType(err): // no set has this token
		return "WRONGTYPE", nil
	}
	return token, err
}
