// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

const (
	// qmuxBuffer holds a whole record and most of another.
	qmuxBuffer = 32 << 10
	// maxPending is how many bytes wait to be written before streams wait, too.
	maxPending = 64 << 10
	// firstLinkStream and firstLink are the windows that streams and connections
	// start with: many messages that nobody reads do not hold up others.
	firstLinkStream = 256 << 10
	firstLink       = 4 << 20
	// closePatience bounds the farewell: what is still to be written, and the
	// peer's own end.
	closePatience = 5 * time.Second
	// maxIdleFrames and idleFrameRate bound the frames that carry nothing, so many
	// at once and per second, beyond one for each that does. busyFrame is what a
	// frame of ours carries at least to count: a peer could ask for smaller ones.
	maxIdleFrames = 4096
	idleFrameRate = 100
	busyFrame     = 256
)

// qmux is a connection of QMux. One goroutine reads and hands out what comes for
// each stream, another writes whatever has come together. It is safe for
// concurrent use.
type qmux struct {
	net    net.Conn // TLS
	client bool
	own    qxSettings
	widest Windows // what windows grow to
	growth *growth
	// take and takeUni are given the streams that the peer opens, by the
	// goroutine that reads: they must not wait.
	take    func(*qmuxStream)
	takeUni func(*qmuxStream)

	ctx    context.Context // ends with the connection, which is its cause
	cancel context.CancelCauseFunc
	ready  chan struct{} // closed when the peer's settings are there
	gone   sync.WaitGroup

	over     atomic.Pointer[error] // why it has ended
	records  atomic.Uint64         // received
	heard    atomic.Int64          // when the last was, in Unix nanoseconds
	consumed atomic.Uint64         // bytes received, of all streams, that nobody will read any more
	allowed  atomic.Uint64         // bytes that the peer may send, ever
	renew    atomic.Uint64         // when so many are consumed, it may send more
	trip     atomic.Int64          // round trip of the latest ping, in nanoseconds; 0: none
	way      atomic.Pointer[path]  // measured last

	// The reader's own.
	begun    bool   // the settings are there
	arrived  uint64 // bytes of all streams
	lastPing uint64 // number, plus one
	fresh    []*qmuxStream

	mu       sync.Mutex  // guards what follows; comes before that of a stream
	work     sync.Cond   // for the writer
	out      []byte      // whole records
	spare    []byte      // to be out next
	last     *qmuxStream // whose data ends out, in a record of its own at lastAt
	lastAt   int
	pong     uint64 // to be sent, plus one
	closing  bool   // nothing follows out
	waiting  []*qmuxStream
	streams  map[uint64]*qmuxStream
	peer     qxSettings
	opened   [2]uint64 // streams of ours: both ways, one way
	maxOpen  [2]uint64
	accepted [2]uint64 // streams of the peer's
	finished [2]uint64 // of these
	granted  [2]uint64 // that it may open
	sentData uint64
	maxData  uint64
	blocked  uint64    // maxData when the peer was told that it is too little
	window   uint64    // of the connection
	widened  time.Time // when allowed was raised
	pings    uint64    // sent
	pinged   time.Time // when the last was
	grace    int       // frames without content that are forgiven
	graceAt  time.Time
	idle     time.Duration // silence that ends the connection
	watch    *time.Timer
}

// newQMux begins a connection over TLS: own settings go out at once. The caller
// calls run.
func newQMux(conn net.Conn, client bool, w Windows, g *growth, streams uint64, take, takeUni func(*qmuxStream)) *qmux {
	w = w.withDefaults()
	first := uint64(min(firstLinkStream, w.Stream))
	c := &qmux{
		net: conn, client: client, widest: w, growth: g, take: take, takeUni: takeUni, ready: make(chan struct{}),
		own: qxSettings{
			idle: quicIdle, data: uint64(min(firstLink, w.Connection)), local: first, remote: first, uni: first,
			streams: streams, unis: maxUniStreams,
		},
		streams: map[uint64]*qmuxStream{}, granted: [2]uint64{streams, maxUniStreams},
		grace: maxIdleFrames, graceAt: time.Now(), idle: quicIdle,
	}
	c.work.L = &c.mu
	c.window = c.own.data
	c.allowed.Store(c.own.data)
	c.heard.Store(time.Now().UnixNano())
	c.renew.Store(c.own.data / 2)
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.out = appendSettings(nil, c.own)
	c.measure()
	return c
}

