// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"kontor/config"
	"kontor/gateway/serverconf"
	"kontor/integration/testnet"
	"kontor/registry"
)

var signaturePart = []byte("content-type: signature/bdoc")

// No signature leaves before its record is durable, on the consumer's side:
// when the log refuses, the peer sees no signature, however much of the body it
// has seen.
func TestNoSignatureWithoutRecordConsumer(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Gateway: func(_ string, cfg *config.Gateway) {
		cfg.MessageLog.StampGrace = time.Minute
		cfg.MessageLog.InlineBody = 1 << 20
	}})
	refusal := func(t *testing.T, size int, code string) {
		t.Helper()
		n.Peer.Reset()
		added := count(n)
		res := n.Call(testnet.Portal, "POST", testnet.Path(testnet.Bad), bytes.NewReader(bytes.Repeat([]byte("x"), size)))
		refused(t, res, code, "not logged")
		if size > 100<<10 { // the peer may still be reading what was sent before the refusal
			testnet.Eventually(t, func() error {
				if !bytes.Contains(n.Peer.Seen(), []byte("xxxx")) {
					return errors.New("the body did not stream; the test proves nothing")
				}
				return nil
			})
		}
		seen := n.Peer.Seen()
		if bytes.Contains(seen, signaturePart) || bytes.Contains(seen, []byte("<ds:Signature")) || bytes.Contains(seen, []byte("HashChain")) {
			t.Error("the peer saw a signature")
		}
		if bytes.HasSuffix(seen, []byte("0\r\n\r\n")) {
			t.Error("the peer saw a regular end")
		}
		if a, _ := added(); a != 0 {
			t.Errorf("%d records", a)
		}
	}
	t.Run("a log without space", func(t *testing.T) {
		n.A.Restart(func(cfg *config.Gateway) { cfg.MessageLog.DiskReserve = 1 << 60 })
		for _, size := range []int{10, 400 << 10} {
			refusal(t, size, "server.clientproxy.logging_failed")
		}
		n.A.Restart(func(cfg *config.Gateway) { cfg.MessageLog.DiskReserve = 1 << 20 })
	})
	t.Run("a log that must not grow unstamped", func(t *testing.T) {
		n.TSA.Down()
		works(t, n)
		testnet.Eventually(t, func() error { return failing(n.A) })
		n.A.Advance(2 * time.Minute)
		for _, size := range []int{10, 400 << 10} {
			refusal(t, size, "server.clientproxy.logging_failed.timestamping_failed")
		}
		n.TSA.Up()
		testnet.Eventually(t, func() error {
			if failing(n.A) == nil {
				return os.ErrDeadlineExceeded
			}
			return nil
		})
	})
	n.Peer.Reset()
	works(t, n)
}

// The same on the provider's side: the service was asked, its answer streamed,
// and yet there is no signature when its record cannot be kept.
func TestNoSignatureWithoutRecordProvider(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Gateway: func(_ string, cfg *config.Gateway) { cfg.MessageLog.StampGrace = time.Minute }})
	n.TSA.Down()
	works(t, n)
	testnet.Eventually(t, func() error { return failing(n.B) })
	for _, size := range []int{10, 400 << 10} {
		n.Service.Reset()
		n.Service.Handle(func(w http.ResponseWriter, _ *http.Request) {
			n.B.Advance(2 * time.Minute) // between the two records
			_, _ = w.Write(bytes.Repeat([]byte("x"), size))
		})
		added := count(n)
		reply, err := n.Peer.Post("auth", n.Peer.Request(testnet.Evil, "GET", testnet.Path(testnet.Persons), nil))
		n.B.Advance(-2 * time.Minute)
		if err != nil || reply.Fault == nil || reply.Fault.Code() != "server.serverproxy.logging_failed.timestamping_failed" {
			t.Fatalf("%+v %v", reply, err)
		}
		publicText(t, reply.Fault.Text(), "not logged")
		if bytes.Contains(reply.Raw, signaturePart) || bytes.Contains(reply.Raw, []byte("HashChain")) {
			t.Error("the peer saw a signature")
		}
		if _, b := added(); b != 1 {
			t.Errorf("%d records, want the request's", b)
		}
		if len(n.Service.Requests()) != 1 {
			t.Error("the service was not asked: the test proves nothing")
		}
	}
}

