// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"kontor/registry/admin"
	"kontor/registry/id"
)

const (
	memberForm    = "a member (INSTANCE/CLASS/CODE)"
	subsystemForm = "a subsystem (INSTANCE/CLASS/CODE/SUBSYSTEM)"
	clientForm    = "a member or subsystem (INSTANCE/CLASS/CODE[/SUBSYSTEM])"
)

var (
	completeClasses = completion(func(c *cobra.Command, api *admin.Client) ([]admin.MemberClass, error) {
		return api.MemberClasses(c.Context())
	},
		func(m admin.MemberClass) string { return m.Code + "\t" + m.Description })
	completeMembers = completion(func(c *cobra.Command, api *admin.Client) ([]admin.Member, error) {
		return api.Members(c.Context(), "", "")
	},
		func(m admin.Member) string { return m.ID.String() + "\t" + m.Name })
	completeSubsystems = completion(func(c *cobra.Command, api *admin.Client) ([]admin.Subsystem, error) {
		return api.Subsystems(c.Context(), "")
	},
		func(s admin.Subsystem) string { return s.ID.String() + "\t" + s.Name })
)

func newMemberClass() *cobra.Command {
	a := new(registryAPI)
	head, cells := []string{"CODE", "DESCRIPTION"}, func(m admin.MemberClass) []string { return []string{m.Code, m.Description} }
	return group("member-class", "Classes of members, in the registry",
		a.command("list", "List member classes", "  kontor member-class list", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
			all, err := api.MemberClasses(c.Context())
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), a.output, all, head, cells)
		}),
		a.complete(a.command("show CODE", "Show a member class", "  kontor member-class show GOV", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
			m, _, err := api.MemberClass(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(c, m, [2]string{"Code", m.Code}, [2]string{"Description", m.Description})
		}), completeClasses),
		a.change("add CODE DESCRIPTION", "Add a member class", "  kontor member-class add GOV Government", cobra.ExactArgs(2), func(c *cobra.Command, api *admin.Client, args []string) error {
			d, err := api.AddMemberClass(c.Context(), a.terms(""), admin.MemberClass{Code: args[0], Description: args[1]})
			return a.done(c, d, err)
		}),
		a.complete(a.change("change CODE DESCRIPTION", "Change the description of a member class", `  kontor member-class change GOV "Government and agencies"`, cobra.ExactArgs(2),
			func(c *cobra.Command, api *admin.Client, args []string) error {
				d, err := api.ChangeMemberClass(c.Context(), a.terms(""), args[0], args[1])
				return a.done(c, d, err)
			}), completeClasses),
		a.complete(a.remove("delete CODE", "Delete a member class without members", "  kontor member-class delete NGO", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
			m, etag, err := api.MemberClass(c.Context(), args[0])
			if err != nil {
				return err
			}
			if err := a.confirm(c, "Delete member class %s (%s)", m.Code, m.Description); err != nil {
				return err
			}
			d, err := api.DeleteMemberClass(c.Context(), a.terms(etag), args[0])
			return a.done(c, d, err)
		}), completeClasses))
}

