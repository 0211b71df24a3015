// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"kontor/config"
	"kontor/gateway/message"
	"kontor/integration/testnet"
	"kontor/pki/asic"
	"kontor/pki/xades"
)

const (
	sslFailed = "server.serverproxy.service_failed.ssl_authentication_failed"
	badHead   = "server.serverproxy.service_failed.invalid_message"
	badMIME   = "server.serverproxy.service_failed.mime_parsing_failed"
	badType   = "server.serverproxy.service_failed.invalid_content_type"
	badSig    = "server.serverproxy.signature_verification."
	malformed = badSig + "malformed_signature"
	badRef    = badSig + "invalid_reference"
)

// rejected checks that gateway B refused a message of the peer, said why, kept
// nothing and forwarded nothing.
func rejected(t *testing.T, n *testnet.Network, reply *testnet.Reply, err error, code, cause string) {
	t.Helper()
	untouched(t, n)
	switch {
	case err != nil:
		t.Errorf("no readable reply: %v (%+v)", err, reply)
	case reply.Fault == nil:
		t.Errorf("no fault: status %d %.200s", reply.Status, reply.Raw)
	case !regexp.MustCompile("^(" + code + ")$").MatchString(reply.Fault.Code()):
		t.Errorf("code %q, want %q: %s", reply.Fault.Code(), code, reply.Fault.Text())
	default:
		publicText(t, reply.Fault.Text(), cause)
		if reply.Status != http.StatusOK {
			t.Errorf("status %d: peers take faults with 200 only", reply.Status)
		}
	}
	if reply != nil && bytes.Contains(reply.Raw, []byte("content-type: signature/bdoc")) {
		t.Error("the reply has a signature")
	}
}

