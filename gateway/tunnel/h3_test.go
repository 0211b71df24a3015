// SPDX-License-Identifier: Apache-2.0

package tunnel_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"

	"kontor/gateway/tunnel"
)

func TestAltSvc(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for value, want := range map[string]struct {
		port  int
		fresh time.Duration
	}{
		`h3=":5500"; ma=86400`:                              {5500, day},
		`h3=":5500"`:                                        {5500, day},
		`h3=":5500";ma=60;persist=1`:                        {5500, time.Minute},
		`h3=":5500" ; ma="60"`:                              {5500, time.Minute},
		`h3=":5500"; ma=4000000000`:                         {5500, 30 * day},
		`h3=":5500"; ma=0`:                                  {0, 0},
		`h2=":443", h3=":5500"; ma=5, h3=":6"`:              {5500, 5 * time.Second},
		`h3-29=":1", h3="other.example:443", , h3=":5501",`: {5501, day},
		`h3="other.example:443"`:                            {0, 0},
		`h3=":\5\500"`:                                      {5500, day},
		`w%3Dx%3Ay#z=":80"; foo="a\"b"`:                     {0, 0},
		`clear`:                                             {0, 0},
		` clear `:                                           {0, 0},
		``:                                                  {0, 0},
	} {
		port, fresh, err := tunnel.ParseAltSvc(value)
		if err != nil || port != want.port || port != 0 && fresh != want.fresh {
			t.Errorf("%s: %d for %s, %v", value, port, fresh, err)
		}
	}
	for _, value := range []string{
		`h3`, `h3=`, `h3=5500`, `h3=":5500`, `h3="5500"`, `h3=":0"`, `h3=":65536"`, `h3=":-1"`, `h3=":x"`, `=":5500"`, `h3=":5500" ma=1`,
		`h3=":5500";`, `h3=":5500"; ma`, `h3=":5500"; ma=`, `h3=":5500"; ma=x`, `h3=":5500"; ma=-1`, `h3=":5500"; ma=99999999999`,
		`clear, h3=":5500"`, "h3=\":55\n00\"", `h3=":5500"; ` + strings.Repeat(" ", 3000), `Clear`,
	} {
		if port, _, err := tunnel.ParseAltSvc(value); err == nil {
			t.Errorf("%q accepted: %d", value, port)
		}
	}
	if port, _, err := tunnel.ParseAltSvc(`h2=":1"`, `h3=":2"`); err != nil || port != 2 {
		t.Errorf("two headers: %d, %v", port, err)
	}
}

