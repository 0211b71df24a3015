// SPDX-License-Identifier: Apache-2.0

package serverconf_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kontor/gateway/serverconf"
	"kontor/registry/id"
)

// What Explain says is what Authorise does, for any rights and calls.
func TestExplainAgreesWithAuthorise(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	clients := []id.Client{client(t, "D/G/1/a"), client(t, "D/G/1/b"), client(t, "D/G/1")}
	owner, name := client(t, "D/G/2/s"), service(t, "D/G/2/s/x")
	groups := []string{"g1", "g2"}
	global, err := id.NewGlobalGroup("D", "all")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		m := &serverconf.Model{Clients: []serverconf.ClientEntry{{ID: owner, Descriptions: []serverconf.DescriptionEntry{{Type: serverconf.REST, Services: []serverconf.ServiceEntry{{Code: "x", URL: "http://x"}}}}}}}
		e := &m.Clients[0]
		for _, g := range groups {
			e.Groups = append(e.Groups, serverconf.GroupEntry{Code: g, Members: rapid.SliceOfDistinct(rapid.SampledFrom(clients), func(c id.Client) id.Client { return c }).Draw(t, "members")})
		}
		for range rapid.IntRange(0, 5).Draw(t, "rights") {
			r := serverconf.AccessEntry{Service: "x", Method: rapid.SampledFrom([]string{"", "GET", "POST"}).Draw(t, "method"),
				Path: rapid.SampledFrom([]string{"", "/a", "/*", "/a/**"}).Draw(t, "path")}
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				r.Client = rapid.SampledFrom(clients).Draw(t, "client")
			case 1:
				r.Group = rapid.SampledFrom(groups).Draw(t, "group")
			default:
				r.GlobalGroup = global
			}
			if rapid.Bool().Draw(t, "expired") {
				r.Expires = now
			}
			e.Access = append(e.Access, r)
		}
		store, err := serverconf.Create(serverconf.Config{Path: filepath.Join(dir, time.Duration(n).String()), Now: func() time.Time { return now }}, m)
		if err != nil {
			t.Fatal(err)
		}
		conf := store.Conf()
		s, _ := conf.Service(name)
		in := rapid.Bool().Draw(t, "in global group")
		inGroup := func(id.Client, id.GlobalGroup) bool { return in }
		c := rapid.SampledFrom(clients).Draw(t, "caller")
		method, path := rapid.SampledFrom([]string{"GET", "POST", ""}).Draw(t, "call method"), rapid.SampledFrom([]string{"", "/a", "/a/b", "/b", "/a//b"}).Draw(t, "call path")

		x := conf.Explain(c, s, method, path, inGroup)
		if err := conf.Authorise(c, s, method, path, inGroup); (err == nil) != (x.Err == nil) {
			t.Fatalf("%v, %v", err, x.Err)
		}
		decides := 0
		for _, r := range x.Rules {
			if r.Decides {
				decides++
			}
			if r.Allows == (r.Reason != "") || r.Decides && !r.Allows || r.Allows && x.Err != nil || r.Expired && r.Allows {
				t.Fatalf("%+v", r)
			}
		}
		if (decides == 1) != (x.Err == nil) || decides > 1 {
			t.Fatalf("%d rights decide, %v", decides, x.Err)
		}
		if x.Err == nil && slices.ContainsFunc(x.Rules, func(r serverconf.Rule) bool { return r.Allows && r.Right.GlobalGroup.IsZero() }) &&
			slices.ContainsFunc(x.Rules, func(r serverconf.Rule) bool { return r.Decides && !r.Right.GlobalGroup.IsZero() }) {
			t.Fatal("a global group decides before the client itself")
		}
	})
}
