// SPDX-License-Identifier: Apache-2.0

//go:build linux

package processes_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kontor/registry/id"
)

// unpack lets unzip, not us, take a container apart.
func unpack(t testing.TB, container string) string {
	t.Helper()
	dir := t.TempDir()
	stranger(t, "unzip", "-q", container, "-d", dir)
	return dir
}

// strangersAccept shows containers to tools that share no code with us.
func strangersAccept(t *testing.T, n *network, containers []string) {
	t.Run("unzip", func(t *testing.T) {
		for _, c := range containers {
			if out := stranger(t, "unzip", "-t", c); !strings.Contains(out, "No errors detected") {
				t.Errorf("%s: %s", c, out)
			}
		}
	})
	t.Run("xmlsec1", func(t *testing.T) {
		tool(t, "xmlsec1")
		for _, c := range containers {
			dir := unpack(t, c)
			stranger(t, "xmlsec1", xmlsec(n, dir)...)
			// The control: it must not accept whatever it is shown.
			message := filepath.Join(dir, "message.xml")
			if strings.Contains(string(read(t, filepath.Join(dir, "META-INF", "signatures.xml"))), "sig-hashchainresult") {
				message = filepath.Join(dir, "sig-hashchainresult.xml")
			}
			write(t, message, append(read(t, message), ' '))
			if r := command(t, tool(t, "xmlsec1"), xmlsec(n, dir)...); r.status == 0 {
				t.Errorf("xmlsec1 accepts an altered message: %s", r)
			}
		}
	})
	t.Run("xmllint", func(t *testing.T) {
		for _, c := range containers {
			files, err := filepath.Glob(filepath.Join(unpack(t, c), "META-INF", "*.xml"))
			if err != nil || len(files) < 3 {
				t.Fatalf("%q, %v", files, err)
			}
			stranger(t, "xmllint", append([]string{"--noout", "--nonet"}, files...)...)
		}
	})
	t.Run("openssl ts", func(t *testing.T) {
		for _, c := range containers {
			dir := unpack(t, c)
			args := []string{"ts", "-verify", "-token_in", "-in", filepath.Join(dir, "META-INF", "timestamp.tst"),
				"-data", filepath.Join(dir, "ts-hashchainresult.xml"), "-CAfile", n.Trust.CA, "-untrusted", n.Trust.TSACert}
			if out := stranger(t, "openssl", args...); !strings.Contains(out, "Verification: OK") {
				t.Errorf("%s: %s", c, out)
			}
			write(t, filepath.Join(dir, "ts-hashchainresult.xml"), []byte("something else"))
			if r := command(t, tool(t, "openssl"), args...); r.status == 0 {
				t.Errorf("openssl accepts the time-stamp of other data: %s", r)
			}
		}
	})
}

func xmlsec(n *network, dir string) []string {
	return []string{"--verify", "--trusted-pem", n.Trust.CA,
		"--id-attr:Id", "http://uri.etsi.org/01903/v1.3.2#:SignedProperties",
		"--url-map:/message.xml", filepath.Join(dir, "message.xml"),
		"--url-map:/sig-hashchainresult.xml", filepath.Join(dir, "sig-hashchainresult.xml"),
		filepath.Join(dir, "META-INF", "signatures.xml")}
}

func TestStrangers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sandbox")
	s := startSandbox(t, dir)
	n := s.network
	plain := request{0, "GET", portal, persons, "/38001010001", nil}
	withBody := request{1, "POST", population, messages, "", []byte(`{"text":"Grüße"}`)}
	large := request{0, "POST", portal, persons, "", bytes.Repeat([]byte("0123456789abcdef"), 20_000)}

	var containers []string
	evidence := filepath.Join(filepath.Dir(dir), "exported")
	for _, r := range []request{plain, withBody, large} {
		containers = append(containers, n.bothSides(t, evidence, r, n.succeed(t, r).messageID)...)
	}
	n.verify(t, 0, 0, containers...)
	strangersAccept(t, n, containers)
	certificates(t, n, dir)
	t.Run("openssl ocsp", func(t *testing.T) { ocspStranger(t, n, dir) })
	t.Run("openssl s_client", func(t *testing.T) { tlsStranger(t, n, dir) })
	t.Run("curl", func(t *testing.T) { curlStranger(t, n) })
	t.Run("tampering", func(t *testing.T) { tampering(t, n, containers) })
	s.stop(t)
}

