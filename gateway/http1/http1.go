// SPDX-License-Identifier: Apache-2.0

// Package http1 is a client for HTTP/1.1 (RFC 9112) over connections that stand:
// plain TCP, or TLS. A connection serves one exchange at a time and then returns
// to a [Pool]; a [Client] makes connections to the servers of URLs.
//
// It exists because net/http's Transport needs two goroutines for each
// connection and their wake-ups for each exchange. Here a small request is
// written, and the response read, on the goroutine of the caller; only a larger
// request has one of its own while it is sent. Responses are parsed by net/http.
package http1

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ErrResponse tells that what came back is no acceptable HTTP response.
var ErrResponse = errors.New("malformed HTTP response")

var (
	errTooLarge = fmt.Errorf("%w: larger than allowed", ErrResponse)
	errRequest  = errors.New("malformed HTTP request")
	// errUnanswered tells that the connection ended before a byte of a response
	// came.
	errUnanswered = errors.New("closed without an answer")
)

const (
	// readBuffer holds a response head and most small responses' content.
	readBuffer = 16 << 10
	// writeBuffer collects small writes; below 64 KiB, as a chunk's size is
	// written in four digits.
	writeBuffer = 32 << 10
	// synchronous is the size up to which a request that is at hand is written
	// before the response is read: socket buffers take it although the server
	// may answer before it reads.
	synchronous = 64 << 10
	// maxHead bounds status line and header of a response, interim responses
	// included, in bytes.
	maxHead = 64 << 10
	// lateAnswer is how long an answer is waited for after the server stopped
	// taking the request: it may have sent one before it closed.
	lateAnswer = 2 * time.Second
	// drainTime and drainSize bound what is spent on reading the end of a
	// response that its reader did not read, to save the connection.
	drainTime = 50 * time.Millisecond
	drainSize = 4 << 10
	// sendPatience is how long the rest of a request in memory is sent although
	// the response is there.
	sendPatience = time.Second
)

// Request is what a server is asked. What frames it (Host, Content-Length,
// Transfer-Encoding) is added, nothing else is.
type Request struct {
	Method string
	Target string // path and query as they go out: "/", "/pets?limit=2"
	Host   string // with the port, if it is not the scheme's
	// Fields gives names and values of the header; they go out in this order,
	// names as they are: some servers compare them with case. Nil: none.
	Fields iter.Seq2[string, string]
	// Body is nil if there is none. It is read only while it is sent, and not
	// closed.
	Body io.Reader
	// Length of Body in bytes; a body that has one must give its bytes without
	// waiting for anything but a disk. Negative: unknown, sent in chunks as it is
	// read.
	Length int64
	// MaxResponse bounds the content of the response, in bytes. 0: no bound.
	MaxResponse int64
}

// appendHead appends request line and header. It refuses what would break the
// request apart.
func (r *Request) appendHead(b []byte) ([]byte, error) {
	if !isToken(r.Method) || r.Method == http.MethodConnect {
		return nil, fmt.Errorf("%w: method %q", errRequest, r.Method)
	}
	if !strings.HasPrefix(r.Target, "/") || strings.ContainsFunc(r.Target, notVisible) {
		return nil, fmt.Errorf("%w: target %q", errRequest, r.Target)
	}
	if r.Host == "" || strings.ContainsFunc(r.Host, notOfHost) {
		return nil, fmt.Errorf("%w: host %q", errRequest, r.Host)
	}
	b = append(append(append(append(b, r.Method...), ' '), r.Target...), " HTTP/1.1\r\nHost: "...)
	b = append(append(b, r.Host...), "\r\n"...)
	switch {
	case r.Body != nil && r.Length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case r.Body != nil || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch:
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), r.size(), 10), "\r\n"...)
	}
	w := fieldWriter{b: b}
	if r.Fields != nil {
		r.Fields(w.add)
	}
	if w.err != nil {
		return nil, fmt.Errorf("%w: %w", errRequest, w.err)
	}
	return append(w.b, "\r\n"...), nil
}

// fieldWriter appends fields to b up to the first that is refused. It costs fewer
// allocations than a range over them.
type fieldWriter struct {
	b   []byte
	err error
}

func (w *fieldWriter) add(name, value string) bool {
	if w.err = CheckField(name, value); w.err != nil {
		return false
	}
	w.b = append(append(w.b, name...), ": "...)
	w.b = append(append(w.b, strings.Trim(value, " \t")...), "\r\n"...)
	return true
}

// size returns the length of the body, negative if it is not known.
func (r *Request) size() int64 {
	if r.Body == nil {
		return 0
	}
	return r.Length
}

func (r *Request) maxResponse() int64 {
	if r.MaxResponse == 0 {
		return math.MaxInt64
	}
	return r.MaxResponse
}

// CheckField refuses a header field that would break a request apart: one that
// frames messages or concerns the connection, or has characters that end it
// (RFC 9110, sections 5.5, 5.6.2 and 7.6.1).
func CheckField(name, value string) error {
	if !isToken(name) {
		return fmt.Errorf("header name %q is not allowed", name)
	}
	if ofConnection(name) {
		return fmt.Errorf("header %s is the connection's own", name)
	}
	for i := 0; i < len(value); i++ {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Errorf("the value of header %s is not allowed", name)
		}
	}
	return nil
}

// ofConnection tells the fields that are not for callers to set.
func ofConnection(name string) bool {
	is := func(s string) bool { return strings.EqualFold(name, s) }
	switch len(name) {
	case 2:
		return is("te")
	case 4:
		return is("host")
	case 6:
		return is("expect")
	case 7:
		return is("trailer") || is("upgrade")
	case 10:
		return is("connection") || is("keep-alive")
	case 14:
		return is("content-length")
	case 17:
		return is("transfer-encoding")
	}
	return false
}

func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if !TokenCharacter(rune(s[i])) {
			return false
		}
	}
	return s != ""
}

// TokenCharacter is tchar of RFC 9110, section 5.6.2.
func TokenCharacter(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' ||
		r < 0x7f && strings.ContainsRune("!#$%&'*+.^_`|~", r)
}

func notVisible(r rune) bool { return r <= ' ' || r >= 0x7f }

// notOfHost tells what is not in a host and port (RFC 3986, section 3.2), user
// information and what would have to be encoded left out.
func notOfHost(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-._~:[]!$&'()*+,;=", r))
}
