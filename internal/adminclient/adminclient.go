// Package adminclient is the client of the admin address of a running service. It sends
// requests, reads answers and problems, and shows them as text.
package adminclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/config"
)

// Client talks to the admin address of a running service.
type Client struct {
	Addr    string      // host:port, or a URL, whose path begins all paths: a proxy's
	Token   string      // sent as the bearer token; empty for none
	TLS     *tls.Config // nil: plain HTTP, unless Addr is a URL that says otherwise
	Timeout time.Duration
}

// ErrAddr is the error of a client whose Addr is not an address.
var ErrAddr = errors.New("write host:port, or a URL such as http://host:port or https://proxy/path")

// UnreachableError is the error of a service that does not answer.
type UnreachableError struct {
	Host string
	Err  error
}

// Error implements error.
func (e *UnreachableError) Error() string { return fmt.Sprintf("cannot reach %s (%v)", e.Host, e.Err) }

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// maxAnswer bounds an answer in bytes.
const maxAnswer = 256 << 20

// Do sends a request and reads the answer into out. kind is the media type of the body.
// It returns a problem document as a *Problem.
func (c *Client) Do(method, path string, query url.Values, kind string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	answer, err := c.send(ctx, method, path, query, kind, body)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return c.read(answer, out)
}

// given returns the parameters that have a value.
func given(values map[string]string) url.Values {
	query := url.Values{}
	for name, value := range values {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}

// send sends a request and returns the answer, whose body the caller closes.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, kind string, body []byte) (*http.Response, error) {
	base := c.Addr
	if !strings.Contains(base, "://") {
		scheme := "http"
		if c.TLS != nil {
			scheme = "https"
		}
		base = scheme + "://" + base
	}
	target, err := url.Parse(base)
	switch {
	case err != nil, target.Host == "", target.Scheme != "http" && target.Scheme != "https",
		target.User != nil, target.RawQuery != "", target.Fragment != "": // none of which would be sent
		return nil, ErrAddr
	}
	target.Path, target.RawPath, target.RawQuery = strings.TrimSuffix(target.Path, "/")+path, "", query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	transport := &http.Transport{TLSClientConfig: c.TLS, Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	answer, err := transport.RoundTrip(request) // follows no redirect: it would take the token elsewhere
	if err != nil {
		return nil, &UnreachableError{target.Host, err}
	}
	return answer, nil
}

func (c *Client) read(answer *http.Response, out any) error {
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("the answer of %s is incomplete: %w", c.Addr, err)
	}
	if answer.StatusCode >= 400 {
		var p Problem
		if err := json.Unmarshal(text, &p); err != nil || p.Title == "" {
			return fmt.Errorf("%s answered %s: %.200s", c.Addr, answer.Status, text)
		}
		return &p
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s did not answer as the admin API does: %w", c.Addr, err)
	}
	return nil
}

// Problem is a problem document.
type Problem struct {
	Title, Detail string
	Status        int
	Problems      []config.Problem
}

// Error implements error.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Detail
}
