// SPDX-License-Identifier: Apache-2.0

package ocsp_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"kontor/pki/ocsp"
)

// registry answers from a map; serial numbers not in it are unknown.
type registry map[string]ocsp.CertStatus

func (r registry) status(_ context.Context, serial *big.Int) (ocsp.CertStatus, error) {
	return r[serial.String()], nil
}

func (r registry) set(s *signer, st ocsp.CertStatus) { r[s.cert.SerialNumber.String()] = st }

func now() time.Time { return noon }

type fixture struct {
	ca, good, revoked, unknown, stranger *signer
	config                               ocsp.ResponderConfig
}

// newFixture makes an authority with certificates of every state.
func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{ca: certify(t, nil, "CA", asCA)}
	f.good, f.revoked, f.unknown = certify(t, f.ca, "good", nil), certify(t, f.ca, "revoked", nil), certify(t, f.ca, "unknown", nil)
	f.stranger = certify(t, certify(t, nil, "other CA", asCA), "stranger", nil)
	r := registry{}
	r.set(f.good, ocsp.CertStatus{State: ocsp.Good})
	r.set(f.revoked, ocsp.CertStatus{State: ocsp.Revoked, RevokedAt: noon.Add(-time.Minute), Reason: 1})
	f.config = ocsp.ResponderConfig{Issuer: f.ca.cert, Cert: f.ca.cert, Signer: f.ca.key, Status: r.status, Now: now}
	return f
}

func (f *fixture) delegated(t testing.TB) ocsp.ResponderConfig {
	t.Helper()
	d := certify(t, f.ca, "OCSP", forOCSP)
	c := f.config
	c.Cert, c.Signer = d.cert, d.key
	return c
}

func request(t testing.TB, leaf, issuer *signer) []byte {
	t.Helper()
	der, err := ocsp.NewRequest(leaf.cert, issuer.cert)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func post(t testing.TB, h http.Handler, der []byte) []byte {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(der)))
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/ocsp-response" {
		t.Fatalf("status %d, %v", w.Code, w.Header())
	}
	return w.Body.Bytes()
}

func TestResponder(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaResponder := f.config
	d := certifyKey(t, f.ca, rsaKey, "RSA OCSP", forOCSP)
	rsaResponder.Cert, rsaResponder.Signer, rsaResponder.Validity = d.cert, d.key, 10*time.Minute
	for name, c := range map[string]ocsp.ResponderConfig{"CA": f.config, "delegated": f.delegated(t), "RSA": rsaResponder} {
		h := ocsp.NewResponder(c)
		for _, tt := range []struct {
			leaf *signer
			want error
		}{{f.good, nil}, {f.revoked, ocsp.ErrRevoked}, {f.unknown, ocsp.ErrUnknown}} {
			der := post(t, h, request(t, tt.leaf, f.ca))
			r, err := ocsp.Verify(der, tt.leaf.cert, f.ca.cert, ocsp.Responders{}, noon, ocsp.Policy{})
			if !errors.Is(err, tt.want) {
				t.Errorf("%s, %s: %v", name, tt.leaf.cert.Subject, err)
			}
			if tt.want == nil {
				validity := time.Hour
				if c.Validity > 0 {
					validity = c.Validity
				}
				if !r.ThisUpdate.Equal(noon) || !r.NextUpdate.Equal(noon.Add(validity)) || !r.ProducedAt.Equal(noon) {
					t.Errorf("%s: %+v", name, r)
				}
			}
			// A stranger's reading of the same bytes.
			x, err := xocsp.ParseResponse(der, f.ca.cert)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if states := map[int]error{xocsp.Good: nil, xocsp.Revoked: ocsp.ErrRevoked, xocsp.Unknown: ocsp.ErrUnknown}; states[x.Status] != tt.want {
				t.Errorf("%s, %s: x/crypto reads status %d", name, tt.leaf.cert.Subject, x.Status)
			}
			if x.Status == xocsp.Revoked && (x.RevocationReason != 1 || !x.RevokedAt.Equal(noon.Add(-time.Minute))) {
				t.Errorf("%s: revoked at %s for %d", name, x.RevokedAt, x.RevocationReason)
			}
		}
	}
}

