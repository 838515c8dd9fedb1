package redis_test

import (
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/logtest"
)

// TestConnectingToRedisIsRetriedOften starts without Redis. One line says so, and another says that
// it is connected, soon after Redis has started.
func TestConnectingToRedisIsRetriedOften(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	server.Kill()
	log, lines := logtest.New(zapcore.InfoLevel)
	b, err := redis.New(redis.Options{Addrs: []string{server.Addr}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	began := time.Now()
	if b.Ready(timeout(time.Second)) == nil {
		t.Error("it is ready without Redis")
	}
	stalled := stalls()
	server.Restart()
	started := time.Now()
	if err := b.Ready(timeout(unhurried)); err != nil {
		t.Fatal(err)
	}
	took := time.Since(started)
	if stall := stalled(); took > 200*time.Millisecond+busyMachine+2*stall { // Redis waits for its turns, too
		t.Errorf("it took %v to find Redis; the machine stalled for %v at most", took, stall)
	}
	connected := lines.Await(t, 1, "connected to Redis")
	if missing := lines.FilterMessage("no connection to Redis: trying until there is one"); missing.Len() != 1 || len(connected) != 1 || lines.Len() != 2 {
		t.Fatalf("the log has %v, want a line without Redis and one with it", lines.All())
	}
	attempts := connected[0].ContextMap()["attempts"].(int64)
	if most := int64(time.Since(began)/(75*time.Millisecond)) + 1; attempts < 3 || attempts > most {
		t.Errorf("%d attempts in %v, want one each 100 ms", attempts, time.Since(began))
	}
}

// TestRefusalsAreTriedLessOften counts the connections to a Redis that refuses the
// password.
func TestRefusalsAreTriedLessOften(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{Password: "right"})
	before := count(t, server.Info("total_connections_received"))
	b, err := redis.New(redis.Options{Addrs: []string{server.Addr}, Password: "wrong"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Ready(timeout(3*time.Second)) == nil {
		t.Error("it is ready with a wrong password")
	}
	// After 0, 0.1, 0.3, 0.7, 1.5 and 2.5 s, plus or minus a quarter of each pause.
	if tried := count(t, server.Info("total_connections_received")) - before; tried < 4 || tried > 8 {
		t.Errorf("%d connections in 3 s, want 6", tried)
	}
}
