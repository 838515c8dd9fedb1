package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

const (
	frameHead = 9
	maxFrame  = 16 << 10 // the default of HTTP/2
	// The windows that Envoy gives its upstreams, and what HTTP/2 begins with.
	streamWindow  = 16 << 20
	connWindow    = 24 << 20
	initialWindow = 65535
)

// conn is one HTTP/2 connection. x/net/http2 has the names of the protocol and
// HPACK; its client would cost more than the server it is to load.
type conn struct {
	file     *os.File
	fd       int
	workload Workload

	in      []byte // received, not yet parsed
	out     []byte // to send
	block   []byte // static header block of the requests to come
	first   []byte // header block of the first request, nil once sent
	scratch struct{ block, body []byte }

	due        []time.Duration // of requests that wait for window or streams
	streams    map[uint32]stream
	patience   time.Duration // time after which a request is given up; 0: never
	waiting    []waiting     // in the order of their streams; only with patience
	nextID     uint32
	maxStreams uint32 // 0 until the server has sent its settings
	window     int64  // for sending
	unreported int    // bytes received and not yet credited to the server

	decoder  *hpack.Decoder
	response response // of the header block being decoded
	answers  []answer // since the caller last looked
}

// stream is a request under way.
type stream struct {
	due     time.Duration
	refused bool
	code    codes.Code // of an answer that is not a response
}

// answer is a request that was answered.
type answer stream

// waiting is a request that is given up if its stream is still there at the end.
type waiting struct {
	id  uint32
	end time.Duration
}

// response is the relevant part of a header block.
type response struct{ status, grpcStatus, grpcMessage string }

func dial(address string, w Workload) (*conn, error) {
	nc, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	file, err := nc.(*net.TCPConn).File() // a duplicate that the runtime does not poll
	if err != nil {
		return nil, err
	}
	c := &conn{
		file: file, fd: int(file.Fd()), workload: w,
		streams: map[uint32]stream{}, nextID: 1, window: initialWindow,
	}
	if err := unix.SetNonblock(c.fd, true); err != nil {
		file.Close()
		return nil, os.NewSyscallError("setnonblock", err)
	}
	c.decoder = hpack.NewDecoder(4096, c.field)
	c.first, c.block = headerBlocks(w.Headers())
	return c, c.hello()
}

func (c *conn) close() { c.file.Close() }

// headerBlocks returns the block of a connection's first request, and the block of all
// others, which refers to the entries that the first has put into HPACK's table.
func headerBlocks(fields []hpack.HeaderField) (first, rest []byte) {
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	encode := func() []byte {
		buf.Reset()
		for _, f := range fields {
			_ = enc.WriteField(f) // a bytes.Buffer takes everything
		}
		return bytes.Clone(buf.Bytes())
	}
	return encode(), encode()
}

// hello begins the connection.
func (c *conn) hello() error {
	var buf bytes.Buffer
	f := http2.NewFramer(&buf, nil)
	err := errors.Join(
		f.WriteSettings(
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingHeaderTableSize, Val: 4096},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		),
		f.WriteWindowUpdate(0, connWindow-initialWindow),
	)
	c.out = append(append(c.out, http2.ClientPreface...), buf.Bytes()...)
	return err
}

// ask sends a request as soon as the connection allows it.
func (c *conn) ask(due time.Duration) {
	c.due = append(c.due, due)
	c.pump()
}

// pump moves requests from the queue to the buffer.
func (c *conn) pump() {
	sent := 0
	for _, due := range c.due {
		if len(c.streams) >= int(c.maxStreams) || c.window < maxFrame {
			break
		}
		c.send(due)
		sent++
	}
	c.due = append(c.due[:0], c.due[sent:]...)
}

