// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"kontor/gateway/fault"
	"kontor/gateway/http1"
	"kontor/gateway/message"
	"kontor/gateway/serverconf"
	"kontor/gateway/tracing"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// authorise finds the service and the right to call it.
func (g *Gateway) authorise(view *globalconf.View, req *message.Request, peer id.SecurityServer) (*target, error) {
	conf := g.conf.Conf()
	own := g.builtins.of(req, g.server.Owner())
	owner, ok := conf.Client(req.Service.Owner())
	if own != nil && own.OwnerOnly {
		ok = true // the server's owner need not be its client
	} else if ok {
		ok = owner.Registered()
	}
	if !ok {
		return nil, fault.New(fault.UnknownMember.In(fault.ServiceFailed), "Client '%s' not found", req.Service.Owner().LogString())
	}
	if own != nil {
		call := &Call{View: view, Conf: conf, Server: g.server, Peer: peer, Request: req, gateway: g}
		return &target{builtin: own, call: call}, own.authorise(call)
	}
	service, ok := conf.Service(req.Service)
	if !ok {
		return nil, fault.New(fault.UnknownService, "Unknown service: %s", req.Service.LogString())
	}
	switch soap := service.Type == serverconf.WSDL; {
	case soap && req.SOAP == nil:
		return nil, fault.New(fault.ServiceType, "Service is a SOAP service and cannot be called using REST interface")
	case !soap && req.SOAP != nil:
		return nil, fault.New(fault.ServiceType, "Service is a REST service and cannot be called using SOAP interface")
	}
	// Of SOAP method and path are empty: only a right to the whole service counts.
	err := conf.Authorise(req.Client, service, req.Head.Method, req.ServicePath, view.InGlobalGroup)
	for i := 0; err == nil && i < len(req.Head.Fields); i++ {
		if f := req.Head.Fields[i]; overridesMethod(f.Name) {
			err = conf.Authorise(req.Client, service, strings.TrimSpace(f.Value), req.ServicePath, view.InGlobalGroup)
		}
	}
	if errors.Is(err, serverconf.ErrPath) {
		return nil, fault.Wrap(fault.AccessDenied, err, "Request is not allowed: %s: the path may be understood in two ways: %v", req.Service.LogString(), err)
	} else if err != nil {
		return nil, fault.Wrap(fault.AccessDenied, err, "Request is not allowed: %s", req.Service.LogString())
	}
	if service.DisabledNotice != nil {
		return nil, fault.New(fault.ServiceDisabled, "Service %s is disabled: %s", req.Service.LogString(), *service.DisabledNotice)
	}
	return &target{service: service}, nil
}

// overridesMethod tells whether web frameworks take the method from that header
// rather than from the request: then the right to that method is needed, too.
// Interfaces in the tradition of CGI do not tell an underscore from a hyphen.
func overridesMethod(header string) bool {
	header = strings.ReplaceAll(header, "_", "-")
	return strings.EqualFold(header, "X-HTTP-Method-Override") || strings.EqualFold(header, "X-HTTP-Method") || strings.EqualFold(header, "X-Method-Override")
}

// call asks the service. The request is the one that was authorised, byte for
// byte, and redirects are answers like any other. from is the transport header
// of the peer, hop the span of the call.
func (g *Gateway) call(ctx context.Context, hop *tracing.Span, t *target, req *message.Request, from http.Header, content message.Content) (_ *http.Response, err error) {
	s, out := t.service, &http1.Request{}
	var address *url.URL
	if s != nil {
		if address, err = serviceURL(s.URL, req); err != nil {
			return nil, err
		}
		out.Target = address.RequestURI()
	}
	var body io.ReadCloser // nil: none
	if req.SOAP != nil {
		body, err = soapCall(out, req, from, content)
	} else {
		body, err = restCall(out, req, content.Body())
	}
	if err != nil {
		return nil, err
	}
	if body != nil {
		out.Body = body
	}
	if s == nil {
		return g.answerSelf(ctx, t, out, body)
	}
	if hop != nil && !signedTrace(req) {
		out.Fields = withTrace(out.Fields, hop)
	}
	ctx, patience := newPatience(ctx)
	patience.wait(s.Timeout)
	resp, err := g.services.of(g, s).Do(ctx, address, out)
	if err != nil {
		defer patience.end()
		if body != nil {
			body.Close()
		}
		return nil, serviceFault(s, context.Cause(ctx), err)
	}
	resp.Body = &serviceAnswer{patientBody{resp.Body, patience, s.Timeout}, body}
	return resp, nil
}

