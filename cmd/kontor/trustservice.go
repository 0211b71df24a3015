// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kontor/registry/admin"
)

// responderFlags describe an OCSP responder.
type responderFlags struct{ url, certificate, cost string }

func (r *responderFlags) add(c *cobra.Command, prefix string) *cobra.Command {
	if prefix != "" {
		c.Flags().StringVar(&r.url, prefix+"url", "", "address of the OCSP responder")
	}
	c.Flags().StringVar(&r.certificate, prefix+"certificate", "", "file with its certificate; without, the authority itself or a certificate that it issued signs")
	c.Flags().StringVar(&r.cost, prefix+"cost", "", "FREE, PAID or UNDEFINED")
	return c
}

func (r *responderFlags) body() (out admin.NewResponder, err error) {
	out.URL, out.Cost = r.url, r.cost
	if r.certificate != "" {
		out.Certificate, err = readPEM(r.certificate)
	}
	return out, err
}

// list is the responder as a list, or none if it has no address.
func (r *responderFlags) list() ([]admin.NewResponder, error) {
	if r.url == "" {
		if r.certificate != "" {
			return nil, usageError{fmt.Errorf("--ocsp-certificate needs --ocsp-url")}
		}
		return nil, nil
	}
	one, err := r.body()
	return []admin.NewResponder{one}, err
}

var completeCAs = completion(func(c *cobra.Command, api *admin.Client) ([]admin.CA, error) { return api.CAs(c.Context()) },
	func(ca admin.CA) string { return ca.Name })

// completeAuthorities completes the second argument with authorities of the first.
func completeAuthorities(c *cobra.Command, api *admin.Client, args []string) ([]string, error) {
	ca, _, err := api.CA(c.Context(), args[0])
	var out []string
	for _, authority := range ca.Authorities {
		out = append(out, authority.Certificate.SHA256+"\t"+authority.Certificate.Subject)
	}
	return out, err
}

func newCA() *cobra.Command {
	a := new(registryAPI)
	return group("ca", "Approved certification services, in the registry",
		a.command("list", "List approved certification services", "  kontor ca list", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
			all, err := api.CAs(c.Context())
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), a.output, all, []string{"NAME", "SUBJECT", "UNTIL", "INTERMEDIATES", "PROFILE"}, func(ca admin.CA) []string {
				top := ca.Authorities[0].Certificate
				return []string{ca.Name, top.Subject, top.NotAfter.Format(time.DateOnly), strconv.Itoa(len(ca.Authorities) - 1), ca.Profile[strings.LastIndexByte(ca.Profile, '.')+1:]}
			})
		}),
		a.complete(a.command("show NAME", "Show a certification service with its authorities and OCSP responders", `  kontor ca show "Example CA"`, cobra.ExactArgs(1),
			func(c *cobra.Command, api *admin.Client, args []string) error {
				ca, _, err := api.CA(c.Context(), args[0])
				if err != nil {
					return err
				}
				return a.show(c, ca, caLines(ca)...)
			}), completeCAs),
		newCAAdd(a), newCAChange(a),
		a.complete(a.remove("delete NAME", "Withdraw the approval: certificates that it issued are no longer accepted", `  kontor ca delete "Example CA"`, cobra.ExactArgs(1),
			func(c *cobra.Command, api *admin.Client, args []string) error {
				_, etag, err := api.CA(c.Context(), args[0])
				if err != nil {
					return err
				}
				if err := a.confirm(c, "Withdraw the approval of %s, so that certificates that it issued are accepted nowhere", args[0]); err != nil {
					return err
				}
				d, err := api.DeleteCA(c.Context(), a.terms(etag), args[0])
				return a.done(c, d, err)
			}), completeCAs),
		newIntermediate(a), newOCSP(a))
}

