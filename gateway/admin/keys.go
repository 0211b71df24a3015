// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"slices"
	"time"

	"kontor/gateway/signer"
	"kontor/pki"
	"kontor/registry/globalconf"
	"kontor/registry/guard"
	"kontor/registry/id"
)

// Key is a key of the token.
type Key struct {
	ID           string        `json:"id"`
	Label        string        `json:"label"`
	Usage        pki.Usage     `json:"usage" enum:"authentication,signing"`
	Algorithm    pki.Algorithm `json:"algorithm"`
	Certificates []Certificate `json:"certificates"`
	Usable       bool          `json:"usable" doc:"At least one certificate can be used now"`
	Next         string        `json:"next,omitempty" doc:"What to do next"`
}

// Certificate is a certificate of a key.
type Certificate struct {
	Hash      string    `json:"hash" doc:"SHA-256 of its DER form, in hex"`
	Key       string    `json:"key"`
	Usage     pki.Usage `json:"usage"`
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	State     string    `json:"state" enum:"saved,registration in progress,registered,deletion in progress,global error"`
	Active    bool      `json:"active"`
	Member    string    `json:"member,omitempty" doc:"Whom a signing certificate names"`
	OCSPUntil time.Time `json:"ocsp_until,omitzero" doc:"When its OCSP response goes stale; absent without a good one"`
	Usable    bool      `json:"usable"`
	Problem   string    `json:"problem,omitempty" doc:"Why it is not usable"`
	Next      string    `json:"next,omitempty" doc:"What to do next"`
	PEM       string    `json:"pem,omitempty"`
}

// Authority is an approved certification authority.
type Authority struct {
	Name               string `json:"name"`
	Profile            string `json:"profile" doc:"Class of its certificate profile"`
	AuthenticationOnly bool   `json:"authentication_only"`
}

// NewKey asks for a key.
type NewKey struct {
	Label     string        `json:"label,omitempty" maxLength:"255" doc:"For people; default: the usage"`
	Usage     pki.Usage     `json:"usage" enum:"authentication,signing"`
	Algorithm pki.Algorithm `json:"algorithm,omitempty" enum:"EC-P256,EC-P384,RSA-2048,RSA-3072,RSA-4096" doc:"Default: EC-P256"`
}

// NewRequest asks for a certificate request. The profile is that of an
// authority, or named.
type NewRequest struct {
	Authority  string `json:"authority,omitempty" doc:"Name of an approved certification authority; may be absent if there is only one"`
	Profile    string `json:"profile,omitempty" doc:"Certificate profile, such as FiVRK, instead of that of an authority"`
	Member     string `json:"member,omitempty" doc:"For whom a signing key signs; default: the owner"`
	MemberName string `json:"member_name,omitempty" doc:"Default: as the global configuration names the member"`
	DNSName    string `json:"dns_name,omitempty"`
	Country    string `json:"country,omitempty" doc:"Two letters"`
}

// Request is a certificate request.
type Request struct {
	Key     string `json:"key"`
	Profile string `json:"profile"`
	PEM     string `json:"pem" doc:"PKCS#10"`
	Next    string `json:"next"`
}

// PINChange changes the PIN of the token.
type PINChange struct {
	Old string `json:"old" minLength:"1"`
	New string `json:"new" minLength:"8" maxLength:"1024"`
}

func (a *API) registerKeys() {
	register(a, operation{id: "list-keys", method: http.MethodGet, path: "/keys", summary: "List keys and their certificates, what can be used and what to do next",
		roles: readers()}, a.listKeys)
	register(a, operation{id: "get-key", method: http.MethodGet, path: "/keys/{key}", summary: "Show a key", roles: readers()}, a.getKey)
	register(a, operation{id: "generate-key", method: http.MethodPost, path: "/keys", summary: "Generate a key", status: http.StatusCreated,
		roles: []string{RoleSecurityOfficer}}, a.generateKey)
	register(a, operation{id: "delete-key", method: http.MethodDelete, path: "/keys/{key}", summary: "Delete a key and its certificates, irrevocably",
		description: "Refused while one of its certificates is active, or registered for authentication.", roles: []string{RoleSecurityOfficer}}, a.deleteKey)
	register(a, operation{id: "request-certificate", method: http.MethodPost, path: "/keys/{key}/requests", summary: "Make a certificate request",
		roles: []string{RoleSecurityOfficer}}, a.requestCertificate)
	register(a, operation{id: "list-authorities", method: http.MethodGet, path: "/authorities", summary: "List the approved certification authorities",
		roles: readers()}, a.listAuthorities)
	register(a, operation{id: "change-pin", method: http.MethodPost, path: "/token/pin", summary: "Change the PIN of the token", secret: true,
		description: "The file from which the gateway reads its PIN is written, too.", roles: []string{RoleSecurityOfficer}}, a.changePIN)
}

