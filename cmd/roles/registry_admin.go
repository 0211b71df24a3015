// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"kontor/config"
	"kontor/registry"
	"kontor/registry/admin"
	"kontor/registry/guard"
)

// Hashes of the API keys, the key of commands on this machine, and the audit
// log.
func registryKeys(cfg *config.Registry) string      { return filepath.Join(cfg.DataDir, "admin-keys.json") }
func RegistryKeyFile(cfg *config.Registry) string   { return filepath.Join(cfg.DataDir, "admin.key") }
func RegistryAuditFile(cfg *config.Registry) string { return filepath.Join(cfg.DataDir, "audit.jsonl") }

// RegistryTLSFiles are what the administration API of a registry presents;
// its clients pin the certificate.
func RegistryTLSFiles(cfg *config.Registry) (cert, key string) {
	return filepath.Join(cfg.DataDir, "admin.pem"), filepath.Join(cfg.DataDir, "admin.tls.key")
}

// initRegistryAdmin makes what the administration API needs and does not have
// yet: a TLS certificate, and the first API key, for commands on this machine.
func initRegistryAdmin(cfg *config.Registry) error {
	certFile, keyFile := RegistryTLSFiles(cfg)
	if _, err := os.Stat(certFile); errors.Is(err, fs.ErrNotExist) {
		if err := newServerCertificate(certFile, keyFile, "registry "+cfg.Instance, cfg.Listen.Admin); err != nil {
			return err
		}
	}
	if _, err := os.Stat(registryKeys(cfg)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := guard.CreateKeys(registryKeys(cfg), "local", admin.Roles()...)
	if err != nil {
		return err
	}
	return guard.WriteFile(RegistryKeyFile(cfg), []byte(key+"\n"))
}

// registryAdmin returns the listener of the administration API.
func registryAdmin(ctx context.Context, cfg *config.Registry, r *registry.Registry, log *zap.Logger, now func() time.Time) (endpoint, func(), error) {
	off := endpoint{key: "listen.admin"}
	if cfg.Listen.Admin == "" {
		return off, func() {}, nil
	}
	if err := initRegistryAdmin(cfg); err != nil {
		return off, nil, err
	}
	cert, err := tls.LoadX509KeyPair(RegistryTLSFiles(cfg))
	if err != nil {
		return off, nil, fmt.Errorf("TLS certificate of the administration API: %w", err)
	}
	keys, err := guard.LoadKeys(registryKeys(cfg), admin.Roles()...)
	if err != nil {
		return off, nil, err
	}
	audit, err := guard.OpenAudit(RegistryAuditFile(cfg))
	if err != nil {
		return off, nil, err
	}
	api, err := admin.New(ctx, admin.Config{Registry: r, Keys: keys, Audit: audit, Logger: log.Named("admin"), Now: now})
	if err != nil {
		return off, nil, errors.Join(err, audit.Close())
	}
	return endpoint{key: "listen.admin", addr: cfg.Listen.Admin, handler: api,
			tls: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}},
		func() { audit.Close() }, nil // every record was written through
}

// newServerCertificate makes a self-signed TLS certificate for this machine and
// the addresses that it listens on. The certificate is written last.
func newServerCertificate(certFile, keyFile, name string, listen ...string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(20, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{host, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, BasicConstraintsValid: true,
	}
	for _, addr := range listen {
		if h, _, err := net.SplitHostPort(addr); err == nil {
			if ip := net.ParseIP(h); ip != nil && !ip.IsUnspecified() {
				template.IPAddresses = append(template.IPAddresses, ip)
			}
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := guard.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})); err != nil {
		return err
	}
	return WritePEM(certFile, "CERTIFICATE", der)
}
