// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// outputFlag adds --output.
func outputFlag(c *cobra.Command, output *string) {
	*output = "table"
	c.Flags().Var((*outputForm)(output), "output", "table for people, json for scripts")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// outputForm is the value of --output: table or json.
type outputForm string

func (o *outputForm) String() string { return string(*o) }
func (o *outputForm) Type() string   { return "string" }

func (o *outputForm) Set(s string) error {
	if s != "table" && s != "json" {
		return fmt.Errorf("unknown output %q; use table or json", s)
	}
	*o = outputForm(s)
	return nil
}

// printList prints rows as a table or as JSON.
func printList[T any](w io.Writer, output string, rows []T, head []string, cells func(T) []string) error {
	if output == "json" {
		return printJSON(w, rows)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(head, "\t"))
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(cells(r), "\t"))
	}
	return t.Flush()
}

// printOne prints one thing as lines of name and value, without the empty ones,
// or as JSON.
func printOne[T any](w io.Writer, output string, v T, lines func(T) [][2]string) error {
	if output == "json" {
		return printJSON(w, v)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, l := range lines(v) {
		if l[1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", l[0], l[1])
		}
	}
	return t.Flush()
}
