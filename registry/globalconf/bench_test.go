// SPDX-License-Identifier: Apache-2.0

package globalconf_test

import (
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"kontor/pki"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// large returns 5,000 members with 100,000 subsystems at 1,000 servers.
var large = sync.OnceValue(func() *globalconf.SharedParams {
	p := &globalconf.SharedParams{Instance: "DEV", Sources: []globalconf.Source{{Address: "cs.example"}}, OCSPFreshness: time.Hour}
	var clients []id.Client
	for i := range 5000 {
		mid, _ := id.NewMember("DEV", "GOV", fmt.Sprintf("%07d", i))
		m := globalconf.Member{ID: mid, ClassDescription: "Government", Name: fmt.Sprintf("Board number %d of something", i)}
		for j := range 20 {
			sid, _ := id.NewClient(mid, fmt.Sprintf("subsystem-%d", j))
			m.Subsystems = append(m.Subsystems, globalconf.Subsystem{ID: sid, Name: fmt.Sprintf("Information system number %d", j)})
			clients = append(clients, sid)
		}
		p.Members = append(p.Members, m)
	}
	for i := range 1000 {
		sid, _ := id.NewSecurityServer(p.Members[5*i].ID, "SS1")
		s := globalconf.SecurityServer{ID: sid, Address: fmt.Sprintf("ss%d.example", i), Clients: clients[100*i : 100*(i+1)]}
		s.AuthCerts = []globalconf.AuthCert{{SHA256: pki.CertHash{1, byte(i), byte(i >> 8)}, SHA1: [20]byte{1, byte(i), byte(i >> 8)}}}
		p.Servers = append(p.Servers, s)
	}
	return p
})

func largeCentre(t testing.TB) *centre {
	c := newCentre(t, newClock(), "DEV")
	p := *large()
	p.Sources, p.CAs, p.TSAs = c.shared.Sources, c.shared.CAs, c.shared.TSAs
	c.shared, c.versions = &p, []int{6}
	c.publish()
	return c
}

func TestLargeConfiguration(t *testing.T) {
	t.Parallel()
	cs := largeCentre(t)
	cfg := cs.config(t.TempDir())
	c := newClient(t, cfg)
	v := update(t, c)
	if n := len(slices.Collect(v.Servers("DEV"))); n != 1000 {
		t.Errorf("%d servers", n)
	}
	x := client(t, "DEV/GOV/0004999/subsystem-19")
	if p := v.Providers(x); len(p) != 1 || p[0].Address != "ss999.example" || !v.Registered(p[0].ID, x) {
		t.Errorf("%v", p)
	}
	if w := newClient(t, cfg).View(); w.Generation() != v.Generation() {
		t.Error("not the same after a restart")
	}
}

func TestManyServersOfOneClient(t *testing.T) {
	t.Parallel()
	cs := newCentre(t, newClock(), "DEV")
	everywhere := client(t, "DEV/GOV/1/population")
	for i := range 30 {
		sid := must(id.NewSecurityServer(cs.shared.Members[0].ID, fmt.Sprint("X", i)))(t)
		cs.shared.Servers = append(cs.shared.Servers, globalconf.SecurityServer{ID: sid, Clients: []id.Client{everywhere}})
	}
	cs.publish()
	v := update(t, newClient(t, cs.config("")))
	if n := len(v.Providers(everywhere)); n != 32 {
		t.Errorf("%d providers", n)
	}
	for _, s := range cs.shared.Servers {
		if !v.Registered(s.ID, everywhere) || v.Registered(s.ID, client(t, "DEV/GOV/1/management")) != (s.ID.Code() == "SS1") {
			t.Errorf("%s", s.ID)
		}
	}
}

func BenchmarkMarshal(b *testing.B) {
	p := large()
	for b.Loop() {
		doc := must(p.Marshal(6))(b)
		b.SetBytes(int64(len(doc)))
	}
}

func BenchmarkParse(b *testing.B) {
	doc := must(large().Marshal(6))(b)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		must(globalconf.ParseSharedParams(doc, 6))(b)
	}
}

func BenchmarkIndex(b *testing.B) {
	p := must(globalconf.ParseSharedParams(must(large().Marshal(6))(b), 6))(b)
	b.ReportAllocs()
	for b.Loop() {
		globalconf.IndexOf(p)
	}
}

// BenchmarkLoad measures everything between an empty gateway and its first view.
func BenchmarkLoad(b *testing.B) {
	cs := largeCentre(b)
	cfg := cs.config("")
	cfg.HTTP = &http.Client{Transport: roundTripper{cs}}
	for b.Loop() {
		update(b, newClient(b, cfg))
	}
}

// BenchmarkResume measures the start of a gateway with a stored configuration.
func BenchmarkResume(b *testing.B) {
	cs := largeCentre(b)
	cfg := cs.config(b.TempDir())
	update(b, newClient(b, cfg))
	for b.Loop() {
		if newClient(b, cfg).View() == nil {
			b.Fatal("no view")
		}
	}
}

// BenchmarkRenew measures the usual cycle: nothing but the expiry is new.
func BenchmarkRenew(b *testing.B) {
	cs := largeCentre(b)
	cfg := cs.config(b.TempDir())
	cfg.HTTP = &http.Client{Transport: roundTripper{cs}}
	c := newClient(b, cfg)
	update(b, c)
	for b.Loop() {
		b.StopTimer()
		cs.clock.advance(time.Minute)
		cs.publish()
		b.StartTimer()
		update(b, c)
	}
}

func BenchmarkLookup(b *testing.B) {
	cs := largeCentre(b)
	v := update(b, newClient(b, cs.config("")))
	c := client(b, "DEV/GOV/0004999/subsystem-19")
	s := v.Providers(c)[0]
	b.Run("Providers", func(b *testing.B) {
		for b.Loop() {
			v.Providers(c)
		}
	})
	b.Run("Registered", func(b *testing.B) {
		for b.Loop() {
			v.Registered(s.ID, c)
		}
	})
	b.Run("ServerByCert", func(b *testing.B) {
		for b.Loop() {
			v.ServerByCert(s.AuthCerts[0])
		}
	})
	b.Run("Server", func(b *testing.B) {
		for b.Loop() {
			v.Server(s.ID)
		}
	})
	b.Run("Memory", func(b *testing.B) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		w := update(b, newClient(b, cs.config("")))
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
		runtime.KeepAlive(w)
	})
}
