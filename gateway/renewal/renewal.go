// SPDX-License-Identifier: Apache-2.0

// Package renewal keeps the certificates of a security server valid by ACME,
// and changes from an old certificate to its successor while messages flow.
//
// A new certificate becomes active beside the old one: a signing certificate
// at once, an authentication certificate when the global configuration lists
// it, which the registry is asked for. The old one is deactivated when the new
// one can be used: by us, and for authentication also in the eyes of every
// peer. A day later the registry is asked to remove it. An operator who decides
// otherwise later is not contradicted: a certificate is taken over once.
package renewal

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"kontor/gateway/signer"
	"kontor/pki"
	"kontor/pki/enrol"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

var (
	// ErrUnknown: no such certificate is looked after.
	ErrUnknown = errors.New("this gateway gets no such certificate by ACME")
	// ErrDeclined: the registry has declined to register a certificate, and is
	// not asked again.
	ErrDeclined = errors.New("the registry declined")
)

const (
	// lookEvery is how often what has changed is looked at.
	lookEvery = time.Second
	// sweepEvery is how often old keys are looked for.
	sweepEvery = time.Hour
	// keepKeys is how long keys are kept after their certificates have ended.
	keepKeys = 30 * 24 * time.Hour
	// keepListed is how long the registry lists a replaced certificate, which an
	// operator may need again.
	keepListed = 24 * time.Hour
	// The registry is asked again askAgain after a failure, then after twice that
	// and so on, and at least every askAtLeast.
	askAgain, askAtLeast = time.Minute, time.Hour
	// validity is what X-Road asks for.
	validity = 365 * 24 * time.Hour
)

// Certificate is one to look after.
type Certificate struct {
	Usage       pki.Usage
	Member      id.Member // the owner of the server for authentication
	Profile     string    // empty: that of the only approved authority
	Credentials enrol.Credentials
}

// Token changes certificates and keys of the token as an operator does: not
// while another change is being decided, and recorded.
type Token interface {
	SetActive(hash pki.CertHash, active bool, why string) error
	RemoveKey(id, why string) error
	// Register asks the registry to list an authentication certificate, and does
	// nothing more when it was asked already: ErrDeclined.
	Register(ctx context.Context, hash pki.CertHash, why string) error
	// Unregister asks the registry not to list it any more, but not if nobody
	// knows this security server by another one.
	Unregister(ctx context.Context, hash pki.CertHash, why string) error
}

// Signer tells the usability of every certificate of the token. It fetches OCSP
// responses for those that are active.
type Signer interface {
	Status() []signer.KeyStatus
}

// Config holds what a Service needs. All fields without a stated default are
// mandatory, unless there are no Certificates.
type Config struct {
	Server       id.SecurityServer
	Dir          string // of the state
	Token        *pki.Token
	Accounts     *enrol.Accounts
	Signer       Signer
	View         func() *globalconf.View // may return nil
	Certificates []Certificate           // at most one per usage and member
	DNSName      string                  // of this server; the challenges' Responder is reached there
	Country      string                  // two letters, for profiles that show it; may be empty
	RenewBefore  time.Duration           // as in enrol.Config
	Responder    *enrol.Responder
	Now          func() time.Time // nil: time.Now
	Log          *zap.Logger      // nil: silence
}

