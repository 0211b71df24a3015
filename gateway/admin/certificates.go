// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"kontor/gateway/signer"
	"kontor/pki"
	"kontor/registry/guard"
)

// activationPatience is how long an activation waits for OCSP responders.
const activationPatience = 20 * time.Second

// NewCertificate brings a certificate.
type NewCertificate struct {
	Certificate string `json:"certificate" maxLength:"65536" doc:"One certificate, in PEM or as base64 of its DER form"`
	Activate    bool   `json:"activate,omitempty" doc:"Activate it, too; if that is refused it stays imported, and next says why"`
}

func (a *API) registerCertificates() {
	register(a, operation{id: "get-certificate", method: http.MethodGet, path: "/certificates/{hash}", summary: "Show a certificate of the token",
		roles: readers()}, a.getCertificate)
	register(a, operation{id: "import-certificate", method: http.MethodPost, path: "/certificates", summary: "Import a certificate for a key of the token", status: http.StatusCreated,
		description: "It must be issued by an approved authority, and a signing certificate must name a member that this security server serves. " +
			"A signing certificate is registered at once, an authentication certificate when the registry lists it.",
		roles: []string{RoleSecurityOfficer, RoleRegistrationOfficer}}, a.importCertificate)
	register(a, operation{id: "activate-certificate", method: http.MethodPost, path: "/certificates/{hash}/activate", summary: "Activate a certificate",
		description: "It needs a good OCSP response.", roles: []string{RoleSecurityOfficer}}, a.activateCertificate)
	register(a, operation{id: "deactivate-certificate", method: http.MethodPost, path: "/certificates/{hash}/deactivate", summary: "Deactivate a certificate",
		roles: []string{RoleSecurityOfficer}}, a.deactivateCertificate)
	register(a, operation{id: "delete-certificate", method: http.MethodDelete, path: "/certificates/{hash}", summary: "Delete a certificate, not its key",
		description: "Refused while it is active, or registered for authentication.", roles: []string{RoleSecurityOfficer}}, a.deleteCertificate)
}

type HashPath struct {
	Hash string `path:"hash" minLength:"8" maxLength:"64" pattern:"^[0-9a-fA-F]+$" doc:"SHA-256 of the certificate in hex, or its beginning if that is unique"`
}

// find returns the certificate of the token that the path names.
func (a *API) findCertificate(in HashPath) (*pki.Key, pki.TokenCert, error) {
	var key *pki.Key
	var cert pki.TokenCert
	for _, k := range a.Token.Keys() {
		for _, tc := range k.Certificates() {
			if !strings.HasPrefix(pki.HashOf(tc.Cert).Hex(), strings.ToLower(in.Hash)) {
				continue
			}
			if key != nil {
				return nil, cert, problem(http.StatusConflict, "ambiguous", "give more of it", "several certificates begin with %s", in.Hash)
			}
			key, cert = k, tc
		}
	}
	if key == nil {
		return nil, cert, problem(http.StatusNotFound, guard.CodeUnknown, "list them (kontor cert list)", "no key has a certificate %s", in.Hash)
	}
	return key, cert, nil
}

func certTag(tc pki.TokenCert) string { return etag([]any{pki.HashOf(tc.Cert).Hex(), tc.Status}) }

func (a *API) showCertificate(k *pki.Key, tc pki.TokenCert) *item[Certificate] {
	judged := map[string]signer.KeyStatus{}
	for _, s := range a.Signer.Status() {
		judged[s.Hash] = s
	}
	c := a.certificate(k, tc, judged)
	c.PEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tc.Cert.Raw}))
	return answer(certTag(tc), c)
}

func (a *API) getCertificate(_ context.Context, in *HashPath) (*item[Certificate], error) {
	k, tc, err := a.findCertificate(*in)
	if err != nil {
		return nil, err
	}
	return a.showCertificate(k, tc), nil
}

