// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"kontor/gateway/serverconf"
	"kontor/pki"
	"kontor/registry/globalconf"
	"kontor/registry/guard"
	"kontor/registry/id"
	"kontor/registry/management/request"
)

const (
	// statesEvery is X-Road's interval between looks at the global configuration.
	statesEvery = 30 * time.Second
	// newViewEvery is how soon a new global configuration is noticed.
	newViewEvery = time.Second
	// inquireEvery is how often the registry is asked what became of requests
	// that wait; an approval shows earlier, in the global configuration.
	inquireEvery = 10 * time.Minute
	// inquirePause is between two such questions: registries take ten a minute.
	inquirePause = 10 * time.Second
)

// Run keeps the states of clients and authentication certificates in step with
// the global configuration until ctx is done, and learns of requests that the
// registry has declined.
func (a *API) Run(ctx context.Context) error {
	var inquiries sync.WaitGroup
	defer inquiries.Wait()
	inquiries.Go(func() {
		every := time.NewTicker(inquireEvery)
		defer every.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-every.C:
				a.inquire(ctx, inquirePause)
			}
		}
	})
	every := time.NewTicker(newViewEvery)
	defer every.Stop()
	last, generation := time.Time{}, ""
	for {
		view := a.View()
		if view != nil && (view.Generation() != generation || a.Now().Sub(last) >= statesEvery) {
			last, generation = a.Now(), view.Generation()
			a.follow(view)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.nudge:
			last = time.Time{}
		case <-every.C:
		}
	}
}

// Nudge makes Run look at the states now.
func (a *API) Nudge() {
	select {
	case a.nudge <- struct{}{}:
	default:
	}
}

