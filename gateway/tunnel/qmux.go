// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"fmt"
	"math"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// QMux version 1 (draft-ietf-quic-qmux-02): the streams and the flow control of
// QUIC version 1 (RFC 9000) over TLS over TCP. Here are its formats.

// alpnLink says HTTP/3 over QMux as of the draft in its name. It must not be
// that of HTTP/3 over QUIC (section 7.1 of the draft).
const alpnLink = "kontor-02qx"

// Types of frames (RFC 9000, section 19; sections 4.2 and 4.3 of the draft).
const (
	qxPadding           = 0x00
	qxResetStream       = 0x04
	qxStopSending       = 0x05
	qxStream            = 0x08 // to 0x0f
	qxStreamFin         = 0x01 // bits of it
	qxStreamLen         = 0x02
	qxStreamOff         = 0x04
	qxMaxData           = 0x10
	qxMaxStreamData     = 0x11
	qxMaxStreamsBidi    = 0x12
	qxMaxStreamsUni     = 0x13
	qxDataBlocked       = 0x14
	qxStreamDataBlocked = 0x15
	qxStreamsBlocked    = 0x16 // to 0x17
	qxClose             = 0x1c
	qxCloseApplication  = 0x1d
	qxParameters        = 0x3f5153300d0a0d0a
	qxPing              = 0x348c67529ef8c7bd
	qxPong              = 0x348c67529ef8c7be
)

// Transport parameters that are allowed (RFC 9000, section 18.2; section 5 of
// the draft). The others up to qxLastParameter are forbidden.
const (
	qxMaxIdle        = 0x01
	qxInitialData    = 0x04
	qxInitialLocal   = 0x05
	qxInitialRemote  = 0x06
	qxInitialUni     = 0x07
	qxInitialStreams = 0x08
	qxInitialUnis    = 0x09
	qxLastParameter  = 0x10
	qxMaxRecord      = 0x0571c59429cd0845
)

const (
	// recordSize is the largest record that both ends take unless they say
	// otherwise; with its size before it, it is a full record of TLS.
	recordSize = 16382
	// recordHead is the size before each of our records.
	recordHead = 2
	// streamHead is the most that stands before the data of a STREAM frame that
	// ends its record: type, stream, offset.
	streamHead = 1 + 8 + 8
	// maxStreamCount bounds the streams of a connection, ever (RFC 9000, section 4.6).
	maxStreamCount = 1 << 60
	// maxReason bounds the text of a CONNECTION_CLOSE that is kept.
	maxReason = 256
)

// qxFrame is one frame. What its fields mean depends on kind.
type qxFrame struct {
	kind   uint64
	stream uint64
	value  uint64 // offset, limit, error code or sequence number
	final  uint64 // final size, or the type of the frame that was wrong
	fin    bool
	data   []byte // of a stream, parameters or reason; part of the record
}

// violation is what ends a connection.
func violation(code quic.TransportErrorCode, format string, args ...any) error {
	return &quic.TransportError{ErrorCode: code, ErrorMessage: fmt.Sprintf(format, args...)}
}

// qxReader reads the numbers of a frame; after the first that is cut, failed.
type qxReader struct {
	b      []byte
	failed bool
}

