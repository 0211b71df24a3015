// SPDX-License-Identifier: Apache-2.0

package asic

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"kontor/pki/tsa"
)

// A time-stamp and a signature do not cover all bytes that carry them: tags
// may be spaced otherwise, unused certificates may follow, Ids nobody refers
// to may change. An auditor should not have to wonder about such bytes, so
// this file refuses whatever nothing vouches for.

// formScanner walks a signature document in the spelling that X-Road's and
// DSS's writers share: one blank between attributes, double quotes, no
// comments, line ends only between elements and inside base64.
type formScanner struct {
	in    string
	path  []string
	id    string // of the Signature
	count map[string]int
}

var formHead = regexp.MustCompile(`^(<\?xml version="1\.0" encoding="UTF-8"( standalone="(no|yes)")?\?>\n?)?<`)

// knownPrefixes are the namespaces a document may declare. Canonical forms
// need not cover those that are not used.
var knownPrefixes = map[string][]string{
	"xmlns:asic":  {"http://uri.etsi.org/02918/v1.2.1#", "http://uri.etsi.org/02918/v1.1.1#"},
	"xmlns:ds":    {nsDSig},
	"xmlns:xades": {"http://uri.etsi.org/01903/v1.3.2#"},
	"xmlns:xsi":   {"http://www.w3.org/2001/XMLSchema-instance"},
}

var errSpelling = errors.New("unusual spelling that nothing vouches for")

// checkForm refuses signature documents that could be spelt otherwise without
// the signature noticing.
func checkForm(doc []byte) error {
	s := &formScanner{in: string(doc), count: make(map[string]int)}
	head := formHead.FindString(s.in)
	if head == "" {
		return fmt.Errorf("%w: XML declaration", errSpelling)
	}
	s.in = s.in[len(head)-1:]
	for first := true; first || len(s.path) > 0; first = false {
		if err := s.tag(); err != nil {
			return err
		}
		if len(s.path) > 0 {
			if err := s.text(); err != nil {
				return err
			}
		}
	}
	if s.in != "" && s.in != "\n" {
		return fmt.Errorf("%w: after the document", errSpelling)
	}
	return nil
}

var (
	startTag  = regexp.MustCompile(`^<([A-Za-z0-9]+:[A-Za-z0-9]+)((?: [A-Za-z0-9]+(?::[A-Za-z0-9]+)?="[^"<\t\r\n]*")*)(/?)>`)
	endTag    = regexp.MustCompile(`^</([A-Za-z0-9]+:[A-Za-z0-9]+)>`)
	attribute = regexp.MustCompile(` ([A-Za-z0-9:]+)="([^"]*)"`)
	lines64   = regexp.MustCompile(`^\n?[A-Za-z0-9+/=]+(?:(?:&#13;)?\n[A-Za-z0-9+/=]+)*\n?$`)
)

func (s *formScanner) tag() error {
	if m := endTag.FindStringSubmatch(s.in); m != nil {
		if len(s.path) == 0 || s.path[len(s.path)-1] != m[1] {
			return fmt.Errorf("%w: end of %s", errSpelling, m[1])
		}
		s.path, s.in = s.path[:len(s.path)-1], s.in[len(m[0]):]
		return nil
	}
	m := startTag.FindStringSubmatch(s.in)
	if m == nil || len(s.path) > 32 {
		return fmt.Errorf("%w: tag %.60q", errSpelling, s.in)
	}
	s.in = s.in[len(m[0]):]
	s.path = append(s.path, m[1])
	for _, a := range attribute.FindAllStringSubmatch(m[2], -1) {
		if err := s.attribute(m[1], a[1], a[2]); err != nil {
			return err
		}
	}
	if m[3] != "" {
		s.path = s.path[:len(s.path)-1]
	}
	return nil
}

// signed reports whether the current element lies in what the signature
// covers.
func (s *formScanner) signed() bool {
	return slices.Contains(s.path, "ds:SignedInfo") || slices.Contains(s.path, "xades:SignedProperties")
}

func (s *formScanner) attribute(element, name, value string) error {
	if uris, ok := knownPrefixes[name]; ok && slices.Contains(uris, value) {
		return nil
	}
	if s.signed() {
		return nil
	}
	numbered := func(prefix string) bool {
		s.count[element]++
		return value == prefix+strconv.Itoa(s.count[element])
	}
	ok := false
	switch element + " " + name {
	case "ds:Signature Id":
		s.id, ok = value, true // Target must agree
	case "xades:QualifyingProperties Target":
		ok = value == "#"+s.id
	case "ds:SignatureValue Id":
		ok = value == "signature-value" || value == "value-"+s.id
	case "xades:CompleteCertificateRefs Id":
		ok = value == "complete-certificate-refs"
	case "xades:Cert URI":
		ok = numbered("#encapsulated-cert-")
	case "xades:EncapsulatedX509Certificate Id":
		ok = numbered("encapsulated-cert-")
	case "xades:EncapsulatedOCSPValue Id":
		ok = numbered("ocsp-response-")
	case "ds:DigestMethod Algorithm":
		_, ok = algorithmByURI(value)
	}
	if !ok {
		return fmt.Errorf("%w: %s of %s is %.80q", errSpelling, name, element, value)
	}
	return nil
}

