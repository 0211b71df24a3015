// SPDX-License-Identifier: Apache-2.0

package globalconf_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kontor/registry/globalconf"
	"kontor/registry/id"
)

func newClient(t testing.TB, cfg globalconf.ClientConfig) *globalconf.Client {
	t.Helper()
	return must(globalconf.NewClient(cfg))(t)
}

func update(t testing.TB, c *globalconf.Client) *globalconf.View {
	t.Helper()
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c.View()
}

func TestClient(t *testing.T) {
	t.Parallel()
	clk := newClock()
	cs := newCentre(t, clk, "DEV")
	cs.extra[globalconf.ContentMonitoring] = must((&globalconf.MonitoringParams{Client: client(t, "DEV/GOV/1/management")}).Marshal())(t)
	cs.extra[globalconf.ContentFetchInterval] = must((&globalconf.FetchIntervalParams{Interval: 2 * time.Minute}).Marshal())(t)
	cs.extra[globalconf.ContentNextUpdate] = must((&globalconf.NextUpdateParams{}).Marshal())(t)
	cs.publish()
	dir := t.TempDir()
	c := newClient(t, cs.config(dir))
	if c.View() != nil {
		t.Error("a view before the first update")
	}
	v := update(t, c)
	checkView(t, v, cs)
	if v.MonitoringClient().String() != "DEV/GOV/1/management" || v.OCSPFetchInterval() != 2*time.Minute || !v.OCSPPolicy().IgnoreNextUpdate {
		t.Error("optional parts are not used")
	}

	// X-Road's layout, and two files of our own.
	want := []string{"DEV/directory.mime", "DEV/directory.mime.metadata",
		"DEV/fetchinterval-params.xml", "DEV/fetchinterval-params.xml.metadata",
		"DEV/monitoring-params.xml", "DEV/monitoring-params.xml.metadata",
		"DEV/nextupdate-params.xml", "DEV/nextupdate-params.xml.metadata",
		"DEV/private-params.xml", "DEV/private-params.xml.metadata",
		"DEV/shared-params.xml", "DEV/shared-params.xml.metadata", "instance-identifier"}
	files := snapshot(t, dir)
	if got := keys(files); !slices.Equal(got, want) {
		t.Errorf("files %q", got)
	}
	if files["instance-identifier"] != "DEV" {
		t.Error(files["instance-identifier"])
	}
	var meta map[string]string
	if err := json.Unmarshal([]byte(files["DEV/shared-params.xml.metadata"]), &meta); err != nil || !maps.Equal(meta, map[string]string{
		"contentIdentifier": "SHARED-PARAMETERS", "instanceIdentifier": "DEV", "expirationDate": "2026-03-01T12:10:00Z",
		"contentLocation": "/V6/20260301120000000000000/shared-params.xml", "configurationVersion": "6",
	}) {
		t.Errorf("metadata %v, %v", meta, err)
	}

	// Everything that reads the folder sees the same.
	checkView(t, must(globalconf.LoadDir(dir))(t), cs)
	checkView(t, must(globalconf.LoadSignedDir(dir, cs.anchorFile()))(t), cs)
	cs.Close()
	again := newClient(t, cs.config(dir))
	checkView(t, again.View(), cs)
	if again.View().Generation() != v.Generation() {
		t.Error("the generation changes over a restart")
	}
	if err := again.Update(t.Context()); !errors.Is(err, globalconf.ErrUnavailable) {
		t.Errorf("update without a central server: %v", err)
	}
	if err := again.View().Valid(clk.now()); err != nil {
		t.Error(err)
	}
	clk.advance(10*time.Minute + time.Second)
	if err := again.View().Valid(clk.now()); !errors.Is(err, globalconf.ErrOutdated) {
		t.Errorf("expired: %v", err)
	}
}

