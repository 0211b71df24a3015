// SPDX-License-Identifier: Apache-2.0

package globalconf

import (
	"bytes"
	"crypto/sha1"
	"crypto/x509"
	"fmt"
	"reflect"
	"slices"
	"time"

	"kontor/pki"
	"kontor/registry/id"
)

// SharedParams are the shared parameters of one instance, of whatever version.
type SharedParams struct {
	Instance      string
	Sources       []Source // at least one from version 3 on, unknown to version 2
	CAs           []ApprovedCA
	TSAs          []ApprovedTSA
	Members       []Member
	Servers       []SecurityServer
	Groups        []GlobalGroup
	MemberClasses []MemberClass
	OCSPFreshness time.Duration // whole seconds, positive
}

// Source is a central server that serves the configuration.
type Source struct {
	Address       string
	InternalCerts [][]byte // verification certificates of the internal source
	ExternalCerts [][]byte // … of the external one
}

// ApprovedCA is a certification service. Certificates are DER or, as central
// servers may write them, PEM.
type ApprovedCA struct {
	Name               string
	AuthenticationOnly bool
	Top                CA
	Intermediates      []CA
	Profile            string // Java class name of the certificate profile
	CSRFormat          string // version 6: "PEM", "DER" or ""
	ACME               *ACMEServer
}

// CA is one certification authority of a certification service.
type CA struct {
	Cert []byte
	OCSP []OCSPResponder
}

// OCSPResponder serves a certification authority.
type OCSPResponder struct {
	URL      string
	Cert     []byte // nil if none is configured
	CostType string // version 6: "FREE", "PAID", "UNDEFINED" or ""
}

// ACMEServer tells how to order certificates (version 3, profiles version 4).
type ACMEServer struct {
	DirectoryURL, IPAddress, AuthProfile, SignProfile string
}

// ApprovedTSA is a time-stamping authority.
type ApprovedTSA struct {
	Name, URL string
	Cert      []byte
	CostType  string // as in OCSPResponder
}

// MemberClass is a class with its description.
type MemberClass struct{ Code, Description string }

// Member is a registered member with its subsystems.
type Member struct {
	ID               id.Member
	ClassDescription string
	Name             string
	Subsystems       []Subsystem
}

// Subsystem belongs to the member before it.
type Subsystem struct {
	ID   id.Client
	Name string // version 5
}

// SecurityServer is a registered security server.
type SecurityServer struct {
	ID          id.SecurityServer
	Address     string // "" if none is known
	AuthCerts   []AuthCert
	Clients     []id.Client  // registered clients; the owner is one implicitly
	Maintenance *Maintenance // version 5; nil in normal operation
}

// Maintenance says that a server is out of service, and perhaps why.
type Maintenance struct{ Message string }

// AuthCert identifies an authentication certificate. A document of version 2
// carries the SHA-1 digest only, a newer one the SHA-256 digest only; to write
// both, make it with NewAuthCert.
type AuthCert struct {
	SHA256 pki.CertHash
	SHA1   [sha1.Size]byte
}

// NewAuthCert returns the digests of c.
func NewAuthCert(c *x509.Certificate) AuthCert {
	return AuthCert{SHA256: pki.HashOf(c), SHA1: sha1.Sum(c.Raw)}
}

// GlobalGroup is a group of members and subsystems, perhaps of other instances.
type GlobalGroup struct {
	Code, Description string
	Members           []id.Client
}

// ParseSharedParams reads a document of the given version.
func ParseSharedParams(doc []byte, version int) (*SharedParams, error) {
	return parseShared(string(doc), version)
}

func parseShared(doc string, version int) (*SharedParams, error) {
	if err := checkVersion(version); err != nil {
		return nil, err
	}
	p := sharedParser{
		scanner: newScanner(doc), version: version,
		// A member or subsystem takes some two hundred bytes.
		ids: make(map[string]id.Client, len(doc)/256), clients: make(map[id.Client]struct{}, len(doc)/256),
		servers: map[id.SecurityServer]struct{}{},
	}
	return p.document()
}

