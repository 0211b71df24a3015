// SPDX-License-Identifier: Apache-2.0

package management_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/id"
	"kontor/registry/management"
	"kontor/registry/management/request"
)

// refuses demands that a message is refused with a code and leaves no trace.
func (w *world) refuses(name string, m *request.Message, code, text string) {
	w.t.Helper()
	before := w.registry.State().Number()
	_, err := w.send(m)
	fault := (*request.Fault)(nil)
	if !errors.As(err, &fault) || fault.Code != code || !strings.Contains(fault.Text, text) || fault.Detail == "" {
		w.t.Errorf("%s: %v, want %s, %s", name, err, code, text)
	}
	if w.registry.State().Number() != before {
		w.t.Errorf("%s: left a trace although refused", name)
	}
}

func TestRegistration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	auth, sign := w.ca.auth("DEV/COM/4321/SS1"), w.ca.sign(t, "DEV/COM/4321")
	m := seal(t, w.registration("DEV/COM/4321/SS1", auth), auth, sign)
	number, err := w.send(m)
	if err != nil || number != 1 {
		t.Fatalf("%d, %v", number, err)
	}
	q, ok := w.registry.Request(number)
	if !ok || q.Status != registry.Waiting || q.Origin != registry.FromServer || q.Kind != registry.AuthCertReg || q.CreatedBy != "security server DEV/COM/4321/SS1" {
		t.Fatalf("%+v", q)
	}
	if _, ok := w.registry.State().Server(serverID("DEV/COM/4321/SS1")); ok {
		t.Error("registered before it was approved")
	}
	if q, err = w.registry.Approve(t.Context(), operator, number); err != nil || q.Status != registry.Approved || q.DecidedBy != "operator" || q.Reason != "because" {
		t.Fatalf("%+v, %v", q, err)
	}
	st := w.registry.State()
	srv, ok := st.Server(serverID("DEV/COM/4321/SS1"))
	if !ok || srv.Address != "ss1.example" || len(srv.Certificates) != 1 || pki.HashOf(srv.Certificates[0]) != pki.HashOf(auth.Cert) {
		t.Errorf("%+v", srv)
	}
	// what came is kept as it came, and proves it still
	kept, err := w.registry.RequestMessage(t.Context(), number)
	if err != nil {
		t.Fatal(err)
	}
	again, err := request.Decode(kept.ContentType, kept.Body)
	if err != nil || !bytes.Equal(again.SOAP, m.SOAP) || again.Signature.Verify(sign.Cert, again.SOAP) != nil || again.AuthSignature.Verify(auth.Cert, again.SOAP) != nil {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestRSA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sign := w.ca.signWith(t, rsaKey(), "DEV/COM/4321")
	auth := w.ca.auth("DEV/COM/4321/SS1")
	if _, err := w.send(seal(t, w.registration("DEV/COM/4321/SS1", auth), auth, sign)); err != nil {
		t.Error(err)
	}
}

func TestAnswerOnTheWire(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	auth, sign := w.ca.auth("DEV/COM/4321/SS1"), w.ca.sign(t, "DEV/COM/4321")
	m := seal(t, w.registration("DEV/COM/4321/SS1", auth), auth, sign)
	contentType, body := m.Encode()
	check := func(status, want int, h http.Header) {
		t.Helper()
		if status != want || h.Get("Content-Type") != "text/xml;charset=UTF-8" || h.Get("Cache-Control") != "no-store" || h.Get("Pragma") != "no-cache" || h.Get("Expires") != "0" {
			t.Errorf("%d %v", status, h)
		}
	}
	status, h, answer := w.post(contentType, body)
	check(status, http.StatusOK, h)
	want := strings.NewReplacer("<xroad:authCertReg>", "<xroad:authCertRegResponse>", "</xroad:authCertReg>", "<xroad:requestId>1</xroad:requestId></xroad:authCertRegResponse>").Replace(string(m.SOAP))
	if string(answer) != want {
		t.Errorf("%s\nwant\n%s", answer, want)
	}
	status, h, answer = w.post("text/plain", body)
	check(status, http.StatusInternalServerError, h)
	var fault struct {
		Code   string `xml:"Body>Fault>faultcode"`
		String string `xml:"Body>Fault>faultstring"`
		Detail string `xml:"Body>Fault>detail>faultDetail"`
	}
	if err := xml.Unmarshal(answer, &fault); err != nil || fault.Code != "invalid_content_type" || fault.String == "" || len(fault.Detail) != 36 {
		t.Errorf("%s: %v", answer, err)
	}
}

