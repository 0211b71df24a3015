// SPDX-License-Identifier: Apache-2.0

package description_test

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf16"

	"kontor/gateway/description"
)

const petstore = `openapi: 3.0.3
info: {title: Pets, version: "1"}
servers:
  - url: "https://{host}/v1"
    variables: {host: {default: pets.example}}
  - url: https://other.example
paths:
  /pets:
    get: {responses: {200: {description: ok}}}
    post: {responses: {"201": {description: ok}}}
  /pets/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get: {responses: {200: {$ref: "#/components/responses/pet"}}}
  /files/{name}.{type}/a*b%20c:
    parameters:
      - {name: name, in: path, required: true, schema: {type: string}}
      - {name: type, in: path, required: true, schema: {type: string}}
    delete: {responses: {200: {description: ok}}}
components:
  responses:
    pet: {description: one, content: {application/json: {schema: {$ref: "#/components/schemas/Pet"}}}}
  schemas:
    Pet: {type: object, properties: {parent: {$ref: "#/components/schemas/Pet"}, name: {type: string}}}
`

func from(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestReadOpenAPI(t *testing.T) {
	t.Parallel()
	endpoints := []description.Endpoint{{Method: "DELETE", Path: `/files/*/a\*b c`}, {Method: "GET", Path: "/pets"}, {Method: "POST", Path: "/pets"}, {Method: "GET", Path: "/pets/*"}}
	d, err := description.ReadOpenAPI([]byte(petstore), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &description.Document{Title: "Pets", Services: []description.Service{{Title: "Pets", URL: "https://pets.example/v1", Endpoints: endpoints}}}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("%+v", d)
	}

	json := `{"openapi":"3.1.0","info":{"title":"T","version":"1"},"servers":[{"url":"../v2"}],` +
		`"paths":{"/a/{x}":{"$ref":"#/components/pathItems/a"},"/a/{y}":{"$ref":"#/components/pathItems/a"}},` +
		`"components":{"pathItems":{"a":{"get":{"responses":{"200":{"description":""}}}}}}}`
	d, err = description.ReadOpenAPI([]byte(json), from(t, "http://10.0.0.1:8000/docs/openapi.json"))
	if err != nil || d.Services[0].URL != "http://10.0.0.1:8000/v2" || !reflect.DeepEqual(d.Services[0].Endpoints, []description.Endpoint{{Method: "GET", Path: "/a/*"}}) {
		t.Errorf("%+v, %v", d, err)
	}
	for address, want := range map[string]string{
		``:                               "http://x/",
		`servers: [{url: /v1}]`:          "http://x/v1",
		`servers: [{url: "http://y/v"}]`: "http://y/v",
		`servers: [{url: "//y/v"}]`:      "http://y/v",
		`servers: [{url: "/{v}"}]`:       "",
		`servers: [{url: "/{v}/{w}", variables: {v: {default: a}, w: {default: b}}}]`: "http://x/a/b",
	} {
		d, err := description.ReadOpenAPI([]byte("openapi: 3.0.0\ninfo: {title: t, version: v}\npaths: {}\n"+address), from(t, "http://x/d/o.yaml"))
		if err != nil || d.Services[0].URL != want {
			t.Errorf("%s: %+v, %v", address, d, err)
		}
	}
}

// What is wrong but readable is warned of.
func TestOpenAPIWarnings(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"openapi: 3.0.0\npaths: {}": "violates the specification",
		"openapi: 3.0.0\ninfo: {title: t, version: v}\npaths: {/a: {get: {responses: {200: {$ref: 'http://169.254.169.254/x.yaml'}}}}}":                    "1 references to other documents",
		"openapi: 3.0.0\ninfo: {title: t, version: v}\npaths: {/a: {get: {responses: {200: {$ref: '/etc/passwd'}}}}}":                                      "1 references to other documents",
		"openapi: 3.0.0\ninfo: {title: t, version: v}\npaths: {/a: {connect: {responses: {200: {description: x}}}}}":                                       "CONNECT /a is not taken",
		"openapi: 3.1.0\ninfo: {title: t, version: v}\npaths: {}\ncomponents: {schemas: {a: {discriminator: {propertyName: x, mapping: {a: b.yaml#/c}}}}}": "1 references to other documents",
	} {
		d, err := description.ReadOpenAPI([]byte(content), nil)
		if err != nil || len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], want) {
			t.Errorf("%s: %+v, %v", content, d, err)
		}
	}
}

