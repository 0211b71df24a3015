// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"kontor/gateway/fault"
)

func TestOriginIsAddedOnce(t *testing.T) {
	t.Parallel()
	e := fault.At(fault.ServerProxy, fault.New(fault.AccessDenied, "no right to %s", "x"))
	if e.Code() != "server.serverproxy.access_denied" || e.Text() != "no right to x" || e.Origin() != fault.ServerProxy {
		t.Errorf("%v", e)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(e.Detail()) {
		t.Errorf("detail %q", e.Detail())
	}
	if again := fault.At(fault.ClientProxy, fmt.Errorf("outer: %w", e)); again != e {
		t.Errorf("changed to %v", again)
	}
	prefixed := fault.At(fault.ClientProxy, fault.New("server.clientproxy.io_error", "x"))
	if prefixed.Code() != "server.clientproxy.io_error" || prefixed.Detail() == "" {
		t.Errorf("%v", prefixed)
	}
	if fault.At(fault.Client, nil) != nil {
		t.Error("no error became a fault")
	}
}

func TestInfix(t *testing.T) {
	t.Parallel()
	e := fault.At(fault.ServerProxy, fault.New(fault.SSLAuthenticationFailed.In(fault.ServiceFailed), "x"))
	if e.Code() != "server.serverproxy.service_failed.ssl_authentication_failed" {
		t.Error(e.Code())
	}
}

func TestRemotePassesUnchanged(t *testing.T) {
	t.Parallel()
	r := fault.Remote("Server.ServerProxy.AccessDenied", "no", "d1")
	e := fault.At(fault.ClientProxy, fault.Wrap(fault.IOError, r, "reading the answer"))
	if e.Code() != r.Code() || e.Text() != "no" || e.Detail() != "d1" || e.Message() != "no" || !e.IsRemote() || e.Origin() != "" {
		t.Errorf("%v", e)
	}
	if c := fault.Remote(" a\r\nb\u00e9 ", "", "").Code(); c != "ab" {
		t.Errorf("code %q could break a header", c)
	}
}

func TestWrapKeepsDeeperCode(t *testing.T) {
	t.Parallel()
	secret := errors.New("dial 10.0.0.1: refused")
	inner := fault.Wrap(fault.NetworkError, secret, "the service did not accept the connection")
	outer := fault.Wrap(fault.IOError, fmt.Errorf("call: %w", inner), "sending")
	e := fault.At(fault.ServerProxy, outer)
	if e.Code() != "server.serverproxy.network_error" || e.Text() != "the service did not accept the connection" {
		t.Errorf("%v", e)
	}
	if !errors.Is(e, secret) || !strings.Contains(e.Error(), "10.0.0.1") || !strings.Contains(e.Error(), "sending") {
		t.Errorf("the log lost the cause: %v", e)
	}
	for _, public := range []string{string(e.JSON()), string(e.XML()), string(e.SOAP())} {
		if strings.Contains(public, "10.0.0.1") {
			t.Errorf("the cause is public: %s", public)
		}
	}
}

func TestUnclassifiedErrorsSayNothing(t *testing.T) {
	t.Parallel()
	e := fault.At(fault.ClientProxy, errors.New("secret"))
	if e.Code() != "server.clientproxy.internal_error" || strings.Contains(string(e.JSON()), "secret") {
		t.Errorf("%s", e.JSON())
	}
	if !strings.Contains(e.Error(), "secret") {
		t.Error("the log lost the cause")
	}
}

func TestMessageNamesHopAndRemedy(t *testing.T) {
	t.Parallel()
	e := fault.At(fault.ServerProxy, fault.New(fault.AccessDenied, "DEV/GOV/1/a may not use DEV/GOV/2/b/c."))
	want := "DEV/GOV/1/a may not use DEV/GOV/2/b/c. Reported by the provider's security server. Remedy: " + e.Remedy() + "."
	if e.Message() != want || e.Remedy() == "" {
		t.Errorf("got  %s\nwant %s", e.Message(), want)
	}
	if r := fault.New(fault.NetworkError.In(fault.ServiceFailed), "x").Remedy(); !strings.Contains(r, "firewalls") {
		t.Errorf("remedy of a code with infix: %q", r)
	}
	if r := fault.Remote("soap:Server", "x", "").Remedy(); r != "" {
		t.Errorf("remedy of an unknown code: %q", r)
	}
}

func TestHTTPStatus(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]int{
		"server.serverproxy.access_denied": 500, "server.clientproxy.io_error": 500,
		"client.invalid_http_method": 400, "Server.ServerProxy.AccessDenied": 400, "server": 400, "x": 400,
	} {
		if have := fault.Remote(code, "", "").HTTPStatus(fault.SnakeCase); have != want {
			t.Errorf("%s: %d, want %d", code, have, want)
		}
	}
}

const awkward = "a<b>&\"c'\r\n\x00\u00e4\xff"

