// SPDX-License-Identifier: Apache-2.0

package asic_test

import (
	"bytes"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"kontor/pki"
	"kontor/pki/asic"
	"kontor/pki/ocsp"
	"kontor/pki/xades"
	"kontor/registry/id"
)

func (w *world) memberOf(c id.Client) *signer { return w.member(c.Member(), w.newKey()) }

func TestSignature(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := client(t, "DEV/COM/4321/TestClient")
	cred := w.credentials(w.memberOf(who))
	v := asic.NewVerifier(w.clock)
	forms := map[string][]*asic.Evidence{
		"plain": w.sign(cred, [][]byte{[]byte("message")}),
		"body":  w.sign(cred, [][]byte{[]byte("message"), []byte("body")}),
		"batch": w.sign(cred, [][]byte{[]byte("a")}, [][]byte{[]byte("b"), []byte("body")}, [][]byte{[]byte("c")}),
	}
	for name, all := range forms {
		for i, e := range all {
			for range 2 { // cold and warm
				verdict, err := v.Signature(e, who, w.trust, w.now)
				if err != nil {
					t.Fatalf("%s %d: %v", name, i, err)
				}
				if verdict.Member != who.Member() || verdict.Authority != w.trust.authorities[0] || verdict.OCSP == nil {
					t.Errorf("%s: verdict %+v", name, verdict)
				}
			}
		}
	}
	if n := w.trust.asked.Load(); n != 1 {
		t.Errorf("the chain was built %d times", n)
	}
	if n := w.trust.askedOCSP.Load(); n != 1 {
		t.Errorf("the OCSP response was verified %d times", n)
	}
}

func TestSignatureRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := client(t, "DEV/COM/4321/TestClient")
	good := w.memberOf(who)
	cred := w.credentials(good)
	plain := w.sign(cred, [][]byte{[]byte("message")})[0]
	body := w.sign(cred, [][]byte{[]byte("message"), []byte("body")})[0]
	batch := w.sign(cred, [][]byte{[]byte("a"), []byte("body")}, [][]byte{[]byte("b")})
	other := sha512.Sum512([]byte("other"))

	change := func(e *asic.Evidence, f func(*asic.Evidence)) *asic.Evidence {
		c := *e
		c.Attachments = append([]asic.Digest(nil), e.Attachments...)
		f(&c)
		return &c
	}
	with := func(s *signer, responses ...[]byte) *asic.Evidence {
		return w.sign(&xades.Credentials{Key: s.key, Cert: s.cert, OCSP: responses}, [][]byte{[]byte("message")})[0]
	}
	profile, _ := pki.ProfileByClass("Ejbca")
	subject, err := profile.SignSubject(pki.SubjectParams{Member: who.Member()})
	if err != nil {
		t.Fatal(err)
	}
	authKey := w.issue(w.ca, w.newKey(), &x509.Certificate{RawSubject: subject, KeyUsage: x509.KeyUsageDigitalSignature})
	expired := w.issue(w.ca, w.newKey(), &x509.Certificate{RawSubject: subject, KeyUsage: x509.KeyUsageContentCommitment,
		NotBefore: w.now.Add(-48 * time.Hour), NotAfter: w.now.Add(-24 * time.Hour)})
	strangerCA := w.issue(nil, w.newKey(), &x509.Certificate{Subject: pkix.Name{CommonName: "Stranger"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	impostorCA := w.issue(nil, w.newKey(), &x509.Certificate{RawSubject: w.ca.cert.RawSubject, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	stranger := w.issue(strangerCA, w.newKey(), &x509.Certificate{RawSubject: subject, KeyUsage: x509.KeyUsageContentCommitment})
	impostor := w.issue(impostorCA, w.newKey(), &x509.Certificate{RawSubject: subject, KeyUsage: x509.KeyUsageContentCommitment})
	revoked := w.memberOf(who)
	w.revoked[revoked.cert.SerialNumber.String()] = true
	revokedStatus := w.status(w.ca, w.ocsp, revoked.cert)

	tests := []struct {
		name   string
		e      *asic.Evidence
		signer string
		want   error
	}{
		{"other message", change(plain, func(e *asic.Evidence) { e.Message = other }), "", xades.ErrReference},
		{"plain with an attachment", change(plain, func(e *asic.Evidence) { e.Attachments = []asic.Digest{other} }), "", asic.ErrCoverage},
		{"chain without a body", change(body, func(e *asic.Evidence) { e.Attachments = nil }), "", asic.ErrHashChainRef},
		{"chain with one more", change(body, func(e *asic.Evidence) { e.Attachments = append(e.Attachments, other) }), "", asic.ErrUnusedInputs},
		{"other body", change(body, func(e *asic.Evidence) { e.Attachments[0] = other }), "", asic.ErrHashChainRef},
		{"chain of another message", change(batch[0], func(e *asic.Evidence) { e.Chain = batch[1].Chain }), "", asic.ErrHashChainRef},
		{"result of another signature", change(body, func(e *asic.Evidence) { e.ChainResult, e.Chain = batch[0].ChainResult, batch[0].Chain }), "", xades.ErrReference},
		{"no result", change(body, func(e *asic.Evidence) { e.ChainResult = nil }), "", asic.ErrMalformedHashChain},
		{"no chain", change(body, func(e *asic.Evidence) { e.Chain = nil }), "", asic.ErrMalformedHashChain},
		{"neither", change(body, func(e *asic.Evidence) { e.Chain, e.ChainResult = nil, nil }), "", xades.ErrReference},
		{"needless chain", change(plain, func(e *asic.Evidence) { e.ChainResult, e.Chain = body.ChainResult, body.Chain }), "", asic.ErrCoverage},
		{"garbage", change(plain, func(e *asic.Evidence) { e.Signature = []byte("<x/>") }), "", xades.ErrMalformed},
		{"changed value", change(plain, func(e *asic.Evidence) { e.Signature = flipValue(t, e.Signature) }), "", xades.ErrSignature},
		{"changed value, batch", change(batch[0], func(e *asic.Evidence) { e.Signature = flipValue(t, e.Signature) }), "", xades.ErrSignature},
		{"another member", plain, "DEV/COM/4322/TestClient", asic.ErrSigner},
		{"another instance", plain, "EST/COM/4321/TestClient", pki.ErrNoAuthority},
		{"authentication key", with(authKey, w.status(w.ca, w.ocsp, authKey.cert)), "", asic.ErrSigner},
		{"expired", with(expired, w.status(w.ca, w.ocsp, expired.cert)), "", pki.ErrExpired},
		{"unknown authority", with(stranger, w.status(w.ca, w.ocsp, good.cert)), "", pki.ErrNoAuthority},
		{"impostor of the authority", with(impostor, w.status(w.ca, w.ocsp, good.cert)), "", pki.ErrBadChain},
		{"revoked", with(revoked, revokedStatus), "", ocsp.ErrRevoked},
		{"status of another", with(w.memberOf(who), w.status(w.ca, w.ocsp, good.cert)), "", ocsp.ErrUnavailable},
		{"own status", with(good, w.status(w.ca, w.tsaAsResponder(), good.cert)), "", ocsp.ErrUntrusted},
	}
	for _, tt := range tests {
		signer := who
		if tt.signer != "" {
			signer = client(t, tt.signer)
		}
		v := asic.NewVerifier(w.clock)
		// A warm cache must not help the guilty.
		for _, e := range append(batch, plain, body) {
			if _, err := v.Signature(e, who, w.trust, w.now); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if _, err := v.Signature(tt.e, signer, w.trust, w.now); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
		}
	}
}

// tsaAsResponder is a responder nobody authorised, though the authority
// issued its certificate for OCSP signing, in another name.
func (w *world) tsaAsResponder() *signer {
	ca := w.issue(nil, w.newKey(), &x509.Certificate{RawSubject: w.ca.cert.RawSubject, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return &signer{w.ocsp.cert, &wrongKey{w.ocsp.key, ca.key}}
}

func TestOCSPAges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := client(t, "DEV/COM/4321/TestClient")
	e := w.sign(w.credentials(w.memberOf(who)), [][]byte{[]byte("message")})[0]
	start := w.now
	v := asic.NewVerifier(w.clock)
	for _, tt := range []struct {
		after time.Duration
		asked int64 // how often the response was verified so far
		want  error
	}{
		{0, 1, nil},
		{59 * time.Second, 1, nil},
		{61 * time.Second, 2, nil},
		{59 * time.Minute, 3, nil},
		{60 * time.Minute, 3, nil},
		{60*time.Minute + time.Second, 4, ocsp.ErrStale}, // although it was good a second ago
	} {
		w.now = start.Add(tt.after)
		if _, err := v.Signature(e, who, w.trust, w.now); !errors.Is(err, tt.want) {
			t.Errorf("after %v: %v, want %v", tt.after, err, tt.want)
		}
		if n := w.trust.askedOCSP.Load(); n != tt.asked {
			t.Errorf("after %v: verified %d times, want %d", tt.after, n, tt.asked)
		}
	}
	// The chain's verdict ends with the certificate.
	w.trust.policy = ocsp.Policy{Freshness: 10000 * time.Hour, IgnoreNextUpdate: true}
	w.now = start.Add(366 * 24 * time.Hour)
	if _, err := v.Signature(e, who, w.trust, w.now); !errors.Is(err, pki.ErrExpired) {
		t.Errorf("after a year: %v", err)
	}
}

// TestTrustIsNotShared makes sure that what one global configuration allowed is
// not allowed by the next.
func TestTrustIsNotShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := client(t, "DEV/COM/4321/TestClient")
	all := w.sign(w.credentials(w.memberOf(who)), [][]byte{[]byte("a")}, [][]byte{[]byte("b")})
	v := asic.NewVerifier(w.clock)
	none := &testTrust{policy: w.trust.policy}
	noOCSP := &testTrust{policy: w.trust.policy, authorities: []*pki.Authority{{Cert: w.tsa.cert, Instance: "DEV"}}}
	for range 3 {
		if _, err := v.Signature(all[0], who, w.trust, w.now); err != nil {
			t.Fatal(err)
		}
		for _, tr := range []asic.Trust{none, noOCSP, valueTrust{none, []int{1}}} {
			if _, err := v.Signature(all[1], who, tr, w.now); !errors.Is(err, pki.ErrNoAuthority) {
				t.Fatalf("trusting nobody: %v", err)
			}
		}
	}
}

// valueTrust cannot be compared.
type valueTrust struct {
	asic.Trust
	_ []int
}

func TestConcurrentSignatures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := client(t, "DEV/COM/4321/TestClient")
	cred := w.credentials(w.memberOf(who))
	all := w.sign(cred, [][]byte{[]byte("a")}, [][]byte{[]byte("b")}, [][]byte{[]byte("c"), []byte("d")})
	all = append(all, w.sign(cred, [][]byte{[]byte("plain")})...)
	v := asic.NewVerifier(w.clock)
	other := &testTrust{authorities: w.trust.authorities, policy: w.trust.policy}
	third := &testTrust{authorities: w.trust.authorities, policy: w.trust.policy}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 20 {
				tr := []*testTrust{w.trust, other, third}[(g+i)%3]
				if _, err := v.Signature(all[i%len(all)], who, tr, w.now); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestIntermediate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := client(t, "DEV/COM/4321/TestClient")
	sub := w.issue(w.ca, w.newKey(), &x509.Certificate{Subject: pkix.Name{CommonName: "Sub CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	profile, _ := pki.ProfileByClass("Ejbca")
	subject, err := profile.SignSubject(pki.SubjectParams{Member: who.Member()})
	if err != nil {
		t.Fatal(err)
	}
	leaf := w.issue(sub, w.newKey(), &x509.Certificate{RawSubject: subject, KeyUsage: x509.KeyUsageContentCommitment})
	subOCSP := w.issue(sub, w.newKey(), &x509.Certificate{Subject: pkix.Name{CommonName: "Sub OCSP"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}})
	leafStatus, subStatus := w.status(sub, subOCSP, leaf.cert), w.status(w.ca, w.ocsp, sub.cert)
	cred := func(responses ...[]byte) *xades.Credentials {
		return &xades.Credentials{Key: leaf.key, Cert: leaf.cert, Intermediates: []*x509.Certificate{sub.cert}, OCSP: responses}
	}
	v := asic.NewVerifier(w.clock)
	e := w.sign(cred(leafStatus, subStatus), [][]byte{[]byte("message")})[0]
	verdict, err := v.Signature(e, who, w.trust, w.now)
	if err != nil || len(verdict.Chain.Certs) != 2 {
		t.Fatalf("%+v, %v", verdict, err)
	}
	e = w.sign(cred(leafStatus), [][]byte{[]byte("message")})[0]
	if _, err := v.Signature(e, who, w.trust, w.now); !errors.Is(err, ocsp.ErrUnavailable) {
		t.Errorf("no status of the intermediate: %v", err)
	}
	for _, batch := range []bool{true, false} {
		r := verify(t, archive(t, w.container(cred(leafStatus, subStatus), batch, restRequest("DEV/COM/4321/TestClient", "DEV/COM/1234/S/svc"))), w.trust)
		if !r.Valid {
			t.Errorf("container, batch %v: %v", batch, r.Failed())
		}
	}
}

// flipValue changes the signature value of a document.
func flipValue(t *testing.T, doc []byte) []byte {
	t.Helper()
	mark := []byte(`<ds:SignatureValue Id="signature-value">`)
	i := bytes.Index(doc, mark) + len(mark) + 4
	out := bytes.Clone(doc)
	if out[i] == 'A' {
		out[i] = 'B'
	} else {
		out[i] = 'A'
	}
	return out
}

func BenchmarkSignature(b *testing.B) {
	w := newWorld(b)
	who := client(b, "DEV/COM/4321/TestClient")
	for _, key := range []string{"P-256", "RSA-2048"} {
		k := w.newKey()
		if key == "RSA-2048" {
			k = newRSA(b)
		}
		cred := w.credentials(w.member(who.Member(), k))
		var eight [][][]byte
		for i := range 8 {
			eight = append(eight, [][]byte{[]byte(fmt.Sprint("message ", i)), []byte("body")})
		}
		for name, all := range map[string][]*asic.Evidence{
			"plain": w.sign(cred, [][]byte{[]byte("message")}),
			"body":  w.sign(cred, [][]byte{[]byte("message"), []byte("body")}),
			"batch": w.sign(cred, eight...),
		} {
			b.Run(key+" "+name, func(b *testing.B) {
				v := asic.NewVerifier(w.clock)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if _, err := v.Signature(all[i%len(all)], who, w.trust, w.now); err != nil {
						b.Fatal(err)
					}
					i++
				}
			})
		}
	}
}
