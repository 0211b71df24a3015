// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"kontor/gateway/admin"
)

func newService() *cobra.Command {
	var gw gatewayFlags
	var output, client string
	list := &cobra.Command{
		Use: "list", Short: "List the services of a gateway", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := gw.client()
			if err != nil {
				return err
			}
			services, err := api.Services(c.Context(), client)
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), output, services, []string{"SERVICE", "TYPE", "URL", "TIMEOUT", "ENABLED", "RIGHTS", "NEXT"}, func(v admin.Service) []string {
				return []string{v.Client + "/" + v.Name, v.Type, v.URL, v.Timeout, yesNo(v.Enabled), strconv.Itoa(v.Rights), v.Next}
			})
		},
	}
	list.Flags().StringVar(&client, "client", "", "only those of this client")
	show := &cobra.Command{
		Use: "show SERVICE", Short: "Show a service", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			owner, name, err := splitService(a[0])
			if err != nil {
				return err
			}
			api, err := gw.client()
			if err != nil {
				return err
			}
			s, _, err := api.Service(c.Context(), owner, name)
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, s, serviceLines)
		},
	}

	var notice string
	var timeout time.Duration
	var verify bool
	add := &cobra.Command{
		Use: "add SERVICE URL", Short: "Add a REST service by the URL under which its paths lie",
		Example: "  kontor service add DEV/GOV/2002/population/persons http://10.0.0.5:8000/persons --timeout 30s", Args: args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, a []string) error {
			owner, name, err := splitService(a[0])
			if err != nil {
				return err
			}
			n := admin.NewService{Code: name, URL: a[1], VerifyTLS: &verify}
			if c.Flags().Changed("timeout") {
				n.Timeout = timeout.String()
			}
			api, err := gw.client()
			if err != nil {
				return err
			}
			s, err := api.AddService(c.Context(), owner, n)
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, s, serviceLines)
		},
	}

	// edit changes a service as it was when the command looked at it.
	edit := func(c *cobra.Command, service string, change func(admin.Service) (*admin.ServiceChange, error)) error {
		owner, name, err := splitService(service)
		if err != nil {
			return err
		}
		api, err := gw.client()
		if err != nil {
			return err
		}
		now, etag, err := api.Service(c.Context(), owner, name)
		if err != nil {
			return err
		}
		n, err := change(now)
		if err != nil {
			return err
		}
		s, err := api.ChangeService(c.Context(), owner, name, etag, *n)
		if err != nil {
			return err
		}
		return printOne(c.OutOrStdout(), output, s, serviceLines)
	}
	change := &cobra.Command{
		Use: "change SERVICE [URL]", Short: "Change URL, timeout or TLS verification of a service",
		Example: "  kontor service change DEV/GOV/2002/population/persons http://10.0.0.6:8000/persons\n" +
			"  kontor service change DEV/GOV/2002/population/persons --timeout 2m", Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, a []string) error {
			n := new(admin.ServiceChange)
			if len(a) > 1 {
				n.URL = &a[1]
			}
			if c.Flags().Changed("timeout") {
				text := timeout.String()
				n.Timeout = &text
			}
			if c.Flags().Changed("verify-tls") {
				n.VerifyTLS = &verify
			}
			if *n == (admin.ServiceChange{}) {
				return usageError{fmt.Errorf("nothing to change; give a URL, --timeout or --verify-tls")}
			}
			return edit(c, a[0], func(admin.Service) (*admin.ServiceChange, error) { return n, nil })
		},
	}
	for _, c := range []*cobra.Command{add, change} {
		f := c.Flags()
		f.DurationVar(&timeout, "timeout", time.Minute, "how long an answer may take")
		f.BoolVar(&verify, "verify-tls", true, "over https the service must present one of the client's certificates")
	}
	enable := &cobra.Command{
		Use: "enable SERVICE", Short: "Enable a service", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			return edit(c, a[0], func(admin.Service) (*admin.ServiceChange, error) {
				on := true
				return &admin.ServiceChange{Enabled: &on}, nil
			})
		},
	}
	var yes bool
	disable := &cobra.Command{
		Use: "disable SERVICE", Short: "Disable a service, and tell callers why",
		Example: "  kontor service disable DEV/GOV/2002/population/persons --notice \"maintenance until 14:00\"", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			return edit(c, a[0], func(s admin.Service) (*admin.ServiceChange, error) {
				off := false
				return &admin.ServiceChange{Enabled: &off, Notice: &notice}, confirm(c, yes, "Disable service %s, which has %d rights", s.ID, s.Rights)
			})
		},
	}
	disable.Flags().StringVar(&notice, "notice", "", "what callers are told")
	yesFlag(disable, &yes)
	remove := &cobra.Command{
		Use: "delete SERVICE", Short: "Delete a service, and the rights to it", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			owner, name, err := splitService(a[0])
			if err != nil {
				return err
			}
			api, err := gw.client()
			if err != nil {
				return err
			}
			s, etag, err := api.Service(c.Context(), owner, name)
			if err != nil {
				return err
			}
			if err := confirm(c, yes, "Delete service %s and %d rights to it", s.ID, s.Rights); err != nil {
				return err
			}
			if err := api.DeleteService(c.Context(), owner, name, etag); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "Deleted service %s.\n", s.ID)
			return nil
		},
	}
	yesFlag(remove, &yes)
	commands := []*cobra.Command{list, show, add, change, enable, disable, remove}
	for _, c := range commands {
		gw.flags(c)
		if c != list && c != add {
			gw.suggest(c, suggestServices)
		}
		if c != remove {
			outputFlag(c, &output)
		}
	}
	return group("service", "Services of a gateway's clients", commands...)
}

func serviceLines(s admin.Service) [][2]string {
	return [][2]string{
		{"Service", s.ID}, {"Type", s.Type}, {"URL", s.URL}, {"Description", s.Description}, {"Timeout", s.Timeout}, {"TLS verification", yesNo(s.VerifyTLS)},
		{"Enabled", yesNo(s.Enabled)}, {"Notice", s.Notice}, {"Rights", strconv.Itoa(s.Rights)}, {"Next", s.Next},
	}
}
