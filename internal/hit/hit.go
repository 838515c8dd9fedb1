// Package hit sends real requests to a running service and shows its decisions.
package hit

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// Requests describes the requests to send.
type Requests struct {
	Domain      string
	Descriptors []descriptor.Entries // of each request
	Hits        int64                // of each descriptor; below 0 gives back
	Count       int
	Rate        float64 // per second; 0: as fast as they are answered
	Concurrency int
	Timeout     time.Duration // of one answer
	JSON        bool          // write answers as gRPC has them
}

// Result sums up the answers.
type Result struct {
	OverLimit int // requests
	// Unlimited are the descriptors to which, in all answers, neither a limit nor an
	// unlimited rule applied.
	Unlimited []descriptor.Entries
	// Refused are the descriptors that an answer refused, Used those of which nothing
	// was left after an answer that passed, and that none refused.
	Refused, Used []descriptor.Entries
}

// Send sends the requests on a connection. It writes a line for each descriptor of each
// answer, or, as JSON, one line for each answer. It stops at the first error, of gRPC or
// of out.
func (r *Requests) Send(conn grpc.ClientConnInterface, out io.Writer) (Result, error) {
	table := newDecisions(out, r.Descriptors)
	add := table.add
	if r.JSON {
		add = func(answer *rls.RateLimitResponse) error {
			table.tally(answer)
			return writeJSON(out, answer)
		}
	}
	start := time.Now()
	err := r.send(rls.NewRateLimitServiceClient(conn), add)
	if !r.JSON {
		err = cmp.Or(err, table.total(time.Since(start)))
	}
	result := Result{OverLimit: table.count[rls.RateLimitResponse_OVER_LIMIT]}
	for i, d := range r.Descriptors {
		switch {
		case !table.limited[i]:
			result.Unlimited = append(result.Unlimited, d)
		case table.refused[i]:
			result.Refused = append(result.Refused, d)
		case table.used[i]:
			result.Used = append(result.Used, d)
		}
	}
	return result, err
}