func appendSettings(b []byte, s qxSettings) []byte {
	start := len(b)
	b = s.append(append(b, 0, 0))
	endRecord(b[start:])
	return b
}

// run serves the connection until it has ended.
func (c *qmux) run() {
	_ = c.net.SetReadDeadline(time.Now().Add(headTimeout)) // for the peer's settings
	c.mu.Lock()
	c.watch = time.AfterFunc(c.idle/4, c.look)
	c.mu.Unlock()
	c.gone.Go(c.write)
	c.fail(c.read())
	c.discard()
	c.gone.Wait()
	_ = c.net.Close()
}

func (c *qmux) Context() context.Context { return c.ctx }

func (c *qmux) RemoteAddr() net.Addr { return c.net.RemoteAddr() }

func (c *qmux) received() uint64 { return c.records.Load() }

func (c *qmux) path() path { return *c.way.Load() }

func (c *qmux) transport() Transport { return HTTPS }

// CloseWithError ends the connection: streams break off, the peer is told. What
// was written before still goes out.
func (c *qmux) CloseWithError(code quic.ApplicationErrorCode, text string) error {
	c.fail(&quic.ApplicationError{ErrorCode: code, ErrorMessage: text})
	return nil
}

// fail ends the connection, once. The peer is told why, if it is there to hear.
func (c *qmux) fail(err error) {
	c.mu.Lock()
	if c.over.Load() != nil {
		c.mu.Unlock()
		return
	}
	c.over.Store(&err)
	var transport *quic.TransportError
	var application *quic.ApplicationError
	switch {
	case errors.As(err, &transport) && !transport.Remote:
		c.control(qxClose, uint64(transport.ErrorCode), 0, 0)
	case errors.As(err, &application) && !application.Remote:
		c.control(qxCloseApplication, uint64(application.ErrorCode), 0)
	}
	c.closing = true
	if c.watch != nil {
		c.watch.Stop()
	}
	streams := make([]*qmuxStream, 0, len(c.streams))
	for _, s := range c.streams {
		streams = append(streams, s)
		s.writable.Broadcast()
		s.endContext(err)
	}
	c.work.Signal()
	c.mu.Unlock()
	_ = c.net.SetDeadline(time.Now().Add(closePatience))
	c.cancel(err)
	for _, s := range streams {
		s.wake()
	}
	c.growth.release(c)
}

// discard reads until the peer's end, so that what we wrote last is not lost.
func (c *qmux) discard() {
	if errors.As(*c.over.Load(), new(lostError)) {
		return // there is nobody
	}
	b := make([]byte, 4<<10)
	for {
		if _, err := c.net.Read(b); err != nil {
			return
		}
	}
}

// lostError is what happened to the TLS connection.
type lostError struct{ error }

func (e lostError) Unwrap() error { return e.error }

// write writes what streams and the reader leave in out.
func (c *qmux) write() {
	for {
		c.mu.Lock()
		for len(c.out) == 0 && c.pong == 0 && !c.closing {
			c.work.Wait()
		}
		c.mu.Unlock()
		runtime.Gosched() // others join
		c.mu.Lock()
		if c.pong > 0 {
			c.control(qxPong, c.pong-1)
			c.pong = 0
		}
		b := c.out
		c.out, c.spare, c.last = c.spare[:0], nil, nil
		ends := c.closing
		c.freeAll()
		c.mu.Unlock()
		_, err := c.net.Write(b)
		if err != nil {
			c.fail(lostError{err})
			_ = c.net.Close() // the reader learns of it, too
			return
		}
		if ends {
			if half, ok := c.net.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
			return
		}
		c.mu.Lock()
		if cap(b) <= 2*maxPending {
			c.spare = b
		}
		c.mu.Unlock()
	}
}

