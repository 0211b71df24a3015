// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"kontor/gateway/admin"
	"kontor/gateway/renewal"
	"kontor/gateway/serverconf"
	"kontor/pki"
	"kontor/registry/globalconf"
	"kontor/registry/guard"
	"kontor/registry/id"
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
	w.office = o
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

func TestClientRequests(t *testing.T) {
	t.Parallel()
	w, o, _ := joining(t)
	w.signing()
	ctx, extra := t.Context(), "DEV/GOV/1001/extra"
	status := func() string {
		w.Helper()
		c, _ := w.fresh().Client(client(w, extra))
		return c.Status
	}
	if _, err := w.root.AddClient(ctx, admin.NewClientEntry{ID: extra}); err != nil {
		t.Fatal(err)
	}
	w.refused(first(w.root.DisableClient(ctx, extra, "")), 409, "wrong_state", `is "saved"`)
	w.refused(first(w.root.RegisterClient(ctx, "DEV/GOV/1001/portal", "", admin.ClientName{})), 409, guard.CodeExists, "lists DEV/GOV/1001/portal")
	w.refused(first(w.root.RegisterClient(ctx, "DEV/GOV/1001/none", "", admin.ClientName{})), 404, guard.CodeUnknown, "no client")

	// register: sent in the owner's name, signed by the member
	got, err := w.root.RegisterClient(ctx, extra, "", admin.ClientName{Name: "Extra"})
	if err != nil || got.Request != 7 || got.Client.Status != serverconf.RegistrationInProgress || status() != serverconf.RegistrationInProgress {
		t.Fatal(got, err)
	}
	_, m := o.last()
	if r := m.Request; r.Service != request.ClientReg || r.Client.String() != extra || r.Name != "Extra" || r.Sender.String() != "DEV/GOV/1001" {
		t.Errorf("%+v", r)
	}
	if err := m.Signature.Verify(check[*x509.Certificate](t)(x509.ParseCertificate(m.Cert)), m.SOAP); err != nil {
		t.Error(err)
	}
	if c, ok := w.fresh().Client(client(t, "DEV/GOV/1001")); !ok || !c.Registered() {
		t.Error("the owner is not a client")
	}
	if _, err := w.root.RegisterClient(ctx, extra, "", admin.ClientName{}); err != nil {
		t.Error(err)
	}
	if _, again := o.last(); !bytes.Equal(again.SOAP, m.SOAP) {
		t.Error("another request")
	}
	o.say(&request.Fault{Code: "server.clientproxy.network_error", Text: "no route"}, false)
	w.refused(first(w.root.RegisterClient(ctx, extra, "", admin.ClientName{})), 503, guard.CodeUnavailable, "no route")
	o.say(&request.Fault{Code: request.CodeDeclined, Text: "Request 7 was declined: not you"}, false)
	w.refused(first(w.root.RegisterClient(ctx, extra, "", admin.ClientName{})), 409, admin.CodeDeclined, "not you")
	if s := status(); s != serverconf.Saved {
		t.Error(s)
	}
	o.say(nil, false)
	if _, err := w.root.RegisterClient(ctx, extra, "", admin.ClientName{}); err != nil {
		t.Error(err)
	}
	if _, other := o.last(); other.Request.ID == m.Request.ID {
		t.Error("the same request after it was declined")
	}

	// listed, renamed, disabled, enabled, unregistered
	listed := w.config.Servers[0].Clients
	list := func(yes bool) {
		w.Helper()
		if w.config.Servers[0].Clients = listed; yes {
			w.config.Servers[0].Clients = append(listed[:len(listed):len(listed)], client(t, extra))
		}
		w.publish()
		w.api.Follow()
	}
	list(true)
	if kept, err := os.ReadDir(filepath.Join(w.dir, "requests")); err != nil || len(kept) > 0 || status() != serverconf.Registered {
		t.Error(kept, err, status())
	}
	w.refused(first(w.root.RenameClient(ctx, extra, "", admin.ClientName{})), 422, guard.CodeInvalid, "name")
	for _, step := range []struct {
		do           func() (admin.ClientRequest, error)
		service      request.Service
		status       string
		listed       bool
		listedStatus string
	}{
		{func() (admin.ClientRequest, error) {
			return w.root.RenameClient(ctx, extra, "", admin.ClientName{Name: "More"})
		}, request.ClientRename, serverconf.Registered, true, serverconf.Registered},
		{func() (admin.ClientRequest, error) { return w.root.DisableClient(ctx, extra, "") }, request.ClientDisable, serverconf.Disabling, false, serverconf.Disabled},
		{func() (admin.ClientRequest, error) { return w.root.EnableClient(ctx, extra, "") }, request.ClientEnable, serverconf.Enabling, true, serverconf.Registered},
		{func() (admin.ClientRequest, error) { return w.root.UnregisterClient(ctx, extra, "") }, request.ClientDeletion, serverconf.DeletionInProgress, false, serverconf.DeletionInProgress},
	} {
		if _, err := step.do(); err != nil {
			t.Fatal(step.service, err)
		}
		if _, m := o.last(); m.Request.Service != step.service || status() != step.status {
			t.Errorf("%s: %s, status %s", step.service, m.Request.Service, status())
		}
		if list(step.listed); status() != step.listedStatus {
			t.Errorf("%s: status %s at last", step.service, status())
		}
	}
	if err := w.root.DeleteClient(ctx, extra, "*"); err != nil {
		t.Error(err)
	}
	if kept, err := os.ReadDir(filepath.Join(w.dir, "requests")); err != nil || len(kept) > 0 {
		t.Error(kept, err)
	}
}