func checkView(t *testing.T, v *globalconf.View, cs *centre) {
	t.Helper()
	if v == nil {
		t.Fatal("no view")
	}
	in := cs.instance
	population, portal := client(t, in+"/GOV/1/population"), client(t, in+"/COM/2/portal")
	ss1, ss2 := must(id.ParseSecurityServer(in+"/GOV/1/SS1"))(t), must(id.ParseSecurityServer(in+"/COM/2/SS2"))(t)
	if v.Instance() != in || v.Version() != 6 || !v.Expires().Equal(cs.clock.now().Add(cs.validity)) {
		t.Errorf("%s version %d expires %v", v.Instance(), v.Version(), v.Expires())
	}
	var at []id.SecurityServer
	for _, s := range v.Providers(population) {
		at = append(at, s.ID)
	}
	if len(at) != 2 || !slices.Contains(at, ss1) || !slices.Contains(at, ss2) {
		t.Errorf("providers %v", at)
	}
	if p := v.Providers(client(t, in+"/GOV/1")); len(p) != 1 || p[0].ID != ss1 {
		t.Errorf("servers of the owner: %v", p)
	}
	if v.Providers(client(t, in+"/GOV/1/nobody")) != nil || v.Providers(client(t, "OTHER/GOV/1")) != nil {
		t.Error("providers of strangers")
	}
	s, ok := v.Server(ss2)
	if !ok || s.Address != "ss2.example" || len(s.AuthCerts) != 1 {
		t.Fatalf("server %+v", s)
	}
	if got, ok := v.ServerByCert(s.AuthCerts[0]); !ok || got != s {
		t.Error("server by certificate")
	}
	for _, tc := range []struct {
		s  id.SecurityServer
		c  id.Client
		ok bool
	}{{ss2, portal, true}, {ss2, population, true}, {ss1, portal, false}, {ss1, client(t, in+"/GOV/1"), true}, {ss2, client(t, in+"/GOV/1"), false}} {
		if v.Registered(tc.s, tc.c) != tc.ok {
			t.Errorf("%s at %s: %v", tc.c, tc.s, !tc.ok)
		}
	}
	group := must(id.NewGlobalGroup(in, "owners"))(t)
	if !v.InGlobalGroup(client(t, in+"/GOV/1"), group) || v.InGlobalGroup(population, group) || v.InGlobalGroup(portal, must(id.NewGlobalGroup("X", "owners"))(t)) {
		t.Error("global group")
	}
	if !v.Known(population) || v.Known(client(t, in+"/GOV/2")) || v.Name(population) != "Name of population" || v.Name(client(t, in+"/COM/2")) != "Company" {
		t.Error("names")
	}
	var clients []string
	for c, name := range v.Clients(in) {
		clients = append(clients, c.String()+"="+name)
	}
	if len(clients) != 5 || clients[0] != in+"/COM/2=Company" || clients[1] != in+"/COM/2/portal=Name of portal" {
		t.Errorf("clients %q", clients)
	}
	if n := len(slices.Collect(v.Servers(in))); n != 2 {
		t.Errorf("%d servers", n)
	}
	ca := v.AllAuthorities()[0]
	if a := v.Authorities(ca.Cert.RawSubject); len(a) != 1 || a[0] != ca || ca.Profile == nil || ca.Instance != in {
		t.Errorf("authorities %v", a)
	}
	if r := v.OCSPResponders(in, ca.Cert); len(r.Authorised) != 1 || len(r.Known) != len(v.Instances()) {
		t.Errorf("responders %v", r)
	}
	if tsas := v.TSAs(in); len(tsas) != 1 || tsas[0].URL != "http://tsa.example" || len(v.TSACertificates()) != len(v.Instances()) {
		t.Errorf("TSAs %v", tsas)
	}
	if v.OCSPPolicy().Freshness != time.Hour || v.TimestampInterval() != time.Minute || len(v.MemberClasses(in)) != 2 {
		t.Error("settings")
	}
	addr, _, provider := v.Management()
	if addr != "https://cs.example:4001/managementservice/" || provider != client(t, in+"/GOV/1/management") {
		t.Errorf("management %s %s", addr, provider)
	}
	raw, version, ok := v.SharedParams(in)
	if !ok || version != 6 || !bytes.Equal(raw, must(cs.shared.Marshal(6))(t)) {
		t.Error("shared parameters are not those served")
	}
	if p := v.Problems(); len(p) > 0 {
		t.Errorf("problems %v", p)
	}
}

func TestVersion2(t *testing.T) {
	t.Parallel()
	cs := newCentre(t, newClock(), "DEV")
	cert := newEC(t, elliptic.P256(), "auth").cert
	cs.shared.Servers[0].AuthCerts = []globalconf.AuthCert{globalconf.NewAuthCert(cert)}
	cs.versions = []int{2}
	cs.publish()
	v := update(t, newClient(t, cs.config("")))
	if s, ok := v.ServerByCertificate(cert); !ok || s.ID != cs.shared.Servers[0].ID || v.Version() != 2 {
		t.Errorf("%v %v", s, ok)
	}
	if _, ok := v.ServerByCertificate(newEC(t, elliptic.P256(), "other").cert); ok {
		t.Error("a stranger's certificate")
	}
}

