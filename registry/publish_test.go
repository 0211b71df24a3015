// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// files reads all that is published, by path.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	root := filepath.Join(dir, "public")
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, path)
		all[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func parts(all map[string]string) map[string]string {
	only := map[string]string{}
	for name, content := range all {
		if strings.HasSuffix(name, ".xml") {
			only[name] = content
		}
	}
	return only
}

func publish(t testing.TB, r *registry.Registry) {
	t.Helper()
	if err := r.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func rename(t testing.TB, r *registry.Registry, name string) {
	t.Helper()
	if _, err := r.Apply(t.Context(), author, []registry.Change{&registry.RenameMember{Member: memberID("DEV/GOV/1234"), Name: name}}); err != nil {
		t.Fatal(err)
	}
}

// directories verifies the signed directories of one publication.
func directory(t testing.TB, r *registry.Registry, all map[string]string, src registry.Source, version int) *globalconf.Directory {
	t.Helper()
	var certs []*x509.Certificate
	for _, k := range r.State().Keys(src) {
		certs = append(certs, must(x509.ParseCertificate(k.Certificate)))
	}
	d, err := globalconf.ParseDirectory([]byte(all[fmt.Sprintf("V%d/%sconf", version, src)]), certs)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Parts {
		if err := p.Matches([]byte(all[strings.TrimPrefix(p.Location, "/")])); err != nil {
			t.Errorf("version %d: %v", version, err)
		}
	}
	return d
}

func TestPublishedVersions(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := open(t, dir, registry.Config{Now: clk.now})
	ca := newAuthority("Test CA")
	auth := ca.auth("ss0")
	fill(t, r, ecosystem(ca, auth))
	publish(t, r)
	all := files(t, dir)
	for v := 2; v <= 6; v++ {
		internal, external := directory(t, r, all, registry.Internal, v), directory(t, r, all, registry.External, v)
		var names []string
		for _, p := range internal.Parts {
			names = append(names, p.Identifier)
			if p.Instance != "DEV" {
				t.Errorf("version %d: %s is of instance %q", v, p.Identifier, p.Instance)
			}
		}
		if want := []string{"PRIVATE-PARAMETERS", "SHARED-PARAMETERS", "MONITORING", "FETCHINTERVAL"}; !slices.Equal(names, want) {
			t.Errorf("version %d: internal parts %v", v, names)
		}
		if len(external.Parts) != 1 || external.Parts[0].Identifier != "SHARED-PARAMETERS" || external.Parts[0].Instance != "DEV" {
			t.Errorf("version %d: external parts %v", v, external.Parts)
		}
		if want := start.Add(600 * time.Second); !internal.Expires.Equal(want) || internal.Version != v || !external.Expires.Equal(want) {
			t.Errorf("version %d: %+v", v, internal)
		}
		shared, err := globalconf.ParseSharedParams([]byte(all[strings.TrimPrefix(external.Parts[0].Location, "/")]), v)
		if err != nil {
			t.Fatal(err)
		}
		ss1 := shared.Servers[slices.IndexFunc(shared.Servers, func(s globalconf.SecurityServer) bool { return s.ID == serverID("DEV/COM/99/SS1") })]
		if v < 5 && len(ss1.Clients) > 0 || v >= 5 && (len(ss1.Clients) != 1 || ss1.Maintenance == nil || ss1.Maintenance.Message != "moving house") {
			t.Errorf("version %d: server in maintenance %+v", v, ss1)
		}
		if v >= 3 && (len(shared.Sources) != 1 || shared.Sources[0].Address != "127.0.0.1:8001") {
			t.Errorf("version %d: sources %+v", v, shared.Sources)
		}
	}
	if got := r.Status(); !got.Healthy || got.Published != r.State().Number() || !slices.Equal(got.Versions, []int{2, 3, 4, 5, 6}) || !got.Expires.Equal(start.Add(600*time.Second)) || !got.At.Equal(start) {
		t.Errorf("status %+v", got)
	}
	clk.advance(600 * time.Second)
	if r.Status().Healthy {
		t.Error("healthy although the configuration has expired")
	}
}

func TestStablePublication(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := open(t, dir, registry.Config{Now: clk.now})
	fill(t, r, ecosystem(newAuthority("Test CA")))
	publish(t, r)
	first := files(t, dir)
	clk.advance(time.Minute)
	publish(t, r)
	second := files(t, dir)
	if !mapsEqual(parts(first), parts(second)) {
		t.Error("parts changed although the state did not")
	}
	if d := directory(t, r, second, registry.Internal, 6); !d.Expires.Equal(clk.now().Add(600 * time.Second)) {
		t.Errorf("expires %v", d.Expires)
	}

	// A change that no version shows keeps the folders as well.
	if _, err := r.Apply(t.Context(), author, []registry.Change{&registry.ActivateKey{Source: registry.Internal, Key: r.State().Keys(registry.Internal)[0].Hash()}}); err != nil {
		t.Fatal(err)
	}
	publish(t, r)
	if !mapsEqual(parts(first), parts(files(t, dir))) {
		t.Error("parts changed although their content did not")
	}

	// A subsystem's name appears from version 5 on: the others stay.
	if _, err := r.Apply(t.Context(), author, []registry.Change{&registry.RenameSubsystem{Subsystem: clientID("DEV/GOV/1234/register"), Name: "Register"}}); err != nil {
		t.Fatal(err)
	}
	publish(t, r)
	third := files(t, dir)
	for v := 2; v <= 6; v++ {
		old, now := directory(t, r, first, registry.Internal, v), directory(t, r, third, registry.Internal, v)
		if same := old.Parts[1].Location == now.Parts[1].Location; same != (v < 5) {
			t.Errorf("version %d: %s became %s", v, old.Parts[1].Location, now.Parts[1].Location)
		}
	}

	// Another process with the same state writes the same bytes.
	anchor := must(r.InternalAnchor())
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	clk.advance(time.Minute)
	again, err := registry.Open(dir, pin, registry.Config{Now: clk.now})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	publish(t, again)
	if !bytes.Equal(anchor, must(again.InternalAnchor())) {
		t.Error("the anchor changed")
	}
	fourth := files(t, dir)
	for v := 2; v <= 6; v++ {
		old, now := directory(t, again, third, registry.Internal, v), directory(t, again, fourth, registry.Internal, v)
		for i := range old.Parts {
			if !bytes.Equal(old.Parts[i].Hash, now.Parts[i].Hash) {
				t.Errorf("version %d: %s changed", v, old.Parts[i].Identifier)
			}
		}
	}
}

func mapsEqual(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

func TestOldPartsStayAWhile(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := open(t, dir, registry.Config{Now: clk.now})
	fill(t, r, ecosystem(newAuthority("Test CA")))
	publish(t, r)
	old := parts(files(t, dir))
	clk.advance(time.Hour) // named by the directories until now
	rename(t, r, "New name")
	publish(t, r)
	clk.advance(registry.KeepParts - time.Second)
	publish(t, r)
	all := files(t, dir)
	for name := range old {
		if all[name] != old[name] {
			t.Errorf("%s is gone too early", name)
		}
	}
	clk.advance(time.Second)
	publish(t, r)
	if all = files(t, dir); len(parts(all)) != len(old) {
		t.Errorf("%d parts on disk, want %d", len(parts(all)), len(old))
	}
	directory(t, r, all, registry.Internal, 6)

	// The same across a restart: what was named until then stays.
	old = parts(all)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := registry.Open(dir, pin, registry.Config{Now: clk.now})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	clk.advance(time.Hour)
	publish(t, again)
	all = files(t, dir)
	for name := range old {
		if all[name] != old[name] {
			t.Errorf("%s is gone after a restart", name)
		}
	}
	clk.advance(registry.KeepParts)
	publish(t, again)
	if all = files(t, dir); len(parts(all)) != len(old) {
		t.Errorf("%d parts on disk after a restart, want %d", len(parts(all)), len(old))
	}
}

// TestGenerationsOnlyGrow: clients refuse what calls itself older.
func TestGenerationsOnlyGrow(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := open(t, dir, registry.Config{Now: clk.now})
	fill(t, r, ecosystem(newAuthority("Test CA")))
	publish(t, r)
	before := directory(t, r, files(t, dir), registry.Internal, 6).Parts[1].Location
	if w := r.Status().Warning; w != "" {
		t.Errorf("warning %q", w)
	}
	clk.advance(-24 * time.Hour)
	if w := r.Status().Warning; !strings.Contains(w, "the clock of this machine says") {
		t.Errorf("warning %q of a clock that is a day behind", w)
	}
	rename(t, r, "New name")
	publish(t, r)
	if after := directory(t, r, files(t, dir), registry.Internal, 6).Parts[1].Location; after <= before {
		t.Errorf("%s after %s", after, before)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := registry.Open(dir, pin, registry.Config{Now: clk.now})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	publish(t, again)
	if after := directory(t, again, files(t, dir), registry.Internal, 6).Parts[1].Location; after <= before {
		t.Errorf("%s after %s and a restart", after, before)
	}
}

func TestBrokenConfigurationIsNotPublished(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := open(t, dir, registry.Config{Now: clk.now})
	if err := r.Publish(t.Context()); err == nil || !strings.Contains(err.Error(), "managementProvider") {
		t.Fatalf("published without a management provider: %v", err)
	}
	if s := r.Status(); s.Healthy || s.Published != 0 || !strings.Contains(s.Error, "managementProvider") || !s.Failed.Equal(start) {
		t.Errorf("status %+v", s)
	}
	fill(t, r, ecosystem(newAuthority("Test CA")))
	publish(t, r)
	good := files(t, dir)

	sys := r.State().System()
	sys.ManagementProvider = id.Client{}
	if _, err := r.Apply(t.Context(), author, []registry.Change{&registry.SetSystem{System: sys}}); err != nil {
		t.Fatal(err)
	}
	clk.advance(time.Minute)
	if err := r.Publish(t.Context()); err == nil {
		t.Fatal("published")
	}
	if !mapsEqual(files(t, dir), good) {
		t.Error("the last good configuration was touched")
	}
	if s := r.Status(); s.Healthy || s.Published != r.State().Number()-1 || !s.At.Equal(start) || s.Error == "" {
		t.Errorf("status %+v", s)
	}

	// Once mended, it is published at once.
	fill(t, r, &registry.Ecosystem{Instance: "DEV", Settings: ecosystem(newAuthority("x")).Settings})
	publish(t, r)
	if s := r.Status(); !s.Healthy || s.Error != "" || !s.Failed.IsZero() {
		t.Errorf("status %+v", s)
	}
}

// TestHalfWrittenPublication leaves behind what a crash may leave at every
// point, and loads the configuration all the same.
func TestHalfWrittenPublication(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := open(t, dir, registry.Config{Now: clk.now})
	fill(t, r, ecosystem(newAuthority("Test CA")))
	publish(t, r)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(dir, "public")
	folder := filepath.Join(public, "V6", globalconf.Folder(start.Add(time.Hour)))
	if err := errors.Join(
		os.Mkdir(folder, 0o755),
		os.WriteFile(filepath.Join(folder, "shared-params.xml"), []byte("<half"), 0o644),
		os.WriteFile(filepath.Join(public, "V6", ".internalconf"), []byte("half"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	again, err := registry.Open(dir, pin, registry.Config{Now: clk.now})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	srv := httptest.NewServer(again.Handler())
	defer srv.Close()
	load(t, again, srv, clk) // the last publication, before the next
	publish(t, again)
	view := load(t, again, srv, clk)
	if !view.Known(clientID("DEV/GOV/1234/register")) {
		t.Error("nothing loaded")
	}
	if _, err := os.Stat(filepath.Join(public, "V6", ".internalconf")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the half directory is still there")
	}
	clk.advance(registry.KeepParts)
	publish(t, again)
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the half folder is still there")
	}
}

// TestLostParts: what somebody removes is published anew.
func TestLostParts(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := open(t, dir, registry.Config{Now: clk.now})
	fill(t, r, ecosystem(newAuthority("Test CA")))
	publish(t, r)
	folders, err := filepath.Glob(filepath.Join(dir, "public", "V4", "2*"))
	if err != nil || len(folders) != 1 {
		t.Fatal(folders, err)
	}
	if err := os.RemoveAll(folders[0]); err != nil {
		t.Fatal(err)
	}
	publish(t, r)
	directory(t, r, files(t, dir), registry.Internal, 4)
}

// TestUnwritable: a disk that takes nothing costs the publication, not the
// process, and leaves no rubbish.
func TestUnwritable(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := open(t, dir, registry.Config{Now: clk.now})
	fill(t, r, ecosystem(newAuthority("Test CA")))
	publish(t, r)
	v6 := filepath.Join(dir, "public", "V6")
	if err := errors.Join(os.Rename(v6, v6+"-away"), os.WriteFile(v6, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	rename(t, r, "New name")
	clk.advance(time.Minute)
	if err := r.Publish(t.Context()); err == nil || r.Status().Healthy {
		t.Error("published onto a file")
	}
	if err := errors.Join(os.Remove(v6), os.Rename(v6+"-away", v6)); err != nil {
		t.Fatal(err)
	}
	publish(t, r)
	directory(t, r, files(t, dir), registry.Internal, 6)
	clk.advance(registry.KeepParts)
	publish(t, r)
	if left, err := filepath.Glob(filepath.Join(dir, "public", "V*", "2*")); err != nil || len(left) != 5 {
		t.Errorf("folders %v, %v", left, err)
	}
}

func TestPublicDirElsewhere(t *testing.T) {
	t.Parallel()
	dir, clk, public := newDir(t), newClock(), filepath.Join(t.TempDir(), "www")
	r := open(t, dir, registry.Config{Now: clk.now, PublicDir: public})
	fill(t, r, ecosystem(newAuthority("Test CA")))
	publish(t, r)
	info, err := os.Stat(filepath.Join(public, "V6", "internalconf"))
	if err != nil || info.Mode().Perm()&0o444 != 0o444 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "public")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("published in the registry's directory as well")
	}
}

func TestMinimumVersion(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := open(t, dir, registry.Config{Now: clk.now})
	fill(t, r, ecosystem(newAuthority("Test CA")))
	publish(t, r)
	four := 4
	fill(t, r, &registry.Ecosystem{Instance: "DEV", Settings: &registry.Settings{MinimumVersion: &four}})
	publish(t, r)
	for v := 2; v <= 6; v++ {
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, httptest.NewRequest("GET", fmt.Sprintf("/internalconf?version=%d", v), nil))
		if found := w.Code == 200; found != (v >= 4) {
			t.Errorf("version %d: %d", v, w.Code)
		}
	}
	clk.advance(registry.KeepParts)
	publish(t, r)
	if left, _ := filepath.Glob(filepath.Join(dir, "public", "V[23]", "*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// load has a gateway's client load the configuration over HTTP.
func load(t testing.TB, r *registry.Registry, srv *httptest.Server, clk *clock) *globalconf.View {
	t.Helper()
	c := newClient(t, must(r.InternalAnchor()), srv, clk, "")
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c.View()
}

func newClient(t testing.TB, anchor []byte, srv *httptest.Server, clk *clock, dir string) *globalconf.Client {
	t.Helper()
	c, err := globalconf.NewClient(globalconf.ClientConfig{Anchor: anchor, Dir: dir, HTTP: &http.Client{Transport: redirect{srv}}, Now: clk.now})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// redirect sends plain requests for the registry's address to the test server.
type redirect struct{ srv *httptest.Server }

func (rt redirect) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "http" || req.URL.Host != "127.0.0.1:8001" {
		return nil, fmt.Errorf("nobody listens at %s", req.URL)
	}
	req = req.Clone(req.Context())
	req.URL.Host = rt.srv.Listener.Addr().String()
	return http.DefaultTransport.RoundTrip(req)
}

func TestClientLoadsPublication(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := open(t, dir, registry.Config{Now: clk.now})
	ca := newAuthority("Test CA")
	auth := ca.auth("ss0")
	fill(t, r, ecosystem(ca, auth))
	publish(t, r)
	srv := httptest.NewServer(r.Handler())
	defer srv.Close()
	c := newClient(t, must(r.InternalAnchor()), srv, clk, t.TempDir())
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	view := c.View()
	if view.Version() != 6 || view.Instance() != "DEV" || !view.Expires().Equal(start.Add(600*time.Second)) {
		t.Errorf("version %d of %s until %v", view.Version(), view.Instance(), view.Expires())
	}
	if s, ok := view.ServerByCertificate(auth); !ok || s.ID != serverID("DEV/GOV/1234/SS0") || s.Address != "ss0.example" {
		t.Errorf("server %+v", s)
	}
	if p := view.Providers(clientID("DEV/GOV/1234/register")); len(p) != 1 || !p[0].Maintenance {
		t.Errorf("providers %+v", p)
	}
	owners, _ := id.NewGlobalGroup("DEV", registry.OwnersGroup)
	friends, _ := id.NewGlobalGroup("DEV", "friends")
	if !view.InGlobalGroup(memberID("DEV/COM/99").Client(), owners) || !view.InGlobalGroup(clientID("DEV/COM/99/monitor"), friends) || view.InGlobalGroup(clientID("DEV/COM/99/monitor"), owners) {
		t.Error("groups")
	}
	if a := view.Authorities(ca.cert.RawSubject); len(a) != 1 || a[0].Profile == nil || len(a[0].Responders) != 1 {
		t.Errorf("authorities %+v", a)
	}
	if tsas := view.TSAs("DEV"); len(tsas) != 1 || tsas[0].URL != "http://ca.example:8899" {
		t.Errorf("TSAs %+v", tsas)
	}
	if addr, _, provider := view.Management(); addr != "https://127.0.0.1:4001/managementservice/" || provider != clientID("DEV/GOV/1234/MANAGEMENT") {
		t.Errorf("management %s, %s", addr, provider)
	}
	if view.MonitoringClient() != clientID("DEV/COM/99/monitor") || view.OCSPFetchInterval() != 10*time.Minute || view.Name(memberID("DEV/GOV/1234").Client()) != "Board & <Co>" {
		t.Error("optional parts or names")
	}
	if p := view.Problems(); len(p) > 0 {
		t.Error(p)
	}

	// A change reaches the client with the next publication, also if the
	// registry's clock has stepped back a little meanwhile.
	clk.advance(-time.Minute)
	rename(t, r, "New name")
	publish(t, r)
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.View().Name(memberID("DEV/GOV/1234").Client()); got != "New name" {
		t.Errorf("name %q", got)
	}

	// Key rotation, without a new anchor.
	key, err := r.GenerateKey(t.Context(), author, registry.Internal, pki.RSA2048)
	if err != nil {
		t.Fatal(err)
	}
	old := r.State().Keys(registry.Internal)[0].Hash()
	for _, step := range []registry.Change{&registry.ActivateKey{Source: registry.Internal, Key: key}, &registry.RetireKey{Source: registry.Internal, Key: old}} {
		publish(t, r)
		if err := c.Update(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Apply(t.Context(), author, []registry.Change{step}); err != nil {
			t.Fatal(err)
		}
		clk.advance(time.Minute)
	}
	publish(t, r)
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := clk.now().Add(600 * time.Second); !c.View().Expires().Equal(want) {
		t.Errorf("expires %v, want %v", c.View().Expires(), want)
	}
	if keys := must(pki.OpenToken(filepath.Join(dir, "keys"), pin)).Keys(); len(keys) != 2 {
		t.Errorf("%d private keys, the retired one is still there", len(keys))
	}
}

func TestExternalSource(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := open(t, dir, registry.Config{Now: clk.now})
	fill(t, r, ecosystem(newAuthority("Test CA")))
	publish(t, r)
	srv := httptest.NewServer(r.Handler())
	defer srv.Close()
	c, err := globalconf.NewClient(globalconf.ClientConfig{Anchor: must(r.ExternalAnchor()), External: true, HTTP: &http.Client{Transport: redirect{srv}}, Now: clk.now})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !c.View().Known(clientID("DEV/GOV/1234/register")) {
		t.Error("partner sees no members")
	}
}

func TestKeysOfTheRegistry(t *testing.T) {
	t.Parallel()
	r := open(t, newDir(t), registry.Config{})
	foreign := newAuthority("foreign").cert.Raw
	hash := registry.SourceKey{Certificate: foreign}.Hash()
	_, err := r.Apply(t.Context(), author, []registry.Change{&registry.AddKey{Source: registry.Internal, Certificate: foreign}, &registry.ActivateKey{Source: registry.Internal, Key: hash}})
	if !errors.Is(err, registry.ErrUnknown) || !strings.Contains(err.Error(), "private key") {
		t.Errorf("a key that the registry does not hold: %v", err)
	}
	if _, err := r.GenerateKey(t.Context(), author, "third", ""); err == nil {
		t.Error("a third source")
	}
	if _, err := r.GenerateKey(t.Context(), registry.Author{}, registry.External, pki.P256); err == nil {
		t.Error("an unnamed author")
	}
	for _, by := range []registry.Author{{}, {Who: " "}, {Who: "a\x00"}, {Who: "\xff"}, {Who: "a", Why: strings.Repeat("x", 2001)}} {
		if _, err := r.Apply(t.Context(), by, nil); err == nil {
			t.Errorf("author %q accepted", by)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Apply(cancelled, author, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := r.Publish(cancelled); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	before := r.State()
	if n, err := r.Apply(t.Context(), author, nil); err != nil || n != before.Number() || r.State() != before {
		t.Errorf("no changes: %d, %v", n, err)
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	dir, clk := newDir(t), newClock()
	r := open(t, dir, registry.Config{Now: clk.now})
	srv := httptest.NewServer(r.Handler())
	defer srv.Close()
	get := func(method, target string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(b)
	}
	if res, _ := get("GET", "/internalconf"); res.StatusCode != 404 {
		t.Errorf("before the first publication: %d", res.StatusCode)
	}
	fill(t, r, ecosystem(newAuthority("Test CA")))
	publish(t, r)
	all := files(t, dir)
	location := directory(t, r, all, registry.Internal, 6).Parts[1].Location
	private := strings.Replace(location, "shared", "private", 1)

	for target, want := range map[string]string{
		"/internalconf":                     all["V2/internalconf"],
		"/internalconf?version=2":           all["V2/internalconf"],
		"/internalconf?version=6":           all["V6/internalconf"],
		"/externalconf?version=5":           all["V5/externalconf"],
		"/V3/internalconf":                  all["V3/internalconf"],
		location:                            all[location[1:]],
		private:                             all[private[1:]],
		"/anchor/internal":                  string(must(r.InternalAnchor())),
		"/anchor/external":                  string(must(r.ExternalAnchor())),
		"/internalconf?version=1":           "",
		"/internalconf?version=7":           "",
		"/internalconf?version=":            "",
		"/internalconf?version=06":          "",
		"/internalconf?version=6/../V2":     "",
		"/V6/.internalconf":                 "",
		"/V6/":                              "",
		"/V6":                               "",
		"/":                                 "",
		"/V6/../../journal/CURRENT":         "",
		"/V6/%2e%2e/%2e%2e/journal/CURRENT": "",
		"/..%2fkeys/token.json":             "",
		location + "/":                      "",
		"//internalconf":                    "",
	} {
		res, body := get("GET", target)
		switch {
		case want == "":
			if res.StatusCode != 404 {
				t.Errorf("%s: %d", target, res.StatusCode)
			}
		case res.StatusCode != 200 || body != want:
			t.Errorf("%s: %d, %d bytes, want %d", target, res.StatusCode, len(body), len(want))
		}
		if strings.Contains(target, "conf") && res.StatusCode == 200 && (res.Header.Get("Cache-Control") != "no-cache" || res.Header.Get("Expires") == "") {
			t.Errorf("%s: %v", target, res.Header)
		}
		if head, body := get("HEAD", target); head.StatusCode != res.StatusCode || body != "" || head.ContentLength != res.ContentLength {
			t.Errorf("HEAD %s: %d, %d bytes", target, head.StatusCode, head.ContentLength)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		if res, _ := get(method, "/internalconf"); res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d", method, res.StatusCode)
		}
	}
	if res, _ := get("GET", "/anchor/internal"); !strings.Contains(res.Header.Get("Content-Disposition"), "configuration-anchor-internal.xml") {
		t.Errorf("anchor: %v", res.Header)
	}
}

// TestRun publishes at once, every minute, and after a change; a failure is
// reported and does not end it.
func TestRun(t *testing.T) {
	dir := newDir(t)
	store := copyOf(t, dir)
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		r := open(t, dir, registry.Config{Store: store, Log: zap.New(core)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		if n := logs.FilterLevelExact(zapcore.ErrorLevel).Len(); n != 1 || r.Status().Healthy {
			t.Errorf("%d errors reported, status %+v", n, r.Status())
		}
		fill(t, r, ecosystem(newAuthority("Test CA")))
		synctest.Wait()
		if s := r.Status(); !s.Healthy || s.Published != r.State().Number() {
			t.Errorf("after a change: %+v", s)
		}
		began := time.Now()
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if s := r.Status(); !s.At.After(began) {
			t.Errorf("after a minute: %+v", s)
		}
		rename(t, r, "New name")
		synctest.Wait()
		if s := r.Status(); s.Published != r.State().Number() {
			t.Errorf("after another change: %+v", s)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
