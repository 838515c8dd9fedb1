package rulefile

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/spell"
)

// maxRawBody bounds a rule's own 429 body, which travels in every such answer.
const maxRawBody = 64 << 10

var (
	limitKeys = newKeys(true, "unit", "unit_multiplier", "requests_per_unit", "algorithm", "window", "burst", "name", "denied_hits", "strict",
		"sub_windows", "token_bucket", "sliding_window", "unlimited", "shadow_mode", "replaces", "on_backend_error", "lease", "raw_body", "request_headers")
	replacesKeys = newKeys(true, "name")
	bucketKeys   = newKeys(false, "capacity", "refill_rate")
	windowKeys   = newKeys(false, "requests_per_unit", "unit", "unit_multiplier", "window")
)

// rawRate is a number of requests in a unit or window, as written. The window is a text
// or a calendar.
type rawRate struct {
	requests, multiplier field[uint32]
	table                rawTable // of requests, which is its default then
	unit, window         field[string]
	calendar             *rawCalendar
}

// rawLimit is a rate limit as written.
type rawLimit struct {
	rawRate
	n                                                            *yaml.Node
	name, algorithm, deniedHits, onBackendError, refill, rawBody field[string]
	burst, capacity                                              field[config.Burst]
	subWindows                                                   field[uint32]
	strict, unlimited, shadowMode                                field[bool]
	lease                                                        field[float64]
	replaces                                                     field[[]field[string]]
	requestHeaders                                               field[[]rawHeader]
	bucket, sliding                                              *yaml.Node // the blocks of hybrid
	inner                                                        rawRate    // of sliding
	hold                                                         *rawHold   // of the rule; nil: none
	unread                                                       bool       // no mapping: reported
}

func (d *decoder) rawLimit(n *yaml.Node, raw *rawLimit) {
	raw.n = n
	raw.unread = !d.mapping(n, limitKeys, func(key string, value *yaml.Node) {
		switch key {
		case "unit", "unit_multiplier", "requests_per_unit", "window":
			d.setRate(&raw.rawRate, key, value)
		case "algorithm":
			d.text(value, &raw.algorithm)
		case "burst":
			d.burst(value, &raw.burst)
		case "name":
			d.text(value, &raw.name)
		case "denied_hits":
			d.text(value, &raw.deniedHits)
		case "strict":
			d.boolean(value, &raw.strict)
		case "sub_windows":
			d.number(value, &raw.subWindows)
		case "token_bucket":
			d.setBucket(raw, value)
		case "sliding_window":
			d.setSliding(raw, value)
		case "unlimited":
			d.boolean(value, &raw.unlimited)
		case "shadow_mode":
			d.boolean(value, &raw.shadowMode)
		case "replaces":
			d.setReplaces(raw, value)
		case "on_backend_error":
			d.text(value, &raw.onBackendError)
		case "lease":
			d.share(value, &raw.lease)
		case "raw_body":
			d.text(value, &raw.rawBody)
		case "request_headers":
			d.setRequestHeaders(raw, value)
		}
	})
}

func (d *decoder) setRate(raw *rawRate, key string, n *yaml.Node) {
	switch key {
	case "unit":
		d.text(n, &raw.unit)
	case "requests_per_unit":
		d.setRequests(raw, n)
	case "unit_multiplier":
		d.number(n, &raw.multiplier)
	case "window":
		d.window(raw, n)
	}
}

func (d *decoder) setBucket(raw *rawLimit, n *yaml.Node) {
	raw.bucket = nil
	if yamlfile.IsNull(n) {
		return
	}
	raw.bucket = n
	d.mapping(n, bucketKeys, func(key string, value *yaml.Node) {
		switch key {
		case "capacity":
			d.burst(value, &raw.capacity)
		case "refill_rate":
			d.text(value, &raw.refill)
		}
	})
}