// TestProbe sends what diagnostics of X-Road's security server send to see
// whether the port works: they expect this very refusal.
func TestProbe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.registration("DEV/COM/4321/SS1", w.ca.auth("DEV/COM/4321/SS1"))
	r.Certificate, r.Address, r.DryRun = nil, "", true
	w.refuses("probe", &request.Message{SOAP: must(r.SOAP()), Request: r}, request.CodeInvalidRequest, "is missing")
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	auth, sign := w.ca.auth("DEV/COM/4321/SS1"), w.ca.sign(t, "DEV/COM/4321")
	r := w.registration("DEV/COM/4321/SS1", auth)
	r.DryRun = true
	before := w.registry.State().Number()
	if number, err := w.send(seal(t, r, auth, sign)); err != nil || number != 0 || w.registry.State().Number() != before {
		t.Errorf("%d, %v", number, err)
	}
	r.Address = "no address"
	w.refuses("address", seal(t, r, auth, sign), request.CodeInvalidRequest, "Invalid server address")
	w.refuses("signature", seal(t, r, w.ca.auth("DEV/COM/4321/SS1"), sign), request.CodeCertificate, "do not match")
}

func TestStrangers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const server, member = "DEV/COM/4321/SS1", "DEV/COM/4321"
	auth, sign := w.ca.auth(server), w.ca.sign(t, member)
	reg := func() *request.Request { return w.registration(server, auth) }
	good := func() *request.Message { return seal(t, reg(), auth, sign) }
	foreign := newAuthority(t, "Test CA", w.clk.now) // the same name, another key
	unnamed := newAuthority(t, "Foreign CA", w.clk.now)
	expired := func(c *x509.Certificate) { c.NotAfter = start.Add(-time.Minute) }
	future := func(c *x509.Certificate) { c.NotBefore = start.AddDate(0, 6, 0) }

	for name, ca := range map[string]*authority{"foreign CA": unnamed, "CA of the same name": foreign} {
		a := ca.auth(server)
		w.refuses(name+", authentication", seal(t, w.registration(server, a), a, sign), request.CodeCertificate, "Authentication certificate")
		w.refuses(name+", signing", seal(t, reg(), auth, ca.sign(t, member)), request.CodeCertificate, "sign certificate is invalid")
	}
	for name, o := range map[string]option{"expired": expired, "not yet valid": future} {
		a := w.ca.auth(server, o)
		w.refuses(name+", authentication", seal(t, w.registration(server, a), a, sign), request.CodeCertificate, "Authentication certificate")
		w.refuses(name+", signing", seal(t, reg(), auth, w.ca.sign(t, member, o)), request.CodeCertificate, "sign certificate is invalid")
	}
	w.refuses("signing certificate as authentication certificate", seal(t, w.registration(server, sign), sign, sign), request.CodeCertificate, "key usage")
	signing := w.ca.sign(t, member, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	w.refuses("authentication certificate as signing certificate", seal(t, reg(), auth, signing), request.CodeCertificate, "not for signing")

	// signatures
	m := good()
	m.SOAP = bytes.Replace(m.SOAP, []byte("ss1.example"), []byte("evil.example"), 1)
	w.refuses("changed content", m, request.CodeSignature, "Auth signature")
	m = good()
	m.SOAP = append(m.SOAP, ' ')
	w.refuses("one blank more", m, request.CodeSignature, "Auth signature")
	m, other := good(), good()
	m.Signature = other.Signature
	w.refuses("signature of another request", m, request.CodeSignature, "Owner or client signature")
	m = good()
	m.AuthSignature, m.Signature = m.Signature, m.AuthSignature
	w.refuses("signatures exchanged", m, request.CodeSignature, "Auth signature")
	m = good()
	m.Signature = &request.Signature{Algorithm: "SHA1withECDSA", Value: m.Signature.Value}
	w.refuses("weak algorithm", m, request.CodeSignature, "too weak")
	m = good()
	m.AuthCert = w.ca.auth(server).Cert.Raw
	w.refuses("another authentication certificate", m, request.CodeSignature, "Auth signature")
	second := w.ca.auth(server)
	w.refuses("certificate of the multipart is not the body's", seal(t, reg(), second, sign), request.CodeCertificate, "do not match")
	m = good()
	m.AuthCert = []byte("no certificate")
	w.refuses("malformed certificate", m, request.CodeCertificate, "malformed")
	m = good()
	m.Cert = []byte("no certificate")
	w.refuses("malformed certificate", m, request.CodeCertificate, "malformed")

	// OCSP
	m = good()
	m.OCSP = []byte("no response")
	w.refuses("malformed OCSP response", m, request.CodeOCSP, "")
	m = good()
	m.OCSP = w.ca.sign(t, member).OCSP
	w.refuses("OCSP response about another certificate", m, request.CodeOCSP, "")
	m = good()
	asked := *sign
	foreign.refresh(t, &asked)
	m.OCSP = asked.OCSP
	w.refuses("OCSP response of a stranger", m, request.CodeOCSP, "")
	revoked := w.ca.sign(t, member)
	w.ca.revoke(revoked.Cert)
	w.ca.refresh(t, revoked)
	w.refuses("revoked", seal(t, reg(), auth, revoked), request.CodeCertificate, "not good")

	// who it is
	w.refuses("another member's signature", seal(t, reg(), auth, w.ca.sign(t, "DEV/COM/5555")), request.CodeInvalidRequest, "does not match")
	r := reg()
	r.Sender = clientID("DEV/GOV/1234")
	w.refuses("sender is not the owner", seal(t, r, auth, sign), request.CodeInvalidRequest, "Sender does not match")
	r = reg()
	r.Sender = clientID("DEV/COM/4321/sub")
	w.refuses("sender is a subsystem", seal(t, r, auth, sign), request.CodeInvalidRequest, "Sender does not match")
	r = reg()
	r.Provider = clientID("DEV/GOV/1234/OTHER")
	w.refuses("another provider", seal(t, r, auth, sign), request.CodeInvalidRequest, "Invalid management service address")
	r = reg()
	r.Sender, r.Server = clientID("XX/COM/4321"), serverID("XX/COM/4321/SS1")
	w.refuses("another instance", seal(t, r, auth, sign), request.CodeInvalidRequest, "Invalid management service address")
	for _, code := range []string{"a;b", "a%b", "a/b", "a\u200bb", strings.Repeat("x", 256)} {
		r = reg()
		r.Server = must(id.NewSecurityServer(r.Server.Owner(), code))
		w.refuses("code "+code, seal(t, r, auth, sign), request.CodeInvalidIdentifier, "invalid identifier")
	}
	r = reg()
	r.Address = "-"
	w.refuses("address", seal(t, r, auth, sign), request.CodeInvalidRequest, "Invalid server address")

	// and after all this the good one
	w.publish()
	w.ca.refresh(t, sign)
	if _, err := w.send(good()); err != nil {
		t.Error(err)
	}

	// old OCSP responses
	w.clk.advance(2 * time.Hour)
	w.publish()
	another := w.ca.auth(server)
	w.refuses("stale OCSP response", seal(t, w.registration(server, another), another, sign), request.CodeOCSP, "")
}

