// SPDX-License-Identifier: Apache-2.0

package serverconf_test

import (
	"path/filepath"
	"testing"

	"kontor/gateway/serverconf"
	"kontor/registry/id"
)

func TestEndpoint(t *testing.T) {
	t.Parallel()
	owner, err := id.ParseClient("T/GOV/1/s")
	if err != nil {
		t.Fatal(err)
	}
	var endpoints []serverconf.EndpointEntry
	for _, e := range [][2]string{{"*", "/pets/*"}, {"GET", "/pets/first"}, {"GET", "/pets/*/toys/**"}, {"POST", "/pets"}} {
		endpoints = append(endpoints, serverconf.EndpointEntry{Endpoint: serverconf.Endpoint{Method: e[0], Path: e[1]}})
	}
	store, err := serverconf.Create(serverconf.Config{Path: filepath.Join(t.TempDir(), "conf.yaml")}, &serverconf.Model{Clients: []serverconf.ClientEntry{{
		ID: owner, Status: serverconf.Registered,
		Descriptions: []serverconf.DescriptionEntry{{Type: serverconf.OpenAPI3, Services: []serverconf.ServiceEntry{{Code: "pets", URL: "http://x", Endpoints: endpoints}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	name, err := id.NewService(owner, "pets")
	if err != nil {
		t.Fatal(err)
	}
	s, ok := store.Conf().Service(name)
	if !ok {
		t.Fatal("no service")
	}
	for _, test := range []struct{ method, path, want string }{
		{"GET", "/pets/first", "/pets/first"},
		{"PUT", "/pets/first", "/pets/*"},
		{"GET", "/pets/7", "/pets/*"},
		{"GET", "/pets/7/toys/a/b", "/pets/*/toys/**"},
		{"POST", "/pets", "/pets"},
		{"GET", "/pets", ""},
		{"GET", "/pets/../x", ""},
		{"GET", "", ""},
	} {
		if e, _ := s.Endpoint(test.method, test.path); e.Path != test.want {
			t.Errorf("%s %s belongs to %q, expected %q", test.method, test.path, e.Path, test.want)
		}
	}
}
