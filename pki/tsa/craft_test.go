// SPDX-License-Identifier: Apache-2.0

package tsa_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
)

// The structures of RFC 5652 and RFC 3161, as these tests write them.
type (
	imprint struct {
		Hash   pkix.AlgorithmIdentifier
		Hashed []byte
	}
	accuracy struct {
		Seconds int
	}
	tstInfo struct {
		Version    int
		Policy     asn1.ObjectIdentifier
		Imprint    imprint
		Serial     *big.Int
		Time       asn1.RawValue
		Accuracy   accuracy         `asn1:"optional"`
		Ordering   bool             `asn1:"optional"`
		Nonce      *big.Int         `asn1:"optional"`
		Extensions []pkix.Extension `asn1:"tag:1,optional"`
	}
	attribute struct {
		Type   asn1.ObjectIdentifier
		Values []any `asn1:"set"`
	}
	signerInfo struct {
		Version   int
		SID       asn1.RawValue
		Digest    pkix.AlgorithmIdentifier
		Attrs     asn1.RawValue `asn1:"optional"`
		Algorithm pkix.AlgorithmIdentifier
		Signature []byte
	}
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content any `asn1:"explicit,tag:0"`
	}
	signedData struct {
		Version int
		Digests []pkix.AlgorithmIdentifier `asn1:"set"`
		Content contentInfo
		Certs   asn1.RawValue `asn1:"optional"`
		Infos   []signerInfo  `asn1:"set"`
	}
	issuerSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	essID struct {
		Hash []byte
	}
	essIDv2 struct {
		Alg  pkix.AlgorithmIdentifier `asn1:"optional"`
		Hash []byte
	}
)

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSigned        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTST           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
	oidESS           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 12}
	oidESSv2         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidSHA1          = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA512        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
	oidECDSA256      = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidECDSASHA1     = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
)

func alg(oid asn1.ObjectIdentifier) pkix.AlgorithmIdentifier {
	return pkix.AlgorithmIdentifier{Algorithm: oid}
}

// draft is a token in the making, which each test alters in its own way.
type draft struct {
	by        *signer
	info      tstInfo
	content   asn1.ObjectIdentifier
	sid       asn1.RawValue
	digest    pkix.AlgorithmIdentifier
	attrs     []attribute
	signature pkix.AlgorithmIdentifier
	certs     asn1.RawValue
	spoil     func([]byte) []byte // of the signature
	twice     bool                // two signers
	bare      bool                // no signed attributes
}

func stamped(message []byte) imprint {
	sum := sha512.Sum512(message)
	return imprint{alg(oidSHA512), sum[:]}
}

func generalized(s string) asn1.RawValue {
	return asn1.RawValue{Tag: asn1.TagGeneralizedTime, Bytes: []byte(s)}
}

// newDraft makes a draft that becomes a good token of message.
func newDraft(t testing.TB, by *signer, message []byte) *draft {
	t.Helper()
	hash := sha256.Sum256(by.cert.Raw)
	return &draft{
		by:      by,
		info:    tstInfo{Version: 1, Policy: policy, Imprint: stamped(message), Serial: big.NewInt(77), Time: generalized("20260301120000Z")},
		content: oidTST,
		sid:     asn1.RawValue{FullBytes: marshal(t, issuerSerial{asn1.RawValue{FullBytes: by.cert.RawIssuer}, by.cert.SerialNumber})},
		digest:  alg(oidSHA256),
		attrs: []attribute{
			{oidContentType, []any{oidTST}},
			{oidMessageDigest, nil}, // filled in
			{oidESSv2, []any{struct{ Certs []essIDv2 }{[]essIDv2{{Hash: hash[:]}}}}},
		},
		signature: alg(oidECDSA256),
	}
}

// token signs the draft.
func (d *draft) token(t testing.TB) []byte {
	t.Helper()
	info := marshal(t, d.info)
	sum := sha256.Sum256(info)
	signed := sum[:]
	var attrs asn1.RawValue
	if !d.bare {
		for i, a := range d.attrs {
			if a.Type.Equal(oidMessageDigest) && a.Values == nil {
				d.attrs[i].Values = []any{sum[:]}
			}
		}
		set, err := asn1.MarshalWithParams(d.attrs, "set")
		if err != nil {
			t.Fatal(err)
		}
		all := sha256.Sum256(set)
		signed = all[:]
		set[0] = 0xa0
		attrs.FullBytes = set
	}
	signature, err := d.by.key.Sign(rand.Reader, signed, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if d.spoil != nil {
		signature = d.spoil(signature)
	}
	infos := []signerInfo{{Version: 1, SID: d.sid, Digest: d.digest, Attrs: attrs, Algorithm: d.signature, Signature: signature}}
	if d.twice {
		infos = append(infos, infos[0])
	}
	return marshal(t, contentInfo{oidSigned, signedData{
		Version: 3, Digests: []pkix.AlgorithmIdentifier{d.digest}, Content: contentInfo{d.content, info}, Certs: d.certs, Infos: infos,
	}})
}

// toBER rewrites every constructed element with indefinite length and the
// content in pieces, as some authorities do.
func toBER(t testing.TB, der []byte) []byte {
	t.Helper()
	var out []byte
	for len(der) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case v.IsCompound && v.Class == asn1.ClassUniversal && v.Tag == asn1.TagSequence && len(v.Bytes) > 3 && v.Bytes[0] == 0x06:
			// A content info: its parts too.
			out = append(append(out, 0x30, 0x80), toBER(t, v.Bytes)...)
			out = append(out, 0, 0)
		case v.IsCompound && v.Class == asn1.ClassContextSpecific && v.Bytes[0] != 0x06:
			out = append(append(out, v.FullBytes[0], 0x80), toBER(t, v.Bytes)...)
			out = append(out, 0, 0)
		case v.IsCompound && v.Class == asn1.ClassUniversal && v.Tag == asn1.TagSequence && len(v.Bytes) > 3 && v.Bytes[0] == 0x02 && v.Bytes[2] == 3:
			out = append(append(out, 0x30, 0x80), toBER(t, v.Bytes)...)
			out = append(out, 0, 0)
		case !v.IsCompound && v.Tag == asn1.TagOctetString && v.Class == asn1.ClassUniversal && len(v.Bytes) > 100:
			out = append(out, 0x24, 0x80)
			for _, piece := range [][]byte{v.Bytes[:50], v.Bytes[50:]} {
				out = append(out, marshal(t, piece)...)
			}
			out = append(out, 0, 0)
		default:
			out = append(out, v.FullBytes...)
		}
		der = rest
	}
	return out
}
