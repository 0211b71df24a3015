// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/gateway/admin"
	"kontor/gateway/message"
	"kontor/gateway/serverconf"
	"kontor/integration/testnet"
	"kontor/registry/guard"
)

// ran is what a command did.
type ran struct {
	status    int
	out, errs string
}

// kontor runs a command in this process.
func kontor(t *testing.T, args ...string) ran {
	t.Helper()
	var out, errs bytes.Buffer
	c := newRoot()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&errs)
	c.SetIn(strings.NewReader("from standard input"))
	err := c.ExecuteContext(t.Context())
	r := ran{exitStatus(err), out.String(), errs.String()}
	if err != nil && !errors.Is(err, errReported) {
		r.errs += err.Error()
	}
	return r
}

// holds checks for words.
func (r ran) holds(t *testing.T, status int, words ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("exit status %d, expected %d", r.status, status)
	}
	for _, w := range words {
		if !strings.Contains(r.out+r.errs, w) {
			t.Errorf("it does not say %q", w)
		}
	}
	if t.Failed() {
		t.Logf("%s\n%s", r.out, r.errs)
		t.FailNow()
	}
}

// writeAdminKey gives a gateway an administration key that the command finds.
func writeAdminKey(t *testing.T, c *config.Gateway) {
	t.Helper()
	file := filepath.Join(c.DataDir, "admin-keys.json")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	secret, err := guard.CreateKeys(file, "local", admin.RoleAuditor)
	if err == nil {
		err = os.WriteFile(roles.AdminKeyFile(c), []byte(secret), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// network starts a network whose consumer's gateway can be asked about its
// exchanges, and returns the flags for it.
func network(t *testing.T) (n *testnet.Network, flags []string) {
	n = testnet.Start(t, testnet.Options{Gateway: func(name string, c *config.Gateway) {
		if name == "A" {
			writeAdminKey(t, c)
			c.Listen.Admin = strings.TrimSuffix(c.Listen.Consumer, "8080") + "4000"
			o := &c.OperationalMonitoring
			o.Enabled, o.Keep, o.MaxSize, o.AvailableAfter, o.MaxRecords = true, time.Hour, 1<<20, time.Second, 100
		}
	}})
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	c := &n.A.Cfg
	text := fmt.Sprintf("server: %s\ndata_dir: %s\npin_file: %s\nanchor: %s\nlisten: {admin: %q}\n", c.Server, c.DataDir, c.PINFile, c.Anchor, c.Listen.Admin)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return n, []string{"--gateway", "http://" + c.Listen.Consumer, "--client", testnet.Portal, "--config", file}
}

func TestCall(t *testing.T) {
	t.Parallel()
	n, flags := network(t)
	call := func(args ...string) ran { return kontor(t, append(append([]string{"call"}, flags...), args...)...) }

	t.Run("REST", func(t *testing.T) {
		r := call(testnet.Persons + "/a%20b?c=d")
		r.holds(t, 0)
		if r.out != testnet.Greeting || r.errs != "" {
			t.Errorf("%q, %q", r.out, r.errs)
		}
		got := n.Service.Requests()
		if last := got[len(got)-1]; last.Method != "GET" || last.URI != "/persons/a%20b?c=d" {
			t.Errorf("%s %s", last.Method, last.URI)
		}
	})
	t.Run("body and headers", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "body")
		if err := os.WriteFile(file, []byte(`{"a":1}`), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct{ data, method, want, kind string }{
			{"@" + file, "", `POST {"a":1}`, "application/json"}, {"@-", "put", "PUT from standard input", "text/plain; charset=utf-8"}, {"", "DELETE", "DELETE ", "text/plain; charset=utf-8"},
		} {
			args := []string{testnet.Persons, "-d", test.data, "-H", "X-A: 1", "-H", "X-A: 2", "-H", "X-Road-Id:own", "--user", "EE1", "-i"}
			if test.method != "" {
				args = append(args, "-X", test.method)
			}
			call(args...).holds(t, 0, "HTTP/1.1 200 OK", "X-Road-Id: own")
			got := n.Service.Requests()
			last := got[len(got)-1]
			if s := last.Method + " " + string(last.Body); s != test.want || len(last.Header["X-A"]) != 2 || last.Header.Get("X-Road-Userid") != "EE1" || last.Header.Get("Content-Type") != test.kind {
				t.Errorf("%q %v", s, last.Header)
			}
		}
	})
	t.Run("every hop and the evidence", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "answer")
		r := call(testnet.Persons, "-v", "-o", out, "--wait", "20s")
		r.holds(t, 0, "> GET /r1/"+testnet.Persons, "< HTTP/1.1 200 OK", "no TLS between here and the gateway", "took the request, signed and logged it", "with the network, and the service behind it",
			"verified and logged the response", "Evidence of message", ": verified, signed messages: 2", "certificate status", "time-stamped", "VALID: 2 of 2", "which is no proof against that gateway")
		if b, err := os.ReadFile(out); err != nil || string(b) != testnet.Greeting || r.out != "" {
			t.Errorf("%q, %v", b, err)
		}
		call(testnet.Persons, "-v", "--wait", "20s", "--conf", filepath.Join(n.A.Cfg.DataDir, "globalconf"), "--anchor", n.A.Cfg.Anchor).holds(t, 0, "VALID: 2 of 2", "verified with the anchor")
	})
	t.Run("JSON", func(t *testing.T) {
		r := call(testnet.Persons, "--output", "json")
		var doc callResult
		if err := json.Unmarshal([]byte(r.out), &doc); err != nil || doc.Status != http.StatusOK || doc.Body != testnet.Greeting || doc.Fault != nil || len(doc.Hops) != 3 || doc.Timing.Total == 0 || doc.Evidence != nil {
			t.Errorf("%v: %s", err, r.out)
		}
		r = call(testnet.Persons, "--client", testnet.Stranger, "--output", "json")
		r.holds(t, 1)
		doc = callResult{}
		if err := json.Unmarshal([]byte(r.out), &doc); err != nil || doc.Fault == nil || doc.Fault.Code != "server.serverproxy.access_denied" || doc.Fault.Meaning == "" || doc.Fault.Remedy == "" || strings.Contains(doc.Fault.Text, "Remedy") {
			t.Errorf("%v: %s", err, r.out)
		}
	})
	t.Run("faults", func(t *testing.T) {
		call(testnet.Persons, "--client", testnet.Stranger, "-v", "--wait", "20s").holds(t, 1, "kontor: server.serverproxy.access_denied", "the provider's security server", "ask the provider to grant", "detail",
			"passed the fault on", "signed messages: 1")
		call(testnet.Persons, "--client", testnet.Instance+"/GOV/1001/none", "-v").holds(t, 1, "kontor: server.clientproxy.unknown_member", "the consumer's security server", "took the request, and refused it", "the gateway refuses the evidence, with HTTP status 401")
		call(testnet.Persons, "-H", "Accept: text/xml", "--client", testnet.Stranger).holds(t, 1, "kontor: server.serverproxy.access_denied", "Request is not allowed")
		call(testnet.Population+"/dead").holds(t, 1, "server.serverproxy.network_error", "did not accept the connection")
		n.Service.Handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
		call(testnet.Persons).holds(t, 1, "the service itself answered with HTTP status 404")
		n.Service.Reset()
	})
	t.Run("SOAP", func(t *testing.T) {
		n.Service.Handle(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/xml")
			b, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			e, err := message.ReadEnvelope(b)
			if err != nil || e.UserID == "fault" {
				_, _ = io.WriteString(w, `<S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/"><S:Body><S:Fault><faultcode>S:Server</faultcode><faultstring>no luck</faultstring></S:Fault></S:Body></S:Envelope>`)
				return
			}
			_, _ = w.Write(e.WithBody([]byte("<soapResponse>42</soapResponse>")))
		})
		defer n.Service.Reset()
		call("--soap", testnet.Query, "-d", "<soap/>", "--user", "EE&1").holds(t, 0, "<soapResponse>42<", "<xro:userId>EE&amp;1<")
		call("--soap", testnet.Query, "-v", "--wait", "20s").holds(t, 0, "<soapResponse>42<", "VALID: 2 of 2", "SOAP request")
		call("--soap", testnet.Query, "--user", "fault").holds(t, 1, "kontor: S:Server", "the service itself", "no luck")
		call("--soap", testnet.Query, "-d", "<other/>").holds(t, 2, "-d does not make a SOAP message")
		call("--soap", testnet.Query, "-d", testnet.Envelope{Client: testnet.Portal, Service: testnet.Query, ID: "whole"}.String()).holds(t, 0, "<xro:id>whole<")
		call("--soap", testnet.Population+"/"+serverconf.ListMethods).holds(t, 0, "listMethodsResponse")
		call("--soap", "TEST/GOV/2002/"+serverconf.GetHealthData).holds(t, 1, "server.serverproxy.service_failed.unknown_member") // B keeps no operational data
	})
	t.Run("SOAP with attachments", func(t *testing.T) {
		n.Service.Handle(serveAttached)
		defer n.Service.Reset()
		dir := t.TempDir()
		write := func(name, content string) string {
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			return file
		}
		big := strings.Repeat("0123456789", 300<<10)
		plain, other, long := write("a.txt", "A form.\r\n"), write("b;c", "\x00\xff"), write("long.bin", big)
		attach := []string{"--soap", testnet.Query, "-d", "<soap/>", "--attach", plain, "--attach", other + ";type=text/plain; charset=utf-16;id=<form@example>", "--attach", long + ";id=long"}

		call(append(attach, "-v", "--wait", "20s")...).holds(t, 0, "<soapResponse/>", `attachment 1, Content-ID "<attachment1@kontor>"`, "9 bytes, not kept: --save-attachments DIR keeps it", "VALID: 2 of 2",
			`with attachment 2, "text/plain; charset=utf-16", 2 bytes, which the body names as cid:form@example`)
		saved, envelope := filepath.Join(dir, "answer"), filepath.Join(dir, "envelope.xml")
		r := call(append(attach, "--output", "json", "--save-attachments", saved, "-o", envelope)...)
		r.holds(t, 0)
		var doc callResult
		if err := json.Unmarshal([]byte(r.out), &doc); err != nil || len(doc.Attachments) != 4 || doc.Body != "" {
			t.Fatalf("%v: %s", err, r.out)
		}
		if a := doc.Attachments[1]; a.ContentID != "<form@example>" || a.ContentType != "text/plain; charset=utf-16" || a.Size != 2 || a.File != filepath.Join(saved, "attachment2") {
			t.Errorf("%+v", a)
		}
		for name, want := range map[string]string{"attachment1": "A form.\r\n", "attachment2": "\x00\xff", "attachment3": big, "attachment4": "decoded"} {
			if b, err := os.ReadFile(filepath.Join(saved, name)); err != nil || string(b) != want {
				t.Errorf("%s: %d bytes, %v", name, len(b), err)
			}
		}
		if b, err := os.ReadFile(envelope); err != nil || !strings.HasPrefix(string(b), "<?xml") || !strings.HasSuffix(strings.TrimSpace(string(b)), "Envelope>") {
			t.Errorf("%q, %v", b, err)
		}
		call("--soap", testnet.Query, "--attach", "/dev/null").holds(t, 0, "attachment 1", "0 bytes") // a file without a size

		call(testnet.Persons, "--attach", plain).holds(t, 2, "--soap")
		call("--soap", testnet.Query, "--attach", filepath.Join(dir, "none")).holds(t, 1, "no such file")
		call("--soap", testnet.Query, "--attach", dir).holds(t, 2, "is a folder")
		for _, wrong := range []string{"", ";type=text/plain", plain + ";type=text", plain + ";id=", plain + ";id=a b"} {
			call("--soap", testnet.Query, "--attach", wrong).holds(t, 2, "write FILE[;type=TYPE][;id=CONTENT-ID]")
		}
	})
	t.Run("an answer of any length", func(t *testing.T) {
		n.Service.Handle(func(w http.ResponseWriter, _ *http.Request) {
			for range 12 {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		})
		defer n.Service.Reset()
		out := filepath.Join(t.TempDir(), "answer")
		call(testnet.Persons, "-o", out, "-v", "--wait", "20s").holds(t, 0, "VALID: 2 of 2")
		if info, err := os.Stat(out); err != nil || info.Size() != 12<<20 {
			t.Errorf("%v, %v", info, err)
		}
		call(testnet.Persons, "-o", filepath.Join(out, "there")).holds(t, 1, "the answer cannot be kept")
	})
	t.Run("no time-stamp yet", func(t *testing.T) {
		n.TSA.Down()
		defer n.TSA.Up()
		call(testnet.Persons, "-v", "--wait", "100ms").holds(t, 0, "not stamped", "fetch it later: http://"+n.A.Cfg.Listen.Consumer+"/asic?")
	})
	t.Run("TLS", func(t *testing.T) {
		dir := t.TempDir()
		cert := n.HTTPS("client").TLSClientConfig.Certificates[0]
		key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
			if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		own, gateway := []string{"--cert", filepath.Join(dir, "cert.pem"), "--key", filepath.Join(dir, "key.pem")}, filepath.Join(n.A.Cfg.DataDir, "internal.pem")
		secure := func(args ...string) ran {
			return kontor(t, append([]string{"call", testnet.Persons, "--gateway", "https://" + n.A.Cfg.Listen.ConsumerTLS, "--client", testnet.Pinned}, args...)...)
		}
		secure(append(own, "--gateway-cert", gateway, "-v", "--wait", "20s")...).holds(t, 0, "TLS 1.3 with the gateway, which has the certificate", "VALID: 2 of 2", "with --config")
		secure(append(own, "-k")...).holds(t, 0)
		secure("--gateway-cert", gateway).holds(t, 1, "server.clientproxy.ssl_authentication_failed")
		secure(own...).holds(t, 1, "give its certificate with --gateway-cert")
		secure(append(own, "--gateway-cert", filepath.Join(dir, "cert.pem"))...).holds(t, 1, "is not that in")
		secure("--cert", filepath.Join(dir, "cert.pem")).holds(t, 2)
	})
	t.Run("wrong usage", func(t *testing.T) {
		for _, args := range [][]string{{}, {"TEST/GOV/2002/population"}, {testnet.Persons, "--output", "xml"}, {testnet.Persons, "-H", "nothing"}, {testnet.Persons, "--gateway", "10.0.0.1"}, {testnet.Persons, "--client", "me"},
			{"--soap", "a/b"}, {"--soap", testnet.Query, "-X", "GET"}, {"--soap", testnet.Query, "--server", "x"}} {
			call(args...).holds(t, 2)
		}
		kontor(t, "call", testnet.Persons, "--sandbox", t.TempDir()).holds(t, 2, "--client")
	})
	t.Run("no gateway", func(t *testing.T) {
		kontor(t, "call", testnet.Persons, "--gateway", "http://127.0.0.1:1", "--client", testnet.Portal).holds(t, 1, "no answer from the gateway at http://127.0.0.1:1", "kontor gateway status")
	})
}

