package algo_test

import (
	"math"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// holder is one counter under a limit that holds.
type holder struct {
	t     tester
	limit *algo.Limit
	state algo.State
	now   int64
}

func newHolder(t tester, p algo.Params) *holder {
	return &holder{t: t, limit: mustLimit(t, p), now: epoch}
}

func (h *holder) step(hits int64, hold algo.Hold) algo.Decision {
	state, d := h.limit.For(hold).Step(h.state, h.now, hits)
	h.state = state
	return d
}

func (h *holder) ask(request uint64, hits int64) algo.Decision {
	return h.step(hits, algo.Hold{ID: request})
}

func (h *holder) settle(request uint64, hits int64) algo.Decision {
	return h.step(hits, algo.Hold{ID: request, Settles: true})
}

// mustBe checks what is left, and how many requests hold.
func (h *holder) mustBe(left int64, held uint16) {
	h.t.Helper()
	if d := h.ask(0, 0); d.Remaining != left || d.Held != held {
		h.t.Errorf("%d left and %d requests that hold, want %d and %d", d.Remaining, d.Held, left, held)
	}
}

func concurrent(limit uint32) algo.Params {
	return algo.Params{Algorithm: algo.Concurrency, Limit: limit, Window: time.Minute}
}

func reserving(a algo.Algorithm, limit uint32) algo.Params {
	return algo.Params{Algorithm: a, Limit: limit, Window: time.Hour, Hold: time.Minute}
}

var reservingAlgorithms = []algo.Algorithm{algo.FixedWindow, algo.SlidingWindow, algo.TokenBucket, algo.Hybrid}

func TestConcurrencyHoldsUntilTheRequestEnds(t *testing.T) {
	h := newHolder(t, concurrent(2))
	if !h.ask(1, 1).Allowed || !h.ask(2, 1).Allowed {
		t.Fatal("two of two are refused")
	}
	if d := h.ask(3, 1); d.Allowed || d.Remaining != 0 || d.Held != 2 || d.RetryAfter != time.Second || d.ResetAfter != time.Minute {
		t.Errorf("a third: %s", show(d))
	}
	if d := h.settle(1, 1); !d.Allowed || !d.Settled || d.Remaining != 1 {
		t.Errorf("the end of the first: %s", show(d))
	}
	if !h.ask(3, 1).Allowed {
		t.Error("the third is refused when the first has ended")
	}
}

// Envoy settles requests that were refused, too.
// A request is in flight once, whatever it costs elsewhere: asked with any hits, given back
// with any.
func TestARequestInFlightTakesOneSlot(t *testing.T) {
	h := newHolder(t, concurrent(2))
	if !h.ask(1, 1<<40).Allowed || !h.ask(2, 7).Allowed {
		t.Fatal("two of two are refused")
	}
	h.mustBe(0, 2)
	if d := h.ask(3, 1<<40); d.Allowed || d.RetryAfter != algo.HoldRetry {
		t.Errorf("a third: %s", show(d))
	}
	h.ask(1, -5)
	h.mustBe(1, 1)
	h.settle(2, 5)
	h.mustBe(2, 0)
}

// What ends under a limit of 0 has not exceeded it where it used nothing, and nobody is
// told to wait for a century.
func TestASettlementOfNothingIsWithinALimitOf0(t *testing.T) {
	for _, p := range []algo.Params{concurrent(0), reserving(algo.FixedWindow, 0), reserving(algo.SlidingWindow, 0), reserving(algo.TokenBucket, 0), reserving(algo.Hybrid, 0)} {
		if d := newHolder(t, p).settle(1, 0); !d.Allowed || d.RetryAfter != 0 {
			t.Errorf("%v: %s", p.Algorithm, show(d))
		}
	}
}

func TestASettlementOfARefusedRequestFreesNobodysSlot(t *testing.T) {
	h := newHolder(t, concurrent(2))
	h.ask(1, 1)
	h.ask(2, 1)
	h.ask(3, 1)
	if d := h.settle(3, 1); d.Settled || d.Remaining != 0 || d.Held != 2 {
		t.Errorf("the end of the refused one: %s, %d hold", show(d), d.Held)
	}
	for _, hits := range []int64{0, 1, -5} {
		h.settle(3, hits)
		h.settle(0, hits)
	}
	h.mustBe(0, 2)
	h.settle(1, 1)
	h.settle(1, 1) // twice
	h.mustBe(1, 1)
}

func TestTheSameRequestAskingTwiceHoldsOnce(t *testing.T) {
	for _, p := range []algo.Params{concurrent(10), reserving(algo.FixedWindow, 10), reserving(algo.TokenBucket, 10)} {
		h := newHolder(t, p)
		h.ask(1, 4)
		left := 10 - h.limit.Cost(6)
		if d := h.ask(1, 6); !d.Allowed || d.Remaining != left || d.Held != 1 {
			t.Errorf("%v: the second estimate: %s", p.Algorithm, show(d))
		}
		if d := h.ask(1, 11); !p.Algorithm.AlwaysHolds() && (d.Allowed || d.Remaining != left || d.RetryAfter != algo.Never) {
			t.Errorf("%v: one that never fits: %s", p.Algorithm, show(d))
		}
		h.settle(1, 0)
		h.mustBe(10, 0)
	}
}

func TestAReservationIsSettledAtItsCost(t *testing.T) {
	for _, a := range reservingAlgorithms {
		h := newHolder(t, reserving(a, 100))
		h.ask(1, 60)
		h.mustBe(40, 1)
		if d := h.ask(2, 50); d.Allowed || d.RetryAfter != time.Second {
			t.Errorf("%v: beside what is held: %s", a, show(d))
		}
		if d := h.settle(1, 10); !d.Allowed || !d.Settled || d.Remaining != 90 {
			t.Errorf("%v: settled: %s", a, show(d))
		}
		if d := h.settle(2, 5); d.Settled || d.Remaining != 85 {
			t.Errorf("%v: a settlement without a hold charges: %s", a, show(d))
		}
		h.ask(3, 85)
		if d := h.settle(3, 120); d.Allowed || !d.Settled || d.Remaining != -35 || d.RetryAfter == 0 {
			t.Errorf("%v: more than there was room for: %s", a, show(d))
		}
		if d := h.ask(4, 1); d.Allowed {
			t.Errorf("%v: passes in debt: %s", a, show(d))
		}
	}
}

func TestASettlementChargesTheWindowInWhichItComes(t *testing.T) {
	h := newHolder(t, reserving(algo.FixedWindow, 100))
	h.now += time.Hour.Microseconds() - 1
	h.ask(1, 60)
	h.now += 2 // the next window, in which it still takes up room
	h.mustBe(40, 1)
	h.settle(1, 70)
	h.mustBe(30, 0)
}

func TestAHoldExpires(t *testing.T) {
	for _, p := range []algo.Params{concurrent(10), reserving(algo.FixedWindow, 10), reserving(algo.Hybrid, 10)} {
		h := newHolder(t, p)
		h.ask(1, 3)
		h.now += 30e6
		h.ask(2, 4)
		h.now += 30e6 - 1
		h.mustBe(10-h.limit.Cost(3)-h.limit.Cost(4), 2)
		h.now++
		if d := h.ask(3, 1); d.Remaining != 10-h.limit.Cost(4)-1 || d.Held != 2 || d.Expired != 1 {
			t.Errorf("%v: after a minute: %s, %d hold, %d have expired", p.Algorithm, show(d), d.Held, d.Expired)
		}
		if d := h.settle(1, 1); d.Settled {
			t.Errorf("%v: what has expired was settled", p.Algorithm)
		}
		h.now += 61e6
		if d := h.ask(4, 1); d.Held != 1 || d.Expired != 2 {
			t.Errorf("%v: after all: %d hold, %d have expired", p.Algorithm, d.Held, d.Expired)
		}
	}
}

func TestHoldsSurviveALoweredLimit(t *testing.T) {
	h := newHolder(t, concurrent(10))
	for i := range uint64(8) {
		h.ask(i+1, 1)
	}
	h.limit = mustLimit(t, concurrent(3))
	if d := h.settle(1, 1); d.Allowed || !d.Settled || d.Remaining != -4 {
		t.Errorf("one of eight under a limit of three ends: %s", show(d))
	}
	for i := range uint64(5) {
		h.settle(i+2, 1)
	}
	h.mustBe(1, 2)
}

func TestAShorterExpiryCutsWhatIsHeld(t *testing.T) {
	h := newHolder(t, concurrent(10))
	h.ask(1, 1)
	shorter := concurrent(10)
	shorter.Window = time.Second
	h.limit = mustLimit(t, shorter)
	h.ask(2, 1)
	h.now += 1e6
	h.mustBe(10, 0)
}

func TestHoldsAreBoundedInNumber(t *testing.T) {
	p := reserving(algo.TokenBucket, 1_000_000)
	h := newHolder(t, p)
	for i := range uint64(algo.MaxHeld) {
		if d := h.ask(i+1, 1); !d.Allowed {
			t.Fatalf("request %d: %s", i, show(d))
		}
	}
	if d := h.ask(5000, 1); d.Allowed || d.Remaining != 0 || d.Held != algo.MaxHeld || d.RetryAfter != time.Second {
		t.Errorf("one more: %s", show(d))
	}
	if d := h.ask(7, 2); !d.Allowed {
		t.Errorf("one that holds already: %s", show(d))
	}
	if words := len(h.state); words > 2*3*algo.MaxHeld {
		t.Errorf("a state of %d words", words)
	}
}

func TestNegativeHitsOnlyGiveBack(t *testing.T) {
	h := newHolder(t, reserving(algo.FixedWindow, 100))
	h.settle(9, 30)
	h.ask(1, 20)
	h.ask(2, 10)
	if d := h.ask(1, -5); d.Remaining != 45 || d.Held != 2 {
		t.Errorf("of what it holds: %s", show(d))
	}
	if d := h.ask(1, -25); d.Remaining != 70 || d.Held != 1 {
		t.Errorf("of what it holds, and of what is used: %s", show(d))
	}
	if d := h.settle(2, -50); d.Remaining != 80 || d.Held != 0 {
		t.Errorf("a settlement: %s", show(d))
	}
}

// A clock that steps back gives nothing back, and has nothing held for longer than the
// rule says from then on.
func TestHoldsWhenTheClockStepsBack(t *testing.T) {
	for _, p := range []algo.Params{concurrent(10), reserving(algo.FixedWindow, 10), reserving(algo.TokenBucket, 10)} {
		h := newHolder(t, p)
		h.ask(1, 3)
		h.now -= 3600e6
		left := 10 - h.limit.Cost(3) - h.limit.Cost(4)
		if d := h.ask(2, 4); d.Remaining != left || d.Held != 2 {
			t.Errorf("%v: an hour back: %s, %d hold", p.Algorithm, show(d), d.Held)
		}
		h.now += 60e6
		h.mustBe(10, 0)
	}
}

// What has expired is counted once, also if the clock steps back and comes to the same
// moment again.
func TestWhatHasExpiredIsCountedOnce(t *testing.T) {
	h := newHolder(t, concurrent(10))
	h.ask(1, 1)
	h.now += 60e6
	if d := h.ask(2, 1); d.Expired != 1 {
		t.Fatalf("%d have expired", d.Expired)
	}
	h.now -= 3600e6
	h.ask(3, 1)
	h.now += 3600e6
	if d := h.ask(4, 1); d.Expired != 0 {
		t.Errorf("%d have expired at the same moment once more", d.Expired)
	}

	h.now += 60e6
	if d := h.ask(5, 1); d.Expired != 1 {
		t.Fatalf("%d have expired", d.Expired)
	}
	h.now++
	h.ask(6, 1)
	h.now--
	if d := h.ask(7, 1); d.Expired != 0 {
		t.Errorf("%d have expired once more, after a later call", d.Expired)
	}
}

// Requests that ask, settle, and settle what is not theirs, in any order and at any time,
// never hold more than the limit.
func TestNobodyHoldsMoreThanTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := concurrent(rapid.Uint32Range(1, 12).Draw(t, "limit"))
		h := newHolder(t, p)
		running := map[uint64]int64{} // until when
		for range rapid.IntRange(1, 100).Draw(t, "calls") {
			h.now += rapid.SampledFrom([]int64{0, 0, 0, 1, 59e6, 60e6}).Draw(t, "wait")
			id := rapid.Uint64Range(0, 15).Draw(t, "request")
			hits := rapid.Int64Range(1, 3).Draw(t, "hits")
			if rapid.Bool().Draw(t, "settles") {
				h.settle(id, hits)
				delete(running, id)
			} else if h.ask(id, hits).Allowed && id != 0 {
				running[id] = h.now + 60e6
			}
			sum := int64(0)
			for _, until := range running {
				if until > h.now {
					sum++
				}
			}
			if sum > int64(p.Limit) {
				t.Fatalf("%d are held, of %d", sum, p.Limit)
			}
		}
	})
}

