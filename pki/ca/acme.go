// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"
	"github.com/smallstep/certificates/acme/api"
	"github.com/smallstep/certificates/acme/db/nosql"
	stepapi "github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/api/render"
	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"

	"kontor/pki"
)

const (
	// acmeName is the first element of all ACME paths.
	acmeName = "acme"
	// maxACMERequest bounds a request; one that finalises has about 3 KB.
	maxACMERequest = 64 << 10
	// maxChallengeResponse bounds what an applicant's server answers: 76 bytes.
	maxChallengeResponse = 1 << 10
	// challengeTimeout bounds the question, during which an applicant waits.
	challengeTimeout = 10 * time.Second
	// renewalPoll is how often clients should ask about renewal.
	renewalPoll = 6 * time.Hour
)

// ACME configures issuance by RFC 8555. Accounts need an external account
// binding, and it is the binding that decides for whom and for what
// certificates are; an order decides only their names, which the http-01
// challenge proves.
type ACME struct {
	// URL is where applicants reach the authority's Handler: https, a host and
	// perhaps a port. RFC 8555 demands TLS, and accounts are bound to the URL.
	URL string
	// Profile makes the subjects of certificates.
	Profile pki.Profile
	// ValidationPort is where challenges are asked for; zero means 80, the
	// only one that RFC 8555 knows.
	ValidationPort int
}

func (a *ACME) validate() error {
	u, err := url.Parse(a.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return fmt.Errorf("ca: ACME address %q is not an https URL without a path", a.URL)
	}
	if a.Profile == nil {
		return errors.New("ca: ACME needs a certificate profile")
	}
	if a.ValidationPort < 0 || a.ValidationPort > 65535 {
		return fmt.Errorf("ca: %d is not a port", a.ValidationPort)
	}
	return nil
}

// acmeServer is step-ca's ACME server with the authority's own decisions: who
// an account stands for, what a certificate says, when to renew.
type acmeServer struct {
	ca      *CA
	host    string // with port, as in the URL
	profile pki.Profile
	routes  http.Handler
	db      *acmeDB

	finalising sync.Mutex // one order yields one certificate
}

func newACMEServer(c *CA, cfg ACME) (*acmeServer, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, err
	}
	s := &acmeServer{ca: c, host: u.Host, profile: cfg.Profile}
	prov := &provisioner.ACME{
		Type: provisioner.TypeACME.String(), Name: acmeName, RequireEAB: true,
		Challenges: []provisioner.ACMEChallenge{provisioner.HTTP_01},
		Claims:     &provisioner.Claims{MaxTLSDur: &provisioner.Duration{Duration: c.cfg.Validity}, DefaultTLSDur: &provisioner.Duration{Duration: c.cfg.Validity}},
	}
	// A validity shorter than step-ca's own minimum would be refused.
	prov.Claims.MinTLSDur = &provisioner.Duration{Duration: min(c.cfg.Validity, time.Minute)}
	if err := prov.Init(provisioner.Config{Claims: config.GlobalProvisionerClaims}); err != nil {
		return nil, fmt.Errorf("ca: ACME: %w", err)
	}
	t := &tables{store: c.records.store}
	inner, err := nosql.New(t)
	if err != nil {
		return nil, fmt.Errorf("ca: ACME: %w", err)
	}
	s.db = &acmeDB{DB: inner, tables: t, server: s, nonces: newNonces()}
	l := &linker{Linker: acme.NewLinker(s.host, ""), server: s, prov: prov}
	v := newValidator(cfg.ValidationPort)
	routes := chi.NewRouter()
	routes.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx := acme.NewContext(authority.NewContext(r.Context(), c.authority), s.db, v, l, nil)
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	})
	routes.Get("/acme/directory", s.serveDirectory)
	routes.Get("/acme/renewal-info/{certID}", s.serveRenewalInfo)
	api.Route(withoutDirectory{routes})
	s.routes = routes
	return s, nil
}

// withoutDirectory leaves out step-ca's directory, which knows nothing of
// renewal information.
type withoutDirectory struct{ stepapi.Router }

func (r withoutDirectory) MethodFunc(method, pattern string, h http.HandlerFunc) {
	if !strings.HasSuffix(pattern, "/"+acme.DirectoryLinkType.String()) {
		r.Router.MethodFunc(method, pattern, h)
	}
}

// ServeHTTP reads a request's body before step-ca's server does, so that the
// decisions made on its way can see what is asked for.
func (s *acmeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxACMERequest))
	if err != nil {
		render.Error(w, r, acme.NewDetailedError(acme.ErrorMalformedType, "the request cannot be read, or is larger than %d bytes", maxACMERequest))
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	asked := &applicant{server: s}
	if jws, err := jose.ParseJWS(string(body)); err == nil {
		asked.payload = jws.UnsafePayloadWithoutVerification()
	}
	if strings.HasSuffix(r.URL.Path, "/finalize") {
		asked.finalises = true
		s.finalising.Lock()
		defer s.finalising.Unlock()
	}
	// Accounts and signatures name the configured URL, whatever name the
	// applicant or a proxy used.
	r.Host = s.host
	r = r.WithContext(context.WithValue(r.Context(), applicantKey{}, asked))
	if r.URL.Path == "/"+acmeName+"/"+acme.KeyChangeLinkType.String() {
		s.serveKeyChange(w, r)
		return
	}
	s.routes.ServeHTTP(w, r)
}