// Evidence from a log without bodies proves nothing, and the finding says why.
func TestWithheldEvidence(t *testing.T) {
	t.Parallel()
	n := testnet.Start(t, testnet.Options{Gateway: func(_ string, c *config.Gateway) { c.MessageLog.Bodies = false }})
	flags := []string{"call", "--gateway", "http://" + n.A.Cfg.Listen.Consumer, "--client", testnet.Portal, "-v", "--wait", "20s"}
	kontor(t, append(flags, testnet.Persons+"/secret", "-H", "Accept: text/plain")...).holds(t, 0,
		"Evidence of message", ": invalid", "digest of message.xml", "keeps no bodies by policy", "ask the other party")
}

func TestCallFindsTheSandbox(t *testing.T) {
	t.Parallel()
	n, _ := network(t)
	dir := t.TempDir()
	describe := func(f sandboxFile) {
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "sandbox.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := sandboxFile{Anchor: n.A.Cfg.Anchor, Gateways: []sandboxGateway{{Consumer: "http://127.0.0.1:1"}, {Consumer: "http://" + n.A.Cfg.Listen.Consumer, Data: n.A.Cfg.DataDir}},
		Clients: []sandboxClient{{ID: testnet.Stranger, Gateway: 1}, {ID: testnet.Portal, Gateway: 1, Allowed: true}, {ID: testnet.Census}}}
	describe(f)
	kontor(t, "call", testnet.Persons, "--sandbox", dir).holds(t, 0, testnet.Greeting)
	kontor(t, "call", testnet.Persons, "--sandbox", dir, "--client", testnet.Stranger).holds(t, 1, "access_denied")
	kontor(t, "call", testnet.Persons, "--sandbox", dir, "-v", "--wait", "20s").holds(t, 0, "VALID: 2 of 2", "verified with the anchor", "no operational data")
	kontor(t, "call", testnet.Persons, "--sandbox", dir, "--client", testnet.Nosey).holds(t, 2, "is not in the sandbox")
	kontor(t, "call", testnet.Persons, "--sandbox", dir, "--client", testnet.Census).holds(t, 1, "does the sandbox still run?")
	f.Clients[0].Gateway = 7
	describe(f)
	kontor(t, "call", testnet.Persons, "--sandbox", dir).holds(t, 1, "is on no gateway of the sandbox")
	if err := os.WriteFile(filepath.Join(dir, "sandbox.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	kontor(t, "call", testnet.Persons, "--sandbox", dir).holds(t, 1, "sandbox.json")
}

// serveAttached answers a SOAP question with its own envelope and attachments,
// and one more that is encoded.
func serveAttached(w http.ResponseWriter, r *http.Request) {
	dec, err := message.NewSOAPDecoder(r.Body, r.Header.Get("Content-Type"), message.SOAPRequest, message.Limits{})
	if err != nil {
		panic(err)
	}
	var answer bytes.Buffer
	parts := multipart.NewWriter(&answer)
	for {
		part, err := dec.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			panic(err)
		}
		header := textproto.MIMEHeader{"Content-Type": {part.ContentType}}
		for _, f := range part.Fields {
			header.Add(f.Name, f.Value)
		}
		content, err := io.ReadAll(part.Reader)
		if e, wrong := message.ReadEnvelope(content); err == nil && wrong == nil {
			content = e.WithBody([]byte("<soapResponse/>"))
		}
		p, err2 := parts.CreatePart(header)
		if err := errors.Join(err, err2); err != nil {
			panic(err)
		}
		_, _ = p.Write(content) // to memory
	}
	p, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"text/plain"}, "Content-Transfer-Encoding": {"base64"}})
	if err == nil {
		_, err = io.WriteString(p, "ZGVj\r\nb2RlZA==\r\n")
	}
	if err := errors.Join(err, parts.Close()); err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", `multipart/related; type="text/xml"; boundary=`+parts.Boundary())
	_, _ = w.Write(answer.Bytes())
}

// What --output json holds in memory is bounded, and a cut answer never looks
// like a whole one.
func TestBoundedBuffer(t *testing.T) {
	t.Parallel()
	b := &bounded{left: 3}
	if _, err := b.Write([]byte("abc")); err != nil || b.String() != "abc" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := b.Write([]byte("d")); err == nil {
		t.Errorf("%q", b)
	}
}

// An answer that breaks off is an error that says so.
func TestBrokenAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "half")
	}))
	defer server.Close()
	kontor(t, "call", testnet.Persons, "--gateway", server.URL, "--client", testnet.Portal).holds(t, 1, "not whole, 4 bytes of it")

	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	kontor(t, "call", testnet.Persons, "--gateway", other.URL, "--client", testnet.Portal).holds(t, 1, "without the headers of a security server", "listen.consumer")
}
