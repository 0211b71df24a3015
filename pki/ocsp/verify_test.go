// SPDX-License-Identifier: Apache-2.0

package ocsp_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
	"time"

	"kontor/pki/ocsp"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	ca := certify(t, nil, "CA", asCA)
	otherCA := certify(t, nil, "other CA", asCA)
	twinCA := certify(t, nil, "CA", asCA) // same name, other key
	leaf, otherLeaf := certify(t, ca, "leaf", nil), certify(t, ca, "other leaf", nil)
	delegate := certify(t, ca, "OCSP", forOCSP)
	noEKU := certify(t, ca, "OCSP", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	anyEKU := certify(t, ca, "OCSP", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })
	foreign := certify(t, otherCA, "OCSP", forOCSP)
	forged := certify(t, twinCA, "OCSP", forOCSP)
	listed := certify(t, nil, "listed", nil)
	expired := certify(t, ca, "OCSP", func(c *x509.Certificate) { forOCSP(c); c.NotAfter = noon.Add(-time.Minute) })
	early := certify(t, ca, "OCSP", func(c *x509.Certificate) { forOCSP(c); c.NotBefore = noon.Add(time.Minute) })
	critical := certify(t, ca, "OCSP", func(c *x509.Certificate) {
		forOCSP(c)
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
	})
	only := func(cs ...*signer) (certs []*x509.Certificate) {
		for _, c := range cs {
			certs = append(certs, c.cert)
		}
		return certs
	}
	good := func() data {
		return data{
			Responder: byName(ca.cert), ProducedAt: noon,
			Responses: []single{{ID: idOf(t, leaf.cert, ca.cert), Status: statusGood, ThisUpdate: noon, NextUpdate: noon.Add(time.Minute)}},
		}
	}
	unknownExtension := []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}}
	criticalExtension := []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	for _, tt := range []struct {
		name       string
		edit       func(*data)
		by         *signer // nil: the CA
		embedded   []*x509.Certificate
		spoil      func(*basicResponse)
		responders ocsp.Responders
		at         time.Time // zero: noon
		policy     ocsp.Policy
		want       error
	}{
		{name: "by the CA, named"},
		{name: "by the CA, by key", edit: func(d *data) { d.Responder = byKey(t, ca.cert) }},
		{name: "no next update", edit: func(d *data) { d.Responses[0].NextUpdate = time.Time{} }},
		{name: "identifier without parameters", edit: func(d *data) { d.Responses[0].ID.Hash.Parameters = asn1.RawValue{} }},
		{name: "more single responses", edit: func(d *data) {
			d.Responses = append(d.Responses, single{ID: idOf(t, otherLeaf.cert, ca.cert), Status: statusUnknown, ThisUpdate: noon})
		}},
		{name: "extensions", edit: func(d *data) { d.Extensions, d.Responses[0].Extensions = unknownExtension, unknownExtension }},

		{name: "first is another's", edit: func(d *data) {
			d.Responses = append([]single{{ID: idOf(t, otherLeaf.cert, ca.cert), Status: statusGood, ThisUpdate: noon}}, d.Responses...)
		}, want: ocsp.ErrMismatch},
		{name: "other serial", edit: func(d *data) { d.Responses[0].ID = idOf(t, otherLeaf.cert, ca.cert) }, want: ocsp.ErrMismatch},
		{name: "other issuer name", edit: func(d *data) { d.Responses[0].ID.NameHash = idOf(t, leaf.cert, otherCA.cert).NameHash }, want: ocsp.ErrMismatch},
		{name: "other issuer key", edit: func(d *data) { d.Responses[0].ID.IssuerID = idOf(t, leaf.cert, otherCA.cert).IssuerID }, want: ocsp.ErrMismatch},
		{name: "identifier by SHA-256", edit: func(d *data) { d.Responses[0].ID.Hash.Algorithm = oidSHA256 }, want: ocsp.ErrMismatch},

		{name: "delegated, embedded", edit: func(d *data) { d.Responder = byName(delegate.cert) }, by: delegate, embedded: only(delegate)},
		{name: "delegated, by key", edit: func(d *data) { d.Responder = byKey(t, delegate.cert) }, by: delegate, embedded: only(leaf, delegate)},
		{name: "delegated, known", edit: func(d *data) { d.Responder = byName(delegate.cert) }, by: delegate,
			responders: ocsp.Responders{Known: only(foreign, noEKU, expired, delegate)}},
		{name: "delegated, nowhere to be found", edit: func(d *data) { d.Responder = byName(delegate.cert) }, by: delegate, want: ocsp.ErrUntrusted},
		{name: "listed", edit: func(d *data) { d.Responder = byName(listed.cert) }, by: listed,
			responders: ocsp.Responders{Authorised: only(listed)}},
		{name: "listed for others only", edit: func(d *data) { d.Responder = byName(listed.cert) }, by: listed,
			responders: ocsp.Responders{Known: only(listed)}, want: ocsp.ErrUntrusted},
		{name: "listed though expired", edit: func(d *data) { d.Responder = byName(expired.cert) }, by: expired,
			responders: ocsp.Responders{Authorised: only(expired)}},
		{name: "delegated but not for OCSP", edit: func(d *data) { d.Responder = byName(noEKU.cert) }, by: noEKU, embedded: only(noEKU), want: ocsp.ErrUntrusted},
		{name: "delegated for anything", edit: func(d *data) { d.Responder = byName(anyEKU.cert) }, by: anyEKU, embedded: only(anyEKU), want: ocsp.ErrUntrusted},
		{name: "delegated by another CA", edit: func(d *data) { d.Responder = byName(foreign.cert) }, by: foreign, embedded: only(foreign), want: ocsp.ErrUntrusted},
		{name: "delegated by a CA of that name", edit: func(d *data) { d.Responder = byName(forged.cert) }, by: forged, embedded: only(forged), want: ocsp.ErrUntrusted},
		{name: "delegated, expired", edit: func(d *data) { d.Responder = byName(expired.cert) }, by: expired, embedded: only(expired), want: ocsp.ErrUntrusted},
		{name: "delegated, not yet valid", edit: func(d *data) { d.Responder = byName(early.cert) }, by: early, embedded: only(early), want: ocsp.ErrUntrusted},
		{name: "delegated, unknown critical extension", edit: func(d *data) { d.Responder = byName(critical.cert) }, by: critical, embedded: only(critical), want: ocsp.ErrUntrusted},
		{name: "CA of that name", by: twinCA, embedded: only(twinCA), want: ocsp.ErrUntrusted},
		{name: "the leaf for itself", edit: func(d *data) { d.Responder = byName(leaf.cert) }, by: leaf, embedded: only(leaf), want: ocsp.ErrUntrusted},
		{name: "another signed than the one named", by: delegate, embedded: only(delegate), want: ocsp.ErrUntrusted},
		{name: "signature spoilt", spoil: func(b *basicResponse) { b.Signature.Bytes[9] ^= 1 }, want: ocsp.ErrUntrusted},
		{name: "SHA-1 signature", spoil: func(b *basicResponse) { b.Algorithm.Algorithm = oidECDSASHA1 }, want: ocsp.ErrUntrusted},
		{name: "delegate comes too late", edit: func(d *data) { d.Responder = byName(delegate.cert) }, by: delegate,
			embedded: only(leaf, leaf, leaf, leaf, leaf, leaf, leaf, leaf, delegate), want: ocsp.ErrUntrusted},
		{name: "unreadable certificate beside", edit: func(d *data) { d.Responder = byName(delegate.cert) }, by: delegate, embedded: only(delegate),
			spoil: func(b *basicResponse) {
				b.Certs = append([]asn1.RawValue{{FullBytes: []byte{0x30, 0}}}, b.Certs...)
			}},

		{name: "freshest", at: noon.Add(time.Minute)},
		{name: "as old as allowed", at: noon.Add(time.Minute), policy: ocsp.Policy{Freshness: time.Minute}},
		{name: "older", at: noon.Add(time.Minute), policy: ocsp.Policy{Freshness: time.Minute - time.Second}, want: ocsp.ErrStale},
		{name: "older than an hour by default", edit: func(d *data) { d.Responses[0].ThisUpdate = noon.Add(-time.Hour - time.Second) }, want: ocsp.ErrStale},
		{name: "clock ahead", at: noon.Add(-5 * time.Minute)},
		{name: "future", at: noon.Add(-5*time.Minute - time.Second), want: ocsp.ErrStale},
		{name: "update due", at: noon.Add(time.Minute + time.Second), want: ocsp.ErrStale},
		{name: "update due but not asked", at: noon.Add(time.Minute + time.Second), policy: ocsp.Policy{IgnoreNextUpdate: true}},

		{name: "revoked", edit: func(d *data) { d.Responses[0].Status = statusRevoked(t, noon) }, want: ocsp.ErrRevoked},
		{name: "unknown", edit: func(d *data) { d.Responses[0].Status = statusUnknown }, want: ocsp.ErrUnknown},
		{name: "revoked long ago is stale first", edit: func(d *data) {
			d.Responses[0].Status, d.Responses[0].ThisUpdate = statusRevoked(t, noon), noon.Add(-2*time.Hour)
		}, want: ocsp.ErrStale},

		{name: "critical extension", edit: func(d *data) { d.Extensions = criticalExtension }, want: ocsp.ErrMalformed},
		{name: "critical extension of the single response", edit: func(d *data) { d.Responses[0].Extensions = criticalExtension }, want: ocsp.ErrMalformed},
		{name: "no status known", edit: func(d *data) { d.Responses[0].Status = asn1.RawValue{Class: 2, Tag: 3} }, want: ocsp.ErrMalformed},
		{name: "good with content", edit: func(d *data) { d.Responses[0].Status = asn1.RawValue{Class: 2, Tag: 0, Bytes: []byte{1}} }, want: ocsp.ErrMalformed},
		{name: "no single response", edit: func(d *data) { d.Responses = nil }, want: ocsp.ErrMalformed},
		{name: "no responder", edit: func(d *data) { d.Responder = asn1.RawValue{Class: 2, Tag: 3, IsCompound: true} }, want: ocsp.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, by, at := good(), tt.by, tt.at
			if tt.edit != nil {
				tt.edit(&d)
			}
			if by == nil {
				by = ca
			}
			if at.IsZero() {
				at = noon
			}
			der := sign(t, d, by, tt.embedded, tt.spoil)
			r, err := ocsp.Verify(der, leaf.cert, ca.cert, tt.responders, at, tt.policy)
			if !errors.Is(err, tt.want) || (r == nil) != (tt.want != nil) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if strings.HasPrefix(tt.name, "critical") && !strings.Contains(err.Error(), "critical") {
				t.Errorf("refused for another reason: %v", err)
			}
			if err == nil && (!bytes.Equal(r.Raw, der) || !r.ThisUpdate.Equal(d.Responses[0].ThisUpdate) ||
				!r.NextUpdate.Equal(d.Responses[0].NextUpdate) || !r.ProducedAt.Equal(noon)) {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func TestVerifyMalformed(t *testing.T) {
	t.Parallel()
	ca := certify(t, nil, "CA", asCA)
	leaf := certify(t, ca, "leaf", nil)
	der := goodResponse(t, ca, leaf)
	for i := range der {
		if _, err := ocsp.Verify(der[:i], leaf.cert, ca.cert, ocsp.Responders{}, noon, ocsp.Policy{}); !errors.Is(err, ocsp.ErrMalformed) {
			t.Fatalf("first %d bytes: %v", i, err)
		}
	}
	for name, tt := range map[string]struct {
		der  []byte
		want error
	}{
		"trailing byte":    {append(bytes.Clone(der), 0), ocsp.ErrMalformed},
		"too long":         {append(bytes.Clone(der), make([]byte, 64<<10)...), ocsp.ErrMalformed},
		"try later":        {[]byte{0x30, 3, 10, 1, 3}, ocsp.ErrUnavailable},
		"status 77":        {[]byte{0x30, 3, 10, 1, 77}, ocsp.ErrUnavailable},
		"good but nothing": {[]byte{0x30, 3, 10, 1, 0}, ocsp.ErrMalformed},
	} {
		if _, err := ocsp.Verify(tt.der, leaf.cert, ca.cert, ocsp.Responders{}, noon, ocsp.Policy{}); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A change of any one byte must be noticed.
	for i := range der {
		bad := bytes.Clone(der)
		bad[i] ^= 0x20
		if _, err := ocsp.Verify(bad, leaf.cert, ca.cert, ocsp.Responders{}, noon, ocsp.Policy{}); err == nil {
			t.Errorf("byte %d changed unnoticed", i)
		}
	}
}

func goodResponse(t testing.TB, ca, leaf *signer) []byte {
	t.Helper()
	return sign(t, data{Responder: byName(ca.cert), ProducedAt: noon, Responses: []single{
		{ID: idOf(t, leaf.cert, ca.cert), Status: statusGood, ThisUpdate: noon, NextUpdate: noon.Add(time.Minute)}}}, ca, nil, nil)
}

// FuzzVerify: nothing but a response signed by the authority is accepted, and
// errors are those of the package.
func FuzzVerify(f *testing.F) {
	ca := fixed(f, nil, 1, asCA)
	leaf := fixed(f, ca, 2, nil)
	delegate := fixed(f, ca, 3, forOCSP)
	der := goodResponse(f, ca, leaf)
	if _, err := ocsp.Verify(der, leaf.cert, ca.cert, ocsp.Responders{}, noon, ocsp.Policy{}); err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	answer := func(status asn1.RawValue) []byte {
		return sign(f, data{Responder: byKey(f, delegate.cert), ProducedAt: noon, Responses: []single{
			{ID: idOf(f, leaf.cert, ca.cert), Status: status, ThisUpdate: noon},
			{ID: idOf(f, leaf.cert, ca.cert), Status: statusGood, ThisUpdate: noon}}}, delegate, []*x509.Certificate{delegate.cert}, nil)
	}
	f.Add(answer(statusGood))
	f.Add(answer(statusRevoked(f, noon)))
	f.Add([]byte{0x30, 3, 10, 1, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ocsp.Verify(b, leaf.cert, ca.cert, ocsp.Responders{}, noon, ocsp.Policy{})
		if err == nil {
			// Nothing else was signed than what says this.
			if !r.ThisUpdate.Equal(noon) || !r.ProducedAt.Equal(noon) || !r.NextUpdate.IsZero() && !r.NextUpdate.Equal(noon.Add(time.Minute)) {
				t.Fatalf("accepted %x", b)
			}
			return
		}
		for _, known := range []error{ocsp.ErrMalformed, ocsp.ErrMismatch, ocsp.ErrUntrusted, ocsp.ErrStale, ocsp.ErrRevoked, ocsp.ErrUnknown, ocsp.ErrUnavailable} {
			if errors.Is(err, known) {
				return
			}
		}
		t.Fatalf("unclassified error %v", err)
	})
}

func BenchmarkVerify(b *testing.B) {
	ca := certify(b, nil, "CA", asCA)
	leaf := certify(b, ca, "leaf", nil)
	delegate := certify(b, ca, "OCSP", forOCSP)
	d := data{Responder: byName(delegate.cert), ProducedAt: noon, Responses: []single{
		{ID: idOf(b, leaf.cert, ca.cert), Status: statusGood, ThisUpdate: noon}}}
	for name, der := range map[string][]byte{
		"CA":        goodResponse(b, ca, leaf),
		"delegated": sign(b, d, delegate, []*x509.Certificate{delegate.cert}, nil),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ocsp.Verify(der, leaf.cert, ca.cert, ocsp.Responders{}, noon, ocsp.Policy{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestCache(t *testing.T) {
	t.Parallel()
	now := noon
	c := ocsp.NewCache(func() time.Time { return now })
	ca := certify(t, nil, "CA", asCA)
	leaf, other := certify(t, ca, "leaf", nil), certify(t, ca, "leaf", nil)
	r := &ocsp.Response{ThisUpdate: noon, NextUpdate: noon.Add(time.Minute)}
	if _, ok := c.Get(leaf.cert, ocsp.Policy{}, now); ok {
		t.Error("found in an empty cache")
	}
	c.Put(leaf.cert, r)
	if got, ok := c.Get(leaf.cert, ocsp.Policy{}, now); !ok || got != r {
		t.Error("not found")
	}
	if _, ok := c.Get(other.cert, ocsp.Policy{}, now); ok {
		t.Error("found for another certificate")
	}
	if _, ok := c.Get(leaf.cert, ocsp.Policy{}, now.Add(2*time.Minute)); ok {
		t.Error("found past its next update")
	}
	now = noon.Add(time.Minute)
	if _, ok := c.Get(leaf.cert, ocsp.Policy{}, noon); ok {
		t.Error("found after a minute")
	}
	for i := range 10_100 {
		c.Put(&x509.Certificate{Raw: []byte{byte(i >> 8), byte(i)}}, r)
	}
	if n := c.Len(); n > 10_000 {
		t.Errorf("%d entries", n)
	}
}