func TestUnregisterCertificate(t *testing.T) {
	t.Parallel()
	w, o, c := joining(t)
	ctx := t.Context()
	w.refused(first(w.root.UnregisterCertificate(ctx, c.Hash, "*", admin.Unregistration{})), 409, "wrong_state", "does not list")
	w.list(c)
	w.api.Follow()
	w.refused(first(w.root.UnregisterCertificate(ctx, c.Hash, "", admin.Unregistration{})), 428, "if_match_needed", "state")
	w.refused(first(w.root.UnregisterCertificate(ctx, c.Hash, "*", admin.Unregistration{})), 409, guard.CodeInUse, "no other authentication certificate")
	got, err := w.root.UnregisterCertificate(ctx, c.Hash, "*", admin.Unregistration{Last: true})
	if err != nil || got.Certificate.State != pki.StateDeletionInProgress {
		t.Fatal(got, err)
	}
	if _, m := o.last(); m.Request.Service != request.AuthCertDeletion || m.Signature != nil || pki.HashOf(w.parse(c.PEM)).Hex() != c.Hash || !bytes.Equal(m.Request.Certificate, w.parse(c.PEM).Raw) {
		t.Errorf("%+v", m.Request)
	}
}

func TestServerRequests(t *testing.T) {
	t.Parallel()
	w, o, _ := joining(t)
	w.signing()
	ctx := t.Context()
	w.refused(first(w.root.SetMaintenance(ctx, admin.Maintenance{Message: "back"})), 422, guard.CodeInvalid, "during maintenance only")
	for _, step := range []struct {
		do            func() (admin.ServerRequest, error)
		service       request.Service
		address, text string
	}{
		{func() (admin.ServerRequest, error) {
			return w.root.ChangeAddress(ctx, admin.NewAddress{Address: "ss2.example.org"})
		}, request.AddressChange, "ss2.example.org", ""},
		{func() (admin.ServerRequest, error) {
			return w.root.SetMaintenance(ctx, admin.Maintenance{On: true, Message: "back at 6"})
		}, request.MaintenanceEnable, "", "back at 6"},
		{func() (admin.ServerRequest, error) { return w.root.SetMaintenance(ctx, admin.Maintenance{}) }, request.MaintenanceDisable, "", ""},
	} {
		if got, err := step.do(); err != nil || got.Request != 7 {
			t.Fatal(step.service, err)
		}
		if _, m := o.last(); m.Request.Service != step.service || m.Request.Address != step.address || m.Request.Text != step.text || m.Signature == nil {
			t.Errorf("%s: %+v", step.service, m.Request)
		}
	}
	o.say(&request.Fault{Code: request.CodeInternal, Text: "mr_forbidden with statusCode 409: it provides the management services"}, false)
	w.refused(first(w.root.SetMaintenance(ctx, admin.Maintenance{On: true})), 409, admin.CodeRefusedThere, "it provides the management services")
}

