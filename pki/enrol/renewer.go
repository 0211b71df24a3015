// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/acme"

	"kontor/pki"
	"kontor/registry/id"
)

const (
	// firstRetry and lastRetry bound the wait after failures, which doubles.
	firstRetry, lastRetry = time.Minute, time.Hour
	// lookAgain bounds every wait: clocks jump and machines sleep.
	lookAgain = time.Hour
	// attemptTimeout bounds one attempt; an unfinished order is resumed by the next.
	attemptTimeout = 5 * time.Minute
)

// Config describes one certificate to look after.
type Config struct {
	// Dir keeps the Renewer's state. Several may share it.
	Dir string
	// Token gets the keys and certificates.
	Token *pki.Token
	// Accounts holds the account's key.
	Accounts *Accounts
	// Credentials say which authority to ask, and as whom.
	Credentials Credentials
	// Usage and Member say what the certificate is for.
	Usage  pki.Usage
	Member id.Member
	// Subject is the DER subject to ask for, as the authority's profile makes
	// it; many authorities decide it themselves.
	Subject []byte
	// DNSNames are what the certificate is ordered for, at least one, and lead
	// to the Responder.
	DNSNames []string
	// Algorithm of new keys; empty means P-256.
	Algorithm pki.Algorithm
	// Validity to ask for; zero leaves it to the authority. X-Road asks for a year.
	Validity time.Duration
	// RenewBefore the end, where the authority does not say when; zero means a
	// third of the lifetime. X-Road does so 14 days before.
	RenewBefore time.Duration
	// Contact are the account's addresses, as "mailto:" URLs.
	Contact []string
	// Responder answers the challenges.
	Responder *Responder
	// HTTP, if not nil, is used to talk to the authority.
	HTTP *http.Client
	// Check, if not nil, may refuse a certificate, leaf first, before it comes
	// into the token: is it for this member, from an approved authority?
	Check func(chain []*x509.Certificate) error
	// OnCertificate hears of each new certificate, which is in the token then,
	// inactive: an authentication certificate as saved, a signing certificate
	// as registered. It is called again after a while if it fails, and at least
	// once even if the process dies. It runs in the Renewer's own goroutine.
	OnCertificate func(ctx context.Context, key *pki.Key, cert *x509.Certificate) error
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log gets what an operator should act upon; nil discards it.
	Log *zap.Logger
}

// Status is how a Renewer is doing.
type Status struct {
	Usage       pki.Usage         `json:"usage"`
	Member      id.Member         `json:"member"`
	Directory   string            `json:"directory"`
	Certificate *x509.Certificate `json:"-"`                  // the newest; nil: none yet
	RenewAt     time.Time         `json:"renew_at,omitzero"`  // zero: as soon as possible
	NextTry     time.Time         `json:"next_try,omitzero"`  // after failures
	Failures    int               `json:"failures,omitempty"` // in a row
	Error       string            `json:"error,omitempty"`    // the last failure, with its remedy
	Ordered     bool              `json:"ordered,omitempty"`  // an order is under way
}

// generator makes a key, as pki.Token.Generate does.
type generator func(label string, use pki.Usage, alg pki.Algorithm) (*pki.Key, error)

// Renewer keeps one certificate valid. Its methods are safe for concurrent use.
type Renewer struct {
	cfg   Config
	file  string
	label string // of keys: its own, so that one without a certificate is known again
	poll  time.Duration
	wake  chan struct{}

	generate generator

	stepping sync.Mutex // one step at a time
	mu       sync.Mutex // guards st
	st       state
}

