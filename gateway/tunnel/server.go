// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"sync"

	"kontor/registry/globalconf"
)

// cipherSuites are those of TLS 1.2; TLS 1.3 has none to choose.
var cipherSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// maxCANames bounds the names in a CertificateRequest, in bytes: a handshake
// message is limited to 64 KiB, and the names are a hint only.
const maxCANames = 16 << 10

var errNoView = errors.New("no global configuration")

// ServerTLS returns the configuration of the listener on [Port]. identity
// gives this server's authentication certificate; view the newest global
// configuration, or nil.
//
// A client must present a certificate that the global configuration registers
// for some security server; an unknown one does not get past the handshake.
// The rest is [PeerVerifier.Verify]'s, for each message: connections and TLS
// sessions outlive registrations and OCSP responses.
func ServerTLS(identity func(*globalconf.View) (*tls.Certificate, error), view func() *globalconf.View) *tls.Config {
	base := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: cipherSuites,
		NextProtos:   []string{"http/1.1"},
		ClientAuth:   tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			v := view()
			if v == nil {
				return nil, errNoView
			}
			return identity(v)
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			v := view()
			if v == nil {
				return errNoView
			}
			if len(cs.PeerCertificates) == 0 {
				return refuse(errors.New("no certificate presented"))
			}
			if _, ok := v.ServerByCertificate(cs.PeerCertificates[0]); !ok {
				return refuse(errors.New("certificate is not registered for any security server"))
			}
			return nil
		},
		// Messages are written whole; small records would cost system calls.
		DynamicRecordSizingDisabled: true,
	}
	names := &caNames{base: base}
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return names.config(view()), nil }
	return base
}

// caNames keeps the configuration whose CertificateRequest names the
// authorities of one View.
type caNames struct {
	base *tls.Config

	mu   sync.Mutex
	view *globalconf.View
	made *tls.Config
}

// config returns nil, which means the base configuration, without a View.
func (n *caNames) config(view *globalconf.View) *tls.Config {
	if view == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.view == view {
		return n.made
	}
	pool, size := x509.NewCertPool(), 0
	for _, a := range view.AllAuthorities() {
		if size += len(a.Cert.RawSubject) + 2; size > maxCANames {
			pool = nil // no names at all: every authority will do
			break
		}
		pool.AddCert(a.Cert)
	}
	n.view, n.made = view, n.base.Clone()
	n.made.GetConfigForClient, n.made.ClientCAs = nil, pool
	return n.made
}

const (
	// maxQuestions bounds the certificates asked about in one request: a chain
	// has one or two.
	maxQuestions = 16
	// maxQuery holds that many hashes of both kinds.
	maxQuery = 4 << 10

	ocspResponseType = "application/ocsp-response"
)

// OCSPHandler answers peers on [OCSPPort], by plain HTTP: GET with the
// parameters cert (SHA-1 in hex) and, as other versions ask, cert_hash
// (SHA-256). Who sends both asks about the same certificates in the same order,
// so either list is enough and the one that is complete is answered, one part
// per hash in its order. An unknown hash fails the whole question with status
// 500; HEAD is a heartbeat.
func OCSPHandler(lookup func(hash string) ([]byte, bool)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodHead:
			w.WriteHeader(http.StatusOK)
			return
		case http.MethodGet:
		default:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Use GET", http.StatusMethodNotAllowed)
			return
		}
		responses, err := answers(r.URL.RawQuery, lookup)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		var body bytes.Buffer
		contentType := writeResponses(&body, responses)
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body.Bytes()) // a peer that has gone needs no answer
	})
}

// answers looks up what a query asks for.
func answers(query string, lookup func(string) ([]byte, bool)) ([][]byte, error) {
	if len(query) > maxQuery {
		return nil, errors.New("query too long")
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("malformed query")
	}
	err = errors.New("no certificate hash given")
	for _, hashes := range [][]string{q["cert"], q["cert_hash"]} {
		if len(hashes) == 0 {
			continue
		}
		if len(hashes) > maxQuestions {
			return nil, errors.New("too many certificate hashes")
		}
		var responses [][]byte
		for _, h := range hashes {
			der, ok := lookup(strings.ToLower(h))
			if !ok {
				break
			}
			responses = append(responses, der)
		}
		if len(responses) == len(hashes) {
			return responses, nil
		}
		err = errors.New("no OCSP response for a requested certificate")
	}
	return nil, err
}

// writeResponses writes one part per response and returns the content type.
func writeResponses(w *bytes.Buffer, responses [][]byte) string {
	m := multipart.NewWriter(w)
	for _, der := range responses {
		// Neither can fail: a bytes.Buffer takes everything.
		p, _ := m.CreatePart(textproto.MIMEHeader{"Content-Type": {ocspResponseType}})
		_, _ = p.Write(der)
	}
	_ = m.Close()
	return fmt.Sprintf("multipart/related; type=%q; charset=UTF-8; boundary=%s", ocspResponseType, m.Boundary())
}
