// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"kontor/gateway/admin"
	"kontor/gateway/renewal"
	"kontor/pki"
)

func newCertEnrol() *cobra.Command {
	var gw gatewayFlags
	var output string
	status := &cobra.Command{
		Use: "status", Short: "Show the certificates that a gateway gets by ACME, and how they fare", Args: args(cobra.NoArgs),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, _ []string) error {
			all, err := api.Enrolments(c.Context())
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), output, all, []string{"USAGE", "MEMBER", "CERTIFICATE", "UNTIL", "RENEWED", "IN USE", "NOW", "PROBLEM"}, func(e renewal.Enrolment) []string {
				return []string{string(e.Usage), e.Member, shortHash(e.Certificate), date(e.NotAfter), date(e.RenewAt), yesNo(e.InUse), e.Now, e.Problem}
			})
		}),
	}
	outputFlag(status, &output)

	var usage, member string
	now := &cobra.Command{
		Use: "now", Short: "Have a gateway get a certificate by ACME now",
		Long: `Have a gateway get a certificate by ACME before its time: because the key may be
known to others, or the authority is about to revoke it. The old certificate
stays in use until the new one can be used.`,
		Example: "  kontor cert enrol now --usage signing", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			use, err := pki.ParseUsage(usage)
			if err != nil {
				return usageError{err}
			}
			api, err := gw.client()
			if err != nil {
				return err
			}
			if err := api.RenewCertificate(c.Context(), admin.RenewNow{Usage: use, Member: member}); err != nil {
				return err
			}
			fmt.Fprintln(c.ErrOrStderr(), "The gateway asks for it.\nNext: kontor cert enrol status")
			return nil
		},
	}
	now.Flags().StringVar(&usage, "usage", "", "authentication or signing")
	now.Flags().StringVar(&member, "member", "", "for signing: whose messages it signs, as instance/class/code; default: the owner")
	_ = now.MarkFlagRequired("usage") // the flag exists
	_ = now.RegisterFlagCompletionFunc("usage", cobra.FixedCompletions([]string{string(pki.Authentication), string(pki.Signing)}, cobra.ShellCompDirectiveNoFileComp))
	for _, c := range []*cobra.Command{status, now} {
		gw.flags(c)
	}
	return group("enrol", "Certificates that a gateway gets by ACME", status, now)
}

func shortHash(hash string) string { return hash[:min(len(hash), 16)] }

func enrolmentLines(all []renewal.Enrolment) [][2]string {
	var lines [][2]string
	for _, e := range all {
		text := e.Now
		if e.Certificate != "" {
			text = shortHash(e.Certificate) + " until " + date(e.NotAfter) + "; " + text
			if !e.RenewAt.IsZero() {
				text += "; renewed " + date(e.RenewAt)
			}
		}
		lines = append(lines, [2]string{"ACME " + string(e.Usage), e.Member + ": " + text}, [2]string{"  problem", e.Problem})
	}
	return lines
}