// inquire asks the registry what became of the registrations that wait. One
// that was declined is saved again, and shown with the reason.
func (a *API) inquire(ctx context.Context, pause time.Duration) {
	ask := func(r *request.Request, what string, again func() error) bool {
		a.asking.Lock()
		_, err := os.Stat(a.requestFile(r))
		if err == nil { // else another one decided or forgot it meanwhile
			err = again()
		}
		a.asking.Unlock()
		if p, ok := asProblem(err); ok && p.Code == CodeDeclined {
			if err := a.unasked("ask-registry", what, p.Detail, "", nil); err != nil {
				a.Logger.Error("the audit log could not be written", zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
			return true
		}
	}
	for _, k := range a.Token.Keys() {
		for _, tc := range k.Certificates() {
			if k.Usage() == pki.Authentication && tc.Status.State == pki.StateRegistrationInProgress &&
				!ask(registrationOf(tc.Cert), "certificate "+pki.HashOf(tc.Cert).Hex(), func() error {
					_, err := a.requestRegistration(ctx, k, tc, "")
					return err
				}) {
				return
			}
		}
	}
	for _, c := range a.Conf.Conf().Clients() {
		if c.Status == serverconf.RegistrationInProgress &&
			!ask(&request.Request{Service: request.ClientReg, Client: c.ID}, "client "+c.ID.String(), func() error {
				_, err := a.requestAboutClient(ctx, c, registration(""))
				return err
			}) {
			return
		}
	}
}

// follow changes states by what the global configuration lists. An outdated one
// says nothing, and neither does one that knows this security server by
// another name, for its states are those of the old name.
func (a *API) follow(view *globalconf.View) {
	if view.Valid(a.Now()) != nil {
		return
	}
	if other, ok := a.renamed(view); ok {
		a.Logger.Warn("the registry knows this security server by another name; set server in the configuration, and restart",
			zap.Stringer("server", a.Server), zap.Stringer("registered", other))
		return
	}
	a.followCertificates(view)
	a.followClients(view)
}

// renamed tells under which other name the global configuration knows this
// security server: it has an authentication certificate of ours, and ours is
// gone. This happens when the registry changes the owner.
func (a *API) renamed(view *globalconf.View) (id.SecurityServer, bool) {
	if _, ok := view.Server(a.Server); ok {
		return id.SecurityServer{}, false
	}
	for _, k := range a.Token.Keys() {
		if k.Usage() != pki.Authentication {
			continue
		}
		for _, tc := range k.Certificates() {
			if server, ok := view.ServerByCertificate(tc.Cert); ok && tc.Status.Active {
				return server.ID, true
			}
		}
	}
	return id.SecurityServer{}, false
}

// certificateState is the next state of an authentication certificate.
func certificateState(state string, listed bool) string {
	switch {
	case listed && (state == pki.StateSaved || state == pki.StateRegistrationInProgress || state == pki.StateGlobalError):
		return pki.StateRegistered
	case !listed && state == pki.StateRegistered:
		return pki.StateGlobalError
	}
	return state
}

// clientStatus is the next status of a client.
func clientStatus(status string, listed bool) string {
	switch {
	case listed && (status == serverconf.Saved || status == serverconf.RegistrationInProgress || status == serverconf.GlobalError ||
		status == serverconf.Enabling || status == serverconf.Disabled):
		return serverconf.Registered
	case !listed && status == serverconf.Registered:
		return serverconf.GlobalError
	case !listed && status == serverconf.Disabling:
		return serverconf.Disabled
	}
	return status
}

func (a *API) followCertificates(view *globalconf.View) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.Token.Keys() {
		if k.Usage() != pki.Authentication {
			continue
		}
		for _, tc := range k.Certificates() {
			server, ok := view.ServerByCertificate(tc.Cert)
			old := tc.Status.State
			if tc.Status.State = certificateState(old, ok && server.ID == a.Server); tc.Status.State == old {
				continue
			}
			hash := pki.HashOf(tc.Cert)
			var err error
			if tc.Status.State == pki.StateRegistered { // should it ever need a registration again, then a new one
				err = a.forgetRequest(registrationOf(tc.Cert))
			}
			if err == nil {
				err = a.Token.SetCertificate(hash, tc.Status)
			}
			a.followed(err, "certificate "+hash.Hex(), old, tc.Status.State)
		}
	}
}

func (a *API) followClients(view *globalconf.View) {
	type step struct{ client, old, now string }
	var steps []step
	var forgotten error
	next := func(c id.Client, status string) string {
		now := clientStatus(status, view.Registered(a.Server, c))
		if now != status {
			if now == serverconf.Registered { // should it ever need a registration again, then a new one
				forgotten = errors.Join(forgotten, a.forgetRequest(&request.Request{Service: request.ClientReg, Client: c}))
			}
			steps = append(steps, step{c.String(), status, now})
		}
		return now
	}
	for _, c := range a.Conf.Conf().Clients() {
		next(c.ID, c.Status)
	}
	if len(steps) == 0 {
		return
	}
	err := a.Conf.Update(func(m *serverconf.Model) error {
		steps = nil
		for i := range m.Clients {
			e := &m.Clients[i]
			if e.Status == "" {
				e.Status = serverconf.Saved
			}
			e.Status = next(e.ID, e.Status)
		}
		return forgotten
	})
	for _, s := range steps {
		a.followed(err, "client "+s.client, s.old, s.now)
	}
}

// followed records a change that nobody asked for.
func (a *API) followed(err error, what, old, now string) {
	if err != nil {
		a.Logger.Error("a state of the global configuration could not be kept", zap.String("what", what), zap.String("state", now), zap.Error(err))
		return
	}
	a.Logger.Info("state changed by the global configuration", zap.String("what", what), zap.String("before", old), zap.String("now", now))
	r := &guard.Record{Time: a.Now().UTC(), Who: "gateway", Operation: "follow-global-configuration", Target: what, What: []string{old + " → " + now}, Outcome: guard.Done}
	if err := a.Audit.Append(r); err != nil {
		a.Logger.Error("the audit log could not be written", zap.Error(err))
	}
}