// New makes a Renewer, which does nothing until Run.
func New(cfg Config) (*Renewer, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Algorithm == "" {
		cfg.Algorithm = pki.P256
	}
	if err := cfg.Credentials.check(); err != nil {
		return nil, err
	}
	switch {
	case cfg.Token == nil || cfg.Accounts == nil || cfg.Responder == nil || cfg.Dir == "":
		return nil, errors.New("enrol: Token, Accounts, Responder and Dir are needed")
	case cfg.Usage != pki.Authentication && cfg.Usage != pki.Signing:
		return nil, fmt.Errorf("enrol: usage %q is neither authentication nor signing", cfg.Usage)
	case cfg.Member.IsZero():
		return nil, errors.New("enrol: the member is needed")
	case len(cfg.DNSNames) == 0:
		return nil, errors.New("enrol: at least one DNS name is needed: the server's, which the authority will ask")
	case cfg.RenewBefore < 0 || cfg.Validity < 0:
		return nil, errors.New("enrol: a duration cannot be negative")
	}
	if cfg.HTTP == nil {
		cfg.HTTP = cfg.Credentials.client()
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	// New credentials at the same authority go on with the same certificate.
	tag := fmt.Sprintf("%x", sha256.Sum256([]byte(cfg.Credentials.Directory+"\n"+cfg.Member.String())))[:10]
	r := &Renewer{
		cfg: cfg, poll: 2 * time.Second, wake: make(chan struct{}, 1), generate: cfg.Token.Generate,
		file:  filepath.Join(cfg.Dir, fmt.Sprintf("%s-%s.json", cfg.Usage, tag)),
		label: fmt.Sprintf("ACME %s %.150s %s", cfg.Usage, cfg.Member.LogString(), tag),
	}
	st, err := readState(r.file)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	r.st = st
	return r, nil
}

// Run keeps the certificate valid until ctx is done. Failures are logged, kept
// for Status and tried again, with growing pauses.
func (r *Renewer) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		next := r.Step(ctx)
		timer := time.NewTimer(min(max(next.Sub(r.cfg.Now()), time.Second), lookAgain))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-r.wake:
		}
		timer.Stop()
	}
	return nil
}

// Owns tells whether a key was made by this Renewer, or by an earlier one for
// the same usage, member and authority.
func (r *Renewer) Owns(k *pki.Key) bool { return k.Usage() == r.cfg.Usage && k.Label() == r.label }

// Renew demands a new certificate now, durably.
func (r *Renewer) Renew() error {
	err := r.change(func(s *state) { s.Forced, s.Wait = true, time.Time{} })
	select {
	case r.wake <- struct{}{}:
	default: // it wakes anyway
	}
	return err
}

// Status returns how the Renewer is doing.
func (r *Renewer) Status() Status {
	st := r.state()
	s := Status{Usage: r.cfg.Usage, Member: r.cfg.Member, Directory: r.cfg.Credentials.Directory, Failures: st.Failures,
		Error: st.Error, NextTry: st.Wait, Ordered: st.Order != ""}
	if _, cert := r.current(st); cert != nil {
		s.Certificate = cert
		if !st.Forced {
			s.RenewAt = r.renewAt(st, cert)
		}
	}
	return s
}

// Step does what is due, if anything, and returns when to step again. Run calls
// it; whoever has a schedule of his own may do so instead.
func (r *Renewer) Step(ctx context.Context) time.Time {
	r.stepping.Lock()
	defer r.stepping.Unlock()
	st := r.state()
	now := r.cfg.Now()
	if now.Before(st.Wait) {
		return st.Wait
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	// A step that is interrupted has not failed.
	if err := r.advance(ctx, st, now); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		err = r.fail(err)
		r.cfg.Log.Warn("certificate not renewed", zap.String("usage", string(r.cfg.Usage)), zap.Stringer("member", r.cfg.Member), zap.Error(err))
	}
	st = r.state()
	_, cert := r.current(st)
	switch {
	case now.Before(st.Wait):
		return st.Wait
	case cert == nil || !st.Delivered || st.Forced || st.AskAt.IsZero():
		return now
	case st.AskAt.Before(r.renewAt(st, cert)):
		return st.AskAt
	}
	return r.renewAt(st, cert)
}

// advance does the first thing that is due: deliver, obtain, or ask when.
func (r *Renewer) advance(ctx context.Context, st state, now time.Time) error {
	key, cert := r.current(st)
	if cert != nil && !st.Delivered {
		return r.deliver(ctx, key, cert)
	}
	if cert != nil && !st.Forced && !now.Before(st.AskAt) {
		r.ask(ctx, cert, now)
		st = r.state()
	}
	if cert != nil && !st.Forced && now.Before(r.renewAt(st, cert)) {
		return nil
	}
	key, cert, err := r.obtain(ctx)
	if err != nil {
		return explain(err)
	}
	return r.deliver(ctx, key, cert)
}