// The owner changes when a member that is a client here asks for it, and the
// registry approves.
func TestOwnerChange(t *testing.T) {
	t.Parallel()
	w, o, c := joining(t)
	w.signing()
	ctx, next := t.Context(), "DEV/GOV/2002"
	ask := func(owner string) error { return first(w.root.ChangeOwner(ctx, admin.NewOwner{Owner: owner})) }
	w.refused(ask("DEV/GOV"), 422, guard.CodeInvalid, "instance/class/code")
	w.refused(ask("DEV/GOV/1001"), 409, guard.CodeExists, "owns this security server")
	w.refused(ask(next), 409, "not_registered", "does not list DEV/GOV/2002")
	w.config.Servers[0].Clients = append(w.config.Servers[0].Clients, client(t, next))
	w.publish()
	w.refused(ask(next), 409, "no_signing_key", "DEV/GOV/2002 cannot sign the request")
	check[admin.LocalClient](t)(w.root.AddClient(ctx, admin.NewClientEntry{ID: next}))
	k := check[admin.Key](t)(w.root.GenerateKey(ctx, admin.NewKey{Usage: pki.Signing}))
	r := check[admin.Request](t)(w.root.RequestCertificate(ctx, k.ID, admin.NewRequest{Member: next}))
	theirs := check[admin.Certificate](t)(w.root.ImportCertificate(ctx, admin.NewCertificate{Certificate: w.issue(r.PEM, pki.Signing), Activate: true}))

	if err := ask(next); err != nil {
		t.Fatal(err)
	}
	_, m := o.last()
	if m.Request.Service != request.OwnerChange || m.Request.Sender.String() != "DEV/GOV/1001" || m.Request.Client.String() != next ||
		pki.HashOf(check[*x509.Certificate](t)(x509.ParseCertificate(m.Cert))).Hex() != theirs.Hash {
		t.Errorf("%+v", m.Request)
	}
	if err := ask(next); err != nil {
		t.Error(err)
	}
	if _, again := o.last(); !bytes.Equal(again.SOAP, m.SOAP) {
		t.Error("another request while the first one waits")
	}
	o.say(&request.Fault{Code: request.CodeDeclined, Text: "Request 7 was declined: not yet"}, false)
	w.refused(ask(next), 409, admin.CodeDeclined, "not yet")
	o.say(nil, false)
	if err := ask(next); err != nil {
		t.Error(err)
	}
	if _, other := o.last(); bytes.Equal(other.SOAP, m.SOAP) {
		t.Error("the same request after it was declined")
	}

	w.list(c)
	w.config.Servers[0].ID = check[id.SecurityServer](t)(id.ParseSecurityServer("DEV/GOV/2002/ss1"))
	w.publish()
	w.refused(ask(next), 409, "renamed", "DEV/GOV/2002/ss1")
}

