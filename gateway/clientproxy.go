// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"kontor/gateway/fault"
	"kontor/gateway/message"
	"kontor/gateway/msglog"
	"kontor/gateway/serverconf"
	"kontor/gateway/signer"
	"kontor/gateway/tracing"
	"kontor/gateway/tunnel"
	"kontor/pki/asic"
	"kontor/registry/globalconf"
)

// ServeClient answers requests of local information systems (X-Road: Message
// Protocol for REST, Message Protocol v4.0). It is the only place that writes
// to them.
func (g *Gateway) ServeClient(w http.ResponseWriter, r *http.Request) {
	g.draining.Add(1)
	defer g.draining.Done()
	x := &Exchange{Side: "client", Start: g.now(), Remote: r.RemoteAddr}
	g.metrics.begin(x)
	defer g.metrics.end(x)

	x.span = g.tracer.Start(r.Header, "client proxy", x.Start)
	body := newIdleBody(w, r, g.limits.Idle)
	resp, err := g.clientExchange(r.Context(), x, r, body)
	if err != nil {
		f := fault.At(fault.ClientProxy, err)
		x.Err = f
		body.drain(holdBack, drainQuickly) // most are small: their connections stay usable
		g.refuseClient(w, r, f, body.ended)
		g.finish(x)
		body.drain(drainRefused, g.limits.Idle) // closing on unread bytes would take the fault away again
		return
	}
	defer resp.content.Close()
	x.ResponseOut = g.now()
	x.Err = g.answerClient(w, r, x, resp) // 9
	g.finish(x)
}

// answer is a verified and recorded response.
type answer struct {
	*message.Response
	content     message.Content
	contentType string // of SOAP: what the service's answer had
}

// clientExchange carries one request to its provider and returns the verified
// response, whose content the caller closes. The numbers are those of
// docs/design/message-path.md.
func (g *Gateway) clientExchange(ctx context.Context, x *Exchange, r *http.Request, in *idleBody) (*answer, error) {
	slot, err := g.client.enter(host(x.Remote))
	if err != nil {
		return nil, err
	}
	defer slot.leave()
	view, err := g.View()
	if err != nil {
		return nil, err
	}
	x.own = address(view, g.server)

	req, src, err := g.readClient(r, in, view.Instance()) // 1
	if err != nil {
		return nil, err
	}
	defer src.close()
	x.note(req)
	if err := g.conf.Conf().AuthenticateClient(req.Client, r.TLS != nil, peerCertificate(r)); err != nil {
		return nil, clientFault(req, err)
	}
	if err := slot.pass(req.Client); err != nil {
		return nil, err
	}

	servers, err := providers(view, req) // 2
	if err != nil {
		return nil, err
	}
	x.opposite = servers[0].Address
	auth, err := g.signer.Auth(view)
	if err != nil {
		return nil, fault.Wrap(fault.SSLAuthenticationFailed, err,
			"Security server has no usable authentication certificate: it must be registered, active and have a fresh OCSP response")
	}

	tun := g.open(tunnel.WithIdentity(ctx, &auth.Certificate), view, servers, req.Service.Owner()) // 3
	defer tun.Abort()
	defer func() { x.RequestOut = tun.started }()
	enc := message.NewEncoder(tun)
	tun.header = requestHeader(r, req, enc)
	x.hop = x.span.Child("peer", tracing.Called, g.now())
	x.hop.Inject(tun.header)
	for _, der := range auth.OCSP {
		_ = enc.OCSP(der) // the encoder repeats its first error
	}
	_ = enc.Request(req)
	content, err := g.carry(src, enc, &x.In)
	if err != nil {
		return nil, g.requestBroken(tun, req, err)
	}
	defer content.Close()
	x.sent = len(content)

	evidence, err := g.signer.Sign(ctx, view, req.Client.Member(), req.Digest(), content.Digests()) // 4
	if err != nil {
		return nil, signingFault(req.Client, err)
	}
	record := msglog.Record{ // 5
		Time: g.now(), Side: msglog.Client, MessageID: req.ID, RequestID: req.RequestID, Client: req.Client, Service: req.Service,
		ClientServer: g.server, Head: req.Raw, Attachments: content, Evidence: *evidence,
	}
	if err := g.append(ctx, &record); err != nil {
		return nil, err
	}

	putEvidence(enc, evidence) // 6
	if err := enc.Close(); err != nil {
		return nil, g.requestBroken(tun, req, err)
	}
	reply, err := tun.Answer()
	if err != nil {
		return nil, tunnelFault(req, err)
	}
	defer reply.Body.Close()
	x.ResponseIn, x.Peer, x.opposite = g.now(), reply.Peer.Server.ID, reply.Peer.Server.Address

	resp, received, err := g.readAnswer(req, reply, x) // 7
	if err != nil {
		return nil, err
	}
	x.response, x.got = resp.Response, len(resp.content)
	x.hop.End(g.now(), "", "")
	if _, err = g.verifier.Signature(received, req.Service.Owner(), view, g.now()); err != nil {
		err = fault.Wrap(signatureCode(err), err, "The response of %s is not signed as it must be", req.Service.LogString())
	} else if err = resp.Answers(req, req.Hash(content)); err != nil {
		err = fault.Wrap(inconsistentCode(err), err, "The response of %s does not belong to the request: %v", req.Service.LogString(), err)
	} else { // 8
		err = g.append(ctx, &msglog.Record{
			Time: g.now(), Side: msglog.Client, Response: true, MessageID: req.ID, RequestID: req.RequestID, Client: req.Client, Service: req.Service,
			ClientServer: g.server, ServiceServer: x.Peer, Head: resp.Raw, Attachments: resp.content, Evidence: *received,
		})
	}
	if err != nil {
		resp.content.Close()
		return nil, err
	}
	return resp, nil // 9: ServeClient answers
}

