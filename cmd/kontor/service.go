// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kontor/gateway/admin"
	"kontor/gateway/description"
)

func newService() *cobra.Command {
	gw, output := new(gatewayFlags), new(string)
	list, show := newServiceList(gw, output), newServiceShow(gw, output)
	add, refresh, set := newServiceAdd(gw, output), newServiceRefresh(gw, output), newServiceSet(gw, output)
	enable, disable, remove := newServiceEnable(gw, output), newServiceDisable(gw, output), newServiceDelete(gw)
	endpoints := newServiceEndpoints(gw, output)
	for _, c := range []*cobra.Command{list, show, add, refresh, set, enable, disable, remove} {
		gw.flags(c)
		if c != list && c != add {
			gw.suggest(c, suggestServices)
		}
		if c != remove {
			outputFlag(c, output)
		}
	}
	return group("service", "Services of a gateway's clients", list, show, add, refresh, set, enable, disable, remove, endpoints)
}

func newServiceList(gw *gatewayFlags, output *string) *cobra.Command {
	var client string
	c := &cobra.Command{
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
			return printList(c.OutOrStdout(), *output, services, []string{"SERVICE", "TYPE", "URL", "TIMEOUT", "ENABLED", "RIGHTS", "DESCRIPTION", "NEXT"}, func(v admin.Service) []string {
				return []string{v.Client + "/" + v.Name, v.Type, v.URL, v.Timeout, yesNo(v.Enabled), strconv.Itoa(v.Rights), v.Description, v.Next}
			})
		},
	}
	c.Flags().StringVar(&client, "client", "", "only those of this client")
	return c
}

func newServiceShow(gw *gatewayFlags, output *string) *cobra.Command {
	return &cobra.Command{
		Use: "show SERVICE", Short: "Show a service and its endpoints", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			_, s, _, err := gw.service(c, a[0])
			if err != nil {
				return err
			}
			return printService(c, *output, s)
		},
	}
}

// service finds a service of the gateway.
func (g *gatewayFlags) service(c *cobra.Command, name string) (*admin.Client, admin.Service, string, error) {
	owner, code, err := splitService(name)
	if err != nil {
		return nil, admin.Service{}, "", err
	}
	api, err := g.client()
	if err != nil {
		return nil, admin.Service{}, "", err
	}
	s, etag, err := api.Service(c.Context(), owner, code)
	return api, s, etag, err
}

// description finds a description of the gateway by its name or by that of one
// of its services.
func (g *gatewayFlags) description(c *cobra.Command, name string) (*admin.Client, admin.Description, string, error) {
	api, err := g.client()
	if err != nil {
		return nil, admin.Description{}, "", err
	}
	client := ""
	if strings.Contains(name, "/") {
		_, s, _, err := g.service(c, name)
		if err != nil {
			return nil, admin.Description{}, "", err
		}
		client, name = s.Client, s.Description
	} else {
		all, err := api.Descriptions(c.Context(), "")
		if err != nil {
			return nil, admin.Description{}, "", err
		}
		i := slices.IndexFunc(all, func(d admin.Description) bool { return d.ID == name })
		if i < 0 {
			return nil, admin.Description{}, "", fmt.Errorf("there is no service description %q; list them: kontor service list", name)
		}
		client = all[i].Client
	}
	d, etag, err := api.Description(c.Context(), client, name)
	return api, d, etag, err
}

// located tells a URL from a file, and reads the file.
func located(place string) (url, document string, err error) {
	if strings.HasPrefix(place, "http://") || strings.HasPrefix(place, "https://") {
		return place, "", nil
	}
	f, err := os.Open(place)
	if err != nil {
		return "", "", fmt.Errorf("%w; give an http or https URL, or a file", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, description.MaxSize+1))
	switch {
	case err != nil:
		return "", "", err
	case len(b) > description.MaxSize:
		return "", "", fmt.Errorf("%s is larger than %d bytes", place, description.MaxSize)
	case len(b) == 0:
		return "", "", fmt.Errorf("%s is empty", place)
	}
	return "", string(b), nil
}