// keys returns all keys as they are now.
func (a *API) keys() []Key {
	judged := map[string]signer.KeyStatus{}
	for _, s := range a.Signer.Status() {
		judged[s.Hash] = s
	}
	keys := []Key{}
	for _, k := range a.Token.Keys() {
		key := Key{ID: k.ID(), Label: k.Label(), Usage: k.Usage(), Algorithm: k.Algorithm(), Certificates: []Certificate{}}
		for _, tc := range k.Certificates() {
			c := a.certificate(k, tc, judged)
			key.Usable = key.Usable || c.Usable
			key.Certificates = append(key.Certificates, c)
		}
		if len(key.Certificates) == 0 {
			key.Next = "make a certificate request (kontor cert request), have it certified, then import the certificate (kontor cert import)"
		}
		keys = append(keys, key)
	}
	return keys
}

func (a *API) certificate(k *pki.Key, tc pki.TokenCert, judged map[string]signer.KeyStatus) Certificate {
	c := Certificate{Hash: pki.HashOf(tc.Cert).Hex(), Key: k.ID(), Usage: k.Usage(), Subject: tc.Cert.Subject.String(), Issuer: tc.Cert.Issuer.String(),
		Serial: tc.Cert.SerialNumber.Text(16), NotBefore: tc.Cert.NotBefore, NotAfter: tc.Cert.NotAfter, State: tc.Status.State, Active: tc.Status.Active}
	if s, ok := judged[c.Hash]; ok {
		c.OCSPUntil, c.Usable, c.Problem = s.OCSPUntil, s.Usable, s.Problem
		if !s.Member.IsZero() {
			c.Member = s.Member.String()
		}
	}
	if c.Next = a.nextOf(&c, tc.Cert); c.Next == nextActivate {
		if by := a.successor(&c, judged); by != "" {
			c.Next = "nothing: certificate " + by[:16] + " has taken its place"
			if c.Usage == pki.Authentication {
				c.Next = "certificate " + by[:16] + " has taken its place: when this one is not needed any more, have the registry remove it (kontor cert unregister)"
			}
		}
	}
	return c
}

const nextActivate = "activate it (kontor cert activate)"

// successor returns the hash of a certificate that was issued later for the same
// usage and member, and is in use; empty: there is none.
func (a *API) successor(c *Certificate, judged map[string]signer.KeyStatus) string {
	for _, k := range a.Token.Keys() {
		for _, tc := range k.Certificates() {
			s := judged[pki.HashOf(tc.Cert).Hex()]
			if s.Usable && s.Usage == c.Usage && s.Member == judged[c.Hash].Member && tc.Cert.NotBefore.After(c.NotBefore) {
				return s.Hash
			}
		}
	}
	return ""
}

// nextOf says what an operator does next with a certificate.
func (a *API) nextOf(c *Certificate, cert *x509.Certificate) string {
	reason := ""
	if c.State == pki.StateSaved {
		reason = a.declined(registrationOf(cert))
	}
	switch {
	case a.Now().After(c.NotAfter):
		return "it has expired: request a new certificate for a new key, then delete this one"
	case c.State == pki.StateDeletionInProgress:
		return "deactivate and delete it (kontor cert delete) when the registry does not list it any more"
	case c.State == pki.StateGlobalError:
		return "the registry does not list it any more: have it registered again (kontor cert register), or delete it"
	case c.State == pki.StateRegistrationInProgress:
		return "wait: it becomes registered when the registry has approved it and published; kontor cert register asks what became of it"
	case reason != "":
		return declinedNext(reason, "kontor cert register")
	case c.State == pki.StateSaved:
		return "have the registry add it to " + a.Server.String() + " (kontor cert register); it becomes registered when that is published"
	case !c.Active:
		return nextActivate
	case !c.Usable && c.OCSPUntil.IsZero():
		return "see to it that its authority's OCSP responder can be reached and says good"
	}
	return ""
}

