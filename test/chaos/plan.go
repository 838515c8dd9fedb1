package chaos

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// plan is the part of a run that its seed decides: where counters live, the rules with all
// their versions, the requests of clients, and the faults.
type plan struct {
	seed     uint64
	topology topology
	program  string // of a single server
	plain    bool   // behind a proxy that closes connections that ask for RESP3
	replicas int
	clients  int
	holders  int               // clients that hold, beside the others
	pause    time.Duration     // of a client between two requests, on average
	env      map[string]string // settings of the service
	front    string            // which gRPC front the service has
	domains  []*domain
	events   []event
	length   time.Duration // of the traffic
}

type topology string

// Where counters live.
const (
	inMemory   topology = "memory"   // of each replica
	single     topology = "redis"    // one server, which loses all with a restart
	perSecond  topology = "seconds"  // two such servers, one of them for limits per second
	durable    topology = "appendix" // one server that loses nothing with a restart
	clocked    topology = "clock"    // one server whose clock steps
	sentineled topology = "sentinel"
	clustered  topology = "cluster" // three masters, each with a replica
)

// domain is a rule file in all its versions. Version 0 is never in force.
type domain struct {
	name         string
	allOrNothing bool
	rules        []*rule
	versions     []version
}

// rule is what all versions of a rule have in common. Versions differ in everything that is
// not part of a counter's name, and may leave out the second limit or the whole rule.
type rule struct {
	path   []level
	values [][]string    // by level, the values that requests send
	shares bool          // all values count as one
	limits []algo.Params // algorithm and, except for buckets, window
	shadow int           // how often a version has one of the limits in shadow mode, in percent
	mode   string        // on_backend_error
	refund bool          // whether requests give hits back
	hot    bool          // many requests ask for it, of many hits
	lease  float64
	holds  bool // a rule on sets of entries, of which clients that hold ask
}

type level struct{ key, value string }

// version is a version of a domain, by rule.
type version []variant

// variant is a rule in a version: nil when the version leaves it out.
type variant []limit

// limit is one of a rule's limits in a version.
type limit struct {
	algo.Params
	shadow bool
}

// rehearsed reports whether all limits of the rule are in shadow mode, so that it refuses
// nothing.
func (v variant) rehearsed() bool {
	return !slices.ContainsFunc(v, func(l limit) bool { return !l.shadow })
}

// inTwoStores reports whether a descriptor's limits are decided by two stores.
func (v variant) inTwoStores(t topology) bool {
	return t == perSecond && len(v) == 2 && (v[0].Window == time.Second) != (v[1].Window == time.Second)
}

// apart reports whether one of two such stores gives back its charge when the other
// refuses.
func (v variant) apart(d *domain, t topology) bool { return v.inTwoStores(t) && !d.allOrNothing }

// event is an action on the fleet at a time of the run.
type event struct {
	at     time.Duration
	kind   string
	target int           // replica, or domain
	size   int           // of a storm, or which bad file
	by     time.Duration // a clock step, or the latency of a network
}

const noFailure = ""

// clusterMasters is how many masters a cluster has.
const clusterMasters = 3