func (w *world) publish() {
	w.t.Helper()
	if err := w.registry.Publish(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func TestRefusedByTheRegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.join("DEV/COM/4321/SS1")
	w.refuses("registered certificate", seal(t, w.registration("DEV/COM/4321/SS1", o.auth), o.auth, o.sign), request.CodeInternal, "management_request_security_server_exists with statusCode 409: ")
	auth := w.ca.auth("DEV/COM/4321/SS2")
	if _, err := w.send(seal(t, w.registration("DEV/COM/4321/SS2", auth), auth, o.sign)); err != nil {
		t.Fatal(err)
	}
	w.refuses("while one is pending", seal(t, w.registration("DEV/COM/4321/SS2", auth), auth, o.sign), request.CodeInternal, "management_request_exists with statusCode 409: request 2 ")
	w.refuses("unknown client", seal(t, w.ask(o, request.ClientDeletion, "DEV/COM/4321/x"), nil, nil), request.CodeInternal, "management_request_client_registration_not_found with statusCode 404")
	w.refuses("owner as client", seal(t, w.ask(o, request.ClientReg, "DEV/COM/4321"), nil, o.sign), request.CodeInternal, "management_request_cannot_register_owner with statusCode 400")
}

func TestSentAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	auth, sign := w.ca.auth("DEV/COM/4321/SS1"), w.ca.sign(t, "DEV/COM/4321")
	r := w.registration("DEV/COM/4321/SS1", auth)
	m := seal(t, r, auth, sign)
	first := must(w.send(m))
	// the same bytes, and the same SOAP signed anew
	if again, err := w.send(m); err != nil || again != first {
		t.Errorf("%d, %v", again, err)
	}
	if again, err := w.send(seal(t, r, auth, sign)); err != nil || again != first {
		t.Errorf("%d, %v", again, err)
	}
	if n := len(w.registry.Requests(registry.RequestFilter{})); n != 1 {
		t.Errorf("%d requests", n)
	}
	// the identifier does not stand for other content
	changed := *r
	changed.Address = "other.example"
	w.refuses("changed", seal(t, &changed, auth, sign), request.CodeInternal, "management_request_exists")
	// nor does it open a door for those who cannot sign
	forged := *m
	forged.SOAP = bytes.Replace(m.SOAP, []byte("ss1.example"), []byte("ss1.examplf"), 1)
	w.refuses("forged", &forged, request.CodeSignature, "")

	// the applicant learns the decision by asking again
	if _, err := w.registry.Decline(t.Context(), registry.Author{Who: "operator", Why: "the contract is not signed"}, first); err != nil {
		t.Fatal(err)
	}
	w.refuses("declined", m, request.CodeDeclined, "Request 1 was declined: the contract is not signed")
	// and may apply anew
	second := must(w.send(seal(t, w.registration("DEV/COM/4321/SS1", auth), auth, sign)))
	if _, err := w.registry.Approve(t.Context(), operator, second); err != nil {
		t.Fatal(err)
	}
	w.refuses("still declined", m, request.CodeDeclined, "contract")

	// immediate ones are not done twice: a deletion after a new registration
	o := &organisation{serverID("DEV/COM/4321/SS1"), auth, sign}
	must(w.registry.Approve(t.Context(), operator, must(w.send(seal(t, w.ask(o, request.ClientReg, "DEV/COM/4321/app"), nil, sign)))))
	deletion := seal(t, w.ask(o, request.ClientDeletion, "DEV/COM/4321/app"), nil, nil)
	number := must(w.send(deletion))
	must(w.registry.Approve(t.Context(), operator, must(w.send(seal(t, w.ask(o, request.ClientReg, "DEV/COM/4321/app"), nil, sign)))))
	if again := must(w.send(deletion)); again != number {
		t.Errorf("request %d, not %d", again, number)
	}
	if srv, _ := w.registry.State().Server(o.server); len(srv.Clients) != 1 {
		t.Error("an old deletion was carried out again")
	}
	waiting := seal(t, w.ask(o, request.ClientReg, "DEV/COM/4321/two"), nil, sign)
	must(w.send(waiting))
	must(w.send(seal(t, w.ask(o, request.ClientDeletion, "DEV/COM/4321/two"), nil, nil)))
	w.refuses("revoked", waiting, request.CodeRevoked, "was revoked")
}

