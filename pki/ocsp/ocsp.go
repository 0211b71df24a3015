// SPDX-License-Identifier: Apache-2.0

// Package ocsp asks, verifies, remembers and answers whether certificates are
// good, by the Online Certificate Status Protocol (RFC 6960) in X-Road's profile:
// unsigned requests without nonce, one certificate each, identified by SHA-1.
//
// The responses travel with messages and are kept as evidence, so Verify judges
// their bytes as of a given instant. The package does not know who runs the
// certification authority.
package ocsp

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // certificate identifiers; it protects nothing here
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Errors of Verify and Fetch.
var (
	// ErrMalformed: not a well-formed response to a single question.
	ErrMalformed = errors.New("malformed OCSP response")
	// ErrMismatch: the response is about another certificate.
	ErrMismatch = errors.New("OCSP response is for another certificate")
	// ErrUntrusted: no authorised responder signed the response.
	ErrUntrusted = errors.New("OCSP response is not from an authorised responder")
	// ErrStale: the response is too old, past its next update, or from the future.
	ErrStale = errors.New("OCSP response is not current")
	// ErrRevoked: the certificate is revoked or suspended.
	ErrRevoked = errors.New("certificate is revoked")
	// ErrUnknown: the responder does not know the certificate.
	ErrUnknown = errors.New("certificate is unknown to its OCSP responder")
	// ErrUnavailable: there is no answer to be had, or the answer is an error.
	ErrUnavailable = errors.New("OCSP responder unavailable")
)

const (
	maxResponse = 64 << 10
	maxRequest  = 16 << 10
	// contentTypeRequest and contentTypeResponse are those of RFC 6960,
	// appendix A.
	contentTypeRequest  = "application/ocsp-request"
	contentTypeResponse = "application/ocsp-response"
)

var (
	oidBasic = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	oidNonce = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
)

func tagExplicit(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }

// hashes are the algorithms of certificate identifiers.
var hashes = []struct {
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
}{
	{asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, crypto.SHA1},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA256},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512},
}

// certID identifies a certificate by its issuer and serial number.
type certID struct {
	hash     crypto.Hash // 0 if unknown
	nameHash []byte
	keyHash  []byte
	serial   *big.Int
}

func readCertID(s *cryptobyte.String, id *certID) bool {
	var seq, alg cryptobyte.String
	var oid asn1.ObjectIdentifier
	var name, key cryptobyte.String
	id.serial = new(big.Int)
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) ||
		!seq.ReadASN1(&alg, cbasn1.SEQUENCE) || !alg.ReadASN1ObjectIdentifier(&oid) ||
		!seq.ReadASN1(&name, cbasn1.OCTET_STRING) ||
		!seq.ReadASN1(&key, cbasn1.OCTET_STRING) ||
		!seq.ReadASN1Integer(id.serial) || !seq.Empty() {
		return false
	}
	if !alg.Empty() && !bytes.Equal(alg, asn1.NullBytes) {
		return false
	}
	for _, h := range hashes {
		if oid.Equal(h.oid) {
			id.hash = h.hash
		}
	}
	id.nameHash, id.keyHash = name, key
	return true
}

// issuedBy reports whether the identifier names issuer.
func (id *certID) issuedBy(issuer *x509.Certificate) bool {
	if id.hash == 0 {
		return false
	}
	key, ok := keyBits(issuer)
	return ok && bytes.Equal(id.nameHash, digest(id.hash, issuer.RawSubject)) && bytes.Equal(id.keyHash, digest(id.hash, key))
}

// addCertID writes the identifier in the one form that every X-Road peer
// recognises: SHA-1, with explicit NULL parameters.
func addCertID(b *cryptobyte.Builder, leaf, issuer *x509.Certificate) {
	key, ok := keyBits(issuer)
	if !ok {
		b.SetError(errors.New("issuer has no public key bits"))
		return
	}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(hashes[0].oid)
			b.AddASN1NULL()
		})
		b.AddASN1OctetString(digest(crypto.SHA1, issuer.RawSubject))
		b.AddASN1OctetString(digest(crypto.SHA1, key))
		b.AddASN1BigInt(leaf.SerialNumber)
	})
}

// keyBits returns the content of the certificate's subjectPublicKey, the bytes
// that key hashes are of.
func keyBits(c *x509.Certificate) ([]byte, bool) {
	s := cryptobyte.String(c.RawSubjectPublicKeyInfo)
	var seq, bits cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.SkipASN1(cbasn1.SEQUENCE) ||
		!seq.ReadASN1(&bits, cbasn1.BIT_STRING) || !bits.Skip(1) {
		return nil, false
	}
	return bits, true
}

func digest(h crypto.Hash, b []byte) []byte {
	d := h.New()
	d.Write(b)
	return d.Sum(nil)
}

// extension is one of Extensions (RFC 5280, 4.1).
type extension struct {
	oid      asn1.ObjectIdentifier
	critical bool
	value    []byte
}

// readExtensions reads a SEQUENCE OF Extension that fills s.
func readExtensions(s cryptobyte.String) ([]extension, bool) {
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() {
		return nil, false
	}
	var all []extension
	for !seq.Empty() {
		var e extension
		var one, value cryptobyte.String
		if !seq.ReadASN1(&one, cbasn1.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&e.oid) ||
			!readBoolean(&one, &e.critical) ||
			!one.ReadASN1(&value, cbasn1.OCTET_STRING) || !one.Empty() {
			return nil, false
		}
		e.value = value
		all = append(all, e)
	}
	return all, true
}

// readBoolean reads a BOOLEAN DEFAULT FALSE.
func readBoolean(s *cryptobyte.String, b *bool) bool {
	*b = false
	return !s.PeekASN1Tag(cbasn1.BOOLEAN) || s.ReadASN1Boolean(b)
}

// readTime reads a GeneralizedTime as RFC 5280 restricts it.
func readTime(s *cryptobyte.String, t *time.Time) bool {
	if !s.ReadASN1GeneralizedTime(t) {
		return false
	}
	*t = t.UTC()
	return true
}
