// SPDX-License-Identifier: Apache-2.0

package xroad_test

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.step.sm/crypto/pemutil"

	"kontor/gateway/serverconf"
	"kontor/integration/testnet"
	"kontor/pki"
)

// becomeXRoad stops gateway B and runs X-Road's proxies in its place, at its
// address and with its keys.
func becomeXRoad(t *testing.T, n *testnet.Network) {
	t.Helper()
	n.B.Stop()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "anchor.xml"), n.Anchor)
	folder := filepath.Join(n.B.Cfg.DataDir, "token")
	token, err := pki.OpenToken(folder, []byte(pin))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	public := func(key any) string {
		b, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	private := map[string][]byte{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		der, err := pemutil.DecryptPKCS8PrivateKey(block.Bytes, []byte(pin))
		if err != nil {
			t.Fatal(err)
		}
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			t.Fatal(err)
		}
		private[public(key.(interface{ Public() crypto.PublicKey }).Public())] = der
	}
	names := map[pki.Usage]string{pki.Authentication: "auth", pki.Signing: "sign"}
	for _, k := range token.Keys() {
		name := filepath.Join(dir, names[k.Usage()])
		write(t, name+".der", k.Certificates()[0].Cert.Raw)
		write(t, name+".key", private[public(k.Public())])
	}

	s := n.ServerID(testnet.Server2)
	m := s.Owner()
	system := "http://" + serviceAddress(n)
	cmd := exec.CommandContext(t.Context(), java(), "-cp", classes(t), filepath.Join("testdata", "Server.java"),
		dir, n.B.IP(), m.Instance(), m.Class(), m.Code(), s.Code(), system)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if testing.Verbose() {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == "ready" {
				close(ready)
			}
		}
	}()
	t.Cleanup(func() {
		_ = in.Close() // it ends with its input, or has ended with the context
		<-ended
		_ = cmd.Wait()
	})
	select {
	case <-ready:
	case <-ended:
		t.Fatal("X-Road's proxies do not start (go test -v shows why)")
	case <-time.After(3 * time.Minute):
		t.Fatal("X-Road's proxies are not ready")
	}
}

// serviceAddress is where the information system listens.
func serviceAddress(n *testnet.Network) string {
	return n.B.IP()[:strings.LastIndexByte(n.B.IP(), '.')] + ".14:8000"
}

// TestLive lets Kontor's gateway and X-Road's proxies call each other.
func TestLive(t *testing.T) {
	classes(t)
	n := testnet.Start(t, testnet.Options{})
	becomeXRoad(t, n)
	n.Service.Handle(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if strings.HasSuffix(r.URL.Path, "/soap") {
			b = bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("<soap "), []byte("<soapResponse ")), []byte("</soap>"), []byte("</soapResponse>"))
		}
		_, _ = w.Write(b)
	})
	n.A.Configure(func(m *serverconf.Model) {
		e := testnet.Entry(m, testnet.Portal)
		for kind, code := range map[string]string{serverconf.REST: "persons", serverconf.WSDL: "soap"} {
			e.Descriptions = append(e.Descriptions, serverconf.DescriptionEntry{Type: kind,
				Services: []serverconf.ServiceEntry{{Code: code, URL: "http://" + serviceAddress(n) + "/" + code}}})
			e.Access = append(e.Access, serverconf.AccessEntry{Service: code, Client: n.ClientID(testnet.Population)})
		}
	})

	for _, way := range []struct{ name, address, client, provider string }{
		{"Kontor asks X-Road", n.A.IP(), testnet.Portal, testnet.Population},
		{"X-Road asks Kontor", n.B.IP(), testnet.Population, testnet.Portal},
	} {
		t.Run(way.name, func(t *testing.T) {
			call := func(method, path, kind string, body []byte, header ...string) *testnet.Result {
				r, err := http.NewRequestWithContext(t.Context(), method, "http://"+way.address+":8080"+path, bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Content-Type", kind)
				for _, h := range header {
					name, value, _ := strings.Cut(h, ": ")
					r.Header.Set(name, value)
				}
				return n.Do(http.DefaultTransport, r)
			}
			evidence := func(id string, bodies int) {
				proofs := n.Proofs(n.A, testnet.Portal, id)
				if len(proofs) != 2 || len(proofs[0].Bodies) != bodies {
					t.Errorf("%s: %d proofs of a message with %d bodies", id, len(proofs), bodies)
				}
			}
			client := "X-Road-Client: " + way.client
			for name, body := range map[string][]byte{"get": nil, "post": []byte("{}"), "big": bytes.Repeat([]byte("\r\n--x\x00"), 100_000)} {
				id, method := way.client[len(way.client)-3:]+"-"+name, "POST"
				if body == nil {
					method = "GET"
				}
				res := call(method, testnet.Path(way.provider+"/persons")+"/%C3%B5?c=%20d", "text/plain", body, client, "X-Road-Id: "+id)
				if res.Err != nil || res.Status != http.StatusOK || !bytes.Equal(res.Body, body) {
					t.Errorf("%s: %d %.300q %v", id, res.Status, res.Body, res.Err)
					continue
				}
				evidence(id, min(len(body), 1))
			}
			envelope := func(id string) []byte {
				return []byte(testnet.Envelope{Client: way.client, Service: way.provider + "/soap", ID: id, Body: `<soap xmlns="urn:q"><![CDATA[<õ>]]></soap>`}.String())
			}
			soap := func(id, kind string, body []byte, attachments int) {
				res := call("POST", "/", kind, body)
				if res.Err != nil || res.Status != http.StatusOK || !bytes.Contains(res.Body, []byte("<soapResponse ")) || !bytes.Contains(res.Body, []byte("requestHash")) {
					t.Errorf("%s: %d %.2000s %v", id, res.Status, res.Body, res.Err)
					return
				}
				evidence(id, attachments)
			}
			id := way.client[len(way.client)-3:] + "-soap"
			soap(id, "text/xml; charset=UTF-8", envelope(id), 0)
			id += "-attachments"
			kind, content := testnet.Related(`; type="text/xml"`,
				testnet.Part{Header: [][2]string{{"Content-Type", "text/xml; charset=UTF-8"}}, Content: envelope(id)},
				testnet.Part{Header: [][2]string{{"Content-Type", "application/octet-stream"}, {"Content-ID", "<a@b>"}}, Content: []byte("a\r\nb\x00")},
				testnet.Part{Header: [][2]string{{"Content-Type", "text/plain"}}, Content: bytes.Repeat([]byte("x"), 300_000)})
			soap(id, kind, content, 2)

			// Faults say the same by either's mouth.
			for path, want := range map[string]string{
				way.provider + "/missing":  "server.serverproxy.unknown_service",
				testnet.Homeless + "/none": "server.clientproxy.unknown_member",
			} {
				if res := call("GET", testnet.Path(path), "", nil, client); res.Err != nil || res.Code != want || res.Status != http.StatusInternalServerError {
					t.Errorf("%s: %d %q %v", path, res.Status, res.Code, res.Err)
				}
			}
			unknown := testnet.Envelope{Client: way.client, Service: way.provider + "/missing", ID: "unknown"}
			if res := call("POST", "/", "text/xml; charset=UTF-8", []byte(unknown.String())); res.Err != nil || res.Status != http.StatusOK ||
				!bytes.Contains(res.Body, []byte("<faultcode>server.serverproxy.unknown_service</faultcode>")) {
				t.Errorf("%d %s %v", res.Status, res.Body, res.Err)
			}
		})
	}
}
