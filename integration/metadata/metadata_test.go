// SPDX-License-Identifier: Apache-2.0

// Package metadata_test asks security servers about themselves and their
// clients, as X-Road's and GovStack's clients do.
package metadata_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"kontor/config"
	"kontor/gateway/serverconf"
	"kontor/integration/testnet"
	"kontor/registry"
	"kontor/registry/globalconf"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

const jsonType = "application/json; charset=utf-8"

// internals are what no public text may show.
var internals = regexp.MustCompile(`127\.\d|/tmp|\.go:\d|goroutine|dial tcp|read tcp|0x[0-9a-f]{6}|%!`)

// Descriptions from files, and over TLS by the rules of their services.
func TestGetOpenAPIElsewhere(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	n.Service.Handle(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, openapiJSON) })
	for name, content := range map[string]string{"x.yaml": "openapi: 3.0.0\nservers: [{url: 'http://10.1.2.3/v1'}]\n", "x.json": openapiJSON} {
		if err := os.WriteFile(filepath.Join(n.B.Cfg.DataDir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.B.Configure(func(m *serverconf.Model) {
		pinned, unpinned := testnet.Entry(m, testnet.Population), testnet.Entry(m, testnet.Census)
		last := len(pinned.Descriptions) - 1
		secure, no := pinned.Descriptions[last].Services[0].URL, false
		add := func(e *serverconf.ClientEntry, code, url, file string, verify *bool) {
			e.Descriptions = append(e.Descriptions, serverconf.DescriptionEntry{Type: serverconf.OpenAPI3, URL: url, File: file,
				Services: []serverconf.ServiceEntry{{Code: code, URL: secure, VerifyTLS: verify}}})
		}
		add(pinned, "yaml", "", "x.yaml", nil)
		add(pinned, "json", "", "x.json", nil)
		add(pinned, "gone", "", "gone.yaml", nil)
		add(pinned, "pinned", secure+"/x", "", nil)
		add(unpinned, "unpinned", secure+"/x", "", nil)
		add(unpinned, "unchecked", secure+"/y", "", &no)
	})
	const wantYAML, wantJSON = "openapi: 3.0.0\nservers: [{url: '/v1'}]\n", `{"openapi":"3.0.3","servers":[{"url": "/v1"}],"paths":{}}`
	for _, tt := range []struct{ owner, code, kind, want string }{
		{provider, "yaml", "application/yaml", wantYAML},
		{provider, "json", "application/json", wantJSON},
		{provider, "pinned", "text/plain; charset=utf-8", wantJSON},
		{testnet.Census, "unchecked", "text/plain; charset=utf-8", wantJSON},
	} {
		res := n.Call(testnet.Portal, "GET", testnet.Path(tt.owner+"/getOpenAPI?serviceCode="+tt.code), nil)
		if res.Status != http.StatusOK || res.Header.Get("Content-Type") != tt.kind || string(res.Body) != tt.want {
			t.Errorf("%s: %d %v %s", tt.code, res.Status, res.Header, res.Body)
		}
	}
	refused(t, ask(n, testnet.Portal, "getOpenAPI?serviceCode=gone"), "server.serverproxy.internal_error", "cannot be read")
	refused(t, n.Call(testnet.Portal, "GET", testnet.Path(testnet.Census+"/getOpenAPI?serviceCode=unpinned"), nil),
		"server.serverproxy.ssl_authentication_failed", "not registered")
}

// refused checks a fault.
func refused(t *testing.T, res *testnet.Result, code, cause string) {
	t.Helper()
	if res.Err != nil || res.Code != code || !regexp.MustCompile(cause).MatchString(res.Fault.Message) {
		t.Errorf("%q: %s %v; want %q with %q", res.Code, res.Fault.Message, res.Err, code, cause)
	}
	if m := internals.FindString(res.Fault.Message); m != "" {
		t.Errorf("the text shows %q: %s", m, res.Fault.Message)
	}
}

// valid checks a document with xmllint against the schema of the answers, and
// against X-Road's own if KONTOR_XROAD_SCHEMAS names the folder that has
// service-metainfo.xsd.
func valid(t *testing.T, doc []byte) {
	t.Helper()
	xmllint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Log("xmllint is not installed: the answer is not checked against the schema")
		return
	}
	schemas := []string{filepath.Join("testdata", "metadata.xsd")}
	// The published schema has no getWsdlResponse; only the WSDL has.
	if dir := os.Getenv("KONTOR_XROAD_SCHEMAS"); dir != "" && !bytes.Contains(doc, []byte("getWsdlResponse")) {
		schemas = append(schemas, filepath.Join(dir, "service-metainfo.xsd"))
	}
	for _, schema := range schemas {
		cmd := exec.Command(xmllint, "--nonet", "--noout", "--schema", schema, "-")
		cmd.Stdin = bytes.NewReader(doc)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s\n%s", out, doc)
		}
	}
}

