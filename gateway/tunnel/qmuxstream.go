// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// qmuxChunk holds received bytes until they are read.
type qmuxChunk struct {
	next *qmuxChunk
	r, w int
	b    [16 << 10]byte
}

var qmuxChunks = sync.Pool{New: func() any { return new(qmuxChunk) }}

// qmuxStream is a stream of QMux. Its methods do what those of quic-go's do and
// may be called at the same time; there is one reader and one writer.
type qmuxStream struct {
	conn *qmux
	id   uint64

	mu          sync.Mutex // guards what follows, of receiving
	readable    sync.Cond
	head, tail  *qmuxChunk
	arrived     uint64 // bytes
	read        uint64 // of these
	allowed     uint64
	window      uint64
	widened     time.Time
	fin         bool
	reset       error // by the peer
	refused     bool  // by CancelRead
	deadline    time.Time
	deadlineEnd *time.Timer // wakes the reader

	// Guarded by conn.mu.
	writable      sync.Cond
	waiting       bool // in conn.waiting
	sentData      uint64
	maxSend       uint64
	blocked       uint64 // maxSend when the peer was told that it is too little
	sendError     error  // why nothing more can be written
	sendEnded     bool   // by FIN or RESET_STREAM
	receiveEnded  bool   // nothing more comes that anybody would read
	left          bool   // whoever serves the stream writes no more
	writeDeadline time.Time
	writeTimer    *time.Timer
	ctx           context.Context // nil: nobody asked for it
	cancel        context.CancelCauseFunc
}

var errStreamClosed = errors.New("write on a closed stream")

