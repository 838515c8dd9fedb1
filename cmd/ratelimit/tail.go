package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/live"
)

type tailCmd struct {
	adminClient
	Domain  string        `short:"d" placeholder:"NAME" help:"Only decisions of this domain."`
	Rule    string        `short:"r" placeholder:"PATH" help:"Only decisions of the rule with this path, as explain and rules list show it, or of the limit with this name."`
	Verdict tailVerdicts  `short:"v" placeholder:"VERDICT,..." help:"Only decisions with these verdicts: ok, over, shadow, unmatched or error."`
	Output  string        `short:"o" enum:"table,json" default:"table" help:"table, or json with one object a line as the API sends it."`
	Again   time.Duration `name:"reconnect-after" default:"1s" help:"How long to wait before connecting again."`
}

// tailVerdicts are names of verdicts that are known.
type tailVerdicts string

// UnmarshalText implements encoding.TextUnmarshaler.
func (v *tailVerdicts) UnmarshalText(text []byte) error {
	*v = tailVerdicts(text)
	return new(live.Verdicts).UnmarshalText(text)
}

// Help says how to stop and what is shown.
func (tailCmd) Help() string {
	return `It goes on until it is interrupted (^C), and connects again when the service was restarted. A service that decides more than about a hundred times a second shows a sample: then a decision stands for as many as its line says.

Example: ratelimit tail --domain edge --verdict over,shadow,unmatched`
}

func (c *tailCmd) Run(con console) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	printer := tailPrinter{out: con.out, err: con.err, json: c.Output == "json"}
	for ever := false; ; {
		connected, err := c.follow(ctx, printer.event)
		ever = ever || connected
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && (!ever || !c.passes(err)):
			return err
		case connected:
			fmt.Fprintf(con.err, "%s has ended the stream: connecting again\n", c.Addr)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.Again):
		}
	}
}

// passes reports whether to try again after an error.
func (c *tailCmd) passes(err error) bool {
	if p, ok := errors.AsType[*adminProblem](err); ok {
		return p.Status == http.StatusTooManyRequests || p.Status >= 500
	}
	return errors.Is(err, errUnreachable)
}

// follow hands events to each until the stream ends, and reports whether there was one.
func (c *tailCmd) follow(ctx context.Context, each func(event string, data []byte) error) (connected bool, err error) {
	query := url.Values{}
	for name, value := range map[string]string{"domain": c.Domain, "rule": c.Rule, "verdict": string(c.Verdict)} {
		if value != "" {
			query.Set(name, value)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(c.Timeout, cancel) // a comment comes every few seconds
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
		silence.Reset(c.Timeout)
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "event":
			connected, event = true, value
		case "data":
			if err := each(event, []byte(value)); err != nil {
				return connected, err
			}
		}
	}
	return connected, nil // however it ended, there may be another
}

// tailPrinter prints events.
type tailPrinter struct {
	out, err io.Writer
	json     bool
	begun    bool
}

// tailed is a decision as the API sends it.
type tailed struct {
	Time              time.Time
	Verdict, Domain   string
	Entries           []descriptor.Entry
	Abridged, Brought bool
	Rule, Name, Limit string
	Left              *int64
	Reset             float64 `json:"reset_seconds"`
	Retry             float64 `json:"retry_seconds"`
	Error             string
	Sampled           int
	Lost              uint64 // of the event of that name
}

func (p *tailPrinter) event(event string, data []byte) error {
	if event == "begin" {
		if !p.json && !p.begun {
			p.begun = true
			p.line("TIME", "VERDICT", "DOMAIN", "DESCRIPTOR", "RULE", "LEFT", "RESET", "LIMIT")
		}
		return nil
	}
	var d tailed
	if err := json.Unmarshal(data, &d); err != nil {
		return fmt.Errorf("the stream holds what is no event of the admin API: %w", err)
	}
	switch {
	case event == "lost":
		fmt.Fprintf(p.err, "%d decisions were not shown: they came faster than they were read\n", d.Lost)
	case event != "decision":
	case p.json:
		fmt.Fprintf(p.out, "%s\n", data)
	default:
		p.decision(&d)
	}
	return nil
}

func (p *tailPrinter) decision(d *tailed) {
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
	if d.Name != "" {
		limit = d.Name + ": " + limit
	}
	if d.Error != "" {
		limit = d.Error
	}
	if d.Sampled > 1 {
		limit += fmt.Sprintf("  (1 of %d)", d.Sampled)
	}
	p.line(d.Time.Local().Format("15:04:05.000"), d.Verdict, d.Domain, entries, rule, left, reset, limit)
}

func (p *tailPrinter) line(at, verdict, domain, descriptor, rule, left, reset, limit string) {
	text := fmt.Sprintf("%-12s  %-9s  %-12s  %-32s  %-20s  %8s  %8s  %s", at, verdict, domain, descriptor, rule, left, reset, limit)
	fmt.Fprintln(p.out, strings.TrimRight(text, " "))
}