func newServiceAdd(gw *gatewayFlags, output *string) *cobra.Command {
	var kind, serviceURL, notice string
	var timeout time.Duration
	var verify, disabled bool
	c := &cobra.Command{
		Use: "add SERVICE|CLIENT URL|FILE", Short: "Add services: REST, of an OpenAPI document or of a WSDL document",
		Long: `Add services. What they are depends on the type:

  rest      SERVICE and the URL under which its paths lie
  openapi3  SERVICE and its OpenAPI 3.0 or 3.1 document: a URL or a file
  wsdl      CLIENT and a WSDL 1.1 document, each operation of which is a service

The gateway reads a document at its URL, but nothing that the document refers to.`,
		Example: "  kontor service add DEV/GOV/2002/population/persons http://10.0.0.5:8000/persons --timeout 30s\n" +
			"  kontor service add DEV/GOV/2002/population/pets http://10.0.0.5:8000/openapi.yaml --type openapi3\n" +
			"  kontor service add DEV/GOV/2002/population register.wsdl --type wsdl --service-url http://10.0.0.5:8000/soap", Args: args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, a []string) error {
			types := map[string]string{"rest": "REST", "openapi3": "OPENAPI3", "wsdl": "WSDL"}
			n := admin.NewDescription{Type: types[kind], ServiceURL: serviceURL, VerifyTLS: &verify, Notice: notice}
			if n.Type == "" {
				return usageError{fmt.Errorf("--type %q is none of: rest, openapi3, wsdl", kind)}
			}
			owner := a[0]
			var err error
			if kind != "wsdl" {
				if owner, n.Code, err = splitService(a[0]); err != nil {
					return err
				}
			}
			if kind == "rest" {
				n.URL = a[1]
			} else if n.URL, n.Document, err = located(a[1]); err != nil {
				return err
			}
			if c.Flags().Changed("timeout") {
				n.Timeout = timeout.String()
			}
			if enabled := !disabled; disabled {
				n.Enabled = &enabled
			}
			api, err := gw.client()
			if err != nil {
				return err
			}
			d, err := api.AddDescription(c.Context(), owner, n)
			if err != nil {
				return err
			}
			warn(c, d.Warnings)
			if len(d.Services) == 1 && *output == "table" {
				return printService(c, *output, d.Services[0])
			}
			return printDescription(c, *output, d)
		},
	}
	f := c.Flags()
	f.StringVar(&kind, "type", "rest", "rest, openapi3 or wsdl")
	f.StringVar(&serviceURL, "service-url", "", "address of the services, in place of those that the document tells")
	f.BoolVar(&disabled, "disabled", false, "add them disabled")
	f.StringVar(&notice, "notice", "", "with --disabled: what callers are told")
	serviceFlags(c, &timeout, &verify)
	_ = c.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"rest", "openapi3", "wsdl"}, cobra.ShellCompDirectiveNoFileComp))
	gw.suggest(c, suggestClients, nil)
	return c
}

func serviceFlags(c *cobra.Command, timeout *time.Duration, verify *bool) {
	c.Flags().DurationVar(timeout, "timeout", time.Minute, "how long an answer may take")
	c.Flags().BoolVar(verify, "verify-tls", true, "over https the service must present one of the client's certificates")
}

