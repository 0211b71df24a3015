// SPDX-License-Identifier: Apache-2.0

package management

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"kontor/pki"
	"kontor/pki/ocsp"
	"kontor/registry"
	"kontor/registry/id"
	"kontor/registry/management/request"
)

// verifier judges messages by one state of the registry at one instant.
type verifier struct {
	now         time.Time
	instance    string
	provider    id.Client
	policy      ocsp.Policy
	authorities map[string][]*pki.Authority // by raw subject
	responders  map[pki.CertHash][]*x509.Certificate
	known       []*x509.Certificate
}

func newVerifier(s *registry.State, now time.Time) *verifier {
	system := s.System()
	v := &verifier{
		now: now, instance: s.Instance(), provider: system.ManagementProvider,
		policy:      ocsp.Policy{Freshness: time.Duration(system.OCSPFreshness) * time.Second, IgnoreNextUpdate: system.IgnoreOCSPNextUpdate},
		authorities: map[string][]*pki.Authority{}, responders: map[pki.CertHash][]*x509.Certificate{},
	}
	for _, ca := range s.CAs() {
		profile, _ := pki.ProfileByClass(ca.Profile)
		for _, c := range append([]registry.CertifiedCA{ca.Top}, ca.Intermediates...) {
			cert, err := x509.ParseCertificate(c.Certificate)
			if err != nil {
				continue // was parsed when it was approved
			}
			v.authorities[string(cert.RawSubject)] = append(v.authorities[string(cert.RawSubject)], &pki.Authority{
				Cert: cert, Instance: v.instance, Name: ca.Name, Profile: profile, AuthenticationOnly: ca.AuthenticationOnly,
			})
			v.known = append(v.known, cert)
			for _, r := range c.Responders {
				if responder, err := x509.ParseCertificate(r.Certificate); err == nil {
					v.responders[pki.HashOf(cert)] = append(v.responders[pki.HashOf(cert)], responder)
					v.known = append(v.known, responder)
				}
			}
		}
	}
	return v
}

// Authorities makes the verifier a pki.Trust.
func (v *verifier) Authorities(rawSubject []byte) []*pki.Authority {
	return v.authorities[string(rawSubject)]
}

func refusal(code, format string, args ...any) error {
	return &request.Fault{Code: code, Text: fmt.Sprintf(format, args...)}
}

// verify checks who sent a complete message. The error is a *request.Fault.
// The order is X-Road's.
func (v *verifier) verify(m *request.Message) error {
	r := m.Request
	if r.Service == request.AuthCertReg {
		// 1 the authentication certificate and the signature with its key
		auth, err := x509.ParseCertificate(m.AuthCert)
		if err != nil {
			return refusal(request.CodeCertificate, "Authentication certificate is malformed")
		}
		if _, err := pki.VerifyChain(auth, nil, v, v.now); err != nil {
			return refusal(request.CodeCertificate, "Authentication certificate is not valid: %v", err)
		}
		if !pki.IsAuthCert(auth) {
			return refusal(request.CodeCertificate, "Authentication certificate is not valid: its key usage is another")
		}
		if err := m.AuthSignature.Verify(auth, m.SOAP); err != nil {
			return refusal(request.CodeSignature, "Auth signature verification failed: %v", err)
		}
	}
	// 2 the signing certificate, its status, and the signature with its key
	var signer id.Member
	if r.Service.Signed() {
		var err error
		if signer, err = v.signer(m); err != nil {
			return err
		}
	}
	// 3 the request is for this registry
	if r.Provider != v.provider || r.Sender.Instance() != v.instance {
		return refusal(request.CodeInvalidRequest, "Invalid management service address. Contact central server administrator.")
	}
	// 4 the server is named properly, and by its owner
	owner := r.Server.Owner()
	for _, part := range []string{owner.Instance(), owner.Class(), owner.Code(), r.Server.Code()} {
		if err := id.CheckCharacters(part); err != nil {
			return refusal(request.CodeInvalidIdentifier, "The management request contains an invalid identifier: %v", err)
		}
	}
	if r.Sender != owner.Client() {
		return refusal(request.CodeInvalidRequest, "Sender does not match server owner.")
	}
	if r.Service == request.AuthCertReg && !bytes.Equal(m.AuthCert, r.Certificate) {
		return refusal(request.CodeCertificate, "Authentication certificates do not match.")
	}
	// 5 whoever signed is whom the request is about
	if r.Service.Signed() {
		subject := owner
		if r.Service.HasClient() {
			subject = r.Client.Member()
		}
		if signer != subject {
			return refusal(request.CodeInvalidRequest, "Subject identifier (%s) in certificate does not match member identifier (%s) in request", signer, subject)
		}
	}
	// 6 what remains is for the registry to judge, which a dry run does not ask
	if r.Service == request.AuthCertReg || r.Service == request.AddressChange {
		if err := registry.CheckAddress(r.Address); err != nil {
			return refusal(request.CodeInvalidRequest, "Invalid server address: %v", err)
		}
	}
	return nil
}

// signer verifies the signing certificate and its signature, and returns the
// member that the certificate names.
func (v *verifier) signer(m *request.Message) (id.Member, error) {
	cert, err := x509.ParseCertificate(m.Cert)
	if err != nil {
		return id.Member{}, refusal(request.CodeCertificate, "Member (owner/client) sign certificate is malformed")
	}
	chain, err := pki.VerifyChain(cert, nil, v, v.now)
	if err != nil {
		return id.Member{}, refusal(request.CodeCertificate, "Member (owner/client) sign certificate is invalid: %v", err)
	}
	if !pki.IsSignCert(cert) || chain.Anchor.AuthenticationOnly || chain.Anchor.Profile == nil {
		return id.Member{}, refusal(request.CodeCertificate, "Member (owner/client) sign certificate is invalid: it is not for signing")
	}
	issuer := chain.Issuers[0]
	responders := ocsp.Responders{Authorised: v.responders[pki.HashOf(issuer)], Known: v.known}
	switch _, err := ocsp.Verify(m.OCSP, cert, issuer, responders, v.now, v.policy); {
	case errors.Is(err, ocsp.ErrRevoked) || errors.Is(err, ocsp.ErrUnknown):
		return id.Member{}, refusal(request.CodeCertificate, "OCSP response indicates that the sign certificate is not good: %v", err)
	case err != nil:
		return id.Member{}, refusal(request.CodeOCSP, "OCSP response of the sign certificate: %v", err)
	}
	if err := m.Signature.Verify(cert, m.SOAP); err != nil {
		return id.Member{}, refusal(request.CodeSignature, "Owner or client signature verification failed: %v", err)
	}
	member, err := chain.Anchor.Profile.Member(cert, v.instance)
	if err != nil {
		return id.Member{}, refusal(request.CodeInvalidRequest, "Subject of the sign certificate: %v", err)
	}
	return member, nil
}
