// Package scrape serves metrics over HTTP such that many scrapes at a time cost as much
// as one. The metrics themselves are left to the packages that measure.
package scrape

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/distlimiter/ratelimit/internal/background"
)

// Handler answers with the metrics of a Gatherer in the format that a scrape asks for.
// One gathering runs at a time. It serves all scrapes that arrived before it began.
// After it comes a pause of the same length, and a gathering yields to requests, so that
// scrapes never take more than half of one processor.
type Handler struct {
	from prometheus.Gatherer
	turn chan time.Duration // holds how long the last gathering took; empty during a gathering

	mu   sync.Mutex
	next map[expfmt.Format]*gathering // those that have not begun
}

// New returns a Handler.
func New(from prometheus.Gatherer) *Handler {
	h := &Handler{from: from, turn: make(chan time.Duration, 1), next: map[expfmt.Format]*gathering{}}
	h.turn <- 0
	return h
}

// longestPause keeps scrapes within the ten seconds that Prometheus waits, on machines
// that take long to gather.
const longestPause = time.Second

// gathering is one text for many scrapes.
type gathering struct {
	waiting int // guarded by Handler.mu
	done    chan struct{}
	// After done:
	zipped []byte // a tenth of the plain text, which few scrapes ask for
	err    error
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultAcceptedFormats()...)
	g := h.join(format)
	select {
	case <-g.done:
	case <-r.Context().Done():
		h.leave(g)
		return
	}
	if g.err != nil {
		http.Error(w, "the metrics can't be gathered:\n"+g.err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", string(format))
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	if takesGzip(r) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(g.zipped) // a client that has left is no error of ours
		return
	}
	if text, err := gzip.NewReader(bytes.NewReader(g.zipped)); err == nil {
		_, _ = io.Copy(w, text) //nolint:gosec // the text is our own
	}
}

// join returns the next gathering of that format.
func (h *Handler) join(format expfmt.Format) *gathering {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.next[format]
	if g == nil {
		g = &gathering{done: make(chan struct{})}
		h.next[format] = g
		go h.gather(format, g)
	}
	g.waiting++
	return g
}

// leave removes a scrape that no longer waits from its gathering.
func (h *Handler) leave(g *gathering) {
	h.mu.Lock()
	g.waiting--
	h.mu.Unlock()
}

// gather waits for its turn, and gathers if a scrape still waits then.
func (h *Handler) gather(format expfmt.Format, g *gathering) {
	defer close(g.done)
	time.Sleep(min(<-h.turn, longestPause))
	h.mu.Lock()
	delete(h.next, format)
	wanted := g.waiting > 0
	h.mu.Unlock()
	began := time.Now()
	if wanted {
		g.zipped, g.err = text(h.from, format)
	}
	h.turn <- time.Since(began)
}

// text returns the metrics, compressed.
func text(from prometheus.Gatherer, format expfmt.Format) ([]byte, error) {
	families, err := from.Gather()
	if err != nil {
		return nil, err
	}
	task := background.New()
	defer task.Close()
	var out bytes.Buffer
	zipper, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	encoder := expfmt.NewEncoder(yielding{zipper, task}, format)
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return nil, err
		}
	}
	if err := zipper.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// yielding yields to requests after each write.
type yielding struct {
	io.Writer
	task *background.Task
}

func (y yielding) Write(p []byte) (int, error) {
	y.task.Yield()
	return y.Writer.Write(p)
}

// takesGzip reports whether a client accepts the encoding gzip.
func takesGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, quality, _ := strings.Cut(part, ";")
		if strings.TrimSpace(name) == "gzip" {
			return strings.TrimSpace(quality) != "q=0"
		}
	}
	return false
}
