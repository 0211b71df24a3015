// SPDX-License-Identifier: Apache-2.0

package ocsp

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"kontor/pki"
)

// DefaultFreshness is X-Road's default of ocspFreshnessSeconds.
const DefaultFreshness = time.Hour

const (
	// maxAhead is how far a responder's clock may run ahead of ours.
	maxAhead = 5 * time.Minute
	// maxEmbedded bounds the certificates of a response that are considered.
	maxEmbedded = 8
)

// Policy says how old a response may be.
type Policy struct {
	Freshness        time.Duration // age at which a response is stale; DefaultFreshness if not positive
	IgnoreNextUpdate bool          // accept a response past its own next update
}

func (p Policy) check(r *Response, at time.Time) error {
	freshness := p.Freshness
	if freshness <= 0 {
		freshness = DefaultFreshness
	}
	switch {
	case r.ThisUpdate.Before(at.Add(-freshness)):
		return fmt.Errorf("%w: it is of %s, more than %s before", ErrStale, r.ThisUpdate.Format(time.RFC3339), freshness)
	case !p.IgnoreNextUpdate && !r.NextUpdate.IsZero() && r.NextUpdate.Before(at):
		return fmt.Errorf("%w: an update was due at %s", ErrStale, r.NextUpdate.Format(time.RFC3339))
	}
	return checkAhead(r.ThisUpdate, at)
}

func checkAhead(thisUpdate, at time.Time) error {
	if thisUpdate.After(at.Add(maxAhead)) {
		return fmt.Errorf("%w: it is of %s, in the future", ErrStale, thisUpdate.Format(time.RFC3339))
	}
	return nil
}

// Responders are the certificates that may have signed a response.
type Responders struct {
	Authorised []*x509.Certificate // listed for the issuing authority: trusted as they are
	Known      []*x509.Certificate // others, trusted only if the issuing authority delegated to them
}

// Response is a verified response that says the certificate is good.
type Response struct {
	Raw        []byte
	ThisUpdate time.Time
	NextUpdate time.Time // zero if absent
	ProducedAt time.Time
}

// Verify checks that der says, as of the instant at, that leaf is good:
//
//   - its first single response, the only one read, is about leaf as issued by
//     issuer, identified by SHA-1;
//   - it is signed by a certificate that its responder ID names, and that is
//     listed for the issuing authority, is issuer itself, or was issued by
//     issuer for OCSP signing and was valid then;
//   - it was at most as old as p allows, no later than five minutes ahead, and
//     not past its next update;
//   - the status is good.
//
// Errors are those of this package. The leaf's own path is not judged. Source:
// RFC 6960, section 3.2; X-Road's rules on which responders are authorised and
// how fresh responses must be.
func Verify(der []byte, leaf, issuer *x509.Certificate, r Responders, at time.Time, p Policy) (*Response, error) {
	b, err := parseBasic(der)
	if err != nil {
		return nil, err
	}
	if err := b.concerns(leaf, issuer); err != nil {
		return nil, err
	}
	if err := b.authorised(issuer, r, at); err != nil {
		return nil, err
	}
	resp := &Response{Raw: der, ThisUpdate: b.thisUpdate, NextUpdate: b.nextUpdate, ProducedAt: b.producedAt}
	if err := p.check(resp, at); err != nil {
		return nil, err
	}
	switch b.state {
	case Good:
		return resp, nil
	case Revoked:
		return nil, fmt.Errorf("%w since %s", ErrRevoked, b.revokedAt.Format(time.RFC3339))
	}
	return nil, ErrUnknown
}

// basic is a parsed BasicOCSPResponse with its first single response.
type basic struct {
	tbs          []byte // the signed bytes
	name         []byte // responder ID, either DER name
	keyHash      []byte // or SHA-1 of the key
	producedAt   time.Time
	id           certID
	state        State
	revokedAt    time.Time
	thisUpdate   time.Time
	nextUpdate   time.Time
	algorithm    x509.SignatureAlgorithm
	signature    []byte
	certificates [][]byte
}

// concerns checks that the response is about leaf.
func (b *basic) concerns(leaf, issuer *x509.Certificate) error {
	if b.id.hash != crypto.SHA1 || b.id.serial.Cmp(leaf.SerialNumber) != 0 || !b.id.issuedBy(issuer) {
		return ErrMismatch
	}
	return nil
}

