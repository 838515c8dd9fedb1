package admin

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	"github.com/pb33f/libopenapi-validator/schema_validation"

	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/live"
)

// watchStream asks for decisions and returns the status of the answer, its header and
// what reads its next event.
func watchStream(t *testing.T, f *fixture, query string) (code int, header http.Header, next func() (event, data string)) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	t.Cleanup(leave)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.server.URL+"/admin/live"+query, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	lines := bufio.NewScanner(answer.Body)
	return answer.StatusCode, answer.Header, func() (event, data string) {
		for lines.Scan() {
			switch name, value, _ := strings.Cut(lines.Text(), ": "); name {
			case "event":
				event = value
			case "data":
				data = value
			case "":
				if event != "" {
					return event, data
				}
			}
		}
		return "end", ""
	}
}

// TestLiveDecisions: a stream begins at once, has the decisions that its filter selects
// in the form of openapi.yaml, counts lost decisions, and ends with the feed.
func TestLiveDecisions(t *testing.T) {
	feed := new(live.Feed)
	f := newFixture(t, func(o *Options) { o.Live = feed })
	code, header, next := watchStream(t, f, "?domain=edge&verdict=over")
	if kind := header.Get("Content-Type"); code != http.StatusOK || kind != "text/event-stream" {
		t.Fatalf("%d, %s", code, kind)
	}
	if event, data := next(); event != "begin" || !strings.Contains(data, fmt.Sprintf(`"per_second":%d`, live.PerSecond)) {
		t.Errorf("%s %s", event, data)
	}
	left := int64(0)
	offer := func(user string) {
		feed.Watchers().Offer(&live.Subject{Domain: "edge", Rule: "user", Verdict: live.Over}, func() live.Decision {
			d := live.Decision{Time: time.Now(), Verdict: live.Over, Rule: "user", Limit: "fixed_window, 5 per minute", Left: &left, Hits: 1, ResetSeconds: 3, RetrySeconds: 3}
			d.SetRequest("edge", []descriptor.Entry{{Key: "user", Value: user}})
			return d
		})
	}
	feed.Watchers().Offer(&live.Subject{Domain: "edge", Verdict: live.OK}, func() live.Decision {
		t.Error("a decision that no filter matches was described")
		return live.Decision{}
	})
	offer("a\nevent: x\n\n<b>\u2028")
	event, data := next()
	if event != "decision" || !strings.Contains(data, `"value":"a\nevent: x\n\n\u003cb\u003e\u2028"`) {
		t.Errorf("%s %s", event, data)
	}
	document, err := libopenapi.NewDocument(openapi)
	if err != nil {
		t.Fatal(err)
	}
	model, errs := document.BuildV3Model()
	if errs != nil {
		t.Fatal(errs)
	}
	schema := model.Model.Components.Schemas.GetOrZero("Decision").Schema()
	if ok, wrong := schema_validation.NewSchemaValidator().ValidateSchemaString(schema, data); !ok {
		t.Errorf("%s\n%s", data, texts(wrong))
	}
	feed.Close()
	if event, data := next(); event != "end" {
		t.Errorf("after the end: %s %s", event, data)
	}
	if again, _, _ := watchStream(t, f, ""); again != http.StatusServiceUnavailable {
		t.Errorf("a closed feed: %d", again)
	}
}

func TestWatchersAreBounded(t *testing.T) {
	feed := new(live.Feed)
	f := newFixture(t, func(o *Options) { o.Live = feed })
	for range live.MaxWatchers {
		if code, _, _ := watchStream(t, f, ""); code != http.StatusOK {
			t.Fatal(code)
		}
	}
	if code, header, _ := watchStream(t, f, ""); code != http.StatusTooManyRequests || header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d", code)
	}
	feed.Close() // else the server would wait for them
}

// TestLiveDecisionsAreNotForAnyone: they hold values that clients send.
func TestLiveDecisionsAreNotForAnyone(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Live, o.Access = new(live.Feed), Access{ReadOnly: true, public: true} })
	f.send(t, http.MethodGet, "/admin/live", "").problem(t, http.StatusForbidden, readOnly)
}
