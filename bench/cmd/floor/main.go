// Command floor answers OK to all rate-limit requests over gRPC. It prints its address, as
// ratelimit does.
package main

import (
	"fmt"
	"net"

	"github.com/alecthomas/kong"
	"google.golang.org/grpc"

	"github.com/distlimiter/ratelimit/bench/floor"
)

type command struct {
	GRPCAddr string `name:"grpc-addr" default:"127.0.0.1:0" help:"Where to listen."`
	Options  string `enum:"default,same" default:"default" help:"Options of grpc-go: its defaults, or the same as ratelimit's."`
	Garbage  int    `placeholder:"MIB" help:"MiB of garbage to let pile up. Default: as Go does."`
}

func (c *command) Run() error {
	l, err := net.Listen("tcp", c.GRPCAddr)
	if err != nil {
		return err
	}
	fmt.Printf("gRPC    %s\n", l.Addr())
	var options []grpc.ServerOption
	if c.Options == "same" {
		options = floor.SameOptions()
	}
	if c.Garbage > 0 {
		floor.LetGarbagePileUp(uint64(c.Garbage) << 20)
	}
	return floor.New(options...).Serve(l)
}

func main() {
	k := kong.Parse(&command{}, kong.Description("A gRPC rate-limit service that answers OK."))
	k.FatalIfErrorf(k.Run())
}
