// Package xds owns rules that come from a control plane, such as Envoy Gateway. It follows
// a state-of-the-world server's resources of type
// ratelimit.config.ratelimit.v3.RateLimitConfig and provides them as sources in the
// grammar of rule files. Their meaning is left to package config.
package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// rulesType is the type of resources that hold rules. go-control-plane's package resource
// has it too, and has all types of Envoy's configuration compiled and linked.
const rulesType = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"

// Options say which server to follow, and how.
type Options struct {
	// Server is a gRPC target, such as "localhost:18000". Required.
	Server string
	// Credentials of the connection. Required; insecure.NewCredentials() for none.
	Credentials credentials.TransportCredentials
	// NodeID and NodeMetadata identify this client.
	NodeID       string
	NodeMetadata map[string]string
	// Headers go with each stream.
	Headers map[string]string
	// MaxMessageBytes bounds a response; 0 means gRPC's default of 4 MiB.
	MaxMessageBytes int
	// ConnectRetry is the first wait after a failed connection. Required.
	ConnectRetry time.Duration
	// Backoff is the wait after a stream that ended. Required.
	Backoff Backoff
	// Log gets the events of the stream. Required.
	Log *zap.Logger
}

// Backoff grows from Initial to Max, give or take the Jitter, a part of 1.
type Backoff struct {
	Initial, Max time.Duration
	Jitter       float64
}

// ErrNoRules is the error of Sources before the server has sent any rules. It wraps
// reload.ErrWaiting.
var ErrNoRules = fmt.Errorf("%w from the xDS server", reload.ErrWaiting)

// maxReason bounds the reason that a refusal sends to the server, in bytes.
const maxReason = 4 << 10

// Provider follows a server. It is a reload.Provider that must be used with a
// coordinator: a response is accepted or refused when the coordinator has tried it.
type Provider struct {
	opts Options
	node *core.Node

	mu   sync.Mutex
	last *response
}

var (
	_ reload.Provider     = (*Provider)(nil)
	_ reload.Acknowledger = (*Provider)(nil)
)

// response is a response of the server.
type response struct {
	sources []rulefile.Source
	err     error      // why it can't be read
	handed  bool       // given to the coordinator
	verdict chan error // receives one value, after the coordinator has tried it
}

func newResponse(sources []rulefile.Source, err error) *response {
	return &response{sources: sources, err: err, verdict: make(chan error, 1)}
}

// New returns a provider that has not connected yet. The error names the option with which
// no connection can be made.
func New(o Options) (*Provider, error) {
	fields := make(map[string]*structpb.Value, len(o.NodeMetadata))
	for k, v := range o.NodeMetadata {
		fields[k] = structpb.NewStringValue(v)
	}
	p := &Provider{opts: o, last: newResponse(nil, ErrNoRules), node: &core.Node{Id: o.NodeID, Metadata: &structpb.Struct{Fields: fields}}}
	conn, err := p.dial()
	if err != nil {
		return nil, fmt.Errorf("xDS server %q: %w", o.Server, err)
	}
	return p, conn.Close()
}

// Origin implements reload.Provider.
func (p *Provider) Origin() config.Origin { return config.FromXDS }

// Sources returns the resources that the server sent last, each as a source, valid or not.
// A bad resource fails the reload and is reported like a bad file.
func (p *Provider) Sources(context.Context) ([]rulefile.Source, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last.handed = true
	return p.last.sources, p.last.err
}

// Acknowledge implements reload.Acknowledger.
func (p *Provider) Acknowledge(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.last.handed { // it arrived while the coordinator tried the one before
		return
	}
	select {
	case p.last.verdict <- err:
	default: // an earlier attempt has sent a verdict
	}
}

// Watch follows the server until ctx is done, and calls changed for each response. It
// reconnects when a connection breaks or the server is away.
func (p *Provider) Watch(ctx context.Context, changed func()) error {
	conn, err := p.dial()
	if err != nil {
		return fmt.Errorf("xDS server %q: %w", p.opts.Server, err)
	}
	defer func() { _ = conn.Close() }() // nothing is lost with it

	ctx = metadata.NewOutgoingContext(ctx, metadata.New(p.opts.Headers))
	wait := backoff.ExponentialBackOff{
		InitialInterval: p.opts.Backoff.Initial, MaxInterval: p.opts.Backoff.Max,
		RandomizationFactor: p.opts.Backoff.Jitter, Multiplier: 2,
	}
	wait.Reset()
	for {
		answered, err := p.follow(ctx, conn, changed)
		if ctx.Err() != nil {
			return nil
		}
		delay := wait.NextBackOff()
		p.opts.Log.Warn("the stream of rules has ended; the rules in force stay",
			zap.String("server", p.opts.Server), zap.Duration("retry_after", delay), zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
		if answered { // the server works: the next failure is a new one
			wait.Reset()
		}
	}
}

func (p *Provider) dial() (*grpc.ClientConn, error) {
	retry := grpcbackoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay, retry.Jitter = p.opts.ConnectRetry, max(p.opts.Backoff.Max, p.opts.ConnectRetry), p.opts.Backoff.Jitter
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(p.opts.Credentials),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: 20 * time.Second}),
	}
	if p.opts.MaxMessageBytes > 0 {
		options = append(options, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(p.opts.MaxMessageBytes)))
	}
	return grpc.NewClient(p.opts.Server, options...)
}