// restCall makes a call of a REST service from a head and a body. It returns what
// must be closed after the call, nil if there is no body.
func restCall(out *http1.Request, req *message.Request, body *message.Body) (io.ReadCloser, error) {
	out.Method = req.Head.Method
	out.Fields = func(yield func(name, value string) bool) {
		for _, f := range req.Head.Fields {
			if !yield(f.Name, f.Value) {
				return
			}
		}
	}
	if !body.Present() {
		return nil, nil
	}
	opened, err := body.Open()
	if err != nil {
		return nil, bodyFault(err)
	}
	out.Length = body.Size()
	return opened, nil
}

// serviceAnswer is the body of a service's answer; closing it ends the call.
type serviceAnswer struct {
	patientBody
	request io.Closer // its body; nil: none
}

// Close implements io.Closer.
func (a *serviceAnswer) Close() error {
	err := a.patientBody.Close() // from now on, nobody reads the request's body
	if a.request != nil {
		err = errors.Join(err, a.request.Close())
	}
	return err
}

// serviceURL joins the service's URL and the path and query of the request,
// which must come out of it as they went in.
func serviceURL(base string, req *message.Request) (*url.URL, error) {
	if base == "" {
		return nil, fault.New(fault.ServiceMissingURL, "Service address not specified for '%s'", req.Service.LogString())
	}
	target := req.ServiceTarget()
	if strings.HasSuffix(base, "/") {
		target = strings.TrimPrefix(target, "/")
	}
	u, err := url.Parse(base + target)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, fault.Wrap(fault.ServiceMalformedURL, err, "The address of service '%s' is not a plain http or https URL", req.Service.LogString())
	}
	if !strings.HasSuffix(u.RequestURI(), target) {
		return nil, fault.New(fault.ServiceMalformedURL, "The request path cannot be forwarded unchanged")
	}
	return u, nil
}

// serviceFault chooses the code for a service that gave no answer. X-Road puts
// service_failed before the codes of SOAP services.
func serviceFault(s *serverconf.Service, cause, err error) error {
	in := func(c fault.Code) fault.Code { return c }
	if s.Type == serverconf.WSDL {
		in = func(c fault.Code) fault.Code { return c.In(fault.ServiceFailed) }
	}
	return connectFault("Service "+s.ID.LogString(), in, s.Timeout, cause, err)
}

// connectFault chooses the code for a server of the provider, named by who,
// that gave no answer. The public text names no internal address.
func connectFault(who string, in func(fault.Code) fault.Code, timeout time.Duration, cause, err error) error {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case cause == errSilence:
		return fault.Wrap(in(fault.IOError), errors.Join(cause, err), "%s did not answer within %s", who, timeout)
	case errors.As(err, &dns):
		return fault.Wrap(in(fault.UnknownHost), err, "%s is at a host that is not known", who)
	case errors.Is(err, serverconf.ErrServiceCertificate):
		return fault.Wrap(in(fault.SSLAuthenticationFailed), err, "%s presented a TLS certificate that its provider has not registered", who)
	case errors.As(err, &op) && op.Op == "dial":
		return fault.Wrap(in(fault.NetworkError), err, "%s did not accept the connection", who)
	}
	return fault.Wrap(in(fault.IOError), err, "%s gave no proper answer", who)
}

// serviceClients keeps connections to services: one pool per owner, as its
// certificates decide whom to trust.
type serviceClients struct {
	mu    sync.Mutex
	pools map[servicePool]*http1.Client
}

type servicePool struct {
	owner  id.Client
	verify bool
}

func (c *serviceClients) of(g *Gateway, s *serverconf.Service) *http1.Client {
	key := servicePool{s.ID.Owner(), s.VerifyTLS}
	c.mu.Lock()
	defer c.mu.Unlock()
	if client := c.pools[key]; client != nil {
		return client
	}
	if c.pools == nil {
		c.pools = map[servicePool]*http1.Client{}
	}
	client := http1.NewClient(http1.ClientConfig{TLS: g.conf.ServiceTLS(key.owner, key.verify)})
	c.pools[key] = client
	return client
}

// close closes the connections that nobody uses.
func (c *serviceClients) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.pools {
		client.Close()
	}
}
