package client_test

import (
	"context"
	"errors"
	"math"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/distlimiter/ratelimit/client"
)

const rules = `
domain: edge
descriptors:
  - key: user
    rate_limit: {name: per_user, unit: hour, requests_per_unit: 10}
  - key: tokens
    rate_limit: {unit: day, requests_per_unit: 100}
  - key: bulk
    rate_limit: {unit: hour, requests_per_unit: 100}
  - key: window
    rate_limit: {window: 90s, requests_per_unit: 7}
`

func dial(t *testing.T, target string, o client.Options) *client.Client {
	t.Helper()
	c, err := client.Dial(target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func started(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	s := startService(rules)
	t.Cleanup(s.stop)
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second // the machine is busy, and no test is about it
	}
	return dial(t, s.addr, o)
}

func user(name string) client.Entry { return client.Entry{Key: "user", Value: name} }

// decided fails the test if there is no decision.
func decided(t *testing.T) func(client.Decision, error) client.Decision {
	return func(d client.Decision, err error) client.Decision {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if d.Err != nil {
			t.Fatal(d.Err)
		}
		return d
	}
}

func TestHitsAreTakenLookedAtAndGivenBack(t *testing.T) {
	c, ctx := started(t, client.Options{}), t.Context()
	d := decided(t)(c.Allow(ctx, "edge", user("alice")))
	if !d.Allowed || d.Remaining != 9 || d.Limit == nil || *d.Limit != (client.Limit{Name: "per_user", Requests: 10, Window: time.Hour}) || d.RetryAfter != 0 || d.ResetAfter <= 0 {
		t.Errorf("the first of 10: %+v of %+v", d, d.Limit)
	}
	if d := decided(t)(c.AllowN(ctx, "edge", 9, user("alice"))); !d.Allowed || d.Remaining != 0 {
		t.Errorf("the other 9: %+v", d)
	}
	if d := decided(t)(c.Peek(ctx, "edge", user("alice"))); d.Remaining != 0 {
		t.Errorf("a look at what is used up: %+v", d)
	}
	if d := decided(t)(c.Allow(ctx, "edge", user("alice"))); d.Allowed || d.RetryAfter <= 0 || d.RetryAfter > time.Hour || d.ResetAfter != 0 {
		t.Errorf("one more: %+v", d)
	}
	decided(t)(c.Refund(ctx, "edge", 5, user("bob")))
	if d := decided(t)(c.Peek(ctx, "edge", user("bob"))); d.Remaining != 10 {
		t.Errorf("hits given back that nobody took: %+v", d)
	}
}

func TestDecisionsWithoutALimit(t *testing.T) {
	c := started(t, client.Options{})
	d := decided(t)(c.Allow(t.Context(), "edge", client.Entry{Key: "nobody"}))
	if !d.Allowed || d.Limit != nil || d.Remaining != math.MaxUint32 {
		t.Errorf("%+v", d)
	}
}

func TestWindowsOfLimits(t *testing.T) {
	c := started(t, client.Options{})
	for key, want := range map[string]time.Duration{"tokens": 24 * time.Hour, "window": 90 * time.Second} {
		if d := decided(t)(c.Allow(t.Context(), "edge", client.Entry{Key: key, Value: "x"})); d.Limit == nil || d.Limit.Window != want {
			t.Errorf("%s: window %+v, want %v", key, d.Limit, want)
		}
	}
}

func TestConcurrentCallersGetExactlyTheLimit(t *testing.T) {
	c := started(t, client.Options{})
	var allowed atomic.Int64
	var done sync.WaitGroup
	for range 50 {
		done.Go(func() {
			for range 4 {
				d, err := c.Allow(t.Context(), "edge", client.Entry{Key: "bulk", Value: "x"})
				if err != nil {
					t.Error(err)
				} else if d.Allowed {
					allowed.Add(1)
				}
			}
		})
	}
	done.Wait()
	if allowed.Load() != 100 {
		t.Errorf("%d of 200 calls were allowed, the limit is 100", allowed.Load())
	}
}

// silent accepts connections and never answers.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	return l.Addr().String()
}

// closed is an address on which nothing listens.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestWithoutADecisionTheClientFollowsOnError(t *testing.T) {
	for name, target := range map[string]func(*testing.T) string{"silent": silent, "closed": closed} {
		for _, mode := range []client.OnError{client.Return, client.Allow, client.Deny} {
			c := dial(t, target(t), client.Options{Timeout: 50 * time.Millisecond, OnError: mode})
			d, err := c.Allow(t.Context(), "edge", user("alice"))
			switch {
			case mode == client.Return && (err == nil || status.Code(err) == codes.OK):
				t.Errorf("%s: %+v, %v: an error is to be returned", name, d, err)
			case mode != client.Return && (err != nil || d.Err == nil || d.Allowed != (mode == client.Allow)):
				t.Errorf("%s, mode %d: %+v, %v", name, mode, d, err)
			}
		}
	}
}

