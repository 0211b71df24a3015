// SPDX-License-Identifier: Apache-2.0

// Package pki holds the keys of a security server and judges certificates.
//
// A Token is a directory of PIN-protected keys with their certificates. A
// Profile translates between member identifiers and certificate subjects, and
// VerifyChain builds a path from a certificate to an approved certification
// authority as it stood at a given instant. The package knows nothing of
// messages, and of members only their names.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Algorithm names a key type and size.
type Algorithm string

// The algorithms a token can generate. P-256 signs some thirty times faster
// than RSA-2048 and is the one to prefer.
const (
	P256    Algorithm = "EC-P256"
	P384    Algorithm = "EC-P384"
	RSA2048 Algorithm = "RSA-2048"
	RSA3072 Algorithm = "RSA-3072"
	RSA4096 Algorithm = "RSA-4096"
)

// Algorithms lists all algorithms, the preferred one first.
func Algorithms() []Algorithm { return []Algorithm{P256, P384, RSA2048, RSA3072, RSA4096} }

// ParseAlgorithm reads an algorithm's name without regard to case or hyphens;
// "P256" and "P384" are short for the elliptic curves.
func ParseAlgorithm(s string) (Algorithm, error) {
	plain := strings.NewReplacer("-", "").Replace(strings.ToUpper(s))
	for _, a := range Algorithms() {
		full := strings.ReplaceAll(string(a), "-", "")
		if plain == full || plain == strings.TrimPrefix(full, "EC") {
			return a, nil
		}
	}
	return "", fmt.Errorf("unknown key algorithm %q: use one of %v", s, Algorithms())
}

func (a Algorithm) generate() (crypto.Signer, error) {
	switch a {
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return nil, fmt.Errorf("unknown key algorithm %q", string(a))
}

// matches reports whether pub is a key of this algorithm.
func (a Algorithm) matches(pub crypto.PublicKey) bool {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return a == P256 && k.Curve == elliptic.P256() || a == P384 && k.Curve == elliptic.P384()
	case *rsa.PublicKey:
		return string(a) == fmt.Sprintf("RSA-%d", k.N.BitLen())
	}
	return false
}

// Usage says what a key is for. A key serves one purpose only.
type Usage string

// Usages of keys.
const (
	Authentication Usage = "authentication"
	Signing        Usage = "signing"
)

// ParseUsage reads a usage's name.
func ParseUsage(s string) (Usage, error) {
	if u := Usage(s); u == Authentication || u == Signing {
		return u, nil
	}
	return "", fmt.Errorf("unknown key usage %q: use %q or %q", s, Authentication, Signing)
}

// CertHash is the SHA-256 digest of a certificate's DER encoding.
type CertHash [sha256.Size]byte

// HashOf returns the hash of c.
func HashOf(c *x509.Certificate) CertHash { return sha256.Sum256(c.Raw) }

// Base64 returns the hash as the global configuration writes it.
func (h CertHash) Base64() string { return base64.StdEncoding.EncodeToString(h[:]) }

// Hex returns the hash in lower-case hexadecimal.
func (h CertHash) Hex() string { return hex.EncodeToString(h[:]) }

func (h CertHash) String() string { return h.Hex() }

// ParseCertHash reads the hexadecimal form.
func ParseCertHash(s string) (CertHash, error) {
	var h CertHash
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		return h, fmt.Errorf("certificate hash %q is not %d hexadecimal digits", s, 2*len(h))
	}
	return CertHash(b), nil
}

// IsAuthCert reports whether c may authenticate a security server: it has the
// extended key usage clientAuth, or one of the key usages digitalSignature,
// keyEncipherment and dataEncipherment.
func IsAuthCert(c *x509.Certificate) bool {
	return slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) ||
		c.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment|x509.KeyUsageDataEncipherment) != 0
}

// IsSignCert reports whether c may sign messages: it has the key usage
// nonRepudiation, nowadays called contentCommitment.
func IsSignCert(c *x509.Certificate) bool {
	return c.KeyUsage&x509.KeyUsageContentCommitment != 0
}

// samePublicKey compares two keys of any type the standard library knows.
func samePublicKey(a, b crypto.PublicKey) bool {
	switch k := a.(type) {
	case *ecdsa.PublicKey:
		return k.Equal(b)
	case *rsa.PublicKey:
		return k.Equal(b)
	case ed25519.PublicKey:
		return k.Equal(b)
	}
	return false
}
