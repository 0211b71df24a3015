// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"kontor/config"
	"kontor/registry"
	"kontor/registry/management"
)

// ManagementTLSFiles are what the management services of a registry present.
// The global configuration tells security servers the certificate.
func ManagementTLSFiles(cfg *config.Registry) (cert, key string) {
	return filepath.Join(cfg.DataDir, "management.pem"), filepath.Join(cfg.DataDir, "management.tls.key")
}

// initManagement makes the TLS certificate of the management services unless
// there is one.
func initManagement(cfg *config.Registry) error {
	certFile, keyFile := ManagementTLSFiles(cfg)
	if _, err := os.Stat(certFile); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return newServerCertificate(certFile, keyFile, "management services of "+cfg.Instance, cfg.Listen.Management, cfg.Listen.ManagementInternal)
}

// managementServices returns the listeners of the management services.
func managementServices(ctx context.Context, cfg *config.Registry, r *registry.Registry, log *zap.Logger, now func() time.Time) ([]endpoint, error) {
	if cfg.Listen.Management == "" && cfg.Listen.ManagementInternal == "" {
		return nil, nil
	}
	if err := initManagement(cfg); err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(ManagementTLSFiles(cfg))
	if err != nil {
		return nil, fmt.Errorf("TLS certificate of the management services: %w", err)
	}
	if err := announce(ctx, r, cert.Certificate[0], log); err != nil {
		return nil, err
	}
	services := management.New(management.Config{Registry: r, Now: now, Log: log.Named("management")})
	conf := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	return []endpoint{
		{key: "listen.management", addr: cfg.Listen.Management, handler: services.Registration(), tls: conf},
		{key: "listen.management_internal", addr: cfg.Listen.ManagementInternal, handler: services.Management(), tls: conf},
	}, nil
}

// announce puts the certificate into the global configuration if that names none.
func announce(ctx context.Context, r *registry.Registry, cert []byte, log *zap.Logger) error {
	var other bool
	_, err := r.Update(ctx, Operator("TLS certificate of the management services"), func(s *registry.State) ([]registry.Change, error) {
		system := s.System()
		if len(system.ManagementCertificate) > 0 {
			other = !bytes.Equal(system.ManagementCertificate, cert)
			return nil, nil
		}
		system.ManagementCertificate = cert
		return []registry.Change{&registry.SetSystem{System: system}}, nil
	})
	if other {
		log.Warn("the global configuration names another TLS certificate for registration than the one that this registry presents; right only if something before it presents that one")
	}
	return err
}

// withWSDL serves the description of the management services beside the
// published configuration.
func withWSDL(published http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == management.WSDLPath {
			management.WSDL(w, r)
			return
		}
		published.ServeHTTP(w, r)
	})
}
