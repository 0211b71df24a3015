// SPDX-License-Identifier: Apache-2.0

package message

import (
	"fmt"
	"io"
	"strings"
)

// Limits bound what a received transport message may cost. Zero values mean
// the defaults.
type Limits struct {
	Head int64 // bytes of a REST head; default MaxHead
	Part int64 // bytes of any other part but body and SOAP; default 1 MiB
	SOAP int64 // bytes of a SOAP envelope; default 16 MiB
	Body int64 // bytes of the body or of all attachments; default no bound
	OCSP int   // OCSP responses; default 16

	Attachments int // of a SOAP message; default 100
}

func (l Limits) withDefaults() Limits {
	if l.Head == 0 {
		l.Head = MaxHead
	}
	if l.Part == 0 {
		l.Part = 1 << 20
	}
	if l.SOAP == 0 {
		l.SOAP = 16 << 20
	}
	if l.Body == 0 {
		l.Body = 1<<63 - 1
	}
	if l.OCSP == 0 {
		l.OCSP = 16
	}
	if l.Attachments == 0 {
		l.Attachments = 100
	}
	return l
}

// Part is one part of a message.
type Part struct {
	Kind        Kind
	ContentType string  // as received
	Fields      []Field // other header fields of the part; only SOAP parts should have any
	// Reader gives the content, up to the limit of the kind and then
	// ErrTooLarge. It is valid until the next call of Next. It implements
	// io.WriterTo.
	Reader io.Reader

	content *partReader
}

// ReadAll returns the rest of the content.
func (p Part) ReadAll() ([]byte, error) { return p.content.readAll() }

// Decoder reads a transport message and enforces the order of its parts:
// OCSP responses (requests only), head, body or attachments or none, hash chain
// result and hash chain or none, and a signature, in the place of which a
// response may have a fault. Made by NewSOAPDecoder it reads what information
// systems send: an envelope and its attachments. A Decoder is for one goroutine.
type Decoder struct {
	want   Kind
	limits Limits
	soap   bool             // from an information system
	mp     *multipartReader // nil if the message is a bare fault or envelope
	plain  plainSource      // that message
	ctype  string
	last   Kind // last part given out
	ocsp   int
	part   partReader
	err    error

	attachments int
	nested      *multipartReader // of the attachments, while in them
	container   partReader       // the part that they are in
}

// NewDecoder returns a decoder for the message in r. want is the kind of head
// that it must have: RESTRequest, RESTResponse, SOAPRequest or SOAPResponse.
// contentType is that of the transport: multipart/mixed or, for a response,
// text/xml, which is a bare fault. Errors wrap ErrContentType.
func NewDecoder(r io.Reader, contentType string, want Kind, limits Limits) (*Decoder, error) {
	d := &Decoder{want: want, limits: limits.withDefaults(), ctype: contentType}
	m, err := parseMedia(contentType)
	if err != nil {
		return nil, fmt.Errorf("%w of the message: %w", ErrContentType, err)
	}
	if m.name == typeTextXML && d.response() {
		d.plain.r = r
		return d, nil
	}
	if m.name != typeMixed {
		return nil, fmt.Errorf("%w of the message: multipart/mixed expected", ErrContentType)
	}
	if !validBoundary(m.boundary) {
		return nil, fmt.Errorf("%w of the message: boundary missing or malformed", ErrContentType)
	}
	d.mp = newMultipartReader(r, m.boundary)
	return d, nil
}

