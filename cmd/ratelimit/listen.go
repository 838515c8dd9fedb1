package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// defaultGRPCAddr is where serve answers and hit asks.
const defaultGRPCAddr = "127.0.0.1:8081"

// halves are the variables by which envoyproxy/ratelimit takes an address in two
// parts. A part that is not set comes from the flag's default.
var halves = map[string]struct{ host, port string }{
	"grpc-addr":  {"GRPC_HOST", "GRPC_PORT"},
	"http-addr":  {"HOST", "PORT"},
	"admin-addr": {"DEBUG_HOST", "DEBUG_PORT"},
}

// hostAndPort is the kong resolver that composes an address of its halves when
// neither the flag nor its own variable gives it.
func hostAndPort(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	half, ok := halves[flag.Name]
	if !ok {
		return nil, nil
	}
	for _, env := range flag.Envs {
		if os.Getenv(env) != "" {
			return nil, nil
		}
	}
	host, port := os.Getenv(half.host), os.Getenv(half.port)
	if host == "" && port == "" {
		return nil, nil
	}
	defaultHost, defaultPort, err := net.SplitHostPort(flag.Default)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = defaultHost
	}
	if port == "" {
		port = defaultPort
	}
	return net.JoinHostPort(host, port), nil
}

// listen opens a TCP listener for the named flag. Its error says how to mend it.
func listen(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	env := strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--%s: %s is in use: stop what listens there, or choose another with --%s or %s", flag, addr, flag, env)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("--%s: no permission to listen on %s: choose a port from 1024 on with --%s or %s", flag, addr, flag, env)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("--%s: this machine has no address %s: use 127.0.0.1, or 0.0.0.0 for all, with --%s or %s", flag, addr, flag, env)
	default:
		return nil, fmt.Errorf("--%s: cannot listen on %q: %w: write host:port", flag, addr, err)
	}
}
