// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kontor/gateway/admin"
	"kontor/gateway/serverconf"
)

func newClient() *cobra.Command {
	var gw gatewayFlags
	var output, connection string
	var yes bool
	list := &cobra.Command{
		Use: "list", Short: "List the clients of a gateway", Args: args(cobra.NoArgs),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, _ []string) error {
			clients, err := api.Clients(c.Context())
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), output, clients, []string{"CLIENT", "NAME", "STATUS", "CONNECTION", "SERVICES", "RIGHTS", "NEXT"}, func(v admin.LocalClient) []string {
				return []string{v.ID, v.Name, v.Status, string(v.Connection), strconv.Itoa(len(v.Services)), strconv.Itoa(v.Rights), v.Next}
			})
		}),
	}
	show := &cobra.Command{
		Use: "show CLIENT", Short: "Show a client", Args: args(cobra.ExactArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			v, _, err := api.Client(c.Context(), a[0])
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, v, clientLines)
		}),
	}
	add := &cobra.Command{
		Use: "add CLIENT", Short: "Add a client",
		Long: `Add a client. It is saved first, and becomes registered when the registry
lists it for this gateway: ask for that with kontor client register.`,
		Example: "  kontor client add DEV/GOV/1234/portal --connection https",
		Args:    args(cobra.ExactArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			v, err := api.AddClient(c.Context(), admin.NewClientEntry{ID: a[0], Connection: serverconf.ConnectionType(connection)})
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, v, clientLines)
		}),
	}
	change := &cobra.Command{
		Use: "change CLIENT", Short: "Change how a client connects",
		Example: "  kontor client change DEV/GOV/1234/portal --connection https-no-auth",
		Args:    args(cobra.ExactArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			_, etag, err := api.Client(c.Context(), a[0])
			if err != nil {
				return err
			}
			v, err := api.ChangeClient(c.Context(), a[0], etag, admin.ClientChange{Connection: serverconf.ConnectionType(connection)})
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, v, clientLines)
		}),
	}
	for _, c := range []*cobra.Command{add, change} {
		c.Flags().StringVar(&connection, "connection", "https", "how its information systems connect: http (anything), https (with one of its certificates), https-no-auth")
		_ = c.RegisterFlagCompletionFunc("connection", cobra.FixedCompletions([]string{"http", "https", "https-no-auth"}, cobra.ShellCompDirectiveNoFileComp))
	}
	_ = change.MarkFlagRequired("connection") // the flag exists
	remove := &cobra.Command{
		Use: "delete CLIENT", Short: "Delete a client that the registry does not list any more", Args: args(cobra.ExactArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			v, etag, err := api.Client(c.Context(), a[0])
			if err != nil {
				return err
			}
			if err := confirm(c, yes, "Delete client %s (%s)", v.ID, v.Status); err != nil {
				return err
			}
			if err := api.DeleteClient(c.Context(), v.ID, etag); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "Deleted client %s.\n", v.ID)
			return nil
		}),
	}
	yesFlag(remove, &yes)

	// ask has the registry do something about a client.
	ask := func(use, short, question string, do func(context.Context, *admin.Client, string, string) (admin.ClientRequest, error)) *cobra.Command {
		c := &cobra.Command{
			Use: use, Short: short, Args: args(cobra.ExactArgs(1)),
			RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
				v, etag, err := api.Client(c.Context(), a[0])
				if err != nil {
					return err
				}
				if question != "" {
					if err := confirm(c, yes, question, v.ID, v.Status); err != nil {
						return err
					}
				}
				r, err := do(c.Context(), api, v.ID, etag)
				if err != nil {
					return err
				}
				return printOne(c.OutOrStdout(), output, r, func(r admin.ClientRequest) [][2]string {
					return append([][2]string{{"Request", strconv.FormatUint(r.Request, 10)}}, clientLines(r.Client)...)
				})
			}),
		}
		if question != "" {
			yesFlag(c, &yes)
		}
		return c
	}
	var name admin.ClientName
	enter := ask("register CLIENT", "Have the registry register a client for this gateway", "", func(ctx context.Context, api *admin.Client, client, etag string) (admin.ClientRequest, error) {
		return api.RegisterClient(ctx, client, etag, name)
	})
	enter.Long = `Send the registry a request to register a client for this gateway, signed by
the client's member. It waits for the registry's operators. Run the command
again to learn what became of it: a declined request is shown with the reason,
and the next run sends a new one.`
	enter.Example = "  kontor client register DEV/GOV/1234/portal --name 'Citizens’ portal'"
	enter.Flags().StringVar(&name.Name, "name", "", "name of the subsystem")
	rename := ask("rename CLIENT", "Have the registry give a registered subsystem another name", "", func(ctx context.Context, api *admin.Client, client, etag string) (admin.ClientRequest, error) {
		return api.RenameClient(ctx, client, etag, name)
	})
	rename.Flags().StringVar(&name.Name, "name", "", "its new name")
	_ = rename.MarkFlagRequired("name") // the flag exists
	asks := []*cobra.Command{
		enter, rename,
		ask("unregister CLIENT", "Have the registry remove a client from this gateway, or a request that waits", "Have the registry remove client %s (%s)", func(ctx context.Context, api *admin.Client, client, etag string) (admin.ClientRequest, error) {
			return api.UnregisterClient(ctx, client, etag)
		}),
		ask("disable CLIENT", "Have the registry list a client no more until it is enabled: it can neither call nor be called", "Disable client %s (%s)", func(ctx context.Context, api *admin.Client, client, etag string) (admin.ClientRequest, error) {
			return api.DisableClient(ctx, client, etag)
		}),
		ask("enable CLIENT", "Have the registry list a disabled client again", "", func(ctx context.Context, api *admin.Client, client, etag string) (admin.ClientRequest, error) {
			return api.EnableClient(ctx, client, etag)
		}),
	}

	commands := append([]*cobra.Command{list, show, add, change, remove}, asks...)
	for _, c := range commands {
		gw.flags(c)
	}
	for _, c := range append([]*cobra.Command{show, change, remove}, asks...) {
		gw.suggest(c, suggestClients)
	}
	for _, c := range append([]*cobra.Command{list, show, add, change}, asks...) {
		outputFlag(c, &output)
	}
	return group("client", "Clients of a gateway: local subsystems", append(commands, newClientCert(), newClientGroup())...)
}

