// SPDX-License-Identifier: Apache-2.0

package testnet

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"kontor/gateway/fault"
	"kontor/gateway/message"
	"kontor/gateway/tunnel"
	"kontor/pki/asic"
	"kontor/pki/ocsp"
	"kontor/pki/xades"
)

// Peer is the third security server. Its certificates are real and registered;
// what it says is up to the test.
type Peer struct {
	n *Network

	mu      sync.Mutex
	as      *Identity // what it presents as a server
	ocsp    func() [][]byte
	handler http.HandlerFunc
	seen    []byte // all that came in since Reset, below TLS

}

func startPeer(n *Network) *Peer {
	p := &Peer{n: n}
	p.Reset()
	conf := &tls.Config{
		ClientAuth: tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			c := p.as.TLS()
			return &c, nil
		},
	}
	l, err := net.Listen("tcp", n.ip(15)+":5500")
	if err != nil {
		n.tb.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		h := p.handler
		p.mu.Unlock()
		h(w, r)
	}), ErrorLog: log.New(io.Discard, "", 0)}
	srv.SetKeepAlivesEnabled(false) // each exchange sees the certificate of its test
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(&tap{tls.NewListener(l, conf), p}) }() // ends with Close
	n.tb.Cleanup(func() { srv.Close(); <-done })
	// The question names hashes; the answer is what the test wants it to be.
	serve(n.tb, n.ip(15)+":5577", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		responses := p.ocsp
		p.mu.Unlock()
		all := responses()
		i := 0
		tunnel.OCSPHandler(func(string) ([]byte, bool) {
			if i >= len(all) {
				return nil, false
			}
			i++
			return all[i-1], true
		}).ServeHTTP(w, r)
	}), nil)
	return p
}

// tap records what a peer sends.
type tap struct {
	net.Listener
	p *Peer
}

func (t *tap) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tapped{c.(*tls.Conn), t.p}, nil
}

type tapped struct {
	*tls.Conn
	p *Peer
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.p.mu.Lock()
	c.p.seen = append(c.p.seen, b[:n]...)
	c.p.mu.Unlock()
	return n, err
}

// Reset makes the peer an honest server again: its good certificate, a fresh
// OCSP response, and [Greeting] as the answer to everything.
func (p *Peer) Reset() {
	p.As("auth")
	p.Serve(func(x *PeerExchange) { x.Send(x.Answer(http.StatusOK, []byte(Greeting))) })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = nil
}

// Seen returns all bytes that came in since the last Reset.
func (p *Peer) Seen() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.seen)
}

// As has the peer present a certificate, with the OCSP response that the
// authority gives for it now.
func (p *Peer) As(identity string) {
	i := p.n.Identity(identity)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.as = i
	p.ocsp = func() [][]byte { return [][]byte{p.n.OCSPOf(i.Cert)} }
}

// WithOCSP has the peer give these OCSP responses on port 5577.
func (p *Peer) WithOCSP(responses ...[]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ocsp = func() [][]byte { return responses }
}

// WithoutOCSP has the peer hang up on questions to port 5577.
func (p *Peer) WithoutOCSP() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ocsp = func() [][]byte { panic(http.ErrAbortHandler) }
}

// Handle has the peer answer by HTTP as it likes.
func (p *Peer) Handle(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handler = h
}

// Serve has the peer read each request to its end and answer it by fn.
func (p *Peer) Serve(fn func(*PeerExchange)) {
	p.Handle(func(w http.ResponseWriter, r *http.Request) {
		x := &PeerExchange{n: p.n, w: w}
		if err := x.read(r); err != nil {
			x.Fault("server.serverproxy.mime_parsing_failed", "The peer of the test cannot read: "+err.Error())
			return
		}
		fn(x)
	})
}

// OCSPOf asks the authority about one of its certificates, whatever stands
// before it. It may be called from anywhere.
func (n *Network) OCSPOf(c *x509.Certificate) []byte {
	question, err := ocsp.NewRequest(c, n.fix.ca.Certificate())
	if err != nil {
		panic(err)
	}
	r, err := http.NewRequest(http.MethodPost, "/ocsp", bytes.NewReader(question))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/ocsp-request")
	w := &memoryWriter{header: http.Header{}}
	n.fix.ca.Handler().ServeHTTP(w, r)
	return w.body.Bytes()
}

type memoryWriter struct {
	header http.Header
	body   bytes.Buffer
}

func (m *memoryWriter) Header() http.Header         { return m.header }
func (m *memoryWriter) WriteHeader(int)             {}
func (m *memoryWriter) Write(p []byte) (int, error) { return m.body.Write(p) }