func (c *conn) send(due time.Duration) {
	block, body := c.scratch.block[:0], c.scratch.body[:0]
	if c.first != nil {
		block = append(block, c.first...)
		c.first = nil
	} else {
		block = append(block, c.block...)
	}
	block, body = c.workload.Append(block, body)
	flags := http2.FlagHeadersEndHeaders
	if len(body) == 0 {
		flags |= http2.FlagHeadersEndStream
	}
	c.frame(http2.FrameHeaders, flags, c.nextID, block)
	if len(body) > 0 {
		c.frame(http2.FrameData, http2.FlagDataEndStream, c.nextID, body)
		c.window -= int64(len(body))
	}
	c.streams[c.nextID] = stream{due: due}
	if c.patience > 0 {
		c.waiting = append(c.waiting, waiting{c.nextID, due + c.patience})
	}
	c.nextID += 2
	c.scratch.block, c.scratch.body = block, body
}

// giveUp resets the requests whose time has passed, as Envoy does, and forgets
// those not sent yet. It returns how many.
func (c *conn) giveUp(now time.Duration) (late int) {
	if c.patience == 0 {
		return 0
	}
	done := 0
	for ; done < len(c.waiting) && c.waiting[done].end <= now; done++ {
		id := c.waiting[done].id
		if _, ok := c.streams[id]; !ok {
			continue
		}
		delete(c.streams, id)
		c.frame(http2.FrameRSTStream, 0, id, binary.BigEndian.AppendUint32(nil, uint32(http2.ErrCodeCancel)))
		late++
	}
	c.waiting = append(c.waiting[:0], c.waiting[done:]...)
	done = 0
	for ; done < len(c.due) && c.due[done]+c.patience <= now; done++ {
		late++
	}
	c.due = append(c.due[:0], c.due[done:]...)
	return late
}

func (c *conn) frame(t http2.FrameType, flags http2.Flags, id uint32, payload []byte) {
	n := len(payload)
	c.out = append(c.out, byte(n>>16), byte(n>>8), byte(n), byte(t), byte(flags))
	c.out = binary.BigEndian.AppendUint32(c.out, id)
	c.out = append(c.out, payload...)
}

// flush writes as much as the socket takes.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	n, err := unix.Write(c.fd, c.out)
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return os.NewSyscallError("write", err)
	}
	c.out = append(c.out[:0], c.out[n:]...)
	return nil
}

// receive reads the available data and handles the complete frames in it.
func (c *conn) receive() error {
	const atOnce = 64 << 10
	have := len(c.in)
	if cap(c.in)-have < atOnce {
		c.in = append(make([]byte, 0, have+2*atOnce), c.in...)
	}
	n, err := unix.Read(c.fd, c.in[have:cap(c.in)])
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return os.NewSyscallError("read", err)
	case n == 0:
		return fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
	}
	c.in = c.in[:have+n]
	rest := c.in
	for len(rest) >= frameHead {
		size := int(rest[0])<<16 | int(rest[1])<<8 | int(rest[2])
		if len(rest) < frameHead+size {
			break
		}
		id := binary.BigEndian.Uint32(rest[5:]) &^ (1 << 31)
		if err := c.take(http2.FrameType(rest[3]), http2.Flags(rest[4]), id, rest[frameHead:frameHead+size]); err != nil {
			return err
		}
		rest = rest[frameHead+size:]
	}
	c.in = append(c.in[:0], rest...)
	c.pump()
	return nil
}

