package rulestore_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap/zaptest"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/rulestore"
)

// replica is one of several that share rules in a Redis.
type replica struct {
	*rulestore.Provider
	rules *reload.Coordinator
	cut   atomic.Bool // from Redis

	reloaded chan struct{}
}

var errCut = errors.New("cut off for the test")

// start makes a replica and has it follow changes until the test ends.
func start(t *testing.T, server *redistest.Server, copyFile string) *replica {
	t.Helper()
	r := &replica{reloaded: make(chan struct{}, 1000)}
	client := connect(t, server)
	o := rulestore.RedisOptions{Prefix: "test", Poll: 20 * time.Millisecond, Log: zaptest.NewLogger(t),
		Client: func() (rueidis.Client, error) {
			if r.cut.Load() {
				return nil, errCut
			}
			return client, nil
		}}
	if copyFile != "" {
		file, err := rulestore.NewFile(copyFile)
		if err != nil {
			t.Fatal(err)
		}
		o.Copy = file
	}
	store := rulestore.NewRedis(o)
	r.Provider = &rulestore.Provider{Store: store, Log: zaptest.NewLogger(t)}
	r.rules = reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse,
		Providers: []reload.Provider{r.Provider},
		Delay:     time.Millisecond,
		OnReload:  func(reload.Attempt) { r.reloaded <- struct{}{} },
	})
	_ = r.rules.Reload(t.Context()) // what is bad is seen in the status
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.rules.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); running.Wait() })
	return r
}

func connect(t *testing.T, server *redistest.Server) rueidis.Client {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// await waits until the rules in force are as wanted.
func (r *replica) await(t *testing.T, want string) {
	t.Helper()
	r.awaitThat(t, want, func() bool { return strings.Contains(r.rules.Rules().String(), want) })
}

// change puts a limit into force by way of the replica.
func (r *replica) change(t *testing.T, limit int) rulestore.Set {
	t.Helper()
	prev, err := r.Load(t.Context())
	if err != nil && !errors.Is(err, rulestore.ErrUnusable) {
		t.Fatal(err)
	}
	next, _ := put(t, prev, perUser(limit), false)
	mustSave(t, r, prev, next)
	return next
}

func TestChangesReachEveryReplica(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	a, b, c := start(t, server, ""), start(t, server, ""), start(t, server, "")
	a.change(t, 5)
	for _, r := range []*replica{a, b, c} {
		r.await(t, "requests_per_unit=5")
	}
	c.cut.Store(true)
	b.change(t, 6)
	b.change(t, 7)
	for _, r := range []*replica{a, b} {
		r.await(t, "requests_per_unit=7")
	}
	if err := c.rules.Reload(t.Context()); err != nil {
		t.Errorf("a reload without Redis: %v", err)
	}
	if got := c.rules.Rules().String(); !strings.Contains(got, "requests_per_unit=5") {
		t.Errorf("cut off, in force are %s", got)
	}
	prev, err := c.Load(t.Context())
	if !errors.Is(err, rulestore.ErrUnavailable) {
		t.Errorf("loaded with error %v", err)
	}
	next, _ := put(t, prev, perUser(8), false)
	if err := c.Save(t.Context(), prev, next); !errors.Is(err, rulestore.ErrUnavailable) {
		t.Errorf("saved with error %v", err)
	}
	c.cut.Store(false)
	c.await(t, "requests_per_unit=7")
	if err := c.Save(t.Context(), prev, next); !errors.Is(err, rulestore.ErrConflict) {
		t.Errorf("saved over what it had missed: %v", err)
	}
}

// TestRedisConcurrentSaves has replicas change rules at once: of those who have
// seen the same set one succeeds.
func TestRedisConcurrentSaves(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	const replicas, rounds = 4, 10
	var stores []*rulestore.Redis
	for range replicas {
		client := connect(t, server)
		stores = append(stores, rulestore.NewRedis(rulestore.RedisOptions{Prefix: "test", Log: zaptest.NewLogger(t),
			Client: func() (rueidis.Client, error) { return client, nil }}))
	}
	for round := range rounds {
		prev, err := stores[0].Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var saved atomic.Int64
		var all sync.WaitGroup
		for i, s := range stores {
			next, _ := put(t, prev, perUser(1+round*replicas+i), false)
			all.Go(func() {
				switch err := s.Save(context.Background(), prev, next); {
				case err == nil:
					saved.Add(1)
				case !errors.Is(err, rulestore.ErrConflict):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if saved.Load() != 1 {
			t.Fatalf("%d saved", saved.Load())
		}
	}
	if last, err := stores[1].Load(t.Context()); err != nil || last.Revision != rounds {
		t.Errorf("revision %d, error %v", last.Revision, err)
	}
}

func TestRedisThatLosesRulesIsGivenThemBack(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	a := start(t, server, "")
	a.change(t, 5)
	a.change(t, 6)
	a.await(t, "requests_per_unit=6")
	server.Restart() // empty
	b := start(t, server, "")
	b.await(t, "requests_per_unit=6")
	if set, err := b.Load(t.Context()); err != nil || set.Revision != 2 {
		t.Errorf("revision %d, error %v", set.Revision, err)
	}
	b.change(t, 7)
	a.await(t, "requests_per_unit=7")
}

func TestCopyForAStartWithoutRedis(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	file := filepath.Join(t.TempDir(), "copy.json")
	a := start(t, server, file)
	a.change(t, 5)
	store, err := rulestore.NewFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := inForce(t, store); !strings.Contains(got, "requests_per_unit=5") {
		t.Fatalf("the copy has %s", got)
	}
	alone := rulestore.NewRedis(rulestore.RedisOptions{Prefix: "test", Copy: store, Log: zaptest.NewLogger(t),
		Client: func() (rueidis.Client, error) { return nil, errCut }})
	if got := inForce(t, alone); !strings.Contains(got, "requests_per_unit=5") {
		t.Errorf("in force are %s", got)
	}
}

// awaitState waits until the admin rules are in a state.
func (r *replica) awaitState(t *testing.T, want reload.SourceState) {
	t.Helper()
	r.awaitThat(t, string(want), func() bool { return r.rules.Status().Sources[0].State == want })
}

// awaitGone waits until there are no admin rules.
func (r *replica) awaitGone(t *testing.T) {
	t.Helper()
	r.awaitThat(t, "no rules", func() bool { return r.rules.Rules().Len() == 0 })
}

func (r *replica) awaitThat(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-r.reloaded:
		case <-deadline:
			t.Fatalf("in force are\n%s\n%+v; want %s", r.rules.Rules(), r.rules.Status().Sources, what)
		}
	}
}
