// SPDX-License-Identifier: Apache-2.0

package http1

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
	"os"
	"strings"
	"sync"
	"time"
)

// past is a deadline that breaks a connection's reads and writes.
var past = time.Unix(1, 0)

// Conn is a connection to a server, for one exchange at a time. Its methods are
// for the goroutine that has it from where it was made or from a [Pool].
type Conn struct {
	conn  net.Conn // carries HTTP
	raw   net.Conn // the same, or what is below TLS
	certs []*x509.Certificate
	watch watch
	abort func() // breaks reads and writes
	spare [1]byte

	// Of the pool.
	keep   func() // gives it back; nil: it has no pool
	reap   func()
	reaper *time.Timer
	used   time.Time // for the last time
}

// NewConn makes a Conn of a connection that stands. TLS must have shaken hands.
func NewConn(conn net.Conn) *Conn {
	c := &Conn{conn: conn, raw: conn}
	if t, ok := conn.(*tls.Conn); ok {
		c.raw, c.certs = t.NetConn(), t.ConnectionState().PeerCertificates
	}
	c.watch.start(c.raw)
	c.abort = func() { c.raw.SetDeadline(past) }
	return c
}

// alive tells whether an idle connection can be used again, as far as can be
// known without sending anything.
func (c *Conn) alive() bool {
	if !c.watch.alive() {
		return false
	}
	if c.conn == c.raw {
		return true
	}
	// TLS may have read ahead, and has the server's farewell.
	c.raw.SetReadDeadline(past)
	_, err := c.conn.Read(c.spare[:])
	c.raw.SetReadDeadline(time.Time{})
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// Certificates returns what the server presented, its own first.
func (c *Conn) Certificates() []*x509.Certificate { return c.certs }

// Discard closes the connection, without TLS's farewell, which could block.
func (c *Conn) Discard() { c.raw.Close() }

// Release gives back a connection that is not needed after all.
func (c *Conn) Release() {
	if c.keep == nil {
		c.Discard()
		return
	}
	c.keep()
}

// Exchange sends a request and returns the head of the response, whose body the
// caller must close. Afterwards the connection takes care of itself: it returns
// to its pool or closes. Interim responses (1xx) are passed over.
//
// The response may come before the request has been sent; then sending goes on
// while the response is read, until its body is closed. The request's body is no
// longer used when the response's has been closed or Exchange has failed; a
// *bytes.Buffer, *bytes.Reader or *strings.Reader, when Exchange returns. Only of
// another body without Length a Read under way may return later, and what it
// returns is lost. ctx covers the exchange until the response's body is closed:
// when it ends, reads and writes time out.
//
// Errors: ErrResponse, those of the request's body, and those of the network.
func (c *Conn) Exchange(ctx context.Context, r *Request) (*http.Response, error) {
	array := buffers.Get().(*buffer)
	head, err := r.appendHead(array[:0])
	if err != nil {
		buffers.Put(array)
		c.Release() // it was not touched
		return nil, err
	}
	x := &exchange{conn: c, ctx: ctx, asked: http.Request{Method: r.Method}}
	x.stop = context.AfterFunc(ctx, c.abort)
	size, inMemory := InMemory(r.Body)
	if r.size() >= 0 {
		size, inMemory = int(min(r.size(), synchronous+1)), false
	}
	x.atHand = inMemory || r.size() >= 0
	if x.atHand && size <= synchronous {
		x.settle(c.send(r, array, head, false))
		x.afterwards(x.outcome)
	} else {
		x.sent = make(chan error, 1)
		go func() {
			err := c.send(r, array, head, true)
			x.sent <- err // before the connection breaks, so that the reason is known
			x.afterwards(err)
		}()
	}
	resp, err := x.readHead(r.maxResponse())
	if err == nil && inMemory {
		x.finishSending()
	}
	if err != nil {
		x.release(false)
		if e := x.sourceError(); e != nil {
			return nil, e
		}
		return nil, err
	}
	return resp, nil
}

// InMemory tells whether a body is one of those that are all in memory, and its
// size.
func InMemory(body io.Reader) (int, bool) {
	switch b := body.(type) {
	case *bytes.Buffer:
		return b.Len(), true
	case *bytes.Reader:
		return b.Len(), true
	case *strings.Reader:
		return b.Len(), true
	}
	return 0, false
}

// exchange is one request and its response.
type exchange struct {
	conn  *Conn
	ctx   context.Context
	stop  func() bool // ends ctx's power over the connection
	asked http.Request
	in    meter
	br    *bufio.Reader
	body  io.ReadCloser // of net/http, over br
	last  bool          // the server closes the connection after this response

	sent    chan error // result of send, once; nil if it is in outcome
	atHand  bool       // send does not wait for its source
	outcome error
	settled bool // outcome has been taken

	mu       sync.Mutex // guards what Read and Close may do at once
	released bool
	ended    bool // body was read to its end
	failed   bool // reading it failed
}

// sourceError marks an error that came from the caller's body.
type sourceError struct{ error }

// send writes the request; head lies in array if it fits. If hurry is set, what
// there is of a request in chunks does not wait for long.
func (c *Conn) send(r *Request, array *buffer, head []byte, hurry bool) error {
	defer buffers.Put(array)
	if size := r.size(); size >= 0 {
		return sendSized(c.conn, r.Body, size, array, head)
	}
	return sendChunks(c.conn, r.Body, array, head, hurry)
}

// afterwards ends the exchange soon if the request was not sent. If its source
// failed, no response will come; if the connection did, one may be there already.
func (x *exchange) afterwards(err error) {
	switch {
	case err == nil:
	case errors.As(err, new(sourceError)) || x.ctx.Err() != nil:
		x.conn.abort()
	default:
		x.conn.raw.SetReadDeadline(time.Now().Add(lateAnswer))
	}
}

// sendSized writes a body of known size.
func sendSized(conn net.Conn, body io.Reader, size int64, array *buffer, head []byte) error {
	if len(head) > len(array) {
		if _, err := conn.Write(head); err != nil {
			return err
		}
		head = nil
	}
	filled := copy(array[:], head) // where it may be already
	for first := true; first || size > 0; first = false {
		if file, ok := body.(*os.File); ok && !first {
			if to, ok := conn.(io.ReaderFrom); ok { // the kernel copies
				return sendFile(to, file, size)
			}
		}
		n := int(min(int64(len(array)-filled), size))
		if n > 0 {
			if _, err := io.ReadFull(body, array[filled:filled+n]); err != nil {
				return tooShort(err)
			}
		}
		if filled+n == 0 {
			continue
		}
		if _, err := conn.Write(array[:filled+n]); err != nil {
			return err
		}
		filled, size = 0, size-int64(n)
	}
	return nil
}

func sendFile(conn io.ReaderFrom, file *os.File, size int64) error {
	n, err := conn.ReadFrom(&io.LimitedReader{R: file, N: size})
	var source *os.PathError
	switch {
	case errors.As(err, &source):
		return sourceError{err}
	case err == nil && n < size:
		return tooShort(io.ErrUnexpectedEOF)
	}
	return err
}

// tooShort is what reading a body of known size may fail with.
func tooShort(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return sourceError{fmt.Errorf("request body: %w", err)}
}

// sendChunks writes a body of unknown size.
func sendChunks(conn net.Conn, body io.Reader, array *buffer, head []byte, hurry bool) error {
	w := newChunkWriter(conn, array, head, hurry)
	var err error
	if to, ok := body.(io.WriterTo); ok {
		_, err = to.WriteTo(w)
	} else {
		buf := buffers.Get().(*buffer)
		_, err = io.CopyBuffer(onlyWriter{w}, body, buf[:])
		buffers.Put(buf)
	}
	if err != nil && !w.broken() {
		err = sourceError{err}
	}
	if e := w.finish(err == nil); err == nil {
		err = e
	}
	return err
}

// onlyWriter hides everything but Write, so that io.CopyBuffer uses its buffer.
type onlyWriter struct{ io.Writer }

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }}

