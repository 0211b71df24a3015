// SPDX-License-Identifier: Apache-2.0

package serverconf

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"

	"kontor/registry/id"
)

// ErrServiceCertificate is what a connection to a service fails with whose
// certificate is not one of its owner's.
var ErrServiceCertificate = errors.New("certificate is not among those registered for the provider's information systems")

// ServiceTLS tells how to connect to services of owner. If verify is set, a
// service must present one of the certificates that its owner has at that
// moment, byte for byte: X-Road trusts no chain and no host name. A service that
// asks for a certificate gets this server's own, whichever authorities it
// names; it trusts it by pinning it.
func (s *Store) ServiceTLS(owner id.Client, verify bool) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection decides
		VerifyConnection: func(cs tls.ConnectionState) error {
			if !verify {
				return nil
			}
			c, ok := s.Conf().Client(owner)
			if ok && len(cs.PeerCertificates) > 0 && slices.ContainsFunc(c.Certificates, func(own *x509.Certificate) bool {
				return bytes.Equal(own.Raw, cs.PeerCertificates[0].Raw)
			}) {
				return nil
			}
			return ErrServiceCertificate
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if own := s.internal.Load(); own != nil {
				return own, nil
			}
			return new(tls.Certificate), nil // none
		},
	}
}
