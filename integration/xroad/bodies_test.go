// SPDX-License-Identifier: Apache-2.0

package xroad_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"kontor/config"
	"kontor/integration/testnet"
)

// noise returns bytes that do not compress, the same for the same length.
func noise(length int) []byte {
	b := make([]byte, length)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return b
}

// chunked hides the length of a body.
func chunked(b []byte) io.Reader { return io.MultiReader(bytes.NewReader(b)) }

// TestLiveBodies lets both sides send each other what is large, and what has
// an unusual form.
func TestLiveBodies(t *testing.T) {
	classes(t)
	n := testnet.Start(t, testnet.Options{Gateway: func(_ string, c *config.Gateway) { c.MessageLog.MaxBody = 64 << 20 }})
	becomeXRoad(t, n)
	echo(n)
	provide(n)
	for _, w := range ways(n) {
		t.Run(w.name, func(t *testing.T) {
			for name, size := range map[string]int{"1MB": 1 << 20, "20MB": 20 << 20} {
				content := noise(size)
				w.rest(t, "rest-"+name, content)
				kind, message, parts := w.attachments("soap-"+name, content, []byte(name), content[:size/2])
				w.soap(t, "soap-"+name, kind, chunked(message), parts...)
			}
			w.soap(t, "envelope", "text/xml; charset=UTF-8", chunked(w.envelope("envelope", strings.Repeat("<õ>&amp;</õ>\r\n", 100_000))))

			// Attachments by reference, and one with a coding of its own.
			parts := []testnet.Part{
				{Header: [][2]string{{"Content-Type", `application/xop+xml; charset=UTF-8; type="text/xml"`}, {"Content-ID", "<root@b>"}},
					Content: w.envelope("xop", `<x:Include xmlns:x="http://www.w3.org/2004/08/xop/include" href="cid:1@b"/>`)},
				{Header: [][2]string{{"Content-Type", "application/octet-stream"}, {"Content-ID", "<1@b>"}, {"Content-Transfer-Encoding", "binary"}}, Content: noise(1000)},
				{Header: [][2]string{{"Content-Type", "text/plain"}, {"Content-ID", "<2@b>"}, {"Content-Transfer-Encoding", "base64"}}, Content: []byte("aGVsbG8=\r\n")},
			}
			kind, message := testnet.Related(`; type="application/xop+xml"; start="<root@b>"; start-info="text/xml"`, parts...)
			w.soap(t, "xop", kind, chunked(message), parts...)

			// Optional headers, and the action that a service wants to be told.
			extra := `<xro:issue>12/7 &amp; ü</xro:issue><rp:representedParty xmlns:rp="http://x-road.eu/xsd/representation.xsd"><rp:partyClass>COM</rp:partyClass><rp:partyCode>7</rp:partyCode></rp:representedParty>`
			full := testnet.Envelope{Client: w.client, Service: w.provider + "/soap", ID: w.id("full"), Extra: extra, Body: `<soap xmlns="urn:q">õ</soap>`}.String()
			res := w.call(t, http.MethodPost, "/", "text/xml", strings.NewReader(full), `SOAPAction: "urn:act"`)
			got := n.Service.Requests()
			if last := got[len(got)-1]; !bytes.Contains(res.Body, []byte(extra)) || !bytes.Contains(res.Body, []byte(">õ</")) || !bytes.Equal(last.Body, []byte(full)) || last.Header.Get("Soapaction") != `"urn:act"` {
				t.Errorf("%s; the service has got %+v", res.Body, last)
			}

			// X-Road takes other character sets, too; a gateway says that it does not.
			latin := bytes.ReplaceAll(bytes.ReplaceAll([]byte(full), []byte("õ"), []byte{0xf5}), []byte("ü"), []byte{0xfc})
			latin = bytes.Replace(latin, []byte("UTF-8"), []byte("ISO-8859-1"), 1)
			if res = w.call(t, http.MethodPost, "/", "text/xml; charset=ISO-8859-1", bytes.NewReader(latin)); !bytes.Contains(res.Body, []byte("the charset must be UTF-8")) {
				t.Errorf("%d %s", res.Status, res.Body)
			}
		})
	}
}

// TestLiveBatches lets both sides sign several messages at once.
func TestLiveBatches(t *testing.T) {
	j := newJudge(t)
	n := testnet.Start(t, testnet.Options{})
	x := becomeXRoad(t, n)
	x.sign("slowly") // what comes meanwhile is signed together
	echo(n)
	provide(n)
	for _, w := range ways(n) {
		t.Run(w.name, func(t *testing.T) {
			const many = 16
			j := &judge{t, j.in, j.out}
			shared, attempt := map[string]int{}, 0
			testnet.Eventually(t, func() error {
				attempt++
				name := func(i int) string { return fmt.Sprintf("many-%d-%d", attempt, i) }
				var all sync.WaitGroup
				for i := range many {
					all.Go(func() {
						var res *testnet.Result
						name := name(i)
						if i%2 == 0 {
							res = w.call(t, http.MethodPost, testnet.Path(w.provider+"/persons"), "text/plain", strings.NewReader(name), "X-Road-Client: "+w.client, "X-Road-Id: "+w.id(name))
						} else {
							res = w.call(t, http.MethodPost, "/", "text/xml", bytes.NewReader(w.envelope(name, name)))
						}
						if res.Err != nil || res.Status != http.StatusOK || !bytes.Contains(res.Body, []byte(name)) || bytes.Contains(res.Body, []byte("faultcode")) {
							t.Errorf("%s: %d %.500s %v", name, res.Status, res.Body, res.Err)
						}
					})
				}
				all.Wait()
				conf := verificationConf(t, n)
				for i := range many {
					for k, p := range w.n.Proofs(w.n.A, testnet.Portal, w.id(name(i))) {
						j.must("container", conf, write(t, filepath.Join(t.TempDir(), "evidence.asice"), p.File))
						if batched(p) {
							shared[[]string{"request", "response"}[k]]++
						}
					}
				}
				if len(shared) < 2 {
					return fmt.Errorf("signatures over several messages: %v", shared)
				}
				return nil
			})
			t.Log(shared)
		})
	}
}
