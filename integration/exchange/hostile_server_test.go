// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"kontor/config"
	"kontor/gateway/fault"
	"kontor/gateway/message"
	"kontor/integration/testnet"
	"kontor/pki/asic"
	"kontor/pki/xades"
)

const (
	proxy    = "server.clientproxy."
	proxySig = proxy + "signature_verification."
)

// notDelivered checks a refusal by gateway A of what the peer answered: nothing
// of the answer reaches the client, and no record of it is made.
func notDelivered(t *testing.T, res *testnet.Result, code, cause string) {
	t.Helper()
	if !regexp.MustCompile("^("+code+")$").MatchString(res.Code) || res.Err != nil {
		t.Errorf("code %q, want %q: %v %d %.300s", res.Code, code, res.Err, res.Status, res.Body)
		return
	}
	refused(t, res, res.Code, cause)
	if bytes.Contains(res.Body, []byte("forged")) {
		t.Errorf("the answer was delivered: %s", res.Body)
	}
}

// Peers that are not who they should be: they do not see a byte of the message.
func TestUnbelievablePeers(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	auth := n.Identity("auth").Cert
	for _, tt := range []struct {
		name  string
		setup func()
		cause string
	}{
		{"unknown certificate", func() { n.Peer.As("auth-unknown") }, "not registered"},
		{"certificate of another server", func() { n.Peer.As("auth-other") }, "not registered at security server"},
		{"expired certificate", func() { n.Peer.As("auth-expired") }, "expired"},
		{"revoked certificate", func() { n.Peer.As("auth-revoked") }, "revoked"},
		{"signing certificate", func() { n.Peer.As("sign") }, "not registered"},
		{"no OCSP response", func() { n.Peer.WithOCSP() }, "OCSP|(?i)response"},
		{"stale OCSP response", func() { n.Peer.WithOCSP(n.StaleOCSP(auth)) }, "not current"},
		{"OCSP response for another certificate", func() { n.Peer.WithOCSP(n.OCSPOf(n.Identity("sign").Cert)) }, "OCSP|response"},
		{"OCSP service that hangs up", func() { n.Peer.WithoutOCSP() }, "OCSP"},
		{"OCSP response that is none", func() { n.Peer.WithOCSP([]byte("good")) }, "OCSP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n.Peer.Reset()
			tt.setup()
			added := count(n)
			res := n.Call(testnet.Portal, "POST", testnet.Path(testnet.Bad), strings.NewReader("confidential"))
			notDelivered(t, res, proxy+"ssl_authentication_failed", tt.cause)
			if seen := n.Peer.Seen(); len(seen) > 0 {
				t.Errorf("the peer saw %q", seen)
			}
			if a, _ := added(); a != 1 {
				t.Errorf("%d records, want the request's", a)
			}
		})
	}
	t.Run("large request", func(t *testing.T) {
		n.Peer.Reset()
		n.Peer.As("auth-revoked")
		res := n.Call(testnet.Portal, "POST", testnet.Path(testnet.Bad), bytes.NewReader(make([]byte, 1<<20)))
		notDelivered(t, res, proxy+"ssl_authentication_failed", "revoked")
		if seen := n.Peer.Seen(); len(seen) > 0 {
			t.Errorf("the peer saw %d bytes", len(seen))
		}
	})
	t.Run("right again", func(t *testing.T) {
		n.Peer.Reset()
		res := n.Call(testnet.Portal, "POST", testnet.Path(testnet.Bad), strings.NewReader("hello"))
		if res.Err != nil || res.Status != http.StatusOK || string(res.Body) != testnet.Greeting {
			t.Errorf("%+v %s", res, res.Body)
		}
	})
	works(t, n)
}