// keyTag names the state of a key: what an operator can change of it, not what
// time and others change.
func keyTag(k *pki.Key) string {
	state := []any{k.ID()}
	for _, tc := range k.Certificates() {
		state = append(state, pki.HashOf(tc.Cert).Hex(), tc.Status)
	}
	return etag(state)
}

func (a *API) listKeys(context.Context, *none) (*list[Key], error) { return answerList(a.keys()), nil }

type KeyPath struct {
	Key string `path:"key" doc:"Its id"`
}

func (a *API) getKey(_ context.Context, in *KeyPath) (*item[Key], error) {
	k, ok := a.Token.Key(in.Key)
	if !ok {
		return nil, unknown("there is no key %q", in.Key)
	}
	return a.showKey(k), nil
}

func (a *API) showKey(k *pki.Key) *item[Key] {
	tag := keyTag(k)
	keys := a.keys()
	i := slices.IndexFunc(keys, func(v Key) bool { return v.ID == k.ID() })
	if i < 0 { // deleted meanwhile
		return answer(tag, Key{ID: k.ID(), Label: k.Label(), Usage: k.Usage(), Algorithm: k.Algorithm(), Certificates: []Certificate{}})
	}
	return answer(tag, keys[i])
}

func (a *API) generateKey(ctx context.Context, in *struct{ Body NewKey }) (*item[Key], error) {
	if in.Body.Label == "" {
		in.Body.Label = string(in.Body.Usage)
	}
	if in.Body.Algorithm == "" {
		in.Body.Algorithm = pki.P256
	}
	k, err := a.Token.Generate(in.Body.Label, in.Body.Usage, in.Body.Algorithm)
	if err != nil {
		return nil, tokenError(err)
	}
	note(ctx, "generate key %s %q, %s for %s", k.ID(), k.Label(), k.Algorithm(), k.Usage())
	return a.showKey(k), nil
}

func (a *API) deleteKey(ctx context.Context, in *struct {
	KeyPath
	Seen
}) (*struct{}, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, ok := a.Token.Key(in.Key)
	if !ok {
		return nil, unknown("there is no key %q", in.Key)
	}
	if err := in.check(keyTag(k)); err != nil {
		return nil, err
	}
	for _, tc := range k.Certificates() {
		if err := a.deletable(k, tc); err != nil {
			return nil, err
		}
	}
	if err := a.Token.RemoveKey(k.ID()); err != nil {
		return nil, tokenError(err)
	}
	note(ctx, "delete key %s %q for %s with %d certificates", k.ID(), k.Label(), k.Usage(), len(k.Certificates()))
	return nil, nil
}

func (a *API) listAuthorities(context.Context, *none) (*list[Authority], error) {
	view := a.View()
	if view == nil {
		return nil, noView()
	}
	var all []Authority
	for _, s := range view.CertificationServices(view.Instance()) {
		all = append(all, Authority{s.Name, s.Profile, s.AuthenticationOnly})
	}
	return answerList(all), nil
}