// readHead reads the response up to its body.
func (x *exchange) readHead(max int64) (*http.Response, error) {
	x.in = meter{r: x.conn.conn, left: maxHead, silent: true}
	x.br = readers.Get().(*bufio.Reader)
	x.br.Reset(&x.in)
	for {
		resp, err := http.ReadResponse(x.br, &x.asked)
		switch {
		case err != nil && x.in.silent && !isTimeout(err):
			return nil, fmt.Errorf("read response: %w: %w", errUnanswered, err)
		case err != nil:
			var network net.Error
			if errors.As(err, &network) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, fmt.Errorf("read response: %w", err)
			}
			return nil, fmt.Errorf("%w: %w", ErrResponse, err)
		case resp.ProtoMajor != 1 || resp.StatusCode < 100:
			return nil, fmt.Errorf("%w: %s with status %d", ErrResponse, resp.Proto, resp.StatusCode)
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, fmt.Errorf("%w: it switches protocols", ErrResponse)
		case resp.StatusCode >= 200:
			x.in.left = max
			x.body, x.last, x.ended = resp.Body, resp.Close, resp.Body == http.NoBody
			resp.Body = (*responseBody)(x)
			return resp, nil
		}
	}
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

// finishSending makes sure that a body in memory is no longer used. The server
// answered already; if it takes no more, the rest is not sent.
func (x *exchange) finishSending() {
	if x.settled {
		return
	}
	patience := time.AfterFunc(sendPatience, func() { x.conn.raw.SetWriteDeadline(past) })
	x.settle(<-x.sent)
	if !patience.Stop() {
		x.outcome = errors.Join(x.outcome, os.ErrDeadlineExceeded) // the connection cannot be used again
	}
}

