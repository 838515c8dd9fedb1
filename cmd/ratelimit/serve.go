package main

import (
	"errors"
	"os"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/internal/app"
	"github.com/distlimiter/ratelimit/internal/commandline"
	"github.com/distlimiter/ratelimit/internal/settings"
)

type serveCmd struct {
	settings.Service

	signals *app.Signals
	opts    app.Options // made by Validate
}

// BeforeReset is the first that happens to the command: from here on no signal is missed.
func (c *serveCmd) BeforeReset() error { //nolint:unparam // kong has it so
	c.signals = app.CatchSignals()
	return nil
}

// Validate refuses values that the service cannot work with.
func (c *serveCmd) Validate(command *kong.Context) (err error) {
	if c.opts, err = c.Options(buildVersion(), os.Getenv, commandline.FieldNames(command.Selected())); err != nil {
		return err
	}
	c.opts.Warnings = append(c.opts.Warnings, commandline.WithoutEffect(command)...)
	return c.opts.Check()
}

// Run serves until a signal or a failure ends it.
func (c *serveCmd) Run(con console) error {
	o := c.opts
	o.Log.To = con.err
	o.Started = func(s app.Started) { welcome(con.out, s, o.Log.JSON) }
	err := app.Run(o, c.signals)
	if errors.Is(err, app.ErrLogged) {
		return errReported
	}
	return err
}
