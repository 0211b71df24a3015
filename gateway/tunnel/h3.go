// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"

	"kontor/gateway/http1"
)

// HTTP/3 (RFC 9114) as two security servers need it: requests and responses on
// streams, each with fields and content; no push, no dynamic table. quic-go's
// own HTTP/3 costs twice as much for a small message.

const alpn = "h3"

// carrier is a connection that has streams.
type carrier interface {
	Context() context.Context // ends with the connection
	CloseWithError(quic.ApplicationErrorCode, string) error
	RemoteAddr() net.Addr
}

// stream is one that both ends write. As quic-go's: Close ends what is written,
// regularly; Context ends with that, too.
type stream interface {
	receiveStream
	io.WriteCloser
	CancelWrite(quic.StreamErrorCode)
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	Context() context.Context
}

// receiveStream is one that the peer writes.
type receiveStream interface {
	io.Reader
	CancelRead(quic.StreamErrorCode)
}

// Types of frames and streams.
const (
	frameData      = 0x0
	frameHeaders   = 0x1
	frameSettings  = 0x4
	frameGoAway    = 0x7
	streamControl  = 0x0
	streamPush     = 0x1
	streamEncoder  = 0x2
	streamDecoder  = 0x3
	settingMaxHead = 0x6 // SETTINGS_MAX_FIELD_SECTION_SIZE
)

// Error codes of RFC 9114, section 8.1, and RFC 9204, section 6.
const (
	codeNoError           = 0x100
	codeInternal          = 0x102
	codeStreamCreation    = 0x103
	codeClosedCritical    = 0x104
	codeFrameUnexpected   = 0x105
	codeFrame             = 0x106
	codeExcessiveLoad     = 0x107
	codeID                = 0x108
	codeMissingSettings   = 0x10a
	codeRequestRejected   = 0x10b
	codeRequestCancelled  = 0x10c
	codeRequestIncomplete = 0x10d
	codeMessage           = 0x10e
	codeDecompression     = 0x200
)

const (
	// maxFields and maxFieldBytes bound the fields of one message; real ones
	// have ten and below 1 KB.
	maxFields     = 128
	maxFieldBytes = 32 << 10
	// maxUnknown bounds the frames of unknown type in one message, and
	// maxUnknownBytes what is in each.
	maxUnknown      = 32
	maxUnknownBytes = 4 << 10
)

// h3Error is what a peer did against HTTP/3. It is ErrResponse to a client.
type h3Error struct {
	code uint64
	conn bool // ends the connection, not the stream alone
	text string
}

func (e *h3Error) Error() string { return "HTTP/3: " + e.text }

func (e *h3Error) Is(target error) bool { return target == ErrResponse }

var (
	errFrameUnexpected = &h3Error{codeFrameUnexpected, true, "unexpected frame"}
	errFrameTooLarge   = &h3Error{codeExcessiveLoad, true, "frame too large"}
	errUnknownFrames   = &h3Error{codeExcessiveLoad, true, "too many unknown frames"}
	errFrameCut        = &h3Error{codeFrame, true, "stream ends within a frame"}
	errNoHead          = &h3Error{codeFrameUnexpected, true, "content before the head"}
)

func malformed(format string, args ...any) error {
	return &h3Error{codeMessage, false, fmt.Sprintf(format, args...)}
}

// frames reads the frames of a stream.
type frames struct {
	r       io.Reader
	control bool // of the control stream, where pushes are spoken of
	unknown int  // frames passed over
	b       [8]byte
}

// varint reads a number (RFC 9000, section 16). The error is io.EOF only if
// there is not even a first byte.
func (f *frames) varint() (uint64, error) {
	if _, err := io.ReadFull(f.r, f.b[:1]); err != nil {
		return 0, err
	}
	v, n := uint64(f.b[0]&0x3f), 1<<(f.b[0]>>6)
	if n > 1 {
		if _, err := io.ReadFull(f.r, f.b[1:n]); err != nil {
			return 0, cut(err)
		}
	}
	for _, b := range f.b[1:n] {
		v = v<<8 | uint64(b)
	}
	return v, nil
}

// cut turns the end of a stream into an error.
func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errFrameCut
	}
	return err
}

