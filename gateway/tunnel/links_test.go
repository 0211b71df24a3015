// SPDX-License-Identifier: Apache-2.0

package tunnel_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kontor/gateway/tunnel"
)

// overLinks makes two security servers and a client of the first that has no
// QUIC.
func overLinks(t testing.TB, h http.Handler) (*server, *server, *tunnel.Client) {
	t.Helper()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serveLinks(h)
	c := a.tunnel(only(tunnel.HTTPS))
	tunnel.NearLinks(c)
	return a, b, c
}

func TestLinkPost(t *testing.T) {
	t.Parallel()
	var a, b *server
	a, b, c := overLinks(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/" || r.Host != "b.test:5500" || r.Header.Get("X-Hash-Algorithm") != "SHA-512" {
			t.Errorf("%s %s %s %v, %v", r.Method, r.Host, r.URL, r.Header, err)
		}
		if r.TLS.Version != tls.VersionTLS13 || !r.TLS.PeerCertificates[0].Equal(a.cert.Leaf) || r.TLS.ServerName != "b.test" {
			t.Errorf("TLS %x for %s", r.TLS.Version, r.TLS.ServerName)
		}
		if host, _, err := net.SplitHostPort(r.RemoteAddr); err != nil || host != "127.0.0.1" {
			t.Errorf("from %s", r.RemoteAddr)
		}
		rw.Header()["x-hash-algorithm"] = []string{"SHA-512"}
		rw.Header().Set("Content-Type", "multipart/mixed; boundary=x")
		fmt.Fprintf(rw, "%s got %s", r.Proto, body)
	}))
	for _, tt := range []struct {
		body  io.Reader
		proto string
	}{
		{bytes.NewBufferString("hello"), overH3}, {strings.NewReader("hello"), overH3}, {bytes.NewReader([]byte("hello")), overH3},
		{onlyReader{strings.NewReader("hello")}, overH1}, // may be large
		{strings.NewReader("hello"), overH3},
	} {
		resp, err := c.Post(t.Context(), b.view.Load(), b.providers(), b.client, http.Header{"x-hash-algorithm": {"SHA-512"}}, tt.body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil || string(answer) != tt.proto+" got hello" || resp.Status != 200 ||
			resp.Header.Get("Content-Type") != "multipart/mixed; boundary=x" || resp.Header.Get("X-Hash-Algorithm") != "SHA-512" {
			t.Errorf("%d %v %q, %v", resp.Status, resp.Header, answer, err)
		}
		if resp.Peer.Server.ID != b.id || !resp.Peer.Cert.Equal(b.cert.Leaf) {
			t.Errorf("peer %v", resp.Peer)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	// One link, one connection for what may be large; OCSP as over HTTPS.
	if b.conns.Load() != 2 || c.Links() != 1 || b.asked.Load() != 1 {
		t.Errorf("%d connections, %d links, %d questions for OCSP", b.conns.Load(), c.Links(), b.asked.Load())
	}
}

// Whoever does not ask for a link gets HTTP/1.1, and so does who asks a server
// without.
func TestLinkNegotiation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, java := w.add("a"), w.add("b"), w.add("java")
	b.serveLinks(tellProto)
	for _, protocols := range [][]string{nil, {"http/1.1"}, {"h2", "http/1.1"}} {
		web := &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*a.cert}, NextProtos: protocols}}
			return d.DialContext(ctx, "tcp", b.listener.Addr().String())
		}}
		resp, err := (&http.Client{Transport: web}).Post("https://b.test:5500/", "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != overH1 {
			t.Errorf("%v: %q, %v", protocols, got, err)
		}
		resp.Body.Close()
		web.CloseIdleConnections()
	}
	java.serve(tellProto)
	c := a.tunnel(only(tunnel.HTTPS))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, err := post(t, c, java, "x"); err != nil || got != overH1 {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	if c.Links() != 0 {
		t.Errorf("%d links", c.Links())
	}
}

