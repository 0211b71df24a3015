// SPDX-License-Identifier: Apache-2.0

package message

import (
	"crypto/rand"
	"fmt"
	"io"
	"strings"
)

// Kind is what a part of a transport message holds.
type Kind uint8

// The kinds of parts, in the order in which they occur.
const (
	OCSP            Kind = iota + 1 // OCSP response for a certificate of the sender's TLS chain
	RESTRequest                     // head of a REST request
	RESTResponse                    // head of a REST response
	SOAPRequest                     // SOAP request envelope
	SOAPResponse                    // SOAP response envelope
	RESTBody                        // body of a REST message
	SOAPAttachment                  // one attachment of a SOAP message
	HashChainResult                 // result that a batch signature signs
	HashChain                       // chain from this message to that result
	Signature                       // XAdES signature: the last part
	Fault                           // SOAP fault in place of what is missing: the last part
)

var kindNames = [...]string{
	OCSP: "OCSP response", RESTRequest: "REST request", RESTResponse: "REST response",
	SOAPRequest: "SOAP request", SOAPResponse: "SOAP response", RESTBody: "REST body",
	SOAPAttachment: "SOAP attachment", HashChainResult: "hash chain result", HashChain: "hash chain",
	Signature: "signature", Fault: "fault",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Content types of the parts.
const (
	typeOCSP            = "application/ocsp-response"
	typeRESTRequest     = "application/x-road-rest-request"
	typeRESTResponse    = "application/x-road-rest-response"
	typeRESTBody        = "application/x-road-rest-body"
	typeHashChainResult = "application/hash-chain-result"
	typeHashChain       = "application/hash-chain"
	typeSignature       = "signature/bdoc-1.0/ts"
	typeTextXML         = "text/xml"
	typeXOP             = "application/xop+xml"
	typeMixed           = "multipart/mixed"
	typeRelated         = "multipart/related"
	typeFault           = "text/xml; charset=UTF-8"
)

// Encoder writes a transport message (X-Road Message Transport Protocol),
// byte for byte as Java security servers do.
//
// Parts must come in their order; the first error, of the writer or of order,
// is repeated by all later calls, so checking that of Close is enough. Small
// parts are gathered and written together: call Flush to have the peer see
// what is ready. An Encoder is for one goroutine.
type Encoder struct {
	w        io.Writer
	boundary string
	buf      *[]byte
	hold     int  // how many bytes may wait
	begun    bool // something was written
	state    Kind // last part written
	body     bool // a body part or attachment is open
	nested   bool // the multipart of the attachments is open
	err      error
}

const (
	// gather is how many bytes wait before they are written: all of a small
	// message.
	gather = mediumBuffer - headerRoom
	// headerRoom is kept in the buffer above them for headers of parts.
	headerRoom = 1 << 10
)

// NewEncoder returns an encoder with a boundary that nobody can guess, so that
// no body can contain it.
func NewEncoder(w io.Writer) *Encoder {
	return &Encoder{w: w, boundary: newBoundary(), buf: getBuffer(mediumBuffer), hold: gather}
}

// Hold has the encoder gather up to n bytes, if that is more than it does by
// itself: a message that fits is written at once by Close. Call it before the
// first part.
func (e *Encoder) Hold(n int) { e.hold = max(n, gather) }

// Whole returns the size in bytes of the whole message, if all of it will be
// written by Close, which must be the next call.
func (e *Encoder) Whole() (size int, ok bool) {
	if e.err != nil || e.buf == nil || e.begun || e.state < Signature {
		return 0, false
	}
	return len(*e.buf) + len("\r\n--") + len(e.boundary) + len("--\r\n"), true
}

// newBoundary returns "xtop" and 30 random ASCII letters.
func newBoundary() string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	b := make([]byte, 4, 34)
	copy(b, "xtop")
	var random [64]byte
	for len(b) < cap(b) {
		rand.Read(random[:]) // never fails
		for _, r := range random {
			if r &= 63; int(r) < len(letters) && len(b) < cap(b) {
				b = append(b, letters[r])
			}
		}
	}
	return string(b)
}

