// SPDX-License-Identifier: Apache-2.0

//go:build linux

package published_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/pki"
	"kontor/registry/admin"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// killed is a registry in a process of its own, which dies again and again.
type killed struct {
	*testing.T
	cfg    *config.Registry
	file   string
	binary string
	api    *admin.Client
	log    *os.File
	// anchors are those of the internal and the external source.
	anchors   []*globalconf.Anchor
	downloads int // of the one goroutine that makes them

	mu        sync.Mutex
	attempted map[id.Member]string // names
	confirmed map[id.Member]bool
}

func newKilled(t *testing.T) *killed {
	dir := t.TempDir()
	k := &killed{T: t, file: filepath.Join(dir, "registry.yaml"), binary: filepath.Join(dir, "kontor"), attempted: map[id.Member]string{}, confirmed: map[id.Member]bool{}}
	if bin := os.Getenv("KONTOR_BIN"); bin != "" {
		k.binary = filepath.Join(bin, "kontor")
	} else {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", k.binary, "./cmd/kontor")
		cmd.Dir, cmd.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	k.log = must(os.Create(filepath.Join(dir, "log")))
	t.Cleanup(func() { k.log.Close() })
	text := fmt.Sprintf(`instance: DEV
data_dir: %[1]s/data
pin_file: %[1]s/pin
address: "127.47.0.1:18080"
publish_interval: 1s
listen: {http: "127.47.0.1:18080", admin: "127.47.0.1:14000", management: "", management_internal: "", metrics: ""}
`, dir)
	if err := os.WriteFile(k.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k.cfg = must(config.LoadRegistry(k.file))
	if err := roles.InitRegistry(k.cfg, pki.P256); err != nil {
		t.Fatal(err)
	}
	certFile, _ := roles.RegistryTLSFiles(k.cfg)
	key := must(roles.Secret(roles.RegistryKeyFile(k.cfg), "key"))
	k.api = admin.NewClient("https://127.47.0.1:14000", string(key), must(x509.ParseCertificate(must(roles.ReadDER(certFile, "CERTIFICATE")))))
	stop := k.start()
	defer stop()
	k.eventually("an answer", func() error { _, err := k.api.Status(t.Context()); return err })
	terms := admin.ChangeTerms{}
	must(k.api.AddMemberClass(t.Context(), terms, admin.MemberClass{Code: "GOV", Description: "Government"}))
	provider := client("DEV/GOV/0/management")
	must(k.api.AddMember(t.Context(), terms, provider.Member(), "Provider"))
	must(k.api.AddSubsystem(t.Context(), terms, provider, ""))
	must(k.api.ChangeManagement(t.Context(), terms, admin.ManagementChange{Provider: &provider}))
	k.eventually("a publication", func() error {
		if st, err := k.api.Status(t.Context()); err != nil || !st.Healthy {
			return fmt.Errorf("%+v, %w", st, err)
		}
		return nil
	})
	for _, source := range []string{"internal", "external"} {
		k.anchors = append(k.anchors, must(globalconf.ParseAnchor(must(k.api.Anchor(t.Context(), source)))))
	}
	return k
}

// start runs the registry; the function that it returns kills it.
func (k *killed) start() (kill func()) {
	cmd := exec.Command(k.binary, "registry", "run", "--config", k.file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = k.log
	if err := cmd.Start(); err != nil {
		k.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // its status is that it was killed
	}
}

func (k *killed) eventually(what string, holds func() error) {
	k.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(k.log.Name()) // only to show
			k.Fatalf("%s: %v\n%s", what, err, log[max(0, len(log)-4000):])
		}
	}
}

// change adds members until ctx is done, and notes which are confirmed.
func (k *killed) change(ctx context.Context) {
	for i := 1; ctx.Err() == nil; i++ {
		m := must(id.NewMember("DEV", "GOV", strconv.Itoa(i)))
		name := fmt.Sprintf("Member %d", rand.Int())
		k.mu.Lock()
		k.attempted[m] = name
		k.mu.Unlock()
		if _, err := k.api.AddMember(ctx, admin.ChangeTerms{}, m, name); err == nil {
			k.mu.Lock()
			k.confirmed[m] = true
			k.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(60 * time.Millisecond): // calls are limited
		}
	}
}

// download is a gateway that keeps its configuration up to date, while the
// registry dies. It may find nobody, but nothing that is broken or older.
func (k *killed) download(ctx context.Context, dir string) {
	c := must(globalconf.NewClient(globalconf.ClientConfig{Anchor: must(k.anchors[0].Marshal()), Dir: dir}))
	for ctx.Err() == nil {
		err := c.Update(ctx)
		switch {
		case err == nil:
			k.downloads++
		case ctx.Err() == nil && !errors.Is(err, globalconf.ErrUnavailable):
			k.Errorf("download: %v", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// onDisk loads all that the dead registry has left to be served, and returns
// who belongs to the ecosystem according to it.
func (k *killed) onDisk() *globalconf.View {
	k.Helper()
	public := filepath.Join(k.cfg.DataDir, "public")
	files := http.FileServer(http.Dir(public))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := r.URL.Query().Get("version"); v != "" {
			http.ServeFile(w, r, filepath.Join(public, "V"+v, r.URL.Path))
			return
		}
		files.ServeHTTP(w, r)
	}))
	defer srv.Close()
	var newest *globalconf.View
	for i, source := range []string{"internalconf", "externalconf"} {
		a := *k.anchors[i]
		a.Sources = []globalconf.AnchorSource{{URL: srv.URL + "/" + source, Certs: a.Sources[0].Certs}}
		for version := 2; version <= globalconf.CurrentVersion; version++ {
			if _, err := os.Stat(filepath.Join(public, fmt.Sprintf("V%d", version), source)); errors.Is(err, fs.ErrNotExist) {
				k.Fatalf("version %d of %s is gone", version, source)
			}
			c := must(globalconf.NewClient(globalconf.ClientConfig{Anchor: must(a.Marshal()), External: i == 1, Version: version}))
			if err := c.Update(k.Context()); err != nil {
				k.Fatalf("version %d of %s, as the killed registry has left it: %v", version, source, err)
			}
			newest = c.View()
		}
	}
	return newest
}

// complete checks that whoever was confirmed is a member, and that nobody else
// is but who was asked for.
func (k *killed) complete() {
	k.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	have := map[id.Member]string{}
	for _, m := range must(k.api.Members(k.Context(), "", "")) {
		have[m.ID] = m.Name
	}
	for m := range k.confirmed {
		if have[m] != k.attempted[m] {
			k.Errorf("%s was confirmed as %q, and is %q", m, k.attempted[m], have[m])
		}
	}
	for m, name := range have {
		if m.Code() != "0" && k.attempted[m] != name {
			k.Errorf("%s is called %q; that was never asked for", m, name)
		}
	}
}

// TestKilledRegistry kills the registry at random points while it starts, takes
// changes and publishes. Nothing that it has confirmed is lost, and what it has
// published always loads. KONTOR_REGISTRY_KILLS says how often; default 5.
func TestKilledRegistry(t *testing.T) {
	kills := 5
	if s := os.Getenv("KONTOR_REGISTRY_KILLS"); s != "" {
		kills = must(strconv.Atoi(s))
	}
	k := newKilled(t)
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	others.Go(func() { k.change(ctx) })
	others.Go(func() { k.download(ctx, t.TempDir()) })
	defer func() { cancel(); others.Wait() }()
	for range kills {
		kill := k.start()
		time.Sleep(time.Duration(rand.Int64N(int64(2 * time.Second))))
		kill()
		k.onDisk()
		if t.Failed() {
			return
		}
	}
	defer k.start()()
	k.eventually("an answer", func() error { _, err := k.api.Status(t.Context()); return err })
	cancel()
	others.Wait()
	k.complete()
	k.eventually("publication of all that was confirmed", func() error {
		v := k.onDisk()
		for m := range k.confirmed {
			if v.Name(m.Client()) != k.attempted[m] {
				return fmt.Errorf("%s is called %q", m, v.Name(m.Client()))
			}
		}
		return nil
	})
	t.Logf("%d kills, %d members confirmed of %d, %d downloads", kills, len(k.confirmed), len(k.attempted), k.downloads)
	if len(k.confirmed) < kills || k.downloads < kills {
		t.Error("too little happened for this to say anything")
	}
}
