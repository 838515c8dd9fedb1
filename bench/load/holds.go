package load

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/proto"
)

// The entries of calls for requests that hold, beside the client's under the first of
// [DescriptorKeys]: which request it is, and that it has ended.
const (
	HoldKey       = "request_id"
	SettlingKey   = "phase"
	SettlingValue = "done"
)

// heldAtOnce is how many requests hold at a time: more than are in flight, so that none
// settles before it has asked.
const heldAtOnce = 1024

// Holds are the calls of requests that hold: each asks, and settles when [heldAtOnce] later
// ones have asked. So every other call settles.
type Holds struct {
	*Calls
	settling Calls
	asked    [heldAtOnce]held
	requests int
	settles  bool
}

// held is a request that has asked: its number and its client.
type held struct{ request, client int }

// NewHolds returns calls to a domain. Each request is of a client that is drawn evenly.
func NewHolds(domain string, clients int, seed uint64) (*Holds, error) {
	if clients < 1 || clients > maxClients {
		return nil, fmt.Errorf("%d clients: use 1 to %d", clients, maxClients)
	}
	h := &Holds{Calls: &Calls{clients: clients, random: rand.New(rand.NewPCG(seed, 1)), timeout: longTimeout}}
	for _, c := range []struct {
		calls   *Calls
		entries []*common.RateLimitDescriptor_Entry
	}{
		{h.Calls, nil},
		{&h.settling, []*common.RateLimitDescriptor_Entry{{Key: SettlingKey, Value: SettlingValue}}},
	} {
		// The entries with numbers come last, so that their places are known.
		entries := slices.Concat(c.entries, []*common.RateLimitDescriptor_Entry{{Key: DescriptorKeys[0], Value: value}, {Key: HoldKey, Value: value}})
		message, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.RateLimitRequest{
			Domain: domain, Descriptors: []*common.RateLimitDescriptor{{Entries: entries}},
		})
		if err != nil {
			return nil, err
		}
		c.calls.body = append(make([]byte, 5), message...)
		binary.BigEndian.PutUint32(c.calls.body[1:], uint32(len(message)))
		end := len(c.calls.body)
		last := proto.Size(entries[len(entries)-1]) + 2 // with its tag and length
		c.calls.places = []int{end - last - digits, end - digits}
	}
	return h, nil
}

// Append implements [Workload].
func (h *Holds) Append(block, body []byte) ([]byte, []byte) {
	c, of := h.Calls, &h.asked[h.requests%heldAtOnce]
	if h.settles = h.settles != (h.requests >= heldAtOnce); h.settles {
		c = &h.settling
	} else {
		*of = held{h.requests % maxClients, h.random.IntN(h.clients)}
		h.requests++
	}
	putDigits(c.body[c.places[0]:c.places[0]+digits], of.client)
	putDigits(c.body[c.places[1]:c.places[1]+digits], of.request)
	return block, append(body, c.body...)
}
