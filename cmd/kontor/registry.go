// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"time"

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
			fmt.Fprintf(c.OutOrStdout(), "Created the registry of instance %s in %s.\nNext: kontor registry run --config %s\n"+
				"and give the configuration anchor to gateways: kontor registry anchor --config %s\n", cfg.Instance, cfg.DataDir, file, file)
			return nil
		},
	})
	initialise.Flags().StringVar(&algorithm, "algorithm", string(pki.RSA3072), "algorithm of the signing keys; every X-Road release reads RSA")

	run := withConfig(&cobra.Command{
		Use: "run", Short: "Run the registry: apply the ecosystem file, publish the global configuration",
		Long: `Run the registry until it is told to stop (SIGTERM, SIGINT). At start and on
SIGHUP the ecosystem file of the configuration is applied; a file that is not
acceptable changes nothing.`,
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

	var external bool
	anchor := withConfig(&cobra.Command{
		Use: "anchor", Short: "Print the configuration anchor, while the registry is stopped (while it runs: GET /anchor/internal)",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return withRegistry(load, func(r *registry.Registry) error {
				get := r.InternalAnchor
				if external {
					get = r.ExternalAnchor
				}
				b, err := get()
				if err == nil {
					_, err = c.OutOrStdout().Write(b)
				}
				return err
			})
		},
	})
	anchor.Flags().BoolVar(&external, "external", false, "the anchor for federation partners")

	plan := withConfig(&cobra.Command{
		Use: "plan", Short: "Show what applying the ecosystem file would change, while the registry is stopped",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			return withRegistry(load, func(r *registry.Registry) error { return showPlan(c.OutOrStdout(), cfg, r) })
		},
	})

	journal := withConfig(&cobra.Command{
		Use: "journal", Short: "Print the journal of changes, while the registry is stopped",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return withRegistry(load, func(r *registry.Registry) error {
				return r.Journal(c.Context(), 1, func(e *registry.Entry) error {
					_, err := fmt.Fprintf(c.OutOrStdout(), "%d  %s  %s  %s\n", e.Number, e.Time.Format(time.RFC3339), e.Author.Who, e.Change)
					return err
				})
			})
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
	return group("registry", "Central server: who belongs to the ecosystem",
		initialise, run, plan, anchor, journal, group("config", "The configuration file", check))
}

// withRegistry opens the registry of a configuration for one command.
func withRegistry(load func() (*config.Registry, error), do func(*registry.Registry) error) error {
	cfg, err := load()
	if err != nil {
		return err
	}
	r, err := roles.OpenRegistry(cfg)
	if err != nil {
		return err
	}
	return errors.Join(do(r), r.Close())
}

func showPlan(w io.Writer, cfg *config.Registry, r *registry.Registry) error {
	if cfg.Ecosystem == "" {
		return errors.New("the configuration names no ecosystem file")
	}
	eco, err := registry.LoadEcosystem(cfg.Ecosystem)
	if err != nil {
		return err
	}
	changes, err := registry.Plan(r.State(), eco)
	if err != nil {
		return err
	}
	if len(changes) == 0 {
		fmt.Fprintln(w, "Nothing to change.")
		return nil
	}
	for _, c := range changes {
		fmt.Fprintln(w, c)
	}
	return nil
}
