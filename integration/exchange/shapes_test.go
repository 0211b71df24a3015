// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"kontor/integration/testnet"
)

// What was hashed is what is logged is what is forwarded, whatever a message
// looks like: the service's input, both containers and the client's output are
// compared byte by byte.
func TestShapes(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	big := make([]byte, 5<<20)
	_, _ = rand.Read(big)
	text := []byte("line\r\n--xtop\r\n\x00\xff\r\n--")
	reply := func(status int, body []byte, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			for _, h := range header {
				name, value, _ := strings.Cut(h, ": ")
				w.Header().Add(name, value)
			}
			if body != nil {
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			}
			w.WriteHeader(status)
			if r.Method != "HEAD" {
				_, _ = w.Write(body)
			}
		}
	}
	tests := []struct {
		name   string
		method string
		body   []byte // nil: none
		plain  bool   // of unknown length: chunked
		header []string
		serve  http.HandlerFunc
		status int
		answer []byte // nil: none
		noPart bool   // the answer has no body part
		check  func(t *testing.T, got testnet.Received, res *testnet.Result)
	}{
		{name: "GET", method: "GET", serve: reply(200, text), status: 200, answer: text},
		{name: "POST", method: "POST", body: text, serve: reply(201, text, "Location: /persons/1"), status: 201, answer: text,
			check: func(t *testing.T, got testnet.Received, res *testnet.Result) {
				if res.Header.Get("Location") != "/persons/1" || got.Length != int64(len(text)) {
					t.Errorf("%+v %+v", got, res)
				}
			}},
		{name: "HEAD", method: "HEAD", serve: reply(200, text), status: 200, noPart: true},
		{name: "204", method: "POST", body: text, serve: reply(204, nil), status: 204, noPart: true},
		{name: "304", method: "GET", serve: reply(304, nil, "Etag: \"1\""), status: 304, noPart: true},
		{name: "404", method: "GET", serve: reply(404, []byte("gone")), status: 404, answer: []byte("gone")},
		{name: "503 with Retry-After", method: "GET", serve: reply(503, []byte("later"), "Retry-After: 9"), status: 503, answer: []byte("later")},
		{name: "empty body", method: "POST", body: []byte{}, serve: reply(200, []byte{}), status: 200, answer: []byte{}},
		{name: "empty chunked body", method: "POST", body: []byte{}, plain: true, serve: reply(200, nil), status: 200, answer: []byte{}},
		{name: "DELETE with body", method: "DELETE", body: text, serve: reply(200, text), status: 200, answer: text},
		{name: "GET with body", method: "GET", body: text, serve: reply(200, text), status: 200, answer: text},
		{name: "OPTIONS", method: "OPTIONS", serve: reply(200, text, "Allow: GET"), status: 200, answer: text},
		{name: "TRACE", method: "TRACE", serve: reply(200, text), status: 200, answer: text},
		{name: "PATCH", method: "PATCH", body: text, serve: reply(200, text), status: 200, answer: text},
		{name: "chunked upload", method: "PUT", body: text, plain: true, serve: reply(200, text), status: 200, answer: text},
		{name: "chunked answer", method: "GET", serve: func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				_, _ = w.Write(text)
				_ = http.NewResponseController(w).Flush()
			}
		}, status: 200, answer: bytes.Repeat(text, 3)},
		{name: "64 KiB, the last in memory", method: "POST", body: big[:64<<10], serve: reply(200, big[:64<<10]), status: 200, answer: big[:64<<10]},
		{name: "64 KiB and a byte", method: "POST", body: big[:64<<10+1], serve: reply(200, big[:64<<10+1]), status: 200, answer: big[:64<<10+1]},
		{name: "100 KiB, streamed", method: "POST", body: big[:100<<10], serve: reply(200, big[:100<<10]), status: 200, answer: big[:100<<10]},
		{name: "5 MB both ways", method: "POST", body: big, serve: reply(200, big), status: 200, answer: big},
		{name: "5 MB chunked", method: "POST", body: big, plain: true, serve: reply(200, big[1:]), status: 200, answer: big[1:]},
		{name: "duplicate headers", method: "GET", header: []string{"X-Twice: b", "X-Twice: a", "x-lower: 1", "X-Empty:"}, serve: reply(200, text, "X-Twice: 2", "X-Twice: 1", "Set-Cookie: a=b", "Set-Cookie: c=d"), status: 200, answer: text,
			check: func(t *testing.T, got testnet.Received, res *testnet.Result) {
				if !slices.Equal(got.Header["X-Twice"], []string{"b", "a"}) || !slices.Equal(got.Header["X-Lower"], []string{"1"}) || !slices.Equal(got.Header["X-Empty"], []string{""}) {
					t.Errorf("the service got %v", got.Header)
				}
				if !slices.Equal(res.Header["X-Twice"], []string{"2", "1"}) || !slices.Equal(res.Header["Set-Cookie"], []string{"a=b", "c=d"}) {
					t.Errorf("the client got %v", res.Header)
				}
			}},
		{name: "headers of one hop", method: "POST", body: text,
			header: []string{"Te: trailers", "Keep-Alive: 5", "Proxy-Authorization: Basic eDp5", "User-Agent: tester", "X-Road-Request-Hash: forged", "X-Road-Request-Id: forged"},
			serve:  reply(200, text, "Server: backend", "Keep-Alive: 5", "Proxy-Authenticate: Basic", "X-Road-Id: forged", "X-Road-Client: forged", "X-Road-Request-Hash: forged"), status: 200, answer: text,
			check: func(t *testing.T, got testnet.Received, res *testnet.Result) {
				for _, h := range []string{"Te", "Keep-Alive", "Proxy-Authorization", "User-Agent", "X-Road-Request-Hash"} {
					if v := got.Header[h]; len(v) > 0 {
						t.Errorf("the service got %s: %v", h, v)
					}
				}
				for _, h := range []string{"Server", "Keep-Alive", "Proxy-Authenticate"} {
					if v := res.Header[h]; len(v) > 0 {
						t.Errorf("the client got %s: %v", h, v)
					}
				}
				if got.Header.Get("X-Road-Request-Id") == "forged" || res.Header.Get("X-Road-Client") != testnet.Portal || len(res.Header["X-Road-Id"]) != 1 {
					t.Errorf("%v %v", got.Header, res.Header)
				}
			}},
		{name: "Expect: 100-continue", method: "POST", body: big[:200<<10], header: []string{"Expect: 100-continue"}, serve: reply(200, text), status: 200, answer: text,
			check: func(t *testing.T, got testnet.Received, _ *testnet.Result) {
				if got.Header.Get("Expect") != "" {
					t.Error("Expect was forwarded")
				}
			}},
		{name: "X-Road-Id supplied", method: "GET", header: []string{"X-Road-Id: my id/1"}, serve: reply(200, text), status: 200, answer: text,
			check: func(t *testing.T, got testnet.Received, res *testnet.Result) {
				if got.Header.Get("X-Road-Id") != "my id/1" || res.ID != "my id/1" {
					t.Errorf("%v %v", got.Header, res.ID)
				}
			}},
		{name: "X-Road headers", method: "GET", header: []string{"X-Road-UserId: EE38001010001", "X-Road-Issue: 12", "X-Road-Represented-Party: COM/9", "X-Road-Security-Server: " + testnet.Server2},
			serve: reply(200, text), status: 200, answer: text,
			check: func(t *testing.T, got testnet.Received, res *testnet.Result) {
				for name, want := range map[string]string{"X-Road-Userid": "EE38001010001", "X-Road-Issue": "12", "X-Road-Represented-Party": "COM/9", "X-Road-Client": testnet.Portal} {
					if got.Header.Get(name) != want {
						t.Errorf("the service got %v", got.Header)
					}
				}
				if res.Header.Get("X-Road-Service") != testnet.Persons {
					t.Errorf("the client got %v", res.Header)
				}
			}},
		{name: "compressed", method: "GET", header: []string{"Accept-Encoding: gzip"}, serve: reply(200, []byte("\x1f\x8bnot really"), "Content-Encoding: gzip"), status: 200, answer: []byte("\x1f\x8bnot really")},
		{name: "redirect, not followed", method: "GET", serve: reply(302, []byte("there"), "Location: /elsewhere"), status: 302, answer: []byte("there"),
			check: func(t *testing.T, _ testnet.Received, res *testnet.Result) {
				if res.Header.Get("Location") != "/elsewhere" {
					t.Errorf("%v", res.Header)
				}
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n.Service.Reset()
			n.Service.Handle(tt.serve)
			added := count(n)
			var body io.Reader
			if tt.body != nil {
				body = bytes.NewReader(tt.body)
				if tt.plain {
					body = struct{ io.Reader }{body}
				}
			}
			r := n.NewRequest(testnet.Portal, tt.method, testnet.Path(testnet.Persons)+"/s", body, tt.header...)
			r.Header.Set("X-Test", tt.name)
			res := n.Do(&http.Transport{DisableCompression: true, DisableKeepAlives: true}, r)
			if res.Err != nil || res.Code != "" || res.Status != tt.status || !bytes.Equal(res.Body, tt.answer) {
				t.Fatalf("status %d, code %q, %d bytes, want %d with %d: %v %.300s", res.Status, res.Code, len(res.Body), tt.status, len(tt.answer), res.Err, res.Body)
			}
			if a, b := added(); a != 2 || b != 2 {
				t.Errorf("%d and %d records", a, b)
			}
			got := n.Service.Requests()
			if len(got) != 1 || got[0].Method != tt.method || !bytes.Equal(got[0].Body, tt.body) || got[0].URI != "/persons/s" {
				t.Fatalf("the service got %d requests: %.500v", len(got), got)
			}
			if got[0].Header.Get("X-Test") != tt.name {
				t.Errorf("the service got %v", got[0].Header)
			}
			if tt.check != nil {
				tt.check(t, got[0], res)
			}
			a, b := n.Proofs(n.A, testnet.Portal, res.ID), n.Proofs(n.B, testnet.Population, res.ID)
			if len(a) != 2 || len(b) != 2 {
				t.Fatalf("%d and %d containers", len(a), len(b))
			}
			for i, kind := range []string{"request", "response"} {
				if !bytes.Equal(a[i].Message, b[i].Message) || !bytes.Equal(a[i].Body, b[i].Body) || (a[i].Body == nil) != (b[i].Body == nil) {
					t.Errorf("the two logs differ about the %s", kind)
				}
			}
			if !bytes.Equal(a[0].Body, tt.body) || (a[0].Body == nil) != (len(tt.body) == 0) {
				t.Errorf("the log has a request body of %d bytes", len(a[0].Body))
			}
			if !bytes.Equal(a[1].Body, tt.answer) || (a[1].Body == nil) != tt.noPart {
				t.Errorf("the log has a response body of %d bytes (none: %v)", len(a[1].Body), a[1].Body == nil)
			}
			compareHead(t, string(a[0].Message), got[0].Header)
			compareHead(t, string(a[1].Message), res.Header)
			for _, g := range []*testnet.Gateway{n.A, n.B} {
				if left := g.SpoolFiles(); len(left) > 0 {
					t.Errorf("gateway %s left %v", g.Name, left)
				}
			}
		})
	}
	// Large bodies are files, once per message that has one.
	for _, g := range []*testnet.Gateway{n.A, n.B} {
		var sizes []int64
		err := filepath.WalkDir(g.Cfg.DataDir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if info, err := d.Info(); err == nil && info.Size() == int64(len(big)) {
				sizes = append(sizes, info.Size())
			}
			return nil
		})
		if err != nil || len(sizes) != 3 {
			t.Errorf("gateway %s has %d files of that size: %v", g.Name, len(sizes), err)
		}
	}
}

// compareHead checks that every field of a logged head arrived.
func compareHead(t *testing.T, head string, h http.Header) {
	t.Helper()
	want := http.Header{}
	for _, line := range strings.Split(strings.TrimSuffix(head, "\r\n"), "\r\n")[2:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			t.Errorf("logged line %q", line)
		}
		want.Add(name, value)
	}
	for name, values := range want {
		if !slices.Equal(values, h[name]) {
			t.Errorf("%s: logged %q, arrived %q", name, values, h[name])
		}
	}
	for name := range h {
		if name != "Content-Length" && name != "Transfer-Encoding" && name != "Date" && want[name] == nil {
			t.Errorf("%s arrived and is not logged: %q", name, h[name])
		}
	}
}