// fail records a failure and when to try again.
func (r *Renewer) fail(cause error) error {
	err := r.change(func(s *state) {
		s.Failures++
		s.Error = cause.Error()
		wait := min(firstRetry<<min(s.Failures-1, 10), lastRetry)
		if asked, limited := acme.RateLimit(rootCause(cause)); limited {
			wait = max(wait, min(asked, 24*time.Hour))
		}
		// Servers that failed together should not all come back together.
		wait += time.Duration(rand.Int64N(int64(wait)/10 + 1))
		s.Wait = r.cfg.Now().Add(wait)
	})
	return errors.Join(cause, err)
}

func rootCause(err error) error {
	var e *acme.Error
	if errors.As(err, &e) {
		return e
	}
	return err
}

func (r *Renewer) state() state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.st
}

// change alters the state, durably.
func (r *Renewer) change(edit func(*state)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.st
	edit(&next)
	if next == r.st {
		return nil
	}
	if err := next.write(r.file); err != nil {
		return fmt.Errorf("keep state of enrolment: %w", err)
	}
	r.st = next
	return nil
}

// current returns the newest certificate, unless somebody removed it.
func (r *Renewer) current(st state) (*pki.Key, *x509.Certificate) {
	hash, err := pki.ParseCertHash(st.Certificate)
	if err != nil {
		return nil, nil
	}
	key, cert, ok := r.cfg.Token.Certificate(hash)
	if !ok {
		return nil, nil
	}
	return key, cert.Cert
}

// renewAt is when to renew cert: as the authority suggests, but not in the last
// tenth of the lifetime, or else as configured.
func (r *Renewer) renewAt(st state, cert *x509.Certificate) time.Time {
	lifetime := cert.NotAfter.Sub(cert.NotBefore)
	if !st.RenewAt.IsZero() {
		if last := cert.NotAfter.Add(-lifetime / 10); last.Before(st.RenewAt) {
			return last
		}
		return st.RenewAt
	}
	if r.cfg.RenewBefore > 0 && r.cfg.RenewBefore < lifetime {
		return cert.NotAfter.Add(-r.cfg.RenewBefore)
	}
	return cert.NotAfter.Add(-lifetime / 3)
}

// deliver tells the owner of a certificate.
func (r *Renewer) deliver(ctx context.Context, key *pki.Key, cert *x509.Certificate) error {
	if r.cfg.OnCertificate != nil {
		if err := r.cfg.OnCertificate(ctx, key, cert); err != nil {
			return fmt.Errorf("take over the new certificate: %w", err)
		}
	}
	return r.change(func(s *state) { s.Delivered, s.Failures, s.Error, s.Wait = true, 0, "", time.Time{} })
}

// obtain gets a new certificate, going on where an earlier attempt stopped.
func (r *Renewer) obtain(ctx context.Context) (*pki.Key, *x509.Certificate, error) {
	key, err := r.newKey()
	if err != nil {
		return nil, nil, err
	}
	client := &acme.Client{HTTPClient: r.cfg.HTTP, DirectoryURL: r.cfg.Credentials.Directory, UserAgent: "kontor", RetryBackoff: backoff}
	if err := r.cfg.Accounts.open(ctx, client, &r.cfg.Credentials, r.cfg.Contact); err != nil {
		return nil, nil, &stepError{"open the account", err}
	}
	order, err := r.order(ctx, client)
	if err != nil {
		return nil, nil, err
	}
	if order.Status == acme.StatusPending {
		if err := r.authorise(ctx, client, order); err != nil {
			return nil, nil, err
		}
	}
	if order.Status == acme.StatusPending || order.Status == acme.StatusProcessing {
		uri := order.URI
		if order, err = client.WaitOrder(ctx, uri); err != nil {
			return nil, nil, &stepError{"wait for the order", err}
		}
		order.URI = uri
	}
	var chain [][]byte
	if order.Status == acme.StatusReady {
		csr, err := key.CSR(r.cfg.Subject, r.cfg.DNSNames)
		if err != nil {
			return nil, nil, err
		}
		if chain, _, err = client.CreateCertFromOrder(ctx, order, csr, true); err != nil {
			return nil, nil, &stepError{"finalise the order", err}
		}
	} else if chain, err = client.FetchCert(ctx, order.CertURL, true); err != nil {
		return nil, nil, &stepError{"download the certificate", err}
	}
	cert, err := r.accept(key, chain)
	if err != nil {
		// Asking for this order's certificate again would not help.
		return nil, nil, errors.Join(fmt.Errorf("the authority's certificate: %w", err), r.change(func(s *state) { s.Order = "" }))
	}
	// State and certificate are two files: the order is forgotten only when
	// the certificate is safe.
	return key, cert, r.change(func(s *state) {
		*s = state{Certificate: pki.HashOf(cert).Hex()}
	})
}

