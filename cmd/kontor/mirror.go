// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/pki"
)

// newMirror returns the commands of a configuration proxy.
func newMirror() *cobra.Command {
	var file string
	withConfig := func(c *cobra.Command) *cobra.Command {
		c.Flags().StringVar(&file, "config", "/etc/kontor/mirror.yaml", "configuration file")
		return c
	}
	load := func() (*config.Mirror, error) { return loadConfig(config.LoadMirror, file, "registry mirror") }

	var algorithm string
	initialise := withConfig(&cobra.Command{
		Use: "init", Short: "Create the signing key of a mirror",
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
			if err := roles.InitMirror(cfg, alg); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), `Created a mirror in %s.
Next: kontor registry mirror run --config %s
and give its configuration anchor to gateways: kontor registry mirror anchor --config %[2]s
`, cfg.DataDir, file)
			return nil
		},
	})
	initialise.Flags().StringVar(&algorithm, "algorithm", string(pki.RSA3072), "algorithm of the signing key; every X-Road release reads RSA")

	run := withConfig(&cobra.Command{
		Use: "run", Short: "Download, verify, sign and serve the global configuration of another registry",
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
			return roles.RunMirror(c.Context(), cfg, roles.Options{Log: log, Ready: func() { go roles.GiveBack(c.Context(), log) }})
		},
	})

	anchor := withConfig(&cobra.Command{
		Use: "anchor", Short: "Print the configuration anchor for gateways that load through the mirror, while it is stopped (while it runs: GET /NAME/anchor)",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			m, err := roles.OpenMirror(cfg)
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(m.Anchor())
			return errors.Join(err, m.Close())
		},
	})

	check := withConfig(checkCommand(func() (string, error) { _, err := load(); return file, err }))
	return group("mirror", "Configuration proxy: serve another registry's global configuration",
		initialise, run, anchor, check)
}