// next reads the head of the next frame that has a meaning. The error is io.EOF
// at a regular end.
func (f *frames) next() (kind, length uint64, err error) {
	for {
		if kind, err = f.varint(); err != nil {
			return 0, 0, err
		}
		if length, err = f.varint(); err != nil {
			return 0, 0, cut(err)
		}
		switch kind {
		case frameData, frameHeaders, frameSettings, frameGoAway:
			return kind, length, nil
		case 0x2, 0x6, 0x8, 0x9, 0x5: // HTTP/2's, and a push
			return 0, 0, errFrameUnexpected
		case 0x3, 0xd: // about pushes
			if !f.control {
				return 0, 0, errFrameUnexpected
			}
		}
		if f.unknown++; f.unknown > maxUnknown || length > maxUnknownBytes {
			return 0, 0, errUnknownFrames
		}
		if _, err := io.CopyN(io.Discard, f.r, int64(length)); err != nil {
			return 0, 0, cut(err)
		}
	}
}

// payload reads all of a frame that may have max bytes.
func (f *frames) payload(length uint64, max int) ([]byte, error) {
	if length > uint64(max) {
		return nil, errFrameTooLarge
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(f.r, b); err != nil {
		return nil, cut(err)
	}
	return b, nil
}

// head reads a HEADERS frame, which must come first.
func (f *frames) head() (*fields, error) {
	kind, length, err := f.next()
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	switch kind {
	case frameHeaders:
	case frameData:
		return nil, errNoHead
	default:
		return nil, errFrameUnexpected
	}
	block, err := f.payload(length, maxFieldBytes)
	if err != nil {
		return nil, err
	}
	return readFields(block)
}

// h3Content reads the content of a message: what is in its DATA frames, up to
// the end of the stream. Anything but that end is an error, never io.EOF.
type h3Content struct {
	frames
	open     uint64 // left of the frame at hand
	length   int64  // announced and still to come; -1: not announced
	budget   int64  // bytes that may still come
	trailers bool
}

func (c *h3Content) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for c.open == 0 {
		kind, length, err := c.next()
		switch {
		case err == io.EOF && c.length > 0:
			return 0, io.ErrUnexpectedEOF
		case err != nil:
			return 0, err
		case kind == frameHeaders && !c.trailers:
			c.trailers = true // nobody asks for them
			if _, err := c.payload(length, maxFieldBytes); err != nil {
				return 0, err
			}
		case kind != frameData || c.trailers:
			return 0, errFrameUnexpected
		case c.length >= 0 && length > uint64(c.length):
			return 0, malformed("more content than announced")
		default:
			c.open = length
		}
	}
	if c.budget <= 0 {
		return 0, errTooLarge
	}
	n, err := c.r.Read(p[:min(uint64(len(p)), c.open, uint64(c.budget))])
	c.open -= uint64(n)
	c.budget -= int64(n)
	if c.length >= 0 {
		c.length -= int64(n)
	}
	if err == io.EOF {
		if c.open > 0 {
			return n, errFrameCut
		}
		err = nil // the next Read looks at what was announced
	}
	return n, err
}

// fields is the head of a message.
type fields struct {
	method, scheme, authority, path, status string
	header                                  http.Header
	length                                  int64 // of the content; -1: not announced
}

// readFields decodes a field section (RFC 9204) and checks it as RFC 9114,
// sections 4.2 and 4.3, demand.
func readFields(block []byte) (*fields, error) {
	f := &fields{header: make(http.Header, 8), length: -1}
	size, regular := 0, false
	next := new(qpack.Decoder).Decode(block)
	for n := 0; ; n++ {
		field, err := next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, &h3Error{codeDecompression, true, "malformed field section: " + err.Error()}
		}
		if size += len(field.Name) + len(field.Value) + 32; size > maxFieldBytes || n >= maxFields {
			return nil, malformed("too many fields")
		}
		if strings.ContainsFunc(field.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return nil, malformed("field with control characters")
		}
		if field.IsPseudo() {
			if regular {
				return nil, malformed("pseudo-header after a field")
			}
			if err := f.pseudo(field.Name, field.Value); err != nil {
				return nil, err
			}
			continue
		}
		regular = true
		if err := f.add(field.Name, field.Value); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *fields) pseudo(name, value string) error {
	var to *string
	switch name {
	case ":method":
		to = &f.method
	case ":scheme":
		to = &f.scheme
	case ":authority":
		to = &f.authority
	case ":path":
		to = &f.path
	case ":status":
		to = &f.status
	default:
		return malformed("unknown pseudo-header")
	}
	if *to != "" || value == "" {
		return malformed("pseudo-header %s twice or empty", name)
	}
	*to = value
	return nil
}