// What the registry declines is learned without anybody asking, and shown with
// the reason until there is a new request.
func TestDeclinedIsShown(t *testing.T) {
	t.Parallel()
	w, o, c := joining(t)
	w.signing()
	ctx, extra := t.Context(), "DEV/GOV/1001/extra"
	check[admin.LocalClient](t)(w.root.AddClient(ctx, admin.NewClientEntry{ID: extra}))
	w.api.Inquire(ctx)
	if n, _ := o.last(); n != 0 {
		t.Fatalf("%d requests that nobody sent", n)
	}
	register := func() {
		t.Helper()
		check[admin.Registration](t)(w.root.RegisterCertificate(ctx, c.Hash, "", admin.NewRegistration{Address: "ss1.example.org"}))
		check[admin.ClientRequest](t)(w.root.RegisterClient(ctx, extra, "", admin.ClientName{Name: "Extra"}))
	}
	next := func() (string, string) {
		t.Helper()
		cert, _, err := w.root.Certificate(ctx, c.Hash)
		if err != nil {
			t.Fatal(err)
		}
		client, _, err := w.root.Client(ctx, extra)
		if err != nil {
			t.Fatal(err)
		}
		return cert.State + ": " + cert.Next, client.Status + ": " + client.Next
	}
	register()
	w.api.Inquire(ctx)
	if n, _ := o.last(); n != 4 {
		t.Errorf("%d requests, want each one twice", n)
	}
	o.say(nil, true) // an outage decides nothing
	w.api.Inquire(ctx)
	if cert, client := next(); !strings.HasPrefix(cert, pki.StateRegistrationInProgress) || !strings.HasPrefix(client, serverconf.RegistrationInProgress) {
		t.Error(cert, client)
	}
	o.say(&request.Fault{Code: request.CodeDeclined, Text: "Request 7 was declined: who are you?"}, false)
	kept, err := filepath.Glob(filepath.Join(w.api.Requests, "*.xml"))
	if err != nil || len(kept) != 2 {
		t.Fatal(kept, err)
	}
	for _, f := range kept { // the disk takes no answer
		if err := os.MkdirAll(strings.TrimSuffix(f, ".xml")+".declined/x", 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.api.Inquire(ctx)
	if cert, client := next(); !strings.HasPrefix(cert, pki.StateRegistrationInProgress) || !strings.HasPrefix(client, serverconf.RegistrationInProgress) {
		t.Error(cert, client)
	}
	for _, f := range kept {
		if err := os.RemoveAll(strings.TrimSuffix(f, ".xml") + ".declined"); err != nil {
			t.Fatal(err)
		}
	}
	w.api.Inquire(ctx)
	cert, client := next()
	if !strings.HasPrefix(cert, pki.StateSaved) || !strings.Contains(cert, "who are you?") || !strings.Contains(cert, "kontor cert register") {
		t.Error(cert)
	}
	if !strings.HasPrefix(client, serverconf.Saved) || !strings.Contains(client, "who are you?") || !strings.Contains(client, "kontor client register") {
		t.Error(client)
	}
	asked := 0
	for _, r := range w.audit() {
		if r.Operation == "ask-registry" && r.Who == "gateway" {
			asked++
		}
	}
	if asked != 2 {
		t.Errorf("%d audit records", asked)
	}
	o.say(nil, false)
	register()
	if cert, client := next(); strings.Contains(cert+client, "who are you?") {
		t.Error(cert, client)
	}
}

// The gateway itself asks for the registration of what it renewed and for the
// removal of what that replaces, but never for its last certificate, and not
// again for what was declined.
func TestRequestsOfItself(t *testing.T) {
	t.Parallel()
	w, o, c := joining(t)
	w.signing()
	ctx := t.Context()
	hash := pki.HashOf(w.parse(c.PEM))
	if err := w.api.Register(ctx, pki.CertHash{}, "renewed"); !errors.Is(err, pki.ErrNoCertificate) {
		t.Error(err)
	}
	if err := w.api.Register(ctx, hash, "renewed"); err != nil {
		t.Fatal(err)
	}
	_, m := o.last()
	if m.Request.Service != request.AuthCertReg || m.Request.Address != "127.0.0.1" {
		t.Errorf("%+v", m.Request)
	}
	if s, _ := w.state(c.Hash); s != pki.StateRegistrationInProgress {
		t.Error(s)
	}
	o.say(&request.Fault{Code: request.CodeDeclined, Text: "Request 7 was declined: who are you?"}, false)
	w.api.Inquire(ctx)
	before, _ := o.last()
	if err := w.api.Register(ctx, hash, "renewed"); !errors.Is(err, renewal.ErrDeclined) || !strings.Contains(err.Error(), "who are you?") {
		t.Error(err)
	}
	if n, _ := o.last(); n != before {
		t.Error("asked again for what was declined")
	}
	o.say(nil, false)
	w.list(c)
	w.api.Follow()
	w.refused(w.api.Unregister(ctx, hash, "replaced"), 409, guard.CodeInUse, "no other authentication certificate")
	var outcomes []string
	for _, r := range w.audit() {
		if r.Who == "gateway" && (r.Operation == "register-certificate" || r.Operation == "unregister-certificate") {
			outcomes = append(outcomes, r.Operation+" "+string(r.Outcome))
		}
	}
	if want := []string{"register-certificate done", "unregister-certificate failed"}; !slices.Equal(outcomes, want) {
		t.Errorf("%q", outcomes)
	}
}
