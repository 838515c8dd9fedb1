package rulefile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
)

// Bounds on the headers of one limit. Servers refuse requests whose headers are far
// larger.
const (
	maxHeaders     = 8
	maxHeaderName  = 64  // bytes
	maxHeaderValue = 256 // bytes
)

// rawHeader is a header as written.
type rawHeader struct {
	name  *yaml.Node
	value field[string]
}

// framing are headers that say where a request goes or how it is sent. A second value
// beside the client's would break the request.
var framing = []string{"host", "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

func (d *decoder) setRequestHeaders(raw *rawLimit, n *yaml.Node) {
	raw.requestHeaders = field[[]rawHeader]{}
	if yamlfile.IsNull(n) {
		return
	}
	raw.requestHeaders.n = n
	d.ownKeys(n, ownKeys{
		of: "request_headers", want: `write names and values, such as x-over-limit: "true"`, key: "the name of a header",
		empty: "a header without a name", again: "remove one of them",
	}, func(key, value *yaml.Node) {
		h := rawHeader{name: key}
		if yamlfile.IsNull(value) {
			d.problem(value, "a header without a value", "write a text")
			h.value.bad = true
		} else {
			d.text(value, &h.value)
		}
		raw.requestHeaders.v = append(raw.requestHeaders.v, h)
	})
}

// checkRequestHeaders refuses headers that can't be sent upstream.
func (d *decoder) checkRequestHeaders(raw *rawLimit, l *config.Limit) {
	d.push("request_headers")
	defer d.pop()
	written := raw.requestHeaders.v
	if len(written) > maxHeaders {
		d.problem(raw.requestHeaders.n, fmt.Sprintf("%d headers", len(written)), fmt.Sprintf("write at most %d", maxHeaders))
	}
	seen := make(map[string]bool, len(written))
	for _, h := range written {
		name, value := strings.ToLower(h.name.Value), h.value.v // names of HTTP/2 are in lower case
		problem := func(n *yaml.Node, what, remedy string) { d.problemIn(h.name.Value, n, what, remedy) }
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			problem(h.name, fmt.Sprintf("%q is not the name of a header", yamlfile.Abridge(h.name.Value)), "write letters, digits and -, such as x-over-limit")
		case len(name) > maxHeaderName:
			problem(h.name, fmt.Sprintf("a name longer than %d bytes", maxHeaderName), "write a shorter one")
		case slices.Contains(framing, name):
			problem(h.name, name+" says how a request is sent, and can't mark it", "write a name of your own, such as x-over-limit")
		case seen[name]:
			problem(h.name, fmt.Sprintf("the header %q for the second time", name), "remove one of them: upper and lower case are the same")
		case h.value.bad: // reported already
		case !httpguts.ValidHeaderFieldValue(value):
			problem(h.value.n, "a value with control characters", "write printable text in one line")
		case len(value) > maxHeaderValue:
			problem(h.value.n, fmt.Sprintf("a value longer than %d bytes", maxHeaderValue), "write a shorter one")
		}
		seen[name] = true
		l.RequestHeaders = append(l.RequestHeaders, config.Header{Name: name, Value: value})
	}
	slices.SortFunc(l.RequestHeaders, func(a, b config.Header) int { return cmp.Compare(a.Name, b.Name) })
}