// Requests that are well formed and yet not to be believed.
func TestUnbelievableRequests(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	p := n.Peer
	persons := testnet.Path(testnet.Persons) + "/x"
	body := []byte("the body")
	request := func(client string) *testnet.Message { return p.Request(client, "POST", persons, body) }
	sign, guest := n.Identity("sign"), n.Identity("sign-guest")
	resign := func(m *testnet.Message, as *testnet.Identity, ocsp ...[]byte) *testnet.Message {
		m.Signed = n.Evidence(as, ocsp, m.Head, m.Body, false)
		return m
	}
	tests := []struct {
		name     string
		identity string // default auth
		make     func() *testnet.Message
		code     string
		cause    string
	}{
		{"of another server", "auth-other", func() *testnet.Message {
			m := request(testnet.Evil)
			m.OCSP = [][]byte{n.OCSPOf(n.Identity("auth-other").Cert)}
			return m
		}, sslFailed, "not registered at security server"},
		{"client of another server", "", func() *testnet.Message {
			return resign(p.Request(testnet.Portal, "POST", persons, body), sign)
		}, sslFailed, "portal.* not registered"},
		{"unknown client", "", func() *testnet.Message {
			return resign(p.Request("TEST/COM/3003/nobody", "POST", persons, body), sign)
		}, sslFailed, "nobody"},
		{"expired certificate", "auth-expired", func() *testnet.Message {
			m := request(testnet.Evil)
			m.OCSP = [][]byte{n.OCSPOf(n.Identity("auth-expired").Cert)}
			return m
		}, sslFailed, "expired"},
		{"revoked certificate", "auth-revoked", func() *testnet.Message {
			m := request(testnet.Evil)
			m.OCSP = [][]byte{n.OCSPOf(n.Identity("auth-revoked").Cert)}
			return m
		}, sslFailed, "revoked"},
		{"no OCSP response", "", func() *testnet.Message {
			m := request(testnet.Evil)
			m.OCSP = nil
			return m
		}, sslFailed, "OCSP response is missing"},
		{"stale OCSP response", "", func() *testnet.Message {
			m := request(testnet.Evil)
			m.OCSP = [][]byte{n.StaleOCSP(n.Identity("auth").Cert)}
			return m
		}, sslFailed, "not current"},
		{"OCSP response for another certificate", "", func() *testnet.Message {
			m := request(testnet.Evil)
			m.OCSP = [][]byte{n.OCSPOf(sign.Cert)}
			return m
		}, sslFailed, "OCSP|response"},
		{"OCSP response of nobody", "", func() *testnet.Message {
			m := request(testnet.Evil)
			m.OCSP = [][]byte{[]byte("good, I swear")}
			return m
		}, sslFailed, "OCSP"},
		{"OCSP response with an altered signature", "", func() *testnet.Message {
			m := request(testnet.Evil)
			der := n.OCSPOf(n.Identity("auth").Cert)
			i := bytes.Index(der, n.AuthorityOCSP().Raw)
			der[i-12] ^= 1 // the signature stands before the certificates
			m.OCSP = [][]byte{der}
			return m
		}, sslFailed, "OCSP"},

		{"unsigned", "", func() *testnet.Message {
			m := request(testnet.Evil)
			m.Signed = nil
			return m
		}, "server.serverproxy.missing_signature", "no signature"},
		{"signature over the head alone", "", func() *testnet.Message {
			m := request(testnet.Evil)
			m.Signed = n.Evidence(sign, nil, m.Head, nil, false)
			return m
		}, badRef + "|" + badSig + "hashchain_unused_inputs", "not signed as it must be"},
		{"hash chain over the head alone", "", func() *testnet.Message {
			m := request(testnet.Evil)
			m.Signed = n.Evidence(sign, nil, m.Head, nil, true)
			return m
		}, badSig + "hashchain_unused_inputs", "not signed as it must be"},
		{"signature over the body alone", "", func() *testnet.Message {
			m := request(testnet.Evil)
			sum := sha512.Sum512(m.Body)
			m.Signed = &asic.Evidence{Signature: n.SignReference(sign, nil, xades.Reference{URI: "/attachment1", DigestMethod: xades.DigestSHA512, Digest: sum[:]})}
			return m
		}, badRef, "not signed as it must be"},
		{"altered body", "", func() *testnet.Message {
			m := request(testnet.Evil)
			m.Body = []byte("another body")
			return m
		}, badSig + "invalid_hash_chain_ref", "not signed as it must be"},
		{"body added", "", func() *testnet.Message {
			m := p.Request(testnet.Evil, "POST", persons, nil)
			m.Body = []byte("added")
			return m
		}, badRef, "not signed as it must be"},
		{"body removed", "", func() *testnet.Message {
			m := request(testnet.Evil)
			m.Body = nil
			return m
		}, badSig + ".*", "not signed as it must be"},
		{"altered head", "", func() *testnet.Message {
			m := request(testnet.Evil)
			m.Head = bytes.Replace(m.Head, []byte("/x\r\n"), []byte("/y\r\n"), 1)
			return m
		}, badSig + "invalid_hash_chain_ref", "not signed as it must be"},
		{"altered head, no body", "", func() *testnet.Message {
			m := p.Request(testnet.Evil, "GET", persons, nil)
			m.Head = bytes.Replace(m.Head, []byte("/x\r\n"), []byte("/y\r\n"), 1)
			return m
		}, badRef + "|" + badSig + "invalid_signature_value", "not signed as it must be"},
		{"replayed signature on another body", "", func() *testnet.Message {
			m := request(testnet.Evil)
			again := *m
			again.Body = []byte("something new")
			fresh := n.Evidence(sign, nil, m.Head, again.Body, false)
			again.Signed = &asic.Evidence{Signature: m.Signed.Signature, ChainResult: fresh.ChainResult, Chain: fresh.Chain}
			return &again
		}, badRef + "|" + badSig + "invalid_signature_value", "not signed as it must be"},
		{"signature by another member", "", func() *testnet.Message { return resign(request(testnet.Guest), sign) },
			badSig + "incorrect_certificate", "not signed as it must be"},
		{"signature by the member, certificate of another", "", func() *testnet.Message {
			m := request(testnet.Guest)
			m.Signed.Signature = bytes.Replace(m.Signed.Signature, b64(guest.Cert.Raw), b64(sign.Cert.Raw), 1)
			return m
		}, badSig + ".*", "not signed as it must be"},
		{"signature with an authentication certificate", "", func() *testnet.Message { return resign(request(testnet.Evil), n.Identity("auth")) },
			malformed + "|" + badSig + "incorrect_certificate", "not signed as it must be"},
		{"revoked signing certificate", "", func() *testnet.Message { return resign(request(testnet.Evil), n.Identity("sign-revoked")) },
			badSig + "cert_validation", "revoked"},
		{"expired signing certificate", "", func() *testnet.Message { return resign(request(testnet.Evil), n.Identity("sign-expired")) },
			badSig + "(invalid_cert_path|cannot_create_cert_path)", "expired"},
		{"stale OCSP response in the signature", "", func() *testnet.Message {
			return resign(request(testnet.Evil), sign, n.StaleOCSP(sign.Cert))
		}, badSig + "incorrect_validation_info", "not signed as it must be"},
		{"OCSP response for another certificate in the signature", "", func() *testnet.Message {
			return resign(request(testnet.Evil), sign, n.OCSPOf(guest.Cert))
		}, badSig + "(incorrect_validation_info|cert_validation)", "not signed as it must be"},

		// A claim is proven before it is authorised.
		{"unsigned and forbidden", "", func() *testnet.Message {
			m := request(testnet.Nosey)
			m.Signed = nil
			return m
		}, "server.serverproxy.missing_signature", "no signature"},
		{"altered and forbidden", "", func() *testnet.Message {
			m := request(testnet.Nosey)
			m.Body = []byte("another body")
			return m
		}, badSig + "invalid_hash_chain_ref", "not signed as it must be"},
		{"altered, for a service that does not exist", "", func() *testnet.Message {
			m := p.Request(testnet.Evil, "POST", testnet.Path(testnet.Population)+"/ghosts", body)
			m.Body = []byte("another body")
			return m
		}, badSig + "invalid_hash_chain_ref", "not signed as it must be"},
		{"signed and forbidden", "", func() *testnet.Message { return request(testnet.Nosey) },
			"server.serverproxy.access_denied", "not allowed"},

		{"for a client that is not here", "", func() *testnet.Message {
			return p.Request(testnet.Evil, "POST", testnet.Path(testnet.Portal)+"/x", body)
		}, "server.serverproxy.service_failed.unknown_member", "portal"},
		{"ambiguous path", "", func() *testnet.Message {
			return p.Request(testnet.Evil, "POST", testnet.Path(testnet.Persons)+"/a/%2e%2e/b", body)
		}, "server.serverproxy.access_denied", "dot segment"},
	}
	added := count(n)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n.Service.Reset()
			identity := "auth"
			if tt.identity != "" {
				identity = tt.identity
			}
			reply, err := p.Post(identity, tt.make())
			rejected(t, n, reply, err, tt.code, tt.cause)
		})
	}
	if _, b := added(); b != 0 {
		t.Errorf("%d records were added", b)
	}
	t.Run("believable", func(t *testing.T) {
		for _, client := range []string{testnet.Evil, testnet.Guest} {
			n.Service.Reset()
			m := request(client)
			reply, err := p.Post("auth", m)
			if err != nil || reply.Fault != nil || reply.Head == nil || string(reply.Body) != testnet.Greeting {
				t.Fatalf("%+v %v", reply, err)
			}
			req, err := message.ReadRequest(m.Head, "")
			if err != nil {
				t.Fatal(err)
			}
			body := (&message.Spool{}).New()
			_, _ = body.Write(m.Body)
			if err := reply.Head.Answers(req, message.RequestHash(m.Head, body)); err != nil {
				t.Error(err)
			}
			if got := n.Service.Requests(); len(got) != 1 || !bytes.Equal(got[0].Body, m.Body) {
				t.Errorf("the service got %v", got)
			}
			// The same signature again, as it was: X-Road knows no replay; both are logged.
			if reply, err := p.Post("auth", m); err != nil || reply.Fault != nil {
				t.Errorf("%+v %v", reply, err)
			}
		}
		if _, b := added(); b != 8 {
			t.Errorf("%d records", b)
		}
	})
	t.Run("certificates that no handshake survives", func(t *testing.T) {
		n.Service.Reset()
		for _, identity := range []string{"", "auth-unknown", "sign"} {
			if reply, err := p.Post(identity, request(testnet.Evil)); err == nil {
				t.Errorf("%q: %+v", identity, reply)
			}
		}
		untouched(t, n)
	})
	works(t, n)
}