// putEvidence writes the signature of a message, which is then to be closed. The
// encoder repeats its first error.
func putEvidence(enc *message.Encoder, e *asic.Evidence) {
	if e.Chain != nil {
		_ = enc.HashChain(e.ChainResult, e.Chain)
	}
	_ = enc.Signature(e.Signature)
}

// requestBroken tells why a request could not be sent to its end. If the peer
// answered early, its answer, a fault, is the reason.
func (g *Gateway) requestBroken(tun *outgoing, req *message.Request, err error) error {
	if !errors.Is(err, errAnswered) {
		return err
	}
	reply, err := tun.Answer()
	if err != nil {
		return tunnelFault(req, err)
	}
	defer reply.Body.Close()
	resp, _, err := g.readAnswer(req, reply, &Exchange{})
	if err != nil {
		return err
	}
	resp.content.Close()
	return fault.New(fault.InvalidMessage, "The provider's security server answered before it had the whole request")
}

// answerClient sends the response to the information system. The provider's
// head is passed on as it is, but for the hop-by-hop headers it cannot have.
func (g *Gateway) answerClient(w http.ResponseWriter, r *http.Request, x *Exchange, resp *answer) error {
	if resp.SOAP != nil {
		return g.answerSOAP(w, r, x, resp)
	}
	content := resp.content.Body()
	h := w.Header()
	addFields(h, resp.Head.Fields)
	if h.Get("Content-Type") == "" {
		h["Content-Type"] = nil // never guessed
	}
	if content.Present() && r.Method != http.MethodHead {
		h["Content-Length"] = []string{strconv.FormatInt(content.Size(), 10)}
	}
	x.Status = resp.Head.Status
	w.WriteHeader(resp.Head.Status)
	if !content.Present() || r.Method == http.MethodHead {
		return nil
	}
	body, err := content.Open()
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(&idleWriter{w, http.NewResponseController(w), g.limits.Idle}, body)
	return err
}

// addFields adds fields to a header, with their names as they are.
func addFields(h http.Header, fields []message.Field) {
	values := make([]string, len(fields)) // of all names, most of which have one
	for i, f := range fields {
		if have := h[f.Name]; have != nil {
			h[f.Name] = append(have, f.Value)
			continue
		}
		values[i] = f.Value
		h[f.Name] = values[i : i+1 : i+1]
	}
}

