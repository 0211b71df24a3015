// SPDX-License-Identifier: Apache-2.0

package tsa_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/sha1"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"kontor/pki/tsa"
)

// query is TimeStampReq (RFC 3161, 2.4.1) as these tests write it.
type query struct {
	Version    int
	Imprint    imprint
	Policy     asn1.ObjectIdentifier `asn1:"optional"`
	Nonce      *big.Int              `asn1:"optional"`
	CertReq    bool                  `asn1:"optional"`
	Extensions []pkix.Extension      `asn1:"tag:0,optional"`
}

// strangerLock keeps tests apart: the other implementation's parser counts its
// depth in a package variable.
var strangerLock sync.Mutex

func strangerResponse(der []byte) (*timestamp.Timestamp, error) {
	strangerLock.Lock()
	defer strangerLock.Unlock()
	return timestamp.ParseResponse(der)
}

func stranger(der []byte) (*timestamp.Timestamp, error) {
	strangerLock.Lock()
	defer strangerLock.Unlock()
	return timestamp.Parse(der)
}

func digestOf(h crypto.Hash, b []byte) []byte {
	d := h.New()
	d.Write(b)
	return d.Sum(nil)
}

func TestServer(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	for name, key := range map[string]crypto.Signer{
		"P-256": newKey(t, elliptic.P256()), "P-384": newKey(t, elliptic.P384()), "RSA": newRSA(t),
	} {
		s := certify(t, ca, key, "TSA", forStamping)
		h := tsa.NewServer(s.config())
		serials := map[string]bool{}
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			for _, certificates := range []bool{true, false} {
				q := timestamp.Request{HashAlgorithm: hash, HashedMessage: digestOf(hash, message), Certificates: certificates,
					Nonce: big.NewInt(12345), TSAPolicyOID: policy}
				der, err := q.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				// A stranger's reading of the answer; it verifies if it has the certificate.
				x, err := strangerResponse(post(t, h, der))
				if err != nil {
					t.Fatalf("%s, %v: %v", name, hash, err)
				}
				if len(x.Certificates) == 1 != certificates || x.Nonce.Int64() != 12345 || !x.Policy.Equal(policy) ||
					!x.Time.Equal(noon) || x.SerialNumber.BitLen() != 128 || serials[x.SerialNumber.String()] {
					t.Errorf("%s, %v: %+v", name, hash, x)
				}
				serials[x.SerialNumber.String()] = true
				tok, err := tsa.Verify(x.RawToken, message, certs(s))
				if err != nil {
					t.Fatalf("%s, %v: %v", name, hash, err)
				}
				if !bytes.Equal(tok.Raw, x.RawToken) || tok.Hash != hash || tok.Serial.Cmp(x.SerialNumber) != 0 || !tok.Time.Equal(noon) {
					t.Errorf("%s, %v: %+v", name, hash, tok)
				}
			}
		}
	}
}

// TestStrangersToken verifies what another implementation made.
func TestStrangersToken(t *testing.T) {
	t.Parallel()
	s := certify(t, newCA(t), newRSA(t), "TSA", func(c *x509.Certificate) {
		forStamping(c)
		c.NotAfter = time.Now().Add(time.Hour) // it signs at its own time
	})
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA512} {
		x := timestamp.Timestamp{HashAlgorithm: hash, HashedMessage: digestOf(hash, message), Time: noon, Policy: policy,
			Accuracy: time.Second, AddTSACertificate: true}
		der, err := x.CreateResponseWithOpts(s.cert, s.key, crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		y, err := strangerResponse(der)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := tsa.Verify(y.RawToken, message, certs(s))
		if err != nil || tok.Serial.Cmp(y.SerialNumber) != 0 {
			t.Errorf("%v: %v", hash, err)
		}
	}
}

