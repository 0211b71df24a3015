// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"kontor/gateway/serverconf"
	"kontor/pki"
	"kontor/registry/globalconf"
	"kontor/registry/guard"
	"kontor/registry/id"
	"kontor/registry/management/request"
)

// askPatience is how long a request to the registry may take.
const askPatience = 45 * time.Second

// Codes of problems with requests to the registry.
const (
	CodeDeclined       = "declined"         // the registry's operator said no
	CodeRefusedThere   = "registry_refused" // the registry did not accept the request
	CodeRequestPending = "request_pending"  // another request about the same waits for a decision
)

// requestFile is where the SOAP of a request is kept, so that the same request
// can be asked for again. There is one per service and subject.
func (a *API) requestFile(r *request.Request) string {
	sum := sha256.Sum256([]byte(r.Client.String() + "\n" + string(r.Certificate)))
	return filepath.Join(a.Requests, string(r.Service)+"-"+hex.EncodeToString(sum[:12])+".xml")
}

// keptRequest returns the request that is kept for the same service and
// subject, or nil. One to or from others than today is not asked for again.
func (a *API) keptRequest(r *request.Request) (*request.Request, []byte, error) {
	soap, err := os.ReadFile(a.requestFile(r))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	kept, err := request.Parse(soap)
	if err != nil || kept.Provider != r.Provider || kept.Sender != r.Sender || kept.Server != r.Server {
		return nil, nil, nil
	}
	return kept, soap, nil
}

// keepRequest keeps a new request before it is sent.
func (a *API) keepRequest(r *request.Request) ([]byte, error) {
	r.ID = uuid.NewString()
	soap, err := r.SOAP()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(a.Requests, 0o700); err != nil {
		return nil, err
	}
	if err := removeIfThere(a.declinedFile(r)); err != nil {
		return nil, err
	}
	return soap, guard.WriteFile(a.requestFile(r), soap)
}

// forgetRequest makes the next request a new one.
func (a *API) forgetRequest(r *request.Request) error {
	return errors.Join(removeIfThere(a.requestFile(r)), removeIfThere(a.declinedFile(r)))
}

