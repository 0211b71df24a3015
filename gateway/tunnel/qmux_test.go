// SPDX-License-Identifier: Apache-2.0

package tunnel_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"

	"kontor/gateway/tunnel"
)

// numbers writes variable-length integers.
func numbers(values ...uint64) []byte {
	var b []byte
	for _, v := range values {
		b = quicvarint.Append(b, v)
	}
	return b
}

// record writes a record of frames.
func record(frames ...[]byte) []byte {
	b := slices.Concat(frames...)
	return append(numbers(uint64(len(b))), b...)
}

const (
	typeParameters = 0x3f5153300d0a0d0a
	typePing       = 0x348c67529ef8c7bd
	typePong       = 0x348c67529ef8c7be
)

// parameters writes the first record with pairs of transport parameters.
func parameters(pairs ...uint64) []byte {
	var p []byte
	for i := 0; i < len(pairs); i += 2 {
		value := numbers(pairs[i+1])
		p = append(append(p, numbers(pairs[i], uint64(len(value)))...), value...)
	}
	return record(numbers(typeParameters, uint64(len(p))), p)
}

// rawLink opens a link of a to b by hand.
func rawLink(t testing.TB, a, b *server) *tls.Conn {
	t.Helper()
	conn := check[*tls.Conn](t)(tls.Dial("tcp", b.listener.Addr().String(), &tls.Config{
		InsecureSkipVerify: true, Certificates: []tls.Certificate{*a.cert}, NextProtos: []string{tunnel.LinkProtocol},
	}))
	t.Cleanup(func() { conn.Close() })
	if p := conn.ConnectionState().NegotiatedProtocol; p != tunnel.LinkProtocol {
		t.Fatalf("protocol %q", p)
	}
	return conn
}

// readRecord reads one record.
func readRecord(r io.Reader) ([]byte, error) {
	size, err := quicvarint.Read(quicvarint.NewReader(r))
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	_, err = io.ReadFull(r, b)
	return b, err
}

// farewell reads up to a CONNECTION_CLOSE and returns its type and error code.
func farewell(t *testing.T, conn net.Conn) (kind, code uint64) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		b, err := readRecord(conn)
		if err != nil {
			t.Fatalf("no farewell: %v", err)
		}
		kind, n, err := quicvarint.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if kind == 0x1c || kind == 0x1d {
			code, _, err := quicvarint.Parse(b[n:])
			if err != nil {
				t.Fatal(err)
			}
			return kind, code
		}
	}
}