func TestServerRefuses(t *testing.T) {
	t.Parallel()
	s := newTSA(t)
	h := tsa.NewServer(s.config())
	good := query{Version: 1, Imprint: stamped(message)}
	edit := func(f func(*query)) []byte {
		q := good
		f(&q)
		return marshal(t, q)
	}
	sha1Sum := sha1.Sum(message)
	short := sha512.Sum512_256(message)
	for name, tt := range map[string]struct {
		der  []byte
		want string
	}{
		"nothing":           {nil, "badDataFormat"},
		"text":              {[]byte("hello"), "badDataFormat"},
		"trailing byte":     {append(marshal(t, good), 0), "badDataFormat"},
		"too long":          {make([]byte, 9<<10), "badDataFormat"},
		"version 2":         {edit(func(q *query) { q.Version = 2 }), "badRequest"},
		"SHA-1":             {edit(func(q *query) { q.Imprint = imprint{alg(oidSHA1), sha1Sum[:]} }), "badAlg"},
		"unknown algorithm": {edit(func(q *query) { q.Imprint.Hash = alg(policy) }), "badAlg"},
		"wrong length":      {edit(func(q *query) { q.Imprint.Hashed = short[:] }), "badDataFormat"},
		"other policy":      {edit(func(q *query) { q.Policy = oidSHA1 }), "unacceptedPolicy"},
		"extension":         {edit(func(q *query) { q.Extensions = []pkix.Extension{{Id: policy, Value: []byte{5, 0}}} }), "unacceptedExtension"},
	} {
		der := post(t, h, tt.der)
		if _, err := tsa.ParseResponse(der); !errors.Is(err, tsa.ErrRejected) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := strangerResponse(der); err == nil || !strings.Contains(err.Error(), "rejected") {
			t.Errorf("%s: the stranger reads %v", name, err)
		}
	}
	c := s.config()
	c.Signer = brokenSigner{s.key}
	if _, err := tsa.ParseResponse(post(t, tsa.NewServer(c), marshal(t, good))); !errors.Is(err, tsa.ErrRejected) || !strings.Contains(err.Error(), "systemFailure") {
		t.Errorf("broken key: %v", err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
		t.Errorf("GET: %d", w.Code)
	}
}

type brokenSigner struct{ crypto.Signer }

func (brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("token lost")
}

func TestServerConfig(t *testing.T) {
	t.Parallel()
	s, other := newTSA(t), newTSA(t)
	plain := certify(t, newCA(t), newKey(t, elliptic.P256()), "plain", nil)
	for name, edit := range map[string]func(*tsa.ServerConfig){
		"no certificate":        func(c *tsa.ServerConfig) { c.Cert = nil },
		"no policy":             func(c *tsa.ServerConfig) { c.Policy = nil },
		"other key":             func(c *tsa.ServerConfig) { c.Signer = other.key },
		"not for time-stamping": func(c *tsa.ServerConfig) { c.Cert, c.Signer = plain.cert, plain.key },
	} {
		c := s.config()
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
			tsa.NewServer(c)
		}()
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	s, other := newTSA(t), newTSA(t)
	h := tsa.NewServer(s.config())
	respond := func(token func() []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(marshal(t, struct {
				Info  struct{ Status int }
				Token asn1.RawValue
			}{Token: asn1.RawValue{FullBytes: token()}}))
		}
	}
	alter := func(f func(*draft)) http.HandlerFunc {
		return respond(func() []byte {
			d := newDraft(t, s, message)
			f(d)
			return d.token(t)
		})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Content-Type") != "application/timestamp-query" {
			t.Errorf("%v", r.Header)
		}
		b, err := io.ReadAll(r.Body)
		// The form that X-Road sends: no policy, no nonce, no certificate.
		if want := marshal(t, query{Version: 1, Imprint: imprint{pkix.AlgorithmIdentifier{Algorithm: oidSHA512, Parameters: asn1.NullRawValue},
			stamped(message).Hashed}}); err != nil || !bytes.Equal(b, want) {
			t.Errorf("asked %x, want %x", b, want)
		}
		r.Body = io.NopCloser(bytes.NewReader(b))
		h.ServeHTTP(w, r)
	})
	mux.HandleFunc("/ber", func(w http.ResponseWriter, _ *http.Request) {
		b := marshal(t, struct{ Status int }{1}) // granted with modifications
		b = append(append([]byte{0x30, 0x80}, b...), toBER(t, newDraft(t, s, message).token(t))...)
		_, _ = w.Write(append(b, 0, 0))
	})
	mux.HandleFunc("/full", alter(func(d *draft) {
		all := append(bytes.Clone(other.cert.Raw), s.cert.Raw...)
		d.certs = asn1.RawValue{Class: 2, Tag: 0, IsCompound: true, Bytes: all}
	}))
	mux.HandleFunc("/sha256", alter(func(d *draft) { d.info.Imprint = imprint{alg(oidSHA256), digestOf(crypto.SHA256, message)} }))
	mux.HandleFunc("/nonce", alter(func(d *draft) { d.info.Nonce = big.NewInt(1) }))
	mux.HandleFunc("/late", alter(func(d *draft) { d.info.Time = generalized("20260301110000Z") }))
	mux.HandleFunc("/later", alter(func(d *draft) { d.info.Time = generalized("20260301105959Z") }))
	mux.HandleFunc("/another", alter(func(d *draft) { d.info.Imprint = stamped([]byte("x")) }))
	mux.HandleFunc("/other", respond(func() []byte { return newDraft(t, other, message).token(t) }))
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte{0x30, 5, 0x30, 3, 2, 1, 0}) })
	mux.HandleFunc("/refusing", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte{0x30, 5, 0x30, 3, 2, 1, 2}) })
	mux.HandleFunc("/text", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	mux.HandleFunc("/missing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/good", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for range 100 {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	client := tsa.NewClient(tsa.ClientConfig{HTTP: server.Client(), Now: func() time.Time { return noon }})
	for path, want := range map[string]error{
		"/good": nil, "/ber": nil, "/full": nil, "/late": nil,
		"/later":  tsa.ErrUntrusted, // before the certificate's time, see below
		"/sha256": tsa.ErrImprint, "/nonce": tsa.ErrImprint, "/another": tsa.ErrImprint, "/other": tsa.ErrUntrusted,
		"/empty": tsa.ErrMalformed, "/text": tsa.ErrMalformed, "/endless": tsa.ErrMalformed, "/refusing": tsa.ErrRejected,
		"/missing": tsa.ErrUnavailable, "/elsewhere": tsa.ErrUnavailable,
	} {
		tok, err := client.Stamp(t.Context(), server.URL+path, message, certs(s))
		if !errors.Is(err, want) || (tok == nil) != (want != nil) {
			t.Errorf("%s: got %v, want %v", path, err, want)
		}
		if err != nil {
			continue
		}
		// The token carries its certificate once, and verifies from itself.
		again, err := tsa.Verify(tok.Raw, message, certs(s))
		if err != nil || !bytes.Equal(again.Raw, tok.Raw) || bytes.Count(tok.Raw, s.cert.Raw) != 1 {
			t.Errorf("%s: %v", path, err)
		}
		if x, err := stranger(tok.Raw); err != nil || len(x.Certificates) == 0 {
			t.Errorf("%s: the stranger reads %v", path, err)
		}
	}
	slow := tsa.NewClient(tsa.ClientConfig{HTTP: server.Client(), Now: func() time.Time { return noon.Add(61 * time.Minute) }})
	if _, err := slow.Stamp(t.Context(), server.URL+"/good", message, certs(s)); !errors.Is(err, tsa.ErrClock) {
		t.Errorf("clock an hour ahead: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Stamp(ctx, server.URL+"/good", message, certs(s)); !errors.Is(err, tsa.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
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

func run(t testing.TB, openssl string, args ...string) string {
	t.Helper()
	out, err := exec.Command(openssl, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestOpenSSLAsks has a stranger ask, and verify answers and embedded tokens.
func TestOpenSSLAsks(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	ca := newCA(t)
	for name, key := range map[string]crypto.Signer{"P-256": newKey(t, elliptic.P256()), "P-384": newKey(t, elliptic.P384()), "RSA": newRSA(t)} {
		s := certify(t, ca, key, "TSA", func(c *x509.Certificate) {
			forStamping(c)
			c.NotBefore, c.NotAfter = time.Now().AddDate(-1, 0, 0), time.Now().AddDate(10, 0, 0)
		})
		c := s.config()
		c.Now = nil
		h := tsa.NewServer(c)
		dir := t.TempDir()
		file, caFile := filepath.Join(dir, "message"), writePEM(t, dir, "ca.pem", "CERTIFICATE", ca.cert.Raw)
		if err := os.WriteFile(file, message, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, hash := range []string{"-sha256", "-sha384", "-sha512"} {
			q, a := filepath.Join(dir, "q.tsq"), filepath.Join(dir, "a.tsr")
			run(t, openssl, "ts", "-query", "-data", file, hash, "-cert", "-tspolicy", policy.String(), "-out", q)
			der, err := os.ReadFile(q)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(a, post(t, h, der), 0o600); err != nil {
				t.Fatal(err)
			}
			if out := run(t, openssl, "ts", "-verify", "-queryfile", q, "-in", a, "-CAfile", caFile); !strings.Contains(out, "Verification: OK") {
				t.Errorf("%s, %s: %s", name, hash, out)
			}
		}
		// What Stamp makes of an answer without certificate verifies from itself.
		server := httptest.NewServer(h)
		tok, err := tsa.NewClient(tsa.ClientConfig{}).Stamp(t.Context(), server.URL, message, certs(s))
		server.Close()
		if err != nil {
			t.Fatal(err)
		}
		tst := filepath.Join(dir, "token")
		if err := os.WriteFile(tst, tok.Raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if out := run(t, openssl, "ts", "-verify", "-data", file, "-in", tst, "-token_in", "-CAfile", caFile); !strings.Contains(out, "Verification: OK") {
			t.Errorf("%s, token: %s", name, out)
		}
	}
}

// TestOpenSSLAnswers has our client ask a stranger.
func TestOpenSSLAnswers(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	s := certify(t, newCA(t), newRSA(t), "TSA", func(c *x509.Certificate) {
		forStamping(c)
		c.NotBefore, c.NotAfter = time.Now().AddDate(-1, 0, 0), time.Now().AddDate(10, 0, 0)
	})
	key, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "ts.cnf")
	if err := os.WriteFile(config, []byte("[tsa]\nserial="+filepath.Join(dir, "serial")+"\nsigner_cert="+writePEM(t, dir, "tsa.pem", "CERTIFICATE", s.cert.Raw)+
		"\nsigner_key="+writePEM(t, dir, "tsa.key", "PRIVATE KEY", key)+"\nsigner_digest=sha512\ndefault_policy=1.2.3.4\ndigests=sha256,sha512\naccuracy=secs:1,millisecs:5\nordering=yes\ntsa_name=yes\ness_cert_id_alg=sha256\nclock_precision_digits=3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		q, a := filepath.Join(dir, "q"), filepath.Join(dir, "a")
		if err := os.WriteFile(q, b, 0o600); err != nil {
			t.Error(err)
		}
		if out, err := exec.Command(openssl, "ts", "-reply", "-config", config, "-section", "tsa", "-queryfile", q, "-out", a).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		b, err := os.ReadFile(a)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(server.Close)
	tok, err := tsa.NewClient(tsa.ClientConfig{}).Stamp(t.Context(), server.URL, message, certs(s))
	if err != nil {
		t.Fatal(err)
	}
	if time.Since(tok.Time).Abs() > time.Minute || bytes.Count(tok.Raw, s.cert.Raw) != 1 {
		t.Errorf("got %+v", tok)
	}
}

// FuzzServer: whatever is asked, the answer is well-formed, and a token verifies.
func FuzzServer(f *testing.F) {
	s := fixed(f)
	h := tsa.NewServer(s.config())
	f.Add(marshal(f, query{Version: 1, Imprint: stamped(message)}))
	f.Add(marshal(f, query{Version: 1, Imprint: stamped(message), Policy: policy, Nonce: big.NewInt(7), CertReq: true}))
	f.Add(marshal(f, query{Version: 1, Imprint: stamped(message), Extensions: []pkix.Extension{{Id: policy, Critical: true, Value: []byte{5, 0}}}}))
	f.Fuzz(func(t *testing.T, q []byte) {
		der := post(t, h, q)
		token, err := tsa.ParseResponse(der)
		if errors.Is(err, tsa.ErrRejected) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tsa.Verify(token, message, certs(s)); err != nil && !errors.Is(err, tsa.ErrImprint) {
			t.Fatal(err)
		}
	})
}

// FuzzResponse: foreign responses give a token in DER or an error of the package.
func FuzzResponse(f *testing.F) {
	s := fixed(f)
	f.Add(post(f, tsa.NewServer(s.config()), marshal(f, query{Version: 1, Imprint: stamped(message)})))
	f.Add([]byte{0x30, 5, 0x30, 3, 2, 1, 2})
	f.Add([]byte{0x30, 0x80, 0x30, 0x80, 2, 1, 2, 0x30, 5, 0x0c, 3, 'a', 'b', 'c', 3, 2, 6, 0x40, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		token, err := tsa.ParseResponse(b)
		if err != nil {
			if !errors.Is(err, tsa.ErrRejected) && !errors.Is(err, tsa.ErrMalformed) {
				t.Fatalf("unclassified error %v", err)
			}
			return
		}
		if again, err := tsa.ToDER(token); err != nil || !bytes.Equal(again, token) {
			t.Fatalf("%x is not DER: %v", token, err)
		}
	})
}
