// SPDX-License-Identifier: Apache-2.0

package management_test

import (
	"testing"

	"kontor/pki"
	"kontor/registry"
)

func TestRegistration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	auth, sign := w.ca.auth("DEV/COM/4321/SS1"), w.ca.sign(t, "DEV/COM/4321")
	m := seal(t, w.registration("DEV/COM/4321/SS1", auth), auth, sign)
	number, err := w.send(m)
	if err != nil || number != 1 {
		t.Fatalf("%d, %v", number, err)
	}
	q, ok := w.registry.Request(number)
	if !ok || q.Status != registry.Waiting || q.Origin != registry.FromServer || q.Kind != registry.AuthCertReg || q.CreatedBy != "security server DEV/COM/4321/SS1" {
		t.Fatalf("%+v", q)
	}
	if _, ok := w.registry.State().Server(serverID("DEV/COM/4321/SS1")); ok {
		t.Error("registered before it was approved")
	}
	if q, err = w.registry.Approve(t.Context(), operator, number); err != nil || q.Status != registry.Approved || q.DecidedBy != "operator" || q.Reason != "because" {
		t.Fatalf("%+v, %v", q, err)
	}
	st := w.registry.State()
	srv, ok := st.Server(serverID("DEV/COM/4321/SS1"))
	if !ok || srv.Address != "ss1.example" || len(srv.Certificates) != 1 || pki.HashOf(srv.Certificates[0]) != pki.HashOf(auth.Cert) {
		t.Errorf("%+v", srv)
	}
	if m, ok := st.Member(memberID("DEV/COM/4321")); !ok || m.Name != "4321" {
		t.Errorf("%+v", m)
	}
	for _, g := range st.Groups() {
		if g.Code == registry.OwnersGroup && len(g.Members) != 2 {
			t.Errorf("%v", g.Members)
		}
	}
	// what came is kept as it came
	_, body := m.Encode()
	kept, err := w.registry.RequestMessage(t.Context(), number)
	if err != nil || len(kept.Body) != len(body) {
		t.Errorf("%v, %v", kept, err)
	}
}
