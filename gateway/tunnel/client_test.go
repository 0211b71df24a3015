// SPDX-License-Identifier: Apache-2.0

package tunnel_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kontor/gateway/tunnel"
	"kontor/pki"
	"kontor/pki/ocsp"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var discardLog = log.New(io.Discard, "", 0)

func TestPost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/" || r.Host != "b.test:5500" ||
			len(r.TransferEncoding) != 1 || r.Header.Get("x-hash-algorithm") != "SHA-512" || r.Header.Get("User-Agent") != "" {
			t.Errorf("%s %s %s %v %v, %v", r.Method, r.Host, r.URL, r.TransferEncoding, r.Header, err)
		}
		if r.TLS.Version != tls.VersionTLS13 || !r.TLS.PeerCertificates[0].Equal(a.cert.Leaf) || r.TLS.ServerName != "b.test" {
			t.Errorf("TLS %x for %s", r.TLS.Version, r.TLS.ServerName)
		}
		rw.Header().Set("Content-Type", "multipart/mixed; boundary=x")
		fmt.Fprintf(rw, "got %s", body)
	}))
	c := a.tunnel()
	for _, body := range []io.Reader{
		bytes.NewBufferString("hello"), strings.NewReader("hello"), bytes.NewReader([]byte("hello")), onlyReader{strings.NewReader("hello")},
		io.MultiReader(strings.NewReader("hel"), strings.NewReader("lo")),
	} {
		resp, err := c.Post(t.Context(), w.view.Load(), b.providers(), b.client, http.Header{"x-hash-algorithm": {"SHA-512"}}, body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil || string(answer) != "got hello" || resp.Status != 200 || resp.Header.Get("Content-Type") != "multipart/mixed; boundary=x" {
			t.Errorf("%d %v %q, %v", resp.Status, resp.Header, answer, err)
		}
		if resp.Peer.Server.ID != b.id || !resp.Peer.Cert.Equal(b.cert.Leaf) {
			t.Errorf("peer %v", resp.Peer)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("read after the end: %d, %v", n, err)
		}
	}
	if b.conns.Load() != 1 || b.asked.Load() != 1 {
		t.Errorf("%d connections, %d questions for OCSP", b.conns.Load(), b.asked.Load())
	}
}

type onlyReader struct{ io.Reader }