func newMember() *cobra.Command {
	a := new(registryAPI)
	var class, search string
	list := a.command("list", "List members", "  kontor member list --class GOV --search agency", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
		all, err := api.Members(c.Context(), class, search)
		if err != nil {
			return err
		}
		return printList(c.OutOrStdout(), a.output, all, []string{"MEMBER", "NAME", "SUBSYSTEMS"}, func(m admin.Member) []string {
			return []string{m.ID.String(), m.Name, strconv.Itoa(len(m.Subsystems))}
		})
	})
	list.Flags().StringVar(&class, "class", "", "only members of this class")
	list.Flags().StringVar(&search, "search", "", "only members with this in their identifier or name")
	return group("member", "Organisations of the ecosystem, in the registry", list,
		a.complete(a.command("show MEMBER", "Show a member with its subsystems", "  kontor member show DEV/GOV/1001", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
			key, err := ours(c, api, id.ParseMember, args[0], memberForm)
			if err != nil {
				return err
			}
			m, _, err := api.Member(c.Context(), key)
			if err != nil {
				return err
			}
			lines := [][2]string{{"Member", m.ID.String()}, {"Name", m.Name}}
			for _, s := range m.Subsystems {
				lines = append(lines, [2]string{"Subsystem", withName(s.ID.String(), s.Name)})
			}
			return a.show(c, m, lines...)
		}), completeMembers),
		a.change("add MEMBER NAME", "Admit a member", `  kontor member add DEV/GOV/1001 "Example Agency" --why "decision 2026-17"`, cobra.ExactArgs(2), func(c *cobra.Command, api *admin.Client, args []string) error {
			key, err := ours(c, api, id.ParseMember, args[0], memberForm)
			if err != nil {
				return err
			}
			d, err := api.AddMember(c.Context(), a.terms(""), key, args[1])
			return a.done(c, d, err)
		}),
		a.complete(a.change("change MEMBER NAME", "Change a member's name", `  kontor member change DEV/GOV/1001 "Agency of Examples"`, cobra.ExactArgs(2), func(c *cobra.Command, api *admin.Client, args []string) error {
			key, err := ours(c, api, id.ParseMember, args[0], memberForm)
			if err != nil {
				return err
			}
			d, err := api.RenameMember(c.Context(), a.terms(""), key, args[1])
			return a.done(c, d, err)
		}), completeMembers),
		a.complete(a.remove("delete MEMBER", "Delete a member that nothing refers to", "  kontor member delete DEV/GOV/1001", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
			key, err := ours(c, api, id.ParseMember, args[0], memberForm)
			if err != nil {
				return err
			}
			m, etag, err := api.Member(c.Context(), key)
			if err != nil {
				return err
			}
			if err := a.confirm(c, "Delete member %s", withName(args[0], m.Name)); err != nil {
				return err
			}
			d, err := api.DeleteMember(c.Context(), a.terms(etag), key)
			return a.done(c, d, err)
		}), completeMembers))
}

func withName(id, name string) string {
	if name == "" {
		return id
	}
	return id + " (" + name + ")"
}

func newSubsystem() *cobra.Command {
	a := new(registryAPI)
	var search, name string
	list := a.command("list", "List subsystems", "  kontor subsystem list --search DEV/GOV/1001/", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
		all, err := api.Subsystems(c.Context(), search)
		if err != nil {
			return err
		}
		return printList(c.OutOrStdout(), a.output, all, []string{"SUBSYSTEM", "NAME"}, func(s admin.Subsystem) []string { return []string{s.ID.String(), s.Name} })
	})
	list.Flags().StringVar(&search, "search", "", "only subsystems with this in their identifier or name")
	add := a.change("add SUBSYSTEM", "Add a subsystem to a member", `  kontor subsystem add DEV/GOV/1001/portal --name "Citizens' portal"`, cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
		key, err := ours(c, api, id.ParseClient, args[0], subsystemForm)
		if err != nil {
			return err
		}
		if key.IsMember() {
			return usageError{fmt.Errorf("%q is a member, not %s", args[0], subsystemForm)}
		}
		d, err := api.AddSubsystem(c.Context(), a.terms(""), key, name)
		return a.done(c, d, err)
	})
	add.Flags().StringVar(&name, "name", "", "name for people")
	return group("subsystem", "Parts of members that exchange messages, in the registry", list, add,
		a.complete(a.command("show SUBSYSTEM", "Show a subsystem", "  kontor subsystem show DEV/GOV/1001/portal", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
			key, err := ours(c, api, id.ParseClient, args[0], subsystemForm)
			if err != nil {
				return err
			}
			s, _, err := api.Subsystem(c.Context(), key)
			if err != nil {
				return err
			}
			return a.show(c, s, [2]string{"Subsystem", s.ID.String()}, [2]string{"Name", s.Name})
		}), completeSubsystems),
		a.complete(a.change("change SUBSYSTEM NAME", "Change a subsystem's name", `  kontor subsystem change DEV/GOV/1001/portal "Portal for citizens"`, cobra.ExactArgs(2), func(c *cobra.Command, api *admin.Client, args []string) error {
			key, err := ours(c, api, id.ParseClient, args[0], subsystemForm)
			if err != nil {
				return err
			}
			d, err := api.RenameSubsystem(c.Context(), a.terms(""), key, args[1])
			return a.done(c, d, err)
		}), completeSubsystems),
		a.complete(a.remove("delete SUBSYSTEM", "Delete a subsystem that nothing refers to", "  kontor subsystem delete DEV/GOV/1001/portal", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
			key, err := ours(c, api, id.ParseClient, args[0], subsystemForm)
			if err != nil {
				return err
			}
			s, etag, err := api.Subsystem(c.Context(), key)
			if err != nil {
				return err
			}
			if err := a.confirm(c, "Delete subsystem %s", withName(args[0], s.Name)); err != nil {
				return err
			}
			d, err := api.DeleteSubsystem(c.Context(), a.terms(etag), key)
			return a.done(c, d, err)
		}), completeSubsystems))
}

