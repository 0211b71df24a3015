// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"iter"
	"net/http"
	"strings"
	"time"

	"kontor/gateway/message"
	"kontor/gateway/tracing"
)

// Trace context, where tracing is on. Between gateways it is a header of the
// transport, which nothing signs. What a REST client sends is in the signed head
// as well, and reaches the service from there, unchanged: the service's span is
// then below the client's, beside the gateways'. All other services get the
// context of the gateway's own span.

// headerTraceParent is the name of the header in a head (W3C Trace Context,
// section 3.2).
const headerTraceParent = "traceparent"

// signedTrace tells whether the client's trace context is in the signed head.
func signedTrace(req *message.Request) bool {
	if req.SOAP != nil {
		return false
	}
	_, ok := req.Head.Get(headerTraceParent)
	return ok
}

// withTrace adds the trace context of a span to the header of a call, in place of
// any other.
func withTrace(fields iter.Seq2[string, string], span *tracing.Span) iter.Seq2[string, string] {
	trace := http.Header{}
	span.Inject(trace)
	return func(yield func(name, value string) bool) {
		for name, value := range fields {
			if !strings.EqualFold(name, "tracestate") && !yield(name, value) {
				return
			}
		}
		for name, values := range trace {
			for _, value := range values {
				if !yield(name, value) {
					return
				}
			}
		}
	}
}

// continueTrace begins the span of a peer's request. Its context is that of the
// transport or, as other security servers send none there, of the head.
func (g *Gateway) continueTrace(transport http.Header, req *message.Request, at time.Time) *tracing.Span {
	if g.tracer == nil {
		return nil
	}
	h := transport
	if transport.Get(headerTraceParent) == "" && signedTrace(req) {
		h = req.Head.Header()
	}
	return g.tracer.Start(h, "server proxy", at)
}

// endSpans ends the spans of an exchange.
func (x *Exchange) endSpans(now time.Time) {
	if x.span == nil {
		return
	}
	code, text := "", ""
	if f := asFault(x.Err); f != nil {
		code, text = f.Code(), f.Text()
	} else if x.Err != nil {
		code = "aborted"
	}
	x.hop.End(now, code, text) // if it has not ended well
	if x.span.Recording() {
		x.span.Set("xroad.message_id", x.MessageID)
		x.span.Set("xroad.request_id", x.RequestID)
		x.span.Set("xroad.client", x.Client.String())
		x.span.Set("xroad.service", x.Service.String())
		x.span.Set("xroad.peer", x.Peer.String())
		x.span.Set("http.request.method", x.Method)
		x.span.SetInt("http.response.status_code", int64(x.Status))
		x.span.SetInt("http.request.body.size", x.In)
		x.span.SetInt("http.response.body.size", x.Out)
	}
	x.span.End(now, code, text)
}