// newPlan draws a plan.
func newPlan(seed uint64, length time.Duration) *plan {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := &plan{seed: seed, length: length, replicas: 3, clients: 12, pause: 25 * time.Millisecond}
	// Quick runs begin with the topologies that fail most often.
	p.topology = []topology{single, durable, clocked, perSecond, inMemory, sentineled, clustered}[seed%7]
	p.env = map[string]string{}
	if p.topology != inMemory {
		p.env["REDIS_TIMEOUT"] = "2s" // a shorter timeout fails on a busy machine without a fault
		p.env["REDIS_BREAK_FOR"] = pick(rng, "200ms", "1s")
		p.env["REDIS_COMBINING"] = pick(rng, "true", "true", "false")
		p.env["LOCAL_CACHE_SIZE_IN_BYTES"] = pick(rng, "0", "1000000")
		p.env["REDIS_POOL_SIZE"] = pick(rng, "1", "1", "4")
		p.env["REPLICAS"] = fmt.Sprint(p.replicas)
	}
	if p.topology == perSecond {
		for _, name := range []string{"TIMEOUT", "POOL_SIZE"} {
			p.env["REDIS_PERSECOND_"+name] = p.env["REDIS_"+name]
		}
	}
	for i, name := range []string{"each", "all"} {
		p.domains = append(p.domains, newDomain(rng, name, i == 1, p.topology))
	}
	p.schedule(rng)
	p.addHolds(rand.New(rand.NewPCG(seed, 3)))
	// Drawn from another source, so that a seed's other choices stay the same.
	others := rand.New(rand.NewPCG(seed, 2))
	p.program = pick(others, "redis-server", "redis-server", "redis-server-6.2")
	p.plain = chance(others, 30)
	p.front = cmp.Or(os.Getenv("GRPC_FRONT"), pick(rand.New(rand.NewPCG(seed, 4)), "grpc-go", "lean"))
	return p
}