// An answer that fits into memory goes out when it is complete, so that its
// length is known; a larger one streams.
func TestLengthOfAnswers(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	for size, whole := range map[int]bool{0: true, 1 << 10: true, 60 << 10: true, 200 << 10: false} {
		n.Service.Handle(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(bytes.Repeat([]byte("x"), size))
		})
		reply, err := n.Peer.Post("auth", n.Peer.Request(testnet.Evil, "GET", testnet.Path(testnet.Persons), nil))
		if err != nil || reply.Fault != nil || len(reply.Body) != size {
			t.Fatalf("%d bytes: %+v %v", size, reply, err)
		}
		want := ""
		if whole {
			want = strconv.Itoa(len(reply.Raw))
		}
		if got := reply.Header.Get("Content-Length"); got != want {
			t.Errorf("answer of %d bytes has the length %q, want %q", size, got, want)
		}
	}
}

// Nothing is delivered before its record is durable: an answer that cannot be
// recorded is not given to the client.
func TestNoDeliveryWithoutRecord(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Gateway: func(_ string, cfg *config.Gateway) { cfg.MessageLog.StampGrace = time.Minute }})
	n.TSA.Down()
	works(t, n)
	testnet.Eventually(t, func() error { return failing(n.A) })
	n.Peer.Serve(func(x *testnet.PeerExchange) {
		n.A.Advance(2 * time.Minute)
		x.Send(x.Answer(200, []byte("forged")))
	})
	added := count(n)
	res := n.Call(testnet.Portal, "GET", testnet.Path(testnet.Bad), nil)
	n.A.Advance(-2 * time.Minute)
	notDelivered(t, res, "server.clientproxy.logging_failed.timestamping_failed", "not logged")
	for name := range res.Header {
		if strings.HasPrefix(name, "X-Road-") && name != "X-Road-Error" {
			t.Errorf("the client got %s", name)
		}
	}
	if a, _ := added(); a != 1 {
		t.Errorf("%d records, want the request's", a)
	}
}

// One View judges one exchange: what changes while a service thinks changes the
// next exchange, not this one.
func TestOneViewPerExchange(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	server1, portal := testnet.ServerID(testnet.Server1), testnet.ClientID(testnet.Portal)
	server2 := testnet.ServerID(testnet.Server2)
	authority := n.State().CAs()[0]
	limited := authority
	limited.AuthenticationOnly = true
	for _, tt := range []struct {
		name         string
		change, back []registry.Change
		code         string
	}{
		{"client leaves", []registry.Change{&registry.UnregisterClient{Server: server1, Client: portal}},
			[]registry.Change{&registry.RegisterClient{Server: server1, Client: portal}}, "server.serverproxy.service_failed.ssl_authentication_failed"},
		{"provider leaves", []registry.Change{&registry.SetMaintenance{Server: server2, On: true}},
			[]registry.Change{&registry.SetMaintenance{Server: server2}}, "server.clientproxy.maintenance_mode"},
		{"authority may no longer certify signing keys", []registry.Change{&registry.SetCA{CA: limited}},
			[]registry.Change{&registry.SetCA{CA: authority}}, "server.clientproxy.cannot_create_signature.key_not_found"},
		{"certificates go", []registry.Change{&registry.UnregisterCertificate{Server: server1, Certificate: registry.Hash(n.Certificate(n.A).Hash())}},
			[]registry.Change{&registry.RegisterCertificate{Server: server1, Certificate: n.Certificate(n.A).Cert.Raw}}, "server.clientproxy.ssl_authentication_failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n.Service.Reset()
			asked, proceed := make(chan struct{}), make(chan struct{})
			n.Service.Handle(func(w http.ResponseWriter, _ *http.Request) {
				close(asked)
				<-proceed
				_, _ = w.Write([]byte("late"))
			})
			added := count(n)
			var res *testnet.Result
			var wg sync.WaitGroup
			r := n.NewRequest(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil)
			wg.Go(func() { res = n.Do(http.DefaultTransport, r) })
			<-asked
			n.Apply(tt.change...)
			close(proceed)
			wg.Wait()
			if res.Err != nil || res.Status != http.StatusOK || string(res.Body) != "late" {
				t.Errorf("the exchange under way: %+v %s", res, res.Body)
			}
			if a, b := added(); a != 2 || b != 2 {
				t.Errorf("%d and %d records", a, b)
			}
			n.Service.Reset()
			refused(t, n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil), tt.code, ".")
			untouched(t, n)
			n.Apply(tt.back...)
			n.A.WaitReady()
			works(t, n)
		})
	}
}

