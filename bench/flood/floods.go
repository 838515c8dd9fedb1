package flood

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/distlimiter/ratelimit/bench/load"
)

// flood is a kind of excessive load.
type flood struct {
	name  string
	rules int // besides the one that requests match
	// needsRules leaves out the floor server, which has no rules.
	needsRules bool
	flags      []string
	// run floods, and returns what the flooding clients saw.
	run func(context.Context, *bench, *target) (string, error)
}

var floods = []flood{
	{name: "nothing", run: quietly},
	{name: "10,000,000 keys", run: keys, needsRules: true},
	{name: "100,000 rules", rules: 100_000, needsRules: true, run: closedLoop},
	{name: "1,000 rules, reload every 50 ms", rules: 1000, needsRules: true, flags: []string{"--reload-delay", "10ms"}, run: reloads},
	{name: "100,000 rules, reload every 2 s", rules: 100_000, needsRules: true, flags: []string{"--reload-delay", "10ms"}, run: bigReloads},
	{name: "1,000 connections", run: connections},
	{name: "10,000 open streams", run: streams},
	{name: "1,000 connections that read no answers", run: unread},
	{name: "messages of 4 MiB", run: messages},
	{name: "messages of 1 MiB, not ended", run: unended},
	{name: "requests of 1,000 descriptors", run: descriptors},
}

// floods measures each flood and writes a table.
func (b *bench) floods(ctx context.Context) error {
	fmt.Fprintln(b.Out, "| flood | server | memory at the peak, MiB | probe: p99, ms | longest, ms | floor: longest, ms | probe refused | the flood saw |")
	fmt.Fprintln(b.Out, "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
	for _, f := range floods {
		if len(b.Floods) > 0 && !slices.Contains(b.Floods, f.name) {
			continue
		}
		longest := "–"
		if !f.needsRules {
			floor, err := b.flood(ctx, &f, true)
			if err != nil {
				return fmt.Errorf("%s, floor: %w", f.name, err)
			}
			longest = millis(floor.at(100))
		}
		r, err := b.flood(ctx, &f, false)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		fmt.Fprintf(b.Out, "| %s | memory | %s | %s | %s | %s | %d of %d | %s |\n",
			f.name, mib(r.peak), millis(r.at(99)), millis(r.at(100)), longest, total(r.refused), r.latency.TotalCount(), r.note)
	}
	fmt.Fprintln(b.Out)
	return nil
}

type flooded struct {
	*probe
	peak int64
	note string
}

func (b *bench) flood(ctx context.Context, f *flood, floor bool) (r *flooded, err error) {
	fmt.Fprintf(b.Progress, "%s, floor %v\n", f.name, floor)
	t, err := b.start(floor, f.rules, nil, f.flags...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Stop()) }()
	p, err := startProbe(ctx, t.address)
	if err != nil {
		return nil, err
	}
	note, err := f.run(ctx, b, t)
	p.end()
	if err != nil {
		return nil, err
	}
	peak, err := t.PeakRSS()
	return &flooded{p, peak, note}, err
}

func quietly(ctx context.Context, b *bench, _ *target) (string, error) {
	select {
	case <-time.After(b.Duration):
	case <-ctx.Done():
	}
	return "", ctx.Err()
}

// keys counts each of ten million clients once, 50 in a request.
func keys(ctx context.Context, _ *bench, t *target) (string, error) {
	const clients, perRequest = 10_000_000, 50
	calls, err := load.NewCalls(domain, perRequest, clients, true, 0)
	if err != nil {
		return "", err
	}
	r, err := load.Run(ctx, load.Options{
		Address: t.address, Workload: calls, Connections: 1, InFlight: 8, Duration: 10 * time.Minute, Requests: clients / perRequest,
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%.0f keys a second", r.PerSecond()*perRequest), nil
}

// busy keeps 64 requests of some descriptors in flight.
func (b *bench) busy(ctx context.Context, t *target, connections, descriptors int) (*load.Result, error) {
	calls, err := load.NewCalls(domain, descriptors, 10_000, false, 1)
	if err != nil {
		return nil, err
	}
	return load.Run(ctx, load.Options{
		Address: t.address, Workload: calls, Connections: connections, InFlight: max(64, connections), Warmup: 200 * time.Millisecond, Duration: b.Duration,
	})
}

func closedLoop(ctx context.Context, b *bench, t *target) (string, error) {
	r, err := b.busy(ctx, t, 4, 1)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%.0f answers a second", r.PerSecond()), nil
}

func connections(ctx context.Context, b *bench, t *target) (string, error) {
	r, err := b.busy(ctx, t, 1000, 1)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%.0f answers a second", r.PerSecond()), nil
}

func reloads(ctx context.Context, b *bench, t *target) (string, error) {
	return b.reloading(ctx, t, 1000, 50*time.Millisecond)
}

func bigReloads(ctx context.Context, b *bench, t *target) (string, error) {
	return b.reloading(ctx, t, 100_000, 2*time.Second)
}

func (b *bench) reloading(ctx context.Context, t *target, rules int, every time.Duration) (string, error) {
	saving, stop := context.WithCancel(ctx)
	saved := make(chan error, 1)
	saves := 0
	go func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-saving.Done():
				saved <- nil
				return
			}
			if err := writeRules(t.rules, rules, saves); err != nil {
				saved <- err
				return
			}
			saves++
		}
	}()
	// A quarter of saturation, so that the load itself makes no request wait.
	calls, err := load.NewCalls(domain, 1, 10_000, false, 1)
	if err != nil {
		stop()
		return "", err
	}
	r, err := load.Run(ctx, load.Options{
		Address: t.address, Workload: calls, Connections: 4, Rate: 8000, Patience: time.Second, Duration: max(b.Duration, 5*every),
	})
	stop()
	if err := errors.Join(err, <-saved); err != nil {
		return "", err
	}
	refused := total(r.Failed)
	return fmt.Sprintf("%d saves, p99 %s ms at %.0f a second, %d of %d refused", saves,
		millis(time.Duration(r.Latency.ValueAtPercentile(99))), r.PerSecond(), refused, r.Answers+refused), nil
}

