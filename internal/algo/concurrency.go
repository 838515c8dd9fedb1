package algo

// concurrency limits how many requests are in flight at once, each of which holds one
// hit, and nothing else: a request that has ended has used nothing. See [holding], which
// holds for the window.
//
// State: none.
type concurrency struct{ limit int64 }

var concurrencyKind = kind{
	name: "concurrency", tag: "cc", anyWindow: true, alwaysHolds: true, programs: []string{"concurrency"},
	maxLimit: MaxHeld, whyNoMore: "a concurrency of %d, where a counter lists each request that holds", try: "count_by, for several counters",
	new: func(p Params, _ bool) (stepper, error) { return concurrency{int64(p.Limit)}, nil },
}

func (concurrency) words() int                              { return 0 }
func (c concurrency) capacity() int64                       { return c.limit }
func (concurrency) settle(State, int64)                     {}
func (c concurrency) fits(_ State, _, n int64) bool         { return n <= c.limit }
func (concurrency) charge(s State, _, _ int64) State        { return s }
func (concurrency) refund(s State, _, _ int64) State        { return s }
func (c concurrency) left(State, int64) (left, reset int64) { return c.limit, 0 }
func (concurrency) expiry(State) int64                      { return 0 }
func (concurrency) program() string                         { return "concurrency" }
func (c concurrency) appendNumbers(dst []float64) []float64 { return append(dst, float64(c.limit)) }
func (c concurrency) wait(_ State, _, n int64) int64 {
	if n > c.limit {
		return never
	}
	return 0
}
