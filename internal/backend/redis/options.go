package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/named"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
)

// Mode is the kind of Redis deployment.
type Mode uint8

// The kinds of deployment.
const (
	Single   Mode = iota // one server
	Sentinel             // a master that sentinels know
	Cluster
	Proxy // a proxy that shards: each key leads to one of several servers
)

var modeNames = [...]string{"single", "sentinel", "cluster", "proxy"}

// String returns the name of the mode, such as "cluster".
func (m Mode) String() string { return modeNames[m] }

// Spreads reports whether keys are spread over several servers. Counters that are
// decided in one step must then share a hash tag.
func (m Mode) Spreads() bool { return m == Cluster || m == Proxy }

// Secret is text that is never printed.
type Secret string

// String returns "(hidden)", or "" for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(hidden)"
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText is String, for JSON and the like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Options say where Redis is and how to treat it. The zero value of a field that
// has a default means the default.
type Options struct {
	Mode Mode
	// Network is "tcp" (default) or "unix".
	Network string
	// Addrs are host:port: the server's, the sentinels' or some of the cluster's.
	// For "unix" it is one path of a socket.
	Addrs []string
	// MasterName is what the sentinels call the master.
	MasterName string
	// Username (6.0 and later) and Password log in to the servers, the Sentinel
	// ones to the sentinels.
	Username         string
	Password         Secret
	SentinelUsername string
	SentinelPassword Secret
	// UsernameFile, PasswordFile and SentinelPasswordFile name files that hold them
	// instead. They are read for each connection, so their content may change.
	UsernameFile         string
	PasswordFile         string
	SentinelPasswordFile string
	// DB is the number of the database. A cluster and a proxy have 0 only.
	DB int
	// TLS is nil for plain text. The files are read again when they change, for each
	// connection to the servers and to the sentinels. Its Log is that of these options.
	TLS *tlsfiles.Files
	// SkipHostname verifies the chain of a server's certificate, but not its name.
	SkipHostname bool

	// Prefix begins every key. Default "distlimiter".
	Prefix string
	// PlainKeys stores counters' keys in full, readable by people, instead of 16 bytes
	// of their hash, unless they are longer than 1 KiB. It costs memory, and shows the
	// content of descriptors to Redis.
	PlainKeys bool

	// Connections is the number of connections to each server: a power of two, up to
	// 256. Default 1: the requests of all callers share it in a pipeline, which costs
	// less per request the more of them there are.
	Connections int
	// Timeout bounds every answer, however long its caller would wait. Default 0: the
	// bound is the caller's deadline less a margin in which the answer arrives, a tenth
	// and at least 2 ms. Without a deadline it is 250 ms.
	Timeout time.Duration
	// DialTimeout bounds the time to connect, independently of callers. Default 2 s, or
	// Timeout if that is more.
	DialTimeout time.Duration
	// FlushDelay is how long after its last write a connection gathers requests, if
	// others are under way: it saves CPU time for a little latency. Default 20 µs; less
	// than 0 for none.
	FlushDelay time.Duration
	// BreakAfter is how many calls must fail in a row before calls are suspended.
	// Trials then follow, about BreakFor apart, until one is answered. Defaults 5 and
	// 100 ms. In a cluster each 64th of the slots counts separately.
	BreakAfter int
	BreakFor   time.Duration

	// NoCombining sends each request on its own, however many calls are under way.
	// The answers are the same, but each costs a call.
	NoCombining bool

	// LocalCacheBytes bounds the memory for remembered refusals: requests for counters
	// known to be over their limit are refused without asking Redis. Default 0: none.
	LocalCacheBytes int

	// Replicas is the number of replicas of the service among which leases are divided,
	// for rules that have leases. Default 1.
	Replicas int

	// Clock returns the time in microseconds since the Unix epoch; for tests. nil
	// leaves the time to Redis. With a Clock, keys do not expire by themselves.
	Clock func() int64
	// OwnClock returns the time of this process's clock, for tests in which it differs
	// from Redis'. nil means Clock, or else the wall clock.
	OwnClock func() int64
	// Log is nil for none.
	Log *zap.Logger
	// Names says how an operator sets these.
	Names named.Fields
}

const (
	defaultPrefix      = "distlimiter"
	defaultTimeout     = 250 * time.Millisecond
	defaultDialTimeout = 2 * time.Second
	defaultFlushDelay  = 20 * time.Microsecond
	defaultBreakAfter  = 5
	defaultBreakFor    = 100 * time.Millisecond

	// MaxConnections bounds Options.Connections.
	MaxConnections = 256
)

