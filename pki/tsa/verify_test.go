// SPDX-License-Identifier: Apache-2.0

package tsa_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"
	"time"

	"kontor/pki/tsa"
)

var message = []byte("the message")

func TestVerify(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	key := newKey(t, elliptic.P256())
	good := certify(t, ca, key, "TSA", forStamping)
	sameKey := certify(t, ca, key, "TSA", forStamping)
	other := certify(t, ca, newKey(t, elliptic.P256()), "other TSA", forStamping)
	rsaTSA := certify(t, ca, newRSA(t), "RSA TSA", forStamping)
	noKeyID := certify(t, ca, key, "TSA", func(c *x509.Certificate) { forStamping(c); c.SubjectKeyId = nil })
	notStamping := certify(t, ca, key, "TSA", usages(true, 9))
	notCritical := certify(t, ca, key, "TSA", usages(false, 8))
	notOnly := certify(t, ca, key, "TSA", usages(true, 8, 9))
	noUsage := certify(t, ca, key, "TSA", nil)
	expired := certify(t, ca, key, "TSA", func(c *x509.Certificate) { forStamping(c); c.NotAfter = noon.Add(-time.Second) })
	keyID := func(id []byte) asn1.RawValue { return asn1.RawValue{Class: 2, Tag: 0, Bytes: id} }
	setAttr := func(oid asn1.ObjectIdentifier, values ...any) func(*draft) {
		return func(d *draft) {
			for i := range d.attrs {
				if d.attrs[i].Type.Equal(oid) {
					d.attrs[i].Values = values
				}
			}
		}
	}
	dropAttr := func(i int) func(*draft) {
		return func(d *draft) { d.attrs = append(d.attrs[:i:i], d.attrs[i+1:]...) }
	}
	sha1Of := func(b []byte) []byte { s := sha1.Sum(b); return s[:] }
	type essV2 struct{ Certs []essIDv2 }
	type ess struct{ Certs []essID }
	for _, tt := range []struct {
		name     string
		by       *signer // nil: good
		edit     func(*draft)
		approved []*x509.Certificate // nil: by alone
		message  []byte              // nil: message
		want     error
	}{
		{name: "good"},
		{name: "among others", approved: certs(other, rsaTSA, good)},
		{name: "by key identifier", edit: func(d *draft) { d.sid = keyID(good.cert.SubjectKeyId) }},
		{name: "by key identifier of several", edit: func(d *draft) { d.sid = keyID(good.cert.SubjectKeyId) }, approved: certs(sameKey, good)},
		{name: "RSA, hash named by digest", by: rsaTSA, edit: func(d *draft) {
			d.signature = pkix.AlgorithmIdentifier{Algorithm: oidRSA, Parameters: asn1.NullRawValue}
		}},
		{name: "fraction of a second", edit: func(d *draft) { d.info.Time = generalized("20260301120000.25Z") }},
		{name: "accuracy, ordering, nonce, extension", edit: func(d *draft) {
			d.info.Accuracy.Seconds, d.info.Ordering, d.info.Nonce = 1, true, big.NewInt(5)
			d.info.Extensions = []pkix.Extension{{Id: policy, Value: []byte{5, 0}}}
		}},
		{name: "imprint by SHA-256", edit: func(d *draft) {
			sum := sha256.Sum256(message)
			d.info.Imprint = imprint{alg(oidSHA256), sum[:]}
		}},
		{name: "signing time", edit: func(d *draft) { d.attrs = append(d.attrs, attribute{oidSigningTime, []any{noon}}) }},
		{name: "old signing certificate", edit: func(d *draft) {
			d.attrs[2] = attribute{oidESS, []any{ess{[]essID{{sha1Of(good.cert.Raw)}}}}}
		}},
		{name: "signing certificate by SHA-512", edit: func(d *draft) {
			sum := sha512.Sum512(good.cert.Raw)
			setAttr(oidESSv2, essV2{[]essIDv2{{alg(oidSHA512), sum[:]}}})(d)
		}},

		{name: "other message", message: []byte("x"), want: tsa.ErrImprint},
		{name: "imprint by SHA-1", edit: func(d *draft) { d.info.Imprint = imprint{alg(oidSHA1), sha1Of(message)} }, want: tsa.ErrImprint},
		{name: "imprint of wrong length", edit: func(d *draft) { d.info.Imprint.Hashed = d.info.Imprint.Hashed[:32] }, want: tsa.ErrMalformed},

		{name: "nobody approved", approved: []*x509.Certificate{}, want: tsa.ErrUntrusted},
		{name: "another approved", approved: certs(other), want: tsa.ErrUntrusted},
		{name: "same key and name, other certificate", approved: certs(sameKey), want: tsa.ErrUntrusted},
		{name: "by key identifier, other certificate", edit: func(d *draft) { d.sid = keyID(good.cert.SubjectKeyId) }, approved: certs(sameKey), want: tsa.ErrSignature},
		{name: "no key identifier to compare", edit: func(d *draft) { d.sid = keyID([]byte("x")) }, approved: certs(noKeyID), want: tsa.ErrUntrusted},
		{name: "empty key identifier", edit: func(d *draft) { d.sid = keyID(nil) }, approved: certs(noKeyID), want: tsa.ErrMalformed},
		{name: "not for time-stamping", by: notStamping, want: tsa.ErrUntrusted},
		{name: "usage not critical", by: notCritical, want: tsa.ErrUntrusted},
		{name: "for more than time-stamping", by: notOnly, want: tsa.ErrUntrusted},
		{name: "no extended usage", by: noUsage, want: tsa.ErrUntrusted},
		{name: "certificate expired then", by: expired, want: tsa.ErrUntrusted},

		{name: "signature spoilt", edit: func(d *draft) { d.spoil = func(b []byte) []byte { b[9] ^= 1; return b } }, want: tsa.ErrSignature},
		{name: "signed by another key", edit: func(d *draft) { d.by = other }, want: tsa.ErrSignature},
		{name: "SHA-1 signature", edit: func(d *draft) { d.signature = alg(oidECDSASHA1) }, want: tsa.ErrSignature},
		{name: "SHA-1 digest", edit: func(d *draft) { d.digest = alg(oidSHA1) }, want: tsa.ErrSignature},
		{name: "digest of other content", edit: setAttr(oidMessageDigest, make([]byte, 32)), want: tsa.ErrSignature},
		{name: "digest by another algorithm", edit: func(d *draft) { d.digest = alg(oidSHA512) }, want: tsa.ErrSignature},
		{name: "another signing certificate", edit: setAttr(oidESSv2, essV2{[]essIDv2{{Hash: make([]byte, 32)}}}), want: tsa.ErrSignature},
		{name: "signing certificate second", edit: func(d *draft) {
			sum := sha256.Sum256(good.cert.Raw)
			setAttr(oidESSv2, essV2{[]essIDv2{{Hash: make([]byte, 32)}, {Hash: sum[:]}}})(d)
		}, want: tsa.ErrSignature},
		{name: "new signing certificate beats the old", edit: func(d *draft) {
			d.attrs = append(d.attrs, attribute{oidESS, []any{ess{[]essID{{sha1Of(good.cert.Raw)}}}}})
			setAttr(oidESSv2, essV2{[]essIDv2{{Hash: make([]byte, 32)}}})(d)
		}, want: tsa.ErrSignature},

		{name: "no signed attributes", edit: func(d *draft) { d.bare = true }, want: tsa.ErrMalformed},
		{name: "no content type", edit: dropAttr(0), want: tsa.ErrMalformed},
		{name: "no message digest", edit: dropAttr(1), want: tsa.ErrMalformed},
		{name: "no signing certificate", edit: dropAttr(2), want: tsa.ErrMalformed},
		{name: "attribute twice", edit: func(d *draft) { d.attrs = append(d.attrs, d.attrs[0]) }, want: tsa.ErrMalformed},
		{name: "attribute with two values", edit: setAttr(oidContentType, oidTST, oidData), want: tsa.ErrMalformed},
		{name: "attribute of other content", edit: setAttr(oidContentType, oidData), want: tsa.ErrMalformed},
		{name: "other content", edit: func(d *draft) { d.content = oidData }, want: tsa.ErrMalformed},
		{name: "two signers", edit: func(d *draft) { d.twice = true }, want: tsa.ErrMalformed},
		{name: "version 2", edit: func(d *draft) { d.info.Version = 2 }, want: tsa.ErrMalformed},
		{name: "critical extension", edit: func(d *draft) {
			d.info.Extensions = []pkix.Extension{{Id: policy, Critical: true, Value: []byte{5, 0}}}
		}, want: tsa.ErrMalformed},
		{name: "local time", edit: func(d *draft) { d.info.Time = generalized("20260301120000") }, want: tsa.ErrMalformed},
		{name: "time zone", edit: func(d *draft) { d.info.Time = generalized("20260301120000+0100") }, want: tsa.ErrMalformed},
		{name: "no such day", edit: func(d *draft) { d.info.Time = generalized("20260231120000Z") }, want: tsa.ErrMalformed},
		{name: "empty fraction", edit: func(d *draft) { d.info.Time = generalized("20260301120000.Z") }, want: tsa.ErrMalformed},
		{name: "comma", edit: func(d *draft) { d.info.Time = generalized("20260301120000,5Z") }, want: tsa.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			by, approved, msg := tt.by, tt.approved, tt.message
			if by == nil {
				by = good
			}
			if approved == nil {
				approved = certs(by)
			}
			if msg == nil {
				msg = message
			}
			d := newDraft(t, by, message)
			if tt.edit != nil {
				tt.edit(d)
			}
			der := d.token(t)
			for _, b := range [][]byte{der, toBER(t, der)} {
				tok, err := tsa.Verify(b, msg, approved)
				if !errors.Is(err, tt.want) || (tok == nil) != (tt.want != nil) {
					t.Fatalf("got %v, want %v", err, tt.want)
				}
				if err != nil {
					continue
				}
				if !bytes.Equal(tok.Raw, der) || !tok.Signer.Equal(by.cert) || tok.Serial.Int64() != 77 ||
					!tok.Time.Truncate(time.Second).Equal(noon) || !bytes.Equal(tok.Hashed, d.info.Imprint.Hashed) {
					t.Errorf("got %+v", tok)
				}
			}
			if bytes.Equal(der, toBER(t, der)) {
				t.Fatal("no BER was made")
			}
		})
	}
}