// control adds a record of one frame without data. c.mu is held.
func (c *qmux) control(numbers ...uint64) {
	if c.closing {
		return
	}
	c.out = appendRecord(c.out, nil, numbers...)
	c.last = nil
	c.work.Signal()
}

// read hands out what comes until the connection ends, and tells why.
func (c *qmux) read() error {
	buf := make([]byte, qmuxBuffer)
	r, w := 0, 0 // what was read and not handed out
	for {
		n, err := c.net.Read(buf[w:])
		w += n
		now := time.Now().UnixNano()
		for r < w {
			size, head, e := quicvarint.Parse(buf[r:w])
			if e != nil {
				break
			}
			if size > recordSize {
				return violation(quic.FrameEncodingError, "record too large")
			}
			if w-r-head < int(size) {
				break
			}
			if c.over.Load() != nil { // nothing begins any more
				return nil
			}
			if err := c.record(buf[r+head : r+head+int(size)]); err != nil {
				return err
			}
			r += head + int(size)
			c.records.Add(1)
			c.heard.Store(now)
		}
		if c.over.Load() != nil {
			return nil
		}
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return lostError{err}
		}
		if r == w {
			r, w = 0, 0
		} else if len(buf)-r < recordSize+8 {
			w = copy(buf, buf[r:w])
			r = 0
		}
	}
}

// record handles the frames of a record.
func (c *qmux) record(b []byte) error {
	if len(b) == 0 {
		return violation(quic.ProtocolViolation, "record without frames")
	}
	for len(b) > 0 {
		var f qxFrame
		var err error
		if b, err = f.next(b); err != nil {
			return err
		}
		if c.begun == (f.kind == qxParameters) {
			return violation(quic.ProtocolViolation, "transport parameters are not the first frame, or twice")
		}
		if !c.begun {
			err = c.begin(f.data)
		} else {
			err = c.frame(&f)
		}
		if err != nil {
			return err
		}
		for i, s := range c.fresh {
			c.fresh[i] = nil
			if s.id&qxOneWay == 0 {
				c.take(s)
			} else {
				c.takeUni(s)
			}
		}
		c.fresh = c.fresh[:0]
	}
	return nil
}

// begin takes the peer's settings.
func (c *qmux) begin(parameters []byte) error {
	peer, err := readSettings(parameters)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peer, c.maxData, c.maxOpen = peer, peer.data, [2]uint64{peer.streams, peer.unis}
	if peer.idle > 0 {
		c.idle = min(c.idle, peer.idle)
	}
	c.begun = true
	if !c.closing {
		_ = c.net.SetReadDeadline(time.Time{})
	}
	close(c.ready)
	return nil
}

