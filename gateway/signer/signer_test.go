// SPDX-License-Identifier: Apache-2.0

package signer_test

import (
	"context"
	"crypto/sha1"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"kontor/gateway/signer"
	"kontor/pki"
	"kontor/pki/asic"
	"kontor/pki/ocsp"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

var tokenDir string

func TestMain(m *testing.M) {
	var err error
	if tokenDir, err = os.MkdirTemp("", "signer"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(tokenDir); err != nil {
			code = 1
		}
		os.Exit(code)
	}))
}

var (
	message = asic.Digest(sha512.Sum512([]byte("message")))
	body    = asic.Digest(sha512.Sum512([]byte("body")))
)

func TestSign(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cert := w.signing(0)
	s := w.signer()
	for _, attachments := range [][]asic.Digest{nil, {body}, {body, message, body}} {
		e, err := s.Sign(t.Context(), w.view.Load(), w.member, message, attachments)
		if err != nil {
			t.Fatal(err)
		}
		if chained := e.Chain != nil; chained != (len(attachments) > 0) || chained != (e.ChainResult != nil) {
			t.Errorf("%d attachments: hash chain %v", len(attachments), chained)
		}
		by, err := w.verify(e)
		if err != nil || !by.Equal(cert) {
			t.Errorf("%d attachments: %v", len(attachments), err)
		}
		e.Message = body
		if _, err := w.verify(e); err == nil {
			t.Error("evidence holds for another message")
		}
	}
	if n := w.asked.Load(); n != 1 {
		t.Errorf("responder asked %d times", n)
	}
}

// The first usable key in token order signs.
func TestSignChoosesKey(t *testing.T) {
	t.Parallel()
	other := check[id.Member](t)(id.NewMember("DEV", "GOV", "5678"))
	for _, tt := range []struct {
		name  string
		first func(w *world)
		want  string // of the second key's absence
	}{
		{"inactive", func(w *world) {
			w.add(w.tokenKey(pki.Signing, 0), name(w.member), pki.CertStatus{State: pki.StateRegistered})
		}, "no active"},
		{"not registered", func(w *world) {
			w.add(w.tokenKey(pki.Signing, 0), name(w.member), pki.CertStatus{State: pki.StateSaved, Active: true})
		}, "no active"},
		{"without certificate", func(*world) {}, "no active"},
		{"for authentication", func(w *world) { w.authentication() }, "no active"},
		{"another member's", func(w *world) { w.add(w.tokenKey(pki.Signing, 0), name(other), active) }, "no active"},
		{"another instance's", func(w *world) {
			n := name(w.member)
			n.Country = []string{"TEST"}
			w.add(w.tokenKey(pki.Signing, 0), n, active)
		}, "no active"},
		{"expired", func(w *world) {
			key := w.tokenKey(pki.Signing, 0)
			check[*pki.Key](w)(w.token.AddCertificate(w.issue(w, key, name(w.member), -2*time.Hour, -time.Hour), active))
		}, "expired"},
		{"not yet valid", func(w *world) {
			key := w.tokenKey(pki.Signing, 0)
			check[*pki.Key](w)(w.token.AddCertificate(w.issue(w, key, name(w.member), time.Hour, 2*time.Hour), active))
		}, "not yet valid"},
		{"revoked", func(w *world) { w.set(w.add(w.tokenKey(pki.Signing, 0), name(w.member), active), ocsp.Revoked) }, "revoked"},
		{"unknown to its responder", func(w *world) {
			w.set(w.add(w.tokenKey(pki.Signing, 0), name(w.member), active), ocsp.Unknown)
		}, "unknown"},
		{"of a foreign authority", func(w *world) {
			foreign := newAuthority(w, "Foreign CA", nil)
			key := w.tokenKey(pki.Signing, 0)
			check[*pki.Key](w)(w.token.AddCertificate(foreign.issue(w, key, name(w.member), -time.Hour, time.Hour), active))
		}, "no approved"},
		{"of an authority for authentication", func(w *world) {
			auth := newAuthority(w, "Auth CA", nil)
			ca := w.config.CAs[0]
			ca.Name, ca.AuthenticationOnly, ca.Top.Cert = "Auth CA", true, auth.cert.Raw
			w.config.CAs = append(w.config.CAs, ca)
			w.publish()
			key := w.tokenKey(pki.Signing, 0)
			check[*pki.Key](w)(w.token.AddCertificate(auth.issue(w, key, name(w.member), -time.Hour, time.Hour), active))
		}, "authentication only"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tt.first(w)
			s := w.signer()
			if _, err := s.Sign(t.Context(), w.view.Load(), w.member, message, nil); !errors.Is(err, signer.ErrNoKey) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("alone: %v; want: %s", err, tt.want)
			}
			second := w.signing(1)
			e, err := s.Sign(t.Context(), w.view.Load(), w.member, message, nil)
			if err != nil {
				t.Fatal(err)
			}
			if by, err := w.verify(e); err != nil || !by.Equal(second) {
				t.Errorf("signed by %v, %v", by, err)
			}
		})
	}
}

