// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"sync"
	"time"

	"kontor/pki"
)

// serverValidity is short: the key lives in memory only.
const serverValidity = 30 * 24 * time.Hour

var serverProfile = profile{
	keyUsage:    x509.KeyUsageDigitalSignature,
	extKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
}

// TLSConfig serves the authority's Handler under a host name or address, with a
// certificate that the authority issues to itself and replaces in time.
func (c *CA) TLSConfig(host string) (*tls.Config, error) {
	var mu sync.Mutex
	var current *tls.Certificate
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		if current != nil && c.cfg.Now().Before(current.Leaf.NotAfter.Add(-serverValidity/3)) {
			return current, nil
		}
		next, err := c.serverCertificate(host)
		if err != nil {
			return nil, err
		}
		current = next
		return current, nil
	}
	if _, err := get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: get}, nil
}

func (c *CA) serverCertificate(host string) (*tls.Certificate, error) {
	key, err := newKey(pki.P256)
	if err != nil {
		return nil, err
	}
	subject, err := asn1.Marshal(pkix.Name{Organization: c.cert.Subject.Organization, CommonName: c.cert.Subject.CommonName + " server"}.ToRDNSequence())
	if err != nil {
		return nil, err
	}
	t := template{profile: serverProfile, subject: subject}
	if ip := net.ParseIP(host); ip != nil {
		t.addresses = []net.IP{ip}
	} else {
		t.dnsNames = []string{host}
	}
	if err := c.date(&t, serverValidity); err != nil {
		return nil, err
	}
	csr, err := ownRequest(key, subject)
	if err != nil {
		return nil, err
	}
	cert, err := sign(context.Background(), c.authority, csr, t)
	if err != nil {
		return nil, err
	}
	if err := c.records.put(&Record{Certificate: cert, Issued: c.cfg.Now().UTC().Truncate(time.Second)}); err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}
