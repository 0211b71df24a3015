// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"kontor/gateway/serverconf"
	"kontor/integration/testnet"
	"kontor/registry"
)

// What an information system may not do, and what it may, by the same table.
func TestRefusals(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	persons := testnet.Path(testnet.Persons)
	tests := []struct {
		name   string
		client string
		tls    string // "": HTTP; "none", "client", "wrong": HTTPS with that certificate
		method string // default GET
		path   string // default persons
		header []string
		code   string // "": it passes
		cause  string
	}{
		{name: "portal by HTTP", client: testnet.Portal},
		{name: "portal by HTTPS", client: testnet.Portal, tls: "none"},
		{name: "no client", code: "server.clientproxy.invalid_client_identifier", cause: "X-Road-Client"},
		{name: "unknown client", client: "TEST/GOV/1001/nobody", code: "server.clientproxy.unknown_member", cause: "nobody"},
		{name: "client of another server", client: testnet.Evil, code: "server.clientproxy.unknown_member", cause: "evil"},
		{name: "client not registered yet", client: testnet.Pending, code: "server.clientproxy.unknown_member", cause: "pending"},
		{name: "malformed client", client: "TEST/GOV", code: "server.clientproxy.internal_error", cause: "(?i)x-road-client"},
		{name: "two clients, the last counts", client: testnet.Portal, header: []string{"X-Road-Client: TEST/GOV/1001/nobody"},
			code: "server.clientproxy.unknown_member", cause: "nobody"},

		{name: "pinned by HTTP", client: testnet.Pinned, code: "server.clientproxy.ssl_authentication_failed", cause: "HTTPS"},
		{name: "pinned without certificate", client: testnet.Pinned, tls: "none", code: "server.clientproxy.ssl_authentication_failed", cause: "certificate"},
		{name: "pinned with a wrong certificate", client: testnet.Pinned, tls: "wrong", code: "server.clientproxy.ssl_authentication_failed", cause: "certificate"},
		{name: "pinned with its certificate", client: testnet.Pinned, tls: "client"},
		{name: "noauth by HTTP", client: testnet.NoAuth, code: "server.clientproxy.ssl_authentication_failed", cause: "HTTPS"},
		{name: "noauth by HTTPS", client: testnet.NoAuth, tls: "none"},
		{name: "noauth with any certificate", client: testnet.NoAuth, tls: "wrong"},

		{name: "unknown provider", client: testnet.Portal, path: "/r1/TEST/GOV/2002/ghost/persons", code: "server.clientproxy.unknown_member", cause: "ghost"},
		{name: "provider on no server", client: testnet.Portal, path: testnet.Path(testnet.Homeless) + "/persons", code: "server.clientproxy.unknown_member", cause: "homeless"},
		{name: "provider of another instance", client: testnet.Portal, path: "/r1/ELSE/GOV/2002/population/persons", code: "server.clientproxy.unknown_member", cause: "ELSE"},
		{name: "path without service", client: testnet.Portal, path: "/r1/TEST/GOV/2002/population", code: "server.clientproxy.internal_error", cause: "/r1/INSTANCE"},
		{name: "method unknown to X-Road", client: testnet.Portal, method: "BREW", code: "server.clientproxy.internal_error", cause: "method"},
		{name: "empty message id", client: testnet.Portal, header: []string{"X-Road-Id:"}, code: "server.clientproxy.internal_error", cause: "(?i)x-road-id"},
		{name: "too many headers", client: testnet.Portal, header: many(250), code: "server.clientproxy.internal_error", cause: "header"},

		{name: "unknown service", client: testnet.Portal, path: testnet.Path(testnet.Population) + "/ghosts", code: "server.serverproxy.unknown_service", cause: "ghosts"},
		{name: "no right", client: testnet.Stranger, code: "server.serverproxy.access_denied", cause: "not allowed"},
		{name: "right to the endpoint", client: testnet.Portal, path: testnet.Path(testnet.Limited) + "/public/a"},
		{name: "no right to the endpoint", client: testnet.Portal, path: testnet.Path(testnet.Limited) + "/private/a", code: "server.serverproxy.access_denied", cause: "not allowed"},
		{name: "no right to the method", client: testnet.Portal, method: "PUT", path: testnet.Path(testnet.Limited) + "/public/a", code: "server.serverproxy.access_denied", cause: "not allowed"},
		{name: "right to the other method", client: testnet.Portal, path: testnet.Path(testnet.Limited) + "/public/a", header: []string{"X-HTTP-Method-Override: GET"}},
		{name: "no right to the other method", client: testnet.Portal, path: testnet.Path(testnet.Limited) + "/public/a", header: []string{"X-Http-Method-Override: PUT"}, code: "server.serverproxy.access_denied", cause: "not allowed"},
		{name: "no right to the other method, as CGI spells it", client: testnet.Portal, path: testnet.Path(testnet.Limited) + "/public/a", header: []string{"X_HTTP_Method_Override: PUT"}, code: "server.serverproxy.access_denied", cause: "not allowed"},
		{name: "disabled service", client: testnet.Portal, path: testnet.Path(testnet.Population) + "/disabled", code: "server.serverproxy.service_disabled", cause: "closed for the winter"},
		{name: "SOAP service", client: testnet.Portal, path: testnet.Path(testnet.Population) + "/soap", code: "server.serverproxy.service_type", cause: "SOAP"},

		{name: "targeted server", client: testnet.Portal, header: []string{"X-Road-Security-Server: " + testnet.Server2}},
		{name: "targeted server unknown", client: testnet.Portal, header: []string{"X-Road-Security-Server: TEST/GOV/2002/ss9"}, code: "server.clientproxy.invalid_security_server", cause: "ss9"},
		{name: "targeted server without provider", client: testnet.Portal, header: []string{"X-Road-Security-Server: " + testnet.Server1}, code: "server.clientproxy.invalid_security_server", cause: "ss1"},
		{name: "targeted server malformed", client: testnet.Portal, header: []string{"X-Road-Security-Server: ss2"}, code: "server.clientproxy.internal_error", cause: "(?i)x-road-security-server"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n.Service.Reset()
			added := count(n)
			method, path := "GET", persons
			if tt.method != "" {
				method = tt.method
			}
			if tt.path != "" {
				path = tt.path
			}
			r := n.NewRequest(tt.client, method, path, nil, tt.header...)
			var rt http.RoundTripper = http.DefaultTransport
			if tt.tls != "" {
				n.ToTLS(r)
				rt = n.HTTPS(tt.tls)
			}
			res := n.Do(rt, r)
			a, b := added()
			if tt.code == "" {
				if res.Err != nil || res.Status != http.StatusOK || string(res.Body) != testnet.Greeting || a != 2 || b != 2 {
					t.Errorf("%+v %s, records %d and %d", res, res.Body, a, b)
				}
				return
			}
			refused(t, res, tt.code, tt.cause)
			untouched(t, n)
			want := 0
			if strings.HasPrefix(tt.code, "server.serverproxy.") {
				want = 1 // signed and sent: the consumer's log knows
			}
			if a != want || b != 0 {
				t.Errorf("%d and %d records were added, want %d and none", a, b, want)
			}
		})
	}
	works(t, n)
}

