// SPDX-License-Identifier: Apache-2.0

package tunnel_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"kontor/gateway/tunnel"
	"kontor/pki/ocsp"
)

// overQUIC makes two security servers and a client of the first that has QUIC
// alone.
func overQUIC(t testing.TB, h http.Handler) (*server, *server, *tunnel.Client) {
	t.Helper()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(h).serveQUIC()
	return a, b, a.tunnel(only(tunnel.QUIC))
}

// send posts any body.
func send(ctx context.Context, c *tunnel.Client, to *server, body io.Reader) (*tunnel.Response, error) {
	return c.Post(ctx, to.view.Load(), to.providers(), to.client, http.Header{"Content-Type": {"text/plain"}}, body)
}

func TestQUICPost(t *testing.T) {
	t.Parallel()
	var a, b *server
	a, b, c := overQUIC(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/" || r.Host != "b.test:5500" || r.ProtoMajor != 3 ||
			r.Header.Get("X-Hash-Algorithm") != "SHA-512" || r.Header.Get("User-Agent") != "" {
			t.Errorf("%s %s %s %s %v, %v", r.Proto, r.Method, r.Host, r.URL, r.Header, err)
		}
		if r.TLS.Version != tls.VersionTLS13 || !r.TLS.PeerCertificates[0].Equal(a.cert.Leaf) || r.TLS.ServerName != "b.test" {
			t.Errorf("TLS %x for %s", r.TLS.Version, r.TLS.ServerName)
		}
		rw.Header()["x-hash-algorithm"] = []string{"SHA-512"}
		rw.Header().Set("Content-Type", "multipart/mixed; boundary=x")
		fmt.Fprintf(rw, "got %s", body)
	}))
	for _, body := range []io.Reader{
		bytes.NewBufferString("hello"), strings.NewReader("hello"), bytes.NewReader([]byte("hello")), onlyReader{strings.NewReader("hello")},
		io.MultiReader(strings.NewReader("hel"), strings.NewReader("lo")),
	} {
		resp, err := c.Post(t.Context(), b.view.Load(), b.providers(), b.client, http.Header{"x-hash-algorithm": {"SHA-512"}}, body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil || string(answer) != "got hello" || resp.Status != 200 ||
			resp.Header.Get("Content-Type") != "multipart/mixed; boundary=x" || resp.Header.Get("X-Hash-Algorithm") != "SHA-512" {
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
	// The response that came with the handshake is enough.
	if b.dials("udp b.test:5500") != 1 || b.asked.Load() != 0 || b.conns.Load() != 0 {
		t.Errorf("%d connections, %d questions for OCSP, %d over TCP", b.dials("udp b.test:5500"), b.asked.Load(), b.conns.Load())
	}
}

// A client that is not a registered security server with a good OCSP response
// does not get past the handshake.
func TestQUICServerVerifiesFirst(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		setup func(w *world, a *server)
		ok    bool
	}{
		{"good", func(*world, *server) {}, true},
		{"not registered", func(w *world, a *server) { a.use(w.issue(w, "a", nil)) }, false},
		{"of a foreign authority", func(w *world, a *server) {
			foreign := newCA(w, "Foreign CA", nil)
			a.use(foreign.issue(w, "a", nil))
			a.register()
		}, false},
		{"expired", func(w *world, a *server) {
			a.use(w.issue(w, "a", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }))
			a.register()
		}, false},
		{"a signing certificate", func(w *world, a *server) {
			a.use(w.issue(w, "a", func(c *x509.Certificate) { c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageContentCommitment, nil }))
			a.register()
		}, false},
		{"revoked", func(w *world, a *server) { w.set(a.cert.Leaf, ocsp.Revoked) }, false},
		{"stale response", func(w *world, a *server) {
			der := w.status(&w.ca, a.cert.Leaf)
			a.lookup = func(string) ([]byte, bool) { return der, true }
			w.clock.Store(int64(61 * time.Minute))
		}, false},
		{"no response", func(_ *world, a *server) { a.lookup = func(string) ([]byte, bool) { return nil, false } }, false},
		{"response about another", func(w *world, a *server) {
			der := w.status(&w.ca, w.issue(w, "x", nil).Leaf)
			a.lookup = func(string) ([]byte, bool) { return der, true }
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a, b := w.add("a"), w.add("b")
			tt.setup(w, a)
			b.serve(echo).serveQUIC()
			_, err := post(t, a.tunnel(only(tunnel.QUIC)), b, "x")
			var alert *net.OpError
			switch {
			case tt.ok && err != nil:
				t.Error(err)
			case !tt.ok && (!errors.Is(err, tunnel.ErrConnect) || !errors.As(err, &alert) || alert.Op != "remote error" || b.requests.Load() != 0):
				t.Errorf("%v, %d requests", err, b.requests.Load())
			}
		})
	}
}

