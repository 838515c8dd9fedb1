package chaos

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/freeport"
	"github.com/distlimiter/ratelimit/internal/testprogram"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// deadline is a client's patience. A service whose store does not answer says it
// much earlier, so that nobody should ever reach it.
const deadline = 10 * time.Second

// longestLife is for how long a counter may live after its last use: twice the largest
// burst, drained at the slowest rate that a version may have, which a limit of 0 keeps.
const longestLife = 70 * time.Second

// fleet is the real processes of a run and what is done to them. All but clients
// belongs to the test's goroutine.
type fleet struct {
	t   *testing.T
	p   *plan
	dir string // of the rules
	rec *record

	replicas []*harness.Service
	alive    []bool

	server   *redistest.Server    // nil with sentinels, in a cluster or without Redis
	seconds  *redistest.Server    // for limits per second; nil for none
	sentinel *redistest.Sentinels // nil for others
	master   *redistest.Server    // before a failover
	epoch    int                  // how many failovers there should have been
	cluster  *redistest.Cluster   // nil for others
	harmed   *redistest.Server    // killed or frozen, of one or two
	frozen   *redistest.Server    // of the cluster
	froze    span                 // when that was
	proxy    *toxiproxy.Proxy     // to server
	clock    *os.File             // of server, how far it is off
	off      time.Duration

	open    *fault // of the store, under way
	written []int  // the version of each domain that is in force

	leased float64 // requests that leases have decided
}

func now() int64 { return time.Now().UnixMicro() }

func (f *fleet) logf(format string, args ...any) {
	f.rec.log = append(f.rec.log, clockTime(now())+" "+fmt.Sprintf(format, args...))
}

// startFleet starts what the plan asks for.
func startFleet(t *testing.T, p *plan) *fleet {
	t.Helper()
	f := &fleet{
		t: t, p: p, dir: t.TempDir(), alive: make([]bool, p.replicas), written: make([]int, len(p.domains)),
		rec: &record{plan: p, rules: make([]ruleFile, len(p.domains))},
	}
	var settings []string
	set := func(name, value string) { settings = append(settings, name+"="+value) }
	for name, value := range p.env {
		set(name, value)
	}
	switch p.topology {
	case inMemory:
	case sentineled:
		f.sentinel = redistest.StartSentinels(t, "")
		for _, s := range f.sentinel.Sentinels { // a busy machine is no reason for a failover
			s.Do("SENTINEL", "SET", redistest.MasterName, "down-after-milliseconds", "3000")
		}
		f.epoch = f.failovers()
		set("REDIS_TYPE", "SENTINEL")
		set("REDIS_URL", redistest.MasterName+","+strings.Join(f.sentinel.Addrs(), ","))
	case clustered:
		f.cluster = redistest.StartCluster(t)
		set("REDIS_TYPE", "CLUSTER")
		set("REDIS_URL", strings.Join(f.cluster.Addrs(), ","))
	default:
		if p.topology == perSecond {
			f.seconds = redistest.Start(t, redistest.Config{})
			set("REDIS_PERSECOND", "true")
			set("REDIS_PERSECOND_SOCKET_TYPE", "tcp")
			set("REDIS_PERSECOND_URL", f.seconds.Addr)
		}
		f.server = redistest.Start(t, f.serverConfig())
		f.startProxy()
		set("REDIS_URL", "redis://"+f.proxy.Listen)
	}
	for d := range p.domains {
		f.rec.rules[d].wrote = []int64{0}
		f.write(d, 1)
	}
	settings = append(settings, "--log-level", "warn", "--reload-delay", "20ms", "--grpc-front", p.front)
	began := now()
	for i := range p.replicas {
		f.replicas = append(f.replicas, harness.StartService(t, f.dir, settings...))
		f.started(i, began)
	}
	return f
}

