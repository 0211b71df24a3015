// SPDX-License-Identifier: Apache-2.0

package tunnel_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"kontor/gateway/tunnel"
	"kontor/pki"
	"kontor/pki/ocsp"
	"kontor/registry/globalconf"
)

// connect makes a TLS connection to a server and sends one request over it.
func connect(t *testing.T, s *server, cfg *tls.Config) (*tls.ConnectionState, error) {
	t.Helper()
	cfg.InsecureSkipVerify = true
	conn, err := tls.Dial("tcp", s.listener.Addr().String(), cfg)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"); err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")) {
		return nil, fmt.Errorf("answer %q", answer)
	}
	state := conn.ConnectionState()
	return &state, nil
}

func TestServerTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(echo)
	with := func(c *tls.Certificate) *tls.Config {
		cfg := &tls.Config{}
		if c != nil {
			cfg.Certificates = []tls.Certificate{*c}
		}
		return cfg
	}
	if st, err := connect(t, b, with(a.cert)); err != nil || st.Version != tls.VersionTLS13 || !st.PeerCertificates[0].Equal(b.cert.Leaf) {
		t.Errorf("registered: %v", err)
	}
	for name, cfg := range map[string]*tls.Config{
		"no certificate": with(nil),
		"unknown":        with(w.issue(t, "a", nil)),
		"TLS 1.1":        {MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10, Certificates: []tls.Certificate{*a.cert}},
		"CBC suites": {
			MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*a.cert},
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_AES_256_GCM_SHA384},
		},
	} {
		if _, err := connect(t, b, cfg); err == nil {
			t.Errorf("%s: let in", name)
		}
	}
	old := with(a.cert)
	old.MaxVersion, old.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
	if st, err := connect(t, b, old); err != nil || st.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 {
		t.Errorf("TLS 1.2: %v", err)
	}
	requests := b.requests.Load()
	if requests != 2 {
		t.Errorf("%d requests", requests)
	}

	// The request for a certificate names the approved authorities.
	foreign := newCA(t, "Second CA", nil)
	w.config.CAs = append(w.config.CAs, approved(foreign.cert))
	w.publish()
	var names [][]byte
	if _, err := connect(t, b, &tls.Config{GetClientCertificate: func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		names = i.AcceptableCAs
		return a.cert, nil
	}}); err != nil || len(names) != 2 || !bytes.Equal(names[1], foreign.cert.RawSubject) {
		t.Errorf("%d names, %v", len(names), err)
	}
}

// A session that is resumed shows its certificate again, to be judged again.
func TestResumedSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) != 1 || !r.TLS.PeerCertificates[0].Equal(a.cert.Leaf) {
			t.Error("no peer certificate")
		}
	}))
	cfg := &tls.Config{Certificates: []tls.Certificate{*a.cert}, ClientSessionCache: tls.NewLRUClientSessionCache(1), ServerName: "b"}
	resumed := false
	for range 3 {
		st, err := connect(t, b, cfg)
		if err != nil {
			t.Fatal(err)
		}
		resumed = resumed || st.DidResume
	}
	if !resumed {
		t.Log("sessions are not resumed")
	}
	a.entry().AuthCerts = nil
	w.publish()
	if _, err := connect(t, b, cfg); err == nil {
		t.Error("a session outlived its registration")
	}
}

func TestServerTLSWithoutView(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(echo)
	w.view.Store(nil)
	if _, err := connect(t, b, &tls.Config{Certificates: []tls.Certificate{*a.cert}}); err == nil {
		t.Error("let in")
	}
}

