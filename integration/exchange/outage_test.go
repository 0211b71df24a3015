// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kontor/config"
	"kontor/integration/testnet"
	"kontor/registry"
)

// What a service can do to its callers.
func TestBackend(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Gateway: func(_ string, cfg *config.Gateway) { cfg.MessageLog.MaxBody = 1 << 20 }})
	population := testnet.Path(testnet.Population)
	stop := make(chan struct{})
	defer close(stop)
	hang := func(r *http.Request) {
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}
	raw := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, text)
		}
	}
	const sp = "server.serverproxy."
	for _, tt := range []struct {
		name  string
		path  string // default persons
		serve http.HandlerFunc
		code  string // "": it passes
		cause string
	}{
		{"down", population + "/dead", nil, sp + "network_error", "did not accept the connection"},
		{"host unknown", population + "/nowhere", nil, sp + "(unknown_host|network_error)", "host"},
		{"slow beyond its time-out", population + "/slow", func(_ http.ResponseWriter, r *http.Request) { hang(r) }, sp + "io_error", "within 500ms"},
		{"hanging in the body", population + "/slow", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			hang(r)
		}, sp + "io_error", "broke off|within 500ms"},
		{"closing in the body", "", raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), sp + "io_error", "broke off"},
		{"closing in a chunk", "", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf"), sp + "io_error", "broke off"},
		{"closing without answer", "", raw(""), sp + "io_error", "no proper answer"},
		{"no HTTP", "", raw("220 mail.example ESMTP\r\n"), sp + "io_error", "no proper answer"},
		{"headers of 1 MB", "", raw("HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 1000) + "\r\n"), sp + "io_error", "no proper answer"},
		{"too many headers", "", raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + strings.Repeat("X: y\r\n", 300) + "\r\n"), sp + "service_failed.invalid_message", "malformed answer"},
		{"malformed status", "", raw("HTTP/1.1 0 Fine\r\nContent-Length: 0\r\n\r\n"), sp + "(io_error|service_failed.invalid_message)", "answer"},
		{"switching protocols", "", raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), sp + "(io_error|service_failed.invalid_message)", "answer"},
		{"body beyond the limit", "", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20+1)) }, sp + "logging_failed", "larger"},
		{"body without end", "", func(w http.ResponseWriter, _ *http.Request) {
			for block := make([]byte, 64<<10); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, sp + "logging_failed", "larger"},
		{"TLS certificate not registered", testnet.Path(testnet.Census) + "/secure", nil, sp + "ssl_authentication_failed", "not registered"},
		{"TLS certificate not looked at", testnet.Path(testnet.Census) + "/lax", nil, "", ""},
		{"TLS certificate registered", population + "/secure", nil, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n.Service.Reset()
			if tt.serve != nil {
				n.Service.Handle(tt.serve)
			}
			path := testnet.Path(testnet.Persons)
			if tt.path != "" {
				path = tt.path
			}
			added := count(n)
			res := n.Call(testnet.Portal, "GET", path, nil)
			a, b := added()
			if tt.code == "" {
				if res.Status != http.StatusOK || a != 2 || b != 2 {
					t.Errorf("%+v %s, %d and %d records", res, res.Body, a, b)
				}
				return
			}
			notDelivered(t, res, tt.code, tt.cause)
			if a != 1 || b != 1 { // the request was sent, logged and delivered; there is no answer to log
				t.Errorf("%d and %d records, want the request's on both sides", a, b)
			}
			if got := n.Service.Requests(); len(got) > 1 {
				t.Errorf("the service was asked %d times", len(got))
			}
		})
	}
	works(t, n)
}

