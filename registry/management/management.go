// SPDX-License-Identifier: Apache-2.0

// Package management offers X-Road's management services over HTTP: security
// servers register their authentication certificates here directly, and send
// all other requests about themselves through the security server that provides
// the services.
//
// A request is read strictly, its signatures, certificates and OCSP response are
// verified, and only then it goes to the registry. Package request has the
// messages.
package management

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"kontor/registry"
	"kontor/registry/management/request"
)

// Paths of the services.
const (
	RegistrationPath = "/managementservice"
	ManagePath       = "/managementservice/manage"
	WSDLPath         = "/managementservices.wsdl"
)

const (
	maxRequest = 100_000          // bytes of a request's body; X-Road's limit
	readTime   = 30 * time.Second // in which a request must arrive whole

	// Requests that one address may send in a minute. X-Road allows ten; those
	// that come through the providing security server all share its address, so
	// there ten would be for the whole ecosystem.
	registrationsPerMinute = 10
	requestsPerMinute      = 600
)

// Config is what the services need.
type Config struct {
	Registry *registry.Registry
	Now      func() time.Time // nil: time.Now
	Log      *zap.Logger      // nil: silence
}

// Services are the management services of a registry.
type Services struct {
	registry *registry.Registry
	now      func() time.Time
	log      *zap.Logger
}

// New returns the management services of a registry.
func New(cfg Config) *Services {
	s := &Services{cfg.Registry, cfg.Now, cfg.Log}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	return s
}

// Registration serves the registration of authentication certificates, which
// every security server calls directly, by HTTPS.
func (s *Services) Registration() http.Handler {
	return s.door(RegistrationPath, registrationsPerMinute, func(v request.Service) bool { return v == request.AuthCertReg })
}

// Management serves all other requests. Deletions carry no proof of their own:
// only the security server that provides the services may reach this handler.
func (s *Services) Management() http.Handler {
	return s.door(ManagePath, requestsPerMinute, func(v request.Service) bool { return v != request.AuthCertReg })
}

// door serves one path, and nothing else.
func (s *Services) door(path string, perMinute int, takes func(request.Service) bool) http.Handler {
	rate := newRate(perMinute, s.now)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if r.Method != http.MethodPost || r.URL.Path != path && r.URL.Path != path+"/" {
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		if wait, ok := rate.allow(r.RemoteAddr); !ok {
			w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
			http.Error(w, "too many requests", http.StatusTooManyRequests)
			return
		}
		// A recorder in a test has no deadline to set.
		if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			http.Error(w, "connection lost", http.StatusInternalServerError)
			return
		}
		body, err := readBody(w, r)
		if err != nil {
			http.Error(w, "the request is larger than "+strconv.Itoa(maxRequest)+" bytes, or did not arrive", http.StatusRequestEntityTooLarge)
			return
		}
		s.answer(w, r, body, takes)
	})
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > maxRequest {
		return nil, errors.New("too large")
	}
	return io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
}

// answer carries a request out and writes what became of it.
func (s *Services) answer(w http.ResponseWriter, r *http.Request, body []byte, takes func(request.Service) bool) {
	m, number, err := s.serve(r.Context(), r.Header.Get("Content-Type"), body, takes)
	status, answer := http.StatusOK, []byte(nil)
	if err == nil {
		answer, err = request.Answer(m.SOAP, number)
	}
	log := s.log.With(zap.String("from", r.RemoteAddr))
	if m != nil {
		log = log.With(zap.String("service", string(m.Request.Service)), zap.Stringer("server", m.Request.Server), zap.String("message", m.Request.ID))
	}
	if err != nil {
		fault := faultOf(err)
		fault.Detail = uuid.NewString()
		log.Warn("management request refused", zap.String("code", fault.Code), zap.String("detail", fault.Detail), zap.Error(err))
		status, answer = http.StatusInternalServerError, fault.SOAP()
	} else {
		log.Info("management request accepted", zap.Uint64("request", number))
	}
	h := w.Header()
	h.Set("Content-Type", "text/xml;charset=UTF-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	h.Set("Expires", "0")
	h.Set("Content-Length", strconv.Itoa(len(answer)))
	w.WriteHeader(status)
	_, _ = w.Write(answer) // the asker may have gone
}

// serve reads, verifies and submits one request, and returns its number.
func (s *Services) serve(ctx context.Context, contentType string, body []byte, takes func(request.Service) bool) (*request.Message, uint64, error) {
	now := s.now()
	// 1 while nobody could learn of a change, none is accepted
	if published := s.registry.Status(); !now.Before(published.Expires) {
		return nil, 0, &request.Fault{Code: request.CodeOutdated, Text: "Global configuration is not valid"}
	}
	// 2 read
	m, err := request.Decode(contentType, body)
	if err != nil {
		return nil, 0, err
	}
	if !takes(m.Request.Service) {
		return m, 0, &request.Fault{Code: request.CodeInvalidRequest, Text: fmt.Sprintf("Request %s is not served at this address", m.Request.Service)}
	}
	if err := m.Complete(); err != nil {
		return m, 0, err
	}
	// 3 verify
	if err := newVerifier(s.registry.State(), now).verify(m); err != nil {
		return m, 0, err
	}
	if m.Request.DryRun {
		return m, 0, nil
	}
	// 4 submit; what is accepted stays, even if the asker hangs up
	q, err := s.registry.Submit(context.WithoutCancel(ctx), author(m), submission(m, contentType, body))
	if err != nil {
		return m, 0, err
	}
	// 5 a message that was sent again learns what became of it
	switch q.Status {
	case registry.Declined:
		return m, 0, &request.Fault{Code: request.CodeDeclined, Text: fmt.Sprintf("Request %d was declined: %s", q.Number, q.Reason)}
	case registry.Revoked:
		return m, 0, &request.Fault{Code: request.CodeRevoked, Text: fmt.Sprintf("Request %d was revoked: %s", q.Number, q.Reason)}
	}
	return m, q.Number, nil
}

func author(m *request.Message) registry.Author {
	return registry.Author{
		Who:     "security server " + m.Request.Server.String(),
		Request: string(m.Request.Service) + " " + m.Request.ID,
	}
}

func submission(m *request.Message, contentType string, body []byte) *registry.Submission {
	r := m.Request
	return &registry.Submission{
		Kind: registry.RequestKind(r.Service), Origin: registry.FromServer, Server: r.Server, Client: r.Client,
		Address: r.Address, Certificate: r.Certificate, Name: r.Name, Text: r.Text,
		Message: &registry.RequestMessage{Sender: r.Sender, ID: r.ID, Digest: sha256.Sum256(m.SOAP), ContentType: contentType, Body: slices.Clone(body)},
	}
}

// faultOf is what an applicant may know of an error.
func faultOf(err error) *request.Fault {
	if f := (*request.Fault)(nil); errors.As(err, &f) {
		copied := *f
		return &copied
	}
	refusal := (*registry.Refusal)(nil)
	if !errors.As(err, &refusal) {
		return &request.Fault{Code: request.CodeInternal, Text: "Management request failed"}
	}
	status, code := http.StatusConflict, refusal.Code
	switch {
	case errors.Is(err, registry.ErrInvalid):
		status = http.StatusBadRequest
	case errors.Is(err, registry.ErrUnknown):
		status = http.StatusNotFound
	}
	if code == "" {
		code = "management_request_refused"
	}
	text := fmt.Sprintf("%s with statusCode %d: %s", code, status, refusal.Why)
	if refusal.Remedy != "" {
		text += "; " + refusal.Remedy
	}
	return &request.Fault{Code: request.CodeInternal, Text: text}
}
