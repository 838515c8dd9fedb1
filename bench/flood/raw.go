package flood

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// raw is a connection of an ill-behaved client.
type raw struct {
	net.Conn
	framer *http2.Framer
	block  []byte
	next   uint32
	out    bytes.Buffer
}

func dialRaw(ctx context.Context, address string) (*raw, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	r := &raw{Conn: conn, next: 1}
	r.framer = http2.NewFramer(&r.out, conn)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "flood"},
		{Name: ":path", Value: pb.RateLimitService_ShouldRateLimit_FullMethodName},
		{Name: "te", Value: "trailers"}, {Name: "content-type", Value: "application/grpc"},
	} {
		f.Sensitive = true // never in the table: each block can stand alone
		if err := enc.WriteField(f); err != nil {
			return nil, err
		}
	}
	r.block = block.Bytes()
	r.out.WriteString(http2.ClientPreface)
	return r, errors.Join(r.framer.WriteSettings(), r.flush())
}

// flush sends the buffered data.
func (r *raw) flush() error {
	_, err := r.Write(r.out.Bytes())
	r.out.Reset()
	return err
}

// open sends a request, whole or but for its last byte.
func (r *raw) open(message []byte, whole bool) error {
	id := r.next
	r.next += 2
	err := r.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.block, EndHeaders: true})
	if len(message) > 0 {
		body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
		const most = 16 << 10 // of a frame
		for len(body) > most {
			err = errors.Join(err, r.framer.WriteData(id, false, body[:most]))
			body = body[most:]
		}
		if !whole {
			body = body[:len(body)-1]
		}
		err = errors.Join(err, r.framer.WriteData(id, whole, body))
	}
	return errors.Join(err, r.flush())
}

// drain reads and discards everything from the server until the connection ends. It returns
// how many streams the server has reset.
func (r *raw) drain() (reset int, err error) {
	for {
		f, err := r.framer.ReadFrame()
		switch {
		case errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF):
			return reset, nil
		case err != nil:
			return reset, err
		}
		if _, ok := f.(*http2.RSTStreamFrame); ok {
			reset++
		}
	}
}

// unread sends whole requests for as long as the server accepts them, ignores its
// flow-control window, and reads no answer.
func (r *raw) unread(ctx context.Context) (sent int, err error) {
	message, err := proto.Marshal(ask("unread"))
	if err != nil {
		return 0, err
	}
	if err := r.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	for {
		if err := r.open(message, true); ctx.Err() != nil {
			return sent, nil
		} else if err != nil {
			return sent, err
		}
		sent++
		runtime.Gosched() // otherwise the probe, in the same process, waits for all of these
	}
}
