// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"kontor/gateway/message"
	"kontor/pki/asic"
	"kontor/registry/id"
)

// Side tells in which role this gateway handled a message.
type Side uint8

// The sides of an exchange. The zero value is no side; in a Query it means any.
const (
	Client Side = 1 // the consumer's gateway, X-Road's client proxy
	Server Side = 2 // the provider's gateway, X-Road's server proxy
)

// String returns "client" or "server".
func (s Side) String() string {
	switch s {
	case Client:
		return "client"
	case Server:
		return "server"
	}
	return "none"
}

// Record is one signed message: a request or a response, with all that is
// needed to prove it.
type Record struct {
	Seq      uint64    // given by Append: 1, 2, 3, … without gaps
	Time     time.Time // when it was logged; Append fills in a zero value
	Side     Side
	Response bool

	MessageID string // x-road-id
	RequestID string // x-road-request-id

	Client                      id.Client
	Service                     id.Service
	ClientServer, ServiceServer id.SecurityServer // zero where unknown

	// Head is /message.xml: the REST head or the SOAP envelope, as signed.
	Head []byte
	// Attachments are /attachment1, 2, …: the REST body or the SOAP attachments.
	// One in a file is linked into the log's own folder; the caller goes on
	// using and closing its Body as before.
	Attachments message.Content
	Evidence    asic.Evidence
}

// BodyState tells where the body of a logged attachment is.
type BodyState uint8

// The states of a logged body.
const (
	BodyInline   BodyState = iota + 1 // in the record
	BodyFile                          // in a file of its own
	BodyWithheld                      // left out by policy, only its digest is kept
)

// String returns the state in one word.
func (s BodyState) String() string {
	switch s {
	case BodyInline:
		return "inline"
	case BodyFile:
		return "file"
	case BodyWithheld:
		return "withheld"
	}
	return "invalid"
}

// Body is what the log has of one attachment.
type Body struct {
	State BodyState
	Size  int64 // of the original, also where it is withheld

	data []byte // inline bytes or the name of the file
}

// Entry is a record as it stands in the log. Its Record.Attachments are nil;
// use Log.OpenBody.
type Entry struct {
	Record
	Bodies       []Body // one for each attachment; withheld are all or none
	BodySize     int64  // of all of them
	HeadWithheld bool   // by policy, Head is shorter than what was signed
	Stamped      bool
}

// Holder returns the local party whose record this is: the client on the
// consumer's side, the owner of the service on the provider's.
func (e *Entry) Holder() id.Client {
	if e.Side == Server {
		return e.Service.Owner()
	}
	return e.Client
}

const (
	recordVersion = 2

	flagServer       = 1 << 0
	flagResponse     = 1 << 1
	flagVersioned    = 1 << 2
	flagHeadWithheld = 1 << 3
	flagPattern      = 1 << 4
	flagsKnown       = flagServer | flagResponse | flagVersioned | flagHeadWithheld | flagPattern

	// maxAttachments bounds the digests of one record.
	maxAttachments = 10_000
)

var errEncoding = errors.New("not a canonical record")

// appendTo writes the canonical form: version, flags, time in nanoseconds since
// 1970 (8 bytes, big endian), then every field in fixed order, each preceded by
// its length as a minimal varint. For each digest of an attachment there is a
// body at the end. The sequence number follows from that of the group. The
// documents of the hash chain are in terse form. With a pattern that fits, the
// signature document is its number and what differs from it.
func (e *Entry) appendTo(b []byte, p *pattern) []byte {
	var flags byte
	if e.Side == Server {
		flags |= flagServer
	}
	if e.Response {
		flags |= flagResponse
	}
	version, versioned := e.Service.Version()
	if versioned {
		flags |= flagVersioned
	}
	if e.HeadWithheld {
		flags |= flagHeadWithheld
	}
	flagsAt := len(b) + 1
	b = append(b, recordVersion, flags)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time.UnixNano()))
	b = appendString(b, e.MessageID)
	b = appendString(b, e.RequestID)
	b = appendString(b, e.Client.String())
	b = appendString(b, e.Service.Owner().String())
	b = appendString(b, e.Service.Code())
	if versioned {
		b = appendString(b, version)
	}
	b = appendString(b, serverString(e.ClientServer))
	b = appendString(b, serverString(e.ServiceServer))
	b = append(b, e.Evidence.Message[:]...)
	b = binary.AppendUvarint(b, uint64(len(e.Evidence.Attachments)))
	for i := range e.Evidence.Attachments {
		b = append(b, e.Evidence.Attachments[i][:]...)
	}
	b = e.appendSignature(b, flagsAt, p)
	b = appendSized(b, e.Evidence.ChainResult, appendTerse)
	b = appendSized(b, e.Evidence.Chain, appendTerse)
	b = appendBytes(b, e.Head)
	for _, body := range e.Bodies {
		b = append(b, byte(body.State))
		b = binary.AppendUvarint(b, uint64(body.Size))
		if body.State != BodyWithheld {
			b = appendBytes(b, body.data)
		}
	}
	return b
}