// parseCertificate reads exactly one certificate.
func parseCertificate(text string) (*x509.Certificate, error) {
	remedy := "give one certificate, in PEM or as base64 of its DER form"
	der := []byte(text)
	if block, rest := pem.Decode(der); block != nil {
		if block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, invalid(remedy, "the text holds something else than one certificate")
		}
		der = block.Bytes
	} else {
		var err error
		if der, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), "")); err != nil {
			return nil, invalid(remedy, "the text is no certificate")
		}
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, invalid(remedy, "the certificate cannot be read: %v", err)
	}
	return c, nil
}

func (a *API) importCertificate(ctx context.Context, in *struct{ Body NewCertificate }) (*item[Certificate], error) {
	c, err := parseCertificate(in.Body.Certificate)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.ContainsFunc(a.Token.Keys(), func(k *pki.Key) bool { return samePublic(k, c) }) {
		return nil, invalid("import it at the security server that made the request", "no key of this security server has the public key of %s", c.Subject)
	}
	st, err := a.acceptable(c)
	if err != nil {
		return nil, err
	}
	k, err := a.Token.AddCertificate(c, st)
	if err != nil {
		return nil, tokenError(err)
	}
	hash := pki.HashOf(c)
	note(ctx, "import certificate %s of %s for the %s key %s, %s", hash.Hex(), c.Subject, k.Usage(), k.ID(), st.State)
	a.Nudge()
	var refused error
	if in.Body.Activate {
		if refused = a.activate(ctx, c, st); refused == nil {
			note(ctx, "activate certificate %s", hash.Hex())
		}
	}
	_, tc, ok := a.Token.Certificate(hash)
	if !ok {
		return nil, unknown("the certificate was deleted meanwhile")
	}
	out := a.showCertificate(k, tc)
	if p, ok := asProblem(refused); ok {
		out.Body.Problem = "imported, but not activated: " + p.Detail
	} else if refused != nil {
		return nil, refused
	}
	return out, nil
}

