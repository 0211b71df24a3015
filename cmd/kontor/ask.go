// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// yesFlag adds --yes to a command that asks before it does what cannot be
// undone.
func yesFlag(c *cobra.Command, yes *bool) { c.Flags().BoolVarP(yes, "yes", "y", false, "do not ask") }

// confirm asks on the terminal whether to do something. Without a terminal the
// answer is no.
func confirm(c *cobra.Command, yes bool, format string, a ...any) error {
	if yes {
		return nil
	}
	question := fmt.Sprintf(format, a...)
	if f, ok := c.InOrStdin().(*os.File); ok {
		if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
			return fmt.Errorf("%s? Nobody is here to answer; repeat the command with --yes", question)
		}
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s? [y/N] ", question)
	line, err := bufio.NewReader(c.InOrStdin()).ReadString('\n')
	if err != nil && line == "" {
		return errors.New("no answer; nothing was done")
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was done")
}