// appendSignature writes the signature document; the flags are at an index of b.
func (e *Entry) appendSignature(b []byte, flagsAt int, p *pattern) []byte {
	if p != nil && len(p.doc) == len(e.Evidence.Signature) {
		short := binary.AppendUvarint(b, p.seq)
		fits := false
		short = appendSized(short, e.Evidence.Signature, func(b, doc []byte) []byte {
			b, fits = appendDifference(b, p.doc, doc)
			return b
		})
		if fits {
			short[flagsAt] |= flagPattern
			return short
		}
	}
	return appendBytes(b, e.Evidence.Signature)
}

// appendSized appends what encode makes of p, behind its length.
func appendSized(b, p []byte, encode func(b, p []byte) []byte) []byte {
	at := len(b)
	b = encode(b, p)
	var size [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(size[:], uint64(len(b)-at))
	return slices.Insert(b, at, size[:n]...)
}

// fields are those of the canonical form, as bytes that belong to it.
type fields struct {
	flags                          byte
	nanos                          int64
	messageID, requestID           []byte
	client, owner, code, version   []byte
	clientServer, serviceServer    []byte
	message, attachments           []byte
	pattern                        uint64 // number of the pattern; 0 if there is none
	signature, result, chain, head []byte
	bodies                         reader // what is left
}

// readFields reads the canonical form up to the bodies.
func readFields(seq uint64, b []byte) (f fields, err error) {
	r := reader{b: b}
	if v := r.byte(); r.err == nil && v != recordVersion {
		return f, fmt.Errorf("record %d has version %d, this program reads version %d", seq, v, recordVersion)
	}
	f.flags = r.byte()
	nanos := r.uint64()
	if f.flags&^flagsKnown != 0 || nanos > math.MaxInt64 {
		r.fail()
	}
	f.nanos = int64(nanos)
	f.messageID, f.requestID = r.bytes(), r.bytes()
	f.client, f.owner, f.code = r.bytes(), r.bytes(), r.bytes()
	if f.flags&flagVersioned != 0 {
		f.version = r.bytes()
	}
	f.clientServer, f.serviceServer = r.bytes(), r.bytes()
	f.message = r.take(sha512.Size)
	n := r.uvarint()
	if n > maxAttachments || n*sha512.Size > uint64(len(r.b)) {
		r.fail()
	}
	f.attachments = r.take(n * sha512.Size)
	if f.flags&flagPattern != 0 {
		if f.pattern = r.uvarint(); f.pattern == 0 {
			r.fail()
		}
	}
	f.signature = r.bytes()
	f.result, f.chain = r.bytes(), r.bytes()
	f.head = r.bytes()
	if r.err != nil {
		return f, fmt.Errorf("record %d: %w", seq, r.err)
	}
	f.bodies = r
	return f, nil
}

// decodeEntry reads the canonical form strictly. The result shares b. Patterns
// come from a source; nil knows none.
func decodeEntry(seq uint64, b []byte, patterns *source) (*Entry, error) {
	f, err := readFields(seq, b)
	if err != nil {
		return nil, err
	}
	e, err := f.entry(seq)
	if err == nil {
		err = e.expand(&f, patterns)
	}
	if err != nil {
		return nil, fmt.Errorf("record %d: %w", seq, err)
	}
	return e, nil
}

// entry returns all but the documents.
func (f *fields) entry(seq uint64) (*Entry, error) {
	e := &Entry{HeadWithheld: f.flags&flagHeadWithheld != 0}
	e.Seq, e.Time = seq, time.Unix(0, f.nanos).UTC()
	e.Side, e.Response = Client, f.flags&flagResponse != 0
	if f.flags&flagServer != 0 {
		e.Side = Server
	}
	e.MessageID, e.RequestID = string(f.messageID), string(f.requestID)
	copy(e.Evidence.Message[:], f.message)
	if n := len(f.attachments) / sha512.Size; n > 0 {
		e.Evidence.Attachments = make([]asic.Digest, n)
		for i := range e.Evidence.Attachments {
			copy(e.Evidence.Attachments[i][:], f.attachments[i*sha512.Size:])
		}
	}
	e.Head = f.head
	r := f.bodies
	e.readBodies(&r, len(e.Evidence.Attachments))
	if len(r.b) != 0 {
		r.fail()
	}
	if r.err != nil {
		return nil, r.err
	}
	return e, e.parseNames(string(f.client), string(f.owner), string(f.code), string(f.version), f.flags&flagVersioned != 0,
		string(f.clientServer), string(f.serviceServer))
}

// expand gives the evidence its own form again.
func (e *Entry) expand(f *fields, patterns *source) (err error) {
	e.Evidence.Signature = f.signature
	if f.pattern != 0 {
		if patterns == nil {
			return errEncoding
		}
		doc, err := patterns.pattern(f.pattern)
		if err != nil {
			return err
		}
		if e.Evidence.Signature, err = applyDifference(doc, f.signature); err != nil {
			return err
		}
	}
	if e.Evidence.ChainResult, err = fromTerse(f.result); err != nil {
		return err
	}
	e.Evidence.Chain, err = fromTerse(f.chain)
	return err
}

// readBodies reads n bodies.
func (e *Entry) readBodies(r *reader, n int) {
	if r.err != nil || n == 0 {
		return
	}
	e.Bodies = make([]Body, n)
	for i := range e.Bodies {
		b := &e.Bodies[i]
		b.State = BodyState(r.byte())
		size := r.uvarint()
		if b.State < BodyInline || b.State > BodyWithheld || size > math.MaxInt64-uint64(e.BodySize) ||
			(b.State == BodyWithheld) != (e.Bodies[0].State == BodyWithheld) {
			r.fail()
			return
		}
		b.Size = int64(size)
		e.BodySize += b.Size
		if b.State != BodyWithheld {
			b.data = r.bytes()
		}
		if b.State == BodyInline && int64(len(b.data)) != b.Size {
			r.fail()
		}
	}
}

// parseNames fills in the identifiers and refuses spellings that appendTo
// would not have written.
func (e *Entry) parseNames(client, owner, code, version string, versioned bool, clientServer, serviceServer string) error {
	var err error
	if e.Client, err = id.ParseClient(client); err != nil {
		return err
	}
	own, err := id.ParseClient(owner)
	if err != nil {
		return err
	}
	if versioned {
		e.Service, err = id.NewServiceVersion(own, code, version)
	} else {
		e.Service, err = id.NewService(own, code)
	}
	if err != nil {
		return err
	}
	if clientServer != "" {
		if e.ClientServer, err = id.ParseSecurityServer(clientServer); err != nil {
			return err
		}
	}
	if serviceServer != "" {
		if e.ServiceServer, err = id.ParseSecurityServer(serviceServer); err != nil {
			return err
		}
	}
	if e.Client.String() != client || own.String() != owner ||
		serverString(e.ClientServer) != clientServer || serverString(e.ServiceServer) != serviceServer {
		return errEncoding
	}
	return nil
}

func serverString(s id.SecurityServer) string {
	if s.IsZero() {
		return ""
	}
	return s.String()
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBytes(b, p []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(p))), p...)
}

// reader takes fields off a byte slice; the first error stays.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	if r.err == nil {
		r.err = errEncoding
	}
	r.b = nil
}

func (r *reader) take(n uint64) []byte {
	if r.err != nil || n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) byte() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if p := r.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if p := r.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes returns nil for an empty field, so that absent and empty read alike.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n == 0 {
		return nil
	}
	return r.take(n)
}
