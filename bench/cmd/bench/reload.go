package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/distlimiter/ratelimit/bench/reload"
)

type reloadCmd struct {
	Build    string        `placeholder:"PATH" help:"The build to measure. Default: the directory above."`
	Rules    int           `default:"100000" help:"How many rules the file has."`
	Every    time.Duration `default:"3s" help:"How often to save it again."`
	All      bool          `help:"Change every rule each time, not just one."`
	Rate     float64       `help:"Requests a second. Default: half of what saturates the service."`
	Duration time.Duration `default:"30s" help:"How long to measure."`
	Core     int           `default:"-1" help:"The core for the service. -1: any."`
	LoadCore int           `default:"1" help:"The core for the load."`
}

func (c *reloadCmd) Run(ctx context.Context) error {
	o := reload.Options{Service: c.Build, Rules: c.Rules, Every: c.Every, All: c.All, Rate: c.Rate, Duration: c.Duration, Core: c.Core}
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
	r, err := reload.Run(ctx, o)
	if err != nil {
		return err
	}
	return r.Write(os.Stdout)
}