// newKey returns the key that waits for a certificate, or makes one.
func (r *Renewer) newKey() (*pki.Key, error) {
	waits := func(k *pki.Key) bool {
		return k.Label() == r.label && k.Usage() == r.cfg.Usage && len(k.Certificates()) == 0
	}
	if key, ok := r.cfg.Token.Key(r.state().Key); ok {
		return key, nil
	}
	keys := r.cfg.Token.Keys()
	var key *pki.Key
	if i := slices.IndexFunc(keys, waits); i >= 0 {
		key = keys[i] // made just before a crash
	} else {
		var err error
		if key, err = r.generate(r.label, r.cfg.Usage, r.cfg.Algorithm); err != nil {
			return nil, err
		}
	}
	// An order for another key is of no use.
	return key, r.change(func(s *state) { s.Key, s.Order = key.ID(), "" })
}

// order returns the order that is under way, or makes one.
func (r *Renewer) order(ctx context.Context, client *acme.Client) (*acme.Order, error) {
	if uri := r.state().Order; uri != "" {
		order, err := client.GetOrder(ctx, uri)
		var problem *acme.Error
		switch {
		case err == nil && order.Status != acme.StatusInvalid:
			order.URI = uri
			return order, nil
		case err != nil && !(errors.As(err, &problem) && problem.StatusCode >= 400 && problem.StatusCode < 500):
			return nil, &stepError{"resume the order", err}
		}
		// It expired, was refused, or belonged to another account.
		if err := r.change(func(s *state) { s.Order = "" }); err != nil {
			return nil, err
		}
	}
	var opts []acme.OrderOption
	if r.cfg.Validity > 0 {
		opts = append(opts, acme.WithOrderNotAfter(r.cfg.Now().Add(r.cfg.Validity).UTC().Truncate(time.Second)))
	}
	order, err := client.AuthorizeOrder(ctx, acme.DomainIDs(r.cfg.DNSNames...), opts...)
	if err != nil {
		return nil, &stepError{"order a certificate", err}
	}
	return order, r.change(func(s *state) { s.Order = order.URI })
}

// authorise answers the challenges of an order.
func (r *Renewer) authorise(ctx context.Context, client *acme.Client, order *acme.Order) error {
	for _, uri := range order.AuthzURLs {
		az, err := client.GetAuthorization(ctx, uri)
		if err != nil {
			return &stepError{"authorise the name", err}
		}
		if az.Status == acme.StatusValid {
			continue
		}
		i := slices.IndexFunc(az.Challenges, func(c *acme.Challenge) bool { return c.Type == "http-01" })
		if i < 0 {
			return fmt.Errorf("the authority offers no http-01 challenge for %s, and others are not supported", az.Identifier.Value)
		}
		answer, err := client.HTTP01ChallengeResponse(az.Challenges[i].Token)
		if err != nil {
			return err
		}
		remove := r.cfg.Responder.set(client.HTTP01ChallengePath(az.Challenges[i].Token), answer)
		err = r.prove(ctx, client, uri, az)
		remove()
		if err != nil {
			return err
		}
	}
	return nil
}

// maxProofs bounds how often the authority is asked to look at a challenge:
// some look only when asked, and some give up only when asked again.
const maxProofs = 5

