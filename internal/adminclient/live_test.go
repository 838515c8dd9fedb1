package adminclient_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/adminclient"
)

// TestAStreamMayBeSilentForLongerThanAnAnswerMayTake: the timeout is that of an answer, and
// where nothing is decided a service sends something every 10 s only.
func TestAStreamMayBeSilentForLongerThanAnAnswerMayTake(t *testing.T) {
	const timeout = time.Second
	streams := 0
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		streams++
		fmt.Fprint(w, "event: begin\ndata: {}\n\n")
		_ = http.NewResponseController(w).Flush()
		if streams == 1 {
			select {
			case <-time.After(timeout * 3 / 2):
			case <-r.Context().Done():
				return
			}
		}
		fmt.Fprint(w, "event: decision\ndata: {\"verdict\":\"ok\",\"domain\":\"edge\"}\n\n")
	}))
	defer service.Close()
	ctx, stop := context.WithCancel(t.Context())
	client := &adminclient.Client{Addr: service.URL, Timeout: timeout}
	shown := untilShown{stop: stop}
	if err := client.Tail(ctx, adminclient.Live{ReconnectAfter: time.Millisecond}, &shown, io.Discard); err != nil {
		t.Fatal(err)
	}
	if streams != 1 {
		t.Errorf("there were %d streams", streams)
	}
}

// untilShown stops when a decision is shown.
type untilShown struct{ stop func() }

func (u *untilShown) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "edge") {
		u.stop()
	}
	return len(p), nil
}