// Messages that are not in the form of the protocol.
func TestMalformedRequests(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Gateway: func(name string, cfg *config.Gateway) { cfg.MessageLog.MaxBody = 1 << 20 }})
	p := n.Peer
	persons := testnet.Path(testnet.Persons)
	body := []byte("the body")
	good := p.Request(testnet.Evil, "POST", persons, body)
	contentType, content := good.Encode()
	boundary := contentType[strings.Index(contentType, "boundary=")+len("boundary="):]
	post := func(edit func(h http.Header), content []byte) (*testnet.Reply, error) {
		h := good.Header.Clone()
		h["Content-Type"] = []string{contentType}
		if edit != nil {
			edit(h)
		}
		return p.PostRaw("auth", http.MethodPost, h, bytes.NewReader(content))
	}
	// split is the message in its parts, each with the boundary before it.
	parts := strings.SplitAfter(string(content), "\r\n--"+boundary)
	delimiter := "\r\n--" + boundary
	for i := range parts {
		parts[i] = strings.TrimSuffix(parts[i], delimiter)
	}
	parts[0] = strings.TrimPrefix(parts[0], "--"+boundary)
	join := func(which ...any) []byte {
		var b strings.Builder
		for i, w := range which {
			if i == 0 {
				b.WriteString("--" + boundary)
			} else {
				b.WriteString(delimiter)
			}
			switch w := w.(type) {
			case int:
				b.WriteString(parts[w])
			case string:
				b.WriteString(w)
			}
		}
		return []byte(b.String())
	}
	part := func(kind, content string) string { return "\r\ncontent-type: " + kind + "\r\n\r\n" + content }
	const ocsp, head, rest, result, chain, signature, end = 0, 1, 2, 3, 4, 5, 6
	if len(parts) != 7 {
		t.Fatalf("%d parts", len(parts))
	}
	header := func(name, value string) func(http.Header) {
		return func(h http.Header) {
			delete(h, name)
			if value != "" {
				h[name] = []string{value}
			}
		}
	}
	added := count(n)
	for _, tt := range []struct {
		name    string
		edit    func(http.Header)
		content []byte
		code    string
		cause   string
	}{
		{"not multipart", header("Content-Type", "application/json"), content, badType, "content type"},
		{"plain XML", header("Content-Type", "text/xml"), content, badType, "content type"},
		{"no content type", header("Content-Type", ""), content, badType, "content type"},
		{"no boundary", header("Content-Type", "multipart/mixed"), content, badType, "boundary"},
		{"empty boundary", header("Content-Type", `multipart/mixed; boundary=""`), content, badType, "boundary"},
		{"boundary of 71 characters", header("Content-Type", "multipart/mixed; boundary="+strings.Repeat("x", 71)), content, badType, "boundary"},
		{"another boundary", header("Content-Type", "multipart/mixed; boundary=xtopz"), content, badMIME, "malformed"},
		{"no message type", header("x-road-message-type", ""), content, "server.serverproxy.invalid_request|" + badHead + "|server.serverproxy.*", "."},
		{"message type in other case", header("x-road-message-type", "rest"), content, "server.serverproxy.*", "."},
		{"no hash algorithm", header("x-hash-algorithm", ""), content, "server.serverproxy.internal_error", "SHA-512"},
		{"SHA-1", header("x-hash-algorithm", "SHA-1"), content, "server.serverproxy.internal_error", "SHA-512"},
		{"another request id", header("x-road-request-id", "other"), content, badHead, "request-id"},

		{"empty", nil, nil, badMIME, "broke off"},
		{"preamble", nil, append([]byte("hello\r\n"), content...), badMIME, "malformed"},
		{"only the end", nil, []byte("--" + boundary + "--\r\n"), "server.serverproxy.missing_rest|" + badMIME, "."},
		{"no head", nil, join(ocsp, rest, result, chain, signature, end), "server.serverproxy.*", "."},
		{"two heads", nil, join(ocsp, head, head, rest, result, chain, signature, end), badHead, "malformed"},
		{"two bodies", nil, join(ocsp, head, rest, rest, result, chain, signature, end), badHead, "malformed"},
		{"body before head", nil, join(ocsp, rest, head, result, chain, signature, end), badHead, "malformed"},
		{"signature before body", nil, join(ocsp, head, signature, rest, end), badHead, "malformed"},
		{"OCSP response after the head", nil, join(head, ocsp, rest, result, chain, signature, end), "server.serverproxy.*", "."},
		{"chain without result", nil, join(ocsp, head, rest, chain, signature, end), "server.serverproxy.*", "."},
		{"result without chain", nil, join(ocsp, head, rest, result, signature, end), "server.serverproxy.*", "."},
		{"chain before result", nil, join(ocsp, head, rest, chain, result, signature, end), "server.serverproxy.*", "."},
		{"two signatures", nil, join(ocsp, head, rest, result, chain, signature, signature, end), badHead, "malformed"},
		{"body after the signature", nil, join(ocsp, head, result, chain, signature, rest, end), badHead, "malformed"},
		{"no end", nil, join(ocsp, head, rest, result, chain, signature), badMIME, "broke off"},
		{"junk after the end", nil, append(bytes.Clone(content), "junk"...), badHead, "malformed"},
		{"a second message after the end", nil, append(bytes.Clone(content), content...), badHead, "malformed"},
		{"fault in place of the signature", nil, join(ocsp, head, rest, part("text/xml", "<a/>"), end), "server.serverproxy.*", "."},
		{"response head", nil, join(ocsp, part("application/x-road-rest-response", "200\r\nOK\r\n"), signature, end), "server.serverproxy.*", "."},
		{"unknown part", nil, join(ocsp, head, part("image/png", "x"), signature, end), badType, "malformed"},
		{"part without type", nil, join(ocsp, head, "\r\n\r\nx", signature, end), badType, "malformed"},
		{"part header without end", nil, join(ocsp, head, "\r\ncontent-type: application/x-road-rest-body", end), badMIME, "malformed"},
		{"part header of 100 KB", nil, join(ocsp, head, "\r\ncontent-type: "+strings.Repeat("x", 100<<10)+"\r\n\r\n", end), "server.serverproxy.*", "malformed"},
		{"1000 part headers", nil, join(ocsp, head, strings.Repeat("\r\nx: y", 1000)+part("application/x-road-rest-body", "x"), end), badMIME, "malformed"},
		{"100 OCSP responses", nil, []byte(strings.Repeat("--"+boundary+parts[ocsp]+"\r\n", 100) + string(join(head, rest, result, chain, signature, end))), badMIME, "malformed"},
		{"OCSP response of 2 MB", nil, join(part("application/ocsp-response", strings.Repeat("x", 2<<20)), head, rest, result, chain, signature, end), badMIME, "malformed"},
		{"head of 100 KB", nil, join(ocsp, part("application/x-road-rest-request", strings.Repeat("x", 100<<10)), signature, end), badMIME, "malformed"},
		{"signature of 2 MB", nil, join(ocsp, head, rest, result, chain, part("signature/bdoc-1.0/ts", strings.Repeat("x", 2<<20)), end), badMIME, "malformed"},
		{"body beyond the limit", nil, join(ocsp, head, part("application/x-road-rest-body", strings.Repeat("x", 1<<20+1)), result, chain, signature, end),
			"server.serverproxy.logging_failed", "large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n.Service.Reset()
			reply, err := post(tt.edit, tt.content)
			rejected(t, n, reply, err, tt.code, tt.cause)
		})
	}
	t.Run("cut off anywhere", func(t *testing.T) {
		n.Service.Reset()
		for i := 1; i < len(content)-4; i += len(content) / 23 {
			reply, err := post(nil, content[:i])
			rejected(t, n, reply, err, "server.serverproxy.*", ".")
		}
	})
	t.Run("other methods", func(t *testing.T) {
		for _, method := range []string{"GET", "PUT", "HEAD"} {
			reply, err := p.PostRaw("auth", method, http.Header{}, nil)
			if method == "HEAD" {
				continue // its answer has no body to read
			}
			rejected(t, n, reply, err, "server.serverproxy.invalid_http_method", "POST")
		}
	})
	t.Run("connection broken off", func(t *testing.T) {
		for i := 100; i < len(content); i += len(content) / 7 {
			c, err := p.Dial(context.Background(), "auth")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nX-Hash-Algorithm: SHA-512\r\nX-Road-Message-Type: REST\r\nContent-Length: %d\r\n\r\n", contentType, len(content))
			_, _ = c.Write(content[:i])
			c.NetConn().Close()
		}
		untouched(t, n)
	})

	// Heads that are signed, and yet nothing that may be acted upon.
	for _, tt := range []struct{ name, head string }{
		{"empty", ""},
		{"one line", "GET\r\n"},
		{"no client", "GET\r\nT\r\nx-road-id:1\r\nx-road-request-id:1\r\n"},
		{"no id", "GET\r\nT\r\nX-Road-Client:C\r\nx-road-request-id:1\r\n"},
		{"empty id", "GET\r\nT\r\nX-Road-Client:C\r\nx-road-id:\r\nx-road-request-id:1\r\n"},
		{"forbidden header", "GET\r\nT\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\nHost:evil\r\n"},
		{"content length", "GET\r\nT\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\nContent-Length:5\r\n"},
		{"transfer encoding", "GET\r\nT\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\nTransfer-Encoding:chunked\r\n"},
		{"no colon", "GET\r\nT\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\nplain\r\n"},
		{"blank line", "GET\r\nT\r\nX-Road-Client:C\r\n\r\nx-road-id:1\r\nx-road-request-id:1\r\n"},
		{"bare LF", "GET\nT\nX-Road-Client:C\nx-road-id:1\nx-road-request-id:1\n"},
		{"CR in a value", "GET\r\nT\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\nX-A:b\rX-B:c\r\n"},
		{"NUL in a value", "GET\r\nT\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\nX-A:b\x00c\r\n"},
		{"blank in a name", "GET\r\nT\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\nX A:b\r\n"},
		{"no last line end", "GET\r\nT\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1"},
		{"lower-case method", "get\r\nT\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\n"},
		{"CONNECT", "CONNECT\r\nT\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\n"},
		{"other protocol", "GET\r\n/r2/TEST/GOV/2002/population/persons\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\n"},
		{"absolute target", "GET\r\nhttp://evil/r1/TEST/GOV/2002/population/persons\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\n"},
		{"blank in the target", "GET\r\nT/a b\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\n"},
		{"fragment in the target", "GET\r\nT/a#b\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\n"},
		{"member as service owner", "GET\r\n/r1/TEST/GOV/2002/persons\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\n"},
		{"malformed client", "GET\r\nT\r\nX-Road-Client:TEST/COM\r\nx-road-id:1\r\nx-road-request-id:1\r\n"},
		{"201 headers", "GET\r\nT\r\nX-Road-Client:C\r\nx-road-id:1\r\nx-road-request-id:1\r\n" + strings.Repeat("A:b\r\n", 201)},
	} {
		t.Run("head: "+tt.name, func(t *testing.T) {
			n.Service.Reset()
			m := p.Request(testnet.Evil, "GET", persons, nil)
			var text string
			if strings.HasPrefix(tt.head, "GET\r\nT") || strings.HasPrefix(tt.head, "get\r\nT") || strings.HasPrefix(tt.head, "GET\nT") {
				text = tt.head[:3] + strings.Replace(tt.head[3:], "T", persons, 1)
			} else if strings.HasPrefix(tt.head, "CONNECT") {
				text = "CONNECT" + strings.Replace(tt.head[7:], "T", persons, 1)
			} else {
				text = tt.head
			}
			m.Head = []byte(strings.Replace(text, "X-Road-Client:C", "X-Road-Client:"+testnet.Evil, 1))
			m.Header["x-road-request-id"] = []string{"1"}
			m.Signed = n.Evidence(n.Identity("sign"), nil, m.Head, nil, false)
			reply, err := p.Post("auth", m)
			rejected(t, n, reply, err, badHead, "(?i)head|header|target|identifier|method|client")
		})
	}
	if _, b := added(); b != 0 {
		t.Errorf("%d records were added", b)
	}
	works(t, n)
}