func (f *fleet) serverConfig() redistest.Config {
	c := redistest.Config{Program: f.p.program}
	switch f.p.topology {
	case durable:
		c.Args = []string{"--appendonly", "yes", "--appendfsync", "always"}
	case clocked:
		path := filepath.Join(f.t.TempDir(), "offset")
		file, err := os.Create(path)
		if err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(func() { file.Close() })
		f.clock = file
		f.setClock(0)
		c.Env = []string{"LD_PRELOAD=" + clockLibrary(f.t), "CHAOS_CLOCK_FILE=" + path}
	}
	return c
}

// clockLibrary builds what lets a server's clock be stepped.
func clockLibrary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clock.so")
	if out, err := exec.Command(testprogram.Path(t, "gcc"), "-shared", "-fPIC", "-O2", "-o", path, "testdata/clock.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return path
}

func (f *fleet) setClock(off time.Duration) {
	f.off = off
	if _, err := f.clock.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(off.Microseconds())), 0); err != nil {
		f.t.Fatal(err)
	}
}

// startProxy puts a network before the server. Its port is held, so that it stays
// free while the network is down.
func (f *fleet) startProxy() {
	to := f.server.Addr
	if f.p.plain {
		to = redistest.StartClosing(f.t, f.server, "HELLO")
	}
	f.connect(freeport.ForTest(f.t).Addr(), to)
}

// connect starts a network that is well.
func (f *fleet) connect(listen, to string) {
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	f.proxy = toxiproxy.NewProxy(api, "redis", listen, to)
	if err := f.proxy.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(f.proxy.Stop)
}

func (f *fleet) toxic(format string, args ...any) {
	if _, err := f.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(format, args...))); err != nil {
		f.t.Fatal(err)
	}
}

// drive does what the plan says, when it says so, or as soon after as it can.
func (f *fleet) drive() {
	began := time.Now()
	for _, e := range f.p.events {
		time.Sleep(time.Until(began.Add(e.at)))
		f.do(e)
	}
	time.Sleep(time.Until(began.Add(f.p.length)))
}

func (f *fleet) do(e event) {
	f.logf("%s target=%d size=%d by=%v", e.kind, e.target, e.size, e.by)
	switch e.kind {
	case storeHeal:
		f.heal()
	case replicaKill:
		f.end(e.target, func(s *harness.Service) { s.Kill(f.t) })
	case replicaStop:
		f.end(e.target, func(s *harness.Service) { s.Stop(f.t) })
	case replicaStart:
		f.start(e.target)
	case rulesChange, rulesStorm:
		f.change(e.target, e.size)
	case rulesBad:
		f.spoil(e.target, badFiles[e.size])
		f.change(e.target, 1)
	default:
		f.harm(e)
	}
	f.logf("  done")
}

