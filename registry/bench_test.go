// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"testing"

	"kontor/registry"
	"kontor/registry/id"
)

// large declares 1,000 members with a server each and 100,000 subsystems, all
// registered.
func large() *registry.Ecosystem {
	provider := clientID("DEV/GOV/0/s0")
	eco := &registry.Ecosystem{
		Instance: "DEV", Settings: &registry.Settings{ManagementProvider: &provider},
		MemberClasses: []registry.ClassDecl{{Code: "GOV", Description: "Government"}},
	}
	for i := range 1000 {
		m := must(id.NewMember("DEV", "GOV", fmt.Sprint(i)))
		member := registry.MemberDecl{Class: "GOV", Code: m.Code(), Name: fmt.Sprint("Member ", i)}
		server := registry.ServerDecl{ID: must(id.NewSecurityServer(m, "ss")), Address: fmt.Sprintf("ss%d.example", i)}
		for j := range 100 {
			code := fmt.Sprint("s", j)
			member.Subsystems = append(member.Subsystems, registry.SubsystemDecl{Code: code, Name: fmt.Sprint("Subsystem ", j)})
			server.Clients = append(server.Clients, must(id.NewClient(m, code)))
		}
		eco.Members, eco.SecurityServers = append(eco.Members, member), append(eco.SecurityServers, server)
	}
	return eco
}

func BenchmarkLargeEcosystem(b *testing.B) {
	dir := newDir(b)
	r := open(b, dir, registry.Config{})
	fill(b, r, large())
	b.Run("Publish", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			server := serverID("DEV/GOV/7/ss")
			if _, err := r.Apply(b.Context(), author, []registry.Change{&registry.SetServerAddress{Server: server, Address: fmt.Sprintf("x%d.example", r.State().Number())}}); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			publish(b, r)
		}
	})
	b.Run("Renew", func(b *testing.B) {
		for b.Loop() {
			publish(b, r)
		}
	})
	b.Run("Apply", func(b *testing.B) {
		for b.Loop() {
			server := serverID("DEV/GOV/7/ss")
			if _, err := r.Apply(b.Context(), author, []registry.Change{&registry.SetServerAddress{Server: server, Address: fmt.Sprintf("x%d.example", r.State().Number())}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Open", func(b *testing.B) {
		for b.Loop() {
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
			r = open(b, dir, registry.Config{})
		}
	})
}
