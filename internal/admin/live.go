package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/distlimiter/ratelimit/internal/live"
)

const livePath = "/admin/live"

const (
	// liveSilence is the time without a decision after which a comment is sent. It
	// detects a watcher that is gone, and shows a watcher that the service is alive.
	liveSilence = 10 * time.Second
	// liveTimeout is the time that a watcher has to read each event.
	liveTimeout = 10 * time.Second
)

// liveBegin is the first event of a stream.
type liveBegin struct {
	Time      time.Time `json:"time"`
	PerSecond int       `json:"per_second"`
}

type liveLost struct {
	Lost uint64 `json:"lost"`
}

// watch sends decisions as server-sent events until the client leaves or the service
// stops.
func (a api) watch(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	filter := live.Filter{Domain: query.Get("domain"), Rule: query.Get("rule")}
	if err := filter.Verdicts.UnmarshalText([]byte(query.Get("verdict"))); err != nil {
		return refuse(http.StatusBadRequest, "verdict: %v", err)
	}
	watcher, err := a.Live.Watch(filter)
	switch {
	case errors.Is(err, live.ErrTooMany):
		w.Header().Set("Retry-After", "10")
		return refuse(http.StatusTooManyRequests, "%v: close one, or try again later", err)
	case err != nil:
		return refuse(http.StatusServiceUnavailable, "%v", err)
	}
	defer watcher.Close()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold decisions back
	s := stream{w, http.NewResponseController(w)}
	if s.send("begin", liveBegin{time.Now(), live.PerSecond}) != nil {
		return nil // the client has left, here and below
	}
	for {
		silence := time.NewTimer(liveSilence)
		select {
		case e := <-watcher.Events():
			silence.Stop()
			if lost := watcher.Lost(); lost > 0 && s.send("lost", liveLost{lost}) != nil {
				return nil
			}
			if s.send("decision", e) != nil {
				return nil
			}
		case <-silence.C:
			if s.write(": nothing for a while\n\n") != nil {
				return nil
			}
		case <-watcher.Done():
			silence.Stop()
			return nil
		case <-r.Context().Done():
			silence.Stop()
			return nil
		}
	}
}

// stream writes server-sent events.
type stream struct {
	w          http.ResponseWriter
	controller *http.ResponseController
}

func (s stream) send(event string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.write(fmt.Sprintf("event: %s\ndata: %s\n\n", event, data))
}

// write sends text at once. It extends the server's deadline for writing an answer.
func (s stream) write(text string) error {
	if err := s.controller.SetWriteDeadline(time.Now().Add(liveTimeout)); err != nil {
		return err
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.controller.Flush()
}
