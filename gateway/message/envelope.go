// SPDX-License-Identifier: Apache-2.0

package message

import (
	"crypto/sha512"
	"fmt"
	"slices"
	"strings"
	"sync"

	"kontor/registry/id"
)

// Namespaces of SOAP messages.
const (
	nsEnvelope       = "http://schemas.xmlsoap.org/soap/envelope/"
	nsXRoad          = "http://x-road.eu/xsd/xroad.xsd"
	nsIdentifiers    = "http://x-road.eu/xsd/identifiers"
	nsRepresentation = "http://x-road.eu/xsd/representation.xsd"
)

// maxEnvelope bounds what can be read at all; Limits.SOAP is what counts.
const maxEnvelope = 1 << 30

// Envelope is what the header and the body of a SOAP message say (X-Road:
// Message Protocol v4.0, section 2.2). Values are as they stand, not trimmed.
type Envelope struct {
	// Fault tells that the body holds a SOAP fault. Nothing else is then
	// filled in, nor checked.
	Fault bool

	Client           id.Client
	Service          id.Service
	Server           id.SecurityServer   // zero if none
	RepresentedParty id.RepresentedParty // zero if none
	ID               string
	ProtocolVersion  string
	UserID           string
	Issue            string
	RequestHash      string

	// BodyName is the local name of the element in the body. It starts with the
	// service code.
	BodyName string

	hasUserID, hasIssue bool // an empty value is not the same as none

	raw   []byte
	marks marks
}

// marks are the places in an envelope where a request hash is written. Each is
// a range; one that is not there is empty.
type marks struct {
	prefix      [2]int // of the id element's name, with its colon
	attributes  [2]int // of the id element
	algorithmID [2]int // an attribute of that name among them
	id          [2]int // the id element
	hash        [2]int // the requestHash element
	body        [2]int // the content of the body
}

var scanners = sync.Pool{New: func() any { return new(envelopeReader) }}

// ReadEnvelope reads a SOAP 1.1 envelope and checks all of it: that it is
// well-formed XML in UTF-8 without document type declaration and processing
// instructions, that it has header and body in their order, every mandatory
// field and none twice, and one element in the body, which is named after the
// service. raw may start with a byte order mark; it is kept and must not be
// changed.
//
// Errors wrap ErrXML, ErrSOAP, ErrMissingHeader, ErrMissingHeaderField,
// ErrDuplicateHeader, ErrProtocolVersion, ErrIdentifier, ErrMissingBody,
// ErrBody, ErrInconsistentHeaders or ErrTooLarge.
func ReadEnvelope(raw []byte) (*Envelope, error) {
	if len(raw) > maxEnvelope {
		return nil, fmt.Errorf("%w: SOAP envelope longer than %d bytes", ErrTooLarge, maxEnvelope)
	}
	r := scanners.Get().(*envelopeReader)
	defer r.release()
	return r.read(raw)
}

// envelopeReader reads one envelope.
type envelopeReader struct {
	scanner
	fields  fields
	problem error // the first that is not one of syntax: a fault may follow and excuse it
}

// fields are what the header says, as places in the document.
type fields struct {
	header, body                     bool
	headerFrom, headerTo             int
	id, version, userID, issue, hash content
	client, service, server          [partCount]content
	hasClient, hasService, hasServer bool
	party                            [2]content // class, code
	hasParty                         bool
	fault                            bool
	bodyElements                     int
	bodyName                         name
	marks                            marks
}

// content is the text of an element.
type content struct {
	from, to int
	own      string // if it is not the bytes from … to
	copied   bool
	set      bool
}

// The parts of identifiers.
const (
	partInstance = iota
	partClass
	partMember
	partSubsystem
	partService
	partVersion
	partServer
	partCount
)

var partNames = [partCount]string{
	"xRoadInstance", "memberClass", "memberCode", "subsystemCode", "serviceCode", "serviceVersion", "serverCode",
}

func (r *envelopeReader) release() {
	r.scanner.release()
	r.problem = nil
	r.fields = fields{}
	scanners.Put(r)
}

// wrong notes the first problem.
func (r *envelopeReader) wrong(err error, format string, args ...any) {
	if r.problem == nil {
		r.problem = fmt.Errorf("%w: %s", err, fmt.Sprintf(format, args...))
	}
}

func (r *envelopeReader) read(raw []byte) (*Envelope, error) {
	r.reset(raw)
	if r.next() != startTag {
		return nil, r.syntax()
	}
	if !r.is(nsEnvelope, "Envelope") {
		return nil, fmt.Errorf("%w: the document element is not a SOAP 1.1 Envelope", ErrSOAP)
	}
	if !r.children("the envelope", r.part) || r.next() != documentEnd {
		return nil, r.syntax()
	}
	if r.fields.fault {
		if r.fields.bodyElements > 1 {
			return nil, fmt.Errorf("%w: a fault and something else", ErrBody)
		}
		return &Envelope{Fault: true, raw: raw}, nil
	}
	if r.problem != nil {
		return nil, r.problem
	}
	return r.envelope()
}

