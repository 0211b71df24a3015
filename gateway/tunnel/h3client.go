// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"kontor/gateway/http1"
)

const (
	smallSend  = 16 << 10 // holds most messages
	sendBuffer = 64 << 10 // holds a piece of a larger one
)

var (
	smallSends  = sync.Pool{New: func() any { return new([smallSend]byte) }}
	sendBuffers = sync.Pool{New: func() any { return new([sendBuffer]byte) }}
)

// line is a connection that the client has made.
type line interface {
	carrier
	// open starts a stream, if the peer allows one more now.
	open() (stream, error)
	// received tells how often something came from the peer.
	received() uint64
	path() path
	transport() Transport
}

// path is what a connection knows of the way to its peer.
type path struct {
	minRTT time.Duration // the least round trip
	pto    time.Duration // probe time-out (RFC 9002, section 6.2)
	window uint64        // bytes that may be under way at once, for congestion
}

// quicLine is a connection over QUIC.
type quicLine struct{ *quic.Conn }

func (l quicLine) open() (stream, error) {
	s, err := l.OpenStream()
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (l quicLine) received() uint64 { return l.ConnectionStats().PacketsReceived }

func (l quicLine) path() path {
	stats := l.ConnectionStats()
	return path{stats.MinRTT, stats.SmoothedRTT + 4*stats.MeanDeviation + ackDelay, stats.CongestionWindow}
}

func (quicLine) transport() Transport { return QUIC }

// h3Conn is a connection to a peer that carries many exchanges at once.
type h3Conn struct {
	conn  line
	key   poolKey
	host  string
	certs []*x509.Certificate
	// staple is the OCSP response that came with the first certificate; nil if
	// none did.
	staple []byte
	max    int64

	streams atomic.Int32 // under way
	used    atomic.Int64 // by exchanges: number, ever
	leaving atomic.Bool  // takes no further exchange
	silent  atomic.Bool  // nothing was heard lately
	refused func()       // called when the peer is not who it must be
	busy    func()       // called when an exchange begins and there was none; nil: nobody asks

	answer time.Duration // how long at least it may take
	mu     sync.Mutex    // guards what follows
	count  uint64        // what line.received told
	heard  time.Time     // when another was noticed
	debt   time.Time     // since when something is to be acknowledged; zero: nothing is
}

// notice sees whether the peer was heard of: then it owes nothing. c.mu is held.
func (c *h3Conn) notice() {
	if n := c.conn.received(); n != c.count {
		c.count, c.heard, c.debt = n, time.Now(), time.Time{}
	}
}

// owed notes that something goes out now that the peer acknowledges.
func (c *h3Conn) owed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notice()
	if c.debt.IsZero() {
		c.debt = time.Now()
	}
}

// owes tells whether the peer has acknowledged nothing for some time although
// something is to be.
func (c *h3Conn) owes(since time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notice()
	return !c.debt.IsZero() && time.Since(c.debt) > since
}

// doubtful tells since when the peer has acknowledged nothing, if that is so
// long that it may be gone; else it is the zero time. An acknowledgement ends
// it. What is on its way meanwhile is not affected.
func (c *h3Conn) doubtful() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.debt.IsZero() {
		return time.Time{}
	}
	c.notice()
	if c.debt.IsZero() || time.Since(c.debt) <= max(c.answer, probes*c.conn.path().pto) {
		return time.Time{}
	}
	return c.debt
}

// usable tells whether the connection takes another exchange: it stands, and the
// peer was heard of on it since a time of doubt.
func (c *h3Conn) usable(doubt time.Time) bool {
	if c.leaving.Load() || c.silent.Load() || c.conn.Context().Err() != nil {
		return false
	}
	if doubt.IsZero() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notice()
	return c.heard.After(doubt)
}

// latestDoubt tells since when a peer has owed an answer for too long on one of
// its connections, the zero time if it has on none.
func latestDoubt(conns []*h3Conn) time.Time {
	var latest time.Time
	for _, c := range conns {
		if since := c.doubtful(); since.After(latest) {
			latest = since
		}
	}
	return latest
}

// fewest returns the connection with the fewest exchanges of those that can be
// used, nil if none can. In doubt, those are believed on which something came
// since.
func fewest(conns []*h3Conn, doubt time.Time) *h3Conn {
	var best *h3Conn
	for _, c := range conns {
		if (best == nil || c.streams.Load() < best.streams.Load()) && c.usable(doubt) {
			best = c
		}
	}
	return best
}

