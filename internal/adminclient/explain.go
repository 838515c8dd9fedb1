package adminclient

import (
	"encoding/json"
	"net/http"

	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// Explain returns which rule of the running service decides a descriptor, and why.
func (c *Client) Explain(domain string, entries descriptor.Entries) (why descriptor.Explanation, err error) {
	body, err := json.Marshal(map[string]any{"domain": domain, "entries": []descriptor.Entry(entries)})
	if err != nil {
		return why, err
	}
	err = c.Do(http.MethodPost, "/admin/explain", nil, "application/json", body, &why)
	return why, err
}