func (d *decoder) setSliding(raw *rawLimit, n *yaml.Node) {
	raw.sliding = nil
	if yamlfile.IsNull(n) {
		return
	}
	raw.sliding = n
	isMapping := d.mapping(n, windowKeys, func(key string, value *yaml.Node) { d.setRate(&raw.inner, key, value) })
	raw.inner.unit.bad = raw.inner.unit.bad || !isMapping
}

func (d *decoder) setReplaces(raw *rawLimit, n *yaml.Node) {
	raw.replaces = field[[]field[string]]{n: n}
	if yamlfile.IsNull(n) {
		return
	}
	d.list(n, `mappings such as "name: other"`, func(n *yaml.Node) {
		var name field[string]
		isMapping := d.mapping(n, replacesKeys, func(_ string, value *yaml.Node) { d.text(value, &name) })
		name.n, name.bad = name.at(n), name.bad || !isMapping
		raw.replaces.v = append(raw.replaces.v, name)
	})
}

// limit validates and compiles a limit. What it returns after a problem is only
// fit to look for more problems.
func (d *decoder) limit(raw *rawLimit) *config.Limit {
	if raw.unread {
		return &config.Limit{}
	}
	l := &config.Limit{Name: raw.name.v, Unlimited: raw.unlimited.v, ShadowMode: raw.shadowMode.v, RawBody: raw.rawBody.v, Lease: raw.lease.v, AlgorithmGiven: raw.algorithm.present(), UnitMultiplier: 1, Pos: d.pos(raw.n)}
	d.checkName(raw)
	d.checkReplaces(raw, l)
	if raw.onBackendError.present() {
		mode, err := config.ParseBackendErrorMode(raw.onBackendError.v)
		l.OnBackendError = mode
		d.problemFrom("on_backend_error", raw.onBackendError.n, err)
	}
	d.checkRawBody(raw)
	d.checkRequestHeaders(raw, l)
	if raw.hold != nil {
		d.checkHeld(raw)
	}
	if l.Unlimited {
		l.ShadowMode = false
		d.checkUnlimited(raw)
		return l
	}
	if l.ShadowMode && len(l.Replaces) > 0 {
		d.warnIn("replaces", raw.replaces.n, "no effect in shadow mode, which leaves other limits as they are", "remove it until the limit is enforced")
	}
	before := len(d.problems)
	params := d.params(raw, l)
	if len(d.problems) > before || params.Length() == 0 {
		return l
	}
	compiled, err := algo.New(params)
	if bad, ok := errors.AsType[*algo.ParamError](err); ok {
		d.paramProblem(raw, bad)
	}
	l.Algo = compiled
	d.table(raw, l, params)
	return l
}

// rate returns where the sustained rate is written: of hybrid it may be in its window.
func (raw *rawLimit) rate() *rawRate {
	if raw.sliding != nil {
		return &raw.inner
	}
	return &raw.rawRate
}

// paramProblem reports what is wrong with a parameter where it is written, or at
// the limit if it follows from others.
func (d *decoder) paramProblem(raw *rawLimit, bad *algo.ParamError) {
	switch {
	case bad.Param == "requests_per_unit" && raw.requests.n != nil:
		d.problemIn(bad.Param, raw.requests.n, bad.What, bad.Remedy)
	case bad.Param == "hold" && raw.algorithm.n != nil:
		d.problemIn("algorithm", raw.algorithm.n, bad.What, bad.Remedy)
	case bad.Param == "burst" && raw.burst.n != nil:
		d.problemIn(bad.Param, raw.burst.n, bad.What, bad.Remedy)
	default:
		d.problem(raw.n, bad.What, bad.Remedy)
	}
}

// problemFrom reports what is wrong with a field; nil is nothing.
func (d *decoder) problemFrom(key string, n *yaml.Node, err error) {
	if bad, ok := errors.AsType[*algo.ParamError](err); ok {
		d.problemIn(key, n, bad.What, bad.Remedy)
	}
}