// Answers that are not to be believed, or are none.
func TestUnbelievableAnswers(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Gateway: func(_ string, cfg *config.Gateway) { cfg.MessageLog.MaxBody = 1 << 20 }})
	forged := []byte("forged")
	sign, guest := n.Identity("sign"), n.Identity("sign-guest")
	answer := func(edit func(x *testnet.PeerExchange, m *testnet.Message)) func(*testnet.PeerExchange) {
		return func(x *testnet.PeerExchange) {
			m := x.Answer(200, forged)
			edit(x, m)
			x.Send(m)
		}
	}
	// head alters a line of the answer's head and signs it again.
	head := func(old, new string) func(*testnet.PeerExchange) {
		return answer(func(x *testnet.PeerExchange, m *testnet.Message) {
			re := regexp.MustCompile("(?m)^" + old + "\r$")
			if !re.Match(m.Head) {
				panic(fmt.Sprintf("%q is not in %q", old, m.Head))
			}
			if new == "" {
				m.Head = regexp.MustCompile("(?m)^"+old+"\r\n").ReplaceAll(m.Head, nil)
			} else {
				m.Head = re.ReplaceAll(m.Head, []byte(new+"\r"))
			}
			x.Sign(m)
		})
	}
	other := func(x *testnet.PeerExchange, old, new string) *message.Request {
		r, err := message.ReadRequest(bytes.Replace(x.Request.Raw, []byte(old), []byte(new), 1), "")
		if err != nil {
			panic(err)
		}
		return r
	}
	raw := func(status int, contentType, content string) func(*testnet.PeerExchange) {
		return func(x *testnet.PeerExchange) { x.SendRaw(status, contentType, []byte(content)) }
	}
	multipart := "multipart/mixed; charset=UTF-8; boundary=xtopx"
	tests := []struct {
		name  string
		serve func(x *testnet.PeerExchange)
		code  string
		cause string
	}{
		{"unsigned", answer(func(_ *testnet.PeerExchange, m *testnet.Message) { m.Signed = nil }), proxy + "(service_failed.)?missing_signature", "no signature"},
		{"signature over the head alone", answer(func(_ *testnet.PeerExchange, m *testnet.Message) {
			m.Signed = n.Evidence(sign, nil, m.Head, nil, false)
		}), proxySig + "(invalid_reference|hashchain_unused_inputs)", "not signed as it must be"},
		{"hash chain over the head alone", answer(func(_ *testnet.PeerExchange, m *testnet.Message) {
			m.Signed = n.Evidence(sign, nil, m.Head, nil, true)
		}), proxySig + "hashchain_unused_inputs", "not signed as it must be"},
		{"altered body", answer(func(_ *testnet.PeerExchange, m *testnet.Message) { m.Body = []byte("forged anew") }), proxySig + "invalid_hash_chain_ref", "not signed as it must be"},
		{"altered head", answer(func(_ *testnet.PeerExchange, m *testnet.Message) {
			m.Head = bytes.Replace(m.Head, []byte("200"), []byte("201"), 1)
		}), proxySig + "invalid_hash_chain_ref", "not signed as it must be"},
		{"body removed", answer(func(_ *testnet.PeerExchange, m *testnet.Message) { m.Body = nil }), proxySig + ".*", "not signed as it must be"},
		{"signature by another member", answer(func(_ *testnet.PeerExchange, m *testnet.Message) {
			m.Signed = n.Evidence(guest, nil, m.Head, m.Body, false)
		}), proxySig + "incorrect_certificate", "not signed as it must be"},
		{"revoked signing certificate", answer(func(_ *testnet.PeerExchange, m *testnet.Message) {
			m.Signed = n.Evidence(n.Identity("sign-revoked"), nil, m.Head, m.Body, false)
		}), proxySig + "cert_validation", "not signed as it must be"},
		{"stale OCSP response", answer(func(_ *testnet.PeerExchange, m *testnet.Message) {
			m.Signed = n.Evidence(sign, [][]byte{n.StaleOCSP(sign.Cert)}, m.Head, m.Body, false)
		}), proxySig + "incorrect_validation_info", "not signed as it must be"},
		{"hostile XML", answer(func(_ *testnet.PeerExchange, m *testnet.Message) {
			m.Signed.Signature = bytes.Replace(m.Signed.Signature, []byte("?>"), []byte("?><!DOCTYPE a>"), 1)
		}), proxySig + "malformed_signature", "not signed as it must be"},
		{"hostile hash chain", answer(func(_ *testnet.PeerExchange, m *testnet.Message) {
			m.Signed.Chain = []byte(strings.Repeat("<a>", 100000))
		}), proxySig + "malformed_hash_chain", "not signed as it must be"},
		{"the request's own signature", answer(func(x *testnet.PeerExchange, m *testnet.Message) { m.Signed = x.Signed }), proxySig + ".*", "not signed as it must be"},
		{"signed nonsense chain result", answer(func(_ *testnet.PeerExchange, m *testnet.Message) {
			result := []byte("<x/>")
			sum := sha512.Sum512(result)
			m.Signed = &asic.Evidence{ChainResult: result, Chain: m.Signed.Chain,
				Signature: n.SignReference(sign, nil, xades.Reference{URI: xades.URIChainResult, DigestMethod: xades.DigestSHA512, Digest: sum[:]})}
		}), proxySig + "malformed_hash_chain", "not signed as it must be"},

		{"wrong request hash", head("x-road-request-hash:.*", "x-road-request-hash:AAAA"), proxy + "inconsistent_response", "does not belong to the request"},
		{"no request hash", head("x-road-request-hash:.*", ""), proxy + "(inconsistent_response|service_failed.invalid_message)", "."},
		{"empty request hash", head("x-road-request-hash:.*", "x-road-request-hash:"), proxy + "(inconsistent_response|service_failed.invalid_message)", "."},
		{"wrong id", head("x-road-id:.*", "x-road-id:other"), proxy + "inconsistent_response", "does not belong to the request"},
		{"no id", head("x-road-id:.*", ""), proxy + "(inconsistent_response|service_failed.invalid_message)", "."},
		{"wrong request id", head("x-road-request-id:.*", "x-road-request-id:other"), proxy + "inconsistent_response", "does not belong to the request"},
		{"no request id", head("x-road-request-id:.*", ""), proxy + "(inconsistent_response|service_failed.invalid_message)", "."},
		{"wrong client", head("x-road-client:.*", "x-road-client:"+testnet.Stranger), proxy + "inconsistent_response", "does not belong to the request"},
		{"wrong service", head("x-road-service:.*", "x-road-service:"+testnet.Evil+"/good"), proxy + "inconsistent_response", "does not belong to the request"},
		{"service of another", head("x-road-service:.*", "x-road-service:"+testnet.Persons), proxy + "inconsistent_response", "does not belong to the request"},
		{"malformed service", head("x-road-service:.*", "x-road-service:x"), proxy + "(inconsistent_response|service_failed.invalid_message)", "."},
		{"two ids", head("x-road-id:(.*)", "x-road-id:$1\r\nx-road-id:other"), proxy + "(inconsistent_response|service_failed.invalid_message)", "."},
		{"answer to another request", func(x *testnet.PeerExchange) {
			r := other(x, "/bad", "/bad2")
			x.Send(x.AnswerAs(r, message.RequestHash(r.Raw, x.Body), 200, forged))
		}, proxy + "inconsistent_response", "does not belong to the request"},

		{"interim status", head("200", "100"), proxy + "service_failed.invalid_message", "head"},
		{"status 99", head("200", "99"), proxy + "service_failed.invalid_message", "head"},
		{"status of words", head("200", "fine"), proxy + "service_failed.invalid_message", "head"},
		{"forbidden header", head("(Content-Type:.*)", "$1\r\nContent-Length:1"), proxy + "service_failed.invalid_message", "head|header"},
		{"transfer encoding", head("(Content-Type:.*)", "$1\r\nTransfer-Encoding:chunked"), proxy + "service_failed.invalid_message", "head|header"},
		{"header without colon", head("(Content-Type:.*)", "$1\r\nplain"), proxy + "service_failed.invalid_message", "head|header"},
		{"NUL in a header", head("(Content-Type:.*)", "$1\r\nX-A:b\x00"), proxy + "service_failed.invalid_message", "head|header"},
		{"request head", answer(func(x *testnet.PeerExchange, m *testnet.Message) {
			m.Kind, m.Head = message.RESTRequest, x.Request.Raw
			x.Sign(m)
		}), proxy + "service_failed.*", "."},
		{"OCSP responses", answer(func(_ *testnet.PeerExchange, m *testnet.Message) { m.OCSP = [][]byte{{1}} }), proxy + "service_failed.*|" + proxy + ".*", "."},
		{"body beyond the limit", answer(func(x *testnet.PeerExchange, m *testnet.Message) {
			m.Body = make([]byte, 1<<20+1)
			x.Sign(m)
		}), proxy + "logging_failed", "large"},

		{"HTTP 404", raw(404, "text/plain", "forged"), proxy + "http_error", "404"},
		{"HTTP 503", raw(503, "text/html", "<html>forged</html>"), proxy + "http_error", "503"},
		{"HTTP 500 without fault", raw(500, "text/html", "<html>forged</html>"), proxy + "http_error", "500"},
		{"HTTP 201", raw(201, multipart, "forged"), proxy + "http_error", "201"},
		{"redirect", func(x *testnet.PeerExchange) {
			x.Writer().Header().Set("Location", "/elsewhere")
			x.SendRaw(307, "text/plain", nil)
		}, proxy + "http_error", "307"},
		{"HTML", raw(200, "text/html", "<html>forged</html>"), proxy + "service_failed.invalid_content_type", "content type"},
		{"no content type", raw(200, "", "forged"), proxy + "service_failed.invalid_content_type", "content type"},
		{"multipart without boundary", raw(200, "multipart/mixed", "forged"), proxy + "service_failed.invalid_content_type", "boundary"},
		{"empty multipart", raw(200, multipart, ""), proxy + "service_failed.mime_parsing_failed", "broke off"},
		{"JSON as multipart", raw(200, multipart, `{"forged":true}`), proxy + "service_failed.mime_parsing_failed", "malformed"},
		{"XML that is no fault", raw(200, "text/xml", "<forged/>"), proxy + "service_failed.invalid_message", "not a fault"},
		{"fault with DOCTYPE", raw(200, "text/xml", `<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"><SOAP-ENV:Body><SOAP-ENV:Fault><faultcode>forged</faultcode><faultstring>&x;</faultstring></SOAP-ENV:Fault></SOAP-ENV:Body></SOAP-ENV:Envelope>`),
			proxy + "service_failed.invalid_message", "not a fault"},
		{"deep fault", raw(200, "text/xml", strings.Repeat("<a>", 100000)), proxy + "service_failed.invalid_message", "not a fault"},
		{"fault of 2 MB", raw(200, "text/xml", "<a>"+strings.Repeat("x", 2<<20)), proxy + "service_failed.*", "."},
		{"wrong hash algorithm", func(x *testnet.PeerExchange) {
			contentType, content := x.Answer(200, forged).Encode()
			h := x.Writer().Header()
			h["Content-Type"], h["x-hash-algorithm"] = []string{contentType}, []string{"SHA-256"}
			_, _ = x.Writer().Write(content)
		}, proxy + "internal_error", "SHA-512"},
		{"connection closed", func(*testnet.PeerExchange) { panic(http.ErrAbortHandler) }, proxy + "io_error", "."},
		{"connection closed in the middle", func(x *testnet.PeerExchange) {
			contentType, content := x.Answer(200, forged).Encode()
			x.SendRaw(200, contentType, content[:len(content)/2])
			_ = http.NewResponseController(x.Writer()).Flush()
			panic(http.ErrAbortHandler)
		}, proxy + "io_error", "broke"},
		{"no HTTP", func(x *testnet.PeerExchange) { hijack(x, "SSH-2.0-forged\r\n") }, proxy + "io_error", "."},
		{"head of 1 MB", func(x *testnet.PeerExchange) {
			hijack(x, "HTTP/1.1 200 OK\r\n"+strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 1000)+"\r\n")
		}, proxy + "io_error", "."},
		{"interim answers for ever", func(x *testnet.PeerExchange) { hijack(x, strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1000)) }, proxy + "io_error", "."},
		{"endless body", func(x *testnet.PeerExchange) {
			contentType, content := x.Answer(200, forged).Encode()
			x.SendRaw(200, contentType, content[:bytes.Index(content, forged)])
			block := make([]byte, 64<<10)
			for {
				if _, err := x.Writer().Write(block); err != nil {
					return
				}
			}
		}, proxy + "logging_failed", "large"},
		{"endless head", func(x *testnet.PeerExchange) {
			x.SendRaw(200, multipart, []byte("--xtopx\r\ncontent-type: application/x-road-rest-response\r\n\r\n"))
			block := bytes.Repeat([]byte("x"), 64<<10)
			for {
				if _, err := x.Writer().Write(block); err != nil {
					return
				}
			}
		}, proxy + "service_failed.mime_parsing_failed", "large|malformed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n.Peer.Reset()
			n.Peer.Serve(tt.serve)
			added := count(n)
			res := n.Call(testnet.Portal, "POST", testnet.Path(testnet.Bad), strings.NewReader("hello"))
			notDelivered(t, res, tt.code, tt.cause)
			if a, b := added(); a != 1 || b != 0 {
				t.Errorf("%d and %d records, want the request's alone", a, b)
			}
		})
	}
	t.Run("a fault passes through", func(t *testing.T) {
		for _, status := range []int{200, 500} {
			n.Peer.Reset()
			n.Peer.Serve(func(x *testnet.PeerExchange) {
				x.SendRaw(status, "text/xml;charset=utf-8", fault.Remote("Server.ServerProxy.AccessDenied", "Ask <somebody>", "peer-detail").SOAP())
			})
			res := n.Call(testnet.Portal, "GET", testnet.Path(testnet.Bad), nil)
			if res.Status != 400 || res.Code != "Server.ServerProxy.AccessDenied" || res.Fault.Message != "Ask <somebody>" || res.Fault.Detail != "peer-detail" {
				t.Errorf("%+v %s", res, res.Body)
			}
		}
	})
	t.Run("a fault cannot write headers", func(t *testing.T) {
		n.Peer.Reset()
		n.Peer.Serve(func(x *testnet.PeerExchange) {
			x.SendRaw(200, "text/xml", []byte(`<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"><SOAP-ENV:Body><SOAP-ENV:Fault><faultcode>a&#13;&#10;Set-Cookie: forged</faultcode><faultstring>x</faultstring></SOAP-ENV:Fault></SOAP-ENV:Body></SOAP-ENV:Envelope>`))
		})
		res := n.Call(testnet.Portal, "GET", testnet.Path(testnet.Bad), nil)
		if res.Status < 400 || res.Header.Get("Set-Cookie") != "" {
			t.Errorf("%+v", res)
		}
	})
	t.Run("early answer", func(t *testing.T) {
		n.Peer.Reset()
		n.Peer.Handle(func(w http.ResponseWriter, _ *http.Request) { // without reading
			w.Header().Set("Content-Type", "text/xml")
			_, _ = io.WriteString(w, `<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"><SOAP-ENV:Body><SOAP-ENV:Fault><faultcode>Server.Early</faultcode><faultstring>enough</faultstring></SOAP-ENV:Fault></SOAP-ENV:Body></SOAP-ENV:Envelope>`)
		})
		res := n.Call(testnet.Portal, "POST", testnet.Path(testnet.Bad), bytes.NewReader(make([]byte, 900<<10)))
		if res.Code != "Server.Early" && res.Code != proxy+"io_error" {
			t.Errorf("%+v %s", res, res.Body)
		}
	})
	n.Peer.Reset()
	works(t, n)
}