// Exchanges that begin at once share links, the first one too.
func TestLinkManyAtOnce(t *testing.T) {
	t.Parallel()
	_, b, c := overLinks(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		rw.Write(bytes.Repeat(body, 3))
	}))
	var wg sync.WaitGroup
	for i := range 150 {
		wg.Go(func() {
			for j := range 10 {
				body := strings.Repeat(string(rune('a'+(i+j)%26)), 1+(i*j*97)%(40<<10))
				if got, err := post(t, c, b, body); err != nil || got != strings.Repeat(body, 3) {
					t.Errorf("%d bytes of %d, %v", len(got), 3*len(body), err)
				}
			}
		})
	}
	wg.Wait()
	if n := b.conns.Load(); n > tunnel.MaxLinks || c.Links() == 0 {
		t.Errorf("%d connections, %d links", n, c.Links())
	}
}

// More exchanges than the links take go over ordinary connections.
func TestLinksAreFull(t *testing.T) {
	t.Parallel()
	const many = 300
	var arrived atomic.Int64
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	_, b, c := overLinks(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if arrived.Add(1) == many {
			free()
		}
		<-release
		io.WriteString(rw, r.Proto)
	}))
	defer free()
	var plain atomic.Int64
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			got, err := post(t, c, b, "x")
			if err != nil {
				t.Error(err)
			}
			if got == overH1 {
				plain.Add(1)
			}
		})
	}
	wg.Wait()
	if plain.Load() > many/2 {
		t.Errorf("%d over HTTP/1.1", plain.Load())
	}
}

// Where lines are long a link takes few exchanges; others have windows of their
// own.
func TestLinkFarLine(t *testing.T) {
	t.Parallel()
	var arrived atomic.Int64
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	_, b, c := overLinks(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && string(body) == "wait" {
			arrived.Add(1)
			<-release
		}
		io.WriteString(rw, r.Proto)
	}))
	defer free()
	tunnel.FarLinks(c)
	if got, err := post(t, c, b, "x"); err != nil || got != overH3 {
		t.Fatalf("%q, %v", got, err)
	}
	var wg sync.WaitGroup
	var links atomic.Int64
	const many = 12
	for i := range int64(many) {
		wg.Go(func() {
			got, err := post(t, c, b, "wait")
			if err != nil {
				t.Error(err)
			}
			if got == overH3 {
				links.Add(1)
			}
		})
		for arrived.Load() <= i {
			time.Sleep(time.Millisecond)
		}
	}
	stand := c.Links()
	free()
	wg.Wait()
	if n := links.Load(); n == 0 || n > int64(tunnel.MinShare*stand) {
		t.Errorf("%d of %d over %d links", n, many, stand)
	}
}

// An answer that nobody reads is in nobody's way, and comes whole when it is read.
func TestLinkSlowReader(t *testing.T) {
	t.Parallel()
	const size = 3 << 20
	_, b, c := overLinks(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && string(body) == "large" {
			io.CopyN(rw, zeros{}, size)
			return
		}
		io.WriteString(rw, r.Proto)
	}))
	var slow []*tunnel.Response
	for range 8 {
		resp, err := send(t.Context(), c, b, strings.NewReader("large"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		slow = append(slow, resp)
	}
	for range 100 {
		if got, err := post(t, c, b, "x"); err != nil || got != overH3 {
			t.Fatalf("%q, %v", got, err)
		}
	}
	for _, resp := range slow {
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	if b.conns.Load() != 1 {
		t.Errorf("%d connections", b.conns.Load())
	}
}

// What one end breaks off ends at the other, and nowhere else.
func TestLinkAborts(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	_, b, c := overLinks(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch string(body) {
		case "wait":
			<-r.Context().Done()
			ended <- r.Context().Err()
		case "abort":
			io.WriteString(rw, "some")
			http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		case "panic":
			panic("as expected")
		case "endless":
			for {
				if _, err := rw.Write(make([]byte, 32<<10)); err != nil {
					ended <- err
					return
				}
			}
		default:
			io.WriteString(rw, r.Proto)
		}
	}))
	ok := func() {
		t.Helper()
		if got, err := post(t, c, b, "x"); err != nil || got != overH3 {
			t.Errorf("%q, %v", got, err)
		}
	}
	ok()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := send(ctx, c, b, strings.NewReader("wait")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ok()
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	if _, err := send(ctx, c, b, strings.NewReader("wait")); !errors.Is(err, tunnel.ErrTimeout) {
		t.Error(err)
	}
	cancel()
	<-ended
	for _, body := range []string{"abort", "panic"} {
		if _, err := post(t, c, b, body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", body, err)
		}
		ok()
	}
	resp, err := send(t.Context(), c, b, strings.NewReader("endless"))
	if err != nil {
		t.Fatal(err)
	}
	io.CopyN(io.Discard, resp.Body, 1<<20)
	resp.Body.Close()
	if err := <-ended; err == nil {
		t.Error("went on writing")
	}
	ok()
	if b.conns.Load() != 1 {
		t.Errorf("%d connections", b.conns.Load())
	}
}

// A peer may answer before it has read the request.
func TestLinkEarlyAnswer(t *testing.T) {
	t.Parallel()
	_, b, c := overLinks(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/xml")
		io.WriteString(rw, "fault")
	}))
	for range 200 { // more than are allowed at first
		if got, err := post(t, c, b, strings.Repeat("x", 100<<10)); err != nil || got != "fault" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if b.conns.Load() != 1 {
		t.Errorf("%d connections", b.conns.Load())
	}
}