func (d *decoder) checkRawBody(raw *rawLimit) {
	if len(raw.rawBody.v) > maxRawBody {
		d.problemIn("raw_body", raw.rawBody.n, fmt.Sprintf("longer than %d bytes", maxRawBody), "write a shorter body")
	}
}

func (d *decoder) checkName(raw *rawLimit) {
	if strings.ContainsFunc(raw.name.v, unicode.IsControl) {
		d.problemIn("name", raw.name.n, "a name with control characters", "names go into answers and metrics: write printable text")
	}
}

func (d *decoder) checkReplaces(raw *rawLimit, l *config.Limit) {
	d.push("replaces")
	defer d.pop()
	for i, name := range raw.replaces.v {
		d.pushIndex(i)
		switch {
		case name.bad: // reported already
		case name.v == "":
			d.problem(name.n, "the name is missing or empty", `write "name: " and the name of another limit`)
		case name.v == l.Name:
			d.problem(name.n, fmt.Sprintf("the limit %q replaces itself", yamlfile.Abridge(name.v)), "name another limit")
		default:
			l.Replaces = append(l.Replaces, name.v)
			d.replaced = append(d.replaced, reference{from: l.Name, name: name.v,
				missing: d.report(name.n, fmt.Sprintf("no limit of this domain is named %q", yamlfile.Abridge(name.v)), "name one that is"),
				mutual: d.report(name.n, fmt.Sprintf("the limits %q and %q replace each other: in a request to which both apply, neither does",
					yamlfile.Abridge(l.Name), yamlfile.Abridge(name.v)), "remove one of the two replaces")})
		}
		d.pop()
	}
}

// checkUnlimited refuses what would limit. A lone requests_per_unit, a unit that
// is none and shadow_mode only earn a warning: envoyproxy/ratelimit loads them.
func (d *decoder) checkUnlimited(raw *rawLimit) {
	const remedy = "remove it, or remove unlimited"
	for _, f := range []struct {
		key  string
		n    *yaml.Node
		fine bool
	}{
		{"unit", raw.unit.n, config.ParseUnit(raw.unit.v) == config.UnitUnknown},
		{"unit_multiplier", raw.multiplier.n, raw.table.n == nil && config.ParseUnit(raw.unit.v) == config.UnitUnknown},
		{"requests_per_unit", raw.requests.n, raw.table.n == nil},
		{"shadow_mode", raw.shadowMode.n, true},
		{"window", raw.window.n, false},
		{"algorithm", raw.algorithm.n, false},
		{"burst", raw.burst.n, false},
		{"denied_hits", raw.deniedHits.n, false},
		{"strict", raw.strict.n, false},
		{"sub_windows", raw.subWindows.n, false},
		{"token_bucket", raw.bucket, false},
		{"sliding_window", raw.sliding, false},
		{"on_backend_error", raw.onBackendError.n, false},
		{"lease", raw.lease.n, false},
		{"request_headers", raw.requestHeaders.n, false},
	} {
		switch {
		case f.n == nil:
		case f.fine:
			d.warnIn(f.key, f.n, f.key+" has no effect together with unlimited", remedy)
		default:
			d.problemIn(f.key, f.n, f.key+" together with unlimited", remedy)
		}
	}
}

// params validates everything that the algorithm is made of, and sets what the
// answer reports of it.
func (d *decoder) params(raw *rawLimit, l *config.Limit) algo.Params {
	var p algo.Params
	var known bool
	p.Algorithm, known = d.algorithm(raw)
	if raw.deniedHits.present() {
		var err error
		p.DeniedHits, err = algo.ParseDeniedHits(raw.deniedHits.v)
		d.problemFrom("denied_hits", raw.deniedHits.n, err)
	}
	if known {
		d.checkFields(raw, p.Algorithm)
	} else if raw.sliding != nil || raw.bucket != nil {
		p.Algorithm = algo.Hybrid // likely meant, for the checks below
	}
	p.Strict = raw.strict.v
	if p.Strict { // checkFields has the rest
		p.SubWindows = int(raw.subWindows.v)
	}
	if known && p.Algorithm.AlwaysHolds() {
		d.concurrency(raw, l, &p)
		return p
	}
	if raw.hold != nil {
		p.Hold = raw.hold.expiry
	}
	d.rate(raw, l, &p)
	d.bucket(raw, l, &p)
	return p
}

