// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"kontor/gateway/admin"
)

// gatewayRequest has the registry change what it publishes about a gateway.
func gatewayRequest(use, short string, positional cobra.PositionalArgs, do func(context.Context, *admin.Client, []string) (admin.ServerRequest, error)) *cobra.Command {
	var gw gatewayFlags
	c := &cobra.Command{
		Use: use, Short: short, Args: args(positional),
		RunE: func(c *cobra.Command, a []string) error {
			api, err := gw.client()
			if err != nil {
				return err
			}
			r, err := do(c.Context(), api, a)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "Done, as request %d; others learn of it with the next publication.\n", r.Request)
			return nil
		},
	}
	gw.flags(c)
	return c
}

func newGatewayAddress() *cobra.Command {
	return gatewayRequest("address ADDRESS", "Have the registry publish another address of the gateway", cobra.ExactArgs(1),
		func(ctx context.Context, api *admin.Client, a []string) (admin.ServerRequest, error) {
			return api.ChangeAddress(ctx, admin.NewAddress{Address: a[0]})
		})
}

func newGatewayMaintenance() *cobra.Command {
	n := admin.Maintenance{On: true}
	on := gatewayRequest("on", "Have the registry publish that the gateway is in maintenance", cobra.NoArgs,
		func(ctx context.Context, api *admin.Client, _ []string) (admin.ServerRequest, error) {
			return api.SetMaintenance(ctx, n)
		})
	on.Flags().StringVar(&n.Message, "message", "", "what callers are told")
	off := gatewayRequest("off", "Have the registry publish that the maintenance is over", cobra.NoArgs,
		func(ctx context.Context, api *admin.Client, _ []string) (admin.ServerRequest, error) {
			return api.SetMaintenance(ctx, admin.Maintenance{})
		})
	return group("maintenance", "Maintenance mode of a gateway", on, off)
}