// authorised looks for a certificate that may have signed the response and did.
func (b *basic) authorised(issuer *x509.Certificate, r Responders, at time.Time) error {
	tried := false
	try := func(c *x509.Certificate) bool {
		tried = true
		return c.CheckSignature(b.algorithm, b.tbs, b.signature) == nil
	}
	// Trusted without further ado: the issuer and what is listed for it.
	if b.names(issuer) && try(issuer) {
		return nil
	}
	for _, c := range r.Authorised {
		if b.names(c) && try(c) {
			return nil
		}
	}
	refused := errors.New("no certificate fits its responder ID")
	if tried {
		refused = errors.New("its signature is wrong")
	}
	delegate := func(c *x509.Certificate) bool {
		if err := delegated(c, issuer, at); err != nil {
			refused = err
			return false
		}
		if !try(c) {
			refused = errors.New("its signature is wrong")
			return false
		}
		return true
	}
	for _, c := range r.Known {
		if b.names(c) && delegate(c) {
			return nil
		}
	}
	for i, raw := range b.certificates {
		if i == maxEmbedded {
			break
		}
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			continue // foreign certificates need not all be readable
		}
		if b.names(c) && delegate(c) {
			return nil
		}
	}
	return fmt.Errorf("%w: %w", ErrUntrusted, refused)
}

// names reports whether the responder ID names c.
func (b *basic) names(c *x509.Certificate) bool {
	if b.name != nil {
		return bytes.Equal(b.name, c.RawSubject)
	}
	key, ok := keyBits(c)
	return ok && bytes.Equal(b.keyHash, digest(crypto.SHA1, key))
}

// delegated checks that issuer issued c for OCSP signing (RFC 6960, 4.2.2.2).
func delegated(c, issuer *x509.Certificate, at time.Time) error {
	switch {
	case !bytes.Equal(c.RawIssuer, issuer.RawSubject):
		return fmt.Errorf("%q is not from the same authority", c.Subject)
	case !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return fmt.Errorf("%q is not for OCSP signing", c.Subject)
	case at.Before(c.NotBefore) || at.After(c.NotAfter):
		return fmt.Errorf("%q was not valid", c.Subject)
	case len(c.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("%q has the unknown critical extension %v", c.Subject, c.UnhandledCriticalExtensions[0])
	}
	if err := c.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("%q is not from the same authority: %w", c.Subject, err)
	}
	return nil
}

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// parseBasic reads an OCSPResponse strictly as DER. Of the single responses it
// reads the first and only steps over the others.
func parseBasic(der []byte) (*basic, error) {
	if len(der) > maxResponse {
		return nil, malformed(fmt.Sprintf("longer than %d bytes", maxResponse))
	}
	status, content, err := parseOuter(der)
	if err != nil {
		return nil, err
	}
	if status != statusSuccessful {
		return nil, fmt.Errorf("%w: it answered %s", ErrUnavailable, status)
	}
	var seq, alg, certs, list cryptobyte.String
	var hasCerts bool
	b := new(basic)
	if !content.ReadASN1(&seq, cbasn1.SEQUENCE) || !content.Empty() {
		return nil, malformed("basic response")
	}
	var tbs cryptobyte.String
	if !seq.ReadASN1Element(&tbs, cbasn1.SEQUENCE) ||
		!seq.ReadASN1Element(&alg, cbasn1.SEQUENCE) ||
		!seq.ReadASN1BitStringAsBytes(&b.signature) ||
		!seq.ReadOptionalASN1(&certs, &hasCerts, tagExplicit(0)) || !seq.Empty() {
		return nil, malformed("basic response")
	}
	b.tbs = tbs
	if b.algorithm, err = pki.ParseSignatureAlgorithm(alg); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if hasCerts {
		if !certs.ReadASN1(&list, cbasn1.SEQUENCE) || !certs.Empty() {
			return nil, malformed("certificates")
		}
		for !list.Empty() {
			var c cryptobyte.String
			if !list.ReadASN1Element(&c, cbasn1.SEQUENCE) {
				return nil, malformed("certificates")
			}
			b.certificates = append(b.certificates, c)
		}
	}
	return b, b.parseData(tbs)
}