func (s *formScanner) text() error {
	n := strings.IndexByte(s.in, '<')
	if n < 0 {
		return fmt.Errorf("%w: unfinished document", errSpelling)
	}
	text := s.in[:n]
	s.in = s.in[n:]
	if s.signed() || text == "" || text == "\n" {
		return nil
	}
	switch s.path[len(s.path)-1] {
	case "ds:X509IssuerName", "ds:X509SerialNumber":
		return nil
	}
	if !lines64.MatchString(text) {
		return fmt.Errorf("%w: text in %s", errSpelling, s.path[len(s.path)-1])
	}
	return nil
}

var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTSTInfo       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidRSAEncryption = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
)

// cmsAlgorithms says which signature algorithms go with which digests, where
// the signature algorithm names one (RFC 5754, RFC 5753).
var cmsAlgorithms = map[string]string{
	"1.2.840.113549.1.1.5":  "1.3.14.3.2.26",
	"1.2.840.113549.1.1.11": "2.16.840.1.101.3.4.2.1",
	"1.2.840.113549.1.1.12": "2.16.840.1.101.3.4.2.2",
	"1.2.840.113549.1.1.13": "2.16.840.1.101.3.4.2.3",
	"1.2.840.10045.4.3.2":   "2.16.840.1.101.3.4.2.1",
	"1.2.840.10045.4.3.3":   "2.16.840.1.101.3.4.2.2",
	"1.2.840.10045.4.3.4":   "2.16.840.1.101.3.4.2.3",
}

var errToken = errors.New("the time-stamp token holds something its signature does not cover")

func tokenError(what string) error { return fmt.Errorf("%w: %s", errToken, what) }

// checkToken looks at the parts of a verified token that neither its imprint
// nor its signature cover (RFC 5652, section 5.1).
func checkToken(der []byte, t *tsa.Token, approved []*x509.Certificate) error {
	tag := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
	var info, content, sd, digests, encap, certs, infos, signer, sid cryptobyte.String
	var digestAlg, signatureAlg, oidAlg, oidSig cryptobyte.String
	var oid, digestOID, signatureOID asn1.ObjectIdentifier
	var version, signerVersion int
	var hasCerts bool
	var sidTag cbasn1.Tag
	s := cryptobyte.String(der)
	ok := s.ReadASN1(&info, cbasn1.SEQUENCE) && s.Empty() &&
		info.ReadASN1ObjectIdentifier(&oid) && oid.Equal(oidSignedData) &&
		info.ReadASN1(&content, tag(0)) && info.Empty() &&
		content.ReadASN1(&sd, cbasn1.SEQUENCE) && content.Empty() &&
		sd.ReadASN1Integer(&version) && version == 3 &&
		sd.ReadASN1(&digests, cbasn1.SET) &&
		sd.ReadASN1(&encap, cbasn1.SEQUENCE) &&
		encap.ReadASN1ObjectIdentifier(&oid) && oid.Equal(oidTSTInfo) &&
		sd.ReadOptionalASN1(&certs, &hasCerts, tag(0)) &&
		sd.ReadASN1(&infos, cbasn1.SET) && sd.Empty() &&
		infos.ReadASN1(&signer, cbasn1.SEQUENCE) && infos.Empty() &&
		signer.ReadASN1Integer(&signerVersion) &&
		signer.ReadAnyASN1Element(&sid, &sidTag) &&
		signer.ReadASN1Element(&digestAlg, cbasn1.SEQUENCE) &&
		signer.SkipASN1(tag(0)) &&
		signer.ReadASN1Element(&signatureAlg, cbasn1.SEQUENCE) &&
		signer.SkipASN1(cbasn1.OCTET_STRING) && signer.Empty()
	if !ok {
		return tokenError("structure")
	}
	if sidTag == cbasn1.SEQUENCE && signerVersion != 1 || sidTag != cbasn1.SEQUENCE && signerVersion != 3 {
		return tokenError("signer version")
	}
	if !bytes.Equal(digests, digestAlg) {
		return tokenError("digest algorithms")
	}
	oidAlg, oidSig = digestAlg, signatureAlg
	if !algorithmOID(&oidAlg, &digestOID) || !algorithmOID(&oidSig, &signatureOID) {
		return tokenError("algorithm parameters")
	}
	if !signatureOID.Equal(oidRSAEncryption) && cmsAlgorithms[signatureOID.String()] != digestOID.String() {
		return tokenError("signature algorithm")
	}
	return checkTokenCertificates(certs, t.Signer, approved)
}