// What is used drains and fades as without holds, when the window's layout changes.
func TestHoldsSurviveAStrictWindow(t *testing.T) {
	p := reserving(algo.SlidingWindow, 100)
	h := newHolder(t, p)
	h.settle(9, 30)
	h.ask(1, 20)
	p.Strict = true
	h.limit = mustLimit(t, p)
	h.mustBe(50, 1)
	h.settle(1, 5)
	p.Strict = false
	h.limit = mustLimit(t, p)
	h.mustBe(65, 0)
}

// TestHoldsAreTheModel draws calls of a few requests, and compares with a list of what
// each holds beside the model of what is used.
func TestHoldsAreTheModel(t *testing.T) {
	for _, a := range append([]algo.Algorithm{algo.Concurrency}, reservingAlgorithms...) {
		t.Run(a.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				p := reserving(a, rapid.Uint32Range(1, 30).Draw(t, "limit"))
				expires := p.Hold
				if a.AlwaysHolds() {
					p.Hold, p.Window = 0, expires
				}
				type hold struct{ until, hits int64 }
				holds := map[uint64]hold{}
				used := p
				used.Hold, used.DeniedHits = 0, algo.Count // a settlement may lead into debt
				var m model
				if !a.AlwaysHolds() {
					m = newModel(used)
				}
				h := newHolder(t, p)
				for range rapid.IntRange(1, 60).Draw(t, "calls") {
					h.now += rapid.SampledFrom([]int64{0, 0, 1, 1e6, 20e6, 60e6, 600e6}).Draw(t, "wait")
					room := func() *big.Rat {
						left := rat(int64(p.Limit))
						if m != nil {
							left = m.room()
						}
						for _, x := range holds {
							left = new(big.Rat).Sub(left, rat(x.hits))
						}
						return left
					}
					for id, x := range holds {
						if x.until <= h.now {
							delete(holds, id)
						}
					}
					if m != nil {
						m.settle(h.now)
					}
					id := rapid.Uint64Range(1, 6).Draw(t, "request")
					hits := rapid.Int64Range(0, int64(p.Limit)+2).Draw(t, "hits")
					settles := rapid.Bool().Draw(t, "settles")
					cost := hits
					if a.AlwaysHolds() { // a request is in flight once
						cost = min(hits, 1)
					}
					own, holding := holds[id]
					before := room()
					allowed := rat(max(cost, 1)).Cmp(new(big.Rat).Add(before, rat(own.hits))) <= 0
					switch {
					case settles:
						delete(holds, id)
						if hits > 0 && m != nil {
							m.charge(hits)
						}
						allowed = room().Sign() >= 0
					case hits > 0 && allowed:
						holds[id] = hold{h.now + expires.Microseconds(), cost}
					}
					d := h.step(hits, algo.Hold{ID: id, Settles: settles})
					if d.Allowed != allowed || d.Remaining != floor(room()) || int(d.Held) != len(holds) || d.Settled != (settles && holding) {
						t.Fatalf("%d hits of request %d, settles %t: %s, %d hold, settled %t; want allowed %t, %d left, %d, settled %t",
							hits, id, settles, show(d), d.Held, d.Settled, allowed, floor(room()), len(holds), settles && holding)
					}
				}
			})
		})
	}
}

