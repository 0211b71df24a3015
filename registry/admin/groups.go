// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"

	"kontor/registry"
	"kontor/registry/id"
)

// Group is a global group.
type Group struct {
	Code        string      `json:"code" example:"ministries"`
	Description string      `json:"description"`
	Members     []id.Client `json:"members" doc:"Members and subsystems"`
}

// NewGroup is the body that adds a global group.
type NewGroup struct {
	Code        string `json:"code" example:"ministries"`
	Description string `json:"description"`
}

// Groups is a list of global groups.
type Groups struct {
	Groups []Group `json:"global_groups"`
}

func groupOf(g registry.Group) Group {
	return Group{g.Code, g.Description, append([]id.Client{}, g.Members...)}
}

func groups(st *registry.State) named[registry.Group, Group] {
	return named[registry.Group, Group]{"global group", st.Groups(), func(g registry.Group) string { return g.Code }, groupOf}
}

// GroupPath names a global group.
type GroupPath struct {
	Group string `path:"group" doc:"Code"`
}

func (a *API) registerGroups() {
	officer := []string{RegistrationOfficer}
	const path = "/global-groups/{group}"
	read(a, operation{id: "list-global-groups", path: "/global-groups", summary: "List global groups"},
		func(_ *struct{}, st *registry.State) (Groups, error) { return Groups{groups(st).views()}, nil })
	read(a, operation{id: "show-global-group", path: path, summary: "Show a global group"},
		func(in *GroupPath, st *registry.State) (Group, error) { return groups(st).show(in.Group) })
	type add struct {
		ChangeTerms
		Body NewGroup
	}
	change(a, operation{id: "add-global-group", method: http.MethodPost, path: "/global-groups", summary: "Add a global group", status: http.StatusCreated, roles: officer},
		func(in *add, st *registry.State) ([]registry.Change, error) {
			if err := groups(st).absent(in.Body.Code); err != nil {
				return nil, err
			}
			return []registry.Change{&registry.SetGroup{Code: in.Body.Code, Description: in.Body.Description}}, nil
		})
	type set struct {
		GroupPath
		ChangeTerms
		Body Description
	}
	change(a, operation{id: "change-global-group", method: http.MethodPatch, path: path, summary: "Change the description of a global group", roles: officer},
		func(in *set, st *registry.State) ([]registry.Change, error) {
			g, err := groups(st).find(in.Group)
			if err != nil || g.Description == in.Body.Description {
				return nil, err
			}
			return []registry.Change{&registry.SetGroup{Code: in.Group, Description: in.Body.Description}}, nil
		})
	type remove struct {
		GroupPath
		ChangeTerms
	}
	change(a, operation{id: "delete-global-group", method: http.MethodDelete, path: path, summary: "Delete a global group", roles: officer,
		description: "Access rights that security servers gave to the group lose their effect."},
		func(in *remove, _ *registry.State) ([]registry.Change, error) {
			return []registry.Change{&registry.DeleteGroup{Code: in.Group}}, nil
		})
	type addMember struct {
		GroupPath
		ChangeTerms
		Body ClientBody
	}
	change(a, operation{id: "add-group-member", method: http.MethodPost, path: path + "/members", summary: "Put a member or subsystem into a global group", status: http.StatusCreated, roles: officer},
		func(in *addMember, _ *registry.State) ([]registry.Change, error) {
			return []registry.Change{&registry.AddGroupMember{Group: in.Group, Client: in.Body.Client}}, nil
		})
	type removeMember struct {
		GroupPath
		Client id.Client `path:"client" doc:"Identifier, its slashes percent-encoded"`
		ChangeTerms
	}
	change(a, operation{id: "delete-group-member", method: http.MethodDelete, path: path + "/members/{client}", summary: "Take a member or subsystem out of a global group", roles: officer},
		func(in *removeMember, _ *registry.State) ([]registry.Change, error) {
			return []registry.Change{&registry.RemoveGroupMember{Group: in.Group, Client: in.Client}}, nil
		})
}