func (r *envelopeReader) syntax() error {
	if r.err == nil { // an unexpected token; none is left to be one
		r.fail("the document is not an element")
	}
	return r.err
}

// children calls f at the start of each child of the current element; f reads
// the child to its end. Between them may be white space only.
func (r *envelopeReader) children(of string, f func() bool) bool {
	for {
		switch r.next() {
		case startTag:
			if !f() {
				return false
			}
		case text:
			if !blank(r.b[r.from:r.to]) {
				r.wrong(ErrSOAP, "text between the elements of %s", of)
			}
		case endTag:
			return true
		default:
			return false
		}
	}
}

// part reads a child of the envelope.
func (r *envelopeReader) part() bool {
	f := &r.fields
	switch {
	case r.is(nsEnvelope, "Header"):
		if f.header || f.body {
			r.wrong(ErrSOAP, "a header in the wrong place")
			return r.skip()
		}
		f.header, f.headerFrom = true, r.to
		ok := r.children("the header", r.headerField)
		f.headerTo = r.from
		return ok
	case r.is(nsEnvelope, "Body"):
		if f.body {
			r.wrong(ErrSOAP, "two bodies")
			// A fault must not excuse it: readers differ in which one counts.
			f.fault = false
			f.bodyElements++
			return r.skip()
		}
		f.body, f.marks.body[0] = true, r.to
		ok := r.children("the body", r.bodyElement)
		f.marks.body[1] = r.from
		return ok
	case string(r.space()) == nsEnvelope:
		r.wrong(ErrSOAP, "unknown element in the envelope")
	}
	return r.skip()
}

func (r *envelopeReader) bodyElement() bool {
	f := &r.fields
	if f.bodyElements++; f.bodyElements == 1 {
		f.bodyName = r.name
	}
	f.fault = f.fault || r.is(nsEnvelope, "Fault")
	return r.skip()
}

// headerField reads a child of the header. Unknown ones are not ours to judge.
func (r *envelopeReader) headerField() bool {
	f := &r.fields
	switch space := r.space(); {
	case string(space) == nsRepresentation && string(r.localName()) == "representedParty":
		return r.party()
	case string(space) != nsXRoad:
		return r.skip()
	}
	switch string(r.localName()) {
	case "id":
		return r.messageID()
	case "protocolVersion":
		return r.leaf(&f.version, "protocolVersion")
	case "userId":
		return r.leaf(&f.userID, "userId")
	case "issue":
		return r.leaf(&f.issue, "issue")
	case "requestHash":
		from := r.from
		ok := r.leaf(&f.hash, "requestHash")
		f.marks.hash = [2]int{from, r.to}
		return ok
	case "client":
		return r.identifier(&f.client, &f.hasClient, "client", "SUBSYSTEM", "MEMBER", 1<<partSubsystem)
	case "service":
		return r.identifier(&f.service, &f.hasService, "service", "SERVICE", "", 1<<partSubsystem|1<<partService|1<<partVersion)
	case "securityServer":
		return r.identifier(&f.server, &f.hasServer, "securityServer", "SERVER", "", 1<<partServer)
	}
	return r.skip()
}

// localName returns the local name of the start tag just read.
func (r *envelopeReader) localName() []byte { return r.b[r.name.local:r.name.to] }

// messageID reads the id and marks where a request hash would go.
func (r *envelopeReader) messageID() bool {
	m := &r.fields.marks
	if r.fields.id.set {
		return r.leaf(&r.fields.id, "id") // a duplicate
	}
	m.id[0] = r.from
	m.prefix = [2]int{r.name.from, r.name.local}
	m.attributes = [2]int{r.name.to, r.to - len(">")}
	if r.empty {
		m.attributes[1] = r.to - len("/>")
	}
	for _, a := range r.attrs {
		if string(r.b[a.name.from:a.name.to]) == "algorithmId" {
			m.algorithmID = [2]int{a.name.from, a.to + len(`"`)}
		}
	}
	ok := r.leaf(&r.fields.id, "id")
	m.id[1] = r.to
	return ok
}

// party reads the represented party.
func (r *envelopeReader) party() bool {
	f := &r.fields
	if !r.first(&f.hasParty, "representedParty") {
		return r.skip()
	}
	return r.children("representedParty", func() bool {
		switch {
		case r.is(nsRepresentation, "partyClass"):
			return r.leaf(&f.party[0], "partyClass")
		case r.is(nsRepresentation, "partyCode"):
			return r.leaf(&f.party[1], "partyCode")
		}
		return r.skip()
	})
}