func TestReadOpenAPIRefuses(t *testing.T) {
	t.Parallel()
	const head = "openapi: 3.0.0\ninfo: {title: t, version: v}\n"
	bomb := head + "x-a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c < 'j'; c++ {
		bomb += fmt.Sprintf("x-%c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 10))
	}
	many := head + "paths:\n"
	for i := range description.MaxEndpoints + 1 {
		many += fmt.Sprintf("  /%d: {get: {}}\n", i)
	}
	for name, tc := range map[string]struct{ content, want string }{
		"huge":            {head + strings.Repeat(" ", description.MaxSize), "larger than"},
		"empty":           {"", "neither JSON nor YAML"},
		"no object":       {"[]", "no object"},
		"HTML":            {"<html></html>", "no object"},
		"Swagger":         {`swagger: "2.0"`, "Swagger"},
		"no version":      {"a: b", "no openapi version"},
		"4.0":             {"openapi: 4.0.0", "4.0.0"},
		"two documents":   {head + "---\na: b", "more than one"},
		"twice in YAML":   {head + "paths: {}\npaths: {}", "stands twice"},
		"twice in JSON":   {`{"openapi":"3.0.0","openapi":"3.0.0"}`, "stands twice"},
		"merge":           {head + "paths: {/a: {<<: {get: {}}}}", "merge key"},
		"complex key":     {head + "? [a]\n: b", "no scalar"},
		"deep JSON":       {`{"openapi":"3.0.0","x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "}", "levels deep"},
		"deep YAML":       {head + "x: " + strings.Repeat("[", 200) + strings.Repeat("]", 200), "levels deep"},
		"bomb":            {bomb, "values"},
		"itself":          {head + "x: &x [*x]", "levels deep"},
		"many values":     {head + "x: [" + strings.Repeat("a,", 600_000) + "]", "values"},
		"many operations": {many, "operations"},
		"path":            {head + "paths: {a: {}}", "begin with /"},
		"long path":       {`{"openapi":"3.0.0","paths":{"/` + strings.Repeat("a", 2000) + `":{"get":{}}}}`, "longer than"},
		"path elsewhere":  {head + "paths: {/a: {$ref: 'http://127.0.0.1/a.yaml'}}", "another document"},
		"path nowhere":    {head + "paths: {/a: {$ref: '#/x'}}", "not there"},
		"path in circles": {head + "paths: {/a: {$ref: '#/paths/~1b'}, /b: {$ref: '#/paths/~1a'}}", "no end"},
		"path no object":  {head + "paths: {/a: 1}", "no object"},
		"bomb of text":    {head + "x-a: &a " + strings.Repeat("a", 100_000) + "\nx-b: [" + strings.Repeat("*a, ", 1000) + "]", "unfolds"},
		"bomb of keys":    {head + "x-a: &a {" + strings.Repeat("a", 1000) + ": 1}\nx-b: [" + strings.Repeat("*a, ", 20_000) + "]", "unfolds"},
		"bomb of servers": {head + "paths: {}\nservers: [{url: 'http://x/" + strings.Repeat("{a}", 1000) + "', variables: {a: {default: " + strings.Repeat("a", 10_000) + "}}}]", "longer than"},
		"server":          {head + "paths: {}\nservers: [{url: 'http://[x'}]", "no URL"},
		"wrong type":      {head + "paths: []", ""},
	} {
		start := time.Now()
		_, err := description.ReadOpenAPI([]byte(tc.content), nil)
		if !errors.Is(err, description.ErrDocument) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s took %s", name, took)
		}
	}
}

// Documents on which a check of the whole would take long do not keep the
// reader busy.
func TestEntangledSchemas(t *testing.T) {
	t.Parallel()
	document := func(operations int, schemas func(*strings.Builder)) string {
		var b strings.Builder
		b.WriteString("openapi: 3.0.0\ninfo: {title: t, version: v}\npaths:\n")
		for i := range operations {
			fmt.Fprintf(&b, "  /%d: {get: {responses: {200: {description: x, content: {a/b: {schema: {$ref: '#/components/schemas/s0'}}}}}}}\n", i)
		}
		b.WriteString("components:\n  schemas:\n")
		schemas(&b)
		return b.String()
	}
	circle := func(n int) func(*strings.Builder) {
		return func(b *strings.Builder) {
			for i := range n {
				fmt.Fprintf(b, "    s%d: {allOf: [{$ref: '#/components/schemas/s%d'}]}\n", i, (i+1)%n)
			}
		}
	}
	everyToEvery := func(n int) func(*strings.Builder) {
		return func(b *strings.Builder) {
			for i := range n {
				fmt.Fprintf(b, "    s%d: {allOf: [", i)
				for j := range n {
					fmt.Fprintf(b, "{$ref: '#/components/schemas/s%d'},", j)
				}
				b.WriteString("]}\n")
			}
		}
	}
	wide := func(n int) func(*strings.Builder) {
		return func(b *strings.Builder) {
			b.WriteString("    s0:\n      properties:\n")
			for i := range n {
				fmt.Fprintf(b, "        p%d: {type: string}\n", i)
			}
		}
	}
	for name, tc := range map[string]struct {
		document string
		checked  bool
	}{
		"short circle":          {document(1, circle(400)), true},
		"long circle":           {document(1, circle(20_000)), false},
		"few every to every":    {document(1, everyToEvery(20)), true},
		"many every to every":   {document(1, everyToEvery(150)), false},
		"wide, referred often":  {document(400, wide(10_000)), false},
		"wide, referred seldom": {document(20, wide(10_000)), true},
	} {
		done := make(chan bool, 1)
		go func() {
			d, err := description.ReadOpenAPI([]byte(tc.document), nil)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if checked := len(d.Warnings) == 0; checked != tc.checked {
				t.Errorf("%s: %q", name, d.Warnings)
			}
			done <- true
		}()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatalf("%s: still busy", name)
		}
	}
}

const wsdl = `<?xml version="1.0" encoding="UTF-8"?>
<w:definitions xmlns:w="http://schemas.xmlsoap.org/wsdl/" xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:soap12="http://schemas.xmlsoap.org/wsdl/soap12/"
  xmlns:xrd="http://x-road.eu/xsd/xroad.xsd" xmlns="urn:t" targetNamespace="urn:t" name="Register">
  <w:types><s:schema xmlns:s="http://www.w3.org/2001/XMLSchema"><s:import namespace="urn:x" schemaLocation="http://169.254.169.254/x.xsd"/></s:schema></w:types>
  <w:portType name="type">
    <w:operation name="find"><w:documentation><xrd:title>Find &amp; tell</xrd:title></w:documentation></w:operation>
    <w:operation name="change"/>
  </w:portType>
  <w:binding name="soap11" type="type">
    <soap:binding transport="http://schemas.xmlsoap.org/soap/http"/>
    <w:operation name="find"><xrd:version> v1 </xrd:version></w:operation>
    <w:operation name="find"><xrd:version>v2</xrd:version></w:operation>
    <w:operation name="change"/>
  </w:binding>
  <w:binding name="soap12" type="type">
    <soap12:binding transport="http://schemas.xmlsoap.org/soap/http"/>
    <w:operation name="change"/>
    <w:operation name="only12"/>
  </w:binding>
  <w:binding name="mail" type="type"><soap:binding transport="http://schemas.xmlsoap.org/soap/smtp"/><w:operation name="mail"/></w:binding>
  <w:binding name="get" type="type"><w:operation name="get"/></w:binding>
  <w:service name="register">
    <w:port name="p12" binding="soap12"><soap12:address location="http://x/12"/></w:port>
    <w:port name="p11" binding="soap11"><soap:address location="http://x/11?a=b"/></w:port>
    <w:port name="mail" binding="mail"/>
    <w:port name="get" binding="get"/>
  </w:service>
</w:definitions>`

func TestReadWSDL(t *testing.T) {
	t.Parallel()
	d, err := description.ReadWSDL([]byte(wsdl))
	if err != nil {
		t.Fatal(err)
	}
	want := &description.Document{Title: "Register", Services: []description.Service{
		{Code: "find", Version: "v1", Title: "Find & tell", URL: "http://x/11?a=b"},
		{Code: "find", Version: "v2", Title: "Find & tell", URL: "http://x/11?a=b"},
		{Code: "change", URL: "http://x/11?a=b"},
		{Code: "only12", URL: "http://x/12"},
	}, Warnings: []string{"operation change at port p12 is not taken: another port offers it"}}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("%+v", d)
	}
}

// The registry's own description.
func TestManagementServices(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../registry/management/managementservices.wsdl")
	if err != nil {
		t.Fatal(err)
	}
	d, err := description.ReadWSDL(b)
	if err != nil || len(d.Services) != 10 || d.Services[0].URL != "https://localhost:4002/managementservice/manage/" || len(d.Warnings) != 0 {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestReadWSDLRefuses(t *testing.T) {
	t.Parallel()
	replace := func(old, new string) string {
		if !strings.Contains(wsdl, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(wsdl, old, new, 1)
	}
	operations := "<w:definitions xmlns:w='http://schemas.xmlsoap.org/wsdl/' xmlns:soap='http://schemas.xmlsoap.org/wsdl/soap/'><w:binding name='b'><soap:binding transport='http://schemas.xmlsoap.org/soap/http'/>"
	for i := range description.MaxServices + 1 {
		operations += fmt.Sprintf("<w:operation name='o%d'/>", i)
	}
	operations += "</w:binding><w:service><w:port binding='b'/></w:service></w:definitions>"
	for name, tc := range map[string]struct{ content, want string }{
		"huge":            {wsdl + strings.Repeat(" ", description.MaxSize), "larger than"},
		"empty":           {"", "empty"},
		"HTML":            {"<html></html>", "no WSDL"},
		"2.0":             {"<description xmlns='http://www.w3.org/ns/wsdl'/>", "2.0"},
		"DOCTYPE":         {replace("<w:definitions", "<!DOCTYPE w:definitions [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>\n<w:definitions"), "document type"},
		"entity":          {replace("Find &amp; tell", "&bomb;"), "entity"},
		"cut off":         {wsdl[:len(wsdl)-5], "EOF"},
		"two roots":       {wsdl + "<a/>", "second document element"},
		"text":            {wsdl + "x", "outside"},
		"encoding":        {replace("UTF-8", "EBCDIC"), "encoding"},
		"attribute twice": {replace(`name="Register"`, `name="a" name="b"`), "twice"},
		"deep":            {"<a>" + strings.Repeat("<b>", 200), "levels deep"},
		"no binding":      {replace(`binding="soap11"`, `binding="none"`), `no binding "none"`},
		"other namespace": {replace(`xmlns="urn:t"`, `xmlns="urn:u"`), "no binding"},
		"imported":        {replace("<w:types>", "<w:import namespace='urn:u' location='http://127.0.0.1/'/><w:types>"), ""},
		"nothing":         {"<w:definitions xmlns:w='http://schemas.xmlsoap.org/wsdl/'/>", "no service"},
		"import only":     {"<w:definitions xmlns:w='http://schemas.xmlsoap.org/wsdl/'><w:import/></w:definitions>", "not read"},
		"no name":         {replace(`<w:operation name="only12"/>`, `<w:operation/>`), "without a name"},
		"twice":           {replace(`<w:operation name="only12"/>`, `<w:operation name="change"/>`), "of one version"},
		"address":         {replace(`http://x/12`, `http://[`), "no URL"},
		"operations":      {operations, "operations"},
		"ports":           {replace(`<w:port name="get" binding="get"/>`, strings.Repeat(`<w:port name="get" binding="get"/>`, 300)), "ports"},
		"elements":        {"<a>" + strings.Repeat("<b/>", 300_000), "elements"},
	} {
		_, err := description.ReadWSDL([]byte(tc.content))
		if name == "imported" { // an import that is not needed does no harm
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if !errors.Is(err, description.ErrDocument) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFetch(t *testing.T) {
	t.Parallel()
	asked := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			fmt.Fprint(w, "content")
		case "/huge":
			w.Write(make([]byte, description.MaxSize+1)) //nolint:errcheck // the reader hangs up
		case "/elsewhere":
			http.Redirect(w, r, "/secret", http.StatusFound)
		case "/secret":
			asked = true
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	b, err := description.Fetch(t.Context(), server.URL+"/ok", nil)
	if err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
	for url, want := range map[string]string{
		server.URL + "/huge":      "larger than",
		server.URL + "/elsewhere": "redirect",
		server.URL + "/none":      "status 404",
		"ftp://x/":                "not an http",
		"file:///etc/passwd":      "not an http",
		"http://127.0.0.1:1/":     "refused",
		":":                       "URL",
	} {
		if _, err := description.Fetch(t.Context(), url, nil); !errors.Is(err, description.ErrFetch) || !strings.Contains(err.Error(), want) && want != "URL" {
			t.Errorf("%s: %v", url, err)
		}
	}
	if asked {
		t.Error("the redirect was followed")
	}
	secure := httptest.NewTLSServer(server.Config.Handler)
	defer secure.Close()
	if _, err := description.Fetch(t.Context(), secure.URL+"/ok", &tls.Config{MinVersion: tls.VersionTLS12}); !errors.Is(err, description.ErrFetch) {
		t.Errorf("a stranger's certificate: %v", err)
	}
	if _, err := description.Fetch(t.Context(), secure.URL+"/ok", secure.Client().Transport.(*http.Transport).TLSClientConfig); err != nil {
		t.Error(err)
	}
}

// References that lead to themselves, to each other, or to what they cannot
// mean, do not bring the reader down.
func TestStrangeReferences(t *testing.T) {
	t.Parallel()
	kinds := []string{"schemas", "parameters", "headers", "requestBodies", "responses", "securitySchemes", "examples", "links", "callbacks", "pathItems"}
	targets := []string{"#", "#/", "#/info", "#/components", "#/paths", "#/paths/~1p", "#/paths/~1p/get/responses/200", "#/openapi", "#/x/y/z", "#anchor", "#/components/schemas/a/properties/p", "", "a", "?"}
	for _, k := range kinds {
		targets = append(targets, "#/components/"+k+"/a", "#/components/"+k+"/b", "#/components/"+k)
	}
	keywords := []string{"not", "items", "additionalProperties", "if", "contains", "propertyNames", "unevaluatedItems"}
	for _, version := range []string{"3.0.3", "3.1.0"} {
		for _, kind := range kinds {
			for _, to := range targets {
				var b strings.Builder
				fmt.Fprintf(&b, "openapi: %s\ninfo: {title: t, version: v}\npaths: {/p: {get: {parameters: [{$ref: %[2]q}], responses: {200: {$ref: %[2]q}, 201: {description: x, content: {a/b: {schema: {$ref: %[2]q}}}}}, callbacks: {c: {$ref: %[2]q}}}}}\ncomponents:\n", version, to)
				fmt.Fprintf(&b, "  %s:\n    a: {$ref: %q}\n    b: {$ref: '#/components/%s/a'}\n", kind, to, kind)
				if kind == "schemas" {
					fmt.Fprintf(&b, "    c: {allOf: [{$ref: %[1]q}], anyOf: [{$ref: %[1]q}, {$ref: '#/components/schemas/c'}], properties: {p: {$ref: '#/components/schemas/c/properties/p'}}", to)
					for _, k := range keywords {
						fmt.Fprintf(&b, ", %s: {$ref: %q}", k, to)
					}
					b.WriteString("}\n")
				}
				if _, err := description.ReadOpenAPI([]byte(b.String()), nil); err != nil && !errors.Is(err, description.ErrDocument) {
					t.Errorf("%s %s: %v", kind, to, err)
				}
			}
		}
	}
}

// Whatever a document refers to is not asked for.
func TestNothingElseIsRead(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer server.Close()
	const head = "openapi: 3.0.0\ninfo: {title: t, version: v}\n"
	for _, content := range []string{
		head + "paths: {/a: {$ref: '%s/a'}}",
		head + "paths: {/a: {get: {parameters: [{$ref: '%s/a#/x'}], responses: {200: {$ref: '%[1]s/b'}}}}}",
		head + "paths: {}\ncomponents: {schemas: {a: {$ref: '%s/a'}, b: {discriminator: {propertyName: x, mapping: {y: '%[1]s/b'}}}}, examples: {c: {externalValue: '%[1]s/c'}}}",
		head + "paths: {}\nexternalDocs: {url: '%s/a'}\ncomponents: {links: {a: {operationRef: '%[1]s/b'}}, callbacks: {c: {$ref: '%[1]s/c'}}}",
		"openapi: 3.1.0\njsonSchemaDialect: '%s/d'\ninfo: {title: t, version: v}\npaths: {}\nwebhooks: {w: {$ref: '%[1]s/w'}}\ncomponents: {schemas: {a: {$schema: '%[1]s/s', $id: '%[1]s/i', $dynamicRef: '%[1]s/r'}}}",
	} {
		_, _ = description.ReadOpenAPI(fmt.Appendf(nil, content, server.URL), from(t, server.URL+"/document")) // refused or not
	}
	for _, content := range []string{
		strings.Replace(wsdl, "<w:types>", "<w:import namespace='urn:t' location='"+server.URL+"/a'/><w:types>", 1),
		strings.Replace(wsdl, "http://169.254.169.254/x.xsd", server.URL+"/b", 1),
		strings.Replace(wsdl, "<w:definitions", "<!DOCTYPE w:definitions SYSTEM '"+server.URL+"/c'><w:definitions", 1),
		strings.Replace(wsdl, "<w:definitions", "<?xml-stylesheet href='"+server.URL+"/d'?><w:definitions", 1),
	} {
		_, _ = description.ReadWSDL([]byte(content)) // refused or not
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("a server was asked %d times", n)
	}
}

func FuzzOpenAPI(f *testing.F) {
	f.Add([]byte(petstore))
	f.Add([]byte(`{"openapi":"3.1.0","info":{"title":"T","version":"1"},"paths":{"/a/{x}":{"$ref":"#/components/pathItems/a"}},"components":{"pathItems":{"a":{"get":{"callbacks":{"x":{"$ref":"#/components/callbacks/y"}}}}},"callbacks":{"y":{"z":{"$ref":"#/components/pathItems/a"}}}}}`))
	f.Add([]byte(`{"openapi":"3.0.0","components":{"schemas":{"a":{"$ref":"#/components/schemas/b"},"b":{"$ref":"#/components/schemas/a"},"c":{"allOf":[{"$ref":"#/components/schemas/c"}]}},"parameters":{"p":{"$ref":"#/components/parameters/p"}}},"paths":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := description.ReadOpenAPI(b, nil)
		if err == nil && (len(d.Services) != 1 || len(d.Services[0].Endpoints) > description.MaxEndpoints) {
			t.Fatalf("%+v", d)
		}
		if err != nil && !errors.Is(err, description.ErrDocument) {
			t.Fatal(err)
		}
	})
}

// Documents in the encodings that are usual besides UTF-8 say the same.
func TestEncodings(t *testing.T) {
	t.Parallel()
	want, err := description.ReadWSDL([]byte(wsdl))
	if err != nil {
		t.Fatal(err)
	}
	in := func(encoding string) string { return strings.Replace(wsdl, "UTF-8", encoding, 1) }
	wide := func(s string, order binary.AppendByteOrder) string {
		var b []byte
		for _, unit := range utf16.Encode([]rune(s)) {
			b = order.AppendUint16(b, unit)
		}
		return string(b)
	}
	latin := make([]byte, 0, len(wsdl))
	for _, r := range in("iso-8859-1") {
		if r > 0xff {
			t.Fatalf("the document has %q, which is not in ISO 8859-1", r)
		}
		latin = append(latin, byte(r))
	}
	for name, doc := range map[string]string{
		"mark": "\ufeff" + wsdl, "latin": string(latin), "little": wide("\ufeff"+in("UTF-16"), binary.LittleEndian),
		"big": wide("\ufeff"+in("UTF-16"), binary.BigEndian), "without a mark": wide(in("UTF-16BE"), binary.BigEndian),
	} {
		if got, err := description.ReadWSDL([]byte(doc)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, doc := range map[string]string{
		"wide, says narrow": wide("\ufeff"+wsdl, binary.LittleEndian), "narrow, says wide": in("UTF-16"), "half": wide("\ufeff"+in("UTF-16"), binary.BigEndian)[1:],
		"odd": wide("\ufeff"+in("UTF-16"), binary.BigEndian) + "x", "unknown": in("windows-1251"),
	} {
		if got, err := description.ReadWSDL([]byte(doc)); !errors.Is(err, description.ErrDocument) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func FuzzWSDL(f *testing.F) {
	f.Add([]byte("\xfe\xff\x00<\x00a\x00/\x00>"))
	f.Add([]byte("<?xml version='1.0' encoding='ISO-8859-1'?><a>\xfc</a>"))
	f.Add([]byte(wsdl))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := description.ReadWSDL(b)
		if err == nil && (len(d.Services) == 0 || len(d.Services) > description.MaxServices) {
			t.Fatalf("%+v", d)
		}
		if err != nil && !errors.Is(err, description.ErrDocument) {
			t.Fatal(err)
		}
	})
}
