// SPDX-License-Identifier: Apache-2.0

package enrol_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kontor/pki"
	"kontor/pki/ca"
	"kontor/pki/enrol"
	"kontor/pki/ocsp"
	"kontor/registry/id"
)

var (
	pass      = []byte("a passphrase")
	member, _ = id.ParseMember("DEV/GOV/1234")
	server, _ = id.ParseSecurityServer("DEV/GOV/1234/ss1")
)

// created holds one authority that tests copy: making keys unreadable is slow
// on purpose.
var created = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kontor-enrol-")
	if err != nil {
		return "", err
	}
	template = dir
	if err := ca.Create(dir, pass, ca.CreateConfig{Name: "Test CA", Instance: "DEV"}); err != nil {
		return dir, err
	}
	for _, name := range []string{"ca", "ocsp", "tsa"} {
		if err := reseal(filepath.Join(dir, name+".key")); err != nil {
			return dir, err
		}
	}
	return dir, nil
})

// template is the directory that created made, if it did.
var template string

func TestMain(m *testing.M) {
	code := m.Run()
	if template != "" {
		os.RemoveAll(template)
	}
	os.Exit(code)
}

// world is an authority on real HTTPS, a security server's token and a clock
// that only the test moves.
type world struct {
	t         testing.TB
	authority *ca.CA
	web       *httptest.Server
	responder enrol.Responder
	listener  net.Listener
	host      string // of the security server
	dir       string
	token     *spares
	accounts  *enrol.Accounts

	intercept atomic.Pointer[http.HandlerFunc] // sees requests first; may answer them

	mu  sync.Mutex
	now time.Time
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) sleep(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func newWorld(t testing.TB, host string) *world {
	t.Helper()
	w := &world{t: t, host: host, dir: t.TempDir(), now: time.Now().Truncate(time.Second)}
	var err error
	if w.listener, err = net.Listen("tcp", host+":0"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.responder.Serve(ctx, w.listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	w.web = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if f := w.intercept.Load(); f != nil {
			rec := httptest.NewRecorder()
			if (*f)(rec, r); rec.Code != http.StatusContinue {
				rw.WriteHeader(rec.Code)
				rw.Write(rec.Body.Bytes())
				return
			}
		}
		w.authority.Handler().ServeHTTP(rw, r)
	}))
	t.Cleanup(w.web.Close)
	profile, _ := pki.ProfileByClass("FiVRK")
	dir := filepath.Join(w.dir, "ca")
	source, err := created()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	w.authority, err = ca.Open(dir, pass, ca.Config{Now: w.clock, Validity: 90 * 24 * time.Hour,
		ACME: &ca.ACME{URL: w.web.URL, Profile: profile, ValidationPort: w.listener.Addr().(*net.TCPAddr).Port}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.authority.Close() })
	w.token = newSpares(t, filepath.Join(w.dir, "token"))
	w.accounts = w.openAccounts("accounts")
	return w
}

// openAccounts makes account keys in a folder of the world.
func (w *world) openAccounts(name string) *enrol.Accounts {
	w.t.Helper()
	dir := filepath.Join(w.dir, name)
	keys := newSpares(w.t, dir)
	accounts, err := enrol.OpenAccounts(dir, pass)
	if err != nil {
		w.t.Fatal(err)
	}
	known := map[string]*pki.Key{}
	accounts.SetGenerate(func(label string, use pki.Usage, alg pki.Algorithm) (*pki.Key, error) {
		// Spare keys do not take the label that they would be found by.
		if known[label] == nil {
			k, err := keys.generate(label, use, alg)
			if err != nil {
				return nil, err
			}
			known[label] = k
		}
		return known[label], nil
	})
	return accounts
}

// answerWith lets f answer requests; it leaves a request to the authority with
// status 100.
func (w *world) answerWith(f http.HandlerFunc) { w.intercept.Store(&f) }

func (w *world) answerNormally() { w.intercept.Store(nil) }

func (w *world) credentials(use pki.Usage) enrol.Credentials {
	w.t.Helper()
	b, key, err := w.authority.AddBinding(w.t.Context(), ca.Binding{Usage: use, Member: member, Server: server, MemberName: "Agency"})
	if err != nil {
		w.t.Fatal(err)
	}
	return enrol.Credentials{Directory: w.web.URL + "/acme/directory", KID: b.KID, MACKey: key}
}

