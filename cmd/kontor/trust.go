// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
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
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"kontor/config"
	"kontor/pki"
	"kontor/pki/ca"
)

func newTrust() *cobra.Command {
	var file string
	withConfig := func(c *cobra.Command) *cobra.Command {
		c.Flags().StringVar(&file, "config", "/etc/kontor/trust.yaml", "configuration file")
		return c
	}
	load := func() (*config.Trust, error) { return config.LoadTrust(file) }

	var name, instance, algorithm string
	initialise := withConfig(&cobra.Command{
		Use: "init", Short: "Create the keys of a new certification authority, OCSP responder and time-stamping authority",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			alg, err := pki.ParseAlgorithm(algorithm)
			if err != nil {
				return usageError{err}
			}
			cert, err := initTrust(cfg, name, instance, alg)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Created the authority %q in %s.\nIts certificate: %s\nNext: kontor trust run --config %s\n",
				cert.Subject.CommonName, cfg.DataDir, filepath.Join(cfg.DataDir, "ca.pem"), file)
			return nil
		},
	})
	initialise.Flags().StringVar(&name, "name", "Kontor CA", "common name of the authority")
	initialise.Flags().StringVar(&instance, "instance", "", "X-Road instance that it serves")
	initialise.Flags().StringVar(&algorithm, "algorithm", string(pki.P256), "algorithm of its keys")
	_ = initialise.MarkFlagRequired("instance") // the flag exists

	run := withConfig(&cobra.Command{
		Use: "run", Short: "Run the OCSP responder and the time-stamping authority, and issue certificates",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			log, err := newLogger(cfg.Logging)
			if err != nil {
				return err
			}
			defer log.Sync()
			return runTrust(c.Context(), cfg, log, nil)
		},
	})

	var csrFile, usage, out string
	var validity time.Duration
	issue := withConfig(&cobra.Command{
		Use: "issue", Short: "Issue a certificate from a certificate request, while the authority runs",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			use, err := pki.ParseUsage(usage)
			if err != nil {
				return usageError{err}
			}
			csr, err := readDER(csrFile, "CERTIFICATE REQUEST")
			if err != nil {
				return err
			}
			der, err := trustClient(cfg).call(c.Context(), http.MethodPost, "/issue",
				url.Values{"usage": {string(use)}, "validity": {validity.String()}}, csr)
			if err != nil {
				return err
			}
			return writePEM(c.OutOrStdout(), out, "CERTIFICATE", der)
		},
	})
	issue.Flags().StringVar(&csrFile, "csr", "", "certificate request, PEM or DER")
	issue.Flags().StringVar(&usage, "usage", "", "authentication or signing")
	issue.Flags().StringVar(&out, "out", "-", "where the certificate goes, as PEM; - is standard output")
	issue.Flags().DurationVar(&validity, "validity", 0, "how long it is valid; 0: two years")
	_ = issue.MarkFlagRequired("csr")
	_ = issue.MarkFlagRequired("usage")

	var reason int
	revoke := withConfig(&cobra.Command{
		Use: "revoke SERIAL", Short: "Revoke a certificate, while the authority runs",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			if _, ok := new(big.Int).SetString(a[0], 10); !ok {
				return usageError{fmt.Errorf("%q is not a serial number; 'kontor trust list' shows them", a[0])}
			}
			_, err = trustClient(cfg).call(c.Context(), http.MethodPost, "/revoke",
				url.Values{"serial": {a[0]}, "reason": {fmt.Sprint(reason)}}, nil)
			if err == nil {
				fmt.Fprintln(c.OutOrStdout(), "Revoked; OCSP says so from now on.")
			}
			return err
		},
	})
	revoke.Flags().IntVar(&reason, "reason", 0, "reason code of RFC 5280, section 5.3.1")

	var output string
	list := withConfig(&cobra.Command{
		Use: "list", Short: "List the certificates issued, while the authority runs",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			b, err := trustClient(cfg).call(c.Context(), http.MethodGet, "/list", nil, nil)
			if err != nil {
				return err
			}
			var all []issuedCert
			if err := json.Unmarshal(b, &all); err != nil {
				return err
			}
			return printList(c.OutOrStdout(), output, all, []string{"SERIAL", "USAGE", "SUBJECT", "EXPIRES", "STATUS"}, func(i issuedCert) []string {
				return []string{i.Serial, i.Usage, i.Subject, i.Expires.Format(time.DateOnly), i.Status}
			})
		},
	})
	outputFlag(list, &output)

	check := withConfig(&cobra.Command{
		Use: "check", Short: "Check the configuration file and do nothing else", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := load()
			if err == nil {
				fmt.Fprintln(c.OutOrStdout(), file+": ok")
			}
			return err
		},
	})
	return group("trust", "Certification authority, OCSP responder and time-stamping authority",
		initialise, run, issue, revoke, list, group("config", "The configuration file", check))
}

