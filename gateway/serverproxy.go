// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"kontor/gateway/fault"
	"kontor/gateway/message"
	"kontor/gateway/msglog"
	"kontor/gateway/tracing"
)

// ServeServer answers requests of other security servers (X-Road: Message
// Transport Protocol). It is the only place that writes to them.
func (g *Gateway) ServeServer(w http.ResponseWriter, r *http.Request) {
	g.draining.Add(1)
	defer g.draining.Done()
	x := &Exchange{Side: "server", Start: g.now(), Remote: r.RemoteAddr}
	g.metrics.begin(x)
	defer g.metrics.end(x)

	body := newIdleBody(w, r, g.limits.Idle)
	out := &responseWriter{w: w, ctl: http.NewResponseController(w), idle: g.limits.Idle}
	if err := g.serverExchange(r.Context(), x, r, body, out); err != nil {
		f := fault.At(fault.ServerProxy, err)
		x.Err, x.ResponseOut = f, g.now()
		body.drain(drainRefused, g.limits.Idle) // Java security servers write the whole request before they read the answer
		out.refuse(f.Spelt(g.faults))
	}
	g.finish(x)
}

// serverExchange takes one request from another security server, has the
// service answer it and sends the signed response. The numbers are those of
// docs/design/message-path.md.
func (g *Gateway) serverExchange(ctx context.Context, x *Exchange, r *http.Request, in io.Reader, out *responseWriter) error {
	slot, err := g.provider.enter(host(x.Remote))
	if err != nil {
		return err
	}
	defer slot.leave()
	if r.Method != http.MethodPost {
		return fault.New(fault.InvalidHTTPMethod, "Must use POST request method instead of %s", r.Method)
	}
	view, err := g.View()
	if err != nil {
		return err
	}
	x.own = address(view, g.server)
	want := message.SOAPRequest
	if r.Header.Get("X-Road-Message-Type") == "REST" {
		want = message.RESTRequest
	} else if _, err := message.CheckSOAPAction(r.Header.Values("X-Original-Soapaction")); err != nil {
		return soapFault(fault.ServiceFailed, "The SOAP request", err)
	}
	if alg := r.Header.Get("X-Hash-Algorithm"); alg != "SHA-512" {
		return fault.New(fault.InternalError, "The message is hashed with %q; only SHA-512 is supported", alg)
	}

	msg, err := newReceived(in, r.Header.Get("Content-Type"), want, g.spool) // 1
	if err != nil {
		return err
	}
	defer msg.dec.Close()
	if err := msg.readHead(); err != nil {
		return err
	}
	req, err := g.readPeer(msg, r.Header.Get("X-Road-Request-Id"))
	if err != nil {
		return err
	}
	x.note(req)
	x.span = g.continueTrace(r.Header, req, x.Start)

	if len(msg.ocsp) == 0 { // 2
		return fault.New(fault.SSLAuthenticationFailed.In(fault.ServiceFailed),
			"Cannot verify TLS certificate, corresponding OCSP response is missing")
	}
	peer, err := g.peers.Verify(ctx, view, peerChain(r), msg.ocsp, req.Client)
	if err != nil {
		return fault.Wrap(fault.SSLAuthenticationFailed.In(fault.ServiceFailed), err,
			"Security server of client %s is not authenticated: %s", req.Client.LogString(), peerCause(err))
	}
	x.Peer, x.opposite = peer.Server.ID, peer.Server.Address

	if err := msg.readRest(&x.In); err != nil { // 3
		return err
	}
	defer msg.content.Close()
	x.sent = len(msg.content)

	evidence := msg.evidence(req.Digest()) // 4
	if _, err := g.verifier.Signature(evidence, req.Client, view, g.now()); err != nil {
		return fault.Wrap(signatureCode(err), err, "The request of %s is not signed as it must be: %v", req.Client.LogString(), err)
	}

	target, err := g.authorise(view, req, x.Peer) // 5
	if err != nil {
		return err
	}
	x.service, x.builtin = target.service, target.builtin != nil

	if err := g.append(ctx, &msglog.Record{ // 6
		Time: g.now(), Side: msglog.Server, MessageID: req.ID, RequestID: req.RequestID, Client: req.Client, Service: req.Service,
		ClientServer: x.Peer, ServiceServer: g.server, Head: req.Raw, Attachments: msg.content, Evidence: *evidence,
	}); err != nil {
		return err
	}

	enc := message.NewEncoder(out) // 7
	out.begin(enc)
	x.RequestOut = g.now()
	x.hop = x.span.Child("service", tracing.Called, x.RequestOut)
	answer, err := g.call(ctx, x.hop, target, req, r.Header, msg.content)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	x.ResponseIn, x.Status = g.now(), answer.StatusCode
	resp, src, err := g.readService(req, req.Hash(msg.content), answer)
	if err != nil {
		return err
	}
	defer src.close()
	out.describe(resp, answer)
	_ = enc.Response(resp) // the encoder repeats its first error
	content, err := g.carry(src, enc, &x.Out)
	if err != nil {
		return err
	}
	defer content.Close()
	x.response, x.got = resp, len(content)
	x.hop.End(g.now(), "", "")

	signed, err := g.signer.Sign(ctx, view, req.Service.Owner().Member(), resp.Digest(), content.Digests()) // 8
	if err != nil {
		return signingFault(req.Service.Owner(), err)
	}
	if err := g.append(ctx, &msglog.Record{
		Time: g.now(), Side: msglog.Server, Response: true, MessageID: req.ID, RequestID: req.RequestID, Client: req.Client, Service: req.Service,
		ClientServer: x.Peer, ServiceServer: g.server, Head: resp.Raw, Attachments: content, Evidence: *signed,
	}); err != nil {
		return err
	}
	x.ResponseOut = g.now()
	putEvidence(enc, signed)
	if err := out.end(); err != nil {
		return fault.Wrap(fault.IOError, err, "The response could not be sent")
	}
	return nil
}

