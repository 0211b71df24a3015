// SPDX-License-Identifier: Apache-2.0

// Package tsa makes, obtains and verifies time-stamps (RFC 3161).
//
// A time-stamp authority is approved by its certificate: a token counts if it was
// signed with exactly that certificate, found by what the token says of its
// signer. No path is built and none is needed. The package does not know what
// is stamped.
package tsa

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // the old ESSCertID; the certificate is compared byte for byte besides
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"kontor/pki"
)

// Errors of Verify and Stamp.
var (
	// ErrMalformed: not a well-formed time-stamp.
	ErrMalformed = errors.New("malformed time-stamp")
	// ErrImprint: the time-stamp is of other data.
	ErrImprint = errors.New("time-stamp is of other data")
	// ErrUntrusted: no approved authority made the time-stamp.
	ErrUntrusted = errors.New("time-stamp is not from an approved authority")
	// ErrSignature: the signature does not verify.
	ErrSignature = errors.New("time-stamp signature is wrong")
	// ErrUnavailable: there is no answer to be had.
	ErrUnavailable = errors.New("time-stamp authority unavailable")
	// ErrRejected: the authority refuses to stamp.
	ErrRejected = errors.New("time-stamp authority refused")
	// ErrClock: the authority's clock and ours differ too much.
	ErrClock = errors.New("clock differs from the time-stamp authority's")
)

// maxToken bounds tokens and responses; real ones have 2 to 8 kilobytes.
const maxToken = 64 << 10

var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTSTInfo       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningCert   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 12}
	oidSigningCertV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidExtKeyUsage   = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidTimeStamping  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
)

// imprints are the digest algorithms accepted and offered.
var imprints = []struct {
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
}{
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA256},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512},
}

func hashOf(oid asn1.ObjectIdentifier) crypto.Hash {
	for _, i := range imprints {
		if oid.Equal(i.oid) {
			return i.hash
		}
	}
	return 0
}

func oidOf(h crypto.Hash) asn1.ObjectIdentifier {
	for _, i := range imprints {
		if h == i.hash {
			return i.oid
		}
	}
	return nil
}

func digest(h crypto.Hash, b []byte) []byte {
	d := h.New()
	d.Write(b)
	return d.Sum(nil)
}

func explicit(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// Token is a verified time-stamp.
type Token struct {
	Raw    []byte // the CMS ContentInfo in DER
	Time   time.Time
	Serial *big.Int
	Signer *x509.Certificate // the approved certificate
	Hash   crypto.Hash
	Hashed []byte // the imprint
}

// Verify checks that token stamps message and was signed by one of the approved
// certificates: the imprint (SHA-256, -384 or -512), the CMS signature and its
// attributes, the ESS signing certificate, the certificate's critical extended
// key usage timeStamping and no other, and that the certificate was valid at
// the stamped time. Certificates in the token are not looked at.
//
// The token may be BER, as some authorities send it; Raw of the result is DER.
// Errors are ErrMalformed, ErrImprint, ErrUntrusted and ErrSignature. Sources:
// RFC 3161, section 2.4.2; RFC 5816; RFC 5652, section 5.6.
func Verify(token, message []byte, approved []*x509.Certificate) (*Token, error) {
	s, err := parseToken(token)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(digest(s.info.hash, message), s.info.hashed) {
		return nil, ErrImprint
	}
	return s.verify(approved)
}

// verify finds the signer among the approved and checks the signature.
func (s *signedData) verify(approved []*x509.Certificate) (*Token, error) {
	var refused error
	for _, c := range approved {
		if !s.signer.names(c) {
			continue
		}
		if refused = s.verifyWith(c); refused == nil {
			return &Token{Raw: s.raw, Time: s.info.time, Serial: s.info.serial, Signer: c,
				Hash: s.info.hash, Hashed: s.info.hashed}, nil
		}
	}
	if refused == nil {
		refused = fmt.Errorf("%w: its signer is %s", ErrUntrusted, &s.signer)
	}
	return nil, refused
}

func (s *signedData) verifyWith(c *x509.Certificate) error {
	if err := checkCertificate(c); err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if s.info.time.Before(c.NotBefore) || s.info.time.After(c.NotAfter) {
		return fmt.Errorf("%w: the certificate of %q was not valid at %s", ErrUntrusted, c.Subject, s.info.time.Format(time.RFC3339))
	}
	alg, err := s.signer.algorithm()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if err := c.CheckSignature(alg, s.signer.signed, s.signer.signature); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if !bytes.Equal(s.signer.messageDigest, digest(s.signer.digest, s.content)) {
		return fmt.Errorf("%w: it signs other content", ErrSignature)
	}
	if !bytes.Equal(s.signer.certHash, digest(s.signer.certHashAlg, c.Raw)) {
		return fmt.Errorf("%w: it names another signing certificate", ErrSignature)
	}
	return nil
}

// checkCertificate demands what RFC 3161, section 2.3, does of a certificate for
// time-stamping: extended key usage, critical, timeStamping alone.
func checkCertificate(c *x509.Certificate) error {
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidExtKeyUsage) {
			continue
		}
		s := cryptobyte.String(e.Value)
		var seq cryptobyte.String
		var usage asn1.ObjectIdentifier
		if !e.Critical || !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&usage) ||
			!seq.Empty() || !usage.Equal(oidTimeStamping) {
			return fmt.Errorf("the certificate of %q is not for time-stamping alone", c.Subject)
		}
		return nil
	}
	return fmt.Errorf("the certificate of %q is not for time-stamping", c.Subject)
}

// algorithm returns the signature algorithm, which in CMS may leave the hash to
// the digest algorithm.
func (s *signerInfo) algorithm() (x509.SignatureAlgorithm, error) {
	if s.plainRSA {
		switch s.digest {
		case crypto.SHA256:
			return x509.SHA256WithRSA, nil
		case crypto.SHA384:
			return x509.SHA384WithRSA, nil
		case crypto.SHA512:
			return x509.SHA512WithRSA, nil
		}
	}
	return pki.ParseSignatureAlgorithm(s.signatureAlg)
}