// refuseClient sends a fault in the form that the client accepts. If the
// request was not read to its end, no other may follow on its connection.
func (g *Gateway) refuseClient(w http.ResponseWriter, r *http.Request, f *fault.Error, ended bool) {
	ctl := http.NewResponseController(w)
	_ = ctl.EnableFullDuplex() // or the server reads on before it lets the fault out
	f = f.Spelt(g.faults)
	contentType, body := f.NegotiateREST(strings.Join(r.Header.Values("Accept"), ","))
	status := f.HTTPStatus(g.faults)
	h := w.Header()
	if isREST(r) {
		h["X-Road-Error"] = []string{f.Code()}
	} else {
		contentType, body, status = fault.ContentTypeTextXML, f.SOAP(), http.StatusOK
		h["SOAPAction"] = []string{""}
	}
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	if !ended {
		h["Connection"] = []string{"close"}
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have gone; the fault is logged anyway
	_ = ctl.Flush()
}

// requestHeader returns the transport headers of a request (X-Road: Message
// Transport Protocol, section 2.2).
func requestHeader(r *http.Request, req *message.Request, enc *message.Encoder) http.Header {
	kind, value := "X-Road-Message-Type", "REST"
	if req.SOAP != nil {
		kind, value = "X-Original-Soapaction", r.Header.Get("SOAPAction")
	}
	h := make(http.Header, 8)
	addFields(h, []message.Field{
		{Name: "Content-Type", Value: enc.ContentType()},
		{Name: "X-Hash-Algorithm", Value: "SHA-512"},
		{Name: "X-Proxy-Version", Value: Version},
		{Name: "X-Original-Content-Type", Value: r.Header.Get("Content-Type")},
		{Name: "X-Road-Request-Id", Value: req.RequestID},
		{Name: kind, Value: value},
	})
	return h
}

// providers returns the security servers that may be asked for the service.
func providers(view *globalconf.View, req *message.Request) ([]*globalconf.Server, error) {
	all := view.Providers(req.Service.Owner())
	if !req.Server.IsZero() {
		target, ok := view.Server(req.Server)
		if !ok {
			return nil, fault.New(fault.InvalidSecurityServer, "Could not find security server %q", req.Server.LogString())
		}
		if !view.Registered(req.Server, req.Service.Owner()) {
			return nil, fault.New(fault.InvalidSecurityServer, "Security server %q does not serve %q", req.Server.LogString(), req.Service.Owner().LogString())
		}
		all = []*globalconf.Server{target}
	}
	var up []*globalconf.Server
	var resting *globalconf.Server
	for _, s := range all {
		switch {
		case s.Address == "":
		case s.Maintenance:
			resting = s
		default:
			up = append(up, s)
		}
	}
	switch {
	case len(up) > 0:
		return up, nil
	case resting != nil && resting.MaintenanceMessage != "":
		return nil, fault.New(fault.MaintenanceMode, "Security server %q is in maintenance mode. Message from its administrator: %s",
			resting.ID.LogString(), resting.MaintenanceMessage)
	case resting != nil:
		return nil, fault.New(fault.MaintenanceMode, "Security server %q is in maintenance mode", resting.ID.LogString())
	}
	if instance := req.Service.Owner().Instance(); !slices.Contains(view.Instances(), instance) {
		return nil, fault.New(fault.UnknownMember,
			"Could not find addresses for service provider %q: there is no configuration of instance %q; the registry must trust its anchor, and this security server allow the federation",
			req.Service.LogString(), instance)
	}
	return nil, fault.New(fault.UnknownMember, "Could not find addresses for service provider %q", req.Service.LogString())
}

// readAnswer reads the peer's answer to req: a signed response, whose content
// the caller closes, or the peer's fault as an error.
func (g *Gateway) readAnswer(req *message.Request, reply *tunnel.Response, x *Exchange) (*answer, *asic.Evidence, error) {
	msg, err := newReceived(reply.Body, reply.Header.Get("Content-Type"), req.AnswerKind(), g.spool)
	if err != nil {
		return nil, nil, err
	}
	defer msg.dec.Close()
	if err := msg.readHead(); err != nil {
		return nil, nil, err
	}
	resp, err := message.ReadResponsePart(msg.head, msg.raw)
	switch {
	case err == nil:
	case errors.Is(err, message.ErrFault):
		return nil, nil, peerFault(msg.raw)
	case req.SOAP != nil:
		return nil, nil, soapFault(fault.ServiceFailed, "The response of "+req.Service.LogString(), err)
	default:
		return nil, nil, fault.Wrap(fault.InvalidMessage.In(fault.ServiceFailed), err, "The response head is malformed: %v", err)
	}
	if alg := reply.Header.Get("X-Hash-Algorithm"); alg != "SHA-512" {
		return nil, nil, fault.New(fault.InternalError, "The response is hashed with %q; only SHA-512 is supported", alg)
	}
	if err := msg.readRest(&x.Out); err != nil {
		return nil, nil, err
	}
	return &answer{resp, msg.content, reply.Header.Get("X-Original-Content-Type")}, msg.evidence(resp.Digest()), nil
}

// inconsistentCode chooses the code for a response that belongs to another
// request. X-Road tells SOAP headers that differ from all else.
func inconsistentCode(err error) fault.Code {
	if errors.Is(err, message.ErrInconsistentHeaders) {
		return fault.InconsistentResponse.In(fault.ServiceFailed)
	}
	return fault.InconsistentResponse
}

// clientFault chooses the code for a client that may not use this server.
func clientFault(req *message.Request, err error) error {
	switch {
	case errors.Is(err, serverconf.ErrUnknownClient), errors.Is(err, serverconf.ErrNotRegistered):
		return fault.Wrap(fault.UnknownMember, err, "Client '%s' not found", req.Client.LogString())
	}
	return fault.Wrap(fault.SSLAuthenticationFailed, err, "Client %s is not authenticated: %v", req.Client.LogString(), err)
}

// signingFault chooses the code for a message that could not be signed.
func signingFault(who interface{ LogString() string }, err error) error {
	if errors.Is(err, signer.ErrNoKey) {
		return fault.Wrap(fault.KeyNotFound.In(fault.CannotCreateSignature), err,
			"No signing key is usable for %s: it needs an active certificate with a fresh OCSP response", who.LogString())
	}
	return fault.Wrap(fault.CannotCreateSignature, err, "Cannot sign for %s", who.LogString())
}