// send sends the requests and hands each answer to add as it arrives. One goroutine at a
// time calls add. It stops at the first error.
func (r *Requests) send(client rls.RateLimitServiceClient, add func(*rls.RateLimitResponse) error) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var (
		request = r.request()
		turns   = r.turns(ctx)
		mu      sync.Mutex
		workers sync.WaitGroup
	)
	for range min(r.Concurrency, r.Count) {
		workers.Go(func() {
			for range turns {
				answer, err := r.call(ctx, client, request)
				if err != nil {
					cancel(err) // the first error stays the cause
					return
				}
				mu.Lock()
				err = add(answer)
				mu.Unlock()
				if err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// turns returns a channel that yields one value for each request when it is time to
// send it.
func (r *Requests) turns(ctx context.Context) <-chan struct{} {
	turns := make(chan struct{})
	go func() {
		defer close(turns)
		var tick <-chan time.Time
		if r.Rate > 0 {
			ticker := time.NewTicker(time.Duration(float64(time.Second) / r.Rate))
			defer ticker.Stop()
			tick = ticker.C
		}
		for i := range r.Count {
			if tick != nil && i > 0 {
				select {
				case <-tick:
				case <-ctx.Done():
					return
				}
			}
			select {
			case turns <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return turns
}

func (r *Requests) call(ctx context.Context, client rls.RateLimitServiceClient, request *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	return client.ShouldRateLimit(ctx, request)
}

func (r *Requests) request() *rls.RateLimitRequest {
	request := &rls.RateLimitRequest{Domain: r.Domain}
	for _, e := range r.Descriptors {
		d := &common.RateLimitDescriptor{
			HitsAddend:     wrapperspb.UInt64(uint64(max(r.Hits, -r.Hits))),
			IsNegativeHits: r.Hits < 0,
		}
		for _, entry := range e {
			d.Entries = append(d.Entries, &common.RateLimitDescriptor_Entry{Key: entry.Key, Value: entry.Value})
		}
		request.Descriptors = append(request.Descriptors, d)
	}
	return request
}

// decisions prints answers as a table, line by line as they arrive.
type decisions struct {
	out         io.Writer
	descriptors []string // shown only when there are several
	width       int
	limited     []bool // whether a limit, or unlimited, applied to a descriptor
	refused     []bool // whether it was over limit
	used        []bool // whether nothing was left of it
	count       map[rls.RateLimitResponse_Code]int
	n           int
}

func newDecisions(out io.Writer, descriptors []descriptor.Entries) *decisions {
	t := &decisions{out: out, limited: make([]bool, len(descriptors)), refused: make([]bool, len(descriptors)), used: make([]bool, len(descriptors)), count: map[rls.RateLimitResponse_Code]int{}}
	if len(descriptors) > 1 {
		t.width = len("DESCRIPTOR")
		for _, d := range descriptors {
			t.descriptors = append(t.descriptors, d.String())
			t.width = max(t.width, len(d.String()))
		}
	}
	return t
}

// tally counts an answer.
func (t *decisions) tally(answer *rls.RateLimitResponse) {
	t.n++
	t.count[answer.OverallCode]++
	for i, s := range answer.Statuses {
		if limit, _, _ := describe(s); i < len(t.limited) && limit != "-" {
			t.limited[i] = true
			t.refused[i] = t.refused[i] || s.Code == rls.RateLimitResponse_OVER_LIMIT
			t.used[i] = t.used[i] || s.CurrentLimit != nil && s.LimitRemaining == 0
		}
	}
}

func (t *decisions) add(answer *rls.RateLimitResponse) error {
	var err error
	if t.n == 0 {
		err = t.line("#", "DESCRIPTOR", "CODE", "LIMIT", "REMAINING", "RESET")
	}
	t.tally(answer)
	for i, s := range answer.Statuses {
		name := ""
		if i < len(t.descriptors) {
			name = t.descriptors[i]
		}
		limit, remaining, reset := describe(s)
		err = cmp.Or(err, t.line(fmt.Sprint(t.n), name, s.Code.String(), limit, remaining, reset))
	}
	return err
}

// writeJSON writes an answer in one line, including fields that are 0.
func writeJSON(out io.Writer, answer *rls.RateLimitResponse) error {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(answer)
	if err != nil {
		return err
	}
	var line bytes.Buffer // protojson varies its spaces
	if err := json.Compact(&line, text); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err = line.WriteTo(out)
	return err
}

func (t *decisions) line(n, descriptor, code, limit, remaining, reset string) error {
	if t.width > 0 {
		descriptor = fmt.Sprintf("  %-*s", t.width, descriptor)
	} else {
		descriptor = ""
	}
	_, err := fmt.Fprintf(t.out, "%5s%s  %-10s  %-20s  %10s  %s\n", n, descriptor, code, limit, remaining, reset)
	return err
}

func (t *decisions) total(took time.Duration) error {
	if t.n == 0 {
		return nil
	}
	_, err := fmt.Fprintf(t.out, "%d answered in %v: %d OK, %d OVER_LIMIT\n", t.n, took.Round(time.Millisecond),
		t.count[rls.RateLimitResponse_OK], t.count[rls.RateLimitResponse_OVER_LIMIT])
	return err
}

// describe returns a status as table cells: "-" where no limit applies.
func describe(s *rls.RateLimitResponse_DescriptorStatus) (limit, remaining, reset string) {
	limit, remaining, reset = "-", "-", "-"
	if l := s.CurrentLimit; l != nil {
		per := "/" + strings.ToLower(l.Unit.String())
		if m := l.GetUnitMultiplier().GetValue(); m > 1 {
			per = fmt.Sprintf("/%d %ss", m, per[1:])
		}
		if l.Unit == rls.RateLimitResponse_RateLimit_UNKNOWN { // slots, or an odd window
			per = ""
		}
		limit = strings.TrimSpace(fmt.Sprintf("%s %d%s", l.Name, l.RequestsPerUnit, per))
		remaining = fmt.Sprint(s.LimitRemaining)
	} else if s.LimitRemaining == math.MaxUint32 {
		limit, remaining = "unlimited", "unlimited"
	}
	if d := s.DurationUntilReset; d != nil {
		reset = d.AsDuration().Round(time.Millisecond).String()
	}
	return limit, remaining, reset
}