// Who breaks a rule of QMux is told, and the connection ends.
func TestLinkViolations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serveLinks(echo)
	data := func(id, offset uint64, content string, bits uint64) []byte {
		f := numbers(0x0c|bits, id, offset)
		if bits&2 != 0 {
			f = append(f, numbers(uint64(len(content)))...)
		}
		return append(f, content...)
	}
	settings := tunnel.LinkSettings()
	then := func(records ...[]byte) []byte { return slices.Concat(append([][]byte{settings}, records...)...) }
	many := func(n int, frame func(i uint64) []byte) []byte {
		var b []byte
		for i := range uint64(n) {
			b = append(b, record(frame(i))...)
		}
		return then(b)
	}
	const (
		flowControl, streamLimit, streamState, finalSize, encoding, parameter, protocol = 3, 4, 5, 6, 7, 8, 10
	)
	for _, tt := range []struct {
		name  string
		bytes []byte
		code  uint64
	}{
		{"HTTP", bytes.Repeat([]byte("POST / HTTP/1.1\r\n"), 400), encoding},
		{"settings late", record(numbers(typePing, 0)), protocol},
		{"settings twice", then(settings), protocol},
		{"empty record", then([]byte{0}), protocol},
		{"record too large", then(numbers(16383)), encoding},
		{"cut frame", then(record([]byte{0x10})), encoding},
		{"cut data", then(record(append(numbers(0x0a, 0, 10), 'x'))), encoding},
		{"cut type", then(record([]byte{0x40})), encoding},
		{"long type", then(record([]byte{0x40, 0x10, 0x01})), protocol},
		{"ping of QUIC", then(record(numbers(0x01))), encoding},
		{"acknowledgement", then(record(numbers(0x02, 0, 0, 0, 0))), encoding},
		{"handshake", then(record(numbers(0x06, 0, 0))), encoding},
		{"token", then(record(numbers(0x07, 1, 1))), encoding},
		{"connection ID", then(record(numbers(0x18, 1, 0))), encoding},
		{"retired ID", then(record(numbers(0x19, 1))), encoding},
		{"path challenge", then(record(numbers(0x1a), make([]byte, 8))), encoding},
		{"path response", then(record(numbers(0x1b), make([]byte, 8))), encoding},
		{"handshake done", then(record(numbers(0x1e))), encoding},
		{"datagram", then(record(numbers(0x30))), encoding},
		{"unknown frame", then(record(numbers(0x4242))), encoding},
		{"forbidden parameter", parameters(0x0e, 2), parameter},
		{"parameter twice", parameters(0x04, 1, 0x04, 1), parameter},
		{"small records", parameters(0x0571c59429cd0845, 16381), parameter},
		{"endless streams", parameters(0x08, 1<<60+1), parameter},
		{"cut parameter", record(numbers(typeParameters, 2, 0x04, 4)), parameter},
		{"long parameter", record(numbers(typeParameters, 4, 0x04, 2, 1, 1)), parameter},
		{"gap", then(record(data(0, 1, "x", 0))), protocol},
		{"repeated", then(record(data(0, 0, "xy", 0)), record(data(0, 1, "y", 0))), protocol},
		{"after the end", then(record(data(0, 0, "x", 1)), record(data(0, 1, "x", 0))), finalSize},
		{"reset too short", then(record(data(0, 0, "xyz", 0)), record(numbers(0x04, 0, 0, 2))), finalSize},
		{"reset twice", then(record(numbers(0x04, 0, 0, 0)), record(numbers(0x04, 0, 0, 1))), finalSize},
		{"data after reset", then(record(numbers(0x04, 0, 0, 0)), record(data(0, 0, "x", 0))), finalSize},
		{"reset beyond the window", then(record(numbers(0x04, 0, 0, 1<<30))), flowControl},
		{"stream beyond the limit", then(record(data(256<<2, 0, "x", 0))), streamLimit},
		{"one-way stream beyond the limit", then(record(data(8<<2|2, 0, "x", 0))), streamLimit},
		{"on the server's stream", then(record(data(3, 0, "x", 0))), streamState},
		{"stream of the server's that it never opened", then(record(data(1, 0, "x", 0))), streamState},
		{"stop what is not sent", then(record(numbers(0x05, 2, 0))), streamState},
		{"window for what is not sent", then(record(numbers(0x11, 2, 1))), streamState},
		{"too many streams allowed", then(record(numbers(0x12, 1<<60+1))), encoding},
		{"stream too long", then(record(data(0, 1<<62-1, "xy", 0))), encoding},
		{"ping repeated", then(record(numbers(typePing, 7)), record(numbers(typePing, 7))), protocol},
		{"answer to no ping", then(record(numbers(typePong, 99))), protocol},
		{"endless pings", many(20000, func(i uint64) []byte { return numbers(typePing, i) }), 0x107},
		{"endless padding", many(20000, func(uint64) []byte { return []byte{0} }), 0x107},
		{"windows by the byte", many(20000, func(i uint64) []byte { return numbers(0x10, 1<<20+i) }), 0x107},
		{"endless empty data", many(20000, func(uint64) []byte { return data(0, 0, "", 0) }), 0x107},
		{"blocked", many(20000, func(i uint64) []byte { return numbers(0x14, i) }), 0x107},
		{"stream blocked", many(20000, func(i uint64) []byte { return numbers(0x15, 0, i) }), 0x107},
		{"no streams allowed", many(20000, func(i uint64) []byte { return numbers(0x16, i) }), 0x107},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conn := rawLink(t, a, b)
			go conn.Write(tt.bytes)
			kind, code := farewell(t, conn)
			want := uint64(0x1c)
			if tt.code > 0x100 {
				want = 0x1d
			}
			if kind != want || code != tt.code {
				t.Errorf("frame %#x with code %#x instead of %#x", kind, code, tt.code)
			}
			if _, err := readRecord(conn); err != io.EOF {
				t.Errorf("after the farewell: %v", err)
			}
		})
	}
}

// What a peer sends ahead of the reader is bounded, for a stream and for all.
func TestLinkWindows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	release := make(chan struct{})
	b.serveLinks(holding(release))
	defer close(release)
	head := section(":method", "POST", ":scheme", "https", ":authority", "b", ":path", "/")
	for name, streams := range map[string]uint64{"stream": 1, "connection": 100} {
		t.Run(name, func(t *testing.T) {
			conn := rawLink(t, a, b)
			go func() {
				conn.Write(tunnel.LinkSettings())
				for i := range streams {
					begin := slices.Concat(head, []byte{0, 0x80, 1, 0, 0}) // 64 KiB follow, and more
					conn.Write(record(numbers(0x0c, i<<2, 0), begin))
					at := uint64(len(begin))
					for limit := at + 60<<10; streams == 1 || at < limit; at += 10 << 10 {
						if _, err := conn.Write(record(numbers(0x0c, i<<2, at), make([]byte, 10<<10))); err != nil {
							return
						}
					}
				}
			}()
			if kind, code := farewell(t, conn); kind != 0x1c || code != 3 {
				t.Errorf("frame %#x with code %#x", kind, code)
			}
		})
	}
}

// Harmless frames do no harm.
func TestLinkHarmless(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.add("a"), w.add("b")
	b.serveLinks(echo)
	conn := rawLink(t, a, b)
	head := section(":method", "POST", ":scheme", "https", ":authority", "b", ":path", "/")
	request := slices.Concat(head, frame(0, []byte("hello")))
	go conn.Write(slices.Concat(
		parameters(0x01, 30000, 0x04, 1<<20, 0x05, 1<<20, 0x06, 1<<20, 0x07, 1<<20, 0x08, 8, 0x09, 8, 0x4242, 5, 0x0571c59429cd0845, 20000),
		record(make([]byte, 100), numbers(typePing, 3), numbers(0x14, 5), numbers(0x16, 0), numbers(0x17, 0), numbers(0x10, 5)),
		record(numbers(0x04, 0, 0x10c, 0)), // stream 0 is broken off
		record(numbers(0x05, 0, 0x10c), numbers(0x04, 0, 0x10c, 0), numbers(0x11, 0, 1<<20)),
		record(append(numbers(0x0a, 8, uint64(len(request))), request...), numbers(0x0f, 8, uint64(len(request)), 0)), // and 4 opened
	))
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	var answer []byte
	pong := false
	for ended := false; !ended || !pong; {
		b, err := readRecord(conn)
		if err != nil {
			t.Fatal(err)
		}
		kind, n, _ := quicvarint.Parse(b)
		b = b[n:]
		var fields []uint64
		for range 2 {
			if v, n, err := quicvarint.Parse(b); err == nil {
				fields, b = append(fields, v), b[n:]
			}
		}
		switch {
		case kind == typePong && fields[0] == 3:
			pong = true
		case kind&^1 == 0x0c && fields[0] == 8 && fields[1] == uint64(len(answer)):
			answer = append(answer, b...)
			ended = kind&1 != 0
		case kind == 0x1c || kind == 0x1d:
			t.Fatalf("closed with code %#x", fields[0])
		}
	}
	if _, content, err := tunnel.ReadMessage(bytes.NewReader(answer)); err != nil || string(content) != "hello" {
		t.Errorf("%q, %v", content, err)
	}
}

// pair connects two ends over TCP.
func pair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	l := check[net.Listener](t)(net.Listen("tcp", loopback+":0"))
	defer l.Close()
	a := check[net.Conn](t)(net.Dial("tcp", l.Addr().String()))
	return a, check[net.Conn](t)(l.Accept())
}