// Hostile XML where a signature or a hash chain should be.
func TestHostileXML(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	p := n.Peer
	persons := testnet.Path(testnet.Persons)
	const bomb = `<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>`
	after := func(doc []byte, insert string) []byte { // behind the XML declaration
		i := bytes.Index(doc, []byte("?>")) + 2
		return append(append(bytes.Clone(doc[:i]), insert...), doc[i:]...)
	}
	tricks := []struct {
		name string
		edit func(doc []byte) []byte
	}{
		{"empty", func([]byte) []byte { return []byte{} }},
		{"no XML", func([]byte) []byte { return []byte("{}") }},
		{"cut off", func(d []byte) []byte { return d[:len(d)/2] }},
		{"DOCTYPE", func(d []byte) []byte { return after(d, "<!DOCTYPE a>") }},
		{"external entity", func(d []byte) []byte { return after(d, `<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>`) }},
		{"entity bomb", func(d []byte) []byte { return bytes.Replace(after(d, bomb), []byte("</"), []byte("&c;</"), 1) }},
		{"deep nesting", func(d []byte) []byte {
			i := bytes.LastIndex(d, []byte("</"))
			return []byte(string(d[:i]) + strings.Repeat("<a>", 20000) + strings.Repeat("</a>", 20000) + string(d[i:]))
		}},
		{"only nesting", func([]byte) []byte { return []byte(strings.Repeat("<a>", 100000)) }},
		{"many attributes", func(d []byte) []byte {
			i := bytes.LastIndex(d, []byte("</"))
			var b strings.Builder
			for k := range 5000 {
				fmt.Fprintf(&b, ` a%d="1"`, k)
			}
			return []byte(string(d[:i]) + "<a" + b.String() + "/>" + string(d[i:]))
		}},
		{"UTF-16", func(d []byte) []byte {
			out := []byte{0xfe, 0xff}
			for _, c := range d {
				out = append(out, 0, c)
			}
			return out
		}},
		{"NUL", func(d []byte) []byte { return append(bytes.Clone(d), 0) }},
		{"text behind", func(d []byte) []byte { return append(bytes.Clone(d), "junk"...) }},
		{"second root", func(d []byte) []byte { return append(bytes.Clone(d), d[bytes.Index(d, []byte("?>"))+2:]...) }},
		{"wrapped", func(d []byte) []byte {
			i := bytes.Index(d, []byte("?>")) + 2
			return []byte(string(d[:i]) + "<wrap>" + string(d[i:]) + "</wrap>")
		}},
	}
	added := count(n)
	for _, tt := range tricks {
		for _, where := range []string{"signature", "hash chain", "hash chain result"} {
			t.Run(tt.name+" in "+where, func(t *testing.T) {
				n.Service.Reset()
				m := p.Request(testnet.Evil, "POST", persons, []byte("x"))
				switch e := m.Signed; where {
				case "signature":
					e.Signature = tt.edit(e.Signature)
				case "hash chain":
					e.Chain = tt.edit(e.Chain)
				case "hash chain result":
					// Signed as it is: that somebody signs nonsense does not make it sense.
					e.ChainResult = tt.edit(e.ChainResult)
					sum := sha512.Sum512(e.ChainResult)
					e.Signature = n.SignReference(n.Identity("sign"), nil, xades.Reference{URI: xades.URIChainResult, DigestMethod: xades.DigestSHA512, Digest: sum[:]})
				}
				reply, err := p.Post("auth", m)
				rejected(t, n, reply, err, badSig+".*|"+badMIME+"|server.serverproxy.missing_signature", ".")
			})
		}
	}
	// Signature wrapping: what is verified must be what counts.
	other := n.Evidence(n.Identity("sign"), nil, []byte("something harmless"), nil, false)
	element := func(doc []byte) string { // ds:Signature
		s := string(doc)
		return s[strings.Index(s, "<ds:Signature "):][:strings.LastIndex(s, "</ds:Signature>")+len("</ds:Signature>")-strings.Index(s, "<ds:Signature ")]
	}
	for _, tt := range []struct {
		name string
		edit func(mine, good string) string
	}{
		{"two signatures, the good one first", func(mine, good string) string {
			return strings.Replace(mine, "<ds:Signature ", good+"<ds:Signature ", 1)
		}},
		{"two signatures, the good one last", func(mine, good string) string {
			return strings.Replace(mine, "</ds:Signature>", "</ds:Signature>"+good, 1)
		}},
		{"good signature inside an object", func(mine, good string) string {
			return strings.Replace(mine, "</ds:Object>", "</ds:Object><ds:Object>"+good+"</ds:Object>", 1)
		}},
		{"good signed info, own references", func(mine, good string) string {
			info := good[strings.Index(good, "<ds:SignedInfo>") : strings.Index(good, "</ds:SignedInfo>")+len("</ds:SignedInfo>")]
			return strings.Replace(mine, "<ds:SignedInfo>", info+"<ds:SignedInfo>", 1)
		}},
		{"good signature value and properties", func(mine, good string) string {
			from, to := strings.Index(mine, "<ds:SignatureValue"), strings.Index(mine, "</ds:Signature>")
			return mine[:from] + good[strings.Index(good, "<ds:SignatureValue"):strings.Index(good, "</ds:Signature>")] + mine[to:]
		}},
		{"second signed properties", func(mine, good string) string {
			return strings.Replace(mine, "<xades:SignedProperties", "<xades:SignedProperties Id=\"signed-properties\"/><xades:SignedProperties", 1)
		}},
	} {
		t.Run("wrapping: "+tt.name, func(t *testing.T) {
			n.Service.Reset()
			m := p.Request(testnet.Evil, "GET", persons, nil)
			mine := string(m.Signed.Signature)
			// Mine is altered so that it alone does not verify.
			mine = strings.Replace(mine, "<ds:SignatureValue Id=\"signature-value\">", "<ds:SignatureValue Id=\"signature-value\">AAAA", 1)
			edited := tt.edit(mine, element(other.Signature))
			if edited == mine {
				t.Fatal("the trick does nothing")
			}
			m.Signed.Signature = []byte(edited)
			reply, err := p.Post("auth", m)
			rejected(t, n, reply, err, badSig+".*", "not signed as it must be")
		})
	}
	// Hash chains that lead nowhere.
	for _, tt := range []struct{ name, old, new string }{
		{"step refers to itself", `<ns2:DataRef URI="/message.xml">`, `<ns2:StepRef URI="#STEP0"/><ns2:DataRef URI="/message.xml">`},
		{"step missing", `id="STEP0"`, `id="STEP9"`},
		{"step twice", `</ns2:HashChain>`, `<ns2:HashStep id="STEP0"></ns2:HashStep></ns2:HashChain>`},
		{"reference to a file", `URI="/attachment1"`, `URI="file:///etc/passwd"`},
		{"reference to another part", `URI="/attachment1"`, `URI="/attachment2"`},
		{"one part twice", `URI="/attachment1"`, `URI="/message.xml"`},
		{"another digest method", "xmlenc#sha512", "xmlenc#sha256"},
		{"SHA-1", "http://www.w3.org/2001/04/xmlenc#sha512", "http://www.w3.org/2000/09/xmldsig#sha1"},
	} {
		t.Run("hash chain: "+tt.name, func(t *testing.T) {
			n.Service.Reset()
			m := p.Request(testnet.Evil, "POST", persons, []byte("x"))
			edited := bytes.Replace(m.Signed.Chain, []byte(tt.old), []byte(tt.new), 1)
			if bytes.Equal(edited, m.Signed.Chain) {
				t.Fatalf("the trick does nothing to %s", edited)
			}
			m.Signed.Chain = edited
			reply, err := p.Post("auth", m)
			rejected(t, n, reply, err, badSig+".*", "not signed as it must be")
		})
	}
	if _, b := added(); b != 0 {
		t.Errorf("%d records were added", b)
	}
	works(t, n)
}