// Nothing of a request reaches a peer that is not authenticated.
func TestPeerIsVerifiedFirst(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		setup func(w *world, b *server)
		want  error
		text  string
	}{
		{"not registered", func(w *world, b *server) { b.use(w.issue(w, "b", nil)) }, nil, "not registered for any"},
		{"registered for a server without the client", func(w *world, b *server) {
			c := w.add("c")
			b.use(c.cert)
		}, nil, "not registered at security server"},
		{"registered for another server of the client", func(w *world, b *server) {
			c := w.add("c")
			c.entry().Clients = append(c.entry().Clients, b.client)
			c.entry().Address = ""
			b.use(c.cert)
			w.publish()
		}, nil, ""}, // this is fine: any of the client's servers will do
		{"of a foreign authority", func(w *world, b *server) {
			foreign := newCA(w, "Foreign CA", nil)
			b.use(foreign.issue(w, "b", nil))
			b.register()
		}, pki.ErrNoAuthority, ""},
		{"of an impostor of the authority", func(w *world, b *server) {
			foreign := newCA(w, "Test CA", nil)
			b.use(foreign.issue(w, "b", nil))
			b.register()
		}, pki.ErrBadChain, ""},
		{"expired", func(w *world, b *server) {
			b.use(w.issue(w, "b", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }))
			b.register()
		}, pki.ErrExpired, ""},
		{"not yet valid", func(w *world, b *server) {
			b.use(w.issue(w, "b", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }))
			b.register()
		}, pki.ErrNotYetValid, ""},
		{"a signing certificate", func(w *world, b *server) {
			b.use(w.issue(w, "b", func(c *x509.Certificate) { c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageContentCommitment, nil }))
			b.register()
		}, nil, "not for authentication"},
		{"revoked", func(w *world, b *server) { w.set(b.cert.Leaf, ocsp.Revoked) }, ocsp.ErrRevoked, ""},
		{"unknown to OCSP", func(w *world, b *server) { w.set(b.cert.Leaf, ocsp.Unknown) }, ocsp.ErrUnknown, ""},
		{"stale OCSP response", func(w *world, b *server) {
			der := w.status(&w.ca, b.cert.Leaf)
			b.lookup = func(string) ([]byte, bool) { return der, true }
			w.clock.Store(int64(61 * time.Minute))
		}, ocsp.ErrStale, ""},
		{"no OCSP response", func(_ *world, b *server) {
			b.lookup = func(string) ([]byte, bool) { return nil, false }
		}, ocsp.ErrUnavailable, "500"},
		{"OCSP response of another certificate", func(w *world, b *server) {
			der := w.status(&w.ca, w.issue(w, "x", nil).Leaf)
			b.lookup = func(string) ([]byte, bool) { return der, true }
		}, ocsp.ErrUnavailable, "no response about"},
		{"OCSP response of a stranger", func(w *world, b *server) {
			foreign := newCA(w, "Test CA", nil)
			der := w.status(&foreign, b.cert.Leaf)
			b.lookup = func(string) ([]byte, bool) { return der, true }
		}, ocsp.ErrMismatch, ""},
		{"OCSP response of rubbish", func(_ *world, b *server) {
			b.lookup = func(string) ([]byte, bool) { return []byte("rubbish"), true }
		}, ocsp.ErrMalformed, ""},
	} {
		for _, transport := range []tunnel.Transport{tunnel.HTTPS, tunnel.QUIC} {
			t.Run(tt.name+", "+transport.String(), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				a, b := w.add("a"), w.add("b")
				tt.setup(w, b)
				b.serve(echo).serveQUIC()
				c := a.tunnel(only(transport))
				_, err := post(t, c, b, "secret")
				if tt.want == nil && tt.text == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if tt.name == "OCSP response of a stranger" { // its key is another, so either will do
					if errors.Is(err, ocsp.ErrUnavailable) {
						err = fmt.Errorf("%w: %w", err, ocsp.ErrMismatch)
					}
				}
				if !errors.Is(err, tunnel.ErrPeer) || !errors.Is(err, tunnel.ErrConnect) || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), tt.text) {
					t.Errorf("%v; want %v %s", err, tt.want, tt.text)
				}
				if b.requests.Load() != 0 || c.IdleConnections() != 0 {
					t.Errorf("%d requests arrived, %d connections kept", b.requests.Load(), c.IdleConnections())
				}
			})
		}
	}
}

// The peer must be one of those that were asked for, not just any server of the
// client.
func TestTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, other := w.add("a"), w.add("b"), w.add("other")
	other.entry().Clients = append(other.entry().Clients, b.client)
	w.publish()
	b.use(other.cert)
	b.serve(echo)
	view := w.view.Load()
	target, _ := view.Server(b.id)
	_, err := a.tunnel().Post(t.Context(), view, []*globalconf.Server{target}, b.client, nil, strings.NewReader("x"))
	if !errors.Is(err, tunnel.ErrPeer) || !strings.Contains(err.Error(), "not asked for") || b.requests.Load() != 0 {
		t.Errorf("%v, %d requests", err, b.requests.Load())
	}
}

func TestOCSPPortMisbehaves(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer func(c net.Conn)
		want   error
	}{
		{"down", nil, ocsp.ErrUnavailable},
		{"closes", func(net.Conn) {}, ocsp.ErrUnavailable},
		{"endless headers", func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := fmt.Fprint(c, "X: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
					return
				}
			}
		}, ocsp.ErrUnavailable},
		{"endless part", func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: application/ocsp-response\r\n\r\n")
			for {
				if _, err := fmt.Fprint(c, strings.Repeat("x", 1000)); err != nil {
					return
				}
			}
		}, ocsp.ErrMalformed},
		{"redirects", func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 302 Found\r\nLocation: http://b.test:5577/\r\nContent-Length: 0\r\n\r\n")
		}, ocsp.ErrUnavailable},
		{"no parts", func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b--\r\n")
		}, ocsp.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a, b := w.add("a"), w.add("b")
			b.serve(echo)
			w.mu.Lock()
			delete(w.hosts, "b.test:5577")
			w.mu.Unlock()
			if tt.answer != nil {
				b.plain("5577", func(c net.Conn) {
					if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
						tt.answer(c)
					}
				})
			}
			if _, err := post(t, a.tunnel(), b, "x"); !errors.Is(err, tunnel.ErrPeer) || !errors.Is(err, tt.want) || b.requests.Load() != 0 {
				t.Errorf("%v, %d requests", err, b.requests.Load())
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, b := w.add("a"), w.add("b")
		b.serve(echo)
		b.plain("5577", func(c net.Conn) { io.Copy(io.Discard, c) })
		c := a.tunnel(func(cfg *tunnel.ClientConfig) { cfg.ConnectTimeout = time.Second })
		if _, err := post(t, c, b, "x"); !errors.Is(err, tunnel.ErrPeer) || !errors.Is(err, tunnel.ErrTimeout) || b.requests.Load() != 0 {
			t.Errorf("%v, %d requests", err, b.requests.Load())
		}
	})
}

