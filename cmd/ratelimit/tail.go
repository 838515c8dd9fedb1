package main

import (
	"cmp"
	"context"
	"os/signal"
	"syscall"
	"time"

	"github.com/distlimiter/ratelimit/internal/adminclient"
	"github.com/distlimiter/ratelimit/internal/live"
)

type tailCmd struct {
	adminClient
	Domain         string        `short:"d" placeholder:"NAME" help:"Only decisions of this domain."`
	Rule           string        `short:"r" placeholder:"PATH" help:"Only decisions of the rule with this path, as explain and rules list show it, or of the limit with this name."`
	Verdict        tailVerdicts  `short:"v" placeholder:"VERDICT,..." help:"Only decisions with these verdicts: ok, over, shadow, unmatched or error."`
	Output         string        `short:"o" enum:"table,json" default:"table" help:"table, or json: one object a line, as the API sends it."`
	ReconnectAfter time.Duration `name:"reconnect-after" default:"1s" help:"How long to wait before reconnecting."`
}

// tailVerdicts are names of known verdicts.
type tailVerdicts string

// UnmarshalText implements encoding.TextUnmarshaler.
func (v *tailVerdicts) UnmarshalText(text []byte) error {
	*v = tailVerdicts(text)
	return new(live.Verdicts).UnmarshalText(text)
}

// Validate refuses to reconnect without a pause.
func (c *tailCmd) Validate() error {
	return cmp.Or(c.adminClient.Validate(), positive("--reconnect-after", c.ReconnectAfter))
}

// Help describes how to stop the command, and the sampling.
func (tailCmd) Help() string {
	return `It runs until it is interrupted (^C), and reconnects when the service has been restarted. A service that makes more than about 100 decisions a second shows a sample of them: each line then says for how many decisions it stands.

Example: ratelimit tail --domain edge --verdict over,shadow,unmatched`
}

func (c *tailCmd) Run(con console) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	client, err := c.client()
	if err != nil {
		return err
	}
	shown := adminclient.Live{Domain: c.Domain, Rule: c.Rule, Verdicts: string(c.Verdict), JSON: c.Output == "json", ReconnectAfter: c.ReconnectAfter}
	return c.explain(client.Tail(ctx, shown, con.out, con.err))
}
