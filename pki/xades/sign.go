// SPDX-License-Identifier: Apache-2.0

package xades

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Credentials is what a member signs with. The first Sign prepares what all
// documents have in common and keeps it in the value: from then on it must not
// be changed or copied. When the OCSP responses are renewed, make a new one.
// It is safe for concurrent use if Key is.
type Credentials struct {
	Key           crypto.Signer       // RSA of at least 2048 bits, or ECDSA on P-256, P-384 or P-521
	Cert          *x509.Certificate   // for Key
	Intermediates []*x509.Certificate // between Cert and the trust anchor, if any
	OCSP          [][]byte            // DER, for Cert first, then for the intermediates; at least one

	once     sync.Once
	prepared *template
	err      error
}

// template holds the parts of a document that depend on the credentials alone.
type template struct {
	method    *signatureMethod
	valueSize int    // of the signature value, in bytes
	head      string // to the value of URI
	keyInfo   string // from after the signature value to the signing time
	props     string // from after the signing time to the MimeType
	tail      string // from after SignedProperties to the end
}

// Sign returns a signature document over ref, claiming the time at (millisecond
// resolution). The signature method follows from the key, RSA PKCS#1 v1.5 or
// ECDSA, always with SHA-512. X-Road requires ref to be digested with SHA-512
// too, and to be either the message or the result of a hash chain.
func Sign(c *Credentials, ref Reference, at time.Time) ([]byte, error) {
	c.once.Do(func() { c.prepared, c.err = prepare(c) })
	if c.err != nil {
		return nil, fmt.Errorf("prepare signing credentials: %w", c.err)
	}
	t := c.prepared
	hash, err := hashByURI(ref.DigestMethod)
	if err != nil {
		return nil, err
	}
	if len(ref.Digest) != hash.Size() {
		return nil, fmt.Errorf("digest of %d bytes for method %s", len(ref.Digest), ref.DigestMethod)
	}
	if !plainURI(ref.URI) {
		return nil, fmt.Errorf("%w: reference to %q", ErrUnsupported, ref.URI)
	}
	at = at.UTC()
	if at.Year() < 1 || at.Year() > 9999 {
		return nil, fmt.Errorf("signing time in the year %d", at.Year())
	}

	// Write the document, leaving room for the digest of SignedProperties and
	// for the signature value.
	mime := mimeType(ref.URI)
	valueLen := strictBase64.EncodedLen(t.valueSize)
	b := make([]byte, 0, len(t.head)+len(ref.URI)+len(litDigestMethod)+len(ref.DigestMethod)+len(litDigest)+
		digest512+len(litPropsDigest)+digest512+len(litInfoEnd)+len(litValue)+valueLen+
		len(t.keyInfo)+len(timeLayout)+len(t.props)+len(mime)+len(litPropsEnd)+len(t.tail))
	b = append(append(b, t.head...), ref.URI...)
	b = append(append(b, litDigestMethod...), ref.DigestMethod...)
	b = strictBase64.AppendEncode(append(b, litDigest...), ref.Digest)
	b = append(b, litPropsDigest...)
	propsDigestAt := len(b)
	b = append(b[:len(b)+digest512], litInfoEnd...)
	infoEnd := len(b)
	b = append(b, litValue...)
	valueAt := len(b)
	b = append(b[:len(b)+valueLen], t.keyInfo...)
	propsAt := len(b) - len(litTime)
	b = at.AppendFormat(b, timeLayout)
	b = append(append(append(b, t.props...), mime...), litPropsEnd...)
	propsEnd := len(b)
	b = append(b, t.tail...)

	var buf [sha512.Size]byte
	digest := canonicalSum(buf[:0], canonProps, b[propsAt:propsEnd])
	strictBase64.Encode(b[propsDigestAt:], digest)
	digest = canonicalSum(buf[:0], canonInfo, b[len(litHead):infoEnd])
	value, err := t.sign(c.Key, digest)
	if err != nil {
		return nil, err
	}
	strictBase64.Encode(b[valueAt:], value)
	return b, nil
}

// canonicalSum appends to dst the SHA-512 of an element of our own form, given
// its canonical start tag and what follows the start tag in the document.
func canonicalSum(dst []byte, start string, rest []byte) []byte {
	h := sha512.New()
	h.Write([]byte(start))
	h.Write(rest)
	return h.Sum(dst)
}