// Without a certificate, with another protocol or an older TLS nothing happens.
func TestQUICStrangers(t *testing.T) {
	t.Parallel()
	a, b, _ := overQUIC(t, echo)
	for name, cfg := range map[string]*tls.Config{
		"no certificate": {NextProtos: []string{"h3"}},
		"other protocol": {NextProtos: []string{"hq"}, Certificates: []tls.Certificate{*a.cert}},
	} {
		cfg.InsecureSkipVerify = true
		conn, err := quic.DialAddr(t.Context(), b.udp.LocalAddr().String(), cfg, nil)
		if err == nil { // the client is done before the server has looked
			_, err = conn.AcceptUniStream(t.Context())
		}
		if err == nil || b.requests.Load() != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// until repeats an exchange until it went over QUIC, or over HTTPS.
func until(t *testing.T, c *tunnel.Client, to *server, proto string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		got, err := post(t, c, to, "x")
		if err != nil {
			t.Fatal(err)
		}
		if got == proto {
			return
		}
	}
	t.Fatalf("no exchange over %s", proto)
}

// tellProto answers with the protocol of the request.
var tellProto = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err == nil {
		io.WriteString(w, r.Proto)
	}
})

// announced offers QUIC in the answers over HTTPS.
func announced(h http.Handler) http.Handler { return tunnel.HTTPSHandler(h, 5500, nil) }

const overH1, overH3 = "HTTP/1.1", "HTTP/3.0"

// An offer of QUIC is taken up in the background.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(announced(tellProto)).serveQUIC()
	m := tunnel.NewMetrics()
	c := a.tunnel(func(cfg *tunnel.ClientConfig) { cfg.Metrics = m })
	if got, err := post(t, c, b, "x"); err != nil || got != overH1 {
		t.Fatalf("%q, %v", got, err)
	}
	until(t, c, b, overH3)
	for range 20 {
		if got, err := post(t, c, b, "x"); err != nil || got != overH3 {
			t.Errorf("%q, %v", got, err)
		}
	}
	if n := w.dials("udp b.test:5500"); n != 1 {
		t.Errorf("%d connections", n)
	}
	// Peers without QUIC, and clients without, are not concerned.
	until(t, a.tunnel(only(tunnel.HTTPS)), b, overH1)
	d := w.add("d")
	d.serve(tellProto)
	until(t, c, d, overH1)
}

// To a peer nearby a body that is not in memory goes over HTTPS.
func TestLargeBodiesNearby(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(announced(tellProto)).serveQUIC()
	c := a.tunnel()
	far := a.tunnel()
	tunnel.Near(c, time.Hour)
	tunnel.Near(far, 0)
	until(t, c, b, overH3)
	until(t, far, b, overH3)
	for _, tt := range []struct {
		body io.Reader
		want string
	}{
		{strings.NewReader("small"), overH3}, {onlyReader{strings.NewReader("of unknown size")}, overH1}, {bytes.NewBuffer(make([]byte, 1<<20)), overH1},
		{nil, overH3},
	} {
		resp, err := send(t.Context(), c, b, tt.body)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != tt.want {
			t.Errorf("%T: %q, %v", tt.body, got, err)
		}
		resp.Body.Close()
	}
	resp, err := send(t.Context(), far, b, onlyReader{strings.NewReader("of unknown size")})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != overH3 {
		t.Errorf("far away: %q, %v", got, err)
	}
}

