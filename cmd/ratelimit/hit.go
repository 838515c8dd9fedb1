package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/hit"
)

type hitCmd struct {
	Descriptors []descriptor.Entries `arg:"" sep:"none" name:"descriptor" help:"Descriptors of each request, such as user=alice,path=/x. Write \\, for a comma in a value."`

	Domain      string        `short:"d" required:"" placeholder:"NAME" help:"Domain of the rules."`
	Addr        string        `env:"GRPC_ADDR" default:"${grpcAddr}" help:"Where the service answers gRPC."`
	Requests    int           `short:"n" default:"1" help:"How many requests to send."`
	Hits        int64         `default:"1" help:"Hits of each request: 0 looks without charging, a negative number (--hits=-5) gives back."`
	Rate        float64       `placeholder:"PER-SECOND" help:"Requests per second. The default is as fast as they are answered."`
	Concurrency int           `short:"c" default:"1" help:"How many requests are in flight at a time."`
	Timeout     time.Duration `default:"5s" help:"How long to wait for each answer."`
	Output      string        `short:"o" enum:"table,json" default:"table" help:"table, or json: one answer a line, with the fields of gRPC."`

	TLS   clientTLS   `embed:"" envprefix:"GRPC_"`
	Admin adminClient `embed:"" prefix:"admin-"`
}

// longestPause is the longest time between two requests.
const longestPause = 366 * 24 * time.Hour

// errOverLimit ends the command with exitOver.
var errOverLimit = errors.New("over limit")

// Help describes the table that the command prints.
func (hitCmd) Help() string {
	return `It prints one line for each descriptor of each request: its code, the limit that decided, how many hits remain and after how long the counter resets. It also shows which rule refused, when a rule refuses nothing because it is in shadow mode, and why no limit applies, as far as the admin address (--admin-addr) answers.

Exit codes: 0 all requests were OK, 4 one was OVER_LIMIT, 1 one was not answered.

Example: ratelimit hit --domain edge user=alice -n 20`
}

func (c *hitCmd) Validate() error {
	switch {
	case c.Requests < 1:
		return fmt.Errorf("--requests: %d requests: use at least 1", c.Requests)
	case c.Concurrency < 1:
		return fmt.Errorf("--concurrency: %d in flight: use at least 1", c.Concurrency)
	case c.Rate < 0 || c.Rate > float64(time.Second) || math.IsNaN(c.Rate):
		return fmt.Errorf("--rate: %v a second: use a number above 0, or none for as fast as possible", c.Rate)
	case c.Rate > 0 && float64(time.Second)/c.Rate > float64(longestPause):
		return fmt.Errorf("--rate: %v a second: use at least one a year", c.Rate)
	case c.Hits == math.MinInt64:
		return fmt.Errorf("--hits: %d is out of range", c.Hits)
	}
	return cmp.Or(positive("--timeout", c.Timeout), positive("--admin-timeout", c.Admin.Timeout))
}

func (c *hitCmd) Run(con console) error {
	transport := insecure.NewCredentials()
	if c.TLS.on() {
		secure, err := c.TLS.config()
		if err != nil {
			return err
		}
		transport = credentials.NewTLS(secure)
	}
	conn, err := grpc.NewClient(c.Addr, grpc.WithTransportCredentials(transport))
	if err != nil {
		return fmt.Errorf("--addr %s: %w: write host:port", c.Addr, err)
	}
	defer conn.Close()
	requests := hit.Requests{
		Domain: c.Domain, Descriptors: c.Descriptors, Hits: c.Hits, Count: c.Requests,
		Rate: c.Rate, Concurrency: c.Concurrency, Timeout: c.Timeout, JSON: c.Output == "json",
	}
	result, err := requests.Send(conn, con.out)
	if err != nil {
		return c.explain(err)
	}
	c.sayWhy(con.err, &result)
	if result.OverLimit > 0 {
		return errOverLimit
	}
	return nil
}

// sayWhy prints which rules refused, or would have, and why no limit applies, if the admin
// address answers.
func (c *hitCmd) sayWhy(out io.Writer, r *hit.Result) {
	c.Admin.Timeout = min(c.Admin.Timeout, c.Timeout)
	client, failed := c.Admin.client()
	ask := func(d descriptor.Entries) (why descriptor.Explanation, ok bool) {
		if failed == nil {
			why, failed = client.Explain(c.Domain, d)
		}
		return why, failed == nil
	}
	for _, d := range r.Unlimited {
		why, ok := ask(d)
		switch {
		case !ok:
			fmt.Fprintf(out, "%s: no limit applies; ratelimit explain, or the service's admin address (--admin-addr), says why\n", d)
		case why.Outcome != descriptor.Matched:
			fmt.Fprintf(out, "%s: no limit applies: %s\n", d, why.Reason)
		}
	}
	for _, d := range r.Refused {
		if why, ok := ask(d); ok {
			if enforced, _ := why.Enforced(); len(enforced) > 0 {
				fmt.Fprintf(out, "%s: refused by %s\n", d, strings.Join(enforced, ", or by "))
			}
		}
	}
	for _, d := range r.Used {
		if why, ok := ask(d); ok {
			if _, shadow := why.Enforced(); len(shadow) > 0 {
				fmt.Fprintf(out, "%s: nothing is left, but in shadow mode, which refuses nothing, is %s\n", d, strings.Join(shadow, ", and "))
			}
		}
	}
}

// explain adds to an error of gRPC the flag that mends it.
func (c *hitCmd) explain(err error) error {
	switch s := status.Convert(err); {
	case s.Code() == codes.Unavailable && strings.Contains(s.Message(), "invalid target address"):
		return fmt.Errorf("--addr %s: write host:port: gRPC takes no URL", c.Addr)
	case s.Code() == codes.Unavailable && c.TLS.on() && strings.Contains(s.Message(), "tls: "):
		return fmt.Errorf("%s and this client do not trust each other: see --ca and --server-name, --cert and --key (%s)", c.Addr, s.Message())
	case s.Code() == codes.Unavailable && c.TLS.on() && c.TLS.Cert == "" && !strings.HasPrefix(s.Message(), "connection error"):
		// In TLS 1.3 a client that is refused because it has no certificate may already be
		// writing. It may find the connection closed before it reads the reason.
		return fmt.Errorf("%s closed the connection: does it want a certificate (--cert, --key)? (%s)", c.Addr, s.Message())
	case s.Code() == codes.Unavailable && !c.TLS.on() && strings.Contains(s.Message(), "server preface"):
		return fmt.Errorf("%s does not answer plain gRPC: does it want TLS (--tls, --ca)? (%s)", c.Addr, s.Message())
	case s.Code() == codes.Unavailable && (strings.HasPrefix(s.Message(), "connection error") || strings.HasPrefix(s.Message(), "name resolver error")):
		return fmt.Errorf("cannot reach %s: is `ratelimit serve` running, and is this its --grpc-addr? (%s)", c.Addr, s.Message())
	case s.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("no answer from %s within %v: raise --timeout, or look at the service's log", c.Addr, c.Timeout)
	default:
		return fmt.Errorf("%s answered %s: %s", c.Addr, s.Code(), s.Message())
	}
}