func caLines(ca admin.CA) [][2]string {
	lines := [][2]string{{"Name", ca.Name}, {"Profile", ca.Profile}, {"Authentication only", yesNo(ca.AuthenticationOnly)}}
	if ca.CSRFormat != "" {
		lines = append(lines, [2]string{"Requests as", ca.CSRFormat})
	}
	if ca.ACME != nil {
		lines = append(lines, [2]string{"ACME", ca.ACME.DirectoryURL})
	}
	for i, authority := range ca.Authorities {
		cert := authority.Certificate
		lines = append(lines, [2]string{map[bool]string{true: "Authority", false: "Intermediate"}[i == 0],
			fmt.Sprintf("%s  %s  until %s", cert.SHA256, cert.Subject, cert.NotAfter.Format(time.DateOnly))})
		for _, r := range authority.Responders {
			lines = append(lines, [2]string{"  OCSP", strings.TrimSpace(r.URL + "  " + r.Cost)})
		}
	}
	return lines
}

// acmeFlags describe the ACME server of a certification service.
func acmeFlags(c *cobra.Command, acme *admin.ACME) {
	c.Flags().StringVar(&acme.DirectoryURL, "acme", "", "address of its ACME directory")
	c.Flags().StringVar(&acme.IPAddress, "acme-ip", "", "IP address from which the ACME server makes its checks")
	c.Flags().StringVar(&acme.AuthenticationProfile, "acme-auth-profile", "", "ACME profile of authentication certificates")
	c.Flags().StringVar(&acme.SigningProfile, "acme-sign-profile", "", "ACME profile of signing certificates")
}

func newCAAdd(a *registryAPI) *cobra.Command {
	var (
		ca   admin.NewCA
		ocsp responderFlags
		acme admin.ACME
	)
	c := files(a.change("add NAME FILE", "Approve a certification service",
		`  kontor ca add "Example CA" ca.pem --profile FiVRK --ocsp-url http://ocsp.example.org --ocsp-certificate ocsp.pem`, cobra.ExactArgs(2),
		func(c *cobra.Command, api *admin.Client, args []string) (err error) {
			ca.Name = args[0]
			if ca.Certificate, err = readPEM(args[1]); err != nil {
				return err
			}
			if ca.Responders, err = ocsp.list(); err != nil {
				return err
			}
			if acme.DirectoryURL != "" {
				ca.ACME = &acme
			}
			d, err := api.AddCA(c.Context(), a.terms(""), ca)
			return a.done(c, d, err)
		}))
	c.Flags().StringVar(&ca.Profile, "profile", "FiVRK", "certificate profile: class name, full or short")
	c.Flags().BoolVar(&ca.AuthenticationOnly, "authentication-only", false, "it issues authentication certificates only")
	c.Flags().StringVar(&ca.CSRFormat, "csr-format", "", "how it takes certificate requests: DER or PEM")
	acmeFlags(c, &acme)
	return ocsp.add(c, "ocsp-")
}

func newCAChange(a *registryAPI) *cobra.Command {
	var (
		profile, format string
		only            bool
		acme            admin.ACME
	)
	c := a.complete(a.change("change NAME", "Change an approved certification service; what no flag names stays", `  kontor ca change "Example CA" --acme https://acme.example.org/directory`, cobra.ExactArgs(1),
		func(c *cobra.Command, api *admin.Client, args []string) error {
			var to admin.CAChange
			set(c, "profile", &to.Profile, profile)
			set(c, "authentication-only", &to.AuthenticationOnly, only)
			set(c, "csr-format", &to.CSRFormat, format)
			set(c, "acme", &to.ACME, acme)
			if to == (admin.CAChange{}) {
				return usageError{fmt.Errorf("nothing to change was given\nSee '%s --help'", c.CommandPath())}
			}
			d, err := api.ChangeCA(c.Context(), a.terms(""), args[0], to)
			return a.done(c, d, err)
		}), completeCAs)
	c.Flags().StringVar(&profile, "profile", "", "certificate profile: class name, full or short")
	c.Flags().BoolVar(&only, "authentication-only", false, "it issues authentication certificates only")
	c.Flags().StringVar(&format, "csr-format", "", "how it takes certificate requests: DER, PEM or empty")
	acmeFlags(c, &acme)
	return c
}

// set fills a field of a change if its flag was given.
func set[T any](c *cobra.Command, flag string, to **T, value T) {
	if c.Flags().Changed(flag) {
		*to = &value
	}
}