// The structures of RFC 6960, 4.1.1, as this test writes them.
type (
	tbsRequest struct {
		Version    int `asn1:"explicit,tag:0,optional"`
		List       []oneRequest
		Extensions []pkix.Extension `asn1:"explicit,tag:2,optional"`
	}
	oneRequest struct {
		ID         certID
		Extensions []pkix.Extension `asn1:"explicit,tag:0,optional"`
	}
	wholeRequest struct {
		TBS       tbsRequest
		Signature asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
)

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

var oidNonce = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}

// answer is what the test reads back.
func answer(t testing.TB, der []byte) data {
	t.Helper()
	var r response
	if _, err := asn1.Unmarshal(der, &r); err != nil {
		t.Fatal(err)
	}
	var b basicResponse
	if _, err := asn1.Unmarshal(r.Bytes.Content, &b); err != nil {
		t.Fatal(err)
	}
	var d data
	if _, err := asn1.Unmarshal(b.Data.FullBytes, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestResponderEchoes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	h := ocsp.NewResponder(f.config)
	plain := idOf(t, f.good.cert, f.ca.cert)
	bare := plain
	bare.Hash.Parameters = asn1.RawValue{}
	nonce := []byte{4, 3, 1, 2, 3}
	der := post(t, h, marshal(t, wholeRequest{TBS: tbsRequest{
		List: []oneRequest{{ID: bare}, {ID: plain}, {ID: idOf(t, f.revoked.cert, f.ca.cert)}, {ID: idOf(t, f.stranger.cert, f.good.cert)}},
		Extensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}},
			{Id: oidNonce, Critical: true, Value: nonce},
		},
	}}))
	d := answer(t, der)
	if len(d.Responses) != 4 {
		t.Fatalf("%d responses", len(d.Responses))
	}
	for i, id := range []certID{bare, plain} {
		if !bytes.Equal(marshal(t, id), marshal(t, d.Responses[i].ID)) {
			t.Errorf("identifier %d not echoed", i)
		}
	}
	for i, tag := range []int{0, 0, 1, 2} {
		if d.Responses[i].Status.Tag != tag {
			t.Errorf("response %d has status %d, want %d", i, d.Responses[i].Status.Tag, tag)
		}
	}
	if len(d.Extensions) != 1 || !d.Extensions[0].Id.Equal(oidNonce) || !bytes.Equal(d.Extensions[0].Value, nonce) {
		t.Errorf("extensions %v", d.Extensions)
	}
	if _, err := ocsp.Verify(der, f.good.cert, f.ca.cert, ocsp.Responders{}, noon, ocsp.Policy{}); err != nil {
		t.Error(err)
	}
	// By SHA-256, as other clients ask.
	q, err := xocsp.CreateRequest(f.good.cert, f.ca.cert, &xocsp.RequestOptions{Hash: crypto.SHA256})
	if err != nil {
		t.Fatal(err)
	}
	if x, err := xocsp.ParseResponse(post(t, h, q), f.ca.cert); err != nil || x.Status != xocsp.Good || x.IssuerHash != crypto.SHA256 {
		t.Errorf("by SHA-256: %+v, %v", x, err)
	}
}

func TestResponderRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	h := ocsp.NewResponder(f.config)
	one := oneRequest{ID: idOf(t, f.good.cert, f.ca.cert)}
	critical := []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	many := make([]oneRequest, 33)
	for i := range many {
		many[i] = one
	}
	good := request(t, f.good, f.ca)
	for name, der := range map[string][]byte{
		"nothing":             nil,
		"text":                []byte("hello"),
		"trailing byte":       append(bytes.Clone(good), 0),
		"cut short":           good[:len(good)-1],
		"no certificate":      marshal(t, wholeRequest{TBS: tbsRequest{List: []oneRequest{}}}),
		"too many":            marshal(t, wholeRequest{TBS: tbsRequest{List: many}}),
		"version 2":           marshal(t, wholeRequest{TBS: tbsRequest{Version: 1, List: []oneRequest{one}}}),
		"critical extension":  marshal(t, wholeRequest{TBS: tbsRequest{List: []oneRequest{one}, Extensions: critical}}),
		"critical in request": marshal(t, wholeRequest{TBS: tbsRequest{List: []oneRequest{{ID: one.ID, Extensions: critical}}}}),
		"long nonce": marshal(t, wholeRequest{TBS: tbsRequest{List: []oneRequest{one},
			Extensions: []pkix.Extension{{Id: oidNonce, Value: make([]byte, 131)}}}}),
		"two nonces": marshal(t, wholeRequest{TBS: tbsRequest{List: []oneRequest{one},
			Extensions: []pkix.Extension{{Id: oidNonce, Value: []byte{4, 0}}, {Id: oidNonce, Value: []byte{4, 0}}}}}),
		"too long": make([]byte, 17<<10),
	} {
		if got := post(t, h, der); !bytes.Equal(got, xocsp.MalformedRequestErrorResponse) {
			t.Errorf("%s: %x", name, got)
		}
	}
	signed := marshal(t, wholeRequest{TBS: tbsRequest{List: []oneRequest{one}}, Signature: asn1.RawValue{Class: 2, Tag: 0, IsCompound: true, Bytes: []byte{0x30, 0}}})
	if _, err := ocsp.Verify(post(t, h, signed), f.good.cert, f.ca.cert, ocsp.Responders{}, noon, ocsp.Policy{}); err != nil {
		t.Errorf("signed request: %v", err)
	}
	for err, want := range map[error][]byte{
		errors.New("disk"):  xocsp.InternalErrorErrorResponse,
		ocsp.ErrUnavailable: xocsp.TryLaterErrorResponse,
	} {
		c := f.config
		c.Status = func(context.Context, *big.Int) (ocsp.CertStatus, error) {
			return ocsp.CertStatus{State: ocsp.Good}, err
		}
		if got := post(t, ocsp.NewResponder(c), good); !bytes.Equal(got, want) {
			t.Errorf("%v: %x", err, got)
		}
	}
	c := f.config
	c.Signer = brokenSigner{f.ca.key}
	if got := post(t, ocsp.NewResponder(c), good); !bytes.Equal(got, xocsp.InternalErrorErrorResponse) {
		t.Errorf("broken key: %x", got)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/", bytes.NewReader(good)))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
		t.Errorf("PUT: %d", w.Code)
	}
}

type brokenSigner struct{ crypto.Signer }

func (brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("token lost")
}

func TestResponderGet(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mux := http.NewServeMux()
	mux.Handle("/ocsp/", http.StripPrefix("/ocsp/", ocsp.NewResponder(f.config)))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	get := func(path string) []byte {
		resp, err := server.Client().Get(server.URL + "/ocsp/" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d, %v", path, resp.StatusCode, err)
		}
		return b
	}
	slashes := false
	for range 20 { // until the base64 has had its special characters
		leaf := certify(t, f.ca, "leaf", nil)
		text := base64.StdEncoding.EncodeToString(request(t, leaf, f.ca))
		slashes = slashes || strings.ContainsAny(text, "/")
		der := get(url.PathEscape(text))
		if _, err := ocsp.Verify(der, leaf.cert, f.ca.cert, ocsp.Responders{}, noon, ocsp.Policy{}); !errors.Is(err, ocsp.ErrUnknown) {
			t.Fatalf("%s: %v", text, err)
		}
	}
	if !slashes {
		t.Log("no slash occurred")
	}
	for _, path := range []string{"", "x", "%00", strings.Repeat("A", 40_000)} {
		if got := get(path); !bytes.Equal(got, xocsp.MalformedRequestErrorResponse) {
			t.Errorf("%.20s: %x", path, got)
		}
	}
}

