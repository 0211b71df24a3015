// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"net/http"
	"slices"

	"kontor/gateway/serverconf"
	"kontor/registry/guard"
	"kontor/registry/id"
)

// Group is a local group of a client.
type Group struct {
	Client      string   `json:"client"`
	Code        string   `json:"code"`
	Description string   `json:"description,omitempty"`
	Members     []string `json:"members"`
}

// NewGroup adds a local group.
type NewGroup struct {
	Code        string   `json:"code" maxLength:"255"`
	Description string   `json:"description,omitempty" maxLength:"1000"`
	Members     []string `json:"members,omitempty" maxItems:"10000"`
}

// Members are clients that join a local group.
type Members struct {
	Members []string `json:"members" minItems:"1" maxItems:"10000"`
}

func (a *API) registerGroups() {
	who := []string{RoleServiceAdministrator}
	register(a, operation{id: "list-groups", method: http.MethodGet, path: "/clients/{client}/groups", summary: "List the local groups of a client", roles: readers()}, a.listGroups)
	register(a, operation{id: "get-group", method: http.MethodGet, path: "/clients/{client}/groups/{group}", summary: "Show a local group", roles: readers()}, a.getGroup)
	register(a, operation{id: "add-group", method: http.MethodPost, path: "/clients/{client}/groups", summary: "Add a local group", status: http.StatusCreated, roles: who}, a.addGroup)
	register(a, operation{id: "delete-group", method: http.MethodDelete, path: "/clients/{client}/groups/{group}", summary: "Delete a local group",
		description: "Refused while it has access rights.", roles: who}, a.deleteGroup)
	register(a, operation{id: "add-group-members", method: http.MethodPost, path: "/clients/{client}/groups/{group}/members", summary: "Add clients to a local group", roles: who}, a.addMembers)
	register(a, operation{id: "delete-group-member", method: http.MethodDelete, path: "/clients/{client}/groups/{group}/members/{member}",
		summary: "Take a client from a local group", roles: who}, a.deleteMember)
}

type GroupPath struct {
	ClientPath
	Group string `path:"group" maxLength:"1024" doc:"Its code"`
}

func group(client id.Client, code, description string, members []id.Client) Group {
	g := Group{client.String(), code, description, []string{}}
	for _, m := range members {
		g.Members = append(g.Members, m.String())
	}
	return g
}

func (a *API) listGroups(_ context.Context, in *ClientPath) (*list[Group], error) {
	c, err := a.client(*in)
	if err != nil {
		return nil, err
	}
	var all []Group
	for _, g := range c.Groups {
		all = append(all, group(c.ID, g.Code, g.Description, g.Members))
	}
	return answerList(all), nil
}

func (a *API) getGroup(_ context.Context, in *GroupPath) (*item[Group], error) {
	return a.showGroup(in.ClientPath, in.Group)
}

func (a *API) showGroup(path ClientPath, code string) (*item[Group], error) {
	c, err := a.client(path)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(c.Groups, func(g *serverconf.Group) bool { return g.Code == code })
	if i < 0 {
		return nil, noGroup(c.ID, code)
	}
	g := group(c.ID, c.Groups[i].Code, c.Groups[i].Description, c.Groups[i].Members)
	return answer(etag(g), g), nil
}

func noGroup(c id.Client, code string) error {
	return problem(http.StatusNotFound, guard.CodeUnknown, "list them (kontor client group list)", "client %s has no local group %q", c, code)
}

func parseMembers(texts []string) ([]id.Client, error) {
	var members []id.Client
	for _, t := range texts {
		c, err := id.ParseClient(slashes(t))
		if err != nil {
			return nil, invalid("give members as instance/class/member/subsystem", "%v", err)
		}
		if !slices.Contains(members, c) {
			members = append(members, c)
		}
	}
	return members, nil
}

