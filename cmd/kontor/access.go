// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kontor/gateway/admin"
	"kontor/registry/guard"
)

func newAccess() *cobra.Command {
	var gw gatewayFlags
	var output, client, subject string
	list := &cobra.Command{
		Use: "list [SERVICE]", Short: "List access rights",
		Example: "  kontor access list --subject DEV/GOV/1234/portal", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			owner, code := client, ""
			if len(a) > 0 {
				var err error
				if owner, code, err = serviceCode(a[0]); err != nil {
					return err
				}
			}
			api, err := gw.client()
			if err != nil {
				return err
			}
			rights, err := api.Access(c.Context(), owner, code, subject)
			if err != nil {
				return err
			}
			return printRights(c, output, rights)
		},
	}
	list.Flags().StringVar(&client, "client", "", "only rights to services of this client")
	list.Flags().StringVar(&subject, "subject", "", "only rights of this client, local group or global group")

	var n admin.NewRight
	var expires, local, global string
	var all bool
	grant := &cobra.Command{
		Use: "grant SERVICE [CLIENT]", Short: "Grant access to a service, or to a part of it",
		Long: `Grant access to a service for a client, a local group of the service's client or
a global group. A right covers all versions of a service. In a path * is any run
without /, ** any run at all.`,
		Example: "  kontor access grant DEV/GOV/2002/population/persons DEV/GOV/1234/portal --method GET --path '/*' --expires 2027-12-31 --note 'agreement 17'\n" +
			"  kontor access grant DEV/GOV/2002/population/persons --group partners\n" +
			"  kontor access grant DEV/GOV/1001/MANAGEMENT/clientReg --global-group DEV/security-server-owners --all",
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, a []string) error {
			owner, code, err := serviceCode(a[0])
			if err != nil {
				return err
			}
			n.Service = code
			n.SubjectType, n.Subject, err = subjectOf(a[1:], local, global)
			if err != nil {
				return err
			}
			if n.Expires, err = parseExpiry(expires); err != nil {
				return err
			}
			api, err := gw.client()
			if err != nil {
				return err
			}
			if !all {
				r, err := api.Grant(c.Context(), owner, n)
				if err != nil {
					return err
				}
				return printOne(c.OutOrStdout(), output, r, rightLines)
			}
			_, d, _, err := gw.description(c, a[0])
			if err != nil {
				return err
			}
			rights, err := grantAll(c.Context(), api, d, n)
			if err != nil {
				return err
			}
			return printRights(c, output, rights)
		},
	}
	f := grant.Flags()
	f.StringVar(&local, "group", "", "local group of the service's client, instead of a client")
	f.StringVar(&global, "global-group", "", "global group, as instance/code, instead of a client")
	f.StringVar(&n.Method, "method", "", "only this HTTP method")
	f.StringVar(&n.Path, "path", "", "only paths of this pattern")
	f.StringVar(&n.Note, "note", "", "such as the agreement it rests on")
	f.BoolVar(&all, "all", false, "to all services that share the description of this one")

	// owner finds the client that has granted a right.
	owner := func(ctx context.Context, api *admin.Client, right string) (string, error) {
		rights, err := api.Access(ctx, "", "", "")
		if err != nil {
			return "", err
		}
		i := slices.IndexFunc(rights, func(r admin.Right) bool { return r.ID == right })
		if i < 0 {
			return "", fmt.Errorf("there is no right %q; list them: kontor access list", right)
		}
		return rights[i].Client, nil
	}
	var never bool
	var note string
	change := &cobra.Command{
		Use: "change RIGHT", Short: "Change the expiry or the note of a right",
		Example: "  kontor access change 4be1c02a9d3f --expires 2028-12-31", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			n := admin.RightChange{Never: never}
			if c.Flags().Changed("note") {
				n.Note = &note
			}
			if expires != "" {
				at, err := parseExpiry(expires)
				if err != nil {
					return err
				}
				n.Expires = &at
			}
			if n == (admin.RightChange{}) {
				return usageError{fmt.Errorf("nothing to change; give --expires, --never or --note")}
			}
			api, err := gw.client()
			if err != nil {
				return err
			}
			client, err := owner(c.Context(), api, a[0])
			if err != nil {
				return err
			}
			_, etag, err := api.Right(c.Context(), client, a[0])
			if err != nil {
				return err
			}
			r, err := api.ChangeRight(c.Context(), client, a[0], etag, n)
			if err != nil {
				return err
			}
			return printOne(c.OutOrStdout(), output, r, rightLines)
		},
	}
	change.Flags().BoolVar(&never, "never", false, "it does not expire any more")
	change.Flags().StringVar(&note, "note", "", "such as the agreement it rests on")
	for _, c := range []*cobra.Command{grant, change} {
		c.Flags().StringVar(&expires, "expires", "", "when it ends: 2027-12-31 (the end of that day), an RFC 3339 time, or a duration from now such as 720h")
	}
	change.MarkFlagsMutuallyExclusive("never", "expires")

	var yes bool
	revoke := &cobra.Command{
		Use: "revoke RIGHT", Short: "Revoke a right", Example: "  kontor access revoke 4be1c02a9d3f", Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			api, err := gw.client()
			if err != nil {
				return err
			}
			client, err := owner(c.Context(), api, a[0])
			if err != nil {
				return err
			}
			r, etag, err := api.Right(c.Context(), client, a[0])
			if err != nil {
				return err
			}
			if err := confirm(c, yes, "Revoke the access of %s to %s/%s %s %s", who(r), r.Client, r.Service, r.Method, r.Path); err != nil {
				return err
			}
			if err := api.Revoke(c.Context(), client, r.ID, etag); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "Revoked the access of %s to %s/%s.\n", who(r), r.Client, r.Service)
			return nil
		},
	}
	yesFlag(revoke, &yes)

	test := &cobra.Command{
		Use: "test CLIENT SERVICE [METHOD [PATH]]", Short: "Explain which right decides a call; nothing is sent",
		Long: `Explain whether a call would be allowed, by which right, and what else stands in
its way. The exit status is 0 if the call would work, else 1.`,
		Example: "  kontor access test DEV/GOV/1234/portal DEV/GOV/2002/population/persons GET /38001010001", Args: args(cobra.RangeArgs(2, 4)),
		RunE: func(c *cobra.Command, a []string) error {
			a = append(a, "", "")
			api, err := gw.client()
			if err != nil {
				return err
			}
			x, err := api.TestAccess(c.Context(), a[0], a[1], a[2], a[3])
			if err != nil {
				return err
			}
			if err := printExplanation(c, output, x); err != nil {
				return err
			}
			if !x.Works {
				return errReported
			}
			return nil
		},
	}
	commands := []*cobra.Command{list, grant, change, revoke, test}
	for _, c := range commands {
		gw.flags(c)
		if c != revoke {
			outputFlag(c, &output)
		}
	}
	gw.suggest(list, suggestServices)
	gw.suggest(grant, suggestServices)
	gw.suggest(change, suggestRights)
	gw.suggest(revoke, suggestRights)
	gw.suggest(test, func(context.Context, *admin.Client) []string { return nil }, suggestServices)
	return group("access", "Who may call the services of a gateway", commands...)
}