func (r *Renewer) prove(ctx context.Context, client *acme.Client, uri string, az *acme.Authorization) error {
	name := az.Identifier.Value
	for try := 0; ; try++ {
		i := slices.IndexFunc(az.Challenges, func(c *acme.Challenge) bool { return c.Type == "http-01" })
		if i < 0 {
			return fmt.Errorf("the authority withdrew its challenge for %s", name)
		}
		challenge := az.Challenges[i]
		switch {
		case az.Status == acme.StatusValid:
			return nil
		case az.Status != acme.StatusPending || challenge.Status == acme.StatusInvalid || try == maxProofs:
			return &challengeError{name, challenge.Error}
		}
		if challenge.Status == acme.StatusPending {
			if _, err := client.Accept(ctx, challenge); err != nil {
				return &stepError{"answer the challenge", err}
			}
		}
		// A challenge that is being looked at needs patience, not a new try.
		for looks := 0; looks < 10; looks++ {
			if looks > 0 || try > 0 {
				if err := pause(ctx, r.poll); err != nil {
					return &challengeError{name, challenge.Error}
				}
			}
			next, err := client.GetAuthorization(ctx, uri)
			if err != nil {
				return &stepError{"authorise the name", err}
			}
			az = next
			if j := slices.IndexFunc(az.Challenges, func(c *acme.Challenge) bool { return c.Type == "http-01" }); az.Status != acme.StatusPending ||
				j < 0 || az.Challenges[j].Status != acme.StatusProcessing && az.Challenges[j].Error != nil {
				break
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// accept judges a downloaded chain and puts its leaf into the token.
func (r *Renewer) accept(key *pki.Key, der [][]byte) (*x509.Certificate, error) {
	var chain []*x509.Certificate
	for _, b := range der {
		c, err := x509.ParseCertificate(b)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("there is none")
	}
	leaf, now := chain[0], r.cfg.Now()
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(leaf.PublicKey) {
		return nil, errors.New("it is for another key")
	}
	if now.After(leaf.NotAfter) || now.Add(time.Hour).Before(leaf.NotBefore) {
		return nil, fmt.Errorf("it is valid from %s to %s; check the clocks", leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339))
	}
	if r.cfg.Check != nil {
		if err := r.cfg.Check(chain); err != nil {
			return nil, err
		}
	}
	status := pki.CertStatus{State: pki.StateSaved}
	if r.cfg.Usage == pki.Signing {
		status.State = pki.StateRegistered // nobody registers signing certificates
	}
	// It exists if a crash came before the state was written.
	if _, err := r.cfg.Token.AddCertificate(leaf, status); err != nil && !errors.Is(err, pki.ErrCertificateExists) {
		return nil, err
	}
	return leaf, nil
}

// backoff lets the client try again a few times within one attempt.
func backoff(n int, _ *http.Request, _ *http.Response) time.Duration {
	if n > 3 {
		return -1
	}
	return time.Duration(n) * 500 * time.Millisecond
}

// stepError says where an attempt stopped.
type stepError struct {
	what  string
	cause error
}

func (e *stepError) Error() string { return e.what + ": " + e.cause.Error() }
func (e *stepError) Unwrap() error { return e.cause }

// challengeError is a name that was not proven.
type challengeError struct {
	name  string
	cause error // what the authority says; may be nil
}

func (e *challengeError) Error() string {
	why := "it says no more"
	var problem *acme.Error
	if errors.As(e.cause, &problem) {
		why = problem.Detail
	} else if e.cause != nil {
		why = e.cause.Error()
	}
	return fmt.Sprintf("the authority could not confirm that %s is this server: %s", e.name, why)
}
func (e *challengeError) Unwrap() error { return e.cause }

// explain adds what to do.
func explain(err error) error {
	remedy := ""
	var challenge *challengeError
	var problem *acme.Error
	var network net.Error
	switch {
	case errors.As(err, &challenge):
		remedy = "let http://" + challenge.name + "/.well-known/acme-challenge/ on port 80 lead to the address where this server answers challenges"
	case errors.As(err, &problem):
		remedy = remedies[problem.ProblemType]
	case errors.As(err, &network):
		remedy = "check that the authority runs and that its address is right; it is tried again by itself"
	}
	if remedy == "" {
		return err
	}
	return fmt.Errorf("%w; %s", err, remedy)
}

const problemPrefix = "urn:ietf:params:acme:error:"

var remedies = map[string]string{
	problemPrefix + "externalAccountRequired": "ask the authority's operator for an external account binding and put it into the credentials file",
	problemPrefix + "unauthorized":            "check the external account binding in the credentials file, or ask the authority's operator for a new one",
	problemPrefix + "rejectedIdentifier":      "order for a name that the authority accepts for this member",
	problemPrefix + "badCSR":                  "check usage, subject and names against the authority's profile and the external account binding",
	problemPrefix + "rateLimited":             "it is tried again by itself, later",
	problemPrefix + "serverInternal":          "ask the authority's operator to look into its log; it is tried again by itself",
	problemPrefix + "userActionRequired":      "agree to the authority's terms of service",
}