func TestSignWithoutView(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.signing(0)
	s := w.signer(func(c *signer.Config) { c.View = func() *globalconf.View { return nil } })
	if _, err := s.Sign(t.Context(), nil, w.member, message, nil); !errors.Is(err, signer.ErrNoView) {
		t.Error(err)
	}
	if _, err := s.Auth(nil); !errors.Is(err, signer.ErrNoView) {
		t.Error(err)
	}
	if err := s.Refresh(t.Context()); !errors.Is(err, signer.ErrNoView) {
		t.Error(err)
	}
	if _, ok := s.OCSP(""); ok {
		t.Error("an OCSP response without a view")
	}
	if st := s.Status(); len(st) != 3 || st[0].Usable || st[0].Problem == "" {
		t.Errorf("%+v", st)
	}
	if _, err := signer.New(signer.Config{}); err == nil {
		t.Error("an empty configuration was accepted")
	}
}

// A response is used while it is fresh and renewed when it is not.
func TestResponseGoesStale(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.signing(0)
	s := w.signer()
	sign := func() error {
		_, err := s.Sign(t.Context(), w.view.Load(), w.member, message, nil)
		return err
	}
	if err := sign(); err != nil {
		t.Fatal(err)
	}
	w.down.Store(true)
	w.clock.Store(int64(59 * time.Minute))
	if err := sign(); err != nil {
		t.Fatalf("fresh response: %v", err)
	}
	w.clock.Store(int64(61 * time.Minute))
	if err := sign(); !errors.Is(err, signer.ErrNoKey) || !errors.Is(err, ocsp.ErrStale) || !errors.Is(err, ocsp.ErrUnavailable) {
		t.Fatalf("stale response: %v", err)
	}
	asked := w.asked.Load()
	if err := sign(); err == nil || w.asked.Load() != asked {
		t.Errorf("responder asked again right after a failure, %v", err)
	}
	w.down.Store(false)
	w.clock.Store(int64(62 * time.Minute))
	if err := sign(); err != nil {
		t.Errorf("renewed response: %v", err)
	}
}

// A revocation counts at once, and what was good before is gone.
func TestRevocation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cert := w.signing(0)
	dir := t.TempDir()
	keep := func(c *signer.Config) { c.Dir = dir }
	s := w.signer(keep)
	if _, err := s.Sign(t.Context(), w.view.Load(), w.member, message, nil); err != nil {
		t.Fatal(err)
	}
	w.set(cert, ocsp.Revoked)
	if err := s.Refresh(t.Context()); !errors.Is(err, ocsp.ErrRevoked) {
		t.Errorf("refresh: %v", err)
	}
	if _, err := s.Sign(t.Context(), w.view.Load(), w.member, message, nil); !errors.Is(err, ocsp.ErrRevoked) {
		t.Errorf("sign: %v", err)
	}
	w.down.Store(true)
	if _, err := w.signer(keep).Sign(t.Context(), w.view.Load(), w.member, message, nil); err == nil {
		t.Error("signed after a restart with a revoked certificate")
	}
}

// A responder that fails in other ways does not take a good response away.
func TestGoodResponseSurvivesFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.signing(0)
	s := w.signer()
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.down.Store(true)
	if err := s.Refresh(t.Context()); !errors.Is(err, ocsp.ErrUnavailable) {
		t.Errorf("refresh: %v", err)
	}
	if _, err := s.Sign(t.Context(), w.view.Load(), w.member, message, nil); err != nil {
		t.Error(err)
	}
}

func TestRestartWithResponderDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.signing(0)
	dir := filepath.Join(t.TempDir(), "ocsp")
	keep := func(c *signer.Config) { c.Dir = dir }
	if err := w.signer(keep).Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.down.Store(true)
	if _, err := w.signer(keep).Sign(t.Context(), w.view.Load(), w.member, message, nil); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	w.clock.Store(int64(2 * time.Hour))
	if _, err := w.signer(keep).Sign(t.Context(), w.view.Load(), w.member, message, nil); !errors.Is(err, ocsp.ErrStale) {
		t.Errorf("long after a restart: %v", err)
	}
	w.clock.Store(0)

	// What is on disk is judged like what comes from the network.
	files, err := filepath.Glob(filepath.Join(dir, "*.ocsp"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	b := check[[]byte](t)(os.ReadFile(files[0]))
	b[len(b)-1] ^= 1
	for _, content := range [][]byte{b, nil, []byte("rubbish")} {
		if err := os.WriteFile(files[0], content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.signer(keep).Sign(t.Context(), w.view.Load(), w.member, message, nil); !errors.Is(err, signer.ErrNoKey) {
			t.Errorf("with a damaged file: %v", err)
		}
	}
	// Foreign files are left alone, responses of removed certificates are not.
	stranger := filepath.Join(dir, "README")
	orphan := filepath.Join(dir, strings.Repeat("ab", 32)+".ocsp")
	for _, f := range []string{stranger, orphan} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.down.Store(false)
	if err := w.signer(keep).Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(orphan); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("orphan: %v", err)
	}
}

func TestTokenChangesTakeEffect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.signing(0), w.signing(1)
	s := w.signer()
	by := func() *x509.Certificate {
		t.Helper()
		c, err := w.verify(check[*asic.Evidence](t)(s.Sign(t.Context(), w.view.Load(), w.member, message, nil)))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if !by().Equal(first) {
		t.Fatal("the first key does not sign")
	}
	if err := w.token.SetCertificate(pki.HashOf(first), pki.CertStatus{State: pki.StateRegistered}); err != nil {
		t.Fatal(err)
	}
	w.clock.Store(int64(10 * time.Second))
	if !by().Equal(second) {
		t.Error("a deactivated certificate still signs")
	}
}

// Another global configuration is another verdict.
func TestViewDecides(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.signing(0)
	s := w.signer()
	before := w.view.Load()
	if _, err := s.Sign(t.Context(), before, w.member, message, nil); err != nil {
		t.Fatal(err)
	}
	foreign := newAuthority(t, "Foreign CA", nil)
	w.config.CAs[0].Top.Cert = foreign.cert.Raw
	after := w.publish()
	if _, err := s.Sign(t.Context(), after, w.member, message, nil); !errors.Is(err, pki.ErrNoAuthority) {
		t.Errorf("authority withdrawn: %v", err)
	}
	if _, err := s.Sign(t.Context(), before, w.member, message, nil); err != nil {
		t.Errorf("an exchange that began before: %v", err)
	}
}

func TestAuth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.signer()
	if _, err := s.Auth(w.view.Load()); !errors.Is(err, signer.ErrNoAuthKey) {
		t.Errorf("empty token: %v", err)
	}
	stranger := w.add(w.tokenKey(pki.Authentication, 0), pkix.Name{CommonName: "ss1"}, active)
	if _, err := s.Auth(w.view.Load()); !errors.Is(err, signer.ErrNoAuthKey) {
		t.Errorf("not registered: %v", err)
	}
	elsewhere := w.add(w.tokenKey(pki.Authentication, 0), pkix.Name{CommonName: "ss1"}, active)
	neighbour := check[id.SecurityServer](t)(id.NewSecurityServer(w.member, "ss2"))
	w.config.Servers = append(w.config.Servers, globalconf.SecurityServer{ID: neighbour, AuthCerts: []globalconf.AuthCert{globalconf.NewAuthCert(elsewhere)}})
	w.publish()
	if _, err := s.Auth(w.view.Load()); !errors.Is(err, signer.ErrNoAuthKey) || !strings.Contains(err.Error(), "ss2") {
		t.Errorf("registered elsewhere: %v", err)
	}
	cert := w.authentication()
	if _, err := s.Auth(w.view.Load()); !errors.Is(err, signer.ErrNoOCSP) || errors.Is(err, signer.ErrNoAuthKey) {
		t.Errorf("without OCSP response: %v", err)
	}
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := s.Auth(w.view.Load())
	if err != nil {
		t.Fatal(err)
	}
	if !a.Certificate.Leaf.Equal(cert) || len(a.Certificate.Certificate) != 1 || len(a.OCSP) != 1 {
		t.Errorf("identity %v", a.Certificate.Leaf.Subject)
	}
	if again, err := s.Auth(w.view.Load()); err != nil || again != a {
		t.Errorf("another pointer, %v", err)
	}
	w.clock.Store(int64(10 * time.Second))
	if again, err := s.Auth(w.view.Load()); err != nil || again != a {
		t.Errorf("another pointer after a new look at the token, %v", err)
	}
	// The key does what TLS asks of it.
	leaf := check[*x509.Certificate](t)(x509.ParseCertificate(a.Certificate.Certificate[0]))
	if _, ok := a.Certificate.PrivateKey.(interface{ Public() any }); ok || leaf == nil {
		t.Error("not a crypto.Signer")
	}
	if err := (&tls.CertificateRequestInfo{Version: tls.VersionTLS13, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}}).SupportsCertificate(&a.Certificate); err != nil {
		t.Error(err)
	}

	sum := sha1.Sum(cert.Raw)
	for _, hash := range []string{hex.EncodeToString(sum[:]), pki.HashOf(cert).Hex(), strings.ToUpper(pki.HashOf(cert).Hex())} {
		if der, ok := s.OCSP(hash); !ok || string(der) != string(a.OCSP[0]) {
			t.Errorf("no response for %s", hash)
		}
	}
	for _, hash := range []string{"", "00", pki.HashOf(w.cert).Hex(), strings.Repeat("a", 10000)} {
		if _, ok := s.OCSP(hash); ok {
			t.Errorf("a response for %.70s", hash)
		}
	}
	w.clock.Store(int64(2 * time.Hour))
	if _, ok := s.OCSP(pki.HashOf(cert).Hex()); ok {
		t.Error("a stale response is given out")
	}
	if _, err := s.Auth(w.view.Load()); !errors.Is(err, signer.ErrNoOCSP) {
		t.Errorf("stale response: %v", err)
	}
	_ = stranger
}