// hasOther tells whether one of the connections but c can be used.
func hasOther(conns []*h3Conn, c *h3Conn) bool {
	return slices.ContainsFunc(conns, func(o *h3Conn) bool { return o != c && o.usable(time.Time{}) })
}

// open starts an exchange, or returns nil if so many are under way that the
// peer allows no more.
func (c *h3Conn) open() *h3 {
	s, err := c.conn.open()
	if err != nil {
		return nil
	}
	return c.session(s)
}

func (c *h3Conn) session(s stream) *h3 {
	if c.streams.Add(1) == 1 && c.busy != nil {
		c.busy()
	}
	c.used.Add(1)
	return &h3{conn: c, stream: s}
}

// done ends an exchange, the last one closes a connection that is to end.
func (c *h3Conn) done() {
	if c.streams.Add(-1) == 0 && c.leaving.Load() {
		c.close()
	}
}

// leave lets exchanges under way finish and closes the connection then.
func (c *h3Conn) leave() {
	c.leaving.Store(true)
	if c.streams.Load() == 0 {
		c.close()
	}
}

func (c *h3Conn) close() { _ = c.conn.CloseWithError(codeNoError, "") }

// h3 is a session of HTTP/3: a stream.
type h3 struct {
	conn   *h3Conn
	stream stream
}

func (s *h3) certificates() []*x509.Certificate { return s.conn.certs }

func (s *h3) stapled() []byte { return s.conn.staple }

func (s *h3) at() (poolKey, Transport) { return s.conn.key, s.conn.conn.transport() }

// discard gives the stream up, and with it the connection: its peer was refused.
func (s *h3) discard() {
	s.cancel()
	s.conn.refused()
	s.conn.leaving.Store(true)
	s.conn.done()
}

func (s *h3) release() {
	s.cancel()
	s.conn.done()
}

func (s *h3) cancel() {
	s.stream.CancelRead(codeRequestCancelled)
	s.stream.CancelWrite(codeRequestCancelled)
}

// exchange writes a request that is in memory and reads the response then; a
// larger one is written by another goroutine, so that neither side has to wait
// for the other's end.
func (s *h3) exchange(ctx context.Context, header http.Header, body io.Reader) (*Response, error) {
	x := &h3Exchange{h3: s, ctx: ctx, stop: context.AfterFunc(ctx, s.cancel)}
	x.in = h3Content{frames: frames{r: s.stream}, budget: s.conn.max}
	held, inMemory := http1.InMemory(body)
	w := &h3Writer{h3Frames: h3Frames{stream: s.stream}, whole: inMemory}
	w.begin(s.pseudo, header)
	s.conn.owed()
	if !inMemory || len(w.buf) > sendBuffer/2 { // the body may be long in coming
		w.flush()
	}
	if inMemory && held <= synchronous {
		x.outcome = x.send(w, body)
	} else {
		sent := make(chan error, 1)
		x.sent = sent
		go func() {
			err := x.send(w, body)
			sent <- err // before the stream breaks, so that the reason is known
			if errors.As(err, new(sourceError)) {
				s.cancel()
			}
		}()
	}
	resp, err := x.readHead()
	if inMemory {
		x.settle(err == nil)
	}
	if err != nil {
		x.trySettle()
		x.release()
		var e sourceError
		if errors.As(x.outcome, &e) {
			return nil, e.error
		}
		return nil, err
	}
	return resp, nil
}

// large tells whether a body may be long. One that is in memory is not.
func large(body io.Reader) bool {
	n, ok := http1.InMemory(body)
	return body != nil && (!ok || n > synchronous)
}

func (s *h3) pseudo(b []byte) []byte {
	b = appendIndexed(b, indexPost)
	b = appendIndexed(b, indexHTTPS)
	b = appendNamed(b, indexAuthority, s.conn.host)
	return appendIndexed(b, indexPath)
}

// h3Exchange is one request and its response.
type h3Exchange struct {
	*h3
	ctx  context.Context
	stop func() bool // ends ctx's power over the stream
	in   h3Content

	sent    chan error // result of send, once; nil when outcome is known
	outcome error

	mu       sync.Mutex // guards what Read and Close may do at once
	released bool
	err      error // of the body, io.EOF included; repeated
}

