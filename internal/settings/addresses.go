package settings

import (
	"cmp"
	"net"
	"slices"
)

// halves are the variables in which envoyproxy/ratelimit takes the host and the port of
// an address, by this service's variable for the whole address. A half that is not set
// comes from the default. But if this service was started the way of
// envoyproxy/ratelimit, an unset host is public, as it is there.
var halves = map[string]struct{ host, port string }{
	"GRPC_ADDR":  {"GRPC_HOST", "GRPC_PORT"},
	"HTTP_ADDR":  {"HOST", "PORT"},
	"ADMIN_ADDR": {"DEBUG_HOST", "DEBUG_PORT"}, // rules can be changed there: see app.Admin
}

// Address returns the address that the halves of a variable such as ADMIN_ADDR make. It
// is empty if the variable has no halves, or neither is set.
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

// startedTheirWay reports whether the environment names the place of the rules as it
// does for envoyproxy/ratelimit.
func startedTheirWay(getenv Getenv) bool {
	return slices.ContainsFunc([]string{"RUNTIME_ROOT", "RUNTIME_SUBDIRECTORY", "RUNTIME_APPDIRECTORY", "CONFIG_TYPE"}, func(name string) bool {
		return getenv(name) != ""
	})
}

// OpenedBy returns the variable for the host of an address, if that variable or its
// default determines the address; else it is empty.
func OpenedBy(getenv Getenv, variable, fallback, addr string) (string, error) {
	theirs, err := Address(getenv, variable, fallback)
	if err != nil || addr != theirs {
		return "", err
	}
	return halves[variable].host, nil
}
