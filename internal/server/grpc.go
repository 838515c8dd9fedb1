package server

import (
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// streamWorkers is how many goroutines for each processor take up requests. They
// spare a request a goroutine of its own, whose stack would have to grow; beyond
// the requests in flight they gain nothing, and hundreds cost.
const streamWorkers = 32

// GRPCOptions are the options of a gRPC server that serves a Service well.
// Connections are asked to close after age and may then finish what is under way
// for grace.
func GRPCOptions(maxMessageBytes int, age, grace time.Duration) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.NumStreamWorkers(streamWorkers * uint32(runtime.GOMAXPROCS(0))),
		grpc.WaitForHandlers(true), // whoever stops the server wants to know of the last decision
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: age, MaxConnectionAgeGrace: grace}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}