func (x *exchange) settle(err error) { x.outcome, x.settled = err, true }

// trySettle takes the result of sending if there is one.
func (x *exchange) trySettle() bool {
	if !x.settled {
		select {
		case err := <-x.sent:
			x.settle(err)
		default:
		}
	}
	return x.settled
}

// sourceError returns what the caller's body did to make the exchange fail.
func (x *exchange) sourceError() error {
	var e sourceError
	if x.trySettle() && errors.As(x.outcome, &e) {
		return e.error
	}
	return nil
}

// responseBody is the body of a response; with its end the connection is free
// again.
type responseBody exchange

// Read implements io.Reader.
func (b *responseBody) Read(p []byte) (int, error) {
	x := (*exchange)(b)
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
		err = fmt.Errorf("read response: %w", err)
		if x.ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(x.ctx), err)
		}
	}
	return n, err
}

// Close frees the connection for another exchange if this one came to a regular
// end, or is about to, and closes it otherwise. It breaks a Read under way.
func (b *responseBody) Close() error {
	x := (*exchange)(b)
	if !x.mu.TryLock() {
		x.conn.abort()
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
func (x *exchange) recycle() {
	x.release(x.ended && !x.last && x.trySettle() && x.outcome == nil && !x.in.broken && x.br.Buffered() == 0)
}

// release ends the exchange; nothing of the request is used any more unless its
// source may keep the sender waiting.
func (x *exchange) release(reusable bool) {
	x.released = true
	// If ctx has struck, its deadline is on the connection.
	if !x.stop() || !reusable {
		x.conn.Discard()
	} else {
		x.conn.Release()
	}
	x.br.Reset(nil)
	readers.Put(x.br)
	x.br = nil
	if x.atHand && !x.settled {
		x.settle(<-x.sent)
	}
}

// meter passes on as many bytes as are left.
type meter struct {
	r      io.Reader
	left   int64
	silent bool // not a byte came
	broken bool // r gave an error, which may have come along with bytes
}

// Read implements io.Reader.
func (m *meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, errTooLarge
	}
	if int64(len(p)) > m.left {
		p = p[:m.left]
	}
	n, err := m.r.Read(p)
	m.left -= int64(n)
	m.silent = m.silent && n == 0
	m.broken = m.broken || err != nil
	return n, err
}