func clientLines(v admin.LocalClient) [][2]string {
	var certs []string
	for _, c := range v.Certificates {
		certs = append(certs, c.Hash[:16]+" "+c.Subject)
	}
	return [][2]string{
		{"Client", v.ID}, {"Name", v.Name}, {"Status", v.Status}, {"Connection", string(v.Connection)}, {"Certificates", strings.Join(certs, ", ")},
		{"Groups", strings.Join(v.Groups, ", ")}, {"Services", strings.Join(v.Services, ", ")}, {"Rights", strconv.Itoa(v.Rights)}, {"Next", v.Next},
	}
}

func newClientCert() *cobra.Command {
	var gw gatewayFlags
	var output string
	var yes bool
	list := &cobra.Command{
		Use: "list CLIENT", Short: "List the certificates of a client's information systems", Args: args(cobra.ExactArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			v, _, err := api.Client(c.Context(), a[0])
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), output, v.Certificates, []string{"CERTIFICATE", "SUBJECT", "UNTIL"}, func(v admin.ISCertificate) []string {
				return []string{v.Hash[:16], v.Subject, v.NotAfter.Format("2006-01-02")}
			})
		}),
	}
	add := &cobra.Command{
		Use: "add CLIENT FILE", Short: "Add a certificate that the client's information systems present, or its services",
		Example: "  kontor client cert add DEV/GOV/1234/portal portal.pem", Args: args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, a []string) error {
			text, err := readPEM(a[1])
			if err != nil {
				return err
			}
			api, err := gw.client()
			if err != nil {
				return err
			}
			v, err := api.AddClientCertificate(c.Context(), a[0], "", admin.NewISCertificate{Certificate: text})
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, v, clientLines)
		},
	}
	remove := &cobra.Command{
		Use: "delete CLIENT CERTIFICATE", Short: "Delete a certificate of a client's information systems", Args: args(cobra.ExactArgs(2)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			_, etag, err := api.Client(c.Context(), a[0])
			if err != nil {
				return err
			}
			if err := confirm(c, yes, "Delete certificate %s of client %s", a[1], a[0]); err != nil {
				return err
			}
			return api.DeleteClientCertificate(c.Context(), a[0], a[1], etag)
		}),
	}
	yesFlag(remove, &yes)
	gw.suggest(list, suggestClients)
	gw.suggest(add, suggestClients, nil)
	gw.suggest(remove, suggestClients)
	for _, c := range []*cobra.Command{list, add, remove} {
		gw.flags(c)
	}
	outputFlag(list, &output)
	outputFlag(add, &output)
	return group("cert", "Certificates of a client's information systems", list, add, remove)
}

