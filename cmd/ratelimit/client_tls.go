package main

import (
	"crypto/tls"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// clientTLS are the settings of TLS to a running service.
type clientTLS struct {
	On         bool   `name:"tls" negatable:"" env:"TLS" help:"Use TLS. Any of the flags below turns it on too."`
	CA         string `name:"ca" placeholder:"FILE" env:"TLS_CA" help:"Authorities that sign the service's certificate. The default is those of the system."`
	ServerName string `placeholder:"NAME" env:"TLS_SERVER_NAME" help:"Name that the certificate must contain. The default is that of the address."`
	Cert       string `placeholder:"FILE" env:"TLS_CLIENT_CERT" help:"Certificate of this client."`
	Key        string `placeholder:"FILE" env:"TLS_CLIENT_KEY" help:"Key of the certificate."`
}

func (c *clientTLS) on() bool { return c.On || *c != (clientTLS{}) }

// config returns the configuration that the flags describe.
func (c *clientTLS) config() (*tls.Config, error) {
	if (c.Cert == "") != (c.Key == "") {
		return nil, errors.New("--cert and --key belong together")
	}
	next, err := tlsfiles.ClientConfig(tlsfiles.Files{Cert: c.Cert, Key: c.Key, CA: c.CA, Name: c.ServerName, Log: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("--ca, --cert or --key: %w", err)
	}
	return next(), nil
}
