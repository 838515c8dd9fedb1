package load_test

import (
	"context"
	"sync"
	"testing"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/distlimiter/ratelimit/bench/load"
)

// Each request asks once and settles at most once, for the same client, after it has asked.
func TestRequestsThatHoldAskAndSettle(t *testing.T) {
	const calls = 10_000
	var mu sync.Mutex
	asked, settled := map[string]string{}, 0
	s := serve(t, func(_ context.Context, req *pb.RateLimitRequest) (pb.RateLimitResponse_Code, error) {
		mu.Lock()
		defer mu.Unlock()
		entries := map[string]string{}
		for _, e := range req.Descriptors[0].Entries {
			entries[e.Key] = e.Value
		}
		client, request := entries[load.DescriptorKeys[0]], entries[load.HoldKey]
		was, known := asked[request]
		switch settles := entries[load.SettlingKey] == load.SettlingValue; {
		case settles && (!known || was != client):
			t.Errorf("%v settles: request of %q", req, was)
		case settles:
			settled++
			asked[request] = ""
		case known:
			t.Errorf("%v asks again", req)
		default:
			asked[request] = client
		}
		return pb.RateLimitResponse_OK, nil
	})
	o := options(t, s, calls, 1, 10)
	holds, err := load.NewHolds("edge", 10, 7)
	if err != nil {
		t.Fatal(err)
	}
	o.Workload = holds
	run(t, o)
	mu.Lock()
	defer mu.Unlock()
	if held := len(asked) - settled; settled < calls/3 || held < 1000 || held > 1100 {
		t.Errorf("%d have settled and %d hold", settled, held)
	}
}