func (a *API) requestCertificate(ctx context.Context, in *struct {
	KeyPath
	Body NewRequest
}) (*item[Request], error) {
	k, ok := a.Token.Key(in.Key)
	if !ok {
		return nil, unknown("there is no key %q", in.Key)
	}
	view := a.View()
	p, err := chooseProfile(view, &in.Body, k.Usage())
	if err != nil {
		return nil, err
	}
	member := a.Server.Owner()
	if in.Body.Member != "" {
		if member, err = id.ParseMember(in.Body.Member); err != nil {
			return nil, invalid("give it as instance/class/code", "member: %v", err)
		}
	}
	if k.Usage() == pki.Authentication && member != a.Server.Owner() {
		return nil, invalid("leave the member out", "an authentication certificate is for the security server, not for %s", member)
	}
	if !a.serves(member) {
		return nil, invalid("add a client of it first (kontor client add)", "this security server serves no client of %s", member)
	}
	if in.Body.MemberName == "" && view != nil {
		in.Body.MemberName = view.Name(member.Client())
	}
	params := pki.SubjectParams{Server: a.Server, Member: member, MemberName: in.Body.MemberName, DNSName: in.Body.DNSName, Country: in.Body.Country}
	subject := p.SignSubject
	if k.Usage() == pki.Authentication {
		subject = p.AuthSubject
	}
	raw, err := subject(params)
	if err != nil {
		return nil, invalid("give what the profile needs: member_name, dns_name, country", "%v", err)
	}
	var dns []string
	if in.Body.DNSName != "" {
		dns = []string{in.Body.DNSName}
	}
	csr, err := k.CSR(raw, dns)
	if err != nil {
		return nil, err
	}
	note(ctx, "certificate request for key %s %q, profile %s", k.ID(), k.Label(), p.ClassName())
	return answer("", Request{k.ID(), p.ClassName(), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
		"have it certified by the authority, then import the certificate (kontor cert import)"}), nil
}

// chooseProfile finds the certificate profile of a request: that which it
// names, or that of an approved authority.
func chooseProfile(view *globalconf.View, r *NewRequest, use pki.Usage) (pki.Profile, error) {
	if r.Profile != "" {
		p, ok := pki.ProfileByClass(r.Profile)
		if !ok {
			return nil, invalid("use the one of the authority, such as FiVRK or Ejbca", "the certificate profile %q is not known", r.Profile)
		}
		return p, nil
	}
	if view == nil {
		return nil, noView()
	}
	var names []string
	var found []globalconf.ApprovedCA
	for _, s := range view.CertificationServices(view.Instance()) {
		if use == pki.Signing && s.AuthenticationOnly || r.Authority != "" && s.Name != r.Authority {
			continue
		}
		names = append(names, s.Name)
		found = append(found, s)
	}
	switch {
	case len(found) == 0 && r.Authority == "":
		return nil, invalid("have the registry approve one, or name a profile", "no certification authority is approved for %s", use)
	case len(found) == 0:
		return nil, invalid("list them (kontor cert authorities)", "no certification authority %q is approved for %s", r.Authority, use)
	case len(found) > 1:
		return nil, invalid("name one of them", "there are several certification authorities: %q", names)
	}
	p, ok := pki.ProfileByClass(found[0].Profile)
	if !ok {
		return nil, invalid("name a profile", "the certificate profile %s of %q is not known", found[0].Profile, found[0].Name)
	}
	return p, nil
}

// serves tells whether a member owns this security server or has a client here.
func (a *API) serves(m id.Member) bool {
	if m == a.Server.Owner() {
		return true
	}
	for _, c := range a.Conf.Conf().Clients() {
		if c.ID.Member() == m {
			return true
		}
	}
	return false
}

func (a *API) changePIN(ctx context.Context, in *struct{ Body PINChange }) (*struct{}, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch err := a.ChangePIN([]byte(in.Body.Old), []byte(in.Body.New)); {
	case errors.Is(err, pki.ErrWrongPIN):
		return nil, problem(http.StatusForbidden, "wrong_pin", "give the PIN that the token has now", "the old PIN is wrong")
	case err != nil:
		return nil, tokenError(err)
	}
	note(ctx, "change the PIN of the token")
	return nil, nil
}

// tokenError turns errors of the token into problems.
func tokenError(err error) error {
	switch {
	case errors.Is(err, pki.ErrChanged):
		return problem(http.StatusConflict, guard.CodeChangedMeanwhile, "restart the gateway; change keys only through its API while it runs",
			"another process changed the token")
	case errors.Is(err, pki.ErrNoKey), errors.Is(err, pki.ErrNoCertificate):
		return problem(http.StatusNotFound, guard.CodeUnknown, "list the keys (kontor key list)", "%v", err)
	case errors.Is(err, pki.ErrCertificateExists):
		return exists("list the keys (kontor key list)", "%v", err)
	case errors.Is(err, pki.ErrCertificateUsage):
		return invalid("have the authority issue it for one purpose only, that of the key", "%v", err)
	}
	return err
}
