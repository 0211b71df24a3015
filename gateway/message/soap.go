// SPDX-License-Identifier: Apache-2.0

package message

import (
	"errors"
	"fmt"
	"net/url"
)

// SOAP is what a SOAP message has beside the bytes of its envelope.
type SOAP struct {
	Envelope    *Envelope
	ContentType string  // of the part that the envelope is or was
	Fields      []Field // other header fields of that part
}

// ReadRequestPart reads the head of a request of either protocol. p is the part
// that a Decoder gave, raw its whole content, which is kept and must not be
// changed. requestID is the x-road-request-id of the transport, or a fresh one
// if the part comes from a client; it must not be empty.
//
// Errors are those of ReadRequest or ReadEnvelope, or wrap ErrFault.
func ReadRequestPart(p Part, raw []byte, requestID string) (*Request, error) {
	if p.Kind == RESTRequest {
		return ReadRequest(raw, requestID)
	}
	if requestID == "" {
		return nil, fmt.Errorf("%w: no %s", ErrHeader, HeaderRequestID)
	}
	s, err := readSOAP(p, raw)
	if err != nil {
		return nil, err
	}
	e := s.Envelope
	return &Request{
		SOAP: s, Raw: raw, Client: e.Client, Service: e.Service, Server: e.Server, RepresentedParty: e.RepresentedParty,
		ID: e.ID, RequestID: requestID, UserID: e.UserID, Issue: e.Issue,
	}, nil
}

// ReadResponsePart reads the head of a response of either protocol, as a peer
// sent it. p is the part that a Decoder gave, raw its whole content, which is
// kept and must not be changed.
//
// Errors are those of ReadResponse or ReadEnvelope, or wrap ErrFault: raw is
// then a fault.
func ReadResponsePart(p Part, raw []byte) (*Response, error) {
	if p.Kind == RESTResponse {
		return ReadResponse(raw)
	}
	s, err := readSOAP(p, raw)
	if err != nil {
		return nil, err
	}
	return newSOAPResponse(s, raw), nil
}

// NewSOAPResponse makes the response to req of what the service sent: its
// envelope with the hash of the request. p is the part that a Decoder of
// NewSOAPDecoder gave, raw its whole content.
//
// Errors are those of ReadEnvelope, or wrap ErrInconsistentHeaders or ErrFault:
// raw is then the service's fault.
func NewSOAPResponse(req *Request, requestHash string, p Part, raw []byte) (*Response, error) {
	s, err := readSOAP(p, raw)
	if err != nil {
		return nil, err
	}
	if err := s.Envelope.consistent(req.SOAP.Envelope); err != nil {
		return nil, err
	}
	if s.Envelope, err = s.Envelope.answering(requestHash); err != nil {
		return nil, err
	}
	return newSOAPResponse(s, s.Envelope.raw), nil
}

func readSOAP(p Part, raw []byte) (*SOAP, error) {
	e, err := ReadEnvelope(raw)
	if err != nil {
		return nil, err
	}
	if e.Fault {
		return nil, ErrFault
	}
	return &SOAP{e, p.ContentType, p.Fields}, nil
}

func newSOAPResponse(s *SOAP, raw []byte) *Response {
	e := s.Envelope
	return &Response{SOAP: s, Raw: raw, ID: e.ID, Client: e.Client, Service: e.Service, RequestHash: e.RequestHash}
}

// soapAnswers is Answers for SOAP messages.
func (r *Response) soapAnswers(req *Request, requestHash string) error {
	switch {
	case r.SOAP == nil || req.SOAP == nil:
		return fmt.Errorf("%w: it is of another protocol", ErrInconsistent)
	case r.RequestHash != requestHash:
		return fmt.Errorf("%w: requestHash is %.100q, expected %s", ErrInconsistent, r.RequestHash, requestHash)
	}
	if err := r.SOAP.Envelope.consistent(req.SOAP.Envelope); err != nil {
		return fmt.Errorf("%w: %w", ErrInconsistent, err)
	}
	return nil
}

// Hash returns the hash of the request by which an answer is tied to it. content
// is all that the request carries beside its head; only in REST it counts. It
// is sealed.
func (r *Request) Hash(content Content) string {
	if r.SOAP != nil {
		return base64Digest(r.Digest())
	}
	return requestHash(r.Digest(), content.Body())
}

// Kind returns RESTRequest or SOAPRequest.
func (r *Request) Kind() Kind {
	if r.SOAP != nil {
		return SOAPRequest
	}
	return RESTRequest
}

// AnswerKind returns RESTResponse or SOAPResponse.
func (r *Request) AnswerKind() Kind {
	if r.SOAP != nil {
		return SOAPResponse
	}
	return RESTResponse
}

// CheckSOAPAction returns the value of a SOAPAction header, given all that the
// request has: there may be none, or one that is empty, a pair of quotes, or a
// URI in quotes. Errors wrap ErrSOAPAction.
func CheckSOAPAction(values []string) (string, error) {
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", fmt.Errorf("%w: more than one", ErrSOAPAction)
	}
	action := values[0]
	if action == "" || action == `""` {
		return action, nil
	}
	end := len(action) - 1
	if end < 2 || action[0] != '"' || action[end] != '"' || end > MaxTarget {
		return "", fmt.Errorf("%w: it must be a URI in quotes", ErrSOAPAction)
	}
	uri := action[1:end]
	if err := checkURI("SOAPAction", uri, uriChar); err != nil {
		return "", fmt.Errorf("%w: it must be a URI in quotes: %w", ErrSOAPAction, err)
	}
	if _, err := url.Parse(uri); err != nil {
		return "", fmt.Errorf("%w: it must be a URI in quotes", ErrSOAPAction)
	}
	return action, nil
}

// Attachment is a REST body or a SOAP attachment: what a message carries beside
// its head.
type Attachment struct {
	ContentType string  // of SOAP only
	Fields      []Field // other header fields of its part; of SOAP only
	Body        *Body
}

// Content is all that a message carries beside its head: the attachments of a
// SOAP message in their order, or the body of a REST message, if it has one.
type Content []Attachment

// NewAttachment returns an attachment for the content of a part, RESTBody or
// SOAPAttachment, which is to be written to its Body. It exists even if nothing
// is.
func (s *Spool) NewAttachment(p Part) Attachment {
	b := s.New()
	b.MarkPresent()
	return Attachment{p.ContentType, p.Fields, b}
}

// StartPart starts the part that p is for another reader: a REST body or a SOAP
// attachment, whose content is then written to BodyWriter.
func (e *Encoder) StartPart(p Part) error {
	if p.Kind == RESTBody {
		return e.StartBody()
	}
	return e.StartAttachment(p.ContentType, p.Fields)
}

// Body returns the body of a REST message; nil if there is none.
func (c Content) Body() *Body {
	if len(c) == 0 {
		return nil
	}
	return c[0].Body
}

// Digests seals the content and returns its SHA-512 digests.
func (c Content) Digests() [][64]byte {
	if len(c) == 0 {
		return nil
	}
	digests := make([][64]byte, len(c))
	for i, a := range c {
		digests[i] = a.Body.Digest()
	}
	return digests
}

// Size returns how many bytes the content has.
func (c Content) Size() (n int64) {
	for _, a := range c {
		n += a.Body.Size()
	}
	return n
}

// Close closes all bodies.
func (c Content) Close() error {
	var errs []error
	for _, a := range c {
		errs = append(errs, a.Body.Close())
	}
	return errors.Join(errs...)
}