// parseOuter reads the status and, if it is successful, the basic response.
func parseOuter(der []byte) (status responseStatus, content cryptobyte.String, err error) {
	s := cryptobyte.String(der)
	var seq, outer, rb cryptobyte.String
	var n int
	var has bool
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || !seq.ReadASN1Enum(&n) ||
		!seq.ReadOptionalASN1(&outer, &has, tagExplicit(0)) || !seq.Empty() {
		return 0, nil, malformed("outer structure")
	}
	status = responseStatus(n)
	if status != statusSuccessful {
		return status, nil, nil
	}
	if !has || !outer.ReadASN1(&rb, cbasn1.SEQUENCE) || !outer.Empty() {
		return 0, nil, malformed("no response bytes")
	}
	var oid asn1.ObjectIdentifier
	if !rb.ReadASN1ObjectIdentifier(&oid) || !oid.Equal(oidBasic) {
		return 0, nil, malformed("not a basic response")
	}
	if !rb.ReadASN1(&content, cbasn1.OCTET_STRING) || !rb.Empty() {
		return 0, nil, malformed("response bytes")
	}
	return status, content, nil
}

// parseData reads ResponseData.
func (b *basic) parseData(s cryptobyte.String) error {
	var data, version, responder, responses, exts cryptobyte.String
	var tag cbasn1.Tag
	var hasVersion, hasExts bool
	if !s.ReadASN1(&data, cbasn1.SEQUENCE) || !data.ReadOptionalASN1(&version, &hasVersion, tagExplicit(0)) {
		return malformed("response data")
	}
	var v int
	if hasVersion && (!version.ReadASN1Integer(&v) || !version.Empty() || v != 0) {
		return malformed("version")
	}
	if !data.ReadAnyASN1(&responder, &tag) {
		return malformed("responder ID")
	}
	switch tag {
	case tagExplicit(1):
		name := responder
		if !name.SkipASN1(cbasn1.SEQUENCE) || !name.Empty() {
			return malformed("responder name")
		}
		b.name = responder
	case tagExplicit(2):
		var key cryptobyte.String
		if !responder.ReadASN1(&key, cbasn1.OCTET_STRING) || !responder.Empty() || len(key) != crypto.SHA1.Size() {
			return malformed("responder key hash")
		}
		b.keyHash = key
	default:
		return malformed("responder ID")
	}
	if !readTime(&data, &b.producedAt) || !data.ReadASN1(&responses, cbasn1.SEQUENCE) ||
		!data.ReadOptionalASN1(&exts, &hasExts, tagExplicit(1)) || !data.Empty() {
		return malformed("response data")
	}
	if hasExts {
		if err := checkExtensions(exts); err != nil {
			return err
		}
	}
	if err := b.parseSingle(&responses); err != nil {
		return err
	}
	for !responses.Empty() {
		if !responses.SkipASN1(cbasn1.SEQUENCE) {
			return malformed("single responses")
		}
	}
	return nil
}

// parseSingle reads the first SingleResponse.
func (b *basic) parseSingle(responses *cryptobyte.String) error {
	var single, status, next, exts cryptobyte.String
	var tag cbasn1.Tag
	var hasNext, hasExts bool
	if !responses.ReadASN1(&single, cbasn1.SEQUENCE) || !readCertID(&single, &b.id) {
		return malformed("certificate identifier")
	}
	if !single.ReadAnyASN1(&status, &tag) {
		return malformed("certificate status")
	}
	switch tag {
	case cbasn1.Tag(0).ContextSpecific():
		b.state = Good
	case cbasn1.Tag(1).ContextSpecific().Constructed():
		b.state = Revoked
		if !readTime(&status, &b.revokedAt) || !status.SkipOptionalASN1(tagExplicit(0)) {
			return malformed("revocation")
		}
	case cbasn1.Tag(2).ContextSpecific():
		b.state = Unknown
	default:
		return malformed("certificate status")
	}
	if !status.Empty() {
		return malformed("certificate status")
	}
	if !readTime(&single, &b.thisUpdate) ||
		!single.ReadOptionalASN1(&next, &hasNext, tagExplicit(0)) ||
		!single.ReadOptionalASN1(&exts, &hasExts, tagExplicit(1)) || !single.Empty() {
		return malformed("single response")
	}
	if hasNext && (!readTime(&next, &b.nextUpdate) || !next.Empty()) {
		return malformed("next update")
	}
	if hasExts {
		return checkExtensions(exts)
	}
	return nil
}

// checkExtensions refuses critical extensions: none has a meaning here.
func checkExtensions(s cryptobyte.String) error {
	exts, ok := readExtensions(s)
	if !ok {
		return malformed("extensions")
	}
	for _, e := range exts {
		if e.critical {
			return malformed(fmt.Sprintf("unknown critical extension %v", e.oid))
		}
	}
	return nil
}
