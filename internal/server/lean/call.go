package lean

import (
	"context"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// head is what the front needs to know of the header fields of a call.
type head struct {
	plain    bool          // whether the front may serve the call, if its message is plain, too
	timeout  time.Duration // 0: none
	declared int64         // content-length; -1: none
	size     int           // bytes
}

// errMalformed is of header fields that no HTTP/2 server may take.
var errMalformed = errors.New("malformed request")

// read checks the header fields of a request and reads what the front needs. The framer has
// checked names, values, and that pseudo fields are known, first and single.
func (h *head) read(fields []hpack.HeaderField, method string) error {
	*h = head{plain: true, declared: -1}
	var verb, scheme, path, authority, content bool // which fields there are
	for _, f := range fields {
		h.size += int(f.Size())
		switch f.Name {
		case ":method":
			verb = true
			h.plain = h.plain && f.Value == "POST"
		case ":scheme":
			scheme = f.Value != ""
		case ":path":
			path = f.Value != ""
			h.plain = h.plain && f.Value == method
		case ":status":
			return errMalformed
		case ":authority":
			authority = true
		case "user-agent", "grpc-accept-encoding":
		case "content-type":
			h.plain = h.plain && !content && f.Value == contentType
			content = true
		case "te":
			if f.Value != "trailers" {
				return errMalformed
			}
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			return errMalformed
		case "content-length":
			n, err := strconv.ParseUint(f.Value, 10, 63)
			if err != nil || h.declared >= 0 && h.declared != int64(n) {
				return errMalformed
			}
			h.declared = int64(n)
		case "grpc-timeout":
			timeout, ok := parseTimeout(f.Value)
			h.plain = h.plain && ok && h.timeout == 0
			h.timeout = timeout
		case "grpc-encoding":
			h.plain = h.plain && f.Value == "identity"
		case "host": // grpc-go compares it with :authority
			h.plain = false
		default:
			if strings.HasPrefix(f.Name, "grpc-") && f.Name != "grpc-previous-rpc-attempts" || strings.HasSuffix(f.Name, "-bin") {
				h.plain = false
			}
		}
	}
	if !verb || !scheme || !path {
		return errMalformed
	}
	h.plain = h.plain && content && authority
	return nil
}

// parseTimeout reads a grpc-timeout: at most eight digits and a unit. 0 is left to grpc-go.
func parseTimeout(s string) (time.Duration, bool) {
	const mostDigits = 8
	if len(s) < 2 || len(s) > mostDigits+1 {
		return 0, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if err != nil || n == 0 {
		return 0, false
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	const longest = 1 << 62
	if time.Duration(n) > longest/unit {
		return longest, true
	}
	return time.Duration(n) * unit, true
}

// callContext is the context of a call. It makes a channel and a timer only when Done is
// called: stores have bounds of their own, and only ask for the deadline.
type callContext struct {
	deadline time.Time // zero: none

	mu    sync.Mutex
	err   error
	done  chan struct{}
	timer *time.Timer
}

// Deadline implements [context.Context].
func (c *callContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done implements [context.Context].
func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done != nil {
		return c.done
	}
	c.done = make(chan struct{})
	switch {
	case c.err != nil:
		close(c.done)
	case !c.deadline.IsZero():
		c.timer = time.AfterFunc(time.Until(c.deadline), func() { c.end(context.DeadlineExceeded) })
	}
	return c.done
}

// Err implements [context.Context].
func (c *callContext) Err() error {
	if !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
		c.end(context.DeadlineExceeded)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Value implements [context.Context].
func (c *callContext) Value(any) any { return nil }

// end ends the call. Only its first error counts.
func (c *callContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
	if c.timer != nil {
		c.timer.Stop()
	}
}

// Header blocks of an answer with a message. The static table has ":status: 200" (8) and
// the name content-type (31).
var (
	answerHead  = append([]byte{0x88, 0x0f, 31 - 15, byte(len(contentType))}, contentType...)
	answerTrail = appendField(nil, "grpc-status", "0")
)

const contentType = "application/grpc"

// appendRefusal appends the header block of an answer that is only an error.
func appendRefusal(b []byte, err error) []byte {
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err) // as grpc-go
	}
	if st.Code() == codes.OK {
		st = status.New(codes.Unknown, "")
	}
	b = append(b, answerHead...)
	b = appendField(b, "grpc-status", strconv.Itoa(int(st.Code())))
	b = appendField(b, "grpc-message", encodeMessage(st.Message()))
	if p := st.Proto(); len(p.GetDetails()) > 0 {
		if details, err := proto.Marshal(p); err == nil {
			b = appendField(b, "grpc-status-details-bin", base64.RawStdEncoding.EncodeToString(details))
		}
	}
	return b
}

// encodeMessage percent-encodes what a header field can't carry.
func encodeMessage(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b.WriteString("%EF%BF%BD") // the replacement character, as grpc-go
			i++
			continue
		}
		for _, c := range []byte(s[i : i+size]) {
			if c >= ' ' && c <= '~' && c != '%' {
				b.WriteByte(c)
			} else {
				b.WriteByte('%')
				b.WriteByte(hex[c>>4])
				b.WriteByte(hex[c&15])
			}
		}
		i += size
	}
	return b.String()
}