// onData handles a STREAM frame.
func (c *qmux) onData(f *qxFrame) error {
	c.mu.Lock()
	s, err := c.find(f.stream, false)
	switch {
	case err != nil:
	case s == nil:
		err = violation(quic.StreamStateError, "data after the end of stream %d", f.stream)
	case len(f.data) > 0 || f.fin:
		c.earn()
	case !c.forgive():
		err = &quic.ApplicationError{ErrorCode: codeExcessiveLoad, ErrorMessage: "too many frames without content"}
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	n := uint64(len(f.data))
	if err := c.arrive(n); err != nil {
		return err
	}
	s.mu.Lock()
	switch {
	case s.fin || s.reset != nil:
		err = violation(quic.FinalSizeError, "data after the end of stream %d", s.id)
	case f.value != s.arrived:
		err = violation(quic.ProtocolViolation, "data of stream %d out of order", s.id)
	case s.arrived+n > s.allowed:
		err = violation(quic.FlowControlError, "more data than stream %d allows", s.id)
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.arrived += n
	s.fin = f.fin
	refused := s.refused
	if refused {
		s.read = s.arrived
	} else {
		s.keep(f.data)
	}
	s.readable.Broadcast()
	s.mu.Unlock()
	if refused {
		c.consume(n)
		if f.fin {
			s.received()
		}
	}
	return nil
}

// onReset handles a RESET_STREAM frame.
func (c *qmux) onReset(f *qxFrame) error {
	c.mu.Lock()
	s, err := c.find(f.stream, false)
	if err == nil && !c.forgive() {
		err = &quic.ApplicationError{ErrorCode: codeExcessiveLoad, ErrorMessage: "too many streams broken off"}
	}
	c.mu.Unlock()
	if s == nil || err != nil {
		return err
	}
	unread, err := s.breakIn(f)
	if err != nil {
		return err
	}
	c.consume(unread)
	s.received()
	return nil
}

// breakIn handles the peer's RESET_STREAM and tells what is given up unread.
func (s *qmuxStream) breakIn(f *qxFrame) (unread uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := s.fin || s.reset != nil
	switch {
	case f.final < s.arrived || ended && f.final != s.arrived:
		return 0, violation(quic.FinalSizeError, "stream %d ends before what came of it", s.id)
	case f.final > s.allowed:
		return 0, violation(quic.FlowControlError, "more data than stream %d allows", s.id)
	case s.reset == nil: // what it takes away counts as received (RFC 9000, section 4.5)
		if err := s.conn.arrive(f.final - s.arrived); err != nil {
			return 0, err
		}
		s.arrived = f.final
		s.reset = &quic.StreamError{StreamID: quic.StreamID(s.id), ErrorCode: quic.StreamErrorCode(f.value), Remote: true}
		unread = s.drop()
		s.readable.Broadcast()
	}
	return unread, nil
}

// keep stores received bytes. s.mu is held.
func (s *qmuxStream) keep(p []byte) {
	for len(p) > 0 {
		if s.tail == nil || s.tail.w == len(s.tail.b) {
			c := qmuxChunks.Get().(*qmuxChunk)
			c.next, c.r, c.w = nil, 0, 0
			if s.tail == nil {
				s.head = c
			} else {
				s.tail.next = c
			}
			s.tail = c
		}
		n := copy(s.tail.b[s.tail.w:], p)
		s.tail.w += n
		p = p[n:]
	}
}

// drop gives up what was received and not read, and tells how much. s.mu is held.
func (s *qmuxStream) drop() uint64 {
	for c := s.head; c != nil; {
		next := c.next
		qmuxChunks.Put(c)
		c = next
	}
	s.head, s.tail = nil, nil
	n := s.arrived - s.read
	s.read = s.arrived
	return n
}

// received notes that nothing more comes that anybody would read.
func (s *qmuxStream) received() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.receiveEnded = true
	if s.id&qxOneWay != 0 {
		s.left = true
	}
	s.conn.end(s)
}

func (s *qmuxStream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readable.Broadcast()
}

// Read implements io.Reader. What came before the connection's end can be read
// after it.
func (s *qmuxStream) Read(p []byte) (int, error) {
	s.mu.Lock()
	n, ended, err := s.take(p)
	var limit uint64
	if n > 0 && !s.fin && s.allowed-s.read <= s.window/2 {
		limit = s.read
	}
	s.mu.Unlock()
	if n > 0 {
		s.conn.consume(uint64(n))
	}
	if limit > 0 {
		s.allow()
	}
	if ended {
		s.received()
	}
	return n, err
}

// take waits for bytes and takes them; ended tells that it found the end. s.mu
// is held.
func (s *qmuxStream) take(p []byte) (n int, ended bool, err error) {
	for {
		over := s.conn.over.Load()
		switch {
		case s.refused:
			return 0, false, &quic.StreamError{StreamID: quic.StreamID(s.id)}
		case s.reset != nil:
			return 0, false, s.reset
		case s.head == nil && s.fin:
			return 0, true, io.EOF
		case !s.deadline.IsZero() && !time.Now().Before(s.deadline):
			return 0, false, os.ErrDeadlineExceeded
		case s.head != nil:
			for len(p) > 0 && s.head != nil {
				c := s.head
				k := copy(p, c.b[c.r:c.w])
				c.r += k
				p, n = p[k:], n+k
				if c.r == c.w {
					if s.head = c.next; s.head == nil {
						s.tail = nil
					}
					qmuxChunks.Put(c)
				}
			}
			s.read += uint64(n)
			return n, false, nil
		case over != nil:
			return 0, false, *over
		case len(p) == 0:
			return 0, false, nil
		}
		if !s.deadline.IsZero() {
			if s.deadlineEnd == nil {
				s.deadlineEnd = time.AfterFunc(time.Until(s.deadline), s.wake)
			} else {
				s.deadlineEnd.Reset(time.Until(s.deadline))
			}
		}
		s.readable.Wait()
		if s.deadlineEnd != nil {
			s.deadlineEnd.Stop()
		}
	}
}

// allow lets the peer send more on the stream.
func (s *qmuxStream) allow() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fin || s.reset != nil || s.refused || s.allowed-s.read > s.window/2 {
		return
	}
	s.window, s.widened = s.conn.widen(s.window, uint64(s.conn.widest.Stream), s.widened, false)
	s.allowed = s.read + s.window
	s.conn.control(qxMaxStreamData, s.id, s.allowed)
}

// CancelRead gives up what the peer still sends.
func (s *qmuxStream) CancelRead(code quic.StreamErrorCode) {
	s.mu.Lock()
	if s.refused {
		s.mu.Unlock()
		return
	}
	s.refused = true
	unread := s.drop()
	ended := s.fin || s.reset != nil
	s.readable.Broadcast()
	s.mu.Unlock()
	s.conn.consume(unread)
	if ended {
		s.received()
		return
	}
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.conn.control(qxStopSending, s.id, uint64(code))
}

// SetReadDeadline bounds Read, also one that waits.
func (s *qmuxStream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	s.readable.Broadcast()
	return nil
}

// Write implements io.Writer. It waits while the peer or the line takes no more.
func (s *qmuxStream) Write(p []byte) (n int, err error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 {
		if err := s.writeError(); err != nil {
			return n, err
		}
		room := min(s.maxSend-s.sentData, c.maxData-c.sentData)
		if room == 0 || len(c.out) >= maxPending {
			s.wait(room == 0)
			continue
		}
		k := int(min(uint64(len(p)), room, recordSize-streamHead))
		s.send(p[:k])
		p, n = p[k:], n+k
	}
	return n, nil
}