func TestResponderConfig(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for name, edit := range map[string]func(*ocsp.ResponderConfig){
		"no issuer":      func(c *ocsp.ResponderConfig) { c.Issuer = nil },
		"no status":      func(c *ocsp.ResponderConfig) { c.Status = nil },
		"other key":      func(c *ocsp.ResponderConfig) { c.Signer = f.good.key },
		"not for OCSP":   func(c *ocsp.ResponderConfig) { c.Cert, c.Signer = f.good.cert, f.good.key },
		"another CA's":   func(c *ocsp.ResponderConfig) { c.Cert, c.Signer = f.stranger.cert, f.stranger.key },
		"no certificate": func(c *ocsp.ResponderConfig) { c.Cert = nil },
	} {
		c := f.config
		edit(&c)
		if c.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			ocsp.NewResponder(c)
		}()
	}
	if err := f.config.Check(); err != nil {
		t.Error(err)
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	h := ocsp.NewResponder(f.config)
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/ocsp-request" || r.Header.Get("Accept") != "application/ocsp-response" {
			t.Errorf("%s %v", r.Method, r.Header)
		}
		h.ServeHTTP(w, r)
	})
	mux.HandleFunc("/busy", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(xocsp.TryLaterErrorResponse) })
	mux.HandleFunc("/text", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	mux.HandleFunc("/missing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for range 100 {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/good", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/other", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(goodResponse(t, f.ca, f.unknown))
	})
	mux.HandleFunc("/ahead", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(sign(t, data{Responder: byName(f.ca.cert), ProducedAt: noon, Responses: []single{
			{ID: idOf(t, f.good.cert, f.ca.cert), Status: statusGood, ThisUpdate: noon.Add(6 * time.Minute)}}}, f.ca, nil, nil))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	client := ocsp.NewClient(ocsp.ClientConfig{HTTP: server.Client(), Now: now})
	urls := func(paths ...string) (all []string) {
		for _, p := range paths {
			all = append(all, server.URL+p)
		}
		return all
	}
	for _, tt := range []struct {
		urls []string
		ok   bool
	}{
		{urls("/good"), true},
		{urls("/busy", "/text", "/missing", "/endless", "/elsewhere", "/other", "/ahead", "/good"), true},
		{[]string{"ftp://x", "http://127.0.0.1:1", server.URL + "/good"}, true},
		{nil, false},
		{urls("/busy"), false},
		{urls("/text"), false},
		{urls("/missing"), false},
		{urls("/endless"), false},
		{urls("/elsewhere"), false},
		{urls("/other"), false},
		{urls("/ahead"), false},
	} {
		der, err := client.Fetch(t.Context(), f.good.cert, f.ca.cert, tt.urls)
		if !tt.ok {
			if !errors.Is(err, ocsp.ErrUnavailable) || der != nil {
				t.Errorf("%v: %v", tt.urls, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", tt.urls, err)
			continue
		}
		if _, err := ocsp.Verify(der, f.good.cert, f.ca.cert, ocsp.Responders{}, noon, ocsp.Policy{}); err != nil {
			t.Errorf("%v: %v", tt.urls, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Fetch(ctx, f.good.cert, f.ca.cert, urls("/good")); !errors.Is(err, ocsp.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestRequestBytes pins the form of the request: X-Road's peers compare the
// identifier with explicit NULL parameters.
func TestRequestBytes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	want, err := xocsp.CreateRequest(f.good.cert, f.ca.cert, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := request(t, f.good, f.ca); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func writePEM(t testing.TB, dir, name, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestOpenSSLAsks has a stranger ask our responder, with nonce and about two
// certificates at once.
func TestOpenSSLAsks(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	f := newFixture(t)
	// openssl judges by its own clock.
	ca := certify(t, nil, "CA", func(c *x509.Certificate) {
		asCA(c)
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	})
	valid := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = ca.cert.NotBefore, ca.cert.NotAfter }
	delegate := certify(t, ca, "OCSP", func(c *x509.Certificate) { forOCSP(c); valid(c) })
	good, revoked := certify(t, ca, "good", valid), certify(t, ca, "revoked", valid)
	r := registry{}
	r.set(good, ocsp.CertStatus{State: ocsp.Good})
	r.set(revoked, ocsp.CertStatus{State: ocsp.Revoked, RevokedAt: time.Now(), Reason: 4})
	dir := t.TempDir()
	caFile := writePEM(t, dir, "ca.pem", "CERTIFICATE", ca.cert.Raw)
	goodFile := writePEM(t, dir, "good.pem", "CERTIFICATE", good.cert.Raw)
	revokedFile := writePEM(t, dir, "revoked.pem", "CERTIFICATE", revoked.cert.Raw)
	for name, by := range map[string]*signer{"CA": ca, "delegated": delegate} {
		c := f.config
		c.Issuer, c.Cert, c.Signer, c.Status, c.Now = ca.cert, by.cert, by.key, r.status, nil
		server := httptest.NewServer(ocsp.NewResponder(c))
		out, err := exec.Command(openssl, "ocsp", "-issuer", caFile, "-CAfile", caFile, "-cert", goodFile, "-cert", revokedFile, "-nonce", "-url", server.URL).CombinedOutput()
		server.Close()
		text := string(out)
		if err != nil || !strings.Contains(text, "Response verify OK") || !strings.Contains(text, "good.pem: good") ||
			!strings.Contains(text, "revoked.pem: revoked") || !strings.Contains(text, "Reason: superseded") ||
			strings.Contains(text, "WARNING") {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

// TestOpenSSLAnswers has our verifier read a stranger's answer.
func TestOpenSSLAnswers(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	f := newFixture(t)
	d := certify(t, f.ca, "OCSP", func(c *x509.Certificate) {
		forOCSP(c)
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	})
	key, err := x509.MarshalPKCS8PrivateKey(d.key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in, out, index := filepath.Join(dir, "q.der"), filepath.Join(dir, "a.der"), filepath.Join(dir, "index.txt")
	line := "V\t401231000000Z\t\t" + strings.ToUpper(pad(f.good.cert.SerialNumber.Text(16))) + "\tunknown\t/CN=good\n"
	for file, b := range map[string][]byte{in: request(t, f.good, f.ca), index: []byte(line)} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{nil, {"-resp_key_id"}} {
		args = append([]string{"ocsp", "-index", index, "-rsigner", writePEM(t, dir, "d.pem", "CERTIFICATE", d.cert.Raw),
			"-rkey", writePEM(t, dir, "d.key", "PRIVATE KEY", key), "-CA", writePEM(t, dir, "ca.pem", "CERTIFICATE", f.ca.cert.Raw),
			"-ndays", "1", "-reqin", in, "-respout", out}, args...)
		if text, err := exec.Command(openssl, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		der, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ocsp.Verify(der, f.good.cert, f.ca.cert, ocsp.Responders{}, time.Now(), ocsp.Policy{})
		if err != nil {
			t.Fatal(err)
		}
		if r.NextUpdate.Sub(r.ThisUpdate) != 24*time.Hour {
			t.Errorf("next update after %s", r.NextUpdate.Sub(r.ThisUpdate))
		}
	}
}

// pad makes the number of hexadecimal digits even, as openssl's index has it.
func pad(s string) string {
	if len(s)%2 == 1 {
		return "0" + s
	}
	return s
}

// FuzzResponder: every answer is well-formed, and whatever is asked, nothing but
// the one good certificate is called good.
func FuzzResponder(f *testing.F) {
	x := &fixture{ca: fixed(f, nil, 1, asCA)}
	x.good, x.stranger = fixed(f, x.ca, 2, nil), fixed(f, nil, 3, nil)
	r := registry{}
	r.set(x.good, ocsp.CertStatus{State: ocsp.Good})
	x.config = ocsp.ResponderConfig{Issuer: x.ca.cert, Cert: x.ca.cert, Signer: x.ca.key, Status: r.status, Now: now}
	f.Add(request(f, x.good, x.ca))
	f.Add(marshal(f, wholeRequest{TBS: tbsRequest{List: []oneRequest{{ID: idOf(f, x.good.cert, x.ca.cert)}, {ID: idOf(f, x.stranger.cert, x.good.cert)}},
		Extensions: []pkix.Extension{{Id: oidNonce, Value: []byte{4, 1, 7}}}}}))
	f.Add([]byte{0x30, 0})
	h := ocsp.NewResponder(x.config)
	f.Fuzz(func(t *testing.T, q []byte) {
		a := post(t, h, q)
		if bytes.Equal(a, xocsp.MalformedRequestErrorResponse) {
			return
		}
		var r response
		if rest, err := asn1.Unmarshal(a, &r); err != nil || len(rest) > 0 {
			t.Fatalf("%x: %v", a, err)
		}
		for _, s := range answer(t, a).Responses {
			if s.Status.Tag == 0 && s.ID.Serial.Cmp(x.good.cert.SerialNumber) != 0 {
				t.Fatalf("certificate %s is called good", s.ID.Serial)
			}
		}
	})
}