// ReplaceSources returns the document, of version 3 or later, with other
// sources and no other change.
func ReplaceSources(doc []byte, version int, sources []Source) ([]byte, error) {
	old, err := ParseSharedParams(doc, version)
	if err != nil {
		return nil, err
	}
	if version < 3 || len(sources) == 0 {
		return nil, fmt.Errorf("%w: %d sources in version %d", ErrMalformed, len(sources), version)
	}
	p := sharedParser{scanner: newScanner(string(doc)), version: version}
	p.root("conf")
	p.required("instanceIdentifier")
	p.expect("source")
	start, end := p.tag.pos, 0
	for p.at("source") {
		p.source()
		end = p.pos
	}
	w := &sharedWriter{version: version}
	w.depth = 1
	for i := range sources {
		w.source(&sources[i])
	}
	if p.err != nil {
		return nil, p.err
	}
	out := slices.Concat([]byte(p.s[:start]), bytes.TrimSpace(w.b), []byte(p.s[end:]))
	got, err := ParseSharedParams(out, version)
	if err != nil {
		return nil, err
	}
	want := *old
	want.Sources = sources
	if !reflect.DeepEqual(got, &want) {
		return nil, fmt.Errorf("%w: sources that cannot be replaced", ErrMalformed)
	}
	return out, nil
}

// sharedParser decodes shared parameters in document order.
type sharedParser struct {
	*scanner
	version int
	SharedParams
	ids     map[string]id.Client // by xs:ID
	clients map[id.Client]struct{}
	servers map[id.SecurityServer]struct{}
}

func (p *sharedParser) document() (*SharedParams, error) {
	p.root("conf")
	p.Instance = p.required("instanceIdentifier")
	if p.err == nil && collapse(p.Instance) == "" {
		p.fail("instanceIdentifier is blank")
	}
	if p.version >= 3 {
		p.expect("source")
		for p.at("source") {
			p.source()
		}
	}
	for p.at("approvedCA") {
		p.approvedCA()
	}
	for p.at("approvedTSA") {
		p.approvedTSA()
	}
	for p.at("member") {
		p.member()
	}
	for p.at("securityServer") {
		p.server()
	}
	groups := map[string]bool{}
	for p.at("globalGroup") {
		g := p.group()
		if _, err := id.NewGlobalGroup(p.Instance, g.Code); err != nil {
			p.check(err)
		}
		if groups[g.Code] && p.err == nil {
			p.fail("global group %q occurs twice", g.Code)
		}
		groups[g.Code] = true
		p.Groups = append(p.Groups, g)
	}
	for p.at("centralService") {
		p.centralService()
	}
	p.settings()
	if p.version >= 3 {
		p.skipRest()
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	return &p.SharedParams, nil
}

func (p *sharedParser) source() {
	p.enter("", "")
	s := Source{Address: p.required("address")}
	for p.at("internalVerificationCert") {
		s.InternalCerts = append(s.InternalCerts, p.base64(p.required("internalVerificationCert")))
	}
	for p.at("externalVerificationCert") {
		s.ExternalCerts = append(s.ExternalCerts, p.base64(p.required("externalVerificationCert")))
	}
	p.leave()
	p.Sources = append(p.Sources, s)
}

func (p *sharedParser) approvedCA() {
	p.enter("", "")
	ca := ApprovedCA{Name: p.required("name")}
	if s, ok := p.optional("authenticationOnly"); ok {
		ca.AuthenticationOnly = p.boolean(s)
	}
	p.expect("topCA")
	ca.Top = p.ca()
	for p.at("intermediateCA") {
		ca.Intermediates = append(ca.Intermediates, p.ca())
	}
	ca.Profile = p.required("certificateProfileInfo")
	if p.version >= 6 {
		if s, ok := p.optional("defaultCsrFormat"); ok {
			ca.CSRFormat = p.oneOf(s, "PEM", "DER")
		}
	}
	if p.version >= 3 && p.at("acmeServer") {
		p.enter("", "")
		ca.ACME = &ACMEServer{DirectoryURL: p.required("directoryURL")}
		ca.ACME.IPAddress, _ = p.optional("ipAddress")
		// Schema 4 brought these two, but central servers existed that wrote
		// them into version 3.
		ca.ACME.AuthProfile, _ = p.optional("authenticationCertificateProfileId")
		ca.ACME.SignProfile, _ = p.optional("signingCertificateProfileId")
		p.leave()
	}
	p.leave()
	p.CAs = append(p.CAs, ca)
}

func (p *sharedParser) ca() CA {
	p.enter("", "")
	ca := CA{Cert: p.base64(p.required("cert"))}
	for p.at("ocsp") {
		p.enter("", "")
		r := OCSPResponder{URL: p.required("url")}
		if s, ok := p.optional("cert"); ok {
			r.Cert = p.base64(s)
		}
		r.CostType = p.costType()
		p.leave()
		ca.OCSP = append(ca.OCSP, r)
	}
	p.leave()
	return ca
}

func (p *sharedParser) costType() string {
	if p.version >= 6 {
		if s, ok := p.optional("costType"); ok {
			return p.oneOf(s, "FREE", "PAID", "UNDEFINED")
		}
	}
	return ""
}

func (p *sharedParser) approvedTSA() {
	p.enter("", "")
	t := ApprovedTSA{Name: p.required("name"), URL: p.required("url"), Cert: p.base64(p.required("cert"))}
	t.CostType = p.costType()
	p.leave()
	p.TSAs = append(p.TSAs, t)
}

// memberClass reads code and description.
func (p *sharedParser) memberClass() MemberClass {
	p.expect("memberClass")
	p.enter("", "")
	c := MemberClass{Code: p.required("code"), Description: p.required("description")}
	p.leave()
	return c
}

// declare notes a member or subsystem under its xs:ID, if it has one.
func (p *sharedParser) declare(c id.Client, ref string, has bool) {
	if p.err != nil {
		return
	}
	if _, double := p.clients[c]; double {
		p.fail("%s occurs twice", c.LogString())
	}
	p.clients[c] = struct{}{}
	if !has {
		return
	}
	ref = collapse(ref)
	if !isNCName(ref) {
		p.fail("%q is not an ID", ref)
	}
	if _, double := p.ids[ref]; double {
		p.fail("ID %q occurs twice", ref)
	}
	p.ids[ref] = c
}

// resolve finds what an IDREF means.
func (p *sharedParser) resolve(ref string) id.Client {
	c, ok := p.ids[collapse(ref)]
	if !ok && p.err == nil {
		p.fail("IDREF %q has no target", ref)
	}
	return c
}

func isNCName(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isName(s[i]) {
			return false
		}
	}
	return s != "" && isNameStart(s[0])
}

