// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"kontor/registry/guard"
)

const (
	// repeatFor is how long a call may be repeated.
	repeatFor = 24 * time.Hour
	// maxRepeats and maxRepeat bound the memory that answers take.
	maxRepeats, maxRepeat = 1000, 64 << 10
	maxIdempotencyKey     = 255
)

// repeats remembers the answers to changes that were made with an
// Idempotency-Key, so that a caller who lost an answer may ask again and nothing
// is done twice. It is safe for concurrent use. A restart forgets them; what
// was done is durable then, and a repeated call is judged by what there is.
type repeats struct {
	mu    sync.Mutex
	by    map[string]*repeat
	order []*repeat // oldest first
}

// repeat is one call with an Idempotency-Key.
type repeat struct {
	key     string // of the caller and his
	content [sha256.Size]byte
	begun   time.Time
	done    bool // what follows is set
	status  int
	header  http.Header
	body    []byte
}

// begin returns what is known of a call: nil if it is to be carried out, then
// end must follow.
func (r *repeats) begin(key string, content [sha256.Size]byte, now time.Time) (own, earlier *repeat) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.order) > 0 && (len(r.order) > maxRepeats || now.Sub(r.order[0].begun) > repeatFor) {
		if r.by[r.order[0].key] == r.order[0] {
			delete(r.by, r.order[0].key)
		}
		r.order = r.order[1:]
	}
	if e, ok := r.by[key]; ok {
		copied := *e
		return nil, &copied
	}
	own = &repeat{key: key, content: content, begun: now}
	if r.by == nil {
		r.by = map[string]*repeat{}
	}
	r.by[key], r.order = own, append(r.order, own)
	return own, nil
}

// end keeps the answer to a change that was made, and forgets every other call.
func (r *repeats) end(own *repeat, answer *carrier) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if answer == nil || answer.status >= http.StatusBadRequest || answer.written.Len() > maxRepeat {
		if r.by[own.key] == own { // else it took so long that it was forgotten, and another one has the key
			delete(r.by, own.key)
		}
		return
	}
	own.done, own.status, own.header, own.body = true, answer.status, answer.header, answer.written.Bytes()
}

// repeated answers a call that was made before.
func repeated(ctx huma.Context, e *repeat, content [sha256.Size]byte) {
	switch {
	case e.content != content:
		writeProblem(ctx, guard.NewProblem(http.StatusUnprocessableEntity, guard.CodeKeyReused, "this idempotency key was used for another call", "use a new key for each change"))
	case !e.done:
		ctx.SetHeader("Retry-After", "1")
		writeProblem(ctx, guard.NewProblem(http.StatusConflict, guard.CodeUnderWay, "the same call is still under way", "repeat it with the same Idempotency-Key; when it has ended, the answer is that of the first"))
	default:
		for name, values := range e.header {
			for _, v := range values {
				ctx.AppendHeader(name, v)
			}
		}
		ctx.SetHeader("Idempotency-Replayed", "true")
		ctx.SetStatus(e.status)
		_, _ = ctx.BodyWriter().Write(e.body) // the caller may have gone
	}
}

// What is answered, so that it can be answered again.

func (c *carrier) SetStatus(code int) {
	c.status = code
	c.humaContext.SetStatus(code)
}

func (c *carrier) SetHeader(name, value string) {
	c.header.Set(name, value)
	c.humaContext.SetHeader(name, value)
}

func (c *carrier) AppendHeader(name, value string) {
	c.header.Add(name, value)
	c.humaContext.AppendHeader(name, value)
}

func (c *carrier) BodyWriter() io.Writer {
	if c.body == nil { // it changes nothing
		return c.humaContext.BodyWriter()
	}
	return io.MultiWriter(c.humaContext.BodyWriter(), &limited{&c.written})
}

// limited keeps no more than can be repeated, and one byte to tell.
type limited struct{ *bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	l.Buffer.Write(b[:min(len(b), max(0, maxRepeat+1-l.Len()))])
	return len(b), nil
}
