// Package client asks a rate-limit service for decisions, for programs that have no
// Envoy in front of them: workers, internal services, jobs.
//
// A [Client] is made once and shared; it is safe for concurrent use. Most callers want
// [Client.Allow], HTTP servers [NewMiddleware] and gRPC servers and clients
// [NewInterceptors]. Which limit applies, by which algorithm, is written in the rules of
// the service: callers name a domain and the entries of one descriptor.
//
// The service may be this one or any other that implements
// envoy.service.ratelimit.v3.RateLimitService.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// DefaultTimeout bounds a call where [Options] say nothing else.
const DefaultTimeout = 250 * time.Millisecond

// longestRetry is the longest time between two attempts to connect. gRPC's own is two
// minutes, for which a service that is back would not be asked.
const longestRetry = time.Second

// OnError is what a [Client] does when the service does not decide in time.
type OnError int

// The ways to go on without a decision.
const (
	Return OnError = iota // return the error
	Allow                 // allow, with the error in [Decision].Err
	Deny                  // refuse, with the error in [Decision].Err
)

// Options of a [Client]. The zero value is good for a service in the same network.
type Options struct {
	// TLS is the configuration of TLS, with a certificate of the client's for mutual TLS;
	// nil: none.
	TLS *tls.Config
	// Timeout bounds each call, in addition to the deadline of its context; 0:
	// [DefaultTimeout].
	Timeout time.Duration
	// OnError is what to do when the service does not decide.
	OnError OnError
	// Dial are more options of the connection, such as a load-balancing policy. HTTPS_PROXY
	// and service configurations from DNS are not for the service: a proxy takes a dialer here,
	// and a retry policy could charge a request twice.
	Dial []grpc.DialOption
}

// Client asks one rate-limit service.
type Client struct {
	connection *grpc.ClientConn
	service    pb.RateLimitServiceClient
	timeout    time.Duration
	onError    OnError
}

// Dial returns a client of the service at a gRPC target, such as "localhost:8081",
// "dns:///ratelimit:8081" or "unix:/run/ratelimit.sock". It connects with the first call,
// so that a service that is away does not keep a program from starting.
func Dial(target string, o Options) (*Client, error) {
	if target == "" {
		return nil, errors.New("client: the target is empty: name the service, such as localhost:8081")
	}
	if scheme, _, isURL := strings.Cut(target, "://"); isURL && (scheme == "http" || scheme == "https") {
		return nil, fmt.Errorf("client: target %q: gRPC takes no such URL: write host:port, with Options.TLS for TLS", target)
	}
	if o.Timeout < 0 {
		return nil, fmt.Errorf("client: Options.Timeout is %v: use a positive time, or 0 for %v", o.Timeout, DefaultTimeout)
	}
	if o.OnError < Return || o.OnError > Deny {
		return nil, fmt.Errorf("client: Options.OnError is %d: use Return, Allow or Deny", o.OnError)
	}
	security := insecure.NewCredentials()
	if o.TLS != nil {
		security = credentials.NewTLS(o.TLS)
	}
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = longestRetry/10, longestRetry
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: longestRetry}),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
	}, o.Dial...)
	connection, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("client: target %q: %w", target, err)
	}
	c := &Client{connection: connection, service: pb.NewRateLimitServiceClient(connection), timeout: o.Timeout, onError: o.OnError}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	return c, nil
}

// Close ends the connection. Calls under way fail.
func (c *Client) Close() error { return c.connection.Close() }

// Entry is one entry of a descriptor. Bytes of a value that are not UTF-8, which gRPC does
// not send, are replaced by U+FFFD: such values share a counter.
type Entry struct{ Key, Value string }

// Limit is a limit as the service reports it.
type Limit struct {
	Name     string        // of the rule; empty: it has none
	Requests uint32        // per Window
	Window   time.Duration // 0: the service named a unit that this package does not know
}

// Decision is what the service decided about one descriptor.
type Decision struct {
	Allowed bool
	// Limit is the one with the least room of those that apply; nil: none applies.
	Limit *Limit
	// Remaining is how many hits of Limit are left; [math.MaxUint32] without one.
	Remaining uint32
	// ResetAfter is when the counter of Limit is unused again, in whole seconds. It is 0 for
	// a refusal, of which the service says RetryAfter only.
	ResetAfter time.Duration
	// RetryAfter is when the same request would pass, in whole seconds; 0 if it passes.
	RetryAfter time.Duration
	// Header and Body are what the service wants added to the response, and said in the
	// response to a refused request, if its settings or the rule have any.
	Header http.Header
	Body   []byte
	// Err says why the service did not decide; see [Options].OnError. nil: it did.
	Err error
}

// Allow charges one hit to the counters of a descriptor and reports whether the request
// may go on.
func (c *Client) Allow(ctx context.Context, domain string, entries ...Entry) (Decision, error) {
	return c.ask(ctx, domain, entries, 1, false)
}