// An offer lasts as long as it says, and can be taken back.
func TestOfferEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	var offer atomic.Value
	offer.Store(`h3=":5500"; ma=3600`)
	b.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if v := offer.Load().(string); v != "" {
			rw.Header().Set("Alt-Svc", v)
		}
		tellProto(rw, r)
	})).serveQUIC()
	c := a.tunnel()
	tunnel.Near(c, time.Hour)
	until(t, c, b, overH3)
	offer.Store("clear")
	resp, err := send(t.Context(), c, b, onlyReader{strings.NewReader("large")}) // over HTTPS
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	dials := w.dials("udp b.test:5500")
	for range 20 {
		if got, err := post(t, c, b, "x"); err != nil || got != overH1 {
			t.Errorf("%q, %v", got, err)
		}
	}
	if w.dials("udp b.test:5500") != dials {
		t.Error("dialled again")
	}

	offer.Store(`h3=":5500"; ma=3600`)
	late := a.tunnel()
	until(t, late, b, overH3)
	offer.Store("")
	w.clock.Store(int64(2 * time.Hour))
	if err := b.quic.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	dials = w.dials("udp b.test:5500")
	for range 20 {
		if got, err := post(t, late, b, "x"); err != nil || got != overH1 {
			t.Errorf("%q, %v", got, err)
		}
	}
	if w.dials("udp b.test:5500") != dials {
		t.Error("dialled after the offer's end")
	}
}

// If what is sent by UDP vanishes, no exchange waits for it, and it is not
// tried again soon.
func TestUDPBlocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(announced(tellProto))
	hole := swallow(t, w, b)
	c := a.tunnel()
	for range 50 {
		if got, err := post(t, c, b, "x"); err != nil || got != overH1 {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if b.conns.Load() != 1 {
		t.Errorf("%d connections over TCP", b.conns.Load())
	}
	for hole.Load() == 0 || !c.Idle() { // until the try has failed
		time.Sleep(10 * time.Millisecond)
	}
	for range 50 {
		if got, err := post(t, c, b, "x"); err != nil || got != overH1 {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if n := w.dials("udp b.test:5500"); n != 1 {
		t.Errorf("%d tries", n)
	}
	// Later it is, and what has become reachable is used.
	b.serveQUIC()
	w.clock.Store(int64(time.Minute))
	until(t, c, b, overH3)
}

// swallow makes a server's UDP port one that takes everything and answers
// nothing. It counts packets.
func swallow(t *testing.T, w *world, s *server) *atomic.Int64 {
	t.Helper()
	socket := check[net.PacketConn](t)(net.ListenPacket("udp4", loopback+":0"))
	w.host("udp "+s.name+":5500", socket.LocalAddr().String())
	var n atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			if _, _, err := socket.ReadFrom(buf); err != nil {
				return
			}
			n.Add(1)
		}
	}()
	t.Cleanup(func() { socket.Close(); <-done })
	return &n
}

// relay passes packets between a client and a server's UDP port, as a router
// does that translates addresses.
type relay struct {
	front  net.PacketConn
	to     net.Addr
	mu     sync.Mutex
	back   net.PacketConn // towards the server
	client net.Addr
	open   []net.PacketConn
	deaf   atomic.Bool // swallows everything
	wg     sync.WaitGroup
}

func newRelay(t *testing.T, s *server) *relay {
	t.Helper()
	r := &relay{front: check[net.PacketConn](t)(net.ListenPacket("udp4", loopback+":0")), to: s.udp.LocalAddr()}
	s.host("udp "+s.name+":5500", r.front.LocalAddr().String())
	r.move(t)
	r.wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := r.front.ReadFrom(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.client = from
			back := r.back
			r.mu.Unlock()
			if !r.deaf.Load() {
				_, _ = back.WriteTo(buf[:n], r.to)
			}
		}
	})
	t.Cleanup(func() {
		r.front.Close()
		r.mu.Lock()
		for _, c := range r.open {
			c.Close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

// move gives the client another address, as the server sees it.
func (r *relay) move(t *testing.T) {
	t.Helper()
	back := check[net.PacketConn](t)(net.ListenPacket("udp4", "127.81.0.2:0"))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.back != nil {
		r.back.Close()
	}
	r.back = back
	r.open = append(r.open, back)
	r.wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, _, err := back.ReadFrom(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			client := r.client
			r.mu.Unlock()
			if !r.deaf.Load() {
				_, _ = r.front.WriteTo(buf[:n], client)
			}
		}
	})
}

// The client's address changes in the middle of an exchange, which goes on.
func TestMigration(t *testing.T) {
	t.Parallel()
	var addresses sync.Map
	a, b, _ := overQUIC(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		addresses.Store(r.RemoteAddr, true)
		io.Copy(w, r.Body)
	}))
	r := newRelay(t, b)
	c := a.tunnel(only(tunnel.QUIC))
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	pr, pw := io.Pipe()
	go func() {
		for i := range 8 {
			if i == 4 {
				r.move(t)
			}
			if _, err := pw.Write(want[i*len(want)/8 : (i+1)*len(want)/8]); err != nil {
				t.Error(err)
			}
		}
		pw.Close()
	}()
	resp, err := send(t.Context(), c, b, pr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := post(t, c, b, "x"); err != nil {
		t.Error(err)
	}
	n := 0
	addresses.Range(func(any, any) bool { n++; return true })
	if n != 2 || b.dials("udp b.test:5500") != 1 {
		t.Errorf("%d addresses, %d connections", n, b.dials("udp b.test:5500"))
	}
}