// StaleOCSP is a response of long ago about a certificate.
func (n *Network) StaleOCSP(c *x509.Certificate) []byte {
	n.fix.mu.Lock()
	defer n.fix.mu.Unlock()
	n.fix.caClock.Store(int64(-48 * time.Hour))
	defer n.fix.caClock.Store(0)
	return n.OCSPOf(c)
}

// Evidence signs the parts of a message; body may be nil. chain asks for the
// form with a hash chain, which several parts need.
func (n *Network) Evidence(as *Identity, responses [][]byte, head, body []byte, chain bool) *asic.Evidence {
	e := &asic.Evidence{Message: sha512.Sum512(head)}
	parts := []asic.Digest{e.Message}
	if body != nil {
		e.Attachments = []asic.Digest{sha512.Sum512(body)}
		parts = append(parts, e.Attachments[0])
	}
	ref := xades.Reference{URI: xades.URIMessage, DigestMethod: xades.DigestSHA512, Digest: e.Message[:]}
	if chain || len(parts) > 1 {
		batch := [][]asic.Digest{parts}
		if len(parts) == 1 { // alone it would need no chain
			batch = append(batch, []asic.Digest{sha512.Sum512([]byte("another message"))})
		}
		result, chains, err := asic.BuildChains(batch)
		if err != nil {
			panic(err)
		}
		e.ChainResult, e.Chain = result, chains[0]
		sum := sha512.Sum512(result)
		ref = xades.Reference{URI: xades.URIChainResult, DigestMethod: xades.DigestSHA512, Digest: sum[:]}
	}
	e.Signature = n.SignReference(as, responses, ref)
	return e
}

// SignReference signs whatever it is told to.
func (n *Network) SignReference(as *Identity, responses [][]byte, ref xades.Reference) []byte {
	if responses == nil {
		responses = [][]byte{n.OCSPOf(as.Cert)}
	}
	return must(xades.Sign(&xades.Credentials{Key: as.Key, Cert: as.Cert, OCSP: responses}, ref, time.Now()))
}

// Message is one transport message of the peer, in parts that a test may
// replace. Nil parts are left out.
type Message struct {
	OCSP   [][]byte
	Kind   message.Kind // of the head
	Head   []byte
	Body   []byte
	Signed *asic.Evidence
	Header http.Header // of the transport, without the content type
}

// Request makes a request of one of the peer's clients, right in every part.
func (p *Peer) Request(client, method, target string, body []byte, fields ...message.Field) *Message {
	requestID := fmt.Sprintf("%08x-0000-4000-8000-%012x", time.Now().Unix(), time.Now().UnixNano()&0xffffffffffff)
	h := message.RequestHead{Method: method, Target: target, Fields: append([]message.Field{{Name: "X-Road-Client", Value: client}}, fields...)}
	h.Fields = append(h.Fields, message.Field{Name: "x-road-request-id", Value: requestID}, message.Field{Name: "x-road-id", Value: "TEST-" + requestID})
	m := &Message{
		OCSP: [][]byte{p.n.OCSPOf(p.n.Identity("auth").Cert)}, Kind: message.RESTRequest, Head: h.Append(nil), Body: body,
		Header: http.Header{"x-hash-algorithm": {"SHA-512"}, "x-proxy-version": {"7.8.1"}, "x-original-content-type": {""},
			"x-road-message-type": {"REST"}, "x-road-request-id": {requestID}},
	}
	signer := "sign"
	if client == Guest {
		signer = "sign-guest"
	}
	m.Signed = p.n.Evidence(p.n.Identity(signer), nil, m.Head, m.Body, false)
	return m
}

// SOAPRequest makes a SOAP request of the client of the envelope, right in
// every part; attachment may be nil.
func (p *Peer) SOAPRequest(envelope string, attachment []byte) *Message {
	m := &Message{
		OCSP: [][]byte{p.n.OCSPOf(p.n.Identity("auth").Cert)}, Kind: message.SOAPRequest, Head: []byte(envelope), Body: attachment,
		Header: http.Header{"x-hash-algorithm": {"SHA-512"}, "x-proxy-version": {"7.8.1"}, "x-original-content-type": {"text/xml; charset=UTF-8"},
			"x-original-soapaction": {`""`}, "x-road-request-id": {"11111111-2222-4333-8444-555555555555"}},
	}
	m.Signed = p.n.Evidence(p.n.Identity("sign"), nil, m.Head, m.Body, false)
	return m
}