// An anchor that is itself an intermediate is shown to peers, with its OCSP
// response, as soon as there is one.
func TestIntermediateAnchor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sub := newAuthority(t, "Sub CA", &w.authority)
	subResponder := w.respond(&sub)
	w.config.CAs[0].Intermediates = []globalconf.CA{{Cert: sub.cert.Raw, OCSP: []globalconf.OCSPResponder{{URL: subResponder}}}}
	key := w.tokenKey(pki.Signing, 0)
	leaf := sub.issue(t, key, name(w.member), -time.Hour, time.Hour)
	check[*pki.Key](t)(w.token.AddCertificate(leaf, active))
	auth := w.tokenKey(pki.Authentication, 0)
	authCert := sub.issue(t, auth, pkix.Name{CommonName: "ss1"}, -time.Hour, time.Hour)
	check[*pki.Key](t)(w.token.AddCertificate(authCert, active))
	w.config.Servers[0].AuthCerts = []globalconf.AuthCert{globalconf.NewAuthCert(authCert)}
	view := w.publish()

	s := w.signer()
	e := check[*asic.Evidence](t)(s.Sign(t.Context(), view, w.member, message, nil))
	if by, err := w.verify(e); err != nil || !by.Equal(leaf) {
		t.Fatalf("before the intermediate has a response: %v", err)
	}
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.clock.Store(int64(10 * time.Second))
	e = check[*asic.Evidence](t)(s.Sign(t.Context(), view, w.member, message, []asic.Digest{body}))
	if by, err := w.verify(e); err != nil || !by.Equal(leaf) {
		t.Fatalf("with the intermediate: %v", err)
	}
	a := check[*signer.AuthIdentity](t)(s.Auth(view))
	if len(a.Certificate.Certificate) != 2 || len(a.OCSP) != 2 || string(a.Certificate.Certificate[1]) != string(sub.cert.Raw) {
		t.Errorf("%d certificates, %d responses", len(a.Certificate.Certificate), len(a.OCSP))
	}
	if _, ok := s.OCSP(pki.HashOf(sub.cert).Hex()); !ok {
		t.Error("no response for the intermediate")
	}
}

// Run fetches at once, when a certificate is added, at the interval, and soon
// after a failure.
func TestRun(t *testing.T) {
	t.Parallel()
	token := borrowToken(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, token)
		w.config.OCSPFreshness = 2 * time.Hour
		w.authentication()
		s := w.signer()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		at := func(after time.Duration, asked int64) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if n := w.asked.Load(); n != asked {
				t.Errorf("asked %d times, want %d", n, asked)
			}
		}
		at(0, 1)
		if _, err := s.Auth(w.view.Load()); err != nil {
			t.Error(err)
		}
		at(7*time.Second, 1)
		w.signing(0)
		at(5*time.Second, 2)
		at(19*time.Minute, 2)
		at(time.Minute, 4) // the interval is 20 minutes
		w.down.Store(true)
		at(20*time.Minute, 6)
		at(45*time.Second, 6)
		at(5*time.Second, 8) // 60 s after the failure
		w.down.Store(false)
		at(time.Minute, 10)
		at(19*time.Minute, 10)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Before there is a global configuration Run waits for it; responses that go
