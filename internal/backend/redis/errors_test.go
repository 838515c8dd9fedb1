package redis

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// TestErrorsWithoutACode: a server answers with errors that begin with ERR, which the
// library removes. Their meaning must still be recognized.
func TestErrorsWithoutACode(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Config{})
	b, err := New(Options{Addrs: []string{s.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	redistest.Eventually(t, "it is connected", func() bool { return b.Ready(t.Context()) == nil })
	client, err := b.Client()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]error{
		"max number of clients reached": errLogin,
		"DB index is out of range":      errLogin,
		"Connection refused":            ErrUnavailable,
		"Connection timed out":          ErrUnavailable,
		"value is not an integer":       ErrRefused,
	} {
		err := client.Do(t.Context(), client.B().Eval().Script("return redis.error_reply('ERR "+text+"')").Numkeys(0).Build()).Error()
		if _, ok := rueidis.IsRedisErr(err); !ok {
			t.Fatalf("%q: %v", text, err)
		}
		if got := b.failed(err); !errors.Is(got, want) {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
}

// TestRefusedCallsAreSaid runs a Redis that has no memory left, and says so once a minute.
func TestRefusedCallsAreSaid(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Config{Args: []string{"--maxmemory", "1", "--maxmemory-policy", "noeviction"}})
	core, lines := observer.New(zapcore.WarnLevel)
	var later atomic.Int64 // ns
	b, err := New(Options{Addrs: []string{s.Addr}, Log: zap.New(core, zap.WithClock(aheadClock{&later}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	redistest.Eventually(t, "it is connected", func() bool { return b.Ready(t.Context()) == nil })
	limit, err := algo.New(algo.Params{Limit: 1, Window: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ask := func() {
		req := backend.Request{Checks: []backend.Check{{Key: []byte("k"), Limit: limit, Hits: 1}}}
		if err := b.Decide(t.Context(), &req, make([]algo.Decision, 1)); !errors.Is(err, ErrRefused) {
			t.Errorf("%v, want ErrRefused", err)
		}
	}
	ask()
	ask()
	said := lines.FilterMessageSnippet("Redis refuses calls").All()
	if len(said) != 1 || !strings.Contains(fmt.Sprint(said[0].ContextMap()["error"]), "OOM") {
		t.Fatalf("the log has %v", said)
	}
	later.Add(int64(time.Minute))
	ask()
	if said = lines.FilterMessageSnippet("Redis refuses calls").All(); len(said) != 2 || said[1].ContextMap()["requests"] != int64(2) {
		t.Errorf("a minute later the log has %v", said)
	}
}

// aheadClock is the clock of a log, which is ahead by some ns.
type aheadClock struct{ by *atomic.Int64 }

func (c aheadClock) Now() time.Time                       { return time.Now().Add(time.Duration(c.by.Load())) }
func (aheadClock) NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }
