// SPDX-License-Identifier: Apache-2.0

package http1_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kontor/gateway/http1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is an HTTP server, by net/http or by hand.
type site struct {
	*url.URL
	conns atomic.Int64
}

// serve answers with a handler, over TLS if tls is set.
func serve(t testing.TB, secure bool, h http.HandlerFunc) *site {
	t.Helper()
	s := new(site)
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			s.conns.Add(1)
		}
	}
	if secure {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	s.URL = address(t, srv.URL)
	return s
}

func address(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// raw has a function answer each connection.
func raw(t testing.TB, answer func(c *net.TCPConn, br *bufio.Reader)) *site {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{URL: &url.URL{Scheme: "http", Host: l.Addr().String()}}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				answer(c.(*net.TCPConn), bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return s
}

// once reads a request and answers with words.
func once(answer string) func(*net.TCPConn, *bufio.Reader) {
	return func(c *net.TCPConn, br *bufio.Reader) {
		if swallow(br) == nil {
			io.WriteString(c, answer)
		}
	}
}

func swallow(br *bufio.Reader) error {
	r, err := http.ReadRequest(br)
	if err == nil {
		_, err = io.Copy(io.Discard, r.Body)
	}
	return err
}

func client(t testing.TB, change ...func(*http1.ClientConfig)) *http1.Client {
	cfg := http1.ClientConfig{TLS: &tls.Config{InsecureSkipVerify: true}}
	for _, c := range change {
		c(&cfg)
	}
	c := http1.NewClient(cfg)
	t.Cleanup(c.Close)
	return c
}

// do makes an exchange and reads the answer.
func do(ctx context.Context, c *http1.Client, s *site, r http1.Request) (*http.Response, string, error) {
	if r.Method == "" {
		r.Method = "GET"
	}
	if r.Target == "" {
		r.Target = "/"
	}
	resp, err := c.Do(ctx, s.URL, &r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

type onlyReader struct{ io.Reader }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What reaches a server of net/http is what was meant, in every form of body.
func TestRequests(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", secure), func(t *testing.T) {
			t.Parallel()
			s := serve(t, secure, func(w http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				delete(r.Header, "Content-Length")
				fmt.Fprintf(w, "%s %s %d%v %d %v", r.Method, r.RequestURI, r.ContentLength, r.TransferEncoding, len(b), r.Header)
			})
			c := client(t)
			large := strings.Repeat("0123456789", 100_000)
			file := filepath.Join(t.TempDir(), "body")
			if err := os.WriteFile(file, []byte(large), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			head := fields("X-Large", strings.Repeat("x", 40_000))
			for _, tt := range []struct {
				request http1.Request
				want    string
			}{
				{http1.Request{}, "GET / 0[] 0 map[]"},
				{http1.Request{Method: "HEAD"}, ""},
				{http1.Request{Method: "DELETE", Target: "/a%2Fb?c=d&e", Fields: fields("x-y", "1", "X-Y", "2")}, "DELETE /a%2Fb?c=d&e 0[] 0 map[X-Y:[1 2]]"},
				{http1.Request{Method: "POST", Body: strings.NewReader("hello"), Length: 5}, "POST / 5[] 5 map[]"},
				{http1.Request{Method: "POST", Body: onlyReader{strings.NewReader("hello")}, Length: 5}, "POST / 5[] 5 map[]"},
				{http1.Request{Method: "POST", Body: strings.NewReader(""), Length: 0}, "POST / 0[] 0 map[]"},
				{http1.Request{Method: "POST", Body: strings.NewReader("hello"), Length: -1}, "POST / -1[chunked] 5 map[]"},
				{http1.Request{Method: "POST", Body: onlyReader{strings.NewReader("hello")}, Length: -1}, "POST / -1[chunked] 5 map[]"},
				{http1.Request{Method: "POST", Body: onlyReader{strings.NewReader(large)}, Length: -1}, "POST / -1[chunked] 1000000 map[]"},
				{http1.Request{Method: "PUT", Body: strings.NewReader(large), Length: 1_000_000}, "PUT / 1000000[] 1000000 map[]"},
				{http1.Request{Method: "PUT", Body: strings.NewReader(large), Length: -1}, "PUT / -1[chunked] 1000000 map[]"},
				{http1.Request{Method: "PUT", Body: strings.NewReader(large[:60_000]), Length: 60_000}, "PUT / 60000[] 60000 map[]"},
				{http1.Request{Method: "PUT", Body: f, Length: 1_000_000}, "PUT / 1000000[] 1000000 map[]"},
				{http1.Request{Body: strings.NewReader("hello"), Length: 5, Fields: head}, "GET / 5[] 5 map[X-Large:[" + strings.Repeat("x", 40_000) + "]]"},
				{http1.Request{Body: strings.NewReader("hello"), Length: -1, Fields: head}, "GET / -1[chunked] 5 map[X-Large:[" + strings.Repeat("x", 40_000) + "]]"},
			} {
				resp, got, err := do(t.Context(), c, s, tt.request)
				if err != nil || got != tt.want || resp.StatusCode != 200 {
					t.Errorf("%.100s, %v; want %.100s", got, err, tt.want)
				}
			}
			if s.conns.Load() != 1 || c.Idle() != 1 {
				t.Errorf("%d connections, %d idle", s.conns.Load(), c.Idle())
			}
		})
	}
}

// Answers in every framing, and whether the connection survives them.
func TestResponses(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, tt := range []struct {
		name, method, answer string
		status               int
		body                 string
		kept                 bool
	}{
		{"length", "GET", ok + "Content-Length: 2\r\n\r\nhi", 200, "hi", true},
		{"nothing", "GET", ok + "Content-Length: 0\r\n\r\n", 200, "", true},
		{"chunks", "GET", ok + "Transfer-Encoding: chunked\r\n\r\n1;x=y\r\nh\r\n1\r\ni\r\n0\r\n\r\n", 200, "hi", true},
		{"trailer", "GET", ok + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\n", 200, "hi", true},
		{"closing", "GET", ok + "Content-Length: 2\r\nConnection: close\r\n\r\nhi", 200, "hi", false},
		{"until closed", "GET", ok + "\r\nhi", 200, "hi", false},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "hi", false},
		{"HTTP/1.0, kept", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi", 200, "hi", true},
		{"no content", "GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, "", true},
		{"not modified", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", 304, "", true},
		{"HEAD", "HEAD", ok + "Content-Length: 100\r\n\r\n", 200, "", true},
		{"HEAD in chunks", "HEAD", ok + "Transfer-Encoding: chunked\r\n\r\n", 200, "", true},
		{"no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", 200, "hi", true},
		{"redirect", "GET", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", 302, "", true},
		{"interim", "GET", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 20) + "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nhi", 200, "hi", true},
		{"continue", "GET", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nhi", 200, "hi", true},
		{"compressed", "GET", ok + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi", 200, "hi", true},
		{"bytes behind it", "GET", ok + "Content-Length: 2\r\n\r\nhi" + ok, 200, "hi", false},
		{"body of no content", "GET", "HTTP/1.1 204 No Content\r\n\r\nhi", 204, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			over := make(chan struct{})
			s := raw(t, func(c *net.TCPConn, br *bufio.Reader) {
				once(tt.answer)(c, br)
				if tt.kept {
					<-over
				}
			})
			defer close(over)
			c := client(t)
			resp, got, err := do(t.Context(), c, s, http1.Request{Method: tt.method})
			if err != nil || resp.StatusCode != tt.status || got != tt.body {
				t.Fatalf("%v %q, %v", resp, got, err)
			}
			if kept := c.Idle() == 1; kept != tt.kept {
				t.Errorf("kept: %v", kept)
			}
		})
	}
}

func TestHostileServers(t *testing.T) {
	t.Parallel()
	forever := func(before, again string) func(*net.TCPConn, *bufio.Reader) {
		return func(c *net.TCPConn, br *bufio.Reader) {
			if swallow(br) != nil {
				return
			}
			_, err := io.WriteString(c, before)
			for err == nil {
				_, err = io.WriteString(c, again)
			}
		}
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, tt := range []struct {
		name   string
		answer func(*net.TCPConn, *bufio.Reader)
		want   error
	}{
		{"closes", once(""), io.ErrUnexpectedEOF},
		{"breaks", func(c *net.TCPConn, br *bufio.Reader) { _ = swallow(br); c.SetLinger(0) }, nil},
		{"closes within the head", once(ok + "X: "), io.ErrUnexpectedEOF},
		{"garbage", once("hello\r\n\r\n"), http1.ErrResponse},
		{"TLS", once("\x15\x03\x01\x00\x02\x02\x46"), nil},
		{"HTTP/2", once("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), http1.ErrResponse},
		{"status 99", once("HTTP/1.1 099 Early\r\n\r\n"), http1.ErrResponse},
		{"status of words", once("HTTP/1.1 fine\r\n\r\n"), http1.ErrResponse},
		{"switches protocols", once("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), http1.ErrResponse},
		{"endless status line", forever("HTTP/1.1 200 ", strings.Repeat("x", 1000)), http1.ErrResponse},
		{"endless header", forever(ok, "X: y\r\n"), http1.ErrResponse},
		{"endless interim responses", forever("", "HTTP/1.1 102 Processing\r\n\r\n"), http1.ErrResponse},
		{"two lengths", once(ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), http1.ErrResponse},
		{"negative length", once(ok + "Content-Length: -1\r\n\r\n"), http1.ErrResponse},
		{"folded name", once(ok + " X: y\r\n\r\n"), http1.ErrResponse},
		{"unknown coding", once(ok + "Transfer-Encoding: gzip\r\n\r\n"), http1.ErrResponse},
		{"endless body", forever(ok+"\r\n", strings.Repeat("x", 4096)), http1.ErrResponse},
		{"endless chunk size", forever(ok+"Transfer-Encoding: chunked\r\n\r\n", "0"), nil},
		{"short body", once(ok + "Content-Length: 10\r\n\r\nx"), io.ErrUnexpectedEOF},
		{"short chunks", once(ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhe"), io.ErrUnexpectedEOF},
		{"bad chunk", once(ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := raw(t, tt.answer)
			c := client(t)
			_, _, err := do(t.Context(), c, s, http1.Request{Method: "POST", MaxResponse: 1 << 20})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Error(err)
			}
			if c.Idle() != 0 || s.conns.Load() != 1 {
				t.Errorf("%d connections kept of %d", c.Idle(), s.conns.Load())
			}
		})
	}
}

// A connection that was idle may be closed just as it is used.
func TestClosedWhileIdle(t *testing.T) {
	t.Parallel()
	answered := make(chan bool)
	for _, tt := range []struct {
		name    string
		request http1.Request
		seen    bool // the client can see the end before it uses the connection
		again   bool
	}{
		{"seen", http1.Request{Method: "POST", Body: strings.NewReader("x"), Length: 1}, true, true},
		{"GET", http1.Request{}, false, true},
		{"HEAD", http1.Request{Method: "HEAD"}, false, true},
		{"GET with a body", http1.Request{Body: strings.NewReader("x"), Length: 1}, false, false},
		{"POST", http1.Request{Method: "POST"}, false, false},
		{"PUT", http1.Request{Method: "PUT", Body: strings.NewReader("x"), Length: 1}, false, false},
		{"DELETE", http1.Request{Method: "DELETE"}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var requests atomic.Int64
			s := raw(t, func(c *net.TCPConn, br *bufio.Reader) {
				if swallow(br) != nil {
					return
				}
				requests.Add(1)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				if !tt.seen {
					_ = swallow(br)
					requests.Add(1)
				}
				c.Close()
				select {
				case answered <- true:
				case <-t.Context().Done():
				}
			})
			c := client(t)
			if _, _, err := do(t.Context(), c, s, http1.Request{}); err != nil {
				t.Fatal(err)
			}
			if tt.seen {
				<-answered
			}
			_, _, err := do(t.Context(), c, s, tt.request)
			if again := err == nil; again != tt.again || !tt.again && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Error(err)
			}
			want := int64(2)
			if tt.again && !tt.seen {
				want = 3 // one was swallowed
			}
			if requests.Load() < want || requests.Load() > want {
				t.Errorf("%d requests, want %d", requests.Load(), want)
			}
		})
	}
}

// A server that never answers gets a request at most twice.
func TestRepeatedOnce(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	s := raw(t, func(c *net.TCPConn, br *bufio.Reader) {
		for swallow(br) == nil {
			if requests.Add(1) > 1 {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	c := client(t)
	if _, _, err := do(t.Context(), c, s, http1.Request{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := do(t.Context(), c, s, http1.Request{}); !errors.Is(err, io.ErrUnexpectedEOF) || requests.Load() != 3 {
		t.Errorf("%v, %d requests", err, requests.Load())
	}
	// Half an answer is one: no second request.
	half := raw(t, func(c *net.TCPConn, br *bufio.Reader) {
		for answer := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"; swallow(br) == nil; answer = "H" {
			if io.WriteString(c, answer); answer == "H" {
				return
			}
		}
	})
	for i := range 2 {
		if _, _, err := do(t.Context(), c, half, http1.Request{}); (err == nil) != (i == 0) {
			t.Error(err)
		}
	}
	if half.conns.Load() != 1 {
		t.Errorf("%d connections", half.conns.Load())
	}
}

// A server may answer before it has the request; its answer arrives, and the
// body is no longer used once the answer is closed.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]func() http1.Request{
		"small": func() http1.Request {
			return http1.Request{Body: bytes.NewReader(make([]byte, 60<<10)), Length: 60 << 10}
		},
		"large":  func() http1.Request { return http1.Request{Body: io.LimitReader(zeros{}, 64<<20), Length: 64 << 20} },
		"memory": func() http1.Request { return http1.Request{Body: bytes.NewBuffer(make([]byte, 64<<20)), Length: -1} },
		"stream": func() http1.Request { return http1.Request{Body: onlyReader{zeros{}}, Length: -1} },
	} {
		for _, closes := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, closes %v", name, closes), func(t *testing.T) {
				t.Parallel()
				s := raw(t, func(c *net.TCPConn, br *bufio.Reader) {
					if _, err := http.ReadRequest(br); err != nil {
						return
					}
					io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nfull")
					if closes { // carefully: no reset before the answer is read
						c.CloseWrite()
						io.CopyN(io.Discard, br, 1<<20)
						return
					}
					<-t.Context().Done()
				})
				r := request()
				r.Method = "POST"
				source := &watched{Reader: r.Body}
				if r.Length >= 0 {
					r.Body = source
				}
				c := client(t)
				resp, got, err := do(t.Context(), c, s, r)
				if err != nil || got != "full" || resp.StatusCode != 413 {
					t.Errorf("%v %q, %v", resp, got, err)
				}
				source.over.Store(true)
				if source.late.Load() {
					t.Error("the body was read after the answer was closed")
				}
			})
		}
	}
}

// watched notices reads after its end.
type watched struct {
	io.Reader
	over, late atomic.Bool
}

func (w *watched) Read(p []byte) (int, error) {
	if w.over.Load() {
		w.late.Store(true)
	}
	return w.Reader.Read(p)
}

// Bodies stream both ways at once.
func TestFullDuplex(t *testing.T) {
	t.Parallel()
	s := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		ctl := http.NewResponseController(w)
		if err := errors.Join(ctl.EnableFullDuplex(), ctl.Flush()); err != nil {
			t.Error(err)
		}
		for buf := make([]byte, 1024); ; {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n])
			ctl.Flush()
			if err != nil {
				return
			}
		}
	})
	c := client(t)
	for range 2 {
		pr, pw := io.Pipe()
		resp, err := c.Do(t.Context(), s.URL, &http1.Request{Method: "POST", Target: "/", Body: pr, Length: -1})
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
	if s.conns.Load() != 1 {
		t.Errorf("%d connections", s.conns.Load())
	}
}

func TestLargeBodies(t *testing.T) {
	t.Parallel()
	const size = 100 << 20
	s := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})
	c := client(t)
	for _, length := range []int64{size, -1} {
		resp, err := c.Do(t.Context(), s.URL, &http1.Request{Method: "POST", Target: "/", Body: io.LimitReader(zeros{}, size), Length: length})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
			t.Errorf("%d bytes, %v", n, err)
		}
		resp.Body.Close()
	}
	if s.conns.Load() != 1 {
		t.Errorf("%d connections", s.conns.Load())
	}
}

// An error of the body is returned, and the server sees no regular end.
func TestBodyFails(t *testing.T) {
	t.Parallel()
	ends := make(chan error, 1)
	s := serve(t, false, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		ends <- err
	})
	reason := errors.New("the disk is gone")
	failing := func() io.Reader {
		return io.MultiReader(strings.NewReader(strings.Repeat("x", 40_000)), failure{reason})
	}
	for name, r := range map[string]http1.Request{
		"at hand":   {Body: failing(), Length: 50_000},
		"large":     {Body: failing(), Length: 5_000_000},
		"in chunks": {Body: failing(), Length: -1},
		"too short": {Body: strings.NewReader(strings.Repeat("x", 40_000)), Length: 50_000},
	} {
		r.Method = "POST"
		want := reason
		if name == "too short" {
			want = io.ErrUnexpectedEOF
		}
		c := client(t)
		if _, _, err := do(t.Context(), c, s, r); !errors.Is(err, want) || c.Idle() != 0 {
			t.Errorf("%s: %v, %d connections kept", name, err, c.Idle())
		}
		if err := <-ends; err == nil {
			t.Errorf("%s: the server saw a regular end", name)
		}
	}
}

type failure struct{ error }

func (f failure) Read([]byte) (int, error) { return 0, f.error }

// The end of the context ends whatever is under way, with its cause.
func TestCancel(t *testing.T) {
	t.Parallel()
	reason := errors.New("no patience")
	hang := func(t *testing.T, before string, after func()) func(*net.TCPConn, *bufio.Reader) {
		return func(c *net.TCPConn, br *bufio.Reader) {
			_, _ = http.ReadRequest(br) // a body is not read
			io.WriteString(c, before)
			after()
			<-t.Context().Done()
		}
	}
	for _, tt := range []struct {
		name, before string
		request      http1.Request
	}{
		{"while the answer is awaited", "", http1.Request{}},
		{"within the head", "HTTP/1.1 200 OK\r\nX: ", http1.Request{}},
		{"between interim responses", "HTTP/1.1 102 Processing\r\n\r\n", http1.Request{}},
		{"within the body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", http1.Request{}},
		{"while a body of known size is sent", "", http1.Request{Method: "POST", Body: io.LimitReader(zeros{}, 1<<30), Length: 1 << 30}},
		{"while a body in chunks is sent", "", http1.Request{Method: "POST", Body: onlyReader{zeros{}}, Length: -1}},
		{"while a body in memory is sent", "", http1.Request{Method: "POST", Body: bytes.NewBuffer(make([]byte, 64<<20)), Length: -1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			s := raw(t, hang(t, tt.before, func() { cancel(reason) }))
			c := client(t)
			if _, _, err := do(ctx, c, s, tt.request); !errors.Is(err, reason) || c.Idle() != 0 {
				t.Errorf("%v, %d connections kept", err, c.Idle())
			}
		})
	}
	t.Run("within the handshake", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		s := raw(t, hang(t, "", func() {}))
		s.Scheme = "https"
		c := client(t, func(cfg *http1.ClientConfig) {
			cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				defer cancel(reason)
				return new(net.Dialer).DialContext(ctx, network, address)
			}
		})
		if _, _, err := do(ctx, c, s, http1.Request{}); err != reason {
			t.Error(err)
		}
	})
	t.Run("while dialling", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(t.Context())
		c := client(t, func(cfg *http1.ClientConfig) {
			cfg.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				cancel(reason)
				<-ctx.Done()
				return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
			}
		})
		if _, _, err := do(ctx, c, &site{URL: address(t, "http://h")}, http1.Request{}); err != reason {
			t.Error(err)
		}
	})
}