func TestOtherServices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.join("DEV/COM/4321/SS1")
	partner := w.ca.sign(t, "DEV/GOV/77")
	accept := func(r *request.Request, signer *request.Credential) uint64 {
		t.Helper()
		number, err := w.send(seal(t, r, nil, signer))
		if err != nil {
			t.Fatalf("%s: %v", r.Service, err)
		}
		return number
	}
	approve := func(number uint64) {
		t.Helper()
		if _, err := w.registry.Approve(t.Context(), operator, number); err != nil {
			t.Fatal(err)
		}
	}
	server := func(key string) registry.Server {
		srv, _ := w.registry.State().Server(serverID(key))
		return srv
	}
	// a client of another member signs for itself
	r := w.ask(o, request.ClientReg, "DEV/GOV/77/app")
	r.Name = "App"
	w.refuses("signed by the owner", seal(t, r, nil, o.sign), request.CodeInvalidRequest, "does not match")
	approve(accept(r, partner))
	accept(w.ask(o, request.ClientDisable, "DEV/GOV/77/app"), partner)
	if c := server("DEV/COM/4321/SS1").Clients; len(c) != 1 || c[0].Enabled {
		t.Errorf("%+v", c)
	}
	accept(w.ask(o, request.ClientEnable, "DEV/GOV/77/app"), partner)
	r = w.ask(o, request.ClientRename, "DEV/GOV/77/app")
	r.Name = "Application"
	accept(r, partner)
	if m, _ := w.registry.State().Member(memberID("DEV/GOV/77")); m.Subsystems[0].Name != "Application" {
		t.Errorf("%+v", m)
	}
	r = w.ask(o, request.MaintenanceEnable, "")
	r.Text = "moving"
	w.refuses("signed by a stranger", seal(t, r, nil, partner), request.CodeInvalidRequest, "does not match")
	accept(r, o.sign)
	if srv := server("DEV/COM/4321/SS1"); srv.Maintenance == nil || srv.Maintenance.Message != "moving" {
		t.Errorf("%+v", srv)
	}
	accept(w.ask(o, request.MaintenanceDisable, ""), o.sign)
	r = w.ask(o, request.AddressChange, "")
	r.Address = "new.example"
	accept(r, o.sign)
	if srv := server("DEV/COM/4321/SS1"); srv.Maintenance != nil || srv.Address != "new.example" {
		t.Errorf("%+v", srv)
	}
	accept(w.ask(o, request.ClientDeletion, "DEV/GOV/77/app"), nil)
	approve(accept(w.ask(o, request.ClientReg, "DEV/GOV/77"), partner))
	approve(accept(w.ask(o, request.OwnerChange, "DEV/GOV/77"), partner))
	moved := &organisation{serverID("DEV/GOV/77/SS1"), o.auth, partner}
	if srv := server("DEV/GOV/77/SS1"); len(srv.Certificates) != 1 || srv.Clients[0].ID != clientID("DEV/COM/4321") {
		t.Errorf("%+v", srv)
	}
	r = w.ask(moved, request.AuthCertDeletion, "")
	r.Certificate = o.auth.Cert.Raw
	accept(r, nil)
	if srv := server("DEV/GOV/77/SS1"); len(srv.Certificates) != 0 {
		t.Errorf("%+v", srv)
	}
	w.publish()
	// a deletion needs no signature, but the owner's name
	r = w.ask(moved, request.ClientDeletion, "DEV/COM/4321")
	r.Sender = clientID("DEV/COM/4321")
	w.refuses("sender", seal(t, r, nil, nil), request.CodeInvalidRequest, "Sender does not match")
	// what is to be signed is not taken without
	r = w.ask(moved, request.ClientDisable, "DEV/COM/4321")
	w.refuses("unsigned", &request.Message{SOAP: must(r.SOAP()), Request: r}, request.CodeInvalidRequest, "is missing")
}

