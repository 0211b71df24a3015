// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kontor/registry/admin"
)

// registryCommands are the commands of "kontor registry" that call its API.
func registryCommands() []*cobra.Command {
	a := new(registryAPI)
	return []*cobra.Command{
		newRegistryStatus(a), newPlan(a), newApply(a), newOwnAnchor(a), newJournal(a), newSigningKey(a), newNode(a), newAPIKey(a),
	}
}

func newRegistryStatus(a *registryAPI) *cobra.Command {
	return a.command("status", "Show what is published and whether the registry is healthy", "  kontor registry status", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
		s, err := api.Status(c.Context())
		if err != nil {
			return err
		}
		versions := make([]string, len(s.Versions))
		for i, v := range s.Versions {
			versions[i] = "V" + strconv.Itoa(v)
		}
		lines := [][2]string{{"Instance", s.Instance}, {"Journal entries", strconv.FormatUint(s.Entries, 10)}, {"Published up to", strconv.FormatUint(s.Published, 10)}}
		if !s.At.IsZero() {
			lines = append(lines, [2]string{"Published at", s.At.Local().Format(time.DateTime)}, [2]string{"Valid until", s.Expires.Local().Format(time.DateTime)})
		}
		lines = append(lines, [2]string{"Versions", orNone(strings.Join(versions, " "))}, [2]string{"Healthy", yesNo(s.Healthy)})
		if s.Error != "" {
			lines = append(lines, [2]string{"Last failure", s.Error})
		}
		if s.Warning != "" {
			lines = append(lines, [2]string{"Warning", s.Warning})
		}
		if err := a.show(c, s, lines...); err != nil || s.Healthy {
			return err
		}
		return errReported
	})
}

func newPlan(a *registryAPI) *cobra.Command {
	return files(a.command("plan FILE", "Show what applying a declaration would change", "  kontor registry plan ecosystem.yaml", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
		decl, err := admin.LoadDeclaration(args[0])
		if err != nil {
			return err
		}
		plan, _, err := api.Plan(c.Context(), decl)
		if err != nil {
			return err
		}
		return a.showPlan(c, plan)
	}))
}

func (a *registryAPI) showPlan(c *cobra.Command, plan admin.Done) error {
	if a.output == "json" {
		return printJSON(c.OutOrStdout(), plan)
	}
	if len(plan.Changes) == 0 {
		fmt.Fprintln(c.OutOrStdout(), "Nothing to change.")
	}
	for _, text := range plan.Changes {
		fmt.Fprintln(c.OutOrStdout(), text)
	}
	return nil
}

func newApply(a *registryAPI) *cobra.Command {
	c := files(a.remove("apply FILE", "Make a declaration true, all of it or nothing", "  kontor registry apply ecosystem.yaml --yes", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
		decl, err := admin.LoadDeclaration(args[0])
		if err != nil {
			return err
		}
		if a.yes {
			d, err := api.Apply(c.Context(), a.terms(""), decl)
			return a.done(c, d, err)
		}
		plan, etag, err := api.Plan(c.Context(), decl)
		if err != nil {
			return err
		}
		if len(plan.Changes) == 0 {
			return a.showPlan(c, plan)
		}
		for _, text := range plan.Changes {
			fmt.Fprintln(c.ErrOrStderr(), text)
		}
		if err := a.confirm(c, "Make these %d changes", len(plan.Changes)); err != nil {
			return err
		}
		d, err := api.Apply(c.Context(), a.terms(etag), decl) // what was shown, or nothing
		return a.done(c, d, err)
	}))
	c.Long = `Make a declaration true, all of it or nothing. A list that is present is
complete: what it does not name is removed. Without --yes the changes are shown
first, and exactly those are made.`
	return c
}

func newOwnAnchor(a *registryAPI) *cobra.Command {
	var external bool
	c := a.command("anchor", "Print the configuration anchor, for gateways", "  kontor registry anchor > anchor.xml", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
		b, err := api.Anchor(c.Context(), map[bool]string{true: "external", false: "internal"}[external])
		if err != nil {
			return err
		}
		_, err = c.OutOrStdout().Write(b)
		return err
	})
	c.Flags().BoolVar(&external, "external", false, "the anchor for federation partners")
	return c
}

func newJournal(a *registryAPI) *cobra.Command {
	var from uint64
	var limit int
	var newest bool
	c := a.command("journal", "Print the journal of changes", "  kontor registry journal --newest --limit 20", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
		all := []admin.Entry{}
		for at := from; ; {
			want := 1000
			if limit > 0 {
				want = min(want, limit-len(all))
			}
			page, err := api.Journal(c.Context(), at, want, newest)
			if err != nil {
				return err
			}
			all = append(all, page.Entries...)
			if page.Next == 0 || limit > 0 && len(all) >= limit {
				break
			}
			at = page.Next
		}
		return printList(c.OutOrStdout(), a.output, all, []string{"ENTRY", "TIME", "WHO", "CHANGE", "WHY"}, func(e admin.Entry) []string {
			return []string{strconv.FormatUint(e.Number, 10), e.Time.Local().Format(time.DateTime), e.Who, e.Change, strings.ReplaceAll(e.Why, "\n", " ")}
		})
	})
	c.Flags().Uint64Var(&from, "from", 0, "first entry")
	c.Flags().IntVar(&limit, "limit", 0, "at most so many; 0: all")
	c.Flags().BoolVar(&newest, "newest", false, "newest first")
	return c
}