func FuzzAltSvc(f *testing.F) {
	for _, s := range []string{`h3=":5500"; ma=86400`, `h2="a:1", h3=":5";x="y\"z"`, "clear", ",,", `h3=":1" ; ma="2"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		port, fresh, err := tunnel.ParseAltSvc(value)
		if err == nil && (port < 0 || port > 65535 || port > 0 && (fresh <= 0 || fresh > 30*24*time.Hour)) {
			t.Errorf("%d for %s", port, fresh)
		}
		if err != nil && port != 0 {
			t.Error("an error and an offer")
		}
	})
}

// section makes a HEADERS frame of fields.
func section(fields ...string) []byte {
	var b bytes.Buffer
	enc := qpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(qpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a bytes.Buffer takes everything
	}
	return frame(1, b.Bytes())
}

func frame(kind byte, payload []byte) []byte {
	return append([]byte{kind, 0x80, byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload))}, payload...)
}

func TestMessages(t *testing.T) {
	t.Parallel()
	head := section(":status", "200")
	many := []string{":status", "200"}
	for range 200 {
		many = append(many, "a", "b")
	}
	for _, tt := range []struct {
		name    string
		bytes   []byte
		content string
		want    error // nil: read to the end
	}{
		{"empty content", head, "", nil},
		{"one frame", slices.Concat(head, frame(0, []byte("hello"))), "hello", nil},
		{"frames", slices.Concat(head, frame(0, []byte("hel")), frame(0, nil), frame(0, []byte("lo"))), "hello", nil},
		{"unknown frames", slices.Concat(frame(0x21, []byte("x")), head, frame(0x21, nil), frame(0, []byte("hello")), frame(0x21, []byte("x"))), "hello", nil},
		{"trailers", slices.Concat(head, frame(0, []byte("hello")), section("a", "b")), "hello", nil},
		{"announced", slices.Concat(section(":status", "200", "content-length", "5"), frame(0, []byte("hello"))), "hello", nil},
		{"nothing", nil, "", io.ErrUnexpectedEOF},
		{"cut in a type", head[:1], "", tunnel.ErrResponse},
		{"cut in a head", head[:len(head)-1], "", tunnel.ErrResponse},
		{"cut in content", slices.Concat(head, frame(0, []byte("hello"))[:7]), "", tunnel.ErrResponse},
		{"no head", frame(0, []byte("hello")), "", tunnel.ErrResponse},
		{"settings", frame(4, nil), "", tunnel.ErrResponse},
		{"settings later", slices.Concat(head, frame(4, nil)), "", tunnel.ErrResponse},
		{"HTTP/2's frame", slices.Concat(head, frame(6, nil)), "", tunnel.ErrResponse},
		{"push", slices.Concat(head, frame(5, nil)), "", tunnel.ErrResponse},
		{"content after trailers", slices.Concat(head, section("a", "b"), frame(0, []byte("x"))), "", tunnel.ErrResponse},
		{"less than announced", slices.Concat(section(":status", "200", "content-length", "6"), frame(0, []byte("hello"))), "", io.ErrUnexpectedEOF},
		{"more than announced", slices.Concat(section(":status", "200", "content-length", "4"), frame(0, []byte("hello"))), "", tunnel.ErrResponse},
		{"two lengths", section(":status", "200", "content-length", "4", "content-length", "5"), "", tunnel.ErrResponse},
		{"malformed length", section(":status", "200", "content-length", "+4"), "", tunnel.ErrResponse},
		{"too much", slices.Concat(head, frame(0, make([]byte, 1<<20+1))), "", tunnel.ErrResponse},
		{"endless unknown frames", slices.Concat(head, bytes.Repeat(frame(0x21, nil), 100)), "", tunnel.ErrResponse},
		{"large unknown frame", slices.Concat(head, frame(0x21, make([]byte, 1<<16))), "", tunnel.ErrResponse},
		{"huge head", frame(1, make([]byte, 1<<16)), "", tunnel.ErrResponse},
		{"many fields", section(many...), "", tunnel.ErrResponse},
		{"large field", section(":status", "200", "a", strings.Repeat("a", 32<<10)), "", tunnel.ErrResponse},
		{"no fields", frame(1, nil), "", tunnel.ErrResponse},
		{"dynamic table", frame(1, []byte{1, 0, 0x80}), "", tunnel.ErrResponse},
		{"upper case", section(":status", "200", "Abc", "x"), "", tunnel.ErrResponse},
		{"malformed name", section(":status", "200", "a b", "x"), "", tunnel.ErrResponse},
		{"no name", section(":status", "200", "", "x"), "", tunnel.ErrResponse},
		{"line break", section(":status", "200", "a", "x\r\ny"), "", tunnel.ErrResponse},
		{"connection", section(":status", "200", "connection", "close"), "", tunnel.ErrResponse},
		{"transfer coding", section(":status", "200", "transfer-encoding", "chunked"), "", tunnel.ErrResponse},
		{"pseudo-header later", section("a", "b", ":status", "200"), "", tunnel.ErrResponse},
		{"pseudo-header twice", section(":status", "200", ":status", "200"), "", tunnel.ErrResponse},
		{"unknown pseudo-header", section(":status", "200", ":x", "200"), "", tunnel.ErrResponse},
	} {
		for name, r := range map[string]io.Reader{"whole": bytes.NewReader(tt.bytes), "by bytes": iotest.OneByteReader(bytes.NewReader(tt.bytes))} {
			_, content, err := tunnel.ReadMessage(r)
			if tt.want == nil && (err != nil || string(content) != tt.content) || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%s, %s: %q, %v", tt.name, name, content, err)
			}
		}
	}
}

// Heads are written without garbage and read with little.
func TestHeadAllocations(t *testing.T) {
	header := http.Header{"Content-Type": {"multipart/mixed; boundary=xyz"}, "x-hash-algorithm": {"SHA-512"}, "X-Road-Request-Id": {"123"}}
	content := []byte("content")
	b := tunnel.WriteMessage(header, content)
	if n := testing.AllocsPerRun(100, func() { tunnel.WriteHead(b[:0], header) }); n > 0 {
		t.Errorf("%.0f allocations to write a head", n)
	}
	if n := testing.AllocsPerRun(100, func() { _, _, _ = tunnel.ReadMessage(bytes.NewReader(b)) }); n > 24 {
		t.Errorf("%.0f allocations to read a message", n)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(slices.Concat(section(":status", "200", "content-length", "5"), frame(0, []byte("hello"))))
	f.Add(slices.Concat(frame(0x21, []byte("x")), section(":method", "POST", ":path", "/"), frame(0, []byte("hel")), frame(0, []byte("lo")), section("a", "b")))
	f.Add(tunnel.WriteMessage(http.Header{"X-A": {"b"}}, []byte("content")))
	f.Fuzz(func(t *testing.T, b []byte) {
		header, content, err := tunnel.ReadMessage(bytes.NewReader(b))
		_, again, err2 := tunnel.ReadMessage(iotest.OneByteReader(bytes.NewReader(b)))
		if !bytes.Equal(content, again) || (err == nil) != (err2 == nil) {
			t.Fatalf("%q, %v; byte by byte %q, %v", content, err, again, err2)
		}
		if len(content) > len(b) {
			t.Fatal("more than came")
		}
		for name := range header {
			if tunnel.CheckHeader(http.Header{"X-" + name: header[name]}) != nil {
				t.Fatalf("header %q", name)
			}
		}
		_, _ = tunnel.ReadControl(bytes.NewReader(b)) // must end
	})
}

// What is written is read again, by ours and by qpack's reading of it.
func FuzzWrittenMessage(f *testing.F) {
	f.Add("X-Road-Client", "a/b/c", []byte("hello"))
	f.Add("content-type", "", []byte{})
	f.Add(strings.Repeat("n", 300), strings.Repeat("v", 3000), make([]byte, 70000))
	f.Fuzz(func(t *testing.T, name, value string, content []byte) {
		header := http.Header{name: {value}}
		lower := strings.ToLower(name)
		if tunnel.CheckHeader(header) != nil || len(name)+len(value) > 16<<10 || slices.Contains([]string{"te", "keep-alive", "proxy-connection"}, lower) ||
			len(content) > 1<<20 {
			return
		}
		got, body, err := tunnel.ReadMessage(bytes.NewReader(tunnel.WriteMessage(header, content)))
		if err != nil || !bytes.Equal(body, content) {
			t.Fatalf("%d bytes of %d, %v", len(body), len(content), err)
		}
		if want := (http.Header{http.CanonicalHeaderKey(lower): {value}}); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q instead of %q", got, want)
		}
	})
}

// hostileH3 runs one exchange with a peer that answers QUIC by hand, once it
// has the request, and has sent its settings.
func hostileH3(t *testing.T, settings []byte, answer func(conn *quic.Conn, s *quic.Stream)) error {
	t.Helper()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	der, _ := b.lookup(ocspName(b))
	cert := *b.cert
	cert.OCSPStaple = der
	socket := check[net.PacketConn](t)(net.ListenPacket("udp4", loopback+":0"))
	w.host("udp b.test:5500", socket.LocalAddr().String())
	transport := &quic.Transport{Conn: socket}
	l := check[*quic.Listener](t)(transport.Listen(&tls.Config{
		Certificates: []tls.Certificate{cert}, NextProtos: []string{"h3"}, ClientAuth: tls.RequireAnyClientCert,
	}, nil))
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept(context.Background())
		if err != nil {
			return
		}
		u, err := conn.OpenUniStream()
		if err != nil {
			return
		}
		u.Write(settings)
		s, err := conn.AcceptStream(context.Background())
		if err != nil {
			return
		}
		go io.Copy(io.Discard, s)
		answer(conn, s)
		<-conn.Context().Done()
	}()
	c := a.tunnel(only(tunnel.QUIC), func(cfg *tunnel.ClientConfig) { cfg.MaxResponse = 1 << 20 })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	resp, err := send(ctx, c, b, strings.NewReader("x"))
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	c.Close()
	transport.Close() // and all that is left on it
	socket.Close()
	<-done
	return err
}

func TestHostileQUICServers(t *testing.T) {
	t.Parallel()
	good := slices.Concat([]byte{0}, frame(4, nil))
	write := func(b []byte, end bool) func(*quic.Conn, *quic.Stream) {
		return func(_ *quic.Conn, s *quic.Stream) {
			s.Write(b)
			if end {
				s.Close()
			}
		}
	}
	head := section(":status", "200")
	for _, tt := range []struct {
		name     string
		settings []byte
		answer   func(*quic.Conn, *quic.Stream)
		want     func(error) bool
	}{
		{"good", good, write(slices.Concat(section(":status", "103"), head, frame(0, []byte("x"))), true), func(err error) bool { return err == nil }},
		{"closes", good, func(_ *quic.Conn, s *quic.Stream) { s.Close() }, is(io.ErrUnexpectedEOF)},
		{"resets", good, func(_ *quic.Conn, s *quic.Stream) { s.CancelWrite(0x10c) }, is(io.ErrUnexpectedEOF)},
		{"ends the connection", good, func(c *quic.Conn, _ *quic.Stream) { c.CloseWithError(0x100, "") }, func(err error) bool {
			var app *quic.ApplicationError
			return errors.As(err, &app) && !errors.Is(err, tunnel.ErrConnect)
		}},
		{"rubbish", good, write([]byte("HTTP/1.1 200 OK\r\n\r\n"), true), is(tunnel.ErrResponse)},
		{"endless interim responses", good, write(bytes.Repeat(section(":status", "102"), 50), false), is(tunnel.ErrResponse)},
		{"switches protocols", good, write(section(":status", "101"), false), is(tunnel.ErrResponse)},
		{"no status", good, write(section("a", "b"), false), is(tunnel.ErrResponse)},
		{"a request", good, write(section(":method", "POST", ":status", "200"), false), is(tunnel.ErrResponse)},
		{"malformed status", good, write(section(":status", "20x"), false), is(tunnel.ErrResponse)},
		{"endless content", good, write(slices.Concat(head, frame(0, make([]byte, 2<<20))), false), is(tunnel.ErrResponse)},
		{"short content", good, write(slices.Concat(head, []byte{0, 10, 'x'}), true), is(tunnel.ErrResponse)},
		{"not found", good, write(section(":status", "404"), true), func(err error) bool {
			var e *tunnel.StatusError
			return errors.As(err, &e) && e.Status == 404
		}},
		{"silence", good, func(*quic.Conn, *quic.Stream) {}, is(tunnel.ErrTimeout)},
		{"no settings", []byte{0, 7, 1, 0}, nil, is(tunnel.ErrConnect)},
		{"two settings", slices.Concat(good, frame(4, nil)), func(*quic.Conn, *quic.Stream) {}, func(err error) bool { return err != nil }},
		{"push stream", []byte{1, 0}, nil, is(tunnel.ErrConnect)},
		{"large settings", slices.Concat([]byte{0}, frame(4, make([]byte, 1<<16))), nil, is(tunnel.ErrConnect)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := hostileH3(t, tt.settings, tt.answer); !tt.want(err) {
				t.Error(err)
			}
		})
	}
}

// A client that breaks the rules loses its stream, or its connection, and the
// handler is not called.
func TestHostileQUICClients(t *testing.T) {
	t.Parallel()
	request := []string{":method", "POST", ":scheme", "https", ":authority", "b", ":path", "/"}
	change := func(name, value string) []byte {
		fields := slices.Clone(request)
		for i := 0; i < len(fields); i += 2 {
			if fields[i] == name {
				if fields[i+1] = value; value == "" {
					fields = slices.Delete(fields, i, i+2)
				}
			}
		}
		return section(fields...)
	}
	for name, b := range map[string][]byte{
		"rubbish": []byte("POST / HTTP/1.1\r\n\r\n"), "nothing": nil, "content first": frame(0, []byte("x")), "cut": section(request...)[:9],
		"no method": change(":method", ""), "connect": change(":method", "CONNECT"), "no scheme": change(":scheme", ""), "plain": change(":scheme", "http"),
		"no authority": change(":authority", ""), "no path": change(":path", ""), "star": change(":path", "*"), "whole address": change(":path", "https://b/"),
		"malformed path": change(":path", "/%zz"), "a response": section(":status", "200"), "large": frame(1, make([]byte, 1<<16)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b2, c := overQUIC(t, echo)
			conn := dialH3(t, a, b2)
			s := check[*quic.Stream](t)(conn.OpenStreamSync(t.Context()))
			s.Write(b)
			s.Close()
			if got, err := io.ReadAll(s); err == nil {
				t.Errorf("answered %q", got)
			}
			if b2.requests.Load() != 0 {
				t.Error("the handler was called")
			}
			if _, err := post(t, c, b2, "x"); err != nil { // others are not concerned
				t.Error(err)
			}
		})
	}
	t.Run("good", func(t *testing.T) {
		t.Parallel()
		a, b, _ := overQUIC(t, echo)
		conn := dialH3(t, a, b)
		s := check[*quic.Stream](t)(conn.OpenStreamSync(t.Context()))
		s.Write(slices.Concat(section(request...), frame(0, []byte("hello"))))
		s.Close()
		header, content, err := tunnel.ReadMessage(s)
		if err != nil || string(content) != "hello" || header.Get("Date") == "" {
			t.Errorf("%v %q, %v", slices.Collect(maps.Keys(header)), content, err)
		}
	})
}

// One peer has no more connections than its share.
func TestQUICConnectionsPerPeer(t *testing.T) {
	t.Parallel()
	a, b, _ := overQUIC(t, echo)
	refused := 0
	for range tunnel.MaxPeerConnections + 3 {
		conn := dialH3(t, a, b)
		if _, err := conn.AcceptUniStream(t.Context()); err != nil { // the settings
			var app *quic.ApplicationError
			if !errors.As(err, &app) || app.ErrorCode != 0x107 {
				t.Fatal(err)
			}
			refused++
		}
	}
	if refused != 3 {
		t.Errorf("%d refused", refused)
	}
	other := b.world.add("other")
	if _, err := post(t, other.tunnel(only(tunnel.QUIC)), b, "x"); err != nil {
		t.Errorf("another peer: %v", err)
	}
}

// When many shake hands at once, each must prove its address; beyond that they
// are refused, and HTTPS is there.
func TestQUICHandshakesAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	m := tunnel.NewMetrics()
	b.serve(announced(tellProto)).serveQUIC(func(cfg *tunnel.ServerConfig) { cfg.Metrics = m })
	first := func() *tunnel.Client {
		return a.tunnel(only(tunnel.QUIC), func(cfg *tunnel.ClientConfig) { cfg.Metrics = m })
	}
	tunnel.Occupy(b.quic, tunnel.ManyHandshakes)
	if got, err := post(t, first(), b, "x"); err != nil || got != overH3 {
		t.Errorf("many: %q, %v", got, err)
	}
	tunnel.Occupy(b.quic, tunnel.MaxHandshakes)
	if _, err := post(t, first(), b, "x"); !errors.Is(err, tunnel.ErrConnect) {
		t.Errorf("too many: %v", err)
	}
	if got, err := post(t, a.tunnel(), b, "x"); err != nil || got != overH1 {
		t.Errorf("HTTPS: %q, %v", got, err)
	}
	tunnel.Occupy(b.quic, 0)
	if got, err := post(t, first(), b, "x"); err != nil || got != overH3 {
		t.Errorf("few: %q, %v", got, err)
	}
	counts := gather(t, m)
	for name, want := range map[string]float64{
		"kontor_tunnel_exchanges_total client quic": 2, "kontor_tunnel_exchanges_total server quic": 2, "kontor_tunnel_exchanges_total client https": 0,
		"kontor_tunnel_quic_handshakes_failed_total client": 1, "kontor_tunnel_quic_connections client": 2, "kontor_tunnel_fallbacks_total": 0,
	} {
		if counts[name] != want {
			t.Errorf("%s: %v instead of %v", name, counts[name], want)
		}
	}
}

// gather returns the values of collectors by name and labels.
func gather(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	values := map[string]float64{}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.Metric {
			name := family.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

// A peer is judged for each request over QUIC as over HTTPS.
func TestQUICPeerIsVerifiedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serve(echo).serveQUIC()
	c := a.tunnel(only(tunnel.QUIC))
	ok := func() {
		t.Helper()
		if got, err := post(t, c, b, "x"); err != nil || got != "x" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	ok()
	w.publish()
	w.clock.Store(int64(30 * time.Minute))
	ok()
	if n := b.asked.Load(); n != 0 {
		t.Errorf("%d questions", n)
	}
	w.clock.Store(int64(61 * time.Minute)) // what came with the handshake is stale
	ok()
	if n := b.asked.Load(); n != 1 || b.dials("udp b.test:5500") != 1 {
		t.Errorf("%d questions, %d connections", n, b.dials("udp b.test:5500"))
	}
	registered := b.entry().AuthCerts
	b.entry().AuthCerts = nil
	w.publish()
	if _, err := post(t, c, b, "x"); !errors.Is(err, tunnel.ErrPeer) {
		t.Errorf("certificate removed: %v", err)
	}
	b.entry().AuthCerts = registered
	w.publish()
	ok()
}
