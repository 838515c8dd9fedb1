package overload

import (
	"net"
	"runtime"
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

	refused prometheus.Counter
	gauge   prometheus.Collector
}

// NewListener returns a listener that keeps at most so many connections open, and has
// them read in small pieces while busy. The log is told of those refused; it should
// sample.
func NewListener(l net.Listener, most int, busy func() bool, log *zap.Logger) *Listener {
	n := &Listener{Listener: l, most: int64(most), busy: busy, log: log}
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
			return &conn{Conn: c, busy: l.busy, closed: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
		}
		l.open.Add(-1)
		l.refused.Inc()
		l.log.Warn("too many connections: one was refused", zap.Int64("most", l.most), zap.Stringer("from", c.RemoteAddr()))
		_ = c.Close() // nothing was promised
	}
}

type conn struct {
	net.Conn
	busy   func() bool
	closed func()
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
	return c.Conn.Read(b)
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
