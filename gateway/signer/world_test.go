// SPDX-License-Identifier: Apache-2.0

package signer_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kontor/gateway/signer"
	"kontor/pki"
	"kontor/pki/asic"
	"kontor/pki/ocsp"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// world is a tiny ecosystem: one authority with an OCSP responder, one security
// server with a token, and a clock.
type world struct {
	testing.TB
	authority
	token  *pki.Token
	server id.SecurityServer
	member id.Member

	clock  atomic.Int64 // added to the real time
	config globalconf.SharedParams
	view   atomic.Pointer[globalconf.View]

	hosts  map[string]http.Handler // OCSP responders
	asked  atomic.Int64
	down   atomic.Bool
	mu     sync.Mutex
	states map[string]ocsp.State // by serial; good if absent
}

// authority is a certification authority.
type authority struct {
	cert   *x509.Certificate
	key    crypto.Signer
	serial *atomic.Int64
}

func check[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newAuthority(t testing.TB, name string, parent *authority) authority {
	t.Helper()
	key := check[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	a := authority{key: key, serial: new(atomic.Int64)}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1000), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:  x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(480 * time.Hour),
	}
	if parent == nil {
		parent = &authority{cert: tmpl, key: key}
	}
	der := check[[]byte](t)(x509.CreateCertificate(rand.Reader, tmpl, parent.cert, key.Public(), parent.key))
	a.cert = check[*x509.Certificate](t)(x509.ParseCertificate(der))
	return a
}

// issue makes a certificate for a key of a token.
func (a *authority) issue(t testing.TB, key *pki.Key, subject pkix.Name, from, to time.Duration) *x509.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial.Add(1)), Subject: subject,
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		KeyUsage: x509.KeyUsageContentCommitment,
	}
	if key.Usage() == pki.Authentication {
		tmpl.KeyUsage = x509.KeyUsageDigitalSignature
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	}
	der := check[[]byte](t)(x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key))
	return check[*x509.Certificate](t)(x509.ParseCertificate(der))
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, borrowToken(t))
}

func newWorldWith(t testing.TB, token *pki.Token) *world {
	t.Helper()
	w := &world{TB: t, token: token, authority: newAuthority(t, "Test CA", nil), states: map[string]ocsp.State{}, hosts: map[string]http.Handler{}}
	w.member = check[id.Member](t)(id.NewMember("DEV", "GOV", "1234"))
	w.server = check[id.SecurityServer](t)(id.NewSecurityServer(w.member, "ss1"))
	handler := ocsp.NewResponder(ocsp.ResponderConfig{
		Issuer: w.cert, Cert: w.cert, Signer: w.key, Now: w.now,
		Status: func(_ context.Context, serial *big.Int) (ocsp.CertStatus, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			state, ok := w.states[serial.String()]
			if !ok {
				state = ocsp.Good
			}
			return ocsp.CertStatus{State: state, RevokedAt: w.now()}, nil
		},
	})
	w.hosts["ocsp.test"] = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked.Add(1)
		if w.down.Load() {
			http.Error(rw, "down", http.StatusServiceUnavailable)
			return
		}
		handler.ServeHTTP(rw, r)
	})
	w.config = globalconf.SharedParams{
		Instance: "DEV",
		Sources:  []globalconf.Source{{Address: "cs", InternalCerts: [][]byte{w.cert.Raw}, ExternalCerts: [][]byte{w.cert.Raw}}},
		CAs: []globalconf.ApprovedCA{{
			Name: "Test CA", Profile: "ee.ria.xroad.common.certificateprofile.impl.EjbcaCertificateProfileInfoProvider",
			Top: globalconf.CA{Cert: w.cert.Raw, OCSP: []globalconf.OCSPResponder{{URL: "http://ocsp.test"}}},
		}},
		Members:       []globalconf.Member{{ID: w.member, ClassDescription: "GOV", Name: "Member"}},
		Servers:       []globalconf.SecurityServer{{ID: w.server, Address: "127.0.0.1"}},
		MemberClasses: []globalconf.MemberClass{{Code: "GOV", Description: "GOV"}},
		OCSPFreshness: time.Hour,
	}
	w.publish()
	return w
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) }

func (w *world) set(c *x509.Certificate, state ocsp.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[c.SerialNumber.String()] = state
}