// So many authorities that their names do not fit: none are named.
func TestManyAuthorities(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(echo)
	for i := range 10 {
		w.config.CAs = append(w.config.CAs, approved(newCA(t, fmt.Sprint(i, strings.Repeat("x", 2000)), nil).cert))
	}
	w.publish()
	if got, err := post(t, a.tunnel(), b, "x"); err != nil || got != "x" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestPeerVerifier(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	good := func() [][]byte { return [][]byte{w.status(&w.ca, a.cert.Leaf)} }
	other := w.status(&w.ca, b.cert.Leaf)
	chain := []*x509.Certificate{a.cert.Leaf}
	for _, tt := range []struct {
		name      string
		chain     []*x509.Certificate
		responses [][]byte
		need      *server
		want      error
	}{
		{"good", chain, good(), a, nil},
		{"after another's response", chain, [][]byte{other, good()[0]}, a, nil},
		{"with useless extras", []*x509.Certificate{a.cert.Leaf, b.cert.Leaf, w.cert}, good(), a, nil},
		{"for another client", chain, good(), b, tunnel.ErrPeer},
		{"no response", chain, nil, a, ocsp.ErrUnavailable},
		{"another's response", chain, [][]byte{other}, a, ocsp.ErrUnavailable},
		{"rubbish", chain, [][]byte{[]byte("x")}, a, ocsp.ErrMalformed},
		{"too many responses", chain, make([][]byte, 17), a, ocsp.ErrMalformed},
		{"no certificate", nil, good(), a, tunnel.ErrPeer},
		{"too many certificates", append(chain, make([]*x509.Certificate, 100)...), good(), a, pki.ErrBadChain},
	} {
		v := tunnel.NewVerifier(tunnel.VerifierConfig{Now: w.now})
		for range 2 { // the second time from what it remembers
			p, err := v.Verify(t.Context(), w.view.Load(), tt.chain, tt.responses, tt.need.client)
			if !errors.Is(err, tt.want) || err != nil && !errors.Is(err, tunnel.ErrPeer) {
				t.Errorf("%s: %v", tt.name, err)
			}
			if err == nil && (p.Server.ID != a.id || !p.Cert.Equal(a.cert.Leaf)) {
				t.Errorf("%s: %v", tt.name, p)
			}
		}
	}

	// A verdict is no excuse for a message without responses, or with bad ones.
	v := tunnel.NewVerifier(tunnel.VerifierConfig{Now: w.now})
	verify := func(view *globalconf.View, responses [][]byte) error {
		_, err := v.Verify(t.Context(), view, chain, responses, a.client)
		return err
	}
	first := good()
	if err := verify(w.view.Load(), first); err != nil {
		t.Fatal(err)
	}
	if err := verify(w.view.Load(), nil); !errors.Is(err, ocsp.ErrUnavailable) {
		t.Errorf("without responses: %v", err)
	}
	w.set(a.cert.Leaf, ocsp.Revoked)
	if err := verify(w.view.Load(), good()); !errors.Is(err, ocsp.ErrRevoked) {
		t.Errorf("revoked meanwhile: %v", err)
	}
	// Nor for a response that has gone stale, another view, an expired certificate.
	if err := verify(w.view.Load(), first); err != nil {
		t.Fatal(err)
	}
	w.clock.Store(int64(61 * time.Minute))
	if err := verify(w.view.Load(), first); !errors.Is(err, ocsp.ErrStale) {
		t.Errorf("stale: %v", err)
	}
	w.clock.Store(0)
	before := w.view.Load()
	a.entry().AuthCerts = nil
	if err := verify(w.publish(), first); !errors.Is(err, tunnel.ErrPeer) {
		t.Errorf("no longer registered: %v", err)
	}
	if err := verify(before, first); err != nil {
		t.Errorf("an exchange that began before: %v", err)
	}
}

// Peers may present intermediates; each needs its own OCSP response.
func TestIntermediates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	sub := newCA(t, "Sub CA", &w.ca)
	cert := sub.issue(t, "b", nil)
	cert.Certificate = append(cert.Certificate, sub.cert.Raw)
	b.use(cert)
	b.register()
	b.serve(echo)
	for _, tt := range []struct {
		name  string
		first []byte // for the leaf; the rest is for the intermediate
		rest  []byte
		want  error
	}{
		{"both", w.status(&sub, cert.Leaf), w.status(&w.ca, sub.cert), nil},
		{"swapped", w.status(&w.ca, sub.cert), w.status(&sub, cert.Leaf), nil}, // each is about its certificate
		{"twice the first", w.status(&sub, cert.Leaf), w.status(&sub, cert.Leaf), ocsp.ErrUnavailable},
	} {
		b.lookup = func(hash string) ([]byte, bool) {
			if q := tunnel.OCSPQuery([]*x509.Certificate{cert.Leaf}); strings.Contains(q, hash) {
				return tt.first, true
			}
			return tt.rest, true
		}
		c := a.tunnel()
		if _, err := post(t, c, b, "x"); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		c.Close()
	}
}