// readPeer reads the head of a peer's request.
func (g *Gateway) readPeer(msg *received, requestID string) (*message.Request, error) {
	if msg.want == message.RESTRequest {
		req, err := message.ReadRequestPart(msg.head, msg.raw, requestID)
		if err != nil {
			err = fault.Wrap(fault.InvalidMessage.In(fault.ServiceFailed), err, "The request head is malformed: %v", err)
		}
		return req, err
	}
	if requestID == "" {
		requestID = newUUID()
	}
	req, err := readSOAPRequest(msg.head, msg.raw, requestID)
	if err != nil {
		return nil, soapFault(fault.ServiceFailed, "The SOAP request", err)
	}
	if !req.Server.IsZero() && req.Server != g.server {
		return nil, fault.New(fault.InvalidSecurityServer.In(fault.ServiceFailed),
			"The request is for security server %q, this is %q", req.Server.LogString(), g.server.LogString())
	}
	return req, nil
}

// responseWriter sends the answer to a peer: a multipart message once it has
// begun, before that a plain fault (X-Road: Message Transport Protocol,
// section 2.4).
type responseWriter struct {
	w    http.ResponseWriter
	ctl  *http.ResponseController
	idle time.Duration
	enc  *message.Encoder // nil until begin
}

func (o *responseWriter) begin(enc *message.Encoder) {
	h := o.w.Header()
	h["Content-Type"] = []string{enc.ContentType()}
	// Java reads this name from a case-sensitive map.
	h["x-hash-algorithm"] = []string{"SHA-512"}
	enc.Hold(holdBack) // a small answer goes out at once, in one piece
	o.enc = enc
}

// end ends the answer. If none of it has been sent, its length is known: it needs
// no chunks.
func (o *responseWriter) end() error {
	if n, ok := o.enc.Whole(); ok {
		o.w.Header()["Content-Length"] = []string{strconv.Itoa(n)}
	}
	return o.enc.Close()
}

// describe tells what a SOAP answer was. It must be called before the first
// Write.
func (o *responseWriter) describe(resp *message.Response, answer *http.Response) {
	if resp.SOAP != nil {
		o.w.Header()["x-original-content-type"] = []string{answer.Header.Get("Content-Type")}
	}
}

func (o *responseWriter) Write(p []byte) (int, error) {
	if err := o.ctl.SetWriteDeadline(time.Now().Add(o.idle)); err != nil {
		return 0, err
	}
	return o.w.Write(p)
}

// refuse sends a fault. Peers take faults with status 200 only.
func (o *responseWriter) refuse(f *fault.Error) {
	if o.enc != nil {
		_ = o.enc.Fault(f.SOAP())
		_ = o.end() // the peer may have gone; the fault is logged anyway
		return
	}
	body := f.SOAP()
	h := o.w.Header()
	h["Content-Type"] = []string{"text/xml;charset=utf-8"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	o.w.WriteHeader(http.StatusOK)
	_, _ = o.Write(body)
}