func newIntermediate(a *registryAPI) *cobra.Command {
	var ocsp responderFlags
	add := files(a.change("add CA FILE", "Add an intermediate authority", `  kontor ca intermediate add "Example CA" issuing.pem --ocsp-url http://ocsp.example.org`, cobra.ExactArgs(2),
		func(c *cobra.Command, api *admin.Client, args []string) (err error) {
			var i admin.NewIntermediate
			if i.Certificate, err = readPEM(args[1]); err != nil {
				return err
			}
			if i.Responders, err = ocsp.list(); err != nil {
				return err
			}
			d, err := api.AddIntermediate(c.Context(), a.terms(""), args[0], i)
			return a.done(c, d, err)
		}))
	return group("intermediate", "Intermediate authorities of a certification service", ocsp.add(add, "ocsp-"),
		a.complete(a.remove("delete CA SHA256", "Remove an intermediate authority, named by the hash of its certificate", `  kontor ca intermediate delete "Example CA" 0f343b0931126a20f133d67c2b018a3b…`, cobra.ExactArgs(2),
			func(c *cobra.Command, api *admin.Client, args []string) error {
				if err := a.confirm(c, "Remove the intermediate authority %s of %s", args[1], args[0]); err != nil {
					return err
				}
				d, err := api.DeleteIntermediate(c.Context(), a.terms(""), args[0], args[1])
				return a.done(c, d, err)
			}), completeCAs, completeAuthorities))
}

func newOCSP(a *registryAPI) *cobra.Command {
	var r responderFlags
	add := a.complete(a.change("add CA SHA256 URL", "Add an OCSP responder of an authority, named by the hash of its certificate",
		`  kontor ca ocsp add "Example CA" 0f343b0931126a20f133d67c2b018a3b… http://ocsp.example.org --certificate ocsp.pem`, cobra.ExactArgs(3),
		func(c *cobra.Command, api *admin.Client, args []string) error {
			r.url = args[2]
			body, err := r.body()
			if err != nil {
				return err
			}
			d, err := api.AddResponder(c.Context(), a.terms(""), args[0], args[1], body)
			return a.done(c, d, err)
		}), completeCAs, completeAuthorities)
	return group("ocsp", "OCSP responders of a certification service", r.add(add, ""),
		a.complete(a.remove("delete CA SHA256 URL", "Remove an OCSP responder of an authority", `  kontor ca ocsp delete "Example CA" 0f343b0931126a20f133d67c2b018a3b… http://ocsp.example.org`, cobra.ExactArgs(3),
			func(c *cobra.Command, api *admin.Client, args []string) error {
				if err := a.confirm(c, "Remove the OCSP responder %s of %s", args[2], args[0]); err != nil {
					return err
				}
				d, err := api.DeleteResponder(c.Context(), a.terms(""), args[0], args[1], args[2])
				return a.done(c, d, err)
			}), completeCAs, completeAuthorities))
}

