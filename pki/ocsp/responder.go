// SPDX-License-Identifier: Apache-2.0

package ocsp

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"kontor/pki"
)

// State is what a responder says of a certificate. The zero value is Unknown, so
// that whoever forgets to say Good does not vouch for anything.
type State int

// States of certificates.
const (
	Unknown State = iota
	Good
	Revoked
)

// CertStatus is the status of a certificate at its authority.
type CertStatus struct {
	State     State
	RevokedAt time.Time // of a revoked certificate
	Reason    int       // CRLReason of RFC 5280, 5.3.1; 0 unspecified
}

// DefaultValidity is the time until the next update that a responder promises
// unless told otherwise.
const DefaultValidity = time.Hour

const (
	maxRequests = 32 // certificates asked about in one request
	maxNonce    = 130
	maxReason   = 10
)

// responseStatus is OCSPResponseStatus.
type responseStatus int

const (
	statusSuccessful       responseStatus = 0
	statusMalformedRequest responseStatus = 1
	statusInternalError    responseStatus = 2
	statusTryLater         responseStatus = 3
)

func (s responseStatus) String() string {
	names := []string{"successful", "malformedRequest", "internalError", "tryLater", "unused", "sigRequired", "unauthorized"}
	if s >= 0 && int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("status %d", int(s))
}

// ResponderConfig configures a responder.
type ResponderConfig struct {
	Issuer *x509.Certificate // the authority whose certificates are asked about
	Cert   *x509.Certificate // the signer's: Issuer itself, or one it issued for OCSP signing
	Signer crypto.Signer     // the key of Cert
	// Status tells the status of the certificate with that serial number. An
	// ErrUnavailable makes the responder ask clients to try later, any other
	// error is an internal error. It must be safe for concurrent use.
	Status   func(ctx context.Context, serial *big.Int) (CertStatus, error)
	Validity time.Duration    // from this update to the next; DefaultValidity if not positive
	Now      func() time.Time // nil: time.Now
}

// Check reports what is wrong with the configuration.
func (c *ResponderConfig) Check() error {
	if c.Issuer == nil || c.Cert == nil || c.Signer == nil || c.Status == nil {
		return errors.New("OCSP responder: issuer, certificate, signer and status are needed")
	}
	pub, ok := c.Signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(c.Cert.PublicKey) {
		return errors.New("OCSP responder: the certificate is not of the signing key")
	}
	if _, _, err := pki.SignatureAlgorithmFor(c.Signer.Public()); err != nil {
		return fmt.Errorf("OCSP responder: %w", err)
	}
	if !c.Cert.Equal(c.Issuer) {
		if err := delegated(c.Cert, c.Issuer, c.Cert.NotBefore); err != nil {
			return fmt.Errorf("OCSP responder: %w", err)
		}
	}
	return nil
}

// NewResponder makes a handler that answers for one authority by POST and GET,
// as RFC 6960, appendix A, says. GET expects the encoded request to be the whole
// path: mount it with http.StripPrefix where it lives elsewhere. Identifiers are
// echoed byte for byte, since some clients compare them so. It panics if
// c.Check fails.
func NewResponder(c ResponderConfig) http.Handler {
	if err := c.Check(); err != nil {
		panic(err)
	}
	if c.Validity <= 0 {
		c.Validity = DefaultValidity
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	r := &responder{ResponderConfig: c}
	key, ok := keyBits(c.Cert)
	if !ok {
		panic("OCSP responder: certificate without public key bits")
	}
	r.keyHash = digest(crypto.SHA1, key)
	r.hash, r.algorithm, _ = pki.SignatureAlgorithmFor(c.Signer.Public())
	return r
}

type responder struct {
	ResponderConfig
	keyHash   []byte
	hash      crypto.Hash
	algorithm []byte // DER
}

func (r *responder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var der []byte
	var err error
	switch req.Method {
	case http.MethodPost:
		der, err = io.ReadAll(http.MaxBytesReader(w, req.Body, maxRequest))
	case http.MethodGet:
		der, err = requestFromPath(req.URL)
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	answer := errorResponse(statusMalformedRequest)
	if err == nil {
		answer = r.answer(req.Context(), der)
	}
	w.Header().Set("Content-Type", contentTypeResponse)
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(answer)
}

// requestFromPath decodes {url}/{url-encoding of base-64 of the request}.
func requestFromPath(u *url.URL) ([]byte, error) {
	path := strings.TrimPrefix(u.EscapedPath(), "/")
	if len(path) > 2*maxRequest {
		return nil, errors.New("request too long")
	}
	text, err := url.PathUnescape(path)
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(text)
}

// answer makes the response to a request.
func (r *responder) answer(ctx context.Context, der []byte) []byte {
	q, ok := parseRequest(der)
	if !ok {
		return errorResponse(statusMalformedRequest)
	}
	statuses := make([]CertStatus, len(q.ids))
	for i, id := range q.ids {
		if !id.issuedBy(r.Issuer) {
			continue // unknown: another authority's certificate
		}
		var err error
		statuses[i], err = r.Status(ctx, id.serial)
		if errors.Is(err, ErrUnavailable) {
			return errorResponse(statusTryLater)
		}
		if err != nil {
			return errorResponse(statusInternalError)
		}
	}
	answer, err := r.sign(q, statuses)
	if err != nil {
		return errorResponse(statusInternalError)
	}
	return answer
}

// sign writes and signs the response.
func (r *responder) sign(q *request, statuses []CertStatus) ([]byte, error) {
	now := r.Now().UTC()
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // ResponseData
		b.AddASN1(tagExplicit(2), func(b *cryptobyte.Builder) { b.AddASN1OctetString(r.keyHash) })
		b.AddASN1GeneralizedTime(now)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for i, st := range statuses {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddBytes(q.rawIDs[i])
					addStatus(b, st, now)
					b.AddASN1GeneralizedTime(now)
					b.AddASN1(tagExplicit(0), func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(now.Add(r.Validity)) })
				})
			}
		})
		if q.nonce != nil {
			b.AddASN1(tagExplicit(1), func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(oidNonce)
						b.AddASN1OctetString(q.nonce)
					})
				})
			})
		}
	})
	tbs, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	signature, err := r.Signer.Sign(rand.Reader, digest(r.hash, tbs), r.hash)
	if err != nil {
		return nil, err
	}
	var basic cryptobyte.Builder
	basic.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(r.algorithm)
		b.AddASN1BitString(signature)
		if !bytes.Equal(r.Cert.Raw, r.Issuer.Raw) {
			b.AddASN1(tagExplicit(0), func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(r.Cert.Raw) })
			})
		}
	})
	content, err := basic.Bytes()
	if err != nil {
		return nil, err
	}
	var out cryptobyte.Builder
	out.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(int64(statusSuccessful))
		b.AddASN1(tagExplicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidBasic)
				b.AddASN1OctetString(content)
			})
		})
	})
	return out.Bytes()
}

