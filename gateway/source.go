// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"kontor/gateway/fault"
	"kontor/gateway/message"
)

// source gives what follows the head of a message from an information system.
type source struct {
	body     io.Reader        // of REST; nil if there is none
	optional bool             // no byte means no body
	dec      *message.Decoder // of SOAP: gives the attachments

	// broken chooses the code for a message that cannot be read to its end.
	broken func(error) error
}

func (s *source) next() (message.Part, error) {
	if s.dec != nil {
		return s.dec.Next()
	}
	if s.body == nil {
		return message.Part{}, io.EOF
	}
	part := message.Part{Kind: message.RESTBody, Reader: s.body}
	s.body = nil
	return part, nil
}

func (s *source) close() {
	if s.dec != nil {
		s.dec.Close()
	}
}

// carry sends on what follows a head, hashes it and keeps it for the log. It
// adds to n what it carried. The caller closes the content.
func (g *Gateway) carry(src *source, enc *message.Encoder, n *int64) (content message.Content, err error) {
	defer func() {
		if err != nil {
			content.Close()
			content = nil
		}
	}()
	for {
		part, err := src.next()
		if err == io.EOF {
			return content, nil
		}
		if err != nil {
			return content, src.broken(err)
		}
		a := g.spool.NewAttachment(part)
		content = append(content, a)
		if !src.optional {
			_ = enc.StartPart(part) // the encoder repeats its first error
		}
		switch err := copyBody(part.Reader, a.Body, enc.BodyWriter(), n); {
		case err == nil:
		case asFault(err) != nil, errors.Is(err, errAnswered):
			return content, err
		case errors.Is(err, message.ErrTooLarge):
			return content, bodyFault(err)
		default:
			return content, src.broken(err)
		}
		if src.optional && a.Body.Size() == 0 {
			return nil, a.Body.Close()
		}
	}
}

// isREST tells REST requests by their path, as X-Road does; all others are
// SOAP.
func isREST(r *http.Request) bool { return strings.HasPrefix(r.URL.EscapedPath(), "/r1/") }

// readClient reads the head of a client's request. The caller closes the source.
func (g *Gateway) readClient(r *http.Request, in *idleBody, instance string) (*message.Request, *source, error) {
	if !isREST(r) {
		return g.readClientSOAP(r, in)
	}
	req, err := message.FromHTTP(r, instance, newUUID)
	if err != nil {
		return nil, nil, requestFault(err)
	}
	return req, &source{body: in, optional: true, broken: func(err error) error {
		return fault.Wrap(fault.IOError, err, "The request body broke off")
	}}, nil
}

// readService makes the head of the response from what a service answered. The
// caller closes the source.
func (g *Gateway) readService(req *message.Request, hash string, answer *http.Response) (*message.Response, *source, error) {
	if req.SOAP != nil {
		return g.readServiceSOAP(req, hash, answer)
	}
	resp, err := message.NewResponse(req, hash, answer.StatusCode, reason(answer), answer.Header)
	if err != nil {
		return nil, nil, fault.Wrap(fault.InvalidMessage.In(fault.ServiceFailed), err, "Service %s gave a malformed answer: %v", req.Service.LogString(), err)
	}
	src := &source{body: answer.Body, broken: func(err error) error {
		return fault.Wrap(fault.IOError, err, "The answer of the service broke off")
	}}
	if answer.Body == http.NoBody || answer.Request.Method == http.MethodHead ||
		answer.StatusCode == http.StatusNoContent || answer.StatusCode == http.StatusNotModified {
		src.body = nil
	}
	return resp, src, nil
}

// reason returns the reason phrase of a status line.
func reason(r *http.Response) string {
	_, phrase, _ := strings.Cut(r.Status, " ")
	return phrase
}
