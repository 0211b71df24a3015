// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"crypto/sha512"
	"errors"
	"io"
	"sync"

	"kontor/gateway/fault"
	"kontor/gateway/message"
	"kontor/pki/asic"
)

// A copy begins with a small buffer, as most bodies are small and all that are
// under way hold one.
const (
	smallCopy = 8 << 10
	copySize  = 64 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallCopy]byte) }}
	copyBuffers  = sync.Pool{New: func() any { return new([copySize]byte) }}
)

// received is a message taken from the tunnel, part by part.
type received struct {
	dec     *message.Decoder
	want    message.Kind // of the head
	spool   *message.Spool
	ocsp    [][]byte
	head    message.Part
	raw     []byte // content of the head
	content message.Content

	chainResult, chain, signature []byte
}

// newReceived begins to read a message. The caller closes the decoder.
func newReceived(in io.Reader, contentType string, want message.Kind, spool *message.Spool) (*received, error) {
	m := &received{want: want, spool: spool}
	var err error
	if m.dec, err = message.NewDecoder(in, contentType, want, message.Limits{Body: spool.MaxSize}); err != nil {
		return nil, m.fault(err)
	}
	return m, nil
}

// readHead reads up to and including the message head.
func (m *received) readHead() error {
	for {
		part, err := m.dec.Next()
		if err != nil {
			return m.fault(err)
		}
		content, err := part.ReadAll()
		if err != nil {
			return m.fault(err)
		}
		switch part.Kind {
		case message.OCSP:
			m.ocsp = append(m.ocsp, content)
		case message.Fault:
			return peerFault(content)
		default: // the decoder lets no other kind of head through
			m.head, m.raw = part, content
			return nil
		}
	}
}

// readRest reads body or attachments, hash chain and signature to the end of
// the message. The caller closes the content.
func (m *received) readRest(n *int64) (err error) {
	defer func() {
		if err != nil {
			m.content.Close()
			m.content = nil
		}
	}()
	for {
		part, err := m.dec.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return m.fault(err)
		}
		if part.Kind == message.RESTBody || part.Kind == message.SOAPAttachment {
			a := m.spool.NewAttachment(part) // an empty part is one, too
			m.content = append(m.content, a)
			if err := copyBody(part.Reader, a.Body, nil, n); err != nil {
				switch {
				case asFault(err) != nil:
				case errors.Is(err, message.ErrTooLarge):
					err = bodyFault(err)
				default:
					err = m.fault(err)
				}
				return err
			}
			continue
		}
		content, err := part.ReadAll()
		if err != nil {
			return m.fault(err)
		}
		switch part.Kind {
		case message.HashChainResult:
			m.chainResult = content
		case message.HashChain:
			m.chain = content
		case message.Signature:
			m.signature = content
		case message.Fault:
			return peerFault(content)
		default:
			return fault.New(fault.InvalidContentType.In(fault.ServiceFailed), "The message has a part that belongs to another kind of message: %s", part.Kind)
		}
	}
}

// copyBody reads in to its end: into body, which hashes and keeps it, and to
// next, if there is one. It adds to n what it carried. Errors of body are
// faults, those of in and next come as they are.
func copyBody(in io.Reader, body *message.Body, next io.Writer, n *int64) error {
	small := smallBuffers.Get().(*[smallCopy]byte)
	defer smallBuffers.Put(small)
	buf := small[:]
	for copied := 0; ; {
		k, err := in.Read(buf)
		if k > 0 {
			*n += int64(k)
			if _, e := body.Write(buf[:k]); e != nil {
				return bodyFault(e)
			}
			if next != nil {
				if _, e := next.Write(buf[:k]); e != nil {
					return e
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if copied += k; copied >= smallCopy && len(buf) == smallCopy {
			large := copyBuffers.Get().(*[copySize]byte)
			defer copyBuffers.Put(large)
			buf = large[:]
		}
	}
}

// evidence returns what the message proves, as received. head is the digest of
// its head.
func (m *received) evidence(head [sha512.Size]byte) *asic.Evidence {
	return &asic.Evidence{
		Message: head, Attachments: m.content.Digests(),
		Signature: m.signature, ChainResult: m.chainResult, Chain: m.chain,
	}
}

// peerFault passes on the fault that a peer sent.
func peerFault(soap []byte) error {
	f, err := fault.ParseSOAP(soap)
	if err != nil {
		return fault.Wrap(fault.InvalidMessage.In(fault.ServiceFailed), err, "The peer answered with XML that is not a fault")
	}
	return f
}

// fault chooses the code for a message that is not in the transport form.
func (m *received) fault(err error) error {
	code := fault.MIMEParsingFailed
	switch {
	case errors.Is(err, message.ErrContentType):
		code = fault.InvalidContentType
	case errors.Is(err, message.ErrMissingSignature):
		return fault.Wrap(fault.MissingSignature, err, "The message has no signature")
	case errors.Is(err, message.ErrMissingHead) && (m.want == message.SOAPRequest || m.want == message.SOAPResponse):
		return fault.Wrap(fault.MissingSOAP, err, "The message has no SOAP envelope")
	case errors.Is(err, message.ErrMissingHead):
		return fault.Wrap(fault.MissingREST, err, "The message has no REST head")
	case errors.Is(err, message.ErrAfterSignature), errors.Is(err, message.ErrUnexpectedPart):
		code = fault.InvalidMessage
	case errors.Is(err, message.ErrMalformed) && errors.Is(err, io.ErrUnexpectedEOF):
		return fault.Wrap(code.In(fault.ServiceFailed), err, "The message broke off before its end")
	case errors.Is(err, message.ErrMalformed), errors.Is(err, message.ErrTooLarge):
	default:
		return fault.Wrap(fault.IOError, err, "The message broke off")
	}
	return fault.Wrap(code.In(fault.ServiceFailed), err, "The message is malformed: %v", err)
}

// bodyFault chooses the code for a body that could not be kept.
func bodyFault(err error) error {
	switch {
	case errors.Is(err, message.ErrTooLarge):
		return fault.Wrap(fault.LoggingFailed, err, "The body is larger than this security server logs: %v", err)
	case errors.Is(err, message.ErrNoSpace):
		return fault.Wrap(fault.LoggingFailed, err, "The disk for message bodies is full")
	}
	return fault.Wrap(fault.IOError, err, "The body could not be stored")
}