// take handles one frame.
func (c *conn) take(t http2.FrameType, flags http2.Flags, id uint32, payload []byte) error {
	switch t {
	case http2.FrameData:
		if flags.Has(http2.FlagDataPadded) {
			return errors.New("the server pads its frames")
		}
		c.credit(len(payload))
		c.data(id, payload)
		if flags.Has(http2.FlagDataEndStream) {
			return c.end(id)
		}
	case http2.FrameHeaders:
		if flags.Has(http2.FlagHeadersPadded) || flags.Has(http2.FlagHeadersPriority) || !flags.Has(http2.FlagHeadersEndHeaders) {
			return errors.New("the server pads, prioritises or splits its headers")
		}
		if err := c.headers(id, payload); err != nil {
			return err
		}
		if flags.Has(http2.FlagHeadersEndStream) {
			return c.end(id)
		}
	case http2.FrameSettings:
		if !flags.Has(http2.FlagSettingsAck) {
			c.settings(payload)
			c.frame(http2.FrameSettings, http2.FlagSettingsAck, 0, nil)
		}
	case http2.FramePing:
		if !flags.Has(http2.FlagPingAck) {
			c.frame(http2.FramePing, http2.FlagPingAck, 0, payload)
		}
	case http2.FrameWindowUpdate:
		// A request is smaller than any stream's window.
		if id == 0 && len(payload) == 4 {
			c.window += int64(binary.BigEndian.Uint32(payload))
		}
	case http2.FrameRSTStream:
		// A frame after an answer only says that the stream is over.
		if s, waiting := c.streams[id]; waiting {
			if c.patience == 0 {
				return fmt.Errorf("the server reset a request: error code %x", payload)
			}
			s.code = codes.Canceled
			c.streams[id] = s
			return c.end(id)
		}
	case http2.FrameGoAway:
		return fmt.Errorf("the server is going away: %q", payload)
	}
	return nil
}

func (c *conn) settings(payload []byte) {
	if c.maxStreams == 0 {
		c.maxStreams = 1 << 30
	}
	for ; len(payload) >= 6; payload = payload[6:] {
		if http2.SettingID(binary.BigEndian.Uint16(payload)) == http2.SettingMaxConcurrentStreams {
			c.maxStreams = binary.BigEndian.Uint32(payload[2:])
		}
	}
}

// credit lets the server send as many bytes as were received.
func (c *conn) credit(n int) {
	if c.unreported += n; c.unreported > connWindow/2 {
		c.frame(http2.FrameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, uint32(c.unreported)))
		c.unreported = 0
	}
}

// data reads the first field of a RateLimitResponse, the overall code.
func (c *conn) data(id uint32, payload []byte) {
	const prefix, tag = 5, 1 << 3
	if s, ok := c.streams[id]; ok && len(payload) > prefix+1 && payload[prefix] == tag {
		s.refused = payload[prefix+1] == byte(pb.RateLimitResponse_OVER_LIMIT)
		c.streams[id] = s
	}
}

func (c *conn) headers(id uint32, block []byte) error {
	c.response = response{}
	if _, err := c.decoder.Write(block); err != nil {
		return err
	}
	if err := c.decoder.Close(); err != nil {
		return err
	}
	r := &c.response
	switch {
	case r.status == "429":
		s := c.streams[id]
		s.refused = true
		c.streams[id] = s
	case c.patience > 0 && r.grpcStatus != "" && r.grpcStatus != "0":
		code, err := strconv.Atoi(r.grpcStatus)
		if err != nil {
			return fmt.Errorf("grpc-status %q", r.grpcStatus)
		}
		if s, ok := c.streams[id]; ok {
			s.code = codes.Code(code)
			c.streams[id] = s
		}
	case r.status != "" && r.status != "200", r.grpcStatus != "" && r.grpcStatus != "0":
		return fmt.Errorf("an answer with :status %q, grpc-status %q: %s", r.status, r.grpcStatus, r.grpcMessage)
	}
	return nil
}

func (c *conn) field(f hpack.HeaderField) {
	switch f.Name {
	case ":status":
		c.response.status = f.Value
	case "grpc-status":
		c.response.grpcStatus = f.Value
	case "grpc-message":
		c.response.grpcMessage = f.Value
	}
}

// end ends the request with that stream.
func (c *conn) end(id uint32) error {
	s, ok := c.streams[id]
	if !ok && c.patience > 0 && id < c.nextID {
		return nil // given up meanwhile
	}
	if !ok {
		return fmt.Errorf("an answer to stream %d, which asked for none", id)
	}
	delete(c.streams, id)
	c.answers = append(c.answers, answer(s))
	return nil
}