// A pooled connection is only as good as its peer is now.
func TestPooledPeerIsVerifiedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(echo)
	c := a.tunnel()
	ok := func() {
		t.Helper()
		if got, err := post(t, c, b, "x"); err != nil || got != "x" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	ok()

	// A view that says the same does not matter; OCSP is not asked again.
	w.publish()
	ok()
	w.clock.Store(int64(30 * time.Minute))
	ok()
	if b.asked.Load() != 1 || b.conns.Load() != 1 {
		t.Errorf("%d questions, %d connections", b.asked.Load(), b.conns.Load())
	}

	// A response that has gone stale is renewed.
	w.clock.Store(int64(61 * time.Minute))
	ok()
	if b.asked.Load() != 2 || b.conns.Load() != 1 {
		t.Errorf("%d questions, %d connections", b.asked.Load(), b.conns.Load())
	}

	// The client moves away: the connection must not serve it any more.
	b.entry().Clients = nil
	view := w.publish()
	server, _ := view.Server(b.id)
	if _, err := c.Post(t.Context(), view, []*globalconf.Server{server}, b.client, nil, strings.NewReader("x")); !errors.Is(err, tunnel.ErrPeer) {
		t.Errorf("client removed: %v", err)
	}
	b.entry().Clients = []id.Client{b.client}
	w.publish()
	ok()

	// Another certificate is registered instead.
	registered := b.entry().AuthCerts
	b.entry().AuthCerts = []globalconf.AuthCert{globalconf.NewAuthCert(w.issue(t, "b", nil).Leaf)}
	w.publish()
	if _, err := post(t, c, b, "x"); !errors.Is(err, tunnel.ErrPeer) {
		t.Errorf("certificate removed: %v", err)
	}
	b.entry().AuthCerts = registered
	w.publish()
	ok()

	// The authority is no longer approved.
	foreign := newCA(t, "Foreign CA", nil)
	w.config.CAs = []globalconf.ApprovedCA{approved(foreign.cert)}
	w.publish()
	if _, err := post(t, c, b, "x"); !errors.Is(err, pki.ErrNoAuthority) {
		t.Errorf("authority removed: %v", err)
	}
	w.config.CAs = []globalconf.ApprovedCA{approved(w.cert)}
	w.publish()
	ok()

	// Revoked: known when the response has to be renewed.
	w.set(b.cert.Leaf, ocsp.Revoked)
	w.clock.Store(int64(3 * time.Hour))
	if _, err := post(t, c, b, "x"); !errors.Is(err, ocsp.ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	if c.IdleConnections() != 0 {
		t.Errorf("%d connections kept", c.IdleConnections())
	}
}

// What the peer sent with a message of its own serves in this direction, too.
func TestVerdictsAreShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(echo)
	v := tunnel.NewVerifier(tunnel.VerifierConfig{Now: w.now})
	if _, err := v.Verify(t.Context(), w.view.Load(), []*x509.Certificate{b.cert.Leaf}, [][]byte{w.status(&w.ca, b.cert.Leaf)}, b.client); err != nil {
		t.Fatal(err)
	}
	c := a.tunnel(func(cfg *tunnel.ClientConfig) { cfg.Verifier = v })
	if _, err := post(t, c, b, "x"); err != nil || b.asked.Load() != 0 {
		t.Errorf("%v, %d questions", err, b.asked.Load())
	}
}

