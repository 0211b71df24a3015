// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"kontor/gateway/fault"
	"kontor/gateway/http1"
	"kontor/gateway/message"
	"kontor/gateway/serverconf"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// Builtin is a service that the security server itself provides: under its code
// every client of the server has it, and no service of their own. Its messages
// walk the same path as all others; only the call of an information system is
// replaced by Serve.
type Builtin struct {
	// Code is the service code. It must be one that [serverconf.Reserved] keeps
	// for it.
	Code string
	// REST and SOAP tell in which protocols the service answers; in REST only
	// GET requests, whatever their path behind the code.
	REST, SOAP bool
	// OwnerOnly: it belongs to the owner of the security server, not to its
	// clients.
	OwnerOnly bool
	// Authorise decides whether the client of a call may make it. Its error is
	// the fault, or becomes access_denied. Nil: every member and subsystem of the
	// network may.
	Authorise func(*Call) error
	// Serve answers a call: r is the very request that an information system
	// would get, its context that of the exchange. The answer is spooled before
	// any of it is sent, so that an error may come at any time; it is the fault,
	// or becomes internal_error. Serve runs concurrently with itself.
	Serve func(w http.ResponseWriter, r *http.Request, c *Call) error
}

// Call is a request to a built-in service, verified and authorised.
type Call struct {
	View    *globalconf.View  // judges the exchange
	Conf    *serverconf.Conf  // clients and services at that time
	Server  id.SecurityServer // this one
	Peer    id.SecurityServer // the one that the request came from
	Request *message.Request

	gateway *Gateway
}

// target is what answers a request: a service or, if that is nil, a built-in one.
type target struct {
	service *serverconf.Service
	builtin *Builtin
	call    *Call
}

// builtins finds built-in services by their codes.
type builtins map[string]*Builtin

func newBuiltins(list []Builtin) (builtins, error) {
	m := make(builtins, len(list))
	for i := range list {
		b := &list[i]
		switch {
		case !serverconf.Reserved(b.Code):
			return nil, fmt.Errorf("gateway: the code of built-in service %q is not reserved", b.Code)
		case m[b.Code] != nil:
			return nil, fmt.Errorf("gateway: two built-in services %q", b.Code)
		case b.Serve == nil || !b.REST && !b.SOAP:
			return nil, fmt.Errorf("gateway: built-in service %q answers nothing", b.Code)
		}
		m[b.Code] = b
	}
	return m, nil
}

// of returns the built-in service that a request is for, or nil.
func (m builtins) of(req *message.Request, owner id.Member) *Builtin {
	b := m[req.Service.Code()]
	switch {
	case b == nil:
	case req.SOAP != nil && !b.SOAP:
	case req.SOAP == nil && (!b.REST || req.Head.Method != http.MethodGet):
	case b.OwnerOnly && req.Service.Owner() != owner.Client():
	default:
		return b
	}
	return nil
}

// authorise decides whether a call may be made.
func (b *Builtin) authorise(c *Call) error {
	if b.Authorise == nil {
		return nil
	}
	err := b.Authorise(c)
	if err != nil && asFault(err) == nil {
		return fault.Wrap(fault.AccessDenied, err, "Request is not allowed: %s", c.Request.Service.LogString())
	}
	return err
}

// answerSelf has a built-in service answer what a service would be asked.
func (g *Gateway) answerSelf(ctx context.Context, t *target, asked *http1.Request, body io.ReadCloser) (*http.Response, error) {
	out := &http.Request{
		Method: asked.Method, URL: &url.URL{Path: "/"}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, ContentLength: asked.Length,
	}
	for name, value := range asked.Fields {
		out.Header[name] = append(out.Header[name], value)
	}
	if body != nil {
		out.Body = body
		defer body.Close()
	}
	if req := t.call.Request; req.SOAP == nil {
		u, err := url.ParseRequestURI(req.Head.Target)
		if err != nil {
			return nil, fault.Wrap(fault.InternalError, err, "Malformed request: %v", err)
		}
		out.URL = u
	}
	a := &builtinAnswer{header: http.Header{}, body: g.spool.New()}
	a.body.MarkPresent() // X-Road's metadata services always send a body
	err := t.builtin.Serve(a, out.WithContext(ctx), t.call)
	var content io.ReadCloser
	if err == nil {
		content, err = a.body.Open()
	}
	if err != nil {
		a.body.Close()
		if asFault(err) == nil {
			err = fault.Wrap(fault.InternalError, err, "Service %s gave no answer", t.call.Request.Service.LogString())
		}
		return nil, err
	}
	a.WriteHeader(http.StatusOK)
	return &http.Response{
		Status:     strconv.Itoa(a.status) + " " + http.StatusText(a.status),
		StatusCode: a.status, Header: a.header, Request: out,
		Body: &builtinBody{content, a.body}, ContentLength: a.body.Size(),
	}, nil
}

// builtinAnswer spools the answer of a built-in service.
type builtinAnswer struct {
	header http.Header
	status int
	body   *message.Body
}

func (a *builtinAnswer) Header() http.Header { return a.header }

func (a *builtinAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *builtinAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// builtinBody frees the spooled answer when it is closed.
type builtinBody struct {
	io.ReadCloser
	spooled *message.Body
}

func (b *builtinBody) Close() error {
	err := b.ReadCloser.Close()
	if e := b.spooled.Close(); err == nil {
		err = e
	}
	return err
}
