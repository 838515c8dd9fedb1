package load

import (
	"fmt"
	"math/rand/v2"

	"golang.org/x/net/http2/hpack"
)

// Header is the header in which [Gets] name the client.
const Header = "x-user"

// Gets are HTTP requests without a body, from a number of clients.
type Gets struct {
	clients int
	random  *rand.Rand
	field   []byte // the client's header as HPACK has it
}

// NewGets returns requests of clients drawn evenly from that number of them.
func NewGets(clients int, seed uint64) (*Gets, error) {
	if clients < 1 || clients > maxClients {
		return nil, fmt.Errorf("%d clients: use 1 to %d", clients, maxClients)
	}
	g := &Gets{clients: clients, random: rand.New(rand.NewPCG(seed, 1))}
	// A literal that no table keeps (RFC 7541, 6.2.2), its lengths below 127.
	g.field = append(g.field, 0, byte(len(Header)))
	g.field = append(g.field, Header...)
	g.field = append(g.field, byte(len(value)))
	g.field = append(g.field, value...)
	return g, nil
}

// Headers implements [Workload].
func (*Gets) Headers() []hpack.HeaderField {
	return []hpack.HeaderField{
		{Name: ":method", Value: "GET"},
		{Name: ":path", Value: "/"},
		{Name: ":authority", Value: "localhost"},
		{Name: ":scheme", Value: "http"},
	}
}

// Append implements [Workload].
func (g *Gets) Append(block, body []byte) ([]byte, []byte) {
	putDigits(g.field[len(g.field)-digits:], g.random.IntN(g.clients))
	return append(block, g.field...), body
}