func removeIfThere(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// declinedFile holds what the registry said when it declined the last request
// to a service about a subject.
func (a *API) declinedFile(r *request.Request) string {
	return strings.TrimSuffix(a.requestFile(r), ".xml") + ".declined"
}

// declined returns what the registry said when it declined the last request;
// empty: it has not.
func (a *API) declined(r *request.Request) string {
	text, err := os.ReadFile(a.declinedFile(r))
	if err != nil { // as a rule there is none; kontor cert and client register tell, too
		return ""
	}
	return string(text)
}

// declinedNext says what to do after a request was declined.
func declinedNext(reason, command string) string {
	return "the registry says: " + reason + "; see to that, then send a new request (" + command + ")"
}

// ask sends a request to the registry and returns its number there. If the
// outcome of an earlier one for the same service and subject is not known to be
// final, that very message is sent again, and its answer tells what became of it.
// declined, if not nil, notes that the registry said no. a.asking is held.
func (a *API) ask(ctx context.Context, to *request.Client, r *request.Request, auth, member *request.Credential, declined func(reason string) error) (uint64, error) {
	kept, soap, err := a.keptRequest(r)
	if err != nil {
		return 0, err
	}
	if kept == nil {
		if soap, err = a.keepRequest(r); err != nil {
			return 0, err
		}
	}
	m, err := request.Seal(soap, auth, member)
	if err != nil {
		return 0, err
	}
	// Whoever asked may hang up; what the registry says is still of interest.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askPatience)
	defer cancel()
	number, err := to.Send(ctx, m)
	switch fault := (*request.Fault)(nil); {
	case errors.As(err, &fault) && strings.Contains(fault.Code, "proxy."):
		if kept == nil && undelivered(fault) {
			if err := a.forgetRequest(r); err != nil {
				return 0, err
			}
		}
		return 0, problem(http.StatusServiceUnavailable, guard.CodeUnavailable, "see to the reason, then repeat the call",
			"the request did not get through to the management services: %s (%s)", fault.Text, fault.Code)
	case errors.As(err, &fault) && undecided(fault):
		return 0, problem(http.StatusServiceUnavailable, guard.CodeUnavailable, "repeat the call later; the same request is sent again",
			"the registry does not decide now: %s (%s)", fault.Text, fault.Code)
	case errors.As(err, &fault):
		if errors.Is(fault, &request.Fault{Code: request.CodeDeclined}) || errors.Is(fault, &request.Fault{Code: request.CodeRevoked}) {
			if err := guard.WriteFile(a.declinedFile(r), []byte(fault.Text)); err != nil {
				return 0, err
			}
			// Last, and of a registration after its state: whatever fails in
			// between is made up for when the request is sent again.
			if declined != nil {
				if err := declined(fault.Text); err != nil {
					return 0, err
				}
			}
			if err := removeIfThere(a.requestFile(r)); err != nil {
				return 0, err
			}
			return 0, problem(http.StatusConflict, CodeDeclined, "see to the reason, then repeat the call: it sends a new request", "the registry says: %s", fault.Text)
		}
		if err := a.forgetRequest(r); err != nil {
			return 0, err
		}
		return 0, problem(http.StatusConflict, CodeRefusedThere, "see to the reason, then repeat the call", "the registry refused the request: %s (%s)", fault.Text, fault.Code)
	case err != nil:
		return 0, problem(http.StatusServiceUnavailable, guard.CodeUnavailable,
			"see to it that this machine reaches the registry, then repeat the call; the same request is sent again", "the registry could not be asked: %v", err)
	case kept != nil && (kept.Address != r.Address || kept.Name != r.Name):
		return 0, problem(http.StatusConflict, CodeRequestPending, "have the registry decline that one first, or repeat the call with what it says",
			"request %d, with address %q and name %q, waits at the registry", number, kept.Address, kept.Name)
	}
	if !decidedLater(r.Service) {
		return number, a.forgetRequest(r)
	}
	return number, nil
}

// decidedLater tells whether requests to a service wait for a decision; all
// others are carried out when they are answered.
func decidedLater(s request.Service) bool {
	return s == request.AuthCertReg || s == request.ClientReg || s == request.OwnerChange
}

// manage sends a request through the client proxy of this security server, in
// the name of its owner. a.asking is held.
func (a *API) manage(ctx context.Context, view *globalconf.View, r *request.Request, declined func(reason string) error) (uint64, error) {
	if err := a.ownerIsClient(view); err != nil {
		return 0, err
	}
	var member *request.Credential
	if r.Service.Signed() {
		signer := a.Server.Owner()
		if r.Service.HasClient() {
			signer = r.Client.Member()
		}
		var err error
		if member, err = a.memberCredential(ctx, signer); err != nil {
			return 0, err
		}
	}
	return a.ask(ctx, a.Manage, r, nil, member, declined)
}

// ownerIsClient sees to it that the owner may send messages: it is a client of
// its own security server as soon as that is registered.
func (a *API) ownerIsClient(view *globalconf.View) error {
	owner := a.Server.Owner().Client()
	if !view.Registered(a.Server, owner) {
		return problem(http.StatusConflict, "not_registered", "register an authentication certificate first (kontor cert register), and wait for its approval",
			"the registry does not list this security server")
	}
	if c, ok := a.Conf.Conf().Client(owner); ok && c.Registered() {
		return nil
	}
	return a.update(func(m *serverconf.Model) error {
		e, err := entry(m, owner)
		if err != nil {
			m.Clients = append(m.Clients, serverconf.ClientEntry{ID: owner, Status: serverconf.Registered})
			return nil
		}
		e.Status = clientStatus(e.Status, true)
		return nil
	})
}

// undelivered tells whether a security server on the way says that the message
// has not come to the service. Other faults of theirs leave that open.
func undelivered(f *request.Fault) bool {
	return slices.ContainsFunc([]string{"unknown_member", "unknown_service", "access_denied", "service_disabled"}, func(code string) bool {
		return errors.Is(f, &request.Fault{Code: code})
	})
}

// undecided tells whether a fault says nothing about the request itself.
func undecided(f *request.Fault) bool {
	return errors.Is(f, &request.Fault{Code: request.CodeOutdated}) ||
		errors.Is(f, &request.Fault{Code: request.CodeInternal}) && !strings.Contains(f.Text, " with statusCode ")
}

// validView returns the global configuration if it may be relied on.
func (a *API) validView() (*globalconf.View, error) {
	view := a.View()
	if view == nil || view.Valid(a.Now()) != nil {
		return nil, noView()
	}
	return view, nil
}

// newRequest returns a request from this security server, but for its content.
func (a *API) newRequest(view *globalconf.View, s request.Service) (*request.Request, error) {
	_, _, provider := view.Management()
	if provider.IsZero() {
		return nil, problem(http.StatusConflict, "no_management", "have the registry set its management provider", "the global configuration names no management services")
	}
	return &request.Request{Service: s, Sender: a.Server.Owner().Client(), Provider: provider, Server: a.Server}, nil
}

// memberCredential returns the first usable signing key of a member, with a
// good OCSP response.
func (a *API) memberCredential(ctx context.Context, m id.Member) (*request.Credential, error) {
	find := func() (*request.Credential, string) {
		why := "it has no active, registered signing certificate"
		for _, s := range a.Signer.Status() {
			if s.Usage != pki.Signing || s.Member != m || !s.Active || s.State != pki.StateRegistered {
				continue
			}
			if !s.Usable {
				why = s.Problem
				continue
			}
			for _, k := range a.Token.Keys() {
				for _, tc := range k.Certificates() {
					if pki.HashOf(tc.Cert).Hex() != s.Hash {
						continue
					}
					if der, ok := a.Signer.OCSP(s.Hash); ok {
						return &request.Credential{Key: k.Signer(), Cert: tc.Cert, OCSP: der}, ""
					}
				}
			}
		}
		return nil, why
	}
	c, _ := find()
	if c == nil {
		refresh, cancel := context.WithTimeout(ctx, activationPatience)
		defer cancel()
		_ = a.Signer.Refresh(refresh) // what is still missing then is told
		var why string
		if c, why = find(); c == nil {
			return nil, problem(http.StatusConflict, "no_signing_key", "see kontor cert list; import and activate a signing certificate of "+m.String(),
				"%s cannot sign the request: %s", m, why)
		}
	}
	return c, nil
}