// A body without end costs bounded disk and no memory to speak of.
func TestEndlessBody(t *testing.T) {
	n := testnet.Start(t, testnet.Options{Gateway: func(_ string, cfg *config.Gateway) { cfg.MessageLog.MaxBody = 1 << 20 }})
	m := n.Peer.Request(testnet.Evil, "POST", testnet.Path(testnet.Persons), []byte("x"))
	contentType, content := m.Encode()
	h := m.Header.Clone()
	h["Content-Type"] = []string{contentType}
	i := bytes.Index(content, []byte("rest-body\r\n\r\n")) + len("rest-body\r\n\r\n")
	endless := &endlessReader{first: content[:i]}
	reply, err := n.Peer.PostRaw("auth", "POST", h, endless)
	if err == nil {
		rejected(t, n, reply, nil, "server.serverproxy.logging_failed", "large")
	}
	if took := endless.n.Load(); took > 128<<20 {
		t.Errorf("the gateway took %d bytes", took)
	}
	untouched(t, n)
	works(t, n)
}

type endlessReader struct {
	first []byte
	n     atomic.Int64
}

func (e *endlessReader) Read(p []byte) (int, error) {
	if e.n.Load() > 1<<30 {
		return 0, io.EOF
	}
	k := len(p)
	if len(e.first) > 0 {
		k = copy(p, e.first)
		e.first = e.first[k:]
	} else {
		clear(p)
	}
	e.n.Add(int64(k))
	return k, nil
}
