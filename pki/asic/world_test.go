// SPDX-License-Identifier: Apache-2.0

package asic_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kontor/pki"
	"kontor/pki/asic"
	"kontor/pki/ocsp"
	"kontor/pki/tsa"
	"kontor/pki/xades"
	"kontor/registry/id"
)

// world is an ecosystem in miniature: one authority with its OCSP responder
// and a TSA, all at one instant.
type world struct {
	t       testing.TB
	now     time.Time
	ca      *signer
	ocsp    *signer
	tsa     *signer
	serial  int64
	trust   *testTrust
	revoked map[string]bool
	stamper *tsa.Client
}

type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// testTrust implements asic.Trust. It counts how often it is asked.
type testTrust struct {
	authorities []*pki.Authority
	policy      ocsp.Policy
	tsas        []*x509.Certificate
	asked       atomic.Int64
	askedOCSP   atomic.Int64
}

func (t *testTrust) Authorities(rawSubject []byte) []*pki.Authority {
	t.asked.Add(1)
	var found []*pki.Authority
	for _, a := range t.authorities {
		if bytes.Equal(a.Cert.RawSubject, rawSubject) {
			found = append(found, a)
		}
	}
	return found
}

func (t *testTrust) OCSPPolicy() ocsp.Policy { return t.policy }

func (t *testTrust) OCSPResponders(instance string, issuer *x509.Certificate) ocsp.Responders {
	t.askedOCSP.Add(1)
	var r ocsp.Responders
	for _, a := range t.authorities {
		for _, resp := range a.Responders {
			if resp.Cert != nil && a.Instance == instance && a.Cert.Equal(issuer) {
				r.Authorised = append(r.Authorised, resp.Cert)
			}
		}
	}
	return r
}

func (t *testTrust) TSACertificates() []*x509.Certificate { return t.tsas }

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), revoked: make(map[string]bool)}
	key := w.newKey()
	w.ca = w.issue(nil, key, &x509.Certificate{
		Subject: pkix.Name{CommonName: "Test CA", Organization: []string{"Test"}}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	})
	w.ocsp = w.issue(w.ca, w.newKey(), &x509.Certificate{
		Subject: pkix.Name{CommonName: "Test OCSP"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
	})
	w.tsa = w.issue(w.ca, w.newKey(), &x509.Certificate{
		Subject: pkix.Name{CommonName: "Test TSA"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: []byte{0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08}}},
	})
	profile, ok := pki.ProfileByClass("Ejbca")
	if !ok {
		t.Fatal("no profile")
	}
	w.trust = &testTrust{
		authorities: []*pki.Authority{{Cert: w.ca.cert, Instance: "DEV", Name: "Test CA", Profile: profile,
			Responders: []pki.Responder{{URL: "http://ocsp", Cert: w.ocsp.cert}}}},
		policy: ocsp.Policy{Freshness: time.Hour},
		tsas:   []*x509.Certificate{w.tsa.cert},
	}
	server := tsa.NewServer(tsa.ServerConfig{Cert: w.tsa.cert, Signer: w.tsa.key, Policy: asn1.ObjectIdentifier{1, 2, 3}, Now: w.clock})
	w.stamper = tsa.NewClient(tsa.ClientConfig{HTTP: inProcess(server), Now: w.clock})
	return w
}

func (w *world) clock() time.Time { return w.now }

