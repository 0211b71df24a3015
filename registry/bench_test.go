// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"testing"
	"time"

	"kontor/registry"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// large declares 5,000 members with 100,000 subsystems, all registered at 1,000
// servers.
func large() *registry.Ecosystem {
	ca := newAuthority("Large CA")
	provider := clientID("DEV/GOV/0/s0")
	eco := ecosystem(ca)
	eco.Settings = &registry.Settings{ManagementProvider: &provider}
	eco.MemberClasses = []registry.ClassDecl{{Code: "GOV", Description: "Government"}}
	eco.Members, eco.SecurityServers, eco.GlobalGroups = nil, nil, nil
	for i := range 5000 {
		m := must(id.NewMember("DEV", "GOV", fmt.Sprint(i)))
		member := registry.MemberDecl{Class: "GOV", Code: m.Code(), Name: fmt.Sprint("Board number ", i, " of something")}
		if i%5 == 0 {
			eco.SecurityServers = append(eco.SecurityServers, registry.ServerDecl{
				ID: must(id.NewSecurityServer(m, "ss")), Address: fmt.Sprintf("ss%d.example", i), Certificates: []registry.Certificate{registry.CertificateOf(ca.auth(fmt.Sprint("ss", i)))},
			})
		}
		server := &eco.SecurityServers[len(eco.SecurityServers)-1]
		for j := range 20 {
			code := fmt.Sprint("s", j)
			member.Subsystems = append(member.Subsystems, registry.SubsystemDecl{Code: code, Name: fmt.Sprint("Information system number ", j)})
			server.Clients = append(server.Clients, must(id.NewClient(m, code)))
		}
		eco.Members = append(eco.Members, member)
	}
	return eco
}

// heap is what is in use after a collection, in MB.
func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

func BenchmarkLargeEcosystem(b *testing.B) {
	dir := newDir(b)
	r := must(registry.Open(dir, pin, registry.Config{}))
	defer func() { r.Close() }()
	fill(b, r, large())
	publish(b, r)
	server := serverID("DEV/GOV/5/ss")
	change := func() {
		if _, err := r.Apply(b.Context(), author, []registry.Change{&registry.SetServerAddress{Server: server, Address: fmt.Sprintf("x%d.example", r.State().Number())}}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("ChangeUntilPublished", func(b *testing.B) {
		for b.Loop() {
			change()
			publish(b, r)
		}
	})
	b.Run("Apply", func(b *testing.B) {
		for b.Loop() {
			change()
		}
	})
	publish(b, r)
	b.Run("Renew", func(b *testing.B) { // no change, new signatures
		for b.Loop() {
			publish(b, r)
		}
	})
	b.Run("Open", func(b *testing.B) {
		for b.Loop() {
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
			r = must(registry.Open(dir, pin, registry.Config{}))
		}
	})
	publish(b, r)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.Handler().ServeHTTP(w, req) }))
	defer srv.Close()
	dirs := b.TempDir()
	empty := func() *globalconf.Client {
		return newClient(b, must(r.InternalAnchor()), srv, &clock{t: time.Now()}, must(os.MkdirTemp(dirs, "")))
	}
	load := func(c *globalconf.Client) *globalconf.Client {
		if err := c.Update(b.Context()); err != nil {
			b.Fatal(err)
		}
		return c
	}
	b.Run("GatewayLoad", func(b *testing.B) { // first download, with everything on disk
		for b.Loop() {
			b.StopTimer()
			c := empty()
			b.StartTimer()
			load(c)
		}
	})
	gateway := load(empty())
	b.Run("GatewayChange", func(b *testing.B) { // one change, published already
		for b.Loop() {
			b.StopTimer()
			change()
			publish(b, r)
			b.StartTimer()
			load(gateway)
		}
	})
	view, client := gateway.View(), clientID("DEV/GOV/4999/s19")
	b.Run("Lookup", func(b *testing.B) { // what one exchange asks
		for b.Loop() {
			providers := view.Providers(client)
			if len(providers) != 1 || !view.Registered(providers[0].ID, client) {
				b.Fatal("not found")
			}
			if _, ok := view.ServerByCert(providers[0].AuthCerts[0]); !ok {
				b.Fatal("not found")
			}
		}
	})
	all := heap()
	view, gateway = nil, nil
	without := heap()
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
	r = must(registry.Open(newDir(b), pin, registry.Config{})) // a small one
	small := heap()
	b.Run("Memory", func(b *testing.B) {
		b.ReportMetric(all-without, "gateway-MB")
		b.ReportMetric(without-small, "registry-MB")
		b.ReportMetric(0, "ns/op")
	})
}