// Enrolment is how one certificate fares.
type Enrolment struct {
	Usage       pki.Usage `json:"usage" enum:"authentication,signing"`
	Member      string    `json:"member"`
	Directory   string    `json:"directory" doc:"Of the ACME authority"`
	Certificate string    `json:"certificate,omitempty" doc:"The newest, SHA-256 of its DER form, in hex"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	RenewAt     time.Time `json:"renew_at,omitzero" doc:"When it is renewed; absent: as soon as possible"`
	InUse       bool      `json:"in_use" doc:"The newest certificate has taken the place of the old one"`
	Failures    int       `json:"failures,omitempty" doc:"In a row"`
	NextTry     time.Time `json:"next_try,omitzero" doc:"After failures"`
	Problem     string    `json:"problem,omitempty" doc:"The last failure, and what to do"`
	Now         string    `json:"now" doc:"What is going on, or waited for"`
}

// Service looks after certificates. It is safe for concurrent use.
type Service struct {
	cfg     Config
	entries []*entry

	mu    sync.Mutex // guards taken and its file
	taken map[string]takeover
}

// takeover is what is kept of the last certificate that was taken over.
type takeover struct {
	Certificate string `json:"certificate,omitempty"` // SHA-256 in hex
	// Replaced are certificates that the registry is to remove, and since when
	// they were replaced.
	Replaced map[string]time.Time `json:"replaced,omitempty"`
}

// New makes a Service, which does nothing until Run.
func New(cfg Config) (*Service, error) {
	if len(cfg.Certificates) == 0 {
		return &Service{}, nil
	}
	if cfg.Server.IsZero() || cfg.Dir == "" || cfg.Token == nil || cfg.Accounts == nil || cfg.Signer == nil || cfg.View == nil ||
		cfg.DNSName == "" || cfg.Responder == nil {
		return nil, errors.New("renewal: incomplete configuration")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("renewal: %w", err)
	}
	s := &Service{cfg: cfg, taken: map[string]takeover{}}
	b, err := os.ReadFile(s.takenFile())
	if err == nil {
		err = json.Unmarshal(b, &s.taken)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("renewal: %s: %w", s.takenFile(), err)
	}
	for _, c := range cfg.Certificates {
		s.entries = append(s.entries, &entry{Service: s, Certificate: c})
	}
	return s, nil
}

// Run looks after the certificates until ctx is done.
func (s *Service) Run(ctx context.Context, token Token) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, e := range s.entries {
		g.Go(func() error { return e.run(ctx, token) })
	}
	return g.Wait()
}

// Status tells how the certificates fare, in the order of the configuration.
func (s *Service) Status() []Enrolment {
	all := []Enrolment{}
	for _, e := range s.entries {
		all = append(all, e.status())
	}
	return all
}

// Renew demands a new certificate now: ErrUnknown.
func (s *Service) Renew(use pki.Usage, member id.Member) error {
	for _, e := range s.entries {
		if e.Usage != use || e.Member != member {
			continue
		}
		if r := e.get(); r != nil {
			return r.Renew()
		}
		return nil // it begins by itself
	}
	return fmt.Errorf("%w: %s of %s", ErrUnknown, use, member)
}

// What was taken over, by usage and member.
func (s *Service) takenFile() string { return filepath.Join(s.cfg.Dir, "taken.json") }

func (s *Service) tookOver(e *entry) takeover {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.taken[e.name()]
	t.Replaced = maps.Clone(t.Replaced)
	return t
}

// takeOver keeps what was or is about to be taken over, durably.
func (s *Service) takeOver(e *entry, t takeover) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.taken[e.name()]
	s.taken[e.name()] = t
	b, err := json.MarshalIndent(s.taken, "", "  ")
	if err == nil {
		err = writeFile(s.takenFile(), append(b, '\n'))
	}
	if err != nil {
		s.taken[e.name()] = old
		return fmt.Errorf("keep what was taken over: %w", err)
	}
	return nil
}

// writeFile replaces a file: after a crash the old or the new contents are
// there, either of which is good, so that the folder needs no sync.
func writeFile(file string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails, as it should, once renamed
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// entry is one certificate that is looked after.
type entry struct {
	*Service
	Certificate
	change change    // of run alone
	swept  time.Time // of run alone

	mu      sync.Mutex     // guards what follows
	renewer *enrol.Renewer // nil until the global configuration tells the profile
	waits   string         // for what
}

func (e *entry) name() string { return string(e.Usage) + " " + e.Member.String() }

func (e *entry) get() *enrol.Renewer {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.renewer
}

func (e *entry) wait(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waits = what
}

func (e *entry) status() Enrolment {
	e.mu.Lock()
	r, waits := e.renewer, e.waits
	e.mu.Unlock()
	out := Enrolment{Usage: e.Usage, Member: e.Member.String(), Directory: e.Credentials.Directory, Now: waits}
	if r == nil {
		return out
	}
	st := r.Status()
	out.RenewAt, out.Failures, out.NextTry, out.Problem = st.RenewAt, st.Failures, st.NextTry, st.Error
	if st.Certificate != nil {
		out.Certificate, out.NotAfter = pki.HashOf(st.Certificate).Hex(), st.Certificate.NotAfter
		out.InUse = e.tookOver(e).Certificate == out.Certificate
	}
	switch {
	case st.Failures > 0:
		out.Now = "tries again later"
	case st.Ordered || st.RenewAt.IsZero():
		out.Now = "asks the authority for a certificate"
	case out.InUse:
		out.Now = "in use"
	}
	return out
}

// run waits until it is known what to ask for, asks, and takes over what comes.
func (e *entry) run(ctx context.Context, token Token) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	g, ctx := errgroup.WithContext(ctx)
	for {
		view := e.cfg.View()
		if view != nil && view.Valid(e.cfg.Now()) != nil {
			view = nil
		}
		r := e.get()
		if r == nil {
			var err error
			if r, err = e.prepare(view); err != nil {
				e.wait(err.Error())
			} else {
				g.Go(func() error { return r.Run(ctx) })
			}
		}
		if r != nil && view != nil {
			e.look(ctx, r, view, token)
		}
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-ticker.C:
		}
	}
}

// look does what is due. Only run calls it.
func (e *entry) look(ctx context.Context, r *enrol.Renewer, view *globalconf.View, token Token) {
	if err := e.change.step(ctx, e, r, view, token); err != nil {
		e.wait(err.Error())
		e.cfg.Log.Error("a change of certificates is not done yet; it is tried again", zap.String("certificate", e.name()), zap.Error(err))
	}
	if now := e.cfg.Now(); now.Sub(e.swept) >= sweepEvery {
		e.swept = now
		e.sweep(r, view, token)
	}
}

// prepare makes the Renewer when the global configuration tells how.
func (e *entry) prepare(view *globalconf.View) (*enrol.Renewer, error) {
	if view == nil {
		return nil, errors.New("waits for a valid global configuration")
	}
	profile, err := e.profile(view)
	if err != nil {
		return nil, err
	}
	params := pki.SubjectParams{Server: e.cfg.Server, Member: e.Member, MemberName: view.Name(e.Member.Client()), DNSName: e.cfg.DNSName, Country: e.cfg.Country}
	subject := profile.SignSubject
	if e.Usage == pki.Authentication {
		subject = profile.AuthSubject
	}
	raw, err := subject(params)
	if err != nil {
		return nil, fmt.Errorf("cannot make the subject, %w; the registry must know the member, and acme.country be set for profiles that show it", err)
	}
	r, err := enrol.New(enrol.Config{
		Dir: e.cfg.Dir, Token: e.cfg.Token, Accounts: e.cfg.Accounts, Credentials: e.Credentials, Usage: e.Usage, Member: e.Member,
		Subject: raw, DNSNames: []string{e.cfg.DNSName}, Validity: validity, RenewBefore: e.cfg.RenewBefore, Responder: e.cfg.Responder,
		Check: e.check, OnCertificate: e.arrived, Now: e.cfg.Now, Log: e.cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.renewer, e.waits = r, ""
	return r, nil
}

func (e *entry) profile(view *globalconf.View) (pki.Profile, error) {
	class := e.Profile
	if class == "" {
		found := 0
		for _, s := range view.CertificationServices(view.Instance()) {
			if e.Usage == pki.Authentication || !s.AuthenticationOnly {
				class, found = s.Profile, found+1
			}
		}
		if found != 1 {
			return nil, fmt.Errorf("%d authorities are approved for %s; set profile in acme.certificates", found, e.Usage)
		}
	}
	p, ok := pki.ProfileByClass(class)
	if !ok {
		return nil, fmt.Errorf("the certificate profile %q is not known; set profile in acme.certificates", class)
	}
	return p, nil
}

// check refuses what peers would refuse.
func (e *entry) check(certs []*x509.Certificate) error {
	view := e.cfg.View()
	if view == nil {
		return signer.ErrNoView
	}
	chain, err := pki.VerifyChain(certs[0], certs[1:], view, e.cfg.Now())
	if err != nil {
		return fmt.Errorf("%w; the registry must approve the authority", err)
	}
	if e.Usage == pki.Authentication {
		return nil
	}
	if chain.Anchor.AuthenticationOnly || chain.Anchor.Profile == nil {
		return fmt.Errorf("the authority %q is not approved for signing", chain.Anchor.Name)
	}
	member, err := chain.Anchor.Profile.Member(certs[0], view.Instance())
	if err == nil && member != e.Member {
		err = fmt.Errorf("it is for %s, not for %s", member, e.Member)
	}
	return err
}

// arrived tells the operator; step does the rest, also after a restart.
func (e *entry) arrived(_ context.Context, key *pki.Key, cert *x509.Certificate) error {
	e.cfg.Log.Info("new certificate", zap.String("usage", string(e.Usage)), zap.Stringer("member", e.Member), zap.String("key", key.ID()),
		zap.String("certificate", pki.HashOf(cert).Hex()), zap.Time("until", cert.NotAfter))
	return nil
}
