// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"kontor/registry"
	"kontor/registry/admin"
	"kontor/registry/id"
)

func newRequest() *cobra.Command {
	a := new(registryAPI)
	pending := completion(func(c *cobra.Command, api *admin.Client) ([]admin.Request, error) {
		return api.Requests(c.Context(), admin.RequestFilter{Pending: true}, "")
	}, func(q admin.Request) string { return strconv.FormatUint(q.Number, 10) + "\t" + requestText(q) })
	numbered := func(do func(*cobra.Command, *admin.Client, uint64) error) func(*cobra.Command, *admin.Client, []string) error {
		return func(c *cobra.Command, api *admin.Client, args []string) error {
			n, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return usageError{fmt.Errorf("%q is not the number of a request", args[0])}
			}
			return do(c, api, n)
		}
	}
	var reason string
	decline := a.complete(a.command("decline NUMBER", "Refuse a management request; the applicant gets to read the reason", `  kontor request decline 7 --reason "the certificate is not of this member"`, cobra.ExactArgs(1),
		numbered(func(c *cobra.Command, api *admin.Client, n uint64) error {
			if reason == "" {
				return usageError{errors.New("give the --reason; the applicant gets to read it")}
			}
			d, err := api.DeclineRequest(c.Context(), admin.ChangeTerms{Why: reason}, n)
			return a.done(c, d, err)
		})), pending)
	decline.Flags().StringVar(&reason, "reason", "", "why it is refused")
	var note string
	approve := a.complete(a.command("approve NUMBER", "Let a management request take effect", "  kontor request approve 7", cobra.ExactArgs(1),
		numbered(func(c *cobra.Command, api *admin.Client, n uint64) error {
			d, err := api.ApproveRequest(c.Context(), admin.ChangeTerms{Why: note}, n)
			return a.done(c, d, err)
		})), pending)
	approve.Flags().StringVar(&note, "reason", "", "why it is approved, for the journal")
	return group("request", "Management requests of security servers, in the registry", newRequestList(a),
		a.complete(a.command("show NUMBER", "Show a management request", "  kontor request show 7", cobra.ExactArgs(1), numbered(func(c *cobra.Command, api *admin.Client, n uint64) error {
			q, _, err := api.Request(c.Context(), n)
			if err != nil {
				return err
			}
			return a.show(c, q, requestLines(q)...)
		})), pending),
		newRequestAdd(a), approve, decline)
}

func newRequestAdd(a *registryAPI) *cobra.Command {
	var address, name string
	certificate := a.change("certificate SERVER FILE", "Request the registration of an authentication certificate on behalf of a security server",
		"  kontor request add certificate DEV/GOV/1001/ss1 auth.pem", cobra.ExactArgs(2),
		serverCommand(func(c *cobra.Command, api *admin.Client, key id.SecurityServer, rest []string) error {
			text, err := readPEM(rest[0])
			if err != nil {
				return err
			}
			d, err := api.SubmitRequest(c.Context(), a.terms(""), admin.NewRequest{Kind: string(registry.AuthCertReg), Server: key, Certificate: text, Address: address})
			return a.done(c, d, err)
		}))
	certificate.Flags().StringVar(&address, "address", "", "address of the security server; default: as it says itself")
	client := a.change("client SERVER CLIENT", "Request the registration of a client on behalf of a security server",
		"  kontor request add client DEV/GOV/1001/ss1 DEV/GOV/1001/portal", cobra.ExactArgs(2),
		serverCommand(func(c *cobra.Command, api *admin.Client, key id.SecurityServer, rest []string) error {
			who, err := parsed(id.ParseClient, rest[0], clientForm)
			if err != nil {
				return err
			}
			d, err := api.SubmitRequest(c.Context(), a.terms(""), admin.NewRequest{Kind: string(registry.ClientReg), Server: key, Client: &who, Name: name})
			return a.done(c, d, err)
		}))
	client.Flags().StringVar(&name, "name", "", "name of the subsystem")
	g := group("add", "Request a registration on behalf of a security server", files(certificate), a.complete(client, completeServers, completeSubsystems))
	g.Long = `Request a registration on behalf of a security server. It takes effect when that
sends the same request, without an approval. If that request waits already, both
await one. To register without the security server: kontor server.`
	return g
}

func newRequestList(a *registryAPI) *cobra.Command {
	var f admin.RequestFilter
	var search string
	c := a.command("list", "List management requests, newest first", "  kontor request list --pending", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
		all, err := api.Requests(c.Context(), f, search)
		if err != nil {
			return err
		}
		return printList(c.OutOrStdout(), a.output, all, []string{"REQUEST", "TIME", "WHAT", "STATUS", "BY"}, func(q admin.Request) []string {
			return []string{strconv.FormatUint(q.Number, 10), q.Created.Local().Format(time.DateTime), requestText(q), statusText(q), q.CreatedBy}
		})
	})
	c.Flags().BoolVar(&f.Pending, "pending", false, "only those that await a decision")
	c.Flags().StringVar(&f.Status, "status", "", "only with this status, such as WAITING or DECLINED")
	c.Flags().StringVar(&f.Kind, "kind", "", "only of this kind, such as clientReg")
	c.Flags().StringVar(&search, "search", "", "only those with this in their number or names")
	kinds := []string{}
	for _, k := range registry.RequestKinds() {
		kinds = append(kinds, string(k))
	}
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(kinds, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// requestText says what a request is about.
func requestText(q admin.Request) string {
	text := string(q.Kind) + " " + q.Server.String()
	if q.Client != nil {
		text += " " + q.Client.String()
	}
	return text
}

func statusText(q admin.Request) string {
	if q.Status == "" {
		return "carried out"
	}
	return string(q.Status)
}

func requestLines(q admin.Request) [][2]string {
	lines := [][2]string{{"Request", strconv.FormatUint(q.Number, 10)}, {"Kind", string(q.Kind)}, {"Status", statusText(q)}, {"Origin", string(q.Origin)},
		{"Created", q.Created.Local().Format(time.DateTime)}, {"By", q.CreatedBy}, {"Server", q.Server.String()}}
	if q.Client != nil {
		lines = append(lines, [2]string{"Client", q.Client.String()})
	}
	lines = append(lines, [2]string{"Address", q.Address}, [2]string{"Name", q.Name}, [2]string{"Message", q.Message})
	if q.Certificate != nil {
		lines = append(lines, [2]string{"Certificate", certificateText(q.Certificate)}, [2]string{"  issued by", q.Certificate.Issuer},
			[2]string{"  until", q.Certificate.NotAfter.Format(time.DateOnly)})
	}
	if q.Complement != 0 {
		lines = append(lines, [2]string{"Decided with", "request " + strconv.FormatUint(q.Complement, 10)})
	}
	if q.Decided != nil {
		lines = append(lines, [2]string{"Decided", q.Decided.Local().Format(time.DateTime)}, [2]string{"  by", q.DecidedBy}, [2]string{"  reason", q.Reason})
	}
	return append(lines, [2]string{"Effect", q.Comment})
}
