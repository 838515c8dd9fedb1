package adminclient

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// ruleStats are a running service's statistics of a rule.
type ruleStats struct {
	Key, Domain, Path string
	Totals            struct {
		Allowed, Denied, Errors uint64
		ShadowDenied            uint64 `json:"shadow_denied"`
		NearLimit               uint64 `json:"near_limit"`
	}
	Rates      map[string]struct{ Allowed, Denied float64 }
	LastDenied time.Time `json:"last_denied"`
	Candidates []struct {
		Limit  string
		Totals struct {
			Allowed, Errors uint64
			ShadowDenied    uint64 `json:"shadow_denied"`
			NearLimit       uint64 `json:"near_limit"`
		}
	}
	Hottest struct {
		Since    time.Time
		Counters []struct {
			Entries      []descriptor.Entry
			Abridged     bool
			Calls, Error int64
		}
	}
}

// Stats writes to out what the service has counted in a domain, or in all domains if
// domain is empty. With the key or path of a rule, it writes that rule's counts and
// hottest counters. The form is a table or, if inJSON, the service's own.
func (c *Client) Stats(out io.Writer, domain, key string, inJSON bool) error {
	path := "/admin/stats"
	if key != "" {
		of, err := c.KeyOf(domain, key)
		if err != nil {
			return err
		}
		path += "/" + of
		domain = "" // the key implies it
	}
	var text json.RawMessage
	if err := c.Do(http.MethodGet, path, given(map[string]string{"domain": domain}), "", nil, &text); err != nil {
		return err
	}
	if inJSON {
		return indent(out, text)
	}
	if key != "" {
		var one ruleStats
		if err := json.Unmarshal(text, &one); err != nil {
			return err
		}
		return one.print(out)
	}
	var all struct{ Rules []ruleStats }
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	return printStats(out, all.Rules)
}

func printStats(out io.Writer, rules []ruleStats) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEY\tDOMAIN\tRULE\tALLOWED\tDENIED\tSHADOW\tNEAR\tERRORS\tALLOWED/S\tDENIED/S\tLAST DENIED")
	for _, r := range rules {
		t, rate := r.Totals, r.Rates["1m"]
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%.1f\t%.1f\t%s\n", r.Key, r.Domain, r.Path,
			t.Allowed, t.Denied, t.ShadowDenied, t.NearLimit, t.Errors, rate.Allowed, rate.Denied, r.lastDenied())
		for _, c := range r.Candidates {
			t := c.Totals
			fmt.Fprintf(table, "%s\t%s\t%s: %s\t%d\t-\t%d\t%d\t%d\t-\t-\t-\n", r.Key, r.Domain, r.Path, c.Limit, t.Allowed, t.ShadowDenied, t.NearLimit, t.Errors)
		}
	}
	return table.Flush()
}

func (r *ruleStats) lastDenied() string {
	if r.LastDenied.IsZero() {
		return "-"
	}
	return r.LastDenied.UTC().Format(time.RFC3339)
}

func (r *ruleStats) print(out io.Writer) error {
	if err := printStats(out, []ruleStats{*r}); err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nPER SECOND\tALLOWED\tDENIED")
	for _, over := range []string{"1s", "1m", "1h"} {
		fmt.Fprintf(table, "over %s\t%.1f\t%.1f\n", over, r.Rates[over].Allowed, r.Rates[over].Denied)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	table = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "\nHOTTEST SINCE %s\tCALLS\t±\n", r.Hottest.Since.UTC().Format(time.RFC3339))
	for _, c := range r.Hottest.Counters {
		name := descriptor.Entries(c.Entries).String()
		if c.Abridged {
			name += "…"
		}
		fmt.Fprintf(table, "%s\t%d\t%d\n", name, c.Calls, c.Error)
	}
	return table.Flush()
}