// check turns an identifier's error into the document's.
func (p *sharedParser) check(err error) {
	if err != nil && p.err == nil {
		p.fail("%v", err)
	}
}

func (p *sharedParser) member() {
	ref, has := p.enter("", "id")
	class := p.memberClass()
	code := p.required("memberCode")
	mid, err := id.NewMember(p.Instance, class.Code, code)
	p.check(err)
	m := Member{ID: mid, ClassDescription: class.Description, Name: p.required("name")}
	p.declare(mid.Client(), ref, has)
	for p.at("subsystem") {
		ref, has := p.enter("", "id")
		sid, err := id.NewClient(mid, p.required("subsystemCode"))
		p.check(err)
		s := Subsystem{ID: sid}
		if p.version >= 5 {
			s.Name, _ = p.optional("subsystemName")
		}
		p.leave()
		p.declare(sid, ref, has)
		m.Subsystems = append(m.Subsystems, s)
	}
	p.leave()
	p.Members = append(p.Members, m)
}

func (p *sharedParser) server() {
	p.enter("", "")
	owner := p.resolve(p.required("owner"))
	if p.err == nil && !owner.IsMember() {
		p.fail("the owner of a security server is not a member")
	}
	sid, err := id.NewSecurityServer(owner.Member(), p.required("serverCode"))
	p.check(err)
	s := SecurityServer{ID: sid}
	s.Address, _ = p.optional("address")
	for p.at("authCertHash") {
		p.authCert(&s, p.base64(p.required("authCertHash")))
	}
	for p.at("client") {
		s.Clients = append(s.Clients, p.resolve(p.required("client")))
	}
	if p.version >= 5 && p.at("inMaintenanceMode") {
		p.enter("", "")
		s.Maintenance = &Maintenance{}
		s.Maintenance.Message, _ = p.optional("message")
		p.leave()
	}
	p.leave()
	if _, double := p.servers[sid]; double && p.err == nil {
		p.fail("%s occurs twice", sid.LogString())
	}
	p.servers[sid] = struct{}{}
	p.Servers = append(p.Servers, s)
}