// ContentType returns the content type of the whole message.
func (e *Encoder) ContentType() string {
	return "multipart/mixed; charset=UTF-8; boundary=" + e.boundary
}

// OCSP writes the OCSP response for one certificate of the TLS chain, leaf
// first. Only requests have them.
func (e *Encoder) OCSP(der []byte) error {
	return e.part(OCSP, typeOCSP, der, e.state == 0 || e.state == OCSP)
}

// Head writes a serialised head; kind is RESTRequest or RESTResponse.
func (e *Encoder) Head(kind Kind, raw []byte) error {
	switch kind {
	case RESTRequest:
		return e.part(kind, typeRESTRequest, raw, e.state == 0 || e.state == OCSP)
	case RESTResponse:
		return e.part(kind, typeRESTResponse, raw, e.state == 0)
	}
	return e.part(kind, "", nil, false)
}

// Request writes the head of a request of either protocol.
func (e *Encoder) Request(r *Request) error {
	if r.SOAP == nil {
		return e.Head(RESTRequest, r.Raw)
	}
	return e.envelope(SOAPRequest, r.SOAP, r.Raw, e.state == 0 || e.state == OCSP)
}

// Response writes the head of a response of either protocol.
func (e *Encoder) Response(r *Response) error {
	if r.SOAP == nil {
		return e.Head(RESTResponse, r.Raw)
	}
	return e.envelope(SOAPResponse, r.SOAP, r.Raw, e.state == 0)
}

func (e *Encoder) envelope(kind Kind, s *SOAP, raw []byte, inOrder bool) error {
	e.body = false
	if err := e.header(kind, s.ContentType, inOrder, s.Fields...); err != nil {
		return err
	}
	return e.write(raw)
}

// StartAttachment starts an attachment of a SOAP message, whose content is then
// written to BodyWriter. Attachments are parts of a multipart of their own,
// which starts with the first and ends with the next part of another kind.
func (e *Encoder) StartAttachment(contentType string, fields []Field) error {
	inOrder := e.state == SOAPRequest || e.state == SOAPResponse || e.nested
	if e.err == nil && inOrder && !e.nested {
		boundary := e.attachmentBoundary()
		if err := e.header(SOAPAttachment, typeMixed+"; charset=UTF-8; boundary="+boundary, true); err != nil {
			return err
		}
		e.nested = true
	}
	if err := e.header(SOAPAttachment, contentType, inOrder, fields...); err != nil {
		return err
	}
	e.body = true
	return nil
}

// attachmentBoundary returns the boundary of the attachments, which shares its
// random letters with the outer one, as in Java.
func (e *Encoder) attachmentBoundary() string {
	return "xatt" + strings.TrimPrefix(e.boundary, "xtop")
}

// StartBody starts the body part of a REST message, even if nothing will be written to it.
func (e *Encoder) StartBody() error {
	if e.body {
		return e.err
	}
	if err := e.header(RESTBody, typeRESTBody, e.state == RESTRequest || e.state == RESTResponse); err != nil {
		return err
	}
	e.body = true
	return nil
}

// BodyWriter returns the writer of the body, or of the attachment that was
// started. A body part starts with the first byte: a message without any has no
// body part, unless StartBody is called.
func (e *Encoder) BodyWriter() io.Writer { return bodyWriter{e} }

type bodyWriter struct{ e *Encoder }

