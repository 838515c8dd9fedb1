package statsd_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/logtest"
	"github.com/distlimiter/ratelimit/internal/settings"
	"github.com/distlimiter/ratelimit/internal/stats"
	"github.com/distlimiter/ratelimit/internal/stats/statsd"
)

// counted returns statistics in which one rule has seen three calls.
func counted() (*stats.Stats, *stats.Rule) {
	s := stats.New(0)
	r := s.Bind([]stats.Name{{Domain: "edge", Path: "address_10.0.0.1.user_a:b"}}, nil)[0]
	r.Allow(stats.Usage{Hits: 2, Before: 7, After: 9, Near: 8, Limit: 10})
	r.Deny(stats.Usage{Hits: 3, Before: 9, After: 12, Near: 8, Limit: 10}, time.Now(), false)
	s.ServiceErrors.Add(4)
	for range 3 {
		s.Answered(time.Millisecond)
	}
	return s, r
}

func send(t *testing.T, e *statsd.Exporter) {
	t.Helper()
	if err := e.Send(t.Context()); err != nil {
		t.Error(err)
	}
}

func reloads() (uint64, uint64) { return 1, 2 }

// lines reads datagrams until one holds last.
func lines(t *testing.T, conn net.PacketConn, last string) []string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var all []string
	buf := make([]byte, 65536)
	for !slices.Contains(all, last) {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			t.Fatalf("%v; read %q, want %q too", err, all, last)
		}
		all = append(all, strings.Split(strings.TrimSpace(string(buf[:n])), "\n")...)
	}
	return all
}

func listen(t *testing.T) (net.PacketConn, int) {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, conn.LocalAddr().(*net.UDPAddr).Port
}

func TestStatsdSendsGrowth(t *testing.T) {
	conn, port := listen(t)
	s, rule := counted()
	e := &statsd.Exporter{Stats: s, Reloads: reloads, Sink: statsd.NewStatsd("127.0.0.1", port, "udp", map[string]string{"zone": "a", "app": "x"}, zap.NewNop())}
	send(t, e)
	const tags, prefix = ".__app=x.__zone=a", "ratelimit.service.rate_limit.edge.address_10_0_0_1.user_a_b."
	wanted := []string{
		prefix + "total_hits" + tags + ":5|c",
		prefix + "within_limit" + tags + ":2|c",
		prefix + "over_limit" + tags + ":2|c",
		prefix + "near_limit" + tags + ":2|c",
		"ratelimit.service.call.should_rate_limit.service_error" + tags + ":4|c",
		"ratelimit_server.ShouldRateLimit.total_requests" + tags + ":3|c",
		"ratelimit.service.config_load_success" + tags + ":1|c",
		"ratelimit.service.config_load_error" + tags + ":2|c",
	}
	var got []string
	for _, w := range wanted {
		if !slices.Contains(got, w) {
			got = append(got, lines(t, conn, w)...)
		}
	}
	if len(got) != len(wanted) {
		t.Errorf("got %q, want just %q", got, wanted)
	}
	rule.Allow(stats.Usage{Hits: 1})
	send(t, e)
	again := lines(t, conn, prefix+"within_limit"+tags+":1|c")
	for _, l := range again {
		if strings.Contains(l, "over_limit") || strings.Contains(l, "config_load") {
			t.Errorf("sent again without growth: %s", l)
		}
	}
}

func TestStatsdOverTCP(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	s, _ := counted()
	e := &statsd.Exporter{Stats: s, Reloads: reloads, Sink: statsd.NewStatsd("127.0.0.1", listener.Addr().(*net.TCPAddr).Port, "tcp", nil, zap.NewNop())}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx, time.Millisecond) }()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	var got string
	for !strings.Contains(got, "address_10_0_0_1.user_a_b.total_hits:5|c\n") {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("%v; read %q", err, got)
		}
		got += string(buf[:n])
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestSendGivesUp sends to a server that is away. Send returns when the context ends.
func TestSendGivesUp(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	log, lines := logtest.New(zap.WarnLevel)
	s, _ := counted()
	e := &statsd.Exporter{Stats: s, Reloads: reloads, Sink: statsd.NewStatsd("127.0.0.1", port, "tcp", nil, log)}
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan error, 1)
	go func() { sent <- e.Send(ctx) }()
	lines.Await(t, 1, "connection refused")
	cancel()
	if err := <-sent; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
}

func TestDogStatsDTagsAndMogrifiers(t *testing.T) {
	conn, port := listen(t)
	env := map[string]string{
		"DOG_STATSD_MOGRIFIER_HITS_PATTERN": `^ratelimit\.service\.rate_limit\.([^.]+)\.(.*)\.([^.]+)$`,
		"DOG_STATSD_MOGRIFIER_HITS_NAME":    "ratelimit.service.rate_limit.$3",
		"DOG_STATSD_MOGRIFIER_HITS_TAGS":    "domain:$1,descriptor:$2",
	}
	mogrifiers, err := settings.ReadMogrifiers(func(k string) string { return env[k] }, []string{"HITS"})
	if err != nil {
		t.Fatal(err)
	}
	sink, err := statsd.NewDogStatsD("127.0.0.1", port, map[string]string{"zone": "a"}, mogrifiers)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := counted()
	e := &statsd.Exporter{Stats: s, Reloads: reloads, Sink: sink}
	send(t, e)
	const hits = "ratelimit.service.rate_limit.total_hits:5|c|#zone:a,descriptor:address_10_0_0_1.user_a_b,domain:edge"
	lines(t, conn, hits)
}