// While time-stamps fail, messages pass for as long as is permitted, and not
// longer.
func TestTSADown(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Gateway: func(_ string, cfg *config.Gateway) { cfg.MessageLog.StampGrace = 10 * time.Minute }})
	before := works(t, n)
	n.TSA.Down()
	first := works(t, n)
	for _, g := range []*testnet.Gateway{n.A, n.B} {
		testnet.Eventually(t, func() error { return failing(g) })
	}
	n.Advance(9 * time.Minute)
	within := works(t, n)
	n.B.Advance(2 * time.Minute)
	added := count(n)
	n.Service.Reset()
	res := n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil)
	refused(t, res, "server.serverproxy.logging_failed.timestamping_failed", "time-stamping has failed")
	untouched(t, n)
	n.A.Advance(2 * time.Minute)
	res = n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil)
	refused(t, res, "server.clientproxy.logging_failed.timestamping_failed", "time-stamping has failed")
	untouched(t, n)
	if a, b := added(); a != 1 || b != 0 {
		t.Errorf("%d and %d records", a, b)
	}
	n.TSA.Up()
	for _, g := range []*testnet.Gateway{n.A, n.B} {
		testnet.Eventually(t, func() error {
			if err := failing(g); err == nil {
				return os.ErrDeadlineExceeded
			}
			return nil
		})
	}
	after := works(t, n)
	for _, r := range []*testnet.Result{before, first, within, after} {
		if a, b := n.Proofs(n.A, testnet.Portal, r.ID), n.Proofs(n.B, testnet.Population, r.ID); len(a) != 2 || len(b) != 2 {
			t.Errorf("%d and %d containers of %s", len(a), len(b), r.ID)
		}
	}
}

// failing returns nil while a gateway reports that time-stamping fails.
func failing(g *testnet.Gateway) error {
	if g.Metric("kontor_log_refuse_in_seconds") == 0 {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// A time-stamping service that hangs holds up nobody.
func TestTSAHanging(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	release := n.TSA.Hang()
	defer release()
	var all []*testnet.Result
	for range 3 {
		all = append(all, works(t, n))
	}
	release()
	for _, r := range all {
		if a := n.Proofs(n.A, testnet.Portal, r.ID); len(a) != 2 {
			t.Errorf("%d containers", len(a))
		}
	}
}

// OCSP responses serve while they are fresh, also after a restart, and not
// longer.
func TestOCSPDown(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	works(t, n)
	n.OCSP.Down()
	n.A.Restart(nil)
	n.B.Restart(nil)
	works(t, n)
	n.Advance(50 * time.Minute)
	n.Publish()
	works(t, n)
	n.Advance(20 * time.Minute)
	n.Publish()
	added := count(n)
	n.Service.Reset()
	res := n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil)
	refused(t, res, "server.clientproxy.ssl_authentication_failed", "fresh OCSP response")
	untouched(t, n)
	if a, b := added(); a != 0 || b != 0 {
		t.Errorf("%d and %d records", a, b)
	}
}

// A gateway whose own responses are stale is not believed by others.
func TestOwnOCSPStale(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	works(t, n)
	n.Service.Reset()
	n.B.Advance(70 * time.Minute) // B believes itself no longer
	n.Settings(registry.Settings{ConfigurationValidity: ptr(7200)})
	added := count(n)
	res := n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil)
	if res.Code == "" || res.Status < 400 {
		t.Errorf("%+v", res)
	} else {
		publicText(t, res.Fault.Message, ".")
	}
	untouched(t, n)
	if _, b := added(); b != 0 {
		t.Errorf("%d records", b)
	}
	n.B.Advance(-70 * time.Minute)
	works(t, n)
}

func ptr[T any](v T) *T { return &v }

func TestGlobalConfiguration(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Offline: true})
	get := func() *testnet.Result { return n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil) }
	t.Run("none yet", func(t *testing.T) {
		refused(t, get(), "server.clientproxy.global_conf_outdated", "no global configuration yet")
		if reply, err := n.Peer.Post("auth", n.Peer.Request(testnet.Evil, "GET", testnet.Path(testnet.Persons), nil)); err == nil {
			t.Errorf("%+v", reply)
		}
		untouched(t, n)
	})
	n.Publish()
	n.A.WaitReady()
	n.B.WaitReady()
	works(t, n)
	n.Unpublish()
	t.Run("expired at the provider", func(t *testing.T) {
		n.B.Advance(59 * time.Minute)
		works(t, n)
		added := count(n)
		n.Service.Reset()
		n.B.Advance(2 * time.Minute)
		res := get()
		refused(t, res, "server.serverproxy.global_conf_outdated", "expired at")
		untouched(t, n)
		if a, b := added(); a != 1 || b != 0 {
			t.Errorf("%d and %d records", a, b)
		}
	})
	t.Run("expired at the consumer", func(t *testing.T) {
		added := count(n)
		n.A.Advance(61 * time.Minute)
		refused(t, get(), "server.clientproxy.global_conf_outdated", "expired at")
		untouched(t, n)
		if a, b := added(); a != 0 || b != 0 {
			t.Errorf("%d and %d records", a, b)
		}
	})
	n.A.Advance(-61 * time.Minute)
	n.B.Advance(-61 * time.Minute)
	t.Run("registry down", func(t *testing.T) {
		works(t, n)
		n.A.Restart(nil) // from what it has on disk
		works(t, n)
	})
}

