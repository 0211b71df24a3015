// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kontor/gateway/admin"
	"kontor/gateway/serverconf"
	"kontor/registry/guard"
	"kontor/registry/id"
)

const (
	portal     = "DEV/GOV/1001/portal"
	population = "DEV/GOV/1001/population"
	consumer   = "DEV/GOV/2002/consumer"
)

func TestClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.as(admin.RoleRegistrationOfficer)
	added, err := c.AddClient(t.Context(), admin.NewClientEntry{ID: "DEV/GOV/1001/extra"})
	if err != nil || added.Status != serverconf.Saved || added.Connection != serverconf.HTTPS || !strings.Contains(added.Next, "DEV/GOV/1001/ss1") {
		t.Error(added, err)
	}
	for text, want := range map[string]string{
		"DEV/GOV/1001/extra":  "already",
		"TEST/GOV/1001/extra": "instance",
		"DEV/COM/1001/extra":  "member class",
		"DEV/GOV/1001/a%3Bb":  "not allowed",
		"nonsense":            "malformed",
	} {
		if _, err := c.AddClient(t.Context(), admin.NewClientEntry{ID: text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	shown, etag, err := c.Client(t.Context(), "DEV/GOV/1001/extra")
	if err != nil || shown.Name != "Owner" || etag == "" {
		t.Error(shown, etag, err)
	}
	if v, _, err := c.Client(t.Context(), portal); err != nil || v.Name != "Citizens' portal" {
		t.Error(v, err)
	}
	w.refused(first(c.ChangeClient(t.Context(), "DEV/GOV/1001/extra", "", admin.ClientChange{Connection: "http"})), 428, "if_match_needed", "")
	changed, err := c.ChangeClient(t.Context(), "DEV/GOV/1001/extra", etag, admin.ClientChange{Connection: "https-no-auth"})
	if err != nil || changed.Connection != serverconf.HTTPSNoAuth {
		t.Error(changed, err)
	}
	w.refused(first(c.ChangeClient(t.Context(), "DEV/GOV/1001/extra", etag, admin.ClientChange{Connection: "http"})), 412, guard.CodeChangedMeanwhile, "")
	w.refused(c.DeleteClient(t.Context(), "DEV/GOV/1001/extra", etag), 412, guard.CodeChangedMeanwhile, "")
	if v, ok := w.fresh().Client(client(t, "DEV/GOV/1001/extra")); !ok || v.Connection != serverconf.HTTPSNoAuth {
		t.Error("not durable")
	}
	if err := c.DeleteClient(t.Context(), "DEV/GOV/1001/extra", "*"); err != nil {
		t.Error(err)
	}
	w.refused(c.DeleteClient(t.Context(), "DEV/GOV/1001/extra", "*"), 404, guard.CodeUnknown, "no client")
	w.refused(c.DeleteClient(t.Context(), portal, "*"), 409, guard.CodeInUse, "registry lists")
	w.config.Servers[0].Clients = w.config.Servers[0].Clients[:1]
	w.publish()
	w.refused(c.DeleteClient(t.Context(), population, "*"), 409, guard.CodeInUse, "1 services")
	all, err := c.Clients(t.Context())
	if err != nil || len(all) != 2 || all[1].Rights != 1 || !slices.Equal(all[1].Services, []string{"persons"}) {
		t.Error(all, err)
	}
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := pemOf(w.certify(&x509.Certificate{Subject: pkix.Name{CommonName: "information system"}}, key.Public()))
	v, err := w.root.AddClientCertificate(t.Context(), portal, "", admin.NewISCertificate{Certificate: text})
	if err != nil || len(v.Certificates) != 1 || v.Certificates[0].PEM != text {
		t.Fatal(v, err)
	}
	w.refused(first(w.root.AddClientCertificate(t.Context(), portal, "", admin.NewISCertificate{Certificate: text})), 409, guard.CodeExists, "")
	w.refused(first(w.root.AddClientCertificate(t.Context(), portal, "", admin.NewISCertificate{Certificate: text + text})), 422, guard.CodeInvalid, "one certificate")
	w.refused(first(w.root.AddClientCertificate(t.Context(), portal, "", admin.NewISCertificate{Certificate: "aGVsbG8="})), 422, guard.CodeInvalid, "cannot be read")
	if v, _ := w.fresh().Client(client(t, portal)); len(v.Certificates) != 1 {
		t.Error("not durable")
	}
	hash := v.Certificates[0].Hash
	w.refused(w.root.DeleteClientCertificate(t.Context(), portal, "00000000", "*"), 404, guard.CodeUnknown, "no certificate")
	if err := w.root.DeleteClientCertificate(t.Context(), portal, strings.ToUpper(hash[:12]), "*"); err != nil {
		t.Error(err)
	}
	if v, _, err := w.root.Client(t.Context(), portal); err != nil || len(v.Certificates) != 0 {
		t.Error(v, err)
	}
}

func TestGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.as(admin.RoleServiceAdministrator)
	g, err := c.AddGroup(t.Context(), population, admin.NewGroup{Code: "partners", Description: "d", Members: []string{consumer, consumer}})
	if err != nil || !slices.Equal(g.Members, []string{consumer}) {
		t.Fatal(g, err)
	}
	w.refused(first(c.AddGroup(t.Context(), population, admin.NewGroup{Code: "partners"})), 409, guard.CodeExists, "")
	w.refused(first(c.AddGroup(t.Context(), population, admin.NewGroup{Code: "a/b"})), 422, guard.CodeInvalid, "")
	w.refused(first(c.AddGroup(t.Context(), population, admin.NewGroup{Code: "x", Members: []string{"y"}})), 422, guard.CodeInvalid, "")
	if g, err = c.AddGroupMembers(t.Context(), population, "partners", "", admin.Members{Members: []string{portal}}); err != nil || len(g.Members) != 2 {
		t.Error(g, err)
	}
	if _, err := c.Grant(t.Context(), population, admin.NewRight{Service: "persons", SubjectType: admin.SubjectLocalGroup, Subject: "partners"}); err != nil {
		t.Error(err)
	}
	w.refused(c.DeleteGroup(t.Context(), population, "partners", "*"), 409, guard.CodeInUse, "persons")
	if x, err := c.TestAccess(t.Context(), consumer, population+"/persons", "", "/1"); err != nil || !x.Allowed {
		t.Error(x, err)
	}
	_, etag, err := c.Group(t.Context(), population, "partners")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteGroupMember(t.Context(), population, "partners", consumer, etag); err != nil {
		t.Error(err)
	}
	w.refused(c.DeleteGroupMember(t.Context(), population, "partners", portal, etag), 412, guard.CodeChangedMeanwhile, "")
	w.refused(c.DeleteGroupMember(t.Context(), population, "partners", consumer, "*"), 404, guard.CodeUnknown, "")
	if x, err := c.TestAccess(t.Context(), consumer, population+"/persons", "", "/1"); err != nil || x.Allowed {
		t.Error(x, err)
	}
	rights, err := c.Access(t.Context(), "", "", "partners")
	if err != nil || len(rights) != 1 {
		t.Fatal(rights, err)
	}
	if err := c.Revoke(t.Context(), population, rights[0].ID, "*"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteGroup(t.Context(), population, "partners", "*"); err != nil {
		t.Error(err)
	}
	if all, err := c.Groups(t.Context(), population); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
}

func TestServices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.as(admin.RoleServiceAdministrator)
	d, err := c.AddDescription(t.Context(), population, admin.NewDescription{Type: serverconf.REST, Code: "births", URL: "https://backend.test/births", Timeout: "5s"})
	if err != nil || len(d.Services) != 1 || d.Services[0].Timeout != "5s" || !d.Services[0].VerifyTLS || !d.Enabled || d.Services[0].Rights != 0 || d.Services[0].Next == "" {
		t.Error(d, err)
	}
	no, yes := false, true
	for name, tc := range map[string]struct {
		n    admin.NewDescription
		want string
	}{
		"twice":        {admin.NewDescription{Type: serverconf.REST, Code: "births", URL: "http://x"}, "already"},
		"no URL":       {admin.NewDescription{Type: serverconf.REST, Code: "a", URL: "ftp://x"}, "not an http or https URL"},
		"query":        {admin.NewDescription{Type: serverconf.REST, Code: "a", URL: "http://x/?a=b"}, "query"},
		"code":         {admin.NewDescription{Type: serverconf.REST, Code: "a/b", URL: "http://x"}, "not allowed"},
		"reserved":     {admin.NewDescription{Type: serverconf.REST, Code: "getOpenAPI", URL: "http://x"}, "every security server has"},
		"timeout":      {admin.NewDescription{Type: serverconf.REST, Code: "a", URL: "http://x", Timeout: "10 parsecs"}, "timeout"},
		"timeout 25":   {admin.NewDescription{Type: serverconf.REST, Code: "a", URL: "http://x", Timeout: "25h"}, "timeout"},
		"no code":      {admin.NewDescription{Type: serverconf.REST, URL: "http://x"}, "no code"},
		"code of WSDL": {admin.NewDescription{Type: serverconf.WSDL, Code: "a", URL: "http://x"}, "tells the codes"},
		"document":     {admin.NewDescription{Type: serverconf.REST, Code: "a", Document: "x"}, "no document"},
		"nothing":      {admin.NewDescription{Type: serverconf.OpenAPI3, Code: "a"}, "a URL or a document"},
		"both":         {admin.NewDescription{Type: serverconf.OpenAPI3, Code: "a", URL: "http://x", Document: "x"}, "a URL or a document"},
		"notice":       {admin.NewDescription{Type: serverconf.REST, Code: "a", URL: "http://x", Enabled: &yes, Notice: "x"}, "told nothing"},
		"unreachable":  {admin.NewDescription{Type: serverconf.OpenAPI3, Code: "a", URL: "http://127.0.0.1:1/"}, "refused"},
		"not OpenAPI":  {admin.NewDescription{Type: serverconf.OpenAPI3, Code: "a", Document: "hello"}, "no object"},
		"not WSDL":     {admin.NewDescription{Type: serverconf.WSDL, Document: "hello"}, "unacceptable"},
		"no address":   {admin.NewDescription{Type: serverconf.OpenAPI3, Code: "a", Document: "openapi: 3.0.0\ninfo: {title: t, version: v}\npaths: {}"}, "--service-url"},
	} {
		if _, err := c.AddDescription(t.Context(), population, tc.n); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.refused(first(c.AddDescription(t.Context(), "DEV/GOV/1001/none", admin.NewDescription{Type: serverconf.REST, Code: "a", URL: "http://x"})), 404, guard.CodeUnknown, "")

	_, etag, err := c.Service(t.Context(), population, "births")
	if err != nil {
		t.Fatal(err)
	}
	url, timeout, notice := "http://backend.test/b", "2m0s", "closed"
	s, err := c.ChangeService(t.Context(), population, "births", etag, admin.ServiceChange{URL: &url, Timeout: &timeout, VerifyTLS: &no})
	if err != nil || s.URL != url || s.Timeout != timeout || s.VerifyTLS {
		t.Error(s, err)
	}
	w.refused(first(c.ChangeService(t.Context(), population, "births", etag, admin.ServiceChange{URL: &url})), 412, guard.CodeChangedMeanwhile, "")
	w.refused(first(c.ChangeDescription(t.Context(), population, d.ID, "*", admin.DescriptionChange{Enabled: true, Notice: notice})), 422, guard.CodeInvalid, "told nothing")
	if d, err = c.ChangeDescription(t.Context(), population, d.ID, "*", admin.DescriptionChange{Notice: notice}); err != nil || d.Enabled || d.Notice != notice {
		t.Error(d, err)
	}
	if v, ok := w.fresh().Service(w.service(population + "/births")); !ok || v.DisabledNotice == nil || *v.DisabledNotice != notice || v.Timeout != 2*time.Minute {
		t.Error("not durable")
	}
	_, etag, err = c.Description(t.Context(), population, d.ID)
	if err != nil {
		t.Error(err)
	}
	if d, err = c.ChangeDescription(t.Context(), population, d.ID, etag, admin.DescriptionChange{Enabled: true}); err != nil || !d.Enabled || d.Notice != "" {
		t.Error(d, err)
	}
	w.refused(first(c.ChangeDescription(t.Context(), population, d.ID, etag, admin.DescriptionChange{Enabled: true})), 412, guard.CodeChangedMeanwhile, "")
	w.refused(first(c.RefreshDescription(t.Context(), population, d.ID, admin.Refresh{URL: url})), 422, guard.CodeInvalid, "no document")
	if _, err := c.Grant(t.Context(), population, admin.NewRight{Service: "births", Subject: consumer}); err != nil {
		t.Error(err)
	}
	w.refused(c.DeleteDescription(t.Context(), population, d.ID, etag), 412, guard.CodeChangedMeanwhile, "")
	if err := c.DeleteDescription(t.Context(), population, d.ID, "*"); err != nil {
		t.Error(err)
	}
	w.refused(c.DeleteDescription(t.Context(), population, d.ID, "*"), 404, guard.CodeUnknown, "no service description")
	if rights, err := c.Access(t.Context(), population, "", ""); err != nil || len(rights) != 1 || rights[0].Service != "persons" {
		t.Error("rights outlive their service", rights, err)
	}
	all, err := c.Services(t.Context(), population)
	if err != nil || len(all) != 1 || all[0].ID != population+"/persons" {
		t.Error(all, err)
	}
	if all, err := c.Services(t.Context(), portal); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
	if all, err := c.Descriptions(t.Context(), ""); err != nil || len(all) != 1 || all[0].Client != population {
		t.Error(all, err)
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.as(admin.RoleServiceAdministrator)
	s, err := c.AddEndpoint(t.Context(), population, "persons", admin.Endpoint{Method: "get", Path: "/a/*"})
	if err != nil || !slices.Equal(s.Endpoints, []admin.Endpoint{{Method: "GET", Path: "/a/*"}}) {
		t.Error(s, err)
	}
	w.refused(first(c.AddEndpoint(t.Context(), population, "persons", admin.Endpoint{Method: "GET", Path: "/a/*"})), 409, guard.CodeExists, "")
	w.refused(first(c.AddEndpoint(t.Context(), population, "persons", admin.Endpoint{Method: "*", Path: "**"})), 422, guard.CodeInvalid, "whole service")
	w.refused(first(c.AddEndpoint(t.Context(), population, "persons", admin.Endpoint{Method: "GET", Path: "a"})), 422, guard.CodeInvalid, "must begin")
	r, err := c.Grant(t.Context(), population, admin.NewRight{Service: "persons", Subject: consumer, Method: "GET", Path: "/a/*"})
	if err != nil {
		t.Fatal(err)
	}
	e := admin.Endpoint{Method: "get", Path: "/a/*"}
	w.refused(c.DeleteEndpoint(t.Context(), population, "persons", "*", e), 409, guard.CodeInUse, "1 rights")
	if err := c.Revoke(t.Context(), population, r.ID, "*"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteEndpoint(t.Context(), population, "persons", "*", e); err != nil {
		t.Error(err)
	}
	w.refused(c.DeleteEndpoint(t.Context(), population, "persons", "*", e), 404, guard.CodeUnknown, "no endpoint")
}

const petstore = `openapi: 3.0.3
info: {title: Pets, version: "1"}
servers: [{url: /v1}]
paths:
  /pets:
    get: {responses: {200: {description: ok}}}
  /pets/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get: {responses: {200: {description: ok}}}
`

// documents serves a document that the test changes, over https.
func documents(t *testing.T) (*httptest.Server, *atomic.Pointer[string]) {
	t.Helper()
	content := new(atomic.Pointer[string])
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/document" {
			http.Redirect(w, r, "/document", http.StatusMovedPermanently)
			return
		}
		fmt.Fprint(w, *content.Load())
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, content
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.as(admin.RoleServiceAdministrator)
	server, content := documents(t)
	first1 := petstore
	content.Store(&first1)
	url := server.URL + "/document"
	n := admin.NewDescription{Type: serverconf.OpenAPI3, Code: "pets", URL: url}
	w.refused(first(c.AddDescription(t.Context(), population, n)), 502, "document_unreachable", "not among those registered")
	if _, err := w.root.AddClientCertificate(t.Context(), population, "", admin.NewISCertificate{Certificate: pemOf(server.Certificate())}); err != nil {
		t.Fatal(err)
	}
	redirected := n
	redirected.URL = server.URL + "/moved"
	w.refused(first(c.AddDescription(t.Context(), population, redirected)), 502, "document_unreachable", "redirect")
	d, err := c.AddDescription(t.Context(), population, n)
	if err != nil {
		t.Fatal(err)
	}
	pets := d.Services[0]
	if pets.URL != server.URL+"/v1" || pets.Title != "Pets" || pets.Document != url || d.Refreshed.IsZero() || len(d.Warnings) != 0 ||
		!slices.Equal(pets.Endpoints, []admin.Endpoint{{Method: "GET", Path: "/pets", Generated: true}, {Method: "GET", Path: "/pets/*", Generated: true}}) {
		t.Errorf("%+v", d)
	}
	for _, e := range []admin.Endpoint{{Method: "GET", Path: "/hidden"}, {Method: "PUT", Path: "/later"}} {
		if _, err := c.AddEndpoint(t.Context(), population, "pets", e); err != nil {
			t.Fatal(err)
		}
	}
	w.refused(c.DeleteEndpoint(t.Context(), population, "pets", "*", admin.Endpoint{Method: "GET", Path: "/pets"}), 409, guard.CodeInUse, "comes from the document")
	elsewhere := "http://backend.test/pets"
	if _, err := c.ChangeService(t.Context(), population, "pets", "*", admin.ServiceChange{URL: &elsewhere}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/pets/*", "/pets/**", "/pets", ""} {
		if _, err := c.Grant(t.Context(), population, admin.NewRight{Service: "pets", Subject: consumer, Method: "GET", Path: path}); err != nil {
			t.Fatal(err)
		}
	}

	same, err := c.RefreshDescription(t.Context(), population, d.ID, admin.Refresh{})
	if err != nil || len(same.Differences) != 0 || len(same.RightsLost) != 0 || same.Applied || len(same.Warnings) != 1 || !strings.Contains(same.Warnings[0], "/v1 of pets") {
		t.Errorf("%+v, %v", same, err)
	}
	second2 := strings.NewReplacer("Pets", "Animals", "/pets/{id}", "/animals/{id}").Replace(petstore) + "  /later:\n    put: {responses: {200: {description: ok}}}\n"
	content.Store(&second2)
	diff, err := c.RefreshDescription(t.Context(), population, d.ID, admin.Refresh{})
	want := []admin.Difference{
		{Kind: admin.Changed, Service: "pets", What: `title "Animals", before "Pets"`},
		{Kind: admin.Removed, Service: "pets", Method: "GET", Path: "/pets/*"},
		{Kind: admin.Added, Service: "pets", Method: "GET", Path: "/animals/*"},
	}
	if err != nil || !slices.Equal(diff.Differences, want) || len(diff.RightsLost) != 1 || diff.RightsLost[0].Path != "/pets/*" || diff.Applied {
		t.Errorf("%+v, %v", diff, err)
	}
	w.refused(first(c.RefreshDescription(t.Context(), population, d.ID, admin.Refresh{Apply: same.Digest})), 412, guard.CodeChangedMeanwhile, "differences")
	if v, _, err := c.Service(t.Context(), population, "pets"); err != nil || v.Title != "Pets" || v.Rights != 4 {
		t.Error("a preview changed something", v, err)
	}
	done, err := c.RefreshDescription(t.Context(), population, d.ID, admin.Refresh{Apply: diff.Digest})
	if err != nil || !done.Applied || !slices.Equal(done.Differences, want) || done.Description.ID != d.ID {
		t.Errorf("%+v, %v", done, err)
	}
	v := done.Description.Services[0]
	if v.URL != elsewhere || v.Rights != 3 || !slices.Equal(v.Endpoints, []admin.Endpoint{{Method: "GET", Path: "/hidden"}, {Method: "PUT", Path: "/later"},
		{Method: "GET", Path: "/animals/*", Generated: true}, {Method: "GET", Path: "/pets", Generated: true}}) {
		t.Errorf("%+v", v)
	}

	// From now on the document is a file.
	diff, err = c.RefreshDescription(t.Context(), population, d.ID, admin.Refresh{Document: petstore})
	if err != nil {
		t.Fatal(err)
	}
	done, err = c.RefreshDescription(t.Context(), population, d.ID, admin.Refresh{Document: petstore, Apply: diff.Digest})
	if err != nil || done.Description.URL != "" || !strings.HasPrefix(done.Description.File, "descriptions/") {
		t.Errorf("%+v, %v", done, err)
	}
	service, _ := w.fresh().Service(w.service(population + "/pets"))
	if b, err := w.conf.Document(service.Description); err != nil || string(b) != petstore {
		t.Errorf("%q, %v", b, err)
	}
	w.refused(first(c.RefreshDescription(t.Context(), population, d.ID, admin.Refresh{})), 422, guard.CodeInvalid, "not at a URL")
	w.refused(first(c.RefreshDescription(t.Context(), population, d.ID, admin.Refresh{URL: "http://x", Document: "y"})), 422, guard.CodeInvalid, "")
	if err := c.DeleteDescription(t.Context(), population, d.ID, "*"); err != nil {
		t.Error(err)
	}
	if files, err := os.ReadDir(filepath.Join(w.dir, "descriptions")); err != nil || len(files) != 0 {
		t.Error("the document outlives its description", files, err)
	}
}

// wsdlOf makes a WSDL document with operations at an address.
func wsdlOf(address string, operations ...string) string {
	var b strings.Builder
	b.WriteString(`<definitions xmlns="http://schemas.xmlsoap.org/wsdl/" xmlns:s="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:x="http://x-road.eu/xsd/xroad.xsd" xmlns:t="urn:t" targetNamespace="urn:t">` +
		`<binding name="b" type="t:p"><s:binding transport="http://schemas.xmlsoap.org/soap/http"/>`)
	for _, o := range operations {
		name, version, _ := strings.Cut(o, "/")
		fmt.Fprintf(&b, `<operation name="%s"><x:version>%s</x:version></operation>`, name, version)
	}
	fmt.Fprintf(&b, `</binding><service name="s"><port name="p" binding="t:b"><s:address location="%s"/></port></service></definitions>`, address)
	return b.String()
}

func TestWSDL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.as(admin.RoleServiceAdministrator)
	notice, no := "soon", false
	d, err := c.AddDescription(t.Context(), population, admin.NewDescription{Type: serverconf.WSDL, Document: wsdlOf("http://localhost/soap", "find/v1", "find/v2", "change", "listMethods"),
		ServiceURL: "http://backend.test/soap", Timeout: "7s", Enabled: &no, Notice: notice})
	if err != nil || len(d.Services) != 3 || d.Enabled || d.Notice != notice || len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], "listMethods is not taken") {
		t.Fatalf("%+v, %v", d, err)
	}
	for _, s := range d.Services {
		if s.URL != "http://backend.test/soap" || s.Timeout != "7s" || s.Enabled {
			t.Errorf("%+v", s)
		}
	}
	for document, want := range map[string]string{
		wsdlOf("http://x", "change"):      "already",
		wsdlOf("http://x", "persons"):     "already",
		wsdlOf("", "new"):                 "--service-url",
		wsdlOf("http://x", "getWsdl"):     "no operations but",
		wsdlOf("http://x", "a%b"):         "not allowed",
		wsdlOf("http://x", "persons/new"): "rights are to all",
	} {
		if _, err := c.AddDescription(t.Context(), population, admin.NewDescription{Type: serverconf.WSDL, Document: document}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	timeout := "30s"
	if _, err := c.ChangeService(t.Context(), population, "find/v1", "*", admin.ServiceChange{Timeout: &timeout, All: true}); err != nil {
		t.Error(err)
	}
	for _, code := range []string{"find", "change"} {
		if _, err := c.Grant(t.Context(), population, admin.NewRight{Service: code, Subject: consumer}); err != nil {
			t.Fatal(err)
		}
	}
	// One version goes, one comes, and one service goes with its right.
	document := wsdlOf("http://localhost/soap", "find/v2", "find/v3")
	diff, err := c.RefreshDescription(t.Context(), population, d.ID, admin.Refresh{Document: document})
	if err != nil || len(diff.RightsLost) != 1 || diff.RightsLost[0].Service != "change" || !slices.Equal(diff.Differences, []admin.Difference{
		{Kind: admin.Added, Service: "find/v3", What: "at http://backend.test/soap"},
		{Kind: admin.Removed, Service: "find/v1", What: "at http://backend.test/soap"},
		{Kind: admin.Removed, Service: "change", What: "at http://backend.test/soap"},
	}) {
		t.Fatalf("%+v, %v", diff, err)
	}
	done, err := c.RefreshDescription(t.Context(), population, d.ID, admin.Refresh{Document: document, Apply: diff.Digest})
	if err != nil || len(done.Description.Services) != 2 || done.Description.Enabled || done.Description.ID == d.ID {
		t.Fatalf("%+v, %v", done, err)
	}
	for _, s := range done.Description.Services {
		if s.Timeout != "30s" || s.Rights != 1 {
			t.Errorf("%+v", s)
		}
	}
	w.refused(first(c.RefreshDescription(t.Context(), population, done.Description.ID, admin.Refresh{Document: wsdlOf("http://x", "persons")})), 409, guard.CodeExists, "another description")
	w.refused(first(c.RefreshDescription(t.Context(), population, d.ID, admin.Refresh{Document: document})), 404, guard.CodeUnknown, "")
}

// A document may be larger than other calls, but not without bounds.
func TestLargeDocument(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	large := wsdlOf("http://x/soap", "large") + strings.Repeat("\n", 3<<20)
	if _, err := w.root.AddDescription(t.Context(), population, admin.NewDescription{Type: serverconf.WSDL, Document: large}); err != nil {
		t.Error(err)
	}
	huge := wsdlOf("http://x/soap", "huge") + strings.Repeat(" ", 8<<20)
	w.refused(first(w.root.AddDescription(t.Context(), population, admin.NewDescription{Type: serverconf.WSDL, Document: huge})), 422, guard.CodeInvalid, "larger than")
	huge = strings.Repeat(" ", 30<<20)
	w.refused(first(w.root.AddDescription(t.Context(), population, admin.NewDescription{Type: serverconf.WSDL, Document: huge})), 413, guard.CodeTooLarge, "")
}

// SOAP services have versions, and rights cover them all.
func TestVersions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v1, v2 := "v1", "v2"
	err := w.conf.Update(func(m *serverconf.Model) error {
		m.Clients[1].Descriptions = append(m.Clients[1].Descriptions, serverconf.DescriptionEntry{Type: serverconf.WSDL,
			Services: []serverconf.ServiceEntry{{Code: "soap", Version: &v1, URL: "http://x"}, {Code: "soap", Version: &v2, URL: "http://x"}}})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.root.Grant(t.Context(), population, admin.NewRight{Service: "soap", Subject: consumer}); err != nil {
		t.Fatal(err)
	}
	if rights, err := w.root.Access(t.Context(), "", "soap", ""); err != nil || len(rights) != 1 {
		t.Error(rights, err)
	}
	for _, v := range []string{v1, v2} {
		if x, err := w.root.TestAccess(t.Context(), consumer, population+"/soap/"+v, "", ""); err != nil || !x.Works {
			t.Error(x, err)
		}
		s, _, err := w.root.Service(t.Context(), population, "soap/"+v)
		if err != nil || s.Name != "soap/"+v {
			t.Error(s, err)
		}
	}
	w.refused(first(w.root.TestAccess(t.Context(), consumer, population+"/soap/v1", "GET", "/")), 422, guard.CodeInvalid, "SOAP")
	d, _, err := w.root.Service(t.Context(), population, "soap:v2")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.root.DeleteDescription(t.Context(), population, d.Description, "*"); err != nil {
		t.Error(err)
	}
	if rights, err := w.root.Access(t.Context(), "", "soap", ""); err != nil || len(rights) != 0 {
		t.Error(rights, err)
	}
}

func TestAccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.as(admin.RoleServiceAdministrator)
	until := w.real().Add(time.Hour).Truncate(time.Second)
	r, err := c.Grant(t.Context(), population, admin.NewRight{Service: "persons", Subject: consumer, Method: "get", Path: "/a/*", Expires: until, Note: "agreement"})
	if err != nil || r.Method != "GET" || !r.Expires.Equal(until) || r.Note != "agreement" || r.Problem != "" {
		t.Fatal(r, err)
	}
	for name, tc := range map[string]struct {
		n    admin.NewRight
		want string
	}{
		"twice":           {admin.NewRight{Service: "persons", Subject: consumer, Method: "GET", Path: "/a/*"}, "already"},
		"no service":      {admin.NewRight{Service: "none", Subject: consumer}, "no service"},
		"no subject":      {admin.NewRight{Service: "persons", Subject: "x"}, "malformed"},
		"no local group":  {admin.NewRight{Service: "persons", SubjectType: admin.SubjectLocalGroup, Subject: "x"}, "no local group"},
		"empty group":     {admin.NewRight{Service: "persons", SubjectType: admin.SubjectLocalGroup}, "missing"},
		"no global group": {admin.NewRight{Service: "persons", SubjectType: admin.SubjectGlobalGroup, Subject: "x"}, "malformed"},
		"method":          {admin.NewRight{Service: "persons", Subject: consumer, Method: "FETCH"}, "method"},
		"path":            {admin.NewRight{Service: "persons", Subject: consumer, Path: "a"}, "must begin"},
		"past":            {admin.NewRight{Service: "persons", Subject: consumer, Expires: until.AddDate(-1, 0, 0)}, "past"},
	} {
		if _, err := c.Grant(t.Context(), population, tc.n); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v, err := c.Grant(t.Context(), population, admin.NewRight{Service: "persons", Subject: "DEV/GOV/9/unknown"}); err != nil || !strings.Contains(v.Problem, "knows no such client") {
		t.Error(v, err)
	}
	if v, err := c.Grant(t.Context(), population, admin.NewRight{Service: "persons", Subject: "DEV/GOV/2002"}); err != nil || !strings.Contains(v.Problem, "subsystems") {
		t.Error(v, err)
	}
	if v, err := c.Grant(t.Context(), population, admin.NewRight{Service: "persons", SubjectType: admin.SubjectGlobalGroup, Subject: "DEV/none"}); err != nil || !strings.Contains(v.Problem, "no such group") {
		t.Error(v, err)
	}
	_, etag, err := c.Right(t.Context(), population, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	other := "other"
	if v, err := c.ChangeRight(t.Context(), population, r.ID, etag, admin.RightChange{Never: true, Note: &other}); err != nil || !v.Expires.IsZero() || v.Note != other || v.ID != r.ID {
		t.Error(v, err)
	}
	w.refused(first(c.ChangeRight(t.Context(), population, r.ID, etag, admin.RightChange{Never: true})), 412, guard.CodeChangedMeanwhile, "")
	w.refused(first(c.ChangeRight(t.Context(), population, r.ID, "*", admin.RightChange{Never: true, Expires: &until})), 422, guard.CodeInvalid, "both")
	past := until.AddDate(-1, 0, 0)
	w.refused(first(c.ChangeRight(t.Context(), population, r.ID, "*", admin.RightChange{Expires: &past})), 422, guard.CodeInvalid, "past")
	if v, err := c.ChangeRight(t.Context(), population, r.ID, "*", admin.RightChange{Expires: &until}); err != nil || !v.Expires.Equal(until) {
		t.Error(v, err)
	}
	if mine, err := c.Access(t.Context(), "", "", consumer); err != nil || len(mine) != 1 || mine[0].ID != r.ID {
		t.Error(mine, err)
	}
	w.shift.Add(int64(2 * time.Hour))
	if mine, err := c.Access(t.Context(), "", "", consumer); err != nil || len(mine) != 1 || mine[0].Problem != "it has expired" {
		t.Error(mine, err)
	}
	if err := c.Revoke(t.Context(), population, r.ID, "*"); err != nil {
		t.Error(err)
	}
	w.refused(c.Revoke(t.Context(), population, r.ID, "*"), 404, guard.CodeUnknown, "")
}

func TestExplainsAccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	notice := "shut"
	err := w.conf.Update(func(m *serverconf.Model) error {
		e := &m.Clients[1]
		e.Groups = []serverconf.GroupEntry{{Code: "partners", Members: []id.Client{client(t, consumer)}}}
		e.Descriptions = append(e.Descriptions,
			serverconf.DescriptionEntry{Type: serverconf.REST, Disabled: &notice, Services: []serverconf.ServiceEntry{{Code: "closed", URL: "http://x"}}},
			serverconf.DescriptionEntry{Type: serverconf.REST, Services: []serverconf.ServiceEntry{{Code: "nobody", URL: "http://x"}}})
		e.Access = []serverconf.AccessEntry{
			{Service: "persons", Client: client(t, portal), Method: "GET", Path: "/a/*"},
			{Service: "persons", Client: client(t, portal), Method: "GET", Path: "/old/**", Expires: w.real().Add(-time.Hour)},
			{Service: "persons", Group: "partners", Method: "POST"},
			{Service: "persons", GlobalGroup: group(t, "DEV/all"), Path: "/g/**"},
			{Service: "persons", Client: client(t, "DEV/GOV/1001")},
			{Service: "closed", Client: client(t, portal)},
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		client, service, method, path string
		allowed, works                bool
		reason                        string // of the verdict
		decides                       int    // which rule; -1: none
		rule                          int    // a rule and why it does not allow
		because                       string
	}{
		"by client":           {portal, "persons", "GET", "/a/1", true, true, "allowed by right", 0, 2, "not in the local group"},
		"method":              {portal, "persons", "DELETE", "/a/1", false, false, "no right allows it", -1, 0, "for method GET"},
		"method ignores case": {portal, "persons", "get", "/a/1", true, true, "", 0, 1, "does not match"},
		"path":                {portal, "persons", "GET", "/a/1/2", false, false, "no right allows it", -1, 0, "does not match /a/*"},
		"expired":             {portal, "persons", "GET", "/old/1", false, false, "expired", -1, 1, "it expired on"},
		"local group":         {consumer, "persons", "POST", "/x", true, true, "", 2, 0, "another client"},
		"global group":        {consumer, "persons", "GET", "/g/1", true, true, "", 3, 2, "for method POST"},
		"both groups":         {consumer, "persons", "POST", "/g/1", true, true, "", 2, 0, ""},
		"member only":         {"DEV/GOV/1001/extra", "persons", "GET", "/", false, false, "", -1, 4, "does not stand for its subsystems"},
		"the member":          {"DEV/GOV/1001", "persons", "GET", "/", true, true, "", 4, 0, "another client"},
		"bad path":            {portal, "persons", "GET", "/a/../b", false, false, "the path is refused", -1, -1, ""},
		"escaped":             {portal, "persons", "GET", "/%61/1", true, true, "", 0, -1, ""},
		"disabled":            {portal, "closed", "GET", "/", true, false, "", 0, -1, ""},
		"no right":            {portal, "nobody", "GET", "/", false, false, "no right to the service at all", -1, -1, ""},
		"no service":          {portal, "none", "GET", "/", false, false, "no such service", -1, -1, ""},
		"unknown client":      {"DEV/GOV/9/9", "persons", "GET", "/", false, false, "", -1, -1, ""},
		"unregistered":        {"DEV/GOV/1001/extra", "nobody", "", "", false, false, "", -1, -1, ""},
	} {
		x, err := w.root.TestAccess(t.Context(), tc.client, population+"/"+tc.service, tc.method, tc.path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		decides := slices.IndexFunc(x.Rules, func(r admin.Rule) bool { return r.Decides })
		if x.Allowed != tc.allowed || x.Works != tc.works || !strings.Contains(x.Reason, tc.reason) || decides != tc.decides || x.Reason == "" {
			t.Errorf("%s: %+v", name, x)
		}
		if tc.because != "" && !strings.Contains(x.Rules[tc.rule].Reason, tc.because) {
			t.Errorf("%s: rule %d: %+v", name, tc.rule, x.Rules[tc.rule])
		}
		if x.Works == (len(x.Problems) > 0 || !x.Allowed) {
			t.Errorf("%s: %+v", name, x)
		}
		s, ok := w.conf.Conf().Service(w.service(population + "/" + tc.service))
		if !ok {
			continue
		}
		err = w.conf.Conf().Authorise(client(t, tc.client), s, tc.method, tc.path, w.view.Load().InGlobalGroup)
		if tc.method != "" && (err == nil) != x.Allowed {
			t.Errorf("%s: the gateway says %v", name, err)
		}
	}
}

// Of many operators who change the same state, one does.
func TestOneOfManyWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, etag, err := w.root.Service(t.Context(), population, "persons")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	won := 0
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rec := w.raw(w.secret, http.MethodPatch, "/api/v1/clients/DEV:GOV:1001:population/services/persons",
				fmt.Sprintf(`{"url":"http://backend.test/%d"}`, i), "If-Match", etag)
			mu.Lock()
			defer mu.Unlock()
			switch rec.Code {
			case http.StatusOK:
				won++
			case http.StatusPreconditionFailed:
			default:
				t.Error(rec.Code, rec.Body)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d operators changed the same state", won)
	}
}

// Changes of different things at once are all kept.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			for _, call := range [][2]string{
				{"/api/v1/clients/DEV:GOV:1001:population/access", fmt.Sprintf(`{"service":"persons","subject":"%s","path":"/%d"}`, consumer, i)},
				{"/api/v1/clients/DEV:GOV:1001:portal/descriptions", fmt.Sprintf(`{"type":"REST","code":"s%d","url":"http://x"}`, i)},
				{"/api/v1/clients", fmt.Sprintf(`{"id":"DEV/GOV/1001/c%d"}`, i)},
				{"/api/v1/api-keys", fmt.Sprintf(`{"name":"k%d","roles":["observer"]}`, i)},
			} {
				if rec := w.raw(w.secret, http.MethodPost, call[0], call[1]); rec.Code != http.StatusCreated {
					t.Error(call, rec.Code, rec.Body)
				}
			}
			w.api.Follow()
		})
	}
	wg.Wait()
	conf := w.fresh()
	p, _ := conf.Client(client(t, population))
	q, _ := conf.Client(client(t, portal))
	if len(p.Services[0].Rights) != 13 || len(q.Services) != 12 || len(conf.Clients()) != 14 {
		t.Error(len(p.Services[0].Rights), len(q.Services), len(conf.Clients()))
	}
	done := 0
	for _, r := range w.audit() {
		if r.Outcome == guard.Done {
			done++
		}
	}
	if done != 48 {
		t.Errorf("%d changes in the audit log", done)
	}
}

// A file that somebody has broken is not overwritten.
func TestBrokenFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := filepath.Join(w.dir, "serverconf.yaml")
	if err := os.WriteFile(file, []byte("clients: [{idd: x}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.refused(first(w.root.AddClient(t.Context(), admin.NewClientEntry{ID: "DEV/GOV/1001/extra"})), 500, "configuration_file", "idd")
	if _, err := w.root.Clients(t.Context()); err != nil {
		t.Error(err)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	w.refused(first(w.root.AddClient(t.Context(), admin.NewClientEntry{ID: "DEV/GOV/1001/extra"})), 500, "configuration_file", "no such file")
}