// Encode writes the message as it stands.
func (m *Message) Encode() (contentType string, content []byte) {
	var b bytes.Buffer
	enc := message.NewEncoder(&b)
	for _, der := range m.OCSP {
		_ = enc.OCSP(der)
	}
	soap := &message.SOAP{ContentType: "text/xml; charset=UTF-8"}
	switch m.Kind {
	case message.SOAPRequest:
		_ = enc.Request(&message.Request{SOAP: soap, Raw: m.Head})
	case message.SOAPResponse:
		_ = enc.Response(&message.Response{SOAP: soap, Raw: m.Head})
	default:
		_ = enc.Head(m.Kind, m.Head)
	}
	if m.Body != nil && (m.Kind == message.SOAPRequest || m.Kind == message.SOAPResponse) {
		_ = enc.StartAttachment("application/octet-stream", nil)
		_, _ = enc.BodyWriter().Write(m.Body)
	} else if m.Body != nil {
		_ = enc.StartBody()
		_, _ = enc.BodyWriter().Write(m.Body)
	}
	if m.Signed != nil {
		if m.Signed.Chain != nil {
			_ = enc.HashChain(m.Signed.ChainResult, m.Signed.Chain)
		}
		_ = enc.Signature(m.Signed.Signature)
	}
	if m.Signed == nil { // the encoder would not end such a message
		_ = enc.Flush()
		boundary := enc.ContentType()[strings.LastIndex(enc.ContentType(), "boundary=")+len("boundary="):]
		b.WriteString("\r\n--" + boundary + "--\r\n")
	} else {
		_ = enc.Close() // to memory
	}
	return enc.ContentType(), b.Bytes()
}

// Reply is what a gateway answered to the peer.
type Reply struct {
	Status int
	Header http.Header
	Raw    []byte
	Head   *message.Response // nil if there is none
	Body   []byte
	Signed *asic.Evidence
	Fault  *fault.Error
}

// Post sends a message to gateway B as one of the peer's identities.
func (p *Peer) Post(identity string, m *Message) (*Reply, error) {
	contentType, content := m.Encode()
	h := m.Header.Clone()
	h["Content-Type"] = []string{contentType}
	return p.PostRaw(identity, http.MethodPost, h, bytes.NewReader(content))
}

// Dial opens a TLS connection to gateway B.
func (p *Peer) Dial(ctx context.Context, identity string) (*tls.Conn, error) {
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	if identity != "" {
		d.Config.Certificates = []tls.Certificate{p.n.Identity(identity).TLS()}
	}
	c, err := d.DialContext(ctx, "tcp", p.n.B.ip+":5500")
	if err != nil {
		return nil, err
	}
	return c.(*tls.Conn), nil
}

// PostRaw sends any HTTP request to gateway B.
func (p *Peer) PostRaw(identity, method string, h http.Header, body io.Reader) (*Reply, error) {
	ctx, cancel := context.WithTimeout(p.n.Context(), time.Minute)
	defer cancel()
	t := &http.Transport{DisableKeepAlives: true, DisableCompression: true,
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return p.Dial(ctx, identity) }}
	defer t.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, method, "https://"+p.n.B.ip+":5500/", body)
	if err != nil {
		return nil, err
	}
	r.Header = h
	resp, err := t.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	return readReply(resp)
}

// ReadReply reads an HTTP response from a connection.
func ReadReply(c io.Reader) (*Reply, error) {
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodPost})
	if err != nil {
		return nil, err
	}
	return readReply(resp)
}

func readReply(resp *http.Response) (*Reply, error) {
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	r := &Reply{Status: resp.StatusCode, Header: resp.Header, Raw: raw}
	if err != nil {
		return r, err
	}
	want := message.RESTResponse
	if bytes.Contains(raw, []byte("content-type: text/xml")) && !bytes.Contains(raw, []byte("x-road-rest-response")) {
		want = message.SOAPResponse
	}
	dec, err := message.NewDecoder(bytes.NewReader(raw), resp.Header.Get("Content-Type"), want, message.Limits{})
	if err != nil {
		return r, err
	}
	defer dec.Close()
	for {
		part, err := dec.Next()
		if err == io.EOF {
			return r, nil
		}
		if err != nil {
			return r, err
		}
		content, err := part.ReadAll()
		if err != nil {
			return r, err
		}
		if r.Signed == nil {
			r.Signed = &asic.Evidence{}
		}
		switch part.Kind {
		case message.Fault:
			if r.Fault, err = fault.ParseSOAP(content); err != nil {
				return r, err
			}
		case message.RESTResponse, message.SOAPResponse:
			r.Signed.Message = sha512.Sum512(content)
			r.Head, err = message.ReadResponsePart(part, content)
			if errors.Is(err, message.ErrFault) { // nothing has to follow it
				r.Fault, err = fault.ParseSOAP(content)
				return r, err
			}
			if err != nil {
				return r, err
			}
		case message.RESTBody, message.SOAPAttachment:
			r.Signed.Attachments = append(r.Signed.Attachments, sha512.Sum512(content))
			r.Body = content
		case message.HashChainResult:
			r.Signed.ChainResult = content
		case message.HashChain:
			r.Signed.Chain = content
		case message.Signature:
			r.Signed.Signature = content
		}
	}
}

