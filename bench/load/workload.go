package load

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// A Workload makes the content of requests.
type Workload interface {
	// Headers of all requests, in order. Sensitive ones are sent anew each time,
	// the others become indices of HPACK's table after the first request.
	Headers() []hpack.HeaderField
	// Append appends the rest of the next request: fields to its header block, and its
	// body. Without a body the request ends with its headers.
	Append(block, body []byte) (newBlock, newBody []byte)
}

// DescriptorKeys are the keys of the descriptors of [Calls], in order.
var DescriptorKeys = [...]string{"user", "path", "host", "team", "plan", "zone", "role", "tier"}

// value is the value of all descriptors, except for the number of the client in its last
// digits. With its key a descriptor has 24 bytes.
const value = "client-0000000000000"

// longTimeout is more than Envoy's default of 20 ms, which is not always met at
// saturation.
const longTimeout = 10 * time.Second

const (
	digits     = 8
	maxClients = 100_000_000
)

// Calls are ShouldRateLimit calls as Envoy 1.40 sends them, for a number of clients.
type Calls struct {
	clients    int
	sequential bool
	next       int
	random     *rand.Rand
	body       []byte // length prefix and message
	places     []int  // where the clients' digits begin in it
	timeout    time.Duration
}

// NewCalls returns calls to a domain with a number of descriptors, each of a client drawn
// evenly from a number of clients. Sequential calls instead visit all clients in turn, each
// with its own descriptor of the first key.
func NewCalls(domain string, descriptors, clients int, sequential bool, seed uint64) (*Calls, error) {
	if !sequential && descriptors > len(DescriptorKeys) || descriptors < 1 {
		return nil, fmt.Errorf("%d descriptors: use 1 to %d", descriptors, len(DescriptorKeys))
	}
	if clients < 1 || clients > maxClients {
		return nil, fmt.Errorf("%d clients: use 1 to %d", clients, maxClients)
	}
	c := &Calls{clients: clients, sequential: sequential, random: rand.New(rand.NewPCG(seed, 1)), timeout: longTimeout}
	// Encode piece by piece to know the place of each value.
	c.body = make([]byte, 5)
	add := func(m *pb.RateLimitRequest) error {
		var err error
		c.body, err = proto.MarshalOptions{Deterministic: true}.MarshalAppend(c.body, m)
		return err
	}
	if err := add(&pb.RateLimitRequest{Domain: domain}); err != nil {
		return nil, err
	}
	for i := range descriptors {
		key := DescriptorKeys[0]
		if !sequential {
			key = DescriptorKeys[i]
		}
		entry := &common.RateLimitDescriptor_Entry{Key: key, Value: value}
		d := &common.RateLimitDescriptor{Entries: []*common.RateLimitDescriptor_Entry{entry}}
		if err := add(&pb.RateLimitRequest{Descriptors: []*common.RateLimitDescriptor{d}}); err != nil {
			return nil, err
		}
		c.places = append(c.places, len(c.body)-digits) // the value ends the message
	}
	if len(c.body) > maxFrame {
		return nil, fmt.Errorf("a request of %d bytes does not fit one frame of %d", len(c.body), maxFrame)
	}
	binary.BigEndian.PutUint32(c.body[1:], uint32(len(c.body)-5))
	return c, nil
}

// SetTimeout sets the timeout that the calls declare.
func (c *Calls) SetTimeout(d time.Duration) { c.timeout = d }

// Headers implements [Workload].
func (c *Calls) Headers() []hpack.HeaderField {
	timeout := strconv.FormatInt(c.timeout.Milliseconds(), 10)
	return []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":path", Value: pb.RateLimitService_ShouldRateLimit_FullMethodName, Sensitive: true},
		{Name: ":authority", Value: "ratelimit"},
		{Name: ":scheme", Value: "http"},
		{Name: "te", Value: "trailers"},
		{Name: "grpc-timeout", Value: timeout + "m"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "x-envoy-internal", Value: "true"},
		{Name: "x-forwarded-for", Value: "192.0.2.2"},
		{Name: "x-envoy-expected-rq-timeout-ms", Value: timeout},
	}
}

// Append implements [Workload].
func (c *Calls) Append(block, body []byte) ([]byte, []byte) {
	for _, at := range c.places {
		client := c.next
		if c.sequential {
			c.next = (c.next + 1) % c.clients
		} else {
			client = c.random.IntN(c.clients)
		}
		putDigits(c.body[at:at+digits], client)
	}
	return block, append(body, c.body...)
}

func putDigits(to []byte, n int) {
	for i := len(to) - 1; i >= 0; i-- {
		to[i] = '0' + byte(n%10)
		n /= 10
	}
}
