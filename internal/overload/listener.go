package overload

import (
	"maps"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/sparing"
)

// Listener limits the number of open connections. It accepts each connection beyond the
// limit and closes it at once, so that its client can ask another replica. A client left
// in the kernel's queue would wait for its timeout each time.
type Listener struct {
	net.Listener
	most int64
	busy func() bool
	log  *zap.Logger
	open atomic.Int64

	ended atomic.Bool // no connection is read any more

	mu    sync.Mutex
	conns map[*conn]struct{}

	refused prometheus.Counter
	gauge   prometheus.Collector
}

// NewListener returns a listener that keeps at most most connections open, and reads
// them in small pieces while busy. It logs refused connections: one line each ten seconds.
func NewListener(l net.Listener, most int, busy func() bool, log *zap.Logger) *Listener {
	n := &Listener{Listener: l, most: int64(most), busy: busy, log: sparing.Log(log, 1, 10*time.Second), conns: make(map[*conn]struct{})}
	n.refused = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ratelimit_grpc_connections_refused_total",
		Help: "gRPC connections closed at once because the maximum number was open.",
	})
	n.gauge = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ratelimit_grpc_connections",
		Help: "Open gRPC connections.",
	}, func() float64 { return float64(n.open.Load()) })
	return n
}

// Accept implements [net.Listener].
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.most {
			return l.keep(c), nil
		}
		l.open.Add(-1)
		l.refused.Inc()
		l.log.Warn("too many connections: one was refused", zap.Int64("most", l.most), zap.Stringer("from", c.RemoteAddr()))
		_ = c.Close() // the client has had no answer yet
	}
}

func (l *Listener) keep(c net.Conn) *conn {
	k := &conn{Conn: c, busy: l.busy, ended: &l.ended}
	k.closed = sync.OnceFunc(func() {
		l.open.Add(-1)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, k)
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[k] = struct{}{}
	return k
}

// Close implements [net.Listener]. It also closes connections on which the client has
// sent nothing yet, because a gRPC server that stops waits up to two minutes for each
// handshake before it sends the other clients elsewhere.
func (l *Listener) Close() error {
	err := l.Listener.Close()
	l.closeConns(func(c *conn) bool { return !c.heard.Load() })
	return err
}

// CloseConns closes all connections. Their servers read nothing more from this moment on,
// although it may take a while to close thousands.
func (l *Listener) CloseConns() {
	l.ended.Store(true)
	l.closeConns(func(*conn) bool { return true })
}

func (l *Listener) closeConns(which func(*conn) bool) {
	l.mu.Lock()
	conns := slices.Collect(maps.Keys(l.conns))
	l.mu.Unlock()
	for _, c := range conns {
		if which(c) {
			_ = c.Close() // the server of the connection sees the same error
		}
	}
}

type conn struct {
	net.Conn
	busy   func() bool
	closed func()
	ended  *atomic.Bool
	heard  atomic.Bool // whether the client has sent anything
}

// pieces is how many bytes a read returns at most while busy: about fifty requests.
const pieces = 8 << 10

// Read implements [net.Conn]. While the service is overloaded, each read is small, so
// that readers and handlers take turns. A reader that always finds data would otherwise
// spend its whole time slice on refusals. At several times the load that the service
// can answer, refusals alone would take all of the processor. Unread data holds the
// client back through the flow-control window of its connection.
func (c *conn) Read(b []byte) (int, error) {
	if c.busy() {
		runtime.Gosched()
		b = b[:min(len(b), pieces)]
	}
	if c.ended.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(b)
	if n > 0 && !c.heard.Load() { // a load is cheaper than a store for each read
		c.heard.Store(true)
	}
	return n, err
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// Describe implements [prometheus.Collector].
func (l *Listener) Describe(out chan<- *prometheus.Desc) {
	l.refused.Describe(out)
	l.gauge.Describe(out)
}

// Collect implements [prometheus.Collector].
func (l *Listener) Collect(out chan<- prometheus.Metric) {
	l.refused.Collect(out)
	l.gauge.Collect(out)
}
