// SPDX-License-Identifier: Apache-2.0

package tsa

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// signedData is a parsed time-stamp token (RFC 5652, section 5.1) with its one
// signer.
type signedData struct {
	raw     []byte // the whole ContentInfo in DER
	content []byte // DER of TSTInfo
	info    tstInfo
	signer  signerInfo

	// The pieces around the certificates, for adding one.
	before, after []byte
	certificates  [][]byte // DER elements, of any kind
}

// signerInfo is a parsed SignerInfo (RFC 5652, section 5.3).
type signerInfo struct {
	issuer []byte // DER, with serial; or else
	serial *big.Int
	keyID  []byte // the subject key identifier

	digest        crypto.Hash
	signed        []byte // the signed attributes as they were signed
	messageDigest []byte
	certHash      []byte // of the ESS signing certificate
	certHashAlg   crypto.Hash
	signatureAlg  []byte // DER
	plainRSA      bool   // signatureAlg names RSA and leaves the hash to digest
	signature     []byte
}

func (s *signerInfo) names(c *x509.Certificate) bool {
	if s.keyID != nil {
		return len(c.SubjectKeyId) > 0 && bytes.Equal(s.keyID, c.SubjectKeyId)
	}
	return s.serial.Cmp(c.SerialNumber) == 0 && bytes.Equal(s.issuer, c.RawIssuer)
}

func (s *signerInfo) String() string {
	if s.keyID != nil {
		return fmt.Sprintf("key %x", s.keyID)
	}
	return fmt.Sprintf("certificate number %x", s.serial)
}

// tstInfo is what of TSTInfo (RFC 3161, section 2.4.2) matters here.
type tstInfo struct {
	hash   crypto.Hash
	hashed []byte
	serial *big.Int
	time   time.Time
	nonce  *big.Int // nil if absent
}

// parseToken reads a time-stamp token, strictly but for the encoding, which may
// be BER.
func parseToken(b []byte) (*signedData, error) {
	der, err := toDER(b)
	if err != nil {
		return nil, err
	}
	return parseDERToken(der)
}

func parseDERToken(der []byte) (*signedData, error) {
	s := &signedData{raw: der}
	in := cryptobyte.String(der)
	var outer, wrapped, sd, encap, infos cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&outer, cbasn1.SEQUENCE) || !in.Empty() ||
		!outer.ReadASN1ObjectIdentifier(&oid) || !oid.Equal(oidSignedData) ||
		!outer.ReadASN1(&wrapped, explicit(0)) || !outer.Empty() ||
		!wrapped.ReadASN1(&sd, cbasn1.SEQUENCE) || !wrapped.Empty() {
		return nil, malformed("not CMS signed data")
	}
	body := sd
	var version int
	if !sd.ReadASN1Integer(&version) || !sd.SkipASN1(cbasn1.SET) || !sd.ReadASN1(&encap, cbasn1.SEQUENCE) {
		return nil, malformed("signed data")
	}
	if err := s.parseContent(encap); err != nil {
		return nil, err
	}
	s.before = body[:len(body)-len(sd)]
	var certs cryptobyte.String
	var has bool
	if !sd.ReadOptionalASN1(&certs, &has, explicit(0)) {
		return nil, malformed("certificates")
	}
	s.after = sd
	for !certs.Empty() {
		var c cryptobyte.String
		var tag cbasn1.Tag
		if !certs.ReadAnyASN1Element(&c, &tag) {
			return nil, malformed("certificates")
		}
		s.certificates = append(s.certificates, c)
	}
	if !sd.SkipOptionalASN1(explicit(1)) || !sd.ReadASN1(&infos, cbasn1.SET) || !sd.Empty() {
		return nil, malformed("signed data")
	}
	if err := s.signer.parse(&infos); err != nil {
		return nil, err
	}
	if !infos.Empty() {
		return nil, malformed("several signers")
	}
	return s, nil
}

// parseContent reads EncapsulatedContentInfo with a TSTInfo in it.
func (s *signedData) parseContent(encap cryptobyte.String) error {
	var oid asn1.ObjectIdentifier
	var wrapped, content cryptobyte.String
	if !encap.ReadASN1ObjectIdentifier(&oid) || !oid.Equal(oidTSTInfo) ||
		!encap.ReadASN1(&wrapped, explicit(0)) || !encap.Empty() ||
		!wrapped.ReadASN1(&content, cbasn1.OCTET_STRING) || !wrapped.Empty() {
		return malformed("content is not a time-stamp")
	}
	s.content = content
	return s.info.parse(content)
}

