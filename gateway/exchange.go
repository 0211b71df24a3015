// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"kontor/gateway/message"
	"kontor/gateway/serverconf"
	"kontor/gateway/tracing"
	"kontor/registry/id"
)

// Exchange is the one record of an exchange on one side: filled along the way
// and logged once, when it ends. It holds no body and no key.
type Exchange struct {
	Side      string // "client" or "server": which proxy
	Start     time.Time
	Remote    string
	MessageID string
	RequestID string
	Method    string // "SOAP" for such messages
	Path      string // of the service, without the query, which may hold personal data
	Client    id.Client
	Service   id.Service
	Peer      id.SecurityServer
	Status    int   // of the service's answer, 0 if none came
	In, Out   int64 // bytes of the bodies: request, response
	Err       error

	// When the request left for the next hop, when its answer began to come, and
	// when ours did or, of a server proxy, was complete; zero: it did not.
	RequestOut, ResponseIn, ResponseOut time.Time

	request       *message.Request
	response      *message.Response
	service       *serverconf.Service // of a server proxy, not if it is built in
	builtin       bool
	sent, got     int           // attachments of the request and the response
	own, opposite string        // addresses of this security server and of the peer
	span, hop     *tracing.Span // of the exchange; of the request to the next hop
}

func (x *Exchange) note(req *message.Request) {
	x.request = req
	x.MessageID, x.RequestID = req.ID, req.RequestID
	x.Client, x.Service = req.Client, req.Service
	x.Method, x.Path = req.Head.Method, req.ServicePath
	if req.SOAP != nil {
		x.Method = "SOAP"
	}
}

// finish logs the exchange and counts it.
func (g *Gateway) finish(x *Exchange) {
	now := g.now()
	if x.ResponseOut.IsZero() {
		x.ResponseOut = now
	}
	took := now.Sub(x.Start)
	g.metrics.exchange(x, took)
	g.keepRecord(x)
	x.endSpans(now)
	if x.Err == nil {
		g.logger.Info("exchange", zap.Inline(x), zap.Duration("took", took))
		return
	}
	fields := []zap.Field{zap.Inline(x), zap.Duration("took", took)}
	if f := asFault(x.Err); f != nil {
		fields = append(fields, zap.String("fault", f.Code()), zap.String("detail", f.Detail()))
	}
	g.logger.Warn("exchange failed", append(fields, zap.Error(x.Err))...)
}

// MarshalLogObject implements [zapcore.ObjectMarshaler].
func (x *Exchange) MarshalLogObject(to zapcore.ObjectEncoder) error {
	to.AddString("side", x.Side)
	to.AddString("remote", x.Remote)
	to.AddString("message_id", x.MessageID)
	to.AddString("request_id", x.RequestID)
	to.AddString("client", x.Client.String())
	to.AddString("service", x.Service.String())
	to.AddString("method", x.Method)
	to.AddString("path", x.Path)
	to.AddString("peer", x.Peer.String())
	to.AddInt("status", x.Status)
	to.AddInt64("in", x.In)
	to.AddInt64("out", x.Out)
	return nil
}

// idleBody reads a request body under a deadline that every read renews: a
// sender may take long but not stand still.
type idleBody struct {
	body  io.Reader
	ctl   *http.ResponseController
	idle  time.Duration
	until time.Time // if set, no read takes longer than that
	ended bool      // nothing is left to read
	asked bool      // the sender holds its body back until the first read (RFC 9110, section 10.1.1)
}

func newIdleBody(w http.ResponseWriter, r *http.Request, idle time.Duration) *idleBody {
	return &idleBody{body: r.Body, ctl: http.NewResponseController(w), idle: idle,
		ended: r.Body == http.NoBody, asked: r.Header.Get("Expect") != ""}
}

func (b *idleBody) Read(p []byte) (int, error) {
	if b.ended {
		return 0, io.EOF
	}
	b.asked = false
	deadline := time.Now().Add(b.idle)
	if !b.until.IsZero() && b.until.Before(deadline) {
		deadline = b.until
	}
	if err := b.ctl.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	n, err := b.body.Read(p)
	if err == io.EOF {
		b.ended = true
		// The server now watches the connection for a hang-up; that read must
		// not time out while the exchange goes on.
		if e := b.ctl.SetReadDeadline(time.Time{}); e != nil {
			return n, e
		}
	}
	return n, err
}

const (
	drainRefused = 64 << 20    // how much of a refused request is still read, in bytes
	drainQuickly = time.Second // how long a fault waits for a small request to end
)

// drain reads what is left of a request, within bounds of size and time.
func (b *idleBody) drain(max int64, wait time.Duration) {
	if b.ended || b.asked {
		return
	}
	b.until = time.Now().Add(wait)
	// Whatever goes wrong here ends the connection, not the exchange: its
	// fault is already known.
	_, _ = io.CopyN(io.Discard, b, max)
}