func TestServicesStayAtTheirDoors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.join("DEV/COM/4321/SS1")
	auth := w.ca.auth("DEV/COM/4321/SS1")
	for _, tt := range []struct {
		url string
		m   *request.Message
	}{
		{w.register, seal(t, w.ask(o, request.ClientDeletion, "DEV/COM/4321/x"), nil, nil)},
		{w.register, seal(t, w.ask(o, request.MaintenanceEnable, ""), nil, o.sign)},
		{w.manage, seal(t, w.registration("DEV/COM/4321/SS1", auth), auth, o.sign)},
	} {
		contentType, body := tt.m.Encode()
		status, _, answer := w.do(http.MethodPost, tt.url, contentType, body)
		if status != http.StatusInternalServerError || !bytes.Contains(answer, []byte("not served at this address")) {
			t.Errorf("%s: %d %s", tt.m.Request.Service, status, answer)
		}
	}
}

func TestForbidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := strings.TrimSuffix(w.register, management.RegistrationPath+"/")
	for _, tt := range []struct{ method, url string }{
		{http.MethodGet, w.register}, {http.MethodPut, w.register}, {http.MethodDelete, w.register}, {http.MethodHead, w.register}, {http.MethodOptions, w.register},
		{http.MethodPost, base + "/"}, {http.MethodPost, base + "/managementservice/x"}, {http.MethodPost, base + "/managementservice/manage/"},
		{http.MethodPost, base + "/x/../managementservice/"}, {http.MethodPost, base + "//managementservice/"}, {http.MethodGet, base + management.WSDLPath},
		{http.MethodPost, strings.TrimSuffix(w.manage, "manage/")}, {http.MethodGet, w.manage},
	} {
		if status, _, _ := w.do(tt.method, tt.url, "text/xml", nil); status != http.StatusForbidden {
			t.Errorf("%s %s: %d", tt.method, tt.url, status)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	large := bytes.Repeat([]byte("x"), 100_001)
	if status, _, _ := w.post("text/xml", large); status != http.StatusRequestEntityTooLarge {
		t.Errorf("declared: %d", status)
	}
	if status, _, _ := w.post("text/xml", large[:100_000]); status != http.StatusInternalServerError {
		t.Errorf("allowed: %d", status)
	}
	// of unknown length
	services := management.New(management.Config{Registry: w.registry, Now: w.clk.now})
	rec := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodPost, management.RegistrationPath, bytes.NewReader(large))
	req.ContentLength = -1
	services.Registration().ServeHTTP(rec, req)
	if rec.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("chunked: %d", rec.Code)
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := management.New(management.Config{Registry: w.registry, Now: w.clk.now}).Registration()
	call := func(from string) (int, string) {
		rec := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodPost, management.RegistrationPath, strings.NewReader("x"))
		req.RemoteAddr = from
		h.ServeHTTP(rec, req)
		return rec.Code, rec.Header().Get("Retry-After")
	}
	for i := range 10 {
		if code, _ := call("192.0.2.1:1"); code != http.StatusInternalServerError {
			t.Fatalf("call %d: %d", i+1, code)
		}
		w.clk.advance(time.Second)
	}
	if code, wait := call("192.0.2.1:2"); code != http.StatusTooManyRequests || wait != "51" {
		t.Errorf("eleventh call: %d, retry after %s", code, wait)
	}
	if code, _ := call("192.0.2.2:1"); code != http.StatusInternalServerError {
		t.Errorf("another address: %d", code)
	}
	for range 10 {
		call("[2001:db8::1]:1")
	}
	if code, _ := call("[2001:db8::2]:1"); code != http.StatusTooManyRequests {
		t.Errorf("another address of the same network: %d", code)
	}
	w.clk.advance(50 * time.Second)
	if code, _ := call("192.0.2.1:3"); code != http.StatusInternalServerError {
		t.Errorf("a minute after the first: %d", code)
	}
	if code, _ := call("192.0.2.1:3"); code != http.StatusTooManyRequests {
		t.Errorf("the eleventh again: %d", code)
	}
}

