package scrape_test

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/distlimiter/ratelimit/internal/scrape"
)

// gated is a Gatherer that tells when it begins and waits until it may go on.
type gated struct {
	prometheus.Gatherer
	began   chan struct{}
	goOn    chan struct{}
	running atomic.Int32
}

func newGated(g prometheus.Gatherer) *gated {
	return &gated{Gatherer: g, began: make(chan struct{}), goOn: make(chan struct{})}
}

func (g *gated) Gather() ([]*dto.MetricFamily, error) {
	if g.running.Add(1) > 1 {
		panic("two at a time")
	}
	defer g.running.Add(-1)
	g.began <- struct{}{}
	<-g.goOn
	return g.Gatherer.Gather()
}

// waiting is a context that tells when somebody begins to wait for it.
type waiting struct {
	context.Context
	begun chan struct{}
}

func (w waiting) Done() <-chan struct{} {
	w.begun <- struct{}{}
	return w.Context.Done()
}

// begin sends a scrape and returns when it waits. The channel delivers its answer.
func begin(ctx context.Context, h http.Handler, headers ...string) <-chan *httptest.ResponseRecorder {
	w := waiting{ctx, make(chan struct{})}
	r := httptest.NewRequestWithContext(w, http.MethodGet, "/metrics", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	got := make(chan *httptest.ResponseRecorder, 1)
	go func() {
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, r)
		got <- answer
	}()
	<-w.begun
	return got
}

func newCounter() (*prometheus.Registry, prometheus.Counter) {
	r, c := prometheus.NewRegistry(), prometheus.NewCounter(prometheus.CounterOpts{Name: "calls", Help: "So many."})
	r.MustRegister(c)
	return r, c
}

// TestScrapesAtATimeShareTheWork holds that scrapes that come while one is served
// are served together, and get what was counted before they came.
func TestScrapesAtATimeShareTheWork(t *testing.T) {
	registry, calls := newCounter()
	g := newGated(registry)
	h := scrape.New(g)
	first := begin(t.Context(), h)
	<-g.began
	calls.Inc()
	var later []<-chan *httptest.ResponseRecorder
	for range 20 {
		later = append(later, begin(t.Context(), h))
	}
	g.goOn <- struct{}{}
	if got := <-first; got.Code != http.StatusOK {
		t.Errorf("the first: %d %s", got.Code, got.Body)
	}
	<-g.began
	g.goOn <- struct{}{}
	for _, l := range later { // a third gathering would wait for ever
		if got := (<-l).Body.String(); !strings.Contains(got, "\ncalls 1\n") {
			t.Fatalf("a later one: %s", got)
		}
	}
}

// TestFormatsWaitForEachOther holds that scrapes which ask for other formats are
// not gathered for at the same time: newGated panics.
func TestFormatsWaitForEachOther(t *testing.T) {
	registry, _ := newCounter()
	g := newGated(registry)
	h := scrape.New(g)
	const protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
	text, binary := begin(t.Context(), h), begin(t.Context(), h, "Accept", protobuf)
	for range 2 {
		<-g.began
		g.goOn <- struct{}{}
	}
	if got := (<-text).Header().Get("Content-Type"); !strings.HasPrefix(got, "text/plain") {
		t.Errorf("got %s", got)
	}
	if got := (<-binary).Header().Get("Content-Type"); !strings.HasPrefix(got, "application/vnd.google.protobuf") {
		t.Errorf("got %s", got)
	}
}

// TestScrapesThatLeave are not gathered for.
func TestScrapesThatLeave(t *testing.T) {
	registry, _ := newCounter()
	g := newGated(registry)
	h := scrape.New(g)
	first := begin(t.Context(), h)
	<-g.began
	leaving, leave := context.WithCancel(t.Context())
	left := begin(leaving, h)
	leave()
	<-left
	g.goOn <- struct{}{}
	<-first
	// The next one that begins is that of this scrape: there is nobody before it.
	last := begin(t.Context(), h)
	<-g.began
	g.goOn <- struct{}{}
	<-last
}

// TestAnswersAreThoseOfPromhttp compares what clients get.
func TestAnswersAreThoseOfPromhttp(t *testing.T) {
	registry, calls := newCounter()
	calls.Add(7)
	ours, theirs := scrape.New(registry), promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	for name, test := range map[string]struct {
		headers map[string]string
		gzip    bool
	}{
		"curl":       {nil, false},
		"Prometheus": {map[string]string{"Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", "Accept-Encoding": "gzip"}, true},
		"several":    {map[string]string{"Accept-Encoding": "br, gzip;q=0.5"}, true},
		"not gzip":   {map[string]string{"Accept-Encoding": "br, gzip;q=0"}, false},
		"protobuf":   {map[string]string{"Accept": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			read := func(h http.Handler) (kind, body, encoding string) {
				r, w := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil), httptest.NewRecorder()
				for k, v := range test.headers {
					r.Header.Set(k, v)
				}
				h.ServeHTTP(w, r)
				var text io.Reader = w.Body
				if encoding = w.Header().Get("Content-Encoding"); encoding == "gzip" {
					zipped, err := gzip.NewReader(w.Body)
					if err != nil {
						t.Fatal(err)
					}
					text = zipped
				}
				all, err := io.ReadAll(text)
				if err != nil {
					t.Fatal(err)
				}
				return w.Header().Get("Content-Type"), string(all), encoding
			}
			kind, body, encoding := read(ours)
			wantKind, wantBody, _ := read(theirs)
			if kind != wantKind || body != wantBody || (encoding == "gzip") != test.gzip {
				t.Errorf("got %s, %q and %q; want %s and %q", kind, body, encoding, wantKind, wantBody)
			}
		})
	}
}

// TestWhatCannotBeGathered is an error, and the next scrape is served.
func TestWhatCannotBeGathered(t *testing.T) {
	fails := true
	h := scrape.New(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		if fails {
			return nil, errors.New("two of one name")
		}
		return nil, nil
	}))
	for _, want := range []int{http.StatusInternalServerError, http.StatusOK} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		if w.Code != want || fails && !strings.Contains(w.Body.String(), "two of one name") {
			t.Errorf("got %d %s, want %d", w.Code, w.Body, want)
		}
		fails = false
	}
}
