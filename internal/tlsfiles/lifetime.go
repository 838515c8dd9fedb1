package tlsfiles

import (
	"crypto/tls"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

var (
	notBefore = prometheus.NewDesc("ratelimit_tls_certificate_not_before_timestamp_seconds", "When a certificate of this service begins to be valid.", []string{"use"}, nil)
	notAfter  = prometheus.NewDesc("ratelimit_tls_certificate_not_after_timestamp_seconds", "When a certificate of this service ends.", []string{"use"}, nil)
)

// Lifetimes is a prometheus.Collector of the validity periods of certificates. It reads
// them from the present files.
type Lifetimes struct {
	certificates map[string]*renewed[*tls.Certificate] // by use
}

// NewLifetimes returns the collector of the certificates of files, which are keyed by
// their use. It leaves out files without a certificate. The error names the file that
// can't be used.
func NewLifetimes(files map[string]Files) (*Lifetimes, error) {
	l := &Lifetimes{certificates: map[string]*renewed[*tls.Certificate]{}}
	for use, f := range files {
		// The users of the certificate log what is wrong with it.
		r, err := newReader(Files{Cert: f.Cert, Key: f.Key, Log: zap.NewNop()})
		if err != nil {
			return nil, err
		}
		if r.pair != nil {
			l.certificates[use] = r.pair
		}
	}
	return l, nil
}

// Describe implements prometheus.Collector.
func (l *Lifetimes) Describe(out chan<- *prometheus.Desc) {
	out <- notBefore
	out <- notAfter
}

// Collect implements prometheus.Collector.
func (l *Lifetimes) Collect(out chan<- prometheus.Metric) {
	for use, certificate := range l.certificates {
		leaf := certificate.get().Leaf
		out <- prometheus.MustNewConstMetric(notBefore, prometheus.GaugeValue, float64(leaf.NotBefore.Unix()), use)
		out <- prometheus.MustNewConstMetric(notAfter, prometheus.GaugeValue, float64(leaf.NotAfter.Unix()), use)
	}
}