// A connection that dies takes its exchanges with it: they fail, and none is
// sent twice. New ones go elsewhere.
func TestConnectionDies(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 8)
	release := make(chan struct{})
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(announced(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil && string(body) == "wait" {
			arrived <- struct{}{}
			<-release
		}
		io.WriteString(rw, r.Proto)
	}))).serveQUIC()
	defer close(release)
	r := newRelay(t, b)
	c := a.tunnel()
	tunnel.Hurry(c)
	until(t, c, b, overH3)
	before := b.requests.Load()
	failed := make(chan error, 1)
	go func() {
		_, err := post(t, c, b, "wait")
		failed <- err
	}()
	<-arrived
	r.deaf.Store(true)
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		// As soon as nothing is heard, exchanges do not try any more.
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		resp, err := send(ctx, c, b, strings.NewReader("x"))
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		cancel()
		if err == nil {
			break
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatal(err)
		}
	}
	err := <-failed
	if err == nil || errors.Is(err, tunnel.ErrConnect) || !errors.Is(err, tunnel.ErrTimeout) {
		t.Errorf("the exchange under way: %v", err)
	}
	if n := b.requests.Load() - before; n < 2 {
		t.Errorf("%d requests", n)
	}
	if len(arrived) != 0 {
		t.Error("the request arrived twice")
	}
}

// Of two servers over QUIC the one that is heard of gets the requests.
func TestQUICFailOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := w.add("a"), w.add("b"), w.add("c")
	b.entry().Clients = append(b.entry().Clients, c.client)
	w.publish()
	relays := map[*server]*relay{}
	for _, s := range []*server{b, c} {
		s.serve(echo).serveQUIC()
		relays[s] = newRelay(t, s)
	}
	client := a.tunnel(only(tunnel.QUIC))
	tunnel.Hurry(client)
	for range 2 {
		for down, up := range map[*server]*server{b: c, c: b} {
			relays[up].deaf.Store(false)
			relays[down].deaf.Store(true)
			before := up.requests.Load()
			for begun := time.Now(); up.requests.Load() < before+3; {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				resp, err := send(ctx, client, c, strings.NewReader("x"))
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				cancel()
				if err != nil && time.Since(begun) > 20*time.Second {
					t.Fatal(err)
				}
			}
		}
	}
}

// A server that starts again knows nothing of old connections and says so.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	key := &[32]byte{1}
	withKey := func(cfg *tunnel.ServerConfig) { cfg.ResetKey = key }
	b.serve(announced(tellProto)).serveQUIC(withKey)
	c := a.tunnel()
	for range 3 {
		until(t, c, b, overH3)
		address := b.udp.LocalAddr().String()
		b.udp.Close() // killed: no farewell
		b.listenQUIC(address, withKey)
		before := b.requests.Load()
		_, err := post(t, c, b, "x") // may be lost, and is not sent again
		if n := b.requests.Load() - before; n > 1 || n == 1 && err != nil {
			t.Errorf("%d requests, %v", n, err)
		}
		if got, err := post(t, c, b, "x"); err != nil {
			t.Errorf("%q, %v", got, err)
		}
		w.clock.Add(int64(20 * time.Minute)) // past the back-off
	}
}

// A server that stops lets exchanges finish and sends clients away in time.
func TestQUICShutdown(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(announced(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && string(body) == "wait" {
			close(arrived)
			<-release
		}
		io.WriteString(rw, r.Proto)
	}))).serveQUIC()
	c := a.tunnel()
	until(t, c, b, overH3)
	last := make(chan error, 1)
	go func() {
		got, err := post(t, c, b, "wait")
		if err == nil && got != overH3 {
			err = errors.New(got)
		}
		last <- err
	}()
	<-arrived
	down := make(chan error, 1)
	go func() { down <- b.quic.Shutdown(t.Context()) }()
	until(t, c, b, overH1)
	close(release)
	if err := <-last; err != nil {
		t.Error(err)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
}