// store describes where counters live, for people.
func (p *plan) store() string {
	if !slices.Contains([]topology{single, perSecond, durable, clocked}, p.topology) {
		return string(p.topology)
	}
	text := fmt.Sprintf("%s of %s", p.topology, p.program)
	if p.plain {
		text += " behind a proxy without HELLO"
	}
	return text
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

func chance(rng *rand.Rand, percent int) bool { return rng.IntN(100) < percent }

func between(rng *rand.Rand, a, b time.Duration) time.Duration {
	return a + time.Duration(rng.Int64N(int64(b-a+1)))
}

func newDomain(rng *rand.Rand, name string, allOrNothing bool, t topology) *domain {
	d := &domain{name: name, allOrNothing: allOrNothing, versions: []version{nil}}
	few := func(prefix, suffix string) (values []string) {
		for i := range 1 + rng.IntN(4) {
			values = append(values, fmt.Sprintf("%s%d%s", prefix, i, suffix))
		}
		return values
	}
	add := func(r *rule) {
		r.mode = pick(rng, noFailure, "error", "allow", "deny", "local")
		if t == inMemory {
			r.mode = noFailure
		}
		r.shadow = pick(rng, 0, 0, 15, 30, 60)
		r.refund = chance(rng, 20)
		r.limits = []algo.Params{newParams(rng, t)}
		// One sibling may apply where another is left out. Counters are named by entries,
		// algorithm and window, so with the same names they would go on.
		for len(d.rules) < siblings && slices.ContainsFunc(d.rules, func(o *rule) bool { return o.shareNames(r) }) {
			r.limits[0] = newParams(rng, t)
		}
		if len(d.rules) >= siblings && chance(rng, 40) {
			// Limits of one name in a rule are numbered, those in shadow mode last. A change of
			// mode would make them swap counters, which the oracle does not follow.
			second := newParams(rng, t)
			for sameName(r.limits[0], second) {
				second = newParams(rng, t)
			}
			r.limits = append(r.limits, second)
		}
		// A lease takes the hits of a moment ahead: for a counter that is not hot, none.
		if share := pick(rng, 0.1, 0.1, 0.2, 1); len(r.limits) == 1 && (r.hot && chance(rng, 60) || chance(rng, 10)) {
			r.lease = share
		}
		d.rules = append(d.rules, r)
	}
	// Siblings on one key: an exact value beats a pattern, and a pattern the key alone.
	add(&rule{path: []level{{"who", "admin"}}, values: [][]string{{"admin"}}})
	add(&rule{path: []level{{"who", "a*"}}, values: [][]string{few("ad", "")}})
	add(&rule{path: []level{{"who", ""}}, values: [][]string{few("b", "")}})
	// A pattern whose values share a counter, and patterns with stars inside.
	add(&rule{path: []level{{"path", "/v*/x*"}}, values: [][]string{few("/v1/x", "")}, shares: true})
	add(&rule{path: []level{{"path", "*.png"}}, values: [][]string{few("/", ".png")}})
	// Nested, under nodes with and without a limit of their own.
	add(&rule{path: []level{{"who", ""}, {"path", ""}}, values: [][]string{few("b", ""), few("/", "")}})
	add(&rule{path: []level{{"tier", "gold*"}, {"host", ""}, {"port", "80"}}, values: [][]string{few("gold", ""), few("h", ""), {"80"}}})
	// Values that would be ambiguous if keys were simply joined.
	add(&rule{path: []level{{"odd|4:", ""}}, values: [][]string{{"}{", "a=b|", "\x00\n", "é"}}})
	add(&rule{path: []level{{"hot", ""}}, values: [][]string{{"spot"}}, hot: true})
	d.versions = append(d.versions, d.next(rng))
	return d
}

// shareNames reports whether counters of the rules may have the same names.
func (r *rule) shareNames(o *rule) bool {
	return slices.ContainsFunc(r.limits, func(p algo.Params) bool {
		return slices.ContainsFunc(o.limits, func(q algo.Params) bool { return sameName(p, q) })
	})
}

// sameName reports whether counters of two limits have the same name.
func sameName(p, q algo.Params) bool {
	return p.Algorithm == q.Algorithm && (p.Window == q.Window || drains(p) && !slides(p))
}

// drains reports whether the algorithm has a bucket, slides whether it has a sliding
// window of counts.
func drains(p algo.Params) bool {
	return p.Algorithm == algo.TokenBucket || p.Algorithm == algo.LeakyBucket || p.Algorithm == algo.Hybrid
}

func slides(p algo.Params) bool {
	return p.Algorithm == algo.SlidingWindow || p.Algorithm == algo.Hybrid
}

// newParams draws what the versions of a limit have in common.
func newParams(rng *rand.Rand, t topology) algo.Params {
	p := algo.Params{Algorithm: pick(rng, rates()...), Window: newWindow(rng)}
	if t == perSecond && chance(rng, 50) {
		p.Window = time.Second
	}
	return p
}

// rates returns the algorithms that count what was used.
func rates() (all []algo.Algorithm) {
	for a := range algo.Algorithms() {
		if a := algo.Algorithm(a); !a.AlwaysHolds() {
			all = append(all, a)
		}
	}
	return all
}

// newWindow draws a window that matters at some hundred requests a second.
func newWindow(rng *rand.Rand) time.Duration {
	return time.Duration(2+rng.IntN(8)) * 100 * time.Millisecond
}

// next draws the next version: the last one with some of its rules changed.
func (d *domain) next(rng *rand.Rand) version {
	last := d.versions[len(d.versions)-1]
	v := make(version, len(d.rules))
	for i, r := range d.rules {
		if last != nil && last[i] != nil && !chance(rng, 30) {
			v[i] = last[i]
			continue
		}
		if last != nil && chance(rng, 20) {
			continue // left out
		}
		for _, p := range r.limits[:1+rng.IntN(len(r.limits))] {
			v[i] = append(v[i], limit{tune(rng, p, r.hot), chance(rng, r.shadow)})
		}
	}
	return v
}

// tune draws the parameters of a limit that may change while its counters are in use.
func tune(rng *rand.Rand, p algo.Params, hot bool) algo.Params {
	p.DeniedHits = pick(rng, algo.Count, algo.Drop, algo.Drop, algo.Drain)
	amount := func() uint32 {
		if hot {
			return uint32(pick(rng, 60, 100, 150, 250))
		}
		return uint32(pick(rng, 1, 2, 3, 5, 8, 13, 21, 34))
	}
	p.Limit = amount()
	if slides(p) && chance(rng, 30) {
		p.Strict, p.SubWindows = true, pick(rng, 0, 1, 4)
	}
	if drains(p) {
		p.Burst = amount()
		if !slides(p) && p.Window != time.Second { // that would move it to another store
			p.Window = newWindow(rng)
		}
		if slides(p) && chance(rng, 50) {
			p.Refill = algo.Rate{Hits: amount(), Per: newWindow(rng)}
		}
	}
	if chance(rng, 7) { // nothing passes; used hits stay used
		p.Limit = 0
	}
	return p
}

// limitName returns the name of a limit in a version, which answers report.
func limitName(rule, limit, version int) string {
	return fmt.Sprintf("r%d.%d@%d", rule, limit, version)
}

// file returns a version as a rule file, in JSON, which is YAML.
func (d *domain) file(number int) []byte {
	v := d.versions[number]
	root := map[string]any{"domain": d.name}
	if d.allOrNothing {
		root["consume"] = "all_or_nothing"
	}
	// Shows in /rlconfig which version is in force.
	probe := map[string]any{"key": "version", "value": fmt.Sprint("v", number), "rate_limit": map[string]any{"unit": "hour", "requests_per_unit": 1}}
	tops := []map[string]any{probe}
	var sets []map[string]any
	for i, r := range d.rules {
		switch {
		case v[i] == nil:
		case r.holds:
			sets = append(sets, r.set(i, number, v[i]))
		default:
			tops = r.insert(tops, r.path, i, number, v[i])
		}
	}
	root["descriptors"] = tops
	if sets != nil {
		root["limits"] = sets
	}
	text, err := json.MarshalIndent(root, "", " ")
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	return text
}

// insert adds a rule to a tree; nodes are one level of it.
func (r *rule) insert(nodes []map[string]any, path []level, number, version int, v variant) []map[string]any {
	var node map[string]any
	for _, n := range nodes {
		if value, _ := n["value"].(string); n["key"] == path[0].key && value == path[0].value {
			node = n
		}
	}
	if node == nil {
		node = map[string]any{"key": path[0].key}
		if path[0].value != "" {
			node["value"] = path[0].value
		}
		nodes = append(nodes, node)
	}
	if len(path) > 1 {
		below, _ := node["descriptors"].([]map[string]any)
		node["descriptors"] = r.insert(below, path[1:], number, version, v)
		return nodes
	}
	whole := v.rehearsed() && version%2 == 0 // shadow mode is set once for all limits, or for each
	if whole {
		node["shadow_mode"] = true
	}
	if r.shares {
		node["share_threshold"] = true
	}
	limits := r.texts(number, version, v)
	for i, p := range v {
		l := limits[i]
		l["denied_hits"] = p.DeniedHits.String()
		if p.shadow && !whole {
			l["shadow_mode"] = true
		}
		if r.lease != 0 {
			l["lease"] = r.lease
		}
	}
	if len(limits) == 1 {
		node["rate_limit"] = limits[0]
	} else {
		node["rate_limits"] = limits
	}
	return nodes
}

// texts returns the limits of a rule as a file has them, but for what only some rules have.
func (r *rule) texts(number, version int, v variant) (limits []map[string]any) {
	for i, p := range v {
		l := map[string]any{
			"name": limitName(number, i, version), "algorithm": p.Algorithm.String(), "requests_per_unit": p.Limit,
		}
		if !p.Algorithm.AlwaysHolds() {
			l["window"] = p.Window.String()
		}
		if p.Algorithm == algo.Hybrid {
			bucket := map[string]any{"capacity": p.Burst}
			if p.Refill != (algo.Rate{}) {
				bucket["refill_rate"] = fmt.Sprintf("%d/%v", p.Refill.Hits, p.Refill.Per)
			}
			l["token_bucket"] = bucket
		} else if p.Burst != 0 {
			l["burst"] = p.Burst
		}
		if p.Strict {
			l["strict"] = true
		}
		if p.SubWindows != 0 {
			l["sub_windows"] = p.SubWindows
		}
		if r.mode != noFailure {
			l["on_backend_error"] = r.mode
		}
		limits = append(limits, l)
	}
	return limits
}

// badFiles are contents that an editor may leave behind. %s is the domain.
var badFiles = []string{
	"",
	"domain: %s\ndescriptors: [",
	"domain: %s\ndescriptors: [{key: who, rate_limit: {name: bad, unit: fortnight, requests_per_unit: 1}}]",
	"domain: %s\ndescriptors: [{key: who, rate_limit: {name: bad, unit: hour, requests_per_unit: 1}}, {key: who, rate_limit: {name: bad, unit: hour, requests_per_unit: 1}}]",
	"domain: %s\ndescriptors: [{key: who, rate_limt: {name: bad, unit: hour, requests_per_unit: 1}}]",
	"domain: %s\ndescriptors: [{key: who, rate_limit: {name: bad, window: 0s, requests_per_unit: -1}}]",
	"\x00\xff\xfe%s",
}

// ask is one descriptor of a request, and the rule that it is made for.
type ask struct {
	rule    int
	values  []string
	hits    int64
	id      string // of a request that holds
	settles bool   // that request is over
}

// requests is a client's endless stream of requests.
type requests struct {
	p   *plan
	rng *rand.Rand

	// The last request, with its replica and domain, if it may be sent again at once, and
	// how often that happens, in percent.
	again           []ask
	replica, domain int
	often           int
}

func (p *plan) requests(client int) *requests {
	return &requests{p: p, rng: rand.New(rand.NewPCG(p.seed, uint64(1000+client)))}
}

// next returns the replica and domain of the next request, its descriptors, and the pause
// before it.
func (r *requests) next() (replica, domain int, asks []ask, pause time.Duration) {
	rng := r.rng
	if r.again != nil && chance(rng, r.often) { // in bursts
		return r.replica, r.domain, r.again, time.Duration(rng.Int64N(int64(r.p.pause / 5)))
	}
	pause = time.Duration(rng.Int64N(int64(2 * r.p.pause)))
	replica, domain = rng.IntN(r.p.replicas), rng.IntN(len(r.p.domains))
	d := r.p.domains[domain]
	n := 1
	if chance(rng, 30) {
		n += rng.IntN(3)
	}
	rules := d.unheld()
	for range n {
		a := ask{rule: rng.IntN(rules), hits: 1}
		if chance(rng, 12) {
			a.rule = rules - 1
		}
		rule := d.rules[a.rule]
		for _, values := range rule.values {
			a.values = append(a.values, pick(rng, values...))
		}
		switch c := rng.IntN(100); {
		case c < 5:
			a.hits = 0
		case c < 20:
			a.hits = 2 + rng.Int64N(4)
		case c < 22:
			a.hits = 1 << 40
		case c < 32 && rule.refund:
			a.hits = -1 - rng.Int64N(2)
		case rule.hot:
			a.hits = pick(rng, int64(1), 2, 4, 8)
		}
		asks = append(asks, a)
	}
	r.again = nil
	if n == 1 && 0 < asks[0].hits && asks[0].hits < 1<<40 {
		r.again, r.replica, r.domain, r.often = asks, replica, domain, 60
		if d.rules[asks[0].rule].hot {
			r.often = 92
		}
	}
	return replica, domain, asks, pause
}

// storeFaults are the possible faults of the store of each topology. Each ends by itself or
// by the event in heals.
var storeFaults = map[topology][]string{
	inMemory:   nil,
	single:     {redisKill, redisFreeze, redisPause, redisForget, redisScripts, redisCut, netLatency, netSilent, netReset, netDown, netNarrow},
	perSecond:  {redisKill, redisKill, redisFreeze, redisForget, redisScripts, redisCut, netReset, netDown, netSilent},
	durable:    {redisKill, redisFreeze, redisRestart, netSilent, netReset, netDown, netLatency},
	clocked:    {clockStep, clockStep, clockStep, redisKill, netReset},
	sentineled: {redisFailover, redisFailover, redisCut, redisScripts},
	clustered:  {nodeKill, nodeFreeze, nodeFreeze, nodeFailover, slotsMove, slotsMove, slotsMove, redisCut, redisScripts, redisForget},
}

// The kinds of events.
const (
	redisKill     = "redis killed"
	redisFreeze   = "redis frozen"
	redisPause    = "redis pauses clients"
	redisForget   = "redis flushed"
	redisScripts  = "scripts flushed"
	redisCut      = "connections closed by redis"
	redisRestart  = "redis restarted"
	redisFailover = "redis master killed"
	nodeKill      = "cluster master killed"
	nodeFreeze    = "cluster node frozen"
	nodeFailover  = "cluster failover asked for"
	slotsMove     = "slots moved"
	netLatency    = "network slow"
	netSilent     = "network silent"
	netReset      = "connections reset"
	netDown       = "connections refused"
	netNarrow     = "network narrow"
	clockStep     = "clock stepped"
	storeHeal     = "store heals"
	machineStall  = "machine stalled" // observed, not planned
	replicaKill   = "replica killed"
	replicaStop   = "replica stopped"
	replicaStart  = "replica starts"
	rulesChange   = "rules changed"
	rulesStorm    = "rules changed in a storm"
	rulesBad      = "rules bad, then changed"
)

// schedule draws the faults: of the store one at a time, of replicas such that one always
// lives, of rules at any time.
func (p *plan) schedule(rng *rand.Rand) {
	failovers := 0
	faults := storeFaults[p.topology]
	if p.topology == clustered && chance(rng, 30) {
		faults = []string{slotsMove} // this is no fault: no call may fail
	}
	if len(faults) > 0 {
		for at := time.Second; at < p.length-time.Second; {
			e := event{at: at, kind: pick(rng, faults...)}
			hold := between(rng, 50*time.Millisecond, 2500*time.Millisecond)
			switch e.kind {
			case clockStep:
				e.by = pick(rng, -time.Hour, -time.Second, -100*time.Millisecond, 100*time.Millisecond, time.Second, time.Hour)
			case redisPause:
				e.by = hold
			case redisKill, redisFreeze, redisForget:
				e.target = rng.IntN(2) // of two servers
			case netSilent:
				e.size = rng.IntN(2)
			case netLatency:
				e.by = between(rng, time.Millisecond, 100*time.Millisecond)
			case nodeKill, nodeFailover:
				e.target = rng.IntN(clusterMasters)
			case nodeFreeze:
				// Masters are replaced when they are frozen for long.
				e.target, hold = rng.IntN(2*clusterMasters), between(rng, 50*time.Millisecond, 4*time.Second)
			case slotsMove:
				e.size, hold = 1+rng.IntN(4), 0
			case redisFailover:
				if failovers++; failovers > 2 { // of three servers
					e.kind = redisCut
				}
			}
			p.events = append(p.events, e, event{at: at + hold, kind: storeHeal})
			at += hold + between(rng, 200*time.Millisecond, 4*time.Second)
		}
	}
	for at := 2 * time.Second; at < p.length-time.Second; at += between(rng, 2*time.Second, 6*time.Second) {
		e := event{at: at, kind: pick(rng, replicaKill, replicaKill, replicaStop), target: rng.IntN(p.replicas)}
		start := event{at: at + between(rng, 0, time.Second), kind: replicaStart, target: e.target}
		p.events = append(p.events, e, start)
		at = start.at
	}
	for at := time.Second; at < p.length-time.Second; at += between(rng, 200*time.Millisecond, 3*time.Second) {
		e := event{at: at, kind: pick(rng, rulesChange, rulesChange, rulesStorm, rulesBad), target: rng.IntN(len(p.domains)), size: 1}
		switch e.kind {
		case rulesStorm:
			e.size = 5 + rng.IntN(20)
		case rulesBad:
			e.size = rng.IntN(len(badFiles))
		}
		p.events = append(p.events, e)
	}
	slices.SortStableFunc(p.events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	// The versions, in the order in which they are written.
	for _, e := range p.events {
		n := 0
		switch e.kind {
		case rulesChange, rulesBad:
			n = 1
		case rulesStorm:
			n = e.size
		}
		for d := p.domains[e.target%len(p.domains)]; n > 0; n-- {
			d.versions = append(d.versions, d.next(rng))
		}
	}
}