func TestOutdated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	auth, sign := w.ca.auth("DEV/COM/4321/SS1"), w.ca.sign(t, "DEV/COM/4321")
	m := seal(t, w.registration("DEV/COM/4321/SS1", auth), auth, sign)
	w.clk.advance(11 * time.Minute) // without publication
	w.refuses("outdated", m, request.CodeOutdated, "not valid")
	w.publish()
	if _, err := w.send(m); err != nil {
		t.Error(err)
	}
}

// TestHangUp: what was accepted stays accepted, whoever hangs up.
func TestHangUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	auth, sign := w.ca.auth("DEV/COM/4321/SS1"), w.ca.sign(t, "DEV/COM/4321")
	contentType, body := seal(t, w.registration("DEV/COM/4321/SS1", auth), auth, sign).Encode()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, management.RegistrationPath, bytes.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	rec := httptest.NewRecorder()
	management.New(management.Config{Registry: w.registry, Now: w.clk.now}).Registration().ServeHTTP(rec, req)
	if rec.Code != http.StatusOK || len(w.registry.Requests(registry.RequestFilter{})) != 1 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

// TestAtOnce sends the same request many times at once.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	auth, sign := w.ca.auth("DEV/COM/4321/SS1"), w.ca.sign(t, "DEV/COM/4321")
	m := seal(t, w.registration("DEV/COM/4321/SS1", auth), auth, sign)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if number, err := w.send(m); err != nil || number != 1 {
				t.Errorf("%d, %v", number, err)
			}
		})
	}
	wg.Wait()
	if n := len(w.registry.Requests(registry.RequestFilter{})); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestIntermediateAndAuthenticationOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	only := newAuthority(t, "Authentication CA", w.clk.now)
	w.apply(&registry.SetCA{CA: registry.CA{Name: "Only", Profile: fivrk.ClassName(), AuthenticationOnly: true, Top: registry.CertifiedCA{Certificate: only.cert.Raw, Responders: []registry.Responder{{URL: only.url}}}}})
	auth := only.auth("DEV/COM/4321/SS1")
	w.refuses("signing certificate of a CA for authentication", seal(t, w.registration("DEV/COM/4321/SS1", auth), auth, only.sign(t, "DEV/COM/4321")), request.CodeCertificate, "not for signing")
	if _, err := w.send(seal(t, w.registration("DEV/COM/4321/SS1", auth), auth, w.ca.sign(t, "DEV/COM/4321"))); err != nil {
		t.Error(err)
	}
}