// initTrust creates the authority of a configuration, and its passphrase if
// there is none yet.
func initTrust(cfg *config.Trust, name, instance string, alg pki.Algorithm) (*x509.Certificate, error) {
	pass, err := newSecret(cfg.PassphraseFile, "passphrase_file")
	if err != nil {
		return nil, err
	}
	err = ca.Create(cfg.DataDir, pass, ca.CreateConfig{Name: name, Instance: instance, Algorithm: alg})
	if err != nil {
		return nil, err
	}
	der, err := readDER(filepath.Join(cfg.DataDir, "ca.pem"), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newSecret returns the secret in a file, which it makes if it does not exist.
func newSecret(file, key string) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case err == nil:
		_, err = f.WriteString(rand.Text() + "\n")
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return nil, err
		}
	case !errors.Is(err, os.ErrExist):
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return secret(file, key)
}

// openTrust opens the authority of a configuration.
func openTrust(cfg *config.Trust, log *zap.Logger) (*ca.CA, error) {
	pass, err := secret(cfg.PassphraseFile, "passphrase_file")
	if err != nil {
		return nil, err
	}
	authority, err := ca.Open(cfg.DataDir, pass, ca.Config{OCSPURL: strings.TrimSuffix(cfg.URL, "/") + "/ocsp", Log: log})
	if errors.Is(err, ca.ErrNotFound) {
		return nil, fmt.Errorf("%w; run kontor trust init first", err)
	}
	return authority, err
}

// runTrust runs the trust services until ctx is done.
func runTrust(ctx context.Context, cfg *config.Trust, log *zap.Logger, ready func()) error {
	authority, err := openTrust(cfg, log)
	if err != nil {
		return err
	}
	defer authority.Close()
	socket := trustSocket(cfg)
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
	admin := &http.Server{Handler: trustAdmin(authority, log), ReadTimeout: 10 * time.Second}
	go admin.Serve(l) // ends with Close
	defer admin.Close()
	return serve(ctx, log, []endpoint{
		{key: "listen.http", addr: cfg.Listen.HTTP, handler: authority.Handler()},
		{key: "listen.metrics", addr: cfg.Listen.Metrics, handler: observe(prometheus.NewRegistry(), []check{
			{"database", func() error { _, err := authority.List(ctx); return err }},
		})},
	}, ready)
}

func trustSocket(cfg *config.Trust) string { return filepath.Join(cfg.DataDir, "admin.sock") }

// issuedCert is one row of the list of issued certificates.
type issuedCert struct {
	Serial  string    `json:"serial"`
	Usage   string    `json:"usage"`
	Subject string    `json:"subject"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
	Status  string    `json:"status"`
}

// trustAdmin serves the operator through a socket that only the service's own
// user can open.
func trustAdmin(authority *ca.CA, log *zap.Logger) http.Handler {
	refuse := func(w http.ResponseWriter, err error) {
		status := http.StatusInternalServerError
		if errors.Is(err, ca.ErrRequest) || errors.Is(err, ca.ErrUnknownSerial) || errors.Is(err, ca.ErrRevoked) || errors.Is(err, ca.ErrReason) {
			status = http.StatusUnprocessableEntity
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
		all := []issuedCert{}
		for _, rec := range records {
			status := "good"
			if !rec.Revoked.IsZero() {
				status = "revoked " + rec.Revoked.UTC().Format(time.RFC3339)
			}
			all = append(all, issuedCert{rec.Certificate.SerialNumber.String(), string(rec.Usage), rec.Certificate.Subject.String(),
				rec.Issued, rec.Certificate.NotAfter, status})
		}
		_ = json.NewEncoder(w).Encode(all) // the asker may have gone
	})
	return mux
}

// socketClient calls the operator's socket of a running role.
type socketClient struct {
	http *http.Client
	what string
}

func trustClient(cfg *config.Trust) *socketClient {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", trustSocket(cfg))
	}
	return &socketClient{&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: time.Minute},
		"kontor trust run"}
}

func (s *socketClient) call(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://socket"+path+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s does not answer on its socket; start it, or use its configuration file with --config: %w", s.what, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimSpace(string(b)))
	}
	return b, nil
}

// readDER reads a PEM or DER file.
func readDER(file, kind string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	switch {
	case block == nil && len(b) > 0 && b[0] == 0x30:
		return b, nil
	case block == nil || block.Type != kind:
		return nil, fmt.Errorf("%s holds no %s", file, strings.ToLower(kind))
	}
	return block.Bytes, nil
}

// writePEM writes one PEM block to a file, or to w for "-".
func writePEM(w io.Writer, file, kind string, der []byte) error {
	b := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if file == "-" {
		_, err := w.Write(b)
		return err
	}
	return os.WriteFile(file, b, 0o644)
}