// certificates shows what the authority issued to openssl.
func certificates(t *testing.T, n *network, dir string) {
	t.Run("openssl verify", func(t *testing.T) {
		auth := filepath.Join(dir, "certificates", "gateway-1.authentication.pem")
		sign := filepath.Join(dir, "certificates", "gateway-1.signing.pem")
		ocsp := filepath.Join(dir, "trust", "ocsp.pem")
		for _, c := range []struct {
			file, purpose string
			want          bool
		}{
			{auth, "sslclient", true}, {auth, "sslserver", true}, {auth, "timestampsign", false}, {auth, "crlsign", false},
			{sign, "any", true}, {sign, "sslclient", false}, {sign, "sslserver", false}, {sign, "timestampsign", false},
			{ocsp, "any", true}, {ocsp, "sslserver", false},
			{n.Trust.TSACert, "timestampsign", true}, {n.Trust.TSACert, "sslserver", false},
		} {
			r := command(t, tool(t, "openssl"), "verify", "-x509_strict", "-CAfile", n.Trust.CA, "-purpose", c.purpose, c.file)
			if (r.status == 0) != c.want {
				t.Errorf("%s as %s: want %v, got %s", filepath.Base(c.file), c.purpose, c.want, r)
			}
		}
		for file, wants := range map[string][]string{
			auth:       {"Digital Signature", "TLS Web Client Authentication", "OCSP - URI:" + n.Trust.OCSP},
			sign:       {"Non Repudiation", "OCSP - URI:" + n.Trust.OCSP},
			ocsp:       {"OCSP Signing", "OCSP No Check"},
			n.Trust.CA: {"CA:TRUE", "Certificate Sign"},
		} {
			text := stranger(t, "openssl", "x509", "-in", file, "-noout", "-text")
			for _, want := range wants {
				if !strings.Contains(text, want) {
					t.Errorf("%s has no %q:\n%s", filepath.Base(file), want, text)
				}
			}
		}
	})
}

