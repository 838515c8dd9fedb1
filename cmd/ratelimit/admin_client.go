package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// adminClient talks to the admin address of a running service.
type adminClient struct {
	Addr      string        `env:"ADMIN_ADDR" default:"${adminAddr}" help:"The service's admin address: host:port, or a URL."`
	TokenFile string        `placeholder:"FILE" env:"ADMIN_TOKEN_FILE" help:"File with its bearer token."`
	TLS       clientTLS     `embed:"" envprefix:"ADMIN_"`
	Timeout   time.Duration `default:"30s" env:"ADMIN_TIMEOUT" help:"How long to wait for one answer."`
}

// maxAnswer bounds an answer in bytes.
const maxAnswer = 256 << 20

// do sends a request and reads the answer into out. A problem is returned as one.
func (c *adminClient) do(method, path string, query url.Values, kind string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	answer, err := c.send(ctx, method, path, query, kind, body)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return c.read(answer, out)
}

// errUnreachable is for a service that does not answer at all.
var errUnreachable = errors.New("is `ratelimit serve` running, and is this its --admin-addr?")

// send sends a request and returns the answer, of which the body is to be closed. The
// error wraps errUnreachable if there is none.
func (c *adminClient) send(ctx context.Context, method, path string, query url.Values, kind string, body []byte) (*http.Response, error) {
	base := c.Addr
	if !strings.Contains(base, "://") {
		scheme := "http"
		if c.TLS.on() {
			scheme = "https"
		}
		base = scheme + "://" + base
	}
	target, err := url.Parse(base)
	if err != nil || target.Host == "" {
		return nil, fmt.Errorf("--addr %s: write host:port, or http://host:port", c.Addr)
	}
	target.Path, target.RawQuery = path, query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	if c.TokenFile != "" {
		token, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	secure, err := c.TLS.config()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: secure, Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	answer, err := transport.RoundTrip(request) // redirects would take the token elsewhere
	if err != nil {
		return nil, fmt.Errorf("cannot reach %s: %w (%w)", target.Host, errUnreachable, err)
	}
	return answer, nil
}

func (c *adminClient) read(answer *http.Response, out any) error {
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("the answer of %s ends too soon: %w", c.Addr, err)
	}
	if answer.StatusCode >= 400 {
		var p adminProblem
		if err := json.Unmarshal(text, &p); err != nil || p.Title == "" {
			return fmt.Errorf("%s answered %s: %.200s", c.Addr, answer.Status, text)
		}
		return &p
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s answered what is no answer of the admin API: %w", c.Addr, err)
	}
	return nil
}

// adminProblem is a problem document.
type adminProblem struct {
	Title, Detail string
	Status        int
	Problems      []adminRuleProblem
}

// adminRuleProblem is one thing wrong, or odd, with rules that were sent.
type adminRuleProblem struct {
	Path, What, Remedy string
	Line, Column       int
}

// Error implements error.
func (p *adminProblem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	if p.Status == http.StatusUnauthorized {
		return p.Detail + ": give its file by --token-file"
	}
	return p.Detail
}

// in returns the problem as `check` would print it of a file.
func (p adminRuleProblem) in(file string) string {
	var b strings.Builder
	b.WriteString(file)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if p.Path != "" {
		b.WriteString(": " + p.Path)
	}
	b.WriteString(": " + p.What)
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// report prints everything that is wrong with a file, if err is about that; then
// it returns errReported.
func report(out io.Writer, file string, err error) error {
	p, ok := errors.AsType[*adminProblem](err)
	if !ok || len(p.Problems) == 0 {
		return err
	}
	for _, wrong := range p.Problems {
		fmt.Fprintln(out, wrong.in(file))
	}
	fmt.Fprintln(out, count(len(p.Problems), "error"))
	return errReported
}