func (r *qxReader) number() uint64 {
	v, n, err := quicvarint.Parse(r.b)
	if err != nil {
		r.failed, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *qxReader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.failed, r.b = true, nil
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

// next reads the first frame of what is left of a record, which is not empty.
func (f *qxFrame) next(record []byte) (rest []byte, err error) {
	kind, n, err := quicvarint.Parse(record)
	if err != nil {
		return nil, errFrameEnds
	}
	if n != quicvarint.Len(kind) {
		return nil, violation(quic.ProtocolViolation, "frame type in more bytes than it takes")
	}
	r := qxReader{b: record[n:]}
	*f = qxFrame{kind: kind}
	switch kind {
	case qxPadding:
		for len(r.b) > 0 && r.b[0] == qxPadding { // a run is one
			r.b = r.b[1:]
		}
	case qxResetStream:
		f.stream, f.value, f.final = r.number(), r.number(), r.number()
	case qxStopSending, qxMaxStreamData, qxStreamDataBlocked:
		f.stream, f.value = r.number(), r.number()
	case qxMaxData, qxDataBlocked, qxPing, qxPong:
		f.value = r.number()
	case qxMaxStreamsBidi, qxMaxStreamsUni, qxStreamsBlocked, qxStreamsBlocked + 1:
		if f.value = r.number(); f.value > maxStreamCount {
			return nil, violation(quic.FrameEncodingError, "limit of streams too large")
		}
	case qxClose, qxCloseApplication:
		f.value = r.number()
		if kind == qxClose {
			f.final = r.number()
		}
		f.data = r.bytes(r.number())
	case qxParameters:
		f.data = r.bytes(r.number())
	default:
		if kind&^7 != qxStream {
			return nil, violation(quic.FrameEncodingError, "frame type %#x", kind)
		}
		f.kind, f.fin, f.stream = qxStream, kind&qxStreamFin != 0, r.number()
		if kind&qxStreamOff != 0 {
			f.value = r.number()
		}
		length := uint64(len(r.b))
		if kind&qxStreamLen != 0 {
			length = r.number()
		}
		f.data = r.bytes(length)
		if f.value+uint64(len(f.data)) > quicvarint.Max {
			return nil, violation(quic.FrameEncodingError, "stream too long")
		}
	}
	if r.failed {
		return nil, errFrameEnds
	}
	return r.b, nil
}

var errFrameEnds = violation(quic.FrameEncodingError, "record ends within a frame")

// qxSettings are the transport parameters of one end.
type qxSettings struct {
	idle               time.Duration // 0: none
	data               uint64
	local, remote, uni uint64 // bytes of a stream: opened by that end, by the other, one-way
	streams, unis      uint64 // that the other end may open
	record             uint64
}

// readSettings reads transport parameters.
func readSettings(b []byte) (qxSettings, error) {
	s := qxSettings{record: recordSize}
	malformed := violation(quic.TransportParameterError, "malformed transport parameters")
	var seen uint32
	for r := (qxReader{b: b}); len(r.b) > 0; {
		id := r.number()
		value := r.bytes(r.number())
		if r.failed {
			return s, malformed
		}
		var to *uint64
		var idle uint64
		switch id {
		case qxMaxIdle:
			to = &idle
		case qxInitialData:
			to = &s.data
		case qxInitialLocal:
			to = &s.local
		case qxInitialRemote:
			to = &s.remote
		case qxInitialUni:
			to = &s.uni
		case qxInitialStreams:
			to = &s.streams
		case qxInitialUnis:
			to = &s.unis
		case qxMaxRecord:
			to, id = &s.record, qxLastParameter+1
		default:
			if id <= qxLastParameter {
				return s, violation(quic.TransportParameterError, "transport parameter %#x is not allowed", id)
			}
			continue
		}
		v, n, err := quicvarint.Parse(value)
		if err != nil || n != len(value) || seen&(1<<id) != 0 {
			return s, malformed
		}
		seen |= 1 << id
		*to = v
		if id == qxMaxIdle {
			s.idle = time.Duration(min(v, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
		}
	}
	switch {
	case s.streams > maxStreamCount || s.unis > maxStreamCount:
		return s, violation(quic.TransportParameterError, "limit of streams too large")
	case s.record < recordSize:
		return s, violation(quic.TransportParameterError, "limit of records too small")
	}
	return s, nil
}

// append writes the frame that carries transport parameters.
func (s qxSettings) append(b []byte) []byte {
	var p []byte
	for _, one := range []struct{ id, value uint64 }{
		{qxMaxIdle, uint64(s.idle.Milliseconds())}, {qxInitialData, s.data}, {qxInitialLocal, s.local}, {qxInitialRemote, s.remote},
		{qxInitialUni, s.uni}, {qxInitialStreams, s.streams}, {qxInitialUnis, s.unis},
	} {
		p = quicvarint.Append(p, one.id)
		p = quicvarint.Append(p, uint64(quicvarint.Len(one.value)))
		p = quicvarint.Append(p, one.value)
	}
	b = quicvarint.Append(b, qxParameters)
	b = quicvarint.Append(b, uint64(len(p)))
	return append(b, p...)
}

// appendRecord writes a record of one frame: its type and numbers, then data.
func appendRecord(b []byte, data []byte, numbers ...uint64) []byte {
	start := len(b)
	b = append(b, 0, 0)
	for _, n := range numbers {
		b = quicvarint.Append(b, n)
	}
	b = append(b, data...)
	endRecord(b[start:])
	return b
}

// endRecord writes the size of a record before it.
func endRecord(b []byte) {
	n := len(b) - recordHead
	b[0], b[1] = 0x40|byte(n>>8), byte(n)
}
