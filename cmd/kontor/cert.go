// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"kontor/gateway/admin"
)

// certificates returns the certificates of all keys.
func certificates(ctx context.Context, api *admin.Client) ([]admin.Certificate, error) {
	keys, err := api.Keys(ctx)
	certs := []admin.Certificate{}
	for _, k := range keys {
		certs = append(certs, k.Certificates...)
	}
	return certs, err
}

func newCert() *cobra.Command {
	var gw gatewayFlags
	var output string
	list := &cobra.Command{
		Use: "list", Short: "List certificates, what state they are in and what to do next", Args: args(cobra.NoArgs),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, _ []string) error {
			certs, err := certificates(c.Context(), api)
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), output, certs, []string{"CERTIFICATE", "USAGE", "SUBJECT", "UNTIL", "STATE", "ACTIVE", "USABLE", "NEXT"}, func(v admin.Certificate) []string {
				return []string{v.Hash[:16], string(v.Usage), v.Subject, v.NotAfter.Format("2006-01-02"), v.State, yesNo(v.Active), yesNo(v.Usable), v.Next}
			})
		}),
	}
	show := &cobra.Command{
		Use: "show CERTIFICATE", Short: "Show a certificate", Args: args(cobra.ExactArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			cert, _, err := api.Certificate(c.Context(), a[0])
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, cert, certLines)
		}),
	}
	authorities := &cobra.Command{
		Use: "authorities", Short: "List the approved certification authorities", Args: args(cobra.NoArgs),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, _ []string) error {
			all, err := api.Authorities(c.Context())
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), output, all, []string{"NAME", "AUTHENTICATION ONLY", "PROFILE"}, func(v admin.Authority) []string {
				return []string{v.Name, yesNo(v.AuthenticationOnly), v.Profile}
			})
		}),
	}

	var r admin.NewRequest
	var out string
	request := &cobra.Command{
		Use: "request KEY", Short: "Make a certificate request for a key",
		Long: `Make a certificate request for a key. The certificate profile is that of the
approved authority, if there is one only; else name the authority or the profile.`,
		Example: "  kontor cert request 3f2a91… --dns-name ss1.example.org --country FI --out auth.csr.pem",
		Args:    args(cobra.ExactArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			csr, err := api.RequestCertificate(c.Context(), a[0], r)
			if err != nil {
				return err
			}
			if output == "json" {
				return printOne(c.OutOrStdout(), output, csr, nil)
			}
			if out == "-" {
				_, err = fmt.Fprint(c.OutOrStdout(), csr.PEM)
				return err
			}
			if err := os.WriteFile(out, []byte(csr.PEM), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "Wrote %s.\nNext: %s\n", out, csr.Next)
			return nil
		}),
	}
	f := request.Flags()
	f.StringVar(&r.Authority, "authority", "", "approved certification authority (kontor cert authorities)")
	f.StringVar(&r.Profile, "profile", "", "certificate profile, such as FiVRK, instead of that of an authority")
	f.StringVar(&r.Member, "member", "", "for a signing key: whose messages it signs, as instance/class/code; default: the owner")
	f.StringVar(&r.MemberName, "member-name", "", "name of the member; default: as the registry has it")
	f.StringVar(&r.DNSName, "dns-name", "", "host name of the gateway")
	f.StringVar(&r.Country, "country", "", "country code")
	f.StringVar(&out, "out", "-", "file to write; - is standard output")
	gw.suggest(request, suggestKeys)

	var activate bool
	load := &cobra.Command{
		Use: "import FILE…", Short: "Import certificates for keys of the gateway while it runs",
		Long: `Import certificates, in PEM or DER, for keys of the gateway, and activate them.
A signing certificate is registered at once; an authentication certificate when
the registry lists it. Before the gateway has ever run: kontor gateway import.`,
		Example: "  kontor cert import auth.pem sign.pem",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, files []string) error {
			certs := []admin.Certificate{}
			for _, file := range files {
				text, err := readPEM(file)
				if err != nil {
					return err
				}
				cert, err := api.ImportCertificate(c.Context(), admin.NewCertificate{Certificate: text, Activate: activate})
				if err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				certs = append(certs, cert)
				if activate && !cert.Active {
					fmt.Fprintf(c.ErrOrStderr(), "%s: %s\n", file, cert.Problem)
				}
			}
			return printList(c.OutOrStdout(), output, certs, []string{"CERTIFICATE", "USAGE", "SUBJECT", "STATE", "ACTIVE", "NEXT"}, func(v admin.Certificate) []string {
				return []string{v.Hash[:16], string(v.Usage), v.Subject, v.State, yesNo(v.Active), v.Next}
			})
		}),
	}
	load.Flags().BoolVar(&activate, "activate", true, "activate them, too")

	var registration admin.NewRegistration
	enter := &cobra.Command{
		Use: "register CERTIFICATE", Short: "Have the registry register an authentication certificate for this gateway",
		Long: `Send the registry a request to register an authentication certificate for this
gateway; with its first one the gateway itself becomes registered. The request
waits for the registry's operators. Run the command again to learn what became
of it: a declined request is shown with the reason, and the next run sends a
new one.`,
		Example: "  kontor cert register 3f2a91… --address ss1.example.org",
		Args:    args(cobra.ExactArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			v, err := api.RegisterCertificate(c.Context(), a[0], "", registration)
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, v, registrationLines)
		}),
	}
	enter.Flags().StringVar(&registration.Address, "address", "", "host name or IP address at which other gateways reach this one; default: the registered one")
	gw.suggest(enter, suggestCertificates)

	var yes bool
	var leaving admin.Unregistration
	leave := &cobra.Command{
		Use: "unregister CERTIFICATE", Short: "Have the registry remove an authentication certificate of this gateway", Args: args(cobra.ExactArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			cert, etag, err := api.Certificate(c.Context(), a[0])
			if err != nil {
				return err
			}
			if err := confirm(c, yes, "Have the registry remove %s of %s (%s)", cert.Hash[:16], cert.Subject, cert.State); err != nil {
				return err
			}
			v, err := api.UnregisterCertificate(c.Context(), cert.Hash, etag, leaving)
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, v, registrationLines)
		}),
	}
	leave.Flags().BoolVar(&leaving.Last, "last", false, "even if the gateway can carry no messages without it")
	yesFlag(leave, &yes)
	gw.suggest(leave, suggestCertificates)

	change := func(use, short, question string, do func(context.Context, *admin.Client, string, string) error, done string) *cobra.Command {
		c := &cobra.Command{
			Use: use + " CERTIFICATE", Short: short, Args: args(cobra.ExactArgs(1)),
			RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
				cert, etag, err := api.Certificate(c.Context(), a[0])
				if err != nil {
					return err
				}
				if question != "" {
					if err := confirm(c, yes, question+" %s of %s (%s, %s)", cert.Hash[:16], cert.Subject, cert.Usage, cert.State); err != nil {
						return err
					}
				}
				if err := do(c.Context(), api, cert.Hash, etag); err != nil {
					return err
				}
				fmt.Fprintf(c.ErrOrStderr(), "%s certificate %s.\n", done, cert.Hash[:16])
				return nil
			}),
		}
		if question != "" {
			yesFlag(c, &yes)
		}
		gw.suggest(c, suggestCertificates)
		return c
	}
	commands := []*cobra.Command{
		list, show, authorities, request, load, enter, leave,
		change("activate", "Activate a certificate; it needs a good OCSP response", "", func(ctx context.Context, api *admin.Client, hash, etag string) error {
			_, err := api.ActivateCertificate(ctx, hash, etag)
			return err
		}, "Activated"),
		change("deactivate", "Deactivate a certificate", "Deactivate", func(ctx context.Context, api *admin.Client, hash, etag string) error {
			_, err := api.DeactivateCertificate(ctx, hash, etag)
			return err
		}, "Deactivated"),
		change("delete", "Delete a certificate, not its key", "Delete", func(ctx context.Context, api *admin.Client, hash, etag string) error {
			return api.DeleteCertificate(ctx, hash, etag)
		}, "Deleted"),
	}
	gw.suggest(show, suggestCertificates)
	for _, c := range commands {
		gw.flags(c)
	}
	for _, c := range []*cobra.Command{list, show, authorities, request, load, enter, leave} {
		outputFlag(c, &output)
	}
	return group("cert", "Certificates of a gateway", append(commands, newCertEnrol())...)
}

func certLines(v admin.Certificate) [][2]string {
	return [][2]string{
		{"Certificate", v.Hash}, {"Key", v.Key}, {"Usage", string(v.Usage)}, {"Subject", v.Subject}, {"Issuer", v.Issuer}, {"Serial", v.Serial},
		{"Valid", date(v.NotBefore) + " – " + date(v.NotAfter)}, {"State", v.State}, {"Active", yesNo(v.Active)}, {"Member", v.Member},
		{"OCSP good until", date(v.OCSPUntil)}, {"Usable", yesNo(v.Usable)}, {"Problem", v.Problem}, {"Next", v.Next},
	}
}

func registrationLines(v admin.Registration) [][2]string {
	return append([][2]string{{"Request", strconv.FormatUint(v.Request, 10)}}, certLines(v.Certificate)...)
}