// ocspStranger asks our responder with openssl's client.
func ocspStranger(t *testing.T, n *network, dir string) {
	ask := func(args ...string) string {
		t.Helper()
		// -verify_other is not given: the response must bring its signer along.
		return stranger(t, "openssl", append([]string{"ocsp", "-issuer", n.Trust.CA, "-CAfile", n.Trust.CA, "-url", n.Trust.OCSP}, args...)...)
	}
	spare := filepath.Join(t.TempDir(), "spare.pem")
	kontor(t, 0, "trust", "issue", "--config", n.Trust.Config, "--usage", "signing",
		"--csr", filepath.Join(n.Gateways[0].Data, "sign.csr.pem"), "--out", spare)
	sign := filepath.Join(dir, "certificates", "gateway-1.signing.pem")
	for _, want := range []string{"spare.pem: good", "Response verify OK"} {
		if out := ask("-cert", spare); !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	serial := strings.TrimPrefix(strings.TrimSpace(stranger(t, "openssl", "x509", "-in", spare, "-noout", "-serial")), "serial=")
	var decimal string
	for _, c := range issued(t, n) {
		if fmt.Sprintf("%X", bigInt(t, c.Serial)) == strings.TrimLeft(serial, "0") {
			decimal = c.Serial
		}
	}
	if decimal == "" {
		t.Fatalf("kontor trust list does not name %s", serial)
	}
	kontor(t, 0, "trust", "revoke", "--config", n.Trust.Config, "--reason", "1", decimal)
	r := kontor(t, 1, "trust", "revoke", "--config", n.Trust.Config, decimal)
	if !strings.Contains(r.err, "revoked") {
		t.Errorf("second revocation: %s", r)
	}
	kontor(t, 1, "trust", "revoke", "--config", n.Trust.Config, "12345")
	out := ask("-cert", spare, "-cert", sign, "-serial", "0x1234567890")
	for _, want := range []string{"spare.pem: revoked", "Reason: keyCompromise", "gateway-1.signing.pem: good", "0x1234567890: unknown", "Response verify OK"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// tlsStranger knocks at the port for other security servers.
func tlsStranger(t *testing.T, n *network, dir string) {
	connect := func(args ...string) result {
		args = append([]string{"s_client", "-connect", n.Gateways[1].Peer, "-CAfile", n.Trust.CA, "-verify_return_error", "-brief", "-ign_eof"}, args...)
		// A request, so that an alert after a TLS 1.3 handshake is seen.
		return commandIn(t, "", "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", tool(t, "openssl"), args...)
	}
	answered := func(r result) bool { return strings.Contains(r.out, "HTTP/1.1 ") }

	// Its own key, out of the token: also a test that openssl reads tokens.
	keys, err := filepath.Glob(filepath.Join(n.Gateways[0].Data, "token", "*.key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cert := filepath.Join(dir, "certificates", "gateway-1.authentication.pem")
	public := stranger(t, "openssl", "x509", "-in", cert, "-noout", "-pubkey")
	key := filepath.Join(t.TempDir(), "key.pem")
	for _, k := range keys {
		r := command(t, tool(t, "openssl"), "pkey", "-in", k, "-passin", "file:"+filepath.Join(dir, "secrets", "gateway-1.pin"), "-out", key)
		if r.status == 0 && stranger(t, "openssl", "pkey", "-in", key, "-pubout") == public {
			break
		}
		os.Remove(key)
	}
	if _, err := os.Stat(key); err != nil {
		t.Fatalf("openssl finds the authentication key in none of %q", keys)
	}

	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		if r := connect(version); answered(r) {
			t.Errorf("%s: a client without certificate is served: %s", version, r)
		} else if !strings.Contains(r.err, "alert") {
			t.Errorf("%s: no alert: %s", version, r)
		}
		if r := connect(version, "-cert", cert, "-key", key); !answered(r) || !strings.Contains(r.err, "Verification: OK") {
			t.Errorf("%s: a registered security server is not served: %s", version, r)
		}
		// Of the same authority, but not in the global configuration.
		other := filepath.Join(t.TempDir(), "other.pem")
		kontor(t, 0, "trust", "issue", "--config", n.Trust.Config, "--usage", "authentication",
			"--csr", filepath.Join(n.Gateways[0].Data, "auth.csr.pem"), "--out", other)
		if r := connect(version, "-cert", other, "-key", key); answered(r) {
			t.Errorf("%s: a certificate that is not registered is served: %s", version, r)
		}
		// Its own signature is the only credential of this one.
		self, selfKey := filepath.Join(t.TempDir(), "self.pem"), filepath.Join(t.TempDir(), "self.key")
		stranger(t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=ss1",
			"-out", self, "-keyout", selfKey)
		if r := connect(version, "-cert", self, "-key", selfKey); answered(r) {
			t.Errorf("%s: a self-signed certificate is served: %s", version, r)
		}
	}
	for _, version := range []string{"-tls1", "-tls1_1"} {
		if r := connect(version, "-cert", cert, "-key", key, "-cipher", "ALL:@SECLEVEL=0"); answered(r) {
			t.Errorf("%s is spoken: %s", version, r)
		}
	}
}

// curlStranger uses the consumer API as a developer does at first.
func curlStranger(t *testing.T, n *network) {
	curl := func(args ...string) (head, body string) {
		t.Helper()
		dir := t.TempDir()
		h, b := filepath.Join(dir, "head"), filepath.Join(dir, "body")
		write(t, b, nil) // curl writes none for an empty body
		stranger(t, "curl", append([]string{"-sS", "--http1.1", "--max-time", "100", "-D", h, "-o", b}, args...)...)
		return string(read(t, h)), string(read(t, b))
	}
	has := func(t *testing.T, text string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(strings.ToLower(text), strings.ToLower(want)) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	}
	from := func(client string) []string { return []string{"-H", "X-Road-Client: " + client} }
	base := n.Gateways[0].Consumer + "/r1/" + persons

	t.Run("GET", func(t *testing.T) {
		head, body := curl(append(from(portal), "-H", "X-Road-Id: curl-1", base+"/38001010001")...)
		has(t, head, "HTTP/1.1 200", "Content-Type: application/json", "X-Road-Id: curl-1", "X-Road-Client: "+portal,
			"X-Road-Service: "+persons, "X-Road-Request-Id: ", "X-Road-Request-Hash: ")
		has(t, body, "Maria Example")
	})
	t.Run("service's own error", func(t *testing.T) {
		head, body := curl(append(from(portal), base+"/nobody")...)
		has(t, head, "HTTP/1.1 404", "X-Road-Id: ")
		has(t, body, "no such person")
		if strings.Contains(strings.ToLower(head), "x-road-error") {
			t.Error("the service's error looks like one of X-Road's")
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		head, body := curl(append(from(portal), "-I", base+"/38001010001")...)
		has(t, head, "HTTP/1.1 200", "X-Road-Id: ")
		if !strings.HasPrefix(body, "HTTP/1.1 200") && body != "" { // curl -I -o writes the head
			t.Errorf("HEAD has a body: %q", body)
		}
	})
	t.Run("POST", func(t *testing.T) {
		file := write(t, filepath.Join(t.TempDir(), "body"), bytes.Repeat([]byte("zwölf\x00"), 50_000))
		for _, extra := range [][]string{nil, {"-H", "Transfer-Encoding: chunked"}, {"-H", "Expect: 100-continue"}} {
			args := append(from(portal), "-H", "Content-Type: application/octet-stream", "--data-binary", "@"+file)
			head, body := curl(append(append(args, extra...), base)...)
			has(t, head, "HTTP/1.1 200", "Content-Type: application/octet-stream")
			if body != string(read(t, file)) {
				t.Errorf("%q: %d bytes came back, not the same %d", extra, len(body), 350_000)
			}
		}
	})
	t.Run("error as JSON", func(t *testing.T) {
		head, body := curl(append(from(outsider), base)...)
		has(t, head, "HTTP/1.1 500", "Content-Type: application/json", "X-Road-Error: server.serverproxy.access_denied")
		var f struct{ Type, Message, Detail string }
		if err := json.Unmarshal([]byte(body), &f); err != nil || f.Type != "server.serverproxy.access_denied" || f.Message == "" || f.Detail == "" {
			t.Errorf("%v: %s", err, body)
		}
	})
	t.Run("error as XML", func(t *testing.T) {
		for _, accept := range []string{"application/xml", "text/xml"} {
			head, body := curl(append(from(outsider), "-H", "Accept: "+accept, base)...)
			has(t, head, "HTTP/1.1 500", "Content-Type: "+accept, "X-Road-Error: server.serverproxy.access_denied")
			var f struct {
				XMLName xml.Name `xml:"error"`
				Type    string   `xml:"type"`
				Message string   `xml:"message"`
			}
			if err := xml.Unmarshal([]byte(body), &f); err != nil || f.Type != "server.serverproxy.access_denied" || f.Message == "" {
				t.Errorf("%v: %s", err, body)
			}
		}
	})
	t.Run("other errors", func(t *testing.T) {
		for _, c := range []struct {
			args []string
			want string
		}{
			{append(from("SANDBOX/GOV/1001/nobody"), base), "X-Road-Error: server.clientproxy.unknown_member"},
			{append(from(portal), base+"x"), "X-Road-Error: server.serverproxy.unknown_service"},
			{[]string{base}, "X-Road-Error: server.clientproxy.invalid_client_identifier"},
			{append(from(portal), "--path-as-is", base+"/../../secret"), "X-Road-Error: "},
			{append(from(portal), n.Gateways[0].Consumer+"/"), "Content-Type: text/xml"}, // SOAP, where GET is wrong
			{append(from(portal), "-H", "X-Filler: "+strings.Repeat("x", 60_000), base), "HTTP/1.1 431"},
		} {
			head, _ := curl(c.args...)
			has(t, head, c.want)
		}
	})
	t.Run("HTTPS", func(t *testing.T) {
		pin := filepath.Join(n.Gateways[0].Data, "internal.pem")
		head, body := curl(append(from(portal), "--cacert", pin, strings.Replace(base, n.Gateways[0].Consumer, n.Gateways[0].ConsumerTLS, 1)+"/38001010001")...)
		has(t, head, "HTTP/1.1 200")
		has(t, body, "Maria Example")
	})
	t.Run("asic", func(t *testing.T) {
		head, _ := curl(append(from(portal), "-H", "X-Road-Id: curl-asic", base+"/38001010001")...)
		has(t, head, "HTTP/1.1 200")
		holder, err := id.ParseClient(portal)
		if err != nil {
			t.Fatal(err)
		}
		n.documents(t, 0, holder, "curl-asic") // waits for the time-stamp
		address := n.asicURL(0, holder, "curl-asic")
		head, body := curl(address)
		has(t, head, "HTTP/1.1 200", "Content-Type: application/zip", `filename="curl-asic.zip"`)
		file := write(t, filepath.Join(t.TempDir(), "curl-asic.zip"), []byte(body))
		stranger(t, "unzip", "-t", file)
		n.verify(t, 0, 0, file)
		head, body = curl(address + "&requestOnly&unique")
		has(t, head, "HTTP/1.1 200", "Content-Type: application/vnd.etsi.asic-e+zip", "-request-")
		file = write(t, filepath.Join(t.TempDir(), "request.asice"), []byte(body))
		stranger(t, "unzip", "-t", file)
		n.verify(t, 0, 0, file)

		head, body = curl(strings.Replace(address, "curl-asic", "no-such-message", 1))
		has(t, head, "HTTP/1.1 404")
		has(t, body, "No signed documents found")
		head, _ = curl(strings.Replace(address, "subsystemCode=portal", "subsystemCode=stranger", 1))
		has(t, head, "HTTP/1.1 404") // not its message
		head, body = curl(n.Gateways[0].Consumer + "/asic")
		has(t, head, "HTTP/1.1 400")
		has(t, body, "must be specified")
	})
	t.Run("registry and trust services", func(t *testing.T) {
		for _, address := range []string{n.Registry.URL + "/internalconf", n.Registry.URL + "/internalconf?version=3"} {
			head, body := curl(address)
			has(t, head, "HTTP/1.1 200")
			has(t, body, "multipart/", "Expire-date: ", "shared-params.xml")
		}
		head, _ := curl(n.Registry.URL + "/../../../etc/passwd")
		has(t, head, "HTTP/1.1 404")
		for _, address := range []string{n.Trust.OCSP, n.Trust.TSA} {
			head, _ := curl("--data-binary", "garbage", "-H", "Content-Type: application/octet-stream", address)
			if strings.Contains(head, "HTTP/1.1 5") {
				t.Errorf("%s breaks down: %s", address, head)
			}
		}
	})
}
