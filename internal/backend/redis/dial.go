package redis

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// dialer makes connections in the background. The client dials when a call needs
// a connection, within the time that the call has left; a handshake that takes
// longer would then never succeed. So a dial goes on when its call has given up,
// and the next one finds the connection ready.
type dialer struct {
	network string
	timeout time.Duration

	mu    sync.Mutex
	ready map[string][]readyConn // by address
}

type readyConn struct {
	net.Conn
	until time.Time // the server may have closed it since
}

// maxReady bounds the connections to one address that nobody waited for.
const maxReady = 8

func (d *dialer) dial(ctx context.Context, addr string, nd *net.Dialer, config *tls.Config) (net.Conn, error) {
	if conn := d.take(addr); conn != nil {
		return conn, nil
	}
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	go func() {
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timeout)
		defer cancel()
		conn, err := d.connect(own, addr, nd, config)
		select {
		case results <- result{conn, err}:
		case <-ctx.Done():
			if err == nil {
				d.keep(addr, conn)
			}
		}
	}()
	select {
	case r := <-results:
		return r.conn, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *dialer) connect(ctx context.Context, addr string, nd *net.Dialer, config *tls.Config) (net.Conn, error) {
	if config == nil {
		return nd.DialContext(ctx, d.network, addr)
	}
	return (&tls.Dialer{NetDialer: nd, Config: config}).DialContext(ctx, d.network, addr)
}

func (d *dialer) take(addr string) net.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	for list := d.ready[addr]; len(list) > 0; {
		conn := list[len(list)-1]
		list = list[:len(list)-1]
		d.ready[addr] = list
		if time.Now().Before(conn.until) {
			return conn.Conn
		}
		_ = conn.Close()
	}
	return nil
}

func (d *dialer) keep(addr string, conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ready == nil || len(d.ready[addr]) >= maxReady {
		_ = conn.Close()
		return
	}
	d.ready[addr] = append(d.ready[addr], readyConn{conn, time.Now().Add(d.timeout)})
}

// close closes what is ready, and what becomes so later.
func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, list := range d.ready {
		for _, conn := range list {
			_ = conn.Close()
		}
	}
	d.ready = nil
}
