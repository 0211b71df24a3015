// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
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
	load := func() (*config.Registry, error) { return loadConfig(config.LoadRegistry, file, "registry") }

	var algorithm string
	var join, replace, move bool
	initialise := withConfig(&cobra.Command{
		Use: "init", Short: "Create a registry, or a further node of one, with its signing keys",
		Long: `Create a registry with its signing keys.

With --join, make this machine a further node of a registry that exists: the
configuration names the database that the nodes share (store.postgres) and the
node. It gets an address and signing keys of its own, which clients learn from
the configuration that the other nodes publish. With --replace, a node whose
machine is lost is made anew.

With --move, the journal of the registry that is here already goes into the
database; after that, further nodes can join.`,
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
			if replace && !join {
				return usageError{errors.New("--replace goes with --join")}
			}
			if move {
				if join {
					return usageError{errors.New("--move and --join exclude each other")}
				}
				if err := roles.MoveRegistry(cfg); err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), `The journal is in the database now; %s/journal.moved is not used any more.
Next: kontor registry run --config %s
`, cfg.DataDir, file)
				return nil
			}
			if join {
				if err := roles.JoinRegistry(cfg, alg, replace); err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), `Joined the registry of instance %s, with the keys of this node in %s.
Next: kontor registry run --config %s
Gateways learn of this node by themselves; those that are new need a new anchor.
If this node serves registrations (listen.management), give it the certificate and
key of the first one (management.pem and management.tls.key in its data_dir).
`, cfg.Instance, cfg.DataDir, file)
				return nil
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

	initialise.Flags().BoolVar(&join, "join", false, "become a further node of the registry in store.postgres")
	initialise.Flags().BoolVar(&move, "move", false, "move the journal of this registry into store.postgres")
	initialise.Flags().BoolVar(&replace, "replace", false, "with --join: take the place of a node that is lost")

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
			return roles.RunRegistry(c.Context(), cfg, roles.Options{Log: log, Ready: func() { go roles.GiveBack(c.Context(), log) }})
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
		cfg, err := loadConfig(config.LoadRegistry, file, "registry")
		if err != nil {
			return nil, err
		}
		return roles.RegistryBackup(file, cfg), nil
	})
	commands := append(append(registryCommands(), backup...), initialise, run, newMirror(), group("config", "The configuration file", check))
	return group("registry", "Central server: who belongs to the ecosystem", commands...)
}