// NewSOAPDecoder returns a decoder for a SOAP message as information systems
// send it over HTTP: a bare envelope, text/xml or application/xop+xml, or
// multipart/related, the first part of which is the envelope and the others
// attachments. want is SOAPRequest or SOAPResponse. Parts are taken as they are,
// whatever their transfer encoding. Errors wrap ErrContentType.
func NewSOAPDecoder(r io.Reader, contentType string, want Kind, limits Limits) (*Decoder, error) {
	d := &Decoder{want: want, limits: limits.withDefaults(), soap: true, ctype: contentType}
	m, err := parseMedia(contentType)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w of the message: %w", ErrContentType, err)
	case len(contentType) > maxPartLine-len("content-type: "):
		return nil, fmt.Errorf("%w of the message: too long", ErrContentType)
	case m.name == typeTextXML, m.name == typeXOP:
		d.plain.r = r
		return d, checkCharset(m)
	case m.name != typeRelated:
		return nil, fmt.Errorf("%w of the message: text/xml, application/xop+xml or multipart/related expected", ErrContentType)
	case !validBoundary(m.boundary):
		return nil, fmt.Errorf("%w of the message: boundary missing or malformed", ErrContentType)
	}
	d.mp = newMultipartReader(r, m.boundary)
	d.mp.lenient = true
	return d, nil
}

// checkCharset refuses envelopes in other encodings than UTF-8.
func checkCharset(m media) error {
	if c := strings.TrimSpace(m.charset); c != "" && !strings.EqualFold(c, "UTF-8") {
		return fmt.Errorf("%w of the envelope: the charset must be UTF-8", ErrContentType)
	}
	return nil
}

func (d *Decoder) response() bool { return d.want == RESTResponse || d.want == SOAPResponse }

func (d *Decoder) rest() bool { return d.want == RESTRequest || d.want == RESTResponse }

// Next returns the next part. What is left of the one before is skipped. It
// returns io.EOF after the end of a complete message, and only then is it known
// that nothing follows the signature: act on a message after io.EOF.
//
// Errors wrap ErrMalformed, ErrContentType, ErrUnexpectedPart, ErrMissingHead,
// ErrMissingSignature, ErrAfterSignature or ErrTooLarge, or are those of the
// reader underneath. They are repeated by later calls.
func (d *Decoder) Next() (Part, error) {
	if d.err != nil {
		return Part{}, d.err
	}
	p, err := d.next()
	if err != nil {
		d.err = err
		d.Close()
		return Part{}, err
	}
	return p, nil
}

// Close frees the buffer of a message that was not read to its end. It does not
// close the reader underneath. The reader of the last part must not be used any
// more.
func (d *Decoder) Close() {
	if d.err == nil {
		d.err = io.ErrClosedPipe
	}
	if d.mp != nil {
		d.mp.release()
	}
	if d.nested != nil {
		d.nested.release()
	}
	d.plain.release()
}

func (d *Decoder) next() (Part, error) {
	if d.part.src != nil {
		if err := d.part.skip(); err != nil {
			return Part{}, err
		}
	}
	if d.nested != nil {
		p, err := d.attachment()
		if err != io.EOF {
			return p, err
		}
	}
	if d.mp == nil {
		if d.last != 0 {
			return Part{}, io.EOF
		}
		kind := Fault
		if d.soap {
			kind = d.want
		}
		return d.give(kind, d.ctype, nil, &d.plain), nil
	}
	ctype, fields, err := d.mp.nextPart()
	if err == io.EOF {
		return Part{}, d.end()
	}
	if err != nil {
		return Part{}, err
	}
	if d.last >= Signature {
		return Part{}, fmt.Errorf("%w: a part of type %.100q", ErrAfterSignature, ctype)
	}
	kind, err := d.classify(ctype)
	if err != nil {
		return Part{}, err
	}
	if kind != SOAPAttachment {
		return d.give(kind, ctype, fields, d.mp), nil
	}
	if d.soap {
		return d.giveAttachment(ctype, fields, d.mp)
	}
	m, err := parseMedia(ctype)
	if err != nil || !validBoundary(m.boundary) {
		return Part{}, fmt.Errorf("%w: attachments without a proper boundary", ErrContentType)
	}
	d.container = partReader{src: d.mp, kind: kind, left: d.limits.Body}
	d.nested = newMultipartReader(&d.container, m.boundary)
	return d.attachment()
}

