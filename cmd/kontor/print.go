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
	c.Flags().StringVar(output, "output", "table", "table for people, json for scripts")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// printList prints rows as a table or as JSON.
func printList[T any](w io.Writer, output string, rows []T, head []string, cells func(T) []string) error {
	switch output {
	case "json":
		return printJSON(w, rows)
	case "table":
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, strings.Join(head, "\t"))
		for _, r := range rows {
			fmt.Fprintln(t, strings.Join(cells(r), "\t"))
		}
		return t.Flush()
	}
	return usageError{fmt.Errorf("unknown output %q; use table or json", output)}
}

// printOne prints one thing as lines of name and value, without the empty ones,
// or as JSON.
func printOne[T any](w io.Writer, output string, v T, lines func(T) [][2]string) error {
	switch output {
	case "json":
		return printJSON(w, v)
	case "table":
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		for _, l := range lines(v) {
			if l[1] != "" {
				fmt.Fprintf(t, "%s\t%s\n", l[0], l[1])
			}
		}
		return t.Flush()
	}
	return usageError{fmt.Errorf("unknown output %q; use table or json", output)}
}