func (w *world) config(use pki.Usage) enrol.Config {
	profile, _ := pki.ProfileByClass("FiVRK")
	params := pki.SubjectParams{Server: server, Member: member, MemberName: "Agency", DNSName: w.host}
	subject, err := profile.SignSubject(params)
	if use == pki.Authentication {
		subject, err = profile.AuthSubject(params)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return enrol.Config{
		Dir: filepath.Join(w.dir, "enrol"), Token: w.token.Token, Accounts: w.accounts, Credentials: w.credentials(use),
		Usage: use, Member: member, Subject: subject, DNSNames: []string{w.host}, Responder: &w.responder, HTTP: w.web.Client(), Now: w.clock,
	}
}

func (w *world) renewer(cfg enrol.Config) *enrol.Renewer {
	w.t.Helper()
	r, err := enrol.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	r.SetPoll(time.Millisecond)
	if cfg.Token == w.token.Token {
		r.SetGenerate(w.token.generate)
	}
	return r
}

// succeed steps and demands that nothing failed.
func succeed(t testing.TB, r *enrol.Renewer) *x509.Certificate {
	t.Helper()
	r.Step(t.Context())
	s := r.Status()
	if s.Error != "" || s.Certificate == nil {
		t.Fatalf("status %+v", s)
	}
	return s.Certificate
}

func (w *world) issued() int {
	w.t.Helper()
	records, err := w.authority.List(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for _, r := range records {
		if r.Usage != "" {
			n++
		}
	}
	return n
}

func TestEnrolAndRenew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "127.82.1.1")
	for _, use := range []pki.Usage{pki.Signing, pki.Authentication} {
		t.Run(string(use), func(t *testing.T) {
			cfg := w.config(use)
			var told []*x509.Certificate
			cfg.OnCertificate = func(_ context.Context, key *pki.Key, cert *x509.Certificate) error {
				if key.Usage() != use || len(key.Certificates()) != 1 {
					t.Errorf("told of key %+v", key)
				}
				told = append(told, cert)
				return nil
			}
			r := w.renewer(cfg)
			first := succeed(t, r)
			key, tc, ok := w.token.Certificate(pki.HashOf(first))
			want := pki.CertStatus{State: pki.StateSaved}
			if use == pki.Signing {
				want.State = pki.StateRegistered
			}
			if !ok || tc.Status != want || len(told) != 1 || !told[0].Equal(first) {
				t.Fatalf("in the token: %v %+v, told %d times", ok, tc.Status, len(told))
			}
			if pki.IsAuthCert(first) != (use == pki.Authentication) || first.DNSNames[0] != w.host {
				t.Errorf("certificate %+v", first)
			}
			// Nothing happens until the authority's window, which is asked for.
			next := r.Step(t.Context())
			if s := r.Status(); !s.RenewAt.After(w.clock().Add(40*24*time.Hour)) || s.RenewAt.After(first.NotAfter.Add(-29*24*time.Hour)) || next.After(s.RenewAt) {
				t.Errorf("renewal at %v, next step at %v", s.RenewAt, next)
			}
			w.sleep(40 * 24 * time.Hour)
			if again := succeed(t, r); !again.Equal(first) {
				t.Error("renewed too early")
			}
			w.sleep(21 * 24 * time.Hour)
			second := succeed(t, r)
			newKey, tc, _ := w.token.Certificate(pki.HashOf(second))
			if second.Equal(first) || newKey.ID() == key.ID() || tc.Status.Active || len(told) != 2 {
				t.Errorf("renewal: same %v, key %s after %s, told %d times", second.Equal(first), newKey.ID(), key.ID(), len(told))
			}
			if _, _, ok := w.token.Certificate(pki.HashOf(first)); !ok {
				t.Error("the old certificate is gone")
			}

			// A revoked certificate is replaced when the authority is asked next.
			if err := w.authority.Revoke(t.Context(), second.SerialNumber, 1); err != nil {
				t.Fatal(err)
			}
			succeed(t, r) // asks, or has asked before the revocation
			w.sleep(7 * time.Hour)
			if third := succeed(t, r); third.Equal(second) {
				t.Error("a revoked certificate was kept")
			}
			if st, err := w.authority.Status(t.Context(), second.SerialNumber); err != nil || st.State != ocsp.Revoked {
				t.Errorf("OCSP status %+v, %v", st, err)
			}
			// On demand.
			before := r.Status().Certificate
			if err := r.Renew(); err != nil {
				t.Fatal(err)
			}
			if succeed(t, r).Equal(before) {
				t.Error("not renewed on demand")
			}
		})
	}
}

