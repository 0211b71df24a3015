// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bytes"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"kontor/gateway/admin"
	"kontor/pki"
	"kontor/registry/globalconf"
	"kontor/registry/guard"
	"kontor/registry/management/request"
)

// office is the registry as requests meet it.
type office struct {
	testing.TB
	*httptest.Server
	mu    sync.Mutex
	got   []*request.Message
	fault *request.Fault // of the answer
	down  bool
}

func newOffice(t testing.TB) *office {
	o := &office{TB: t}
	o.Server = httptest.NewTLSServer(http.HandlerFunc(o.answer))
	t.Cleanup(o.Close)
	return o
}

func (o *office) answer(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.down {
		http.Error(w, "no", http.StatusBadGateway)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		o.Error(err)
		return
	}
	m, err := request.Decode(r.Header.Get("Content-Type"), body)
	if err == nil {
		err = m.Complete()
	}
	if err != nil {
		o.Error(err)
		return
	}
	o.got = append(o.got, m)
	w.Header().Set("Content-Type", "text/xml")
	if o.fault != nil {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write(o.fault.SOAP())
		return
	}
	answer, err := request.Answer(m.SOAP, 7)
	if err != nil {
		o.Error(err)
	}
	_, _ = w.Write(answer)
}

func (o *office) say(f *request.Fault, down bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fault, o.down = f, down
}

// last returns how many requests came, and the last one.
func (o *office) last() (int, *request.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.got) == 0 {
		return 0, nil
	}
	return len(o.got), o.got[len(o.got)-1]
}

// joining is a security server with an authentication certificate to register.
func joining(t *testing.T) (*world, *office, admin.Certificate) {
	t.Helper()
	w := newKeyWorld(t)
	o := newOffice(t)
	w.manage(o.URL, o.Certificate())
	c := w.authentication()
	return w, o, c
}

// signing gives the security server a signing certificate of its owner.
func (w *world) signing() admin.Certificate {
	w.Helper()
	k := check[admin.Key](w)(w.root.GenerateKey(w.Context(), admin.NewKey{Usage: pki.Signing}))
	r := check[admin.Request](w)(w.root.RequestCertificate(w.Context(), k.ID, admin.NewRequest{}))
	return check[admin.Certificate](w)(w.root.ImportCertificate(w.Context(), admin.NewCertificate{Certificate: w.issue(r.PEM, pki.Signing), Activate: true}))
}

// manage makes the global configuration name management services.
func (w *world) manage(url string, cert *x509.Certificate) {
	w.Helper()
	w.private = &globalconf.PrivateParams{Instance: "DEV", RegistrationURL: url, ManagementProvider: client(w, "DEV/GOV/1001/population"), TimestampInterval: 60e9}
	if cert != nil {
		w.private.RegistrationCert = cert.Raw
	}
	w.publish()
}