// Faults of connecting keep their kind: callers tell them apart.
func TestConnectFaults(t *testing.T) {
	t.Parallel()
	c := client(t, func(cfg *http1.ClientConfig) { cfg.HandshakeTimeout = 50 * time.Millisecond })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	var op *net.OpError
	if _, _, err := do(t.Context(), c, &site{URL: address(t, "http://"+l.Addr().String())}, http1.Request{}); !errors.As(err, &op) || op.Op != "dial" {
		t.Errorf("refused: %v", err)
	}
	var dns *net.DNSError
	if _, _, err := do(t.Context(), c, &site{URL: address(t, "http://nobody.invalid")}, http1.Request{}); !errors.As(err, &dns) {
		t.Errorf("no such host: %v", err)
	}
	silent := raw(t, func(*net.TCPConn, *bufio.Reader) { <-t.Context().Done() })
	silent.Scheme = "https"
	if _, _, err := do(t.Context(), c, silent, http1.Request{}); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &op) && op.Op == "dial" {
		t.Errorf("no handshake: %v", err)
	}
	secure := serve(t, true, func(http.ResponseWriter, *http.Request) {})
	reason := errors.New("not registered")
	strict := client(t, func(cfg *http1.ClientConfig) {
		cfg.TLS.VerifyConnection = func(tls.ConnectionState) error { return reason }
	})
	if _, _, err := do(t.Context(), strict, secure, http1.Request{}); !errors.Is(err, reason) {
		t.Errorf("refused certificate: %v", err)
	}
	for _, u := range []*url.URL{{Scheme: "ftp", Host: "h"}, {Scheme: "http"}, {Scheme: "http", Host: ":80"}, {Scheme: "http", Host: "a b"}, {Scheme: "http", Host: "a/b"}} {
		if _, _, err := do(t.Context(), c, &site{URL: u}, http1.Request{}); err == nil {
			t.Errorf("%v accepted", u)
		}
	}
}