// The peer is judged anew for each exchange on a link that stands.
func TestLinkPeerIsVerifiedAgain(t *testing.T) {
	t.Parallel()
	a, b, c := overLinks(t, echo)
	ok := func() {
		t.Helper()
		if got, err := post(t, c, b, "x"); err != nil || got != "x" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	ok()
	a.clock.Store(int64(61 * time.Minute)) // the OCSP response is stale
	ok()
	if n := b.asked.Load(); n != 2 || b.conns.Load() != 1 {
		t.Errorf("%d questions, %d connections", n, b.conns.Load())
	}
	registered := b.entry().AuthCerts
	b.entry().AuthCerts = nil
	a.publish()
	requests := b.requests.Load()
	if _, err := post(t, c, b, "x"); !errors.Is(err, tunnel.ErrPeer) {
		t.Errorf("certificate removed: %v", err)
	}
	if b.requests.Load() != requests {
		t.Error("a request left")
	}
	b.entry().AuthCerts = registered
	a.publish()
	ok()
}

// Each certificate of ours has its own links; a server refuses one that is not
// registered.
func TestLinkIdentity(t *testing.T) {
	t.Parallel()
	a, b, c := overLinks(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		io.WriteString(rw, r.TLS.PeerCertificates[0].SerialNumber.String())
	}))
	first, second := a.cert, a.issue(t, "a", nil)
	tunnel.ThriftyLinks(c)
	if got, err := post(t, c, b, "x"); err != nil || got != first.Leaf.SerialNumber.String() {
		t.Fatalf("%q, %v", got, err)
	}
	a.use(second)
	if _, err := post(t, c, b, "x"); !errors.Is(err, tunnel.ErrConnect) {
		t.Errorf("not registered: %v", err)
	}
	a.register()
	if got, err := post(t, c, b, "x"); err != nil || got != second.Leaf.SerialNumber.String() {
		t.Errorf("%q, %v", got, err)
	}
	if b.conns.Load() < 3 {
		t.Errorf("%d connections", b.conns.Load())
	}
	for c.Links() > 0 { // nobody uses them any more
		time.Sleep(10 * time.Millisecond)
	}
}

