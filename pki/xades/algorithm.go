// SPDX-License-Identifier: Apache-2.0

package xades

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // linked for crypto.SHA256
	_ "crypto/sha512" // linked for crypto.SHA384 and crypto.SHA512
	"errors"
	"fmt"
)

// RSA moduli outside these sizes (bits) are refused: below, they are weak;
// above, one verification costs a hostile sender nothing and us milliseconds.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

type scheme int

const (
	pkcs1 scheme = iota
	pss          // salt as long as the digest (RFC 9231, section 2.3.10)
	ecDSA
)

type signatureMethod struct {
	uri    string
	scheme scheme
	hash   crypto.Hash
}

const (
	methodRSA   = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512"
	methodECDSA = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512"
)

// signatureMethods lists what Verify accepts (RFC 9231). The first two are also
// what Sign writes.
var signatureMethods = [...]signatureMethod{
	{methodRSA, pkcs1, crypto.SHA512},
	{methodECDSA, ecDSA, crypto.SHA512},
	{"http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", pkcs1, crypto.SHA256},
	{"http://www.w3.org/2001/04/xmldsig-more#rsa-sha384", pkcs1, crypto.SHA384},
	{"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256", ecDSA, crypto.SHA256},
	{"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384", ecDSA, crypto.SHA384},
	{"http://www.w3.org/2007/05/xmldsig-more#sha256-rsa-MGF1", pss, crypto.SHA256},
	{"http://www.w3.org/2007/05/xmldsig-more#sha384-rsa-MGF1", pss, crypto.SHA384},
	{"http://www.w3.org/2007/05/xmldsig-more#sha512-rsa-MGF1", pss, crypto.SHA512},
}

func methodByURI(uri string) (*signatureMethod, error) {
	for i := range signatureMethods {
		if signatureMethods[i].uri == uri {
			return &signatureMethods[i], nil
		}
	}
	return nil, fmt.Errorf("%w: signature method %q", ErrUnsupported, uri)
}

func hashByURI(uri string) (crypto.Hash, error) {
	switch uri {
	case DigestSHA256:
		return crypto.SHA256, nil
	case DigestSHA384:
		return crypto.SHA384, nil
	case DigestSHA512:
		return crypto.SHA512, nil
	}
	return 0, fmt.Errorf("%w: digest method %q", ErrUnsupported, uri)
}

func sum(h crypto.Hash, b []byte) []byte {
	d := h.New()
	d.Write(b)
	return d.Sum(nil)
}

// coordinateSize returns the length in bytes of each half of an ECDSA signature
// value on the curve, 0 for curves not accepted.
func coordinateSize(c elliptic.Curve) int {
	switch c {
	case elliptic.P256():
		return 32
	case elliptic.P384():
		return 48
	case elliptic.P521():
		return 66
	}
	return 0
}

// verify checks value over digest with the public key pub.
func (m *signatureMethod) verify(pub crypto.PublicKey, digest, value []byte) error {
	switch key := pub.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("%w: RSA key of %d bits", ErrUnsupported, bits)
		}
		var err error
		switch m.scheme {
		case pkcs1:
			err = rsa.VerifyPKCS1v15(key, m.hash, digest, value)
		case pss:
			err = rsa.VerifyPSS(key, m.hash, digest, value, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		default:
			return fmt.Errorf("%w: RSA key, but method %s", ErrSignature, m.uri)
		}
		if err != nil {
			return fmt.Errorf("%w: RSA", ErrSignature)
		}
		return nil
	case *ecdsa.PublicKey:
		size := coordinateSize(key.Curve)
		if size == 0 {
			return fmt.Errorf("%w: elliptic curve", ErrUnsupported)
		}
		if m.scheme != ecDSA {
			return fmt.Errorf("%w: elliptic curve key, but method %s", ErrSignature, m.uri)
		}
		// X-Road pads r and s to the longer of the two, not to the curve's size:
		// the halves are equal, but may be short.
		if len(value) == 0 || len(value)%2 != 0 || len(value) > 2*size {
			return fmt.Errorf("%w: ECDSA value of %d bytes", ErrSignature, len(value))
		}
		var buf [2*66 + 16]byte
		if !ecdsa.VerifyASN1(key, digest, encodeECDSA(buf[:0], value)) {
			return fmt.Errorf("%w: ECDSA", ErrSignature)
		}
		return nil
	}
	return fmt.Errorf("%w: key type %T", ErrUnsupported, pub)
}

// encodeECDSA appends the DER form (SEQUENCE of two INTEGER) of r‖s to dst.
func encodeECDSA(dst, rs []byte) []byte {
	var body [2*66 + 8]byte
	b := appendInteger(body[:0], rs[:len(rs)/2])
	b = appendInteger(b, rs[len(rs)/2:])
	dst = append(dst, 0x30)
	if len(b) > 127 {
		dst = append(dst, 0x81)
	}
	return append(append(dst, byte(len(b))), b...)
}

func appendInteger(dst, v []byte) []byte {
	for len(v) > 1 && v[0] == 0 {
		v = v[1:]
	}
	if v[0] > 127 {
		return append(append(dst, 2, byte(len(v)+1), 0), v...)
	}
	return append(append(dst, 2, byte(len(v))), v...)
}

var errECDSA = errors.New("key returned an ECDSA signature that is not DER")

// decodeECDSA writes the r and s of a DER signature to the two halves of dst,
// which must be zero.
func decodeECDSA(dst, der []byte) error {
	if len(der) < 3 || der[0] != 0x30 {
		return errECDSA
	}
	der = der[1:]
	if der[0] == 0x81 { // P-521
		der = der[1:]
	}
	if int(der[0]) != len(der)-1 {
		return errECDSA
	}
	der = der[1:]
	for half := range 2 {
		if len(der) < 2 || der[0] != 2 || int(der[1]) > len(der)-2 {
			return errECDSA
		}
		v := der[2 : 2+der[1]]
		der = der[2+len(v):]
		for len(v) > 0 && v[0] == 0 {
			v = v[1:]
		}
		size := len(dst) / 2
		if len(v) > size {
			return errECDSA
		}
		copy(dst[(half+1)*size-len(v):], v)
	}
	if len(der) != 0 {
		return errECDSA
	}
	return nil
}
