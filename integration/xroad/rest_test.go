// SPDX-License-Identifier: Apache-2.0

package xroad_test

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"kontor/integration/testnet"
)

// TestLiveREST has the peculiarities of HTTP pass between both sides.
func TestLiveREST(t *testing.T) {
	classes(t)
	n := testnet.Start(t, testnet.Options{})
	becomeXRoad(t, n)
	provide(n)
	for _, w := range ways(n) {
		t.Run(w.name, func(t *testing.T) {
			for _, tt := range []struct {
				method, path, body string
				status             int
				answer             string
				header             [2]string
			}{
				{"HEAD", "", "", 200, "", [2]string{"Content-Type", "text/plain"}},
				{"PUT", "/a/b", "x", 201, "made", [2]string{"Location", "/a/b"}},
				{"PATCH", "", "{}", 200, "{}", [2]string{"Content-Type", "application/merge-patch+json"}},
				{"DELETE", "/a", "", 204, "", [2]string{"X-Custom", "a  b"}},
				{"GET", "?q=%26&q=%C3%B5&empty=&bare", "", 404, "not here", [2]string{"Content-Type", "text/html; charset=ISO-8859-1"}},
				{"GET", "/moved", "", 302, "", [2]string{"Location", "https://elsewhere.example/"}},
				{"GET", "/cached", "", 304, "", [2]string{"Etag", `"1"`}},
				{"POST", "/broken", "{}", 500, `{"error":true}`, [2]string{"Content-Type", "application/problem+json"}},
				{"POST", "/encoded", "gzipped", 200, "\x1f\x8b\x08\x00", [2]string{"Content-Encoding", "gzip"}},
			} {
				if tt.path == "/encoded" && w.provider == testnet.Population {
					continue // X-Road's server decodes what a service answers
				}
				n.Service.Reset()
				n.Service.Handle(func(wr http.ResponseWriter, r *http.Request) {
					wr.Header().Set(tt.header[0], tt.header[1])
					wr.WriteHeader(tt.status)
					if r.Method != http.MethodHead {
						_, _ = io.WriteString(wr, tt.answer) // there is none where the status forbids it
					}
				})
				res := w.call(t, tt.method, testnet.Path(w.provider+"/persons")+tt.path, "text/plain", strings.NewReader(tt.body),
					"X-Road-Client: "+w.client, "X-Custom: one, two", "Accept: x/y;q=0.5", "Authorization: Bearer abc", "Cookie: a=b", "Accept-Encoding: gzip")
				if res.Err != nil || res.Status != tt.status || string(res.Body) != tt.answer || res.Header.Get(tt.header[0]) != tt.header[1] || res.Code != "" {
					t.Errorf("%s %s: %d %v %q %v", tt.method, tt.path, res.Status, res.Header, res.Body, res.Err)
				}
				got := n.Service.Requests()
				if len(got) != 1 {
					t.Errorf("%s %s: %d requests reach the service: %+v", tt.method, tt.path, len(got), got)
					continue
				}
				r := got[0]
				if r.Method != tt.method || r.URI != "/persons"+tt.path || !bytes.Equal(r.Body, []byte(tt.body)) || r.Header.Get("X-Custom") != "one, two" ||
					r.Header.Get("Accept") != "x/y;q=0.5" || r.Header.Get("Authorization") != "Bearer abc" || r.Header.Get("Cookie") != "a=b" || r.Header.Get("X-Road-Client") != w.client {
					t.Errorf("%s %s reaches the service as %+v", tt.method, tt.path, r)
				}
				if r.Header.Get("X-Road-Id") == "" || !slices.Equal(res.Header["X-Road-Id"], r.Header["X-Road-Id"]) || res.Header.Get("X-Road-Request-Hash") == "" {
					t.Errorf("%s %s: headers of the answer %v, of the request %v", tt.method, tt.path, res.Header, r.Header)
				}
			}

			// A client may name the provider's server.
			echo(n)
			server := testnet.Server2
			if w.provider == testnet.Portal {
				server = testnet.Server1
			}
			for name, want := range map[string]string{server: "", testnet.Server3: "server.clientproxy.invalid_security_server"} {
				res := w.call(t, http.MethodGet, testnet.Path(w.provider+"/persons"), "", nil, "X-Road-Client: "+w.client, "X-Road-Security-Server: "+name)
				if res.Err != nil || res.Code != want {
					t.Errorf("%s: %d %q %s %v", name, res.Status, res.Code, res.Fault.Message, res.Err)
				}
			}
		})
	}
}
