package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/named"
)

// connector holds the client. It connects in the background, however long that
// takes, and makes a new client when the present one turns out to be connected to
// the wrong server. Once connected, the client itself reconnects as calls need it.
type connector struct {
	mode   Mode
	probe  string        // a key that never exists
	pause  time.Duration // between attempts
	option rueidis.ClientOption
	dialer *dialer
	log    *zap.Logger
	names  named.Fields

	client  atomic.Pointer[rueidis.Client]
	ready   chan struct{} // closed when there is a first client
	renew   chan struct{}
	lastErr atomic.Pointer[error]

	stop    context.CancelFunc
	stopped sync.WaitGroup
}

const (
	renewEvery = time.Second // at most

	keepAlive    = time.Second // the interval of probes of an idle connection
	bufferSize   = 64 << 10    // bytes, of each connection and direction
	refreshEvery = 5 * time.Second
)

func newConnector(o *Options) (*connector, error) {
	d, err := newDialer(o)
	if err != nil {
		return nil, err
	}
	who := &logins{
		server:   login{o.Username, string(o.Password), o.UsernameFile, o.PasswordFile},
		sentinel: login{o.SentinelUsername, string(o.SentinelPassword), "", o.SentinelPasswordFile},
	}
	c := &connector{
		mode:   o.Mode,
		dialer: d,
		probe:  o.Prefix + trialName,
		pause:  o.BreakFor,
		log:    o.Log,
		names:  o.Names,
		ready:  make(chan struct{}),
		renew:  make(chan struct{}, 1),
	}
	dial := net.Dialer{Timeout: o.DialTimeout, KeepAlive: keepAlive}
	c.option = rueidis.ClientOption{
		InitAddress:       o.Addrs,
		AuthCredentialsFn: who.credentials,
		SelectDB:          o.DB,
		DialCtxFn:         d.dial,
		Dialer:            dial,
		Sentinel: rueidis.SentinelOption{
			MasterSet:               o.MasterName,
			TLSConfig:               d.sentinels,
			Dialer:                  dial,
			TopologyRefreshInterval: refreshEvery,
		},
		ClusterOption: rueidis.ClusterOption{ShardsRefreshInterval: refreshEvery},
		ClientSetInfo: rueidis.DisableClientSetInfo,
		// The time that a server has to answer a probe. After it the connection is
		// closed, with all calls that wait on it.
		ConnWriteTimeout:    max(time.Second, 2*o.Timeout),
		MaxFlushDelay:       max(0, o.FlushDelay),
		PipelineMultiplex:   bits.Len(uint(o.Connections)) - 1,
		ReadBufferEachConn:  bufferSize,
		WriteBufferEachConn: bufferSize,
		ForceSingleClient:   o.Mode == Single || o.Mode == Proxy,
		DisableCache:        true,
		DisableRetry:        true, // a call that may have charged must not be repeated
		AlwaysPipelining:    true,
	}
	if o.TLS != nil { // a cluster may have ports for TLS
		c.option.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if o.Connections == 1 {
		c.option.PipelineMultiplex = -1
	}
	if o.Mode != Sentinel {
		c.option.Sentinel = rueidis.SentinelOption{}
	}
	c.plainly(o.Mode == Proxy)
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.stopped.Go(func() { c.run(ctx) })
	return c, nil
}

// run connects, and connects again each time that a renewal is requested, until stopped.
func (c *connector) run(ctx context.Context) {
	for c.reach(ctx) && sleep(ctx, jitter(renewEvery)) {
		select {
		case <-ctx.Done():
			return
		case <-c.renew:
		}
	}
}

// reach tries to connect until it succeeds. It logs one line when it begins to fail,
// and one when it succeeds after that. It reports whether it has connected.
func (c *connector) reach(ctx context.Context) bool {
	var waits pauses
	for began, attempts := time.Now(), 1; ; attempts++ {
		client, err := c.connect(ctx)
		if err == nil {
			c.swap(client)
			c.lastErr.Store(nil)
			if attempts > 1 {
				c.log.Info("connected to Redis", zap.Duration("after", time.Since(began)), zap.Int("attempts", attempts))
			}
			return true
		}
		if last := c.lastErr.Swap(&err); last == nil {
			c.log.Warn("no connection to Redis: trying until there is one", zap.Error(err))
		}
		if !sleep(ctx, waits.next(c.pause, err)) {
			return false
		}
	}
}

// connect makes a client. Some servers refuse the protocol RESP3, and some proxies
// close a connection that asks for it. For those it connects again without asking, and
// remembers that.
func (c *connector) connect(ctx context.Context) (rueidis.Client, error) {
	client, err := c.attempt(ctx)
	if err == nil || c.option.AlwaysRESP2 || !refusesHello(err) {
		return client, err
	}
	c.plainly(true)
	client, again := c.attempt(ctx)
	if again != nil || !c.answers(ctx, client) {
		c.plainly(false)
		if client != nil {
			client.Close()
		}
		if errors.Is(again, errSharded) { // it speaks RESP2, but is not a single server
			return nil, again
		}
		return nil, err
	}
	c.log.Info("Redis does not speak RESP3: using RESP2", zap.NamedError("refusal", err))
	return client, nil
}

// answers reports whether a server answers at all. A connection that begins without
// HELLO may have sent nothing so far.
func (c *connector) answers(ctx context.Context, client rueidis.Client) bool {
	ctx, cancel := context.WithTimeout(ctx, c.option.Dialer.Timeout)
	defer cancel()
	err := client.Do(ctx, client.B().Del().Key(c.probe).Build()).Error()
	_, refused := rueidis.IsRedisErr(err)
	return err == nil || refused
}

// plainly sets whether connections begin without HELLO and use RESP2.
func (c *connector) plainly(resp2 bool) {
	c.option.AlwaysRESP2 = resp2
	c.dialer.silent.Store(resp2)
}

func (c *connector) attempt(ctx context.Context) (rueidis.Client, error) {
	client, err := rueidis.NewClient(c.option)
	if err == nil {
		err = checkMode(ctx, client, c.mode, c.option.Dialer.Timeout)
	}
	if err == nil && c.mode != Proxy { // a proxy does not report a version
		err = checkVersion(ctx, client, c.option.Dialer.Timeout)
	}
	if err == nil && (c.mode == Single || c.mode == Proxy) {
		err = c.checkPlaces(ctx, client)
	}
	if refusal, ok := rueidis.IsRedisErr(err); ok && refusesLogin(refusal.Error()) || refusesTLS(err) {
		err = fmt.Errorf("%w: %w", errLogin, err)
	}
	if err != nil && c.mode == Cluster && strings.Contains(err.Error(), "cluster support disabled") {
		err = errNoCluster
	}
	switch mode := c.names.Of("Mode"); {
	case errors.Is(err, errNoCluster):
		err = fmt.Errorf("%w: use %s=SINGLE", err, mode)
	case errors.Is(err, errSharded):
		err = fmt.Errorf("%w: use %s=PROXY, or CLUSTER for a cluster without a proxy", err, mode)
	case errors.Is(err, errMoved):
		err = fmt.Errorf("%w: use %s=CLUSTER", err, mode)
	}
	if err != nil && client != nil {
		client.Close()
		client = nil
	}
	return client, err
}

// refusesHello reports whether an error while connecting is the answer to HELLO 3: an
// unknown protocol, or the end of the connection.
func refusesHello(err error) bool {
	return strings.Contains(err.Error(), "NOPROTO") || errors.Is(err, io.EOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func (c *connector) swap(client rueidis.Client) {
	if old := c.client.Swap(&client); old != nil {
		(*old).Close()
		return
	}
	close(c.ready)
}

// current returns the client, or an error that says why there is none yet.
func (c *connector) current() (rueidis.Client, error) {
	if client := c.client.Load(); client != nil {
		return *client, nil
	}
	if err := c.lastErr.Load(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotYet, *err)
	}
	return nil, errNotYet
}

// wrongServer requests another client: this one's server turned out to be a replica.
// A new look-up of the address, or a query to the sentinels, may find the master.
func (c *connector) wrongServer() {
	select {
	case c.renew <- struct{}{}:
	default:
	}
}

func (c *connector) close() {
	c.stop()
	c.stopped.Wait()
	if client := c.client.Load(); client != nil {
		(*client).Close()
	}
}

// refusesTLS reports whether an error means that the two sides can't agree on TLS.
func refusesTLS(err error) bool {
	var unverified *tls.CertificateVerificationError
	var alert tls.AlertError
	var plain tls.RecordHeaderError
	return errors.As(err, &unverified) || errors.As(err, &alert) || errors.As(err, &plain)
}

// errNoCluster means that the server should be one of a cluster, and is not.
var errNoCluster = errors.New("the server is not a cluster")

// checkMode refuses the client of a single server if the mode is Cluster. The library
// falls back to such a client, and keys would have no slots.
func checkMode(ctx context.Context, client rueidis.Client, mode Mode, timeout time.Duration) error {
	if mode != Cluster || client.Mode() == rueidis.ClientModeCluster {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := client.Do(ctx, client.B().ClusterSlots().Build()).Error()
	if refusal, ok := rueidis.IsRedisErr(err); ok && strings.HasPrefix(refusal.Error(), "NOPERM") {
		return fmt.Errorf("the server does not report its slots: %w", err)
	}
	return errNoCluster
}

// oldest is the first major version with access lists and RESP3, which this package
// needs. Valkey, a fork of Redis 7.2, reports version 7.2.
const oldest = 6

// checkVersion refuses servers that are too old for the script. A server that does
// not report its version is assumed to be new enough.
func checkVersion(ctx context.Context, client rueidis.Client, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for addr, node := range client.Nodes() {
		info, err := node.Do(ctx, node.B().Info().Section("server").Build()).ToString()
		if err != nil {
			continue
		}
		_, after, found := strings.Cut(info, "redis_version:")
		version, _, _ := strings.Cut(after, "\r")
		major, _, _ := strings.Cut(version, ".")
		if n, err := strconv.Atoi(major); found && err == nil && n < oldest {
			return fmt.Errorf("the server at %s is Redis %s: use Redis %d.0 or later, or Valkey", addr, version, oldest)
		}
	}
	return nil
}

// jitter returns d plus or minus up to a quarter, so that replicas of this service that
// lost Redis at the same time do not all come back at the same time.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// sleep waits for d. It returns false as soon as ctx is done.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
