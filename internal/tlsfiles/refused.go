package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc/credentials"

	"github.com/distlimiter/ratelimit/internal/sparing"
)

// errWrongName is in the error of a certificate that does not hold the required name.
var errWrongName = errors.New("wrong name")

// refusalReasons are the reasons why a handshake fails, as the metric and the log name
// them.
var refusalReasons = []struct {
	reason, says string
	is           func(error) bool
}{
	{"no_certificate", "the client has no certificate", func(err error) bool { return strings.Contains(err.Error(), "didn't provide a certificate") }},
	{"expired", "the client's certificate has expired, or is not valid yet", func(err error) bool {
		invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
		return ok && invalid.Reason == x509.Expired
	}},
	{"unknown_authority", "the client's certificate is of an authority that is not trusted here", func(err error) bool {
		_, ok := errors.AsType[x509.UnknownAuthorityError](err)
		return ok
	}},
	{"wrong_name", "the client's certificate does not hold the name that it must", func(err error) bool { return errors.Is(err, errWrongName) }},
	{"by_client", "the client does not take this server's certificate", func(err error) bool {
		op, ok := errors.AsType[*net.OpError](err)
		return ok && op.Op == "remote error"
	}},
	{"no_tls", "the client does not speak TLS", func(err error) bool {
		_, ok := errors.AsType[tls.RecordHeaderError](err)
		return ok
	}},
	{"other", "it failed", func(error) bool { return true }},
}

// Handshakes are credentials of a gRPC server that report failed handshakes, which grpc-go
// does not. They count failures by reason, and log one line a minute for each reason. A
// client that connects and leaves, as probes do, does not count.
type Handshakes struct {
	credentials.TransportCredentials
	refused *prometheus.CounterVec
	log     *zap.Logger
}

// NewHandshakes returns credentials that wrap c.
func NewHandshakes(c credentials.TransportCredentials, log *zap.Logger) *Handshakes {
	h := &Handshakes{TransportCredentials: c}
	h.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ratelimit_tls_handshakes_refused_total",
		Help: "TLS handshakes of gRPC connections that failed, by reason.",
	}, []string{"reason"})
	for _, r := range refusalReasons {
		h.refused.WithLabelValues(r.reason)
	}
	h.log = sparing.Log(log, 1, time.Minute)
	return h
}

// ServerHandshake implements credentials.TransportCredentials.
func (h *Handshakes) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := h.TransportCredentials.ServerHandshake(conn)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		h.report(conn.RemoteAddr(), err)
	}
	return secure, info, err
}

func (h *Handshakes) report(from net.Addr, err error) {
	for _, r := range refusalReasons {
		if r.is(err) {
			h.refused.WithLabelValues(r.reason).Inc()
			h.log.Warn("a TLS handshake was refused: "+r.says, zap.Stringer("from", from), zap.Error(err))
			return
		}
	}
}

// Describe implements prometheus.Collector.
func (h *Handshakes) Describe(out chan<- *prometheus.Desc) { h.refused.Describe(out) }

// Collect implements prometheus.Collector.
func (h *Handshakes) Collect(out chan<- prometheus.Metric) { h.refused.Collect(out) }
