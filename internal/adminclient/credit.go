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

// Credit gives hits back to the counters of a descriptor, or, if limit is not empty, to
// the counters of the limit of that name or of the rule of that path. It writes to out
// what each counter got, as a table or, if inJSON, as the service sends it.
func (c *Client) Credit(out io.Writer, domain string, entries descriptor.Entries, hits int64, limit string, inJSON bool) error {
	body, err := json.Marshal(map[string]any{"domain": domain, "entries": []descriptor.Entry(entries), "hits": hits, "limit": limit})
	if err != nil {
		return err
	}
	var text json.RawMessage
	if err := c.Do(http.MethodPost, "/admin/credit", nil, "application/json", body, &text); err != nil {
		return err
	}
	if inJSON {
		return indent(out, text)
	}
	var result struct {
		Counters []struct {
			Rule, Name       string
			Given, Remaining int64
			Reset            float64 `json:"reset_after_seconds"`
		}
	}
	if err := json.Unmarshal(text, &result); err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "RULE\tLIMIT\tGIVEN\tREMAINING\tRESET")
	for _, c := range result.Counters {
		name := c.Name
		if name == "" {
			name = "-"
		}
		reset := time.Duration(c.Reset * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%v\n", c.Rule, name, c.Given, c.Remaining, reset)
	}
	return table.Flush()
}
