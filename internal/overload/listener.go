package overload

import (
	"maps"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Listener closes connections beyond a number right after it has accepted them: a
// client that is told at once can ask another replica, and one left in the queue of
// the kernel would wait for its timeout each time.
type Listener struct {
	net.Listener
	most int64
	busy func() bool
	log  *zap.Logger
	open atomic.Int64

	mu    sync.Mutex
	conns map[*conn]struct{}

	refused prometheus.Counter
	gauge   prometheus.Collector
}

// NewListener returns a listener that keeps at most so many connections open, and has
// them read in small pieces while busy. The log is told of those refused; it should
// sample.
func NewListener(l net.Listener, most int, busy func() bool, log *zap.Logger) *Listener {
	n := &Listener{Listener: l, most: int64(most), busy: busy, log: log, conns: make(map[*conn]struct{})}
	n.refused = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ratelimit_grpc_connections_refused_total",
		Help: "gRPC connections closed at once because there were as many as there may be.",
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
		_ = c.Close() // nothing was promised
	}
}

func (l *Listener) keep(c net.Conn) *conn {
	k := &conn{Conn: c, busy: l.busy}
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

// Close implements [net.Listener]. It also closes connections that have sent nothing
// yet. A gRPC server that stops waits for each handshake, for up to two minutes, before
// it tells the other clients to go elsewhere.
func (l *Listener) Close() error {
	err := l.Listener.Close()
	l.closeConns(func(c *conn) bool { return !c.heard.Load() })
	return err
}

// CloseConns closes all connections.
func (l *Listener) CloseConns() { l.closeConns(func(*conn) bool { return true }) }

func (l *Listener) closeConns(which func(*conn) bool) {
	l.mu.Lock()
	conns := slices.Collect(maps.Keys(l.conns))
	l.mu.Unlock()
	for _, c := range conns {
		if which(c) {
			_ = c.Close() // its server sees the same error
		}
	}
}

type conn struct {
	net.Conn
	busy   func() bool
	closed func()
	heard  atomic.Bool // whether the client has sent anything
}

// pieces is how much is read at once while busy: some fifty requests.
const pieces = 8 << 10

// Read implements [net.Conn]. While there is more to do than can be done, readers
// and those who answer take turns: a reader that always finds something would
// otherwise spend its whole time slice on refusals, and at several times of what can
// be answered these alone would take all there is. What is left unread holds the
// client back, by the window of its connection.
func (c *conn) Read(b []byte) (int, error) {
	if c.busy() {
		runtime.Gosched()
		b = b[:min(len(b), pieces)]
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
