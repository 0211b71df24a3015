// SPDX-License-Identifier: Apache-2.0

package tsa

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"kontor/pki"
)

// ServerConfig configures a time-stamp authority.
type ServerConfig struct {
	Cert   *x509.Certificate // with critical extended key usage timeStamping alone
	Signer crypto.Signer     // the key of Cert
	Policy asn1.ObjectIdentifier
	Now    func() time.Time // nil: time.Now
}

// Check reports what is wrong with the configuration.
func (c *ServerConfig) Check() error {
	if c.Cert == nil || c.Signer == nil || len(c.Policy) < 2 {
		return errors.New("time-stamp authority: certificate, signer and policy are needed")
	}
	pub, ok := c.Signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(c.Cert.PublicKey) {
		return errors.New("time-stamp authority: the certificate is not of the signing key")
	}
	if _, _, err := pki.SignatureAlgorithmFor(c.Signer.Public()); err != nil {
		return fmt.Errorf("time-stamp authority: %w", err)
	}
	if err := checkCertificate(c.Cert); err != nil {
		return fmt.Errorf("time-stamp authority: %w", err)
	}
	return nil
}

// NewServer makes a handler that stamps digests made by SHA-256, SHA-384 and
// SHA-512, by RFC 3161 over HTTP (section 3.4). It panics if c.Check fails.
func NewServer(c ServerConfig) http.Handler {
	if err := c.Check(); err != nil {
		panic(err)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &server{ServerConfig: c}
	s.hash, s.algorithm, _ = pki.SignatureAlgorithmFor(c.Signer.Public())
	return s
}

type server struct {
	ServerConfig
	hash      crypto.Hash
	algorithm []byte // DER
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	der, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	answer := rejection(badDataFormat, "the request cannot be read")
	if err == nil {
		answer = s.answer(der)
	}
	w.Header().Set("Content-Type", contentTypeResponse)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(answer)
}

// answer makes the response to a request.
func (s *server) answer(der []byte) []byte {
	q, why, ok := parseRequest(der)
	switch {
	case !ok && why == badAlg:
		return rejection(badAlg, "use SHA-256, SHA-384 or SHA-512")
	case !ok:
		return rejection(why, "malformed request")
	case q.policy != nil && !q.policy.Equal(s.Policy):
		return rejection(unacceptedPolicy, "the only policy is "+s.Policy.String())
	case q.extended:
		return rejection(unacceptedExtension, "no extension is known")
	}
	token, err := s.stamp(q)
	if err == nil {
		token, err = granted(token)
	}
	if err != nil {
		return rejection(systemFailure, "the time-stamp cannot be signed")
	}
	return token
}

// stamp makes a token.
func (s *server) stamp(q *request) ([]byte, error) {
	info, err := s.tstInfo(q)
	if err != nil {
		return nil, err
	}
	attrs, err := s.signedAttributes(info)
	if err != nil {
		return nil, err
	}
	signature, err := s.Signer.Sign(rand.Reader, digest(s.hash, attrs), s.hash)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // ContentInfo
		b.AddASN1ObjectIdentifier(oidSignedData)
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // SignedData
				b.AddASN1Int64(3)
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { s.addDigestAlgorithm(b) })
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidTSTInfo)
					b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1OctetString(info) })
				})
				if q.certReq {
					b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddBytes(s.Cert.Raw) })
				}
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { s.addSignerInfo(b, attrs, signature) })
			})
		})
	})
	return b.Bytes()
}

func (s *server) tstInfo(q *request) ([]byte, error) {
	var random [16]byte
	_, _ = rand.Read(random[:])
	random[0] |= 0x80 // all serial numbers have 128 bits
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1ObjectIdentifier(s.Policy)
		addImprint(b, q.hash, q.hashed)
		b.AddASN1BigInt(new(big.Int).SetBytes(random[:]))
		b.AddASN1GeneralizedTime(s.Now().UTC())
		if q.nonce != nil {
			b.AddASN1BigInt(q.nonce)
		}
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(explicit(4), func(b *cryptobyte.Builder) { b.AddBytes(s.Cert.RawSubject) })
		})
	})
	return b.Bytes()
}

// signedAttributes makes the attributes as they are signed: a SET in DER order.
func (s *server) signedAttributes(info []byte) ([]byte, error) {
	var attrs [][]byte
	for _, a := range []struct {
		oid   asn1.ObjectIdentifier
		value func(*cryptobyte.Builder)
	}{
		{oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidTSTInfo) }},
		{oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest(s.hash, info)) }},
		{oidSigningCertV2, s.addSigningCertificate},
	} {
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(a.oid)
			b.AddASN1(cbasn1.SET, a.value)
		})
		der, err := b.Bytes()
		if err != nil {
			return nil, err
		}
		attrs = append(attrs, der)
	}
	slices.SortFunc(attrs, bytes.Compare)
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(attrs, nil)) })
	return b.Bytes()
}

// addSigningCertificate writes SigningCertificateV2 (RFC 5035) with the default
// hash, SHA-256.
func (s *server) addSigningCertificate(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // SigningCertificateV2
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // certs
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // ESSCertIDv2
				b.AddASN1OctetString(digest(crypto.SHA256, s.Cert.Raw))
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // IssuerSerial
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(explicit(4), func(b *cryptobyte.Builder) { b.AddBytes(s.Cert.RawIssuer) })
					})
					b.AddASN1BigInt(s.Cert.SerialNumber)
				})
			})
		})
	})
}

func (s *server) addSignerInfo(b *cryptobyte.Builder, attrs, signature []byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(s.Cert.RawIssuer)
			b.AddASN1BigInt(s.Cert.SerialNumber)
		})
		s.addDigestAlgorithm(b)
		b.AddBytes([]byte{0xa0}) // in place of the SET's tag
		b.AddBytes(attrs[1:])
		b.AddBytes(s.algorithm)
		b.AddASN1OctetString(signature)
	})
}

func (s *server) addDigestAlgorithm(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidOf(s.hash)) })
}