func TestForms(t *testing.T) {
	t.Parallel()
	e := fault.Remote("server.serverproxy.x", awkward, "d&1")
	for form, x := range map[string]struct{ have, want string }{
		"json": {string(e.JSON()),
			`{"type":"server.serverproxy.x","message":"a<b>&\"c'\r\n\u0000` + "\u00e4" + `\ufffd","detail":"d&1"}`},
		"xml": {string(e.XML()),
			`<?xml version="1.0" encoding="UTF-8" standalone="no"?><error><type>server.serverproxy.x</type>` +
				"<message>a&lt;b&gt;&amp;\"c'&#13;\n\ufffd\u00e4\ufffd</message><detail>d&amp;1</detail></error>"},
		"empty xml": {string(fault.Remote("x", "", "").XML()),
			`<?xml version="1.0" encoding="UTF-8" standalone="no"?><error><type>x</type><message/><detail/></error>`},
		"soap": {string(e.SOAP()),
			`<?xml version="1.0" encoding="UTF-8"?><SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/">` +
				`<SOAP-ENV:Body><SOAP-ENV:Fault><faultcode>server.serverproxy.x</faultcode><faultstring>` +
				"a&lt;b&gt;&amp;&quot;c&apos;&#13;\n\ufffd\u00e4\ufffd" +
				`</faultstring><faultactor></faultactor><detail><faultDetail xmlns="">d&amp;1</faultDetail></detail>` +
				`</SOAP-ENV:Fault></SOAP-ENV:Body></SOAP-ENV:Envelope>`},
	} {
		if x.have != x.want {
			t.Errorf("%s:\n%s\nwant\n%s", form, x.have, x.want)
		}
	}
}

func TestNegotiation(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]string{
		"":                                  "application/json",
		"*/*":                               "application/json",
		"application/json":                  "application/json",
		"application/json, text/xml":        "text/xml;charset=utf-8",
		"text/*;q=0.1, application/json":    "text/xml;charset=utf-8",
		"application/xml;q=0.9,text/xml":    "application/xml;charset=utf-8",
		"TEXT/XML ; charset=utf-8":          "text/xml;charset=utf-8",
		"text/html,application/xhtml+xml, ": "application/json",
	} {
		e := fault.Remote("x", "y", "z")
		ct, body := e.NegotiateREST(accept)
		if ct != want {
			t.Errorf("%q: %s, want %s", accept, ct, want)
		}
		if isXML := strings.HasPrefix(string(body), "<?xml"); isXML != strings.Contains(ct, "xml") {
			t.Errorf("%q: %s with body %s", accept, ct, body)
		}
	}
}

func TestSpellings(t *testing.T) {
	t.Parallel()
	for old, want := range map[string]string{
		"Server.ServerProxy.AccessDenied":                         "server.serverproxy.access_denied",
		"Server.ClientProxy.SslAuthenticationFailed":              "server.clientproxy.ssl_authentication_failed",
		"Server.ServerProxy.ServiceFailed.MissingSOAP":            "server.serverproxy.service_failed.missing_soap",
		"Client.InvalidSOAPAction":                                "client.invalid_soap_action",
		"Server.ServerProxy.LoggingFailed.TimestampingFailed":     "server.serverproxy.logging_failed.timestamping_failed",
		"Server.ServerProxy.SignatureVerification.CertValidation": "server.serverproxy.signature_verification.cert_validation",
		"Server.ServerProxy.HashchainUnusedInputs":                "server.serverproxy.hashchain_unused_inputs",
		"server.serverproxy.unknown_service":                      "server.serverproxy.unknown_service",
		"Server.ClientProxy.OutdatedGlobalConf":                   "server.clientproxy.global_conf_outdated",
		"My.NewHTTPThing":                                         "my.new_http_thing",
		"":                                                        "",
	} {
		if have := fault.Normalise(old); have != want {
			t.Errorf("%s: %s, want %s", old, have, want)
		}
		if have := fault.Normalise(fault.Normalise(old)); have != fault.Normalise(old) {
			t.Errorf("%s: not stable: %s", old, have)
		}
	}
	if !fault.Equal("Server.ServerProxy.AccessDenied", "server.serverproxy.access_denied") ||
		fault.Equal("server.serverproxy.access_denied", "server.clientproxy.access_denied") {
		t.Error("Equal")
	}
	err := fmt.Errorf("x: %w", fault.Remote("Server.ServerProxy.ServiceFailed.AccessDenied", "", ""))
	if !fault.Is(err, fault.AccessDenied) || fault.Is(err, "denied") || fault.Is(errors.New("x"), fault.AccessDenied) {
		t.Error("Is")
	}
}