// algorithm returns the algorithm of a limit, and whether it is one.
func (d *decoder) algorithm(raw *rawLimit) (a algo.Algorithm, known bool) {
	if !raw.algorithm.present() {
		return algo.FixedWindow, !raw.algorithm.bad
	}
	a, err := algo.ParseAlgorithm(raw.algorithm.v)
	if err != nil {
		d.problemIn("algorithm", raw.algorithm.n, fmt.Sprintf("unknown algorithm %q", yamlfile.Abridge(raw.algorithm.v)), spell.Suggest(raw.algorithm.v, algo.Algorithms()))
	}
	return a, err == nil
}

// checkFields refuses fields that belong to other algorithms.
func (d *decoder) checkFields(raw *rawLimit, a algo.Algorithm) {
	for _, f := range []struct {
		key   string
		n     *yaml.Node
		takes algo.Takes
	}{
		{"burst", raw.burst.n, algo.TakesBurst},
		{"strict", raw.strict.n, algo.TakesStrict},
		{"sub_windows", raw.subWindows.n, algo.TakesStrict},
		{"token_bucket", raw.bucket, algo.TakesRefill},
		{"sliding_window", raw.sliding, algo.TakesRefill},
	} {
		if f.n != nil && !a.Takes(f.takes) && (f.key != "strict" || raw.strict.v) {
			d.problemIn(f.key, f.n, fmt.Sprintf("%s does not belong to %s", f.key, a), "remove it, or write algorithm: "+algo.AlgorithmsWith(f.takes))
		}
	}
	switch {
	case !raw.subWindows.present():
	case a.Takes(algo.TakesStrict) && !raw.strict.v && !raw.strict.bad:
		d.problemIn("sub_windows", raw.subWindows.n, "sub_windows without strict", "write strict: true, or remove it")
	case raw.subWindows.v < 1 || raw.subWindows.v > algo.MaxSubWindows:
		d.problemIn("sub_windows", raw.subWindows.n, fmt.Sprintf("%d sub windows", raw.subWindows.v), fmt.Sprintf("write 1 to %d", algo.MaxSubWindows))
	}
}

// rate validates the sustained rate, of hybrid that of its sliding window.
func (d *decoder) rate(raw *rawLimit, l *config.Limit, p *algo.Params) {
	rate, n := &raw.rawRate, raw.n
	if raw.sliding != nil && p.Algorithm.Takes(algo.TakesRefill) {
		for _, f := range []struct {
			key string
			n   *yaml.Node
		}{{"requests_per_unit", rate.requests.n}, {"unit", rate.unit.n}, {"unit_multiplier", rate.multiplier.n}, {"window", rate.window.n}} {
			if f.n != nil {
				d.problemIn(f.key, f.n, f.key+" beside sliding_window", "write it in one of the two places")
			}
		}
		d.push("sliding_window")
		defer d.pop()
		rate, n = &raw.inner, raw.sliding
	}
	d.checkTable(&rate.table)
	p.Limit, l.RequestsPerUnit = rate.requests.v, rate.requests.v
	if rate.requests.missing() {
		d.warnIn("requests_per_unit", n, "requests_per_unit is missing: every request is over the limit", "write a number, or 0 if that is meant")
	}
	switch unit := config.ParseUnit(rate.unit.v); {
	case rate.unit.present() && rate.window.present():
		d.problemIn("window", rate.window.n, "unit and window together", "write one of them")
	case rate.multiplier.present() && rate.window.present():
		d.problemIn("unit_multiplier", rate.multiplier.n, "unit_multiplier and window together", "write one of them")
	case rate.calendar != nil:
		d.calendar(rate.calendar, l, p)
	case rate.window.present():
		window, what, remedy := parseWindow(rate.window.v)
		if what != "" {
			d.problemIn("window", rate.window.n, what, remedy)
			return
		}
		p.Window = window
		l.Unit, l.UnitMultiplier = config.Measure(window)
	case rate.unit.bad || rate.window.bad: // reported already
	case !rate.unit.present():
		d.problemIn("unit", n, "the unit is missing", "write "+unitList+", or window: 90s")
	case unit == config.UnitUnknown:
		d.problemIn("unit", rate.unit.n, fmt.Sprintf("unknown unit %q", yamlfile.Abridge(rate.unit.v)), "write "+unitList)
	default:
		p.Window, l.Unit = unit.Duration(), unit
		d.multiply(rate, l, p)
	}
}