// The reserve of the disk is for what must be written, so messages are refused
// before the disk is full.
func TestDiskFull(t *testing.T) {
	full := func(cfg *config.Gateway) { cfg.MessageLog.DiskReserve = 1 << 60 }
	roomy := func(cfg *config.Gateway) { cfg.MessageLog.DiskReserve = 1 << 20 }
	n := testnet.Start(t, testnet.Options{})
	before := works(t, n)
	for _, size := range []int{10, 1 << 20} {
		body := make([]byte, size)
		n.B.Restart(full)
		added := count(n)
		n.Service.Reset()
		res := n.Call(testnet.Portal, "POST", testnet.Path(testnet.Persons), bytes.NewReader(body))
		refused(t, res, "server.serverproxy.logging_failed", "disk")
		untouched(t, n)
		if a, b := added(); a != 1 || b != 0 {
			t.Errorf("%d and %d records", a, b)
		}
		n.B.Restart(roomy)
		n.A.Restart(full)
		added = count(n)
		res = n.Call(testnet.Portal, "POST", testnet.Path(testnet.Persons), bytes.NewReader(body))
		refused(t, res, "server.clientproxy.logging_failed", "disk")
		untouched(t, n)
		if a, b := added(); a != 0 || b != 0 {
			t.Errorf("%d and %d records", a, b)
		}
		n.A.Restart(roomy)
	}
	works(t, n)
	if a, b := n.Proofs(n.A, testnet.Portal, before.ID), n.Proofs(n.B, testnet.Population, before.ID); len(a) != 2 || len(b) != 2 {
		t.Errorf("%d and %d containers", len(a), len(b))
	}
}

// Bodies beyond the limit of either side.
func TestBodyLimit(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Gateway: func(name string, cfg *config.Gateway) {
		cfg.MessageLog.MaxBody = map[string]config.Size{"A": 2 << 20, "B": 1 << 20}[name]
	}})
	post := func(size int, chunked bool) *testnet.Result {
		var body io.Reader = bytes.NewReader(make([]byte, size))
		if chunked {
			body = struct{ io.Reader }{body}
		}
		return n.Call(testnet.Portal, "POST", testnet.Path(testnet.Persons), body)
	}
	for _, chunked := range []bool{false, true} {
		n.Service.Reset()
		if res := post(1<<20, chunked); res.Status != http.StatusOK {
			t.Errorf("%+v %s", res, res.Body)
		}
		n.Service.Reset()
		added := count(n)
		refused(t, post(1<<20+1, chunked), "server.serverproxy.logging_failed", "larger")
		refused(t, post(2<<20+1, chunked), "server.clientproxy.logging_failed", "larger")
		untouched(t, n)
		if a, b := added(); a > 1 || b != 0 { // the provider may have refused before the consumer had signed
			t.Errorf("%d and %d records", a, b)
		}
		for _, g := range []*testnet.Gateway{n.A, n.B} {
			testnet.Eventually(t, func() error {
				if left := g.SpoolFiles(); len(left) > 0 {
					return &os.PathError{Op: "left", Path: left[0], Err: os.ErrExist}
				}
				return nil
			})
		}
	}
	works(t, n)
}

