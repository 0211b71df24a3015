// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"errors"
	"io"
	"sync"
	"time"
)

const (
	// flushDelay is how long a part of a request may wait for more of it: short
	// for a server, long enough for the other parts of a small message.
	flushDelay = 5 * time.Millisecond

	chunkHead  = len("0000\r\n")
	chunkTail  = len("\r\n")
	lastChunk  = "0\r\n\r\n"
	spareChunk = chunkHead + 1 + chunkTail // the least room for another chunk
)

type buffer [writeBuffer]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// chunkWriter writes the body of a request in chunked coding. What is written
// goes out when the buffer is full, at the end, or soon.
type chunkWriter struct {
	mu    sync.Mutex
	w     io.Writer
	array *buffer     // nil once finished
	buf   []byte      // of array: what is to be sent
	start int         // of the open chunk in buf; -1 if there is none
	hurry bool        // what waits is sent soon
	timer *time.Timer // flushes; nil if nothing waits
	err   error       // of w
}

// newChunkWriter starts with head, which goes out with the first bytes of the
// body. If hurry is set it goes out alone when they are late, and what is
// written does not wait for long either. The writer uses array until finish.
func newChunkWriter(w io.Writer, array *buffer, head []byte, hurry bool) *chunkWriter {
	c := &chunkWriter{w: w, start: -1, array: array, hurry: hurry}
	c.mu.Lock() // against the timer
	defer c.mu.Unlock()
	c.buf = array[:0]
	if len(head) <= len(array) {
		c.buf = array[:copy(array[:], head)] // where it may be already
	} else {
		_, c.err = w.Write(head)
	}
	c.wait()
	return c
}

var errFinished = errors.New("request body written after its end")

func (c *chunkWriter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.array == nil {
		return 0, errFinished
	}
	n := c.add(p)
	c.wait()
	return n, c.err
}

// wait lets what is in the buffer wait for more.
func (c *chunkWriter) wait() {
	if c.hurry && c.err == nil && c.timer == nil && len(c.buf) > 0 {
		c.timer = time.AfterFunc(flushDelay, c.late)
	}
}

// add puts p into the buffer and sends that as often as it is full. It returns
// how much of p it took.
func (c *chunkWriter) add(p []byte) int {
	n := 0
	for len(p) > 0 && c.err == nil {
		room := writeBuffer - len(c.buf) - chunkTail
		if c.start < 0 {
			if room < spareChunk {
				c.flush()
				continue
			}
			c.start = len(c.buf)
			c.buf = append(c.buf, "0000\r\n"...)
			room -= chunkHead
		}
		if room <= 0 {
			c.flush()
			continue
		}
		k := min(room, len(p))
		c.buf = append(c.buf, p[:k]...)
		p, n = p[k:], n+k
	}
	return n
}

// closeChunk writes the size of the open chunk, which is never empty, and its
// end, for which add has left room.
func (c *chunkWriter) closeChunk() {
	const digits = "0123456789abcdef"
	if c.start < 0 {
		return
	}
	size := len(c.buf) - c.start - chunkHead
	for i := range 4 {
		c.buf[c.start+i] = digits[size>>(12-4*i)&15]
	}
	c.buf = append(c.buf, "\r\n"...)
	c.start = -1
}

// flush sends the buffer.
func (c *chunkWriter) flush() {
	c.closeChunk()
	if len(c.buf) > 0 && c.err == nil {
		_, c.err = c.w.Write(c.buf)
	}
	c.buf = c.array[:0]
}

// late sends what has waited.
func (c *chunkWriter) late() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = nil
	if c.array != nil {
		c.flush()
	}
}

// broken tells whether the connection, not the source, failed.
func (c *chunkWriter) broken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

// finish ends the body, regularly or by leaving it without an end. Afterwards
// the writer holds nothing.
func (c *chunkWriter) finish(regular bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if regular {
		c.closeChunk()
		if writeBuffer-len(c.buf) < len(lastChunk) {
			c.flush()
		}
		c.buf = append(c.buf, lastChunk...)
		c.flush()
	}
	c.array, c.buf = nil, nil
	return c.err
}
