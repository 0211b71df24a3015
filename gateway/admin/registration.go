// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"crypto/x509"
	"net/http"

	"kontor/pki"
	"kontor/registry/globalconf"
	"kontor/registry/guard"
	"kontor/registry/management/request"
)

// NewRegistration asks for the registration of an authentication certificate.
type NewRegistration struct {
	Address string `json:"address,omitempty" maxLength:"255" doc:"Host name or IP address at which other security servers reach this one; default: the registered one"`
}

// Registration is a request for registration that the registry has.
type Registration struct {
	Request     uint64      `json:"request" doc:"Its number at the registry"`
	Certificate Certificate `json:"certificate"`
}

func (a *API) registerRegistration() {
	register(a, operation{id: "register-certificate", method: http.MethodPost, path: "/certificates/{hash}/register",
		summary: "Have the registry register an authentication certificate for this security server",
		description: "The request is signed by the authentication key and by the owner's signing key. Until its outcome is final, a repeated call " +
			"sends the very same request again, which tells what became of it: a declined one is answered with the reason, and the next call sends a new one.",
		roles: []string{RoleSecurityOfficer, RoleRegistrationOfficer}}, a.registerCertificate)
	register(a, operation{id: "unregister-certificate", method: http.MethodPost, path: "/certificates/{hash}/unregister",
		summary:     "Have the registry remove an authentication certificate, or a request that waits for approval",
		description: "Refused for the last certificate by which others know this security server, unless the call is forced.",
		roles:       []string{RoleSecurityOfficer, RoleRegistrationOfficer}}, a.unregisterCertificate)
}

// registrable refuses the registration of a certificate for which it makes no sense.
func (a *API) registrable(k *pki.Key, tc pki.TokenCert, view *globalconf.View) error {
	short := pki.HashOf(tc.Cert).Hex()[:16]
	if k.Usage() != pki.Authentication {
		return invalid("register the authentication certificate", "certificate %s is for signing; such certificates are not registered", short)
	}
	if server, ok := view.ServerByCertificate(tc.Cert); ok {
		if server.ID == a.Server {
			return exists("nothing needs to be done", "the registry lists certificate %s for this security server", short)
		}
		return exists("have it removed there, or request another certificate", "the registry lists certificate %s for %s", short, server.ID)
	}
	if tc.Status.State == pki.StateDeletionInProgress {
		return problem(http.StatusConflict, "wrong_state", "delete it, and import a new one", "the certificate is being deleted")
	}
	return nil
}

func (a *API) registerCertificate(ctx context.Context, in *struct {
	HashPath
	Seen
	Body NewRegistration
}) (*item[Registration], error) {
	a.asking.Lock()
	defer a.asking.Unlock()
	k, tc, err := a.findCertificate(in.HashPath)
	if err != nil {
		return nil, err
	}
	if err := in.checkIfGiven(certTag(tc)); err != nil {
		return nil, err
	}
	number, err := a.requestRegistration(ctx, k, tc, in.Body.Address)
	if err != nil {
		return nil, err
	}
	return a.showRegistration(number, pki.HashOf(tc.Cert))
}

// showRegistration shows a request about a certificate, and what it has become.
func (a *API) showRegistration(number uint64, hash pki.CertHash) (*item[Registration], error) {
	k, tc, ok := a.Token.Certificate(hash)
	if !ok {
		return nil, problem(http.StatusNotFound, guard.CodeUnknown, "list them (kontor cert list)", "the certificate was deleted meanwhile")
	}
	shown := a.showCertificate(k, tc)
	return answer(shown.ETag, Registration{number, shown.Body}), nil
}

// registrationOf names the registration of an authentication certificate, for
// what is kept about it.
func registrationOf(c *x509.Certificate) *request.Request {
	return &request.Request{Service: request.AuthCertReg, Certificate: c.Raw}
}