// counted counts what is read.
type counted struct {
	io.Reader
	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// settled waits until a number no longer changes.
func settled(n *atomic.Int64) int64 {
	for last := int64(-1); ; {
		now := n.Load()
		if now == last && now > 0 {
			return now
		}
		last = now
		time.Sleep(150 * time.Millisecond)
	}
}

// What a slow reader has not read waits at its source, in both directions.
func TestQUICBackPressure(t *testing.T) {
	t.Parallel()
	const window = 1 << 20
	read := make(chan struct{})
	answer := &counted{Reader: zeros{}}
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		<-read
		if _, err := io.CopyN(io.Discard, r.Body, 8*window); err != nil {
			t.Error(err)
		}
		io.Copy(rw, answer)
	})).serveQUIC(func(cfg *tunnel.ServerConfig) { cfg.Windows = tunnel.Windows{Stream: window, Connection: window} })
	c := a.tunnel(only(tunnel.QUIC), func(cfg *tunnel.ClientConfig) {
		cfg.Windows = tunnel.Windows{Stream: window, Connection: window}
	})
	request := &counted{Reader: io.LimitReader(zeros{}, 8*window)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, err := send(t.Context(), c, b, request)
		if err != nil {
			t.Error(err)
			return
		}
		if n := settled(&answer.n); n > 3*window {
			t.Errorf("%d bytes of the answer ahead", n)
		}
		if _, err := io.CopyN(io.Discard, resp.Body, 16*window); err != nil {
			t.Error(err)
		}
		resp.Body.Close()
	}()
	if n := settled(&request.n); n > 3*window {
		t.Errorf("%d bytes of the request ahead", n)
	}
	close(read)
	<-done
}

func TestQUICLargeBodies(t *testing.T) {
	t.Parallel()
	_, b, c := overQUIC(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Mode") == "count" {
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(rw, n)
			return
		}
		io.Copy(rw, r.Body)
	}))
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	for _, body := range []io.Reader{bytes.NewReader(want), onlyReader{bytes.NewReader(want)}, io.MultiReader(bytes.NewReader(want[:7]), bytes.NewReader(want[7:]))} {
		if b, ok := body.(*bytes.Reader); ok { // one in memory must not wait for its own echo
			body = onlyReader{b}
		}
		resp, err := send(t.Context(), c, b, body)
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
	for _, size := range []int{1, 1 << 10, 60 << 10, 64 << 10, 100 << 10, 1 << 20} {
		buf := bytes.NewBuffer(bytes.Clone(want[:size]))
		resp, err := c.Post(t.Context(), b.view.Load(), b.providers(), b.client, http.Header{"X-Mode": {"count"}}, buf)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != fmt.Sprint(size) || buf.Len() != 0 {
			t.Errorf("%q, %v, %d bytes left", got, err, buf.Len())
		}
		resp.Body.Close()
	}
}

// A peer may refuse a request before it has it all: its answer arrives.
func TestQUICEarlyAnswer(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]func() io.Reader{
		"small":  func() io.Reader { return bytes.NewBuffer(make([]byte, 100<<10)) },
		"large":  func() io.Reader { return bytes.NewBuffer(make([]byte, 64<<20)) },
		"stream": func() io.Reader { return onlyReader{zeros{}} },
		"stuck":  func() io.Reader { r, _ := io.Pipe(); return r },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, b, c := overQUIC(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", "text/xml")
				rw.Header().Set("Content-Length", "5")
				io.WriteString(rw, "fault")
			}))
			source := body()
			resp, err := send(t.Context(), c, b, source)
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
			if _, err := post(t, c, b, "x"); err != nil || b.dials("udp b.test:5500") != 1 {
				t.Errorf("the connection is gone: %v", err)
			}
		})
	}
}