// Where a URL leads, and what the server is told.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ url, dialled, host string }{
		{"http://h", "h:80", "h"}, {"https://h", "h:443", "h"}, {"http://h:8080", "h:8080", "h:8080"}, {"http://[::1]:8", "[::1]:8", "[::1]:8"},
		{"http://[::1]", "[::1]:80", "[::1]"}, {"http://[fe80::1%25eth0]:8", "[fe80::1%eth0]:8", "[fe80::1]:8"},
		{"http://jõgeva.test:8", "xn--jgeva-dua.test:8", "xn--jgeva-dua.test:8"}, {"http://Host_1.test", "Host_1.test:80", "Host_1.test"},
	} {
		var dialled, told string
		c := client(t, func(cfg *http1.ClientConfig) {
			cfg.Dial = func(_ context.Context, _, address string) (net.Conn, error) {
				dialled = address
				ours, theirs := net.Pipe()
				go func() {
					defer theirs.Close()
					if strings.HasPrefix(tt.url, "https") {
						return
					}
					if r, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
						told = r.Host
						io.WriteString(theirs, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
					}
				}()
				return ours, nil
			}
		})
		_, _, err := do(t.Context(), c, &site{URL: address(t, tt.url)}, http1.Request{})
		if strings.HasPrefix(tt.url, "https") {
			told, err = tt.host, nil
		}
		if err != nil || dialled != tt.dialled || told != tt.host {
			t.Errorf("%s: %v, dialled %s, told %s", tt.url, err, dialled, told)
		}
	}
}

