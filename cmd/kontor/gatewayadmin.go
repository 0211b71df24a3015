// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kontor/cmd/roles"
	"kontor/gateway/admin"
)

func newGatewayStatus() *cobra.Command {
	var gw gatewayFlags
	var output string
	c := &cobra.Command{
		Use: "status", Short: "Show how a gateway fares: global configuration, OCSP, time-stamps, message log",
		Long: `Show how a gateway fares. The exit status is 0 if it can carry messages, else 1.`,
		Args: args(cobra.NoArgs),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, _ []string) error {
			s, err := api.Status(c.Context())
			if err != nil {
				return err
			}
			if err := printOne(c.OutOrStdout(), output, s, statusLines); err != nil {
				return err
			}
			if !s.Ready {
				return errReported
			}
			return nil
		}),
	}
	gw.flags(c)
	outputFlag(c, &output)
	return c
}

func statusLines(s admin.Status) [][2]string {
	lines := [][2]string{{"Server", s.Server}, {"Time", date(s.Time)}, {"Ready", yesNo(s.Ready)}}
	for _, p := range s.Problems {
		lines = append(lines, [2]string{"Problem", p})
	}
	g := s.GlobalConf
	lines = append(lines,
		[2]string{"Global configuration", fmt.Sprintf("%s, version %d, until %s", g.Instance, g.Version, date(g.Expires))},
		[2]string{"  downloaded", strings.TrimSpace(date(g.LastSuccess) + " " + g.Location)}, [2]string{"  last error", g.LastError})
	for _, l := range g.LeftOut {
		lines = append(lines, [2]string{"  left out", l})
	}
	for _, o := range s.OCSP {
		text := "good until " + date(o.Until)
		if o.Until.IsZero() {
			text = "no good response: " + o.Problem
		}
		lines = append(lines, [2]string{"OCSP " + o.Certificate[:16], string(o.Usage) + ", " + text})
	}
	lines = append(lines, enrolmentLines(s.Enrolments)...)
	for _, t := range s.TSAs {
		lines = append(lines, [2]string{"Time-stamping authority", t.Name + " " + t.URL})
	}
	l := s.Log
	lines = append(lines, [2]string{"Message log", fmt.Sprintf("%d records, %d without time-stamp", l.Records, l.Unstamped)},
		[2]string{"  last time-stamp", date(l.LastStamp)}, [2]string{"  time-stamping fails since", date(l.FailingSince)},
		[2]string{"  messages refused from", date(l.RefuseAt)}, [2]string{"  time-stamp error", l.StampError}, [2]string{"  failed", l.Failed},
		[2]string{"  disk", fmt.Sprintf("%s used, %s bodies, %s free", mib(l.Bytes), mib(l.BodyBytes), mib(l.FreeBytes))})
	return lines
}

func mib(n int64) string {
	if n < 0 {
		return "unknown"
	}
	return strconv.FormatInt(n>>20, 10) + " MiB"
}

func newGatewayPIN() *cobra.Command {
	var gw gatewayFlags
	var old, new string
	var yes bool
	c := &cobra.Command{
		Use: "key-pin", Short: "Change the PIN of the token that holds the keys",
		Long: `Change the PIN of the token, and the file from which the gateway reads it. The
gateway runs on. Without --new-pin-file a random PIN is made, which only the
gateway's pin_file has then.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if old == "" {
				if gw.url != "" {
					return usageError{fmt.Errorf("with --url, give the PIN that the token has now in --pin-file")}
				}
				cfg, err := gw.local()
				if err != nil {
					return err
				}
				old = cfg.PINFile
			}
			now, err := roles.Secret(old, "PIN")
			if err != nil {
				return err
			}
			next := []byte(rand.Text())
			if new == "-" {
				if next, err = io.ReadAll(io.LimitReader(c.InOrStdin(), 4096)); err != nil {
					return err
				}
			} else if new != "" {
				if next, err = roles.Secret(new, "new PIN"); err != nil {
					return err
				}
			}
			api, err := gw.client()
			if err != nil {
				return err
			}
			if err := confirm(c, yes, "Change the PIN of the token"); err != nil {
				return err
			}
			if err := api.ChangePIN(c.Context(), admin.PINChange{Old: string(now), New: strings.TrimRight(string(next), "\r\n")}); err != nil {
				return err
			}
			fmt.Fprintln(c.ErrOrStderr(), "The token has the new PIN, and so has the pin_file of the gateway; back both up.")
			return nil
		},
	}
	c.Flags().StringVar(&old, "pin-file", "", "file with the PIN that the token has now; default: pin_file of the configuration")
	c.Flags().StringVar(&new, "new-pin-file", "", "file with the new PIN; - is standard input")
	yesFlag(c, &yes)
	gw.flags(c)
	return c
}

func newGatewayAPIKey() *cobra.Command {
	var gw gatewayFlags
	var output string
	list := &cobra.Command{
		Use: "list", Short: "List API keys", Args: args(cobra.NoArgs),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, _ []string) error {
			keys, err := api.APIKeys(c.Context())
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), output, keys, []string{"NAME", "ROLES", "CREATED"}, func(k admin.APIKey) []string {
				return []string{k.Name, strings.Join(k.Roles, ", "), date(k.Created)}
			})
		}),
	}
	var granted []string
	create := &cobra.Command{
		Use: "create NAME", Short: "Create an API key, which is shown once",
		Example: "  kontor gateway apikey create alice --role service-administrator", Args: args(cobra.ExactArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			k, err := api.CreateAPIKey(c.Context(), admin.NewAPIKey{Name: a[0], Roles: granted})
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, k, func(k admin.CreatedAPIKey) [][2]string {
				return [][2]string{{"Name", k.Name}, {"Roles", strings.Join(k.Roles, ", ")}, {"Key", k.Key}, {"Next", "keep the key in a file that only its user may read (--key-file)"}}
			})
		}),
	}
	create.Flags().StringSliceVar(&granted, "role", nil, "role, may be repeated: "+strings.Join(admin.Roles(), ", "))
	_ = create.MarkFlagRequired("role") // the flag exists
	_ = create.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(admin.Roles(), cobra.ShellCompDirectiveNoFileComp))
	var yes bool
	remove := &cobra.Command{
		Use: "delete NAME", Short: "Delete an API key", Args: args(cobra.ExactArgs(1)),
		RunE: gw.run(func(c *cobra.Command, api *admin.Client, a []string) error {
			k, etag, err := api.APIKey(c.Context(), a[0])
			if err != nil {
				return err
			}
			if err := confirm(c, yes, "Delete API key %q with roles %s", k.Name, strings.Join(k.Roles, ", ")); err != nil {
				return err
			}
			return api.DeleteAPIKey(c.Context(), k.Name, etag)
		}),
	}
	yesFlag(remove, &yes)
	gw.suggest(remove, suggestAPIKeys)
	for _, c := range []*cobra.Command{list, create, remove} {
		gw.flags(c)
	}
	outputFlag(list, &output)
	outputFlag(create, &output)
	return group("apikey", "API keys of a gateway", list, create, remove)
}