// streams opens 10,000 streams on 10 connections and abandons them.
func streams(ctx context.Context, b *bench, t *target) (string, error) {
	return b.open(ctx, t, 10, 1000, nil)
}

// unended sends all but the last byte of the largest messages that the server accepts.
func unended(ctx context.Context, b *bench, t *target) (string, error) {
	return b.open(ctx, t, 1, 100, make([]byte, 1<<20))
}

func (b *bench) open(ctx context.Context, t *target, connections, streams int, message []byte) (string, error) {
	ctx, stop := context.WithTimeout(ctx, b.Duration)
	defer stop()
	var reset atomic.Int64
	var all sync.WaitGroup
	errs := make(chan error, connections)
	for range connections {
		r, err := dialRaw(ctx, t.address)
		if err != nil {
			return "", err
		}
		all.Go(func() {
			n, _ := r.drain() // however it ends
			reset.Add(int64(n))
		})
		all.Go(func() {
			stop := context.AfterFunc(ctx, func() { r.Close() })
			defer stop()
			for range streams {
				if err := r.open(message, false); err != nil && ctx.Err() == nil {
					errs <- err
					return
				}
			}
			<-ctx.Done()
		})
	}
	all.Wait()
	close(errs)
	return fmt.Sprintf("%d of %d streams reset", reset.Load(), connections*streams), <-errs
}

// unread makes 1,000 connections send requests and never read answers.
func unread(ctx context.Context, b *bench, t *target) (string, error) {
	const connections = 1000
	var flooding []*raw
	for range connections {
		r, err := dialRaw(ctx, t.address)
		if err != nil {
			return "", err
		}
		flooding = append(flooding, r)
	}
	ctx, stop := context.WithTimeout(ctx, b.Duration)
	defer stop()
	var sent atomic.Int64
	var all sync.WaitGroup
	for _, r := range flooding {
		all.Go(func() {
			n, _ := r.unread(ctx) // the server may well close the connection
			sent.Add(int64(n))
		})
	}
	all.Wait()
	return fmt.Sprintf("%d requests sent", sent.Load()), nil
}

// messages sends messages of 4 MiB by 16 clients.
func messages(ctx context.Context, b *bench, t *target) (string, error) {
	return b.ask(ctx, t, ask(strings.Repeat("x", 4<<20)))
}

func descriptors(ctx context.Context, b *bench, t *target) (string, error) {
	many := &pb.RateLimitRequest{Domain: domain}
	for i := range 1000 {
		many.Descriptors = append(many.Descriptors, &common.RateLimitDescriptor{
			Entries: []*common.RateLimitDescriptor_Entry{{Key: "user", Value: fmt.Sprint("client-", i)}},
		})
	}
	return b.ask(ctx, t, many)
}

// ask makes 16 clients, each with a connection of its own, send the request again and again.
func (b *bench) ask(ctx context.Context, t *target, request *pb.RateLimitRequest) (string, error) {
	ctx, stop := context.WithTimeout(ctx, b.Duration)
	defer stop()
	var mu sync.Mutex
	seen := map[codes.Code]int{}
	var all sync.WaitGroup
	for range 16 {
		conn, err := grpc.NewClient(t.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return "", err
		}
		defer conn.Close()
		client := pb.NewRateLimitServiceClient(conn)
		all.Go(func() {
			for ctx.Err() == nil {
				_, err := client.ShouldRateLimit(ctx, request)
				if ctx.Err() != nil {
					return
				}
				mu.Lock()
				seen[status.Code(err)]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return counts(seen) + fmt.Sprintf(", %d KiB each", proto.Size(request)>>10), nil
}

// total returns the number of answers, over all codes.
func total(seen map[codes.Code]int) (n int) {
	for _, times := range seen {
		n += times
	}
	return n
}

// counts lists the codes and how often each was seen.
func counts(seen map[codes.Code]int) string {
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(seen)) {
		parts = append(parts, fmt.Sprintf("%d %v", seen[code], code))
	}
	return strings.Join(parts, ", ")
}