// What breaks off on one side is never a regular end on the other.
func TestQUICAborts(t *testing.T) {
	t.Parallel()
	begun, ends := make(chan error, 1), make(chan error, 1)
	_, b, c := overQUIC(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Mode") == "answer" {
			io.Copy(io.Discard, r.Body)
			io.WriteString(rw, "half")
			http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		}
		if r.Header.Get("X-Mode") == "short" {
			rw.Header().Set("Content-Length", "10")
			io.WriteString(rw, "half")
			return
		}
		_, err := io.ReadFull(r.Body, make([]byte, 4))
		begun <- err
		_, err = io.Copy(io.Discard, r.Body)
		ends <- err
		<-r.Context().Done()
		ends <- r.Context().Err()
	}))
	reason := errors.New("the client hung up")
	pr, pw := io.Pipe()
	go func() {
		io.WriteString(pw, "some")
		if err := <-begun; err != nil { // a part is sent although more may come
			t.Error(err)
		}
		pw.CloseWithError(reason)
	}()
	if _, err := send(t.Context(), c, b, pr); !errors.Is(err, reason) {
		t.Error(err)
	}
	if err := <-ends; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the peer saw %v", err)
	}
	if err := <-ends; err == nil {
		t.Error("the handler was not told")
	}

	ctx, cancel := context.WithCancel(t.Context())
	stuck, source := io.Pipe()
	go func() {
		io.WriteString(source, "some")
		if err := <-begun; err != nil {
			t.Error(err)
		}
		cancel()
	}()
	if _, err := send(ctx, c, b, stuck); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	stuck.Close()
	if err := <-ends; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the peer saw %v", err)
	}
	<-ends

	for _, mode := range []string{"answer", "short"} {
		resp, err := c.Post(t.Context(), b.view.Load(), b.providers(), b.client, http.Header{"X-Mode": {mode}}, strings.NewReader("x"))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			if _, again := resp.Body.Read(make([]byte, 1)); again != err {
				t.Errorf("%s: then %v", mode, again)
			}
			resp.Body.Close()
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", mode, err)
		}
	}
	if b.dials("udp b.test:5500") != 1 {
		t.Error("the connection was not kept")
	}
}

// A peer that does not answer costs no more than the time it is given.
func TestQUICDeadlines(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	_, b, c := overQUIC(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Mode") == "head" {
			io.WriteString(rw, "x")
			http.NewResponseController(rw).Flush()
		}
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}))
	defer close(hold)
	for _, mode := range []string{"", "head"} {
		for _, body := range []io.Reader{strings.NewReader("x"), onlyReader{zeros{}}, bytes.NewBuffer(make([]byte, 64<<20))} {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			resp, err := c.Post(ctx, b.view.Load(), b.providers(), b.client, http.Header{"X-Mode": {mode}}, body)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			cancel()
			if !errors.Is(err, tunnel.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%q: %v", mode, err)
			}
		}
	}
}

// Close ends a Read under way.
func TestQUICCloseDuringRead(t *testing.T) {
	t.Parallel()
	_, b, c := overQUIC(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		io.WriteString(rw, "x")
		http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	}))
	resp, err := send(t.Context(), c, b, strings.NewReader("x"))
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

// More exchanges at once than a connection takes: all are answered.
func TestQUICManyAtOnce(t *testing.T) {
	t.Parallel()
	_, b, c := overQUIC(t, echo)
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			body := strings.Repeat(fmt.Sprint(i), 200)
			if got, err := post(t, c, b, body); err != nil || got != body {
				t.Errorf("%d bytes of %d, %v", len(got), len(body), err)
			}
		})
	}
	wg.Wait()
	c.Close()
	if _, err := post(t, c, b, "x"); !errors.Is(err, tunnel.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A connection that many exchanges use gets company.
func TestQUICMoreConnections(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(announced(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && string(body) == "wait" {
			<-release
		}
		io.WriteString(rw, r.Proto+" "+r.RemoteAddr)
	}))).serveQUIC()
	c := a.tunnel()
	tunnel.Widen(c, 2)
	from := map[string]bool{}
	quick := func() {
		t.Helper()
		got, err := post(t, c, b, "x")
		if err != nil {
			t.Fatal(err)
		}
		if proto, addr, _ := strings.Cut(got, " "); proto == overH3 {
			from[addr] = true
		}
	}
	for begun := time.Now(); len(from) == 0 && time.Since(begun) < 20*time.Second; {
		quick()
	}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := post(t, c, b, "wait"); err != nil {
				t.Error(err)
			}
		})
	}
	for begun := time.Now(); len(from) < 2 && time.Since(begun) < 20*time.Second; time.Sleep(time.Millisecond) {
		quick()
	}
	close(release)
	wg.Wait()
	if len(from) != 2 || w.dials("udp b.test:5500") != 2 {
		t.Errorf("requests from %v, %d connections", from, w.dials("udp b.test:5500"))
	}
}