// AllowN is [Client.Allow] for a request that costs n hits, at most [math.MaxUint32]. 0 only
// looks.
func (c *Client) AllowN(ctx context.Context, domain string, n uint64, entries ...Entry) (Decision, error) {
	return c.ask(ctx, domain, entries, n, false)
}

// Peek charges nothing. What is left is in [Decision].Remaining: a look at a limit that
// counts refused hits is allowed until the limit is exceeded, as envoyproxy/ratelimit has it.
func (c *Client) Peek(ctx context.Context, domain string, entries ...Entry) (Decision, error) {
	return c.ask(ctx, domain, entries, 0, false)
}

// Refund gives n hits back, never beyond what was used.
func (c *Client) Refund(ctx context.Context, domain string, n uint64, entries ...Entry) (Decision, error) {
	return c.ask(ctx, domain, entries, n, true)
}

func (c *Client) ask(ctx context.Context, domain string, entries []Entry, hits uint64, back bool) (Decision, error) {
	if domain == "" {
		return Decision{}, errors.New("client: the domain is empty: name one that the service has rules for")
	}
	if hits > math.MaxUint32 {
		return Decision{}, fmt.Errorf("client: %d hits: use at most %d", hits, uint32(math.MaxUint32))
	}
	if len(entries) == 0 {
		return Decision{}, errors.New("client: no entries: a descriptor needs at least one, such as {user alice}")
	}
	d := &common.RateLimitDescriptor{HitsAddend: wrapperspb.UInt64(hits), IsNegativeHits: back}
	for i, e := range entries {
		switch {
		case e.Key == "":
			return Decision{}, fmt.Errorf("client: the key of entry %d, with value %q, is empty", i, e.Value)
		case !utf8.ValidString(e.Key):
			return Decision{}, fmt.Errorf("client: the key of entry %d, %q, is not UTF-8: name the key that the rule has", i, e.Key)
		}
		d.Entries = append(d.Entries, &common.RateLimitDescriptor_Entry{Key: e.Key, Value: strings.ToValidUTF8(e.Value, "\uFFFD")})
	}
	bound, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	response, err := c.service.ShouldRateLimit(bound, &pb.RateLimitRequest{Domain: domain, Descriptors: []*common.RateLimitDescriptor{d}})
	switch {
	case err == nil:
		return decision(response), nil
	case ctx.Err() != nil: // nobody waits for an answer
		return Decision{}, ctx.Err()
	}
	err = fmt.Errorf("client: the rate-limit service at %s: %w", c.connection.Target(), err)
	if c.onError == Return || status.Code(err) == codes.InvalidArgument { // which no time mends
		return Decision{}, err
	}
	return Decision{Allowed: c.onError == Allow, Remaining: math.MaxUint32, Err: err}, nil
}

// decision reads the answer to a request with one descriptor.
func decision(response *pb.RateLimitResponse) Decision {
	d := Decision{Allowed: response.GetOverallCode() != pb.RateLimitResponse_OVER_LIMIT, Remaining: math.MaxUint32, Body: response.GetRawBody()}
	for _, h := range response.GetResponseHeadersToAdd() {
		if d.Header == nil {
			d.Header = http.Header{}
		}
		d.Header.Add(h.GetKey(), h.GetValue())
	}
	if len(response.GetStatuses()) == 0 {
		return d
	}
	st := response.GetStatuses()[0]
	limit := st.GetCurrentLimit()
	if limit == nil {
		return d
	}
	d.Limit = &Limit{Name: limit.GetName(), Requests: limit.GetRequestsPerUnit(), Window: units[limit.GetUnit()]}
	if n := limit.GetUnitMultiplier(); n != nil {
		d.Limit.Window *= time.Duration(n.GetValue())
	}
	d.Remaining = st.GetLimitRemaining()
	after := st.GetDurationUntilReset().AsDuration()
	if d.Allowed {
		d.ResetAfter = after
	} else {
		d.RetryAfter = after
	}
	return d
}

const day = 24 * time.Hour

// units are as envoyproxy/ratelimit has them.
var units = map[pb.RateLimitResponse_RateLimit_Unit]time.Duration{
	pb.RateLimitResponse_RateLimit_SECOND: time.Second,
	pb.RateLimitResponse_RateLimit_MINUTE: time.Minute,
	pb.RateLimitResponse_RateLimit_HOUR:   time.Hour,
	pb.RateLimitResponse_RateLimit_DAY:    day,
	pb.RateLimitResponse_RateLimit_WEEK:   7 * day,
	pb.RateLimitResponse_RateLimit_MONTH:  30 * day,
	pb.RateLimitResponse_RateLimit_YEAR:   365 * day,
}