func TestWSDL(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	management.WSDL(rec, httptest.NewRequest(http.MethodGet, management.WSDLPath, nil))
	if rec.Code != http.StatusOK || !strings.HasPrefix(rec.Header().Get("Content-Type"), "text/xml") {
		t.Fatalf("%d %v", rec.Code, rec.Header())
	}
	var doc struct {
		Messages []struct {
			Name  string `xml:"name,attr"`
			Parts []struct {
				Element string `xml:"element,attr"`
			} `xml:"part"`
		} `xml:"message"`
		Elements []struct {
			Name string `xml:"name,attr"`
		} `xml:"types>schema>element"`
		Ports []struct {
			Name  string `xml:"name,attr"`
			Input struct {
				Message string `xml:"message,attr"`
			} `xml:"input"`
			Output struct {
				Message string `xml:"message,attr"`
			} `xml:"output"`
		} `xml:"portType>operation"`
		Bound []struct {
			Name string `xml:"name,attr"`
		} `xml:"binding>operation"`
	}
	if err := xml.Unmarshal(rec.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	elements, messages := map[string]bool{}, map[string]bool{}
	for _, e := range doc.Elements {
		elements["xroad:"+e.Name] = true
	}
	for _, m := range doc.Messages {
		messages["tns:"+m.Name] = true
		for _, p := range m.Parts {
			if !elements[p.Element] {
				t.Errorf("message %s: there is no element %s", m.Name, p.Element)
			}
		}
	}
	var want, got, bound []string
	for _, s := range request.Services() {
		if s != request.AuthCertReg {
			want = append(want, string(s))
		}
	}
	for _, p := range doc.Ports {
		got = append(got, p.Name)
		if !messages[p.Input.Message] || !messages[p.Output.Message] || p.Output.Message != "tns:"+p.Name+"Response" {
			t.Errorf("%+v", p)
		}
	}
	for _, b := range doc.Bound {
		bound = append(bound, b.Name)
	}
	slices.Sort(want)
	slices.Sort(got)
	slices.Sort(bound)
	if !slices.Equal(want, got) || !slices.Equal(want, bound) {
		t.Errorf("operations %v, bound %v, want %v", got, bound, want)
	}
	if lint, err := exec.LookPath("xmllint"); err == nil {
		cmd := exec.Command(lint, "--noout", "-")
		cmd.Stdin = rec.Body
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	rec = httptest.NewRecorder()
	management.WSDL(rec, httptest.NewRequest(http.MethodPost, management.WSDLPath, nil))
	if rec.Code != http.StatusMethodNotAllowed {
		t.Error(rec.Code)
	}
}
