package settings

import (
	"cmp"
	"net"
	"slices"
)

// halves are the variables by which envoyproxy/ratelimit takes an address in two
// parts, by that of this service for the whole. A part that is not set comes from the
// default; but a host is public, as there, for whoever starts this service in its
// place.
var halves = map[string]struct{ host, port string }{
	"GRPC_ADDR":  {"GRPC_HOST", "GRPC_PORT"},
	"HTTP_ADDR":  {"HOST", "PORT"},
	"ADMIN_ADDR": {"DEBUG_HOST", "DEBUG_PORT"}, // rules can be changed there: see app.Admin
}

// Address returns the address that the halves of a variable make, such as ADMIN_ADDR;
// empty if it has none, or neither is given.
func Address(getenv Getenv, variable, fallback string) (string, error) {
	half, ok := halves[variable]
	if !ok {
		return "", nil
	}
	host, port := getenv(half.host), getenv(half.port)
	if host == "" && startedTheirWay(getenv) {
		host = "0.0.0.0"
	}
	if host == "" && port == "" {
		return "", nil
	}
	defaultHost, defaultPort, err := net.SplitHostPort(fallback)
	return net.JoinHostPort(cmp.Or(host, defaultHost), cmp.Or(port, defaultPort)), err
}

// startedTheirWay reports whether the environment says where rules are as
// envoyproxy/ratelimit's users do.
func startedTheirWay(getenv Getenv) bool {
	return slices.ContainsFunc([]string{"RUNTIME_ROOT", "RUNTIME_SUBDIRECTORY", "RUNTIME_APPDIRECTORY", "CONFIG_TYPE"}, func(name string) bool {
		return getenv(name) != ""
	})
}

// OpenedBy returns the variable for the host of an address, if it is that variable or
// its default that says what the address is; else it is empty.
func OpenedBy(getenv Getenv, variable, fallback, addr string) (string, error) {
	theirs, err := Address(getenv, variable, fallback)
	if err != nil || addr != theirs {
		return "", err
	}
	return halves[variable].host, nil
}
