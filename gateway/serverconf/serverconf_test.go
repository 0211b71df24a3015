// SPDX-License-Identifier: Apache-2.0

package serverconf_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"kontor/gateway/serverconf"
	"kontor/registry/id"
)

func client(t testing.TB, s string) id.Client {
	t.Helper()
	c, err := id.ParseClient(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func service(t testing.TB, s string) id.Service {
	t.Helper()
	v, err := id.ParseService(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func certificate(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Unix(1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func write(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "server.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t testing.TB, content string) *serverconf.Store {
	t.Helper()
	s, err := serverconf.Load(write(t, content))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const provider = `
clients:
  - id: DEV/GOV/1/population
    status: registered
    connection: http
    groups:
      - code: friends
        members: [DEV/COM/7/shop, DEV/GOV/1/population]
    services:
      - code: persons
        type: REST
        url: http://127.0.0.1:9000/api
        endpoints:
          - {method: GET, path: /persons/*}
          - {method: DELETE, path: /persons/*}
      - {code: old, type: OPENAPI3, url: "https://old.example", timeout: 5s, verify_tls: false, disabled: "gone since May"}
      - {code: soap, version: v1, type: WSDL, url: "http://soap.example/x?y"}
      - {code: soap, version: v2, type: WSDL, url: "http://soap.example/x?z"}
    access:
      - {service: persons, client: DEV/COM/1/reader, method: GET, path: /persons/**}
      - {service: persons, client: DEV/COM/1/reader, method: post, path: "/search/*"}
      - {service: persons, client: DEV/COM/2/all, note: "contract 17"}
      - {service: persons, group: friends, method: GET}
      - {service: persons, global_group: DEV/police, path: /wanted}
      - {service: persons, client: DEV/COM/3/late, expires: 2026-03-01T00:00:00Z}
      - {service: persons, global_group: DEV/late, expires: 2026-03-01T00:00:00Z}
      - {service: soap, client: DEV/COM/1/reader}
`

func TestAuthorise(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC)
	s, err := serverconf.Open(serverconf.Config{Path: write(t, provider), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	conf := s.Conf()
	inGroup := func(c id.Client, g id.GlobalGroup) bool {
		return g.Code() == "police" && c.String() == "DEV/GOV/9/police" || g.Code() == "late" && c.String() == "DEV/COM/4/late"
	}
	for _, tt := range []struct {
		client, service, version, method, path string
		want                                   error
	}{
		{"DEV/COM/1/reader", "persons", "", "GET", "/persons/1/photo", nil},
		{"DEV/COM/1/reader", "persons", "", "get", "/persons/", nil},
		{"DEV/COM/1/reader", "persons", "", "GET", "/persons/J%C3%BCri%20K", nil},
		{"DEV/COM/1/reader", "persons", "", "GET", "/persons", serverconf.ErrAccessDenied},
		{"DEV/COM/1/reader", "persons", "", "GET", "/persons/../admin", serverconf.ErrPath},
		{"DEV/COM/1/reader", "persons", "", "GET", "/persons/%2e%2e/admin", serverconf.ErrPath},
		{"DEV/COM/1/reader", "persons", "", "DELETE", "/persons/1", serverconf.ErrAccessDenied},
		{"DEV/COM/1/reader", "persons", "", "POST", "/search/x", nil},
		{"DEV/COM/1/reader", "persons", "", "POST", "/search/x/y", serverconf.ErrAccessDenied},
		{"DEV/COM/1/Reader", "persons", "", "GET", "/persons/1", serverconf.ErrAccessDenied},
		{"DEV/COM/1", "persons", "", "GET", "/persons/1", serverconf.ErrAccessDenied},
		{"DEV/COM/2/all", "persons", "", "TRACE", "", nil},
		{"DEV/COM/2", "persons", "", "GET", "", serverconf.ErrAccessDenied},
		{"DEV/COM/7/shop", "persons", "", "GET", "/x", nil},
		{"DEV/COM/7/shop", "persons", "", "PUT", "/x", serverconf.ErrAccessDenied},
		{"DEV/GOV/1/population", "persons", "", "GET", "/x", nil},
		{"DEV/GOV/1/population", "persons", "", "PUT", "/x", serverconf.ErrAccessDenied}, // no right of the owner
		{"DEV/GOV/9/police", "persons", "", "GET", "/wanted", nil},
		{"DEV/GOV/9/police", "persons", "", "GET", "/wanted/", serverconf.ErrAccessDenied},
		{"DEV/GOV/9", "persons", "", "GET", "/wanted", serverconf.ErrAccessDenied},
		{"DEV/COM/3/late", "persons", "", "GET", "/x", nil},
		{"DEV/COM/4/late", "persons", "", "GET", "/x", nil},
		{"DEV/COM/1/reader", "soap", "v1", "", "", nil},
		{"DEV/COM/1/reader", "soap", "v2", "", "", nil},
		{"DEV/COM/2/all", "soap", "v1", "", "", serverconf.ErrAccessDenied},
		{"DEV/COM/1/reader", "persons", "", "", "", serverconf.ErrAccessDenied}, // SOAP needs the whole service
		{"DEV/COM/2/all", "persons", "", "", "", nil},
	} {
		name := service(t, "DEV/GOV/1/population/"+tt.service)
		if tt.version != "" {
			var err error
			if name, err = id.NewServiceVersion(name.Owner(), tt.service, tt.version); err != nil {
				t.Fatal(err)
			}
		}
		v, ok := conf.Service(name)
		if !ok {
			t.Fatalf("no service %s", name)
		}
		if err := conf.Authorise(client(t, tt.client), v, tt.method, tt.path, inGroup); !errors.Is(err, tt.want) {
			t.Errorf("%s %s %s %s: %v, want %v", tt.client, tt.service, tt.method, tt.path, err, tt.want)
		}
	}

	persons, _ := conf.Service(service(t, "DEV/GOV/1/population/persons"))
	now = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, late := range []string{"DEV/COM/3/late", "DEV/COM/4/late"} {
		err := conf.Authorise(client(t, late), persons, "GET", "/x", inGroup)
		if !errors.Is(err, serverconf.ErrAccessDenied) || !strings.Contains(err.Error(), "expired") {
			t.Errorf("expired right of %s: %v", late, err)
		}
	}
	if err := conf.Authorise(client(t, "DEV/GOV/9/police"), persons, "GET", "/wanted", nil); !errors.Is(err, serverconf.ErrAccessDenied) {
		t.Errorf("global group without a way to ask: %v", err)
	}
}

func TestAllowed(t *testing.T) {
	t.Parallel()
	conf := load(t, provider).Conf()
	persons, _ := conf.Service(service(t, "DEV/GOV/1/population/persons"))
	get := serverconf.Endpoint{Method: "GET", Path: "/persons/*"}
	del := serverconf.Endpoint{Method: "DELETE", Path: "/persons/*"}
	for _, tt := range []struct {
		client string
		want   []serverconf.Endpoint
		any    bool
	}{
		{"DEV/COM/1/reader", []serverconf.Endpoint{get}, true},
		{"DEV/COM/2/all", []serverconf.Endpoint{get, del}, true},
		{"DEV/COM/3/late", nil, false},
		{"DEV/COM/9/nobody", nil, false},
		{"DEV/GOV/9/police", nil, true},
	} {
		got, any := conf.Allowed(client(t, tt.client), persons, func(c id.Client, g id.GlobalGroup) bool {
			return g.Code() == "police" && c.String() == "DEV/GOV/9/police"
		})
		if any != tt.any || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, %v", tt.client, got, any)
		}
	}
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	conf := load(t, provider).Conf()
	owner, ok := conf.Client(client(t, "DEV/GOV/1/population"))
	if !ok || !owner.Registered() || len(owner.Services) != 4 || owner.Services[1].ID.Code() != "old" || len(conf.Clients()) != 1 {
		t.Fatalf("client %+v", owner)
	}
	old := owner.Services[1]
	if old.Timeout != 5*time.Second || old.VerifyTLS || old.DisabledNotice == nil || *old.DisabledNotice != "gone since May" || old.Owner != owner {
		t.Errorf("service %+v", old)
	}
	persons := owner.Services[0]
	if persons.Timeout != serverconf.DefaultTimeout || !persons.VerifyTLS || persons.DisabledNotice != nil || len(persons.Rights) != 7 || persons.Rights[2].Note != "contract 17" {
		t.Errorf("service %+v", persons)
	}
	if _, ok := conf.Service(service(t, "DEV/GOV/1/population/soap")); ok {
		t.Error("a service with versions is found without one")
	}
	if _, ok := conf.Service(id.Service{}); ok {
		t.Error("the zero service is found")
	}
}

func TestAuthenticateClient(t *testing.T) {
	t.Parallel()
	mine, other, internal := certificate(t, "mine"), certificate(t, "other"), certificate(t, "internal")
	block := strings.ReplaceAll(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: mine.Raw})), "\n", "\n        ")
	path := write(t, fmt.Sprintf(`
clients:
  - id: DEV/GOV/1/plain
    status: registered
    connection: http
  - id: DEV/GOV/1/noauth
    status: registered
    connection: https-no-auth
  - id: DEV/GOV/1/strict
    status: registered
    certificates:
      - |
        %s
  - {id: DEV/GOV/1/saved, connection: http}
  - {id: DEV/GOV/1/disabled, status: disabled, connection: http}
`, block))
	s, err := serverconf.Open(serverconf.Config{Path: path, Internal: &tls.Certificate{Certificate: [][]byte{internal.Raw}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		client string
		https  bool
		peer   *x509.Certificate
		want   error
	}{
		{"plain", false, nil, nil},
		{"plain", true, other, nil},
		{"noauth", false, nil, serverconf.ErrHTTPSRequired},
		{"noauth", true, nil, nil},
		{"noauth", true, other, nil},
		{"strict", false, nil, serverconf.ErrHTTPSRequired},
		{"strict", true, nil, serverconf.ErrCertificateRequired},
		{"strict", true, other, serverconf.ErrWrongCertificate},
		{"strict", true, mine, nil},
		{"strict", true, internal, nil},
		{"saved", true, mine, serverconf.ErrNotRegistered},
		{"disabled", true, mine, serverconf.ErrNotRegistered},
		{"unknown", true, mine, serverconf.ErrUnknownClient},
	} {
		if err := s.Conf().AuthenticateClient(client(t, "DEV/GOV/1/"+tt.client), tt.https, tt.peer); !errors.Is(err, tt.want) {
			t.Errorf("%s, https %v: %v, want %v", tt.client, tt.https, err, tt.want)
		}
	}
	before := s.Conf()
	s.SetInternal(&tls.Certificate{Certificate: [][]byte{other.Raw}})
	strict := client(t, "DEV/GOV/1/strict")
	if err := s.Conf().AuthenticateClient(strict, true, internal); !errors.Is(err, serverconf.ErrWrongCertificate) {
		t.Errorf("replaced internal certificate: %v", err)
	}
	if err := s.Conf().AuthenticateClient(strict, true, other); err != nil {
		t.Errorf("new internal certificate: %v", err)
	}
	if err := before.AuthenticateClient(strict, true, other); !errors.Is(err, serverconf.ErrWrongCertificate) {
		t.Errorf("an older snapshot has changed: %v", err)
	}
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := s.Conf().AuthenticateClient(strict, true, other); err != nil {
		t.Errorf("internal certificate after a reload: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	service := func(s string) string {
		return "clients: [{id: DEV/GOV/1/s, services: [" + s + "]}]"
	}
	access := func(s string) string {
		return "clients: [{id: DEV/GOV/1/s, groups: [{code: g}], services: [{code: a, type: REST, url: 'http://x'}, {code: w, type: WSDL, url: 'http://x'}], access: [" + s + "]}]"
	}
	for content, want := range map[string]string{
		"clientz: []": "clientz",
		"clients: [{id: DEV/GOV/1/s, colour: red}]":                                                "colour",
		"clients: [{status: saved}]":                                                               "id is missing",
		"clients: [{id: DEV/GOV}]":                                                                 "DEV/GOV",
		"clients: [{id: DEV/GOV/1/s, status: asleep}]":                                             "asleep",
		"clients: [{id: DEV/GOV/1/s, connection: ftp}]":                                            "ftp",
		"clients: [{id: DEV/GOV/1/s}, {id: DEV/GOV/1/s}]":                                          "twice",
		"clients: [{id: DEV/GOV/1/s, certificates: [x]}]":                                          "PEM",
		"clients: [{id: DEV/GOV/1/s, certificates: ['']}]":                                         "PEM",
		"clients: [{id: DEV/GOV/1/s, groups: [{code: g}, {code: g}]}]":                             "twice",
		"clients: [{id: DEV/GOV/1/s, groups: [{code: ' '}]}]":                                      "no code",
		"clients: [{id: DEV/GOV/1/s, groups: [{code: g, members: ['']}]}]":                         "empty member",
		"clients: []\n---\nclients: []":                                                            "one YAML document",
		"clients: [":                                                                               "yaml",
		"- a":                                                                                      "cannot unmarshal",
		service("{type: REST, url: 'http://x'}"):                                                   "service",
		service("{code: a, url: 'http://x'}"):                                                      "type",
		service("{code: a, type: GRPC, url: 'http://x'}"):                                          "GRPC",
		service("{code: a, type: REST}"):                                                           "url",
		service("{code: a, type: REST, url: 'ftp://x'}"):                                           "http",
		service("{code: a, type: REST, url: 'http://u:p@x'}"):                                      "user name",
		service("{code: a, type: REST, url: 'http://x?q'}"):                                        "query",
		service("{code: a, type: REST, url: 'http://x#f'}"):                                        "fragment",
		service("{code: a, type: REST, url: 'http:///x'}"):                                         "http",
		service("{code: a, type: REST, url: 'http://x', timeout: -1s}"):                            "timeout",
		service("{code: a, type: REST, url: 'http://x', version: v1}"):                             "version",
		service("{code: a, type: REST, url: 'http://x'}, {code: a, type: REST, url: 'http://y'}"):  "twice",
		service("{code: a, type: REST, url: 'http://x', endpoints: [{method: GET, path: x}]}"):     "begin with",
		service("{code: a, type: REST, url: 'http://x', endpoints: [{method: FETCH, path: /x}]}"):  "FETCH",
		service(`{code: a, type: REST, url: 'http://x', endpoints: [{method: GET, path: '/x\'}]}`): "pattern",
		service("{code: a, type: REST, url: 'http://x', endpoints: [{method: GET, path: /x}, {method: GET, path: /x}]}"): "twice",
		service("{code: a, type: WSDL, url: 'http://x', endpoints: [{method: GET, path: /x}]}"):                          "no endpoints",
		service("{code: a, type: WSDL, url: 'http://x', description: 'file:///x'}"):                                      "description",
		"clients: [{id: DEV/GOV/1, services: [{code: a, type: REST, url: 'http://x'}]}]":                                 "subsystem",
		access("{service: b, client: DEV/COM/1/x}"):                                                                      "does not exist",
		access("{service: a}"):                                     "exactly one",
		access("{service: a, client: DEV/COM/1/x, group: g}"):      "exactly one",
		access("{service: a, group: h}"):                           "does not exist",
		access("{service: a, client: DEV/COM/1/x, path: y}"):       "begin with",
		access("{service: a, client: DEV/COM/1/x, method: '?'}"):   "method",
		access("{service: a, client: DEV/COM/1/x, expires: soon}"): "soon",
		access("{service: w, client: DEV/COM/1/x, method: GET}"):   "SOAP",
	} {
		if _, err := serverconf.Load(write(t, content)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want: %s", content, err, want)
		}
	}
	if _, err := serverconf.Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

// All findings are reported at once, by name.
func TestFindings(t *testing.T) {
	t.Parallel()
	_, err := serverconf.Load(write(t, "clients: [{id: DEV/GOV/1/s, status: x, services: [{code: a, type: y, url: z}]}]"))
	for _, want := range []string{"client DEV/GOV/1/s: status", "service a: type", "service a: url"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want: %s", err, want)
		}
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "server.yaml")
	cert := certificate(t, "x")
	notice := ""
	model := &serverconf.Model{Clients: []serverconf.ClientEntry{{
		ID: client(t, "DEV/GOV/1/a%20b"), Status: serverconf.Registered, Connection: serverconf.HTTPS,
		Certificates: []serverconf.Certificate{{Certificate: cert}},
		Descriptions: []serverconf.DescriptionEntry{{Type: serverconf.OpenAPI3, URL: "http://x/openapi.yaml", Refreshed: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Disabled: &notice,
			Services: []serverconf.ServiceEntry{{Code: "s", Title: "S", URL: "http://x", Timeout: time.Minute + time.Second, Endpoints: []serverconf.EndpointEntry{
				{Endpoint: serverconf.Endpoint{Method: "GET", Path: "/a"}, Generated: true}, {Endpoint: serverconf.Endpoint{Method: "PUT", Path: "/a"}},
			}}}}},
		Access: []serverconf.AccessEntry{{Service: "s", Client: client(t, "DEV/COM/1/x"), Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}},
	}}}
	s, err := serverconf.Create(serverconf.Config{Path: path}, model)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := serverconf.Create(serverconf.Config{Path: path}, model); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created twice: %v", err)
	}
	again, err := s.Model()
	if err != nil || !reflect.DeepEqual(again, model) {
		t.Fatalf("round trip: %+v, %v", again, err)
	}
	if v := s.Conf().Clients()[0].Services[0]; v.DisabledNotice == nil || *v.DisabledNotice != "" {
		t.Error("an empty notice does not disable")
	}

	before := s.Conf()
	add := func(name string) func(*serverconf.Model) error {
		return func(m *serverconf.Model) error {
			m.Clients = append(m.Clients, serverconf.ClientEntry{ID: client(t, name)})
			return nil
		}
	}
	if err := s.Update(add("DEV/GOV/1/c")); err != nil {
		t.Fatal(err)
	}
	if len(before.Clients()) != 1 || len(s.Conf().Clients()) != 2 {
		t.Error("snapshot changed, or update not visible")
	}
	reopened, err := serverconf.Load(path)
	if err != nil || len(reopened.Conf().Clients()) != 2 {
		t.Fatalf("after reopening: %v", err)
	}

	refusal := errors.New("no")
	content, _ := os.ReadFile(path)
	for _, change := range []func(*serverconf.Model) error{
		add("DEV/GOV/1/c"), // twice
		func(m *serverconf.Model) error { m.Clients = nil; return refusal },
		func(m *serverconf.Model) error { m.Clients[0].Connection = "tin can"; return nil },
		func(m *serverconf.Model) error {
			m.Clients[0].Certificates = []serverconf.Certificate{{}}
			return nil
		},
	} {
		if err := s.Update(change); err == nil {
			t.Error("a bad change was accepted")
		}
	}
	if now, _ := os.ReadFile(path); string(now) != string(content) || len(s.Conf().Clients()) != 2 {
		t.Error("a refused change left a trace")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}

	// Edits by hand are kept, and a broken file leaves the snapshot alone.
	if err := os.WriteFile(path, append(content, "  - id: DEV/GOV/1/hand\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(add("DEV/GOV/1/d")); err != nil {
		t.Fatal(err)
	}
	if len(s.Conf().Clients()) != 4 {
		t.Errorf("%d clients", len(s.Conf().Clients()))
	}
	if err := os.WriteFile(path, []byte("clients: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.Reload() == nil || s.Update(add("DEV/GOV/1/e")) == nil || len(s.Conf().Clients()) != 4 {
		t.Error("a broken file was taken")
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	s := load(t, provider)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 5 {
				err := s.Update(func(m *serverconf.Model) error {
					m.Clients = append(m.Clients, serverconf.ClientEntry{ID: client(t, fmt.Sprintf("DEV/X/%d/%d", i, j))})
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 200 {
				conf := s.Conf()
				v, ok := conf.Service(service(t, "DEV/GOV/1/population/persons"))
				if !ok || conf.Authorise(client(t, "DEV/COM/2/all"), v, "GET", "/x", nil) != nil {
					t.Error("lost its service")
				}
			}
		})
	}
	wg.Wait()
	if n := len(s.Conf().Clients()); n != 21 {
		t.Errorf("%d clients, want 21", n)
	}
}

// The parser of the file is fed by administrators, but through an API, too.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(provider))
	f.Add([]byte("clients: [{id: DEV/GOV/1/s, access: [{service: x}]}]"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := serverconf.RoundTrip(b); err != nil {
			t.Fatalf("what was loaded cannot be written: %v", err)
		}
	})
}

func BenchmarkAuthorise(b *testing.B) {
	conf := load(b, provider).Conf()
	v, _ := conf.Service(service(b, "DEV/GOV/1/population/persons"))
	reader := client(b, "DEV/COM/1/reader")
	b.ReportAllocs()
	for b.Loop() {
		if err := conf.Authorise(reader, v, "GET", "/persons/123", nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGlob(b *testing.B) {
	// The slow way: two wildcards.
	for b.Loop() {
		if ok, err := serverconf.Match("/persons/*/photos/**.jpg", "/persons/12345/photos/2026/11/a.jpg"); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

// Services that stand directly in their client are taken for descriptions, and
// written as such.
func TestPlainServices(t *testing.T) {
	t.Parallel()
	s := load(t, `
clients:
  - id: DEV/GOV/1/s
    services:
      - {code: a, type: REST, url: "http://x"}
      - {code: b, type: WSDL, url: "http://x", description: "http://x?wsdl"}
      - {code: c, type: WSDL, url: "http://x", description: "http://x?wsdl"}
      - {code: d, type: WSDL, url: "http://x", description: "http://x?wsdl2", disabled: shut}
      - {code: e, type: WSDL, url: "http://x"}
      - {code: f, type: WSDL, url: "http://x"}
    access:
      - {service: c, client: DEV/COM/1/x}
`)
	check := func() {
		t.Helper()
		var got []string
		ids := map[string]bool{}
		for _, d := range s.Conf().Clients()[0].Descriptions {
			text := d.Type + " " + d.URL + ":"
			for _, v := range d.Services {
				text += " " + v.ID.Code()
				if v.Description != d || (v.DisabledNotice == nil) != (d.DisabledNotice == nil) {
					t.Errorf("%s is not of its description", v.ID)
				}
			}
			got = append(got, text)
			ids[d.ID()] = true
		}
		want := []string{"REST : a", "WSDL http://x?wsdl: b c", "WSDL http://x?wsdl2: d", "WSDL : e", "WSDL : f"}
		if !reflect.DeepEqual(got, want) || len(ids) != len(want) {
			t.Errorf("%q, %v", got, ids)
		}
		if v, ok := s.Conf().Service(service(t, "DEV/GOV/1/s/c")); !ok || len(v.Rights) != 1 {
			t.Error("the right is gone")
		}
	}
	check()
	if err := s.Update(func(*serverconf.Model) error { return nil }); err != nil {
		t.Fatal(err)
	}
	check()
}

func TestDescriptions(t *testing.T) {
	t.Parallel()
	description := func(s string) string {
		return "clients: [{id: DEV/GOV/1/s, descriptions: [" + s + "]}]"
	}
	for content, want := range map[string]string{
		description("{type: WSDL, url: 'http://x'}"):                                                                                                                "no services",
		description("{type: GRPC, services: [{code: a, url: 'http://x'}]}"):                                                                                         "GRPC",
		description("{type: REST, url: 'http://x', services: [{code: a, url: 'http://x'}]}"):                                                                        "no document",
		description("{type: OPENAPI3, services: [{code: a, url: 'http://x'}, {code: b, url: 'http://x'}]}"):                                                         "one service, not 2",
		description("{type: OPENAPI3, url: 'http://x', file: x.yaml, services: [{code: a, url: 'http://x'}]}"):                                                      "not both",
		description("{type: OPENAPI3, file: ../x.yaml, services: [{code: a, url: 'http://x'}]}"):                                                                    "below the folder",
		description("{type: WSDL, url: 'ftp://x', services: [{code: a, url: 'http://x'}]}"):                                                                         "url of the document",
		description("{type: WSDL, services: [{code: a, url: 'http://x', type: WSDL}]}"):                                                                             "type",
		description("{type: WSDL, services: [{code: a, url: 'http://x'}]}, {type: REST, services: [{code: a, url: 'http://x'}]}"):                                   "twice",
		description("{type: WSDL, services: [{code: a, version: v, url: 'http://x'}]}, {type: REST, services: [{code: a, url: 'http://x'}]}"):                       "rights are to all",
		description("{type: WSDL, url: 'http://x', services: [{code: a, url: 'http://x'}]}, {type: WSDL, url: 'http://x', services: [{code: b, url: 'http://x'}]}"): "document stands in the file twice",
		description("{type: WSDL, services: [{code: listMethods, url: 'http://x'}]}"):                                                                               "every security server has",
		description("{type: REST, services: [{code: getOpenAPI, url: 'http://x'}]}"):                                                                                "every security server has",
	} {
		if _, err := serverconf.Load(write(t, content)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want: %s", content, err, want)
		}
	}
}

// A description's file lies beside the configuration and nowhere else.
func TestDocument(t *testing.T) {
	t.Parallel()
	s := load(t, "clients: [{id: DEV/GOV/1/s, descriptions: [{type: OPENAPI3, file: d/x.yaml, services: [{code: a, url: 'http://x'}]}]}]")
	d := s.Conf().Clients()[0].Descriptions[0]
	if _, err := s.Document(d); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	use := func(content, extension string) string {
		t.Helper()
		err := s.Update(func(m *serverconf.Model) (err error) {
			m.Clients[0].Descriptions[0].File, err = s.AddDocument([]byte(content), extension)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return s.Conf().Clients()[0].Descriptions[0].File
	}
	name := use("openapi: 3.0.3", ".yaml")
	d = &serverconf.Description{File: name}
	if b, err := s.Document(d); err != nil || string(b) != "openapi: 3.0.3" {
		t.Errorf("%q, %v", b, err)
	}
	if again := use("openapi: 3.0.3", ".yaml"); again != name {
		t.Error(again)
	}
	if _, err := s.AddDocument(make([]byte, serverconf.MaxDocument+1), ".yaml"); err == nil {
		t.Error("a document without bounds")
	}
	other := use("openapi: 3.1.0", ".yaml")
	if _, err := s.Document(d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a document that nothing names is kept: %v", err)
	}
	if _, err := s.Document(&serverconf.Description{File: other}); err != nil {
		t.Error(err)
	}
}

// Both sides of a connection to a service know each other's certificates.
func TestServiceTLS(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gateway"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	internal := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	known := x509.NewCertPool()
	known.AddCert(leaf)
	backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	backend.Config.ErrorLog = log.New(io.Discard, "", 0)
	backend.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: known}
	backend.StartTLS()
	defer backend.Close()

	owner := client(t, "DEV/GOV/1/s")
	s, err := serverconf.Open(serverconf.Config{Path: write(t, "clients: [{id: DEV/GOV/1/s}]")})
	if err != nil {
		t.Fatal(err)
	}
	call := func(verify bool) (string, error) {
		c := http.Client{Transport: &http.Transport{TLSClientConfig: s.ServiceTLS(owner, verify), DisableKeepAlives: true}}
		resp, err := c.Get(backend.URL)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	if who, err := call(false); err == nil {
		t.Errorf("the service took a caller without a certificate: %q", who)
	}
	s.SetInternal(internal)
	if who, err := call(false); err != nil || who != "gateway" {
		t.Errorf("%q, %v", who, err)
	}
	if _, err := call(true); !errors.Is(err, serverconf.ErrServiceCertificate) {
		t.Errorf("a service that nobody knows: %v", err)
	}
	err = s.Update(func(m *serverconf.Model) error {
		m.Clients[0].Certificates = []serverconf.Certificate{{Certificate: backend.Certificate()}}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if who, err := call(true); err != nil || who != "gateway" {
		t.Errorf("%q, %v", who, err)
	}
}

// A right to exactly a listed endpoint covers it, whatever its pattern.
func TestAllowedByTheSamePattern(t *testing.T) {
	t.Parallel()
	conf := load(t, `
clients:
  - id: DEV/GOV/1/s
    services:
      - {code: a, type: OPENAPI3, url: "http://x", endpoints: [{method: GET, path: '/a\*b'}, {method: GET, path: '/\\*'}]}
    access:
      - {service: a, client: DEV/COM/1/x, method: GET, path: '/a\*b'}
`).Conf()
	s, _ := conf.Service(service(t, "DEV/GOV/1/s/a"))
	if got, _ := conf.Allowed(client(t, "DEV/COM/1/x"), s, nil); !reflect.DeepEqual(got, []serverconf.Endpoint{{Method: "GET", Path: `/a\*b`}}) {
		t.Error(got)
	}
}