func TestOCSPHandler(t *testing.T) {
	t.Parallel()
	known := map[string]string{"aa": "response a", "bb": "response b", "aaaa": "response a", "bbbb": "response b"}
	h := tunnel.OCSPHandler(func(hash string) ([]byte, bool) { v, ok := known[hash]; return []byte(v), ok })
	for _, tt := range []struct {
		method, target string
		status         int
		want           []string
	}{
		{"GET", "/?cert=aa", 200, []string{"response a"}},
		{"GET", "/?cert=AA", 200, []string{"response a"}},
		{"GET", "/any?cert=bb&cert=aa", 200, []string{"response b", "response a"}},
		{"GET", "/?cert=aa&cert=aa", 200, []string{"response a", "response a"}},
		{"GET", "/?cert=bb&cert=aa&cert_hash=bbbb&cert_hash=aaaa", 200, []string{"response b", "response a"}},
		{"GET", "/?cert_hash=bbbb&cert_hash=aaaa", 200, []string{"response b", "response a"}},
		{"GET", "/?cert=xx&cert_hash=aaaa", 200, []string{"response a"}},
		{"GET", "/?cert=aa&cert_hash=xxxx", 200, []string{"response a"}},
		{"GET", "/?cert=aa&cert=xx", 500, nil},
		{"GET", "/?cert=xx&cert_hash=aaaa&cert_hash=xxxx", 500, nil},
		{"GET", "/", 500, nil},
		{"GET", "/?cert", 500, nil},
		{"GET", "/?cert=%zz", 500, nil},
		{"GET", "/?" + strings.Repeat("cert=aa&", 17), 500, nil},
		{"GET", "/?cert=aa&x=" + strings.Repeat("x", 5000), 500, nil},
		{"HEAD", "/", 200, nil},
		{"POST", "/?cert=aa", 405, nil},
	} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(tt.method, tt.target, nil))
		if rec.Code != tt.status {
			t.Errorf("%s %.80s: %d", tt.method, tt.target, rec.Code)
		}
		if tt.status != 200 {
			if kind := rec.Header().Get("Content-Type"); !strings.HasPrefix(kind, "text/plain") {
				t.Errorf("%s %.80s: %s", tt.method, tt.target, kind)
			}
			continue
		}
		if tt.method == "HEAD" {
			continue
		}
		kind, params, err := mime.ParseMediaType(rec.Header().Get("Content-Type"))
		if err != nil || kind != "multipart/related" || params["type"] != "application/ocsp-response" || params["charset"] != "UTF-8" {
			t.Errorf("%s, %v", rec.Header().Get("Content-Type"), err)
		}
		var got []string
		for r := multipart.NewReader(rec.Body, params["boundary"]); ; {
			p, err := r.NextRawPart()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Header.Get("Content-Type") != "application/ocsp-response" {
				t.Errorf("part %v", p.Header)
			}
			b, _ := io.ReadAll(p)
			got = append(got, string(b))
		}
		if strings.Join(got, "|") != strings.Join(tt.want, "|") {
			t.Errorf("%s: %q", tt.target, got)
		}
	}
}

const part = "--b\r\nContent-Type: application/ocsp-response\r\n\r\n"