func TestRegisterCertificate(t *testing.T) {
	t.Parallel()
	w, o, c := joining(t)
	ask := func(address string) (admin.Registration, error) {
		return w.root.RegisterCertificate(t.Context(), c.Hash, "", admin.NewRegistration{Address: address})
	}
	w.refused(first(ask("")), 409, "no_signing_key", "DEV/GOV/1001 cannot sign the request")
	sign := w.signing()

	// sent, as the registry wants it
	got, err := ask("ss1.example.org")
	if err != nil || got.Request != 7 || got.Certificate.State != pki.StateRegistrationInProgress {
		t.Fatal(got, err)
	}
	n, m := o.last()
	r := m.Request
	if n != 1 || r.Service != request.AuthCertReg || r.Address != "ss1.example.org" || r.Server.String() != "DEV/GOV/1001/ss1" ||
		r.Sender.String() != "DEV/GOV/1001" || r.Provider.String() != "DEV/GOV/1001/population" || !bytes.Equal(r.Certificate, m.AuthCert) {
		t.Errorf("%d: %+v", n, r)
	}
	auth, owner := check[*x509.Certificate](t)(x509.ParseCertificate(m.AuthCert)), check[*x509.Certificate](t)(x509.ParseCertificate(m.Cert))
	if pki.HashOf(auth).Hex() != c.Hash || pki.HashOf(owner).Hex() != sign.Hash || len(m.OCSP) == 0 {
		t.Error("other certificates")
	}
	if err := m.AuthSignature.Verify(auth, m.SOAP); err != nil {
		t.Error(err)
	}
	if err := m.Signature.Verify(owner, m.SOAP); err != nil {
		t.Error(err)
	}

	// asked again: the very same
	if _, err := ask("ss1.example.org"); err != nil {
		t.Error(err)
	}
	if n, again := o.last(); n != 2 || !bytes.Equal(again.SOAP, m.SOAP) {
		t.Errorf("%d: another request", n)
	}
	w.refused(first(ask("other.example.org")), 409, admin.CodeRequestPending, `request 7, with address "ss1.example.org"`)
	w.refused(first(w.root.RegisterCertificate(t.Context(), c.Hash, `"old"`, admin.NewRegistration{})), 412, guard.CodeChangedMeanwhile, "meanwhile")

	// neither an outage nor a registry that cannot decide ends it
	o.say(nil, true)
	w.refused(first(ask("ss1.example.org")), 503, guard.CodeUnavailable, "502")
	o.say(&request.Fault{Code: request.CodeOutdated, Text: "not valid"}, false)
	w.refused(first(ask("ss1.example.org")), 503, guard.CodeUnavailable, "not valid")
	o.say(nil, false)
	if _, err := ask("ss1.example.org"); err != nil {
		t.Error(err)
	}
	if _, again := o.last(); !bytes.Equal(again.SOAP, m.SOAP) {
		t.Error("another request")
	}
	if s, _ := w.state(c.Hash); s != pki.StateRegistrationInProgress {
		t.Error(s)
	}

	// declined: the reason is told, and the next request is a new one
	o.say(&request.Fault{Code: request.CodeDeclined, Text: "Request 7 was declined: who are you?"}, false)
	w.refused(first(ask("ss1.example.org")), 409, admin.CodeDeclined, "who are you?")
	if s, _ := w.state(c.Hash); s != pki.StateSaved {
		t.Error(s)
	}
	o.say(nil, false)
	if _, err := ask("ss2.example.org"); err != nil {
		t.Error(err)
	}
	if _, other := o.last(); other.Request.ID == r.ID || other.Request.Address != "ss2.example.org" {
		t.Error("the same request after it was declined")
	}

	// listed: nothing to ask for, nothing kept
	w.list(c)
	w.api.Follow()
	if s, _ := w.state(c.Hash); s != pki.StateRegistered {
		t.Error(s)
	}
	if kept, err := os.ReadDir(filepath.Join(w.dir, "requests")); err != nil || len(kept) > 0 {
		t.Error(kept, err)
	}
	w.refused(first(ask("ss2.example.org")), 409, guard.CodeExists, "lists certificate")
}

func TestRegistrationIsRefused(t *testing.T) {
	t.Parallel()
	w, o, c := joining(t)
	sign := w.signing()
	ask := func(hash, address string) error {
		return first(w.root.RegisterCertificate(t.Context(), hash, "", admin.NewRegistration{Address: address}))
	}
	w.refused(ask("00000000", ""), 404, guard.CodeUnknown, "no key has")
	w.refused(ask(sign.Hash, ""), 422, guard.CodeInvalid, "is for signing")

	// by the registry: the text is shown, and nothing is kept
	o.say(&request.Fault{Code: request.CodeInvalidRequest, Text: "Invalid server address"}, false)
	w.refused(ask(c.Hash, "x"), 409, admin.CodeRefusedThere, "Invalid server address (invalid_request)")
	_, before := o.last()
	o.say(nil, false)
	if s, _ := w.state(c.Hash); s != pki.StateSaved {
		t.Error(s)
	}
	if err := ask(c.Hash, ""); err != nil { // the address that the registry has
		t.Error(err)
	}
	if _, m := o.last(); m.Request.ID == before.Request.ID || m.Request.Address != "127.0.0.1" {
		t.Errorf("%+v", m.Request)
	}

	// an impostor gets nothing
	impostor := newOffice(t)
	w.manage(impostor.URL, w.ca)
	w.refused(ask(c.Hash, ""), 503, guard.CodeUnavailable, "not the one that the global configuration names")
	if n, _ := impostor.last(); n > 0 {
		t.Error("the impostor was told")
	}
	w.manage(o.URL, nil)
	w.refused(ask(c.Hash, ""), 409, "no_management", "does not say where")
	w.private = nil
	w.publish()
	w.refused(ask(c.Hash, ""), 409, "no_management", "names no management services")
	w.view.Store(nil)
	w.refused(ask(c.Hash, ""), 503, guard.CodeUnavailable, "no valid global configuration")
}
