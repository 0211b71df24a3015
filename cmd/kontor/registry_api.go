// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/registry/admin"
)

// registryAPI is how a command reaches the administration API of a registry,
// and how it shows what comes back.
type registryAPI struct {
	config             string
	url, keyFile, cert string
	output             string
	why                string
	yes                bool
}

// command makes a command that calls the API. run gets a client.
func (a *registryAPI) command(use, short, example string, check cobra.PositionalArgs, run func(*cobra.Command, *admin.Client, []string) error) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: args(check), Example: example, ValidArgsFunction: cobra.NoFileCompletions}
	c.RunE = func(c *cobra.Command, args []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		return run(c, client, args)
	}
	f := c.Flags()
	f.StringVar(&a.config, "config", "/etc/kontor/registry.yaml", "configuration file of the registry on this machine")
	f.StringVar(&a.url, "url", "", "administration API of a registry elsewhere, such as https://registry.example.org:4000")
	f.StringVar(&a.keyFile, "key-file", "", "with --url: file with the API key")
	f.StringVar(&a.cert, "cert", "", "with --url: the registry's TLS certificate (admin.pem of its data directory)")
	c.MarkFlagsRequiredTogether("url", "key-file", "cert")
	outputFlag(c, &a.output)
	return c
}

// change makes a command that changes something.
func (a *registryAPI) change(use, short, example string, check cobra.PositionalArgs, run func(*cobra.Command, *admin.Client, []string) error) *cobra.Command {
	c := a.command(use, short, example, check, run)
	c.Flags().StringVar(&a.why, "why", "", "the reason, for the journal")
	return c
}

// remove makes a command that takes something away, after confirmation.
func (a *registryAPI) remove(use, short, example string, check cobra.PositionalArgs, run func(*cobra.Command, *admin.Client, []string) error) *cobra.Command {
	c := a.change(use, short, example, check, run)
	yesFlag(c, &a.yes)
	return c
}

// client returns a client for the registry that the flags name.
func (a *registryAPI) client() (*admin.Client, error) {
	url, access := a.url, apiAccess{role: "registry", key: a.keyFile, cert: a.cert, byFlags: true, keyMade: "kontor registry key add", mine: "admin.pem"}
	if url == "" {
		cfg, err := loadConfig(config.LoadRegistry, a.config, "registry")
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w. A registry elsewhere is named by --url, --key-file and --cert", err)
		}
		if err != nil {
			return nil, err
		}
		if cfg.Listen.Admin == "" {
			return nil, fmt.Errorf("%s: listen.admin is off; set an address and restart the registry", a.config)
		}
		url, access.key, access.byFlags = "https://"+reachable(cfg.Listen.Admin), roles.RegistryKeyFile(cfg), false
		access.cert, _ = roles.RegistryTLSFiles(cfg)
	}
	key, pin, err := access.read(url)
	if err != nil {
		return nil, err
	}
	return admin.NewClient(url, key, pin), nil
}

// terms are the conditions of a change; etag may be empty.
func (a *registryAPI) terms(etag string) admin.ChangeTerms {
	return admin.ChangeTerms{Why: a.why, IfMatch: etag}
}

// done shows what a change has done.
func (a *registryAPI) done(c *cobra.Command, d *admin.Done, err error) error {
	if err != nil {
		return err
	}
	if a.output == "json" {
		return printJSON(c.OutOrStdout(), d)
	}
	if len(d.Changes) == 0 {
		fmt.Fprintln(c.OutOrStdout(), "Nothing to change.")
		return nil
	}
	for _, text := range d.Changes {
		fmt.Fprintln(c.OutOrStdout(), "Done: "+text)
	}
	return nil
}

// confirm asks whether to do what cannot simply be undone.
func (a *registryAPI) confirm(c *cobra.Command, format string, args ...any) error {
	return confirm(c, a.yes, format, args...)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// show prints one thing: as JSON, or line by line as name and value.
func (a *registryAPI) show(c *cobra.Command, v any, lines ...[2]string) error {
	return printOne(c.OutOrStdout(), a.output, v, func(any) [][2]string { return lines })
}

// complete completes the n-th argument with what list returns.
func (a *registryAPI) complete(c *cobra.Command, lists ...func(*cobra.Command, *admin.Client, []string) ([]string, error)) *cobra.Command {
	c.ValidArgsFunction = func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(lists) || lists[len(args)] == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		client, err := a.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		found, err := lists[len(args)](c, client, args)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// completion turns a list into the texts that complete an argument.
func completion[T any](list func(*cobra.Command, *admin.Client) ([]T, error), text func(T) string) func(*cobra.Command, *admin.Client, []string) ([]string, error) {
	return func(c *cobra.Command, client *admin.Client, _ []string) ([]string, error) {
		all, err := list(c, client)
		var out []string
		for _, v := range all {
			out = append(out, text(v))
		}
		return out, err
	}
}

// files completes an argument with names of files.
func files(c *cobra.Command) *cobra.Command {
	c.ValidArgsFunction = nil
	return c
}

// readPEM reads a certificate file, PEM or DER, as PEM text.
func readPEM(file string) (string, error) {
	der, err := roles.ReadDER(file, "CERTIFICATE")
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}

// parsed wraps a parser of identifiers, so that a failure is one of usage.
func parsed[T any](parse func(string) (T, error), text, form string) (T, error) {
	v, err := parse(text)
	if err != nil {
		return v, usageError{fmt.Errorf("%q is not %s: %w", text, form, err)}
	}
	return v, nil
}

// ours parses the identifier of something of the registry's own instance. The API
// takes it without the instance: with another one it would be about something
// else than was named.
func ours[T interface{ Instance() string }](c *cobra.Command, api *admin.Client, parse func(string) (T, error), text, form string) (T, error) {
	v, err := parsed(parse, text, form)
	if err == nil {
		err = checkInstance(c, api, text, v.Instance())
	}
	return v, err
}

// checkInstance refuses what is not of the registry's own instance.
func checkInstance(c *cobra.Command, api *admin.Client, text, instance string) error {
	status, err := api.Status(c.Context())
	if err == nil && status.Instance != instance {
		err = usageError{fmt.Errorf("%q is of instance %s, but this is the registry of %s", text, instance, status.Instance)}
	}
	return err
}

func yesNo(b bool) string { return map[bool]string{true: "yes", false: "no"}[b] }

// orNone shows that there is nothing.
func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