func TestReadOCSP(t *testing.T) {
	t.Parallel()
	const related = `multipart/related; type="application/ocsp-response"; charset=UTF-8; boundary=b`
	for _, tt := range []struct {
		contentType, body string
		want              int
		ok                bool
	}{
		{related, part + "one\r\n--b--\r\n", 1, true},
		{related, part + "one\r\n--b--", 1, true},
		{related, "\r\n" + part + "one\r\n" + part + "two\r\n--b--\r\n", 2, true},
		{related, strings.ReplaceAll(part, "Content-Type", "content-type") + "one\r\n--b--\r\n", 1, true},
		{"multipart/related; boundary=\"b\"", part + "one\r\n--b--\r\n", 1, true},
		{related, part + "one\r\n--b--\r\n", 2, false},
		{related, part + "one\r\n" + part + "two\r\n--b--\r\n", 1, false},
		{related, "--b--\r\n", 1, false},
		{related, "", 1, false},
		{related, part + "one", 1, false},
		{related, "--b\r\nContent-Type: text/plain\r\n\r\none\r\n--b--\r\n", 1, false},
		{related, "--b\r\n\r\none\r\n--b--\r\n", 1, false},
		{related, part + strings.Repeat("x", 64<<10+1) + "\r\n--b--\r\n", 1, false},
		{related, part + strings.Repeat("x", 300<<10) + "\r\n--b--\r\n", 1, false},
		{"multipart/mixed; boundary=b", part + "one\r\n--b--\r\n", 1, false},
		{"multipart/related", part + "one\r\n--b--\r\n", 1, false},
		{"application/ocsp-response", "one", 1, false},
		{"", "one", 1, false},
	} {
		got, err := tunnel.ReadOCSP(tt.contentType, strings.NewReader(tt.body), tt.want)
		if ok := err == nil; ok != tt.ok || ok && (len(got) != tt.want || string(got[0]) != "one") || !ok && !errors.Is(err, ocsp.ErrMalformed) {
			t.Errorf("%s, %.60q: %q, %v", tt.contentType, tt.body, got, err)
		}
	}
}

func FuzzOCSPMultipart(f *testing.F) {
	f.Add("multipart/related; boundary=b", []byte(part+"one\r\n--b--\r\n"), 1)
	f.Add("multipart/related; boundary=b", []byte(part+"one\r\n"+part+"\r\n--b--"), 2)
	f.Add("multipart/related; boundary=\"--\"", []byte("----\r\n\r\n"), 1)
	f.Fuzz(func(t *testing.T, contentType string, body []byte, want int) {
		got, err := tunnel.ReadOCSP(contentType, bytes.NewReader(body), want)
		if err != nil {
			if !errors.Is(err, ocsp.ErrMalformed) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if len(got) != want {
			t.Fatalf("%d parts instead of %d", len(got), want)
		}
		for _, der := range got {
			if !bytes.Contains(body, der) {
				t.Fatal("a part that was not sent")
			}
		}
	})
}

func FuzzOCSPQuery(f *testing.F) {
	f.Add("cert=aa&cert_hash=bb")
	f.Add("cert=%61&cert=b;c")
	f.Fuzz(func(t *testing.T, query string) {
		asked := 0
		got, err := tunnel.Answers(query, func(string) ([]byte, bool) { asked++; return nil, asked%3 != 0 })
		if (err == nil) != (len(got) > 0) || len(got) > 16 || asked > 32 {
			t.Fatalf("%d answers, %d questions, %v", len(got), asked, err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	a := w.add("a")
	v := tunnel.NewVerifier(tunnel.VerifierConfig{})
	view, chain, responses := w.view.Load(), []*x509.Certificate{a.cert.Leaf}, [][]byte{w.status(&w.ca, a.cert.Leaf)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(context.Background(), view, chain, responses, a.client); err != nil {
			b.Fatal(err)
		}
	}
}

// Addresses without dots get no server name, as the peer could not know it.
func TestServerName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.entry().Address = "localhost"
	w.publish()
	b.name = "localhost"
	b.serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.TLS.ServerName != "" || r.Host != "localhost:5500" {
			t.Errorf("%q, %q", r.TLS.ServerName, r.Host)
		}
	}))
	if _, err := post(t, a.tunnel(), b, "x"); err != nil {
		t.Error(err)
	}
}