// applicant is what one request asks for. Its payload comes from the same
// parser that step-ca's server verifies the signature with, and is used only
// where that has been done.
type applicant struct {
	server    *acmeServer
	payload   []byte
	finalises bool
	kid       string        // of the binding that a new account names
	account   *acme.Account // whose key the request names
	order     *acme.Order   // to finalise
}

type applicantKey struct{}

func applicantOf(ctx context.Context) *applicant {
	a, _ := ctx.Value(applicantKey{}).(*applicant)
	return a
}

// certificateRequest returns the PKCS#10 request of an order that is finalised.
func (a *applicant) certificateRequest() ([]byte, error) {
	var p struct {
		CSR string `json:"csr"`
	}
	if err := json.Unmarshal(a.payload, &p); err != nil {
		return nil, err
	}
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(p.CSR, "="))
}

// proves says whether a new account's external account binding is signed with
// this key.
func (a *applicant) proves(key []byte) bool {
	var p struct {
		Binding json.RawMessage `json:"externalAccountBinding"`
	}
	if json.Unmarshal(a.payload, &p) != nil {
		return false
	}
	jws, err := jose.ParseJWS(string(p.Binding))
	if err != nil {
		return false
	}
	_, err = jws.Verify(key)
	return err == nil
}

// linker puts the authority's own decisions into the way of a request.
type linker struct {
	acme.Linker
	server *acmeServer
	prov   *provisioner.ACME
}

func (l *linker) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		// step-ca's server wants the plain type, except where it issues and revokes.
		prov := acme.Provisioner(l.prov)
		if a := applicantOf(ctx); a.finalises || strings.HasSuffix(r.URL.Path, "/"+acme.RevokeCertLinkType.String()) {
			prov = decider{l.prov, a}
		}
		next.ServeHTTP(w, r.WithContext(acme.NewProvisionerContext(ctx, prov)))
	})
}

func (l *linker) LinkOrder(ctx context.Context, o *acme.Order) {
	if a := applicantOf(ctx); a.order != nil {
		o.Identifiers = a.order.Identifiers
	}
	l.Linker.LinkOrder(ctx, o)
}

// decider decides what certificate an order that is ready yields.
type decider struct {
	*provisioner.ACME
	applicant *applicant
}

func (d decider) AuthorizeSign(context.Context, string) ([]provisioner.SignOption, error) {
	der, err := d.applicant.certificateRequest()
	if err != nil {
		return nil, acme.NewDetailedError(acme.ErrorBadCSRType, "it cannot be read")
	}
	m, err := d.applicant.server.decide(der, d.applicant.order)
	if errors.Is(err, ErrRequest) || errors.Is(err, pki.ErrSubject) {
		return nil, acme.NewDetailedError(acme.ErrorBadCSRType, "%s", err)
	}
	if err != nil {
		return nil, err
	}
	return []provisioner.SignOption{m}, nil
}

func (d decider) AuthorizeRevoke(context.Context, string) error {
	var p struct {
		Reason int `json:"reason"`
	}
	if err := json.Unmarshal(d.applicant.payload, &p); err != nil {
		return acme.NewDetailedError(acme.ErrorMalformedType, "%s", err)
	}
	if err := checkReason(p.Reason); err != nil {
		return acme.NewDetailedError(acme.ErrorBadRevocationReasonType, "%s", err)
	}
	return nil
}

