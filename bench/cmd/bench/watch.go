package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/distlimiter/ratelimit/bench/watch"
)

type watchCmd struct {
	Build    string        `placeholder:"PATH" help:"The build to measure. Default: the directory above."`
	Watchers []int         `default:"0,1,3" help:"Numbers of watchers to compare with the first of them."`
	Rounds   int           `default:"15" help:"How often to measure each."`
	Duration time.Duration `default:"1s" help:"How long each measurement takes."`
	Rate     float64       `help:"Requests a second. Default: as many as are answered."`
	Core     int           `default:"0" help:"The core for the service. -1: any."`
	LoadCore int           `default:"1" help:"The core for the load."`
}

func (c *watchCmd) Run(ctx context.Context) error {
	o := watch.Options{Service: c.Build, Watchers: c.Watchers, Rounds: c.Rounds, Duration: c.Duration, Rate: c.Rate, Core: c.Core}
	if o.Service == "" {
		dir, err := os.MkdirTemp("", "ratelimit-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o.Service = filepath.Join(dir, "ratelimit")
		if err := build(o.Service, "..", "./cmd/ratelimit"); err != nil {
			return err
		}
	}
	if err := quiet(c.LoadCore); err != nil {
		return err
	}
	r, err := watch.Run(ctx, o)
	if err != nil {
		return err
	}
	return r.Write(os.Stdout)
}