// The server's name goes with the handshake; protocols other than this are not
// offered.
func TestHandshake(t *testing.T) {
	t.Parallel()
	s := serve(t, true, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%q %q", r.TLS.ServerName, r.TLS.NegotiatedProtocol)
	})
	c := client(t, func(cfg *http1.ClientConfig) {
		cfg.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.Host)
		}
	})
	if _, got, err := do(t.Context(), c, &site{URL: address(t, "https://service.test")}, http1.Request{}); err != nil || got != `"service.test" ""` {
		t.Errorf("%s, %v", got, err)
	}
}

// A server's good-bye that TLS has read ahead of the answer's reader is noticed.
func TestFarewell(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		over, said := make(chan struct{}), make(chan struct{}, 2)
		s := serve(t, true, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
			if err := conn.(*tls.Conn).CloseWrite(); err != nil {
				t.Error(err)
			}
			said <- struct{}{}
			<-over // TCP stays
		})
		c := client(t, func(cfg *http1.ClientConfig) { cfg.TLS.MaxVersion = version })
		for range 2 {
			resp, err := c.Do(t.Context(), s.URL, &http1.Request{Method: "POST", Target: "/"})
			if err != nil {
				t.Fatal(err)
			}
			<-said
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "hi" {
				t.Errorf("%q, %v", b, err)
			}
			resp.Body.Close()
		}
		if s.conns.Load() != 2 {
			t.Errorf("%d connections", s.conns.Load())
		}
		close(over)
	}
}

