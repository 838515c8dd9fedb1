package main

import (
	"context"
	"time"

	"github.com/distlimiter/ratelimit/bench/reload"
)

type reloadCmd struct {
	single
	Rules    int           `default:"100000" help:"How many rules the file has."`
	Every    time.Duration `default:"3s" help:"How often to save it again."`
	All      bool          `help:"Change every rule each time, not just one."`
	Rate     float64       `help:"Requests a second. Default: half of what saturates the service."`
	Duration time.Duration `default:"30s" help:"How long to measure."`
	Core     int           `default:"-1" help:"The core for the service. -1: any."`
}

func (c *reloadCmd) Run(ctx context.Context) error {
	return measure(c.single, func(service string) (*reload.Result, error) {
		return reload.Run(ctx, reload.Options{Service: service, Rules: c.Rules, Every: c.Every, All: c.All, Rate: c.Rate, Duration: c.Duration, Core: c.Core})
	})
}