// withDefaults returns o with its defaults. The error joins all that is wrong with it.
func (o Options) withDefaults() (Options, error) {
	o.Network = cmp.Or(o.Network, "tcp")
	o.Prefix = cmp.Or(o.Prefix, defaultPrefix)
	o.DialTimeout = cmp.Or(o.DialTimeout, max(o.Timeout, defaultDialTimeout))
	o.FlushDelay = cmp.Or(o.FlushDelay, defaultFlushDelay)
	o.BreakAfter = cmp.Or(o.BreakAfter, defaultBreakAfter)
	o.Replicas = cmp.Or(o.Replicas, 1)
	o.BreakFor = cmp.Or(o.BreakFor, defaultBreakFor)
	o.Connections = cmp.Or(o.Connections, 1)
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return o, o.check()
}

// Check returns one error for everything that is wrong with the options; nil if they
// are valid.
func (o Options) Check() error {
	_, err := o.withDefaults()
	return err
}

// bound returns the longest time that an answer may take for a caller without a deadline.
func (o *Options) bound() time.Duration {
	if o.Timeout > 0 {
		return o.Timeout
	}
	return defaultTimeout
}

// leastMargin is the least time that is reserved for the answer to reach its caller.
const leastMargin = 2 * time.Millisecond

// until returns when the answer to a caller is due, and whether that is in the future.
func (o *Options) until(ctx context.Context, now time.Time) (time.Time, bool) {
	deadline, limited := ctx.Deadline()
	if !limited {
		return now.Add(o.bound()), true
	}
	left := deadline.Sub(now)
	left -= max(leastMargin, left/10)
	if o.Timeout > 0 {
		left = min(left, o.Timeout)
	}
	return now.Add(left), left > 0
}

func (o *Options) check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(o.Addrs) == 0 {
		wrong("no address of Redis: give at least one host:port, or the path of a socket")
	}
	switch o.Network {
	case "tcp":
		for _, addr := range o.Addrs {
			if err := checkAddr(addr); err != nil {
				wrong("address %q is not host:port: %w", addr, err)
			}
		}
	case "unix":
		if len(o.Addrs) > 1 || o.Mode == Sentinel || o.Mode == Cluster {
			wrong("a unix socket leads to one server or proxy: use tcp for %s", o.Mode)
		}
	default:
		wrong("network %q: use tcp or unix", o.Network)
	}
	if o.Mode == Single && len(o.Addrs) > 1 {
		wrong("%d addresses of a single server: give one, or say that they are sentinels or a cluster", len(o.Addrs))
	}
	if o.Mode == Proxy && len(o.Addrs) > 1 {
		wrong("%d addresses of a proxy: give one", len(o.Addrs))
	}
	if (o.Mode == Sentinel) != (o.MasterName != "") {
		wrong("mode %s and master name %q: sentinels need the name of a master, others have none", o.Mode, o.MasterName)
	}
	if o.Password != "" && o.PasswordFile != "" || o.Username != "" && o.UsernameFile != "" || o.SentinelPassword != "" && o.SentinelPasswordFile != "" {
		wrong("a user or password is given both directly and by a file: leave one of them out")
	}
	if o.DB < 0 || o.Mode.Spreads() && o.DB > 0 {
		wrong("database %d: use 0 or more, in a cluster or behind a proxy 0", o.DB)
	}
	if strings.ContainsAny(o.Prefix, "{}") {
		wrong("key prefix %q: braces would choose the slots of a cluster; leave them out", o.Prefix)
	}
	if n := o.Connections; n < 1 || n > MaxConnections || n&(n-1) != 0 {
		wrong("%d connections: use a power of two from 1 to %d", n, MaxConnections)
	}
	if o.FlushDelay > o.bound()/2 {
		wrong("a flush delay of %v: use at most half the timeout of %v", o.FlushDelay, o.bound())
	}
	if o.Replicas < 1 {
		wrong("%d replicas: use 1 or more", o.Replicas)
	}
	if o.LocalCacheBytes < 0 {
		wrong("a local cache of %d bytes: use 0 or more", o.LocalCacheBytes)
	}
	if o.Timeout != 0 && o.Timeout < time.Millisecond || o.DialTimeout < o.Timeout {
		wrong("a timeout of %v with a dial timeout of %v: use at least 1ms, and no less for the dial timeout", o.Timeout, o.DialTimeout)
	}
	if o.BreakAfter < 1 || o.BreakAfter > math.MaxInt32 || o.BreakFor < time.Millisecond {
		wrong("suspending calls after %d failures for %v: use 1 to %d, and at least 1ms", o.BreakAfter, o.BreakFor, math.MaxInt32)
	}
	return errors.Join(errs...)
}

// checkAddr returns what keeps a text from being an address of TCP. It does not look up
// the host, which may be known later.
func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("the port is %q: use a number from 1 to 65535", port)
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.ContainsAny(host, ": \t\r\n") {
		return fmt.Errorf("the host is %q: use a name or an IP address", host)
	}
	return nil
}
