package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/distlimiter/ratelimit/internal/descriptor"
)

type hitCmd struct {
	Descriptors []entries `arg:"" sep:"none" name:"descriptor" help:"Descriptors of each request, such as user=alice,path=/x. Write \\, for a comma in a value."`

	Domain      string        `short:"d" required:"" placeholder:"NAME" help:"Domain of the rules."`
	Addr        string        `env:"GRPC_ADDR" default:"${grpcAddr}" help:"Where the service answers gRPC."`
	Requests    int           `short:"n" default:"1" help:"How many requests to send."`
	Hits        int64         `default:"1" help:"Hits of each request: 0 looks without charging, a negative number (--hits=-5) gives back."`
	Rate        float64       `placeholder:"PER-SECOND" help:"Requests per second; without, as fast as they are answered."`
	Concurrency int           `short:"c" default:"1" help:"Requests in flight at a time."`
	Timeout     time.Duration `default:"5s" help:"How long to wait for one answer."`

	TLS   clientTLS   `embed:"" envprefix:"GRPC_"`
	Admin adminClient `embed:"" prefix:"admin-"`
}

// errOverLimit ends the command with exitOver.
var errOverLimit = errors.New("over limit")

// Help describes the table that the command prints.
func (hitCmd) Help() string {
	return `It prints one line for each descriptor of each request: its code, the limit that decided, how many hits remain and after how long the counter resets. Of descriptors that no limit applies to it says why, as far as the admin address (--admin-addr) tells.

Exit codes: 0 all requests were OK, 4 one was OVER_LIMIT, 1 one was not answered.

Example: ratelimit hit --domain edge user=alice -n 20`
}

func (c *hitCmd) Validate() error {
	switch {
	case c.Requests < 1:
		return fmt.Errorf("--requests: %d requests: use at least 1", c.Requests)
	case c.Concurrency < 1:
		return fmt.Errorf("--concurrency: %d in flight: use at least 1", c.Concurrency)
	case c.Rate < 0 || c.Rate > float64(time.Second) || math.IsNaN(c.Rate):
		return fmt.Errorf("--rate: %v a second: use a number above 0, or none for as fast as possible", c.Rate)
	case c.Timeout <= 0:
		return fmt.Errorf("--timeout: %v: use a time above 0", c.Timeout)
	case c.Hits == math.MinInt64:
		return fmt.Errorf("--hits: %d is out of range", c.Hits)
	}
	return nil
}

func (c *hitCmd) Run(con console) error {
	transport := insecure.NewCredentials()
	if c.TLS.on() {
		secure, err := c.TLS.config()
		if err != nil {
			return err
		}
		transport = credentials.NewTLS(secure)
	}
	conn, err := grpc.NewClient(c.Addr, grpc.WithTransportCredentials(transport))
	if err != nil {
		return fmt.Errorf("--addr %s: %w: write host:port", c.Addr, err)
	}
	defer conn.Close()

	table := newDecisions(con.out, c.Descriptors)
	start := time.Now()
	err = c.send(rls.NewRateLimitServiceClient(conn), table.add)
	table.total(time.Since(start))
	if err != nil {
		return err
	}
	c.explain(con.err, table.limited)
	if table.count[rls.RateLimitResponse_OVER_LIMIT] > 0 {
		return errOverLimit
	}
	return nil
}

// explain says of the descriptors that nothing limits why, if the admin address knows.
func (c *hitCmd) explain(out io.Writer, limited []bool) {
	c.Admin.Timeout = min(c.Admin.Timeout, c.Timeout)
	for i, d := range c.Descriptors {
		if i >= len(limited) || limited[i] {
			continue
		}
		var why descriptor.Explanation
		body, err := json.Marshal(map[string]any{"domain": c.Domain, "entries": []descriptor.Entry(d)})
		if err == nil {
			err = c.Admin.do(http.MethodPost, "/admin/explain", nil, "application/json", body, &why)
		}
		switch {
		case err != nil:
			fmt.Fprintf(out, "%s: no limit applies; ratelimit explain, or the service's admin address (--admin-addr), says why\n", d)
		case why.Outcome != descriptor.Matched:
			fmt.Fprintf(out, "%s: no limit applies: %s\n", d, why.Reason)
		}
	}
}