// services gives gateway B one service of every kind, with documents at the
// information system.
func services(n *testnet.Network) {
	n.B.Configure(func(m *serverconf.Model) {
		e := testnet.Entry(m, testnet.Population)
		system := strings.TrimSuffix(e.Descriptions[0].Services[0].URL, "/persons")
		at := func(path string) string { return system + path }
		v1, notice := "v1", "closed"
		e.Descriptions = []serverconf.DescriptionEntry{
			{Type: serverconf.OpenAPI3, URL: at("/openapi"), Services: []serverconf.ServiceEntry{{Code: "api", URL: at("/api"), Timeout: time.Second,
				Endpoints: []serverconf.EndpointEntry{
					{Endpoint: serverconf.Endpoint{Method: "GET", Path: "/pets"}}, {Endpoint: serverconf.Endpoint{Method: "POST", Path: "/pets"}},
					{Endpoint: serverconf.Endpoint{Method: "GET", Path: "/pets/*"}}}}}},
			{Type: serverconf.OpenAPI3, URL: at("/unused"), Disabled: &notice, Services: []serverconf.ServiceEntry{{Code: "closed", URL: at("/closed")}}},
			{Type: serverconf.OpenAPI3, URL: "http://no-such-host.invalid/x", Services: []serverconf.ServiceEntry{{Code: "nowhere", URL: at("/")}}},
			{Type: serverconf.OpenAPI3, URL: strings.Replace(system, ":8000", ":1", 1) + "/x", Services: []serverconf.ServiceEntry{{Code: "dead", URL: at("/")}}},
			{Type: serverconf.OpenAPI3, Services: []serverconf.ServiceEntry{{Code: "bare", URL: at("/")}}},
			{Type: serverconf.REST, Services: []serverconf.ServiceEntry{{Code: "rest", URL: at("/rest")}}},
			{Type: serverconf.WSDL, URL: at("/wsdl"), Services: []serverconf.ServiceEntry{
				{Code: "soap", URL: at("/soap"), Timeout: time.Second}, {Code: "soap", Version: &v1, URL: at("/soap"), Timeout: time.Second}, {Code: "other", URL: at("/soap")}}},
			{Type: serverconf.WSDL, Services: []serverconf.ServiceEntry{{Code: "undescribed", URL: at("/soap")}}},
		}
		portal := testnet.ClientID(testnet.Portal)
		e.Access = []serverconf.AccessEntry{
			{Service: "api", Client: portal, Method: "GET", Path: "/pets/*"},
			{Service: "api", Client: portal, Method: "GET", Path: "/pets"},
			{Service: "rest", Client: portal},
			{Service: "soap", Client: portal},
		}
	})
}

const provider = testnet.Population

// ask makes a REST call to a metadata service of the provider.
func ask(n *testnet.Network, client, service string) *testnet.Result {
	return n.Call(client, "GET", testnet.Path(provider+"/"+service), nil)
}

