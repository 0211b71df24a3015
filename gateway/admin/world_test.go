// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"iter"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kontor/gateway/admin"
	"kontor/gateway/msglog"
	"kontor/gateway/opmonitor"
	"kontor/gateway/serverconf"
	"kontor/gateway/signer"
	"kontor/pki"
	"kontor/pki/ocsp"
	"kontor/registry/globalconf"
	"kontor/registry/guard"
	"kontor/registry/id"
	"kontor/registry/management/request"
)

const pin = "first pin 1"

// world is a security server with its stores on disk, a tiny ecosystem around
// it, and its administration API.
type world struct {
	testing.TB
	api    *admin.API
	server *httptest.Server
	dir    string
	token  *pki.Token
	// tokenDir is where a token of the world's own is.
	tokenDir string
	conf     *serverconf.Store
	office   *office // gets management requests; nil: there are none
	config   globalconf.SharedParams
	private  *globalconf.PrivateParams // nil: the global configuration has none
	view     atomic.Pointer[globalconf.View]
	log      fakeLog
	records  *opmonitor.Store
	ca       *x509.Certificate
	caKey    *ecdsa.PrivateKey
	root     *admin.Client // with the key of the system administrator
	secret   string        // that key

	shift  atomic.Int64 // of the clock
	serial atomic.Int64
	mu     sync.Mutex
	states map[string]ocsp.State // by serial; good if absent
	down   atomic.Bool           // of the OCSP responder
	pins   [][2]string           // changes
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

// sharedToken has one key of each usage, and serves tests that change no key.
var sharedToken = sync.OnceValues(func() (*pki.Token, error) {
	token, err := pki.CreateToken(filepath.Join(shared, "token"), []byte(pin))
	for _, use := range []pki.Usage{pki.Authentication, pki.Signing} {
		if err == nil {
			_, err = token.Generate(string(use), use, pki.P256)
		}
	}
	return token, err
})

var shared string

func TestMain(m *testing.M) {
	var err error
	if shared, err = os.MkdirTemp("", "admin"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(shared) // of the test alone
	os.Exit(code)
}

// newWorld makes a world whose keys are shared with other tests.
func newWorld(t testing.TB) *world { return newWorldWith(t, check[*pki.Token](t)(sharedToken())) }

// newKeyWorld makes a world with a token of its own.
func newKeyWorld(t testing.TB) *world {
	dir := filepath.Join(t.TempDir(), "token")
	w := newWorldWith(t, check[*pki.Token](t)(pki.CreateToken(dir, []byte(pin))))
	w.tokenDir = dir
	return w
}

func newWorldWith(t testing.TB, token *pki.Token) *world {
	t.Helper()
	w := &world{TB: t, dir: t.TempDir(), token: token, states: map[string]ocsp.State{}}
	w.serial.Store(1)
	w.caKey = check[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	w.ca = w.certify(&x509.Certificate{Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}, w.caKey.Public())
	server := check[id.SecurityServer](t)(id.ParseSecurityServer("DEV/GOV/1001/ss1"))
	w.config = globalconf.SharedParams{
		Instance: "DEV",
		Sources:  []globalconf.Source{{Address: "cs", InternalCerts: [][]byte{w.ca.Raw}, ExternalCerts: [][]byte{w.ca.Raw}}},
		CAs: []globalconf.ApprovedCA{{
			Name: "Test CA", Profile: "ee.ria.xroad.common.certificateprofile.impl.EjbcaCertificateProfileInfoProvider",
			Top: globalconf.CA{Cert: w.ca.Raw, OCSP: []globalconf.OCSPResponder{{URL: "http://ocsp.test"}}},
		}},
		Members: []globalconf.Member{
			{ID: member(t, "DEV/GOV/1001"), ClassDescription: "GOV", Name: "Owner", Subsystems: []globalconf.Subsystem{
				{ID: client(t, "DEV/GOV/1001/portal"), Name: "Citizens' portal"}, {ID: client(t, "DEV/GOV/1001/population")}, {ID: client(t, "DEV/GOV/1001/extra")}}},
			{ID: member(t, "DEV/GOV/2002"), ClassDescription: "GOV", Name: "Other", Subsystems: []globalconf.Subsystem{{ID: client(t, "DEV/GOV/2002/consumer")}}},
		},
		Servers: []globalconf.SecurityServer{{ID: server, Address: "127.0.0.1",
			Clients: []id.Client{client(t, "DEV/GOV/1001/portal"), client(t, "DEV/GOV/1001/population"), client(t, "DEV/GOV/2002/consumer")}}},
		MemberClasses: []globalconf.MemberClass{{Code: "GOV", Description: "GOV"}},
		Groups:        []globalconf.GlobalGroup{{Code: "all", Members: []id.Client{client(t, "DEV/GOV/2002/consumer")}}},
		OCSPFreshness: time.Hour,
	}
	w.publish()
	responder := ocsp.NewResponder(ocsp.ResponderConfig{Issuer: w.ca, Cert: w.ca, Signer: w.caKey, Now: w.real,
		Status: func(_ context.Context, serial *big.Int) (ocsp.CertStatus, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			state, ok := w.states[serial.String()]
			if !ok {
				state = ocsp.Good
			}
			return ocsp.CertStatus{State: state, RevokedAt: w.real()}, nil
		}})
	network := roundTrip(func(r *http.Request) (*http.Response, error) {
		if w.down.Load() {
			return nil, errors.New("the responder is down")
		}
		rec := httptest.NewRecorder()
		responder.ServeHTTP(rec, r)
		return rec.Result(), nil
	})
	keys := check[*signer.Signer](t)(signer.New(signer.Config{Token: token, OCSP: ocsp.NewClient(ocsp.ClientConfig{HTTP: &http.Client{Transport: network}, Now: w.real}),
		View: w.view.Load, Server: server, Now: w.real}))
	w.conf = check[*serverconf.Store](t)(serverconf.Create(serverconf.Config{Path: filepath.Join(w.dir, "serverconf.yaml"), Now: w.real}, &serverconf.Model{
		Clients: []serverconf.ClientEntry{
			{ID: client(t, "DEV/GOV/1001/portal"), Status: serverconf.Registered, Connection: serverconf.HTTP},
			{ID: client(t, "DEV/GOV/1001/population"), Status: serverconf.Registered, Connection: serverconf.HTTP,
				Descriptions: []serverconf.DescriptionEntry{{Type: serverconf.REST, Services: []serverconf.ServiceEntry{{Code: "persons", URL: "http://backend.test/persons"}}}},
				Access:       []serverconf.AccessEntry{{Service: "persons", Client: client(t, "DEV/GOV/1001/portal")}}},
		}}))
	w.secret = check[string](t)(guard.CreateKeys(filepath.Join(w.dir, "keys.json"), "root", admin.RoleSystemAdministrator))
	apiKeys := check[*guard.Keys](t)(guard.LoadKeys(filepath.Join(w.dir, "keys.json"), admin.Roles()...))
	audit := check[*guard.Audit](t)(guard.OpenAudit(filepath.Join(w.dir, "audit.jsonl")))
	t.Cleanup(func() { audit.Close() })
	w.records = check[*opmonitor.Store](t)(opmonitor.Open(opmonitor.Config{Dir: filepath.Join(w.dir, "operational"), Flush: time.Hour}))
	w.api = check[*admin.API](t)(admin.New(admin.Config{
		Server: server, Token: token, Signer: keys, Conf: w.conf, View: w.view.Load,
		GlobalConf: func() globalconf.Stats {
			return globalconf.Stats{LastSuccess: w.real(), Location: "http://cs/internalconf"}
		},
		Log: &w.log, Operational: w.records, Requests: filepath.Join(w.dir, "requests"), Manage: &request.Client{URL: "http://gateway.test/", HTTP: &http.Client{Transport: w.proxied()}}, APIKeys: apiKeys, Audit: audit, Now: w.now,
		ChangePIN: func(old, new []byte) error {
			err := token.ChangePIN(old, new)
			if err == nil {
				w.pins = append(w.pins, [2]string{string(old), string(new)})
			}
			return err
		},
	}))
	w.server = httptest.NewTLSServer(w.api)
	t.Cleanup(w.server.Close)
	w.root = w.client(w.secret)
	return w
}

// proxied is the client proxy of the security server, with office behind it.
func (w *world) proxied() roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		rec := httptest.NewRecorder()
		w.office.answer(rec, r)
		return rec.Result(), nil
	}
}

// client returns a client of the API with a key.
func (w *world) client(key string) *admin.Client {
	return admin.NewClient(w.server.URL, key, w.server.Certificate())
}

// as returns a client of the API with a new key of a role.
func (w *world) as(role string) *admin.Client {
	w.Helper()
	return w.client(w.keyOf(role))
}

// keyOf makes a key with one role.
func (w *world) keyOf(role string) string {
	w.Helper()
	k := check[admin.CreatedAPIKey](w)(w.root.CreateAPIKey(w.Context(), admin.NewAPIKey{Name: role, Roles: []string{role}}))
	return k.Key
}

// real is the clock of the world.
func (w *world) real() time.Time { return time.Now().Add(time.Duration(w.shift.Load())) }

// now is the same clock for the API, which passes faster, so that the limit of
// calls does not slow the tests down.
func (w *world) now() time.Time {
	return time.Now().Add(time.Duration(w.shift.Add(int64(100 * time.Millisecond))))
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func client(t testing.TB, s string) id.Client { return check[id.Client](t)(id.ParseClient(s)) }
func member(t testing.TB, s string) id.Member { return check[id.Member](t)(id.ParseMember(s)) }

func (w *world) certify(tmpl *x509.Certificate, public any) *x509.Certificate {
	w.Helper()
	tmpl.SerialNumber = big.NewInt(w.serial.Add(1))
	if tmpl.NotBefore.IsZero() {
		tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-24*time.Hour), time.Now().Add(24*time.Hour)
	}
	parent := w.ca
	if parent == nil {
		parent = tmpl
	}
	der := check[[]byte](w)(x509.CreateCertificate(rand.Reader, tmpl, parent, public, w.caKey))
	return check[*x509.Certificate](w)(x509.ParseCertificate(der))
}

// issue certifies a request as the authority does.
func (w *world) issue(request string, use pki.Usage, change ...func(*x509.Certificate)) string {
	w.Helper()
	block, _ := pem.Decode([]byte(request))
	csr := check[*x509.CertificateRequest](w)(x509.ParseCertificateRequest(block.Bytes))
	tmpl := &x509.Certificate{RawSubject: csr.RawSubject, KeyUsage: x509.KeyUsageContentCommitment}
	if use == pki.Authentication {
		tmpl.KeyUsage, tmpl.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	for _, c := range change {
		c(tmpl)
	}
	return pemOf(w.certify(tmpl, csr.PublicKey))
}

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func (w *world) parse(text string) *x509.Certificate {
	w.Helper()
	block, _ := pem.Decode([]byte(text))
	return check[*x509.Certificate](w)(x509.ParseCertificate(block.Bytes))
}

// publish makes a View of the configuration.
func (w *world) publish() {
	w.Helper()
	dir := w.TempDir()
	metadata := []byte(`{"configurationVersion":"6","expirationDate":"2100-01-01T00:00:00Z"}`)
	files := map[string][]byte{
		"instance-identifier":            []byte("DEV"),
		"DEV/shared-params.xml":          check[[]byte](w)(w.config.Marshal(6)),
		"DEV/shared-params.xml.metadata": metadata,
	}
	if w.private != nil {
		files["DEV/private-params.xml"], files["DEV/private-params.xml.metadata"] = check[[]byte](w)(w.private.Marshal(6)), metadata
	}
	for name, b := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			w.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			w.Fatal(err)
		}
	}
	w.view.Store(check[*globalconf.View](w)(globalconf.LoadDir(dir)))
}

