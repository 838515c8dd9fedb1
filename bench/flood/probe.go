package flood

import (
	"context"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// probe is an ordinary client with a connection of its own and little load.
type probe struct {
	conn    *grpc.ClientConn
	client  pb.RateLimitServiceClient
	latency *hdrhistogram.Histogram // of all requests, answered or refused, in µs
	refused map[codes.Code]int
	stop    context.CancelFunc
	ended   chan struct{}
}

// probeInterval is the time between two requests of a probe.
const probeInterval = 5 * time.Millisecond

// ask is a request of a client.
func ask(client string) *pb.RateLimitRequest {
	return &pb.RateLimitRequest{Domain: domain, Descriptors: []*common.RateLimitDescriptor{{
		Entries: []*common.RateLimitDescriptor_Entry{{Key: "user", Value: client}},
	}}}
}

// startProbe starts a probe. It returns after the first answer, so that the probe does not
// connect during the flood.
func startProbe(ctx context.Context, address string) (*probe, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	p := &probe{
		conn: conn, client: pb.NewRateLimitServiceClient(conn), stop: stop, ended: make(chan struct{}),
		latency: hdrhistogram.New(1, 60_000_000, 3), refused: map[codes.Code]int{},
	}
	if _, err := p.client.ShouldRateLimit(ctx, ask("probe"), grpc.WaitForReady(true)); err != nil {
		stop()
		conn.Close()
		return nil, err
	}
	go p.run(ctx)
	return p, nil
}

func (p *probe) run(ctx context.Context) {
	defer close(p.ended)
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		start := time.Now()
		_, err := p.client.ShouldRateLimit(ctx, ask("probe"))
		// Count a request that the end of the flood has cut off, too: it has waited that long.
		_ = p.latency.RecordValue(time.Since(start).Microseconds()) // within a minute
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			p.refused[status.Code(err)]++
		}
	}
}

// end ends the probe. Its measurements may then be read.
func (p *probe) end() {
	p.stop()
	<-p.ended
	p.conn.Close()
}

func (p *probe) at(percentile float64) time.Duration {
	return time.Duration(p.latency.ValueAtPercentile(percentile)) * time.Microsecond
}
