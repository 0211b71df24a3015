// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"kontor/gateway/description"
	"kontor/gateway/serverconf"
	"kontor/registry/guard"
)

func (a *API) refreshDescription(ctx context.Context, in *struct {
	DescriptionPath
	Body Refresh
}) (*item[Differences], error) {
	now, err := a.description(in.DescriptionPath)
	if err != nil {
		return nil, err
	}
	from, given := in.Body.URL, []byte(nil)
	switch {
	case now.Type == serverconf.REST:
		return nil, invalid("change the service itself (kontor service set)", "a REST service has no document")
	case in.Body.URL != "" && in.Body.Document != "":
		return nil, invalid("give one of the two", "a document is at a URL, or given")
	case in.Body.Document != "":
		given = []byte(in.Body.Document)
	case from == "":
		from = now.URL
	}
	if from == "" && given == nil {
		return nil, invalid("give the new one, or a URL", "the document of the description is not at a URL")
	}
	doc, content, err := a.read(ctx, now.Owner.ID, now.Type, from, given, now.Services[0].VerifyTLS)
	if err != nil {
		return nil, err
	}

	out := Differences{Warnings: append([]string{}, doc.Warnings...)}
	first := serviceName(now.Services[0].ID)
	// plan changes a copy of the client; what it tells is also what is applied.
	plan := func(c *serverconf.ClientEntry, i int) error {
		before := c.Descriptions[i]
		r := refresh{before: &before, after: before}
		if err := r.plan(c, doc); err != nil {
			return err
		}
		r.after.Refreshed = a.Now().UTC().Truncate(time.Second)
		if in.Body.URL != "" {
			r.after.URL, r.after.File = in.Body.URL, ""
		}
		c.Descriptions[i] = r.after
		lost := lostRights(c, r.removed)
		out.Differences, out.RightsLost = r.differences, []Right{}
		for _, i := range lost {
			out.RightsLost = append(out.RightsLost, a.right(c.ID, &c.Access[i], a.View()))
		}
		out.Warnings = append(out.Warnings, r.warnings...)
		out.Digest = strings.Trim(etag([]any{out.Differences, out.RightsLost, in.DescriptionPath, from, string(given)}), `"`)
		if in.Body.Apply == "" {
			return nil
		}
		if in.Body.Apply != out.Digest {
			return guard.NewProblem(http.StatusPreconditionFailed, guard.CodeChangedMeanwhile, "the differences are not those that you have seen", "look at them again, then repeat the call")
		}
		if given != nil {
			d := &c.Descriptions[i]
			var err error
			if d.File, err = a.Conf.AddDocument(content, extension(d.Type, content)); err != nil {
				return err
			}
			d.URL = ""
		}
		note(ctx, "client %s: refresh %s", c.ID, nameOf(&c.Descriptions[i]))
		for i, v := range r.differences {
			if i == maxNoted {
				note(ctx, "and %d differences more", len(r.differences)-i)
				break
			}
			note(ctx, "%s", strings.Join(strings.Fields(fmt.Sprint(v.Kind, " ", v.Service, " ", v.Method, " ", v.Path, " ", v.What)), " "))
		}
		first = entryName(&c.Descriptions[i].Services[0])
		dropRights(ctx, c, lost)
		return nil
	}
	if in.Body.Apply != "" {
		err = a.inDescription(in.DescriptionPath, Seen{"*"}, plan)
		out.Applied = true
	} else {
		err = a.planOnly(now, plan)
	}
	if err != nil {
		return nil, err
	}
	s, err := a.service(ServicePath{in.ClientPath, first})
	if err != nil {
		return nil, err
	}
	out.Description = describe(s.Description)
	return answer(descriptionTag(s.Description), out), nil
}

// planOnly runs a change on a copy of the configuration.
func (a *API) planOnly(now *serverconf.Description, plan func(*serverconf.ClientEntry, int) error) error {
	m, err := a.Conf.Model()
	if err != nil {
		return err
	}
	c, err := entry(m, now.Owner.ID)
	if err != nil {
		return err
	}
	i, err := indexOf(c, now)
	if err != nil {
		return err
	}
	return plan(c, i)
}

// maxNoted bounds the differences in an audit record.
const maxNoted = 100

// refresh is what a document makes of a description.
type refresh struct {
	before      *serverconf.DescriptionEntry
	after       serverconf.DescriptionEntry
	differences []Difference
	removed     []gone
	warnings    []string
}

// gone is an endpoint that is no longer there.
type gone struct {
	service string // its code
	serverconf.Endpoint
}

