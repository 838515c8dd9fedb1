// Package xds owns rules that come from a control plane, such as Envoy Gateway:
// it follows a state-of-the-world server's resources of type
// ratelimit.config.ratelimit.v3.RateLimitConfig and hands them to the
// configuration as sources in its grammar. What they mean is left to config.
package xds

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/client/sotw/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/distlimiter/ratelimit/internal/config"
)

// Options say which server to follow, and how.
type Options struct {
	// Server is a gRPC target, such as "localhost:18000". Required.
	Server string
	// Credentials of the connection. Required; insecure.NewCredentials() for none.
	Credentials credentials.TransportCredentials
	// NodeID and NodeMetadata say who asks.
	NodeID       string
	NodeMetadata map[string]string
	// Headers go with each stream.
	Headers map[string]string
	// MaxMessageBytes bounds a response; 0 means gRPC's default of 4 MiB.
	MaxMessageBytes int
	// ConnectRetry is the wait after a connection that failed.
	ConnectRetry time.Duration
	// Backoff is the wait after a stream that ended.
	Backoff Backoff
	// Parse says how the resources are read.
	Parse config.Options
	// Log gets what happens to the stream. Required.
	Log *zap.Logger
}

// Backoff grows from Initial to Max, give or take the Jitter, a part of 1.
type Backoff struct {
	Initial, Max time.Duration
	Jitter       float64
}

// Defaults of Options, those of envoyproxy/ratelimit.
const (
	DefaultConnectRetry   = 3 * time.Second
	DefaultBackoffInitial = 10 * time.Second
	DefaultBackoffMax     = 60 * time.Second
)

// ErrNoRules is what Sources says before the server has sent any.
var ErrNoRules = errors.New("no rules from the xDS server yet")

// Provider follows a server. It is a config.Provider.
type Provider struct {
	opts Options
	node *core.Node

	mu      sync.Mutex
	sources []config.Source
	err     error
}

// New returns a provider that has not connected yet. The error says what of the
// options no connection can be made with.
func New(o Options) (*Provider, error) {
	if o.ConnectRetry == 0 {
		o.ConnectRetry = DefaultConnectRetry
	}
	if o.Backoff.Initial == 0 {
		o.Backoff.Initial = DefaultBackoffInitial
	}
	if o.Backoff.Max == 0 {
		o.Backoff.Max = DefaultBackoffMax
	}
	fields := make(map[string]*structpb.Value, len(o.NodeMetadata))
	for k, v := range o.NodeMetadata {
		fields[k] = structpb.NewStringValue(v)
	}
	p := &Provider{opts: o, err: ErrNoRules, node: &core.Node{Id: o.NodeID, Metadata: &structpb.Struct{Fields: fields}}}
	conn, err := p.dial()
	if err != nil {
		return nil, fmt.Errorf("xDS server %q: %w", o.Server, err)
	}
	return p, conn.Close()
}

// Sources returns the resources that the server sent last, one source each,
// valid or not: bad ones fail the reload, and so are seen wherever a bad file
// would be.
func (p *Provider) Sources(context.Context) ([]config.Source, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sources, p.err
}

// Watch follows the server until ctx is done, over connections that break and
// servers that are away, and calls changed for each response.
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
	for ctx.Err() == nil {
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
			if answered { // the server is well: the next failure is a new one
				break
			}
		}
	}
	return nil
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

// follow takes responses from one stream until it ends. It says whether there
// was one.
func (p *Provider) follow(ctx context.Context, conn *grpc.ClientConn, changed func()) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A client for each stream: versions and nonces belong to the stream.
	client := sotw.NewADSClient(ctx, p.node, resource.RateLimitConfigType)
	if err := client.InitConnect(conn, grpc.WaitForReady(true)); err != nil {
		return false, err
	}
	refused := false
	for {
		resp, err := client.Fetch()
		if err != nil {
			return answered, err
		}
		answered = true
		reason := p.accept(resp)
		changed()
		if reason == nil {
			refused = false
			err = client.Ack()
		} else {
			p.opts.Log.Error("refused rules from the xDS server", zap.Error(reason))
			if refused {
				// Servers answer a refusal with the same again, at once.
				select {
				case <-ctx.Done():
				case <-time.After(min(p.opts.Backoff.Initial, time.Second)):
				}
			}
			refused = true
			err = client.Nack(reason.Error())
		}
		if err != nil {
			return answered, err
		}
	}
}

// accept keeps the response's resources and says what is wrong with them.
func (p *Provider) accept(resp *sotw.Response) error {
	sources, err := toSources(resp.Resources)
	p.mu.Lock()
	p.sources, p.err = sources, err
	p.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = config.Parse(sources, p.opts.Parse)
	return err
}