// Peers close connections as they like, between requests.
func TestClosedConnections(t *testing.T) {
	t.Parallel()
	t.Run("after each response", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, b := w.add("a"), w.add("b")
		b.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Connection", "close")
			echo(rw, r)
		}))
		c := a.tunnel()
		for range 5 {
			if got, err := post(t, c, b, "x"); err != nil || got != "x" {
				t.Fatalf("%q, %v", got, err)
			}
			if c.IdleConnections() != 0 {
				t.Error("connection kept")
			}
		}
		if b.conns.Load() != 5 || b.asked.Load() != 1 {
			t.Errorf("%d connections, %d questions", b.conns.Load(), b.asked.Load())
		}
	})
	t.Run("without a word", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, b := w.add("a"), w.add("b")
		closed := make(chan struct{})
		b.raw(func(c net.Conn) {
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			io.Copy(io.Discard, r.Body)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
			c.Close()
			closed <- struct{}{}
		})
		c := a.tunnel()
		for range 5 {
			if got, err := post(t, c, b, "x"); err != nil || got != "x" {
				t.Fatalf("%q, %v", got, err)
			}
			<-closed
		}
	})
	t.Run("when idle for long", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, b := w.add("a"), w.add("b")
		ended := make(chan error, 1)
		b.raw(func(c net.Conn) {
			br := bufio.NewReader(c)
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, r.Body)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
			_, err = br.ReadByte()
			ended <- err
		})
		c := a.tunnel(func(cfg *tunnel.ClientConfig) { cfg.IdleTimeout = 20 * time.Millisecond })
		if _, err := post(t, c, b, "x"); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil {
			t.Error("more came")
		}
		if c.IdleConnections() != 0 {
			t.Error("connection kept")
		}
	})
}

func TestMaintenanceAndAddresses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	c := a.tunnel()
	b.entry().Maintenance = &globalconf.Maintenance{Message: "back soon"}
	w.publish()
	if _, err := post(t, c, b, "x"); !errors.Is(err, tunnel.ErrMaintenance) {
		t.Error(err)
	}
	b.entry().Maintenance, b.entry().Address = nil, ""
	w.publish()
	if _, err := post(t, c, b, "x"); !errors.Is(err, tunnel.ErrConnect) {
		t.Error(err)
	}
	if _, err := c.Post(t.Context(), w.view.Load(), nil, b.client, nil, nil); !errors.Is(err, tunnel.ErrConnect) {
		t.Error(err)
	}
	if _, err := c.Post(t.Context(), w.view.Load(), nil, b.client, http.Header{"A": {"b\r\nc"}}, nil); err == nil {
		t.Error("header accepted")
	}
	if _, err := tunnel.NewClient(tunnel.ClientConfig{}); err == nil {
		t.Error("empty configuration accepted")
	}
}

func TestOwnCertificateMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	reason := errors.New("no key")
	for _, identity := range []func(*globalconf.View) (*tls.Certificate, error){
		func(*globalconf.View) (*tls.Certificate, error) { return nil, reason },
		func(*globalconf.View) (*tls.Certificate, error) { return &tls.Certificate{}, nil },
	} {
		c := a.tunnel(func(cfg *tunnel.ClientConfig) { cfg.Identity = identity })
		if _, err := post(t, c, b, "x"); !errors.Is(err, tunnel.ErrConnect) {
			t.Error(err)
		}
	}
}