// multiply makes the window as many units long as is written.
func (d *decoder) multiply(rate *rawRate, l *config.Limit, p *algo.Params) {
	if !rate.multiplier.present() {
		return
	}
	switch n, most := rate.multiplier.v, uint32(algo.MaxWindow/p.Window); {
	case n == 0:
		d.problemIn("unit_multiplier", rate.multiplier.n, "a unit_multiplier of 0", "write at least 1, or leave it out")
	case n > most:
		d.problemIn("unit_multiplier", rate.multiplier.n, fmt.Sprintf("%d times %s is too long", n, l.Unit), fmt.Sprintf("write at most %d: no window is longer than %d days", most, algo.MaxWindow/config.Day.Duration()))
	default:
		p.Window *= time.Duration(n)
		l.UnitMultiplier = n
	}
}

// bucket validates burst and the bucket of hybrid.
func (d *decoder) bucket(raw *rawLimit, l *config.Limit, p *algo.Params) {
	burst, key := raw.burst, "burst"
	if raw.bucket != nil && p.Algorithm.Takes(algo.TakesRefill) {
		if raw.burst.present() {
			d.problemIn("burst", raw.burst.n, "burst beside token_bucket", "write it as token_bucket: {capacity: …}")
		}
		d.push("token_bucket")
		defer d.pop()
		burst, key = raw.capacity, "capacity"
		if raw.refill.present() {
			rate, what, remedy := parseRate(raw.refill.v)
			if what != "" {
				d.problemIn("refill_rate", raw.refill.n, what, remedy)
			}
			p.Refill = rate
		}
	}
	p.Burst, l.BurstPercent = burst.v.Hits, burst.v.Percent
	if percent := l.BurstPercent; percent != 0 {
		var fits bool
		if p.Burst, fits = percent.Of(p.Limit); !fits {
			d.problemIn(key, burst.n, fmt.Sprintf("%v of %d is more than %d", percent, p.Limit, uint32(math.MaxUint32)), "write a smaller percentage")
		}
	}
}

// burst reads the value of a key: a number of hits above 0, or a percentage of the limit.
func (d *decoder) burst(n *yaml.Node, f *field[config.Burst]) {
	target := yamlfile.Resolve(n)
	number, isPercent := strings.CutSuffix(strings.TrimSpace(target.Value), "%")
	if target.Kind != yaml.ScalarNode || target.Tag != "!!str" || !isPercent {
		var hits field[uint32]
		d.number(n, &hits)
		*f = field[config.Burst]{v: config.Burst{Hits: hits.v}, n: hits.n, bad: hits.bad}
		if hits.present() && hits.v == 0 {
			d.problem(n, d.path[len(d.path)-1].key+" of 0 admits nothing", "write at least 1, or leave it out for the default")
		}
		return
	}
	percent, ok := config.ParsePercent(strings.TrimSpace(number))
	*f = field[config.Burst]{v: config.Burst{Percent: percent}, n: n, bad: !ok}
	if !ok {
		d.problem(n, fmt.Sprintf("%q is no percentage", yamlfile.Abridge(target.Value)), "write one such as 20% or 12.5%, with two decimals at most, from 0.01% to 10000%")
	}
}