// askSOAP makes a SOAP call to a metadata service of the provider.
func askSOAP(n *testnet.Network, client, service, body string) *testnet.Result {
	e := testnet.Envelope{Client: client, Service: provider + "/" + service, ID: "meta-" + service, Body: body}
	return n.SOAP("text/xml; charset=UTF-8", strings.NewReader(e.String()))
}

func element(name, content string) string {
	return "<x:" + name + ` xmlns:x="http://x-road.eu/xsd/xroad.xsd">` + content + "</x:" + name + ">"
}

func TestListClients(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	get := func(query string, header ...string) *testnet.Result {
		t.Helper()
		res := n.Call("", "GET", "/listClients"+query, nil, header...)
		if res.Err != nil || res.Status != http.StatusOK {
			t.Fatalf("%s: %d, %v", query, res.Status, res.Err)
		}
		return res
	}
	for name, query := range map[string]string{"own": "", "named": "?xRoadInstance=TEST", "blank": "?xRoadInstance=%20", "other parameters": "?instance=X"} {
		res := get(query)
		if got := res.Header.Get("Content-Type"); got != "text/xml; charset=UTF-8" {
			t.Errorf("%s: content type %q", name, got)
		}
		valid(t, res.Body)
		for _, want := range []string{"<id:memberCode>2002</id:memberCode>\n            <id:subsystemCode>population</id:subsystemCode>\n        </xroad:id>\n        <xroad:name>Member 2002</xroad:name>",
			`<xroad:id id:objectType="MEMBER">`} {
			if !strings.Contains(string(res.Body), want) {
				t.Errorf("%s: no %s in\n%s", name, want, res.Body)
			}
		}
	}
	for _, accept := range []string{"application/json", "text/xml;q=1.0, application/json;q=0.1", "nonsense, Application/JSON; charset=x", "*;q=.2, application/json"} {
		res := get("", "Accept: "+accept)
		var list struct {
			Member []struct {
				ID            map[string]string
				Name          string
				SubsystemName string `json:"subsystem_name"`
			}
		}
		if err := json.Unmarshal(res.Body, &list); err != nil || res.Header.Get("Content-Type") != jsonType {
			t.Fatalf("%s: %v, %s", accept, err, res.Header)
		}
		found := false
		for _, m := range list.Member {
			found = found || m.Name == "Member 2002" && fmt.Sprint(m.ID) == "map[member_class:GOV member_code:2002 object_type:SUBSYSTEM subsystem_code:population xroad_instance:TEST]"
		}
		if !found {
			t.Errorf("%s: %s", accept, res.Body)
		}
	}
	for _, accept := range []string{"", "*/*", "nonsense", "text/html, *; q=.2", ";;;", strings.Repeat("a/b,", 1000)} {
		if res := get("", "Accept: "+accept); !strings.HasPrefix(string(res.Body), "<?xml") {
			t.Errorf("Accept %.20q: %.100s", accept, res.Body)
		}
	}

	// What X-Road refuses: by a SOAP fault, with status 200.
	fault := func(res *testnet.Result, code, text string) {
		t.Helper()
		if res.Status != http.StatusOK || !strings.Contains(string(res.Body), "<faultcode>"+code+"</faultcode>") || !strings.Contains(string(res.Body), text) {
			t.Errorf("%d %s, want %s", res.Status, res.Body, code)
		}
	}
	fault(get("?xRoadInstance=NOWHERE"), "server.clientproxy.internal_error", "Shared params for instance identifier NOWHERE not found")
	for _, path := range []string{"/listClients/", "/listClients/x", "/x/listClients", "/verificationconf/x"} {
		fault(n.Call("", "GET", path, nil), "client.invalid_http_method", "")
	}
	if res := n.Call("", "HEAD", "/listClients", nil); len(res.Body) > 0 {
		t.Errorf("HEAD: %s", res.Body)
	}
	n.A.Advance(48 * time.Hour)
	fault(get(""), "server.clientproxy.global_conf_outdated", "expired")
	fault(n.Call("", "GET", "/verificationconf", nil), "server.clientproxy.global_conf_outdated", "expired")
}