// inProcess is an HTTP client that calls h.
func inProcess(h http.Handler) *http.Client {
	return &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec.Result(), nil
	})}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (w *world) newKey() crypto.Signer {
	w.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

func newRSA(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// issue makes a certificate; self-signed if ca is nil.
func (w *world) issue(ca *signer, key crypto.Signer, template *x509.Certificate) *signer {
	w.t.Helper()
	w.serial++
	template.SerialNumber = big.NewInt(w.serial)
	if template.NotBefore.IsZero() {
		template.NotBefore, template.NotAfter = w.now.Add(-24*time.Hour), w.now.Add(365*24*time.Hour)
	}
	parent, parentKey := template, key
	if ca != nil {
		parent, parentKey = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		w.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	return &signer{cert, key}
}

// member issues a signing certificate.
func (w *world) member(m id.Member, key crypto.Signer) *signer {
	w.t.Helper()
	profile, _ := pki.ProfileByClass("Ejbca")
	subject, err := profile.SignSubject(pki.SubjectParams{Member: m})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.issue(w.ca, key, &x509.Certificate{RawSubject: subject, KeyUsage: x509.KeyUsageContentCommitment})
}

func (w *world) status(ca, responder *signer, c *x509.Certificate) []byte {
	w.t.Helper()
	h := ocsp.NewResponder(ocsp.ResponderConfig{Issuer: ca.cert, Cert: responder.cert, Signer: responder.key, Now: w.clock,
		Status: func(_ context.Context, serial *big.Int) (ocsp.CertStatus, error) {
			if w.revoked[serial.String()] {
				return ocsp.CertStatus{State: ocsp.Revoked, RevokedAt: w.now.Add(-time.Hour)}, nil
			}
			return ocsp.CertStatus{State: ocsp.Good}, nil
		}})
	der, err := ocsp.NewClient(ocsp.ClientConfig{HTTP: inProcess(h), Now: w.clock}).Fetch(w.t.Context(), c, ca.cert, []string{"http://ocsp/"})
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

func (w *world) credentials(s *signer) *xades.Credentials {
	return &xades.Credentials{Key: s.key, Cert: s.cert, OCSP: [][]byte{w.status(w.ca, w.ocsp, s.cert)}}
}

func (w *world) stamp(data []byte) []byte {
	w.t.Helper()
	tok, err := w.stamper.Stamp(w.t.Context(), "http://tsa/", data, w.trust.tsas)
	if err != nil {
		w.t.Fatal(err)
	}
	return tok.Raw
}

// sign makes the evidence of messages under one signature: plain if there is
// one part in all.
func (w *world) sign(c *xades.Credentials, messages ...[][]byte) []*asic.Evidence {
	w.t.Helper()
	var digests [][]asic.Digest
	all := make([]*asic.Evidence, len(messages))
	for i, parts := range messages {
		var d []asic.Digest
		for _, p := range parts {
			d = append(d, sha512.Sum512(p))
		}
		digests = append(digests, d)
		all[i] = &asic.Evidence{Message: d[0], Attachments: d[1:]}
	}
	if len(messages) == 1 && len(messages[0]) == 1 {
		doc, err := xades.Sign(c, xades.Reference{URI: xades.URIMessage, DigestMethod: xades.DigestSHA512, Digest: digests[0][0][:]}, w.now)
		if err != nil {
			w.t.Fatal(err)
		}
		all[0].Signature = doc
		return all
	}
	result, chains, err := asic.BuildChains(digests)
	if err != nil {
		w.t.Fatal(err)
	}
	d := sha512.Sum512(result)
	doc, err := xades.Sign(c, xades.Reference{URI: xades.URIChainResult, DigestMethod: xades.DigestSHA512, Digest: d[:]}, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, e := range all {
		e.Signature, e.ChainResult, e.Chain = doc, result, chains[i]
	}
	return all
}

func client(t testing.TB, s string) id.Client {
	t.Helper()
	c, err := id.ParseClient(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func restRequest(client, service string) []byte {
	return fmt.Appendf(nil, "POST\r\n/r1/%s/pets?limit=2\r\nContent-Type:application/json\r\nX-Road-Client:%s\r\n"+
		"x-road-request-id:78b890f3-b1eb-45b2-a512-beec5d7ead23\r\nx-road-id:DEV-d75ea6fd\r\n", service, client)
}

// container builds the container of a message, stamped together with another
// signature if batch, else alone.
func (w *world) container(c *xades.Credentials, batch bool, parts ...[]byte) *asic.Container {
	w.t.Helper()
	e := w.sign(c, parts)[0]
	k := &asic.Container{Message: parts[0], Signatures: e.Signature, SigChainResult: e.ChainResult, SigChain: e.Chain, Modified: w.now}
	for _, p := range parts[1:] {
		k.Attachments = append(k.Attachments, attachment(p))
	}
	w.restamp(k, batch)
	return k
}

// restamp gives a container a new time-stamp.
func (w *world) restamp(k *asic.Container, batch bool) {
	w.t.Helper()
	if !batch {
		s, err := xades.Parse(k.Signatures)
		if err != nil {
			w.t.Fatal(err)
		}
		if k.Signatures, err = xades.InsertTimestamp(k.Signatures, w.stamp(s.Value())); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	leaves := []asic.Digest{sha512.Sum512([]byte("another")), sha512.Sum512(k.Signatures), sha512.Sum512([]byte("third"))}
	result, chains, err := asic.BuildTimestampChains(leaves)
	if err != nil {
		w.t.Fatal(err)
	}
	k.TSChainResult, k.TSChain, k.Timestamp = result, chains[1], w.stamp(result)
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func attachment(b []byte) asic.Attachment {
	return asic.Attachment{Size: int64(len(b)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}

func archive(t testing.TB, c *asic.Container) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := c.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo: %d of %d, %v", n, b.Len(), err)
	}
	return b.Bytes()
}

// wrongKey claims one key and signs with another.
type wrongKey struct{ claimed, used crypto.Signer }

func (k *wrongKey) Public() crypto.PublicKey { return k.claimed.Public() }
func (k *wrongKey) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	return k.used.Sign(r, digest, o)
}

func verify(t testing.TB, zip []byte, trust asic.Trust) *asic.Report {
	t.Helper()
	return asic.VerifyReader(bytes.NewReader(zip), int64(len(zip)), trust, asic.Options{})
}

func decodeBase64(t testing.TB, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