func TestServiceThatComesBackIsAsked(t *testing.T) {
	s := startService(rules)
	c := dial(t, s.addr, client.Options{Timeout: time.Second, OnError: client.Deny})
	decided(t)(c.Allow(t.Context(), "edge", user("alice")))
	s.stop()
	if d, err := c.Allow(t.Context(), "edge", user("alice")); err != nil || d.Err == nil {
		t.Fatalf("a service that has stopped: %+v, %v", d, err)
	}
	back := startService(rules)
	t.Cleanup(back.stop)
	again := dial(t, back.addr, client.Options{Timeout: 10 * time.Second})
	if d := decided(t)(again.Allow(t.Context(), "edge", user("alice"))); !d.Allowed {
		t.Errorf("%+v", d)
	}
}

// Others choose values, and what can't be sent must not be what passes without a decision.
func TestValuesThatAreNotUTF8AreLimitedTogether(t *testing.T) {
	c := started(t, client.Options{OnError: client.Allow})
	for i, value := range []string{"\xff", "\xfe", "\uFFFD"} {
		if d := decided(t)(c.Allow(t.Context(), "edge", user(value))); d.Remaining != uint32(9-i) {
			t.Errorf("%q: %+v", value, d)
		}
	}
}

// What HTTPS_PROXY says is read once, so that a process of its own must ask.
func TestProxiesOfTheEnvironmentAreNotForTheService(t *testing.T) {
	if os.Getenv("CLIENT_ASKS") != "" {
		c := dial(t, "ratelimit.invalid:8081", client.Options{Timeout: 2 * time.Second, OnError: client.Allow})
		if d, err := c.Allow(t.Context(), "edge", user("alice")); err != nil || d.Err == nil {
			t.Errorf("%+v, %v", d, err)
		}
		return
	}
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), "CLIENT_ASKS=1", "HTTPS_PROXY=http://"+proxy.Addr().String())
	if said, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	mine, err := net.Dial("tcp", proxy.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	first, err := proxy.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != mine.LocalAddr().String() {
		t.Error("the client has connected to the proxy")
	}
}

func TestBadUseIsAnErrorInEachMode(t *testing.T) {
	for _, mode := range []client.OnError{client.Return, client.Allow, client.Deny} {
		c := started(t, client.Options{OnError: mode})
		for want, ask := range map[string]func() (client.Decision, error){
			"the domain is empty": func() (client.Decision, error) { return c.Allow(t.Context(), "", user("alice")) },
			"no entries":          func() (client.Decision, error) { return c.Allow(t.Context(), "edge") },
			`the key of entry 1, with value "x"`: func() (client.Decision, error) {
				return c.Allow(t.Context(), "edge", user("alice"), client.Entry{Value: "x"})
			},
			`the key of entry 0, "\xff", is not UTF-8`: func() (client.Decision, error) {
				return c.Allow(t.Context(), "edge", client.Entry{Key: "\xff", Value: "x"})
			},
			"4294967296 hits: use at most 4294967295": func() (client.Decision, error) {
				return c.AllowN(t.Context(), "edge", 1<<32, user("alice"))
			},
			"InvalidArgument": func() (client.Decision, error) {
				return c.Allow(t.Context(), "edge", user(strings.Repeat("x", 1<<16)))
			},
		} {
			if d, err := ask(); err == nil || !strings.Contains(err.Error(), want) || d.Allowed {
				t.Errorf("mode %d: %+v, %v; want an error with %q", mode, d, err, want)
			}
		}
	}
	for want, dial := range map[string]func() (*client.Client, error){
		"the target is empty": func() (*client.Client, error) { return client.Dial("", client.Options{}) },
		"takes no such URL":   func() (*client.Client, error) { return client.Dial("http://x:1", client.Options{}) },
		"Options.Timeout":     func() (*client.Client, error) { return client.Dial("x:1", client.Options{Timeout: -1}) },
		"Options.OnError":     func() (*client.Client, error) { return client.Dial("x:1", client.Options{OnError: 7}) },
	} {
		if _, err := dial(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want an error with %q", err, want)
		}
	}
}

func TestCallerThatLeavesGetsItsOwnError(t *testing.T) {
	c := dial(t, silent(t), client.Options{Timeout: time.Hour, OnError: client.Allow})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := c.Allow(ctx, "edge", user("alice")); !errors.Is(err, context.Canceled) || d.Allowed {
		t.Errorf("%+v, %v", d, err)
	}
}