func hijack(x *testnet.PeerExchange, text string) {
	c, _, err := http.NewResponseController(x.Writer()).Hijack()
	if err != nil {
		panic(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, text)
}

// A peer that does not answer costs its client patience, not the gateway.
func TestSilentPeer(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Gateway: func(_ string, cfg *config.Gateway) {
		cfg.Limits.Answer, cfg.Limits.Idle = 500*time.Millisecond, 500*time.Millisecond
	}})
	stop := make(chan struct{})
	defer close(stop)
	hang := func(ctx context.Context) {
		select {
		case <-stop:
		case <-ctx.Done():
		}
	}
	for name, h := range map[string]http.HandlerFunc{
		"never answers": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			hang(r.Context())
		},
		"hangs after the head": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "multipart/mixed; boundary=xtopx")
			_ = http.NewResponseController(w).Flush()
			hang(r.Context())
		},
		"does not read": func(_ http.ResponseWriter, r *http.Request) { hang(r.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			n.Peer.Reset()
			n.Peer.Handle(h)
			big := make([]byte, 12<<20)
			_, _ = rand.Read(big[:100])
			res := n.Call(testnet.Portal, "POST", testnet.Path(testnet.Bad), bytes.NewReader(big))
			notDelivered(t, res, proxy+"io_error", "in time|broke|answer")
		})
	}
	n.Peer.Reset()
	works(t, n)
}