// grantAll grants access to each service of a description. Rights that there are
// already are no failure, so that it may be repeated.
func grantAll(ctx context.Context, api *admin.Client, d admin.Description, n admin.NewRight) ([]admin.Right, error) {
	var rights []admin.Right
	done := map[string]bool{}
	for _, s := range d.Services {
		if n.Service, _, _ = strings.Cut(s.Name, "/"); done[n.Service] {
			continue // another version
		}
		done[n.Service] = true
		r, err := api.Grant(ctx, d.Client, n)
		var problem *guard.Problem
		if errors.As(err, &problem) && problem.Code == guard.CodeExists {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", s.Name, err)
		}
		rights = append(rights, r)
	}
	return rights, nil
}

func printRights(c *cobra.Command, output string, rights []admin.Right) error {
	return printList(c.OutOrStdout(), output, rights, []string{"RIGHT", "SERVICE", "WHO", "METHOD", "PATH", "EXPIRES", "NOTE", "PROBLEM"}, func(r admin.Right) []string {
		return []string{r.ID, r.Client + "/" + r.Service, who(r), r.Method, r.Path, orNever(r.Expires), r.Note, r.Problem}
	})
}

// serviceCode cuts a service into its client and its code, for rights are to all
// versions.
func serviceCode(s string) (client, code string, err error) {
	client, name, err := splitService(s)
	code, _, _ = strings.Cut(name, "/")
	return client, code, err
}

func subjectOf(clients []string, local, global string) (kind, subject string, err error) {
	given := 0
	for _, s := range []struct {
		is         bool
		kind, text string
	}{{len(clients) > 0, admin.SubjectClient, strings.Join(clients, "")}, {local != "", admin.SubjectLocalGroup, local}, {global != "", admin.SubjectGlobalGroup, global}} {
		if s.is {
			given++
			kind, subject = s.kind, s.text
		}
	}
	if given != 1 {
		return "", "", usageError{fmt.Errorf("give one of: a client, --group, --global-group")}
	}
	return kind, subject, nil
}

// parseExpiry reads when a right ends. A date means the end of that day.
func parseExpiry(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(d).Truncate(time.Second), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return t.AddDate(0, 0, 1), nil
	}
	return time.Time{}, usageError{fmt.Errorf("--expires: %q is no time; use 2027-12-31, 2027-12-31T12:00:00Z or a duration such as 720h", s)}
}

func orNever(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return date(t)
}

func who(r admin.Right) string {
	switch r.SubjectType {
	case admin.SubjectLocalGroup:
		return "local group " + r.Subject
	case admin.SubjectGlobalGroup:
		return "global group " + r.Subject
	}
	return r.Subject
}

func rightLines(r admin.Right) [][2]string {
	return [][2]string{
		{"Right", r.ID}, {"Service", r.Client + "/" + r.Service}, {"Who", who(r)}, {"Method", r.Method}, {"Path", r.Path},
		{"Expires", orNever(r.Expires)}, {"Note", r.Note}, {"Problem", r.Problem},
	}
}

func printExplanation(c *cobra.Command, output string, x admin.Explanation) error {
	w := c.OutOrStdout()
	err := printOne(w, output, x, func(x admin.Explanation) [][2]string {
		verdict := map[bool]string{true: "allowed", false: "refused"}[x.Allowed]
		if x.Allowed && !x.Works {
			verdict = "allowed, but it would not work"
		}
		lines := [][2]string{{"Call", strings.TrimSpace(x.Client + " → " + x.Service + " " + x.Method + " " + x.Path)}, {"Verdict", verdict}, {"Why", x.Reason}}
		for _, p := range x.Problems {
			lines = append(lines, [2]string{"Problem", p})
		}
		return lines
	})
	if err != nil || output == "json" || len(x.Rules) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return printList(w, output, x.Rules, []string{"RIGHT", "WHO", "METHOD", "PATH", "EXPIRES", "MEANS"}, func(r admin.Rule) []string {
		means := "does not apply: " + r.Reason
		switch {
		case r.Decides:
			means = "allows, and decides"
		case r.Allows:
			means = "allows, too"
		}
		return []string{r.Right.ID, who(r.Right), r.Right.Method, r.Right.Path, orNever(r.Right.Expires), means}
	})
}