func TestOfIO(t *testing.T) {
	t.Parallel()
	dial := func(err error) error { return &net.OpError{Op: "dial", Err: err} }
	for want, errs := range map[fault.Code][]error{
		fault.UnknownHost:  {dial(&net.DNSError{IsNotFound: true})},
		fault.NetworkError: {dial(syscall.EHOSTUNREACH), fmt.Errorf("x: %w", syscall.ECONNREFUSED)},
		fault.IOError:      {dial(os.ErrDeadlineExceeded), context.DeadlineExceeded, errors.New("x"), &net.OpError{Op: "read", Err: syscall.ECONNRESET}},
	} {
		for _, err := range errs {
			if have := fault.OfIO(err); have != want {
				t.Errorf("%v: %s, want %s", err, have, want)
			}
		}
	}
}

// The table must hold each declared code exactly once.
func TestTableIsComplete(t *testing.T) {
	t.Parallel()
	f, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := map[fault.Code]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			return true
		}
		if typ, ok := v.Type.(*ast.Ident); !ok || typ.Name != "Code" {
			return true
		}
		code, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		declared[fault.Code(code)] = true
		return true
	})
	if len(declared) < 60 {
		t.Fatalf("only %d codes found", len(declared))
	}
	seen := map[fault.Code]bool{}
	for _, e := range fault.Table() {
		if seen[e.Code] || !declared[e.Code] {
			t.Errorf("%s is twice in the table or not declared", e.Code)
		}
		seen[e.Code] = true
		if !strings.HasSuffix(e.Meaning, ".") || e.Remedy == "" || strings.HasSuffix(e.Remedy, ".") || strings.ContainsAny(e.Meaning+e.Remedy, "|\n") {
			t.Errorf("%s: meaning is a sentence, remedy half of one", e.Code)
		}
		if e.Code != fault.Code(fault.Normalise(string(e.Code))) {
			t.Errorf("%s is not its own normal form", e.Code)
		}
	}
	for c := range declared {
		if !seen[c] {
			t.Errorf("%s is not in the table", c)
		}
	}
}

// Codes before X-Road 7.8, as its servers and protocol documents spell them.
func TestStyles(t *testing.T) {
	t.Parallel()
	for code, want := range map[fault.Code]string{
		fault.AccessDenied:          "Server.ServerProxy.AccessDenied",
		fault.IOError:               "Server.ServerProxy.IOError",
		fault.HTTPError:             "Server.ServerProxy.HttpError",
		fault.InvalidSOAPAction:     "Server.ServerProxy.InvalidSoapAction",
		fault.UnknownHost:           "Server.ServerProxy.NetworkError",
		fault.GlobalConfOutdated:    "Server.ServerProxy.OutdatedGlobalConf",
		fault.HashChainUnusedInputs: "Server.ServerProxy.HashChainUnusedInputs",
		fault.ASiCMIMETypeNotFound:  "Server.ServerProxy.AsicMimeTypeNotFound",
		fault.SSLAuthenticationFailed.In(fault.ServiceFailed): "Server.ServerProxy.ServiceFailed.SslAuthenticationFailed",
	} {
		e := fault.At(fault.ServerProxy, fault.New(code, "text"))
		old := e.Spelt(fault.CamelCase)
		if old.Code() != want || old.Text() != e.Text() || old.Detail() != e.Detail() || old.Remedy() != e.Remedy() && code != fault.UnknownHost || !strings.Contains(string(old.SOAP()), "<faultcode>"+want+"<") {
			t.Errorf("%s: %v", code, old)
		}
		if again := fault.Normalise(want); again != e.Code() && code != fault.UnknownHost {
			t.Errorf("%s is understood as %s", want, again)
		}
		if old.HTTPStatus(fault.CamelCase) != 500 || e.HTTPStatus(fault.CamelCase) != 500 {
			t.Errorf("status of %s", want)
		}
		if e.Spelt(fault.SnakeCase) != e || e.Spelt("") != e {
			t.Errorf("%s changes in its own style", code)
		}
	}
	if e := fault.At(fault.Client, fault.New(fault.BadRequest, "x")).Spelt(fault.CamelCase); e.Code() != "Client.BadRequest" || e.HTTPStatus(fault.CamelCase) != 400 {
		t.Error(e)
	}
	if e := fault.Remote("server.serverproxy.access_denied", "x", ""); e.Spelt(fault.CamelCase) != e {
		t.Error("a peer's fault was changed")
	}
	for _, e := range fault.Table() {
		if again := fault.Normalise(fault.Older(string(e.Code))); again != string(e.Code) && e.Code != fault.UnknownHost {
			t.Errorf("%s becomes %s, and that %s", e.Code, fault.Older(string(e.Code)), again)
		}
	}
}

func Example() {
	denied := fault.New(fault.AccessDenied, "DEV/GOV/1001/portal may not use DEV/GOV/2002/population/persons")
	// At the edge of the provider's gateway:
	f := fault.At(fault.ServerProxy, denied)
	fmt.Println(f.HTTPStatus(fault.SnakeCase), f.Code())
	fmt.Println(f.Text())
	// Output:
	// 500 server.serverproxy.access_denied
	// DEV/GOV/1001/portal may not use DEV/GOV/2002/population/persons
}
