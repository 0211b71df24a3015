// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"kontor/config"
	"kontor/pki"
	"kontor/pki/ca"
	"kontor/pki/enrol"
)

// InitTrust creates the authority of a configuration, and its passphrase if
// there is none yet.
func InitTrust(cfg *config.Trust, name, instance string, alg pki.Algorithm) (*x509.Certificate, error) {
	pass, err := NewSecret(cfg.PassphraseFile, "passphrase_file")
	if err != nil {
		return nil, err
	}
	err = ca.Create(cfg.DataDir, pass, ca.CreateConfig{Name: name, Instance: instance, Algorithm: alg})
	if err != nil {
		return nil, err
	}
	der, err := ReadDER(filepath.Join(cfg.DataDir, "ca.pem"), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// OpenTrust opens the authority of a configuration.
func OpenTrust(cfg *config.Trust) (*ca.CA, error) {
	return openTrust(cfg, zap.NewNop(), time.Now)
}

func openTrust(cfg *config.Trust, log *zap.Logger, now func() time.Time) (*ca.CA, error) {
	pass, err := Secret(cfg.PassphraseFile, "passphrase_file")
	if err != nil {
		return nil, err
	}
	settings := ca.Config{OCSPURL: strings.TrimSuffix(cfg.URL, "/") + "/ocsp", Now: now, Log: log}
	if cfg.ACME.Enabled {
		profile, ok := pki.ProfileByClass(cfg.ACME.Profile)
		if !ok {
			return nil, fmt.Errorf("acme.profile: %q is not a certificate profile; use one of %v", cfg.ACME.Profile, pki.Profiles())
		}
		settings.ACME = &ca.ACME{URL: cfg.ACME.URL, Profile: profile, ValidationPort: cfg.ACME.ValidationPort}
	}
	authority, err := ca.Open(cfg.DataDir, pass, settings)
	if errors.Is(err, ca.ErrNotFound) {
		return nil, fmt.Errorf("%w; run kontor trust init first", err)
	}
	return authority, err
}

// RunTrust runs the trust services until ctx is done.
func RunTrust(ctx context.Context, cfg *config.Trust, o Options) error {
	log, now := o.withDefaults()
	authority, err := openTrust(cfg, log, now)
	if err != nil {
		return err
	}
	defer authority.Close()
	var secure *tls.Config
	if cfg.Listen.HTTPS != "" {
		if secure, err = trustTLS(cfg, authority); err != nil {
			return err
		}
	}
	socket := TrustSocket(cfg)
	// A socket that a killed process left behind keeps nobody out: the database
	// above is locked by whoever runs.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return err
	}
	admin := &http.Server{Handler: trustAdmin(cfg, authority, log), ReadTimeout: 10 * time.Second}
	go admin.Serve(l) // ends with Close
	defer admin.Close()
	return serve(ctx, log, []endpoint{
		{key: "listen.http", addr: cfg.Listen.HTTP, handler: authority.Handler()},
		{key: "listen.https", addr: cfg.Listen.HTTPS, handler: authority.Handler(), tls: secure},
		{key: "listen.metrics", addr: cfg.Listen.Metrics, handler: observe(prometheus.NewRegistry(), []check{
			{"database", func() error { _, err := authority.List(ctx); return err }},
		})},
	}, o.Ready)
}

// trustTLS is how listen.https proves who it is.
func trustTLS(cfg *config.Trust, authority *ca.CA) (*tls.Config, error) {
	if cfg.TLS.Certificate != "" {
		cert, err := tls.LoadX509KeyPair(cfg.TLS.Certificate, cfg.TLS.Key)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}, nil
	}
	u, err := url.Parse(cfg.ACME.URL)
	if err != nil {
		return nil, fmt.Errorf("acme.url: %w", err)
	}
	return authority.TLSConfig(u.Hostname())
}

// TrustSocket is where a running authority takes the orders of its operator.
func TrustSocket(cfg *config.Trust) string { return filepath.Join(cfg.DataDir, "admin.sock") }