func newServiceRefresh(gw *gatewayFlags, output *string) *cobra.Command {
	var yes, dry, revoke bool
	c := &cobra.Command{
		Use: "refresh SERVICE|DESCRIPTION [URL|FILE]", Short: "Read the document of services again, and show what changes before it does",
		Long: `Read the document of services again: the same one, or another from now on. The
differences are shown, with the access rights that would be lost, and applied
after a confirmation. URL, timeout and TLS verification of services that stay do
not change, nor do endpoints that were added by hand.`,
		Example: "  kontor service refresh DEV/GOV/2002/population/pets\n  kontor service refresh DEV/GOV/2002/population/pets pets-v2.yaml --yes", Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, a []string) error {
			api, d, _, err := gw.description(c, a[0])
			if err != nil {
				return err
			}
			var r admin.Refresh
			if len(a) > 1 {
				if r.URL, r.Document, err = located(a[1]); err != nil {
					return err
				}
			}
			diff, err := api.RefreshDescription(c.Context(), d.Client, d.ID, r)
			if err != nil {
				return err
			}
			if *output == "table" || !dry {
				warn(c, diff.Warnings)
				showDifferences(c.ErrOrStderr(), diff)
			}
			if !dry {
				switch lost := len(diff.RightsLost); {
				case revoke:
				case lost > 0 && yes:
					err = fmt.Errorf("%d access rights would be revoked; repeat the command with --revoke if that is right", lost)
				case lost > 0:
					err = confirm(c, false, "Refresh with these differences, and revoke %d access rights", lost)
				case len(diff.Differences) > 0:
					err = confirm(c, yes, "Refresh with these differences")
				}
				if err != nil {
					return err
				}
				r.Apply = diff.Digest
				if diff, err = api.RefreshDescription(c.Context(), d.Client, d.ID, r); err != nil {
					return err
				}
			}
			if *output == "json" {
				return printJSON(c.OutOrStdout(), diff)
			}
			return printDescription(c, *output, diff.Description)
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "only show the differences")
	c.Flags().BoolVar(&revoke, "revoke", false, "do not ask for a confirmation, even if access rights are lost")
	yesFlag(c, &yes)
	return c
}

func warn(c *cobra.Command, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(c.ErrOrStderr(), "Warning: %s\n", w)
	}
}

func showDifferences(w io.Writer, d admin.Differences) {
	if len(d.Differences) == 0 {
		fmt.Fprintln(w, "Services and endpoints are the same.")
	}
	for _, v := range d.Differences {
		fmt.Fprintln(w, strings.Join(strings.Fields(v.Kind+" "+v.Service+" "+v.Method+" "+v.Path+" "+v.What), " "))
	}
	showLost(w, d.RightsLost)
}

func showLost(w io.Writer, rights []admin.Right) {
	for _, r := range rights {
		fmt.Fprintf(w, "lost: right %s of %s to %s %s %s\n", r.ID, who(r), r.Service, r.Method, r.Path)
	}
}

// showRights shows the rights that go with a description: to services of which
// no other description has a version.
func showRights(c *cobra.Command, api *admin.Client, d admin.Description) error {
	all, err := api.Services(c.Context(), d.Client)
	if err != nil {
		return err
	}
	code := func(s admin.Service) string { name, _, _ := strings.Cut(s.Name, "/"); return name }
	kept := map[string]bool{}
	for _, s := range all {
		if s.Description != d.ID {
			kept[code(s)] = true
		}
	}
	for _, s := range d.Services {
		if kept[code(s)] || s.Rights == 0 {
			continue
		}
		kept[code(s)] = true // once for all versions
		rights, err := api.Access(c.Context(), d.Client, code(s), "")
		if err != nil {
			return err
		}
		showLost(c.ErrOrStderr(), rights)
	}
	return nil
}

