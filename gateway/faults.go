// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"kontor/gateway/fault"
	"kontor/gateway/message"
	"kontor/gateway/tunnel"
	"kontor/pki"
	"kontor/pki/asic"
	"kontor/pki/ocsp"
	"kontor/pki/xades"
)

// asFault returns the fault in err, or nil.
func asFault(err error) *fault.Error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	return nil
}

// requestFault chooses the code for a request of a local system that cannot be
// carried. X-Road answers all but the missing client with internal_error.
func requestFault(err error) error {
	if errors.Is(err, message.ErrMissingClient) {
		return fault.Wrap(fault.InvalidClientIdentifier, err,
			"The client identifier is missing: send it in the header X-Road-Client, as instance/class/member/subsystem")
	}
	return fault.Wrap(fault.InternalError, err, "Malformed request: %v", err)
}

// tunnelFault chooses the code for a request that found no way to its provider.
func tunnelFault(req *message.Request, err error) error {
	service := req.Service.LogString()
	var status *tunnel.StatusError
	switch {
	case errors.Is(err, tunnel.ErrPeer):
		return fault.Wrap(fault.SSLAuthenticationFailed, err,
			"The security server of %s is not authenticated: %s", service, peerCause(err))
	case isAlert(err, disagreements[:]...):
		return fault.Wrap(fault.SSLAuthenticationFailed, err,
			"The security server of %s does not agree with ours on the encryption: it must offer TLS 1.3, or TLS 1.2 with an AES-GCM suite (X-Road: setting xroad-tls-ciphers)", service)
	case isAlert(err):
		return fault.Wrap(fault.SSLAuthenticationFailed, err,
			"The security server of %s refuses our authentication certificate: it does not know it as registered, or does not trust our instance", service)
	case errors.Is(err, tunnel.ErrConnect):
		return fault.Wrap(fault.NetworkError, err, "No security server of %s could be reached", service)
	case errors.As(err, &status):
		return fault.Wrap(fault.HTTPError, err, "The security server of %s answered with HTTP status %d", service, status.Status)
	case errors.Is(err, tunnel.ErrTimeout):
		return fault.Wrap(fault.IOError, err, "The security server of %s did not answer in time", service)
	}
	return fault.Wrap(fault.IOError, err, "The exchange with the security server of %s broke off", service)
}

// peerCause says why a peer is not who it should be, in public words: without
// the addresses that were tried and what the network said there.
func peerCause(err error) string {
	if errors.Is(err, ocsp.ErrUnavailable) {
		return "there is no OCSP response for its certificate, neither with the message nor on its port 5577"
	}
	var causes []string
	for line := range strings.Lines(err.Error()) { // one per server that was tried
		_, cause, found := strings.Cut(line, tunnel.ErrPeer.Error()+": ")
		if cause = strings.TrimSpace(cause); found && !slices.Contains(causes, cause) {
			causes = append(causes, cause)
		}
	}
	return strings.Join(causes, "; ")
}

// disagreements are the alerts of a peer that knows none of the versions or
// cipher suites that we offer (RFC 8446, section 6.2): handshake_failure,
// protocol_version, insufficient_security.
var disagreements = [...]tls.AlertError{40, 70, 71}

// isAlert tells whether the peer ended TLS with one of some alerts, or, without
// any, with an alert at all, which it does when it refuses our certificate.
func isAlert(err error, alerts ...tls.AlertError) bool {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return false
	}
	// The type of an alert that came over TCP is crypto/tls's own; its text is that
	// of tls.AlertError.
	return len(alerts) == 0 || slices.ContainsFunc(alerts, func(a tls.AlertError) bool { return op.Err.Error() == a.Error() })
}

// signatureCode chooses the code for a message whose signature does not hold
// (X-Road: codes below signature_verification).
func signatureCode(err error) fault.Code {
	for _, c := range []struct {
		err  error
		code fault.Code
	}{
		{asic.ErrMalformedHashChain, fault.MalformedHashChain},
		{asic.ErrHashChainRef, fault.InvalidHashChainRef},
		{asic.ErrUnusedInputs, fault.HashChainUnusedInputs},
		{asic.ErrHashChain, fault.InvalidHashChain},
		{asic.ErrCoverage, fault.InvalidReference},
		{asic.ErrSigner, fault.IncorrectCertificate},
		{xades.ErrReference, fault.InvalidReference},
		{xades.ErrSignature, fault.InvalidSignatureValue},
		{xades.ErrMalformed, fault.MalformedSignature},
		{xades.ErrUnsupported, fault.MalformedSignature},
		{ocsp.ErrRevoked, fault.CertValidation},
		{ocsp.ErrUnknown, fault.CertValidation},
		{ocsp.ErrUnavailable, fault.CertValidation},
		{ocsp.ErrStale, fault.IncorrectValidationInfo},
		{ocsp.ErrMismatch, fault.IncorrectValidationInfo},
		{ocsp.ErrUntrusted, fault.IncorrectValidationInfo},
		{ocsp.ErrMalformed, fault.IncorrectValidationInfo},
		{pki.ErrNoAuthority, fault.CannotCreateCertPath},
		{pki.ErrExpired, fault.CannotCreateCertPath},
		{pki.ErrNotYetValid, fault.CannotCreateCertPath},
		{pki.ErrBadChain, fault.CannotCreateCertPath},
	} {
		if errors.Is(err, c.err) {
			return c.code.In(fault.SignatureVerification)
		}
	}
	return fault.InvalidSignatureValue.In(fault.SignatureVerification)
}

// peerCertificate returns the certificate that the other end presented, if any.
func peerCertificate(r *http.Request) *x509.Certificate {
	if chain := peerChain(r); len(chain) > 0 {
		return chain[0]
	}
	return nil
}

func peerChain(r *http.Request) []*x509.Certificate {
	if r.TLS == nil {
		return nil
	}
	return r.TLS.PeerCertificates
}

// idleWriter sends an answer under a deadline that every write renews.
type idleWriter struct {
	w    http.ResponseWriter
	ctl  *http.ResponseController
	idle time.Duration
}

func (i *idleWriter) Write(p []byte) (int, error) {
	if err := i.ctl.SetWriteDeadline(time.Now().Add(i.idle)); err != nil {
		return 0, err
	}
	return i.w.Write(p)
}
