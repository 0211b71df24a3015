// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// chunkBuffer collects small writes; below 64 KiB, as a chunk's size is
	// written in four digits.
	chunkBuffer = 32 << 10
	// flushDelay is how long a part of a request may wait for more of it: short
	// for a peer, long enough for the other parts of a small message.
	flushDelay = 5 * time.Millisecond

	chunkHead  = len("0000\r\n")
	chunkTail  = len("\r\n")
	lastChunk  = "0\r\n\r\n"
	spareChunk = chunkHead + 1 + chunkTail // the least room for another chunk
)

var chunkBuffers = sync.Pool{New: func() any { return new([chunkBuffer]byte) }}

// chunkWriter writes the body of a request in chunked coding. What is written
// goes out when the buffer is full, at the end, or soon.
type chunkWriter struct {
	mu    sync.Mutex
	w     io.Writer
	array *[chunkBuffer]byte // nil once finished
	buf   []byte             // of array: what is to be sent
	start int                // of the open chunk in buf; -1 if there is none
	timer *time.Timer        // flushes; nil if nothing waits
	err   error              // of w
}

// newChunkWriter starts with head, which goes out with the first bytes of the
// body, or alone if they are late.
func newChunkWriter(w io.Writer, head []byte) *chunkWriter {
	c := &chunkWriter{w: w, start: -1, array: chunkBuffers.Get().(*[chunkBuffer]byte)}
	c.mu.Lock() // against the timer
	defer c.mu.Unlock()
	c.buf = c.array[:0]
	c.add(head, false)
	c.timer = time.AfterFunc(flushDelay, c.late)
	return c
}

var errFinished = errors.New("request body written after its end")

func (c *chunkWriter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.array == nil {
		return 0, errFinished
	}
	n := c.add(p, true)
	if c.err == nil && c.timer == nil && len(c.buf) > 0 {
		c.timer = time.AfterFunc(flushDelay, c.late)
	}
	return n, c.err
}

// add puts p into the buffer, as content of a chunk or as it is, and sends the
// buffer as often as it is full. It returns how much of p it took.
func (c *chunkWriter) add(p []byte, chunked bool) int {
	n := 0
	for len(p) > 0 && c.err == nil {
		room := chunkBuffer - len(c.buf) - chunkTail
		if chunked && c.start < 0 {
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
		if chunkBuffer-len(c.buf) < len(lastChunk) {
			c.flush()
		}
		c.buf = append(c.buf, lastChunk...)
		c.flush()
	}
	chunkBuffers.Put(c.array)
	c.array, c.buf = nil, nil
	return c.err
}

// requestHead returns the request line and the headers. Names go out as they are:
// some peers compare them with case.
func requestHead(host string, header http.Header) []byte {
	b := make([]byte, 0, 512)
	b = append(b, "POST / HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, "\r\nTransfer-Encoding: chunked\r\n"...)
	for name, values := range header {
		for _, v := range values {
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, v...)
			b = append(b, "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}

// checkHeader refuses what would break the request apart.
func checkHeader(header http.Header) error {
	for name, values := range header {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !tokenCharacter(r) }) {
			return fmt.Errorf("header name %q is not allowed", name)
		}
		switch strings.ToLower(name) {
		case "host", "transfer-encoding", "content-length", "connection", "trailer", "upgrade", "expect":
			return fmt.Errorf("header %s is the connection's own", name)
		}
		for _, v := range values {
			if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return fmt.Errorf("the value of header %s is not allowed", name)
			}
		}
	}
	return nil
}

// tokenCharacter is tchar of RFC 9110, section 5.6.2.
func tokenCharacter(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' ||
		r < 0x7f && strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}