// Rights that are taken away while a request is under way do not let it in:
// they are looked at when the claim is proven, which is after its last byte.
func TestRightsAreThoseOfTheMoment(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	m := n.Peer.Request(testnet.Evil, "POST", testnet.Path(testnet.Persons), bytes.Repeat([]byte("x"), 300<<10))
	contentType, content := m.Encode()
	c, err := n.Peer.Dial(t.Context(), "auth")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nX-Hash-Algorithm: SHA-512\r\nX-Road-Message-Type: REST\r\nContent-Length: %d\r\n\r\n", contentType, len(content))
	_, _ = c.Write(content[:len(content)-100])
	var kept []serverconf.AccessEntry
	n.B.Configure(func(m *serverconf.Model) {
		e := testnet.Entry(m, testnet.Population)
		kept, e.Access = e.Access, nil
	})
	_, _ = c.Write(content[len(content)-100:])
	reply, err := testnet.ReadReply(c)
	rejected(t, n, reply, err, "server.serverproxy.access_denied", "not allowed")
	n.B.Configure(func(m *serverconf.Model) { testnet.Entry(m, testnet.Population).Access = kept })
	works(t, n)
}

// Exchanges at the same time do not get into each other's way, and every one
// that was answered with success has valid evidence on both sides.
func TestConcurrentExchanges(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	n.Service.Handle(func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r.Body)
		_, _ = w.Write(b.Bytes())
	})
	const workers, each = 8, 6
	var mu sync.Mutex
	ids := map[string][]byte{}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				body := bytes.Repeat(fmt.Appendf(nil, "%d/%d;", w, i), 1+(w*each+i)*400)
				r := n.NewRequest(testnet.Portal, "POST", testnet.Path(testnet.Persons), bytes.NewReader(body))
				if i == each-1 && w%2 == 0 { // some are refused in between
					r.Header.Set("X-Road-Client", testnet.Stranger)
					if res := n.Do(http.DefaultTransport, r); res.Code != "server.serverproxy.access_denied" {
						t.Errorf("%+v", res)
					}
					continue
				}
				res := n.Do(http.DefaultTransport, r)
				if res.Err != nil || res.Status != 200 || !bytes.Equal(res.Body, body) {
					t.Errorf("%d/%d: %v %d %.200s", w, i, res.Err, res.Status, res.Body)
					continue
				}
				mu.Lock()
				ids[res.ID] = body
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if want := workers*each - workers/2; len(ids) != want {
		t.Fatalf("%d answers, want %d", len(ids), want)
	}
	checked := 0
	for id, body := range ids {
		if checked++; checked > 6 {
			break // the log's own check at the end covers the rest
		}
		a, b := n.Proofs(n.A, testnet.Portal, id), n.Proofs(n.B, testnet.Population, id)
		if len(a) != 2 || len(b) != 2 {
			t.Fatalf("%d and %d containers", len(a), len(b))
		}
		for _, p := range append(a, b...) {
			if !bytes.Equal(p.Body, body) {
				t.Errorf("%s: the log has another body", id)
			}
		}
	}
	if a, b := n.A.Records(), n.B.Records(); a != 2*len(ids)+workers/2 || b != 2*len(ids) {
		t.Errorf("%d and %d records", a, b)
	}
}

// More exchanges than permitted are refused at once, on either side.
func TestTooManyExchanges(t *testing.T) {
	for _, side := range []string{"A", "B"} {
		t.Run(side, func(t *testing.T) {
			n := testnet.Start(t, testnet.Options{Gateway: func(name string, cfg *config.Gateway) {
				if name == side {
					cfg.Limits.Exchanges = 1
				}
			}})
			asked, proceed := make(chan struct{}), make(chan struct{})
			n.Service.Handle(func(http.ResponseWriter, *http.Request) { close(asked); <-proceed })
			var wg sync.WaitGroup
			r := n.NewRequest(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil)
			wg.Go(func() {
				if res := n.Do(http.DefaultTransport, r); res.Status != 200 {
					t.Errorf("%+v", res)
				}
			})
			<-asked
			res := n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil)
			code := map[string]string{"A": "server.clientproxy.service_unavailable", "B": "server.serverproxy.service_unavailable"}[side]
			refused(t, res, code, "limit of 1")
			close(proceed)
			wg.Wait()
			works(t, n)
		})
	}
}

// What a gateway tells to nobody: keys, PIN and bodies are in no log.
func TestNoSecretsInLogs(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	secret := strings.Repeat("do-not-log-me", 10)
	n.Service.Handle(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(secret)) })
	for _, client := range []string{testnet.Portal, testnet.Stranger, testnet.Pending} {
		n.Call(client, "POST", testnet.Path(testnet.Persons)+"?"+secret, strings.NewReader(secret), "Authorization: "+secret)
	}
	for _, g := range []*testnet.Gateway{n.A, n.B} {
		pin, err := os.ReadFile(filepath.Join(g.Cfg.DataDir, "pin"))
		if err != nil {
			t.Fatal(err)
		}
		text := g.LogText()
		for _, s := range []string{secret, "PRIVATE KEY", "pin:" + strings.TrimSpace(string(pin))} {
			if strings.Contains(text, s) {
				t.Errorf("gateway %s logged %.20q", g.Name, s)
			}
		}
	}
}