// Streams of all sizes get through small windows whole, both ways, and leave
// nothing behind.
func TestQMuxStreams(t *testing.T) {
	t.Parallel()
	for _, w := range []tunnel.Windows{{Stream: 1 << 10, Connection: 3 << 10}, {Stream: 100 << 10, Connection: 200 << 10}, {}} {
		left, right := pair(t)
		serve := func(s io.ReadWriteCloser) {
			go func() {
				io.Copy(s, s)
				s.Close()
			}()
		}
		server := tunnel.NewQMux(right, false, w, 16, serve)
		client := tunnel.NewQMux(left, true, w, 0, nil)
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				for j := range 20 {
					sent := make([]byte, rand.N(40<<10))
					for k := range sent {
						sent[k] = byte(i + j*k)
					}
					s, err := client.Open()
					if err != nil {
						t.Error(err)
						return
					}
					go func() {
						for rest := sent; ; {
							n := min(len(rest), 1+rand.N(20<<10))
							if _, err := s.Write(rest[:n]); err != nil {
								t.Error(err)
							}
							if rest = rest[n:]; len(rest) == 0 {
								break
							}
						}
						s.Close()
					}()
					if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, sent) {
						t.Errorf("%d bytes of %d, %v", len(got), len(sent), err)
						return
					}
				}
			})
		}
		wg.Wait()
		for deadline := time.Now().Add(10 * time.Second); client.Streams()+server.Streams() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d and %d streams left", client.Streams(), server.Streams())
			}
		}
		client.CloseWithError(0x100, "done")
		<-server.Context().Done()
		var closed *quic.ApplicationError
		if err := context.Cause(server.Context()); !errors.As(err, &closed) || !closed.Remote || closed.ErrorCode != 0x100 {
			t.Error(err)
		}
	}
}

// What was written before a connection was closed arrives.
func TestQMuxFarewell(t *testing.T) {
	t.Parallel()
	left, right := pair(t)
	content := bytes.Repeat([]byte("x"), 200<<10)
	var server *tunnel.QMuxEnd
	begun := make(chan struct{})
	server = tunnel.NewQMux(right, false, tunnel.Windows{}, 16, func(s io.ReadWriteCloser) {
		go func() {
			<-begun
			io.Copy(io.Discard, s)
			s.Write(content)
			s.Close()
			server.CloseWithError(0x100, "")
		}()
	})
	close(begun)
	client := tunnel.NewQMux(left, true, tunnel.Windows{}, 0, nil)
	s := check[io.ReadWriteCloser](t)(client.Open())
	s.Close()
	<-client.Context().Done()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// FuzzQMuxFrames reads records.
func FuzzQMuxFrames(f *testing.F) {
	for _, b := range [][]byte{
		numbers(0x0e, 0, 0, 1, 7), append(numbers(0x08, 4), "x"...), numbers(0x04, 0, 1, 2), numbers(0x05, 0, 1), numbers(0x10, 9), numbers(0x11, 1, 2),
		numbers(0x12, 1), numbers(0x1c, 1, 2, 0), append(numbers(0x1d, 1, 3), "bye"...), numbers(typePing, 1), numbers(typePong, 1), make([]byte, 9),
		tunnel.LinkSettings()[2:],
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		kinds, err := tunnel.ReadFrames(b)
		var violation *quic.TransportError
		switch {
		case err != nil && (!errors.As(err, &violation) || violation.Remote):
			t.Error(err)
		case err == nil && (len(kinds) > len(b) || len(kinds) == 0 && len(b) > 0):
			t.Errorf("%d frames in %d bytes", len(kinds), len(b))
		}
		if p, err := tunnel.ReadLinkSettings(b); err == nil {
			if again, err := tunnel.ReadLinkSettings(p[quicvarint.Len(uint64(len(p))):]); err != nil || !bytes.Equal(p, again) {
				t.Errorf("%x, then %x, %v", p, again, err)
			}
		}
	})
}

// FuzzQMux serves a peer that says anything.
func FuzzQMux(f *testing.F) {
	settings := tunnel.LinkSettings()
	f.Add(slices.Concat(settings, record(append(numbers(0x0f, 0, 0, 5), "hello"...)), record(numbers(typePing, 1), numbers(0x05, 0, 1))))
	f.Add(slices.Concat(settings, record(append(numbers(0x0a, 4, 1), 'x'), numbers(0x04, 4, 0, 1), numbers(0x11, 0, 99), numbers(0x10, 99))))
	f.Add(slices.Concat(settings, record(append(numbers(0x0e, 2, 0, 1), 'x')), record(numbers(0x1d, 0, 0))))
	f.Fuzz(func(t *testing.T, b []byte) {
		here, there := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			tunnel.ServeQMux(there)
		}()
		go io.Copy(io.Discard, here)
		here.Write(b)
		here.Close()
		<-done
	})
}