func newSigningKey(a *registryAPI) *cobra.Command {
	source := func(c *cobra.Command, _ *admin.Client, _ []string) ([]string, error) {
		return []string{"internal", "external"}, nil
	}
	keys := func(c *cobra.Command, api *admin.Client, args []string) ([]string, error) {
		all, err := api.SigningKeys(c.Context())
		var out []string
		for _, k := range all {
			if k.Source == args[0] {
				out = append(out, k.Key+"\t"+map[bool]string{true: "active", false: "known to clients"}[k.Active])
			}
		}
		return out, err
	}
	var algorithm string
	generate := a.complete(a.change("generate SOURCE", "Make a signing key (internal or external) and make it known to clients", "  kontor registry signing-key generate internal", cobra.ExactArgs(1),
		func(c *cobra.Command, api *admin.Client, args []string) error {
			d, err := api.GenerateSigningKey(c.Context(), a.terms(""), admin.NewSigningKey{Source: args[0], Algorithm: algorithm})
			return a.done(c, d, err)
		}), source)
	generate.Flags().StringVar(&algorithm, "algorithm", "", "algorithm; without, RSA-3072, which every X-Road release reads")
	g := group("signing-key", "Keys that sign the configuration",
		a.command("list", "List the keys that sign the configuration", "  kontor registry signing-key list", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
			all, err := api.SigningKeys(c.Context())
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), a.output, all, []string{"SOURCE", "KEY", "SIGNS", "ADDED"}, func(k admin.SigningKey) []string {
				return []string{k.Source, k.Key, yesNo(k.Active), k.Added.Local().Format(time.DateTime)}
			})
		}),
		generate,
		a.complete(a.change("activate SOURCE KEY", "Have a key sign from now on; do so when clients have had two minutes to learn it", "  kontor registry signing-key activate internal 0f343b09", cobra.ExactArgs(2),
			func(c *cobra.Command, api *admin.Client, args []string) error {
				d, err := api.ActivateSigningKey(c.Context(), a.terms(""), args[0], args[1])
				return a.done(c, d, err)
			}), source, keys),
		a.complete(a.remove("retire SOURCE KEY", "Make a key that does not sign unknown, and delete it", "  kontor registry signing-key retire internal 5feceb66", cobra.ExactArgs(2),
			func(c *cobra.Command, api *admin.Client, args []string) error {
				if err := a.confirm(c, "Retire the %s signing key %s, so that clients that know no other get no configuration", args[0], args[1]); err != nil {
					return err
				}
				d, err := api.RetireSigningKey(c.Context(), a.terms(""), args[0], args[1])
				return a.done(c, d, err)
			}), source, keys))
	g.Long = `Keys that sign the configuration. To change one without losing a client:
generate a key, wait until all clients have learned it from the configuration
(two minutes at default intervals), activate it, and retire the old one.
Anchors that are given out after that hold the new key.`
	return g
}

func newAPIKey(a *registryAPI) *cobra.Command {
	var with []string
	names := completion(func(c *cobra.Command, api *admin.Client) ([]admin.APIKey, error) { return api.APIKeys(c.Context()) },
		func(k admin.APIKey) string { return k.Name + "\t" + strings.Join(k.Roles, ", ") })
	add := a.change("add NAME", "Make an API key; the key itself is printed once and kept nowhere", "  kontor registry key add alice --role registration-officer > alice.key", cobra.ExactArgs(1),
		func(c *cobra.Command, api *admin.Client, args []string) error {
			if len(with) == 0 {
				return usageError{errors.New("give at least one --role: " + strings.Join(admin.Roles(), ", "))}
			}
			made, err := api.AddAPIKey(c.Context(), a.why, admin.NewAPIKey{Name: args[0], Roles: with})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(c.OutOrStdout(), made)
			}
			fmt.Fprintf(c.ErrOrStderr(), "The API key of %s, with roles %s; it is not shown again:\n", made.Name, strings.Join(made.Roles, ", "))
			fmt.Fprintln(c.OutOrStdout(), made.Secret)
			return nil
		})
	add.Flags().StringSliceVar(&with, "role", nil, "role; may be repeated")
	_ = add.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(admin.Roles(), cobra.ShellCompDirectiveNoFileComp))
	return group("key", "API keys of operators",
		a.command("list", "List API keys and their roles", "  kontor registry key list", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
			all, err := api.APIKeys(c.Context())
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), a.output, all, []string{"NAME", "ROLES", "CREATED"}, func(k admin.APIKey) []string {
				return []string{k.Name, strings.Join(k.Roles, ", "), k.Created.Local().Format(time.DateTime)}
			})
		}), add,
		a.complete(a.remove("delete NAME", "Make an API key invalid", "  kontor registry key delete alice", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
			if err := a.confirm(c, "Make the API key of %s invalid", args[0]); err != nil {
				return err
			}
			if err := api.DeleteAPIKey(c.Context(), a.why, args[0]); err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(c.OutOrStdout(), admin.Done{Changes: []string{"delete API key " + args[0]}})
			}
			fmt.Fprintln(c.OutOrStdout(), "Done: delete API key "+args[0])
			return nil
		}), names))
}