func (t *tstInfo) parse(s cryptobyte.String) error {
	var info, imprint, tsa, exts cryptobyte.String
	var policy asn1.ObjectIdentifier
	var version int
	var ordering, hasTSA, hasExts bool
	t.serial = new(big.Int)
	if !s.ReadASN1(&info, cbasn1.SEQUENCE) || !s.Empty() ||
		!info.ReadASN1Integer(&version) || version != 1 ||
		!info.ReadASN1ObjectIdentifier(&policy) ||
		!info.ReadASN1(&imprint, cbasn1.SEQUENCE) {
		return malformed("TSTInfo")
	}
	var err error
	if t.hash, t.hashed, err = parseImprint(imprint); err != nil {
		return err
	}
	if !info.ReadASN1Integer(t.serial) || !readTime(&info, &t.time) ||
		!info.SkipOptionalASN1(cbasn1.SEQUENCE) || // accuracy
		!readBoolean(&info, &ordering) {
		return malformed("TSTInfo")
	}
	if info.PeekASN1Tag(cbasn1.INTEGER) {
		t.nonce = new(big.Int)
		if !info.ReadASN1Integer(t.nonce) {
			return malformed("nonce")
		}
	}
	if !info.ReadOptionalASN1(&tsa, &hasTSA, explicit(0)) ||
		!info.ReadOptionalASN1(&exts, &hasExts, explicit(1)) || !info.Empty() {
		return malformed("TSTInfo")
	}
	if hasExts {
		critical, ok := readExtensions(exts)
		if !ok || critical {
			return malformed("extensions")
		}
	}
	return nil
}

// parseImprint reads the content of a MessageImprint. The error for an unknown
// algorithm is ErrImprint: data cannot be compared with it.
func parseImprint(s cryptobyte.String) (crypto.Hash, []byte, error) {
	oid, ok := readAlgorithm(&s)
	var hashed cryptobyte.String
	if !ok || !s.ReadASN1(&hashed, cbasn1.OCTET_STRING) || !s.Empty() {
		return 0, nil, malformed("imprint")
	}
	h := hashOf(oid)
	if h == 0 {
		return 0, nil, fmt.Errorf("%w: digest algorithm %v is not accepted", ErrImprint, oid)
	}
	if len(hashed) != h.Size() {
		return 0, nil, malformed("imprint of wrong length")
	}
	return h, hashed, nil
}

// readAlgorithm reads an AlgorithmIdentifier without parameters, or with NULL.
func readAlgorithm(s *cryptobyte.String) (asn1.ObjectIdentifier, bool) {
	var seq cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&oid) {
		return nil, false
	}
	return oid, seq.Empty() || bytes.Equal(seq, asn1.NullBytes)
}

// readBoolean reads a BOOLEAN DEFAULT FALSE.
func readBoolean(s *cryptobyte.String, b *bool) bool {
	*b = false
	return !s.PeekASN1Tag(cbasn1.BOOLEAN) || s.ReadASN1Boolean(b)
}

// readTime reads a GeneralizedTime with or without fraction (RFC 3161, 2.4.2),
// which the library does not.
func readTime(s *cryptobyte.String, t *time.Time) bool {
	var b cryptobyte.String
	if !s.ReadASN1(&b, cbasn1.GeneralizedTime) || len(b) > 32 {
		return false
	}
	text := string(b)
	seconds, fraction, dotted := strings.Cut(strings.TrimSuffix(text, "Z"), ".")
	if !strings.HasSuffix(text, "Z") || len(seconds) != 14 || dotted && (fraction == "" || len(fraction) > 9) ||
		strings.Trim(seconds+fraction, "0123456789") != "" {
		return false
	}
	var err error
	*t, err = time.Parse("20060102150405Z", text)
	return err == nil
}

// readExtensions steps over Extensions ([n] IMPLICIT) and reports whether one is
// critical.
func readExtensions(s cryptobyte.String) (critical, ok bool) {
	for !s.Empty() {
		var one, value cryptobyte.String
		var oid asn1.ObjectIdentifier
		var c bool
		if !s.ReadASN1(&one, cbasn1.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&oid) ||
			!readBoolean(&one, &c) ||
			!one.ReadASN1(&value, cbasn1.OCTET_STRING) || !one.Empty() {
			return false, false
		}
		critical = critical || c
	}
	return critical, true
}