// frame handles one frame.
func (c *qmux) frame(f *qxFrame) error {
	switch f.kind {
	case qxStream:
		return c.onData(f)
	case qxResetStream:
		return c.onReset(f)
	case qxClose:
		return &quic.TransportError{Remote: true, ErrorCode: quic.TransportErrorCode(f.value), FrameType: f.final, ErrorMessage: reason(f.data)}
	case qxCloseApplication:
		return &quic.ApplicationError{Remote: true, ErrorCode: quic.ApplicationErrorCode(f.value), ErrorMessage: reason(f.data)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.forgive() {
		return &quic.ApplicationError{ErrorCode: codeExcessiveLoad, ErrorMessage: "too many frames without content"}
	}
	switch f.kind {
	case qxMaxData:
		if f.value > c.maxData {
			c.maxData = f.value
			c.freeAll()
		}
	case qxMaxStreamData, qxStopSending:
		s, err := c.find(f.stream, true)
		if s == nil || err != nil {
			return err
		}
		if f.kind == qxStopSending {
			s.stopped(quic.StreamErrorCode(f.value))
		} else if f.value > s.maxSend {
			s.maxSend = f.value
			s.writable.Broadcast()
		}
	case qxMaxStreamsBidi, qxMaxStreamsUni:
		i := f.kind - qxMaxStreamsBidi
		c.maxOpen[i] = max(c.maxOpen[i], f.value)
	case qxStreamDataBlocked:
		_, err := c.find(f.stream, false)
		return err
	case qxPing:
		if f.value < c.lastPing {
			return violation(quic.ProtocolViolation, "number of a ping does not grow")
		}
		c.lastPing, c.pong = f.value+1, f.value+1
		c.work.Signal()
	case qxPong:
		if f.value >= c.pings {
			return violation(quic.ProtocolViolation, "answer to no ping")
		}
		if f.value == c.pings-1 {
			c.trip.Store(int64(time.Since(c.pinged)))
		}
	}
	return nil
}

func reason(b []byte) string { return fmt.Sprintf("%.*q", maxReason, b) }

// forgive counts a frame without content. c.mu is held.
func (c *qmux) forgive() bool {
	if c.grace == 0 {
		now := time.Now()
		c.grace = min(int(now.Sub(c.graceAt).Seconds()*idleFrameRate), maxIdleFrames)
		if c.grace == 0 {
			return false
		}
		c.graceAt = now
	}
	c.grace--
	return true
}

// earn counts a frame with content. c.mu is held.
func (c *qmux) earn() { c.grace = min(c.grace+1, maxIdleFrames) }

// Bits of a stream's number (RFC 9000, section 2.1).
const (
	qxByServer = 0x1
	qxOneWay   = 0x2
)

// find returns the stream that a frame is about, nil if it has ended: about what
// we send on it, or what the peer does. Streams of the peer's begin with the
// first frame about them, or about a later one. c.mu is held.
func (c *qmux) find(id uint64, sending bool) (*qmuxStream, error) {
	mine := (id&qxByServer == 0) == c.client
	kind, n := id>>1&1, id>>2
	if id&qxOneWay != 0 && mine != sending {
		return nil, violation(quic.StreamStateError, "frame for the other direction of stream %d", id)
	}
	if mine {
		if n >= c.opened[kind] {
			return nil, violation(quic.StreamStateError, "stream %d was not opened", id)
		}
		return c.streams[id], nil
	}
	if n >= c.granted[kind] {
		return nil, violation(quic.StreamLimitError, "too many streams")
	}
	for ; c.accepted[kind] <= n; c.accepted[kind]++ {
		s := c.stream(c.accepted[kind]<<2|id&3, c.peer.local, c.own.remote)
		c.fresh = append(c.fresh, s)
	}
	return c.streams[id], nil
}

// stream adds a stream, with what we may send on it and the peer may. c.mu is held.
func (c *qmux) stream(id, maxSend, maxReceive uint64) *qmuxStream {
	mine := (id&qxByServer == 0) == c.client
	s := &qmuxStream{conn: c, id: id, maxSend: maxSend, allowed: maxReceive, window: maxReceive}
	s.writable.L, s.readable.L = &c.mu, &s.mu
	s.sendEnded = id&qxOneWay != 0 && !mine
	s.receiveEnded = id&qxOneWay != 0 && mine
	c.streams[id] = s
	return s
}

var errStreamLimit = errors.New("the peer allows no more streams now")

// open starts a stream if the peer allows one more now.
func (c *qmux) open() (stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.start(0)
}

func (c *qmux) start(oneWay uint64) (*qmuxStream, error) {
	kind := oneWay >> 1
	if err := c.over.Load(); err != nil {
		return nil, *err
	}
	if c.opened[kind] >= c.maxOpen[kind] {
		return nil, errStreamLimit
	}
	id := c.opened[kind]<<2 | oneWay
	if !c.client {
		id |= qxByServer
	}
	c.opened[kind]++
	limit := c.peer.remote
	if oneWay != 0 {
		limit = c.peer.uni
	}
	return c.stream(id, limit, c.own.local), nil
}

// openUni starts a stream that the peer only reads, once its settings are there.
func (c *qmux) openUni() (*qmuxStream, error) {
	select {
	case <-c.ready:
	case <-c.ctx.Done():
		return nil, context.Cause(c.ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.start(qxOneWay)
}

// end forgets a stream of which neither end has to say more. c.mu is held.
func (c *qmux) end(s *qmuxStream) {
	mine := (s.id&qxByServer == 0) == c.client
	if !s.sendEnded || !s.receiveEnded || !mine && !s.left || c.streams[s.id] != s {
		return
	}
	delete(c.streams, s.id)
	if mine {
		return
	}
	kind := s.id >> 1 & 1
	limit := [2]uint64{c.own.streams, c.own.unis}[kind]
	if c.finished[kind]++; c.granted[kind]-c.finished[kind] <= limit*3/4 {
		c.granted[kind] = c.finished[kind] + limit
		c.control(qxMaxStreamsBidi+kind, c.granted[kind])
	}
}

// freeAll wakes the streams that wait for the connection. c.mu is held.
func (c *qmux) freeAll() {
	for i, s := range c.waiting {
		c.waiting[i], s.waiting = nil, false
		s.writable.Broadcast()
	}
	c.waiting = c.waiting[:0]
}

// arrive counts bytes of a stream against the connection's limit.
func (c *qmux) arrive(n uint64) error {
	if c.arrived += n; c.arrived > c.allowed.Load() {
		return violation(quic.FlowControlError, "more data than the connection allows")
	}
	return nil
}

// consume lets the peer send more for what nobody will read any more.
func (c *qmux) consume(n uint64) {
	if n == 0 {
		return
	}
	if c.consumed.Add(n) < c.renew.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	consumed := c.consumed.Load()
	if consumed < c.renew.Load() || c.closing {
		return
	}
	c.window, c.widened = c.widen(c.window, uint64(c.widest.Connection), c.widened, true)
	c.allowed.Store(consumed + c.window)
	c.renew.Store(consumed + c.window/2)
	c.control(qxMaxData, consumed+c.window)
}

// widen returns the window to be used next: a larger one if the last was used up
// within a few round trips. c.mu is held.
func (c *qmux) widen(window, most uint64, since time.Time, counted bool) (uint64, time.Time) {
	now := time.Now()
	more := min(window, most-min(window, most))
	if more > 0 && !since.IsZero() && now.Sub(since) < 4*c.path().minRTT && (!counted || c.growth.allow(c, more)) {
		window += more
	}
	return window, now
}

// ping asks the peer to say something.
func (c *qmux) ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.control(qxPing, c.pings)
	c.pings++
	c.pinged = time.Now()
}

// silence tells how long nothing has come.
func (c *qmux) silence() time.Duration { return time.Since(time.Unix(0, c.heard.Load())) }

// look asks a peer that is silent, and ends the connection if it is for too long.
func (c *qmux) look() {
	c.measure()
	c.mu.Lock()
	idle := c.idle
	c.mu.Unlock()
	switch silence := c.silence(); {
	case silence > idle:
		c.fail(lostError{&quic.IdleTimeoutError{}})
		return
	case silence > idle/4:
		c.ping()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		c.watch.Reset(idle / 4)
	}
}

// measure looks at the way to the peer.
func (c *qmux) measure() {
	p, ok := tcpPath(c.net)
	if !ok {
		trip := time.Duration(c.trip.Load())
		if trip == 0 {
			trip = time.Hour // far, until a ping was answered
		}
		p = path{minRTT: trip, pto: 2*trip + ackDelay}
		if old := c.way.Load(); old != nil {
			p.minRTT = min(p.minRTT, old.minRTT)
		}
	}
	c.way.Store(&p)
}