// On a far line exchanges share out over many connections, and over HTTPS where
// these are full; the spare ones end afterwards.
func TestQUICFarLine(t *testing.T) {
	t.Parallel()
	const width, waiting = 4, 20
	var mu sync.Mutex
	from := map[string]int{} // waiting exchanges, by protocol and address
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(announced(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && string(body) == "wait" {
			mu.Lock()
			from[r.Proto+" "+r.RemoteAddr]++
			mu.Unlock()
			<-release
		}
		io.WriteString(rw, r.Proto)
	}))).serveQUIC()
	c := a.tunnel()
	tunnel.Far(c)
	tunnel.Widen(c, width)
	tunnel.Thrift(c)
	until(t, c, b, overH3)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer free()
	wait := func() {
		wg.Go(func() {
			if _, err := post(t, c, b, "wait"); err != nil {
				t.Error(err)
			}
		})
	}
	eventually := func(what string, done func() bool) {
		t.Helper()
		for begun := time.Now(); !done(); time.Sleep(5 * time.Millisecond) {
			if time.Since(begun) > 20*time.Second {
				t.Fatal(what)
			}
		}
	}
	arrived := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, k := range from {
			n += k
		}
		return n
	}
	for i := range waiting { // one after the other, each as soon as the line has grown for it
		wait()
		eventually("exchanges wait for each other", func() bool { return arrived() == i+1 })
		eventually("a connection is missing", func() bool { return c.Idle() })
	}
	mu.Lock()
	conns, over := 0, map[string]int{}
	for at, n := range from {
		proto, _, _ := strings.Cut(at, " ")
		over[proto] += n
		if proto == overH3 {
			conns++
			if n > tunnel.MinShare {
				t.Errorf("%d exchanges on one connection", n)
			}
		}
	}
	mu.Unlock()
	if conns != width || over[overH3] != width*tunnel.MinShare || over[overH1] != waiting-width*tunnel.MinShare {
		t.Errorf("%v on %d connections", over, conns)
	}
	free()
	wg.Wait()
	eventually("spare connections remain", func() bool { return c.QUICConnections() == 1 })
	until(t, c, b, overH3)
}

// With QUIC alone exchanges share out, too, and none is refused.
func TestQUICAloneFarLine(t *testing.T) {
	t.Parallel()
	const width = 4
	var arrived atomic.Int64
	var from sync.Map
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	_, b, c := overQUIC(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && string(body) == "wait" {
			from.Store(r.RemoteAddr, true)
			arrived.Add(1)
			<-release
		}
	}))
	tunnel.Far(c)
	tunnel.Widen(c, width)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer free()
	for i := range 4 * width * tunnel.MinShare {
		wg.Go(func() {
			if _, err := post(t, c, b, "wait"); err != nil {
				t.Error(err)
			}
		})
		for begun := time.Now(); arrived.Load() <= int64(i) || !c.Idle(); time.Sleep(time.Millisecond) {
			if time.Since(begun) > 20*time.Second {
				t.Fatal("an exchange waits for others")
			}
		}
	}
	n := 0
	from.Range(func(any, any) bool { n++; return true })
	free()
	wg.Wait()
	if n != width || b.dials("udp b.test:5500") != width {
		t.Errorf("exchanges on %d connections of %d", n, b.dials("udp b.test:5500"))
	}
}

// A peer that acknowledges nothing gets no further exchange over QUIC, nor over
// an old connection of HTTPS, until it is heard again. One that only takes its
// time is not concerned.
func TestQUICDoubt(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}, 2), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(announced(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && string(body) == "wait" {
			arrived <- struct{}{}
			<-release
		}
		io.WriteString(rw, r.Proto)
	}))).serveQUIC()
	r := newRelay(t, b)
	c := a.tunnel()
	tunnel.Doubt(c)
	until(t, c, b, overH3) // HTTPS has an idle connection now
	lost := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		resp, err := send(ctx, c, b, strings.NewReader("wait"))
		if err == nil {
			resp.Body.Close()
		}
		lost <- err
	}()
	<-arrived
	time.Sleep(10 * tunnel.DoubtTime) // however long the answer takes
	until(t, c, b, overH3)

	conns := b.conns.Load()
	r.deaf.Store(true)
	for begun := time.Now(); ; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		resp, err := send(ctx, c, b, strings.NewReader("x"))
		proto := ""
		if err == nil {
			var got []byte
			got, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			proto = string(got)
		}
		cancel()
		if err == nil && proto == overH1 {
			break
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("%q, %v", proto, err)
		}
	}
	if b.conns.Load() == conns {
		t.Error("an old connection was used")
	}
	r.deaf.Store(false)
	until(t, c, b, overH3)
	cancel()
	if err := <-lost; err == nil || len(arrived) != 0 { // before it is free to be answered
		t.Errorf("%v, arrived %d times more", err, len(arrived))
	}
	free()
	if n := w.dials("udp b.test:5500"); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// A peer that was killed is given up on all its connections when one shows it.