// TestWithIdentity: what belongs to a message is not changed under way.
func TestWithIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	w.publish()
	b.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !r.TLS.PeerCertificates[0].Equal(a.cert.Leaf) {
			t.Error("another certificate was presented")
		}
		echo(rw, r)
	}))
	c := a.tunnel(func(cfg *tunnel.ClientConfig) {
		cfg.Identity = func(*globalconf.View) (*tls.Certificate, error) { return nil, errors.New("replaced meanwhile") }
	})
	resp, err := c.Post(tunnel.WithIdentity(t.Context(), a.cert), a.view.Load(), b.providers(), b.client, http.Header{}, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

// cluster makes three servers of one client: b refuses connections, c accepts
// and is silent, d works.
func cluster(t *testing.T) (w *world, a, b, c, d *server) {
	w = newWorld(t)
	a, b, c, d = w.add("a"), w.add("b"), w.add("c"), w.add("d")
	for _, s := range []*server{b, c} {
		s.entry().Clients = append(s.entry().Clients, d.client)
	}
	w.publish()
	c.plain("5500", func(conn net.Conn) { io.Copy(io.Discard, conn) })
	d.serve(echo)
	return w, a, b, c, d
}

func TestRace(t *testing.T) {
	t.Parallel()
	_, a, _, c, d := cluster(t)
	client := a.tunnel()
	for range 3 {
		if got, err := post(t, client, d, "x"); err != nil || got != "x" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if d.conns.Load() != 1 || c.conns.Load() > 1 {
		t.Errorf("%d connections to the winner, %d to the silent one", d.conns.Load(), c.conns.Load())
	}
}

func TestWinnerIsPreferred(t *testing.T) {
	t.Parallel()
	w, a, _, _, d := cluster(t)
	d.http.SetKeepAlivesEnabled(false)
	client := a.tunnel()
	if _, err := post(t, client, d, "x"); err != nil {
		t.Fatal(err)
	}
	others := func() int { return w.dials("b.test:5500") + w.dials("c.test:5500") }
	before := others()
	for range 5 {
		if _, err := post(t, client, d, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if others() != before {
		t.Errorf("others were dialled %d more times", others()-before)
	}
	w.clock.Store(int64(59 * time.Minute))
	if _, err := post(t, client, d, "x"); err != nil || others() != before {
		t.Errorf("%v; others were dialled", err)
	}
	for range 20 { // others may come too late to dial at all
		w.clock.Add(int64(61 * time.Minute))
		if _, err := post(t, client, d, "x"); err != nil {
			t.Error(err)
		}
		if others() > before {
			return
		}
	}
	t.Error("no new race")
}

func TestFailOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := w.add("a"), w.add("b"), w.add("c")
	b.entry().Clients = append(b.entry().Clients, c.client)
	w.publish()
	b.serve(echo)
	client := a.tunnel()
	if _, err := post(t, client, c, "x"); err != nil { // c is down
		t.Fatal(err)
	}
	c.serve(echo)
	b.http.Close()
	w.mu.Lock()
	delete(w.hosts, "b.test:5500")
	w.mu.Unlock()
	if _, err := post(t, client, c, "x"); err != nil || c.requests.Load() != 1 {
		t.Errorf("%v, %d requests", err, c.requests.Load())
	}
	c.http.Close()
	w.mu.Lock()
	delete(w.hosts, "c.test:5500")
	w.mu.Unlock()
	if _, err := post(t, client, c, "x"); !errors.Is(err, tunnel.ErrConnect) || !strings.Contains(err.Error(), "b.test") || !strings.Contains(err.Error(), "c.test") {
		t.Errorf("all down: %v", err)
	}
}

// A server that takes connections and is silent on them is passed over soon,
// and asked again when the other one fails.
func TestFailOverOfSilentServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := w.add("a"), w.add("b"), w.add("c")
	b.entry().Clients = append(b.entry().Clients, c.client)
	w.publish()
	b.serve(echo)
	b.http.SetKeepAlivesEnabled(false)
	client := a.tunnel()
	soon := func(to *server) {
		t.Helper()
		before := to.requests.Load()
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		resp, err := send(ctx, client, c, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if to.requests.Load() != before+1 {
			t.Errorf("%s did not get the request", to.name)
		}
	}
	soon(b) // c is down
	c.serve(echo)
	c.http.SetKeepAlivesEnabled(false)
	soon(b)
	w.mu.Lock()
	address := w.hosts["b.test:5500"]
	w.mu.Unlock()
	b.plain("5500", func(conn net.Conn) { io.Copy(io.Discard, conn) })
	soon(c)
	soon(c)
	w.host("b.test:5500", address)
	c.plain("5500", func(conn net.Conn) { io.Copy(io.Discard, conn) })
	soon(b)
	soon(b)
}

// An impostor that is quicker than the real servers does not win.
func TestImpostorLosesRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := w.add("a"), w.add("b"), w.add("c")
	b.entry().Clients = append(b.entry().Clients, c.client)
	w.publish()
	b.use(w.issue(t, "b", nil))
	b.serve(echo)
	c.serve(echo)
	client := a.tunnel()
	for range 10 {
		if got, err := post(t, client, c, "x"); err != nil || got != "x" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if b.requests.Load() != 0 || c.requests.Load() != 10 {
		t.Errorf("%d and %d requests", b.requests.Load(), c.requests.Load())
	}
}

// The response is read while the request is still being written.
func TestFullDuplex(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		ctl := http.NewResponseController(rw)
		if err := ctl.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		ctl.Flush()
		buf := make([]byte, 1024)
		for {
			n, err := r.Body.Read(buf)
			rw.Write(buf[:n])
			ctl.Flush()
			if err != nil {
				return
			}
		}
	}))
	c := a.tunnel()
	for range 2 {
		pr, pw := io.Pipe()
		resp, err := c.Post(t.Context(), w.view.Load(), b.providers(), b.client, nil, pr)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 3)
		for _, word := range []string{"one", "two", "six"} {
			if _, err := io.WriteString(pw, word); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != word {
				t.Fatalf("%q, %v", buf, err)
			}
		}
		pw.Close()
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 0 {
			t.Errorf("%q, %v", rest, err)
		}
		resp.Body.Close()
	}
	if b.conns.Load() != 1 {
		t.Errorf("%d connections", b.conns.Load())
	}
}

func TestLargeBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		http.NewResponseController(rw).EnableFullDuplex()
		io.Copy(rw, r.Body)
	}))
	c := a.tunnel()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	for _, body := range []io.Reader{onlyReader{bytes.NewReader(want)}, io.MultiReader(bytes.NewReader(want[:7]), bytes.NewReader(want[7:]))} {
		resp, err := c.Post(t.Context(), w.view.Load(), b.providers(), b.client, nil, body)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		resp.Body.Close()
	}
	// In memory: Post returns only when it no longer needs the buffer.
	b.http.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(rw, n)
	})
	buf := bytes.NewBuffer(bytes.Clone(want))
	resp, err := c.Post(t.Context(), w.view.Load(), b.providers(), b.client, nil, buf)
	if err != nil {
		t.Fatal(err)
	}
	if buf.Len() != 0 {
		t.Errorf("%d bytes left", buf.Len())
	}
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != fmt.Sprint(len(want)) {
		t.Errorf("%q, %v", got, err)
	}
	resp.Body.Close()
}

// A peer may refuse a request before it has it all: its answer arrives.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]func() io.Reader{
		"small":  func() io.Reader { return bytes.NewBuffer(make([]byte, 100<<10)) },
		"large":  func() io.Reader { return bytes.NewBuffer(make([]byte, 64<<20)) },
		"stream": func() io.Reader { return onlyReader{zeros{}} },
		"stuck":  func() io.Reader { r, _ := io.Pipe(); return r },
	} {
		for _, closes := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, closes %v", name, closes), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				a, b := w.add("a"), w.add("b")
				b.raw(func(c net.Conn) {
					br := bufio.NewReader(c)
					if _, err := http.ReadRequest(br); err != nil {
						return
					}
					fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 5\r\n\r\nfault")
					if closes {
						// As a careful server: no reset before the answer is read.
						c.(*tls.Conn).CloseWrite()
						io.CopyN(io.Discard, br, 1<<20)
						return
					}
					io.Copy(io.Discard, c)
				})
				c := a.tunnel()
				source := body()
				resp, err := c.Post(t.Context(), w.view.Load(), b.providers(), b.client, nil, source)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "fault" {
					t.Errorf("%q, %v", got, err)
				}
				resp.Body.Close()
				if r, ok := source.(*io.PipeReader); ok {
					r.Close()
				}
			})
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// hostile runs one exchange with a peer that answers by hand.
func hostile(t *testing.T, ctx context.Context, answer func(c net.Conn), change ...func(*tunnel.ClientConfig)) error {
	t.Helper()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.raw(func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		answer(c)
	})
	c := a.tunnel(change...)
	resp, err := c.Post(ctx, w.view.Load(), b.providers(), b.client, nil, strings.NewReader("x"))
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if c.IdleConnections() != 0 {
		t.Error("the connection was kept")
	}
	return err
}