func newGroup() *cobra.Command {
	a := new(registryAPI)
	complete := completion(func(c *cobra.Command, api *admin.Client) ([]admin.Group, error) { return api.Groups(c.Context()) },
		func(g admin.Group) string { return g.Code + "\t" + g.Description })
	member := func(use, short, example string, do func(*cobra.Command, *admin.Client, string, id.Client) (*admin.Done, error)) *cobra.Command {
		return a.complete(a.change(use, short, example, cobra.ExactArgs(2), func(c *cobra.Command, api *admin.Client, args []string) error {
			key, err := parsed(id.ParseClient, args[1], clientForm)
			if err != nil {
				return err
			}
			d, err := do(c, api, args[0], key)
			return a.done(c, d, err)
		}), complete, completeSubsystems)
	}
	return group("group", "Global groups, for access rights, in the registry",
		a.command("list", "List global groups", "  kontor group list", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
			all, err := api.Groups(c.Context())
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), a.output, all, []string{"GROUP", "DESCRIPTION", "MEMBERS"}, func(g admin.Group) []string {
				return []string{g.Code, g.Description, strconv.Itoa(len(g.Members))}
			})
		}),
		a.complete(a.command("show GROUP", "Show a global group with its members", "  kontor group show ministries", cobra.ExactArgs(1), func(c *cobra.Command, api *admin.Client, args []string) error {
			g, _, err := api.Group(c.Context(), args[0])
			if err != nil {
				return err
			}
			lines := [][2]string{{"Group", g.Code}, {"Description", g.Description}}
			for _, m := range g.Members {
				lines = append(lines, [2]string{"Member", m.String()})
			}
			return a.show(c, g, lines...)
		}), complete),
		a.change("add GROUP DESCRIPTION", "Add a global group", `  kontor group add ministries "All ministries"`, cobra.ExactArgs(2), func(c *cobra.Command, api *admin.Client, args []string) error {
			d, err := api.AddGroup(c.Context(), a.terms(""), args[0], args[1])
			return a.done(c, d, err)
		}),
		a.complete(a.change("change GROUP DESCRIPTION", "Change the description of a global group", `  kontor group change ministries "Ministries and chancellery"`, cobra.ExactArgs(2),
			func(c *cobra.Command, api *admin.Client, args []string) error {
				d, err := api.ChangeGroup(c.Context(), a.terms(""), args[0], args[1])
				return a.done(c, d, err)
			}), complete),
		a.complete(a.remove("delete GROUP", "Delete a global group; access rights given to it lose their effect", "  kontor group delete ministries", cobra.ExactArgs(1),
			func(c *cobra.Command, api *admin.Client, args []string) error {
				g, etag, err := api.Group(c.Context(), args[0])
				if err != nil {
					return err
				}
				if err := a.confirm(c, "Delete global group %s with %d members", withName(g.Code, g.Description), len(g.Members)); err != nil {
					return err
				}
				d, err := api.DeleteGroup(c.Context(), a.terms(etag), args[0])
				return a.done(c, d, err)
			}), complete),
		group("member", "Who is in a global group",
			member("add GROUP CLIENT", "Put a member or subsystem into a global group", "  kontor group member add ministries DEV/GOV/1001/portal",
				func(c *cobra.Command, api *admin.Client, code string, key id.Client) (*admin.Done, error) {
					return api.AddGroupMember(c.Context(), a.terms(""), code, key)
				}),
			member("delete GROUP CLIENT", "Take a member or subsystem out of a global group", "  kontor group member delete ministries DEV/GOV/1001/portal",
				func(c *cobra.Command, api *admin.Client, code string, key id.Client) (*admin.Done, error) {
					return api.DeleteGroupMember(c.Context(), a.terms(""), code, key)
				})))
}
