// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"kontor/gateway/serverconf"
	"kontor/registry/globalconf"
	"kontor/registry/guard"
	"kontor/registry/id"
)

// Right is an access right: one subject may call one endpoint of a service.
type Right struct {
	ID          string    `json:"id" doc:"Names it"`
	Client      string    `json:"client" doc:"Who offers the service"`
	Service     string    `json:"service" doc:"Code of the service; the right is to all its versions"`
	SubjectType string    `json:"subject_type" enum:"client,local-group,global-group"`
	Subject     string    `json:"subject"`
	Method      string    `json:"method" doc:"* for any"`
	Path        string    `json:"path" doc:"Pattern: * is any run without /, ** any run at all"`
	Expires     time.Time `json:"expires,omitzero"`
	Note        string    `json:"note,omitempty"`
	Problem     string    `json:"problem,omitempty" doc:"Why it has no effect, or not the one that may be meant"`
}

// NewRight grants access.
type NewRight struct {
	Service     string    `json:"service" doc:"Code of the service"`
	SubjectType string    `json:"subject_type,omitempty" enum:"client,local-group,global-group" doc:"Default: client"`
	Subject     string    `json:"subject" maxLength:"1024" doc:"instance/class/member/subsystem, code of a local group, or instance/code of a global group"`
	Method      string    `json:"method,omitempty" doc:"Default: any"`
	Path        string    `json:"path,omitempty" maxLength:"1024" doc:"Default: any"`
	Expires     time.Time `json:"expires,omitzero" doc:"Default: never"`
	Note        string    `json:"note,omitempty" maxLength:"1000" doc:"Such as the agreement it rests on"`
}

// RightChange changes a right; absent fields stay as they are.
type RightChange struct {
	Expires *time.Time `json:"expires,omitempty"`
	Never   bool       `json:"never_expires,omitempty" doc:"It does not expire any more"`
	Note    *string    `json:"note,omitempty" maxLength:"1000"`
}

// Explanation says whether a call would be allowed, and why.
type Explanation struct {
	Allowed  bool     `json:"allowed" doc:"The access rights allow it"`
	Works    bool     `json:"works" doc:"It is allowed, and nothing else stands in its way"`
	Reason   string   `json:"reason"`
	Client   string   `json:"client"`
	Service  string   `json:"service"`
	Method   string   `json:"method,omitempty"`
	Path     string   `json:"path,omitempty" doc:"What path patterns are compared with"`
	Problems []string `json:"problems" doc:"What else stands in the way of the call"`
	Rules    []Rule   `json:"rules" doc:"Every right to the service, and what it means for the call"`
}

// Rule is what one right means for a call.
type Rule struct {
	Right   Right  `json:"right"`
	Allows  bool   `json:"allows"`
	Decides bool   `json:"decides" doc:"It is the one by which the call is allowed"`
	Reason  string `json:"reason,omitempty" doc:"Why it does not allow the call"`
}

// Types of subjects.
const (
	SubjectClient      = "client"
	SubjectLocalGroup  = "local-group"
	SubjectGlobalGroup = "global-group"
)

func (a *API) registerAccess() {
	who := []string{RoleServiceAdministrator}
	register(a, operation{id: "list-access", method: http.MethodGet, path: "/access", summary: "List access rights", roles: readers()}, a.listAccess)
	register(a, operation{id: "test-access", method: http.MethodGet, path: "/access/test", summary: "Explain which right decides a call",
		description: "Nothing is sent.", roles: readers()}, a.testAccess)
	register(a, operation{id: "get-right", method: http.MethodGet, path: "/clients/{client}/access/{right}", summary: "Show an access right", roles: readers()}, a.getRight)
	register(a, operation{id: "grant-access", method: http.MethodPost, path: "/clients/{client}/access", summary: "Grant access to a service", status: http.StatusCreated, roles: who}, a.grant)
	register(a, operation{id: "change-right", method: http.MethodPatch, path: "/clients/{client}/access/{right}", summary: "Change the expiry or the note of an access right", roles: who}, a.changeRight)
	register(a, operation{id: "revoke-access", method: http.MethodDelete, path: "/clients/{client}/access/{right}", summary: "Revoke an access right", roles: who}, a.revoke)
}