func (p *sharedParser) authCert(s *SecurityServer, hash []byte) {
	var c AuthCert
	switch {
	case p.err != nil:
		return
	case p.version == 2 && len(hash) == len(c.SHA1):
		c.SHA1 = [sha1.Size]byte(hash)
	case p.version >= 3 && len(hash) == len(c.SHA256):
		c.SHA256 = pki.CertHash(hash)
	default:
		p.fail("an authentication certificate hash of %d bytes", len(hash))
		return
	}
	s.AuthCerts = append(s.AuthCerts, c)
}

func (p *sharedParser) group() GlobalGroup {
	p.enter("", "")
	g := GlobalGroup{Code: p.required("groupCode"), Description: p.required("description")}
	for p.at("groupMember") {
		g.Members = append(g.Members, p.clientID())
	}
	p.leave()
	return g
}

// centralService is obsolete and ignored.
func (p *sharedParser) centralService() {
	p.enter("", "")
	p.required("serviceCode")
	if p.at("implementingService") {
		if t, _ := p.enter(nsID, "objectType"); t != "SERVICE" && p.err == nil {
			p.fail("object type %q instead of SERVICE", t)
		}
		for _, e := range []struct {
			name     string
			optional bool
		}{{"xRoadInstance", false}, {"memberClass", false}, {"memberCode", false}, {"subsystemCode", true}, {"serviceCode", false}, {"serviceVersion", true}} {
			if !e.optional || p.next() && p.tag.local == e.name {
				p.idPart(e.name)
			}
		}
		p.leave()
	}
	p.leave()
}

func (p *sharedParser) settings() {
	p.expect("globalSettings")
	p.enter("", "")
	classes := map[string]bool{}
	for p.at("memberClass") {
		c := p.memberClass()
		if classes[c.Code] && p.err == nil {
			p.fail("member class %q occurs twice", c.Code)
		}
		classes[c.Code] = true
		p.MemberClasses = append(p.MemberClasses, c)
	}
	p.OCSPFreshness = p.seconds(p.required("ocspFreshnessSeconds"), 1)
	p.leave()
}

// idPart reads one qualified element of an identifier.
func (d *scanner) idPart(local string) string {
	if d.err == nil && (!d.next() || d.tag.local != local || d.tag.space != nsID) && d.err == nil {
		d.fail("element id:%s expected", local)
	}
	d.enter("", "")
	return d.text()
}

// clientID reads an identifier of a member or subsystem; the start tag of its
// element is the next one.
func (d *scanner) clientID() id.Client {
	kind, _ := d.enter(nsID, "objectType")
	instance, class, code := d.idPart("xRoadInstance"), d.idPart("memberClass"), d.idPart("memberCode")
	m, err := id.NewMember(instance, class, code)
	c := m.Client()
	switch kind {
	case "MEMBER":
	case "SUBSYSTEM":
		sub := d.idPart("subsystemCode")
		if err == nil {
			c, err = id.NewClient(m, sub)
		}
	default:
		if d.err == nil {
			d.fail("object type %q is not MEMBER or SUBSYSTEM", kind)
		}
	}
	d.leave()
	if err != nil && d.err == nil {
		d.fail("%v", err)
	}
	if d.err != nil {
		return id.Client{}
	}
	return c
}

func (w *xmlWriter) clientID(name string, c id.Client) {
	kind := "SUBSYSTEM"
	if c.IsMember() {
		kind = "MEMBER"
	}
	w.begin(name, ` id:objectType="`+kind+`"`)
	w.leaf("id:xRoadInstance", c.Instance())
	w.leaf("id:memberClass", c.Member().Class())
	w.leaf("id:memberCode", c.Member().Code())
	if !c.IsMember() {
		w.leaf("id:subsystemCode", c.Subsystem())
	}
	w.end(name)
}