// A server that stops lets exchanges under way finish, and its peers go elsewhere.
func TestLinkShutdown(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	_, b, c := overLinks(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && string(body) == "wait" {
			close(arrived)
			<-release
		}
		io.CopyN(rw, zeros{}, 1<<20)
	}))
	result := make(chan error, 1)
	go func() {
		resp, err := send(t.Context(), c, b, strings.NewReader("wait"))
		if err == nil {
			var n int64
			if n, err = io.Copy(io.Discard, resp.Body); n != 1<<20 && err == nil {
				err = fmt.Errorf("%d bytes", n)
			}
			resp.Body.Close()
		}
		result <- err
	}()
	<-arrived
	stopped := make(chan error, 1)
	go func() { stopped <- b.http.Shutdown(t.Context()) }()
	for { // until the client has heard
		_, err := post(t, c, b, "x")
		if errors.Is(err, tunnel.ErrConnect) {
			break
		}
		if err != nil {
			t.Fatalf("a new exchange: %v", err)
		}
	}
	close(release)
	if err := <-result; err != nil {
		t.Error(err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// One peer has no more links than its share, and nothing is done for it on others.
func TestLinksPerPeer(t *testing.T) {
	t.Parallel()
	a, b, _ := overLinks(t, echo)
	head := section(":method", "POST", ":scheme", "https", ":authority", "b", ":path", "/")
	request := slices.Concat(tunnel.LinkSettings(), record(append(numbers(0x09, 0), head...)))
	for i := range tunnel.MaxPeerConnections + 3 {
		conn := rawLink(t, a, b)
		if i < tunnel.MaxPeerConnections {
			conn.Write(tunnel.LinkSettings())
			for range 2 { // settings of QMux, and of HTTP/3: it stands
				check[[]byte](t)(readRecord(conn))
			}
			continue
		}
		conn.Write(request)
		if kind, code := farewell(t, conn); kind != 0x1d || code != 0x107 {
			t.Errorf("frame %#x with code %#x", kind, code)
		}
	}
	if n := b.requests.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
	other := b.world.add("other")
	if got, err := post(t, other.tunnel(only(tunnel.HTTPS)), b, "x"); err != nil || got != "x" {
		t.Errorf("another peer: %q, %v", got, err)
	}
}

// What a server does that breaks the rules ends the exchange, and never hangs it.
func TestHostileLinkServers(t *testing.T) {
	t.Parallel()
	settings := tunnel.LinkSettings()
	control := record(numbers(0x0a, 3, 3), []byte{0, 4, 0})
	head := section(":status", "200")
	answer := func(content string, kind uint64) []byte {
		return record(append(numbers(kind, 0), slices.Concat(head, frame(0, []byte(content)))...))
	}
	begin := func(then ...[]byte) func(net.Conn) {
		return func(c net.Conn) {
			c.Write(slices.Concat(settings, control))
			for { // up to the request
				b, err := readRecord(c)
				if err != nil {
					return
				}
				if b[0]&^7 == 0x08 && b[1] == 0 {
					break
				}
			}
			c.Write(slices.Concat(then...))
			io.Copy(io.Discard, c)
		}
	}
	for _, tt := range []struct {
		name   string
		answer func(net.Conn)
		want   func(error) bool
	}{
		{"good", begin(answer("x", 0x09)), func(err error) bool { return err == nil }},
		{"nothing", func(c net.Conn) { io.Copy(io.Discard, c) }, is(tunnel.ErrConnect)},
		{"closes at once", func(net.Conn) {}, is(tunnel.ErrConnect)},
		{"HTTP/1.1", func(c net.Conn) { c.Write(bytes.Repeat([]byte("HTTP/1.1 400 Bad\r\n"), 500)) }, is(tunnel.ErrConnect)},
		{"no settings of HTTP", func(c net.Conn) { c.Write(settings); io.Copy(io.Discard, c) }, is(tunnel.ErrConnect)},
		{"no streams", func(c net.Conn) {
			c.Write(slices.Concat(parameters(0x04, 1<<20, 0x07, 1<<20, 0x09, 3), control))
			io.Copy(io.Discard, c)
		}, func(err error) bool { return err != nil }},
		{"farewell instead", func(c net.Conn) { c.Write(slices.Concat(settings, record(numbers(0x1d, 0x107, 0)))) }, is(tunnel.ErrConnect)},
		{"breaks off", begin(record(numbers(0x04, 0, 0x10c, 0))), is(io.ErrUnexpectedEOF)},
		{"ends short", begin(answer("x", 0x08), record(numbers(0x05, 0, 0)), record(numbers(0x04, 0, 0x10c, 99))), is(io.ErrUnexpectedEOF)},
		{"unknown stream", begin(record(append(numbers(0x09, 4), 'x'))), func(err error) bool { return err != nil && !errors.Is(err, tunnel.ErrConnect) }},
		{"stream of its own", begin(record(append(numbers(0x09, 1), 'x'))), func(err error) bool { return err != nil && !errors.Is(err, tunnel.ErrConnect) }},
		{"frame of QUIC", begin(record(numbers(0x02))), func(err error) bool { return err != nil && !errors.Is(err, tunnel.ErrConnect) }},
		{"silence", begin(), is(tunnel.ErrTimeout)},
		{"stops taking", begin(record(numbers(0x05, 0, 0)), answer("x", 0x09)), func(err error) bool { return err == nil }},
		{"too much", begin(answer(strings.Repeat("x", 10<<10), 0x09)), is(tunnel.ErrResponse)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a, b := w.add("a"), w.add("b")
			b.listen("5577", nil, &http.Server{Handler: tunnel.OCSPHandler(b.lookup)})
			b.plain("5500", func(c net.Conn) {
				cfg := tunnel.ServerTLS(b.identity, b.view.Load)
				cfg.NextProtos = []string{tunnel.LinkProtocol}
				if conn := tls.Server(c, cfg); conn.Handshake() == nil {
					tt.answer(conn)
					conn.Close()
				}
			})
			c := a.tunnel(only(tunnel.HTTPS), func(cfg *tunnel.ClientConfig) {
				cfg.MaxResponse, cfg.ConnectTimeout = 8<<10, 2*time.Second
			})
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			if _, err := exchangeWithin(ctx, c, b); !tt.want(err) {
				t.Error(err)
			}
		})
	}
}

// exchangeWithin is post for who has not long to wait.
func exchangeWithin(ctx context.Context, c *tunnel.Client, to *server) (string, error) {
	resp, err := send(ctx, c, to, strings.NewReader("x"))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// tcpRelay stands before a server; when it is deaf, nothing more passes on the
// connections that it has.
type tcpRelay struct {
	mu    sync.Mutex
	deaf  chan struct{}
	conns atomic.Int64
}

func newTCPRelay(t *testing.T, s *server) *tcpRelay {
	t.Helper()
	r := &tcpRelay{deaf: make(chan struct{})}
	to := s.listener.Addr().String()
	s.plain("5500", func(c net.Conn) {
		r.conns.Add(1)
		r.mu.Lock()
		deaf := r.deaf
		r.mu.Unlock()
		other, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		defer other.Close()
		pass := func(to, from net.Conn) {
			b := make([]byte, 32<<10)
			for {
				n, err := from.Read(b)
				select {
				case <-deaf: // swallowed
				default:
					if _, err := to.Write(b[:n]); err != nil {
						return
					}
				}
				if err != nil {
					to.Close()
					return
				}
			}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			pass(c, other)
		}()
		pass(other, c)
		other.Close()
		<-done
	})
	return r
}

// vanish has the connections of now carry nothing more.
func (r *tcpRelay) vanish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.deaf)
	r.deaf = make(chan struct{})
}

