package wire

import (
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/distlimiter/ratelimit/internal/limiter"
)

// Fields of RateLimitResponse and of the messages in it.
const (
	responseCode     protowire.Number = 1
	responseStatuses protowire.Number = 2
	responseHeaders  protowire.Number = 3
	requestHeaders   protowire.Number = 4
	responseBody     protowire.Number = 5
	responseMetadata protowire.Number = 6

	statusCode    protowire.Number = 1
	statusCurrent protowire.Number = 2
	statusLeft    protowire.Number = 3
	statusReset   protowire.Number = 4

	currentRequests   protowire.Number = 1
	currentUnit       protowire.Number = 2
	currentName       protowire.Number = 3
	currentMultiplier protowire.Number = 4

	headerKey   protowire.Number = 1
	headerValue protowire.Number = 2

	durationSeconds protowire.Number = 1
)

// AppendCode appends the overall code.
func AppendCode(b []byte, overLimit bool) []byte {
	return appendUint(b, responseCode, uint64(code(overLimit)))
}

func code(over bool) pb.RateLimitResponse_Code {
	if over {
		return pb.RateLimitResponse_OVER_LIMIT
	}
	return pb.RateLimitResponse_OK
}

// AppendStatus appends the status of a descriptor.
func AppendStatus(b []byte, st *limiter.Status) []byte {
	overLimit := uint64(code(st.OverLimit))
	size := sizeUint(statusCode, overLimit) + sizeUint(statusLeft, uint64(st.Remaining))
	if st.Limit == nil {
		b = protowire.AppendTag(b, responseStatuses, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(size))
		b = appendUint(b, statusCode, overLimit)
		return appendUint(b, statusLeft, uint64(st.Remaining))
	}
	current := st.Limit.Encoded
	if current == nil {
		current = EncodeLimit(st.Limit)
	}
	wait := uint64(Seconds(st.PassesAfter))
	sizeReset := sizeUint(durationSeconds, wait)
	size += len(current) + protowire.SizeTag(statusReset) + protowire.SizeBytes(sizeReset)
	b = protowire.AppendTag(b, responseStatuses, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = appendUint(b, statusCode, overLimit)
	b = append(b, current...)
	b = appendUint(b, statusLeft, uint64(st.Remaining))
	b = protowire.AppendTag(b, statusReset, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(sizeReset))
	return appendUint(b, durationSeconds, wait)
}

// EncodeLimit returns current_limit of a status that reports l, as a field on the wire.
// It is for [limiter.Options].Encode.
func EncodeLimit(l *limiter.Limit) []byte {
	var m []byte
	m = appendUint(m, currentRequests, uint64(l.RequestsPerUnit))
	m = appendUint(m, currentUnit, uint64(l.Unit))
	if l.Name != "" {
		m = protowire.AppendTag(m, currentName, protowire.BytesType)
		m = protowire.AppendString(m, l.Name)
	}
	if l.UnitMultiplier > 1 {
		m = appendMessage(m, currentMultiplier, wrapperspb.UInt32(l.UnitMultiplier))
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, statusCurrent, protowire.BytesType), m)
}

// AppendResponseHeader appends a header to add to the response to the client.
func AppendResponseHeader[T string | []byte](b []byte, name string, value T) []byte {
	return appendHeader(b, responseHeaders, name, value)
}

// AppendRequestHeader appends a header to add to the request to the upstream.
func AppendRequestHeader(b []byte, name, value string) []byte {
	return appendHeader(b, requestHeaders, name, value)
}

// AppendBody appends the body of a 429 response.
func AppendBody(b, body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, responseBody, protowire.BytesType), body)
}

// AppendMetadata appends dynamic metadata.
func AppendMetadata(b []byte, m *structpb.Struct) []byte {
	return appendMessage(b, responseMetadata, m)
}

func appendHeader[T string | []byte](b []byte, list protowire.Number, name string, value T) []byte {
	size := protowire.SizeTag(headerKey) + protowire.SizeBytes(len(name)) + protowire.SizeTag(headerValue) + protowire.SizeBytes(len(value))
	b = protowire.AppendTag(b, list, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = protowire.AppendTag(b, headerKey, protowire.BytesType)
	b = protowire.AppendString(b, name)
	b = protowire.AppendTag(b, headerValue, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(value)))
	return append(b, value...)
}

// appendUint adds a number, unless it is 0, which is what an absent one is.
func appendUint(b []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), v)
}

func sizeUint(number protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(number) + protowire.SizeVarint(v)
}

// appendMessage adds a message of the protobuf library. Its strings are UTF-8, because
// requests and rules with others are refused.
func appendMessage(b []byte, number protowire.Number, m proto.Message) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), data)
}

// Seconds rounds up to whole seconds: Envoy's headers drop the fraction, and a client
// that waits for the rest alone would be refused again.
func Seconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}
