// Package tlsfiles owns TLS with certificates in files that are renewed while they are in
// use, as cert-manager and Kubernetes do. Every handshake uses the present content of the
// files. While the files are unreadable or do not fit each other, because one is written
// and the other not yet, the last good content stays in use. Authorisation beyond a valid
// certificate is left to others.
package tlsfiles

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/credentials"
)

// Files are paths of PEM files.
type Files struct {
	// Cert and Key are this side's certificate and key. A client may have none.
	Cert, Key string
	// CA holds the authorities that must have signed the other side's certificate. If
	// it is empty, a server asks clients for no certificate, and a client trusts the
	// system's authorities.
	CA string
	// WithSystem trusts the system's authorities in addition to those of CA.
	WithSystem bool
	// Name must be among the names (DNS, IP or URI) of the other side's certificate. If
	// it is empty, a server accepts any certificate that CA has signed, and a client
	// requires the name of the address that it dials.
	Name string
	// Log gets errors of renewed files. Required.
	Log *zap.Logger
}

// Server returns the configuration of a server. The error names the file that can't be
// used.
func Server(f Files) (*tls.Config, error) {
	if f.Name != "" && f.CA == "" {
		return nil, fmt.Errorf("clients must be named %q, but no authority is given to verify their certificates", f.Name)
	}
	r, err := newReader(f)
	if err != nil {
		return nil, err
	}
	if r.pair == nil {
		return nil, errors.New("a server needs a certificate and its key")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c := &tls.Config{
				MinVersion:   tls.VersionTLS12,
				NextProtos:   []string{"h2"},
				Certificates: []tls.Certificate{*r.pair.get()},
				// A resumed session would still trust the authorities of its first handshake.
				SessionTicketsDisabled: true,
			}
			if r.authorities != nil {
				c.ClientCAs, c.ClientAuth = r.authorities.get(), tls.RequireAndVerifyClientCert
				c.VerifyConnection = f.verifyName
			}
			return c, nil
		},
	}, nil
}

// verifyName checks the name in a client's certificate.
func (f Files) verifyName(state tls.ConnectionState) error {
	if f.Name == "" {
		return nil
	}
	cert := state.PeerCertificates[0]
	for _, uri := range cert.URIs {
		if uri.String() == f.Name {
			return nil
		}
	}
	if err := cert.VerifyHostname(f.Name); err != nil {
		return fmt.Errorf("%w: the client's certificate does not name %q: %w", errWrongName, f.Name, err)
	}
	return nil
}

// Client returns the credentials of a gRPC client. The error names the file that can't be
// used.
func Client(f Files) (credentials.TransportCredentials, error) {
	r, err := newReader(f)
	if err != nil {
		return nil, err
	}
	c := &client{files: f, reader: r}
	c.TransportCredentials = credentials.NewTLS(c.config())
	return c, nil
}

// ClientConfig returns a function that makes the configuration of a client's next
// connection. The error names the file that can't be used.
func ClientConfig(f Files) (func() *tls.Config, error) {
	r, err := newReader(f)
	if err != nil {
		return nil, err
	}
	return (&client{files: f, reader: r}).config, nil
}

// client performs each handshake with a configuration of its own.
type client struct {
	credentials.TransportCredentials
	files  Files
	reader *reader
}

func (c *client) config() *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.files.Name}
	if c.reader.authorities != nil {
		config.RootCAs = c.reader.authorities.get()
	}
	if c.reader.pair != nil {
		config.Certificates = []tls.Certificate{*c.reader.pair.get()}
	}
	return config
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *client) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(c.config()).ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (c *client) Clone() credentials.TransportCredentials {
	return &client{TransportCredentials: c.TransportCredentials.Clone(), files: c.files, reader: c.reader}
}

// reader holds the content of files. A field is nil if it has no files.
type reader struct {
	pair        *renewed[*tls.Certificate]
	authorities *renewed[*x509.CertPool]
}

func newReader(f Files) (r *reader, err error) {
	r = &reader{}
	switch {
	case (f.Cert == "") != (f.Key == ""):
		return nil, errors.New("a certificate and its key belong together: give both files or none")
	case f.Cert != "":
		if r.pair, err = newRenewed(f.Log, func() (*tls.Certificate, error) { return loadPair(f.Cert, f.Key) }, f.Cert, f.Key); err != nil {
			return nil, err
		}
	}
	if f.CA != "" {
		r.authorities, err = newRenewed(f.Log, func() (*x509.CertPool, error) { return loadAuthorities(f.CA, f.WithSystem) }, f.CA)
	}
	return r, err
}

func loadPair(cert, key string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", cert, key, err)
	}
	return &pair, nil
}

func loadAuthorities(path string, withSystem bool) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if withSystem {
		if system, err := x509.SystemCertPool(); err == nil { // there may be none
			pool = system
		}
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM format", path)
	}
	return pool, nil
}

// renewed is the content of files, read again when they have changed.
type renewed[T any] struct {
	paths []string
	load  func() (T, error)
	log   *zap.Logger

	mu     sync.Mutex
	value  T
	stamps []stamp // of the files when they were last read
	fault  string  // why the files could not be used since; empty if they could
}

// stamp changes when a file changes or is replaced.
type stamp struct {
	size     int64
	modified time.Time
	inode    os.FileInfo
}

func (s stamp) equal(other stamp) bool {
	return s.size == other.size && s.modified.Equal(other.modified) && os.SameFile(s.inode, other.inode)
}

func newRenewed[T any](log *zap.Logger, load func() (T, error), paths ...string) (r *renewed[T], err error) {
	r = &renewed[T]{paths: paths, load: load, log: log}
	if r.stamps, err = r.look(); err != nil {
		return nil, err
	}
	r.value, err = load()
	return r, err
}

func (r *renewed[T]) look() ([]stamp, error) {
	stamps := make([]stamp, len(r.paths))
	for i, path := range r.paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		stamps[i] = stamp{info.Size(), info.ModTime(), info}
	}
	return stamps, nil
}

// get returns the content of the files, or the last content that could be used.
func (r *renewed[T]) get() T {
	r.mu.Lock()
	defer r.mu.Unlock()
	stamps, err := r.look()
	if err == nil && slices.EqualFunc(stamps, r.stamps, stamp.equal) {
		return r.value
	}
	value, loadErr := r.value, err
	if err == nil {
		value, loadErr = r.load()
	}
	if loadErr != nil {
		if fault := loadErr.Error(); fault != r.fault { // log a fault once, not for each handshake
			r.fault = fault
			r.log.Error("renewed TLS files can't be used; those before stay", zap.Error(loadErr))
		}
		return r.value // the next call tries again
	}
	r.value, r.stamps, r.fault = value, stamps, ""
	r.log.Info("TLS files renewed", zap.Strings("files", r.paths))
	return value
}