// A peer that answers nothing gets no further exchange on the links of before;
// one that takes its time does. What is lost with it does not wait for ever.
func TestLinkVanishes(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}, 2), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	a, b, _ := overLinks(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && string(body) == "wait" {
			arrived <- struct{}{}
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		io.WriteString(rw, r.Proto)
	}))
	defer free()
	relay := newTCPRelay(t, b)
	c := a.tunnel(only(tunnel.HTTPS))
	tunnel.NearLinks(c)
	tunnel.DoubtLinks(c)
	wait := func() error {
		resp, err := send(t.Context(), c, b, strings.NewReader("wait"))
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	lost := make(chan error, 1)
	go func() { lost <- wait() }()
	<-arrived
	time.Sleep(10 * tunnel.DoubtTime) // however long the answer takes
	for range 20 {
		if got, err := post(t, c, b, "x"); err != nil || got != overH3 {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if n := relay.conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	relay.vanish()
	for tries := 0; ; tries++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		resp, err := send(ctx, c, b, strings.NewReader("x"))
		cancel()
		if err == nil {
			resp.Body.Close()
			break
		}
		if tries == 10 {
			t.Fatal(err)
		}
	}
	if n := relay.conns.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
	if err := <-lost; !errors.Is(err, tunnel.ErrTimeout) {
		t.Error(err)
	}
}
