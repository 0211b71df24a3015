// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
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
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(rows)
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