func (a *API) addGroup(ctx context.Context, in *struct {
	ClientPath
	Body NewGroup
}) (*item[Group], error) {
	if err := id.CheckCharacters(in.Body.Code); err != nil {
		return nil, invalid("use other characters", "code: %v", err)
	}
	members, err := parseMembers(in.Body.Members)
	if err != nil {
		return nil, err
	}
	err = a.inClient(in.ClientPath, func(e *serverconf.ClientEntry) error {
		if slices.ContainsFunc(e.Groups, func(g serverconf.GroupEntry) bool { return g.Code == in.Body.Code }) {
			return exists("add members to it (kontor client group add-member)", "client %s has a local group %q already", e.ID, in.Body.Code)
		}
		e.Groups = append(e.Groups, serverconf.GroupEntry{Code: in.Body.Code, Description: in.Body.Description, Members: members})
		note(ctx, "client %s: add local group %q with %v", e.ID, in.Body.Code, members)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.showGroup(in.ClientPath, in.Body.Code)
}

// inGroup changes one local group, which must be there.
func (a *API) inGroup(path GroupPath, change func(*serverconf.ClientEntry, *serverconf.GroupEntry) error) error {
	return a.inClient(path.ClientPath, func(e *serverconf.ClientEntry) error {
		i := slices.IndexFunc(e.Groups, func(g serverconf.GroupEntry) bool { return g.Code == path.Group })
		if i < 0 {
			return noGroup(e.ID, path.Group)
		}
		return change(e, &e.Groups[i])
	})
}

func groupTag(e *serverconf.ClientEntry, g *serverconf.GroupEntry) string {
	return etag(group(e.ID, g.Code, g.Description, g.Members))
}

func (a *API) deleteGroup(ctx context.Context, in *struct {
	GroupPath
	Seen
}) (*struct{}, error) {
	return nil, a.inGroup(in.GroupPath, func(e *serverconf.ClientEntry, g *serverconf.GroupEntry) error {
		if err := in.check(groupTag(e, g)); err != nil {
			return err
		}
		for _, r := range e.Access {
			if r.Group == g.Code {
				return inUse("revoke its rights first (kontor access list)", "the local group %q may call service %s", g.Code, r.Service)
			}
		}
		note(ctx, "client %s: delete local group %q of %v", e.ID, g.Code, g.Members)
		e.Groups = slices.DeleteFunc(e.Groups, func(v serverconf.GroupEntry) bool { return v.Code == in.Group })
		return nil
	})
}

func (a *API) addMembers(ctx context.Context, in *struct {
	GroupPath
	Seen
	Body Members
}) (*item[Group], error) {
	members, err := parseMembers(in.Body.Members)
	if err != nil {
		return nil, err
	}
	err = a.inGroup(in.GroupPath, func(e *serverconf.ClientEntry, g *serverconf.GroupEntry) error {
		if err := in.checkIfGiven(groupTag(e, g)); err != nil {
			return err
		}
		for _, m := range members {
			if !slices.Contains(g.Members, m) {
				g.Members = append(g.Members, m)
				note(ctx, "client %s: add %s to local group %q", e.ID, m, g.Code)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.showGroup(in.ClientPath, in.Group)
}

func (a *API) deleteMember(ctx context.Context, in *struct {
	GroupPath
	Member string `path:"member" maxLength:"1024" doc:"Its identifier, parts separated by colons"`
	Seen
}) (*struct{}, error) {
	m, err := parseClientPath(in.Member)
	if err != nil {
		return nil, err
	}
	return nil, a.inGroup(in.GroupPath, func(e *serverconf.ClientEntry, g *serverconf.GroupEntry) error {
		if err := in.check(groupTag(e, g)); err != nil {
			return err
		}
		if !slices.Contains(g.Members, m) {
			return problem(http.StatusNotFound, guard.CodeUnknown, "see kontor client group show", "%s is not in the local group %q", m, g.Code)
		}
		g.Members = slices.DeleteFunc(g.Members, func(v id.Client) bool { return v == m })
		note(ctx, "client %s: take %s from local group %q", e.ID, m, g.Code)
		return nil
	})
}
