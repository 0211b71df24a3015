// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"fmt"

	"github.com/spf13/cobra"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/pki"
)

func newGateway() *cobra.Command {
	var file string
	withConfig := func(c *cobra.Command) *cobra.Command {
		c.Flags().StringVar(&file, "config", "/etc/kontor/gateway.yaml", "configuration file")
		return c
	}
	load := func() (*config.Gateway, error) { return loadConfig(config.LoadGateway, file, "gateway") }

	var profile, memberName, dnsName, country, algorithm string
	initialise := withConfig(&cobra.Command{
		Use: "init", Short: "Create keys and certificate requests of a new gateway",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			p, ok := pki.ProfileByClass(profile)
			if !ok {
				return usageError{fmt.Errorf("unknown certificate profile %q; the certification authority says which one it uses, such as FiVRK or Ejbca", profile)}
			}
			alg, err := pki.ParseAlgorithm(algorithm)
			if err != nil {
				return usageError{err}
			}
			requests, err := roles.InitGateway(cfg, p, alg, pki.SubjectParams{
				Server: cfg.Server, Member: cfg.Server.Owner(), MemberName: memberName, DNSName: dnsName, Country: country})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), `Created the keys of %s in %s.
Certificate requests:
  authentication  %s
  signing         %s
Next: have them certified (kontor trust issue, or your authority), then
  kontor gateway import --config %s CERTIFICATE…
`, cfg.Server.LogString(), cfg.DataDir, requests.Auth, requests.Sign, file)
			return nil
		},
	})
	initialise.Flags().StringVar(&profile, "profile", "FiVRK", "certificate profile of the certification authority")
	initialise.Flags().StringVar(&memberName, "member-name", "", "name of the owner, for certificates")
	initialise.Flags().StringVar(&dnsName, "dns-name", "", "host name of this gateway, for certificates")
	initialise.Flags().StringVar(&country, "country", "", "country code, for certificates")
	initialise.Flags().StringVar(&algorithm, "algorithm", string(pki.P256), "algorithm of the keys")

	importCerts := withConfig(&cobra.Command{
		Use: "import FILE…", Short: "Import certificates for the keys of this gateway, before it runs",
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, files []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			var certs []*x509.Certificate
			for _, f := range files {
				der, err := roles.ReadDER(f, "CERTIFICATE")
				if err != nil {
					return err
				}
				cert, err := x509.ParseCertificate(der)
				if err != nil {
					return fmt.Errorf("%s: %w", f, err)
				}
				certs = append(certs, cert)
			}
			keys, err := roles.ImportCertificates(cfg, certs...)
			for i, k := range keys {
				fmt.Fprintf(c.OutOrStdout(), "Imported %s for the %s key %q.\n", files[i], k.Usage(), k.Label())
			}
			if err != nil {
				return err
			}
			return nil
		},
	})

	run := withConfig(&cobra.Command{
		Use: "run", Short: "Run the gateway",
		Long: `Run the gateway until it is told to stop (SIGTERM, SIGINT). Exchanges under way
are finished first. SIGHUP makes it read clients, services and access rights
again.`,
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
			return roles.RunGateway(c.Context(), cfg, roles.Options{Log: log, Ready: func() { go roles.GiveBack(c.Context(), log) }})
		},
	})
	check := withConfig(checkCommand(func() (string, error) { _, err := load(); return file, err }))
	backup := backupCommands("gateway", func(file string) (*roles.BackupSet, error) {
		cfg, err := loadConfig(config.LoadGateway, file, "gateway")
		if err != nil {
			return nil, err
		}
		return roles.GatewayBackup(file, cfg), nil
	})
	return group("gateway", "Security server: carries the messages of an organisation", append(backup,
		initialise, importCerts, run, newGatewayStatus(), newGatewayAddress(), newGatewayOwner(), newGatewayMaintenance(), newGatewayPIN(), newGatewayAPIKey(), group("config", "The configuration file", check))...)
}
