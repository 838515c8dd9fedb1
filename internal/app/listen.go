package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/alecthomas/kong"
)

// defaultGRPCAddr is where serve answers and hit asks.
const defaultGRPCAddr = "127.0.0.1:8081"

// defaultAdminAddr is where serve is administered and rules and stats ask.
const defaultAdminAddr = "127.0.0.1:6070"

// halves are the variables by which envoyproxy/ratelimit takes an address in two
// parts. A part that is not set comes from the flag's default; but a host is public,
// as there, for whoever starts this service in its place.
var halves = map[string]struct {
	host, port string
}{
	"grpc-addr": {"GRPC_HOST", "GRPC_PORT"},
	"http-addr": {"HOST", "PORT"},
	// Rules can be changed there: see adminAccess.
	"admin-addr": {"DEBUG_HOST", "DEBUG_PORT"},
}

// startedTheirWay says whether the environment says where rules are as
// envoyproxy/ratelimit's users do.
func startedTheirWay() bool {
	return slices.ContainsFunc([]string{"RUNTIME_ROOT", "RUNTIME_SUBDIRECTORY", "RUNTIME_APPDIRECTORY", "CONFIG_TYPE"}, func(name string) bool {
		return os.Getenv(name) != ""
	})
}

// hostAndPort is the kong resolver that composes an address of its halves when
// neither the flag nor its own variable gives it.
func hostAndPort(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if _, ok := halves[flag.Name]; !ok {
		return nil, nil
	}
	for _, env := range flag.Envs {
		if os.Getenv(env) != "" {
			return nil, nil
		}
	}
	addr, err := compose(flag.Name, flag.Default)
	if err != nil || addr == "" {
		return nil, err
	}
	return addr, nil
}

// compose makes an address of its halves; empty if neither is given.
func compose(flag, fallback string) (addr string, err error) {
	half := halves[flag]
	host, port := os.Getenv(half.host), os.Getenv(half.port)
	if host == "" && startedTheirWay() {
		host = "0.0.0.0"
	}
	if host == "" && port == "" {
		return "", nil
	}
	defaultHost, defaultPort, err := net.SplitHostPort(fallback)
	return net.JoinHostPort(cmp.Or(host, defaultHost), cmp.Or(port, defaultPort)), err
}

// isTheirAdminAddr says whether the admin address is what the incumbent's variables
// and defaults make it, rather than what the flag or its own variable says.
func isTheirAdminAddr(addr string) bool {
	theirs, err := compose("admin-addr", defaultAdminAddr)
	return err == nil && addr == theirs
}

// listen opens a listener for the named flag. Its error says how to mend it. A
// socket that a process left behind is removed.
func listen(network, flag, addr string) (net.Listener, error) {
	if network == "unix" {
		if err := removeDeadSocket(addr); err != nil {
			return nil, fmt.Errorf("--%s: %s: %w", flag, addr, err)
		}
	}
	l, err := net.Listen(network, addr)
	env := strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
	switch {
	case err == nil:
		return ownSocket(l)
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--%s: %s is in use: stop what listens there, or choose another with --%s or %s", flag, addr, flag, env)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("--%s: no permission to listen on %s: choose a port from 1024 on with --%s or %s", flag, addr, flag, env)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("--%s: this machine has no address %s: use 127.0.0.1, or 0.0.0.0 for all, with --%s or %s", flag, addr, flag, env)
	case network == "unix":
		return nil, fmt.Errorf("--%s: cannot listen on %q: %w: write a path in a directory that this process may write to", flag, addr, err)
	default:
		return nil, fmt.Errorf("--%s: cannot listen on %q: %w: write host:port", flag, addr, err)
	}
}

// removeDeadSocket removes a socket at which nobody listens any more, and nothing
// else.
func removeDeadSocket(path string) error {
	before, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if before.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("it is no socket (%s), and is left as it is: choose another path", before.Mode())
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		return errors.Join(errors.New("another process listens there: stop it, or choose another path"), conn.Close())
	case errors.Is(err, syscall.ECONNREFUSED):
		return removeIfSame(path, before)
	}
	return nil // to listen there fails, and says why
}

// removeIfSame removes a socket unless another has taken its place.
func removeIfSame(path string, before fs.FileInfo) error {
	now, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !os.SameFile(before, now):
		return nil
	}
	return os.Remove(path)
}

// socketListener removes its socket when it is closed, and not what another process
// may have put in its place, as net's would.
type socketListener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	once sync.Once
}

// ownSocket returns a listener at a socket as a socketListener, others as they are.
func ownSocket(l net.Listener) (net.Listener, error) {
	unix, ok := l.(*net.UnixListener)
	if !ok || strings.HasPrefix(l.Addr().String(), "@") { // that is no file
		return l, nil
	}
	unix.SetUnlinkOnClose(false)
	path := l.Addr().String()
	info, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &socketListener{UnixListener: unix, path: path, info: info}, nil
}

// Close implements net.Listener.
func (l *socketListener) Close() (err error) {
	l.once.Do(func() { err = removeIfSame(l.path, l.info) })
	return errors.Join(l.UnixListener.Close(), err)
}