func TestHostilePeers(t *testing.T) {
	t.Parallel()
	forever := func(c net.Conn, s string) {
		for {
			if _, err := io.WriteString(c, s); err != nil {
				return
			}
		}
	}
	small := func(cfg *tunnel.ClientConfig) { cfg.MaxResponse = 1 << 20 }
	status := func(err error, want int, contentType string) bool {
		var e *tunnel.StatusError
		return errors.As(err, &e) && e.Status == want && e.ContentType == contentType
	}
	for _, tt := range []struct {
		name   string
		answer func(c net.Conn)
		want   func(error) bool
	}{
		{"closes", func(net.Conn) {}, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"rubbish", func(c net.Conn) { io.WriteString(c, "hello\r\n\r\n") }, is(tunnel.ErrResponse)},
		{"HTTP/2", func(c net.Conn) { io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") }, is(tunnel.ErrResponse)},
		{"endless status line", func(c net.Conn) { forever(c, "HTTP/1.1 200 ") }, is(tunnel.ErrResponse)},
		{"endless headers", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n"); forever(c, "X: y\r\n") }, is(tunnel.ErrResponse)},
		{"endless interim responses", func(c net.Conn) { forever(c, "HTTP/1.1 102 Processing\r\n\r\n") }, is(tunnel.ErrResponse)},
		{"switches protocols", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
		}, is(tunnel.ErrResponse)},
		{"two lengths", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx")
		}, is(tunnel.ErrResponse)},
		{"endless body", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); forever(c, strings.Repeat("x", 4096)) }, is(tunnel.ErrResponse)},
		{"short body", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx") }, is(io.ErrUnexpectedEOF)},
		{"bad chunk", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n")
		}, func(err error) bool { return err != nil }},
		{"more than one response", func(c net.Conn) {
			io.WriteString(c, strings.Repeat("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 2))
		}, func(err error) bool { return err == nil }},
		{"not found", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		},
			func(err error) bool { return status(err, 404, "") }},
		{"redirect", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}, func(err error) bool { return status(err, 302, "") }},
		{"error page", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}, func(err error) bool { return status(err, 500, "text/html") }},
		{"fault with status 500", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 500 Oops\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}, func(err error) bool { return err == nil }},
		{"no reading of the end", func(c net.Conn) { io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nxyz") }, func(err error) bool { return err == nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := hostile(t, t.Context(), tt.answer, small); !tt.want(err) {
				t.Error(err)
			}
		})
	}
}

func is(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }

func TestDeadlines(t *testing.T) {
	t.Parallel()
	silence := func(c net.Conn) { io.Copy(io.Discard, c) }
	for name, answer := range map[string]func(net.Conn){
		"never answers":    silence,
		"never ends heads": func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "); silence(c) },
		"never ends body":  func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"); silence(c) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if err := hostile(t, ctx, answer); !errors.Is(err, tunnel.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	}
	t.Run("never reads", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, b := w.add("a"), w.add("b")
		wait := make(chan struct{})
		b.raw(func(net.Conn) { <-wait })
		defer close(wait)
		for _, body := range []io.Reader{onlyReader{zeros{}}, bytes.NewBuffer(make([]byte, 64<<20))} {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := a.tunnel().Post(ctx, w.view.Load(), b.providers(), b.client, nil, body); !errors.Is(err, tunnel.ErrTimeout) {
				t.Error(err)
			}
		}
	})
	t.Run("never shakes hands", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, b := w.add("a"), w.add("b")
		b.plain("5500", silence)
		c := a.tunnel(func(cfg *tunnel.ClientConfig) { cfg.ConnectTimeout = 50 * time.Millisecond })
		if _, err := post(t, c, b, "x"); !errors.Is(err, tunnel.ErrConnect) || !errors.Is(err, tunnel.ErrTimeout) {
			t.Error(err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		err := hostile(t, ctx, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
			cancel()
			silence(c)
		})
		if !errors.Is(err, context.Canceled) || errors.Is(err, tunnel.ErrTimeout) {
			t.Error(err)
		}
	})
}

// An error of the body is returned, and the peer sees no regular end.
func TestBodyFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	begun, ends := make(chan error, 1), make(chan error, 1)
	b.serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadFull(r.Body, make([]byte, 4))
		begun <- err
		_, err = io.Copy(io.Discard, r.Body)
		ends <- err
	}))
	reason := errors.New("the client hung up")
	c := a.tunnel()
	pr, pw := io.Pipe()
	go func() {
		io.WriteString(pw, "some")
		if err := <-begun; err != nil { // a part is sent although more may come
			t.Error(err)
		}
		pw.CloseWithError(reason)
	}()
	if _, err := c.Post(t.Context(), w.view.Load(), b.providers(), b.client, nil, pr); !errors.Is(err, reason) {
		t.Error(err)
	}
	if err := <-ends; err == nil {
		t.Error("the peer saw a regular end")
	}
	if c.IdleConnections() != 0 {
		t.Error("connection kept")
	}
}

// A response that is not read to its end still frees the connection if the end
// is there.
func TestUnreadEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(echo)
	c := a.tunnel()
	for i := range 4 {
		resp, err := c.Post(t.Context(), w.view.Load(), b.providers(), b.client, nil, strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, i)); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
			t.Error("read after Close")
		}
	}
	if b.conns.Load() != 1 {
		t.Errorf("%d connections", b.conns.Load())
	}
}

