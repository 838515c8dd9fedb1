package redis

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// calendarReplica is a replica of the service with a clock of its own, beside Redis'.
type calendarReplica struct {
	*Backend
	t     *testing.T
	limit *algo.Limit
	ahead time.Duration // of Redis' clock
}

func newCalendarReplica(t *testing.T, server *redistest.Server, now *int64, c algo.Calendar, ahead time.Duration, o Options) *calendarReplica {
	t.Helper()
	r := &calendarReplica{t: t, ahead: ahead, limit: calendarLimit(t, 5, c)}
	o.Addrs, o.Timeout, o.DialTimeout = []string{server.Addr}, 10*time.Second, 10*time.Second
	o.Clock = func() int64 { return *now }
	o.OwnClock = func() int64 { return *now + r.ahead.Microseconds() }
	r.Backend = redistest.Open(t, New, o)
	return r
}

func calendarLimit(t *testing.T, n uint32, c algo.Calendar) *algo.Limit {
	t.Helper()
	l, err := algo.New(algo.Params{Limit: n, Calendar: c, DeniedHits: algo.Drop})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (r *calendarReplica) hit(key string) algo.Decision {
	r.t.Helper()
	return r.decide(backend.Check{Key: []byte(key), Limit: r.limit, Hits: 1})[0]
}

func (r *calendarReplica) decide(checks ...backend.Check) []algo.Decision {
	r.t.Helper()
	out := make([]algo.Decision, len(checks))
	if err := r.Decide(r.t.Context(), &backend.Request{Checks: checks}, out); err != nil {
		r.t.Fatal(err)
	}
	return out
}

// scriptCalls returns how often the server ran the script, by its hash.
func scriptCalls(t *testing.T, server *redistest.Server) (n int) {
	t.Helper()
	for line := range strings.Lines(server.Text("INFO", "commandstats")) {
		if rest, is := strings.CutPrefix(line, "cmdstat_evalsha:calls="); is {
			if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

func date(t *testing.T, text string) int64 {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at.UnixMicro()
}

// TestRedisClockDecidesTheWindow: whatever the clocks of two replicas show, no window is
// lost or doubled at its boundary, and no call is made twice.
func TestRedisClockDecidesTheWindow(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	berlin := algo.Calendar{Every: algo.EveryDay, Zone: "Europe/Berlin"}
	boundary := date(t, "2026-03-29T00:00:00+01:00") // of a day of 23 hours
	var now int64
	for _, ahead := range []time.Duration{0, time.Microsecond, time.Second, 10 * time.Minute, 23 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			server.Do("FLUSHALL")
			now = boundary - 5e6
			a := newCalendarReplica(t, server, &now, berlin, ahead, Options{})
			b := newCalendarReplica(t, server, &now, berlin, -ahead, Options{})
			first := scriptCalls(t, server)
			var state algo.State
			admitted := map[bool]int{} // by whether it is after the boundary
			steps := []int64{-5e6, -1e6, -1, 0, 1, 1e6, 5e6, 3600e6}
			for _, after := range steps {
				now = boundary + after
				for i := range 6 {
					r := a
					if i%2 == 1 {
						r = b
					}
					got := r.hit("user")
					var want algo.Decision
					if state, want = r.limit.Step(state, now, 1); got != want {
						t.Fatalf("%v after the boundary:\n got %+v\nwant %+v", micros(after), got, want)
					}
					if got.Allowed {
						admitted[after >= 0]++
					}
				}
			}
			if admitted[false] != 5 || admitted[true] != 5 {
				t.Errorf("admitted %d before the boundary and %d after, want 5 each", admitted[false], admitted[true])
			}
			// Each replica begins by sending the script's text.
			if calls := scriptCalls(t, server) - first; calls > 6*len(steps)+2 {
				t.Errorf("%d calls for %d requests", calls, 6*len(steps))
			}
		})
	}
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// TestAClockOfAnotherDayCostsOneMoreCall: Redis decides nothing by boundaries that do not
// surround its time. The right ones are sent in a second call, and from then on.
func TestAClockOfAnotherDayCostsOneMoreCall(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	now := date(t, "2026-10-25T02:30:00+02:00")
	c := algo.Calendar{Every: algo.EveryDay, Zone: "Europe/Berlin"}
	plain, err := algo.New(algo.Params{Limit: 5, Window: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for _, ahead := range []time.Duration{-9 * 24 * time.Hour, 2*24*time.Hour + 2*time.Hour} {
		server.Do("FLUSHALL")
		r := newCalendarReplica(t, server, &now, c, ahead, Options{})
		r.decide(backend.Check{Key: []byte("plain"), Limit: plain, Hits: 1}) // the script is known
		for i, want := range []int{2, 1, 1} {
			before := scriptCalls(t, server)
			out := r.decide(
				backend.Check{Key: []byte("plain"), Limit: plain, Hits: 1},
				backend.Check{Key: []byte("day"), Limit: r.limit, Hits: 1, Descriptor: 1},
			)
			if calls := scriptCalls(t, server) - before; calls != want {
				t.Errorf("%v ahead: request %d took %d calls, want %d", ahead, i, calls, want)
			}
			left := int64(4 - i)
			if out[0].Remaining != left-1 || out[1].Remaining != left || out[1].ResetAfter != 22*time.Hour+30*time.Minute {
				t.Errorf("%v ahead: request %d is answered %+v", ahead, i, out)
			}
		}
		r.ahead = 0 // it is set right
		if d := r.hit("day"); !d.Allowed || d.Remaining != 1 {
			t.Errorf("the clock was set right: %+v", d)
		}
	}
}

// TestReplicasWithOtherZoneDataShareAWindow: two replicas disagree by an hour on when the
// day begins, as if one had older data of the zone. Their calls alternate, and both see
// one window. It begins once or, if the replica that is behind comes first, twice, but
// not with every call.
func TestReplicasWithOtherZoneDataShareAWindow(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	boundary := date(t, "2026-06-30T22:00:00Z")
	var now int64
	for _, test := range []struct {
		name   string
		zones  [2]string // in the order in which they call
		begins []time.Duration
	}{
		{"the one ahead comes first", [2]string{"Europe/Athens", "Europe/Berlin"}, []time.Duration{-time.Hour}},
		{"the one behind comes first", [2]string{"Europe/Berlin", "Europe/Athens"}, []time.Duration{-time.Hour, 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			server.Do("FLUSHALL")
			var replicas [2]*calendarReplica
			now = boundary - (20 * time.Hour).Microseconds()
			for i, zone := range test.zones {
				replicas[i] = newCalendarReplica(t, server, &now, algo.Calendar{Every: algo.EveryMonth, Zone: zone}, 0, Options{})
				replicas[i].limit = calendarLimit(t, 1000, algo.Calendar{Every: algo.EveryMonth, Zone: zone})
			}
			// The one ahead has begun the window before.
			ahead := replicas[0]
			if test.zones[1] == "Europe/Athens" {
				ahead = replicas[1]
			}
			left := ahead.hit("user").Remaining
			var begins []time.Duration
			for after := -3 * time.Hour; after <= 3*time.Hour; after += 10 * time.Minute {
				now = boundary + after.Microseconds()
				for _, r := range replicas {
					d := r.hit("user")
					switch {
					case d.Remaining == 999:
						begins = append(begins, after)
					case d.Remaining != left-1:
						t.Fatalf("%v from the boundary: %d left after %d", after, d.Remaining, left)
					}
					left = d.Remaining
				}
			}
			if fmt.Sprint(begins) != fmt.Sprint(test.begins) {
				t.Errorf("windows began at %v, want %v", begins, test.begins)
			}
		})
	}
}

// TestRefusalsOfACalendarEndAtItsBoundary: they are answered from memory until then.
func TestRefusalsOfACalendarEndAtItsBoundary(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	boundary := date(t, "2026-11-15T00:00:00+05:45")
	now := boundary - 400_000
	r := newCalendarReplica(t, server, &now, algo.Calendar{Every: algo.EveryMonth, Zone: "Asia/Kathmandu", Starts: 15}, 0, Options{LocalCacheBytes: 1 << 20})
	for range 6 {
		r.hit("user")
	}
	for _, after := range []int64{-200_000, -1} {
		now = boundary + after
		if d := r.hit("user"); d.Allowed || !d.Remembered || d.ResetAfter != micros(-after) || d.RetryAfter != micros(-after) {
			t.Errorf("%d µs from the boundary: %+v, want a refusal from memory", after, d)
		}
	}
	now = boundary
	if d := r.hit("user"); !d.Allowed || d.Remembered || d.Remaining != 4 || d.ResetAfter != 30*24*time.Hour {
		t.Errorf("at the boundary: %+v", d)
	}
}

// TestWhatACalendarLeavesInRedis: only the count, which expires with its window.
func TestWhatACalendarLeavesInRedis(t *testing.T) {
	t.Parallel()
	b := openFor(t, Options{PlainKeys: true})
	limit := calendarLimit(t, 100, algo.Calendar{Every: algo.EveryQuarter, Zone: "Pacific/Chatham"})
	out := make([]algo.Decision, 1)
	for range 3 {
		if err := b.Decide(t.Context(), &backend.Request{Checks: []backend.Check{{Key: []byte("k"), Limit: limit, Hits: 7}}}, out); err != nil {
			t.Fatal(err)
		}
	}
	client, err := b.Client()
	if err != nil {
		t.Fatal(err)
	}
	names, err := client.Do(t.Context(), client.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil || len(names) != 1 {
		t.Fatalf("keys %v, %v", names, err)
	}
	key := names[0]
	value, err := client.Do(t.Context(), client.B().Get().Key(key).Build()).ToString()
	if err != nil || value != "21" {
		t.Errorf("the value is %q, %v, want 21", value, err)
	}
	left, err := client.Do(t.Context(), client.B().Pttl().Key(key).Build()).AsInt64()
	// An expiry counts from when SET runs: on a busy machine some milliseconds after TIME.
	if ends := out[0].ResetAfter.Milliseconds(); err != nil || left > ends+1000 || left < ends-30_000 {
		t.Errorf("it expires in %d ms, %v; its window ends in %d", left, err, ends)
	}
}
