// SPDX-License-Identifier: Apache-2.0

package globalconf

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the digests that X-Road names
	_ "crypto/sha512"
	"crypto/x509"
	"fmt"
	"math/big"
)

// digestURIs are the digest algorithms accepted for parts and certificates.
var digestURIs = []struct {
	uri  string
	hash crypto.Hash
}{
	{"http://www.w3.org/2001/04/xmlenc#sha512", crypto.SHA512},
	{"http://www.w3.org/2001/04/xmldsig-more#sha384", crypto.SHA384},
	{"http://www.w3.org/2001/04/xmlenc#sha256", crypto.SHA256},
	{"http://www.w3.org/2001/04/xmldsig-more#sha224", crypto.SHA224},
}

func digestByURI(uri string) (crypto.Hash, error) {
	for _, d := range digestURIs {
		if d.uri == uri {
			return d.hash, nil
		}
	}
	return 0, fmt.Errorf("%w: digest algorithm %q", ErrMalformed, uri)
}

func digest(h crypto.Hash, data ...[]byte) []byte {
	d := h.New()
	for _, b := range data {
		d.Write(b)
	}
	return d.Sum(nil)
}

const (
	dsigMore   = "http://www.w3.org/2001/04/xmldsig-more#"
	dsigMore07 = "http://www.w3.org/2007/05/xmldsig-more#"
)

var signatureHashes = []struct {
	name string
	hash crypto.Hash
}{{"sha512", crypto.SHA512}, {"sha384", crypto.SHA384}, {"sha256", crypto.SHA256}}

// signatureScheme is a key type with its padding.
type signatureScheme int

const (
	schemePKCS1 signatureScheme = iota
	schemePSS
	schemeECDSA
)

// signatureURI names PKCS #1 v1.5 for RSA keys and ECDSA for elliptic curves.
func signatureURI(pub crypto.PublicKey, h crypto.Hash) (string, error) {
	prefix := ""
	switch pub.(type) {
	case *rsa.PublicKey:
		prefix = "rsa-"
	case *ecdsa.PublicKey:
		prefix = "ecdsa-"
	default:
		return "", fmt.Errorf("keys of type %T cannot sign a configuration directory", pub)
	}
	for _, s := range signatureHashes {
		if s.hash == h {
			return dsigMore + prefix + s.name, nil
		}
	}
	return "", fmt.Errorf("digest algorithm %v cannot sign a configuration directory", h)
}

func signatureByURI(uri string) (signatureScheme, crypto.Hash, error) {
	for _, s := range signatureHashes {
		switch uri {
		case dsigMore + "rsa-" + s.name:
			return schemePKCS1, s.hash, nil
		case dsigMore + "ecdsa-" + s.name:
			return schemeECDSA, s.hash, nil
		case dsigMore07 + s.name + "-rsa-MGF1":
			return schemePSS, s.hash, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: signature algorithm %q", ErrMalformed, uri)
}

// minRSA is the shortest RSA modulus a verification key may have, in bits.
const minRSA = 2048

// verifySignature checks sig over data with the key of cert. Elliptic signatures
// are DER; the raw form r‖s, which tokens hand to configuration proxies, is
// accepted too.
func verifySignature(cert *x509.Certificate, uri string, data, sig []byte) error {
	scheme, hash, err := signatureByURI(uri)
	if err != nil {
		return err
	}
	sum, ok := digest(hash, data), false
	switch pub := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		switch {
		case pub.N.BitLen() < minRSA:
			return fmt.Errorf("%w: RSA key of %d bits", ErrSignature, pub.N.BitLen())
		case scheme == schemePKCS1:
			ok = rsa.VerifyPKCS1v15(pub, hash, sum, sig) == nil
		case scheme == schemePSS:
			ok = rsa.VerifyPSS(pub, hash, sum, sig, nil) == nil
		}
	case *ecdsa.PublicKey:
		if scheme != schemeECDSA {
			break
		}
		if ok = ecdsa.VerifyASN1(pub, sum, sig); !ok && len(sig) == 2*((pub.Curve.Params().BitSize+7)/8) {
			half := len(sig) / 2
			ok = ecdsa.Verify(pub, sum, new(big.Int).SetBytes(sig[:half]), new(big.Int).SetBytes(sig[half:]))
		}
	}
	if !ok {
		return ErrSignature
	}
	return nil
}

// sign returns the signature and the algorithm's URI.
func sign(key crypto.Signer, h crypto.Hash, data []byte) (sig []byte, uri string, err error) {
	if uri, err = signatureURI(key.Public(), h); err != nil {
		return nil, "", err
	}
	sig, err = key.Sign(rand.Reader, digest(h, data), h)
	return sig, uri, err
}
