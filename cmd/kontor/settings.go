// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kontor/registry"
	"kontor/registry/admin"
	"kontor/registry/id"
)

func newSettings() *cobra.Command {
	a := new(registryAPI)
	return group("settings", "Parameters of the instance, in the registry",
		a.command("show", "Show the parameters of the instance", "  kontor settings show", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
			p, _, err := api.Parameters(c.Context())
			if err != nil {
				return err
			}
			m, _, err := api.Management(c.Context())
			if err != nil {
				return err
			}
			mon, _, err := api.Monitoring(c.Context())
			if err != nil {
				return err
			}
			return a.show(c, struct {
				admin.Parameters
				Management admin.Management `json:"management_services"`
				Monitoring *id.Client       `json:"monitoring_client,omitempty"`
			}{p, m, mon.Client},
				[2]string{"Address", p.Address},
				[2]string{"Configuration valid for", seconds(p.ConfigurationValidity)},
				[2]string{"OCSP responses fresh for", seconds(p.OCSPFreshness)},
				[2]string{"OCSP fetch interval", map[bool]string{true: "default", false: seconds(p.OCSPFetchInterval)}[p.OCSPFetchInterval == 0]},
				[2]string{"OCSP nextUpdate ignored", yesNo(p.IgnoreOCSPNextUpdate)},
				[2]string{"Time-stamping interval", seconds(p.TimestampingInterval)},
				[2]string{"Oldest version published", "V" + strconv.Itoa(p.MinimumVersion)},
				[2]string{"Approved automatically", orNone(automatic(p))},
				[2]string{"Management provider", clientText(m.Provider)},
				[2]string{"Management address", orDefault(m.Address)},
				[2]string{"Management certificate", certificateText(m.Certificate)},
				[2]string{"Monitoring client", clientText(mon.Client)})
		}),
		newSettingsChange(a), newManagementSettings(a), newMonitoringSettings(a))
}

// automatic lists the management requests that nobody has to approve.
func automatic(p admin.Parameters) string {
	var all []string
	for _, k := range []struct {
		on   bool
		kind registry.RequestKind
	}{{p.AutoApproveCertificates, registry.AuthCertReg}, {p.AutoApproveClients, registry.ClientReg}, {p.AutoApproveOwners, registry.OwnerChange}} {
		if k.on {
			all = append(all, string(k.kind))
		}
	}
	return strings.Join(all, ", ")
}

func seconds(n int) string { return (time.Duration(n) * time.Second).String() }

func clientText(c *id.Client) string {
	if c == nil {
		return "none"
	}
	return c.String()
}

func certificateText(c *admin.Certificate) string {
	if c == nil {
		return "none"
	}
	return c.SHA256 + "  " + c.Subject
}

func orDefault(s string) string {
	if s == "" {
		return "default"
	}
	return s
}

