// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"kontor/gateway/renewal"
	"kontor/pki"
	"kontor/registry/guard"
	"kontor/registry/id"
)

// Renewal is what the API needs of the renewal of certificates by ACME.
type Renewal interface {
	Status() []renewal.Enrolment
	// Renew demands a certificate now: renewal.ErrUnknown.
	Renew(use pki.Usage, member id.Member) error
}

// RenewNow demands a certificate by ACME before its time.
type RenewNow struct {
	Usage  pki.Usage `json:"usage" enum:"authentication,signing"`
	Member string    `json:"member,omitempty" doc:"For signing: whose messages it signs; default: the owner"`
}

func (a *API) registerEnrolments() {
	register(a, operation{id: "list-enrolments", method: http.MethodGet, path: "/enrolments", summary: "List the certificates that the gateway gets by ACME, and how they fare",
		roles: readers()}, a.listEnrolments)
	register(a, operation{id: "renew-certificate", method: http.MethodPost, path: "/enrolments/renew", summary: "Get a certificate by ACME now", status: http.StatusAccepted,
		description: "The old certificate stays in use until the new one can be used.", roles: []string{RoleSecurityOfficer}}, a.renewCertificate)
}

func (a *API) enrolments() []renewal.Enrolment {
	if a.Renewal == nil {
		return nil
	}
	return a.Renewal.Status()
}

func (a *API) listEnrolments(context.Context, *none) (*list[renewal.Enrolment], error) {
	return answerList(a.enrolments()), nil
}

func (a *API) renewCertificate(ctx context.Context, in *struct{ Body RenewNow }) (*struct{}, error) {
	member := a.Server.Owner()
	if in.Body.Member != "" {
		var err error
		if member, err = id.ParseMember(in.Body.Member); err != nil {
			return nil, invalid("give it as instance/class/code", "member: %v", err)
		}
	}
	err := renewal.ErrUnknown
	if a.Renewal != nil {
		err = a.Renewal.Renew(in.Body.Usage, member)
	}
	if errors.Is(err, renewal.ErrUnknown) {
		return nil, problem(http.StatusNotFound, guard.CodeUnknown, "list them (kontor cert enrol status); acme.certificates of the configuration says which there are",
			"the gateway gets no certificate for %s of %s by ACME", in.Body.Usage, member)
	}
	if err != nil {
		return nil, err
	}
	note(ctx, "get a certificate for %s of %s by ACME now", in.Body.Usage, member)
	return nil, nil
}

// SetActive changes what nobody has asked for: a certificate was renewed.
func (a *API) SetActive(hash pki.CertHash, active bool, why string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, tc, ok := a.Token.Certificate(hash)
	if !ok {
		return pki.ErrNoCertificate
	}
	what := "deactivate"
	if active {
		what = "activate"
	}
	tc.Status.Active = active
	return a.unasked("renew-certificate", "certificate "+hash.Hex(), what, why, a.Token.SetCertificate(hash, tc.Status))
}

// Register asks the registry to register an authentication certificate, at the
// address that it knows. What it has declined is not asked for again:
// renewal.ErrDeclined.
func (a *API) Register(ctx context.Context, hash pki.CertHash, why string) error {
	return a.ofItself(hash, "register-certificate", why, func(k *pki.Key, tc pki.TokenCert) (uint64, error) {
		if reason := a.declined(registrationOf(tc.Cert)); reason != "" {
			return 0, fmt.Errorf("%w: %s", renewal.ErrDeclined, reason)
		}
		return a.requestRegistration(ctx, k, tc, "")
	})
}

// Unregister asks the registry to remove an authentication certificate that is
// not the last one.
func (a *API) Unregister(ctx context.Context, hash pki.CertHash, why string) error {
	return a.ofItself(hash, "unregister-certificate", why, func(k *pki.Key, tc pki.TokenCert) (uint64, error) {
		return a.requestRemoval(ctx, k, tc, false)
	})
}

// ofItself sends a request about a certificate that nobody has asked for.
func (a *API) ofItself(hash pki.CertHash, operation, why string, ask func(*pki.Key, pki.TokenCert) (uint64, error)) error {
	a.asking.Lock()
	defer a.asking.Unlock()
	k, tc, ok := a.Token.Certificate(hash)
	if !ok {
		return pki.ErrNoCertificate
	}
	number, err := ask(k, tc)
	if errors.Is(err, renewal.ErrDeclined) {
		return err // was recorded when it was declined
	}
	what := "no request"
	if err == nil {
		what = fmt.Sprintf("request %d", number)
	}
	return a.unasked(operation, "certificate "+hash.Hex(), what, why, err)
}

// RemoveKey deletes a key that nobody needs any more.
func (a *API) RemoveKey(key, why string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unasked("delete-key", "key "+key, "delete", why, a.Token.RemoveKey(key))
}

// unasked records a change by the gateway itself.
func (a *API) unasked(operation, target, what, why string, err error) error {
	r := &guard.Record{Time: a.Now().UTC(), Who: "gateway", Operation: operation, Target: target, What: []string{what}, Why: why, Outcome: guard.Done}
	if err != nil {
		r.Outcome, r.Text = guard.Failed, err.Error()
	}
	return errors.Join(err, a.Audit.Append(r))
}

// Enrolments returns the certificates that the gateway gets by ACME.
func (c *Client) Enrolments(ctx context.Context) ([]renewal.Enrolment, error) {
	return getAll[renewal.Enrolment](ctx, c, path("enrolments"), nil)
}

// RenewCertificate demands a certificate by ACME now.
func (c *Client) RenewCertificate(ctx context.Context, r RenewNow) error {
	return c.bare(ctx, guard.Request{Method: http.MethodPost, Path: path("enrolments", "renew"), Body: r})
}