// decide makes the certificate of an order: usage and subject come from the
// binding, names from the order, the key alone from the request.
func (s *acmeServer) decide(der []byte, o *acme.Order) (provisioner.CertificateModifier, error) {
	b, err := s.ca.bindingOf(o.AccountID)
	if errors.Is(err, ErrUnknownBinding) {
		return nil, acme.NewDetailedError(acme.ErrorUnauthorizedType, "the account's external account binding was withdrawn")
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range o.Identifiers {
		names = append(names, i.Value)
	}
	subject, err := b.subject(s.profile, names[0])
	if err != nil {
		return nil, err
	}
	csr, tmpl, err := s.ca.examine(der, Request{
		Usage: b.Usage, Subject: subject, DNSNames: names, Validity: o.NotAfter.Sub(s.ca.cfg.Now()),
	})
	if err != nil {
		return nil, err
	}
	if err := checkNames(csr.DNSNames, csr.Subject.CommonName, names); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if len(csr.EmailAddresses)+len(csr.IPAddresses)+len(csr.URIs) > 0 {
		return nil, fmt.Errorf("%w: it asks for alternative names other than DNS names", ErrRequest)
	}
	if asks, ok := requestedUsage(csr.Extensions); ok && asks != b.Usage {
		return nil, fmt.Errorf("%w: it asks for key usages that are not for %s, which is all that the external account binding allows", ErrRequest, b.Usage)
	}
	return tmpl.modifier(csr), nil
}

// checkNames demands that a request names what its order names (RFC 8555, 7.4).
// The common name may be something else, as it is in most X-Road profiles: the
// subject is not the applicant's to choose anyway.
func checkNames(alternative []string, common string, ordered []string) error {
	has := func(names []string, name string) bool {
		for _, n := range names {
			if strings.EqualFold(n, name) {
				return true
			}
		}
		return false
	}
	for _, n := range alternative {
		if !has(ordered, n) {
			return fmt.Errorf("it asks for the name %q, which its order does not have", n)
		}
	}
	for _, n := range ordered {
		if !has(alternative, n) && !strings.EqualFold(common, n) {
			return fmt.Errorf("it does not ask for the name %q of its order", n)
		}
	}
	return nil
}

// serveDirectory answers RFC 8555, 7.1.1, and RFC 9773, 4.
func (s *acmeServer) serveDirectory(w http.ResponseWriter, _ *http.Request) {
	link := func(name string) string { return "https://" + s.host + "/" + acmeName + "/" + name }
	serveJSON(w, map[string]any{
		"newNonce":    link(acme.NewNonceLinkType.String()),
		"newAccount":  link(acme.NewAccountLinkType.String()),
		"newOrder":    link(acme.NewOrderLinkType.String()),
		"revokeCert":  link(acme.RevokeCertLinkType.String()),
		"keyChange":   link(acme.KeyChangeLinkType.String()),
		"renewalInfo": link("renewal-info"),
		"meta":        map[string]any{"externalAccountRequired": true},
	})
}

// serveRenewalInfo answers RFC 9773, 4.1 and 4.2: renew in the sixth of the
// lifetime before its last third, or at once what is revoked.
func (s *acmeServer) serveRenewalInfo(w http.ResponseWriter, r *http.Request) {
	keyID, serial, ok := strings.Cut(chi.URLParam(r, "certID"), ".")
	aki, err1 := base64.RawURLEncoding.DecodeString(keyID)
	number, err2 := base64.RawURLEncoding.DecodeString(serial)
	if !ok || err1 != nil || err2 != nil || len(number) > 21 {
		render.Error(w, r, acme.NewDetailedError(acme.ErrorMalformedType, "not a certificate identifier of RFC 9773, 4.1"))
		return
	}
	rec, err := s.ca.Get(r.Context(), new(big.Int).SetBytes(number))
	if errors.Is(err, ErrUnknownSerial) || err == nil && (rec.Usage == "" || !bytes.Equal(aki, rec.Certificate.AuthorityKeyId)) {
		e := acme.NewDetailedError(acme.ErrorMalformedType, "no such certificate was issued here")
		e.Status = http.StatusNotFound
		render.Error(w, r, e)
		return
	}
	if err != nil {
		render.Error(w, r, acme.WrapErrorISE(err, "read certificate"))
		return
	}
	crt := rec.Certificate
	lifetime := crt.NotAfter.Sub(crt.NotBefore)
	start, end := crt.NotAfter.Add(-lifetime/2), crt.NotAfter.Add(-lifetime/3)
	if !rec.Revoked.IsZero() {
		start, end = rec.Revoked.Add(-time.Hour), rec.Revoked
	}
	w.Header().Set("Retry-After", strconv.Itoa(int(renewalPoll/time.Second)))
	serveJSON(w, map[string]any{"suggestedWindow": map[string]string{
		"start": start.UTC().Format(time.RFC3339), "end": end.UTC().Format(time.RFC3339),
	}})
}

func serveJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // a client that went away needs no answer
}

// validator asks applicants' servers for challenges. It goes where the order
// says and nowhere else: no redirects, no proxies, no other port.
type validator struct{ http *http.Client }

func newValidator(port int) *validator {
	if port == 0 {
		port = 80
	}
	dialer := &net.Dialer{Timeout: challengeTimeout}
	return &validator{&http.Client{
		Timeout: challengeTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				host, _, err := net.SplitHostPort(addr)
				if err != nil {
					return nil, err
				}
				return dialer.DialContext(ctx, network, net.JoinHostPort(host, strconv.Itoa(port)))
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("redirects are not followed") },
	}}
}

// Get implements acme.Client.
func (v *validator) Get(address string) (*http.Response, error) {
	resp, err := v.http.Get(address)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxChallengeResponse), resp.Body}
	return resp, nil
}

var errChallengeType = errors.New("only http-01 challenges are made here")

// LookupTxt implements acme.Client.
func (*validator) LookupTxt(string) ([]string, error) { return nil, errChallengeType }

// TLSDial implements acme.Client.
func (*validator) TLSDial(string, string, *tls.Config) (*tls.Conn, error) {
	return nil, errChallengeType
}
