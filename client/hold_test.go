package client_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/distlimiter/ratelimit/client"
)

const holdRules = `
domain: edge
limits:
  - name: in_flight
    match: {user: {}}
    count_by: [user]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 10}
  - name: tokens
    match: {budget: {}}
    count_by: [budget]
    hold: {by: job, expires: 60s, settled_by: {end: "yes"}}
    rate_limit: {unit: day, requests_per_unit: 100}
`

func holding(t *testing.T) *client.Client {
	t.Helper()
	s := startService(holdRules)
	t.Cleanup(s.stop)
	return dial(t, s.addr, client.Options{Timeout: 10 * time.Second})
}

func TestTenHoldAtATime(t *testing.T) {
	c := holding(t)
	var now, most, refused atomic.Int64
	var done sync.WaitGroup
	for range 50 {
		done.Go(func() {
			for range 10 {
				held, err := c.Hold(t.Context(), "edge", client.HoldOptions{}, user("alice"))
				if err != nil {
					t.Error(err)
					return
				}
				if !held.Allowed {
					refused.Add(1)
					continue
				}
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				now.Add(-1) // before the service knows
				if err := held.Settle(t.Context(), 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	if most.Load() > 10 || refused.Load() == 0 {
		t.Errorf("%d held at once, the limit is 10; %d were refused", most.Load(), refused.Load())
	}
	for range 10 {
		if held, err := c.Hold(t.Context(), "edge", client.HoldOptions{}, user("alice")); err != nil || !held.Allowed {
			t.Fatalf("all have settled: %+v, %v", held, err)
		}
	}
	if held, err := c.Hold(t.Context(), "edge", client.HoldOptions{}, user("alice")); err != nil || held.Allowed || held.RetryAfter != time.Second {
		t.Errorf("the eleventh: %+v, %v", held, err)
	}
}

func TestReservationIsSettledOnceAtItsCost(t *testing.T) {
	c := holding(t)
	entry := client.Entry{Key: "budget", Value: "team"}
	o := client.HoldOptions{By: "job", SettledBy: client.Entry{Key: "end", Value: "yes"}, Hits: 60}
	held, err := c.Hold(t.Context(), "edge", o, entry)
	if err != nil || !held.Allowed || held.Remaining != 40 {
		t.Fatalf("%+v, %v", held, err)
	}
	if refused, err := c.Hold(t.Context(), "edge", o, entry); err != nil || refused.Allowed || refused.Settle(t.Context(), 60) != nil {
		t.Fatalf("60 beside 60 of 100: %+v, %v", refused, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 { // the second does nothing
		if err := held.Settle(ended, 35); err != nil {
			t.Fatal(err)
		}
	}
	o.Hits = 65
	if next, err := c.Hold(t.Context(), "edge", o, entry); err != nil || !next.Allowed || next.Remaining != 0 {
		t.Errorf("35 of 100 are used: %+v, %v", next, err)
	}
}

// A caller that leaves while the service decides has no [client.Held] to settle.
func TestHoldOfACallerThatHasLeftIsGivenBack(t *testing.T) {
	s := startService(holdRules)
	t.Cleanup(s.stop)
	left := make(chan struct{}, 1)
	c := dial(t, s.addr, client.Options{Timeout: 10 * time.Second, Dial: []grpc.DialOption{
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, reply any, connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			err := invoke(ctx, method, request, reply, connection, options...)
			if len(request.(*pb.RateLimitRequest).GetDescriptors()[0].GetEntries()) == 2 {
				left <- struct{}{} // the service has decided
				<-ctx.Done()
				return status.FromContextError(ctx.Err()).Err()
			}
			left <- struct{}{} // and has settled
			return err
		}),
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-left
		cancel()
	}()
	if held, err := c.Hold(ctx, "edge", client.HoldOptions{}, user("alice")); !errors.Is(err, context.Canceled) {
		t.Fatalf("%+v, %v", held, err)
	}
	<-left
	other := dial(t, s.addr, client.Options{Timeout: 10 * time.Second})
	for range 10 {
		if held, err := other.Hold(t.Context(), "edge", client.HoldOptions{}, user("alice")); err != nil || !held.Allowed {
			t.Fatalf("%+v, %v", held, err)
		}
	}
}

func TestSettlingFailsInEveryMode(t *testing.T) {
	for _, mode := range []client.OnError{client.Return, client.Allow, client.Deny} {
		s := startService(holdRules)
		c := dial(t, s.addr, client.Options{Timeout: 10 * time.Second, OnError: mode})
		held, err := c.Hold(t.Context(), "edge", client.HoldOptions{}, user("alice"))
		s.stop()
		if err != nil || held.Settle(t.Context(), 1) == nil {
			t.Errorf("mode %d: %v, and no error of the settlement", mode, err)
		}
	}
}

func TestHoldWithoutEntriesIsAnError(t *testing.T) {
	if held, err := holding(t).Hold(t.Context(), "edge", client.HoldOptions{}); err == nil {
		t.Errorf("%+v", held)
	}
}