// send sends the requests and hands each answer, as it comes, to add, which is
// called by one goroutine at a time. It stops at the first error.
func (c *hitCmd) send(client rls.RateLimitServiceClient, add func(*rls.RateLimitResponse)) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var (
		request = c.request()
		turns   = c.turns(ctx)
		mu      sync.Mutex
		workers sync.WaitGroup
	)
	for range min(c.Concurrency, c.Requests) {
		workers.Go(func() {
			for range turns {
				answer, err := c.call(ctx, client, request)
				if err != nil {
					cancel(err) // the first error stays the cause
					return
				}
				mu.Lock()
				add(answer)
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// turns yields one value for each request, when it is time to send it.
func (c *hitCmd) turns(ctx context.Context) <-chan struct{} {
	turns := make(chan struct{})
	go func() {
		defer close(turns)
		var tick <-chan time.Time
		if c.Rate > 0 {
			ticker := time.NewTicker(time.Duration(float64(time.Second) / c.Rate))
			defer ticker.Stop()
			tick = ticker.C
		}
		for i := range c.Requests {
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

func (c *hitCmd) call(ctx context.Context, client rls.RateLimitServiceClient, request *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	answer, err := client.ShouldRateLimit(ctx, request)
	switch s := status.Convert(err); {
	case err == nil:
		return answer, nil
	case s.Code() == codes.Unavailable && c.TLS.on() && strings.Contains(s.Message(), "tls: "):
		return nil, fmt.Errorf("%s and this client do not trust each other: see --ca and --server-name, --cert and --key (%s)", c.Addr, s.Message())
	case s.Code() == codes.Unavailable && c.TLS.on() && c.TLS.Cert == "" && !strings.HasPrefix(s.Message(), "connection error"):
		// In TLS 1.3 who is refused for want of a certificate has begun to write, and may
		// find the connection closed before it reads why.
		return nil, fmt.Errorf("%s closed the connection: does it want a certificate (--cert, --key)? (%s)", c.Addr, s.Message())
	case s.Code() == codes.Unavailable && !c.TLS.on() && strings.Contains(s.Message(), "server preface"):
		return nil, fmt.Errorf("%s does not answer plain gRPC: does it want TLS (--tls, --ca)? (%s)", c.Addr, s.Message())
	case s.Code() == codes.Unavailable && strings.HasPrefix(s.Message(), "connection error"):
		return nil, fmt.Errorf("cannot reach %s: is `ratelimit serve` running, and is this its --grpc-addr? (%s)", c.Addr, s.Message())
	case s.Code() == codes.DeadlineExceeded:
		return nil, fmt.Errorf("no answer from %s within %v: raise --timeout, or look at the service's log", c.Addr, c.Timeout)
	default:
		return nil, fmt.Errorf("%s answered %s: %s", c.Addr, s.Code(), s.Message())
	}
}

func (c *hitCmd) request() *rls.RateLimitRequest {
	request := &rls.RateLimitRequest{Domain: c.Domain}
	for _, e := range c.Descriptors {
		d := &common.RateLimitDescriptor{
			HitsAddend:     wrapperspb.UInt64(uint64(max(c.Hits, -c.Hits))),
			IsNegativeHits: c.Hits < 0,
		}
		for _, entry := range e {
			d.Entries = append(d.Entries, &common.RateLimitDescriptor_Entry{Key: entry.Key, Value: entry.Value})
		}
		request.Descriptors = append(request.Descriptors, d)
	}
	return request
}

// decisions prints answers as a table, line by line as they come.
type decisions struct {
	out         io.Writer
	descriptors []string // shown only when there are several
	width       int
	limited     []bool // whether a limit, or unlimited, applied to a descriptor
	count       map[rls.RateLimitResponse_Code]int
	n           int
}

func newDecisions(out io.Writer, descriptors []entries) *decisions {
	t := &decisions{out: out, limited: make([]bool, len(descriptors)), count: map[rls.RateLimitResponse_Code]int{}}
	if len(descriptors) > 1 {
		t.width = len("DESCRIPTOR")
		for _, d := range descriptors {
			t.descriptors = append(t.descriptors, d.String())
			t.width = max(t.width, len(d.String()))
		}
	}
	return t
}

func (t *decisions) add(answer *rls.RateLimitResponse) {
	if t.n == 0 {
		t.line("#", "DESCRIPTOR", "CODE", "LIMIT", "REMAINING", "RESET")
	}
	t.n++
	t.count[answer.OverallCode]++
	for i, s := range answer.Statuses {
		name := ""
		if i < len(t.descriptors) {
			name = t.descriptors[i]
		}
		limit, remaining, reset := describe(s)
		if i < len(t.limited) && limit != "-" {
			t.limited[i] = true
		}
		t.line(fmt.Sprint(t.n), name, s.Code.String(), limit, remaining, reset)
	}
}

func (t *decisions) line(n, descriptor, code, limit, remaining, reset string) {
	if t.width > 0 {
		descriptor = fmt.Sprintf("  %-*s", t.width, descriptor)
	} else {
		descriptor = ""
	}
	fmt.Fprintf(t.out, "%5s%s  %-10s  %-20s  %10s  %s\n", n, descriptor, code, limit, remaining, reset)
}

func (t *decisions) total(took time.Duration) {
	if t.n == 0 {
		return
	}
	fmt.Fprintf(t.out, "%d answered in %v: %d OK, %d OVER_LIMIT\n", t.n, took.Round(time.Millisecond),
		t.count[rls.RateLimitResponse_OK], t.count[rls.RateLimitResponse_OVER_LIMIT])
}

// describe returns a status as table cells: "-" where no limit applies.
func describe(s *rls.RateLimitResponse_DescriptorStatus) (limit, remaining, reset string) {
	limit, remaining, reset = "-", "-", "-"
	if l := s.CurrentLimit; l != nil {
		unit := strings.ToLower(l.Unit.String())
		if m := l.GetUnitMultiplier().GetValue(); m > 1 {
			unit = fmt.Sprintf("%d %ss", m, unit)
		}
		if l.Unit == rls.RateLimitResponse_RateLimit_UNKNOWN {
			unit = "window"
		}
		limit = strings.TrimSpace(fmt.Sprintf("%s %d/%s", l.Name, l.RequestsPerUnit, unit))
		remaining = fmt.Sprint(s.LimitRemaining)
	} else if s.LimitRemaining == math.MaxUint32 {
		limit, remaining = "unlimited", "unlimited"
	}
	if d := s.DurationUntilReset; d != nil {
		reset = d.AsDuration().Round(time.Millisecond).String()
	}
	return limit, remaining, reset
}
