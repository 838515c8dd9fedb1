package lean

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const method = "/package.Service/Method"

// plainFields are those of a call that the front serves.
var plainFields = []string{":method", "POST", ":scheme", "http", ":path", method, ":authority", "a", "content-type", "application/grpc", "te", "trailers"}

// fieldsWith returns the plain fields with others. One that is there already is replaced,
// or left out if its value is "-".
func fieldsWith(changed ...string) (fields []hpack.HeaderField) {
	for i := 0; i < len(plainFields); i += 2 {
		fields = append(fields, hpack.HeaderField{Name: plainFields[i], Value: plainFields[i+1]})
	}
	for i := 0; i < len(changed); i += 2 {
		f := hpack.HeaderField{Name: changed[i], Value: changed[i+1]}
		at := slices.IndexFunc(fields[:min(len(fields), len(plainFields)/2)], func(is hpack.HeaderField) bool { return is.Name == f.Name })
		switch {
		case at < 0:
			fields = append(fields, f)
		case f.Value == "-":
			fields = slices.Delete(fields, at, at+1)
		default:
			fields[at] = f
		}
	}
	return fields
}

func TestWhichCallsAreServed(t *testing.T) {
	const plain, relayed, malformed = "plain", "relayed", "malformed"
	for _, tt := range []struct {
		want    string
		changed []string
	}{
		{plain, nil},
		{plain, []string{"user-agent", "x", "grpc-accept-encoding", "gzip", "x-any", "y", "traceparent", "00-1"}},
		{plain, []string{"grpc-encoding", "identity"}},
		{plain, []string{"grpc-previous-rpc-attempts", "1"}},
		{plain, []string{"grpc-timeout", "20m", "content-length", "7"}},
		{plain, []string{"te", "-"}},
		{relayed, []string{":method", "GET"}},
		{relayed, []string{":path", "/grpc.health.v1.Health/Check"}},
		{relayed, []string{":authority", "-"}},
		{relayed, []string{"content-type", "-"}},
		{relayed, []string{"content-type", "application/grpc+proto"}},
		{relayed, []string{"grpc-encoding", "gzip"}},
		{relayed, []string{"grpc-timeout", "20"}},
		{relayed, []string{"grpc-timeout", "1S", "grpc-timeout", "2S"}},
		{relayed, []string{"grpc-unheard-of", "x"}},
		{relayed, []string{"host", "b"}},
		{relayed, []string{"some-bin", "AAE"}},
		{malformed, []string{":method", "-"}},
		{malformed, []string{":scheme", "-"}},
		{malformed, []string{":path", "-"}},
		{malformed, []string{":status", "200"}},
		{malformed, []string{"te", "gzip"}},
		{malformed, []string{"connection", "close"}},
		{malformed, []string{"content-length", "-1"}},
		{malformed, []string{"content-length", "7", "content-length", "8"}},
	} {
		var h head
		got := plain
		switch err := h.read(fieldsWith(tt.changed...), method); {
		case err != nil:
			got = malformed
		case !h.plain:
			got = relayed
		}
		if got != tt.want {
			t.Errorf("%q: %s, want %s", tt.changed, got, tt.want)
		}
	}
}

func TestTimeouts(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "20m": 20 * time.Millisecond, "5u": 5 * time.Microsecond, "99999999n": 99999999,
		"99999999H": 1 << 62, // longer than a Duration
		"":          0, "S": 0, "0S": 0, "-1S": 0, "1": 0, "1s": 0, "1.5S": 0, "123456789S": 0, "+1S": 0,
	} {
		if got, ok := parseTimeout(text); got != want || ok != (want > 0) {
			t.Errorf("%q: %v %v, want %v", text, got, ok, want)
		}
	}
}

func TestAContextEndsAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, asked := range []bool{true, false} {
			c := callContext{deadline: time.Now().Add(time.Second)}
			if asked {
				<-c.Done()
			} else {
				time.Sleep(time.Second)
			}
			if err := c.Err(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("asked for the channel: %v: %v", asked, err)
			}
			<-c.Done()
			c.end(context.Canceled)
			if err := c.Err(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("then %v", err)
			}
		}
	})
}

func TestAContextEndsWithItsCall(t *testing.T) {
	c := callContext{deadline: time.Now().Add(time.Hour)}
	if err := c.Err(); err != nil {
		t.Error(err)
	}
	done := c.Done()
	derived, cancel := context.WithCancel(&c)
	defer cancel()
	c.end(context.Canceled)
	<-done
	<-derived.Done()
	if err := c.Err(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if deadline, ok := c.Deadline(); !ok || time.Until(deadline) < time.Minute {
		t.Error(deadline, ok)
	}
	if _, ok := new(callContext).Deadline(); ok {
		t.Error("a deadline of nothing")
	}
}

// decode reads a header block as a client does whose table is empty.
func decode(t *testing.T, block []byte) string {
	t.Helper()
	fields, err := hpack.NewDecoder(0, nil).DecodeFull(block)
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, f := range fields {
		text = append(text, f.Name+"="+f.Value)
	}
	return strings.Join(text, " ")
}

func TestErrorsAreStatuses(t *testing.T) {
	for want, err := range map[string]error{
		"grpc-status=3 grpc-message=schlecht: %C3%A4 100%25 %0A%EF%BF%BD": status.Error(codes.InvalidArgument, "schlecht: ä 100% \n\xff"),
		"grpc-status=2 grpc-message=boom":                                 errors.New("boom"),
		"grpc-status=4 grpc-message=context deadline exceeded":            context.DeadlineExceeded,
		"grpc-status=1 grpc-message=late: context canceled":               fmt.Errorf("late: %w", context.Canceled),
	} {
		if got := decode(t, appendRefusal(nil, err)); got != ":status=200 content-type=application/grpc "+want {
			t.Errorf("%v: %q", err, got)
		}
	}
}

// Lengths of one and of several bytes, and blocks of more than a frame.
func TestHeaderBlocks(t *testing.T) {
	for _, n := range []int{0, 1, 126, 127, 128, 254, 255, 16383, 16384, 40000} {
		value := strings.Repeat("v", n)
		block := appendField(appendField(nil, "name", value), "after", "")
		if got := decode(t, block); got != "name="+value+" after=" {
			t.Errorf("%d bytes: %.100q", n, got)
		}
		framer := http2.NewFramer(nil, strings.NewReader(string(appendHeaders(nil, 7, block, true))))
		framer.ReadMetaHeaders = hpack.NewDecoder(0, nil)
		f, err := framer.ReadFrame()
		if h, is := f.(*http2.MetaHeadersFrame); !is || h.StreamID != 7 || !h.StreamEnded() || len(h.Fields) != 2 || h.Fields[0].Value != value {
			t.Errorf("%d bytes: %.100v %v", n, f, err)
		}
	}
}