// sign returns the signature value over digest in its XML form.
func (t *template) sign(key crypto.Signer, digest []byte) ([]byte, error) {
	value, err := key.Sign(rand.Reader, digest, t.method.hash)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if t.method.scheme == ecDSA {
		rs := make([]byte, t.valueSize)
		return rs, decodeECDSA(rs, value)
	}
	if len(value) != t.valueSize {
		return nil, fmt.Errorf("key returned an RSA signature of %d bytes", len(value))
	}
	return value, nil
}

func prepare(c *Credentials) (*template, error) {
	if c.Key == nil || c.Cert == nil {
		return nil, errors.New("no key or no certificate")
	}
	if len(c.OCSP) == 0 {
		return nil, errors.New("no OCSP response")
	}
	if len(c.OCSP) > maxValues || len(c.Intermediates) > maxValues {
		return nil, errors.New("too many intermediates or OCSP responses")
	}
	t := &template{}
	var err error
	switch pub := c.Key.Public().(type) {
	case *rsa.PublicKey:
		if bits := pub.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return nil, fmt.Errorf("%w: RSA key of %d bits", ErrUnsupported, bits)
		}
		if !pub.Equal(c.Cert.PublicKey) {
			return nil, errors.New("certificate is not for the key")
		}
		t.valueSize = pub.Size()
		t.method, err = methodByURI(methodRSA)
	case *ecdsa.PublicKey:
		t.valueSize = 2 * coordinateSize(pub.Curve)
		if t.valueSize == 0 {
			return nil, fmt.Errorf("%w: elliptic curve %s", ErrUnsupported, pub.Curve.Params().Name)
		}
		if !pub.Equal(c.Cert.PublicKey) {
			return nil, errors.New("certificate is not for the key")
		}
		t.method, err = methodByURI(methodECDSA)
	default:
		return nil, fmt.Errorf("%w: key type %T", ErrUnsupported, pub)
	}
	if err != nil {
		return nil, err
	}

	t.head = litHead + litMethod + t.method.uri + litURI
	t.keyInfo = litCert + strictBase64.EncodeToString(c.Cert.Raw) + litObject + litTime
	ref, err := certReference(c.Cert)
	if err != nil {
		return nil, err
	}
	t.props = litSigner + ref + litMimeType
	if t.tail, err = unsignedProperties(c); err != nil {
		return nil, err
	}
	if len(t.head)+len(t.keyInfo)+len(t.props)+len(t.tail) > MaxSize-16<<10 {
		return nil, errors.New("certificates and OCSP responses are too large")
	}
	return t, nil
}

// escape makes canonical character data.
var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// certReference returns the digest, issuer and serial number of cert as they
// stand inside xades:Cert, with its end tag.
func certReference(cert *x509.Certificate) (string, error) {
	issuer, err := distinguishedName(cert.RawIssuer)
	if err != nil {
		return "", fmt.Errorf("issuer of certificate: %w", err)
	}
	digest := sha512.Sum512(cert.Raw)
	return litCertDigest + strictBase64.EncodeToString(digest[:]) + litIssuer + escape.Replace(issuer) +
		litSerial + cert.SerialNumber.String() + litSerialEnd, nil
}

func unsignedProperties(c *Credentials) (string, error) {
	var b strings.Builder
	b.WriteString(litUnsigned)
	if len(c.Intermediates) > 0 {
		b.WriteString(litCertRefs)
		for i, cert := range c.Intermediates {
			ref, err := certReference(cert)
			if err != nil {
				return "", err
			}
			b.WriteString(litCertRef + strconv.Itoa(i+1) + `">` + ref)
		}
		b.WriteString(litCertRefsEnd)
		for i, cert := range c.Intermediates {
			b.WriteString(litCertValue + strconv.Itoa(i+1) + `">` + strictBase64.EncodeToString(cert.Raw) + litCertValueEnd)
		}
		b.WriteString(litCertsEnd)
	}
	b.WriteString(litOCSPs)
	for i, der := range c.OCSP {
		if len(der) == 0 {
			return "", errors.New("empty OCSP response")
		}
		b.WriteString(litOCSP + strconv.Itoa(i+1) + `">` + strictBase64.EncodeToString(der) + litOCSPEnd)
	}
	b.WriteString(litTail)
	return b.String(), nil
}