// publish makes a View of the configuration.
func (w *world) publish() *globalconf.View {
	w.Helper()
	dir := w.TempDir()
	write := func(name string, b []byte) {
		w.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			w.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			w.Fatal(err)
		}
	}
	write("instance-identifier", []byte("DEV"))
	write("DEV/shared-params.xml", check[[]byte](w)(w.config.Marshal(6)))
	write("DEV/shared-params.xml.metadata", []byte(`{"configurationVersion":"6"}`))
	view := check[*globalconf.View](w)(globalconf.LoadDir(dir))
	w.view.Store(view)
	return view
}

// tokens are shared by the tests, for making keys takes long by design. Each
// has two signing keys and one for authentication, in this order.
var tokens = make(chan *pki.Token, 64)

// borrowToken returns a token without certificates.
func borrowToken(t testing.TB) *pki.Token {
	t.Helper()
	var token *pki.Token
	select {
	case token = <-tokens:
	default:
		dir := check[string](t)(os.MkdirTemp(tokenDir, "token"))
		token = check[*pki.Token](t)(pki.CreateToken(filepath.Join(dir, "token"), []byte("secret pin 1")))
		for _, use := range []pki.Usage{pki.Signing, pki.Signing, pki.Authentication} {
			check[*pki.Key](t)(token.Generate("key", use, pki.P256))
		}
	}
	t.Cleanup(func() {
		for _, key := range token.Keys() {
			for _, c := range key.Certificates() {
				if err := token.RemoveCertificate(pki.HashOf(c.Cert)); err != nil {
					t.Error(err)
				}
			}
		}
		tokens <- token
	})
	return token
}

// tokenKey returns the n-th key of a usage.
func (w *world) tokenKey(use pki.Usage, n int) *pki.Key {
	w.Helper()
	for _, k := range w.token.Keys() {
		if k.Usage() == use {
			if n == 0 {
				return k
			}
			n--
		}
	}
	w.Fatal("no such key")
	return nil
}

// add certifies a key, for two days.
func (w *world) add(key *pki.Key, subject pkix.Name, st pki.CertStatus) *x509.Certificate {
	w.Helper()
	c := w.issue(w, key, subject, -24*time.Hour, 24*time.Hour)
	check[*pki.Key](w)(w.token.AddCertificate(c, st))
	return c
}

func name(m id.Member) pkix.Name {
	return pkix.Name{Country: []string{m.Instance()}, Organization: []string{m.Class()}, CommonName: m.Code()}
}

var active = pki.CertStatus{State: pki.StateRegistered, Active: true}

// signing makes the n-th signing key usable for the world's member.
func (w *world) signing(n int) *x509.Certificate {
	w.Helper()
	return w.add(w.tokenKey(pki.Signing, n), name(w.member), active)
}

// authentication adds an authentication key and registers it.
func (w *world) authentication() *x509.Certificate {
	w.Helper()
	c := w.add(w.tokenKey(pki.Authentication, 0), pkix.Name{CommonName: "ss1"}, active)
	w.config.Servers[0].AuthCerts = append(w.config.Servers[0].AuthCerts, globalconf.NewAuthCert(c))
	w.publish()
	return c
}

func (w *world) signer(change ...func(*signer.Config)) *signer.Signer {
	w.Helper()
	cfg := signer.Config{
		Token: w.token, OCSP: ocsp.NewClient(ocsp.ClientConfig{HTTP: &http.Client{Transport: w}, Now: w.now}), View: w.view.Load, Server: w.server, Now: w.now,
	}
	for _, c := range change {
		c(&cfg)
	}
	return check[*signer.Signer](w)(signer.New(cfg))
}

// verify checks evidence as its receiver would, and returns who signed.
func (w *world) verify(e *asic.Evidence) (*x509.Certificate, error) {
	v, err := asic.NewVerifier(w.now).Signature(e, w.member.Client(), w.view.Load(), w.now())
	if err != nil {
		return nil, err
	}
	if len(v.Signature.OCSPResponses()) == 0 {
		return nil, errors.New("no OCSP response")
	}
	return v.Signature.Certificate(), nil
}

// RoundTrip is the world's network: it brings requests to its responders.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	h, ok := w.hosts[r.URL.Host]
	if !ok {
		return nil, errors.New("no such host")
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return rec.Result(), nil
}

// respond starts an OCSP responder that calls every certificate of an
// authority good, and returns its URL.
func (w *world) respond(a *authority) string {
	w.hosts["second.test"] = ocsp.NewResponder(ocsp.ResponderConfig{
		Issuer: a.cert, Cert: a.cert, Signer: a.key, Now: w.now,
		Status: func(context.Context, *big.Int) (ocsp.CertStatus, error) {
			return ocsp.CertStatus{State: ocsp.Good}, nil
		},
	})
	return "http://second.test"
}