func many(count int) []string {
	var all []string
	for i := range count {
		all = append(all, fmt.Sprintf("X-Many-%d: v", i))
	}
	return all
}

// The causes of faults are in the log, under the detail; bodies never are.
func TestFaultsAreLoggedUnderTheirDetail(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	secret := "secret-of-the-body"
	res := n.Call(testnet.Portal, "POST", testnet.Path(testnet.Population)+"/dead", strings.NewReader(secret))
	refused(t, res, "server.serverproxy.network_error", "did not accept")
	for _, g := range []*testnet.Gateway{n.A, n.B} {
		found := 0
		for _, e := range g.Logged("exchange failed") {
			if e.ContextMap()["detail"] == res.Fault.Detail {
				found++
			}
		}
		if found != 1 {
			t.Errorf("gateway %s logged the fault %d times", g.Name, found)
		}
		if strings.Contains(g.LogText(), secret) {
			t.Errorf("gateway %s logged the body", g.Name)
		}
	}
	if !strings.Contains(n.B.LogText(), "connection refused") {
		t.Error("the provider's log does not tell the cause")
	}
}

func TestErrorsInTheFormThatTheClientAccepts(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	for accept, want := range map[string]string{
		"":                               "application/json",
		"application/json":               "application/json",
		"text/xml":                       "text/xml;charset=utf-8",
		"text/*":                         "text/xml;charset=utf-8",
		"application/xml;q=0.1":          "application/xml;charset=utf-8",
		"text/html, application/xml":     "application/xml;charset=utf-8",
		"application/json, text/xml":     "text/xml;charset=utf-8",
		"image/png, text/html;level=1,*": "application/json",
	} {
		t.Run(accept, func(t *testing.T) {
			for client, code := range map[string]string{testnet.Stranger: "server.serverproxy.access_denied", testnet.Pending: "server.clientproxy.unknown_member"} {
				res := n.Call(client, "GET", testnet.Path(testnet.Persons), nil, "Accept: "+accept)
				refused(t, res, code, "not allowed|not found")
				if got := res.Header.Get("Content-Type"); got != want {
					t.Errorf("content type %q, want %q", got, want)
				}
			}
		})
	}
}

