// SPDX-License-Identifier: Apache-2.0

package xades

import (
	"bytes"
	"crypto"
	"strconv"
	"time"
	"unicode/utf8"
)

// scanner reads a document in our own form. All its methods return false or nil
// where the form is left; what the document is then, the tree reader decides.
type scanner struct {
	doc  []byte
	at   int
	room []byte // what is decoded goes here, as far as there is room
}

// lit demands the literal text.
func (s *scanner) lit(text string) bool {
	if end := s.at + len(text); end <= len(s.doc) && string(s.doc[s.at:end]) == text {
		s.at = end
		return true
	}
	return false
}

// until returns the bytes before the next c, nil if there is none.
func (s *scanner) until(c byte) []byte {
	n := bytes.IndexByte(s.doc[s.at:], c)
	if n < 0 {
		return nil
	}
	s.at += n
	return s.doc[s.at-n : s.at]
}

// value decodes base64 up to the next tag and demands the literal end.
func (s *scanner) value(end string) []byte {
	text := s.until('<')
	if strictBase64.DecodedLen(len(text)) > cap(s.room) {
		s.room = make([]byte, 0, strictBase64.DecodedLen(len(text)))
	}
	b, err := decodeBase64(s.room, text)
	if err != nil || !s.lit(end) {
		return nil
	}
	s.room = s.room[len(b):len(b)]
	return b[:len(b):len(b)]
}

// digest is value for a SHA-512 digest.
func (s *scanner) digest(end string) []byte {
	if b := s.value(end); len(b) == crypto.SHA512.Size() {
		return b
	}
	return nil
}

// certReference reads what certReference in sign.go wrote, and returns the
// digest.
func (s *scanner) certReference() []byte {
	if !s.lit(litCertDigest) {
		return nil
	}
	digest := s.digest(litIssuer)
	if digest == nil || !plainText(s.until('<')) || !s.lit(litSerial) || !integer(s.until('<')) || !s.lit(litSerialEnd) {
		return nil
	}
	return digest
}

// scan reads a document in our own form, nil if it is anything else.
func (p *Parser) scan(doc []byte) *Signature {
	s := &scanner{doc: doc}
	if !s.lit(litHead) {
		return nil
	}
	sig := &Signature{prefix: "xades:"}
	s.room = sig.valueRoom[:0]
	sig.refs, sig.ocsp, sig.ocspSums = sig.refsRoom[:0], sig.ocspRoom[:0], sig.ocspSumsRoom[:0]

	// SignedInfo
	if !s.lit(litMethod) {
		return nil
	}
	switch {
	case s.lit(methodECDSA):
		sig.method = &signatureMethods[1]
	case s.lit(methodRSA):
		sig.method = &signatureMethods[0]
	default:
		return nil
	}
	if !s.lit(litURI) {
		return nil
	}
	text := s.until('"')
	if !plainURI(text) {
		return nil
	}
	ref := Reference{URI: uriString(text), DigestMethod: DigestSHA512}
	if !s.lit(litDigestMethod) || !s.lit(DigestSHA512) || !s.lit(litDigest) {
		return nil
	}
	if ref.Digest = s.digest(litPropsDigest); ref.Digest == nil {
		return nil
	}
	sig.refs = append(sig.refs, ref)
	if sig.propsWant = s.digest(litInfoEnd); sig.propsWant == nil {
		return nil
	}
	infoEnd := s.at

	// SignatureValue, KeyInfo
	if !s.lit(litValue) {
		return nil
	}
	if sig.value = s.value(litCert); sig.value == nil {
		return nil
	}
	var err error
	if sig.cert, err = p.certificate(s.until('<')); err != nil || !s.lit(litObject) {
		return nil
	}

	// SignedProperties
	propsAt := s.at
	if !s.lit(litTime) {
		return nil
	}
	text = s.until('<')
	if len(text) != len(timeLayout) || text[19] != '.' { // time.Parse takes a comma, too
		return nil
	}
	if sig.time, err = time.Parse(timeLayout, string(text)); err != nil || !s.lit(litSigner) {
		return nil
	}
	if sig.certWant = s.certReference(); sig.certWant == nil ||
		!s.lit(litMimeType) || !s.lit(mimeType(ref.URI)) || !s.lit(litPropsEnd) {
		return nil
	}
	propsEnd := s.at

	// UnsignedProperties
	if !s.lit(litUnsigned) {
		return nil
	}
	sig.insertAt = s.at
	if !p.scanUnsigned(s, sig) || s.at != len(doc) {
		return nil
	}

	sig.certDigest = sig.cert.sum512[:]
	sig.info = canonicalSum(sig.infoSum[:0], canonInfo, doc[len(litHead):infoEnd])
	sig.props = canonicalSum(sig.propsSum[:0], canonProps, doc[propsAt:propsEnd])
	return sig
}

// scanUnsigned reads from inside UnsignedSignatureProperties to the end.
func (p *Parser) scanUnsigned(s *scanner, sig *Signature) bool {
	for s.lit(litStamp) {
		token := s.value(litStampEnd)
		if token == nil || len(sig.timestamps) == maxValues {
			return false
		}
		sig.timestamps = append(sig.timestamps, token)
	}
	if s.lit(litCertRefs) {
		refs := 0
		for s.lit(litCertRef) {
			refs++
			if refs > maxValues || !s.lit(strconv.Itoa(refs)) || !s.lit(`">`) || s.certReference() == nil {
				return false
			}
		}
		if refs == 0 || !s.lit(litCertRefsEnd) {
			return false
		}
		for i := range refs {
			if !s.lit(litCertValue) || !s.lit(strconv.Itoa(i+1)) || !s.lit(`">`) {
				return false
			}
			c, err := p.certificate(s.until('<'))
			if err != nil || !s.lit(litCertValueEnd) {
				return false
			}
			sig.extras = append(sig.extras, c.cert)
		}
		if !s.lit(litCertsEnd) {
			return false
		}
	}
	if !s.lit(litOCSPs) {
		return false
	}
	for s.lit(litOCSP) {
		if len(sig.ocsp) == maxValues || !s.lit(strconv.Itoa(len(sig.ocsp)+1)) || !s.lit(`">`) {
			return false
		}
		r, err := p.response(s.until('<'))
		if err != nil || !s.lit(litOCSPEnd) {
			return false
		}
		sig.addOCSP(r)
	}
	return len(sig.ocsp) > 0 && s.lit(litTail)
}

// uriString is string(b) without allocating for the usual ones.
func uriString(b []byte) string {
	switch string(b) {
	case URIMessage:
		return URIMessage
	case URIChainResult:
		return URIChainResult
	}
	return string(b)
}

// plainText reports whether b is character data in canonical form without
// control characters, as Sign writes issuer names.
func plainText(b []byte) bool {
	if len(b) == 0 || len(b) > 4096 {
		return false
	}
	for i := 0; i < len(b); {
		switch c := b[i]; {
		case c < 0x20, c == '>', c == '<':
			return false
		case c == '&':
			rest := b[i:]
			if !bytes.HasPrefix(rest, []byte("&amp;")) && !bytes.HasPrefix(rest, []byte("&lt;")) && !bytes.HasPrefix(rest, []byte("&gt;")) {
				return false
			}
			i++
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(b[i:])
			if !validChar(r, n) {
				return false
			}
			i += n
		}
	}
	return true
}

// integer reports whether b is a decimal integer of at most 64 digits.
func integer(b []byte) bool {
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0 && len(b) <= 64
}
