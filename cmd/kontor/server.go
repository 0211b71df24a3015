// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"kontor/registry/admin"
	"kontor/registry/id"
)

const serverForm = "a security server (INSTANCE/CLASS/CODE/SERVER)"

var completeServers = completion(func(c *cobra.Command, api *admin.Client) ([]admin.Server, error) { return api.Servers(c.Context(), "") },
	func(s admin.Server) string { return s.ID.String() + "\t" + s.Address })

// completeServerClients completes the second argument with clients of the first.
func completeServerClients(c *cobra.Command, api *admin.Client, args []string) ([]string, error) {
	key, err := id.ParseSecurityServer(args[0])
	if err != nil {
		return nil, err
	}
	s, _, err := api.Server(c.Context(), key)
	var out []string
	for _, client := range s.Clients {
		out = append(out, client.ID.String())
	}
	return out, err
}

// completeServerCertificates completes the second argument with certificates of the first.
func completeServerCertificates(c *cobra.Command, api *admin.Client, args []string) ([]string, error) {
	key, err := id.ParseSecurityServer(args[0])
	if err != nil {
		return nil, err
	}
	s, _, err := api.Server(c.Context(), key)
	var out []string
	for _, cert := range s.Certificates {
		out = append(out, cert.SHA256+"\t"+cert.Subject)
	}
	return out, err
}

// serverCommand is a run function for commands whose first argument is a server.
func serverCommand(do func(*cobra.Command, *admin.Client, id.SecurityServer, []string) error) func(*cobra.Command, *admin.Client, []string) error {
	return func(c *cobra.Command, api *admin.Client, args []string) error {
		key, err := parsed(id.ParseSecurityServer, args[0], serverForm)
		if err == nil {
			err = checkInstance(c, api, args[0], key.Owner().Instance())
		}
		if err != nil {
			return err
		}
		return do(c, api, key, args[1:])
	}
}

func newServer() *cobra.Command {
	a := new(registryAPI)
	var search string
	list := a.command("list", "List security servers", "  kontor server list --search GOV/1001", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
		all, err := api.Servers(c.Context(), search)
		if err != nil {
			return err
		}
		return printList(c.OutOrStdout(), a.output, all, []string{"SERVER", "ADDRESS", "CERTIFICATES", "CLIENTS", "MAINTENANCE"}, func(s admin.Server) []string {
			return []string{s.ID.String(), s.Address, strconv.Itoa(len(s.Certificates)), strconv.Itoa(len(s.Clients)), yesNo(s.Maintenance != nil)}
		})
	})
	list.Flags().StringVar(&search, "search", "", "only servers with this in their identifier or address")
	return group("server", "Security servers of members, in the registry", list,
		a.complete(a.command("show SERVER", "Show a security server", "  kontor server show DEV/GOV/1001/ss1", cobra.ExactArgs(1),
			serverCommand(func(c *cobra.Command, api *admin.Client, key id.SecurityServer, _ []string) error {
				s, _, err := api.Server(c.Context(), key)
				if err != nil {
					return err
				}
				return a.show(c, s, serverLines(s)...)
			})), completeServers),
		a.change("add SERVER ADDRESS", "Add a security server of a member", "  kontor server add DEV/GOV/1001/ss1 ss1.example.org", cobra.ExactArgs(2),
			serverCommand(func(c *cobra.Command, api *admin.Client, key id.SecurityServer, rest []string) error {
				d, err := api.AddServer(c.Context(), a.terms(""), key, rest[0])
				return a.done(c, d, err)
			})),
		a.complete(a.change("change SERVER ADDRESS", "Change the address of a security server", "  kontor server change DEV/GOV/1001/ss1 ss1.example.net", cobra.ExactArgs(2),
			serverCommand(func(c *cobra.Command, api *admin.Client, key id.SecurityServer, rest []string) error {
				d, err := api.MoveServer(c.Context(), a.terms(""), key, rest[0])
				return a.done(c, d, err)
			})), completeServers),
		a.complete(a.remove("delete SERVER", "Delete a security server with its certificates and registrations", "  kontor server delete DEV/GOV/1001/ss1", cobra.ExactArgs(1),
			serverCommand(func(c *cobra.Command, api *admin.Client, key id.SecurityServer, _ []string) error {
				s, etag, err := api.Server(c.Context(), key)
				if err != nil {
					return err
				}
				if err := a.confirm(c, "Delete security server %s with %d certificates and %d clients", key, len(s.Certificates), len(s.Clients)); err != nil {
					return err
				}
				d, err := api.DeleteServer(c.Context(), a.terms(etag), key)
				return a.done(c, d, err)
			})), completeServers),
		newServerCertificate(a), newServerClient(a), newMaintenance(a))
}

func serverLines(s admin.Server) [][2]string {
	lines := [][2]string{{"Server", s.ID.String()}, {"Address", s.Address}}
	if s.Maintenance != nil {
		lines = append(lines, [2]string{"In maintenance", orNone(s.Maintenance.Message)})
	}
	for _, cert := range s.Certificates {
		lines = append(lines, [2]string{"Certificate", fmt.Sprintf("%s  %s  until %s", cert.SHA256, cert.Subject, cert.NotAfter.Format(time.DateOnly))})
	}
	for _, client := range s.Clients {
		lines = append(lines, [2]string{"Client", client.ID.String() + map[bool]string{false: "  disabled"}[client.Enabled]})
	}
	return lines
}