func (w bodyWriter) Write(p []byte) (int, error) {
	e := w.e
	if len(p) == 0 {
		return 0, e.err
	}
	if err := e.StartBody(); err != nil {
		return 0, err
	}
	if err := e.write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// EndBody ends the body part, if there is one. So does the next part.
func (e *Encoder) EndBody() error {
	e.body = false
	return e.err
}

// HashChain writes the two parts of a batch signature.
func (e *Encoder) HashChain(result, chain []byte) error {
	if err := e.part(HashChainResult, typeHashChainResult, result,
		e.state >= RESTRequest && e.state <= SOAPAttachment); err != nil {
		return err
	}
	return e.part(HashChain, typeHashChain, chain, true)
}

// Signature writes the signature document. It is sent at the latest by Close.
func (e *Encoder) Signature(xml []byte) error {
	return e.part(Signature, typeSignature, xml,
		e.state >= RESTRequest && e.state <= HashChain && e.state != HashChainResult)
}

// Fault writes a SOAP fault in the place of what cannot follow any more; a body
// under way ends where it is.
func (e *Encoder) Fault(soap []byte) error {
	return e.part(Fault, typeFault, soap, e.state < Signature)
}

// Flush writes out what has been gathered.
func (e *Encoder) Flush() error {
	if e.err == nil && e.buf != nil && len(*e.buf) > 0 {
		e.begun = true
		if _, e.err = e.w.Write(*e.buf); e.err == nil {
			*e.buf = (*e.buf)[:0]
		}
	}
	return e.err
}

// Close ends the message, which must have a signature or a fault, and flushes
// it. It does not close the writer underneath.
func (e *Encoder) Close() error {
	if e.buf == nil {
		return e.err
	}
	if e.err == nil && e.state < Signature {
		e.err = fmt.Errorf("%w: message closed after %v", ErrOrder, e.state)
	}
	if e.err == nil {
		e.append("\r\n--", e.boundary, "--\r\n")
		e.Flush()
	}
	putBuffer(e.buf)
	e.buf = nil
	return e.err
}

// part writes a whole part.
func (e *Encoder) part(kind Kind, contentType string, content []byte, inOrder bool) error {
	e.body = false
	if err := e.header(kind, contentType, inOrder); err != nil {
		return err
	}
	return e.write(content)
}

func (e *Encoder) header(kind Kind, contentType string, inOrder bool, fields ...Field) error {
	if e.err == nil && (!inOrder || e.buf == nil) {
		e.err = fmt.Errorf("%w: %v after %v", ErrOrder, kind, e.state)
	}
	if e.err == nil {
		e.err = checkPartHeader(contentType, fields)
	}
	if e.err != nil {
		return e.err
	}
	boundary := e.boundary
	if e.nested {
		boundary = e.attachmentBoundary()
		if kind != SOAPAttachment {
			e.append("\r\n--", boundary, "--\r\n")
			e.nested, boundary = false, e.boundary
		}
	}
	if e.state != 0 {
		e.append("\r\n")
	}
	e.append("--", boundary, "\r\ncontent-type: ", contentType, "\r\n")
	for _, f := range fields {
		e.append(f.Name, ": ", f.Value, "\r\n")
	}
	e.append("\r\n")
	e.state = kind
	return nil
}

// checkPartHeader refuses what would break out of the header of a part.
func checkPartHeader(contentType string, fields []Field) error {
	if !validValue(contentType) {
		return fmt.Errorf("%w: control character in a content type", ErrHeader)
	}
	for _, f := range fields {
		if err := checkName(f.Name); err != nil {
			return err
		}
		if !validValue(f.Value) {
			return fmt.Errorf("%w: control character in the value of %s", ErrHeader, f.Name)
		}
	}
	return nil
}

func (e *Encoder) append(parts ...string) {
	for _, s := range parts {
		*e.buf = append(*e.buf, s...)
	}
}

// write gathers small content and passes large content on.
func (e *Encoder) write(p []byte) error {
	if e.err != nil {
		return e.err
	}
	if e.buf == nil {
		e.err = fmt.Errorf("%w: write after Close", ErrOrder)
		return e.err
	}
	if n := len(*e.buf) + len(p); n <= e.hold {
		if n > cap(*e.buf)-headerRoom {
			larger := getBuffer(n + headerRoom)
			*larger = append(*larger, *e.buf...)
			putBuffer(e.buf)
			e.buf = larger
		}
		*e.buf = append(*e.buf, p...)
		return nil
	}
	if e.Flush(); e.err == nil {
		e.begun = true
		_, e.err = e.w.Write(p)
	}
	return e.err
}
