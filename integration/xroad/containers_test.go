// SPDX-License-Identifier: Apache-2.0

package xroad_test

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"kontor/config"
	"kontor/integration/testnet"
	"kontor/pki"
)

// pin of the gateways of a testnet.
const pin = "testnet"

// verificationConf fetches what a gateway gives to verifiers and returns its folder.
func verificationConf(t *testing.T, n *testnet.Network) string {
	t.Helper()
	res := n.Call("", "GET", "/verificationconf", nil)
	if res.Status != http.StatusOK {
		t.Fatal(res.Status, string(res.Body), res.Err)
	}
	dir := t.TempDir()
	for name, content := range unzip(t, res.Body) {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, file, content)
	}
	return filepath.Join(dir, "verificationconf")
}

func write(t *testing.T, file string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// unzip returns the entries of an archive.
func unzip(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, f := range reader(t, archive).File {
		all[f.Name] = content(t, f)
	}
	return all
}

func reader(t *testing.T, archive []byte) *zip.Reader {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func content(t *testing.T, f *zip.File) []byte {
	t.Helper()
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rezip writes a container anew with other entries; edit returns the content
// that an entry is to have, nil to leave it out.
func rezip(t *testing.T, container []byte, edit func(name string, content []byte) []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range reader(t, container).File {
		c := edit(f.Name, content(t, f))
		if c == nil {
			continue
		}
		e, err := w.Create(f.Name)
		if err == nil {
			_, err = e.Write(c)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// replace changes one entry.
func replace(t *testing.T, container []byte, entry, old, with string) []byte {
	t.Helper()
	found := false
	b := rezip(t, container, func(name string, content []byte) []byte {
		if name != entry {
			return content
		}
		changed := bytes.Replace(content, []byte(old), []byte(with), 1)
		found = !bytes.Equal(changed, content)
		return changed
	})
	if !found {
		t.Fatalf("%s has no %q", entry, old)
	}
	return b
}

// batched says that the signature covers other messages, too: the chain has
// digests without a name.
func batched(p *testnet.Proof) bool { return bytes.Contains(p.Container.SigChain, []byte("HashValue")) }

// TestContainers has X-Road verify what the gateways of an exchange keep of
// it, in the shapes that messages and signatures have.
func TestContainers(t *testing.T) {
	for _, tt := range []struct {
		name, batch, algorithm string
		change                 func(*testing.T, *testnet.Network)
	}{
		{name: "EC", batch: "auto", algorithm: "EC"},
		{name: "EC, always with hash chains", batch: "always", algorithm: "EC"},
		{name: "RSA", batch: "auto", algorithm: "RSA", change: func(t *testing.T, n *testnet.Network) {
			n.A.Stop()
			rekey(t, n, newAuthority(t, n, 103, pki.RSA2048), n.A, map[pki.Usage]pki.Algorithm{pki.Signing: pki.RSA2048})
			n.A.Restart(nil)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := newJudge(t)
			n := testnet.Start(t, testnet.Options{Gateway: func(_ string, c *config.Gateway) { c.Signing.Batch = tt.batch }})
			if tt.change != nil {
				tt.change(t, n)
			}
			var ids []string
			rest := func(id, method string, body []byte) {
				ids = append(ids, id)
				path := testnet.Path(testnet.Persons) + "/%C3%B5?a=b&c=%20"
				if res := n.Call(testnet.Portal, method, path, bytes.NewReader(body), "X-Road-Id: "+id, "Content-Type: application/octet-stream"); res.Status != http.StatusOK {
					t.Fatal(id, res.Status, string(res.Body), res.Err)
				}
			}
			soap := func(id, kind string, content []byte) {
				ids = append(ids, id)
				if res := n.SOAP(kind, bytes.NewReader(content)); res.Err != nil || res.Code != "" {
					t.Fatal(id, res.Code, res.Fault.Message, res.Err)
				}
			}
			envelope := func(id string) []byte {
				return []byte(testnet.Envelope{Client: testnet.Portal, Service: testnet.Query, ID: id, Body: `<soap xmlns="urn:q"><![CDATA[<õ>]]>&#13;</soap>`}.String())
			}
			part := func(content string) testnet.Part {
				return testnet.Part{Header: [][2]string{{"Content-Type", "application/octet-stream"}, {"Content-ID", "<a@b>"}}, Content: []byte(content)}
			}
			root := func(id string) testnet.Part {
				return testnet.Part{Header: [][2]string{{"Content-Type", "text/xml; charset=UTF-8"}}, Content: envelope(id)}
			}
			// The information system answers with what it got.
			n.Service.Handle(func(w http.ResponseWriter, r *http.Request) {
				kind := r.Header.Get("Content-Type")
				w.Header().Set("Content-Type", kind)
				b, err := io.ReadAll(r.Body)
				if err != nil {
					panic(http.ErrAbortHandler)
				}
				if strings.HasSuffix(r.URL.Path, "/soap") {
					b = bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("<soap "), []byte("<soapResponse ")), []byte("</soap>"), []byte("</soapResponse>"))
				}
				_, _ = w.Write(b)
			})

			rest("rest-empty", "GET", nil)
			rest("rest-body", "POST", []byte("{}\r\n--x\r\n"))
			rest("rest-binary", "PUT", bytes.Repeat([]byte{0, 1, 0xfe, '\r', '\n', '-', '-'}, 100_000))
			soap("soap-plain", "text/xml; charset=UTF-8", envelope("soap-plain"))
			kind, content := testnet.Related(`; type="text/xml"`, root("soap-attachment"), part("a\r\nb\x00"))
			soap("soap-attachment", kind, content)
			kind, content = testnet.Related(`; type="text/xml"`, root("soap-attachments"), part("one"), part(""), part(strings.Repeat("three", 100_000)))
			soap("soap-attachments", kind, content)

			// Many at once share signatures and time-stamps.
			var all sync.WaitGroup
			for i := range 24 {
				id := fmt.Sprintf("many-%d", i)
				ids = append(ids, id)
				r := n.NewRequest(testnet.Portal, "POST", testnet.Path(testnet.Persons), strings.NewReader(id), "X-Road-Id: "+id)
				all.Go(func() {
					if resp, err := http.DefaultTransport.RoundTrip(r); err != nil {
						t.Error(err)
					} else if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
						t.Error(id, resp.Status, err)
					}
				})
			}
			all.Wait()

			conf := verificationConf(t, n)
			dir := t.TempDir()
			shapes := map[string]int{}
			for _, id := range ids {
				for _, side := range []struct {
					g      *testnet.Gateway
					holder string
				}{{n.A, testnet.Portal}, {n.B, testnet.Population}} {
					proofs := n.Proofs(side.g, side.holder, id)
					if len(proofs) != 2 {
						t.Fatalf("%s at %s: %d proofs", id, side.g.Name, len(proofs))
					}
					for i, p := range proofs {
						file := write(t, filepath.Join(dir, fmt.Sprintf("%s-%s-%d.asice", id, side.g.Name, i)), p.File)
						words := j.must("container", conf, file)
						if len(words) < 4 {
							continue
						}
						signer, algorithm := []string{testnet.Portal, testnet.Population}[i], []string{tt.algorithm, "EC"}[i]
						at, err := time.Parse(time.RFC3339, words[1])
						if words[0] != "SUBSYSTEM:"+signer || err != nil || time.Since(at).Abs() > time.Hour || words[2] != algorithm ||
							strings.Count(words[3], "(verified)") != len(p.Bodies) || strings.Contains(words[3], "unverified") {
							t.Errorf("%s at %s: %q, %d bodies", id, side.g.Name, words, len(p.Bodies))
						}
						shape := "plain"
						if p.Container.SigChain != nil {
							shape = "chain"
						}
						if batched(p) {
							shape = "batch"
						}
						shapes[shape]++
						if p.Container.TSChain != nil {
							shapes["time-stamps shared"]++
						}
					}
				}
			}
			t.Log(shapes)
			wanted := []string{"chain", "time-stamps shared"}
			if tt.batch == "auto" {
				wanted = append(wanted, "plain")
			}
			if tt.batch == "always" {
				wanted = append(wanted, "batch")
			}
			for _, s := range wanted {
				if shapes[s] == 0 {
					t.Errorf("no container of the shape %q: %v", s, shapes)
				}
			}
		})
	}
}

// TestAlteredContainers has X-Road refuse what was changed afterwards: an
// assent that nothing can lose is worth nothing.
func TestAlteredContainers(t *testing.T) {
	j := newJudge(t)
	n := testnet.Start(t, testnet.Options{})
	for id, body := range map[string]string{"plain": "", "chain": "attached"} {
		if res := n.Call(testnet.Portal, "POST", testnet.Path(testnet.Persons), strings.NewReader(body), "X-Road-Id: "+id); res.Status != http.StatusOK {
			t.Fatal(res.Status, string(res.Body), res.Err)
		}
	}
	envelope := testnet.Envelope{Client: testnet.Portal, Service: testnet.Query, ID: "soap"}
	n.Service.Handle(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		_, _ = io.WriteString(w, strings.NewReplacer("<p:soap ", "<p:soapResponse ", "</p:soap>", "</p:soapResponse>").Replace(envelope.String()))
	})
	if res := n.SOAP("text/xml", strings.NewReader(envelope.String())); res.Err != nil || res.Code != "" {
		t.Fatal(res.Code, res.Fault.Message, res.Err)
	}
	conf := verificationConf(t, n)
	get := func(id string) []byte { return n.Proofs(n.A, testnet.Portal, id)[0].File }
	plain, chain, soap := get("plain"), get("chain"), get("soap")
	stamp := func(container []byte) []byte { return unzip(t, container)["META-INF/timestamp.tst"] }
	n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil, "X-Road-Id: later")
	later := get("later")
	value := regexp.MustCompile(`SignatureValue[^>]*>\s*[^<\s]{2}`)
	signature := string(value.Find(unzip(t, plain)["META-INF/signatures.xml"]))
	if signature == "" {
		t.Fatal("no signature value")
	}
	other := "AB"
	if strings.HasSuffix(signature, other) {
		other = "BA"
	}

	dir := t.TempDir()
	for _, tt := range []struct {
		name      string
		container []byte
		refusal   string // empty: none
	}{
		{"untouched", plain, ""},
		{"untouched, with chain", chain, ""},
		{"untouched SOAP", soap, ""},
		{"written anew", rezip(t, plain, func(_ string, c []byte) []byte { return c }), ""},
		{"message of a plain signature", replace(t, plain, "message.xml", "POST", "HEAD"), "invalid_signature_value"},
		{"message of a hash chain", replace(t, chain, "message.xml", "POST", "HEAD"), "hash"},
		{"SOAP message", replace(t, soap, "message.xml", "38001010001", "38001010002"), "invalid_signature_value"},
		{"client in the SOAP header", replace(t, soap, "message.xml", "portal", "strange"), "invalid_signature_value"},
		{"signature value", replace(t, plain, "META-INF/signatures.xml", signature, signature[:len(signature)-2]+other), "time-?stamp"},
		{"hash chain result", replace(t, chain, "sig-hashchainresult.xml", "DigestValue>", "DigestValue>A"), "hash_chain"},
		{"hash chain", replace(t, chain, "sig-hashchain.xml", "DigestValue>", "DigestValue>A"), "hash_chain"},
		{"no hash chain", rezip(t, chain, func(name string, c []byte) []byte {
			if name == "sig-hashchain.xml" {
				return nil
			}
			return c
		}), "hash"},
		{"another message's time-stamp", rezip(t, plain, func(name string, c []byte) []byte {
			if name == "META-INF/timestamp.tst" {
				return stamp(later)
			}
			return c
		}), "time-?stamp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := &judge{t, j.in, j.out}
			file := write(t, filepath.Join(dir, strings.ReplaceAll(tt.name, " ", "-")+".asice"), tt.container)
			if tt.refusal == "" {
				j.must("container", conf, file)
			} else {
				j.refuses(tt.refusal, "container", conf, file)
			}
		})
	}

	// Whoever trusts another authority believes nothing.
	shared := filepath.Join(conf, testnet.Instance, "shared-params.xml")
	params, err := os.ReadFile(shared)
	if err != nil {
		t.Fatal(err)
	}
	for what, refusal := range map[string]string{"approvedCA": "not issued by approved", "approvedTSA": "time-?stamp"} {
		without := regexp.MustCompile("(?s)<"+what+">.*</"+what+">").ReplaceAll(params, nil)
		if len(without) == len(params) {
			t.Fatal("no " + what)
		}
		write(t, shared, without)
		j.refuses(refusal, "container", conf, filepath.Join(dir, "untouched.asice"))
	}
	write(t, shared, params)
	j.must("container", conf, filepath.Join(dir, "untouched.asice"))
}
