// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ErrAlgorithm marks signature and digest algorithms that are unknown or too
// weak to be trusted, such as SHA-1.
var ErrAlgorithm = errors.New("unacceptable algorithm")

// signatureAlgorithms are those accepted in OCSP responses and time-stamps.
// None uses SHA-1, which the x509 package still tolerates there.
var signatureAlgorithms = []struct {
	oid  asn1.ObjectIdentifier
	alg  x509.SignatureAlgorithm
	null bool // parameters NULL (absent tolerated); otherwise absent
}{
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, x509.ECDSAWithSHA256, false},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, x509.ECDSAWithSHA384, false},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, x509.ECDSAWithSHA512, false},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, x509.SHA256WithRSA, true},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, x509.SHA384WithRSA, true},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, x509.SHA512WithRSA, true},
	{asn1.ObjectIdentifier{1, 3, 101, 112}, x509.PureEd25519, false},
}

var oidRSAPSS = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}

// pssParameters are the parameters of RFC 4055 with MGF1 over the same hash, a
// salt as long as the hash and the default trailer: the only ones x509 checks.
var pssParameters = []struct {
	alg x509.SignatureAlgorithm
	der string
}{
	{x509.SHA256WithRSAPSS, "3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"},
	{x509.SHA384WithRSAPSS, "3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130"},
	{x509.SHA512WithRSAPSS, "3034a00f300d06096086480165030402030500a11c301a06092a864886f70d010108300d06096086480165030402030500a203020140"},
}

// ParseSignatureAlgorithm reads a DER AlgorithmIdentifier (RFC 5280, 4.1.1.2)
// and refuses every algorithm that is weak or unknown with ErrAlgorithm.
func ParseSignatureAlgorithm(der []byte) (x509.SignatureAlgorithm, error) {
	s := cryptobyte.String(der)
	var seq cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || !seq.ReadASN1ObjectIdentifier(&oid) {
		return 0, fmt.Errorf("%w: malformed identifier", ErrAlgorithm)
	}
	if oid.Equal(oidRSAPSS) {
		for _, p := range pssParameters {
			if hex.EncodeToString(seq) == p.der {
				return p.alg, nil
			}
		}
		return 0, fmt.Errorf("%w: unusual RSASSA-PSS parameters", ErrAlgorithm)
	}
	for _, a := range signatureAlgorithms {
		if oid.Equal(a.oid) {
			if !seq.Empty() && !(a.null && bytes.Equal(seq, asn1.NullBytes)) {
				return 0, fmt.Errorf("%w: %v with parameters", ErrAlgorithm, oid)
			}
			return a.alg, nil
		}
	}
	return 0, fmt.Errorf("%w: signature algorithm %v", ErrAlgorithm, oid)
}

// SignatureAlgorithmFor returns the algorithm with which a key should sign and
// its DER AlgorithmIdentifier: SHA-256, or SHA-384 for P-384 and SHA-512 for
// P-521.
func SignatureAlgorithmFor(pub crypto.PublicKey) (hash crypto.Hash, identifier []byte, err error) {
	var alg x509.SignatureAlgorithm
	switch k := pub.(type) {
	case *rsa.PublicKey:
		hash, alg = crypto.SHA256, x509.SHA256WithRSA
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			hash, alg = crypto.SHA256, x509.ECDSAWithSHA256
		case elliptic.P384():
			hash, alg = crypto.SHA384, x509.ECDSAWithSHA384
		case elliptic.P521():
			hash, alg = crypto.SHA512, x509.ECDSAWithSHA512
		default:
			return 0, nil, fmt.Errorf("%w: elliptic curve %v", ErrAlgorithm, k.Curve.Params().Name)
		}
	default:
		return 0, nil, fmt.Errorf("%w: key of type %T", ErrAlgorithm, pub)
	}
	for _, a := range signatureAlgorithms {
		if a.alg == alg {
			var b cryptobyte.Builder
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(a.oid)
				if a.null {
					b.AddASN1NULL()
				}
			})
			identifier, err = b.Bytes()
			return hash, identifier, err
		}
	}
	panic("pki: algorithm without identifier")
}