// attachment returns the next attachment, or io.EOF after the last.
func (d *Decoder) attachment() (Part, error) {
	ctype, fields, err := d.nested.nextPart()
	if err == nil {
		return d.giveAttachment(ctype, fields, d.nested)
	}
	if err == io.EOF {
		d.nested.release()
		d.nested, d.part.src = nil, nil
		if d.attachments == 0 {
			return Part{}, fmt.Errorf("%w: a multipart without attachments", ErrMalformed)
		}
	}
	return Part{}, err
}

func (d *Decoder) giveAttachment(ctype string, fields []Field, src contentSource) (Part, error) {
	if ctype == "" {
		return Part{}, fmt.Errorf("%w: an attachment without a type", ErrContentType)
	}
	if d.attachments++; d.attachments > d.limits.Attachments {
		return Part{}, fmt.Errorf("%w: more than %d attachments", ErrTooLarge, d.limits.Attachments)
	}
	return d.give(SOAPAttachment, ctype, fields, src), nil
}

func (d *Decoder) give(kind Kind, ctype string, fields []Field, src contentSource) Part {
	left := d.limit(kind)
	if kind == SOAPAttachment && d.last == SOAPAttachment {
		left = d.part.left // the limit is that of all together
	}
	d.last = kind
	d.part = partReader{src: src, kind: kind, left: left}
	return Part{Kind: kind, ContentType: ctype, Fields: fields, Reader: &d.part, content: &d.part}
}

func (d *Decoder) limit(kind Kind) int64 {
	switch kind {
	case RESTRequest, RESTResponse:
		return d.limits.Head
	case SOAPRequest, SOAPResponse:
		return d.limits.SOAP
	case RESTBody, SOAPAttachment:
		return d.limits.Body
	}
	return d.limits.Part
}

// end judges a message that ended after the last part given out.
func (d *Decoder) end() error {
	switch {
	case d.last >= Signature, d.soap && d.last != 0:
		return io.EOF
	case d.last <= OCSP:
		return fmt.Errorf("%w: no %v", ErrMissingHead, d.want)
	}
	return fmt.Errorf("%w: the message ended after the %v", ErrMissingSignature, d.last)
}

