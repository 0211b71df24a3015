// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/pki"
)

func newTrust() *cobra.Command {
	var file string
	withConfig := func(c *cobra.Command) *cobra.Command {
		c.Flags().StringVar(&file, "config", "/etc/kontor/trust.yaml", "configuration file")
		return c
	}
	load := func() (*config.Trust, error) { return loadConfig(config.LoadTrust, file, "trust") }

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
			cert, err := roles.InitTrust(cfg, name, instance, alg)
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
			log, err := roles.NewLogger(cfg.Logging)
			if err != nil {
				return err
			}
			defer log.Sync()
			return roles.RunTrust(c.Context(), cfg, roles.Options{Log: log, Ready: func() { go roles.GiveBack(c.Context(), log) }})
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
			csr, err := roles.ReadDER(csrFile, "CERTIFICATE REQUEST")
			if err != nil {
				return err
			}
			der, err := trustClient(cfg).call(c.Context(), http.MethodPost, "/issue",
				url.Values{"usage": {string(use)}, "validity": {validity.String()}}, csr)
			if err != nil {
				return err
			}
			if out == "-" {
				return pem.Encode(c.OutOrStdout(), &pem.Block{Type: "CERTIFICATE", Bytes: der})
			}
			return roles.WritePEM(out, "CERTIFICATE", der)
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
			var all []roles.IssuedCert
			if err := json.Unmarshal(b, &all); err != nil {
				return err
			}
			return printList(c.OutOrStdout(), output, all, []string{"SERIAL", "USAGE", "SUBJECT", "EXPIRES", "STATUS"}, func(i roles.IssuedCert) []string {
				return []string{i.Serial, i.Usage, i.Subject, i.Expires.Format(time.DateOnly), i.Status}
			})
		},
	})
	outputFlag(list, &output)

	check := withConfig(checkCommand(func() (string, error) { _, err := load(); return file, err }))
	backup := backupCommands("trust", func(file string) (*roles.BackupSet, error) {
		cfg, err := loadConfig(config.LoadTrust, file, "trust")
		if err != nil {
			return nil, err
		}
		return roles.TrustBackup(file, cfg), nil
	})
	return group("trust", "Certification authority, OCSP responder and time-stamping authority", append(backup,
		initialise, run, issue, revoke, list, newTrustEAB(load, withConfig), group("config", "The configuration file", check))...)
}

// socketClient calls the operator's socket of a running role.
type socketClient struct {
	http *http.Client
	what string
}

func trustClient(cfg *config.Trust) *socketClient {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", roles.TrustSocket(cfg))
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