// PeerExchange is one request that gateway A sent to the peer.
type PeerExchange struct {
	n       *Network
	w       http.ResponseWriter
	Header  http.Header
	Request *message.Request
	Body    *message.Body
	Content []byte
	Signed  *asic.Evidence
}

func (x *PeerExchange) read(r *http.Request) error {
	x.Header = r.Header
	want := message.SOAPRequest
	if r.Header.Get("X-Road-Message-Type") == "REST" {
		want = message.RESTRequest
	}
	dec, err := message.NewDecoder(r.Body, r.Header.Get("Content-Type"), want, message.Limits{})
	if err != nil {
		return err
	}
	defer dec.Close()
	x.Body = (&message.Spool{MemoryLimit: 64 << 20}).New()
	x.Signed = &asic.Evidence{}
	for {
		part, err := dec.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		content, err := part.ReadAll()
		if err != nil {
			return err
		}
		switch part.Kind {
		case message.RESTRequest, message.SOAPRequest:
			x.Signed.Message = sha512.Sum512(content)
			if x.Request, err = message.ReadRequestPart(part, content, r.Header.Get("X-Road-Request-Id")); err != nil {
				return err
			}
		case message.RESTBody, message.SOAPAttachment:
			x.Signed.Attachments = append(x.Signed.Attachments, sha512.Sum512(content))
			x.Content = content
			if _, err := x.Body.Write(content); err != nil {
				return err
			}
		case message.HashChainResult:
			x.Signed.ChainResult = content
		case message.HashChain:
			x.Signed.Chain = content
		case message.Signature:
			x.Signed.Signature = content
		}
	}
	if x.Request == nil || x.Signed.Signature == nil {
		return errors.New("request without head or signature")
	}
	return nil
}

// Answer makes the right answer to the request; body may be nil.
func (x *PeerExchange) Answer(status int, body []byte) *Message {
	return x.AnswerAs(x.Request, message.RequestHash(x.Request.Raw, x.Body), status, body)
}

// AnswerAs makes an answer to another request than the one that came.
func (x *PeerExchange) AnswerAs(req *message.Request, hash string, status int, body []byte) *Message {
	resp := must(message.NewResponse(req, hash, status, http.StatusText(status), http.Header{"Content-Type": {"application/json"}}))
	return x.Sign(&Message{Kind: message.RESTResponse, Head: resp.Raw, Body: body})
}

// AnswerSOAP answers a SOAP request with an envelope, into which the request
// hash is put, and an attachment or nil.
func (x *PeerExchange) AnswerSOAP(envelope string, attachment []byte) *Message {
	e := must(message.ReadEnvelope([]byte(envelope)))
	return x.Sign(&Message{Kind: message.SOAPResponse, Head: e.WithRequestHash(message.EnvelopeHash(x.Request.Raw)), Body: attachment})
}

// Sign signs an answer anew.
func (x *PeerExchange) Sign(m *Message) *Message {
	m.Signed = x.n.Evidence(x.n.Identity("sign"), nil, m.Head, m.Body, false)
	return m
}

// Send sends an answer.
func (x *PeerExchange) Send(m *Message) {
	contentType, content := m.Encode()
	x.SendRaw(http.StatusOK, contentType, content)
}

// SendRaw sends anything.
func (x *PeerExchange) SendRaw(status int, contentType string, content []byte) {
	h := x.w.Header()
	h["Content-Type"] = []string{contentType}
	h["x-hash-algorithm"] = []string{"SHA-512"}
	x.w.WriteHeader(status)
	_, _ = x.w.Write(content) // the other side may have had enough
}

// Writer gives the bare response.
func (x *PeerExchange) Writer() http.ResponseWriter { return x.w }

// Fault sends a fault.
func (x *PeerExchange) Fault(code, text string) {
	x.SendRaw(http.StatusOK, "text/xml;charset=utf-8", fault.Remote(code, text, "peer-detail").SOAP())
}
