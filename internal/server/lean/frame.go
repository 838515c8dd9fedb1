package lean

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// Sizes in HTTP/2, of RFC 9113.
const (
	frameHeader    = 9
	mostFrameBytes = 16384 // of a payload; neither side may be asked to take less
	defaultWindow  = 65535
	mostWindow     = 1<<31 - 1
	mostStreamID   = 1<<31 - 1
)

// appendFrameHeader appends the header of a frame whose payload has size bytes.
func appendFrameHeader(b []byte, t http2.FrameType, flags http2.Flags, stream uint32, size int) []byte {
	b = append(b, byte(size>>16), byte(size>>8), byte(size), byte(t), byte(flags))
	return binary.BigEndian.AppendUint32(b, stream)
}

// appendHeaders appends a header block, in as many frames as it takes.
func appendHeaders(b []byte, stream uint32, block []byte, end bool) []byte {
	t, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	for len(block) > mostFrameBytes {
		b = appendFrameHeader(b, t, flags, stream, mostFrameBytes)
		b = append(b, block[:mostFrameBytes]...)
		t, flags, block = http2.FrameContinuation, 0, block[mostFrameBytes:]
	}
	b = appendFrameHeader(b, t, flags|http2.FlagHeadersEndHeaders, stream, len(block))
	return append(b, block...)
}

// appendData appends one DATA frame.
func appendData(b []byte, stream uint32, data []byte, end bool) []byte {
	flags := http2.Flags(0)
	if end {
		flags = http2.FlagDataEndStream
	}
	b = appendFrameHeader(b, http2.FrameData, flags, stream, len(data))
	return append(b, data...)
}

func appendReset(b []byte, stream uint32, code http2.ErrCode) []byte {
	b = appendFrameHeader(b, http2.FrameRSTStream, 0, stream, 4)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendWindowUpdate(b []byte, stream, by uint32) []byte {
	b = appendFrameHeader(b, http2.FrameWindowUpdate, 0, stream, 4)
	return binary.BigEndian.AppendUint32(b, by)
}

func appendPing(b []byte, data [8]byte, ack bool) []byte {
	flags := http2.Flags(0)
	if ack {
		flags = http2.FlagPingAck
	}
	b = appendFrameHeader(b, http2.FramePing, flags, 0, len(data))
	return append(b, data[:]...)
}

func appendGoAway(b []byte, last uint32, code http2.ErrCode, why string) []byte {
	b = appendFrameHeader(b, http2.FrameGoAway, 0, 0, 8+len(why))
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, why...)
}

func appendSettings(b []byte, settings ...http2.Setting) []byte {
	b = appendFrameHeader(b, http2.FrameSettings, 0, 0, 6*len(settings))
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Val)
	}
	return b
}

func appendSettingsAck(b []byte) []byte {
	return appendFrameHeader(b, http2.FrameSettings, http2.FlagSettingsAck, 0, 0)
}

// appendField appends a header field as a literal that the peer's table of fields does
// not take up, so that each block stands alone (RFC 7541, section 6.2.2).
func appendField(b []byte, name, value string) []byte {
	b = append(b, 0)
	b = append(appendLength(b, len(name)), name...)
	return append(appendLength(b, len(value)), value...)
}

// appendLength appends the length of a string that is not Huffman coded (RFC 7541,
// section 5.1).
func appendLength(b []byte, n int) []byte {
	const prefix = 1<<7 - 1
	if n < prefix {
		return append(b, byte(n))
	}
	return binary.AppendUvarint(append(b, prefix), uint64(n-prefix))
}