// TestResume stops the authority at every request of an order once, and lets
// another Renewer, as after a restart, go on: with the same key, and never with
// a second certificate.
func TestResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "127.82.1.2")
	cfg := w.config(pki.Signing)
	for after := 0; ; after++ {
		if after > 40 {
			t.Fatal("no end")
		}
		keys, certs := w.token.made(), w.issued()
		r := w.renewer(cfg)
		if err := r.Renew(); err != nil {
			t.Fatal(err)
		}
		requests := 0
		w.answerWith(func(rw http.ResponseWriter, _ *http.Request) {
			if requests++; requests > after {
				// Not an error that the client itself tries again.
				rw.Header().Set("Content-Type", "application/problem+json")
				rw.WriteHeader(http.StatusTeapot)
				return
			}
			rw.WriteHeader(http.StatusContinue)
		})
		before := r.Status().Certificate
		r.Step(t.Context())
		w.answerNormally()
		if requests <= after { // it got all that it asked for
			if s := r.Status(); s.Error != "" || s.Certificate == nil {
				t.Fatalf("undisturbed: %+v", s)
			}
			break
		}
		s := r.Status()
		if s.Error == "" && before != nil && s.Certificate.Equal(before) || s.Failures > 1 {
			t.Fatalf("stopped after %d: %+v", after, s)
		}
		w.sleep(2 * time.Minute)
		r = w.renewer(cfg)
		succeed(t, r)
		if n := w.token.made() - keys; n != 1 {
			t.Errorf("stopped after %d requests: %d new keys", after, n)
		}
		if n := w.issued() - certs; n != 1 {
			t.Errorf("stopped after %d requests: %d certificates", after, n)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "127.82.1.3")
	fails := func(r *enrol.Renewer, text string) enrol.Status {
		t.Helper()
		r.Step(t.Context())
		s := r.Status()
		if !strings.Contains(s.Error, text) || s.Certificate != nil || !s.NextTry.After(w.clock()) {
			t.Errorf("want %q: %+v", text, s)
		}
		return s
	}
	t.Run("challenge", func(t *testing.T) {
		cfg := w.config(pki.Signing)
		cfg.Responder = new(enrol.Responder) // nobody listens to it
		fails(w.renewer(cfg), "lead to the address where this server answers")
	})
	t.Run("unreachable name", func(t *testing.T) {
		cfg := w.config(pki.Signing)
		cfg.Dir, cfg.DNSNames = filepath.Join(w.dir, "other"), []string{"127.82.1.99"}
		fails(w.renewer(cfg), "could not confirm that 127.82.1.99 is this server")
	})
	t.Run("binding", func(t *testing.T) {
		for name, change := range map[string]func(*enrol.Credentials){
			"missing":     func(c *enrol.Credentials) { c.KID, c.MACKey = "", nil },
			"unknown":     func(c *enrol.Credentials) { c.KID = "nobody" },
			"wrong key":   func(c *enrol.Credentials) { c.MACKey = []byte("0123456789abcdef") },
			"other usage": func(c *enrol.Credentials) { *c = w.credentials(pki.Authentication) },
		} {
			cfg := w.config(pki.Signing)
			cfg.Dir = filepath.Join(w.dir, name)
			change(&cfg.Credentials)
			fails(w.renewer(cfg), "external account binding")
		}
	})
	t.Run("reused", func(t *testing.T) {
		cfg := w.config(pki.Signing)
		cfg.Dir = filepath.Join(w.dir, "reused")
		succeed(t, w.renewer(cfg))
		cfg.Accounts, cfg.Dir = w.openAccounts("thief"), filepath.Join(w.dir, "thief")
		fails(w.renewer(cfg), "has an account already")
	})
	t.Run("check", func(t *testing.T) {
		cfg := w.config(pki.Signing)
		cfg.Dir = filepath.Join(w.dir, "check")
		refuse := true
		cfg.Check = func(chain []*x509.Certificate) error {
			if len(chain) != 2 {
				t.Errorf("chain of %d", len(chain))
			}
			if refuse {
				return errors.New("not approved")
			}
			return nil
		}
		r := w.renewer(cfg)
		fails(r, "not approved")
		refuse = false
		w.sleep(2 * time.Minute)
		succeed(t, r)
	})
	t.Run("down", func(t *testing.T) {
		cfg := w.config(pki.Signing)
		cfg.Dir = filepath.Join(w.dir, "down")
		down := httptest.NewTLSServer(nil)
		down.Close()
		cfg.Credentials.Directory = down.URL + "/directory"
		r := w.renewer(cfg)
		var last time.Duration
		for range 12 {
			s := fails(r, "check that the authority runs")
			wait := s.NextTry.Sub(w.clock())
			if wait < last/2 || wait > 70*time.Minute {
				t.Errorf("waits %v after %v", wait, last)
			}
			if next := r.Step(t.Context()); !next.Equal(s.NextTry) || r.Status().Failures != s.Failures {
				t.Error("tried again too early")
			}
			last = wait
			w.sleep(wait)
		}
		if last < time.Hour {
			t.Errorf("only waits %v in the end", last)
		}
	})
}

