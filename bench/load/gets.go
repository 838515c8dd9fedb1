package load

import (
	"fmt"
	"math/rand/v2"

	"golang.org/x/net/http2/hpack"
)

// Header is the header that [Gets] name the client in.
const Header = "x-user"

// Gets are HTTP requests of clients out of a number of them, without a body.
type Gets struct {
	clients int
	random  *rand.Rand
	field   []byte // the client's header as HPACK has it
}

// NewGets returns requests of clients drawn from so many of them, evenly.
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
