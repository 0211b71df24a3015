// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kontor/config"
	"kontor/pki"
	"kontor/pki/ca"
	"kontor/registry/id"
)

// newTrustEAB makes the commands that decide who gets certificates by ACME.
func newTrustEAB(load func() (*config.Trust, error), withConfig func(*cobra.Command) *cobra.Command) *cobra.Command {
	var usage, member, server, name, country, out string
	var names []string
	add := withConfig(&cobra.Command{
		Use: "add", Short: "Admit a member to certificates of one usage, while the authority runs",
		Long: `Admit a member to certificates of one usage. Whoever holds the file that this
command writes can make one ACME account, which gets certificates for this
member and nobody else; hand it over on a safe way.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			b := ca.Binding{MemberName: name, Country: country, DNSNames: names}
			if b.Usage, err = pki.ParseUsage(usage); err != nil {
				return usageError{err}
			}
			if b.Member, err = id.ParseMember(member); err != nil {
				return usageError{fmt.Errorf("--member: %w", err)}
			}
			if server != "" {
				if b.Server, err = id.ParseSecurityServer(server); err != nil {
					return usageError{fmt.Errorf("--server: %w", err)}
				}
			}
			body, err := json.Marshal(b)
			if err != nil {
				return err
			}
			// What cannot be kept must not be made.
			var f *os.File
			if out != "-" {
				if f, err = os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
					return err
				}
				defer f.Close()
			}
			credentials, err := trustClient(cfg).call(c.Context(), http.MethodPost, "/eab", nil, body)
			if err != nil {
				if f != nil {
					err = errors.Join(err, os.Remove(out))
				}
				return err
			}
			if f == nil {
				_, err := c.OutOrStdout().Write(credentials)
				return err
			}
			_, err = f.Write(credentials)
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s admits %s to %s certificates, once. Hand it over on a safe way.\n", out, b.Member, b.Usage)
			return nil
		},
	})
	add.Flags().StringVar(&usage, "usage", "", "authentication or signing")
	add.Flags().StringVar(&member, "member", "", "whose certificates: instance/class/code")
	add.Flags().StringVar(&server, "server", "", "security server: instance/class/code/server; needed for authentication")
	add.Flags().StringVar(&name, "name", "", "name of the member, as certificates show it")
	add.Flags().StringVar(&country, "country", "", "country of the member, two letters, for profiles that show it")
	add.Flags().StringSliceVar(&names, "dns", nil, "DNS names that certificates may have; none: all that the applicant controls")
	add.Flags().StringVar(&out, "out", "-", "file for the credentials; - is standard output")
	_ = add.MarkFlagRequired("usage") // the flags exist
	_ = add.MarkFlagRequired("member")
	_ = add.RegisterFlagCompletionFunc("usage", cobra.FixedCompletions([]string{string(pki.Authentication), string(pki.Signing)}, cobra.ShellCompDirectiveNoFileComp))

	var output string
	list := withConfig(&cobra.Command{
		Use: "list", Short: "List who is admitted, while the authority runs",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			b, err := trustClient(cfg).call(c.Context(), http.MethodGet, "/eab", nil, nil)
			if err != nil {
				return err
			}
			var all []*ca.Binding
			if err := json.Unmarshal(b, &all); err != nil {
				return err
			}
			return printList(c.OutOrStdout(), output, all, []string{"KID", "USAGE", "MEMBER", "SERVER", "NAMES", "CREATED", "USED"}, func(b *ca.Binding) []string {
				server, dns, used := "-", "any", "not yet"
				if !b.Server.IsZero() {
					server = b.Server.String()
				}
				if len(b.DNSNames) > 0 {
					dns = strings.Join(b.DNSNames, " ")
				}
				if !b.Bound.IsZero() {
					used = b.Bound.Format(time.DateOnly)
				}
				return []string{b.KID, string(b.Usage), b.Member.String(), server, dns, b.Created.Format(time.DateOnly), used}
			})
		},
	})
	outputFlag(list, &output)

	var yes bool
	remove := withConfig(&cobra.Command{
		Use: "delete KID", Short: "Withdraw an admission, while the authority runs",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			if err := confirm(c, yes, "Withdraw %s, so that its account gets no certificates any more", a[0]); err != nil {
				return err
			}
			if _, err = trustClient(cfg).call(c.Context(), http.MethodDelete, "/eab", url.Values{"kid": {a[0]}}, nil); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "Withdrawn. Certificates that it got stay valid; 'kontor trust revoke' ends them.")
			return nil
		},
	})
	yesFlag(remove, &yes)
	return group("eab", "Who gets certificates by ACME: external account bindings", add, list, remove)
}