// raw makes a call from an address of its own, past the network.
func (w *world) raw(key, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = "192.0.2." + big.NewInt(w.serial.Add(1)%250+1).String() + ":1"
	if key != "" {
		r.Header.Set("Authorization", "X-Road-ApiKey token="+key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	w.api.ServeHTTP(rec, r)
	return rec
}

// audit returns the audit log.
func (w *world) audit() []guard.Record {
	w.Helper()
	var all []guard.Record
	for line := range bytes.Lines(check[[]byte](w)(os.ReadFile(filepath.Join(w.dir, "audit.jsonl")))) {
		var r guard.Record
		if err := json.Unmarshal(line, &r); err != nil {
			w.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// fresh reads the configuration of clients as a restart would.
func (w *world) fresh() *serverconf.Conf {
	w.Helper()
	return check[*serverconf.Store](w)(serverconf.Load(filepath.Join(w.dir, "serverconf.yaml"))).Conf()
}

// refused demands that a call is refused with a code, for a reason, with a
// remedy.
func (w *world) refused(err error, status int, code, text string) {
	w.Helper()
	var p *guard.Problem
	switch {
	case !errors.As(err, &p):
		w.Errorf("not refused: %v", err)
	case p.Status != status || p.Code != code || !strings.Contains(p.Error(), text):
		w.Errorf("refused with %d %s: %v; want %d %s: %s", p.Status, p.Code, p, status, code, text)
	case p.Remedy == "":
		w.Errorf("no remedy: %v", p)
	}
}

func second[A, B any](_ A, _ B, err error) error { return err }
func first[A any](_ A, err error) error          { return err }

// fakeLog is a message log of two records.
type fakeLog struct {
	mu    sync.Mutex
	query msglog.Query
	err   error
	stats msglog.Stats
}

func (l *fakeLog) Find(_ context.Context, q msglog.Query) iter.Seq2[*msglog.Entry, error] {
	return func(yield func(*msglog.Entry, error) bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.query = q
		for i := range uint64(2) {
			e := &msglog.Entry{Record: msglog.Record{Seq: i + 1, Time: time.Unix(1, 0), Side: msglog.Client, MessageID: "m", Response: i == 1}, BodySize: 3, Stamped: true}
			if !yield(e, l.err) {
				return
			}
		}
	}
}

func (l *fakeLog) ExportZip(_ context.Context, w io.Writer, q msglog.Query, _ bool) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.query = q
	if l.err != nil {
		return 0, l.err
	}
	_, err := io.WriteString(w, "zip")
	return 1, err
}

func (l *fakeLog) Stats() msglog.Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

func (w *world) service(s string) id.Service {
	w.Helper()
	return check[id.Service](w)(id.ParseService(s))
}

func group(t testing.TB, s string) id.GlobalGroup {
	return check[id.GlobalGroup](t)(id.ParseGlobalGroup(s))
}
