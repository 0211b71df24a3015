// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"kontor/gateway/tunnel"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// holdBack is how much of a message to a peer waits in memory: one that fits goes
// out in one piece, larger ones stream.
const holdBack = 96 << 10

// heldBuffers are for what waits; larger ones than maxPooledHeld are rare and
// not kept.
var heldBuffers = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, usualHeld)) }}

const (
	usualHeld     = 16 << 10 // a signature has 7 KB
	maxPooledHeld = 32 << 10
)

var (
	// errAnswered tells that the peer answered, or went away, before it had the
	// whole request; Answer tells which.
	errAnswered = errors.New("answered before the request was complete")
	errAborted  = errors.New("request abandoned")
	errSilence  = errors.New("no progress for too long")
)

// outgoing is a request on its way through the tunnel. It is written by one
// goroutine and ends with Answer or Abort.
type outgoing struct {
	header   http.Header // set before the first Write
	post     func(body io.Reader) (*tunnel.Response, error)
	patience *patience
	limits   Limits
	now      func() time.Time
	started  time.Time      // zero: not yet
	held     *bytes.Buffer  // of heldBuffers
	pipe     *io.PipeWriter // nil until the request outgrew held
	reply    chan reply
}

type reply struct {
	resp *tunnel.Response
	err  error
}

// open prepares a request to one of the servers, which must be registered for
// need. The peer is verified before the first byte is sent.
func (g *Gateway) open(ctx context.Context, view *globalconf.View, servers []*globalconf.Server, need id.Client) *outgoing {
	ctx, p := newPatience(ctx)
	o := &outgoing{patience: p, held: heldBuffers.Get().(*bytes.Buffer), limits: g.limits, now: g.now}
	o.post = func(body io.Reader) (*tunnel.Response, error) {
		resp, err := g.tunnel.Post(ctx, view, servers, need, o.header, body)
		if err != nil && context.Cause(ctx) == errSilence {
			err = errors.Join(tunnel.ErrTimeout, err)
		}
		return resp, err
	}
	return o
}

func (o *outgoing) Write(p []byte) (int, error) {
	if o.pipe == nil {
		if o.held.Len()+len(p) <= holdBack {
			return o.held.Write(p)
		}
		r, w := io.Pipe()
		o.started = o.now()
		o.pipe, o.reply = w, make(chan reply, 1)
		go func() {
			resp, err := o.post(io.MultiReader(o.held, r))
			r.CloseWithError(errAnswered) // a writer that is still at it learns to stop
			o.reply <- reply{resp, err}
		}()
	}
	o.patience.wait(o.limits.Idle)
	return o.pipe.Write(p)
}

// Answer ends the request and waits for the head of the answer. The caller
// closes its body.
func (o *outgoing) Answer() (*tunnel.Response, error) {
	o.patience.wait(o.limits.Answer)
	var r reply
	if o.pipe == nil {
		o.started = o.now()
		r.resp, r.err = o.post(o.held)
		o.release()
	} else {
		o.pipe.Close()
		r = <-o.reply
		o.reply = nil
	}
	if r.err != nil {
		o.patience.end()
		return nil, r.err
	}
	r.resp.Body = &patientBody{r.resp.Body, o.patience, o.limits.Idle}
	return r.resp, nil
}

// release gives held back, which nobody uses after post.
func (o *outgoing) release() {
	if o.held.Cap() <= maxPooledHeld {
		o.held.Reset()
		heldBuffers.Put(o.held)
	}
	o.held = nil
}

// Abort breaks the request off, so that the peer sees no regular end. After
// Answer it does nothing.
func (o *outgoing) Abort() {
	if o.pipe == nil || o.reply == nil {
		return
	}
	o.pipe.CloseWithError(errAborted)
	o.patience.end()
	if r := <-o.reply; r.resp != nil {
		r.resp.Body.Close()
	}
	o.reply = nil
}

// patience ends an operation that makes no progress, by its context.
type patience struct {
	cancel context.CancelCauseFunc
	timer  *time.Timer // nil until the first wait
}

func newPatience(ctx context.Context) (context.Context, *patience) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &patience{cancel: cancel}
}

// wait gives the operation d more, from now.
func (p *patience) wait(d time.Duration) {
	if p.timer == nil {
		p.timer = time.AfterFunc(d, func() { p.cancel(errSilence) })
		return
	}
	p.timer.Reset(d)
}

// end ends the operation.
func (p *patience) end() {
	if p.timer != nil {
		p.timer.Stop()
	}
	p.cancel(nil)
}

// patientBody renews the patience with every read; closing it ends the
// operation.
type patientBody struct {
	io.ReadCloser
	patience *patience
	idle     time.Duration
}

func (b *patientBody) Read(p []byte) (int, error) {
	b.patience.wait(b.idle)
	return b.ReadCloser.Read(p)
}

func (b *patientBody) Close() error {
	err := b.ReadCloser.Close()
	b.patience.end()
	return err
}