func samePublic(k *pki.Key, c *x509.Certificate) bool {
	public, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

// acceptable decides whether a certificate may be imported, and in which state.
func (a *API) acceptable(c *x509.Certificate) (pki.CertStatus, error) {
	var none pki.CertStatus
	view, now := a.View(), a.Now()
	if view == nil || view.Valid(now) != nil {
		return none, noView()
	}
	chain, err := pki.VerifyChain(c, nil, view, now)
	switch {
	case errors.Is(err, pki.ErrExpired):
		return none, invalid("have a new one issued", "the certificate expired on %s", c.NotAfter.UTC().Format(time.RFC3339))
	case errors.Is(err, pki.ErrNotYetValid):
		return none, invalid("import it then, or see to the clock of this machine", "the certificate is valid only from %s", c.NotBefore.UTC().Format(time.RFC3339))
	case err != nil:
		return none, invalid("have it issued by an approved authority (kontor cert authorities)", "the certificate does not lead to an approved authority: %v", err)
	}
	if pki.IsAuthCert(c) || !pki.IsSignCert(c) {
		return pki.CertStatus{State: pki.StateSaved}, nil // the token refuses what is neither or both
	}
	if chain.Anchor.AuthenticationOnly {
		return none, invalid("have it issued by another authority", "the authority %s is approved for authentication only", chain.Anchor.Name)
	}
	if chain.Anchor.Profile == nil {
		return none, invalid("have the registry correct it", "the certificate profile of the authority %s is not known", chain.Anchor.Name)
	}
	member, err := chain.Anchor.Profile.Member(c, view.Instance())
	if err != nil {
		return none, invalid("have it issued with a subject of the authority's profile", "the certificate names no member: %v", err)
	}
	if !a.serves(member) {
		return none, invalid("add a client of it first (kontor client add)", "this security server serves no client of %s", member)
	}
	return pki.CertStatus{State: pki.StateRegistered}, nil
}

// activate makes a certificate active if there is a good OCSP response for it.
// a.mu is held.
func (a *API) activate(ctx context.Context, c *x509.Certificate, st pki.CertStatus) error {
	hash, view := pki.HashOf(c), a.View()
	if view == nil {
		return noView()
	}
	if _, err := pki.VerifyChain(c, nil, view, a.Now()); err != nil {
		return invalid("have a new one issued", "the certificate cannot be used: %v", err)
	}
	// The signer fetches responses of active certificates only, and uses none
	// without.
	st.Active = true
	if err := a.Token.SetCertificate(hash, st); err != nil {
		return tokenError(err)
	}
	// A caller that hangs up must not leave it active without a response.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), activationPatience)
	defer cancel()
	fetched := a.Signer.Refresh(ctx)
	if _, ok := a.Signer.OCSP(hash.Hex()); ok {
		return nil
	}
	st.Active = false
	if err := a.Token.SetCertificate(hash, st); err != nil {
		return tokenError(err)
	}
	reason := "none could be fetched"
	if fetched != nil {
		reason = fetched.Error()
	}
	return problem(http.StatusConflict, "no_ocsp", "see to it that the responder of the authority can be reached and says good, then activate it",
		"there is no good OCSP response for the certificate: %s", reason)
}

type certChange struct {
	HashPath
	Seen
}

func (a *API) activateCertificate(ctx context.Context, in *certChange) (*item[Certificate], error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, tc, err := a.findCertificate(in.HashPath)
	if err != nil {
		return nil, err
	}
	if err := in.checkIfGiven(certTag(tc)); err != nil {
		return nil, err
	}
	if tc.Status.State == pki.StateDeletionInProgress {
		return nil, problem(http.StatusConflict, "wrong_state", "delete it, and import a new one", "the certificate is being deleted")
	}
	if err := a.activate(ctx, tc.Cert, tc.Status); err != nil {
		return nil, err
	}
	tc.Status.Active = true
	note(ctx, "activate certificate %s of %s", pki.HashOf(tc.Cert).Hex(), tc.Cert.Subject)
	return a.showCertificate(k, tc), nil
}

func (a *API) deactivateCertificate(ctx context.Context, in *certChange) (*item[Certificate], error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, tc, err := a.findCertificate(in.HashPath)
	if err != nil {
		return nil, err
	}
	if err := in.checkIfGiven(certTag(tc)); err != nil {
		return nil, err
	}
	tc.Status.Active = false
	if err := a.Token.SetCertificate(pki.HashOf(tc.Cert), tc.Status); err != nil {
		return nil, tokenError(err)
	}
	note(ctx, "deactivate certificate %s of %s", pki.HashOf(tc.Cert).Hex(), tc.Cert.Subject)
	return a.showCertificate(k, tc), nil
}

// deletable refuses the deletion of a certificate that is in use or that others
// trust.
func (a *API) deletable(k *pki.Key, tc pki.TokenCert) error {
	short := pki.HashOf(tc.Cert).Hex()[:16]
	if tc.Status.Active {
		return inUse("deactivate it first (kontor cert deactivate "+short+")", "certificate %s is active", short)
	}
	if k.Usage() != pki.Authentication {
		return nil
	}
	if view := a.View(); view != nil {
		if server, ok := view.ServerByCertificate(tc.Cert); ok {
			return inUse("have it removed there first (kontor cert unregister)", "the registry lists certificate %s for %s", short, server.ID)
		}
	} else if tc.Status.State == pki.StateRegistered {
		return noView()
	}
	return nil
}

func (a *API) deleteCertificate(ctx context.Context, in *certChange) (*struct{}, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, tc, err := a.findCertificate(in.HashPath)
	if err != nil {
		return nil, err
	}
	if err := in.check(certTag(tc)); err != nil {
		return nil, err
	}
	if err := a.deletable(k, tc); err != nil {
		return nil, err
	}
	if err := a.Token.RemoveCertificate(pki.HashOf(tc.Cert)); err != nil {
		return nil, tokenError(err)
	}
	if err := a.forgetRequest(registrationOf(tc.Cert)); err != nil {
		return nil, err
	}
	note(ctx, "delete certificate %s of %s, state %s", pki.HashOf(tc.Cert).Hex(), tc.Cert.Subject, tc.Status.State)
	return nil, nil
}
