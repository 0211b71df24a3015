// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/pki"
	"kontor/registry"
)

func newRegistry() *cobra.Command {
	var file string
	withConfig := func(c *cobra.Command) *cobra.Command {
		c.Flags().StringVar(&file, "config", "/etc/kontor/registry.yaml", "configuration file")
		return c
	}
	load := func() (*config.Registry, error) { return config.LoadRegistry(file) }

	var algorithm string
	initialise := withConfig(&cobra.Command{
		Use: "init", Short: "Create a registry with its signing keys",
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
			if err := roles.InitRegistry(cfg, alg); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), `Created the registry of instance %s in %s.
Next: kontor registry run --config %s
then, for gateways, the configuration anchor: kontor registry anchor --config %[3]s > anchor.xml
`, cfg.Instance, cfg.DataDir, file)
			return nil
		},
	})
	initialise.Flags().StringVar(&algorithm, "algorithm", string(pki.RSA3072), "algorithm of the signing keys; every X-Road release reads RSA")

	run := withConfig(&cobra.Command{
		Use: "run", Short: "Run the registry: publish the global configuration, serve its administration",
		Long: `Run the registry until it is told to stop (SIGTERM, SIGINT). At start, if it
is not the one applied last, and on SIGHUP the ecosystem file of the
configuration is applied; a file that is not acceptable changes nothing.`,
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
			return roles.RunRegistry(c.Context(), cfg, roles.Options{Log: log})
		},
	})

	check := withConfig(&cobra.Command{
		Use: "check", Short: "Check the configuration file and the ecosystem file and do nothing else", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), file+": ok")
			if cfg.Ecosystem == "" {
				return nil
			}
			if _, err := registry.LoadEcosystem(cfg.Ecosystem); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), cfg.Ecosystem+": ok")
			return nil
		},
	})
	backup := backupCommands("registry", func(file string) (*roles.BackupSet, error) {
		cfg, err := config.LoadRegistry(file)
		if err != nil {
			return nil, err
		}
		return roles.RegistryBackup(file, cfg), nil
	})
	commands := append(append(registryCommands(), backup...), initialise, run, newMirror(), group("config", "The configuration file", check))
	return group("registry", "Central server: who belongs to the ecosystem", commands...)
}