// parse reads one SignerInfo.
func (s *signerInfo) parse(infos *cryptobyte.String) error {
	var info, sid, attrs, alg, signature cryptobyte.String
	var version int
	if !infos.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1Integer(&version) {
		return malformed("signer")
	}
	if info.PeekASN1Tag(cbasn1.Tag(0).ContextSpecific()) {
		var id cryptobyte.String
		if !info.ReadASN1(&id, cbasn1.Tag(0).ContextSpecific()) || len(id) == 0 {
			return malformed("signer identifier")
		}
		s.keyID = id
	} else {
		var issuer cryptobyte.String
		s.serial = new(big.Int)
		if !info.ReadASN1(&sid, cbasn1.SEQUENCE) || !sid.ReadASN1Element(&issuer, cbasn1.SEQUENCE) ||
			!sid.ReadASN1Integer(s.serial) || !sid.Empty() {
			return malformed("signer identifier")
		}
		s.issuer = issuer
	}
	oid, ok := readAlgorithm(&info)
	if !ok {
		return malformed("digest algorithm")
	}
	if s.digest = hashOf(oid); s.digest == 0 {
		return fmt.Errorf("%w: digest algorithm %v is not accepted", ErrSignature, oid)
	}
	var element cryptobyte.String
	if !info.ReadASN1Element(&element, explicit(0)) {
		return malformed("no signed attributes")
	}
	// They are signed with the tag of a SET, not with that of their place here.
	s.signed = append([]byte{0x31}, element[1:]...)
	if !element.ReadASN1(&attrs, explicit(0)) {
		return malformed("signed attributes")
	}
	if err := s.parseAttributes(attrs); err != nil {
		return err
	}
	if !info.ReadASN1Element(&alg, cbasn1.SEQUENCE) ||
		!info.ReadASN1(&signature, cbasn1.OCTET_STRING) ||
		!info.SkipOptionalASN1(explicit(1)) || !info.Empty() {
		return malformed("signer")
	}
	s.signatureAlg, s.signature = alg, signature
	oid, _ = readAlgorithm(&alg)
	s.plainRSA = oid.Equal(oidRSA)
	return nil
}

// parseAttributes reads the signed attributes: content type, message digest and
// ESS signing certificate must be there, none may be twice.
func (s *signerInfo) parseAttributes(attrs cryptobyte.String) error {
	var seen []asn1.ObjectIdentifier
	var contentType bool
	for !attrs.Empty() {
		var attr, values cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !attrs.ReadASN1(&attr, cbasn1.SEQUENCE) || !attr.ReadASN1ObjectIdentifier(&oid) ||
			!attr.ReadASN1(&values, cbasn1.SET) || !attr.Empty() {
			return malformed("signed attribute")
		}
		if slices.ContainsFunc(seen, oid.Equal) {
			return malformed("signed attribute twice")
		}
		seen = append(seen, oid)
		ok := true
		switch {
		case oid.Equal(oidContentType):
			var t asn1.ObjectIdentifier
			ok = values.ReadASN1ObjectIdentifier(&t) && values.Empty() && t.Equal(oidTSTInfo)
			contentType = ok
		case oid.Equal(oidMessageDigest):
			var d cryptobyte.String
			ok = values.ReadASN1(&d, cbasn1.OCTET_STRING) && values.Empty()
			s.messageDigest = d
		case oid.Equal(oidSigningCertV2):
			ok = s.parseSigningCertificate(values, true)
		case oid.Equal(oidSigningCert) && s.certHashAlg == 0:
			ok = s.parseSigningCertificate(values, false)
		}
		if !ok {
			return malformed(fmt.Sprintf("signed attribute %v", oid))
		}
	}
	if !contentType || s.messageDigest == nil || s.certHashAlg == 0 {
		return malformed("a signed attribute is missing")
	}
	return nil
}