func newClientGroup() *cobra.Command {
	var gw gatewayFlags
	var output string
	var yes bool
	list := &cobra.Command{
		Use: "list CLIENT", Short: "List the local groups of a client", Args: args(cobra.ExactArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			groups, err := api.Groups(c.Context(), a[0])
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), output, groups, []string{"GROUP", "DESCRIPTION", "MEMBERS"}, func(g admin.Group) []string {
				return []string{g.Code, g.Description, strconv.Itoa(len(g.Members))}
			})
		}),
	}
	show := &cobra.Command{
		Use: "show CLIENT GROUP", Short: "Show a local group", Args: args(cobra.ExactArgs(2)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			g, _, err := api.Group(c.Context(), a[0], a[1])
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, g, groupLines)
		}),
	}
	var n admin.NewGroup
	add := &cobra.Command{
		Use: "add CLIENT GROUP [MEMBER…]", Short: "Add a local group",
		Example: "  kontor client group add DEV/GOV/2002/population partners DEV/GOV/1234/portal", Args: args(cobra.MinimumNArgs(2)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			n.Code, n.Members = a[1], a[2:]
			g, err := api.AddGroup(c.Context(), a[0], n)
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, g, groupLines)
		}),
	}
	add.Flags().StringVar(&n.Description, "description", "", "what it is for")
	join := &cobra.Command{
		Use: "add-member CLIENT GROUP MEMBER…", Short: "Add clients to a local group", Args: args(cobra.MinimumNArgs(3)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			g, err := api.AddGroupMembers(c.Context(), a[0], a[1], "", admin.Members{Members: a[2:]})
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, g, groupLines)
		}),
	}
	leave := &cobra.Command{
		Use: "delete-member CLIENT GROUP MEMBER", Short: "Take a client from a local group", Args: args(cobra.ExactArgs(3)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			_, etag, err := api.Group(c.Context(), a[0], a[1])
			if err != nil {
				return err
			}
			if err := confirm(c, yes, "Take %s from the local group %s of %s", a[2], a[1], a[0]); err != nil {
				return err
			}
			return api.DeleteGroupMember(c.Context(), a[0], a[1], a[2], etag)
		}),
	}
	remove := &cobra.Command{
		Use: "delete CLIENT GROUP", Short: "Delete a local group that has no rights", Args: args(cobra.ExactArgs(2)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			g, etag, err := api.Group(c.Context(), a[0], a[1])
			if err != nil {
				return err
			}
			if err := confirm(c, yes, "Delete the local group %s of %s with %d members", g.Code, g.Client, len(g.Members)); err != nil {
				return err
			}
			return api.DeleteGroup(c.Context(), a[0], a[1], etag)
		}),
	}
	commands := []*cobra.Command{list, show, add, join, leave, remove}
	for _, c := range commands {
		gw.flags(c)
		gw.suggest(c, suggestClients)
	}
	for _, c := range commands[:4] {
		outputFlag(c, &output)
	}
	yesFlag(leave, &yes)
	yesFlag(remove, &yes)
	return group("group", "Local groups of a client", commands...)
}

func groupLines(g admin.Group) [][2]string {
	return [][2]string{{"Group", g.Code}, {"Client", g.Client}, {"Description", g.Description}, {"Members", strings.Join(g.Members, ", ")}}
}