func newServiceSet(gw *gatewayFlags, output *string) *cobra.Command {
	var n admin.ServiceChange
	var url string
	var timeout time.Duration
	var verify bool
	c := &cobra.Command{
		Use: "set SERVICE", Short: "Set address, timeout or TLS verification of a service, or of all that share its description",
		Example: "  kontor service set DEV/GOV/2002/population/persons --service-url http://10.0.0.6:8000/persons\n" +
			"  kontor service set DEV/GOV/2002/population/find --timeout 2m --all", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			if c.Flags().Changed("service-url") {
				n.URL = &url
			}
			if c.Flags().Changed("timeout") {
				text := timeout.String()
				n.Timeout = &text
			}
			if c.Flags().Changed("verify-tls") {
				n.VerifyTLS = &verify
			}
			if n.URL == nil && n.Timeout == nil && n.VerifyTLS == nil {
				return usageError{fmt.Errorf("nothing to change; give --service-url, --timeout or --verify-tls")}
			}
			api, s, etag, err := gw.service(c, a[0])
			if err != nil {
				return err
			}
			if s, err = api.ChangeService(c.Context(), s.Client, s.Name, etag, n); err != nil {
				return err
			}
			return printService(c, *output, s)
		},
	}
	c.Flags().StringVar(&url, "service-url", "", "address of the service")
	c.Flags().BoolVar(&n.All, "all", false, "of all services of its description")
	serviceFlags(c, &timeout, &verify)
	return c
}

// whole refuses to take a service for its whole description unless told so.
func whole(d admin.Description, name string, all bool) error {
	if len(d.Services) > 1 && !all && name != d.ID {
		return fmt.Errorf("%s shares its description with %d other services; give --all for all of them", name, len(d.Services)-1)
	}
	return nil
}

func newServiceEnable(gw *gatewayFlags, output *string) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "enable SERVICE|DESCRIPTION", Short: "Enable a service, with all that share its description", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			api, d, etag, err := gw.description(c, a[0])
			if err != nil {
				return err
			}
			if err := whole(d, a[0], all); err != nil {
				return err
			}
			if d, err = api.ChangeDescription(c.Context(), d.Client, d.ID, etag, admin.DescriptionChange{Enabled: true}); err != nil {
				return err
			}
			return printDescription(c, *output, d)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all services of its description")
	return c
}

func newServiceDisable(gw *gatewayFlags, output *string) *cobra.Command {
	var all, yes bool
	var notice string
	c := &cobra.Command{
		Use: "disable SERVICE|DESCRIPTION", Short: "Disable a service, with all that share its description, and tell callers why",
		Example: "  kontor service disable DEV/GOV/2002/population/persons --notice \"maintenance until 14:00\"", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			api, d, etag, err := gw.description(c, a[0])
			if err != nil {
				return err
			}
			if err := whole(d, a[0], all); err != nil {
				return err
			}
			if err := confirm(c, yes, "Disable %s, with %d rights", serviceNames(d), rightsOf(d)); err != nil {
				return err
			}
			if d, err = api.ChangeDescription(c.Context(), d.Client, d.ID, etag, admin.DescriptionChange{Notice: notice}); err != nil {
				return err
			}
			return printDescription(c, *output, d)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all services of its description")
	c.Flags().StringVar(&notice, "notice", "", "what callers are told")
	yesFlag(c, &yes)
	return c
}

func newServiceDelete(gw *gatewayFlags) *cobra.Command {
	var all, yes bool
	c := &cobra.Command{
		Use: "delete SERVICE|DESCRIPTION", Short: "Delete a service, with all that share its description, and the rights to them", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			api, d, etag, err := gw.description(c, a[0])
			if err != nil {
				return err
			}
			if err := whole(d, a[0], all); err != nil {
				return err
			}
			if err := showRights(c, api, d); err != nil {
				return err
			}
			if err := confirm(c, yes, "Delete %s, and the rights to them", serviceNames(d)); err != nil {
				return err
			}
			if err := api.DeleteDescription(c.Context(), d.Client, d.ID, etag); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "Deleted %s.\n", serviceNames(d))
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all services of its description")
	yesFlag(c, &yes)
	return c
}

func newServiceEndpoints(gw *gatewayFlags, output *string) *cobra.Command {
	add := &cobra.Command{
		Use: "add SERVICE METHOD PATH", Short: "Add an endpoint to a REST service",
		Long: `Add an endpoint to a REST service, for callers who ask what they may call. Access
rights need none. In a path * is any run without /, ** any run at all.`,
		Example: "  kontor service endpoint add DEV/GOV/2002/population/persons GET '/persons/*'", Args: args(cobra.ExactArgs(3)),
		RunE: func(c *cobra.Command, a []string) error {
			owner, name, err := splitService(a[0])
			if err != nil {
				return err
			}
			api, err := gw.client()
			if err != nil {
				return err
			}
			s, err := api.AddEndpoint(c.Context(), owner, name, admin.Endpoint{Method: a[1], Path: a[2]})
			if err != nil {
				return err
			}
			return printService(c, *output, s)
		},
	}
	outputFlag(add, output)
	var yes bool
	remove := &cobra.Command{
		Use: "delete SERVICE METHOD PATH", Short: "Delete an endpoint that was added by hand", Args: args(cobra.ExactArgs(3)),
		RunE: func(c *cobra.Command, a []string) error {
			api, s, etag, err := gw.service(c, a[0])
			if err != nil {
				return err
			}
			if err := confirm(c, yes, "Delete endpoint %s %s of service %s", a[1], a[2], s.ID); err != nil {
				return err
			}
			if err := api.DeleteEndpoint(c.Context(), s.Client, s.Name, etag, admin.Endpoint{Method: a[1], Path: a[2]}); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "Deleted endpoint %s %s.\n", a[1], a[2])
			return nil
		},
	}
	yesFlag(remove, &yes)
	for _, c := range []*cobra.Command{add, remove} {
		gw.flags(c)
		gw.suggest(c, suggestServices, func(context.Context, *admin.Client) []string { return nil })
	}
	return group("endpoint", "Endpoints of REST services", add, remove)
}