// identifier reads an identifier of one of two types, which beside instance,
// member class and member code has the given parts.
func (r *envelopeReader) identifier(parts *[partCount]content, has *bool, field, kind, orKind string, own uint) bool {
	if !r.first(has, field) {
		return r.skip()
	}
	if t := r.attr(nsIdentifiers, "objectType"); string(t) != kind && (string(t) != orKind || orKind == "") {
		r.wrong(ErrXML, "%s without the objectType %s", field, kind)
	}
	own |= 1<<partInstance | 1<<partClass | 1<<partMember
	return r.children(field, func() bool {
		if string(r.space()) == nsIdentifiers {
			for k, name := range partNames {
				if own&(1<<k) != 0 && string(r.localName()) == name {
					return r.leaf(&parts[k], name)
				}
			}
		}
		return r.skip()
	})
}

// first notes that a field is there, or that it occurs twice.
func (r *envelopeReader) first(has *bool, field string) bool {
	if *has {
		r.wrong(ErrDuplicateHeader, "%s", field)
		return false
	}
	*has = true
	return true
}

// leaf reads the text of the current element, which has no children.
func (r *envelopeReader) leaf(c *content, field string) bool {
	if !r.first(&c.set, field) {
		return r.skip()
	}
	c.from, c.to = r.to, r.to
	var own []byte
	for pieces := 0; ; {
		switch r.next() {
		case text:
			piece := r.b[r.from:r.to]
			if pieces++; pieces == 1 && r.plain {
				c.from, c.to = r.from, r.to
				continue
			}
			if own == nil {
				own = append(make([]byte, 0, c.to-c.from+len(piece)), r.b[c.from:c.to]...)
			}
			own = unescape(own, piece, !r.cdata, false)
		case endTag:
			c.own, c.copied = string(own), own != nil
			return true
		case startTag:
			r.wrong(ErrXML, "an element in %s", field)
			if !r.skip() {
				return false
			}
		default:
			return false
		}
	}
}