// algorithmOID reads an AlgorithmIdentifier without parameters or with NULL.
func algorithmOID(s *cryptobyte.String, oid *asn1.ObjectIdentifier) bool {
	var seq cryptobyte.String
	return s.ReadASN1(&seq, cbasn1.SEQUENCE) && seq.ReadASN1ObjectIdentifier(oid) &&
		(seq.Empty() || bytes.Equal(seq, asn1.NullBytes))
}

func checkTokenCertificates(list cryptobyte.String, signer *x509.Certificate, approved []*x509.Certificate) error {
	known := append([]*x509.Certificate{signer}, approved...)
	return checkEmbedded(list, known)
}

// checkEmbedded demands that every certificate of a list is one of known, or
// is vouched for by the signature of one of these or of the list.
func checkEmbedded(list cryptobyte.String, known []*x509.Certificate) error {
	const most = 16
	var embedded []*x509.Certificate
	for !list.Empty() {
		var raw cryptobyte.String
		if len(embedded) == most || !list.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
			return tokenError("certificates")
		}
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			return tokenError("a certificate that cannot be read")
		}
		embedded = append(embedded, c)
	}
	for _, c := range embedded {
		if slices.ContainsFunc(known, c.Equal) {
			continue
		}
		if !slices.ContainsFunc(append(slices.Clone(known), embedded...), func(issuer *x509.Certificate) bool {
			return bytes.Equal(c.RawIssuer, issuer.RawSubject) &&
				issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
		}) {
			return tokenError(fmt.Sprintf("a certificate of %q nobody vouches for", c.Subject))
		}
	}
	return nil
}

// checkUnsigned looks at the unsigned properties of a document that no
// time-stamp covers as a whole: every certificate and OCSP response must serve.
func (j *judge) checkUnsigned(chain *chainVerdict) error {
	for _, extra := range j.sig.Extras() {
		if !slices.ContainsFunc(chain.Certs, extra.Equal) && !slices.ContainsFunc(chain.Issuers, extra.Equal) {
			return fmt.Errorf("the certificate of %q does not belong to the chain", extra.Subject)
		}
	}
	if len(j.sig.OCSPResponses()) != len(chain.Certs) {
		return fmt.Errorf("%d OCSP responses for %d certificates", len(j.sig.OCSPResponses()), len(chain.Certs))
	}
	for _, der := range j.sig.OCSPResponses() {
		list, err := ocspCertificates(der)
		if err != nil {
			return err
		}
		var known []*x509.Certificate
		for _, issuer := range chain.Issuers {
			r := j.trust.OCSPResponders(chain.Anchor.Instance, issuer)
			known = slices.Concat(known, []*x509.Certificate{issuer}, r.Authorised, r.Known)
		}
		if err := checkEmbedded(list, known); err != nil {
			return fmt.Errorf("OCSP response: %w", err)
		}
	}
	return nil
}

// ocspCertificates returns the certificates in a verified OCSP response, as a
// list of DER values (RFC 6960, section 4.2.1).
func ocspCertificates(der []byte) (cryptobyte.String, error) {
	tag := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
	var outer, bytes0, rb, basicDER, basic, certs, list cryptobyte.String
	var has bool
	s := cryptobyte.String(der)
	ok := s.ReadASN1(&outer, cbasn1.SEQUENCE) && outer.SkipASN1(cbasn1.ENUM) &&
		outer.ReadASN1(&bytes0, tag(0)) && bytes0.ReadASN1(&rb, cbasn1.SEQUENCE) &&
		rb.SkipASN1(cbasn1.OBJECT_IDENTIFIER) && rb.ReadASN1(&basicDER, cbasn1.OCTET_STRING) &&
		basicDER.ReadASN1(&basic, cbasn1.SEQUENCE) &&
		basic.SkipASN1(cbasn1.SEQUENCE) && basic.SkipASN1(cbasn1.SEQUENCE) && basic.SkipASN1(cbasn1.BIT_STRING) &&
		basic.ReadOptionalASN1(&certs, &has, tag(0))
	if ok && has {
		ok = certs.ReadASN1(&list, cbasn1.SEQUENCE)
	}
	if !ok {
		return nil, errors.New("OCSP response cannot be read")
	}
	return list, nil
}
