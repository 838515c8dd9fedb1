package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// clientTLS says how to speak TLS with a running service.
type clientTLS struct {
	On         bool   `name:"tls" negatable:"" env:"TLS" help:"Speak TLS. Any of the flags below turns it on, too."`
	CA         string `name:"ca" placeholder:"FILE" env:"TLS_CA" help:"Authorities that sign the service's certificate. Without, the system's."`
	ServerName string `placeholder:"NAME" env:"TLS_SERVER_NAME" help:"Name that its certificate must hold, if it is not that of the address."`
	Cert       string `placeholder:"FILE" env:"TLS_CLIENT_CERT" help:"This client's certificate."`
	Key        string `placeholder:"FILE" env:"TLS_CLIENT_KEY" help:"Its key."`
}

func (c *clientTLS) on() bool { return c.On || *c != (clientTLS{}) }

// config returns the configuration that the flags describe.
func (c *clientTLS) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--ca: %s holds no certificate in PEM", c.CA)
		}
	}
	switch {
	case (c.Cert == "") != (c.Key == ""):
		return nil, errors.New("--cert and --key belong together")
	case c.Cert != "":
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("--cert and --key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