// harm begins a fault of the store.
func (f *fleet) harm(e event) {
	from := now()
	loses := func() { f.rec.cuts = append(f.rec.cuts, cut{span: span{from, now()}, replica: -1}) }
	switch e.kind {
	// These are no faults: requests go on as if nothing had happened.
	case redisForget:
		f.store("FLUSHALL")
		loses()
		return
	case redisScripts:
		f.store("SCRIPT", "FLUSH")
		return
	case slotsMove:
		f.move(e.size)
		return
	case clockStep:
		f.setClock(f.off + e.by)
		f.rec.cuts = append(f.rec.cuts, cut{span: span{from, now()}, replica: -1, back: max(0, -e.by)})
		return
	}
	f.open = &fault{span: span{from: from}, kind: e.kind}
	switch e.kind {
	case redisKill:
		f.harmed = f.target(e)
		f.harmed.Kill()
		if f.p.topology != durable {
			loses()
		}
	case redisFreeze:
		f.harmed = f.target(e)
		f.harmed.Freeze()
	case redisPause:
		f.server.Do("CLIENT", "PAUSE", fmt.Sprint(e.by.Milliseconds()), "ALL")
	case redisCut:
		f.store("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		f.heal()
	case redisRestart:
		f.server.Restart()
		f.heal()
	case redisFailover:
		f.master = f.sentinel.Master()
		f.master.Kill()
		f.epoch++
		loses() // what the next master had not heard of
	case nodeKill:
		f.cluster.Masters[e.target].Kill()
		loses() // the same
	case nodeFreeze:
		f.frozen = append(slices.Clone(f.cluster.Masters), f.cluster.Replicas...)[e.target]
		f.frozen.Freeze()
		f.froze = span{from, now()}
	case nodeFailover:
		f.cluster.Failover(e.target)
		f.heal()
	case netLatency:
		for _, stream := range []string{"upstream", "downstream"} {
			f.toxic(`{"type":"latency","stream":%q,"attributes":{"latency":%d,"jitter":%d}}`, stream, e.by.Milliseconds(), e.by.Milliseconds()/2)
		}
	case netNarrow:
		f.toxic(`{"type":"bandwidth","attributes":{"rate":8}}`)
		f.toxic(`{"type":"slicer","stream":"upstream","attributes":{"average_size":16,"size_variation":8,"delay":50}}`)
	case netSilent:
		f.toxic(`{"type":"timeout","stream":%q,"attributes":{"timeout":0}}`, []string{"upstream", "downstream"}[e.size%2])
	case netReset:
		f.toxic(`{"type":"reset_peer","attributes":{"timeout":0}}`)
	case netDown:
		f.proxy.Stop()
	default:
		f.t.Fatalf("unknown event %q", e.kind)
	}
}

// failovers returns how many the sentinels count.
func (f *fleet) failovers() int {
	m := f.sentinel.Sentinels[0].Do("SENTINEL", "MASTER", redistest.MasterName)
	fields, err := m.AsStrMap()
	if err != nil {
		f.t.Fatal(err)
	}
	n, err := strconv.Atoi(fields["config-epoch"])
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// target returns which of the servers an event is for.
func (f *fleet) target(e event) *redistest.Server {
	if f.seconds != nil && e.target == 1 {
		return f.seconds
	}
	return f.server
}

// store sends a command to each server that is in use.
func (f *fleet) store(command ...string) {
	switch {
	case f.cluster != nil:
		for _, m := range f.cluster.Masters {
			m.Do(command...)
		}
	case f.sentinel != nil:
		f.sentinel.Master().Do(command...)
	default:
		f.server.Do(command...)
		if f.seconds != nil {
			f.seconds.Do(command...)
		}
	}
}

// move moves the n slots that have the most keys, each to another master.
func (f *fleet) move(n int) {
	type place struct{ slot, master, keys int }
	var all []place
	for i, m := range f.cluster.Masters {
		for slot, keys := range f.cluster.Used(m) {
			all = append(all, place{slot, i, keys})
		}
	}
	slices.SortFunc(all, func(a, b place) int { return cmp.Or(cmp.Compare(b.keys, a.keys), cmp.Compare(a.slot, b.slot)) })
	for _, at := range all[:min(n, len(all))] {
		to := (at.master + 1) % len(f.cluster.Masters)
		from := now()
		f.cluster.Move(at.slot, f.cluster.Masters[at.master], f.cluster.Masters[to])
		f.rec.moves = append(f.rec.moves, span{from, now()})
		for range at.keys {
			f.rec.came = append(f.rec.came, keyMoved)
		}
		f.logf("  slot %d with %d keys moved in %d µs", at.slot, at.keys, now()-from)
	}
	f.cluster.Settle()
}

// heal ends a fault of the store, if it has not ended by itself.
func (f *fleet) heal() {
	if f.open == nil {
		return
	}
	switch f.open.kind {
	case redisKill:
		f.harmed.Restart()
	case redisFreeze:
		f.harmed.Thaw()
	case redisFailover:
		harness.Eventually(f.t, "there is another master", func() bool { return f.sentinel.Master() != f.master })
	case nodeKill:
		f.cluster.Settle() // its replica is a master then
	case nodeFreeze:
		f.thaw()
	case netLatency, netNarrow, netReset, netSilent, netDown:
		// Another network takes its place, and connections end. What was swallowed is
		// missing in the middle of a stream, and no network would deliver the rest. And
		// toxiproxy waits for ever to remove a toxic from a connection that ended while
		// the toxic had data for it.
		f.proxy.Stop()
		f.connect(f.proxy.Listen, f.proxy.Upstream)
	}
	f.open.to = now()
	f.rec.faults = append(f.rec.faults, *f.open)
	f.open = nil
	if f.cluster != nil {
		for i := range f.cluster.Replicas { // so that it can be the next to take over
			f.cluster.Follow(i)
		}
	}
}

// thaw lets a node of the cluster go on. A master that was replaced meanwhile finds
// the requests that wait for it, and decides them as if nothing had happened, until it
// hears of the other; and the other may not have heard of its last ones.
func (f *fleet) thaw() {
	from := now()
	f.frozen.Thaw()
	if len(f.cluster.Settle()) > 0 {
		f.logf("  it was replaced")
		f.rec.came = append(f.rec.came, masterReplaced)
		f.rec.cuts = append(f.rec.cuts, cut{span: f.froze, replica: -1})
		f.rec.stale = append(f.rec.stale, span{from, now()})
	}
}

// end ends a replica, with all that it remembers.
func (f *fleet) end(i int, how func(*harness.Service)) {
	if f.alive[i] {
		f.countLeased(i)
	}
	from := now()
	how(f.replicas[i])
	f.alive[i] = false
	f.rec.outages = append(f.rec.outages, outage{span{from, 1 << 62}, i})
	if f.p.topology == inMemory {
		f.rec.cuts = append(f.rec.cuts, cut{span: span{from, now()}, replica: i})
	}
	f.checkOutput(i)
}

// countLeased takes note of what a replica has decided from leases, and checks that it
// says of no counter that it held more than its part.
func (f *fleet) countLeased(i int) {
	f.leased += f.replicas[i].Metric(f.t, `ratelimit_redis_decisions_total{by="lease"}`)
	most := int64(0)
	for _, d := range f.p.domains {
		for _, v := range d.versions {
			for rule, limits := range v {
				for _, p := range limits {
					most = max(most, part(d.rules[rule].lease, p.Params, f.p.replicas))
				}
			}
		}
	}
	if held := f.replicas[i].Metric(f.t, "ratelimit_redis_lease_overshoot_hits"); held > float64(most) {
		f.t.Errorf("replica %d says that it has held %g hits of a counter at once, more than its part of any share, %d", i, held, most)
	}
}

// checkOutput looks for what no process may print.
func (f *fleet) checkOutput(i int) {
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if f.replicas[i].Printed(bad) {
			f.t.Errorf("replica %d has printed %q", i, bad)
		}
	}
}

func (f *fleet) start(i int) {
	if f.alive[i] {
		return
	}
	began := now()
	f.replicas[i].Restart(f.t)
	f.rec.outages[len(f.rec.outages)-1].to = now()
	f.started(i, began)
}

// started takes note that a replica has what was in the files when it began.
func (f *fleet) started(i int, began int64) {
	f.alive[i] = true
	for d, version := range f.written {
		f.rec.rules[d].confirmed = append(f.rec.rules[d].confirmed, confirmation{i, version, began})
	}
}

// write saves a version as an editor does that replaces the file.
func (f *fleet) write(d, version int) {
	f.rec.rules[d].wrote = append(f.rec.rules[d].wrote, now())
	f.save(d, f.p.domains[d].file(version))
	f.written[d] = version
}

func (f *fleet) save(d int, text []byte) {
	draft := filepath.Join(f.t.TempDir(), "draft")
	if err := os.WriteFile(draft, text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(draft, filepath.Join(f.dir, f.p.domains[d].name+".yaml")); err != nil {
		f.t.Fatal(err)
	}
}

// change writes the next versions in quick succession, and waits until every
// replica has the last of them.
func (f *fleet) change(d, versions int) {
	first := f.written[d] + 1
	ch := change{span: span{from: now()}, first: first, last: first + versions - 1}
	for v := ch.first; v <= ch.last; v++ {
		f.write(d, v)
		if v < ch.last {
			time.Sleep(time.Duration(v%7) * 15 * time.Millisecond) // the pace of a storm
		}
	}
	line := fmt.Sprintf("%s.version_v%d:", f.p.domains[d].name, ch.last)
	for i, s := range f.replicas {
		if !f.alive[i] {
			continue
		}
		harness.Eventually(f.t, fmt.Sprintf("replica %d has version %d of %s", i, ch.last, f.p.domains[d].name), func() bool {
			return strings.Contains(s.Get(f.t, s.Admin, "/rlconfig"), line)
		})
		f.rec.rules[d].confirmed = append(f.rec.rules[d].confirmed, confirmation{i, ch.last, now()})
	}
	ch.to = now()
	f.rec.rules[d].changes = append(f.rec.rules[d].changes, ch)
}

// spoil writes a file that can't be used, and waits until every replica says so.
func (f *fleet) spoil(d int, text string) {
	if strings.Contains(text, "%s") {
		text = fmt.Sprintf(text, f.p.domains[d].name)
	}
	f.save(d, []byte(text))
	for i, s := range f.replicas {
		if f.alive[i] {
			harness.Eventually(f.t, fmt.Sprintf("replica %d refuses %q", i, text), func() bool {
				return s.Metric(f.t, "ratelimit_config_last_reload_successful") == 0
			})
		}
	}
}

// watch looks for times in which the machine had no time for a process, until ctx is
// done: a client that waits for an answer then may wait too long, with nothing wrong in
// what answers. They count as faults, and are told apart.
func (f *fleet) watch(ctx context.Context) func() {
	var done sync.WaitGroup
	var stalls []fault
	done.Go(func() {
		for last := now(); ctx.Err() == nil; {
			time.Sleep(10 * time.Millisecond)
			at := now()
			if at-last > stall.Microseconds() {
				stalls = append(stalls, fault{span{last, at}, machineStall})
			}
			last = at
		}
	})
	return func() {
		done.Wait()
		f.rec.faults = append(f.rec.faults, stalls...)
	}
}

// clients send requests until ctx is done, and return what came back.
func (f *fleet) clients(ctx context.Context) func() {
	var done sync.WaitGroup
	calls := make([][]call, f.p.clients)
	for i := range calls {
		to := f.dial()
		done.Go(func() {
			stream := f.p.requests(i)
			for step := 0; ; step++ {
				replica, domain, asks, pause := stream.next()
				select {
				case <-ctx.Done():
					return
				case <-time.After(pause):
				}
				c := call{client: i, step: step, replica: replica, domain: domain, asks: asks}
				f.p.send(to[replica], &c)
				calls[i] = append(calls[i], c)
			}
		})
	}
	return func() {
		done.Wait()
		for _, list := range calls {
			f.rec.calls = append(f.rec.calls, list...)
		}
	}
}

// dial returns a connection to each replica.
func (f *fleet) dial() (to []rls.RateLimitServiceClient) {
	for _, s := range f.replicas {
		to = append(to, rls.NewRateLimitServiceClient(s.Dial(f.t)))
	}
	return to
}

// live has clients send requests that hold until ctx is done.
func (f *fleet) live(ctx context.Context) func() {
	var done sync.WaitGroup
	calls := make([][]call, f.p.holders)
	lives := make([]map[behaviour]int, f.p.holders)
	for i := range calls {
		to, number := f.dial(), f.p.clients+i
		lives[i] = map[behaviour]int{}
		done.Go(func() {
			for next := f.p.lives(number); ; {
				l := next()
				lives[i][l.does]++
				for _, s := range l.steps {
					select {
					case <-ctx.Done():
						return
					case <-time.After(s.pause):
					}
					c := call{client: number, step: len(calls[i]), replica: s.replica, domain: l.domain, asks: s.asks}
					f.p.send(to[s.replica], &c)
					calls[i] = append(calls[i], c)
					if l.shy && c.over && !s.asks[0].settles {
						break
					}
				}
			}
		})
	}
	return func() {
		done.Wait()
		f.rec.lives = map[behaviour]int{}
		for i, list := range calls {
			f.rec.calls = append(f.rec.calls, list...)
			for does, n := range lives[i] {
				f.rec.lives[does] += n
			}
		}
	}
}

// send makes a call and fills in what came of it.
func (p *plan) send(to rls.RateLimitServiceClient, c *call) {
	d := p.domains[c.domain]
	request := &rls.RateLimitRequest{Domain: d.name}
	for _, a := range c.asks {
		m := &ratelimitv3.RateLimitDescriptor{HitsAddend: wrapperspb.UInt64(uint64(max(a.hits, -a.hits))), IsNegativeHits: a.hits < 0}
		for i, l := range d.rules[a.rule].path {
			m.Entries = append(m.Entries, &ratelimitv3.RateLimitDescriptor_Entry{Key: l.key, Value: a.values[i]})
		}
		if d.rules[a.rule].holds {
			m.Entries = append(m.Entries, &ratelimitv3.RateLimitDescriptor_Entry{Key: holdBy, Value: a.id})
		}
		if a.settles {
			m.Entries = append(m.Entries, &ratelimitv3.RateLimitDescriptor_Entry{Key: settlingKey, Value: settlingValue})
		}
		request.Descriptors = append(request.Descriptors, m)
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	c.sent = now()
	response, err := to.ShouldRateLimit(ctx, request)
	c.got = now()
	if err != nil {
		c.code, c.text = status.Code(err), status.Convert(err).Message()
		return
	}
	c.code, c.over = codes.OK, response.OverallCode == rls.RateLimitResponse_OVER_LIMIT
	for _, s := range response.Statuses {
		c.answers = append(c.answers, answer{
			ok: s.Code == rls.RateLimitResponse_OK, name: s.CurrentLimit.GetName(),
			limit: s.CurrentLimit.GetRequestsPerUnit(), remaining: s.LimitRemaining, wait: s.DurationUntilReset.GetSeconds(),
		})
	}
}

// probe is how a counter is looked at when all faults are over.
type probe struct {
	domain int
	ask    ask
	room   int64         // the most that can pass at once
	within time.Duration // by when it must
	holds  bool
	slots  bool // of requests in flight
}

// probes returns one for each descriptor that was asked for and has a limit.
func (f *fleet) probes() (list []probe) {
	seen := map[string]bool{}
	for i := range f.rec.calls {
		c := &f.rec.calls[i]
		d, written := f.p.domains[c.domain], f.written[c.domain]
		for _, a := range c.asks {
			rule := d.lands(written, a.rule)
			if rule < 0 {
				continue
			}
			key := fmt.Sprintf("%d %d %q", c.domain, rule, a.values)
			if d.rules[rule].shares { // values that share a counter
				key = fmt.Sprintf("%d %d", c.domain, rule)
			}
			if seen[key] {
				continue
			}
			seen[key] = true
			p := probe{domain: c.domain, ask: a, room: 1 << 40}
			of := d.versions[written][rule]
			p.holds, p.slots = d.rules[rule].holds, of[0].Algorithm.AlwaysHolds()
			for at, l := range of {
				if !l.shadow || of.rehearsed() {
					p.room = min(p.room, capacity(l.Params))
					p.within = max(p.within, f.rec.forgets(counterName{domain: c.domain, rule: rule, limit: at}, l.Params))
				}
			}
			list = append(list, p)
		}
	}
	return list
}

// forgets returns for how long a counter that is next used under p may remember: twice a
// window that counts what it held in another layout as new, and what a bucket owes.
func (r *record) forgets(name counterName, p algo.Params) time.Duration {
	k := &counter{name: name, rule: r.plan.domains[name.domain].rules[name.rule]}
	most, longest := mostOwed(r.widest(k)), int64(0)
	for _, l := range r.limits(k, span{0, 1 << 62}) {
		longest = max(longest, 2*memory(l.Params)+expires(l.Params).Microseconds())
	}
	if drains(p) && p.Limit > 0 {
		longest = max(longest, int64(most/rate(p))+expires(p).Microseconds())
	}
	return time.Duration(longest) * time.Microsecond
}

// recover checks that every counter that was used gives all that its limit has once it
// has had the time to forget.
func (f *fleet) recover(v *verdict) {
	probes, to := f.probes(), f.dial()
	send := func(i int, hits int64, settles bool) *call {
		pr := probes[i]
		c := &call{replica: i % len(to), domain: pr.domain, asks: []ask{{pr.ask.rule, pr.ask.values, hits, "probe", settles}}, client: -1, step: i}
		f.p.send(to[c.replica], c)
		return c
	}
	ask := func(i int, hits int64) *call { return send(i, hits, false) }
	for i := range probes { // which finds, and heals, a state from a clock that stepped back
		if c := ask(i, 1); c.code != codes.OK {
			v.add([]*call{c}, "after all faults had ended")
			return
		}
	}
	began := time.Now()
	for i, pr := range probes {
		if pr.room == 0 {
			continue
		}
		for c := ask(i, 0); c.code != codes.OK || int64(c.answers[0].remaining) < pr.room; c = ask(i, 0) {
			if time.Since(began) > pr.within+time.Second {
				v.add([]*call{c}, "%d hits are not there after %v without any", pr.room, time.Since(began))
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		took := pr.room
		if pr.slots {
			took = 1 // a request is in flight once
		}
		if c := ask(i, pr.room); c.code != codes.OK || c.over || int64(c.answers[0].remaining) != pr.room-took {
			v.add([]*call{c}, "%d hits do not pass, though as many remained", pr.room)
		}
		if !pr.holds {
			continue
		}
		if c := send(i, 0, true); c.code != codes.OK || c.over || int64(c.answers[0].remaining) != pr.room {
			v.add([]*call{c}, "%d hits are not there when what held them has settled", pr.room)
		}
	}
	f.logf("%d counters are as good as new", len(probes))
}

// run does all of a plan and returns what came of it.
func run(t *testing.T, p *plan) (*record, *verdict) {
	t.Helper()
	f := startFleet(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	wait, lived, watched := f.clients(ctx), f.live(ctx), f.watch(ctx)
	f.drive()
	f.heal()
	for i := range f.replicas {
		f.start(i)
	}
	if f.clock != nil {
		f.rec.cuts = append(f.rec.cuts, cut{span: span{now(), now()}, replica: -1})
		back := max(0, f.off)
		f.setClock(0)
		last := &f.rec.cuts[len(f.rec.cuts)-1]
		last.to, last.back = now(), back
	}
	time.Sleep(recovery) // traffic goes on, and must be decided by the store in the end
	cancel()
	wait()
	lived()
	watched()
	if f.sentinel != nil && f.failovers() > f.epoch {
		t.Skip("inconclusive: the sentinels took a master that was slow for dead, so that for a while there were two")
	}
	for i := range f.replicas {
		f.countLeased(i)
	}
	v := f.rec.judge()
	v.leased = int(f.leased)
	f.recover(v)
	var servers []*redistest.Server
	switch {
	case f.cluster != nil:
		servers = f.cluster.Masters
	case f.server != nil && f.clock == nil:
		if servers = append(servers, f.server); f.seconds != nil {
			servers = append(servers, f.seconds)
		}
	}
	for _, s := range servers {
		for began := time.Now(); s.Text("DBSIZE") != "0"; time.Sleep(100 * time.Millisecond) {
			if time.Since(began) > longestLife {
				v.add(nil, "keys of Redis are left after %v", longestLife)
				break
			}
		}
	}
	for i := range f.replicas {
		f.checkOutput(i)
	}
	return f.rec, v
}

// print writes a record's log and findings.
func (r *record) print(w io.Writer, v *verdict) {
	fmt.Fprintf(w, "what was done, seed %d, %s:\n", r.plan.seed, r.plan.store())
	for _, line := range r.log {
		fmt.Fprintln(w, "  "+line)
	}
	for i, found := range v.findings {
		if i == 10 {
			fmt.Fprintf(w, "… and %d more\n", len(v.findings)-i)
			break
		}
		fmt.Fprintf(w, "finding %d: %s\n", i+1, found)
	}
}