// Close ends a Read under way.
func TestCloseDuringRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.raw(func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
		io.Copy(io.Discard, c)
	})
	resp, err := a.tunnel().Post(t.Context(), w.view.Load(), b.providers(), b.client, nil, strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	one := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		close(one)
		if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
			t.Error("read more")
		}
	})
	<-one
	resp.Body.Close()
	wg.Wait()
}

func TestConcurrentPosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(echo)
	c := a.tunnel()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				body := strings.Repeat(fmt.Sprint(i, j), 1000*j)
				if got, err := post(t, c, b, body); err != nil || got != body {
					t.Errorf("%d bytes of %d, %v", len(got), len(body), err)
				}
			}
		})
	}
	wg.Wait()
	if n := b.conns.Load(); n > 8 {
		t.Errorf("%d connections", n)
	}
	c.Close()
	if _, err := post(t, c, b, "x"); !errors.Is(err, tunnel.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	for _, h := range []http.Header{
		{"A B": {"x"}}, {"": {"x"}}, {"A": {"x\ny"}}, {"A": {"x\x00"}}, {"Ä": {"x"}}, {"Host": {"x"}}, {"content-length": {"1"}},
		{"Transfer-Encoding": {"identity"}}, {"Connection": {"close"}}, {"A:": {"x"}},
	} {
		if err := tunnel.CheckHeader(h); err == nil {
			t.Errorf("%v accepted", h)
		}
	}
	if err := tunnel.CheckHeader(http.Header{"X-Original-Content-Type": {"", "text/xml; charset=\"utf-8\""}, "x-y": {"a\tb"}}); err != nil {
		t.Error(err)
	}
}

// ways are how exchanges are carried.
var ways = []struct {
	name      string
	transport tunnel.Transport
	serve     func(*server, http.Handler)
}{
	{"https", tunnel.HTTPS, func(s *server, h http.Handler) { s.serve(h) }},
	{"link", tunnel.HTTPS, func(s *server, h http.Handler) { s.serveLinks(h) }},
	{"quic", tunnel.QUIC, func(s *server, h http.Handler) { s.serve(h).serveQUIC() }},
}

// BenchmarkPost measures exchanges of 8 KB each way, one at a time and 64 at
// once, with the processor time of both ends.
func BenchmarkPost(b *testing.B) {
	for _, transport := range ways {
		for _, clients := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/%d", transport.name, clients), func(b *testing.B) {
				w := newWorld(b)
				from, to := w.add("a"), w.add("b")
				transport.serve(to, echo)
				c := from.tunnel(only(transport.transport))
				body := strings.Repeat("x", 8<<10)
				view, servers := w.view.Load(), to.providers()
				exchange := func() error {
					resp, err := c.Post(b.Context(), view, servers, to.client, nil, bytes.NewBufferString(body))
					if err != nil {
						return err
					}
					defer resp.Body.Close()
					_, err = io.Copy(io.Discard, resp.Body)
					return err
				}
				if err := exchange(); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				b.ResetTimer()
				begun := processorTime()
				b.SetParallelism((clients + 1) / 2)
				if clients == 1 {
					for range b.N {
						if err := exchange(); err != nil {
							b.Fatal(err)
						}
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							if err := exchange(); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				b.ReportMetric(float64((processorTime()-begun).Microseconds())/float64(b.N), "cpu-µs/op")
			})
		}
	}
}

// BenchmarkBody measures bodies of 64 MB, with the processor time of both ends.
func BenchmarkBody(b *testing.B) {
	const size = 64 << 20
	for _, transport := range ways {
		for _, up := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/up=%v", transport.name, up), func(b *testing.B) {
				w := newWorld(b)
				from, to := w.add("a"), w.add("b")
				transport.serve(to, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					if !up {
						io.CopyN(rw, zeros{}, size)
					}
				}))
				c := from.tunnel(only(transport.transport))
				b.SetBytes(size)
				begun := processorTime()
				for b.Loop() {
					body := io.Reader(strings.NewReader("x"))
					if up {
						body = io.LimitReader(zeros{}, size)
					}
					resp, err := send(b.Context(), c, to, body)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.Copy(io.Discard, resp.Body); err != nil {
						b.Fatal(err)
					}
					resp.Body.Close()
				}
				b.ReportMetric(float64((processorTime()-begun).Milliseconds())/float64(b.N), "cpu-ms/op")
			})
		}
	}
}

// processorTime returns what this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