// TestCallback lets the owner fail, and a restart come before he has heard.
func TestCallback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "127.82.1.4")
	cfg := w.config(pki.Signing)
	calls, working := 0, false
	cfg.OnCertificate = func(context.Context, *pki.Key, *x509.Certificate) error {
		calls++
		if !working {
			return errors.New("busy")
		}
		return nil
	}
	r := w.renewer(cfg)
	r.Step(t.Context())
	if s := r.Status(); calls != 1 || s.Certificate == nil || !strings.Contains(s.Error, "busy") {
		t.Fatalf("%d calls, %+v", calls, s)
	}
	w.sleep(2 * time.Minute)
	working = true
	first := succeed(t, w.renewer(cfg))
	if again := succeed(t, w.renewer(cfg)); calls != 2 || !again.Equal(first) || w.issued() != 1 {
		t.Errorf("%d calls, %d certificates", calls, w.issued())
	}
}

// TestWithoutRenewalInfo renews by the lifetime, or as configured.
func TestWithoutRenewalInfo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "127.82.1.5")
	w.answerWith(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/acme/directory" {
			rw.WriteHeader(http.StatusContinue)
			return
		}
		directory := map[string]any{"meta": map[string]any{"externalAccountRequired": true}}
		for name, path := range map[string]string{"newNonce": "new-nonce", "newAccount": "new-account", "newOrder": "new-order", "revokeCert": "revoke-cert"} {
			directory[name] = w.web.URL + "/acme/" + path
		}
		json.NewEncoder(rw).Encode(directory)
	})
	cfg := w.config(pki.Signing)
	r := w.renewer(cfg)
	cert := succeed(t, r)
	lifetime := cert.NotAfter.Sub(cert.NotBefore)
	r.Step(t.Context())
	if s := r.Status(); !s.RenewAt.Equal(cert.NotAfter.Add(-lifetime / 3)) {
		t.Errorf("renews at %v a certificate until %v", s.RenewAt, cert.NotAfter)
	}
	cfg.RenewBefore = 14 * 24 * time.Hour
	r = w.renewer(cfg)
	if s := r.Status(); !s.RenewAt.Equal(cert.NotAfter.Add(-14 * 24 * time.Hour)) {
		t.Errorf("renews at %v a certificate until %v", s.RenewAt, cert.NotAfter)
	}
	w.sleep(80 * 24 * time.Hour)
	if succeed(t, r).Equal(cert) {
		t.Error("not renewed")
	}
}