func TestVerifyMalformed(t *testing.T) {
	t.Parallel()
	s := newTSA(t)
	der := newDraft(t, s, message).token(t)
	for i := range der {
		if _, err := tsa.Verify(der[:i], message, certs(s)); !errors.Is(err, tsa.ErrMalformed) {
			t.Fatalf("first %d bytes: %v", i, err)
		}
	}
	ber := toBER(t, der)
	for i := range ber {
		if _, err := tsa.Verify(ber[:i], message, certs(s)); !errors.Is(err, tsa.ErrMalformed) {
			t.Fatalf("first %d bytes of BER: %v", i, err)
		}
	}
	for name, b := range map[string][]byte{
		"trailing byte":       append(bytes.Clone(der), 0),
		"too long":            append(bytes.Clone(der), make([]byte, 64<<10)...),
		"deep":                bytes.Repeat([]byte{0x30, 0x80}, 30_000),
		"endless primitive":   {0x04, 0x80, 0, 0},
		"high tag":            {0x1f, 0x81, 0x01, 0},
		"length of 5 bytes":   {0x30, 0x85, 0, 0, 0, 0, 1, 0},
		"length beyond end":   {0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0},
		"pieces of pieces":    {0x24, 0x80, 0x24, 0x80, 0x04, 1, 1, 0, 0, 0, 0},
		"piece of other kind": {0x24, 0x80, 0x02, 1, 1, 0, 0},
		"unterminated":        {0x30, 0x80, 0x02, 1, 1},
	} {
		if _, err := tsa.Verify(b, message, certs(s)); !errors.Is(err, tsa.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A change of any one byte that was signed must be noticed; a few others are
	// free, such as versions.
	unnoticed := 0
	for i := range der {
		bad := bytes.Clone(der)
		bad[i] ^= 0x20
		if _, err := tsa.Verify(bad, message, certs(s)); err == nil {
			unnoticed++
		}
	}
	if unnoticed > 20 {
		t.Errorf("%d changed bytes unnoticed", unnoticed)
	}
}

// FuzzVerify: whatever comes, only what the authority signed is accepted, and
// what is accepted stays so when encoded anew.
func FuzzVerify(f *testing.F) {
	s := fixed(f)
	der := newDraft(f, s, message).token(f)
	f.Add(der)
	f.Add(toBER(f, der))
	d := newDraft(f, s, message)
	d.sid = asn1.RawValue{Class: 2, Tag: 0, Bytes: s.cert.SubjectKeyId}
	d.info.Nonce = big.NewInt(1)
	f.Add(d.token(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		tok, err := tsa.Verify(b, message, certs(s))
		if err != nil {
			for _, known := range []error{tsa.ErrMalformed, tsa.ErrImprint, tsa.ErrUntrusted, tsa.ErrSignature} {
				if errors.Is(err, known) {
					return
				}
			}
			t.Fatalf("unclassified error %v", err)
		}
		if !tok.Time.Equal(noon) || tok.Hash != crypto.SHA512 {
			t.Fatalf("accepted %x", b)
		}
		if again, err := tsa.Verify(tok.Raw, message, certs(s)); err != nil || !bytes.Equal(again.Raw, tok.Raw) {
			t.Fatalf("not stable: %v", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	s := newTSA(b)
	der := newDraft(b, s, message).token(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tsa.Verify(der, message, certs(s)); err != nil {
			b.Fatal(err)
		}
	}
}