func addStatus(b *cryptobyte.Builder, st CertStatus, now time.Time) {
	switch st.State {
	case Good:
		b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(*cryptobyte.Builder) {})
	case Revoked:
		at := st.RevokedAt.UTC()
		if at.IsZero() {
			at = now
		}
		b.AddASN1(tagExplicit(1), func(b *cryptobyte.Builder) {
			b.AddASN1GeneralizedTime(at)
			if st.Reason > 0 && st.Reason <= maxReason {
				b.AddASN1(tagExplicit(0), func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(st.Reason)) })
			}
		})
	default:
		b.AddASN1(cbasn1.Tag(2).ContextSpecific(), func(*cryptobyte.Builder) {})
	}
}

func errorResponse(s responseStatus) []byte { return []byte{0x30, 0x03, 0x0a, 0x01, byte(s)} }

// request is a parsed OCSPRequest.
type request struct {
	ids    []certID
	rawIDs [][]byte // their DER
	nonce  []byte   // the nonce extension's value, nil if there is none
}

// parseRequest reads an OCSPRequest strictly as DER. A signature is stepped over:
// this responder answers everyone.
func parseRequest(der []byte) (*request, bool) {
	if len(der) > maxRequest {
		return nil, false
	}
	s := cryptobyte.String(der)
	var seq, tbs, version, list, exts cryptobyte.String
	var hasVersion, hasExts bool
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() ||
		!seq.ReadASN1(&tbs, cbasn1.SEQUENCE) || !seq.SkipOptionalASN1(tagExplicit(0)) || !seq.Empty() ||
		!tbs.ReadOptionalASN1(&version, &hasVersion, tagExplicit(0)) ||
		!tbs.SkipOptionalASN1(tagExplicit(1)) ||
		!tbs.ReadASN1(&list, cbasn1.SEQUENCE) ||
		!tbs.ReadOptionalASN1(&exts, &hasExts, tagExplicit(2)) || !tbs.Empty() {
		return nil, false
	}
	var v int
	if hasVersion && (!version.ReadASN1Integer(&v) || !version.Empty() || v != 0) {
		return nil, false
	}
	q := new(request)
	for !list.Empty() {
		if !q.add(&list) {
			return nil, false
		}
	}
	if len(q.ids) == 0 {
		return nil, false
	}
	if !hasExts {
		return q, true
	}
	all, ok := readExtensions(exts)
	if !ok {
		return nil, false
	}
	for _, e := range all {
		switch {
		case e.oid.Equal(oidNonce):
			if q.nonce != nil || len(e.value) == 0 || len(e.value) > maxNonce {
				return nil, false
			}
			q.nonce = e.value
		case e.critical:
			return nil, false
		}
	}
	return q, true
}

// add reads one Request of the list.
func (q *request) add(list *cryptobyte.String) bool {
	var one, raw, exts cryptobyte.String
	var has bool
	if len(q.ids) == maxRequests || !list.ReadASN1(&one, cbasn1.SEQUENCE) ||
		!one.ReadASN1Element(&raw, cbasn1.SEQUENCE) ||
		!one.ReadOptionalASN1(&exts, &has, tagExplicit(0)) || !one.Empty() {
		return false
	}
	if has && checkExtensions(exts) != nil {
		return false
	}
	var id certID
	element := raw
	if !readCertID(&element, &id) {
		return false
	}
	q.ids = append(q.ids, id)
	q.rawIDs = append(q.rawIDs, raw)
	return true
}
