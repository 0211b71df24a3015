// SPDX-License-Identifier: Apache-2.0

package serverconf

import (
	"fmt"
	"slices"
	"time"

	"kontor/registry/id"
)

// Rule says what one right means for one call.
type Rule struct {
	Right   Right
	Allows  bool
	Expired bool   // it would allow the call if it had not expired
	Reason  string // why it does not allow the call; empty if it does
	Decides bool   // it is the right by which the call is allowed
}

// Explanation says how a call is judged.
type Explanation struct {
	Path  string // normalised: what patterns are compared with
	Rules []Rule // one for each right to the service, in the order of the file
	Err   error  // of Authorise; nil: allowed
}

// Explain judges a call as [Conf.Authorise] does, with the same parameters, and
// tells what each right means for it. Rights of the client itself and of local
// groups decide before those of global groups.
func (c *Conf) Explain(client id.Client, s *Service, method, path string, inGroup func(id.Client, id.GlobalGroup) bool) *Explanation {
	e := &Explanation{Err: c.Authorise(client, s, method, path, inGroup)}
	var err error
	if e.Path, err = NormalisePath(path); err != nil {
		return e
	}
	at := c.now()
	for _, r := range s.Rights {
		e.Rules = append(e.Rules, explainRight(client, s, r, method, e.Path, inGroup, at))
	}
	for _, global := range []bool{false, true} {
		i := slices.IndexFunc(e.Rules, func(r Rule) bool { return r.Allows && r.Right.GlobalGroup.IsZero() != global })
		if i >= 0 {
			e.Rules[i].Decides = true
			break
		}
	}
	return e
}

func explainRight(client id.Client, s *Service, r Right, method, path string, inGroup func(id.Client, id.GlobalGroup) bool, at time.Time) Rule {
	rule := Rule{Right: r}
	no := func(format string, args ...any) Rule {
		rule.Reason = fmt.Sprintf(format, args...)
		return rule
	}
	switch {
	case r.LocalGroup != "":
		i := slices.IndexFunc(s.Owner.Groups, func(g *Group) bool { return g.Code == r.LocalGroup })
		if i < 0 || !slices.Contains(s.Owner.Groups[i].Members, client) {
			return no("%s is not in the local group %s", client, r.LocalGroup)
		}
	case !r.GlobalGroup.IsZero():
		if inGroup == nil || !inGroup(client, r.GlobalGroup) {
			return no("%s is not in the global group %s", client, r.GlobalGroup)
		}
	case r.Client != client && r.Client.IsMember() && r.Client.Member() == client.Member():
		return no("it is for the member, which does not stand for its subsystems")
	case r.Client != client:
		return no("it is for another client")
	}
	g, err := compileGrant(&r)
	switch {
	case err != nil:
		return no("%v", err)
	case !g.base && method == "":
		return no("a SOAP call needs a right to the whole service")
	case !g.base && !g.method(method):
		return no("it is for method %s", r.Endpoint.Method)
	case !g.base && !g.path.match(path):
		return no("the path does not match %s", r.Endpoint.Path)
	case !g.valid(at):
		rule.Expired = true
		return no("it expired on %s", r.Expires.UTC().Format(time.RFC3339))
	}
	rule.Allows = true
	return rule
}
