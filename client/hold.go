package client

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// HoldOptions say how requests name themselves to a rule with a hold. The zero value
// fits a rule with hold: {by: request_id, settled_by: {phase: done}}.
type HoldOptions struct {
	// By is the key of the entry that names the request: by of the hold. Empty: request_id.
	By string
	// SettledBy is the entry that settles: settled_by of the hold. Zero: phase=done.
	SettledBy Entry
	// Hits are what the request holds: the estimate of a reservation; 0: 1.
	Hits uint64
}

// Held is what one request holds: a place under an algorithm of concurrency, or hits that
// are reserved. It lasts until Settle, or until the rule's hold expires.
type Held struct {
	// Decision is the service's. Of a refusal nothing is held, and nothing is to settle.
	Decision

	settle func(ctx context.Context, hits uint64) error
	once   sync.Once
}

// Hold takes hits of a descriptor under rules with a hold, for a request with a new ID. An
// allowed request must settle, also after a failure:
//
//	held, err := limits.Hold(ctx, "edge", client.HoldOptions{}, client.Entry{Key: "user", Value: "alice"})
//	if err != nil || !held.Allowed {
//		return err
//	}
//	defer held.Settle(ctx, 1)
func (c *Client) Hold(ctx context.Context, domain string, o HoldOptions, entries ...Entry) (*Held, error) {
	if o.By == "" {
		o.By = "request_id"
	}
	if o.SettledBy == (Entry{}) {
		o.SettledBy = Entry{Key: "phase", Value: "done"}
	}
	if o.Hits == 0 {
		o.Hits = 1
	}
	asks := append(append(make([]Entry, 0, len(entries)+2), entries...), Entry{o.By, rand.Text()})
	if len(entries) == 0 {
		asks = nil // an error that says so
	}
	settle := func(ctx context.Context, hits uint64) error {
		d, err := c.ask(context.WithoutCancel(ctx), domain, append(asks, o.SettledBy), hits, false)
		if err == nil {
			err = d.Err
		}
		return err
	}
	d, err := c.ask(ctx, domain, asks, o.Hits, false)
	if undecided := errors.Join(err, d.Err); undecided != nil && !d.Allowed && (ctx.Err() != nil || status.Code(undecided) == codes.DeadlineExceeded) {
		// The service may have it, and nobody will settle. Nobody waits for this either.
		go func() { _ = settle(ctx, 0) }()
	}
	if err != nil {
		return nil, err
	}
	return &Held{Decision: d, settle: settle}, nil
}

// Settle gives back what the request holds and charges the hits that it has taken,
// whether or not there is room; concurrency charges nothing. It settles once: later calls
// and those after a refusal do nothing. That ctx has ended does not keep it from settling.
// After an error, which is returned in every mode, what is held lasts until it expires.
func (h *Held) Settle(ctx context.Context, hits uint64) (err error) {
	if !h.Allowed {
		return nil
	}
	h.once.Do(func() { err = h.settle(ctx, hits) })
	return err
}
