package main

import (
	"context"
	"time"

	"github.com/distlimiter/ratelimit/bench/watch"
)

type watchCmd struct {
	single
	Watchers []int         `default:"0,1,3" help:"Numbers of watchers to compare with the first of them."`
	Rounds   int           `default:"15" help:"How often to measure each."`
	Duration time.Duration `default:"1s" help:"How long each measurement takes."`
	Rate     float64       `help:"Requests a second. Default: as many as are answered."`
	Core     int           `default:"0" help:"The core for the service. -1: any."`
}

func (c *watchCmd) Run(ctx context.Context) error {
	return measure(c.single, func(service string) (*watch.Result, error) {
		return watch.Run(ctx, watch.Options{Service: service, Watchers: c.Watchers, Rounds: c.Rounds, Duration: c.Duration, Rate: c.Rate, Core: c.Core})
	})
}