// TestNegotiation records what is asked of servers that know some versions.
func TestNegotiation(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		versions []int
		status   map[string]int // instead of 404
		probes   []string
		version  int
	}{
		{name: "newest", versions: []int{2, 3, 4, 5, 6}, probes: []string{"6"}, version: 6},
		{name: "older", versions: []int{2, 3, 4}, probes: []string{"6", "5", "4"}, version: 4},
		{name: "only 2", versions: []int{2}, probes: []string{"6", "5", "4", "3", "2"}, version: 2},
		{name: "none", probes: []string{"6", "5", "4", "3", "2"}},
		{name: "error means exists", versions: []int{2, 3}, status: map[string]int{"6": 404, "5": 500}, probes: []string{"6", "5", "5"}},
		{name: "redirect is not followed", versions: []int{2}, status: map[string]int{"6": 302}, probes: []string{"6", "6"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cs := newCentre(t, newClock(), "DEV")
			cs.versions = tc.versions
			cs.publish()
			cs.on(func(w http.ResponseWriter, r *http.Request) bool {
				status := tc.status[r.URL.Query().Get("version")]
				if status == 302 {
					w.Header().Set("Location", "/internalconf?version=2")
				}
				if status != 0 {
					w.WriteHeader(status)
				}
				return status != 0
			})
			c := newClient(t, cs.config(t.TempDir()))
			err := c.Update(t.Context())
			var probes []string
			for _, r := range cs.asked() {
				if v, ok := strings.CutPrefix(r, "/internalconf?version="); ok {
					probes = append(probes, v)
				}
			}
			if !slices.Equal(probes, tc.probes) {
				t.Errorf("asked for %v", probes)
			}
			if tc.version == 0 {
				if !errors.Is(err, globalconf.ErrUnavailable) || c.View() != nil {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || c.View().Version() != tc.version {
				t.Fatalf("version %d, %v", c.View().Version(), err)
			}
			// The second time nothing is probed, and nothing unchanged downloaded.
			update(t, c)
			if got := cs.asked(); len(got) != 1 {
				t.Errorf("second cycle asked for %v", got)
			}
			// A version that is gone is negotiated anew.
			if tc.version > 2 {
				cs.versions = []int{2}
				cs.clock.advance(time.Second)
				cs.publish()
				if v := update(t, c); v.Version() != 2 {
					t.Errorf("version %d", v.Version())
				}
			}
		})
	}
}

func TestVersionInAnchor(t *testing.T) {
	t.Parallel()
	cs := newCentre(t, newClock(), "DEV")
	a := cs.anchor("internalconf")
	a.Sources[0].URL += "?version=3"
	cfg := cs.config("")
	cfg.Anchor = must(a.Marshal())(t)
	if v := update(t, newClient(t, cfg)); v.Version() != 3 {
		t.Errorf("version %d", v.Version())
	}
}

// TestRefused damages the distribution in many ways; nothing may be stored, and
// what was there before must stay.
func TestRefused(t *testing.T) {
	t.Parallel()
	resign := func(cs *centre, change func(d *globalconf.Directory)) {
		doc := cs.files["/internalconf?version=6"]
		d := must(globalconf.ParseDirectory(doc, cs.anchor("internalconf").Certificates()))(cs.t)
		change(d)
		cs.set("/internalconf?version=6", cs.sign("internalconf", d))
	}
	// relist signs changed content as the central server would.
	relist := func(cs *centre, file string, change func(string) string) {
		content := []byte(change(string(cs.files[cs.path(file)])))
		cs.set(cs.path(file), content)
		resign(cs, func(d *globalconf.Directory) {
			for i, p := range d.Parts {
				if strings.HasSuffix(p.Location, file) {
					d.Parts[i] = globalconf.NewPart(p.Identifier, p.Instance, p.Location, content)
				}
			}
		})
	}
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	for _, tc := range []struct {
		name   string
		damage func(cs *centre)
		want   error
	}{
		{"signature of another key", func(cs *centre) {
			cs.keys["internalconf"] = newEC(t, elliptic.P256(), "mallory")
			cs.publish()
		}, globalconf.ErrSignature},
		{"external source in place of the internal one", func(cs *centre) {
			cs.set("/internalconf?version=6", cs.files["/externalconf?version=6"])
		}, globalconf.ErrSignature},
		{"changed directory", func(cs *centre) {
			cs.set("/internalconf?version=6", bytes.Replace(cs.files["/internalconf?version=6"], []byte("Version: 6"), []byte("Version: 5"), 1))
		}, globalconf.ErrSignature},
		{"expired", func(cs *centre) { cs.clock.advance(cs.validity + time.Second) }, globalconf.ErrOutdated},
		{"other version than asked for", func(cs *centre) { cs.set("/internalconf?version=6", cs.files["/internalconf?version=5"]) }, globalconf.ErrVersion},
		{"changed part", func(cs *centre) {
			path := cs.path(globalconf.FileSharedParams)
			cs.set(path, bytes.Replace(cs.files[path], []byte("ss1.example"), []byte("ss9.example"), 1))
		}, globalconf.ErrHash},
		{"missing part file", func(cs *centre) { cs.set(cs.path(globalconf.FilePrivateParams), nil) }, globalconf.ErrHash},
		{"no private parameters", func(cs *centre) {
			resign(cs, func(d *globalconf.Directory) { d.Parts = d.Parts[:1] })
		}, globalconf.ErrMissingPart},
		{"no shared parameters", func(cs *centre) {
			resign(cs, func(d *globalconf.Directory) { d.Parts = d.Parts[1:] })
		}, globalconf.ErrMissingPart},
		{"parts of another instance", func(cs *centre) {
			resign(cs, func(d *globalconf.Directory) { d.Parts[0].Instance, d.Parts[1].Instance = "X", "X" })
		}, globalconf.ErrMissingPart},
		{"another instance inside", func(cs *centre) {
			relist(cs, globalconf.FileSharedParams, replace("<instanceIdentifier>DEV", "<instanceIdentifier>X"))
		}, globalconf.ErrInstance},
		{"another instance inside the private parameters", func(cs *centre) {
			relist(cs, globalconf.FilePrivateParams, replace("<instanceIdentifier>DEV", "<instanceIdentifier>X"))
		}, globalconf.ErrInstance},
		{"invalid against the schema", func(cs *centre) {
			relist(cs, globalconf.FileSharedParams, replace("<globalSettings>", "<globalSettings><x/>"))
		}, globalconf.ErrMalformed},
		{"DOCTYPE", func(cs *centre) {
			relist(cs, globalconf.FileSharedParams, replace("<x:conf", "<!DOCTYPE conf><x:conf"))
		}, globalconf.ErrMalformed},
		{"bad optional part", func(cs *centre) {
			cs.extra[globalconf.ContentFetchInterval] = []byte("<x/>")
			cs.publish()
		}, globalconf.ErrMalformed},
		{"part at another host", func(cs *centre) {
			resign(cs, func(d *globalconf.Directory) { d.Parts[0].Location = "http://127.0.0.1:1" + d.Parts[0].Location })
			cs.set(cs.path(globalconf.FileSharedParams), nil)
		}, globalconf.ErrMalformed},
		{"file name with a path", func(cs *centre) {
			cs.extra["X"] = []byte("x")
			cs.publish()
			resign(cs, func(d *globalconf.Directory) { d.Parts[2].FileName = "..%2f.." })
		}, globalconf.ErrMalformed},
		{"file name of the directory itself", func(cs *centre) {
			cs.extra["X"] = []byte("x")
			cs.publish()
			resign(cs, func(d *globalconf.Directory) { d.Parts[2].FileName = "directory.mime" })
		}, globalconf.ErrMalformed},
		{"oversized directory", func(cs *centre) {
			cs.set("/internalconf?version=6", bytes.Repeat([]byte("x"), 2<<20))
		}, globalconf.ErrMalformed},
		{"oversized part", func(cs *centre) {
			relist(cs, globalconf.FileSharedParams, func(s string) string { return s + strings.Repeat(" ", 1<<20) })
		}, globalconf.ErrMalformed},
		{"empty answer", func(cs *centre) { cs.set("/internalconf?version=6", nil) }, globalconf.ErrMalformed},
		{"server gone", func(cs *centre) { cs.Close() }, globalconf.ErrUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cs := newCentre(t, newClock(), "DEV")
			cfg := cs.config(dir)
			cfg.MaxPartSize = 1 << 20

			// At first nothing is there.
			fresh := t.TempDir()
			cs2 := newCentre(t, newClock(), "DEV")
			cfg2 := cs2.config(fresh)
			cfg2.MaxPartSize = 1 << 20
			tc.damage(cs2)
			c := newClient(t, cfg2)
			if err := c.Update(t.Context()); !errors.Is(err, tc.want) || !errors.Is(err, globalconf.ErrUnavailable) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if c.View() != nil || len(snapshot(t, fresh)) > 0 {
				t.Errorf("stored %q", keys(snapshot(t, fresh)))
			}

			// Then something good is, and differs from what comes.
			c = newClient(t, cfg)
			v := update(t, c)
			before := snapshot(t, dir)
			cs.clock.advance(time.Second)
			cs.shared.OCSPFreshness, cs.private.TimestampInterval = 2*time.Hour, time.Hour
			cs.publish()
			tc.damage(cs)
			if err := c.Update(t.Context()); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if got := c.View(); got.Generation() != v.Generation() || !maps.Equal(before, snapshot(t, dir)) {
				t.Error("a refused configuration was stored")
			}
			if s := c.Stats(); s.Failures != 1 || s.Updates != 1 || s.LastError == nil {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestUnchangedIsNotDownloaded(t *testing.T) {
	t.Parallel()
	cs := newCentre(t, newClock(), "DEV")
	dir := t.TempDir()
	var outcomes []error
	cfg := cs.config(dir)
	cfg.OnUpdate = func(_ *globalconf.View, err error) { outcomes = append(outcomes, err) }
	c := newClient(t, cfg)
	first := update(t, c)
	cs.asked()
	cs.clock.advance(time.Minute)
	cs.publish()
	second := update(t, c)
	if got := cs.asked(); !slices.Equal(got, []string{"/internalconf?version=6"}) {
		t.Errorf("asked for %v", got)
	}
	if second == first || second.Generation() != first.Generation() || !second.Expires().After(first.Expires()) {
		t.Error("a renewed configuration must be a new view of the same generation")
	}
	s1, _ := first.Server(cs.shared.Servers[0].ID)
	if s2, _ := second.Server(cs.shared.Servers[0].ID); s1 != s2 {
		t.Error("unchanged parameters were parsed again")
	}
	checkView(t, must(globalconf.LoadSignedDir(dir, cs.anchorFile()))(t), cs)

	// Only what changed is downloaded.
	cs.clock.advance(time.Minute)
	cs.private.TimestampInterval = 30 * time.Second
	cs.publish()
	third := update(t, c)
	if got := cs.asked(); len(got) != 2 || !strings.HasSuffix(got[1], globalconf.FilePrivateParams) {
		t.Errorf("asked for %v", got)
	}
	if third.Generation() == second.Generation() || third.TimestampInterval() != 30*time.Second {
		t.Error("the change did not arrive")
	}
	s := c.Stats()
	if s.Updates != 3 || s.Changes != 2 || s.Failures != 0 || s.Downloaded == 0 || len(outcomes) != 3 || s.Location != cs.URL+"/internalconf" {
		t.Errorf("stats %+v, outcomes %v", s, outcomes)
	}
	// A restart knows the hashes as well.
	c = newClient(t, cs.config(dir))
	update(t, c)
	if got := cs.asked(); len(got) != 1 {
		t.Errorf("after a restart: %v", got)
	}
}

func TestRollback(t *testing.T) {
	t.Parallel()
	type step func(t *testing.T, cs *centre)
	changed := func(t *testing.T, cs *centre) { cs.shared.OCSPFreshness += time.Second }
	older := func(d time.Duration) step {
		return func(t *testing.T, cs *centre) {
			changed(t, cs)
			cs.folder = globalconf.Folder(cs.clock.now().Add(-d))
			cs.publish()
		}
	}
	for _, tc := range []struct {
		name   string
		before step
		then   step
		want   error
	}{
		{"newer", nil, older(-time.Second), nil},
		{"same instant, other contents", nil, older(0), nil},
		{"older", nil, older(time.Second), globalconf.ErrRollback},
		{"older, longer validity", nil, func(t *testing.T, cs *centre) {
			cs.validity = time.Hour
			older(time.Minute)(t, cs)
		}, globalconf.ErrRollback},
		{"newer, shorter validity", nil, func(t *testing.T, cs *centre) {
			cs.validity = time.Minute
			older(-time.Second)(t, cs)
		}, nil},
		{"older, but the same contents", nil, func(t *testing.T, cs *centre) {
			cs.folder = globalconf.Folder(cs.clock.now().Add(-time.Minute))
			cs.publish()
		}, nil},
		{"no generation, later expiry", nil, func(t *testing.T, cs *centre) {
			changed(t, cs)
			cs.folder, cs.validity = "x", 11*time.Minute
			cs.publish()
		}, nil},
		{"no generation, earlier expiry", nil, func(t *testing.T, cs *centre) {
			changed(t, cs)
			cs.folder, cs.validity = "x", 9*time.Minute
			cs.publish()
		}, globalconf.ErrRollback},
		{"from the future: corrected later", older(-24 * time.Hour), func(t *testing.T, cs *centre) {
			cs.clock.advance(5 * time.Minute)
			older(0)(t, cs)
		}, nil},
		{"from the future: corrected at once", older(-24 * time.Hour), func(t *testing.T, cs *centre) {
			cs.clock.advance(4 * time.Minute)
			older(0)(t, cs)
		}, globalconf.ErrRollback},
		{"configuration proxy", func(t *testing.T, cs *centre) {
			cs.folder = "1772366400000" // 2026-03-01T12:00:00Z
			cs.publish()
		}, func(t *testing.T, cs *centre) {
			changed(t, cs)
			cs.folder = "1772366399999"
			cs.publish()
		}, globalconf.ErrRollback},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, restart := range []bool{false, true} {
				cs := newCentre(t, newClock(), "DEV")
				if tc.before != nil {
					tc.before(t, cs)
				}
				dir := t.TempDir()
				c := newClient(t, cs.config(dir))
				v := update(t, c)
				tc.then(t, cs)
				if restart {
					c = newClient(t, cs.config(dir))
				}
				err := c.Update(t.Context())
				if !errors.Is(err, tc.want) {
					t.Errorf("restart %v: got %v, want %v", restart, err, tc.want)
				}
				if tc.want != nil && c.View().Generation() != v.Generation() {
					t.Error("rolled back")
				}
				if tc.want == nil && c.View().Expires().Before(v.Expires()) && tc.name == "older, but the same contents" {
					t.Error("the expiry went back")
				}
				if tc.want == nil {
					continue
				}
				// A new anchor starts anew.
				a := cs.anchor("internalconf")
				a.Generated = a.Generated.Add(time.Second)
				cfg := cs.config(dir)
				cfg.Anchor = must(a.Marshal())(t)
				if v := update(t, newClient(t, cfg)); v.OCSPPolicy().Freshness != cs.shared.OCSPFreshness {
					t.Error("a new anchor does not start anew")
				}
			}
		})
	}
}

// TestCrash interrupts the storing of an update at every change to the disk. The
// folder must then hold the old configuration or the new one.
func TestCrash(t *testing.T) {
	t.Parallel()
	cs := newCentre(t, newClock(), "DEV")
	partner := newCentre(t, cs.clock, "PARTNER")
	cs.private.Anchors = []globalconf.Anchor{*partner.anchor("externalconf")}
	cs.publish()
	original := t.TempDir()
	cfg := cs.config(original)
	cfg.AllowedFederations = []string{"all"}
	old := update(t, newClient(t, cfg))
	cs.clock.advance(time.Second)
	cs.shared.OCSPFreshness, partner.shared.OCSPFreshness = 2*time.Hour, 3*time.Hour
	cs.private.TimestampInterval = time.Hour
	cs.publish()
	partner.publish()
	for n := 0; ; n++ {
		if n > 200 {
			t.Fatal("storing does not end")
		}
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(original)); err != nil {
			t.Fatal(err)
		}
		cfg.Dir = dir
		c := newClient(t, cfg)
		if c.View().Generation() != old.Generation() {
			t.Fatal("not the old configuration")
		}
		c.StopAfter(n)
		err := c.Update(t.Context())
		done := err == nil && c.Stats().Federated["PARTNER"] == nil
		if err != nil && !errors.Is(err, globalconf.ErrCrash) {
			t.Fatal(err)
		}
		for _, load := range []func() (*globalconf.View, error){
			func() (*globalconf.View, error) { return globalconf.LoadDir(dir) },
			func() (*globalconf.View, error) { return globalconf.LoadSignedDir(dir, cfg.Anchor) },
			func() (*globalconf.View, error) { c, err := globalconf.NewClient(cfg); return c.View(), err },
		} {
			v, err := load()
			if err != nil || v == nil {
				t.Fatalf("after %d changes: %v", n, err)
			}
			isOld := v.OCSPPolicy().Freshness == time.Hour && v.TimestampInterval() == time.Minute
			isNew := v.OCSPPolicy().Freshness == 2*time.Hour && v.TimestampInterval() == time.Hour
			if !isOld && !isNew || done && !isNew || len(v.Instances()) != 2 || len(v.Problems()) > 0 {
				t.Fatalf("after %d changes: freshness %v, interval %v, %v, %v", n, v.OCSPPolicy().Freshness, v.TimestampInterval(), v.Instances(), v.Problems())
			}
		}
		// The next run completes the work and leaves nothing behind.
		v := update(t, newClient(t, cfg))
		if v.OCSPPolicy().Freshness != 2*time.Hour {
			t.Fatalf("after %d changes the update does not complete", n)
		}
		for name := range snapshot(t, dir) {
			if strings.HasPrefix(name, ".") {
				t.Errorf("after %d changes %s is left", n, name)
			}
		}
		if done {
			t.Logf("%d changes to the disk", n)
			return
		}
	}
}

func TestFederation(t *testing.T) {
	t.Parallel()
	clk := newClock()
	cs, partner, third := newCentre(t, clk, "DEV"), newCentre(t, clk, "PARTNER"), newCentre(t, clk, "THIRD")
	cs.private.Anchors = []globalconf.Anchor{*partner.anchor("externalconf"), *third.anchor("externalconf")}
	cs.publish()
	for _, tc := range []struct {
		filter []string
		want   []string
	}{
		{nil, []string{"DEV"}},
		{[]string{"none"}, []string{"DEV"}},
		{[]string{"all", "none"}, []string{"DEV"}},
		{[]string{"ALL"}, []string{"DEV", "PARTNER", "THIRD"}},
		{[]string{"third", "dev"}, []string{"DEV", "THIRD"}},
	} {
		cfg := cs.config(t.TempDir())
		cfg.AllowedFederations = tc.filter
		if v := update(t, newClient(t, cfg)); !slices.Equal(v.Instances(), tc.want) {
			t.Errorf("%v: %v", tc.filter, v.Instances())
		}
	}

	dir := t.TempDir()
	cfg := cs.config(dir)
	cfg.AllowedFederations = []string{"all"}
	c := newClient(t, cfg)
	v := update(t, c)
	checkView(t, v, cs)
	population := client(t, "PARTNER/GOV/1/population")
	if p := v.Providers(population); len(p) != 2 {
		t.Errorf("providers of the partner: %v", p)
	}
	if _, ok := v.ServerByCert(v.Providers(population)[0].AuthCerts[0]); !ok {
		t.Error("the partner's server is not found by its certificate")
	}
	if names := keys(snapshot(t, dir)); slices.Contains(names, "PARTNER/private-params.xml") || !slices.Contains(names, "PARTNER/directory.mime") {
		t.Errorf("files %q", names)
	}
	for _, load := range []*globalconf.View{must(globalconf.LoadDir(dir))(t), must(globalconf.LoadSignedDir(dir, cfg.Anchor))(t), newClient(t, cfg).View()} {
		if !slices.Equal(load.Instances(), v.Instances()) {
			t.Errorf("loaded %v", load.Instances())
		}
	}

	// A partner that fails keeps what it had until that expires.
	partner.Close()
	clk.advance(9 * time.Minute)
	cs.publish()
	third.publish()
	if v = update(t, c); len(v.Instances()) != 3 || c.Stats().Federated["PARTNER"] == nil || c.Stats().Federated["THIRD"] != nil {
		t.Errorf("%v, %v", v.Instances(), c.Stats().Federated)
	}
	clk.advance(2 * time.Minute)
	if got := c.View(); !slices.Equal(got.Instances(), []string{"DEV", "THIRD"}) || got.Providers(population) != nil || got.Generation() == v.Generation() {
		t.Errorf("an expired partner is visible: %v", got.Instances())
	}
	if first, second := c.View(), c.View(); first != second {
		t.Error("views without need")
	}

	// An instance that is no longer trusted disappears from memory and disk.
	cs.private.Anchors = nil
	cs.publish()
	other := filepath.Join(dir, "unrelated")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if v := update(t, c); len(v.Instances()) != 1 {
		t.Errorf("%v", v.Instances())
	}
	if _, err := os.Stat(filepath.Join(dir, "THIRD")); !os.IsNotExist(err) {
		t.Error("the folder of a former partner is left")
	}
	if _, err := os.Stat(other); err != nil {
		t.Error("an unrelated folder was deleted")
	}
}

// TestFederationConfusion lets a partner speak for others.
func TestFederationConfusion(t *testing.T) {
	t.Parallel()
	clk := newClock()
	cs, partner := newCentre(t, clk, "DEV"), newCentre(t, clk, "PARTNER")
	cs.private.Anchors = []globalconf.Anchor{*partner.anchor("externalconf")}
	cs.publish()
	evil := partner.params()
	evil.Instance = "DEV"
	evil.Members, evil.Servers, evil.Groups = nil, nil, nil
	stolen := must(evil.Marshal(6))(t)
	list := func(parts ...globalconf.Part) {
		d := globalconf.Directory{Expires: clk.now().Add(time.Minute), Version: 6, Parts: parts}
		partner.set("/externalconf?version=6", partner.sign("externalconf", &d))
	}
	genuine := globalconf.NewPart(globalconf.ContentSharedParams, "PARTNER", partner.path(globalconf.FileSharedParams), partner.files[partner.path(globalconf.FileSharedParams)])
	private := globalconf.NewPart(globalconf.ContentPrivateParams, "PARTNER", partner.path(globalconf.FilePrivateParams), partner.files[partner.path(globalconf.FilePrivateParams)])
	partner.set("/V6/evil/shared-params.xml", stolen)
	for _, tc := range []struct {
		name  string
		parts []globalconf.Part
		ok    bool
	}{
		{"own parts beside those of others", []globalconf.Part{globalconf.NewPart(globalconf.ContentSharedParams, "DEV", "/V6/evil/shared-params.xml", stolen), genuine, private}, true},
		{"parts of others only", []globalconf.Part{globalconf.NewPart(globalconf.ContentSharedParams, "DEV", "/V6/evil/shared-params.xml", stolen)}, false},
		{"another instance inside", []globalconf.Part{globalconf.NewPart(globalconf.ContentSharedParams, "PARTNER", "/V6/evil/shared-params.xml", stolen)}, false},
	} {
		list(tc.parts...)
		dir := t.TempDir()
		cfg := cs.config(dir)
		cfg.AllowedFederations = []string{"all"}
		c := newClient(t, cfg)
		v := update(t, c)
		if (c.Stats().Federated["PARTNER"] == nil) != tc.ok || (len(v.Instances()) == 2) != tc.ok {
			t.Errorf("%s: %v, %v", tc.name, c.Stats().Federated, v.Instances())
		}
		if !v.Known(client(t, "DEV/GOV/1")) || len(snapshot(t, dir)) == 0 {
			t.Errorf("%s: the own configuration suffered", tc.name)
		}
		if _, err := os.Stat(filepath.Join(dir, "PARTNER/private-params.xml")); err == nil {
			t.Errorf("%s: a partner's private parameters were stored", tc.name)
		}
		checkView(t, must(globalconf.LoadSignedDir(dir, cfg.Anchor))(t), cs)
	}

	// A key that the own instance no longer trusts takes its partner's
	// configuration with it.
	list(genuine)
	cfg := cs.config(t.TempDir())
	cfg.AllowedFederations = []string{"all"}
	c := newClient(t, cfg)
	if v := update(t, c); len(v.Instances()) != 2 {
		t.Fatal(v.Instances())
	}
	replaced := partner.anchor("externalconf")
	replaced.Sources[0].Certs = [][]byte{newEC(t, elliptic.P256(), "new").cert.Raw}
	cs.private.Anchors = []globalconf.Anchor{*replaced}
	clk.advance(time.Second)
	cs.publish()
	if v := update(t, c); len(v.Instances()) != 1 {
		t.Error("signed by a key that is no longer trusted")
	}
}

// TestKeyRotation follows a central server to a new key and a new address
// without a new anchor.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	cs := newCentre(t, newClock(), "DEV")
	dir := t.TempDir()
	c := newClient(t, cs.config(dir))
	anchor := cs.anchorFile()
	update(t, c)
	next := newEC(t, elliptic.P256(), "next")
	cs.shared.Sources[0].InternalCerts = append(cs.shared.Sources[0].InternalCerts, next.cert.Raw)
	cs.clock.advance(time.Second)
	cs.publish()
	update(t, c) // learns the new key
	cs.keys["internalconf"] = next
	cs.shared.Sources[0].InternalCerts = cs.shared.Sources[0].InternalCerts[1:]
	cs.clock.advance(time.Second)
	cs.publish()
	update(t, c)

	cfg := cs.config(dir)
	cfg.Anchor = anchor
	if v := newClient(t, cfg).View(); v == nil {
		t.Error("a configuration signed by a rotated key is not resumed")
	}
	if _, err := globalconf.LoadSignedDir(dir, anchor); !errors.Is(err, globalconf.ErrSignature) {
		t.Errorf("the old anchor proves a new key: %v", err)
	}
	checkView(t, must(globalconf.LoadSignedDir(dir, cs.anchorFile()))(t), cs)
	// One who never saw the announcement does not trust the key.
	cfg.Dir = t.TempDir()
	if err := newClient(t, cfg).Update(t.Context()); !errors.Is(err, globalconf.ErrSignature) {
		t.Errorf("a key out of nowhere: %v", err)
	}
	// A changed anchor is not outlived by keys that only the old parameters
	// announce.
	a := cs.anchor("internalconf")
	a.Generated = a.Generated.Add(time.Second)
	a.Sources[0].Certs = [][]byte{newEC(t, elliptic.P256(), "after compromise").cert.Raw}
	cfg = cs.config(dir)
	cfg.Anchor = must(a.Marshal())(t)
	c = newClient(t, cfg)
	if c.View() != nil {
		t.Error("resumed in spite of a new anchor")
	}
	if err := c.Update(t.Context()); !errors.Is(err, globalconf.ErrSignature) {
		t.Errorf("%v", err)
	}
}

func TestSecondAddress(t *testing.T) {
	t.Parallel()
	clk := newClock()
	a, b := newCentre(t, clk, "DEV"), newCentre(t, clk, "DEV")
	a.shared.Sources = append(a.shared.Sources, b.source())
	b.shared, b.private = a.shared, a.private
	clk.advance(time.Second)
	a.publish()
	b.publish()
	c := newClient(t, a.config(t.TempDir())) // its anchor knows only a
	update(t, c)
	a.Close()
	clk.advance(time.Second)
	b.publish()
	if v := update(t, c); c.Stats().Location != b.URL+"/internalconf" || v.Valid(clk.now()) != nil {
		t.Errorf("%+v", c.Stats())
	}
}

func TestExternal(t *testing.T) {
	t.Parallel()
	cs := newCentre(t, newClock(), "DEV")
	cfg := cs.config(t.TempDir())
	cfg.Anchor = must(cs.anchor("externalconf").Marshal())(t)
	if err := newClient(t, cfg).Update(t.Context()); !errors.Is(err, globalconf.ErrMissingPart) {
		t.Errorf("an external anchor in place of an internal one: %v", err)
	}
	cfg.External = true
	v := update(t, newClient(t, cfg))
	if addr, cert, provider := v.Management(); addr != "" || cert != nil || !provider.IsZero() || v.TimestampInterval() != time.Minute {
		t.Error("private parameters from an external source")
	}
	if v := must(globalconf.LoadSignedDir(cfg.Dir, cfg.Anchor))(t); !v.Known(client(t, "DEV/GOV/1")) {
		t.Error("not loaded")
	}
}

func TestAnchorFile(t *testing.T) {
	t.Parallel()
	clk := newClock()
	a, b := newCentre(t, clk, "DEV"), newCentre(t, clk, "SECOND")
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "anchor.xml")
	if err := os.WriteFile(file, a.anchorFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := a.config(dir)
	cfg.AnchorFile, cfg.Anchor = file, nil
	c := newClient(t, cfg)
	update(t, c)
	if err := os.WriteFile(file, b.anchorFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := update(t, c); v.Instance() != "SECOND" {
		t.Error(v.Instance())
	}
	if _, err := os.Stat(filepath.Join(dir, "DEV")); !os.IsNotExist(err) {
		t.Error("the old instance is left")
	}
	checkView(t, must(globalconf.LoadDir(dir))(t), b)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := c.Update(t.Context()); err == nil || c.View().Instance() != "SECOND" {
		t.Errorf("%v", err)
	}
	if _, err := globalconf.NewClient(cfg); err == nil {
		t.Error("no anchor, no error")
	}
}

// TestDamagedFolder spoils the stored configuration behind the client's back.
func TestDamagedFolder(t *testing.T) {
	t.Parallel()
	cs := newCentre(t, newClock(), "DEV")
	for name, damage := range map[string]func(dir string) error{
		"part":      func(d string) error { return os.WriteFile(d+"/DEV/shared-params.xml", []byte("<x/>"), 0o600) },
		"directory": func(d string) error { return os.WriteFile(d+"/DEV/directory.mime", []byte("x"), 0o600) },
		"metadata": func(d string) error {
			return os.WriteFile(d+"/DEV/shared-params.xml.metadata", []byte("{"), 0o600)
		},
		"no shared parameters": func(d string) error { return os.Remove(d + "/DEV/shared-params.xml") },
		"no identifier":        func(d string) error { return os.Remove(d + "/instance-identifier") },
		"no folder":            func(d string) error { return os.RemoveAll(d + "/DEV") },
	} {
		dir := t.TempDir()
		cfg := cs.config(dir)
		update(t, newClient(t, cfg))
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		c := newClient(t, cfg)
		if (c.View() != nil) != (name == "metadata") { // the signed directory tells what X-Road's metadata do
			t.Errorf("%s: loaded %v", name, c.View())
		}
		cs.clock.advance(time.Second)
		cs.publish()
		if _, err := globalconf.LoadSignedDir(dir, cfg.Anchor); err == nil && name != "metadata" && name != "no identifier" {
			t.Errorf("%s: verified", name)
		}
		checkView(t, update(t, c), cs)
		checkView(t, must(globalconf.LoadDir(dir))(t), cs)
	}
}

// roundTripper is a central server without a network.
type roundTripper struct{ cs *centre }

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	status := http.StatusOK
	body, ok := r.cs.files[req.URL.RequestURI()]
	if !ok {
		status = http.StatusNotFound
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(body)), Request: req}, nil
}

func TestRun(t *testing.T) {
	cs := newCentre(t, newClock(), "DEV")
	synctest.Test(t, func(t *testing.T) {
		cfg := cs.config("")
		cfg.HTTP = &http.Client{Transport: roundTripper{cs}}
		var times []time.Duration
		begin := time.Now()
		files := cs.files
		cfg.OnUpdate = func(*globalconf.View, error) {
			times = append(times, time.Since(begin))
			if len(times) == 3 {
				cs.files = nil
			}
			if len(times) == 9 {
				cs.files = files
			}
		}
		c := newClient(t, cfg)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
		// The fourth fails, and is followed by quick attempts that get rarer.
		limits := []float64{0, 60, 60, 60, 1, 2, 4, 8, 16, 32, 60, 60}
		if len(times) < len(limits) {
			t.Fatalf("updates at %v", times)
		}
		last := time.Duration(0)
		for i, want := range limits {
			got := (times[i] - last).Seconds()
			if last = times[i]; got < 0.89*want || got > 1.11*want {
				t.Errorf("update %d after %.1f s instead of about %.0f s", i, got, want)
			}
		}
		if s := c.Stats(); s.Failures != 0 || s.LastSuccess.IsZero() {
			t.Errorf("%+v", s)
		}
	})
}