// IssuedCert is one row of the list of issued certificates.
type IssuedCert struct {
	Serial  string    `json:"serial"`
	Usage   string    `json:"usage"`
	Subject string    `json:"subject"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
	Status  string    `json:"status"`
}

// trustAdmin serves the operator through a socket that only the service's own
// user can open.
func trustAdmin(cfg *config.Trust, authority *ca.CA, log *zap.Logger) http.Handler {
	refuse := func(w http.ResponseWriter, err error) {
		status := http.StatusInternalServerError
		for _, expected := range []error{ca.ErrRequest, ca.ErrUnknownSerial, ca.ErrRevoked, ca.ErrReason, ca.ErrBinding, ca.ErrUnknownBinding} {
			if errors.Is(err, expected) {
				status = http.StatusUnprocessableEntity
			}
		}
		http.Error(w, err.Error(), status)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /issue", func(w http.ResponseWriter, r *http.Request) {
		csr, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		usage, err := pki.ParseUsage(r.URL.Query().Get("usage"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		validity, err := time.ParseDuration(r.URL.Query().Get("validity"))
		if err != nil || validity < 0 {
			http.Error(w, "validity is not a duration", http.StatusBadRequest)
			return
		}
		cert, err := authority.Issue(r.Context(), csr, ca.Request{Usage: usage, Validity: validity})
		if err != nil {
			refuse(w, err)
			return
		}
		log.Info("certificate issued", zap.String("usage", string(usage)), zap.Stringer("serial", cert.SerialNumber), zap.Stringer("subject", cert.Subject))
		w.Write(cert.Raw)
	})
	mux.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) {
		serial, ok := new(big.Int).SetString(r.URL.Query().Get("serial"), 10)
		var reason int
		if _, err := fmt.Sscan(r.URL.Query().Get("reason"), &reason); err != nil || !ok {
			http.Error(w, "serial and reason must be numbers", http.StatusBadRequest)
			return
		}
		if err := authority.Revoke(r.Context(), serial, reason); err != nil {
			refuse(w, err)
			return
		}
		log.Info("certificate revoked", zap.Stringer("serial", serial), zap.Int("reason", reason))
	})
	mux.HandleFunc("GET /list", func(w http.ResponseWriter, r *http.Request) {
		records, err := authority.List(r.Context())
		if err != nil {
			refuse(w, err)
			return
		}
		all := []IssuedCert{}
		for _, rec := range records {
			status := "good"
			if !rec.Revoked.IsZero() {
				status = "revoked " + rec.Revoked.UTC().Format(time.RFC3339)
			}
			all = append(all, IssuedCert{rec.Certificate.SerialNumber.String(), string(rec.Usage), rec.Certificate.Subject.String(),
				rec.Issued, rec.Certificate.NotAfter, status})
		}
		_ = json.NewEncoder(w).Encode(all) // the asker may have gone
	})
	mux.HandleFunc("POST /eab", func(w http.ResponseWriter, r *http.Request) {
		var want ca.Binding
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&want); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b, key, err := authority.AddBinding(r.Context(), want)
		if err != nil {
			refuse(w, err)
			return
		}
		log.Info("external account binding made", zap.String("kid", b.KID), zap.String("usage", string(b.Usage)), zap.Stringer("member", b.Member))
		credentials := enrol.Credentials{Directory: strings.TrimSuffix(cfg.ACME.URL, "/") + "/acme/directory", KID: b.KID, MACKey: key}
		if cfg.TLS.Certificate == "" {
			credentials.Root = authority.Certificate()
		}
		file, err := credentials.Marshal()
		if err != nil {
			refuse(w, err)
			return
		}
		w.Write(file)
	})
	mux.HandleFunc("GET /eab", func(w http.ResponseWriter, r *http.Request) {
		all, err := authority.Bindings(r.Context())
		if err != nil {
			refuse(w, err)
			return
		}
		if all == nil {
			all = []*ca.Binding{}
		}
		_ = json.NewEncoder(w).Encode(all) // the asker may have gone
	})
	mux.HandleFunc("DELETE /eab", func(w http.ResponseWriter, r *http.Request) {
		kid := r.URL.Query().Get("kid")
		if err := authority.DeleteBinding(r.Context(), kid); err != nil {
			refuse(w, err)
			return
		}
		log.Info("external account binding deleted", zap.String("kid", kid))
	})
	return mux
}