func newSettingsChange(a *registryAPI) *cobra.Command {
	var (
		address                           string
		validity, freshness, stamp, fetch time.Duration
		ignore, certs, clients, owners    bool
		version                           int
	)
	c := a.change("change", "Change parameters; what no flag names stays", "  kontor settings change --ocsp-freshness 30m --timestamping-interval 1m", cobra.NoArgs,
		func(c *cobra.Command, api *admin.Client, _ []string) error {
			var to admin.ParameterChange
			set(c, "address", &to.Address, address)
			for _, d := range []struct {
				flag  string
				value time.Duration
				to    **int
			}{
				{"configuration-validity", validity, &to.ConfigurationValidity}, {"ocsp-freshness", freshness, &to.OCSPFreshness},
				{"timestamping-interval", stamp, &to.TimestampingInterval}, {"ocsp-fetch-interval", fetch, &to.OCSPFetchInterval},
			} {
				if d.value%time.Second != 0 {
					return usageError{fmt.Errorf("--%s: %s is not whole seconds", d.flag, d.value)}
				}
				set(c, d.flag, d.to, int(d.value/time.Second))
			}
			set(c, "ignore-ocsp-next-update", &to.IgnoreOCSPNextUpdate, ignore)
			set(c, "minimum-version", &to.MinimumVersion, version)
			set(c, "auto-approve-certificates", &to.AutoApproveCertificates, certs)
			set(c, "auto-approve-clients", &to.AutoApproveClients, clients)
			set(c, "auto-approve-owners", &to.AutoApproveOwners, owners)
			if to == (admin.ParameterChange{}) {
				return usageError{fmt.Errorf("nothing to change was given\nSee '%s --help'", c.CommandPath())}
			}
			d, err := api.ChangeParameters(c.Context(), a.terms(""), to)
			return a.done(c, d, err)
		})
	f := c.Flags()
	f.StringVar(&address, "address", "", "where clients reach the registry: host, with a port if that is not 80; it changes the anchor")
	f.DurationVar(&validity, "configuration-validity", 0, "how long a published configuration may be used")
	f.DurationVar(&freshness, "ocsp-freshness", 0, "how old an OCSP response may be")
	f.DurationVar(&stamp, "timestamping-interval", 0, "between two batch time-stamps")
	f.DurationVar(&fetch, "ocsp-fetch-interval", 0, "between two OCSP requests for a certificate; 0: the default")
	f.BoolVar(&ignore, "ignore-ocsp-next-update", false, "accept OCSP responses past their nextUpdate")
	f.IntVar(&version, "minimum-version", 0, "oldest configuration version published, 2 to 6")
	f.BoolVar(&certs, "auto-approve-certificates", false, "approve registrations of authentication certificates at once if the owner is a member")
	f.BoolVar(&clients, "auto-approve-clients", false, "approve registrations of clients at once if server and member exist")
	f.BoolVar(&owners, "auto-approve-owners", false, "approve changes of a security server's owner at once")
	return c
}

func newManagementSettings(a *registryAPI) *cobra.Command {
	var provider, address, file string
	c := a.change("management", "Change who offers the management services, and where; what no flag names stays",
		"  kontor settings management --provider DEV/GOV/1001/management", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
			var to admin.ManagementChange
			if c.Flags().Changed("provider") {
				var key id.Client
				if provider != "" {
					var err error
					if key, err = parsed(id.ParseClient, provider, clientForm); err != nil {
						return err
					}
				}
				to.Provider = &key
			}
			set(c, "address", &to.Address, address)
			if c.Flags().Changed("certificate") {
				text := ""
				if file != "" {
					var err error
					if text, err = readPEM(file); err != nil {
						return err
					}
				}
				to.Certificate = &text
			}
			if to == (admin.ManagementChange{}) {
				return usageError{fmt.Errorf("nothing to change was given\nSee '%s --help'", c.CommandPath())}
			}
			d, err := api.ChangeManagement(c.Context(), a.terms(""), to)
			return a.done(c, d, err)
		})
	c.Flags().StringVar(&provider, "provider", "", "subsystem that offers the management services")
	c.Flags().StringVar(&address, "address", "", "URL where authentication certificates are registered; empty: port 4001 of the registry")
	c.Flags().StringVar(&file, "certificate", "", "file with the TLS certificate of that address; empty: none")
	return c
}

func newMonitoringSettings(a *registryAPI) *cobra.Command {
	return a.complete(a.change("monitoring-client CLIENT", "Name the client that may ask every security server for its metrics; \"\" for none",
		"  kontor settings monitoring-client DEV/GOV/1001/monitoring", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
			var key id.Client
			if args[0] != "" {
				var err error
				if key, err = parsed(id.ParseClient, args[0], clientForm); err != nil {
					return err
				}
			}
			d, err := api.ChangeMonitoring(c.Context(), a.terms(""), key)
			return a.done(c, d, err)
		}), completeSubsystems)
}
