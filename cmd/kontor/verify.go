// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"kontor/cmd/verify"
)

// exitWith ends the program with a status that a command has chosen itself.
type exitWith int

func (e exitWith) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func newVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE.asice… (--conf DIR | --anchor ANCHOR.xml [--conf DIR])",
		Short: "Judge signed documents offline, as kontor-verify does",
		// The command reads its own flags, so that both programs are one.
		DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error {
			if status := verify.Run(c.Context(), "kontor verify", args, c.OutOrStdout(), c.ErrOrStderr()); status != 0 {
				return exitWith(status)
			}
			return nil
		},
	}
}