// requestRegistration asks the registry to register an authentication
// certificate, or what became of that request, and returns its number there.
// Without an address it is the one that the registry knows. a.asking is held.
func (a *API) requestRegistration(ctx context.Context, k *pki.Key, tc pki.TokenCert, address string) (uint64, error) {
	view, err := a.validView()
	if err != nil {
		return 0, err
	}
	if err := a.registrable(k, tc, view); err != nil {
		return 0, err
	}
	r, err := a.newRequest(view, request.AuthCertReg)
	if err != nil {
		return 0, err
	}
	url, leaf, _ := view.Management()
	if url == "" || leaf == nil {
		return 0, problem(http.StatusConflict, "no_management", "have the registry set address and certificate of its registration service",
			"the global configuration does not say where authentication certificates are registered")
	}
	r.Certificate, r.Address = tc.Cert.Raw, address
	if server, ok := view.Server(a.Server); ok && r.Address == "" {
		r.Address = server.Address
	}
	if r.Address == "" {
		kept, _, err := a.keptRequest(r)
		if err != nil {
			return 0, err
		}
		if kept == nil {
			return 0, invalid("give the address (kontor cert register --address)", "the registry does not know yet at which address others reach this security server")
		}
		r.Address = kept.Address
	}
	owner, err := a.memberCredential(ctx, a.Server.Owner())
	if err != nil {
		return 0, err
	}
	hash := pki.HashOf(tc.Cert)
	number, err := a.ask(ctx, request.Registration(url, leaf), r, &request.Credential{Key: k.Signer(), Cert: tc.Cert}, owner, func(reason string) error {
		note(ctx, "registration of certificate %s: the registry says: %s", hash.Hex(), reason)
		return a.moveCertificate(hash, pki.StateSaved, pki.StateRegistrationInProgress)
	})
	if err != nil {
		return 0, err
	}
	note(ctx, "register certificate %s of %s at %s, request %d", hash.Hex(), tc.Cert.Subject, r.Address, number)
	if err := a.moveCertificate(hash, pki.StateRegistrationInProgress, pki.StateSaved, pki.StateGlobalError); err != nil {
		return 0, err
	}
	a.Nudge()
	return number, nil
}

// moveCertificate changes the state of a certificate if it is still one of
// those, for the global configuration may have changed it meanwhile.
func (a *API) moveCertificate(hash pki.CertHash, to string, from ...string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, tc, ok := a.Token.Certificate(hash)
	if !ok {
		return nil
	}
	for _, f := range from {
		if tc.Status.State == f {
			tc.Status.State = to
			return tokenError(a.Token.SetCertificate(hash, tc.Status))
		}
	}
	return nil
}

// Unregistration asks for the removal of an authentication certificate.
type Unregistration struct {
	Last bool `json:"last,omitempty" doc:"Even if this security server can send and receive nothing without it"`
}

func (a *API) unregisterCertificate(ctx context.Context, in *struct {
	HashPath
	Seen
	Body Unregistration
}) (*item[Registration], error) {
	a.asking.Lock()
	defer a.asking.Unlock()
	k, tc, err := a.findCertificate(in.HashPath)
	if err != nil {
		return nil, err
	}
	if err := in.check(certTag(tc)); err != nil {
		return nil, err
	}
	number, err := a.requestRemoval(ctx, k, tc, in.Body.Last)
	if err != nil {
		return nil, err
	}
	return a.showRegistration(number, pki.HashOf(tc.Cert))
}

// requestRemoval asks the registry to remove an authentication certificate; the
// last one that can be used only if that is said. a.asking is held.
func (a *API) requestRemoval(ctx context.Context, k *pki.Key, tc pki.TokenCert, last bool) (uint64, error) {
	view, err := a.validView()
	if err != nil {
		return 0, err
	}
	hash := pki.HashOf(tc.Cert)
	if k.Usage() != pki.Authentication {
		return 0, invalid("delete it (kontor cert delete)", "certificate %s is for signing; such certificates are not registered", hash.Hex()[:16])
	}
	server, listed := view.ServerByCertificate(tc.Cert)
	if listed && server.ID == a.Server && !last && !a.otherUsable(hash) {
		return 0, inUse("register and activate another one first, or say that it is the last", "no other authentication certificate of this security server can be used")
	}
	if !listed && tc.Status.State != pki.StateRegistrationInProgress && tc.Status.State != pki.StateRegistered {
		return 0, problem(http.StatusConflict, "wrong_state", "delete it (kontor cert delete)", "the registry does not list the certificate")
	}
	r, err := a.newRequest(view, request.AuthCertDeletion)
	if err != nil {
		return 0, err
	}
	r.Certificate = tc.Cert.Raw
	number, err := a.manage(ctx, view, r, nil)
	if err != nil {
		return 0, err
	}
	note(ctx, "unregister certificate %s of %s, request %d", hash.Hex(), tc.Cert.Subject, number)
	if err := a.forgetRequest(registrationOf(tc.Cert)); err != nil {
		return 0, err
	}
	return number, a.moveCertificate(hash, pki.StateDeletionInProgress, pki.StateSaved, pki.StateRegistrationInProgress, pki.StateRegistered, pki.StateGlobalError)
}

// otherUsable tells whether there is another usable authentication certificate.
func (a *API) otherUsable(hash pki.CertHash) bool {
	for _, s := range a.Signer.Status() {
		if s.Usage == pki.Authentication && s.Usable && s.Hash != hash.Hex() {
			return true
		}
	}
	return false
}
