// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// readBuffer holds a response head and most small responses' parts.
	readBuffer = 16 << 10
	// synchronous is the size up to which a request that is all in memory is
	// written before the response is read: socket buffers and the peer's drain
	// take it.
	synchronous = 128 << 10
	// lateAnswer is how long an answer is waited for after the peer stopped
	// taking the request: it may have sent a fault before it closed.
	lateAnswer = 2 * time.Second
	// drainTime and drainSize bound what is spent on reading the end of a
	// response that its reader did not read, to save the connection.
	drainTime = 50 * time.Millisecond
	drainSize = 4 << 10
	// sendPatience is how long the rest of a request in memory is sent although
	// the response is there.
	sendPatience = time.Second
	// maxInterim bounds the 1xx responses before the real one.
	maxInterim = 4
)

// past is a deadline that breaks a connection's reads and writes.
var past = time.Unix(1, 0)

// h1 is a session of HTTP/1.1 over TLS, used by one exchange at a time.
type h1 struct {
	raw    net.Conn
	tls    *tls.Conn
	host   string
	certs  []*x509.Certificate
	pool   *pool
	key    poolKey
	max    int64
	reaper *time.Timer // set by the pool
	used   time.Time   // for the last time; set by the pool
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }}

func (c *h1) certificates() []*x509.Certificate { return c.certs }

// stapled returns nothing: over HTTPS, responses come from port 5577.
func (c *h1) stapled() []byte { return nil }

func (c *h1) at() (poolKey, Transport) { return c.key, HTTPS }

// discard closes the connection without TLS's farewell, which could block.
func (c *h1) discard() { c.raw.Close() }

func (c *h1) release() { c.pool.put(c) }

// exchange writes the request on one goroutine and reads the response on
// another, so that neither side has to wait for the other's end.
func (c *h1) exchange(ctx context.Context, header http.Header, body io.Reader) (*Response, error) {
	x := &h1Exchange{conn: c, ctx: ctx, sent: make(chan error, 1)}
	x.stop = context.AfterFunc(ctx, func() { c.raw.SetDeadline(past) })
	w := newChunkWriter(c.tls, requestHead(c.host, header))
	held, inMemory := body.(interface{ Len() int })
	switch body.(type) {
	case *bytes.Buffer, *bytes.Reader, *strings.Reader:
	default:
		inMemory = false
	}
	if inMemory && held.Len() <= synchronous {
		x.send(w, body)
	} else {
		go x.send(w, body)
	}
	resp, err := x.readHead()
	if err == nil && inMemory {
		x.finishSending()
	}
	if err != nil {
		c.discard()
		x.release(false)
		if e := x.bodyError(inMemory); e != nil {
			return nil, e
		}
		return nil, err
	}
	return resp, nil
}

// h1Exchange is one request and its response.
type h1Exchange struct {
	conn *h1
	ctx  context.Context
	stop func() bool // ends ctx's power over the connection
	in   meter
	br   *bufio.Reader
	body io.ReadCloser // of net/http, over br
	last bool          // the peer closes the connection after this response

	sent    chan error // result of send, once
	outcome error
	settled bool // outcome has been taken from sent

	mu       sync.Mutex // guards what Read and Close may do at once
	released bool
	ended    bool // body was read to its end
	failed   bool // reading it failed
}

// sourceError marks an error that came from the caller's body.
type sourceError struct{ error }

// send writes the request. If its source fails, no response will come; if the
// connection does, one may be there already.
func (x *h1Exchange) send(w *chunkWriter, body io.Reader) {
	buf := copyBuffers.Get().(*[copySize]byte)
	_, err := io.CopyBuffer(onlyWriter{w}, body, buf[:])
	copyBuffers.Put(buf)
	source := err != nil && !w.broken()
	if source {
		err = sourceError{err}
	}
	if e := w.finish(err == nil); err == nil {
		err = e
	}
	x.sent <- err // before the connection breaks, so that the reason is known
	switch {
	case err == nil:
	case source || x.ctx.Err() != nil:
		x.conn.raw.SetDeadline(past)
	default:
		x.conn.raw.SetReadDeadline(time.Now().Add(lateAnswer))
	}
}

const copySize = 32 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// onlyWriter hides everything but Write, so that io.CopyBuffer uses its buffer.
type onlyWriter struct{ io.Writer }

