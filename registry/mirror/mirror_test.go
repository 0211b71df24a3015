// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/globalconf"
	"kontor/registry/id"
	"kontor/registry/mirror"
)

var pin = []byte("4711")

var author = registry.Author{Who: "test"}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// centre is a registry on the net.
type centre struct {
	*registry.Registry
	*httptest.Server
	t *testing.T

	mu sync.Mutex
	// spoil changes answers.
	spoil func(path string, body []byte) []byte
}

func newCentre(t *testing.T, c *clock, instance string) *centre {
	t.Helper()
	s := &centre{t: t}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Server.Close)
	dir := t.TempDir()
	err := registry.Create(dir, pin, registry.CreateConfig{Instance: instance, Address: s.Listener.Addr().String(), Algorithm: pki.P256, By: author, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	if s.Registry, err = registry.Open(dir, pin, registry.Config{Now: c.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Registry.Close() })
	provider := must(id.ParseClient(url.PathEscape(instance) + "/GOV/1/management"))
	s.declare(&registry.Ecosystem{
		Instance: instance, Settings: &registry.Settings{ManagementProvider: &provider},
		MemberClasses: []registry.ClassDecl{{Code: "GOV", Description: "Government"}},
		Members:       []registry.MemberDecl{{Class: "GOV", Code: "1", Name: "First & <only>", Subsystems: []registry.SubsystemDecl{{Code: "management", Name: "Verwaltung"}}}},
	})
	return s
}

func (s *centre) declare(e *registry.Ecosystem) {
	s.t.Helper()
	changes, err := registry.Plan(s.State(), e)
	if err != nil {
		s.t.Fatal(err)
	}
	s.apply(changes...)
}

func (s *centre) apply(changes ...registry.Change) {
	s.t.Helper()
	if _, err := s.Apply(s.t.Context(), author, changes); err != nil {
		s.t.Fatal(err)
	}
	s.publish()
}

func (s *centre) publish() {
	s.t.Helper()
	if err := s.Publish(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *centre) serve(w http.ResponseWriter, r *http.Request) {
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, r)
	s.mu.Lock()
	spoil := s.spoil
	s.mu.Unlock()
	body := rec.Body.Bytes()
	if spoil != nil {
		body = spoil(r.URL.Path, body)
	}
	if body == nil {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(body)
}

func (s *centre) spoils(f func(path string, body []byte) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoil = f
}

// open opens a mirror on the net. A nil server makes one.
func open(t *testing.T, c *clock, dir, anchor string, front *httptest.Server, change func(*mirror.Config)) (*mirror.Mirror, *httptest.Server) {
	t.Helper()
	var handler http.Handler
	if front == nil {
		front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
		t.Cleanup(front.Close)
	}
	cfg := mirror.Config{Address: front.Listener.Addr().String(), AnchorFile: anchor, Now: c.now}
	if change != nil {
		change(&cfg)
	}
	m, err := mirror.Open(dir, pin, cfg)
	if err != nil {
		t.Fatal(err)
	}
	handler = m.Handler()
	return m, front
}

type world struct {
	t      *testing.T
	clock  *clock
	centre *centre
	dir    string
	anchor string
	m      *mirror.Mirror
	front  *httptest.Server
}

func newWorld(t *testing.T, change func(*mirror.Config)) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{t: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, dir: filepath.Join(t.TempDir(), "mirror")}
	w.centre = newCentre(t, w.clock, "DEV")
	w.anchor = filepath.Join(t.TempDir(), "anchor.xml")
	if err := os.WriteFile(w.anchor, must(w.centre.InternalAnchor()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := mirror.Create(w.dir, pin, pki.P256); err != nil {
		t.Fatal(err)
	}
	w.m, w.front = open(t, w.clock, w.dir, w.anchor, nil, change)
	t.Cleanup(func() { w.m.Close() })
	return w
}

func (w *world) update() {
	w.t.Helper()
	if err := w.m.Update(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(path string) (int, string) {
	w.t.Helper()
	resp, err := http.Get(w.front.URL + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, string(must(io.ReadAll(resp.Body)))
}

// load is a gateway that loads through the mirror.
func (w *world) load(version int) (*globalconf.View, error) {
	c, err := globalconf.NewClient(globalconf.ClientConfig{Anchor: w.m.Anchor(), Version: version, Now: w.clock.now})
	if err != nil {
		return nil, err
	}
	err = c.Update(w.t.Context())
	return c.View(), err
}

func (w *world) name() string {
	w.t.Helper()
	v, err := w.load(0)
	if err != nil {
		w.t.Fatal(err)
	}
	return v.Name(must(id.ParseMember("DEV/GOV/1")).Client())
}

func (w *world) rename(name string) {
	w.t.Helper()
	w.centre.declare(&registry.Ecosystem{Instance: "DEV", Members: []registry.MemberDecl{{Class: "GOV", Code: "1", Name: name,
		Subsystems: []registry.SubsystemDecl{{Code: "management", Name: "Verwaltung"}}}}})
}

// Making and opening keys takes long, so the tests share what they can.
func TestMirror(t *testing.T) {
	w := newWorld(t, func(c *mirror.Config) {
		c.Federations = []string{"all"}
		c.Validity = time.Hour // more than the registry gives
	})
	for _, test := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"all versions", testAllVersions}, {"changes", testChanges}, {"tampering", testTampering},
		{"federated", testFederated}, {"upstream down", testUpstreamDown}, {"refusals", testRefusals},
	} {
		ok := t.Run(test.name, func(t *testing.T) {
			w.t, w.centre.t = t, t
			test.run(t, w)
		})
		if !ok {
			return // the next one relies on it
		}
	}
}

func testAllVersions(t *testing.T, w *world) {
	if status, _ := w.get("/mirror/conf?version=6"); status != http.StatusNotFound {
		t.Errorf("status %d before anything was mirrored", status)
	}
	w.update()
	anchor := must(globalconf.ParseAnchor(w.m.Anchor()))
	if anchor.Instance != "DEV" || len(anchor.Sources) != 1 || anchor.Sources[0].URL != w.front.URL+"/mirror/conf" {
		t.Errorf("anchor %+v", anchor)
	}
	original := must(globalconf.ParseAnchor(must(w.centre.InternalAnchor())))
	for version := globalconf.MinVersion; version <= globalconf.CurrentVersion; version++ {
		direct, err := globalconf.NewClient(globalconf.ClientConfig{Anchor: must(original.Marshal()), Version: version, Now: w.clock.now})
		if err == nil {
			err = direct.Update(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		v, err := w.load(version)
		if err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		want, _ := direct.View().Documents("DEV")
		got, _ := v.Documents("DEV")
		if len(got) != len(want) || len(got) < 2 {
			t.Fatalf("version %d: %d parts, want %d", version, len(got), len(want))
		}
		for i := range got {
			if got[i].Identifier != want[i].Identifier {
				t.Errorf("version %d: %s", version, got[i].Identifier)
			}
			if form := fmt.Sprintf(`^/mirror/\d{13}/DEV/V%d/\d{23}/[a-z-]+\.xml$`, version); !regexp.MustCompile(form).MatchString(got[i].Location) {
				t.Errorf("location %s", got[i].Location)
			}
			if version < 3 || got[i].Identifier != globalconf.ContentSharedParams {
				if got[i].Content != want[i].Content {
					t.Errorf("version %d: %s has changed", version, got[i].Identifier)
				}
				continue
			}
			p := must(globalconf.ParseSharedParams([]byte(got[i].Content), version))
			cert := anchor.Sources[0].Certs[0]
			if len(p.Sources) != 1 || "http://"+p.Sources[0].Address != w.front.URL ||
				!bytes.Equal(p.Sources[0].InternalCerts[0], cert) || !bytes.Equal(p.Sources[0].ExternalCerts[0], cert) {
				t.Errorf("sources %+v", p.Sources)
			}
			source := regexp.MustCompile(`(?s)<source>.*</source>`)
			if source.ReplaceAllString(got[i].Content, "") != source.ReplaceAllString(want[i].Content, "") {
				t.Errorf("version %d: more than the sources has changed", version)
			}
		}
	}
	_, second := w.get("/mirror/conf?version=2")
	if _, plain := w.get("/mirror/conf"); plain != second || !strings.Contains(plain, "\r\nVersion: 2\r\n") {
		t.Error("without a version it is not version 2")
	}
	for _, want := range []string{`instance="DEV"`, "; hash-algorithm-id=http://", ".000Z\r\n"} {
		if !strings.Contains(second, want) {
			t.Errorf("not the form of a configuration proxy: no %q in\n%s", want, second)
		}
	}
	for _, path := range []string{"/mirror/conf?version=7", "/mirror/conf?version=06x", "/mirror/", "/", "/internalconf?version=6", "/mirror/..%2Fkeys/token.json", "/mirror/1/../../mirror.json"} {
		if status, _ := w.get(path); status != http.StatusNotFound {
			t.Errorf("%s: status %d", path, status)
		}
	}
	if status, doc := w.get("/mirror/anchor"); status != http.StatusOK || doc != string(w.m.Anchor()) {
		t.Errorf("anchor: status %d", status)
	}
	resp, err := http.Post(w.front.URL+"/mirror/conf", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d", resp.StatusCode)
	}
	if s := w.m.Status(); !s.Healthy || len(s.Versions) != 5 || s.Versions[0].Error != "" || s.Instance != "DEV" {
		t.Errorf("status %+v", s)
	}
}

// What the registry changes arrives; what it does not change stays where it is.
func testChanges(t *testing.T, w *world) {
	w.update()
	location := regexp.MustCompile(`Content-location: (\S+shared-params.xml)`)
	part := func() string {
		_, doc := w.get("/mirror/conf?version=6")
		return location.FindStringSubmatch(doc)[1]
	}
	first := part()
	w.clock.advance(time.Minute)
	w.centre.publish()
	w.update()
	if again := part(); again != first {
		t.Errorf("%s moved to %s without a change", first, again)
	}
	w.clock.advance(time.Minute)
	w.rename("Other")
	w.update()
	if got := w.name(); got != "Other" {
		t.Errorf("name %q", got)
	}
	w.rename("First & <only>")
	w.update()
	if got := w.name(); got != "First & <only>" {
		t.Errorf("name %q", got)
	}
	if status, _ := w.get(first); status != http.StatusOK {
		t.Errorf("a client that read the old directory gets status %d", status)
	}
	w.clock.advance(11 * time.Minute)
	w.centre.publish()
	w.update()
	if status, _ := w.get(first); status != http.StatusNotFound {
		t.Errorf("old parts stay: status %d", status)
	}
	// A version that the registry withdraws is served until it expires.
	w.clock.advance(time.Minute)
	least := 4
	w.centre.declare(&registry.Ecosystem{Instance: "DEV", Settings: &registry.Settings{MinimumVersion: &least}})
	w.update()
	if _, err := w.load(3); err != nil {
		t.Error(err)
	}
	for range 11 {
		w.clock.advance(time.Minute)
		w.centre.publish()
		w.update()
	}
	if _, err := w.load(3); !errors.Is(err, globalconf.ErrUnavailable) {
		t.Errorf("a withdrawn version loads: %v", err)
	}
	if _, err := w.load(4); err != nil {
		t.Error(err)
	}
}

// Whatever is done to the registry's answers, the last good configuration is
// what clients get.
func testTampering(t *testing.T, w *world) {
	w.update()
	w.clock.advance(time.Minute)
	w.rename("Second")
	for name, spoil := range map[string]func(path string, body []byte) []byte{
		"a changed part": func(path string, body []byte) []byte {
			return bytes.ReplaceAll(body, []byte("Second"), []byte("Forged"))
		},
		"a changed directory": func(path string, body []byte) []byte {
			return bytes.ReplaceAll(body, []byte("Expire-date: 2026"), []byte("Expire-date: 2027"))
		},
		"no directory": func(path string, body []byte) []byte {
			if path == "/internalconf" {
				return []byte("<html>maintenance</html>")
			}
			return body
		},
		"no parts": func(path string, body []byte) []byte {
			if path != "/internalconf" {
				return nil
			}
			return body
		},
		"nothing": func(string, []byte) []byte { return nil },
	} {
		w.centre.spoils(spoil)
		if err := w.m.Update(t.Context()); !errors.Is(err, mirror.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if got := w.name(); got != "First & <only>" {
			t.Errorf("%s: name %q", name, got)
		}
		if s := w.m.Status(); s.Versions[4].Error == "" || !s.Healthy {
			t.Errorf("%s: status %+v", name, s)
		}
	}
	w.centre.spoils(nil)
	w.update()
	if got := w.name(); got != "Second" {
		t.Errorf("name %q", got)
	}
}

// A registry that is down takes its mirror with it, but not before its last
// word expires, and a restart changes nothing.
func testUpstreamDown(t *testing.T, w *world) {
	w.update()
	w.centre.spoils(func(string, []byte) []byte { return nil })
	w.clock.advance(9 * time.Minute)
	if err := w.m.Update(t.Context()); err == nil {
		t.Error("a mirror of nothing")
	}
	w.name()
	if err := w.m.Close(); err != nil {
		t.Fatal(err)
	}
	front := w.front
	w.m, _ = open(t, w.clock, w.dir, w.anchor, front, nil)
	front.Config.Handler = w.m.Handler()
	w.name()
	w.clock.advance(2 * time.Minute)
	if status, _ := w.get("/mirror/conf?version=6"); status != http.StatusServiceUnavailable {
		t.Errorf("status %d", status)
	}
	if w.m.Status().Healthy {
		t.Error("healthy with an expired configuration")
	}
	w.centre.spoils(nil)
	w.centre.publish()
	w.update()
	w.name()
}

// Federated parameters are passed on if asked for, and never outlive the word
// of their registry.
func testFederated(t *testing.T, w *world) {
	partner := newCentre(t, w.clock, "PART NER")
	w.centre.apply(&registry.TrustAnchor{Instance: "PART NER", Anchor: must(partner.ExternalAnchor())})
	w.update()
	line := `SHARED-PARAMETERS; instance="PART NER"`
	_, doc := w.get("/mirror/conf?version=6")
	if !strings.Contains(doc, line) || strings.Count(doc, "PRIVATE-PARAMETERS") != 1 {
		t.Fatalf("%s", doc)
	}
	path := regexp.MustCompile(`Content-location: (/mirror/\d+/PART%20NER/\S+)`).FindStringSubmatch(doc)
	if path == nil {
		t.Fatalf("%s", doc)
	}
	if status, part := w.get(path[1]); status != http.StatusOK || !strings.Contains(part, "PART NER") {
		t.Errorf("status %d: %.200s", status, part)
	}
	w.name() // our own reader ignores the foreign part
	partner.spoils(func(string, []byte) []byte { return nil })
	for range 9 {
		w.clock.advance(time.Minute)
		w.centre.publish()
		w.update()
	}
	if _, doc = w.get("/mirror/conf?version=6"); strings.Contains(doc, line) {
		t.Error("the partner's parameters stay although its registry is silent")
	}
	w.name()
}

func testRefusals(t *testing.T, w *world) {
	if err := mirror.Create(w.dir, pin, pki.P256); !errors.Is(err, mirror.ErrCreated) {
		t.Errorf("created twice: %v", err)
	}
	own := filepath.Join(t.TempDir(), "own.xml")
	if err := os.WriteFile(own, w.m.Anchor(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		dir  string
		pin  []byte
		cfg  mirror.Config
		want string
	}{
		"no mirror":      {t.TempDir(), pin, mirror.Config{AnchorFile: w.anchor}, "no mirror here"},
		"wrong PIN":      {w.dir, []byte("0815"), mirror.Config{AnchorFile: w.anchor, Address: "a"}, "wrong PIN"},
		"own anchor":     {w.dir, pin, mirror.Config{AnchorFile: own, Address: "a"}, "mirror's own"},
		"no anchor":      {w.dir, pin, mirror.Config{AnchorFile: w.anchor + "x", Address: "a"}, "no such file"},
		"reserved name":  {w.dir, pin, mirror.Config{AnchorFile: w.anchor, Address: "a", Name: "internalconf"}, "cannot be the name"},
		"name of a path": {w.dir, pin, mirror.Config{AnchorFile: w.anchor, Address: "a", Name: "a/b"}, "cannot be the name"},
		"no address":     {w.dir, pin, mirror.Config{AnchorFile: w.anchor}, "HTTP URL"},
	} {
		if _, err := mirror.Open(tc.dir, tc.pin, tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
