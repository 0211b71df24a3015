// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
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

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/admin"
	"kontor/registry/guard"
	"kontor/registry/id"
)

var (
	pin   = []byte("1234")
	start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

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

// created holds one registry that tests copy: making keys unreadable is slow
// on purpose.
var created = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kontor-registry-admin-")
	if err != nil {
		return "", err
	}
	err = registry.Create(dir, pin, registry.CreateConfig{
		Instance: "DEV", Address: "127.0.0.1:8001", Algorithm: pki.P256, By: registry.Author{Who: "test"}, Now: func() time.Time { return start.Add(-time.Hour) }})
	if err != nil {
		return dir, err
	}
	return dir, cheapen(filepath.Join(dir, "keys"))
})

// cheapen lets openssl, if there is one, encrypt the keys anew with fewer
// iterations, so that opening the copies is fast.
func cheapen(dir string) error {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		return nil
	}
	keys, err := filepath.Glob(filepath.Join(dir, "*.key.pem"))
	if err != nil {
		return err
	}
	for _, key := range keys {
		out, err := exec.Command(openssl, "pkcs8", "-topk8", "-iter", "1000", "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA256",
			"-in", key, "-out", key+".new", "-passin", "pass:"+string(pin), "-passout", "pass:"+string(pin)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("openssl: %w: %s", err, out)
		}
		if err := errors.Join(os.Rename(key+".new", key), os.Chmod(key, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := created(); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// world is a registry with its API behind a real HTTPS server.
type world struct {
	dir     string
	clock   *clock
	hurry   bool // time stands still between calls
	keys    *guard.Keys
	reg     *registry.Registry
	audit   *guard.Audit
	api     *admin.API
	server  *httptest.Server
	secrets map[string]string
	t       *testing.T
}

func newWorld(t *testing.T) *world {
	t.Helper()
	source, err := created()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: filepath.Join(t.TempDir(), "registry"), clock: &clock{t: start}, secrets: map[string]string{}, t: t}
	if out, err := exec.Command("cp", "-a", source, w.dir).CombinedOutput(); err != nil { // with its modes
		t.Fatalf("%v: %s", err, out)
	}
	secret, err := guard.CreateKeys(w.path("admin-keys.json"), "root", admin.Roles()...)
	if err != nil {
		t.Fatal(err)
	}
	w.secrets["root"] = secret
	w.start()
	t.Cleanup(w.stop)
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) start() {
	w.t.Helper()
	fatal := func(err error) {
		if err != nil {
			w.t.Helper()
			w.t.Fatal(err)
		}
	}
	var err error
	w.reg, err = registry.Open(w.dir, pin, registry.Config{Now: w.clock.now})
	fatal(err)
	w.keys, err = guard.LoadKeys(w.path("admin-keys.json"), admin.Roles()...)
	fatal(err)
	w.audit, err = guard.OpenAudit(w.path("audit.jsonl"))
	fatal(err)
	w.api, err = admin.New(w.t.Context(), admin.Config{Registry: w.reg, Keys: w.keys, Audit: w.audit, Now: w.clock.now})
	fatal(err)
	w.server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !w.hurry {
			w.clock.advance(100 * time.Millisecond) // as often as anybody may call for ever
		}
		w.api.ServeHTTP(rw, r)
	}))
	w.server.Config.ErrorLog = log.New(io.Discard, "", 0) // tests break connections
	w.server.StartTLS()
}

func (w *world) stop() {
	w.server.Close()
	w.audit.Close() // a test may have done so
	if err := w.reg.Close(); err != nil {
		w.t.Error(err)
	}
}

// restart stops the registry and opens it again.
func (w *world) restart() {
	w.stop()
	w.start()
}

// key returns an API key with the roles, by a name made of them.
func (w *world) key(roles ...string) string {
	w.t.Helper()
	name := strings.Join(roles, "+")
	if w.secrets[name] == "" {
		secret, err := w.keys.Add(name, roles, w.clock.now())
		if err != nil {
			w.t.Fatal(err)
		}
		w.secrets[name] = secret
	}
	return w.secrets[name]
}

// client returns a client with a key of these roles; none means the root key.
func (w *world) client(roles ...string) *admin.Client {
	w.t.Helper()
	key := w.secrets["root"]
	if len(roles) > 0 {
		key = w.key(roles...)
	}
	return admin.NewClient(w.server.URL, key, w.server.Certificate())
}

// call makes a raw call and returns status, header and body.
func (w *world) call(key, method, path, body string, header ...string) (int, http.Header, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "X-Road-ApiKey token="+key)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := w.server.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// records are the lines of the audit log.
func (w *world) records() []guard.Record {
	w.t.Helper()
	b, err := os.ReadFile(w.path("audit.jsonl"))
	if err != nil {
		w.t.Fatal(err)
	}
	var all []guard.Record
	for line := range strings.Lines(string(b)) {
		var r guard.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			w.t.Fatalf("%s: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func member(s string) id.Member         { return must(id.ParseMember(s)) }
func client(s string) id.Client         { return must(id.ParseClient(s)) }
func server(s string) id.SecurityServer { return must(id.ParseSecurityServer(s)) }

// authority issues certificates for tests.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	n    int64
}

func newAuthority(name string) *authority {
	a := &authority{key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key))))
	return a
}

func (a *authority) issue(name string, usage x509.KeyUsage, ext ...x509.ExtKeyUsage) string {
	a.n++
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1 + a.n), Subject: pkix.Name{CommonName: name}, NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(5, 0, 0),
		KeyUsage: usage, ExtKeyUsage: ext,
	}
	return pemOf(must(x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)))
}

// auth issues an authentication certificate.
func (a *authority) auth(name string) string {
	return a.issue(name, x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment, x509.ExtKeyUsageClientAuth)
}

func pemOf(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// problem asserts that err is a problem with the code and status.
func problem(t *testing.T, err error, status int, code, text string) {
	t.Helper()
	var p *guard.Problem
	if !errors.As(err, &p) {
		t.Errorf("error %v, want problem %s", err, code)
		return
	}
	if p.Status != status || p.Code != code || !strings.Contains(p.Error(), text) {
		t.Errorf("got %d %s %q, want %d %s with %q", p.Status, p.Code, p.Error(), status, code, text)
	}
}

func asProblem(err error, p **guard.Problem) bool { return errors.As(err, p) }