func serviceNames(d admin.Description) string {
	names := make([]string, len(d.Services))
	for i, s := range d.Services {
		names[i] = s.Client + "/" + s.Name
	}
	return strings.Join(names, ", ")
}

func rightsOf(d admin.Description) (n int) {
	for _, s := range d.Services {
		n += s.Rights
	}
	return n
}

// printService prints a service and its endpoints.
func printService(c *cobra.Command, output string, s admin.Service) error {
	w := c.OutOrStdout()
	if err := printOne(w, output, s, serviceLines); err != nil || output == "json" || len(s.Endpoints) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return printList(w, output, s.Endpoints, []string{"METHOD", "PATH", "FROM"}, func(e admin.Endpoint) []string {
		return []string{e.Method, e.Path, map[bool]string{true: "document", false: "operator"}[e.Generated]}
	})
}

func serviceLines(s admin.Service) [][2]string {
	return [][2]string{
		{"Service", s.ID}, {"Type", s.Type}, {"Title", s.Title}, {"URL", s.URL}, {"Description", s.Description}, {"Document", s.Document}, {"Timeout", s.Timeout},
		{"TLS verification", yesNo(s.VerifyTLS)}, {"Enabled", yesNo(s.Enabled)}, {"Notice", s.Notice}, {"Rights", strconv.Itoa(s.Rights)}, {"Next", s.Next},
	}
}

// printDescription prints a description and its services.
func printDescription(c *cobra.Command, output string, d admin.Description) error {
	w := c.OutOrStdout()
	err := printOne(w, output, d, func(d admin.Description) [][2]string {
		return [][2]string{{"Description", d.ID}, {"Client", d.Client}, {"Type", d.Type}, {"Document", d.URL + d.File}, {"Refreshed", date(d.Refreshed)},
			{"Enabled", yesNo(d.Enabled)}, {"Notice", d.Notice}}
	})
	if err != nil || output == "json" {
		return err
	}
	fmt.Fprintln(w)
	return printList(w, output, d.Services, []string{"SERVICE", "URL", "TIMEOUT", "ENDPOINTS", "RIGHTS", "NEXT"}, func(s admin.Service) []string {
		return []string{s.Client + "/" + s.Name, s.URL, s.Timeout, strconv.Itoa(len(s.Endpoints)), strconv.Itoa(s.Rights), s.Next}
	})
}
