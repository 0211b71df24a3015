// SPDX-License-Identifier: Apache-2.0

package http1_test

import (
	"bufio"
	"bytes"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"

	"kontor/gateway/http1"
)

// fields gives names and values by turns.
func fields(s ...string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := 0; i < len(s); i += 2 {
			if !yield(s[i], s[i+1]) {
				return
			}
		}
	}
}

// The bytes of a request on the wire: names keep their case, fields their order.
func TestHead(t *testing.T) {
	t.Parallel()
	body := strings.NewReader("hello")
	for _, tt := range []struct {
		request http1.Request
		want    string
	}{
		{http1.Request{Method: "GET", Target: "/a?b=%20", Host: "h:80", Fields: fields("x-B", "2", "X-a", " 1\t", "x-B", "", "Y", "ä\tb")},
			"GET /a?b=%20 HTTP/1.1\r\nHost: h:80\r\nx-B: 2\r\nX-a: 1\r\nx-B: \r\nY: ä\tb\r\n\r\n"},
		{http1.Request{Method: "DELETE", Target: "/", Host: "h"}, "DELETE / HTTP/1.1\r\nHost: h\r\n\r\n"},
		{http1.Request{Method: "POST", Target: "/", Host: "[::1]:8"}, "POST / HTTP/1.1\r\nHost: [::1]:8\r\nContent-Length: 0\r\n\r\n"},
		{http1.Request{Method: "PUT", Target: "/", Host: "h"}, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"},
		{http1.Request{Method: "PATCH", Target: "/", Host: "h"}, "PATCH / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"},
		{http1.Request{Method: "POST", Target: "/", Host: "h", Body: body, Length: 5}, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"},
		{http1.Request{Method: "GET", Target: "/", Host: "h", Body: body, Length: 0}, "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"},
		{http1.Request{Method: "POST", Target: "/", Host: "h", Body: body, Length: -1}, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"},
	} {
		if got, err := tt.request.Head(); err != nil || got != tt.want {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// Nothing of a request can become another request, or its framing.
func TestNoSmuggling(t *testing.T) {
	t.Parallel()
	for _, f := range [][2]string{
		{"A B", "x"}, {"", "x"}, {"A:", "x"}, {"Ä", "x"}, {" A", "x"}, {"A\r\nB", "x"}, {"A\n", "x"}, {"A\x00", "x"}, {"A\t", "x"},
		{"A", "x\r\nB: y"}, {"A", "x\ny"}, {"A", "x\ry"}, {"A", "x\x00"}, {"A", "\x7f"}, {"A", "x\r\n\r\nGET / HTTP/1.1\r\n\r\n"},
		{"Host", "x"}, {"hOST", "x"}, {"content-length", "1"}, {"Transfer-Encoding", "identity"}, {"Connection", "close"},
		{"Keep-Alive", "x"}, {"TE", "trailers"}, {"Trailer", "x"}, {"upgrade", "h2c"}, {"Expect", "100-continue"},
	} {
		if err := http1.CheckField(f[0], f[1]); err == nil {
			t.Errorf("%q accepted", f)
		}
		r := http1.Request{Method: "GET", Target: "/", Host: "h", Fields: fields("Fine", "x", f[0], f[1])}
		if got, err := r.Head(); err == nil {
			t.Errorf("%q", got)
		}
	}
	for _, r := range []http1.Request{
		{Method: "", Target: "/", Host: "h"}, {Method: "GET /x HTTP/1.1\r\n", Target: "/", Host: "h"}, {Method: "CONNECT", Target: "/", Host: "h"},
		{Method: "GET", Target: "", Host: "h"}, {Method: "GET", Target: "x", Host: "h"}, {Method: "GET", Target: "/ HTTP/1.1", Host: "h"},
		{Method: "GET", Target: "/a\r\nb", Host: "h"}, {Method: "GET", Target: "/a\tb", Host: "h"}, {Method: "GET", Target: "/ä", Host: "h"},
		{Method: "GET", Target: "/", Host: ""}, {Method: "GET", Target: "/", Host: "h\r\nA: b"}, {Method: "GET", Target: "/", Host: "h x"},
		{Method: "GET", Target: "/", Host: "u@h"}, {Method: "GET", Target: "/", Host: "h/x"}, {Method: "GET", Target: "/", Host: "ä"},
	} {
		if got, err := r.Head(); err == nil {
			t.Errorf("%q", got)
		}
	}
	if err := http1.CheckField("x-Y_z!", "a\tb \"ä\""); err != nil {
		t.Error(err)
	}
}

// FuzzHead: what goes out is read as what was meant, or refused.
func FuzzHead(f *testing.F) {
	f.Add("GET", "/a?b", "h:1", "Name", "value")
	f.Add("POST", "/", "[::1]", "Content_Length", "\tx ")
	f.Fuzz(func(t *testing.T, method, target, host, name, value string) {
		r := http1.Request{Method: method, Target: target, Host: host, Fields: fields(name, value)}
		head, err := r.Head()
		if err != nil {
			return
		}
		br := bufio.NewReader(strings.NewReader(head))
		got, err := http.ReadRequest(br)
		if err != nil {
			if strings.Contains(err.Error(), "parse") { // of the target, as a URL
				return
			}
			t.Fatalf("%q: %v", head, err)
		}
		want := strings.Trim(value, " \t")
		length := got.ContentLength != 0
		if got.Method != method || got.RequestURI != target || got.Host != host || length || len(got.TransferEncoding) > 0 || got.Close {
			t.Fatalf("%q became %+v", head, got)
		}
		for n, v := range got.Header {
			if n == "Content-Length" && len(v) == 1 && v[0] == "0" || n == "Cache-Control" && strings.EqualFold(name, "Pragma") {
				continue // ours; what net/http makes of a pragma
			}
			if !strings.EqualFold(n, name) || len(v) != 1 || v[0] != want {
				t.Fatalf("%q: header %v", head, got.Header)
			}
		}
		if br.Buffered() > 0 {
			t.Fatalf("%q is more than a request", head)
		}
	})
}

func TestChunks(t *testing.T) {
	t.Parallel()
	got, err := http1.Chunked("HEAD\r\n\r\n", [][]byte{[]byte("hel"), []byte("lo")})
	if err != nil || string(got) != "HEAD\r\n\r\n0005\r\nhello\r\n0\r\n\r\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzChunks(f *testing.F) {
	f.Add([]byte("hello"), 2, 1, 0)
	f.Add([]byte("x"), 1, 70000, 0)
	f.Add([]byte{}, 1, 1, 32<<10)
	f.Add([]byte("0123456789abcdef"), 3, 8192, 32760)
	f.Fuzz(func(t *testing.T, seed []byte, size, times, head int) {
		if size < 1 || times < 0 || times > 1<<16 || len(seed)*times > 1<<20 || head < 0 || head > 100<<10 {
			return
		}
		body := bytes.Repeat(seed, times)
		var pieces [][]byte
		for rest := body; len(rest) > 0; {
			k := min(size, len(rest))
			pieces = append(pieces, rest[:k])
			rest = rest[k:]
		}
		out, err := http1.Chunked("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nX: "+strings.Repeat("x", head)+"\r\n\r\n", pieces)
		if err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(bytes.NewReader(out))
		r, err := http.ReadRequest(br)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(body), err)
		}
		if _, err := br.ReadByte(); err != io.EOF {
			t.Fatal("bytes behind the end")
		}
	})
}