// envelope makes the values of what was read.
func (r *envelopeReader) envelope() (*Envelope, error) {
	f := &r.fields
	e := &Envelope{raw: r.b, marks: f.marks, hasUserID: f.userID.set, hasIssue: f.issue.set}
	if !f.header {
		return nil, ErrMissingHeader
	}
	// One string holds all values, so that they cost no allocation of their own.
	header := string(r.b[f.headerFrom:f.headerTo])
	value := func(c *content) string {
		switch {
		case c.copied:
			return c.own
		case !c.set:
			return ""
		}
		return header[c.from-f.headerFrom : c.to-f.headerFrom]
	}
	e.ID, e.ProtocolVersion = value(&f.id), value(&f.version)
	e.UserID, e.Issue, e.RequestHash = value(&f.userID), value(&f.issue), value(&f.hash)
	if f.version.set && !strings.HasPrefix(e.ProtocolVersion, "4.") {
		return nil, ErrProtocolVersion
	}
	for _, x := range [...]struct {
		has  bool
		name string
	}{{f.version.set, "protocolVersion"}, {f.hasClient, "client"}, {f.id.set, "id"}, {f.hasService, "service"}} {
		if !x.has {
			return nil, fmt.Errorf("%w: %s", ErrMissingHeaderField, x.name)
		}
	}
	var err error
	if e.Client, err = identify(&f.client, value); err != nil {
		return nil, fmt.Errorf("%w: client: %w", ErrIdentifier, err)
	}
	owner, err := identify(&f.service, value)
	if err == nil {
		code, version := value(&f.service[partService]), &f.service[partVersion]
		if version.set {
			e.Service, err = id.NewServiceVersion(owner, code, value(version))
		} else {
			e.Service, err = id.NewService(owner, code)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: service: %w", ErrIdentifier, err)
	}
	if f.hasServer {
		owner, err := identify(&f.server, value)
		if err == nil {
			e.Server, err = id.NewSecurityServer(owner.Member(), value(&f.server[partServer]))
		}
		if err != nil {
			return nil, fmt.Errorf("%w: securityServer: %w", ErrIdentifier, err)
		}
	}
	if f.hasParty {
		if e.RepresentedParty, err = id.NewRepresentedParty(value(&f.party[0]), value(&f.party[1])); err != nil {
			return nil, fmt.Errorf("%w: representedParty: %w", ErrIdentifier, err)
		}
	}
	switch {
	case !f.body:
		return nil, ErrMissingBody
	case f.bodyElements != 1:
		return nil, fmt.Errorf("%w, not %d", ErrBody, f.bodyElements)
	}
	e.BodyName = e.Service.Code()
	if n := r.b[f.bodyName.local:f.bodyName.to]; string(n) != e.BodyName {
		e.BodyName = string(n)
	}
	if !strings.HasPrefix(e.BodyName, e.Service.Code()) {
		return nil, fmt.Errorf("%w: the element in the body is %s, the service in the header %s", ErrInconsistentHeaders, e.BodyName, e.Service.Code())
	}
	return e, nil
}

// identify makes the member or subsystem in an identifier.
func identify(parts *[partCount]content, value func(*content) string) (id.Client, error) {
	m, err := id.NewMember(value(&parts[partInstance]), value(&parts[partClass]), value(&parts[partMember]))
	if err != nil || !parts[partSubsystem].set {
		return m.Client(), err
	}
	return id.NewClient(m, value(&parts[partSubsystem]))
}

// consistent checks that e has the header of the request that it answers.
func (e *Envelope) consistent(req *Envelope) error {
	differs := ""
	switch {
	case e.Client != req.Client:
		differs = "client"
	case e.Service != req.Service:
		differs = "service"
	case e.UserID != req.UserID, e.hasUserID != req.hasUserID:
		differs = "userId"
	case e.RepresentedParty != req.RepresentedParty:
		differs = "representedParty"
	case e.Issue != req.Issue, e.hasIssue != req.hasIssue:
		differs = "issue"
	case e.ID != req.ID:
		differs = "id"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s is not the same in request and response", ErrInconsistentHeaders, differs)
}

// WithRequestHash returns the envelope with that request hash, directly after
// the id, and without the one it had. No other byte is changed. The element has
// the prefix and the attributes of the id, so that it is understood wherever the
// id is.
func (e *Envelope) WithRequestHash(hash string) []byte {
	const algorithm = ` algorithmId="http://www.w3.org/2001/04/xmlenc#sha512">`
	m := &e.marks
	prefix := e.raw[m.prefix[0]:m.prefix[1]]
	b := make([]byte, 0, len(e.raw)+2*len("</requestHash>")+2*len(prefix)+m.attributes[1]-m.attributes[0]+len(algorithm)+len(hash))
	b = e.appendWithoutHash(b, 0, m.id[1])
	b = append(append(append(b, '<'), prefix...), "requestHash"...)
	if m.algorithmID[1] > 0 {
		b = append(b, e.raw[m.attributes[0]:m.algorithmID[0]]...)
		b = append(b, e.raw[m.algorithmID[1]:m.attributes[1]]...)
	} else {
		b = append(b, e.raw[m.attributes[0]:m.attributes[1]]...)
	}
	b = append(append(b, algorithm...), hash...)
	b = append(append(append(b, "</"...), prefix...), "requestHash>"...)
	return e.appendWithoutHash(b, m.id[1], len(e.raw))
}

// answering returns the envelope with that request hash, which has no special
// characters, and what it says: [ReadEnvelope] of WithRequestHash.
func (e *Envelope) answering(hash string) (*Envelope, error) {
	raw := e.WithRequestHash(hash)
	m := e.marks
	if m.attributes[0] < m.attributes[1] {
		return ReadEnvelope(raw) // with those of the id the element could be more than is allowed
	}
	a := *e
	a.raw, a.RequestHash = raw, hash
	removed := m.hash[1] - m.hash[0]
	added := len(raw) - len(e.raw) + removed
	before := 0 // how much is removed before the id
	if m.hash[1] > 0 && m.hash[1] <= m.id[0] {
		before = removed
	}
	for _, r := range []*[2]int{&a.marks.prefix, &a.marks.attributes, &a.marks.id} {
		r[0], r[1] = r[0]-before, r[1]-before
	}
	a.marks.hash = [2]int{a.marks.id[1], a.marks.id[1] + added}
	a.marks.body = [2]int{m.body[0] + added - removed, m.body[1] + added - removed}
	return &a, nil
}

// WithBody returns the envelope with another content of its body, which must
// declare the namespaces of its prefixes. No other byte is changed, so that the
// envelope of a request becomes that of its answer.
func (e *Envelope) WithBody(content []byte) []byte {
	m := &e.marks
	return slices.Concat(e.raw[:m.body[0]], content, e.raw[m.body[1]:])
}

// appendWithoutHash appends raw[from:to] but for the requestHash element, which
// is in it or outside as a whole.
func (e *Envelope) appendWithoutHash(b []byte, from, to int) []byte {
	if h := e.marks.hash; h[1] > 0 && from <= h[0] && h[1] <= to {
		b = append(b, e.raw[from:h[0]]...)
		from = h[1]
	}
	return append(b, e.raw[from:to]...)
}

// EnvelopeHash returns the value of requestHash: base64 of the SHA-512 of a
// request's envelope.
func EnvelopeHash(raw []byte) string {
	return base64Digest(sha512.Sum512(raw))
}
