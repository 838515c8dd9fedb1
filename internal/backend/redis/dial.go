package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync/atomic"

	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// dialer makes connections. The library dials when a call needs a connection, within
// the time that the call has left. It dials again for a trial, which has enough time
// for a handshake.
type dialer struct {
	network   string
	config    func() *tls.Config // of the next connection; nil for plain text
	sentinels *tls.Config        // marks the dials of the library that lead to sentinels
	silent    atomic.Bool        // whether connections begin without HELLO
}

func newDialer(o *Options) (*dialer, error) {
	d := &dialer{network: o.Network, sentinels: &tls.Config{MinVersion: tls.VersionTLS12}}
	if o.TLS == nil {
		return d, nil
	}
	files := *o.TLS
	files.Log = o.Log
	config, err := tlsfiles.ClientConfig(files)
	if err != nil {
		return nil, err
	}
	d.config = config
	if o.SkipHostname {
		d.config = func() *tls.Config { return skipHostname(config()) }
	}
	return d, nil
}

// dial is [rueidis.ClientOption.DialCtxFn]. config only distinguishes sentinels from
// servers; its content is not used, because the files are read again.
func (d *dialer) dial(ctx context.Context, addr string, nd *net.Dialer, config *tls.Config) (conn net.Conn, err error) {
	if d.config == nil {
		conn, err = nd.DialContext(ctx, d.network, addr)
	} else {
		conn, err = (&tls.Dialer{NetDialer: nd, Config: d.config()}).DialContext(ctx, d.network, addr)
	}
	if err != nil {
		return nil, err
	}
	if d.silent.Load() {
		conn = &silentConn{Conn: conn}
	}
	if config == d.sentinels {
		conn = sentinelConn{conn}
	}
	return conn, nil
}

// skipHostname makes the configuration verify a server's certificate, except for its
// name.
func skipHostname(config *tls.Config) *tls.Config {
	config.InsecureSkipVerify = true // the chain is verified below
	config.VerifyConnection = func(state tls.ConnectionState) error {
		opts := x509.VerifyOptions{Roots: config.RootCAs, Intermediates: x509.NewCertPool()}
		for _, cert := range state.PeerCertificates[1:] {
			opts.Intermediates.AddCert(cert)
		}
		_, err := state.PeerCertificates[0].Verify(opts)
		return err
	}
	return config
}
