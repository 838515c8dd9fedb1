package redis

import (
	"context"
	"crypto/tls"
	"net"
)

// dialer makes connections. The library dials when a call needs one, within the
// time that the call has left, and again for a trial, which has the time that a
// handshake may need.
type dialer struct {
	network string
}

func (d *dialer) dial(ctx context.Context, addr string, nd *net.Dialer, config *tls.Config) (net.Conn, error) {
	if config == nil {
		return nd.DialContext(ctx, d.network, addr)
	}
	return (&tls.Dialer{NetDialer: nd, Config: config}).DialContext(ctx, d.network, addr)
}
