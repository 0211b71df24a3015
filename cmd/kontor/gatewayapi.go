// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/gateway/admin"
)

// gatewayFlags say which gateway a command administers: that of a
// configuration on this machine, or that at a URL.
type gatewayFlags struct{ config, url, keyFile, cert string }

func (g *gatewayFlags) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&g.config, "config", "/etc/kontor/gateway.yaml", "configuration file of the gateway, on its machine")
	f.StringVar(&g.url, "url", "", "address of its administration API, such as https://10.0.0.1:4000, from elsewhere")
	f.StringVar(&g.keyFile, "key-file", "", "with --url: file with the API key")
	f.StringVar(&g.cert, "cert", "", "with --url: file with the TLS certificate of the gateway (internal.pem of its data_dir)")
	c.MarkFlagsMutuallyExclusive("config", "url")
	c.MarkFlagsRequiredTogether("url", "key-file", "cert")
	_ = c.MarkFlagFilename("config", "yaml", "yml") // the flag exists
}

// local reads the configuration of a gateway on this machine.
func (g *gatewayFlags) local() (*config.Gateway, error) {
	cfg, err := loadConfig(config.LoadGateway, g.config, "gateway")
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w. A gateway elsewhere is named by --url, --key-file and --cert", err)
	}
	return cfg, err
}

// client returns a client for the administration API.
func (g *gatewayFlags) client() (*admin.Client, error) {
	url, access := g.url, apiAccess{role: "gateway", key: g.keyFile, cert: g.cert, byFlags: true, keyMade: "kontor gateway apikey create", mine: "internal.pem"}
	if url == "" {
		cfg, err := g.local()
		if err != nil {
			return nil, err
		}
		if cfg.Listen.Admin == "" {
			return nil, fmt.Errorf("%s: listen.admin is off; set an address and restart the gateway", g.config)
		}
		url, access.key, access.byFlags = "https://"+reachable(cfg.Listen.Admin), roles.AdminKeyFile(cfg), false
		access.cert, _ = roles.InternalTLSFiles(cfg)
	}
	key, pin, err := access.read(url)
	if err != nil {
		return nil, err
	}
	return admin.NewClient(url, key, pin), nil
}

// run makes what a command does from a function that needs the API.
func (g *gatewayFlags) run(do func(*cobra.Command, *admin.Client, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		api, err := g.client()
		if err != nil {
			return err
		}
		return do(c, api, args)
	}
}

// reachable turns an address to listen on into one to connect to.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return listen
}

// completionPatience is how long a shell waits for suggestions.
const completionPatience = 3 * time.Second

// suggest completes positional arguments from what the gateway has; each
// function is for one of them, and the last for all that follow.
func (g *gatewayFlags) suggest(c *cobra.Command, each ...func(context.Context, *admin.Client) []string) {
	c.ValidArgsFunction = func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(each) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if each[len(args)] == nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		api, err := g.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completionPatience)
		defer cancel()
		return each[len(args)](ctx, api), cobra.ShellCompDirectiveNoFileComp
	}
}

func names[T any](list func() ([]T, error), name func(T) string) []string {
	items, err := list()
	if err != nil {
		return nil // a suggestion is not worth a message
	}
	var all []string
	for _, i := range items {
		all = append(all, name(i))
	}
	return all
}

func suggestClients(ctx context.Context, api *admin.Client) []string {
	return names(func() ([]admin.LocalClient, error) { return api.Clients(ctx) }, func(c admin.LocalClient) string { return c.ID + "\t" + c.Status })
}

func suggestServices(ctx context.Context, api *admin.Client) []string {
	return names(func() ([]admin.Service, error) { return api.Services(ctx, "") }, func(s admin.Service) string { return s.Client + "/" + s.Name + "\t" + s.URL })
}

func suggestKeys(ctx context.Context, api *admin.Client) []string {
	return names(func() ([]admin.Key, error) { return api.Keys(ctx) }, func(k admin.Key) string { return k.ID + "\t" + string(k.Usage) + " " + k.Label })
}

func suggestCertificates(ctx context.Context, api *admin.Client) []string {
	certs, err := certificates(ctx, api)
	return names(func() ([]admin.Certificate, error) { return certs, err }, func(c admin.Certificate) string { return c.Hash[:16] + "\t" + c.Subject })
}

func suggestRights(ctx context.Context, api *admin.Client) []string {
	return names(func() ([]admin.Right, error) { return api.Access(ctx, "", "", "") }, func(r admin.Right) string { return r.ID + "\t" + r.Subject + " to " + r.Service })
}

func suggestAPIKeys(ctx context.Context, api *admin.Client) []string {
	return names(func() ([]admin.APIKey, error) { return api.APIKeys(ctx) }, func(k admin.APIKey) string { return k.Name })
}

// splitService cuts the identifier of a service of this gateway into its client
// and its name there: code, or code/version.
func splitService(s string) (client, name string, err error) {
	parts := strings.SplitN(s, "/", 5)
	if len(parts) < 5 || parts[4] == "" {
		return "", "", usageError{fmt.Errorf("%q is no service; give instance/class/member/subsystem/code", s)}
	}
	return strings.Join(parts[:4], "/"), parts[4], nil
}

func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime)
}
