// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"kontor/gateway/admin"
)

// gatewayRequest has the registry change what it publishes about a gateway, and
// says what its answer means.
func gatewayRequest(use, short, done string, positional cobra.PositionalArgs, do func(context.Context, *admin.Client, []string) (admin.ServerRequest, error)) *cobra.Command {
	var gw gatewayFlags
	c := &cobra.Command{
		Use: use, Short: short, Args: args(positional),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			r, err := do(c.Context(), api, a)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), done, r.Request)
			return nil
		}),
	}
	gw.flags(c)
	return c
}

// carriedOut is the answer to what nobody has to approve.
const carriedOut = "Done, as request %d; others learn of it with the next publication.\n"

func newGatewayAddress() *cobra.Command {
	return gatewayRequest("address ADDRESS", "Have the registry publish another address of the gateway", carriedOut, cobra.ExactArgs(1),
		func(ctx context.Context, api *admin.Client, a []string) (admin.ServerRequest, error) {
			return api.ChangeAddress(ctx, admin.NewAddress{Address: a[0]})
		})
}

func newGatewayOwner() *cobra.Command {
	c := gatewayRequest("owner MEMBER", "Have the registry give the gateway to another owner", `Request %d waits for the registry's operators; run the command again to learn what became of it.
When it is approved, kontor gateway status tells the gateway's new identifier: set server to it in the configuration, and restart.
`, cobra.ExactArgs(1), func(ctx context.Context, api *admin.Client, a []string) (admin.ServerRequest, error) {
		return api.ChangeOwner(ctx, admin.NewOwner{Owner: a[0]})
	})
	c.Long = `Send the registry a request to give the gateway to another owner: a member that
is a registered client of it and has an active signing certificate here, which
signs the request. The old owner stays its client. The gateway's identifier
begins with its owner, so it changes, too.`
	c.Example = "  kontor gateway owner DEV/GOV/2002"
	return c
}

func newGatewayMaintenance() *cobra.Command {
	n := admin.Maintenance{On: true}
	on := gatewayRequest("on", "Have the registry publish that the gateway is in maintenance", carriedOut, cobra.NoArgs,
		func(ctx context.Context, api *admin.Client, _ []string) (admin.ServerRequest, error) {
			return api.SetMaintenance(ctx, n)
		})
	on.Flags().StringVar(&n.Message, "message", "", "what callers are told")
	off := gatewayRequest("off", "Have the registry publish that the maintenance is over", carriedOut, cobra.NoArgs,
		func(ctx context.Context, api *admin.Client, _ []string) (admin.ServerRequest, error) {
			return api.SetMaintenance(ctx, admin.Maintenance{})
		})
	return group("maintenance", "Maintenance mode of a gateway", on, off)
}