// send writes the request. If its source fails, it has no end; if the peer stops
// taking it, an answer may be there.
func (x *h3Exchange) send(w *h3Writer, body io.Reader) error {
	if body == nil {
		body = http.NoBody
	}
	var err error
	if to, ok := body.(io.WriterTo); ok {
		_, err = to.WriteTo(w)
	} else {
		buf := copyBuffers.Get().(*[copySize]byte)
		_, err = io.CopyBuffer(onlyWriter{w}, body, buf[:])
		copyBuffers.Put(buf)
	}
	source := err != nil && w.err == nil
	if e := w.finish(err == nil); err == nil {
		err = e
	}
	if source {
		return sourceError{err}
	}
	return err
}

// h3Writer writes a request: its head, then its body.
type h3Writer struct {
	h3Frames
	whole bool // the source does not wait: pieces go out together
}

func (w *h3Writer) Write(p []byte) (int, error) {
	n := w.add(p)
	if !w.whole {
		w.flush()
	}
	return n, w.err
}

// finish ends the request, regularly or not at all. Afterwards the writer holds
// nothing.
func (w *h3Writer) finish(regular bool) error {
	if regular {
		w.flush()
		if w.err == nil {
			w.err = w.stream.Close()
		}
	}
	w.free()
	return w.err
}

// readHead reads the response up to its content.
func (x *h3Exchange) readHead() (*Response, error) {
	for range maxInterim {
		f, err := x.in.head()
		if err != nil {
			return nil, x.broken(err)
		}
		status, err := strconv.Atoi(f.status)
		if err != nil || len(f.status) != 3 || status < 100 || status == http.StatusSwitchingProtocols || f.method+f.scheme+f.authority+f.path != "" {
			return nil, x.broken(malformed("malformed response"))
		}
		if status >= 200 {
			x.in.length = f.length
			return &Response{Status: status, Header: f.header, Body: (*h3Body)(x)}, nil
		}
	}
	return nil, x.broken(malformed("too many interim responses"))
}

// broken ends the exchange because of an error of reading.
func (x *h3Exchange) broken(err error) error {
	breakStream(x.conn.conn, x.stream, err)
	if errors.Is(err, ErrResponse) {
		return err
	}
	return fmt.Errorf("read response: %w", lost(err))
}

// lost makes what happened to a connection or stream look as it does over TCP.
func lost(err error) error {
	var t *quic.TransportError
	var s *quic.StreamError
	switch {
	case errors.As(err, &t) && t.Remote && t.ErrorCode.IsCryptoError():
		return &net.OpError{Op: "remote error", Err: tls.AlertError(t.ErrorCode - 0x100)}
	case errors.As(err, &s) && s.Remote:
		return fmt.Errorf("%w: the peer broke the exchange off: %w", io.ErrUnexpectedEOF, err)
	}
	return err
}

// settle makes sure that a body in memory is no longer used. If the peer
// answered already and takes no more, the rest is not sent.
func (x *h3Exchange) settle(answered bool) {
	if x.sent == nil {
		return
	}
	if !answered {
		x.cancel()
	}
	patience := time.AfterFunc(sendPatience, func() { x.stream.CancelWrite(codeNoError) })
	x.outcome = <-x.sent
	x.sent = nil
	patience.Stop()
}

// h3Body is the content of a response.
type h3Body h3Exchange

func (b *h3Body) Read(p []byte) (int, error) {
	x := (*h3Exchange)(b)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return 0, x.err
	}
	if x.released {
		return 0, net.ErrClosed
	}
	n, err := x.in.Read(p)
	switch {
	case err == io.EOF:
		x.err = io.EOF
		if x.trySettle() {
			x.release()
		}
	case err != nil:
		x.err = explain(x.ctx, x.broken(err))
		err = x.err
	}
	return n, err
}

// Close frees the stream; what has not come to a regular end is broken off. It
// breaks a Read under way.
func (b *h3Body) Close() error {
	x := (*h3Exchange)(b)
	if !x.mu.TryLock() {
		x.cancel()
		x.mu.Lock()
	}
	defer x.mu.Unlock()
	x.release()
	return nil
}

// trySettle takes the result of sending if there is one.
func (x *h3Exchange) trySettle() bool {
	if x.sent != nil {
		select {
		case x.outcome = <-x.sent:
			x.sent = nil
		default:
		}
	}
	return x.sent == nil
}

// release ends the exchange. What is still being sent or received is broken off.
func (x *h3Exchange) release() {
	if x.released {
		return
	}
	x.released = true
	x.stop()
	if x.err != io.EOF || x.sent != nil {
		x.cancel()
	}
	x.conn.done()
}
