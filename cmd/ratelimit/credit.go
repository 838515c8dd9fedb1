package main

import (
	"fmt"
	"math"

	"github.com/distlimiter/ratelimit/internal/descriptor"
)

type creditCmd struct {
	Descriptor descriptor.Entries `arg:"" name:"descriptor" help:"The descriptor, such as user=alice,path=/x. Write \\, for a comma in a value."`

	Domain string `short:"d" required:"" placeholder:"NAME" help:"Domain of the rules."`
	Hits   int64  `required:"" placeholder:"N" help:"How many hits to give back to each counter."`
	Limit  string `placeholder:"NAME" help:"Only counters of the limit with this name, or of the rule with this path, such as limits.budget. The default is all that apply, except those that all descriptors share."`
	adminClient
	Output string `short:"o" enum:"table,json" default:"table" help:"table, or json as the API returns it."`
}

// Help describes how many hits a counter gets back.
func (creditCmd) Help() string {
	return `A counter gets back at most what was used of it, because it never holds more than its limit. The command prints what each counter got back and what remains. It fails if nothing was used: to allow more, raise the limit.

Example: ratelimit credit --domain edge user=alice --hits 20`
}

func (c *creditCmd) Validate() error {
	if c.Hits < 1 || c.Hits > math.MaxUint32 {
		return fmt.Errorf("--hits: %d: use 1 to %d", c.Hits, uint32(math.MaxUint32))
	}
	return c.adminClient.Validate()
}

func (c *creditCmd) Run(con console) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return c.explain(client.Credit(con.out, c.Domain, c.Descriptor, c.Hits, c.Limit, c.Output == "json"))
}
