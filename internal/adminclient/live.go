package adminclient

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// Live selects decisions to show as they happen.
type Live struct {
	Domain   string // empty: of any domain
	Rule     string // path of a rule, or name of a limit; empty: of any
	Verdicts string // names with commas between them; empty: any
	JSON     bool   // show each as the API sends it, instead of a table
	// ReconnectAfter is how long to wait before reconnecting to a service that has ended the
	// stream or has gone away.
	ReconnectAfter time.Duration
}

// Tail writes decisions to out as they happen, until ctx ends. It writes to notes when
// decisions may be missing. It reconnects whenever a stream has ended, and fails if the
// first attempt does.
func (c *Client) Tail(ctx context.Context, l Live, out, notes io.Writer) error {
	shown := liveTable{out: out, notes: notes, json: l.JSON, filtered: l.Domain+l.Rule+l.Verdicts != ""}
	for ever := false; ; {
		connected, err := c.follow(ctx, l, shown.event)
		ever = ever || connected
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end of ctx is the cause
		case err != nil && (!ever || !mayPass(err)):
			return err
		case connected:
			fmt.Fprintf(notes, "%s has ended the stream: connecting again\n", c.Addr)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(l.ReconnectAfter):
		}
	}
}

// mayPass reports whether to try again after an error.
func mayPass(err error) bool {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p.Status == http.StatusTooManyRequests || p.Status >= 500
	}
	_, away := errors.AsType[*UnreachableError](err)
	return away
}

// longestSilence is the time after which a stream is taken for dead: the service sends a
// comment every 10 s.
const longestSilence = 30 * time.Second

// follow hands events to each until the stream ends, and reports whether there was a
// stream.
func (c *Client) follow(ctx context.Context, l Live, each func(event string, data []byte) error) (connected bool, err error) {
	query := given(map[string]string{"domain": l.Domain, "rule": l.Rule, "verdict": l.Verdicts})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(c.Timeout, cancel)
	defer silence.Stop()
	answer, err := c.send(ctx, http.MethodGet, "/admin/live", query, "", nil)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return false, c.read(answer, nil)
	}
	event := ""
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		silence.Reset(max(c.Timeout, longestSilence))
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "": // a comment, of a stream in which nothing happens
			if strings.HasPrefix(lines.Text(), ":") {
				if err := each("silence", nil); err != nil {
					return connected, err
				}
			}
		case "event":
			connected, event = true, value
		case "data":
			if err := each(event, []byte(value)); err != nil {
				return connected, err
			}
		}
	}
	return connected, nil // however it ended, try again
}

// liveTable prints events.
type liveTable struct {
	out, notes io.Writer
	json       bool
	begun      bool
	any        bool // whether there was a decision, or word that there is none
	filtered   bool
}

// decision is a decision as the API sends it.
type decision struct {
	Time              time.Time
	Verdict, Domain   string
	Entries           []descriptor.Entry
	Abridged, Brought bool
	Rule, Limit       string
	Left              *int64
	Reset             float64 `json:"reset_seconds"`
	Error             string
	Sampled           int
	Lost              uint64 // of the event of that name
}

func (t *liveTable) event(event string, data []byte) error {
	if event == "begin" {
		if !t.json && !t.begun {
			t.begun = true
			return t.line("TIME", "VERDICT", "DOMAIN", "DESCRIPTOR", "RULE", "LEFT", "RESET", "LIMIT")
		}
		return nil
	}
	before := t.any
	t.any = true
	if event == "silence" {
		switch {
		case before:
		case t.filtered:
			fmt.Fprintln(t.notes, "no such decision for 10 s: leave out domain, rule and verdict to see all that come")
		default:
			fmt.Fprintln(t.notes, "no request for 10 s: Envoy asks only on routes with actions in rate_limits, all of which make their entry, and with this service in its filter's rate_limit_service")
		}
		return nil
	}
	var d decision
	if err := json.Unmarshal(data, &d); err != nil {
		return fmt.Errorf("the stream has something other than events of the admin API: %w", err)
	}
	switch {
	case event == "lost":
		fmt.Fprintf(t.notes, "%d decisions were not shown: they came faster than they were read\n", d.Lost)
	case event != "decision":
	case t.json:
		_, err := fmt.Fprintf(t.out, "%s\n", data)
		return err
	default:
		return t.decision(&d)
	}
	return nil
}

func (t *liveTable) decision(d *decision) error {
	entries := descriptor.Entries(d.Entries).String()
	if d.Abridged {
		entries += "…"
	}
	left, reset, rule, limit := "-", "-", "-", d.Limit
	if d.Left != nil {
		left = fmt.Sprint(*d.Left)
		reset = time.Duration(d.Reset * float64(time.Second)).Round(time.Millisecond).String()
	}
	switch {
	case d.Rule != "":
		rule = d.Rule
	case d.Brought:
		rule = "(of the request)"
	}
	if d.Error != "" {
		limit = d.Error
	}
	if d.Sampled > 1 {
		limit += fmt.Sprintf("  (1 of %d)", d.Sampled)
	}
	return t.line(d.Time.Local().Format("15:04:05.000"), d.Verdict, d.Domain, entries, rule, left, reset, limit)
}

func (t *liveTable) line(at, verdict, domain, descriptor, rule, left, reset, limit string) error {
	text := fmt.Sprintf("%-12s  %-9s  %-12s  %-32s  %-20s  %8s  %8s  %s", at, verdict, domain, descriptor, rule, left, reset, limit)
	_, err := fmt.Fprintln(t.out, strings.TrimRight(text, " "))
	return err
}