// TestHostileRenewalInfo: whatever the authority says, renewal is not too late.
func TestHostileRenewalInfo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "127.82.1.6")
	r := w.renewer(w.config(pki.Signing))
	cert := succeed(t, r)
	for _, answer := range []string{
		`{"suggestedWindow":{"start":"2999-01-01T00:00:00Z","end":"2999-01-02T00:00:00Z"}}`,
		`{"suggestedWindow":{"start":"2999-01-01T00:00:00Z","end":"2998-01-02T00:00:00Z"}}`,
		`{"suggestedWindow":{}}`, `{`, `null`, strings.Repeat(" ", 1<<20),
	} {
		w.sleep(25 * time.Hour)
		w.answerWith(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "renewal-info") {
				rw.Write([]byte(answer))
				return
			}
			rw.WriteHeader(http.StatusContinue)
		})
		next := r.Step(t.Context())
		if s := r.Status(); !s.Certificate.Equal(cert) || s.RenewAt.After(cert.NotAfter.Add(-8*24*time.Hour)) || next.After(w.clock().Add(25*time.Hour)) {
			t.Errorf("%.60s: %+v", answer, s)
		}
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "127.82.1.7")
	cfg := w.config(pki.Signing)
	certs := make(chan *x509.Certificate)
	cfg.OnCertificate = func(ctx context.Context, _ *pki.Key, cert *x509.Certificate) error {
		select {
		case certs <- cert:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	r := w.renewer(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	first := <-certs
	if err := r.Renew(); err != nil {
		t.Fatal(err)
	}
	if second := <-certs; second.Equal(first) {
		t.Error("the same certificate again")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestSharedAccount lets several Renewers begin at once under one binding.
func TestSharedAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "127.82.1.8")
	cfg := w.config(pki.Signing)
	var wg sync.WaitGroup
	for i := range 3 {
		c := cfg
		c.Dir = filepath.Join(w.dir, "shared", string(rune('a'+i)))
		r := w.renewer(c)
		wg.Go(func() {
			r.Step(t.Context())
			if s := r.Status(); s.Error != "" || s.Certificate == nil {
				t.Errorf("%+v", s)
			}
		})
	}
	wg.Wait()
}

// TestOwnKeys lets the Renewer make keys itself, and finds one that it made
// just before a crash.
func TestOwnKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "127.82.1.9")
	cfg := w.config(pki.Signing)
	dir := filepath.Join(w.dir, "own")
	if err := writeToken(dir, 0); err != nil {
		t.Fatal(err)
	}
	var err error
	if cfg.Token, err = pki.OpenToken(dir, pass); err != nil {
		t.Fatal(err)
	}
	if cfg.Accounts, err = enrol.OpenAccounts(filepath.Join(w.dir, "own-accounts"), pass); err != nil {
		t.Fatal(err)
	}
	w.answerWith(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTeapot) })
	w.renewer(cfg).Step(t.Context())
	w.answerNormally()
	state, err := filepath.Glob(filepath.Join(cfg.Dir, "signing-*.json"))
	if err != nil || len(state) != 1 || os.Remove(state[0]) != nil {
		t.Fatalf("state %v, %v", state, err)
	}
	succeed(t, w.renewer(cfg))
	if keys := cfg.Token.Keys(); len(keys) != 1 || !strings.Contains(keys[0].Label(), "DEV/GOV/1234") || len(keys[0].Certificates()) != 1 {
		t.Errorf("%d keys", len(keys))
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := enrol.Credentials{Directory: "https://ca.example/acme/directory", KID: "K", MACKey: []byte{1, 2, 3, 250}}
	b, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "c.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := enrol.ReadCredentials(file)
	if err != nil || got.Directory != want.Directory || got.KID != want.KID || string(got.MACKey) != string(want.MACKey) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := enrol.ReadCredentials(file); !errors.Is(err, enrol.ErrCredentials) {
		t.Errorf("readable by all: %v", err)
	}
	for _, bad := range []string{
		"", "{}", `{"directory":"http://ca.example"}`, `{"directory":"https://ca.example","kid":"K"}`, `{"directory":"https://ca.example","mac_key":"AAAA"}`,
		`{"directory":"https://ca.example","kid":"K","mac_key":"!"}`, `{"directory":"https://ca.example","extra":1}`,
		`{"directory":"https://ca.example"} x`, `{"directory":"https://ca.example","root":"x"}`, `{"directory":"https://ca.example" ` + strings.Repeat(" ", 1<<17) + `}`,
	} {
		if c, err := enrol.ParseCredentials([]byte(bad)); !errors.Is(err, enrol.ErrCredentials) {
			t.Errorf("%.60s: %+v, %v", bad, c, err)
		}
	}
}

func FuzzParseCredentials(f *testing.F) {
	f.Add([]byte(`{"directory":"https://ca.example/directory","kid":"K","mac_key":"AQID"}`))
	f.Add([]byte(`{"directory":"https://ca.example/directory","root":"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := enrol.ParseCredentials(b)
		if err != nil {
			return
		}
		again, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if d, err := enrol.ParseCredentials(again); err != nil || d.Directory != c.Directory || d.KID != c.KID || string(d.MACKey) != string(c.MACKey) {
			t.Fatalf("%+v became %+v, %v", c, d, err)
		}
	})
}

func TestResponder(t *testing.T) {
	t.Parallel()
	r := new(enrol.Responder)
	for _, path := range []string{"/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/x", "/etc/passwd"} {
		rec := httptest.NewRecorder()
		r.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
		if rec.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, rec.Code)
		}
	}
	if err := r.Listen(t.Context(), "127.0.0.1:-1"); err == nil {
		t.Error("listens on no port")
	}
}

// TestCertID is the example of RFC 9773, 4.1.
func TestCertID(t *testing.T) {
	t.Parallel()
	c := &x509.Certificate{
		AuthorityKeyId: []byte{0x69, 0x88, 0x5B, 0x6B, 0x87, 0x46, 0x40, 0x41, 0xE1, 0xB3, 0x7B, 0x84, 0x7B, 0xA0, 0xAE, 0x2C, 0xDE, 0x01, 0xC8, 0xD4},
		SerialNumber:   big.NewInt(0x8765_4321),
	}
	if got := enrol.CertID(c); got != "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE" {
		t.Error(got)
	}
}
