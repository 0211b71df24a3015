// SPDX-License-Identifier: Apache-2.0

package xroad_test

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"mime"
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

// xroad is a security server of X-Road.
type xroad struct {
	t     *testing.T
	in    io.WriteCloser
	words chan string // closed at its end
}

// becomeXRoad stops gateway B and runs X-Road's proxies in its place, at its
// address and with its keys. settings are options of the Java machine.
func becomeXRoad(t *testing.T, n *testnet.Network, settings ...string) *xroad {
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
	cmd := exec.CommandContext(t.Context(), java(), append(settings, "-cp", classes(t), filepath.Join("testdata", "Server.java"),
		dir, n.B.IP(), m.Instance(), m.Class(), m.Code(), s.Code(), system)...)
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
	x := &xroad{t, in, make(chan string, 1)}
	go func() {
		defer close(x.words)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if w := lines.Text(); w == "ready" || w == "done" {
				x.words <- w
			}
		}
	}()
	t.Cleanup(func() {
		x.stop()
		_ = cmd.Wait()
	})
	x.hear("ready")
	return x
}

// stop ends the proxies, which end with their input or with the context. They
// may be stopped again.
func (x *xroad) stop() {
	_ = x.in.Close()
	for range x.words {
		continue
	}
}

// sign tells how to sign from now on: "well", "badly" or "slowly".
func (x *xroad) sign(manner string) {
	x.t.Helper()
	if _, err := io.WriteString(x.in, manner+"\n"); err != nil {
		x.t.Fatal(err)
	}
	x.hear("done")
}

func (x *xroad) hear(want string) {
	x.t.Helper()
	select {
	case w := <-x.words:
		if w != want {
			x.t.Fatal("X-Road's proxies have ended (go test -v shows why)")
		}
	case <-time.After(3 * time.Minute):
		x.t.Fatal("X-Road's proxies are silent")
	}
}

// serviceAddress is where the information system listens.
func serviceAddress(n *testnet.Network) string {
	return n.B.IP()[:strings.LastIndexByte(n.B.IP(), '.')] + ".14:8000"
}

// echo has the information system answer with what it gets.
func echo(n *testnet.Network) {
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
}

// provide gives [testnet.Portal] the services "persons", "soap", "down" and "closed", which
// the clients of X-Road's server may call, and "private" and "denied".
func provide(n *testnet.Network) {
	n.A.Configure(func(m *serverconf.Model) {
		e := testnet.Entry(m, testnet.Portal)
		system := "http://" + serviceAddress(n)
		notice := "closed for the winter"
		for _, s := range []struct{ kind, code, url string }{
			{serverconf.REST, "persons", system + "/persons"},
			{serverconf.REST, "private", system + "/private"},
			{serverconf.WSDL, "soap", system + "/soap"},
			{serverconf.WSDL, "down", strings.TrimSuffix(system, "8000") + "1"},
			{serverconf.WSDL, "denied", system + "/denied"},
			{serverconf.WSDL, "closed", system + "/closed"},
		} {
			d := serverconf.DescriptionEntry{Type: s.kind, Services: []serverconf.ServiceEntry{{Code: s.code, URL: s.url}}}
			if s.code == "closed" {
				d.Disabled = &notice
			}
			e.Descriptions = append(e.Descriptions, d)
			if s.code != "private" && s.code != "denied" {
				e.Access = append(e.Access, serverconf.AccessEntry{Service: s.code, Client: n.ClientID(testnet.Population)})
			}
		}
	})
}

// way is a direction of exchanges.
type way struct {
	n                               *testnet.Network
	name, address, client, provider string
}

// ways are both.
func ways(n *testnet.Network) []way {
	return []way{
		{n, "Kontor asks X-Road", n.A.IP(), testnet.Portal, testnet.Population},
		{n, "X-Road asks Kontor", n.B.IP(), testnet.Population, testnet.Portal},
	}
}

// call sends a request to the consumer's server; header holds "Name: value"
// lines. A body that is no reader of bytes goes in chunks.
func (w way) call(t *testing.T, method, path, kind string, body io.Reader, header ...string) *testnet.Result {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+w.address+":8080"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	return w.n.Do(http.DefaultTransport, r)
}

// id makes the id of a message.
func (w way) id(name string) string { return w.client[len(w.client)-3:] + "-" + name }

