// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"testing"

	"kontor/registry/admin"
)

func TestFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	done, err := c.AddMemberClass(t.Context(), admin.ChangeTerms{Why: "new class"}, admin.MemberClass{Code: "GOV", Description: "Government"})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(done)
	if _, err := c.AddMember(t.Context(), admin.ChangeTerms{}, member("DEV/GOV/1001"), "Agency"); err != nil {
		t.Fatal(err)
	}
	m, etag, err := c.Member(t.Context(), member("DEV/GOV/1001"))
	t.Log(m, etag, err)
}