func TestVerificationConf(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	res := n.Call("", "GET", "/verificationconf", nil)
	if res.Status != http.StatusOK || res.Header.Get("Content-Type") != "application/zip" || res.Header.Get("Content-Disposition") != `filename="verificationconf.zip"` {
		t.Fatalf("%d %v %.200s", res.Status, res.Header, res.Body)
	}
	z, err := zip.NewReader(bytes.NewReader(res.Body), int64(len(res.Body)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got[f.Name] = string(b)
	}
	if len(got) != 3 || got["verificationconf/instance-identifier"] != testnet.Instance ||
		!regexp.MustCompile(`^\{"configurationVersion":"\d+"\}$`).MatchString(got["verificationconf/TEST/shared-params.xml.metadata"]) ||
		!strings.Contains(got["verificationconf/TEST/shared-params.xml"], "<instanceIdentifier>TEST</instanceIdentifier>") {
		t.Errorf("%.300q", got)
	}

	// Verifiers read the folder as it is.
	dir := t.TempDir()
	for name, content := range got {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	view, err := globalconf.LoadDir(filepath.Join(dir, "verificationconf"))
	if err != nil || view.Instance() != testnet.Instance || !view.Known(testnet.ClientID(testnet.Portal)) {
		t.Errorf("%v %v", view, err)
	}
}

// The clients of an instance are listed by whoever has its configuration.
func TestFederatedClients(t *testing.T) {
	federate := func(_ string, c *config.Gateway) { c.GlobalConf.Federations = []string{"all"} }
	n := testnet.Start(t, testnet.Options{Gateway: federate})
	other := testnet.Start(t, testnet.Options{Instance: "PARTNER"})
	list := func() string { return string(n.Call("", "GET", "/listClients?xRoadInstance=PARTNER", nil).Body) }
	if got := list(); !strings.Contains(got, "server.clientproxy.internal_error") {
		t.Errorf("before: %s", got)
	}
	anchor, err := other.Registry().ExternalAnchor()
	if err != nil {
		t.Fatal(err)
	}
	n.Apply(&registry.TrustAnchor{Instance: "PARTNER", Anchor: anchor})
	testnet.Eventually(t, func() error {
		if got := list(); !strings.Contains(got, "<id:xRoadInstance>PARTNER</id:xRoadInstance>") || strings.Contains(got, ">TEST<") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	valid(t, []byte(list()))
	if got := string(n.Call("", "GET", "/listClients", nil).Body); strings.Contains(got, "PARTNER") {
		t.Error("the own instance lists clients of the other")
	}
	res := n.Call("", "GET", "/verificationconf", nil)
	z, err := zip.NewReader(bytes.NewReader(res.Body), int64(len(res.Body)))
	if err != nil || len(z.File) != 5 {
		t.Errorf("%v, %+v", err, z)
	}
}

func TestMethodsREST(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	services(n)
	const owner = `"object_type":"SERVICE","xroad_instance":"TEST","member_class":"GOV","member_code":"2002","subsystem_code":"population"`
	service := func(code, kind, endpoints string) string {
		return "{" + owner + `,"service_code":"` + code + `","service_type":"` + kind + `","endpoint_list":[` + endpoints + "]}"
	}
	const one, two, three = `{"method":"GET","path":"/pets"}`, `{"method":"POST","path":"/pets"}`, `{"method":"GET","path":"/pets/*"}`
	all := service("api", "OPENAPI", one+","+two+","+three) + "," + service("closed", "OPENAPI", "") + "," + service("nowhere", "OPENAPI", "") + "," +
		service("dead", "OPENAPI", "") + "," + service("bare", "OPENAPI", "") + "," + service("rest", "REST", "")
	for _, tt := range []struct{ client, path, want string }{
		{testnet.Portal, "listMethods", all},
		{testnet.Stranger, "listMethods", all},
		{testnet.Portal, "listMethods/whatever?serviceId=x", all},
		{testnet.Portal, "allowedMethods", service("api", "OPENAPI", one+","+three) + "," + service("rest", "REST", "")},
		{testnet.Stranger, "allowedMethods", ""},
	} {
		res := ask(n, tt.client, tt.path)
		if got := strings.TrimSpace(string(res.Body)); res.Status != http.StatusOK || res.Header.Get("Content-Type") != "application/json" || got != `{"service":[`+tt.want+"]}" {
			t.Errorf("%s of %s: %d %v\n%s\nwant %s", tt.path, tt.client, res.Status, res.Header, got, tt.want)
		}
	}
	if got := n.Service.Requests(); len(got) > 0 {
		t.Errorf("the information system was asked: %+v", got)
	}

	// It is a message like any other: signed, logged, time-stamped on both sides.
	res := n.Call(testnet.Portal, "GET", testnet.Path(provider+"/listMethods"), nil, "X-Road-Id: meta-1")
	if res.Status != http.StatusOK {
		t.Fatal(res.Status, string(res.Body))
	}
	for _, side := range []struct {
		g      *testnet.Gateway
		holder string
	}{{n.A, testnet.Portal}, {n.B, provider}} {
		proofs := n.Proofs(side.g, side.holder, "meta-1")
		if len(proofs) != 2 || !bytes.Equal(proofs[1].Body, res.Body) {
			t.Errorf("gateway %s: %d proofs", side.g.Name, len(proofs))
		}
	}

	// Only GET, and only of clients that are here.
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		refused(t, n.Call(testnet.Portal, method, testnet.Path(provider+"/listMethods"), nil), "server.serverproxy.unknown_service", "listMethods")
	}
	refused(t, ask(n, testnet.Portal, "getWsdl"), "server.serverproxy.unknown_service", "getWsdl")
	refused(t, ask(n, testnet.Portal, "listmethods"), "server.serverproxy.unknown_service", "listmethods")
	refused(t, n.Call(testnet.Portal, "GET", testnet.Path("TEST/GOV/2002/nobody/listMethods"), nil), "server.clientproxy.unknown_member", "nobody")
	refused(t, n.Call(testnet.Portal, "GET", "/r1/TEST/GOV/2002/listMethods", nil), "server.clientproxy.internal_error", "")
	n.B.Configure(func(m *serverconf.Model) { testnet.Entry(m, testnet.Census).Status = serverconf.Disabled })
	refused(t, n.Call(testnet.Portal, "GET", testnet.Path(testnet.Census+"/listMethods"), nil), "server.serverproxy.service_failed.unknown_member", "census")
}

func TestMethodsSOAP(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	services(n)
	body := regexp.MustCompile(`(?s)<soapenv:Body>(.*)</soapenv:Body>`)
	codes := regexp.MustCompile(`<id:serviceCode>(\w+)</id:serviceCode>\n(?:        <id:serviceVersion>(\w+)<)?`)
	for _, tt := range []struct{ client, service, want string }{
		{testnet.Portal, "listMethods", "soap soap/v1 other undescribed "},
		{testnet.Stranger, "listMethods", "soap soap/v1 other undescribed "},
		{testnet.Portal, "allowedMethods", "soap soap/v1 "},
		{testnet.Stranger, "allowedMethods", ""},
	} {
		res := askSOAP(n, tt.client, tt.service, element(tt.service, ""))
		if res.Status != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/xml") {
			t.Errorf("%s: %d %v %s", tt.service, res.Status, res.Header, res.Body)
			continue
		}
		m := body.FindSubmatch(res.Body)
		if m == nil || res.Code != "" {
			t.Errorf("%s: %s", tt.service, res.Body)
			continue
		}
		valid(t, m[1])
		got := ""
		for _, s := range codes.FindAllSubmatch(m[1], -1) {
			got += string(s[1])
			if len(s[2]) > 0 {
				got += "/" + string(s[2])
			}
			got += " "
		}
		if got != tt.want {
			t.Errorf("%s of %s lists %q, want %q", tt.service, tt.client, got, tt.want)
		}
	}
	if proofs := n.Proofs(n.B, provider, "meta-listMethods"); len(proofs) != 4 {
		t.Errorf("%d proofs of two exchanges", len(proofs))
	}
	refused(t, askSOAP(n, testnet.Portal, "getOpenAPI", ""), "server.serverproxy.unknown_service", "getOpenAPI")
	refused(t, askSOAP(n, testnet.Portal, "listMethods", element("getWsdl", "")), "client.inconsistent_headers", "")
}

const openapiJSON = `{"openapi":"3.0.3","servers":[{"url":"http://10.1.2.3:8080/v1"}],"paths":{}}`

func TestGetOpenAPI(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	services(n)
	serve := func(kind, content string) {
		n.Service.Handle(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			if kind != "" {
				w.Header().Set("Content-Type", kind)
			}
			_, _ = io.WriteString(w, content)
		})
	}
	hidden := strings.Replace(openapiJSON, `:"http://10.1.2.3:8080/v1"`, `: "/v1"`, 1)
	for _, tt := range []struct{ kind, content, want string }{
		{"application/json", openapiJSON, hidden},
		{"application/json;charset=utf-8", openapiJSON, hidden},
		{"", openapiJSON, hidden},
		{"text/plain", openapiJSON, hidden},
		{"application/x-yaml", "openapi: 3.0.0\nservers: [{url: 'http://10.1.2.3/v1'}]\n", "openapi: 3.0.0\nservers: [{url: '/v1'}]\n"},
		{"application/json", "{}" + strings.Repeat(" ", 2<<20), "{}" + strings.Repeat(" ", 2<<20)},
	} {
		serve(tt.kind, tt.content)
		// Whoever is in the network may read it, and the name of the parameter may be in any case.
		res := ask(n, testnet.Stranger, "getOpenAPI?x=1&SERVICECODE=x&servicecode=api")
		kind := tt.kind
		if kind == "" {
			kind = "text/plain"
		}
		if res.Status != http.StatusOK || res.Header.Get("Content-Type") != kind || string(res.Body) != tt.want {
			t.Errorf("%s: %d %v %.300s %s", tt.kind, res.Status, res.Header, res.Body, res.Fault.Message)
		}
	}
	last := n.Service.Requests()[len(n.Service.Requests())-1]
	if last.Method != "GET" || last.URI != "/openapi" || last.Header.Get("X-Road-Client") != "" {
		t.Errorf("the document was fetched by %+v", last)
	}

	const broken = "server.serverproxy.internal_error"
	for query, want := range map[string][2]string{
		"":                     {"server.serverproxy.invalid_request", "Missing serviceCode"},
		"?serviceCode=":        {"server.serverproxy.invalid_request", "Missing serviceCode"},
		"?serviceCode=%20":     {"server.serverproxy.invalid_request", "serviceCode"},
		"?serviceCode=nobody":  {broken, "Service not found: SERVICE:TEST/GOV/2002/population/nobody"},
		"?serviceCode=rest":    {broken, "Invalid service type: REST"},
		"?serviceCode=soap":    {broken, "Invalid service type: WSDL"},
		"?serviceCode=bare":    {broken, "has no description"},
		"?serviceCode=nowhere": {"server.serverproxy.unknown_host", "description"},
		"?serviceCode=dead":    {"server.serverproxy.network_error", "description"},
	} {
		refused(t, ask(n, testnet.Portal, "getOpenAPI"+query), want[0], want[1])
	}
	for name, tt := range map[string]struct {
		handle http.HandlerFunc
		code   string
		cause  string
	}{
		"redirects": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:80/secret", http.StatusFound)
		}, broken, "302"},
		"not found":       {http.NotFound, broken, "404"},
		"no OpenAPI":      {func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "<html>") }, broken, "cannot|can be passed on"},
		"another version": {func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, `{"openapi":"2.0"}`) }, broken, "version is not 3"},
		"silent":          {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "server.serverproxy.io_error", "did not answer within 1s"},
		"slow": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(" "))
				_ = http.NewResponseController(w).Flush()
				time.Sleep(50 * time.Millisecond)
			}
		}, "server.serverproxy.io_error", "did not answer within 1s"},
		"hangs up": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("{"))
			panic(http.ErrAbortHandler)
		}, "server.serverproxy.io_error", "no proper answer"},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			for b := bytes.Repeat([]byte(" "), 1<<20); r.Context().Err() == nil; {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}, broken, "too large"},
	} {
		n.Service.Handle(tt.handle)
		t.Log(name)
		refused(t, ask(n, testnet.Portal, "getOpenAPI?serviceCode=api"), tt.code, tt.cause)
	}
}