// Whatever a path may mean to somebody, the service sees only what was
// authorised, byte for byte.
func TestPathTricks(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	base := testnet.Path(testnet.Limited) // GET /public/* only
	for _, path := range []string{
		"/public/../private", "/public/..", "/public/.", "/public/./a", "/public/%2e%2e/private", "/public/%2E%2e/private", "/public/.%2e/private",
		"/public%2Fa", "/public%2fa", "/public/a%2F..%2Fb", "//public/a", "/public//a", "/public/%252e%252e/private", "/public/%252Fa",
		`/public\a`, "/public/%5Ca", "/public/..%5C", "/public/a%00", "/public/a%0a", "/public/a%0d%0aHost:x", "/public/..;/private", "/public/;a/b",
		"/public/%", "/public/%zz", "/public/%c0%ae%c0%ae/private", "/public/%ff", "/public/{a}", "/public/a|b", "/public/a^b", "/public/a`b",
		"/%70ublic/..", "/PUBLIC/a", "/public", "/public/a/b", "/public/a#b",
	} {
		t.Run(path, func(t *testing.T) {
			n.Service.Reset()
			res := rawCall(t, n, "GET", base+path)
			untouched(t, n)
			if res.Status < 400 {
				t.Fatalf("status %d %s", res.Status, res.Body)
			}
			if res.Code != "" {
				publicText(t, res.Fault.Message, ".")
			} else if res.Status != http.StatusBadRequest {
				t.Errorf("status %d without a code", res.Status)
			}
		})
	}
	for _, path := range []string{"/public/a", "/public/a%20b", "/public/", "/%70ublic/a", "/public/a%3Fb", "/public/%C3%A4", "/public/a;v=1", "/public/a?", "/public/a?x=/../%2F&y=%00", "/public/~!$&'()*+,=:@"} {
		t.Run(path, func(t *testing.T) {
			n.Service.Reset()
			res := rawCall(t, n, "GET", base+path)
			if res.Status != http.StatusOK {
				t.Fatalf("status %d %s", res.Status, res.Body)
			}
			got := n.Service.Requests()
			if len(got) != 1 || got[0].URI != "/limited"+path {
				t.Errorf("the service got %+v", got)
			}
		})
	}
	// The right names the cause of a refusal.
	res := rawCall(t, n, "GET", base+"/public/%2e%2e/x")
	refused(t, res, "server.serverproxy.access_denied", "dot segment")
}

// rawCall writes a request line that no client library would.
func rawCall(t *testing.T, n *testnet.Network, method, target string) *testnet.Result {
	t.Helper()
	c, err := net.Dial("tcp", n.A.IP()+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nX-Road-Client: %s\r\nConnection: close\r\n\r\n", method, target, testnet.Portal); err != nil {
		t.Fatal(err)
	}
	res, err := testnet.ReadResult(bufio.NewReader(c), method)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// Heads beyond the limits of HTTP are refused before anything is made of them.
func TestOversizeHead(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	added := count(n)
	for name, r := range map[string]*http.Request{
		"header": n.NewRequest(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil, "X-Long: "+strings.Repeat("x", 100<<10)),
		"target": n.NewRequest(testnet.Portal, "GET", testnet.Path(testnet.Persons)+"/"+strings.Repeat("x", 16<<10), nil),
		"query":  n.NewRequest(testnet.Portal, "GET", testnet.Path(testnet.Persons)+"?"+strings.Repeat("x", 16<<10), nil),
	} {
		t.Run(name, func(t *testing.T) {
			res := n.Do(http.DefaultTransport, r)
			if res.Err == nil && res.Status < 400 {
				t.Errorf("status %d", res.Status)
			}
			if res.Code != "" {
				refused(t, res, "server.clientproxy.internal_error", "too large|longer|bytes")
			}
			untouched(t, n)
		})
	}
	if a, b := added(); a != 0 || b != 0 {
		t.Errorf("%d and %d records", a, b)
	}
	works(t, n)
}

// Changes of registry and configuration take effect, and so do their ends.
func TestChanges(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	server2 := testnet.ServerID(testnet.Server2)
	get := func() *testnet.Result { return n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil) }

	n.Apply(&registry.SetMaintenance{Server: server2, On: true, Message: "back at noon"})
	refused(t, get(), "server.clientproxy.maintenance_mode", "back at noon")
	n.Apply(&registry.SetMaintenance{Server: server2})
	works(t, n)

	n.B.Configure(func(m *serverconf.Model) { testnet.Entry(m, testnet.Population).Status = serverconf.Saved })
	refused(t, get(), "server.serverproxy.service_failed.unknown_member", "population")
	n.B.Configure(func(m *serverconf.Model) { testnet.Entry(m, testnet.Population).Status = serverconf.Registered })
	works(t, n)

	portal := testnet.ClientID(testnet.Portal)
	n.Apply(&registry.UnregisterClient{Server: testnet.ServerID(testnet.Server1), Client: portal})
	// The provider's server refuses at once; soon the consumer's own notices, too.
	if code := get().Code; code != "server.serverproxy.service_failed.ssl_authentication_failed" && code != "server.clientproxy.unknown_member" {
		t.Errorf("code %q", code)
	}
	testnet.Eventually(t, func() error {
		if code := get().Code; code != "server.clientproxy.unknown_member" {
			return fmt.Errorf("code %q", code)
		}
		return nil
	})
	n.Apply(&registry.RegisterClient{Server: testnet.ServerID(testnet.Server1), Client: portal})
	testnet.Eventually(t, func() error {
		if res := get(); res.Status != http.StatusOK {
			return fmt.Errorf("code %q", res.Code)
		}
		return nil
	})
	works(t, n)

	// The provider's certificate is no longer registered: neither direction works.
	cert := n.Certificate(n.B)
	n.Apply(&registry.UnregisterCertificate{Server: server2, Certificate: registry.Hash(cert.Hash())})
	res := get()
	if res.Code != "server.clientproxy.ssl_authentication_failed" && res.Code != "server.clientproxy.network_error" && res.Code != "server.clientproxy.io_error" {
		t.Errorf("code %q", res.Code)
	}
	n.Apply(&registry.RegisterCertificate{Server: server2, Certificate: cert.Cert.Raw})
	n.B.WaitReady()
	works(t, n)
}
