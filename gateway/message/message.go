// SPDX-License-Identifier: Apache-2.0

// Package message holds the messages of X-Road's REST and SOAP protocols: their
// heads and bodies, the hash that ties an answer to its request, and the
// multipart forms in which they travel, between security servers and, for SOAP,
// to and from information systems.
//
// A head, of REST, and an envelope, of SOAP, are kept as the bytes that are
// hashed, signed, logged and forwarded ([Request.Raw], [Response.Raw]); their
// fields are a view of them. A body or an attachment exists once, in a [Body],
// in memory or in one spool file. Bodies stream: the sender writes to an
// [Encoder] and a Body at the same time, the receiver copies from a [Decoder]
// into a Body.
//
// Everything read here comes from strangers: sizes are bounded and syntax is
// strict. The texts of errors name fields but never quote their values, which
// may be secret; identifiers are the exception.
//
// Sources: X-Road Message Protocol for REST, Message Protocol v4.0, Message
// Transport Protocol, and the behaviour of X-Road 7.8 servers.
package message

import "errors"

// Errors of this package. Others than these come from the reader or writer
// underneath.
var (
	// ErrMissingClient: the request does not say who sends it.
	ErrMissingClient = errors.New("header X-Road-Client is missing")
	// ErrMethod: the method is none of those that X-Road carries.
	ErrMethod = errors.New("HTTP method not allowed")
	// ErrTarget: the path or query is not what X-Road peers accept.
	ErrTarget = errors.New("malformed request target")
	// ErrIdentifier: an identifier in the path or a header is malformed.
	ErrIdentifier = errors.New("malformed identifier")
	// ErrHeader: a header field is missing, forbidden or has illegal characters.
	ErrHeader = errors.New("illegal header field")
	// ErrHead: a message head is not in the form of the protocol.
	ErrHead = errors.New("malformed message head")
	// ErrInconsistent: the answer belongs to another request.
	ErrInconsistent = errors.New("the answer does not belong to the request")

	// ErrTooLarge: a head, part or body exceeds its limit.
	ErrTooLarge = errors.New("message too large")
	// ErrNoSpace: the disk of the spool is full or nearly so.
	ErrNoSpace = errors.New("no space left for message bodies")
	// ErrSealed: a body was written to after it had been read, or closed.
	ErrSealed = errors.New("message body is sealed")

	// ErrMalformed: the bytes are not a multipart message, or it was cut off.
	ErrMalformed = errors.New("malformed multipart message")
	// ErrContentType: the type of the message or of a part is missing or unknown.
	ErrContentType = errors.New("unexpected content type")
	// ErrUnexpectedPart: a part of a known type stands in the wrong place.
	ErrUnexpectedPart = errors.New("unexpected message part")
	// ErrMissingHead: the message ended before its REST or SOAP part.
	ErrMissingHead = errors.New("message part missing")
	// ErrMissingSignature: the message ended before its signature.
	ErrMissingSignature = errors.New("signature missing")
	// ErrAfterSignature: something follows the signature or fault.
	ErrAfterSignature = errors.New("content after the signature")

	// ErrXML: the XML is not well formed, or has what SOAP 1.1 forbids.
	ErrXML = errors.New("malformed XML")
	// ErrSOAP: the XML is not a SOAP 1.1 envelope.
	ErrSOAP = errors.New("not a SOAP envelope")
	// ErrFault: the envelope holds a SOAP fault.
	ErrFault = errors.New("the message is a SOAP fault")
	// ErrMissingHeader: the envelope has no header.
	ErrMissingHeader = errors.New("SOAP header missing")
	// ErrMissingHeaderField: a mandatory field of the SOAP header is missing.
	ErrMissingHeaderField = errors.New("SOAP header field missing")
	// ErrDuplicateHeader: a field of the SOAP header, or a part of an
	// identifier in it, occurs twice.
	ErrDuplicateHeader = errors.New("duplicate SOAP header field")
	// ErrProtocolVersion: the protocol version of the message is not 4.
	ErrProtocolVersion = errors.New("protocol version must be 4.0")
	// ErrMissingBody: the envelope has no body.
	ErrMissingBody = errors.New("SOAP body missing")
	// ErrBody: the SOAP body has not exactly one element.
	ErrBody = errors.New("SOAP body must have exactly one element")
	// ErrInconsistentHeaders: the SOAP body does not belong to the service that
	// the header names, or the header of the answer differs from the request's.
	ErrInconsistentHeaders = errors.New("inconsistent SOAP headers")
	// ErrSOAPAction: the SOAPAction header is not a quoted URI.
	ErrSOAPAction = errors.New("malformed SOAPAction header")

	// ErrOrder: an Encoder was asked to write parts out of order.
	ErrOrder = errors.New("message parts written out of order")
)
