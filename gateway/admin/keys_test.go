// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"kontor/gateway/admin"
	"kontor/pki"
	"kontor/pki/ocsp"
	"kontor/registry/globalconf"
	"kontor/registry/guard"
)

// A key from its generation to its end.
func TestKeys(t *testing.T) {
	t.Parallel()
	w := newKeyWorld(t)
	c := w.as(admin.RoleSecurityOfficer)
	k, err := c.GenerateKey(t.Context(), admin.NewKey{Usage: pki.Signing, Label: "2027"})
	if err != nil || k.Algorithm != pki.P256 || k.Usable || !strings.Contains(k.Next, "certificate request") {
		t.Fatal(k, err)
	}
	w.refused(first(c.GenerateKey(t.Context(), admin.NewKey{Usage: "both"})), 422, guard.CodeInvalid, "usage")

	r, err := c.RequestCertificate(t.Context(), k.ID, admin.NewRequest{})
	if err != nil || !strings.Contains(r.Profile, "Ejbca") {
		t.Fatal(r, err)
	}
	for name, tc := range map[string]struct {
		n    admin.NewRequest
		want string
	}{
		"authority": {admin.NewRequest{Authority: "Other CA"}, `"Other CA"`},
		"profile":   {admin.NewRequest{Profile: "Unheard"}, "not known"},
		"member":    {admin.NewRequest{Member: "x"}, "malformed"},
		"stranger":  {admin.NewRequest{Member: "DEV/GOV/2002"}, "serves no client"},
		"needs":     {admin.NewRequest{Profile: "Basic"}, "subject"},
	} {
		if _, err := c.RequestCertificate(t.Context(), k.ID, tc.n); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.refused(first(c.RequestCertificate(t.Context(), "none", admin.NewRequest{})), 404, guard.CodeUnknown, "")

	text := w.issue(r.PEM, pki.Signing)
	cert, err := c.ImportCertificate(t.Context(), admin.NewCertificate{Certificate: text})
	if err != nil || cert.State != pki.StateRegistered || cert.Active || cert.Member != "DEV/GOV/1001" || !strings.Contains(cert.Next, "activate") {
		t.Fatal(cert, err)
	}
	w.refused(first(c.ImportCertificate(t.Context(), admin.NewCertificate{Certificate: text})), 409, guard.CodeExists, "")

	w.down.Store(true)
	w.refused(first(c.ActivateCertificate(t.Context(), cert.Hash, "")), 409, "no_ocsp", "responder is down")
	if _, tc, _ := w.token.Certificate(pki.HashOf(w.parse(text))); tc.Status.Active {
		t.Error("active without OCSP response")
	}
	w.down.Store(false)
	if cert, err = c.ActivateCertificate(t.Context(), cert.Hash[:12], ""); err != nil || !cert.Active || !cert.Usable || cert.Next != "" || cert.OCSPUntil.IsZero() {
		t.Error(cert, err)
	}
	if got, _, err := c.Key(t.Context(), k.ID); err != nil || !got.Usable || got.Next != "" || len(got.Certificates) != 1 {
		t.Error(got, err)
	}
	w.refused(c.DeleteKey(t.Context(), k.ID, "*"), 409, guard.CodeInUse, "active")
	w.refused(c.DeleteCertificate(t.Context(), cert.Hash, "*"), 409, guard.CodeInUse, "active")

	_, etag, err := c.Certificate(t.Context(), cert.Hash)
	if err != nil {
		t.Fatal(err)
	}
	w.refused(first(c.DeactivateCertificate(t.Context(), cert.Hash, `"x"`)), 412, guard.CodeChangedMeanwhile, "")
	if cert, err = c.DeactivateCertificate(t.Context(), cert.Hash, etag); err != nil || cert.Active {
		t.Error(cert, err)
	}
	w.refused(c.DeleteCertificate(t.Context(), cert.Hash, etag), 412, guard.CodeChangedMeanwhile, "")
	if err := c.DeleteCertificate(t.Context(), cert.Hash, "*"); err != nil {
		t.Error(err)
	}
	w.refused(second(c.Certificate(t.Context(), cert.Hash)), 404, guard.CodeUnknown, "")
	_, etag, err = c.Key(t.Context(), k.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteKey(t.Context(), k.ID, etag); err != nil {
		t.Error(err)
	}
	w.refused(c.DeleteKey(t.Context(), k.ID, "*"), 404, guard.CodeUnknown, "")
	if all, err := c.Keys(t.Context()); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	w := newKeyWorld(t)
	c := w.root
	sign, err := c.GenerateKey(t.Context(), admin.NewKey{Usage: pki.Signing})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.RequestCertificate(t.Context(), sign.ID, admin.NewRequest{})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ text, want string }{
		"nonsense":     {"no sense!", "no certificate"},
		"a request":    {r.PEM, "something else"},
		"two":          {w.issue(r.PEM, pki.Signing) + w.issue(r.PEM, pki.Signing), "something else"},
		"no key":       {pemOf(w.certify(&x509.Certificate{KeyUsage: x509.KeyUsageContentCommitment}, stranger.Public())), "no key of this security server"},
		"wrong usage":  {w.issue(r.PEM, pki.Authentication), "does not fit"},
		"both":         {w.issue(r.PEM, pki.Signing, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature }), "both"},
		"expired":      {w.issue(r.PEM, pki.Signing, at(-48*time.Hour, -time.Hour)), "expired"},
		"future":       {w.issue(r.PEM, pki.Signing, at(time.Hour, 2*time.Hour)), "valid only from"},
		"other member": {w.issue(r.PEM, pki.Signing, subject("DEV", "GOV", "2002")), "serves no client of DEV/GOV/2002"},
		"no member":    {w.issue(r.PEM, pki.Signing, func(c *x509.Certificate) { c.RawSubject, c.Subject = nil, pkix.Name{CommonName: "x"} }), "names no member"},
	} {
		if _, err := c.ImportCertificate(t.Context(), admin.NewCertificate{Certificate: tc.text, Activate: true}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An authority that the global configuration does not approve.
	good := w.issue(r.PEM, pki.Signing)
	approved := w.config.CAs
	other := w.certify(&x509.Certificate{Subject: pkix.Name{CommonName: "Other CA"}, IsCA: true, BasicConstraintsValid: true}, stranger.Public())
	w.config.CAs = []globalconf.ApprovedCA{{Name: "Other CA", Profile: approved[0].Profile, Top: globalconf.CA{Cert: other.Raw}}}
	w.publish()
	w.refused(first(c.ImportCertificate(t.Context(), admin.NewCertificate{Certificate: good})), 422, guard.CodeInvalid, "approved authority")
	w.config.CAs = []globalconf.ApprovedCA{approved[0]}
	w.config.CAs[0].AuthenticationOnly = true
	w.publish()
	w.refused(first(c.ImportCertificate(t.Context(), admin.NewCertificate{Certificate: good})), 422, guard.CodeInvalid, "authentication only")
	w.view.Store(nil)
	w.refused(first(c.ImportCertificate(t.Context(), admin.NewCertificate{Certificate: good})), 503, guard.CodeUnavailable, "global configuration")
	if keys, err := c.Keys(t.Context()); err != nil || len(keys) != 1 || len(keys[0].Certificates) != 0 {
		t.Error(keys, err)
	}
}

func at(from, to time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
}

func subject(c, o, cn string) func(*x509.Certificate) {
	return func(t *x509.Certificate) {
		t.RawSubject, t.Subject = nil, pkix.Name{Country: []string{c}, Organization: []string{o}, CommonName: cn}
	}
}

// An import with activation that fails leaves the certificate imported.
func TestImportAndActivate(t *testing.T) {
	t.Parallel()
	w := newKeyWorld(t)
	k, err := w.root.GenerateKey(t.Context(), admin.NewKey{Usage: pki.Signing})
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.root.RequestCertificate(t.Context(), k.ID, admin.NewRequest{})
	if err != nil {
		t.Fatal(err)
	}
	revoked := w.issue(r.PEM, pki.Signing)
	w.mu.Lock()
	w.states[w.parse(revoked).SerialNumber.String()] = ocsp.Revoked
	w.mu.Unlock()
	cert, err := w.root.ImportCertificate(t.Context(), admin.NewCertificate{Certificate: revoked, Activate: true})
	if err != nil || cert.Active || !strings.Contains(cert.Problem, "not activated") || !strings.Contains(cert.Problem, "revoked") {
		t.Error(cert, err)
	}
	block, _ := pem.Decode([]byte(w.issue(r.PEM, pki.Signing)))
	cert, err = w.root.ImportCertificate(t.Context(), admin.NewCertificate{Certificate: string(pem.EncodeToMemory(block)), Activate: true})
	if err != nil || !cert.Active || !cert.Usable {
		t.Error(cert, err)
	}
}

// A certificate that a later one has replaced needs no activation.
func TestReplacedCertificate(t *testing.T) {
	t.Parallel()
	w := newKeyWorld(t)
	imported := func(activate bool, age time.Duration) admin.Certificate {
		k, err := w.root.GenerateKey(t.Context(), admin.NewKey{Usage: pki.Signing})
		if err != nil {
			t.Fatal(err)
		}
		r, err := w.root.RequestCertificate(t.Context(), k.ID, admin.NewRequest{})
		if err != nil {
			t.Fatal(err)
		}
		text := w.issue(r.PEM, pki.Signing, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-age), time.Now().Add(time.Hour) })
		c, err := w.root.ImportCertificate(t.Context(), admin.NewCertificate{Certificate: text, Activate: activate})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	next := func(c admin.Certificate) string {
		now, _, err := w.root.Certificate(t.Context(), c.Hash)
		if err != nil {
			t.Fatal(err)
		}
		return now.Next
	}
	old, middle := imported(false, 3*time.Hour), imported(true, 2*time.Hour)
	newest := imported(false, time.Hour)
	if got := next(old); got != "nothing: certificate "+middle.Hash[:16]+" has taken its place" {
		t.Error(got)
	}
	if got := next(middle); got != "" {
		t.Error(got)
	}
	if got := next(newest); !strings.HasPrefix(got, "activate it") {
		t.Error(got)
	}
	if _, err := w.root.DeactivateCertificate(t.Context(), middle.Hash, ""); err != nil {
		t.Fatal(err)
	}
	if got := next(old); !strings.HasPrefix(got, "activate it") {
		t.Error(got)
	}
}

func TestChangePIN(t *testing.T) {
	t.Parallel()
	w := newKeyWorld(t)
	officer := w.as(admin.RoleSecurityOfficer)
	w.refused(officer.ChangePIN(t.Context(), admin.PINChange{Old: "wrong", New: "second pin 2"}), 403, "wrong_pin", "")
	w.refused(officer.ChangePIN(t.Context(), admin.PINChange{Old: pin, New: "short"}), 422, guard.CodeInvalid, "")
	if err := officer.ChangePIN(t.Context(), admin.PINChange{Old: pin, New: "second pin 2"}); err != nil {
		t.Fatal(err)
	}
	if len(w.pins) != 1 || w.pins[0] != [2]string{pin, "second pin 2"} {
		t.Error(w.pins)
	}
}

// The token changed under the gateway: it must be restarted, not overwritten.
func TestTokenChangedElsewhere(t *testing.T) {
	t.Parallel()
	w := newKeyWorld(t)
	if _, err := w.root.GenerateKey(t.Context(), admin.NewKey{Usage: pki.Signing}); err != nil {
		t.Fatal(err)
	}
	other, err := pki.OpenToken(w.tokenDir, []byte(pin))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Generate("x", pki.Signing, pki.P256); err != nil {
		t.Fatal(err)
	}
	w.refused(first(w.root.GenerateKey(t.Context(), admin.NewKey{Usage: pki.Signing})), 409, guard.CodeChangedMeanwhile, "another process")
}
