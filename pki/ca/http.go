// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"errors"
	"math/big"
	"net/http"
	"strconv"
	"strings"

	"kontor/pki/ocsp"
	"kontor/pki/tsa"
)

// Status is the OCSP status of a serial number: good, revoked or, if it was
// never issued here, unknown. The validity period plays no part.
func (c *CA) Status(ctx context.Context, serial *big.Int) (ocsp.CertStatus, error) {
	rec, err := c.Get(ctx, serial)
	switch {
	case errors.Is(err, ErrUnknownSerial):
		return ocsp.CertStatus{State: ocsp.Unknown}, nil
	case err != nil:
		return ocsp.CertStatus{}, err
	case !rec.Revoked.IsZero():
		return ocsp.CertStatus{State: ocsp.Revoked, RevokedAt: rec.Revoked, Reason: rec.Reason}, nil
	}
	return ocsp.CertStatus{State: ocsp.Good}, nil
}

// Handler serves the authority to everybody:
//
//	/ocsp     RFC 6960 over HTTP, POST and GET
//	/tsa      RFC 3161 over HTTP
//	/ca.pem   the authority's certificate
//	/acme/    RFC 8555 and 9773, if configured; the directory is /acme/directory
//	/healthz  200 while the database answers
func (c *CA) Handler() http.Handler {
	responder := ocsp.NewResponder(c.responder())
	stamper := tsa.NewServer(c.stamper())
	// No ServeMux: it would redirect OCSP GET requests, whose base64 may hold
	// two slashes in a row.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/ocsp" || strings.HasPrefix(path, "/ocsp/"):
			http.StripPrefix("/ocsp", responder).ServeHTTP(w, r)
		case path == "/tsa":
			stamper.ServeHTTP(w, r)
		case c.acme != nil && strings.HasPrefix(path, "/acme/"):
			c.acme.ServeHTTP(w, r)
		case path == "/ca.pem":
			if readOnly(w, r) {
				serveBytes(w, r, "application/x-pem-file", certPEM(c.cert))
			}
		case path == "/healthz":
			if readOnly(w, r) {
				c.serveHealth(w, r)
			}
		default:
			http.NotFound(w, r)
		}
	})
}

func (c *CA) responder() ocsp.ResponderConfig {
	return ocsp.ResponderConfig{
		Issuer: c.cert, Cert: c.ocsp.cert, Signer: c.ocsp.signer,
		Status: c.Status, Validity: c.cfg.OCSPValidity, Now: c.cfg.Now,
	}
}

func (c *CA) stamper() tsa.ServerConfig {
	return tsa.ServerConfig{Cert: c.tsa.cert, Signer: c.tsa.signer, Policy: c.cfg.TSAPolicy, Now: c.cfg.Now}
}

func (c *CA) serveHealth(w http.ResponseWriter, r *http.Request) {
	if _, err := c.Get(r.Context(), c.ocsp.cert.SerialNumber); err != nil {
		http.Error(w, "database does not answer", http.StatusServiceUnavailable)
		return
	}
	if !c.cfg.Now().Before(c.cert.NotAfter) {
		http.Error(w, "the authority's certificate has expired", http.StatusServiceUnavailable)
		return
	}
	serveBytes(w, r, "text/plain; charset=utf-8", []byte("ok\n"))
}

func readOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, "only GET and HEAD are served here", http.StatusMethodNotAllowed)
	return false
}

func serveBytes(w http.ResponseWriter, r *http.Request, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(body) // a client that went away needs no answer
	}
}