// classify says what a part of the given type is in its place.
func (d *Decoder) classify(ctype string) (Kind, error) {
	media, _, _ := strings.Cut(ctype, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	if d.soap && d.last != 0 {
		return SOAPAttachment, nil
	}
	kind := d.kind(media)
	if d.soap && kind != d.want {
		return 0, fmt.Errorf("%w: the first part is of type %.100q, not an envelope", ErrContentType, media)
	}
	if kind == d.want && !d.rest() {
		m, err := parseMedia(ctype)
		if err != nil {
			return 0, fmt.Errorf("%w of the envelope: %w", ErrContentType, err)
		}
		if err := checkCharset(m); err != nil {
			return 0, err
		}
	}
	if kind == 0 {
		if media == "" {
			return 0, fmt.Errorf("%w: a part without a type after %v", ErrContentType, d.last)
		}
		return 0, fmt.Errorf("%w: a part of type %.100q after %v", ErrContentType, media, d.last)
	}
	if !d.allowed(kind) {
		return 0, fmt.Errorf("%w: %v after %v", ErrUnexpectedPart, kind, d.last)
	}
	if kind == OCSP {
		if d.ocsp++; d.ocsp > d.limits.OCSP {
			return 0, fmt.Errorf("%w: more than %d OCSP responses", ErrTooLarge, d.limits.OCSP)
		}
	}
	return kind, nil
}

func (d *Decoder) kind(media string) Kind {
	switch media {
	case typeOCSP:
		return OCSP
	case typeRESTRequest:
		return RESTRequest
	case typeRESTResponse:
		return RESTResponse
	case typeRESTBody:
		return RESTBody
	case typeHashChainResult:
		return HashChainResult
	case typeHashChain:
		return HashChain
	case typeSignature:
		return Signature
	case typeTextXML, typeXOP:
		if !d.rest() && d.last <= OCSP {
			return d.want
		}
		if media == typeTextXML && d.response() {
			return Fault
		}
	case typeMixed:
		if !d.rest() {
			return SOAPAttachment
		}
	}
	return 0
}

// allowed reports whether a part of that kind may follow the last one.
func (d *Decoder) allowed(kind Kind) bool {
	begun := d.last == d.want // the head has been read, nothing else
	body := d.last == RESTBody || d.last == SOAPAttachment
	switch kind {
	case OCSP:
		return !d.response() && d.last <= OCSP
	case d.want:
		return d.last <= OCSP
	case RESTBody:
		return begun && d.rest()
	case SOAPAttachment:
		return begun
	case HashChainResult:
		return begun || body
	case HashChain:
		return begun || body || d.last == HashChainResult
	case Signature:
		return d.last > OCSP
	case Fault:
		return true
	}
	return false
}

// contentSource gives the content of the current part piece by piece.
type contentSource interface {
	// peek returns bytes that certainly are content, at least one, or an
	// error; io.EOF tells that the part is complete. They stay valid until
	// advance, which says how many were used.
	peek() ([]byte, error)
	advance(n int)
}

// partReader reads the content of one part, up to its limit.
type partReader struct {
	src  contentSource
	kind Kind
	left int64
	err  error
}

// next returns the next piece of the content.
func (p *partReader) next() ([]byte, error) {
	if p.err != nil {
		return nil, p.err
	}
	b, err := p.src.peek()
	if err == nil && p.left == 0 {
		err = fmt.Errorf("%w: %v longer than its limit", ErrTooLarge, p.kind)
	}
	if err != nil {
		p.err = err
		return nil, err
	}
	return b[:min(int64(len(b)), p.left)], nil
}

func (p *partReader) advance(n int) {
	p.left -= int64(n)
	p.src.advance(n)
}

// Read implements io.Reader.
func (p *partReader) Read(dst []byte) (int, error) {
	if len(dst) == 0 {
		return 0, nil
	}
	b, err := p.next()
	if err != nil {
		return 0, err
	}
	n := copy(dst, b)
	p.advance(n)
	return n, nil
}

// WriteTo implements io.WriterTo; it spares a copy.
func (p *partReader) WriteTo(w io.Writer) (written int64, err error) {
	for {
		b, err := p.next()
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			return written, err
		}
		n, err := w.Write(b)
		p.advance(n)
		written += int64(n)
		if err != nil {
			return written, err
		}
		if n < len(b) {
			return written, io.ErrShortWrite
		}
	}
}

func (p *partReader) readAll() ([]byte, error) {
	var all []byte
	for {
		b, err := p.next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
		p.advance(len(b))
	}
}

// skip reads to the end of the part.
func (p *partReader) skip() error {
	for {
		b, err := p.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		p.advance(len(b))
	}
}

// plainSource is a message that is not multipart.
type plainSource struct {
	r    io.Reader
	buf  *[]byte // nil until the first peek
	rest []byte
	err  error
}

// release gives the buffer back. Reading on is an error.
func (s *plainSource) release() {
	if s.buf != nil {
		putBuffer(s.buf)
	}
	s.buf, s.rest, s.err = nil, nil, io.ErrClosedPipe
}

func (s *plainSource) peek() ([]byte, error) {
	for empty := 0; len(s.rest) == 0; empty++ {
		if s.err != nil {
			return nil, s.err
		}
		if empty > maxEmptyReads {
			return nil, io.ErrNoProgress
		}
		if s.buf == nil {
			s.buf = getBuffer(smallBuffer)
		}
		var n int
		b := (*s.buf)[:cap(*s.buf)]
		n, s.err = s.r.Read(b)
		s.rest = b[:n]
	}
	return s.rest, nil
}

func (s *plainSource) advance(n int) { s.rest = s.rest[n:] }