// readHead reads the response up to its body.
func (x *h1Exchange) readHead() (*Response, error) {
	x.in = meter{r: x.conn.tls, left: maxResponseHead}
	x.br = readers.Get().(*bufio.Reader)
	x.br.Reset(&x.in)
	for range maxInterim {
		resp, err := http.ReadResponse(x.br, &http.Request{Method: http.MethodPost})
		if err != nil {
			var network net.Error
			if errors.As(err, &network) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, fmt.Errorf("read response: %w", err)
			}
			return nil, fmt.Errorf("%w: %w", ErrResponse, err)
		}
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return nil, fmt.Errorf("%w: it switches protocols", ErrResponse)
		}
		if resp.StatusCode >= 200 {
			x.in.left = x.conn.max
			x.body, x.last = resp.Body, resp.Close
			return &Response{Status: resp.StatusCode, Header: resp.Header, Body: (*h1Body)(x)}, nil
		}
	}
	return nil, fmt.Errorf("%w: too many interim responses", ErrResponse)
}

// finishSending makes sure that a body in memory is no longer used. The peer
// answered already; if it takes no more, the rest is not sent.
func (x *h1Exchange) finishSending() {
	patience := time.AfterFunc(sendPatience, func() { x.conn.raw.SetWriteDeadline(past) })
	x.settle(<-x.sent)
	if !patience.Stop() {
		x.outcome = errors.Join(x.outcome, ErrTimeout) // the connection cannot be used again
	}
}

func (x *h1Exchange) settle(err error) { x.outcome, x.settled = err, true }

// trySettle takes the result of sending if there is one.
func (x *h1Exchange) trySettle() bool {
	if !x.settled {
		select {
		case err := <-x.sent:
			x.settle(err)
		default:
		}
	}
	return x.settled
}

// bodyError returns what the caller's body did to make the exchange fail.
func (x *h1Exchange) bodyError(wait bool) error {
	if wait && !x.settled {
		x.settle(<-x.sent)
	}
	var e sourceError
	if x.trySettle() && errors.As(x.outcome, &e) {
		return e.error
	}
	return nil
}

// h1Body is the body of a response; with its end the connection is free again.
type h1Body h1Exchange

func (b *h1Body) Read(p []byte) (int, error) {
	x := (*h1Exchange)(b)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.released {
		if x.ended {
			return 0, io.EOF
		}
		return 0, net.ErrClosed
	}
	n, err := x.body.Read(p)
	switch {
	case err == io.EOF:
		x.ended = true
		if x.trySettle() {
			x.recycle()
		}
	case err != nil:
		x.failed = true
		err = explain(x.ctx, fmt.Errorf("read response: %w", err))
	}
	return n, err
}

// Close frees the connection for another exchange if this one came to a regular
// end, or is about to, and closes it otherwise. It breaks a Read under way.
func (b *h1Body) Close() error {
	x := (*h1Exchange)(b)
	if !x.mu.TryLock() {
		x.conn.raw.SetDeadline(past)
		x.mu.Lock()
	}
	defer x.mu.Unlock()
	if x.released {
		return nil
	}
	if !x.ended && !x.failed && !x.last && x.trySettle() && x.outcome == nil {
		x.conn.raw.SetReadDeadline(time.Now().Add(drainTime))
		_, err := io.CopyN(io.Discard, x.body, drainSize)
		x.ended = err == io.EOF
		x.conn.raw.SetReadDeadline(time.Time{})
	}
	if x.ended && !x.last && !x.trySettle() { // the sender is a moment behind the answer, or stuck
		select {
		case err := <-x.sent:
			x.settle(err)
		case <-time.After(drainTime):
		}
	}
	x.recycle()
	return nil
}

// recycle gives the connection back to the pool or closes it. x.mu is held.
func (x *h1Exchange) recycle() {
	reusable := x.ended && !x.last && x.trySettle() && x.outcome == nil && x.br.Buffered() == 0
	x.release(reusable)
}

func (x *h1Exchange) release(reusable bool) {
	x.released = true
	// If ctx has struck, its deadline is on the connection.
	if !x.stop() || !reusable {
		x.conn.discard()
	} else {
		x.conn.pool.put(x.conn)
	}
	x.br.Reset(nil)
	readers.Put(x.br)
	x.br = nil
}

// meter passes on as many bytes as are left.
type meter struct {
	r    io.Reader
	left int64
}

var errTooLarge = fmt.Errorf("%w: larger than allowed", ErrResponse)

func (m *meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, errTooLarge
	}
	if int64(len(p)) > m.left {
		p = p[:m.left]
	}
	n, err := m.r.Read(p)
	m.left -= int64(n)
	return n, err
}