// stale early are fetched more often; an interval may be configured.
func TestRunPauses(t *testing.T) {
	t.Parallel()
	token := borrowToken(t)
	for name, tt := range map[string]struct {
		freshness, interval, want time.Duration
	}{
		"freshness": {10 * time.Minute, 0, 5 * time.Minute},
		"minimum":   {time.Minute, 0, time.Minute},
		"override":  {time.Hour, 30 * time.Second, 30 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorldWith(t, token)
			w.config.OCSPFreshness = tt.freshness
			w.signing(0)
			view := w.publish()
			w.view.Store(nil)
			s := w.signer(func(c *signer.Config) { c.FetchInterval = tt.interval })
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- s.Run(ctx) }()
			time.Sleep(time.Minute)
			w.view.Store(view)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			for i := range int64(3) {
				if n := w.asked.Load(); n != 1+i {
					t.Errorf("%s: asked %d times, want %d", name, n, 1+i)
				}
				time.Sleep(tt.want + 4*time.Second) // rounds begin with a look at the token
				synctest.Wait()
			}
			cancel()
			<-done
		})
		for _, c := range token.Keys()[0].Certificates() {
			if err := token.RemoveCertificate(pki.HashOf(c.Cert)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A silent responder holds Sign up for no longer than its caller waits, and
// one question serves all who wait.
func TestSilentResponder(t *testing.T) {
	t.Parallel()
	token := borrowToken(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, token)
		w.signing(0)
		w.hosts["ocsp.test"] = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			w.asked.Add(1)
			<-r.Context().Done()
		})
		s := w.signer()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				ctx, want := ctx, context.DeadlineExceeded
				if i == 7 { // waits longer than a fetch may take
					ctx, want = t.Context(), nil
				}
				if _, err := s.Sign(ctx, w.view.Load(), w.member, message, nil); !errors.Is(err, signer.ErrNoKey) || want != nil && !errors.Is(err, want) {
					t.Error(err)
				}
			})
		}
		start := time.Now()
		wg.Wait()
		if took := time.Since(start); took != 10*time.Second || w.asked.Load() != 1 {
			t.Errorf("took %s, asked %d times", took, w.asked.Load())
		}
	})
}

func TestStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.signing(0)
	w.add(w.tokenKey(pki.Signing, 0), name(w.member), pki.CertStatus{State: pki.StateRegistered})
	w.authentication()
	w.add(w.tokenKey(pki.Authentication, 0), pkix.Name{CommonName: "x"}, active)
	s := w.signer()
	for _, st := range s.Status() {
		if st.Usable || st.Problem == "" {
			t.Errorf("without responses: %+v", st)
		}
	}
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	st := s.Status()
	if len(st) != 5 {
		t.Fatalf("%d entries", len(st))
	}
	if !st[0].Usable || st[0].Member != w.member || st[0].OCSPUntil.IsZero() || st[0].Problem != "" || st[0].Usage != pki.Signing {
		t.Errorf("%+v", st[0])
	}
	if !st[3].Usable || st[3].Usage != pki.Authentication || !st[3].Member.IsZero() {
		t.Errorf("%+v", st[3])
	}
	for i, want := range map[int]string{1: "no OCSP", 2: "no certificate", 4: "not registered"} {
		if st[i].Usable || !strings.Contains(st[i].Problem, want) {
			t.Errorf("%+v; want: %s", st[i], want)
		}
	}
}

func TestParallel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.signing(0)
	w.authentication()
	s := w.signer()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				e, err := s.Sign(t.Context(), w.view.Load(), w.member, message, []asic.Digest{body})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := w.verify(e); err != nil {
					t.Error(err)
				}
				s.Status()
				_, _ = s.Auth(w.view.Load())
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			if err := s.Refresh(t.Context()); err != nil {
				t.Error(err)
			}
			w.clock.Add(int64(6 * time.Second))
			w.config.OCSPFreshness += time.Second
			w.publish()
		}
	})
	wg.Wait()
}

func benchmarkSign(b *testing.B, attachments []asic.Digest) {
	w := newWorld(b)
	w.signing(0)
	s := w.signer()
	view := w.view.Load()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Sign(b.Context(), view, w.member, message, attachments); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSignOnePart(b *testing.B)  { benchmarkSign(b, nil) }
func BenchmarkSignTwoParts(b *testing.B) { benchmarkSign(b, []asic.Digest{body}) }
