// SPDX-License-Identifier: Apache-2.0

package message

import (
	"crypto/sha512"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"kontor/registry/id"
)

// Response is the head of a REST response, or the envelope of a SOAP response,
// with what it says.
type Response struct {
	Head ResponseHead // of REST only
	SOAP *SOAP        // of SOAP only, else nil
	Raw  []byte       // the serialised head or the envelope: what is hashed, logged and forwarded

	ID          string
	Client      id.Client
	Service     id.Service
	RequestID   string // of REST only
	RequestHash string

	digest digest
}

// Digest returns the SHA-512 of Raw, which must not change any more. It is
// computed by the first call; two must not run at once.
func (r *Response) Digest() [sha512.Size]byte { return r.digest.of(r.Raw) }

// NewResponse makes the head of the answer to req from what the service sent.
// Headers of one hop are dropped, and those that only security servers may
// set; the five that tie the answer to its request are appended. Fields come in
// the order of their names, equal names keep theirs. Values that are not UTF-8
// are taken as ISO 8859-1, HTTP's old default, and become UTF-8.
//
// Errors wrap ErrHead (status), ErrHeader or ErrTooLarge.
func NewResponse(req *Request, requestHash string, status int, reason string, h http.Header) (*Response, error) {
	if status < 200 || status > 999 {
		return nil, fmt.Errorf("%w: status %d", ErrHead, status)
	}
	names := make([]string, 0, len(h))
	count := 5
	for name, values := range h {
		if forbidden(name) || strings.EqualFold(name, HeaderID) || strings.EqualFold(name, HeaderRequestHash) ||
			strings.EqualFold(name, HeaderClient) || strings.EqualFold(name, HeaderRequestID) {
			continue
		}
		names = append(names, name)
		count += len(values)
	}
	if count > MaxFields {
		return nil, fmt.Errorf("%w: more than %d header fields", ErrTooLarge, MaxFields-5)
	}
	slices.Sort(names)

	r := &Response{
		Head:   ResponseHead{Status: status, Reason: clean(reason), Fields: make([]Field, 0, count)},
		ID:     req.ID,
		Client: req.Client, Service: req.Service,
		RequestID: req.RequestID, RequestHash: requestHash,
	}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, err
		}
		for _, value := range h[name] {
			value = toUTF8(value)
			if !validValue(value) {
				return nil, fmt.Errorf("%w: control character in the value of %s", ErrHeader, name)
			}
			r.Head.Fields = append(r.Head.Fields, Field{name, value})
		}
	}
	r.Head.Fields = append(r.Head.Fields,
		Field{HeaderID, r.ID},
		Field{HeaderClient, r.Client.String()},
		Field{HeaderService, r.Service.String()},
		Field{HeaderRequestID, r.RequestID},
		Field{HeaderRequestHash, requestHash})
	size := 3 + len(r.Head.Reason) + 4 + fieldsSize(r.Head.Fields)
	if size > MaxHead {
		return nil, fmt.Errorf("%w: head longer than %d bytes", ErrTooLarge, MaxHead)
	}
	r.Raw = r.Head.Append(make([]byte, 0, size))
	return r, nil
}

// clean returns a reason phrase that cannot break the head. Nobody relies on
// it: consumers do not pass it on.
func clean(reason string) string {
	reason = toUTF8(reason)
	if len(reason) > 256 || !validValue(reason) {
		return ""
	}
	return reason
}

func toUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	b := make([]byte, 0, 2*len(s))
	for i := 0; i < len(s); i++ {
		b = utf8.AppendRune(b, rune(s[i]))
	}
	return string(b)
}

// ReadResponse reads a head received from a peer. raw is kept and must not be
// changed.
//
// Errors wrap ErrHead, ErrHeader, ErrIdentifier or ErrTooLarge.
func ReadResponse(raw []byte) (*Response, error) {
	head, err := ParseResponseHead(raw)
	if err != nil {
		return nil, err
	}
	r := &Response{Head: *head, Raw: raw}
	for _, f := range head.Fields {
		if !isXRoad(f.Name) {
			continue
		}
		switch {
		case strings.EqualFold(f.Name, HeaderID):
			r.ID = f.Value
		case strings.EqualFold(f.Name, HeaderRequestHash):
			r.RequestHash = f.Value
		case strings.EqualFold(f.Name, HeaderRequestID):
			r.RequestID = f.Value
		case strings.EqualFold(f.Name, HeaderClient):
			r.Client, err = id.ParseClient(f.Value)
		case strings.EqualFold(f.Name, HeaderService):
			r.Service, err = id.ParseService(f.Value)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrIdentifier, f.Name, err)
		}
	}
	if r.ID == "" || r.RequestHash == "" {
		return nil, fmt.Errorf("%w: %s or %s is missing", ErrHeader, HeaderID, HeaderRequestHash)
	}
	return r, nil
}

// Answers checks that r is the answer to req, whose hash is given. Errors wrap
// ErrInconsistent and, if a field of a SOAP header differs, also
// ErrInconsistentHeaders.
func (r *Response) Answers(req *Request, requestHash string) error {
	if r.SOAP != nil || req.SOAP != nil {
		return r.soapAnswers(req, requestHash)
	}
	differs := func(what string, have, want any) error {
		return fmt.Errorf("%w: %s is %v, expected %v", ErrInconsistent, what, have, want)
	}
	switch {
	case r.Client != req.Client:
		return differs(HeaderClient, r.Client, req.Client)
	case r.ID != req.ID:
		return differs(HeaderID, r.ID, req.ID)
	case r.Service != req.Service:
		return differs(HeaderService, r.Service, req.Service)
	case r.RequestID != req.RequestID:
		return differs(HeaderRequestID, r.RequestID, req.RequestID)
	case r.RequestHash != requestHash:
		return differs(HeaderRequestHash, r.RequestHash, requestHash)
	}
	return nil
}