// right describes an entry of the file.
func (a *API) right(owner id.Client, e *serverconf.AccessEntry, view *globalconf.View) Right {
	r := Right{Client: owner.String(), Service: e.Service, Method: e.Method, Path: e.Path, Expires: e.Expires, Note: e.Note}
	if r.Method == "" {
		r.Method = "*"
	}
	if r.Path == "" {
		r.Path = "**"
	}
	switch {
	case e.Group != "":
		r.SubjectType, r.Subject = SubjectLocalGroup, e.Group
	case !e.GlobalGroup.IsZero():
		r.SubjectType, r.Subject = SubjectGlobalGroup, e.GlobalGroup.String()
	default:
		r.SubjectType, r.Subject = SubjectClient, e.Client.String()
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %q", r.Client, r.Service, r.SubjectType, r.Subject, strings.ToUpper(r.Method), r.Path))
	r.ID = hex.EncodeToString(sum[:6])
	r.Problem = a.rightProblem(e, view)
	return r
}

func (a *API) rightProblem(e *serverconf.AccessEntry, view *globalconf.View) string {
	switch {
	case !e.Expires.IsZero() && !a.Now().Before(e.Expires):
		return "it has expired"
	case view == nil:
	case e.Group != "":
	case !e.GlobalGroup.IsZero():
		known := slices.ContainsFunc(view.GlobalGroups(e.GlobalGroup.Instance()), func(g globalconf.GlobalGroup) bool { return g.Code == e.GlobalGroup.Code() })
		if !known {
			return "the global configuration knows no such group"
		}
	case !view.Known(e.Client):
		return "the global configuration knows no such client"
	case e.Client.IsMember():
		return "it is for the member alone, which does not stand for its subsystems"
	}
	return ""
}

func entryOf(service string, r *serverconf.Right) *serverconf.AccessEntry {
	return &serverconf.AccessEntry{Service: service, Client: r.Client, Group: r.LocalGroup, GlobalGroup: r.GlobalGroup,
		Method: r.Endpoint.Method, Path: r.Endpoint.Path, Expires: r.Expires, Note: r.Note}
}

// rights lists the rights that a client has granted, once for all versions of
// a service.
func (a *API) rights(c *serverconf.Client, code string) []Right {
	view := a.View()
	var all []Right
	done := map[string]bool{}
	for _, s := range c.Services {
		if done[s.ID.Code()] || code != "" && s.ID.Code() != code {
			continue
		}
		done[s.ID.Code()] = true
		for i := range s.Rights {
			all = append(all, a.right(c.ID, entryOf(s.ID.Code(), &s.Rights[i]), view))
		}
	}
	return all
}

type accessQuery struct {
	Client  string `query:"client" doc:"Only rights to services of this client"`
	Service string `query:"service" doc:"Only rights to services of this code"`
	Subject string `query:"subject" doc:"Only rights of this client, local or global group"`
}

func (a *API) listAccess(_ context.Context, in *accessQuery) (*list[Right], error) {
	clients := a.Conf.Conf().Clients()
	if in.Client != "" {
		c, err := a.client(ClientPath{in.Client})
		if err != nil {
			return nil, err
		}
		clients = []*serverconf.Client{c}
	}
	var all []Right
	for _, c := range clients {
		for _, r := range a.rights(c, in.Service) {
			if in.Subject == "" || r.Subject == in.Subject || r.Subject == slashes(in.Subject) {
				all = append(all, r)
			}
		}
	}
	return answerList(all), nil
}

type RightPath struct {
	ClientPath
	Right string `path:"right" maxLength:"64"`
}

func noRight(c id.Client, right string) error {
	return problem(http.StatusNotFound, guard.CodeUnknown, "list them (kontor access list)", "client %s has granted no right %q", c, right)
}

func rightTag(r Right) string {
	r.Problem = ""
	return etag(r)
}

func (a *API) getRight(_ context.Context, in *RightPath) (*item[Right], error) {
	return a.showRight(*in)
}

func (a *API) showRight(in RightPath) (*item[Right], error) {
	c, err := a.client(in.ClientPath)
	if err != nil {
		return nil, err
	}
	for _, r := range a.rights(c, "") {
		if r.ID == in.Right {
			return answer(rightTag(r), r), nil
		}
	}
	return nil, noRight(c.ID, in.Right)
}

// newEntry reads a grant.
func newEntry(in *NewRight) (*serverconf.AccessEntry, error) {
	e := &serverconf.AccessEntry{Service: in.Service, Method: strings.ToUpper(in.Method), Path: in.Path, Expires: in.Expires.UTC(), Note: in.Note}
	if in.Expires.IsZero() {
		e.Expires = time.Time{}
	}
	if e.Method == "*" {
		e.Method = ""
	}
	if e.Path == "**" {
		e.Path = ""
	}
	var err error
	switch in.SubjectType {
	case SubjectClient, "":
		if e.Client, err = id.ParseClient(slashes(in.Subject)); err != nil {
			return nil, invalid("give a client as instance/class/member/subsystem, or say which type of subject it is", "subject: %v", err)
		}
	case SubjectLocalGroup:
		if e.Group = in.Subject; e.Group == "" {
			return nil, invalid("give the code of a local group", "the subject is missing")
		}
	case SubjectGlobalGroup:
		if e.GlobalGroup, err = id.ParseGlobalGroup(slashes(in.Subject)); err != nil {
			return nil, invalid("give a global group as instance/code", "subject: %v", err)
		}
	}
	return e, nil
}

func (a *API) grant(ctx context.Context, in *struct {
	ClientPath
	Body NewRight
}) (*item[Right], error) {
	e, err := newEntry(&in.Body)
	if err != nil {
		return nil, err
	}
	if !e.Expires.IsZero() && !a.Now().Before(e.Expires) {
		return nil, invalid("give a later time", "the right would expire on %s, which is past", e.Expires.Format(time.RFC3339))
	}
	var name string
	err = a.inClient(in.ClientPath, func(c *serverconf.ClientEntry) error {
		if !offers(c, e.Service) {
			return noService(c.ID, e.Service)
		}
		if e.Group != "" && !slices.ContainsFunc(c.Groups, func(g serverconf.GroupEntry) bool { return g.Code == e.Group }) {
			return noGroup(c.ID, e.Group)
		}
		name = a.right(c.ID, e, nil).ID
		for i := range c.Access {
			if a.right(c.ID, &c.Access[i], nil).ID == name {
				return exists("change its expiry or note (kontor access change "+name+")", "there is such a right already")
			}
		}
		c.Access = append(c.Access, *e)
		note(ctx, "client %s: grant %s", c.ID, rightText(e))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.showRight(RightPath{in.ClientPath, name})
}

// inRight changes one right, which must be there.
func (a *API) inRight(path RightPath, s Seen, change func(c *serverconf.ClientEntry, i int) error) error {
	return a.inClient(path.ClientPath, func(c *serverconf.ClientEntry) error {
		i := slices.IndexFunc(c.Access, func(e serverconf.AccessEntry) bool { return a.right(c.ID, &e, nil).ID == path.Right })
		if i < 0 {
			return noRight(c.ID, path.Right)
		}
		if err := s.check(rightTag(a.right(c.ID, &c.Access[i], nil))); err != nil {
			return err
		}
		return change(c, i)
	})
}

func (a *API) changeRight(ctx context.Context, in *struct {
	RightPath
	Seen
	Body RightChange
}) (*item[Right], error) {
	if in.Body.Never && in.Body.Expires != nil {
		return nil, invalid("give one of the two", "a right cannot both expire and never expire")
	}
	err := a.inRight(in.RightPath, in.Seen, func(c *serverconf.ClientEntry, i int) error {
		e := &c.Access[i]
		switch {
		case in.Body.Never:
			e.Expires = time.Time{}
		case in.Body.Expires != nil && !a.Now().Before(*in.Body.Expires):
			return invalid("give a later time, or revoke the right", "%s is past", in.Body.Expires.UTC().Format(time.RFC3339))
		case in.Body.Expires != nil:
			e.Expires = in.Body.Expires.UTC()
		}
		if in.Body.Note != nil {
			e.Note = *in.Body.Note
		}
		note(ctx, "client %s: change to %s, note %q", c.ID, rightText(e), e.Note)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.showRight(in.RightPath)
}

func (a *API) revoke(ctx context.Context, in *struct {
	RightPath
	Seen
}) (*struct{}, error) {
	return nil, a.inRight(in.RightPath, in.Seen, func(c *serverconf.ClientEntry, i int) error {
		note(ctx, "client %s: revoke %s", c.ID, rightText(&c.Access[i]))
		c.Access = slices.Delete(c.Access, i, i+1)
		return nil
	})
}

type testQuery struct {
	Client  string `query:"client" required:"true" doc:"Who calls: instance/class/member/subsystem"`
	Service string `query:"service" required:"true" doc:"What is called: instance/class/member/subsystem/code, or with the version of a SOAP service behind it"`
	Method  string `query:"method" doc:"Default: GET for REST services"`
	Path    string `query:"path" doc:"Path behind the service code, as it stands in the request"`
}

func (a *API) testAccess(_ context.Context, in *testQuery) (*item[Explanation], error) {
	client, err := id.ParseClient(slashes(in.Client))
	if err != nil {
		return nil, invalid("give it as instance/class/member/subsystem", "client: %v", err)
	}
	conf, view := a.Conf.Conf(), a.View()
	s, name, err := findService(conf, in.Service)
	if err != nil {
		return nil, err
	}
	x := Explanation{Client: client.String(), Service: name, Problems: []string{}, Rules: []Rule{}}
	if s == nil {
		x.Reason = "this security server has no such service"
		return answer("", x), nil
	}
	if s.Type != serverconf.WSDL {
		if x.Method = strings.ToUpper(in.Method); x.Method == "" {
			x.Method = http.MethodGet
		}
		x.Path = in.Path
	} else if in.Method != "" || in.Path != "" {
		return nil, invalid("leave them out", "calls of a SOAP service have no method and path")
	}
	inGroup := func(id.Client, id.GlobalGroup) bool { return false }
	if view != nil {
		inGroup = view.InGlobalGroup
	}
	e := conf.Explain(client, s, x.Method, x.Path, inGroup)
	x.Path = e.Path
	for i := range e.Rules {
		r := &e.Rules[i]
		x.Rules = append(x.Rules, Rule{a.right(s.Owner.ID, entryOf(s.ID.Code(), &r.Right), view), r.Allows, r.Decides, r.Reason})
		if r.Decides {
			x.Reason = "allowed by right " + x.Rules[i].Right.ID
		}
	}
	var badPath *serverconf.PathError
	switch {
	case e.Err == nil:
		x.Allowed = true
	case errors.As(e.Err, &badPath):
		x.Path = in.Path
		x.Reason = "the path is refused: " + badPath.Error()
	case len(e.Rules) == 0:
		x.Reason = "there is no right to the service at all"
	case slices.ContainsFunc(e.Rules, func(r serverconf.Rule) bool { return r.Expired }):
		x.Reason = "the right that would allow it has expired"
	default:
		x.Reason = "no right allows it"
	}
	x.Problems = append(x.Problems, a.obstacles(client, s, view)...)
	x.Works = x.Allowed && len(x.Problems) == 0
	return answer("", x), nil
}

// findService reads the identifier of a service, with or without a version.
func findService(conf *serverconf.Conf, text string) (*serverconf.Service, string, error) {
	text = slashes(text)
	name, err := id.ParseService(text)
	if err == nil {
		s, _ := conf.Service(name)
		return s, name.String(), nil
	}
	if i := strings.LastIndexByte(text, '/'); i > 0 {
		if plain, e := id.ParseService(text[:i]); e == nil {
			versioned, e := id.NewServiceVersion(plain.Owner(), plain.Code(), text[i+1:])
			if e == nil {
				s, _ := conf.Service(versioned)
				return s, versioned.String(), nil
			}
		}
	}
	return nil, "", invalid("give it as instance/class/member/subsystem/code", "service: %v", err)
}

// obstacles tells what stands in the way of a call beside access rights.
func (a *API) obstacles(client id.Client, s *serverconf.Service, view *globalconf.View) []string {
	var bad []string
	if s.DisabledNotice != nil {
		bad = append(bad, fmt.Sprintf("the service is disabled: %q", *s.DisabledNotice))
	}
	if !s.Owner.Registered() {
		bad = append(bad, fmt.Sprintf("the client that offers it has the status %q", s.Owner.Status))
	}
	switch {
	case view == nil || view.Valid(a.Now()) != nil:
		bad = append(bad, "there is no valid global configuration")
	case !view.Known(client):
		bad = append(bad, "the global configuration knows no such client")
	case len(view.Providers(client)) == 0:
		bad = append(bad, "the client is registered for no security server, so nobody can call in its name")
	}
	return bad
}