func TestQUICKilled(t *testing.T) {
	t.Parallel()
	const width = 4
	var arrived atomic.Int64
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(announced(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && string(body) == "wait" {
			arrived.Add(1)
			<-release
		}
		io.WriteString(rw, r.Proto)
	}))).serveQUIC()
	c := a.tunnel()
	tunnel.Far(c)
	tunnel.Widen(c, width)
	tunnel.Doubt(c)
	until(t, c, b, overH3)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer free()
	for n := int64(1); c.QUICConnections() < width; n++ {
		if n > 20*width {
			t.Fatal("too few connections")
		}
		wg.Go(func() {
			if _, err := post(t, c, b, "wait"); err != nil {
				t.Error(err)
			}
		})
		for arrived.Load() < n || !c.Idle() {
			time.Sleep(time.Millisecond)
		}
	}
	free()
	wg.Wait()
	before := b.requests.Load()
	b.udp.Close() // no farewell
	for lost := 0; ; lost++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		resp, err := send(ctx, c, b, strings.NewReader("x"))
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		cancel()
		if err == nil {
			break
		}
		if lost == width-1 {
			t.Fatalf("%d exchanges were lost: %v", lost+1, err)
		}
	}
	if n := b.requests.Load() - before; n != 1 {
		t.Errorf("%d requests", n)
	}
}

// dialH3 connects to a server by hand, with a's certificate.
func dialH3(t *testing.T, a, b *server) *quic.Conn {
	t.Helper()
	der, _ := a.lookup(ocspName(a))
	cert := *a.cert
	cert.OCSPStaple = der
	conn := check[*quic.Conn](t)(quic.DialAddr(t.Context(), b.udp.LocalAddr().String(), &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"h3"}, Certificates: []tls.Certificate{cert},
	}, nil))
	t.Cleanup(func() { conn.CloseWithError(0, "") })
	return conn
}

// ours and quic-go's HTTP/3 understand each other.
func TestQUICStrangersUnderstand(t *testing.T) {
	t.Parallel()
	a, b, _ := overQUIC(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		rw.Header().Set("X-Path", r.URL.Path+" "+r.Header.Get("X-Road-Client")+" "+r.Header.Get("Accept-Encoding"))
		rw.WriteHeader(http.StatusInternalServerError)
		rw.Write(body)
	}))
	der, _ := a.lookup(ocspName(a))
	cert := *a.cert
	cert.OCSPStaple = der
	tr := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}}}
	defer tr.Close()
	for _, size := range []int{0, 10, 100_000} {
		body := strings.Repeat("y", size)
		req := check[*http.Request](t)(http.NewRequest(http.MethodPost, "https://"+b.udp.LocalAddr().String()+"/some%20path", strings.NewReader(body)))
		req.Header.Set("X-Road-Client", "a/b/c")
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || string(got) != body || resp.StatusCode != 500 || resp.Header.Get("X-Path") != "/some path a/b/c gzip" {
			t.Errorf("%d %v %d bytes, %v", resp.StatusCode, resp.Header, len(got), err)
		}
		resp.Body.Close()
	}

	socket := check[net.PacketConn](t)(net.ListenPacket("udp4", loopback+":0"))
	own := *b.cert
	theirs := &http3.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAnyClientCert},
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Type", r.Header.Get("Content-Type"))
			io.Copy(rw, r.Body)
		}),
	}
	var wg sync.WaitGroup
	wg.Go(func() { theirs.Serve(socket) })
	defer wg.Wait()
	defer socket.Close()
	defer theirs.Close()
	b.host("udp b.test:5500", socket.LocalAddr().String())
	c := a.tunnel(only(tunnel.QUIC))
	for _, size := range []int{0, 10, 100_000} {
		body := strings.Repeat("y", size)
		resp, err := send(t.Context(), c, b, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || string(got) != body || resp.Header.Get("X-Type") != "text/plain" {
			t.Errorf("%d %v %d bytes, %v", resp.Status, resp.Header, len(got), err)
		}
		resp.Body.Close()
	}
	c.Close()
}