// An answer that is not read to its end frees the connection if the end is near,
// and one that goes on does not.
func TestUnreadEnd(t *testing.T) {
	t.Parallel()
	s := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		n := int64(5)
		if r.URL.Path == "/long" {
			n = 1 << 20
		}
		io.CopyN(w, zeros{}, n)
	})
	c := client(t)
	ask := func(target string, read int) {
		t.Helper()
		resp, err := c.Do(t.Context(), s.URL, &http1.Request{Method: "GET", Target: target})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, read)); err != nil {
			t.Error(err)
		}
		if err := errors.Join(resp.Body.Close(), resp.Body.Close()); err != nil {
			t.Error(err)
		}
		if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
			t.Error("read after Close")
		}
	}
	for i := range 5 {
		ask("/", i)
	}
	if s.conns.Load() != 1 || c.Idle() != 1 {
		t.Errorf("%d connections, %d idle", s.conns.Load(), c.Idle())
	}
	ask("/long", 5)
	if c.Idle() != 0 {
		t.Error("a connection was kept in the middle of an answer")
	}
}

// Close ends a Read under way.
func TestCloseDuringRead(t *testing.T) {
	t.Parallel()
	s := raw(t, func(c *net.TCPConn, br *bufio.Reader) {
		once("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")(c, br)
		io.Copy(io.Discard, c)
	})
	resp, err := client(t).Do(t.Context(), s.URL, &http1.Request{Method: "GET", Target: "/"})
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

func TestPool(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{}, 8)
	s := raw(t, func(c *net.TCPConn, br *bufio.Reader) {
		for swallow(br) == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
		}
		ended <- struct{}{}
	})
	at := func(c *http1.Client, n int) {
		t.Helper()
		var all []io.Closer
		for range n {
			resp, err := c.Do(t.Context(), s.URL, &http1.Request{Method: "GET", Target: "/"})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, resp.Body)
		}
		for _, b := range all {
			b.Close()
		}
	}
	few := client(t, func(cfg *http1.ClientConfig) { cfg.MaxIdle = 2 })
	at(few, 3)
	if few.Idle() != 2 {
		t.Errorf("%d idle of at most 2", few.Idle())
	}
	<-ended
	few.Close()
	<-ended
	<-ended
	at(few, 1) // still answers, and keeps nothing
	<-ended
	if few.Idle() != 0 {
		t.Error("a connection was kept after Close")
	}
	brief := client(t, func(cfg *http1.ClientConfig) { cfg.IdleTimeout = 10 * time.Millisecond })
	at(brief, 2)
	<-ended
	<-ended
	if brief.Idle() != 0 {
		t.Errorf("%d idle for too long", brief.Idle())
	}
}

