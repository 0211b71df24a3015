// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kontor/gateway/admin"
	"kontor/gateway/serverconf"
	"kontor/registry/guard"
	"kontor/registry/id"
)

const (
	portal     = "DEV/GOV/1001/portal"
	population = "DEV/GOV/1001/population"
	consumer   = "DEV/GOV/2002/consumer"
)

func TestClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.as(admin.RoleRegistrationOfficer)
	added, err := c.AddClient(t.Context(), admin.NewClientEntry{ID: "DEV/GOV/1001/extra"})
	if err != nil || added.Status != serverconf.Saved || added.Connection != serverconf.HTTPS || !strings.Contains(added.Next, "DEV/GOV/1001/ss1") {
		t.Error(added, err)
	}
	for text, want := range map[string]string{
		"DEV/GOV/1001/extra":  "already",
		"TEST/GOV/1001/extra": "instance",
		"DEV/COM/1001/extra":  "member class",
		"DEV/GOV/1001/a%3Bb":  "not allowed",
		"nonsense":            "malformed",
	} {
		if _, err := c.AddClient(t.Context(), admin.NewClientEntry{ID: text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	shown, etag, err := c.Client(t.Context(), "DEV/GOV/1001/extra")
	if err != nil || shown.Name != "Owner" || etag == "" {
		t.Error(shown, etag, err)
	}
	if v, _, err := c.Client(t.Context(), portal); err != nil || v.Name != "Citizens' portal" {
		t.Error(v, err)
	}
	w.refused(first(c.ChangeClient(t.Context(), "DEV/GOV/1001/extra", "", admin.ClientChange{Connection: "http"})), 428, "if_match_needed", "")
	changed, err := c.ChangeClient(t.Context(), "DEV/GOV/1001/extra", etag, admin.ClientChange{Connection: "https-no-auth"})
	if err != nil || changed.Connection != serverconf.HTTPSNoAuth {
		t.Error(changed, err)
	}
	w.refused(first(c.ChangeClient(t.Context(), "DEV/GOV/1001/extra", etag, admin.ClientChange{Connection: "http"})), 412, guard.CodeChangedMeanwhile, "")
	w.refused(c.DeleteClient(t.Context(), "DEV/GOV/1001/extra", etag), 412, guard.CodeChangedMeanwhile, "")
	if v, ok := w.fresh().Client(client(t, "DEV/GOV/1001/extra")); !ok || v.Connection != serverconf.HTTPSNoAuth {
		t.Error("not durable")
	}
	if err := c.DeleteClient(t.Context(), "DEV/GOV/1001/extra", "*"); err != nil {
		t.Error(err)
	}
	w.refused(c.DeleteClient(t.Context(), "DEV/GOV/1001/extra", "*"), 404, guard.CodeUnknown, "no client")
	w.refused(c.DeleteClient(t.Context(), portal, "*"), 409, guard.CodeInUse, "registry lists")
	w.config.Servers[0].Clients = w.config.Servers[0].Clients[:1]
	w.publish()
	w.refused(c.DeleteClient(t.Context(), population, "*"), 409, guard.CodeInUse, "1 services")
	all, err := c.Clients(t.Context())
	if err != nil || len(all) != 2 || all[1].Rights != 1 || !slices.Equal(all[1].Services, []string{"persons"}) {
		t.Error(all, err)
	}
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := pemOf(w.certify(&x509.Certificate{Subject: pkix.Name{CommonName: "information system"}}, key.Public()))
	v, err := w.root.AddClientCertificate(t.Context(), portal, "", admin.NewISCertificate{Certificate: text})
	if err != nil || len(v.Certificates) != 1 || v.Certificates[0].PEM != text {
		t.Fatal(v, err)
	}
	w.refused(first(w.root.AddClientCertificate(t.Context(), portal, "", admin.NewISCertificate{Certificate: text})), 409, guard.CodeExists, "")
	w.refused(first(w.root.AddClientCertificate(t.Context(), portal, "", admin.NewISCertificate{Certificate: text + text})), 422, guard.CodeInvalid, "one certificate")
	w.refused(first(w.root.AddClientCertificate(t.Context(), portal, "", admin.NewISCertificate{Certificate: "aGVsbG8="})), 422, guard.CodeInvalid, "cannot be read")
	if v, _ := w.fresh().Client(client(t, portal)); len(v.Certificates) != 1 {
		t.Error("not durable")
	}
	hash := v.Certificates[0].Hash
	w.refused(w.root.DeleteClientCertificate(t.Context(), portal, "00000000", "*"), 404, guard.CodeUnknown, "no certificate")
	if err := w.root.DeleteClientCertificate(t.Context(), portal, strings.ToUpper(hash[:12]), "*"); err != nil {
		t.Error(err)
	}
	if v, _, err := w.root.Client(t.Context(), portal); err != nil || len(v.Certificates) != 0 {
		t.Error(v, err)
	}
}

func TestGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.as(admin.RoleServiceAdministrator)
	g, err := c.AddGroup(t.Context(), population, admin.NewGroup{Code: "partners", Description: "d", Members: []string{consumer, consumer}})
	if err != nil || !slices.Equal(g.Members, []string{consumer}) {
		t.Fatal(g, err)
	}
	w.refused(first(c.AddGroup(t.Context(), population, admin.NewGroup{Code: "partners"})), 409, guard.CodeExists, "")
	w.refused(first(c.AddGroup(t.Context(), population, admin.NewGroup{Code: "a/b"})), 422, guard.CodeInvalid, "")
	w.refused(first(c.AddGroup(t.Context(), population, admin.NewGroup{Code: "x", Members: []string{"y"}})), 422, guard.CodeInvalid, "")
	if g, err = c.AddGroupMembers(t.Context(), population, "partners", "", admin.Members{Members: []string{portal}}); err != nil || len(g.Members) != 2 {
		t.Error(g, err)
	}
	if _, err := c.Grant(t.Context(), population, admin.NewRight{Service: "persons", SubjectType: admin.SubjectLocalGroup, Subject: "partners"}); err != nil {
		t.Error(err)
	}
	w.refused(c.DeleteGroup(t.Context(), population, "partners", "*"), 409, guard.CodeInUse, "persons")
	if x, err := c.TestAccess(t.Context(), consumer, population+"/persons", "", "/1"); err != nil || !x.Allowed {
		t.Error(x, err)
	}
	_, etag, err := c.Group(t.Context(), population, "partners")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteGroupMember(t.Context(), population, "partners", consumer, etag); err != nil {
		t.Error(err)
	}
	w.refused(c.DeleteGroupMember(t.Context(), population, "partners", portal, etag), 412, guard.CodeChangedMeanwhile, "")
	w.refused(c.DeleteGroupMember(t.Context(), population, "partners", consumer, "*"), 404, guard.CodeUnknown, "")
	if x, err := c.TestAccess(t.Context(), consumer, population+"/persons", "", "/1"); err != nil || x.Allowed {
		t.Error(x, err)
	}
	rights, err := c.Access(t.Context(), "", "", "partners")
	if err != nil || len(rights) != 1 {
		t.Fatal(rights, err)
	}
	if err := c.Revoke(t.Context(), population, rights[0].ID, "*"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteGroup(t.Context(), population, "partners", "*"); err != nil {
		t.Error(err)
	}
	if all, err := c.Groups(t.Context(), population); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
}

func TestServices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.as(admin.RoleServiceAdministrator)
	s, err := c.AddService(t.Context(), population, admin.NewService{Code: "births", URL: "https://backend.test/births", Timeout: "5s"})
	if err != nil || s.Timeout != "5s" || !s.VerifyTLS || !s.Enabled || s.Rights != 0 || s.Next == "" {
		t.Error(s, err)
	}
	for name, tc := range map[string]struct {
		n    admin.NewService
		want string
	}{
		"twice":      {admin.NewService{Code: "births", URL: "http://x"}, "already"},
		"no URL":     {admin.NewService{Code: "a", URL: "ftp://x"}, "not an http or https URL"},
		"query":      {admin.NewService{Code: "a", URL: "http://x/?a=b"}, "query"},
		"code":       {admin.NewService{Code: "a/b", URL: "http://x"}, "not allowed"},
		"timeout":    {admin.NewService{Code: "a", URL: "http://x", Timeout: "10 parsecs"}, "timeout"},
		"timeout 25": {admin.NewService{Code: "a", URL: "http://x", Timeout: "25h"}, "timeout"},
	} {
		if _, err := c.AddService(t.Context(), population, tc.n); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.refused(first(c.AddService(t.Context(), "DEV/GOV/1001/none", admin.NewService{Code: "a", URL: "http://x"})), 404, guard.CodeUnknown, "")

	_, etag, err := c.Service(t.Context(), population, "births")
	if err != nil {
		t.Fatal(err)
	}
	url, timeout, no, notice := "http://backend.test/b", "2m0s", false, "closed"
	s, err = c.ChangeService(t.Context(), population, "births", etag, admin.ServiceChange{URL: &url, Timeout: &timeout, VerifyTLS: &no})
	if err != nil || s.URL != url || s.Timeout != timeout || s.VerifyTLS {
		t.Error(s, err)
	}
	w.refused(first(c.ChangeService(t.Context(), population, "births", etag, admin.ServiceChange{URL: &url})), 412, guard.CodeChangedMeanwhile, "")
	w.refused(first(c.ChangeService(t.Context(), population, "births", "*", admin.ServiceChange{Notice: &notice})), 422, guard.CodeInvalid, "told nothing")
	if s, err = c.ChangeService(t.Context(), population, "births", "*", admin.ServiceChange{Enabled: &no, Notice: &notice}); err != nil || s.Enabled || s.Notice != notice {
		t.Error(s, err)
	}
	if v, ok := w.fresh().Service(w.service(population + "/births")); !ok || v.DisabledNotice == nil || *v.DisabledNotice != notice || v.Timeout != 2*time.Minute {
		t.Error("not durable")
	}
	yes := true
	if s, err = c.ChangeService(t.Context(), population, "births", "*", admin.ServiceChange{Enabled: &yes}); err != nil || !s.Enabled || s.Notice != "" {
		t.Error(s, err)
	}
	if _, err := c.Grant(t.Context(), population, admin.NewRight{Service: "births", Subject: consumer}); err != nil {
		t.Error(err)
	}
	if err := c.DeleteService(t.Context(), population, "births", "*"); err != nil {
		t.Error(err)
	}
	if rights, err := c.Access(t.Context(), population, "", ""); err != nil || len(rights) != 1 || rights[0].Service != "persons" {
		t.Error("rights outlive their service", rights, err)
	}
	all, err := c.Services(t.Context(), population)
	if err != nil || len(all) != 1 || all[0].ID != population+"/persons" {
		t.Error(all, err)
	}
	if all, err := c.Services(t.Context(), portal); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
}

// SOAP services have versions, and rights cover them all.
func TestVersions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v1, v2 := "v1", "v2"
	err := w.conf.Update(func(m *serverconf.Model) error {
		m.Clients[1].Descriptions = append(m.Clients[1].Descriptions, serverconf.DescriptionEntry{Type: serverconf.WSDL,
			Services: []serverconf.ServiceEntry{{Code: "soap", Version: &v1, URL: "http://x"}, {Code: "soap", Version: &v2, URL: "http://x"}}})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.root.Grant(t.Context(), population, admin.NewRight{Service: "soap", Subject: consumer}); err != nil {
		t.Fatal(err)
	}
	if rights, err := w.root.Access(t.Context(), "", "soap", ""); err != nil || len(rights) != 1 {
		t.Error(rights, err)
	}
	for _, v := range []string{v1, v2} {
		if x, err := w.root.TestAccess(t.Context(), consumer, population+"/soap/"+v, "", ""); err != nil || !x.Works {
			t.Error(x, err)
		}
		s, _, err := w.root.Service(t.Context(), population, "soap/"+v)
		if err != nil || s.Name != "soap/"+v {
			t.Error(s, err)
		}
	}
	w.refused(first(w.root.TestAccess(t.Context(), consumer, population+"/soap/v1", "GET", "/")), 422, guard.CodeInvalid, "SOAP")
	if err := w.root.DeleteService(t.Context(), population, "soap/v1", "*"); err != nil {
		t.Error(err)
	}
	if rights, err := w.root.Access(t.Context(), "", "soap", ""); err != nil || len(rights) != 1 {
		t.Error("the right to the other version is gone", rights, err)
	}
	if err := w.root.DeleteService(t.Context(), population, "soap:v2", "*"); err != nil {
		t.Error(err)
	}
	if rights, err := w.root.Access(t.Context(), "", "soap", ""); err != nil || len(rights) != 0 {
		t.Error(rights, err)
	}
}

func TestAccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.as(admin.RoleServiceAdministrator)
	until := w.real().Add(time.Hour).Truncate(time.Second)
	r, err := c.Grant(t.Context(), population, admin.NewRight{Service: "persons", Subject: consumer, Method: "get", Path: "/a/*", Expires: until, Note: "agreement"})
	if err != nil || r.Method != "GET" || !r.Expires.Equal(until) || r.Note != "agreement" || r.Problem != "" {
		t.Fatal(r, err)
	}
	for name, tc := range map[string]struct {
		n    admin.NewRight
		want string
	}{
		"twice":           {admin.NewRight{Service: "persons", Subject: consumer, Method: "GET", Path: "/a/*"}, "already"},
		"no service":      {admin.NewRight{Service: "none", Subject: consumer}, "no service"},
		"no subject":      {admin.NewRight{Service: "persons", Subject: "x"}, "malformed"},
		"no local group":  {admin.NewRight{Service: "persons", SubjectType: admin.SubjectLocalGroup, Subject: "x"}, "no local group"},
		"empty group":     {admin.NewRight{Service: "persons", SubjectType: admin.SubjectLocalGroup}, "missing"},
		"no global group": {admin.NewRight{Service: "persons", SubjectType: admin.SubjectGlobalGroup, Subject: "x"}, "malformed"},
		"method":          {admin.NewRight{Service: "persons", Subject: consumer, Method: "FETCH"}, "method"},
		"path":            {admin.NewRight{Service: "persons", Subject: consumer, Path: "a"}, "must begin"},
		"past":            {admin.NewRight{Service: "persons", Subject: consumer, Expires: until.AddDate(-1, 0, 0)}, "past"},
	} {
		if _, err := c.Grant(t.Context(), population, tc.n); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v, err := c.Grant(t.Context(), population, admin.NewRight{Service: "persons", Subject: "DEV/GOV/9/unknown"}); err != nil || !strings.Contains(v.Problem, "knows no such client") {
		t.Error(v, err)
	}
	if v, err := c.Grant(t.Context(), population, admin.NewRight{Service: "persons", Subject: "DEV/GOV/2002"}); err != nil || !strings.Contains(v.Problem, "subsystems") {
		t.Error(v, err)
	}
	if v, err := c.Grant(t.Context(), population, admin.NewRight{Service: "persons", SubjectType: admin.SubjectGlobalGroup, Subject: "DEV/none"}); err != nil || !strings.Contains(v.Problem, "no such group") {
		t.Error(v, err)
	}
	_, etag, err := c.Right(t.Context(), population, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	other := "other"
	if v, err := c.ChangeRight(t.Context(), population, r.ID, etag, admin.RightChange{Never: true, Note: &other}); err != nil || !v.Expires.IsZero() || v.Note != other || v.ID != r.ID {
		t.Error(v, err)
	}
	w.refused(first(c.ChangeRight(t.Context(), population, r.ID, etag, admin.RightChange{Never: true})), 412, guard.CodeChangedMeanwhile, "")
	w.refused(first(c.ChangeRight(t.Context(), population, r.ID, "*", admin.RightChange{Never: true, Expires: &until})), 422, guard.CodeInvalid, "both")
	past := until.AddDate(-1, 0, 0)
	w.refused(first(c.ChangeRight(t.Context(), population, r.ID, "*", admin.RightChange{Expires: &past})), 422, guard.CodeInvalid, "past")
	if v, err := c.ChangeRight(t.Context(), population, r.ID, "*", admin.RightChange{Expires: &until}); err != nil || !v.Expires.Equal(until) {
		t.Error(v, err)
	}
	if mine, err := c.Access(t.Context(), "", "", consumer); err != nil || len(mine) != 1 || mine[0].ID != r.ID {
		t.Error(mine, err)
	}
	w.shift.Add(int64(2 * time.Hour))
	if mine, err := c.Access(t.Context(), "", "", consumer); err != nil || len(mine) != 1 || mine[0].Problem != "it has expired" {
		t.Error(mine, err)
	}
	if err := c.Revoke(t.Context(), population, r.ID, "*"); err != nil {
		t.Error(err)
	}
	w.refused(c.Revoke(t.Context(), population, r.ID, "*"), 404, guard.CodeUnknown, "")
}

func TestExplainsAccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	notice := "shut"
	err := w.conf.Update(func(m *serverconf.Model) error {
		e := &m.Clients[1]
		e.Groups = []serverconf.GroupEntry{{Code: "partners", Members: []id.Client{client(t, consumer)}}}
		e.Descriptions = append(e.Descriptions,
			serverconf.DescriptionEntry{Type: serverconf.REST, Disabled: &notice, Services: []serverconf.ServiceEntry{{Code: "closed", URL: "http://x"}}},
			serverconf.DescriptionEntry{Type: serverconf.REST, Services: []serverconf.ServiceEntry{{Code: "nobody", URL: "http://x"}}})
		e.Access = []serverconf.AccessEntry{
			{Service: "persons", Client: client(t, portal), Method: "GET", Path: "/a/*"},
			{Service: "persons", Client: client(t, portal), Method: "GET", Path: "/old/**", Expires: w.real().Add(-time.Hour)},
			{Service: "persons", Group: "partners", Method: "POST"},
			{Service: "persons", GlobalGroup: group(t, "DEV/all"), Path: "/g/**"},
			{Service: "persons", Client: client(t, "DEV/GOV/1001")},
			{Service: "closed", Client: client(t, portal)},
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		client, service, method, path string
		allowed, works                bool
		reason                        string // of the verdict
		decides                       int    // which rule; -1: none
		rule                          int    // a rule and why it does not allow
		because                       string
	}{
		"by client":           {portal, "persons", "GET", "/a/1", true, true, "allowed by right", 0, 2, "not in the local group"},
		"method":              {portal, "persons", "DELETE", "/a/1", false, false, "no right allows it", -1, 0, "for method GET"},
		"method ignores case": {portal, "persons", "get", "/a/1", true, true, "", 0, 1, "does not match"},
		"path":                {portal, "persons", "GET", "/a/1/2", false, false, "no right allows it", -1, 0, "does not match /a/*"},
		"expired":             {portal, "persons", "GET", "/old/1", false, false, "expired", -1, 1, "it expired on"},
		"local group":         {consumer, "persons", "POST", "/x", true, true, "", 2, 0, "another client"},
		"global group":        {consumer, "persons", "GET", "/g/1", true, true, "", 3, 2, "for method POST"},
		"both groups":         {consumer, "persons", "POST", "/g/1", true, true, "", 2, 0, ""},
		"member only":         {"DEV/GOV/1001/extra", "persons", "GET", "/", false, false, "", -1, 4, "does not stand for its subsystems"},
		"the member":          {"DEV/GOV/1001", "persons", "GET", "/", true, true, "", 4, 0, "another client"},
		"bad path":            {portal, "persons", "GET", "/a/../b", false, false, "the path is refused", -1, -1, ""},
		"escaped":             {portal, "persons", "GET", "/%61/1", true, true, "", 0, -1, ""},
		"disabled":            {portal, "closed", "GET", "/", true, false, "", 0, -1, ""},
		"no right":            {portal, "nobody", "GET", "/", false, false, "no right to the service at all", -1, -1, ""},
		"no service":          {portal, "none", "GET", "/", false, false, "no such service", -1, -1, ""},
		"unknown client":      {"DEV/GOV/9/9", "persons", "GET", "/", false, false, "", -1, -1, ""},
		"unregistered":        {"DEV/GOV/1001/extra", "nobody", "", "", false, false, "", -1, -1, ""},
	} {
		x, err := w.root.TestAccess(t.Context(), tc.client, population+"/"+tc.service, tc.method, tc.path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		decides := slices.IndexFunc(x.Rules, func(r admin.Rule) bool { return r.Decides })
		if x.Allowed != tc.allowed || x.Works != tc.works || !strings.Contains(x.Reason, tc.reason) || decides != tc.decides || x.Reason == "" {
			t.Errorf("%s: %+v", name, x)
		}
		if tc.because != "" && !strings.Contains(x.Rules[tc.rule].Reason, tc.because) {
			t.Errorf("%s: rule %d: %+v", name, tc.rule, x.Rules[tc.rule])
		}
		if x.Works == (len(x.Problems) > 0 || !x.Allowed) {
			t.Errorf("%s: %+v", name, x)
		}
		s, ok := w.conf.Conf().Service(w.service(population + "/" + tc.service))
		if !ok {
			continue
		}
		err = w.conf.Conf().Authorise(client(t, tc.client), s, tc.method, tc.path, w.view.Load().InGlobalGroup)
		if tc.method != "" && (err == nil) != x.Allowed {
			t.Errorf("%s: the gateway says %v", name, err)
		}
	}
}

// Of many operators who change the same state, one does.
func TestOneOfManyWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, etag, err := w.root.Service(t.Context(), population, "persons")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	won := 0
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rec := w.raw(w.secret, http.MethodPatch, "/api/v1/clients/DEV:GOV:1001:population/services/persons",
				fmt.Sprintf(`{"url":"http://backend.test/%d"}`, i), "If-Match", etag)
			mu.Lock()
			defer mu.Unlock()
			switch rec.Code {
			case http.StatusOK:
				won++
			case http.StatusPreconditionFailed:
			default:
				t.Error(rec.Code, rec.Body)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d operators changed the same state", won)
	}
}

// Changes of different things at once are all kept.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			for _, call := range [][2]string{
				{"/api/v1/clients/DEV:GOV:1001:population/access", fmt.Sprintf(`{"service":"persons","subject":"%s","path":"/%d"}`, consumer, i)},
				{"/api/v1/clients/DEV:GOV:1001:portal/services", fmt.Sprintf(`{"code":"s%d","url":"http://x"}`, i)},
				{"/api/v1/clients", fmt.Sprintf(`{"id":"DEV/GOV/1001/c%d"}`, i)},
				{"/api/v1/api-keys", fmt.Sprintf(`{"name":"k%d","roles":["observer"]}`, i)},
			} {
				if rec := w.raw(w.secret, http.MethodPost, call[0], call[1]); rec.Code != http.StatusCreated {
					t.Error(call, rec.Code, rec.Body)
				}
			}
			w.api.Follow()
		})
	}
	wg.Wait()
	conf := w.fresh()
	p, _ := conf.Client(client(t, population))
	q, _ := conf.Client(client(t, portal))
	if len(p.Services[0].Rights) != 13 || len(q.Services) != 12 || len(conf.Clients()) != 14 {
		t.Error(len(p.Services[0].Rights), len(q.Services), len(conf.Clients()))
	}
	done := 0
	for _, r := range w.audit() {
		if r.Outcome == guard.Done {
			done++
		}
	}
	if done != 48 {
		t.Errorf("%d changes in the audit log", done)
	}
}

// A file that somebody has broken is not overwritten.
func TestBrokenFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := filepath.Join(w.dir, "serverconf.yaml")
	if err := os.WriteFile(file, []byte("clients: [{idd: x}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.refused(first(w.root.AddClient(t.Context(), admin.NewClientEntry{ID: "DEV/GOV/1001/extra"})), 500, "configuration_file", "idd")
	if _, err := w.root.Clients(t.Context()); err != nil {
		t.Error(err)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	w.refused(first(w.root.AddClient(t.Context(), admin.NewClientEntry{ID: "DEV/GOV/1001/extra"})), 500, "configuration_file", "no such file")
}