// Clients that go away.
func TestClientHangsUp(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	dial := func() net.Conn {
		c, err := net.Dial("tcp", n.A.IP()+":8080")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	head := "POST " + testnet.Path(testnet.Persons) + " HTTP/1.1\r\nHost: x\r\nX-Road-Client: " + testnet.Portal + "\r\n"
	ended := func(g *testnet.Gateway, since int) {
		t.Helper()
		testnet.Eventually(t, func() error {
			if len(g.Logged("exchange failed"))+len(g.Logged("exchange")) <= since {
				return context.DeadlineExceeded
			}
			return nil
		})
	}
	exchanges := func(g *testnet.Gateway) int { return len(g.Logged("exchange failed")) + len(g.Logged("exchange")) }
	t.Run("in the request", func(t *testing.T) {
		for _, sent := range []int{0, 10, 300 << 10} { // in memory and streamed
			n.Service.Reset()
			added := count(n)
			since := exchanges(n.A)
			c := dial()
			_, _ = io.WriteString(c, head+"Content-Length: 1000000\r\n\r\n"+strings.Repeat("x", sent))
			c.Close()
			ended(n.A, since)
			untouched(t, n)
			if a, b := added(); a != 0 || b != 0 {
				t.Errorf("%d and %d records", a, b)
			}
		}
		// A chunked body without its end is no message either.
		since := exchanges(n.A)
		c := dial()
		_, _ = io.WriteString(c, head+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		c.Close()
		ended(n.A, since)
		untouched(t, n)
	})
	t.Run("while it waits", func(t *testing.T) {
		n.Service.Reset()
		asked, answer := make(chan struct{}), make(chan struct{})
		n.Service.Handle(func(http.ResponseWriter, *http.Request) { close(asked); <-answer })
		added := count(n)
		since := exchanges(n.A)
		c := dial()
		_, _ = io.WriteString(c, head+"Content-Length: 0\r\n\r\n")
		<-asked
		c.Close()
		ended(n.A, since)
		close(answer)
		// The request was signed, logged and delivered; what became of the answer depends on when each hop noticed.
		if a, b := added(); a < 1 || b < 1 {
			t.Errorf("%d and %d records", a, b)
		}
	})
	t.Run("in the response", func(t *testing.T) {
		n.Service.Reset()
		n.Service.Handle(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 8<<20)) })
		added := count(n)
		since := exchanges(n.A)
		c := dial()
		_, _ = io.WriteString(c, head+"Content-Length: 0\r\n\r\n")
		_, _ = io.ReadFull(c, make([]byte, 100))
		c.Close()
		ended(n.A, since)
		if a, b := added(); a != 2 || b != 2 {
			t.Errorf("%d and %d records: the exchange was complete", a, b)
		}
	})
	works(t, n)
}

// A slow client of either proxy loses its connection, not the gateway.
func TestStandingStill(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Gateway: func(_ string, cfg *config.Gateway) { cfg.Limits.Idle = 300 * time.Millisecond }})
	added := count(n)
	c, err := net.Dial("tcp", n.A.IP()+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "POST "+testnet.Path(testnet.Persons)+" HTTP/1.1\r\nHost: x\r\nX-Road-Client: "+testnet.Portal+"\r\nContent-Length: 100\r\n\r\nhalf")
	_, _ = io.Copy(io.Discard, c) // until the gateway gives up

	m := n.Peer.Request(testnet.Evil, "POST", testnet.Path(testnet.Persons), []byte("x"))
	contentType, content := m.Encode()
	s, err := n.Peer.Dial(t.Context(), "auth")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, _ = io.WriteString(s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: "+contentType+"\r\nX-Hash-Algorithm: SHA-512\r\nX-Road-Message-Type: REST\r\nContent-Length: 100000\r\n\r\n")
	_, _ = s.Write(content[:len(content)/2])
	_, _ = io.Copy(io.Discard, s)
	untouched(t, n)
	if a, b := added(); a != 0 || b != 0 {
		t.Errorf("%d and %d records", a, b)
	}
	works(t, n)
}

// A gateway that is killed, or rather stopped, under way leaves no files.
func TestRestart(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	before := works(t, n)
	spool := filepath.Join(n.B.Cfg.DataDir, "messagelog", "spool")
	n.B.Stop()
	if err := os.MkdirAll(spool, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(spool, "body-1.spool"), []byte("left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	res := n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil)
	refused(t, res, "server.clientproxy.network_error", "could be reached")
	n.B.Restart(nil)
	if left := n.B.SpoolFiles(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	works(t, n)
	if b := n.Proofs(n.B, testnet.Population, before.ID); len(b) != 2 {
		t.Errorf("%d containers", len(b))
	}
}