func TestConcurrentExchanges(t *testing.T) {
	t.Parallel()
	s := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err == nil {
			w.Write(b)
		}
	})
	c := client(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 40 {
				body := strings.Repeat(fmt.Sprint(i, j), 1000*j)
				r := http1.Request{Method: "POST", Body: strings.NewReader(body), Length: int64(len(body))}
				if j%2 == 0 {
					r.Length = -1
				}
				if _, got, err := do(t.Context(), c, s, r); err != nil || got != body {
					t.Errorf("%d bytes of %d, %v", len(got), len(body), err)
				}
			}
		})
	}
	wg.Wait()
	if n := s.conns.Load(); n > 8 {
		t.Errorf("%d connections", n)
	}
}

// An invalid request does not cost the connection.
func TestInvalidRequest(t *testing.T) {
	t.Parallel()
	s := serve(t, false, func(http.ResponseWriter, *http.Request) {})
	c := client(t)
	for _, name := range []string{"Fine", "Content-Length", "Fine"} {
		_, _, err := do(t.Context(), c, s, http1.Request{Fields: fields(name, "1")})
		if (err == nil) != (name == "Fine") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.conns.Load() != 1 {
		t.Errorf("%d connections", s.conns.Load())
	}
}

// FuzzResponse: whatever comes back, an exchange ends, and what it gives is what
// net/http reads.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\nmore", "HTTP/1.0 500 \r\n\r\n", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		var kept bool
		c := http1.NewClient(http1.ClientConfig{Dial: func(context.Context, string, string) (net.Conn, error) {
			return &script{Reader: bytes.NewReader(answer)}, nil
		}})
		resp, got, err := do(t.Context(), c, &site{URL: &url.URL{Scheme: "http", Host: "h"}}, http1.Request{})
		kept = c.Idle() == 1
		c.Close()
		br := bufio.NewReaderSize(bytes.NewReader(answer), 16<<10)
		want, wantErr := http.ReadResponse(br, &http.Request{Method: "GET"})
		for wantErr == nil && want.StatusCode >= 100 && want.StatusCode < 200 && want.StatusCode != 101 {
			want, wantErr = http.ReadResponse(br, &http.Request{Method: "GET"})
		}
		if wantErr != nil || want.StatusCode < 200 || want.ProtoMajor != 1 {
			if err == nil {
				t.Fatalf("%q accepted: %v", answer, resp)
			}
			return
		}
		b, bodyErr := io.ReadAll(want.Body)
		if (err == nil) != (bodyErr == nil) && len(answer) < 64<<10 {
			t.Fatalf("%q: %v; net/http: %v", answer, err, bodyErr)
		}
		if err != nil {
			return
		}
		if resp.StatusCode != want.StatusCode || got != string(b) || !slices.Equal(keys(resp.Header), keys(want.Header)) {
			t.Fatalf("%q: %v %q; net/http: %v %q", answer, resp, got, want, b)
		}
		if kept && (want.Close || br.Buffered() > 0) {
			t.Fatalf("%q: the connection was kept", answer)
		}
	})
}

func keys(h http.Header) []string {
	var names []string
	for n := range h {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// script is a connection that takes everything and gives what was written down.
type script struct {
	net.Conn
	io.Reader
}

func (s *script) Read(p []byte) (int, error)       { return s.Reader.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) Close() error                     { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
