// SPDX-License-Identifier: Apache-2.0

package management_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"kontor/pki"
	"kontor/pki/ocsp"
	"kontor/registry"
	"kontor/registry/id"
	"kontor/registry/management"
	"kontor/registry/management/request"
)

var (
	pin      = []byte("1234")
	operator = registry.Author{Who: "operator", Why: "because"}
	start    = time.Now().Truncate(time.Second)
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func memberID(s string) id.Member         { return must(id.ParseMember(s)) }
func clientID(s string) id.Client         { return must(id.ParseClient(s)) }
func serverID(s string) id.SecurityServer { return must(id.ParseSecurityServer(s)) }

// authority is a certification authority with an OCSP responder of its own.
type authority struct {
	cert    *x509.Certificate
	key     crypto.Signer
	url     string
	mu      sync.Mutex
	revoked map[string]bool
}

func newAuthority(t testing.TB, name string, now func() time.Time) *authority {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	a := &authority{cert: must(x509.ParseCertificate(der)), key: key, revoked: map[string]bool{}}
	srv := httptest.NewServer(ocsp.NewResponder(ocsp.ResponderConfig{
		Issuer: a.cert, Cert: a.cert, Signer: key, Now: now,
		Status: func(_ context.Context, serial *big.Int) (ocsp.CertStatus, error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.revoked[serial.String()] {
				return ocsp.CertStatus{State: ocsp.Revoked, RevokedAt: start}, nil
			}
			return ocsp.CertStatus{State: ocsp.Good}, nil
		},
	}))
	t.Cleanup(srv.Close)
	a.url = srv.URL
	return a
}

func (a *authority) revoke(c *x509.Certificate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked[c.SerialNumber.String()] = true
}

type option func(*x509.Certificate)

func (a *authority) issue(key crypto.Signer, rawSubject []byte, usage x509.KeyUsage, options ...option) *request.Credential {
	template := &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, big.NewInt(1<<62))), RawSubject: rawSubject,
		NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(1, 0, 0), KeyUsage: usage, BasicConstraintsValid: true,
	}
	for _, o := range options {
		o(template)
	}
	cert := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key))))
	return &request.Credential{Key: key, Cert: cert}
}

var fivrk, _ = pki.ProfileByClass("FiVRK")

func newKey() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

// auth issues an authentication certificate for a server.
func (a *authority) auth(server string, options ...option) *request.Credential {
	subject := must(fivrk.AuthSubject(pki.SubjectParams{Server: serverID(server), MemberName: "Name", DNSName: "ss.example", Country: "FI"}))
	return a.issue(newKey(), subject, x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment, options...)
}

// sign issues a signing certificate for a member and gets its OCSP response.
func (a *authority) sign(t testing.TB, member string, options ...option) *request.Credential {
	return a.signWith(t, newKey(), member, options...)
}

func (a *authority) signWith(t testing.TB, key crypto.Signer, member string, options ...option) *request.Credential {
	t.Helper()
	m := memberID(member)
	subject := must(fivrk.SignSubject(pki.SubjectParams{
		Member: m, Server: must(id.NewSecurityServer(m, "SS1")), MemberName: "Name", DNSName: "ss.example", Country: "FI",
	}))
	c := a.issue(key, subject, x509.KeyUsageContentCommitment, options...)
	a.refresh(t, c)
	return c
}

// refresh gets a new OCSP response.
func (a *authority) refresh(t testing.TB, c *request.Credential) {
	t.Helper()
	var err error
	if c.OCSP, err = ocsp.NewClient(ocsp.ClientConfig{}).Fetch(t.Context(), c.Cert, a.cert, []string{a.url}); err != nil {
		t.Fatal(err)
	}
}

var rsaKey = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })

// clock is a time that only the test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// created holds one registry that tests copy: keys are slow to make.
var created = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kontor-management-")
	if err != nil {
		return "", err
	}
	err = registry.Create(filepath.Join(dir, "registry"), pin, registry.CreateConfig{
		Instance: "DEV", Address: "127.0.0.1:8001", Algorithm: pki.P256, By: operator, Now: func() time.Time { return start.Add(-time.Hour) },
	})
	if err != nil {
		return dir, err
	}
	// openssl, if there is one, encrypts the keys anew with fewer iterations, so
	// that opening the copies is fast
	keys, _ := filepath.Glob(filepath.Join(dir, "registry", "keys", "*.key.pem"))
	for _, key := range keys {
		if exec.Command("openssl", "pkcs8", "-topk8", "-iter", "1000", "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA256",
			"-in", key, "-out", key+".new", "-passin", "pass:"+string(pin), "-passout", "pass:"+string(pin)).Run() == nil {
			if err := os.Rename(key+".new", key); err != nil {
				return dir, err
			}
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := created(); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// world is a registry with its management services on the network.
type world struct {
	t        testing.TB
	clk      *clock
	ca       *authority
	registry *registry.Registry
	tls      *x509.Certificate
	register string // URL of the registration
	manage   string // URL of the other services
	provider id.Client
	server   id.SecurityServer // of DEV/GOV/1234, which provides the services
}

func newWorld(t testing.TB) *world {
	t.Helper()
	source, err := created()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	for _, private := range []string{"registry", "registry/keys"} {
		if err := os.Chmod(filepath.Join(dir, private), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	keys, _ := filepath.Glob(filepath.Join(dir, "registry", "keys", "*"))
	for _, key := range keys {
		if err := os.Chmod(key, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{t: t, clk: &clock{t: start}, provider: clientID("DEV/GOV/1234/MANAGEMENT"), server: serverID("DEV/GOV/1234/SS0")}
	w.ca = newAuthority(t, "Test CA", w.clk.now)
	if w.registry, err = registry.Open(filepath.Join(dir, "registry"), pin, registry.Config{Now: w.clk.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.registry.Close() })
	changes := must(registry.Plan(w.registry.State(), &registry.Ecosystem{
		Instance:      "DEV",
		Settings:      &registry.Settings{ManagementProvider: &w.provider},
		MemberClasses: []registry.ClassDecl{{Code: "GOV", Description: "Government"}, {Code: "COM", Description: "Commerce"}},
		Members: []registry.MemberDecl{
			{Class: "GOV", Code: "1234", Name: "Board", Subsystems: []registry.SubsystemDecl{{Code: "MANAGEMENT"}}},
		},
		SecurityServers: []registry.ServerDecl{{ID: w.server, Address: "ss0.example", Clients: []id.Client{w.provider}}},
		CertificationServices: []registry.CADecl{{
			Name: "Test CA", Profile: "FiVRK", Certificate: registry.CertificateOf(w.ca.cert), OCSP: []registry.ResponderDecl{{URL: w.ca.url}},
		}},
	}))
	w.apply(changes...)
	if err := w.registry.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	services := management.New(management.Config{Registry: w.registry, Now: w.clk.now})
	srv := httptest.NewTLSServer(services.Registration())
	t.Cleanup(srv.Close)
	inner := httptest.NewServer(services.Management())
	t.Cleanup(inner.Close)
	w.tls, w.register, w.manage = srv.Certificate(), srv.URL+management.RegistrationPath+"/", inner.URL+management.ManagePath+"/"
	return w
}

func (w *world) apply(changes ...registry.Change) {
	w.t.Helper()
	if _, err := w.registry.Apply(w.t.Context(), operator, changes); err != nil {
		w.t.Fatal(err)
	}
}

// registration is a request that the registry should accept.
func (w *world) registration(server string, auth *request.Credential) *request.Request {
	return &request.Request{
		Service: request.AuthCertReg, Sender: serverID(server).Owner().Client(), Provider: w.provider, ID: rand.Text(),
		Server: serverID(server), Address: "ss1.example", Certificate: auth.Cert.Raw,
	}
}

func seal(t testing.TB, r *request.Request, auth, member *request.Credential) *request.Message {
	t.Helper()
	m, err := request.Seal(must(r.SOAP()), auth, member)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// send sends a message where it belongs.
func (w *world) send(m *request.Message) (uint64, error) {
	w.clk.advance(6 * time.Second) // the limit of calls has a test of its own
	if m.Request.Service == request.AuthCertReg {
		return request.Registration(w.register, w.tls).Send(w.t.Context(), m)
	}
	return (&request.Client{URL: w.manage, HTTP: http.DefaultClient}).Send(w.t.Context(), m)
}

// post sends raw bytes to the registration.
func (w *world) post(contentType string, body []byte) (int, http.Header, []byte) {
	w.t.Helper()
	w.clk.advance(6 * time.Second)
	return w.do(http.MethodPost, w.register, contentType, body)
}

func (w *world) do(method, url, contentType string, body []byte) (int, http.Header, []byte) {
	w.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(w.tls)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	req := must(http.NewRequestWithContext(w.t.Context(), method, url, bytes.NewReader(body)))
	req.Header.Set("Content-Type", contentType)
	res, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, res.Header, answer
}

// member is an organisation that has a server, its owner's keys included.
type organisation struct {
	server     id.SecurityServer
	auth, sign *request.Credential
}

// join registers and approves a server.
func (w *world) join(server string) *organisation {
	w.t.Helper()
	o := &organisation{serverID(server), w.ca.auth(server), w.ca.sign(w.t, serverID(server).Owner().String())}
	number, err := w.send(seal(w.t, w.registration(server, o.auth), o.auth, o.sign))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.registry.Approve(w.t.Context(), operator, number); err != nil {
		w.t.Fatal(err)
	}
	return o
}

// ask is a request of the organisation about its server or a client.
func (w *world) ask(o *organisation, service request.Service, client string) *request.Request {
	r := &request.Request{Service: service, Sender: o.server.Owner().Client(), Provider: w.provider, ID: rand.Text(), Server: o.server}
	if client != "" {
		r.Client = clientID(client)
	}
	return r
}