func (r *refresh) plan(c *serverconf.ClientEntry, doc *description.Document) error {
	old := map[string]*serverconf.ServiceEntry{}
	for i := range r.before.Services {
		s := &r.before.Services[i]
		old[entryName(s)] = s
	}
	if r.before.Type == serverconf.OpenAPI3 { // its code is the operator's
		doc.Services[0].Code = r.before.Services[0].Code
	}
	// Where the operator has put the services of an address of the document.
	moved := map[string]*serverconf.ServiceEntry{}
	for i := range doc.Services {
		s := entryOfService(&doc.Services[i])
		if was := old[entryName(&s)]; was != nil && moved[s.URL] == nil {
			moved[s.URL] = was
		}
	}
	r.differences, r.after.Services = []Difference{}, nil
	strayed := map[string][]string{} // addresses of the document, and who does not have them
	for i := range doc.Services {
		s := entryOfService(&doc.Services[i])
		name := entryName(&s)
		was := old[name]
		delete(old, name)
		if was == nil {
			if offersName(c, name) {
				return exists("delete that description, or have the operation renamed", "client %s has a service %q of another description", c.ID, name)
			}
			if like := moved[s.URL]; like != nil {
				s.URL, s.Timeout, s.VerifyTLS = like.URL, like.Timeout, like.VerifyTLS
			}
			if s.URL == "" {
				return invalid("have it added to the document", "the document does not tell the address of service %s", name)
			}
			r.differences = append(r.differences, Difference{Kind: Added, Service: name, What: "at " + s.URL})
			r.after.Services = append(r.after.Services, s)
			continue
		}
		if s.URL != "" && s.URL != was.URL {
			strayed[s.URL] = append(strayed[s.URL], name)
		}
		r.after.Services = append(r.after.Services, r.stays(was, &s))
	}
	for _, s := range r.before.Services {
		if old[entryName(&s)] != nil {
			r.differences = append(r.differences, Difference{Kind: Removed, Service: entryName(&s), What: "at " + s.URL})
		}
	}
	for _, s := range doc.Services {
		if names := strayed[s.URL]; names != nil {
			r.warnings = append(r.warnings, fmt.Sprintf("the document tells the address %s of %s, whose address is another one and stays; change it with kontor service set", s.URL, strings.Join(names, ", ")))
			delete(strayed, s.URL)
		}
	}
	return nil
}

// stays is a service that the document still has.
func (r *refresh) stays(was, s *serverconf.ServiceEntry) serverconf.ServiceEntry {
	name, now := entryName(was), *was
	if now.Title = s.Title; now.Title != was.Title {
		r.differences = append(r.differences, Difference{Kind: Changed, Service: name, What: fmt.Sprintf("title %q, before %q", s.Title, was.Title)})
	}
	now.Endpoints = nil
	for _, e := range was.Endpoints {
		if !e.Generated {
			now.Endpoints = append(now.Endpoints, e)
			continue
		}
		if !slices.Contains(s.Endpoints, e) {
			r.differences = append(r.differences, Difference{Kind: Removed, Service: name, Method: e.Method, Path: e.Path})
			r.removed = append(r.removed, gone{was.Code, e.Endpoint})
		}
	}
	for _, e := range s.Endpoints {
		has := func(o serverconf.EndpointEntry) bool { return o.Endpoint == e.Endpoint }
		if slices.ContainsFunc(now.Endpoints, has) {
			continue // added by hand before the document had it
		}
		now.Endpoints = append(now.Endpoints, e)
		if !slices.ContainsFunc(was.Endpoints, has) {
			r.differences = append(r.differences, Difference{Kind: Added, Service: name, Method: e.Method, Path: e.Path})
		}
	}
	return now
}

// lostRights finds the rights of a client to services that it no longer has,
// and to exactly those endpoints that are gone. Rights to patterns of several
// endpoints stay.
func lostRights(c *serverconf.ClientEntry, removed []gone) []int {
	var lost []int
	for i := range c.Access {
		r := &c.Access[i]
		named := serverconf.Endpoint{Method: strings.ToUpper(cmp.Or(r.Method, "*")), Path: cmp.Or(r.Path, "**")}
		if !offers(c, r.Service) || slices.Contains(removed, gone{r.Service, named}) {
			lost = append(lost, i)
		}
	}
	return lost
}

func dropRights(ctx context.Context, c *serverconf.ClientEntry, lost []int) {
	for _, i := range slices.Backward(lost) {
		note(ctx, "revoke %s", rightText(&c.Access[i]))
		c.Access = slices.Delete(c.Access, i, i+1)
	}
}
