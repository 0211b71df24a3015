// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"kontor/gateway/admin"
	"kontor/gateway/serverconf"
	"kontor/pki"
	"kontor/registry/globalconf"
	"kontor/registry/guard"
	"kontor/registry/id"
)

func TestNextStates(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ state, listed, unlisted string }{
		{pki.StateSaved, pki.StateRegistered, pki.StateSaved},
		{pki.StateRegistrationInProgress, pki.StateRegistered, pki.StateRegistrationInProgress},
		{pki.StateRegistered, pki.StateRegistered, pki.StateGlobalError},
		{pki.StateGlobalError, pki.StateRegistered, pki.StateGlobalError},
		{pki.StateDeletionInProgress, pki.StateDeletionInProgress, pki.StateDeletionInProgress},
	} {
		if l, u := admin.CertificateState(tc.state, true), admin.CertificateState(tc.state, false); l != tc.listed || u != tc.unlisted {
			t.Errorf("certificate %s: %s, %s", tc.state, l, u)
		}
	}
	for _, tc := range []struct{ status, listed, unlisted string }{
		{serverconf.Saved, serverconf.Registered, serverconf.Saved},
		{serverconf.RegistrationInProgress, serverconf.Registered, serverconf.RegistrationInProgress},
		{serverconf.Registered, serverconf.Registered, serverconf.GlobalError},
		{serverconf.GlobalError, serverconf.Registered, serverconf.GlobalError},
		{serverconf.Disabling, serverconf.Disabling, serverconf.Disabled},
		{serverconf.Disabled, serverconf.Registered, serverconf.Disabled},
		{serverconf.Enabling, serverconf.Registered, serverconf.Enabling},
		{serverconf.DeletionInProgress, serverconf.DeletionInProgress, serverconf.DeletionInProgress},
	} {
		if l, u := admin.ClientStatus(tc.status, true), admin.ClientStatus(tc.status, false); l != tc.listed || u != tc.unlisted {
			t.Errorf("client %s: %s, %s", tc.status, l, u)
		}
	}
}

// authentication gives the security server an authentication certificate.
func (w *world) authentication() admin.Certificate {
	w.Helper()
	k := check[admin.Key](w)(w.root.GenerateKey(w.Context(), admin.NewKey{Usage: pki.Authentication}))
	r := check[admin.Request](w)(w.root.RequestCertificate(w.Context(), k.ID, admin.NewRequest{}))
	return check[admin.Certificate](w)(w.root.ImportCertificate(w.Context(), admin.NewCertificate{Certificate: w.issue(r.PEM, pki.Authentication), Activate: true}))
}

// list makes the registry list an authentication certificate.
func (w *world) list(c admin.Certificate) {
	w.Helper()
	full, _, err := w.root.Certificate(w.Context(), c.Hash)
	if err != nil {
		w.Fatal(err)
	}
	w.config.Servers[0].AuthCerts = []globalconf.AuthCert{globalconf.NewAuthCert(w.parse(full.PEM))}
	w.publish()
}

func (w *world) state(hash string) (string, string) {
	w.Helper()
	c, _, err := w.root.Certificate(w.Context(), hash)
	if err != nil {
		w.Fatal(err)
	}
	return c.State, c.Next
}

func TestCertificateFollowsTheRegistry(t *testing.T) {
	t.Parallel()
	w := newKeyWorld(t)
	c := w.authentication()
	if c.State != pki.StateSaved || !c.Active || c.Usable || !strings.Contains(c.Next, "have the registry add it to DEV/GOV/1001/ss1") {
		t.Fatal(c)
	}
	w.api.Follow()
	if s, _ := w.state(c.Hash); s != pki.StateSaved {
		t.Error(s)
	}
	w.list(c)
	w.api.Follow()
	if s, next := w.state(c.Hash); s != pki.StateRegistered || next != "" {
		t.Error(s, next)
	}
	if again, err := pki.OpenToken(w.tokenDir, []byte(pin)); err != nil || again.Keys()[0].Certificates()[0].Status.State != pki.StateRegistered {
		t.Error("not durable", err)
	}
	if _, err := w.root.DeactivateCertificate(t.Context(), c.Hash, ""); err != nil {
		t.Fatal(err)
	}
	w.refused(w.root.DeleteCertificate(t.Context(), c.Hash, "*"), 409, guard.CodeInUse, "the registry lists")
	w.config.Servers[0].AuthCerts = nil
	w.publish()
	w.api.Follow()
	if s, next := w.state(c.Hash); s != pki.StateGlobalError || !strings.Contains(next, "delete it") {
		t.Error(s, next)
	}
	steps := 0
	for _, r := range w.audit() {
		if r.Operation == "follow-global-configuration" && strings.Contains(r.Target, c.Hash) {
			steps++
		}
	}
	if steps != 2 {
		t.Errorf("%d steps in the audit log", steps)
	}
	if err := w.root.DeleteCertificate(t.Context(), c.Hash, "*"); err != nil {
		t.Error(err)
	}
}

