// SPDX-License-Identifier: Apache-2.0

package ocsp_test

import (
	"archive/zip"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"kontor/pki"
	"kontor/pki/ocsp"
)

const vectors = "../../../shared/vectors/asic/"

// decode reads the base64 of an XML element; some hold PEM once more.
func decode(t testing.TB, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(strings.ReplaceAll(text, "&#13;", "")), ""))
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(b); block != nil {
		return block.Bytes
	}
	return b
}

func elements(t testing.TB, doc []byte, name string) (all [][]byte) {
	t.Helper()
	for _, m := range regexp.MustCompile(`<(?:\w+:)?`+name+`(?:\s[^>]*)?>([^<]+)<`).FindAllSubmatch(doc, -1) {
		all = append(all, decode(t, string(m[1])))
	}
	return all
}

func certificate(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type approved struct{ a *pki.Authority }

func (t approved) Authorities(raw []byte) []*pki.Authority {
	if string(t.a.Cert.RawSubject) == string(raw) {
		return []*pki.Authority{t.a}
	}
	return nil
}

// TestRealEvidence judges certificates and OCSP responses that travelled in
// containers of a real X-Road.
func TestRealEvidence(t *testing.T) {
	t.Parallel()
	conf, err := os.ReadFile(vectors + "globalconf/DEV/shared-params.xml")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the vectors are not here")
	}
	if err != nil {
		t.Fatal(err)
	}
	certs := elements(t, conf, "cert") // authority, OCSP responder, time-stamp authority
	fi, _ := pki.ProfileByClass("FiVRK")
	ca := &pki.Authority{Cert: certificate(t, certs[0]), Profile: fi}
	responder := certificate(t, certs[1])
	for name, member := range map[string]string{
		"valid-batch-ts":       "DEV/COM/4321",
		"valid-non-batch-rest": "DEV/COM/1234",
		"valid-signed-message": "DEV/COM/4321",
	} {
		z, err := zip.OpenReader(vectors + name + ".asice")
		if err != nil {
			t.Fatal(err)
		}
		f, err := z.Open("META-INF/signatures.xml")
		if err != nil {
			t.Fatal(err)
		}
		doc, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = z.Close()
		leaf := certificate(t, elements(t, doc, "X509Certificate")[0])
		der := elements(t, doc, "EncapsulatedOCSPValue")[0]
		r, err := ocsp.Verify(der, leaf, ca.Cert, ocsp.Responders{}, time.Date(2024, 7, 1, 0, 0, 0, 0, time.UTC), ocsp.Policy{})
		if !errors.Is(err, ocsp.ErrStale) {
			t.Fatalf("%s, much earlier: %v, %v", name, r, err)
		}
		at := thisUpdate(t, der, leaf, ca.Cert).Add(10 * time.Minute)
		for what, list := range map[string]ocsp.Responders{"listed": {Authorised: []*x509.Certificate{responder}}, "delegated": {}} {
			if _, err := ocsp.Verify(der, leaf, ca.Cert, list, at, ocsp.Policy{Freshness: time.Hour}); err != nil {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		if _, err := ocsp.Verify(der, leaf, ca.Cert, ocsp.Responders{}, at.Add(time.Hour), ocsp.Policy{Freshness: time.Hour}); !errors.Is(err, ocsp.ErrStale) {
			t.Errorf("%s, an hour later: %v", name, err)
		}
		chain, err := pki.VerifyChain(leaf, nil, approved{ca}, at)
		if err != nil || chain.Anchor != ca || !pki.IsSignCert(leaf) || pki.IsAuthCert(leaf) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m, err := chain.Anchor.Profile.Member(leaf, "DEV"); err != nil || m.String() != member {
			t.Errorf("%s: signed by %v, %v", name, m, err)
		}
	}
}

// thisUpdate reads the time of a response by accepting one of any age.
func thisUpdate(t testing.TB, der []byte, leaf, issuer *x509.Certificate) time.Time {
	t.Helper()
	r, err := ocsp.Verify(der, leaf, issuer, ocsp.Responders{}, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		ocsp.Policy{Freshness: 10 * 365 * 24 * time.Hour, IgnoreNextUpdate: true})
	if err != nil {
		t.Fatal(err)
	}
	return r.ThisUpdate
}
