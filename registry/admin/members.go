// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"net/http"
	"strings"

	"kontor/registry"
	"kontor/registry/id"
)

// MemberClass is a class of members.
type MemberClass struct {
	Code        string `json:"code" example:"GOV"`
	Description string `json:"description" example:"Government"`
}

// Member is a member with its subsystems.
type Member struct {
	ID         id.Member   `json:"id" example:"DEV/GOV/1234"`
	Name       string      `json:"name" example:"Board of Examples"`
	Subsystems []Subsystem `json:"subsystems"`
}

// Subsystem is a subsystem; its name may be empty.
type Subsystem struct {
	ID   id.Client `json:"id" example:"DEV/GOV/1234/portal"`
	Name string    `json:"name"`
}

// Members is a page of members.
type Members struct {
	Members []Member `json:"members"`
	Total   int      `json:"total" doc:"How many there are on all pages"`
}

// Subsystems is a page of subsystems.
type Subsystems struct {
	Subsystems []Subsystem `json:"subsystems"`
	Total      int         `json:"total" doc:"How many there are on all pages"`
}

// Page selects a part of a list.
type Page struct {
	Query  string `query:"q" maxLength:"255" doc:"Only what has this text in its identifier or name, in any case"`
	Offset int    `query:"offset" minimum:"0" doc:"Leave out so many"`
	Limit  int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"At most so many"`
}

// cut returns the page of a list, never nil.
func cut[T any](p Page, all []T) []T {
	from := min(p.Offset, len(all))
	return append([]T{}, all[from:min(from+cmp.Or(p.Limit, 1000), len(all))]...)
}

func (p Page) matches(texts ...string) bool {
	if p.Query == "" {
		return true
	}
	q := strings.ToLower(p.Query)
	for _, t := range texts {
		if strings.Contains(strings.ToLower(t), q) {
			return true
		}
	}
	return false
}

// MemberPath names a member of the registry's instance.
type MemberPath struct {
	Class string `path:"class" doc:"Member class"`
	Code  string `path:"code" doc:"Member code"`
}

func (p MemberPath) id(st *registry.State) (id.Member, error) {
	m, err := id.NewMember(st.Instance(), p.Class, p.Code)
	if err != nil {
		return m, invalid(err)
	}
	return m, nil
}

// SubsystemPath names a subsystem.
type SubsystemPath struct {
	MemberPath
	Subsystem string `path:"subsystem" doc:"Subsystem code"`
}

func (p SubsystemPath) id(st *registry.State) (id.Client, error) {
	m, err := p.MemberPath.id(st)
	if err != nil {
		return id.Client{}, err
	}
	c, err := id.NewClient(m, p.Subsystem)
	if err != nil {
		return c, invalid(err)
	}
	return c, nil
}

// Name is the body of what changes a name.
type Name struct {
	Name string `json:"name" maxLength:"255"`
}

// NewMember is the body that adds a member.
type NewMember struct {
	Class string `json:"class" example:"GOV" doc:"Member class"`
	Code  string `json:"code" example:"1234" doc:"Member code"`
	Name  string `json:"name" example:"Board of Examples"`
}

// NewSubsystem is the body that adds a subsystem.
type NewSubsystem struct {
	Code string `json:"code" example:"portal" doc:"Subsystem code"`
	Name string `json:"name,omitempty"`
}

// Description is the body of what changes a description.
type Description struct {
	Description string `json:"description" maxLength:"255"`
}

func memberOf(m registry.Member) Member {
	out := Member{m.ID, m.Name, []Subsystem{}}
	for _, s := range m.Subsystems {
		out.Subsystems = append(out.Subsystems, Subsystem(s))
	}
	return out
}

func (a *API) registerMembers() {
	a.registerClasses()
	officer := []string{RegistrationOfficer}

	type list struct {
		Page
		Class string `query:"class" doc:"Only members of this class"`
	}
	read(a, operation{id: "list-members", path: "/members", summary: "List members with their subsystems"}, func(in *list, st *registry.State) (Members, error) {
		var found []Member
		for _, m := range st.Members() {
			if (in.Class == "" || m.ID.Class() == in.Class) && in.matches(m.ID.String(), m.Name) {
				found = append(found, memberOf(m))
			}
		}
		return Members{cut(in.Page, found), len(found)}, nil
	})
	read(a, operation{id: "show-member", path: "/members/{class}/{code}", summary: "Show a member"}, func(in *MemberPath, st *registry.State) (Member, error) {
		key, err := in.id(st)
		if err != nil {
			return Member{}, err
		}
		m, ok := st.Member(key)
		if !ok {
			return Member{}, unknown("member %s", key)
		}
		return memberOf(m), nil
	})
	type add struct {
		ChangeTerms
		Body NewMember
	}
	change(a, operation{id: "add-member", method: http.MethodPost, path: "/members", summary: "Admit a member", status: http.StatusCreated, roles: officer},
		func(in *add, st *registry.State) ([]registry.Change, error) {
			m, err := MemberPath{in.Body.Class, in.Body.Code}.id(st)
			return []registry.Change{&registry.AddMember{Member: m, Name: in.Body.Name}}, err
		})
	type rename struct {
		MemberPath
		ChangeTerms
		Body Name
	}
	change(a, operation{id: "rename-member", method: http.MethodPatch, path: "/members/{class}/{code}", summary: "Change a member's name", roles: officer},
		func(in *rename, st *registry.State) ([]registry.Change, error) {
			key, err := in.id(st)
			if m, ok := st.Member(key); err != nil || ok && m.Name == in.Body.Name {
				return nil, err
			}
			return []registry.Change{&registry.RenameMember{Member: key, Name: in.Body.Name}}, nil
		})
	type remove struct {
		MemberPath
		ChangeTerms
	}
	change(a, operation{id: "delete-member", method: http.MethodDelete, path: "/members/{class}/{code}", summary: "Delete a member that nothing refers to", roles: officer},
		func(in *remove, st *registry.State) ([]registry.Change, error) {
			key, err := in.id(st)
			return []registry.Change{&registry.DeleteMember{Member: key}}, err
		})
	a.registerSubsystems(officer)
}

func (a *API) registerSubsystems(officer []string) {
	read(a, operation{id: "list-subsystems", path: "/subsystems", summary: "List the subsystems of all members"}, func(in *struct{ Page }, st *registry.State) (Subsystems, error) {
		var found []Subsystem
		for _, m := range st.Members() {
			for _, s := range m.Subsystems {
				if in.matches(s.ID.String(), s.Name) {
					found = append(found, Subsystem(s))
				}
			}
		}
		return Subsystems{cut(in.Page, found), len(found)}, nil
	})
	const path = "/members/{class}/{code}/subsystems"
	read(a, operation{id: "show-subsystem", path: path + "/{subsystem}", summary: "Show a subsystem"}, func(in *SubsystemPath, st *registry.State) (Subsystem, error) {
		key, err := in.id(st)
		if err != nil {
			return Subsystem{}, err
		}
		name, ok := subsystemName(st, key)
		if !ok {
			return Subsystem{}, unknown("subsystem %s", key)
		}
		return Subsystem{key, name}, nil
	})
	type add struct {
		MemberPath
		ChangeTerms
		Body NewSubsystem
	}
	change(a, operation{id: "add-subsystem", method: http.MethodPost, path: path, summary: "Add a subsystem to a member", status: http.StatusCreated, roles: officer},
		func(in *add, st *registry.State) ([]registry.Change, error) {
			key, err := SubsystemPath{in.MemberPath, in.Body.Code}.id(st)
			return []registry.Change{&registry.AddSubsystem{Subsystem: key, Name: in.Body.Name}}, err
		})
	type rename struct {
		SubsystemPath
		ChangeTerms
		Body Name
	}
	change(a, operation{id: "rename-subsystem", method: http.MethodPatch, path: path + "/{subsystem}", summary: "Change a subsystem's name", roles: officer},
		func(in *rename, st *registry.State) ([]registry.Change, error) {
			key, err := in.id(st)
			if name, ok := subsystemName(st, key); err != nil || ok && name == in.Body.Name {
				return nil, err
			}
			return []registry.Change{&registry.RenameSubsystem{Subsystem: key, Name: in.Body.Name}}, nil
		})
	type remove struct {
		SubsystemPath
		ChangeTerms
	}
	change(a, operation{id: "delete-subsystem", method: http.MethodDelete, path: path + "/{subsystem}", summary: "Delete a subsystem that nothing refers to", roles: officer},
		func(in *remove, st *registry.State) ([]registry.Change, error) {
			key, err := in.id(st)
			return []registry.Change{&registry.DeleteSubsystem{Subsystem: key}}, err
		})
}

func subsystemName(st *registry.State, key id.Client) (string, bool) {
	m, _ := st.Member(key.Member())
	for _, s := range m.Subsystems {
		if s.ID == key {
			return s.Name, true
		}
	}
	return "", false
}

// ClassPath names a member class.
type ClassPath struct {
	Code string `path:"code"`
}

func memberClasses(st *registry.State) named[registry.MemberClass, MemberClass] {
	return named[registry.MemberClass, MemberClass]{"member class", st.MemberClasses(), func(c registry.MemberClass) string { return c.Code },
		func(c registry.MemberClass) MemberClass { return MemberClass(c) }}
}

func (a *API) registerClasses() {
	administrator := []string{SystemAdministrator}
	const path = "/member-classes/{code}"
	read(a, operation{id: "list-member-classes", path: "/member-classes", summary: "List member classes"}, func(_ *struct{}, st *registry.State) (struct {
		MemberClasses []MemberClass `json:"member_classes"`
	}, error) {
		return struct {
			MemberClasses []MemberClass `json:"member_classes"`
		}{memberClasses(st).views()}, nil
	})
	read(a, operation{id: "show-member-class", path: path, summary: "Show a member class"},
		func(in *ClassPath, st *registry.State) (MemberClass, error) { return memberClasses(st).show(in.Code) })
	type add struct {
		ChangeTerms
		Body MemberClass
	}
	change(a, operation{id: "add-member-class", method: http.MethodPost, path: "/member-classes", summary: "Add a member class", status: http.StatusCreated, roles: administrator},
		func(in *add, st *registry.State) ([]registry.Change, error) {
			if err := memberClasses(st).absent(in.Body.Code); err != nil {
				return nil, err
			}
			return []registry.Change{&registry.SetMemberClass{Code: in.Body.Code, Description: in.Body.Description}}, nil
		})
	type set struct {
		ClassPath
		ChangeTerms
		Body Description
	}
	change(a, operation{id: "change-member-class", method: http.MethodPatch, path: path, summary: "Change the description of a member class", roles: administrator},
		func(in *set, st *registry.State) ([]registry.Change, error) {
			c, err := memberClasses(st).find(in.Code)
			if err != nil || c.Description == in.Body.Description {
				return nil, err
			}
			return []registry.Change{&registry.SetMemberClass{Code: in.Code, Description: in.Body.Description}}, nil
		})
	type remove struct {
		ClassPath
		ChangeTerms
	}
	change(a, operation{id: "delete-member-class", method: http.MethodDelete, path: path, summary: "Delete a member class without members", roles: administrator},
		func(in *remove, _ *registry.State) ([]registry.Change, error) {
			return []registry.Change{&registry.DeleteMemberClass{Code: in.Code}}, nil
		})
}