// connectionFields belong to HTTP/1.1 and must not occur.
var connectionFields = []string{"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}

func (f *fields) add(name, value string) error {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !http1.TokenCharacter(r) || 'A' <= r && r <= 'Z' }) {
		return malformed("field with a malformed name")
	}
	if slices.Contains(connectionFields, name) || name == "te" && value != "trailers" {
		return malformed("field %s does not belong to HTTP/3", name)
	}
	if name == "content-length" {
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || f.length >= 0 && f.length != int64(n) {
			return malformed("malformed content length")
		}
		f.length = int64(n)
	}
	key := textproto.CanonicalMIMEHeaderKey(name)
	f.header[key] = append(f.header[key], value)
	return nil
}

// Indices of the static table (RFC 9204, appendix A).
const (
	indexAuthority   = 0 // name only
	indexPath        = 1 // :path /
	indexPost        = 20
	indexHTTPS       = 23
	indexStatus      = 24 // name only
	indexStatus200   = 25
	indexContentType = 44 // name only
)

// appendInt writes an integer with a prefix of n bits below the bits given
// (RFC 7541, section 5.1).
func appendInt(b []byte, bits byte, n uint, v int) []byte {
	limit := 1<<n - 1
	if v < limit {
		return append(b, bits|byte(v))
	}
	b = append(b, bits|byte(limit))
	for v -= limit; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

func appendIndexed(b []byte, index int) []byte { return appendInt(b, 0xc0, 6, index) }

// appendNamed writes a field whose name is in the static table. Values are not
// compressed: that costs more than the bytes it saves.
func appendNamed(b []byte, index int, value string) []byte {
	b = appendInt(b, 0x50, 4, index)
	return append(appendInt(b, 0, 7, len(value)), value...)
}

func appendField(b []byte, name, value string) []byte {
	if strings.EqualFold(name, "Content-Type") {
		return appendNamed(b, indexContentType, value)
	}
	b = appendInt(b, 0x20, 3, len(name))
	start := len(b)
	b = append(b, name...)
	for i, c := range b[start:] {
		if 'A' <= c && c <= 'Z' {
			b[start+i] = c + 'a' - 'A'
		}
	}
	return append(appendInt(b, 0, 7, len(value)), value...)
}

// headRoom is what appendHead leaves for type and length of the frame.
const headRoom = 1 + 4

// appendHead writes a HEADERS frame.
func appendHead(b []byte, pseudo func([]byte) []byte, header http.Header) []byte {
	start := len(b)
	b = append(b, frameHeaders, 0, 0, 0, 0, 0, 0) // and the section's prefix: no dynamic table
	b = pseudo(b)
	for name, values := range header {
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	putLength(b[start+1:], len(b)-start-headRoom)
	return b
}

// putLength writes a length in four bytes; it is below 2^30.
func putLength(b []byte, n int) {
	b[0], b[1], b[2], b[3] = 0x80|byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
}

// beginControl makes a new stream the control stream and sends the settings.
func beginControl(s io.Writer) error {
	settings := quicvarint.Append(nil, settingMaxHead)
	settings = quicvarint.Append(settings, maxFieldBytes)
	b := quicvarint.Append([]byte{streamControl, frameSettings}, uint64(len(settings)))
	_, err := s.Write(append(b, settings...))
	return err
}

// uniStreams returns what handles each stream that the peer alone writes and
// returns with it. When these frames come on the control stream, of which there
// may be one, settings and goAway are called.
func uniStreams(conn carrier, settings, goAway func()) (handle func(receiveStream)) {
	var seen [streamDecoder + 1]atomic.Bool
	first := func(kind uint64) bool { return !seen[kind].Swap(true) }
	return func(s receiveStream) { uniStream(conn, s, first, settings, goAway) }
}

func uniStream(conn carrier, s receiveStream, first func(kind uint64) bool, settings, goAway func()) {
	f := &frames{r: s, control: true}
	kind, err := f.varint()
	if err != nil {
		return
	}
	switch kind {
	case streamControl, streamEncoder, streamDecoder:
		if !first(kind) {
			closeConn(conn, &h3Error{codeStreamCreation, true, "second stream of a kind"})
			return
		}
	case streamPush:
		closeConn(conn, &h3Error{codeID, true, "push without permission"})
		return
	}
	if kind != streamControl {
		if kind != streamEncoder && kind != streamDecoder {
			s.CancelRead(codeStreamCreation)
		}
		return // without a dynamic table there is nothing to read
	}
	if err := control(f, settings, goAway); err != nil {
		closeConn(conn, err)
	}
}

// control reads the control stream until it breaks.
func control(f *frames, settings, goAway func()) error {
	for begun := false; ; begun = true {
		kind, length, err := f.next()
		var protocol *h3Error
		switch {
		case errors.As(err, &protocol):
			return err
		case err != nil: // its end is the connection's
			return &h3Error{codeClosedCritical, true, "control stream closed"}
		case !begun && kind != frameSettings:
			return &h3Error{codeMissingSettings, true, "no settings"}
		case begun && kind != frameGoAway:
			return errFrameUnexpected
		}
		if _, err := f.payload(length, maxUnknownBytes); err != nil {
			return err
		}
		if kind == frameSettings {
			settings()
		} else {
			goAway()
		}
	}
}

// closeConn ends a connection for what the peer did.
func closeConn(conn carrier, err error) {
	var protocol *h3Error
	if !errors.As(err, &protocol) {
		protocol = &h3Error{codeInternal, true, ""}
	}
	_ = conn.CloseWithError(quic.ApplicationErrorCode(protocol.code), protocol.text)
}

// breakStream ends both directions of a stream so that the peer sees no regular
// end; what cannot be answered for on the stream alone ends the connection.
func breakStream(conn carrier, s stream, err error) {
	code := quic.StreamErrorCode(codeRequestCancelled)
	var protocol *h3Error
	if errors.As(err, &protocol) {
		if protocol.conn {
			closeConn(conn, err)
			return
		}
		code = quic.StreamErrorCode(protocol.code)
	}
	s.CancelRead(code)
	s.CancelWrite(code)
}

// h3Frames sends a message: its head, then its content in DATA frames, as few
// as its buffer allows.
type h3Frames struct {
	stream stream
	small  *[smallSend]byte  // nil until the head is known
	large  *[sendBuffer]byte // nil until small is too small
	buf    []byte            // of either, to be sent
	start  int               // of the open frame in buf; -1: there is none
	err    error             // of the stream
}

func (f *h3Frames) begin(pseudo func([]byte) []byte, header http.Header) {
	f.small = smallSends.Get().(*[smallSend]byte)
	f.buf, f.start = appendHead(f.small[:0], pseudo, header), -1
}

// add takes content and returns how much of it; the rest met an error.
func (f *h3Frames) add(p []byte) (n int) {
	if f.large == nil && len(f.buf)+headRoom+len(p) >= smallSend-headRoom {
		f.large = sendBuffers.Get().(*[sendBuffer]byte)
		f.buf = append(f.large[:0], f.buf...)
	}
	size := smallSend
	if f.large != nil {
		size = sendBuffer
	}
	for len(p) > 0 && f.err == nil {
		if f.start < 0 {
			f.start = len(f.buf)
			f.buf = append(f.buf, frameData, 0, 0, 0, 0)
		}
		k := min(len(p), size-len(f.buf))
		f.buf = append(f.buf, p[:k]...)
		p, n = p[k:], n+k
		if size-len(f.buf) <= headRoom {
			f.flush()
		}
	}
	return n
}

func (f *h3Frames) flush() {
	if f.start >= 0 {
		putLength(f.buf[f.start+1:], len(f.buf)-f.start-headRoom)
		f.start = -1
	}
	if len(f.buf) > 0 && f.err == nil {
		_, f.err = f.stream.Write(f.buf)
	}
	f.buf = f.buf[:0]
}

func (f *h3Frames) free() {
	if f.small != nil {
		smallSends.Put(f.small)
	}
	if f.large != nil {
		sendBuffers.Put(f.large)
	}
	f.small, f.large, f.buf = nil, nil, nil
}
