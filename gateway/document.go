// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"kontor/gateway/fault"
	"kontor/gateway/http1"
	"kontor/gateway/serverconf"
)

// Document is the document that describes services, as it was found.
type Document struct {
	Content []byte // at most serverconf.MaxDocument bytes
	Type    string // Content-Type of the server that it came from; may be empty
	Name    string // path of its URL, or of its file
}

// Document reads the document that describes a service: from its file, or from
// its URL over the connections of the service itself, with its rules for TLS,
// within its time-out. The service must have one. Redirects are not followed.
//
// Its errors are faults whose text names no internal address.
func (c *Call) Document(ctx context.Context, s *serverconf.Service) (*Document, error) {
	d := s.Description
	if d.File != "" {
		content, err := c.gateway.conf.Document(d)
		if err != nil {
			return nil, fault.Wrap(fault.InternalError, err, "The description of service %s cannot be read", s.ID.LogString())
		}
		return &Document{Content: content, Name: d.File}, nil
	}
	target, err := url.Parse(d.URL)
	if err != nil {
		return nil, fault.Wrap(fault.ServiceMalformedURL, err, "The address of the description of service '%s' is not a URL", s.ID.LogString())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.Timeout, errSilence)
	defer cancel()
	server := func(err error) error {
		same := func(code fault.Code) fault.Code { return code }
		return connectFault("The server of the description of "+s.ID.LogString(), same, s.Timeout, context.Cause(ctx), err)
	}
	resp, err := c.gateway.services.of(c.gateway, s).Do(ctx, target, &http1.Request{
		Method: http.MethodGet, Target: target.RequestURI(),
		Fields: func(yield func(name, value string) bool) { yield("Accept", "*/*") },
	})
	if err != nil {
		return nil, server(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fault.New(fault.InternalError, "The server of the description of %s answered with HTTP status %d", s.ID.LogString(), resp.StatusCode)
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, serverconf.MaxDocument+1))
	switch {
	case err != nil:
		return nil, server(err)
	case len(content) > serverconf.MaxDocument:
		return nil, fault.Wrap(fault.InternalError, fmt.Errorf("more than %d bytes", serverconf.MaxDocument),
			"The description of service %s is too large", s.ID.LogString())
	}
	return &Document{Content: content, Type: resp.Header.Get("Content-Type"), Name: target.Path}, nil
}
