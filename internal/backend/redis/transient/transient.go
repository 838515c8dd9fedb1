// Package transient owns which error replies of Redis mean that it can't work now and may
// recover in a moment, rather than that it refuses the call. An error reply is the text
// that the client library returns, without the code ERR.
package transient

import "strings"

// Is reports whether an error reply means that a server can't work now, or that a proxy
// does not reach its server.
func Is(answer string) bool { return Server(answer) || Proxy(answer) }

// Server reports whether an error reply means that the server is loading, busy, failing
// over, moving keys or a replica.
func Server(answer string) bool {
	code, _, _ := strings.Cut(answer, " ")
	switch code {
	case "LOADING", "BUSY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "NOREPLICAS", "READONLY":
		return true
	}
	return false
}

// Proxy reports whether an error reply means that a proxy (Envoy's redis_proxy or
// twemproxy) does not reach its server.
func Proxy(answer string) bool {
	for _, start := range []string{
		"no upstream host", "upstream failure", "upstream protocol error", "finished with ", // of some keys
		"Connection refused", "Connection timed out", "Connection reset by peer", "Host is down", "No route to host",
	} {
		if strings.HasPrefix(answer, start) {
			return true
		}
	}
	return false
}