// The certificate of another security server is not ours, whatever it lists.
func TestListedForAnother(t *testing.T) {
	t.Parallel()
	w := newKeyWorld(t)
	c := w.authentication()
	other := check[id.SecurityServer](t)(id.ParseSecurityServer("DEV/GOV/2002/ss2"))
	w.config.Servers = append(w.config.Servers, globalconf.SecurityServer{ID: other, Address: "127.0.0.2"})
	w.list(c)
	w.config.Servers[0].AuthCerts, w.config.Servers[1].AuthCerts = nil, w.config.Servers[0].AuthCerts
	w.publish()
	w.api.Follow()
	if s, _ := w.state(c.Hash); s != pki.StateSaved {
		t.Error(s)
	}
}

// After a change of owner the registry has the server under another name: all
// states stay, and the status says what to do.
func TestRenamedByTheRegistry(t *testing.T) {
	t.Parallel()
	w := newKeyWorld(t)
	c := w.authentication()
	w.list(c)
	w.api.Follow()
	w.config.Servers[0].ID = check[id.SecurityServer](t)(id.ParseSecurityServer("DEV/GOV/2002/ss1"))
	w.publish()
	w.api.Follow()
	if s, _ := w.state(c.Hash); s != pki.StateRegistered {
		t.Error(s)
	}
	if v, _ := w.conf.Conf().Client(client(t, portal)); v.Status != serverconf.Registered {
		t.Error(v.Status)
	}
	s, err := w.root.Status(t.Context())
	if err != nil || !slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, "DEV/GOV/2002/ss1") }) {
		t.Error(s.Problems, err)
	}
}

func TestClientFollowsTheRegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	extra := client(t, "DEV/GOV/1001/extra")
	status := func() string {
		v, _ := w.fresh().Client(extra)
		return v.Status
	}
	if _, err := w.root.AddClient(t.Context(), admin.NewClientEntry{ID: extra.String()}); err != nil {
		t.Fatal(err)
	}
	w.api.Follow()
	if s := status(); s != serverconf.Saved {
		t.Error(s)
	}
	clients := w.config.Servers[0].Clients
	w.config.Servers[0].Clients = append(slices.Clone(clients), extra)
	w.publish()
	w.api.Follow()
	if s := status(); s != serverconf.Registered {
		t.Error(s)
	}
	w.config.Servers[0].Clients = clients
	w.publish()
	w.api.Follow()
	if s := status(); s != serverconf.GlobalError {
		t.Error(s)
	}
	// An outdated configuration says nothing.
	w.config.Servers[0].Clients = append(slices.Clone(clients), extra)
	w.publish()
	w.shift.Add(int64(100 * 365 * 24 * time.Hour))
	w.api.Follow()
	if s := status(); s != serverconf.GlobalError {
		t.Error("an outdated configuration was followed:", s)
	}
}

// Run looks at a new global configuration by itself, and when something is added.
func TestRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.api.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	// The registry lists the consumer already.
	if _, err := w.root.AddClient(t.Context(), admin.NewClientEntry{ID: consumer}); err != nil {
		t.Fatal(err)
	}
	for {
		if v, _ := w.conf.Conf().Client(client(t, consumer)); v.Status == serverconf.Registered {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal("not registered")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, err := w.root.Status(t.Context())
	if err != nil || s.Ready || !s.GlobalConf.Valid || s.GlobalConf.Instance != "DEV" || s.GlobalConf.Location == "" || len(s.Problems) != 3 {
		t.Error(s, err) // two keys without certificates, no TSA
	}
	w.log.mu.Lock()
	w.log.stats.Failed, w.log.stats.StampError = errors.New("disk gone"), errors.New("no TSA")
	w.log.mu.Unlock()
	w.view.Store(nil)
	s, err = w.root.Status(t.Context())
	if err != nil || s.Ready || s.GlobalConf.Valid || s.Log.Failed != "disk gone" || s.Log.StampError != "no TSA" ||
		!slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, "no global configuration yet") }) {
		t.Error(s, err)
	}
}