// writeError tells why nothing can be written. conn.mu is held.
func (s *qmuxStream) writeError() error {
	switch over := s.conn.over.Load(); {
	case s.sendError != nil:
		return s.sendError
	case over != nil:
		return *over
	case !s.writeDeadline.IsZero() && !time.Now().Before(s.writeDeadline):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// send adds a record with data. conn.mu is held.
func (s *qmuxStream) send(p []byte) {
	c := s.conn
	c.last, c.lastAt = s, len(c.out)+recordHead
	c.out = append(c.out, 0, 0, qxStream|qxStreamOff)
	c.out = quicvarint.Append(c.out, s.id)
	c.out = quicvarint.Append(c.out, s.sentData)
	c.out = append(c.out, p...)
	endRecord(c.out[c.lastAt-recordHead:])
	s.sentData += uint64(len(p))
	c.sentData += uint64(len(p))
	if len(p) >= busyFrame {
		c.earn()
	}
	c.work.Signal()
}

// wait waits until there may be room. conn.mu is held.
func (s *qmuxStream) wait(limited bool) {
	c := s.conn
	if limited { // the peer may want to know (RFC 9000, section 4.1)
		if s.sentData == s.maxSend && s.blocked != s.maxSend+1 {
			s.blocked = s.maxSend + 1
			c.control(qxStreamDataBlocked, s.id, s.maxSend)
		}
		if c.sentData == c.maxData && c.blocked != c.maxData+1 {
			c.blocked = c.maxData + 1
			c.control(qxDataBlocked, c.maxData)
		}
	}
	if !s.waiting && s.sentData < s.maxSend {
		s.waiting = true
		c.waiting = append(c.waiting, s)
	}
	if !s.writeDeadline.IsZero() {
		if s.writeTimer == nil {
			s.writeTimer = time.AfterFunc(time.Until(s.writeDeadline), s.wakeWriter)
		} else {
			s.writeTimer.Reset(time.Until(s.writeDeadline))
		}
	}
	s.writable.Wait()
	if s.writeTimer != nil {
		s.writeTimer.Stop()
	}
}

func (s *qmuxStream) wakeWriter() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.writable.Broadcast()
}

// Close ends what is written, regularly.
func (s *qmuxStream) Close() error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.left = true
	defer c.end(s)
	if s.sendEnded {
		return s.sendError
	}
	if over := c.over.Load(); over != nil {
		return *over
	}
	if c.last == s { // the end fits into what has not left yet
		c.out[c.lastAt] |= qxStreamFin
		c.last = nil
	} else {
		c.control(qxStream|qxStreamOff|qxStreamFin, s.id, s.sentData)
	}
	s.endSending(errStreamClosed)
	return nil
}

// CancelWrite breaks off what is written.
func (s *qmuxStream) CancelWrite(code quic.StreamErrorCode) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.left = true
	defer c.end(s)
	s.breakOff(code, false)
}

// stopped handles a STOP_SENDING frame. conn.mu is held.
func (s *qmuxStream) stopped(code quic.StreamErrorCode) {
	s.breakOff(code, true)
	s.conn.end(s)
}

func (s *qmuxStream) breakOff(code quic.StreamErrorCode, remote bool) {
	if s.sendEnded {
		return
	}
	s.conn.control(qxResetStream, s.id, uint64(code), s.sentData)
	s.endSending(&quic.StreamError{StreamID: quic.StreamID(s.id), ErrorCode: code, Remote: remote})
}

func (s *qmuxStream) endSending(err error) {
	s.sendEnded, s.sendError = true, err
	s.writable.Broadcast()
	s.endContext(err)
}

func (s *qmuxStream) endContext(err error) {
	if s.cancel != nil {
		s.cancel(err)
	}
}

// SetWriteDeadline bounds Write, also one that waits.
func (s *qmuxStream) SetWriteDeadline(t time.Time) error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.writeDeadline = t
	s.writable.Broadcast()
	return nil
}

// Context returns a context that ends when no more can be written.
func (s *qmuxStream) Context() context.Context {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.ctx == nil {
		s.ctx, s.cancel = context.WithCancelCause(s.conn.ctx)
		if s.sendEnded {
			s.cancel(s.sendError)
		}
	}
	return s.ctx
}
