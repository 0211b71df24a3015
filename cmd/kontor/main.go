// SPDX-License-Identifier: Apache-2.0

// Command kontor is a secure data-exchange layer in one binary: gateway,
// registry, trust services, their administration, and a sandbox with all of
// them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses, the same for every command.
const (
	exitFailed = 1 // refused or failed
	exitUsage  = 2 // wrong usage
)

// usageError is a mistake in how a command was called.
type usageError struct{ error }

// errReported ends a command that has already said what is wrong.
var errReported = errors.New("already reported")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRoot().ExecuteContext(ctx)
	stop()
	os.Exit(exitStatus(err))
}

func exitStatus(err error) int {
	var usage usageError
	var status exitWith
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "kontor: %v\n", err)
		return exitUsage
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "required flag"), strings.HasPrefix(err.Error(), "if any flags in the group"):
		fmt.Fprintf(os.Stderr, "kontor: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(os.Stderr, "kontor: %v\n", err)
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "kontor",
		Short: "Secure data exchange between organisations, compatible with X-Road 7",
		Long: `Kontor exchanges records between organisations: signed, time-stamped, logged
and tunnelled, without a central database. It speaks X-Road 7's protocols.

Start with "kontor sandbox": a whole ecosystem on this machine.`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if before := c.Flags().Args(); c.HasSubCommands() && len(before) > 0 { // the flag is of a command that does not exist
			return unknownCommand(c, before[0])
		}
		return usageError{fmt.Errorf("%w\nSee '%s --help'", err, c.CommandPath())}
	})
	root.AddCommand(
		newSandbox(),
		newCall(),
		newGateway(),
		newRegistry(),
		newMemberClass(),
		newMember(),
		newSubsystem(),
		newServer(),
		newGroup(),
		newCA(),
		newTSA(),
		newAnchor(),
		newSettings(),
		newRequest(),
		newTrust(),
		newKey(),
		newCert(),
		newClient(),
		newService(),
		newAccess(),
		newLog(),
		newVerify(),
	)
	return root
}

// group returns a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(c, args[0])
			}
			return c.Help()
		},
	}
	c.AddCommand(commands...)
	return c
}

func unknownCommand(c *cobra.Command, name string) error {
	return usageError{fmt.Errorf("unknown command %q for %q\nSee '%s --help'", name, c.CommandPath(), c.CommandPath())}
}

// checkCommand returns the command that reads a configuration file and nothing
// else. read returns the file's name.
func checkCommand(read func() (file string, err error)) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Check the configuration file and do nothing else", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			file, err := read()
			if err == nil {
				fmt.Fprintln(c.OutOrStdout(), file+": ok")
			}
			return err
		},
	}
}

// args wraps a check of positional arguments, so that a failure is one of usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, a []string) error {
		if err := check(c, a); err != nil {
			return usageError{fmt.Errorf("%w\nUsage: %s", err, c.UseLine())}
		}
		return nil
	}
}

// version tells what was built: module version or commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + s.Value
		}
	}
	return v
}