func TestNoSumOfHitsOverflows(t *testing.T) {
	for _, a := range reservingAlgorithms {
		h := newHolder(t, reserving(a, 10))
		h.ask(1, 1)
		if d := h.ask(2, math.MaxInt64); d.Allowed || d.RetryAfter != algo.Never {
			t.Errorf("%v: %s", a, show(d))
		}
	}
}

// A request that is refused because as many hold as a counter keeps finds nothing left,
// and so drains nothing.
func TestNothingIsDrainedWhenTooManyHold(t *testing.T) {
	p := reserving(algo.FixedWindow, 3*algo.MaxHeld)
	p.DeniedHits = algo.Drain
	h := newHolder(t, p)
	for id := range uint64(algo.MaxHeld) {
		h.ask(id+1, 1)
	}
	if d := h.ask(algo.MaxHeld+1, 1); d.Allowed || d.Remaining != 0 {
		t.Fatalf("one more: %s", show(d))
	}
	h.settle(1, 0)
	h.mustBe(2*algo.MaxHeld+1, algo.MaxHeld-1)
}

// A state is kept until those that have held for too long have been found and counted, or
// need not be any more.
func TestAStateIsKeptUntilWhatHasExpiredIsCounted(t *testing.T) {
	h := newHolder(t, concurrent(2))
	h.ask(1, 1)
	if at := h.limit.Expiry(h.state); at != epoch+2*minute {
		t.Errorf("a hold until %d is kept until %d", epoch+minute, at)
	}
	h.now += minute
	if d := h.ask(2, -1); d.Expired != 1 {
		t.Fatalf("%d expired", d.Expired)
	}
	if at := h.limit.Expiry(h.state); at != h.now+1 {
		t.Errorf("what was found at %d is kept until %d", h.now, at)
	}
}

const minute = int64(time.Minute / time.Microsecond)
