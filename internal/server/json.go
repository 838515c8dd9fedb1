package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
)

// maxJSON bounds a request in bytes.
const maxJSON = 1 << 20

// JSON answers POST requests that hold a RateLimitRequest as JSON with the service's
// RateLimitResponse as JSON: 200 OK, 429 over limit, 400 for requests that cannot
// be decided, 503 when the backend failed.
func JSON(service pb.RateLimitServiceServer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "POST a RateLimitRequest as JSON, such as {\"domain\": \"edge\", \"descriptors\": [{\"entries\": [{\"key\": \"user\", \"value\": \"alice\"}]}]}", http.StatusMethodNotAllowed)
			return
		}
		resp, err := serveJSON(r.Context(), service, http.MaxBytesReader(w, r.Body, maxJSON))
		if err != nil {
			http.Error(w, status.Convert(err).Message(), httpStatus(err))
			return
		}
		body, err := protojson.Marshal(resp)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if resp.OverallCode == pb.RateLimitResponse_OVER_LIMIT {
			w.WriteHeader(http.StatusTooManyRequests)
		}
		_, _ = w.Write(body) // a client that has left is no error of ours
	})
}

func serveJSON(ctx context.Context, service pb.RateLimitServiceServer, body io.Reader) (*pb.RateLimitResponse, error) {
	data, err := io.ReadAll(body)
	if tooLarge, is := errors.AsType[*http.MaxBytesError](err); is {
		return nil, status.Errorf(codes.ResourceExhausted, "the body is larger than %d bytes", tooLarge.Limit)
	} else if err != nil {
		return nil, status.Error(codes.InvalidArgument, fmt.Sprintf("reading the body: %v", err))
	}
	req := new(pb.RateLimitRequest)
	if err := protojson.Unmarshal(data, req); err != nil {
		return nil, status.Error(codes.InvalidArgument, fmt.Sprintf("the body is no RateLimitRequest: %v", err))
	}
	return service.ShouldRateLimit(ctx, req)
}

func httpStatus(err error) int {
	switch status.Code(err) {
	case codes.InvalidArgument:
		return http.StatusBadRequest
	case codes.ResourceExhausted:
		return http.StatusRequestEntityTooLarge
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
