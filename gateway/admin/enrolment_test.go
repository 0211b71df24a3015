// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"net/http"
	"slices"
	"testing"

	"kontor/gateway/admin"
	"kontor/gateway/renewal"
	"kontor/pki"
	"kontor/registry/guard"
	"kontor/registry/id"
)

// renewals is a renewal of one certificate for signing.
type renewals struct {
	member  id.Member
	demands int
}

func (r *renewals) Status() []renewal.Enrolment {
	return []renewal.Enrolment{{Usage: pki.Signing, Member: r.member.String(), Problem: "the authority is away", Failures: 2}}
}

func (r *renewals) Renew(use pki.Usage, member id.Member) error {
	if use != pki.Signing || member != r.member {
		return renewal.ErrUnknown
	}
	r.demands++
	return nil
}

func TestEnrolments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	if all, err := w.root.Enrolments(ctx); err != nil || len(all) != 0 {
		t.Errorf("without ACME: %v, %v", all, err)
	}
	w.refused(w.root.RenewCertificate(ctx, admin.RenewNow{Usage: pki.Signing}), http.StatusNotFound, guard.CodeUnknown, "")

	r := &renewals{member: member(t, "DEV/GOV/1001")}
	w.api.Renewal = r
	if all, err := w.root.Enrolments(ctx); err != nil || !slices.Equal(all, r.Status()) {
		t.Errorf("%+v, %v", all, err)
	}
	s, err := w.root.Status(ctx)
	if err != nil || len(s.Enrolments) != 1 || !slices.Contains(s.Problems, "no new certificate for signing of DEV/GOV/1001 by ACME: the authority is away") {
		t.Errorf("%+v, %v", s, err)
	}
	w.refused(w.root.RenewCertificate(ctx, admin.RenewNow{Usage: pki.Authentication}), http.StatusNotFound, guard.CodeUnknown, "")
	w.refused(w.root.RenewCertificate(ctx, admin.RenewNow{Usage: pki.Signing, Member: "DEV"}), http.StatusUnprocessableEntity, guard.CodeInvalid, "")
	if err := w.root.RenewCertificate(ctx, admin.RenewNow{Usage: pki.Signing}); err != nil || r.demands != 1 {
		t.Errorf("%d demands, %v", r.demands, err)
	}
}

// TestUnasked: what the gateway does by itself is recorded, done or not.
func TestUnasked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.api.SetActive(pki.CertHash{1}, true, "renewed"); err == nil {
		t.Error("a certificate that is not there was activated")
	}
	if err := w.api.RemoveKey("none", "ended"); err == nil {
		t.Error("a key that is not there was removed")
	}
	all := w.audit()
	if r := all[len(all)-1]; r.Who != "gateway" || r.Outcome != guard.Failed || r.Why != "ended" || r.Operation != "delete-key" {
		t.Errorf("%+v", r)
	}
}