func newServerCertificate(a *registryAPI) *cobra.Command {
	return group("certificate", "Authentication certificates of a security server",
		files(a.change("add SERVER FILE", "Register an authentication certificate", "  kontor server certificate add DEV/GOV/1001/ss1 auth.pem", cobra.ExactArgs(2),
			serverCommand(func(c *cobra.Command, api *admin.Client, key id.SecurityServer, rest []string) error {
				text, err := readPEM(rest[0])
				if err != nil {
					return err
				}
				d, err := api.AddCertificate(c.Context(), a.terms(""), key, text)
				return a.done(c, d, err)
			}))),
		a.complete(a.remove("delete SERVER SHA256", "Remove an authentication certificate, named by its hash",
			"  kontor server certificate delete DEV/GOV/1001/ss1 0f343b0931126a20f133d67c2b018a3b…", cobra.ExactArgs(2),
			serverCommand(func(c *cobra.Command, api *admin.Client, key id.SecurityServer, rest []string) error {
				if err := a.confirm(c, "Remove authentication certificate %s of %s, which then reaches nobody with it", rest[0], key); err != nil {
					return err
				}
				d, err := api.DeleteCertificate(c.Context(), a.terms(""), key, rest[0])
				return a.done(c, d, err)
			})), completeServers, completeServerCertificates))
}

func newServerClient(a *registryAPI) *cobra.Command {
	type act = func(*cobra.Command, *admin.Client, id.SecurityServer, id.Client) (*admin.Done, error)
	run := func(ask string, do act) func(*cobra.Command, *admin.Client, []string) error {
		return serverCommand(func(c *cobra.Command, api *admin.Client, key id.SecurityServer, rest []string) error {
			client, err := parsed(id.ParseClient, rest[0], clientForm)
			if err != nil {
				return err
			}
			if ask != "" {
				if err := a.confirm(c, ask, client, key); err != nil {
					return err
				}
			}
			d, err := do(c, api, key, client)
			return a.done(c, d, err)
		})
	}
	return group("client", "Clients registered at a security server",
		a.complete(a.change("add SERVER CLIENT", "Register a client at a security server", "  kontor server client add DEV/GOV/1001/ss1 DEV/GOV/1001/portal", cobra.ExactArgs(2),
			run("", func(c *cobra.Command, api *admin.Client, key id.SecurityServer, client id.Client) (*admin.Done, error) {
				return api.AddClient(c.Context(), a.terms(""), key, client)
			})), completeServers, completeSubsystems),
		a.complete(a.change("enable SERVER CLIENT", "Make a disabled client reachable again", "  kontor server client enable DEV/GOV/1001/ss1 DEV/GOV/1001/portal", cobra.ExactArgs(2),
			run("", func(c *cobra.Command, api *admin.Client, key id.SecurityServer, client id.Client) (*admin.Done, error) {
				return api.EnableClient(c.Context(), a.terms(""), key, client, true)
			})), completeServers, completeServerClients),
		a.complete(a.remove("disable SERVER CLIENT", "Have a client's messages refused for a while", `  kontor server client disable DEV/GOV/1001/ss1 DEV/GOV/1001/portal --why "incident 12"`, cobra.ExactArgs(2),
			run("Disable client %s at %s, so that its messages are refused", func(c *cobra.Command, api *admin.Client, key id.SecurityServer, client id.Client) (*admin.Done, error) {
				return api.EnableClient(c.Context(), a.terms(""), key, client, false)
			})), completeServers, completeServerClients),
		a.complete(a.remove("delete SERVER CLIENT", "Remove a client from a security server", "  kontor server client delete DEV/GOV/1001/ss1 DEV/GOV/1001/portal", cobra.ExactArgs(2),
			run("Remove client %s from %s", func(c *cobra.Command, api *admin.Client, key id.SecurityServer, client id.Client) (*admin.Done, error) {
				return api.DeleteClient(c.Context(), a.terms(""), key, client)
			})), completeServers, completeServerClients))
}

func newMaintenance(a *registryAPI) *cobra.Command {
	var message string
	on := a.complete(a.change("on SERVER", "Put a security server into maintenance", `  kontor server maintenance on DEV/GOV/1001/ss1 --message "back at 6:00"`, cobra.ExactArgs(1),
		serverCommand(func(c *cobra.Command, api *admin.Client, key id.SecurityServer, _ []string) error {
			d, err := api.BeginMaintenance(c.Context(), a.terms(""), key, message)
			return a.done(c, d, err)
		})), completeServers)
	on.Flags().StringVar(&message, "message", "", "what senders are told")
	return group("maintenance", "Maintenance of a security server", on,
		a.complete(a.change("off SERVER", "Take a security server out of maintenance", "  kontor server maintenance off DEV/GOV/1001/ss1", cobra.ExactArgs(1),
			serverCommand(func(c *cobra.Command, api *admin.Client, key id.SecurityServer, _ []string) error {
				d, err := api.EndMaintenance(c.Context(), a.terms(""), key)
				return a.done(c, d, err)
			})), completeServers))
}