// evidence demands that the gateway can prove an exchange.
func (w way) evidence(t *testing.T, id string, bodies int) []*testnet.Proof {
	t.Helper()
	proofs := w.n.Proofs(w.n.A, testnet.Portal, id)
	if len(proofs) != 2 || len(proofs[0].Bodies) != bodies {
		t.Fatalf("%s: %d proofs of a message with %d bodies", id, len(proofs), bodies)
	}
	return proofs
}

// rest demands that a body goes to the service and back.
func (w way) rest(t *testing.T, name string, body []byte) {
	t.Helper()
	id, method := w.id(name), http.MethodPost
	if body == nil {
		method = http.MethodGet
	}
	res := w.call(t, method, testnet.Path(w.provider+"/persons")+"/%C3%B5?c=%20d", "text/plain", bytes.NewReader(body), "X-Road-Client: "+w.client, "X-Road-Id: "+id)
	if res.Err != nil || res.Status != http.StatusOK || !bytes.Equal(res.Body, body) {
		t.Errorf("%s: %d %.300q %v", id, res.Status, res.Body, res.Err)
		return
	}
	w.evidence(t, id, min(len(body), 1))
}

// envelope is one for the service "soap", with the text in its body.
func (w way) envelope(name, text string) []byte {
	return []byte(testnet.Envelope{Client: w.client, Service: w.provider + "/soap", ID: w.id(name), Body: `<soap xmlns="urn:q">` + text + `</soap>`}.String())
}

// soap demands that a message goes to the service and back; every part must be
// in the answer, but for the envelope.
func (w way) soap(t *testing.T, name, kind string, body io.Reader, parts ...testnet.Part) {
	t.Helper()
	res := w.call(t, http.MethodPost, "/", kind, body)
	if res.Err != nil || res.Status != http.StatusOK || !bytes.Contains(res.Body, []byte("<soapResponse ")) || !bytes.Contains(res.Body, []byte("requestHash")) {
		t.Errorf("%s: %d %.2000s %v", name, res.Status, res.Body, res.Err)
		return
	}
	attachments := 0
	if len(parts) > 0 {
		attachments = len(parts) - 1
		_, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(name, err)
		}
		got, _, err := testnet.ReadRelated(params["boundary"], res.Body)
		if err != nil || len(got) != len(parts) {
			t.Fatalf("%s: %d parts, %v", name, len(got), err)
		}
		for i, p := range got[1:] {
			if !bytes.Equal(p.Content, parts[i+1].Content) {
				t.Errorf("%s: attachment %d is another: %d bytes", name, i+1, len(p.Content))
			}
		}
	}
	w.evidence(t, w.id(name), attachments)
}

// attachments makes a message for the service "soap".
func (w way) attachments(name string, content ...[]byte) (kind string, message []byte, parts []testnet.Part) {
	parts = []testnet.Part{{Header: [][2]string{{"Content-Type", "text/xml; charset=UTF-8"}}, Content: w.envelope(name, "")}}
	for i, c := range content {
		parts = append(parts, testnet.Part{Header: [][2]string{{"Content-Type", "application/octet-stream"}, {"Content-ID", fmt.Sprintf("<%d@b>", i)}}, Content: c})
	}
	kind, message = testnet.Related(`; type="text/xml"`, parts...)
	return kind, message, parts
}

// exchanges lets both sides call each other in every form.
func exchanges(t *testing.T, ways []way) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			w.rest(t, "get", nil)
			w.rest(t, "post", []byte("{}"))
			w.rest(t, "big", bytes.Repeat([]byte("\r\n--x\x00"), 100_000))
			w.soap(t, "soap", "text/xml; charset=UTF-8", bytes.NewReader(w.envelope("soap", "<![CDATA[<õ>]]>")))
			kind, message, parts := w.attachments("attachments", []byte("a\r\nb\x00"), nil, bytes.Repeat([]byte("x"), 300_000))
			w.soap(t, "attachments", kind, bytes.NewReader(message), parts...)
		})
	}
}

// TestLive lets Kontor's gateway and X-Road's proxies call each other.
func TestLive(t *testing.T) {
	classes(t)
	n := testnet.Start(t, testnet.Options{})
	becomeXRoad(t, n)
	echo(n)
	provide(n)
	exchanges(t, ways(n))
}