func newTSA() *cobra.Command {
	a := new(registryAPI)
	complete := completion(func(c *cobra.Command, api *admin.Client) ([]admin.TSA, error) { return api.TSAs(c.Context()) }, func(t admin.TSA) string { return t.Name })
	var cost, url, file, newCost string
	add := files(a.change("add NAME URL FILE", "Approve a time-stamping authority", `  kontor tsa add "Example TSA" http://tsa.example.org tsa.pem`, cobra.ExactArgs(3), func(c *cobra.Command, api *admin.Client, args []string) error {
		text, err := readPEM(args[2])
		if err != nil {
			return err
		}
		d, err := api.AddTSA(c.Context(), a.terms(""), admin.NewTSA{Name: args[0], URL: args[1], Certificate: text, Cost: cost})
		return a.done(c, d, err)
	}))
	add.Flags().StringVar(&cost, "cost", "", "FREE, PAID or UNDEFINED")
	change := a.complete(a.change("change NAME", "Change an approved time-stamping authority; what no flag names stays", `  kontor tsa change "Example TSA" --address http://tsa2.example.org`, cobra.ExactArgs(1),
		func(c *cobra.Command, api *admin.Client, args []string) error {
			var to admin.TSAChange
			set(c, "address", &to.URL, url)
			set(c, "cost", &to.Cost, newCost)
			if file != "" {
				text, err := readPEM(file)
				if err != nil {
					return err
				}
				to.Certificate = &text
			}
			if to == (admin.TSAChange{}) {
				return usageError{fmt.Errorf("nothing to change was given\nSee '%s --help'", c.CommandPath())}
			}
			d, err := api.ChangeTSA(c.Context(), a.terms(""), args[0], to)
			return a.done(c, d, err)
		}), complete)
	change.Flags().StringVar(&url, "address", "", "where it is reached, a URL")
	change.Flags().StringVar(&file, "certificate", "", "file with its certificate")
	change.Flags().StringVar(&newCost, "cost", "", "FREE, PAID or UNDEFINED")
	return group("tsa", "Approved time-stamping authorities, in the registry",
		a.command("list", "List approved time-stamping authorities", "  kontor tsa list", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
			all, err := api.TSAs(c.Context())
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), a.output, all, []string{"NAME", "ADDRESS", "SUBJECT", "UNTIL"}, func(t admin.TSA) []string {
				return []string{t.Name, t.URL, t.Certificate.Subject, t.Certificate.NotAfter.Format(time.DateOnly)}
			})
		}),
		a.complete(a.command("show NAME", "Show a time-stamping authority", `  kontor tsa show "Example TSA"`, cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
			t, _, err := api.TSA(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(c, t, [2]string{"Name", t.Name}, [2]string{"Address", t.URL}, [2]string{"Certificate", t.Certificate.SHA256 + "  " + t.Certificate.Subject},
				[2]string{"Until", t.Certificate.NotAfter.Format(time.DateOnly)}, [2]string{"Cost", orNone(t.Cost)})
		}), complete),
		add, change,
		a.complete(a.remove("delete NAME", "Withdraw the approval: its time-stamps are no longer accepted, old ones included", `  kontor tsa delete "Example TSA"`, cobra.ExactArgs(1),
			func(c *cobra.Command, api *admin.Client, args []string) error {
				_, etag, err := api.TSA(c.Context(), args[0])
				if err != nil {
					return err
				}
				if err := a.confirm(c, "Withdraw the approval of %s, so that its time-stamps are accepted nowhere, old ones included", args[0]); err != nil {
					return err
				}
				d, err := api.DeleteTSA(c.Context(), a.terms(etag), args[0])
				return a.done(c, d, err)
			}), complete))
}

func newAnchor() *cobra.Command {
	a := new(registryAPI)
	complete := completion(func(c *cobra.Command, api *admin.Client) ([]admin.TrustedAnchor, error) {
		return api.TrustedAnchors(c.Context())
	},
		func(t admin.TrustedAnchor) string { return t.Instance })
	return group("anchor", "Anchors of federation partners, in the registry (its own: kontor registry anchor)",
		a.command("list", "List the anchors of federation partners", "  kontor anchor list", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
			all, err := api.TrustedAnchors(c.Context())
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), a.output, all, []string{"INSTANCE", "SHA-224", "ADDRESSES"}, func(t admin.TrustedAnchor) []string {
				return []string{t.Instance, t.Fingerprint, strings.Join(t.URLs, " ")}
			})
		}),
		a.complete(a.command("show INSTANCE", "Show the anchor of a federation partner", "  kontor anchor show EE", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
			t, _, err := api.TrustedAnchor(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(c, t, [2]string{"Instance", t.Instance}, [2]string{"SHA-224", t.Fingerprint}, [2]string{"Addresses", strings.Join(t.URLs, " ")})
		}), complete),
		files(a.change("add FILE", "Trust a federation partner by its external anchor, or take its new one; compare the SHA-224 with the partner",
			"  kontor anchor add anchor-of-EE.xml", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
				b, err := os.ReadFile(args[0])
				if err != nil {
					return err
				}
				d, err := api.TrustAnchor(c.Context(), a.terms(""), b)
				return a.done(c, d, err)
			})),
		a.complete(a.remove("delete INSTANCE", "End the federation with a partner", "  kontor anchor delete EE", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
			_, etag, err := api.TrustedAnchor(c.Context(), args[0])
			if err != nil {
				return err
			}
			if err := a.confirm(c, "End the federation with instance %s", args[0]); err != nil {
				return err
			}
			d, err := api.DistrustAnchor(c.Context(), a.terms(etag), args[0])
			return a.done(c, d, err)
		}), complete))
}
