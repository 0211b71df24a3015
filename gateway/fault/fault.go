// SPDX-License-Identifier: Apache-2.0

// Package fault holds the faults that a gateway shows to its clients and
// peers: their codes, origins, public texts and remedies, and the three forms
// in which they travel, JSON and XML for REST clients and SOAP for SOAP
// clients and between security servers.
//
// A fault gets its code where the trouble is found, with [New] or [Wrap]. Its
// text is public; the error it wraps is for the log only. [At] adds the
// origin, once, at the edge of the gateway. A peer's fault, from [ParseSOAP] or
// [Remote], is never changed.
//
// Source: X-Road Message Protocol for REST, section 4.7, Message Protocol,
// section 2.6, and the codes that X-Road 7.8 servers send.
package fault

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Origin is the hop that reports a fault; it is the first part of the code.
type Origin string

// The origins.
const (
	Client      Origin = "client"             // the client's mistake, found by its own security server
	ClientProxy Origin = "server.clientproxy" // the consumer's security server
	ServerProxy Origin = "server.serverproxy" // the provider's security server
)

func (o Origin) hop() string {
	switch o {
	case ServerProxy:
		return "the provider's security server"
	case Client, ClientProxy:
		return "the consumer's security server"
	}
	return ""
}

// unclassified is the text of errors nobody gave a code to: theirs may hold
// secrets, so it stays in the log.
const unclassified = "Internal error"

// In returns the code behind an infix, as in service_failed.invalid_soap.
func (c Code) In(infix Code) Code {
	return infix + "." + c
}

// Error is a fault. It is immutable and so safe for concurrent use.
type Error struct {
	code   string
	text   string
	detail string
	actor  string
	origin Origin
	remote bool
	raw    []byte // the SOAP document as the peer sent it
	cause  error
}

// New returns a fault without an origin. The text is public: say what is wrong
// in the reader's terms.
func New(code Code, format string, args ...any) *Error {
	return &Error{code: string(code), text: fmt.Sprintf(format, args...)}
}

// Wrap returns a fault whose cause is for the log only. If cause already holds
// a fault, that one's code and text are kept, for it was found nearer to the
// trouble, and the text given here only joins the cause.
func Wrap(code Code, cause error, format string, args ...any) *Error {
	text := fmt.Sprintf(format, args...)
	if inner := find(cause); inner != nil {
		e := *inner
		e.cause = fmt.Errorf("%s: %w", text, cause)
		return &e
	}
	return &Error{code: string(code), text: text, cause: cause}
}

// Remote returns a fault that a peer or service reported. The code becomes an
// HTTP header, so characters other than printable ASCII are dropped from it.
func Remote(code, text, detail string) *Error {
	code = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7E {
			return -1
		}
		return r
	}, code))
	return &Error{code: code, text: text, detail: detail, remote: true}
}

// At returns err as a fault of origin o with a fresh detail, an identifier
// that is shown to the client and written to the log. A fault that has an
// origin or is a peer's is returned unchanged; anything but a fault becomes
// internal_error with a fixed text. At(o, nil) is nil.
func At(o Origin, err error) *Error {
	if err == nil {
		return nil
	}
	inner := find(err)
	if inner == nil {
		inner = &Error{code: string(InternalError), text: unclassified}
	} else if inner.remote || inner.origin != "" {
		return inner
	}
	e := *inner
	e.origin = o
	if !strings.HasPrefix(e.code, string(o)+".") {
		e.code = string(o) + "." + e.code
	}
	if e.detail == "" {
		e.detail = newDetail()
	}
	if err != error(inner) {
		e.cause = err
	}
	return &e
}

func find(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// newDetail returns a random UUID (RFC 9562, version 4).
func newDetail() string {
	var u [16]byte
	rand.Read(u[:]) // never fails
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Code returns the full code, such as "server.serverproxy.access_denied". A
// peer's code is returned as it came.
func (e *Error) Code() string { return e.code }

// Text returns the public text as it was given to New or Wrap, or as the peer
// sent it.
func (e *Error) Text() string { return e.text }

// Detail returns the identifier that also stands in the log of the server that
// reported the fault; "" before [At].
func (e *Error) Detail() string { return e.detail }

// Origin returns the hop that At named, or "" for a peer's fault.
func (e *Error) Origin() Origin { return e.origin }

// IsRemote reports whether a peer or service sent the fault.
func (e *Error) IsRemote() bool { return e.remote }

// Remedy says what to do next, and who, in half a sentence; "" if the code is
// unknown.
func (e *Error) Remedy() string {
	for code := Normalise(e.code); ; {
		if x, ok := byCode[code]; ok {
			return x.Remedy
		}
		_, rest, found := strings.Cut(code, ".")
		if !found {
			return ""
		}
		code = rest
	}
}

// Message returns what clients read: the text, the hop and the remedy. A
// peer's text is left alone: its own hop and remedy are in it, or unknown.
func (e *Error) Message() string {
	hop, remedy := e.origin.hop(), e.Remedy()
	if e.remote || hop == "" {
		return e.text
	}
	m := strings.TrimRight(e.text, ". ") + ". Reported by " + hop + "."
	if remedy != "" {
		m += " Remedy: " + remedy + "."
	}
	return m
}

// Error returns code, text, detail and cause, for the log.
func (e *Error) Error() string {
	s := e.code + ": " + e.text
	if e.detail != "" {
		s += " [" + e.detail + "]"
	}
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap returns the cause, which is not public.
func (e *Error) Unwrap() error { return e.cause }

// HTTPStatus returns the status of the answer to a REST client of a gateway
// whose own codes have a style: 500 for codes that start with "server.", else
// 400. "Server.", as servers before X-Road 7.8 write it, is 500 in their style
// only; with X-Road 7.8 it is 400.
func (e *Error) HTTPStatus(s Style) int {
	code := e.code
	if s == CamelCase {
		code = strings.ToLower(code)
	}
	if strings.HasPrefix(code, "server.") {
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}