const wsdlDocument = `<?xml version="1.0"?>
<wsdl:definitions xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/" xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/">
<wsdl:service name="s"><wsdl:port><soap:address location="http://10.1.2.3/soap"/></wsdl:port></wsdl:service></wsdl:definitions>
`

func TestGetWSDL(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	services(n)
	n.Service.Handle(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		_, _ = io.WriteString(w, wsdlDocument)
	})
	get := func(content string) *testnet.Result {
		return askSOAP(n, testnet.Stranger, "getWsdl", element("getWsdl", content))
	}
	const code, version = "<x:serviceCode>soap</x:serviceCode>", "<x:serviceVersion>v1</x:serviceVersion>"
	for _, question := range []string{code, code + version} {
		res := get(question)
		media, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
		if err != nil || media != "multipart/related" || params["type"] != "text/xml" || params["charset"] != "UTF-8" {
			t.Fatalf("%v %s %v", err, res.Body, res.Header)
		}
		parts, header, err := testnet.ReadRelated(params["boundary"], res.Body)
		if err != nil || len(parts) != 2 {
			t.Fatalf("%d parts, %v", len(parts), err)
		}
		m := regexp.MustCompile(`(?s)<soapenv:Body>(.*)</soapenv:Body>`).FindSubmatch(parts[0].Content)
		if m == nil {
			t.Fatalf("%s", parts[0].Content)
		}
		valid(t, m[1])
		if want := strings.Replace(wsdlDocument, "http://10.1.2.3/soap", "http://example.org/xroad-endpoint", 1); string(parts[1].Content) != want {
			t.Errorf("%s", parts[1].Content)
		}
		if header[1].Get("Content-Type") != "text/xml" || header[1].Get("Content-Transfer-Encoding") != "binary" ||
			!regexp.MustCompile(`^<wsdl=[0-9a-f-]{36}@x-road\.eu>$`).MatchString(header[1].Get("Content-Id")) {
			t.Errorf("%v", header[1])
		}
	}
	for question, want := range map[string][2]string{
		"":                                      {"server.serverproxy.invalid_request", "Missing serviceCode"},
		"<x:serviceCode> </x:serviceCode>":      {"server.serverproxy.invalid_request", "Missing serviceCode"},
		"<serviceCode>soap</serviceCode>":       {"server.serverproxy.invalid_request", "Missing serviceCode"},
		"<x:serviceCode>nobody</x:serviceCode>": {"server.serverproxy.unknown_service", "Could not find wsdl URL for service SERVICE:TEST/GOV/2002/population/nobody"},
		code + "<x:serviceVersion>v2</x:serviceVersion>": {"server.serverproxy.unknown_service", "soap/v2"},
		"<x:serviceCode>undescribed</x:serviceCode>":     {"server.serverproxy.unknown_service", "undescribed"},
		"<x:serviceCode>rest</x:serviceCode>":            {"server.serverproxy.service_type", "REST service"},
		"<x:serviceCode>api</x:serviceCode>":             {"server.serverproxy.service_type", "REST service"},
	} {
		refused(t, get(question), want[0], want[1])
	}
	n.Service.Handle(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>`)
	})
	refused(t, get(code), "server.serverproxy.internal_error", "document type")
}
