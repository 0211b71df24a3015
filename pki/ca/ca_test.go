// SPDX-License-Identifier: Apache-2.0

package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"kontor/pki"
	"kontor/pki/ca"
	"kontor/pki/ocsp"
	"kontor/pki/tsa"
	"kontor/registry/id"
)

var pass = []byte("a passphrase")

const ocspURL = "http://ca.example:8888/ocsp"

// created holds one authority that tests copy: making keys unreadable is slow
// on purpose.
var created = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kontor-ca-")
	if err != nil {
		return "", err
	}
	template = dir
	if err := ca.Create(dir, pass, ca.CreateConfig{Name: "Test CA", Instance: "DEV"}); err != nil {
		return dir, err
	}
	return dir, cheapen(dir)
})

// cheapen lets openssl, if there is one, encrypt the keys anew with fewer
// iterations, so that opening the copies is fast.
func cheapen(dir string) error {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		return nil
	}
	for _, name := range []string{"ca", "ocsp", "tsa"} {
		key := filepath.Join(dir, name+".key")
		out, err := exec.Command(openssl, "pkcs8", "-topk8", "-iter", "1000", "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA256",
			"-in", key, "-out", key+".new", "-passin", "pass:"+string(pass), "-passout", "pass:"+string(pass)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("openssl: %w: %s", err, out)
		}
		if err := errors.Join(os.Rename(key+".new", key), os.Chmod(key, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

// template is the directory that created made, if it did.
var template string

func TestMain(m *testing.M) {
	code := m.Run()
	if template != "" {
		os.RemoveAll(template)
	}
	os.Exit(code)
}

func newDir(t testing.TB) string {
	t.Helper()
	source, err := created()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "ca")
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, dir string, cfg ca.Config) *ca.CA {
	t.Helper()
	c, err := ca.Open(dir, pass, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func newCA(t testing.TB) *ca.CA { return open(t, newDir(t), ca.Config{OCSPURL: ocspURL}) }

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCSR(t testing.TB, key crypto.Signer, template *x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func csrFor(cn string) *x509.CertificateRequest {
	return &x509.CertificateRequest{Subject: pkix.Name{Country: []string{"DEV"}, Organization: []string{"GOV"}, CommonName: cn}}
}

func issue(t testing.TB, c *ca.CA, req ca.Request) *x509.Certificate {
	t.Helper()
	cert, err := c.Issue(t.Context(), newCSR(t, newKey(t), csrFor("1234")), req)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func extension(c *x509.Certificate, oid ...int) (pkix.Extension, bool) {
	for _, e := range c.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier(oid)) {
			return e, true
		}
	}
	return pkix.Extension{}, false
}

func TestIssuedCertificates(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	dir := filepath.Join(t.TempDir(), "ca")
	if err := ca.Create(dir, pass, ca.CreateConfig{Name: "Test CA", Instance: "DEV", Algorithm: pki.P384, Now: func() time.Time { return now.Add(-time.Hour) }}); err != nil {
		t.Fatal(err)
	}
	c := open(t, dir, ca.Config{OCSPURL: ocspURL, Now: func() time.Time { return now }, Validity: 90 * 24 * time.Hour})

	for _, tc := range []struct {
		use    pki.Usage
		usage  x509.KeyUsage
		ext    []x509.ExtKeyUsage
		isAuth bool
	}{
		{pki.Authentication, x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment | x509.KeyUsageKeyAgreement,
			[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, true},
		{pki.Signing, x509.KeyUsageContentCommitment, nil, false},
	} {
		// The request asks for too much: the profile decides.
		csr := csrFor("1234")
		csr.DNSNames = []string{"ss1.example"}
		bc, _ := asn1.Marshal(struct{ CA bool }{true})
		csr.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: bc}}
		key := newKey(t)
		cert, err := c.Issue(t.Context(), newCSR(t, key, csr), ca.Request{Usage: tc.use})
		if err != nil {
			t.Fatal(err)
		}
		if cert.KeyUsage != tc.usage || !slices.Equal(cert.ExtKeyUsage, tc.ext) || cert.IsCA || !cert.BasicConstraintsValid {
			t.Errorf("%s: key usage %b, extended %v, CA %v", tc.use, cert.KeyUsage, cert.ExtKeyUsage, cert.IsCA)
		}
		if e, ok := extension(cert, 2, 5, 29, 15); !ok || !e.Critical {
			t.Errorf("%s: key usage is not critical", tc.use)
		}
		if pki.IsAuthCert(cert) != tc.isAuth || pki.IsSignCert(cert) == tc.isAuth {
			t.Errorf("%s: could be taken for the other kind", tc.use)
		}
		if !slices.Equal(cert.OCSPServer, []string{ocspURL}) || !slices.Equal(cert.DNSNames, csr.DNSNames) {
			t.Errorf("%s: OCSP %v, names %v", tc.use, cert.OCSPServer, cert.DNSNames)
		}
		parsed, _ := x509.ParseCertificateRequest(newCSR(t, key, csr))
		if !bytes.Equal(cert.RawSubject, parsed.RawSubject) || !bytes.Equal(cert.RawSubjectPublicKeyInfo, parsed.RawSubjectPublicKeyInfo) {
			t.Errorf("%s: subject %v", tc.use, cert.Subject)
		}
		if want := now.Add(90 * 24 * time.Hour); !cert.NotAfter.Equal(want) || !cert.NotBefore.Equal(now.Add(-5*time.Minute)) {
			t.Errorf("%s: valid %v to %v", tc.use, cert.NotBefore, cert.NotAfter)
		}
		if err := cert.CheckSignatureFrom(c.Certificate()); err != nil {
			t.Errorf("%s: %v", tc.use, err)
		}
		if _, err := pki.VerifyChain(cert, nil, trust{c.Certificate()}, now); err != nil {
			t.Errorf("%s: %v", tc.use, err)
		}
	}

	if c.Certificate().KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign|x509.KeyUsageDigitalSignature || !c.Certificate().IsCA {
		t.Errorf("authority: key usage %b", c.Certificate().KeyUsage)
	}
	for _, cert := range []*x509.Certificate{c.OCSPCertificate(), c.TSACertificate()} {
		if e, ok := extension(cert, 2, 5, 29, 37); !ok || !e.Critical || len(cert.ExtKeyUsage) != 1 {
			t.Errorf("%v: extended key usage must be single and critical", cert.Subject)
		}
		if err := cert.CheckSignatureFrom(c.Certificate()); err != nil {
			t.Error(err)
		}
	}
}

type trust struct{ cert *x509.Certificate }

func (tr trust) Authorities(subject []byte) []*pki.Authority {
	if !bytes.Equal(subject, tr.cert.RawSubject) {
		return nil
	}
	return []*pki.Authority{{Cert: tr.cert, Instance: "DEV", Name: "Test CA"}}
}

func TestRequestOverrides(t *testing.T) {
	t.Parallel()
	c := newCA(t)
	profile, _ := pki.ProfileByClass("FiVRK")
	owner, _ := id.NewMember("DEV", "GOV", "9")
	server, _ := id.NewSecurityServer(owner, "ss")
	subject, err := profile.SignSubject(pki.SubjectParams{Server: server, Member: owner, MemberName: "Nine", DNSName: "ss.example", Country: "FI"})
	if err != nil {
		t.Fatal(err)
	}
	csr := csrFor("x")
	csr.DNSNames = []string{"unwanted.example"}
	cert, err := c.Issue(t.Context(), newCSR(t, newKey(t), csr), ca.Request{Usage: pki.Signing, Subject: subject, DNSNames: []string{}, Validity: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(cert.RawSubject, subject) || len(cert.DNSNames) > 0 || time.Until(cert.NotAfter) > time.Hour {
		t.Errorf("subject %v, names %v, until %v", cert.Subject, cert.DNSNames, cert.NotAfter)
	}
	if m, err := profile.Member(cert, "DEV"); err != nil || m != owner {
		t.Errorf("member %v, %v", m, err)
	}
	long, err := c.Issue(t.Context(), newCSR(t, newKey(t), csrFor("x")), ca.Request{Usage: pki.Signing, Validity: 200 * 365 * 24 * time.Hour})
	if err != nil || !long.NotAfter.Equal(c.Certificate().NotAfter) {
		t.Errorf("a certificate outlives its authority: %v, %v", long.NotAfter, err)
	}
}

func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	c := open(t, dir, ca.Config{})
	sign := ca.Request{Usage: pki.Signing}
	good := newCSR(t, newKey(t), csrFor("x"))
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	rsa1024, _ := pem.Decode([]byte(weakRSA))
	nameless, _ := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, newKey(t))
	ip := csrFor("x")
	ip.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	wild := csrFor("x")
	wild.DNSNames = []string{"*.example"}
	usurper := newCSR(t, newKey(t), &x509.CertificateRequest{RawSubject: c.Certificate().RawSubject})

	for name, tc := range map[string]struct {
		csr []byte
		req ca.Request
	}{
		"not DER":             {[]byte("hello"), sign},
		"too large":           {append(bytes.Clone(good), make([]byte, 20<<10)...), sign},
		"trailing byte":       {append(bytes.Clone(good), 0), sign},
		"forged signature":    {forged, sign},
		"weak curve":          {newCSR(t, p224, csrFor("x")), sign},
		"Ed25519":             {newCSR(t, ed, csrFor("x")), sign},
		"RSA-1024":            {rsa1024.Bytes, sign},
		"no subject":          {nameless, sign},
		"authority's name":    {usurper, sign},
		"subject not a name":  {good, ca.Request{Usage: pki.Signing, Subject: []byte{1, 2, 3}}},
		"subject and more":    {good, ca.Request{Usage: pki.Signing, Subject: append(bytes.Clone(c.Certificate().RawSubject), 0)}},
		"no usage":            {good, ca.Request{}},
		"unknown usage":       {good, ca.Request{Usage: "both"}},
		"IP address asked":    {newCSR(t, newKey(t), ip), sign},
		"wildcard asked":      {newCSR(t, newKey(t), wild), sign},
		"not a DNS name":      {good, ca.Request{Usage: pki.Signing, DNSNames: []string{"a b"}}},
		"negative validity":   {good, ca.Request{Usage: pki.Signing, Validity: -time.Hour}},
		"fraction of seconds": {good, ca.Request{Usage: pki.Signing, Validity: time.Millisecond}},
	} {
		if cert, err := c.Issue(t.Context(), tc.csr, tc.req); !errors.Is(err, ca.ErrRequest) {
			t.Errorf("%s: %v, %v", name, cert, err)
		}
	}
	if all, err := c.List(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("%d certificates recorded, %v: only the authority's own two were issued", len(all), err)
	}
	c.Close()
	late := open(t, dir, ca.Config{Now: func() time.Time { return time.Now().AddDate(30, 0, 0) }})
	if _, err := late.Issue(t.Context(), good, sign); !errors.Is(err, ca.ErrRequest) {
		t.Errorf("issued by an expired authority: %v", err)
	}
}

// weakRSA is a request with an RSA-1024 key, which Go would not generate.
const weakRSA = `-----BEGIN CERTIFICATE REQUEST-----
MIIBSzCBtQIBADAMMQowCAYDVQQDDAF4MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCB
iQKBgQDdUjMHDS63KntL02TkyAeqRjj+FTRhcUefcXJZSnmm9kvnMSmC9PW3nHKF
6voRyiyPHXH/dQQ6wugRd3X7zuIy6K6kV0KVh4oBkUKiHAv68qKRJvQ6NF0KlUwv
1wK8NF0vdtt7hCP/L4CuJUU+5E5sxe4oq9N9kkwsQ//7XL3pvwIDAQABoAAwDQYJ
KoZIhvcNAQELBQADgYEAcSbBh8bX1T3ZLGpoC6UGlwjOKV87juosvA9HnHe8QmS6
la5NVZTsbyN2n8N0YWH/sFvV6PND8ekwcmpEABeO2aLeR71pjas2IZ/0gaKN9Rza
MLc9oYNGJMsbsVAfDEX1j3+NC7XWlWJJF78jgpIKiaAkszmZosszk3g9IFQX5B0=
-----END CERTIFICATE REQUEST-----`

func TestRevocation(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	c := open(t, dir, ca.Config{})
	kept, gone := issue(t, c, ca.Request{Usage: pki.Signing}), issue(t, c, ca.Request{Usage: pki.Authentication})
	for _, reason := range []int{-1, 2, 6, 7, 8, 10, 11} {
		if err := c.Revoke(t.Context(), gone.SerialNumber, reason); !errors.Is(err, ca.ErrReason) {
			t.Errorf("reason %d: %v", reason, err)
		}
	}
	if err := c.Revoke(t.Context(), gone.SerialNumber, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.Revoke(t.Context(), gone.SerialNumber, 4); !errors.Is(err, ca.ErrRevoked) {
		t.Errorf("revoked twice: %v", err)
	}
	for _, serial := range []*big.Int{big.NewInt(1), big.NewInt(-1), new(big.Int), nil, new(big.Int).Lsh(big.NewInt(1), 300)} {
		if err := c.Revoke(t.Context(), serial, 1); !errors.Is(err, ca.ErrUnknownSerial) {
			t.Errorf("serial %v: %v", serial, err)
		}
		if st, err := c.Status(t.Context(), serial); err != nil || st.State != ocsp.Unknown {
			t.Errorf("serial %v: %v, %v", serial, st, err)
		}
	}
	c.Close()
	c = open(t, dir, ca.Config{})
	if st, err := c.Status(t.Context(), kept.SerialNumber); err != nil || st.State != ocsp.Good {
		t.Errorf("status after restart %v, %v", st, err)
	}
	if st, err := c.Status(t.Context(), gone.SerialNumber); err != nil || st.State != ocsp.Revoked || st.Reason != 1 || time.Since(st.RevokedAt) > time.Minute {
		t.Errorf("status after restart %v, %v", st, err)
	}
	all, err := c.List(t.Context())
	if err != nil || len(all) != 4 {
		t.Fatalf("%d certificates, %v", len(all), err)
	}
	if rec, err := c.Get(t.Context(), kept.SerialNumber); err != nil || rec.Usage != pki.Signing || !rec.Certificate.Equal(kept) {
		t.Errorf("record %v, %v", rec, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Revoke(cancelled, kept.SerialNumber, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCreateAndOpen(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	if err := ca.Create(dir, pass, ca.CreateConfig{Name: "Other", Instance: "DEV"}); !errors.Is(err, ca.ErrExists) {
		t.Errorf("created over another: %v", err)
	}
	if _, err := ca.Open(dir, []byte("wrong"), ca.Config{}); !errors.Is(err, ca.ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := ca.Open(t.TempDir(), pass, ca.Config{}); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("empty directory: %v", err)
	}
	for _, cfg := range []ca.Config{{OCSPURL: "ca.example"}, {OCSPURL: "ftp://ca.example"}, {Validity: -1}} {
		if _, err := ca.Open(dir, pass, cfg); err == nil {
			t.Errorf("%+v accepted", cfg)
		}
	}
	for name, cfg := range map[string]ca.CreateConfig{
		"no name":     {Instance: "DEV"},
		"no instance": {Name: "CA"},
		"long name":   {Name: strings.Repeat("x", 65), Instance: "DEV"},
		"control":     {Name: "a\nb", Instance: "DEV"},
		"algorithm":   {Name: "CA", Instance: "DEV", Algorithm: "DSA"},
		"validity":    {Name: "CA", Instance: "DEV", Validity: -1},
	} {
		if err := ca.Create(filepath.Join(t.TempDir(), "ca"), pass, cfg); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
	if err := ca.Create(filepath.Join(t.TempDir(), "ca"), nil, ca.CreateConfig{Name: "CA", Instance: "DEV"}); err == nil {
		t.Error("empty passphrase accepted")
	}
	keys, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil || len(keys) != 3 {
		t.Fatalf("%v, %v", keys, err)
	}
	for _, key := range keys {
		raw, _ := os.ReadFile(key)
		if !bytes.HasPrefix(raw, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----")) {
			t.Errorf("%s is not encrypted", key)
		}
	}

	// Damage is an error, never a panic.
	for name, damage := range map[string]func([]byte) []byte{
		"ca.key":   func(b []byte) []byte { return b[:len(b)/2] },
		"ocsp.key": func([]byte) []byte { return nil },
		"tsa.key":  func(b []byte) []byte { raw, _ := os.ReadFile(filepath.Join(dir, "ocsp.key")); return raw },
		"tsa.pem":  func(b []byte) []byte { return []byte("x") },
		"ca.pem":   func(b []byte) []byte { return make([]byte, 100<<10) },
	} {
		path := filepath.Join(dir, name)
		good, _ := os.ReadFile(path)
		if err := os.WriteFile(path, damage(good), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := ca.Open(dir, pass, ca.Config{}); err == nil {
			c.Close()
			t.Errorf("damaged %s accepted", name)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// An interrupted Create is no authority and can be repeated.
	if err := os.Remove(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Open(dir, pass, ca.Config{}); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("half an authority opened: %v", err)
	}
	if err := ca.Create(dir, pass, ca.CreateConfig{Name: "CA", Instance: "DEV", Algorithm: pki.RSA2048}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca.key", "ocsp.key", "tsa.key"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if c := open(t, dir, ca.Config{}); c.Certificate().SignatureAlgorithm != x509.SHA256WithRSA {
		t.Errorf("algorithm %v", c.Certificate().SignatureAlgorithm)
	}
}

func TestConcurrentIssuing(t *testing.T) {
	t.Parallel()
	c := newCA(t)
	var wg sync.WaitGroup
	for range 8 {
		csr := newCSR(t, newKey(t), csrFor("x"))
		wg.Go(func() {
			for range 5 {
				cert, err := c.Issue(t.Context(), csr, ca.Request{Usage: pki.Signing})
				if err != nil {
					t.Error(err)
					return
				}
				if err := c.Revoke(t.Context(), cert.SerialNumber, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if all, err := c.List(t.Context()); err != nil || len(all) != 2+40 {
		t.Errorf("%d certificates, %v", len(all), err)
	}
}

func TestRecordsSurviveCrash(t *testing.T) {
	t.Parallel()
	c := newCA(t)
	mem := vfs.NewCrashableMem()
	recs, err := ca.OpenRecords(mem)
	if err != nil {
		t.Fatal(err)
	}
	defer recs.Close()
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	var all []*x509.Certificate
	for range 20 {
		cert := issue(t, c, ca.Request{Usage: pki.Signing})
		if err := recs.Put(&ca.Record{Certificate: cert, Usage: pki.Signing}); err != nil {
			t.Fatal(err)
		}
		all = append(all, cert)
		after, err := ca.OpenRecords(mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng}))
		if err != nil {
			t.Fatal(err)
		}
		for _, cert := range all {
			if _, err := after.Get(cert.SerialNumber); err != nil {
				t.Fatalf("lost in a crash after %d: %v", len(all), err)
			}
		}
		after.Close()
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	c := newCA(t)
	srv := httptest.NewServer(c.Handler())
	defer srv.Close()
	good, gone := issue(t, c, ca.Request{Usage: pki.Authentication}), issue(t, c, ca.Request{Usage: pki.Signing})
	if err := c.Revoke(t.Context(), gone.SerialNumber, 4); err != nil {
		t.Fatal(err)
	}
	client := ocsp.NewClient(ocsp.ClientConfig{HTTP: srv.Client()})
	known := ocsp.Responders{Authorised: []*x509.Certificate{c.OCSPCertificate()}}
	for _, tc := range []struct {
		cert *x509.Certificate
		want error
	}{{good, nil}, {gone, ocsp.ErrRevoked}} {
		der, err := client.Fetch(t.Context(), tc.cert, c.Certificate(), []string{srv.URL + "/ocsp"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ocsp.Verify(der, tc.cert, c.Certificate(), known, time.Now(), ocsp.Policy{Freshness: time.Minute}); !errors.Is(err, tc.want) {
			t.Errorf("%v: %v", tc.want, err)
		}
	}

	stamper := tsa.NewClient(tsa.ClientConfig{HTTP: srv.Client()})
	if tok, err := stamper.Stamp(t.Context(), srv.URL+"/tsa", []byte("message"), []*x509.Certificate{c.TSACertificate()}); err != nil || time.Since(tok.Time) > time.Minute {
		t.Errorf("time-stamp: %v, %v", tok, err)
	}

	for _, tc := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/ca.pem", 200, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw}))},
		{"HEAD", "/ca.pem", 200, ""},
		{"POST", "/ca.pem", 405, "only GET and HEAD are served here\n"},
		{"GET", "/healthz", 200, "ok\n"},
		{"DELETE", "/healthz", 405, "only GET and HEAD are served here\n"},
		{"GET", "/tsa", 405, "method not allowed\n"},
		{"GET", "/", 404, "404 page not found\n"},
		{"GET", "/ocspx", 404, "404 page not found\n"},
		{"GET", "/db/CURRENT", 404, "404 page not found\n"},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), tc.method, srv.URL+tc.path, nil)
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != tc.status || string(body) != tc.body {
			t.Errorf("%s %s: %d %q", tc.method, tc.path, res.StatusCode, body)
		}
	}
}

func TestHealthOfExpiredAuthority(t *testing.T) {
	t.Parallel()
	c := open(t, newDir(t), ca.Config{Now: func() time.Time { return time.Now().AddDate(30, 0, 0) }})
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d", w.Code)
	}
}

// TestOpenSSL lets a stranger judge certificates, OCSP answers and time-stamps.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	dir := newDir(t)
	c := open(t, dir, ca.Config{OCSPURL: ocspURL})
	srv := httptest.NewServer(c.Handler())
	defer srv.Close()
	tmp := t.TempDir()
	save := func(name string, cert *x509.Certificate) string {
		path := filepath.Join(tmp, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	openssl := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "openssl", args...)
		cmd.Dir = tmp
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("openssl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	expect := func(out string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
	}
	caPEM := save("ca.pem", c.Certificate())
	auth := save("auth.pem", issue(t, c, ca.Request{Usage: pki.Authentication}))
	goneCert := issue(t, c, ca.Request{Usage: pki.Signing})
	gone := save("gone.pem", goneCert)
	if err := c.Revoke(t.Context(), goneCert.SerialNumber, 1); err != nil {
		t.Fatal(err)
	}

	openssl("verify", "-x509_strict", "-CAfile", caPEM, "-purpose", "sslserver", auth)
	openssl("verify", "-x509_strict", "-CAfile", caPEM, "-purpose", "sslclient", auth)
	openssl("verify", "-x509_strict", "-CAfile", caPEM, gone)
	openssl("verify", "-x509_strict", "-CAfile", caPEM, "-purpose", "timestampsign", save("tsa.pem", c.TSACertificate()))
	openssl("verify", "-x509_strict", "-CAfile", caPEM, "-purpose", "ocsphelper", save("ocsp.pem", c.OCSPCertificate()))
	expect(openssl("x509", "-in", auth, "-noout", "-text"), "Digital Signature, Key Encipherment, Data Encipherment, Key Agreement",
		"TLS Web Client Authentication, TLS Web Server Authentication", "OCSP - URI:"+ocspURL, "CA:FALSE")
	expect(openssl("x509", "-in", gone, "-noout", "-text"), "X509v3 Key Usage: critical\n                Non Repudiation\n")

	ask := func(extra ...string) string {
		return openssl(append([]string{"ocsp", "-issuer", caPEM, "-CAfile", caPEM, "-url", srv.URL + "/ocsp"}, extra...)...)
	}
	expect(ask("-cert", auth), "Response verify OK", "auth.pem: good")
	expect(ask("-cert", gone), "Response verify OK", "gone.pem: revoked", "Reason: keyCompromise")
	expect(ask("-no_nonce", "-serial", "12345"), "Response verify OK", "12345: unknown")

	if err := os.WriteFile(filepath.Join(tmp, "data"), []byte("message"), 0o600); err != nil {
		t.Fatal(err)
	}
	openssl("ts", "-query", "-data", "data", "-sha512", "-cert", "-out", "query.tsq")
	query, err := os.ReadFile(filepath.Join(tmp, "query.tsq"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := srv.Client().Post(srv.URL+"/tsa", "application/timestamp-query", bytes.NewReader(query))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, _ := io.ReadAll(res.Body)
	if err := os.WriteFile(filepath.Join(tmp, "answer.tsr"), answer, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(openssl("ts", "-verify", "-queryfile", "query.tsq", "-in", "answer.tsr", "-CAfile", caPEM), "Verification: OK")
	expect(openssl("pkcs8", "-in", filepath.Join(dir, "ca.key"), "-passin", "pass:"+string(pass)), "PRIVATE KEY")
}

func FuzzIssue(f *testing.F) {
	c := open(f, newDir(f), ca.Config{})
	f.Add(newCSR(f, newKey(f), csrFor("x")), []byte(nil))
	f.Add(newCSR(f, newKey(f), csrFor("x")), c.Certificate().RawIssuer)
	f.Add([]byte{0x30, 0x80}, []byte{0x30, 0})
	f.Fuzz(func(t *testing.T, csr, subject []byte) {
		cert, err := c.Issue(t.Context(), csr, ca.Request{Usage: pki.Signing, Subject: subject})
		if err != nil {
			return
		}
		if !pki.IsSignCert(cert) || pki.IsAuthCert(cert) || cert.IsCA || len(cert.RawSubject) <= 2 {
			t.Errorf("issued %v", cert.Subject)
		}
	})
}
