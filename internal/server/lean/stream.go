package lean

import "golang.org/x/net/http2/hpack"

// stream is a stream of a connection, from its header fields until both sides have
// ended it. Its first DATA frame decides who serves it.
type stream struct {
	id       uint32
	window   int64               // how many bytes of DATA the client takes
	takes    int64               // how many bytes of DATA the client may send
	fields   []hpack.HeaderField // while it is not known who serves it
	kept     int                 // bytes of fields
	ctx      callContext
	declared int64 // content-length; -1: none
	received int64 // bytes of DATA
	ended    bool  // by the client

	relay *relay // serves it, if set, as its stream up
	up    uint32

	// What the client's windows do not let through yet. trailer follows the data, if it
	// is not nil.
	data    []byte
	trailer []byte
	finish  bool // DATA ends the stream, without a trailer
}

// blocked reports whether something waits for the client's windows.
func (st *stream) blocked() bool { return len(st.data) > 0 }