// parseSigningCertificate reads the hash of the first certificate, the signer's,
// of SigningCertificate (RFC 2634) or SigningCertificateV2 (RFC 5035). The
// second wins where both are present.
func (s *signerInfo) parseSigningCertificate(values cryptobyte.String, v2 bool) bool {
	var sc, certs, first, hash cryptobyte.String
	if !values.ReadASN1(&sc, cbasn1.SEQUENCE) || !values.Empty() ||
		!sc.ReadASN1(&certs, cbasn1.SEQUENCE) || !certs.ReadASN1(&first, cbasn1.SEQUENCE) {
		return false
	}
	alg := crypto.SHA1
	if v2 {
		alg = crypto.SHA256
		if first.PeekASN1Tag(cbasn1.SEQUENCE) {
			oid, ok := readAlgorithm(&first)
			if alg = hashOf(oid); !ok || alg == 0 {
				return false
			}
		}
	}
	if !first.ReadASN1(&hash, cbasn1.OCTET_STRING) || len(hash) != alg.Size() {
		return false
	}
	s.certHash, s.certHashAlg = hash, alg
	return true
}

// embed returns the token in DER with the certificate among its certificates.
// Nothing signed changes.
func (s *signedData) embed(c *x509.Certificate) ([]byte, error) {
	certs := s.certificates
	if !slices.ContainsFunc(certs, func(b []byte) bool { return bytes.Equal(b, c.Raw) }) {
		certs = append(slices.Clone(certs), c.Raw)
	}
	slices.SortFunc(certs, bytes.Compare) // the order of a SET in DER
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSignedData)
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddBytes(s.before)
				b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
					for _, c := range certs {
						b.AddBytes(c)
					}
				})
				b.AddBytes(s.after)
			})
		})
	})
	return b.Bytes()
}

// maxDepth bounds the nesting of BER; tokens with certificates reach some 15.
const maxDepth = 32

// toDER rewrites BER with definite, minimal lengths and whole octet strings.
// Some authorities send indefinite lengths. DER stays as it is.
func toDER(b []byte) ([]byte, error) {
	if len(b) > maxToken {
		return nil, malformed(fmt.Sprintf("longer than %d bytes", maxToken))
	}
	var out cryptobyte.Builder
	rest, ok := transcode(&out, b, maxDepth)
	if !ok || len(rest) > 0 {
		return nil, malformed("encoding")
	}
	der, err := out.Bytes()
	if err != nil {
		return nil, malformed("encoding")
	}
	return der, nil
}

// transcode rewrites the first element of b and returns what follows it.
func transcode(out *cryptobyte.Builder, b []byte, depth int) (rest []byte, ok bool) {
	tag, content, rest, indefinite, ok := element(b)
	if !ok || depth == 0 {
		return nil, false
	}
	constructed := tag&0x20 != 0
	if !constructed {
		out.AddASN1(cbasn1.Tag(tag), func(out *cryptobyte.Builder) { out.AddBytes(content) })
		return rest, true
	}
	whole := tag == 0x24 // an octet string in pieces
	if whole {
		tag = 0x04
	}
	out.AddASN1(cbasn1.Tag(tag), func(out *cryptobyte.Builder) {
		for {
			if indefinite && len(content) >= 2 && content[0] == 0 && content[1] == 0 {
				rest = content[2:]
				return
			}
			if len(content) == 0 {
				ok = !indefinite
				return
			}
			if whole {
				// Pieces of pieces are legal and never seen: refused.
				piece, inner, after, endless, good := element(content)
				if !good || piece != 0x04 || endless {
					ok = false
					return
				}
				out.AddBytes(inner)
				content = after
			} else if content, ok = transcode(out, content, depth-1); !ok {
				return
			}
		}
	})
	return rest, ok
}

// element splits off the header of the first element. With an indefinite length
// content is all that follows, up to the end of b.
func element(b []byte) (tag byte, content, rest []byte, indefinite, ok bool) {
	if len(b) < 2 || b[0]&0x1f == 0x1f || b[0] == 0 {
		return 0, nil, nil, false, false
	}
	tag, n, b := b[0], int(b[1]), b[2:]
	switch {
	case n == 0x80:
		return tag, b, nil, true, tag&0x20 != 0
	case n > 0x80:
		size := n & 0x7f
		if size > 4 || size > len(b) {
			return 0, nil, nil, false, false
		}
		n = 0
		for _, c := range b[:size] {
			n = n<<8 | int(c)
		}
		b = b[size:]
	}
	if n < 0 || n > len(b) {
		return 0, nil, nil, false, false
	}
	return tag, b[:n], b[n:], false, true
}