// connect opens a stream. While there is no connection it logs the reason, each time after
// a longer wait. Its only error is that of the context.
func (p *Provider) connect(ctx context.Context, conn *grpc.ClientConn) (discovery.AggregatedDiscoveryService_StreamAggregatedResourcesClient, error) {
	wait := backoff.ExponentialBackOff{
		InitialInterval: p.opts.ConnectRetry, MaxInterval: max(p.opts.Backoff.Max, p.opts.ConnectRetry),
		RandomizationFactor: p.opts.Backoff.Jitter, Multiplier: 2,
	}
	wait.Reset()
	for {
		// Without WaitForReady it fails when a connection does, with the reason.
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
		if err == nil {
			return stream, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		delay := wait.NextBackOff()
		p.opts.Log.Warn("no connection to the xDS server; the rules in force stay",
			zap.String("server", p.opts.Server), zap.Duration("retry_after", delay), zap.Error(err))
		pause(ctx, conn, delay)
	}
}

// pause waits until another attempt to connect makes sense, at most for the delay.
func pause(ctx context.Context, conn *grpc.ClientConn, delay time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, delay)
	defer cancel()
	if state := conn.GetState(); state == connectivity.TransientFailure {
		conn.WaitForStateChange(ctx, state) // gRPC itself tries again meanwhile
		return
	}
	<-ctx.Done()
}

// follow handles the responses of one stream until it ends. It reports whether there was a
// response.
func (p *Provider) follow(ctx context.Context, conn *grpc.ClientConn, changed func()) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := p.connect(ctx, conn)
	if err != nil {
		return false, err
	}
	// Versions and nonces belong to the stream. The version is the one in force.
	request := &discovery.DiscoveryRequest{Node: p.node, TypeUrl: rulesType}
	refused := false
	for {
		if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) { // Recv knows why it ended
			return answered, err
		}
		resp, err := stream.Recv()
		if err != nil {
			return answered, err
		}
		answered = true
		reason, err := p.try(ctx, resp, changed)
		if err != nil {
			return answered, err
		}
		request = &discovery.DiscoveryRequest{Node: p.node, TypeUrl: rulesType, VersionInfo: request.VersionInfo, ResponseNonce: resp.Nonce}
		if reason == nil {
			refused = false
			request.VersionInfo = resp.VersionInfo
			continue
		}
		p.opts.Log.Error("refused rules from the xDS server", zap.String("version", resp.VersionInfo), zap.Error(reason))
		request.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: abridge(reason.Error())}
		if refused {
			// Servers answer a refusal at once with the same response.
			select {
			case <-ctx.Done():
			case <-time.After(min(p.opts.Backoff.Initial, time.Second)):
			}
		}
		refused = true
	}
}

// try offers a response to the coordinator and returns why it is not in force; nil if it
// is. err is that of the context.
func (p *Provider) try(ctx context.Context, resp *discovery.DiscoveryResponse, changed func()) (reason, err error) {
	r := newResponse(sourcesOf(resp))
	p.mu.Lock()
	p.last = r
	p.mu.Unlock()
	changed()
	select {
	case reason = <-r.verdict:
		return reason, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// sourcesOf returns the sources of a response, and the errors of the response as a whole.
func sourcesOf(resp *discovery.DiscoveryResponse) ([]rulefile.Source, error) {
	if resp.TypeUrl != rulesType {
		return nil, fmt.Errorf("the response is of type %q: send %s", abridge(resp.TypeUrl), rulesType)
	}
	sources, err := toSources(resp.Resources)
	errs := []error{err}
	seen := make(map[string]bool, len(sources))
	for _, s := range sources {
		if seen[s.Name] {
			errs = append(errs, fmt.Errorf("two resources are named %q: give each its own name", abridge(s.Name)))
		}
		seen[s.Name] = true
	}
	return sources, errors.Join(errs...)
}

// abridge shortens a text to or from a server.
func abridge(s string) string {
	if len(s) <= maxReason {
		return s
	}
	return strings.ToValidUTF8(s[:maxReason], "") + "…"
}
