// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"kontor/gateway/admin"
	"kontor/gateway/msglog"
	"kontor/registry/guard"
)

// Every operation and who may call it. The system administrator may call all.
var mayCall = map[string][]string{
	"get-status":                {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator, admin.RoleAuditor},
	"list-keys":                 {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"get-key":                   {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"generate-key":              {admin.RoleSecurityOfficer},
	"delete-key":                {admin.RoleSecurityOfficer},
	"request-certificate":       {admin.RoleSecurityOfficer},
	"list-authorities":          {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"change-pin":                {admin.RoleSecurityOfficer},
	"get-certificate":           {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"import-certificate":        {admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer},
	"activate-certificate":      {admin.RoleSecurityOfficer},
	"deactivate-certificate":    {admin.RoleSecurityOfficer},
	"delete-certificate":        {admin.RoleSecurityOfficer},
	"list-enrolments":           {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"renew-certificate":         {admin.RoleSecurityOfficer},
	"list-clients":              {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"get-client":                {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"add-client":                {admin.RoleRegistrationOfficer},
	"change-client":             {admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"delete-client":             {admin.RoleRegistrationOfficer},
	"add-client-certificate":    {admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"delete-client-certificate": {admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"list-groups":               {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"get-group":                 {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"add-group":                 {admin.RoleServiceAdministrator},
	"delete-group":              {admin.RoleServiceAdministrator},
	"add-group-members":         {admin.RoleServiceAdministrator},
	"delete-group-member":       {admin.RoleServiceAdministrator},
	"list-services":             {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"get-service":               {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"change-service":            {admin.RoleServiceAdministrator},
	"add-endpoint":              {admin.RoleServiceAdministrator},
	"delete-endpoint":           {admin.RoleServiceAdministrator},
	"list-descriptions":         {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"get-description":           {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"add-description":           {admin.RoleServiceAdministrator},
	"refresh-description":       {admin.RoleServiceAdministrator},
	"change-description":        {admin.RoleServiceAdministrator},
	"delete-description":        {admin.RoleServiceAdministrator},
	"list-access":               {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"test-access":               {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"get-right":                 {admin.RoleObserver, admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer, admin.RoleServiceAdministrator},
	"grant-access":              {admin.RoleServiceAdministrator},
	"change-right":              {admin.RoleServiceAdministrator},
	"register-certificate":      {admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer},
	"unregister-certificate":    {admin.RoleSecurityOfficer, admin.RoleRegistrationOfficer},
	"register-client":           {admin.RoleRegistrationOfficer},
	"rename-client":             {admin.RoleRegistrationOfficer},
	"unregister-client":         {admin.RoleRegistrationOfficer},
	"disable-client":            {admin.RoleRegistrationOfficer},
	"enable-client":             {admin.RoleRegistrationOfficer},
	"change-address":            {admin.RoleRegistrationOfficer},
	"set-maintenance":           {admin.RoleRegistrationOfficer},
	"change-owner":              {admin.RoleRegistrationOfficer},
	"revoke-access":             {admin.RoleServiceAdministrator},
	"find-records":              {admin.RoleAuditor},
	"export-records":            {admin.RoleAuditor},
	"find-operational-data":     {admin.RoleAuditor},
	"list-api-keys":             {},
	"get-api-key":               {},
	"create-api-key":            {},
	"delete-api-key":            {},
}

func TestEveryRoleAgainstEveryOperation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	keys := map[string]string{"": "no such key"}
	for _, role := range admin.Roles() {
		keys[role] = w.keyOf(role)
	}
	before := len(w.audit())
	seen := 0
	wantRefused := 0
	for path, p := range w.api.OpenAPI().Paths {
		for _, op := range operations(p) {
			allowed, ok := mayCall[op.id]
			if !ok {
				t.Errorf("operation %s is not in the table of this test", op.id)
				continue
			}
			seen++
			for role, key := range keys {
				// The call is malformed or speaks of what does not exist, so that
				// nothing is changed; what is asked is whether it is let in.
				target := strings.NewReplacer("{client}", "DEV:GOV:1001:none", "{key}", "none", "{hash}", "00000000", "{service}", "none",
					"{group}", "none", "{member}", "DEV:GOV:1001:none", "{right}", "none", "{description}", "none", "{name}", "none").Replace(path)
				body := ""
				if op.method != http.MethodGet {
					body = `{"unknown":1}`
				}
				got := w.raw(key, op.method, target, body, "If-Match", "*").Code
				in := role == admin.RoleSystemAdministrator || slices.Contains(allowed, role)
				switch {
				case role == "" && got != http.StatusUnauthorized:
					t.Errorf("%s without a valid key: %d", op.id, got)
				case role != "" && in == (got == http.StatusForbidden):
					t.Errorf("%s as %s: %d", op.id, role, got)
				}
				if got == http.StatusUnauthorized || got == http.StatusForbidden {
					wantRefused++
				}
			}
		}
	}
	if seen != len(mayCall) {
		t.Errorf("%d operations, the table has %d", seen, len(mayCall))
	}
	refused := 0
	for _, r := range w.audit()[before:] {
		if r.Status == http.StatusUnauthorized || r.Status == http.StatusForbidden {
			refused++
			if r.Outcome != guard.Refused || r.From == "" || r.Operation == "" || r.Target == "" || r.Time.IsZero() {
				t.Errorf("%+v", r)
			}
		}
	}
	if refused != wantRefused {
		t.Errorf("%d refused calls, %d in the audit log", wantRefused, refused)
	}
}

type operation struct{ method, id string }

func operations(p *huma.PathItem) []operation {
	var all []operation
	for method, op := range map[string]*huma.Operation{
		http.MethodGet: p.Get, http.MethodPost: p.Post, http.MethodPut: p.Put, http.MethodPatch: p.Patch, http.MethodDelete: p.Delete,
	} {
		if op != nil {
			all = append(all, operation{method, op.OperationID})
		}
	}
	return all
}

func TestDescribesItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.raw("", http.MethodGet, "/openapi.json", "")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID, Summary, Description string
			Security                          []map[string][]string
			Responses                         map[string]struct{ Content map[string]any }
		}
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Fatal(doc.OpenAPI, err)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if op.OperationID == "" || op.Summary == "" || !strings.Contains(op.Description, "Roles: ") || len(op.Security) != 1 {
				t.Errorf("%s %s: %+v", method, path, op)
			}
			if _, ok := op.Responses["default"].Content["application/problem+json"]; !ok || len(op.Responses) != 2 {
				t.Errorf("%s %s: responses %v", method, path, op.Responses)
			}
		}
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, tc := range map[string]struct {
		method, path, body string
		status             int
		code               string
	}{
		"no such path":     {"GET", "/api/v1/nothing", "", 404, guard.CodeUnknown},
		"wrong method":     {"PUT", "/api/v1/clients", "", 405, guard.CodeMethod},
		"unknown query":    {"GET", "/api/v1/keys?x=1", "", 422, guard.CodeInvalid},
		"no JSON":          {"POST", "/api/v1/clients", "{", 400, guard.CodeMalformed},
		"no body":          {"POST", "/api/v1/clients", "", 400, guard.CodeMalformed},
		"unknown field":    {"POST", "/api/v1/clients", `{"id":"DEV/GOV/1001/x","x":1}`, 422, guard.CodeInvalid},
		"wrong type":       {"POST", "/api/v1/clients", `{"id":1}`, 422, guard.CodeInvalid},
		"no identifier":    {"POST", "/api/v1/clients", `{"id":"DEV"}`, 422, guard.CodeInvalid},
		"bad connection":   {"POST", "/api/v1/clients", `{"id":"DEV/GOV/1001/x","connection":"carrier pigeon"}`, 422, guard.CodeInvalid},
		"bad path id":      {"GET", "/api/v1/clients/DEV", "", 422, guard.CodeInvalid},
		"large":            {"POST", "/api/v1/clients", `{"id":"` + strings.Repeat("x", 1<<20) + `"}`, 413, guard.CodeTooLarge},
		"empty PIN":        {"POST", "/api/v1/token/pin", `{"old":"x","new":""}`, 422, guard.CodeInvalid},
		"test: no client":  {"GET", "/api/v1/access/test?service=DEV/GOV/1001/population/persons", "", 422, guard.CodeInvalid},
		"test: no service": {"GET", "/api/v1/access/test?client=DEV/GOV/1001/portal&service=x", "", 422, guard.CodeInvalid},
		"log: bad client":  {"GET", "/api/v1/messagelog?client=x", "", 422, guard.CodeInvalid},
	} {
		rec := w.raw(w.secret, tc.method, tc.path, tc.body)
		var p guard.Problem
		if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || rec.Code != tc.status || p.Status != tc.status || p.Code != tc.code || p.Detail == "" ||
			rec.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s %s", name, rec.Code, rec.Header().Get("Content-Type"), rec.Body)
		}
	}
}

func TestTooManyCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	limited := 0
	for range 100 {
		r, err := http.NewRequest(http.MethodGet, w.server.URL+"/api/v1/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		w.shift.Add(-int64(1e9)) // no time passes
		resp, err := w.server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "" {
			limited++
		}
	}
	if limited != 100-guard.PerSecond {
		t.Errorf("%d of 100 calls were limited", limited)
	}
}

// Callers without a key cannot fill the disk with audit records.
func TestStrangersAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	start := w.shift.Load()
	for range admin.StrangersAtOnce + 50 {
		w.shift.Store(start)
		w.raw("wrong", http.MethodGet, "/api/v1/keys", "")
	}
	if n := len(w.audit()); n != admin.StrangersAtOnce {
		t.Errorf("%d records", n)
	}
	w.shift.Add(int64(10e9))
	w.raw("", http.MethodGet, "/api/v1/keys", "")
	all := w.audit()
	if last := all[len(all)-1]; len(last.What) != 1 || !strings.HasPrefix(last.What[0], "50 earlier calls") {
		t.Errorf("%+v", last)
	}
}

func TestAuditLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	officer := w.as(admin.RoleRegistrationOfficer)
	before := len(w.audit())
	if _, err := officer.AddClient(t.Context(), admin.NewClientEntry{ID: "DEV/GOV/1001/extra", Connection: "http"}); err != nil {
		t.Fatal(err)
	}
	w.refused(first(officer.AddClient(t.Context(), admin.NewClientEntry{ID: "DEV/GOV/1001/extra"})), 409, guard.CodeExists, "already")
	w.refused(w.root.ChangePIN(t.Context(), admin.PINChange{Old: "not the pin 7", New: "new secret 8"}), 403, "wrong_pin", "")
	if _, err := officer.Clients(t.Context()); err != nil { // reading leaves no record
		t.Fatal(err)
	}
	if _, _, err := officer.Client(t.Context(), "DEV/GOV/1001/none"); err == nil {
		t.Fatal("there is no such client")
	}
	type line struct {
		who, operation, outcome string
		status                  int
		what                    string
	}
	var got []line
	for _, r := range w.audit()[before:] {
		got = append(got, line{r.Who, r.Operation, r.Outcome, r.Status, strings.Join(r.What, ";")})
		if r.Call == "" || !strings.HasPrefix(r.From, "127.0.0.1:") || !strings.Contains(r.Target, "/api/v1/") {
			t.Errorf("%+v", r)
		}
	}
	officerName := admin.RoleRegistrationOfficer
	want := []line{
		{officerName, "add-client", admin.Begun, 0, `requested: {"id":"DEV/GOV/1001/extra","connection":"http"}`},
		{officerName, "add-client", guard.Done, 201, "add client DEV/GOV/1001/extra"},
		{officerName, "add-client", admin.Begun, 0, `requested: {"id":"DEV/GOV/1001/extra"}`},
		{officerName, "add-client", guard.Refused, 409, ""},
		{"root", "change-pin", admin.Begun, 0, ""},
		{"root", "change-pin", guard.Refused, 403, ""},
		{officerName, "get-client", guard.Refused, 404, ""},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	b, err := os.ReadFile(filepath.Join(w.dir, "audit.jsonl"))
	if err != nil || bytes.Contains(b, []byte("not the pin")) || bytes.Contains(b, []byte("new secret")) || bytes.Contains(b, []byte(w.secret)) {
		t.Error("a secret is in the audit log", err)
	}
}

// What cannot be recorded is not done.
func TestNothingWithoutAudit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.api.Audit.Close(); err != nil {
		t.Fatal(err)
	}
	w.refused(first(w.root.AddClient(t.Context(), admin.NewClientEntry{ID: "DEV/GOV/1001/extra"})), 503, guard.CodeUnavailable, "audit log")
	if _, ok := w.conf.Conf().Client(client(t, "DEV/GOV/1001/extra")); ok {
		t.Error("added")
	}
	if _, err := w.root.Clients(t.Context()); err != nil {
		t.Error("reading is refused, too:", err)
	}
}

func TestMessageLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	auditor := w.as(admin.RoleAuditor)
	records, err := auditor.Find(t.Context(), admin.Selection{Client: "DEV:GOV:1001:portal", Side: "client", Direction: "request", Newest: true})
	if err != nil || len(records) != 2 || records[1].Direction != "response" || !records[0].Stamped {
		t.Error(records, err)
	}
	if q := w.log.query; q.Client != client(t, "DEV/GOV/1001/portal") || q.Side != msglog.Client || q.Direction != msglog.Requests || !q.Newest || q.Limit != 100 {
		t.Errorf("%+v", q)
	}
	var b bytes.Buffer
	if err := auditor.Export(t.Context(), admin.Selection{}, false, &b); err != nil || b.String() != "zip" {
		t.Error(b.String(), err)
	}
	for _, tc := range []struct {
		err    error
		status int
		code   string
	}{{msglog.ErrNotFound, 404, guard.CodeUnknown}, {msglog.ErrNotStamped, 409, "not_stamped"}, {msglog.ErrClosed, 503, guard.CodeUnavailable}} {
		w.log.err = tc.err
		w.refused(auditor.Export(t.Context(), admin.Selection{}, false, &b), tc.status, tc.code, "")
	}
	w.log.err = errors.New("secret of the disk")
	if err := auditor.Export(t.Context(), admin.Selection{}, false, &b); err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k, err := w.root.CreateAPIKey(t.Context(), admin.NewAPIKey{Name: "bob", Roles: []string{admin.RoleObserver, admin.RoleAuditor}})
	if err != nil || len(k.Key) < 20 {
		t.Fatal(k, err)
	}
	bob := w.client(k.Key)
	if _, err := bob.Keys(t.Context()); err != nil {
		t.Error(err)
	}
	w.refused(first(w.root.CreateAPIKey(t.Context(), admin.NewAPIKey{Name: "bob", Roles: []string{admin.RoleObserver}})), 409, guard.CodeExists, "bob")
	w.refused(first(w.root.CreateAPIKey(t.Context(), admin.NewAPIKey{Name: "eve", Roles: []string{"king"}})), 422, guard.CodeInvalid, "king")
	all, err := w.root.APIKeys(t.Context())
	if err != nil || len(all) != 2 || all[1].Name != "bob" || len(all[1].Roles) != 2 {
		t.Error(all, err)
	}
	w.refused(w.root.DeleteAPIKey(t.Context(), "bob", ""), 428, "if_match_needed", "")
	w.refused(w.root.DeleteAPIKey(t.Context(), "bob", `"other"`), 412, guard.CodeChangedMeanwhile, "")
	_, etag, err := w.root.APIKey(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.root.DeleteAPIKey(t.Context(), "bob", etag); err != nil {
		t.Error(err)
	}
	w.refused(first(bob.Keys(t.Context())), 401, guard.CodeKeyNeeded, "")
	w.refused(w.root.DeleteAPIKey(t.Context(), "root", "*"), 409, guard.CodeInUse, "nobody could manage")
	w.refused(w.root.DeleteAPIKey(t.Context(), "none", "*"), 404, guard.CodeUnknown, "none")
}

// A change with an Idempotency-Key is made once, and its answer given again.
func TestIdempotency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const one, two = `{"id":"DEV/GOV/1001/extra","connection":"http"}`, `{"id":"DEV/GOV/2002/consumer","connection":"http"}`
	add := func(secret, body, key string) *httptest.ResponseRecorder {
		return w.raw(secret, "POST", "/api/v1/clients", body, "Idempotency-Key", key)
	}
	first := add(w.secret, one, "k")
	again := add(w.secret, one, "k")
	if first.Code != http.StatusCreated || again.Code != first.Code || again.Body.String() != first.Body.String() ||
		again.Header().Get("ETag") != first.Header().Get("ETag") || again.Header().Get("Content-Type") != first.Header().Get("Content-Type") {
		t.Errorf("%d %s\n%d %s", first.Code, first.Body, again.Code, again.Body)
	}
	if first.Header().Get("Idempotency-Replayed") != "" || again.Header().Get("Idempotency-Replayed") != "true" {
		t.Error(first.Header(), again.Header())
	}
	done := 0
	for _, r := range w.audit() {
		if r.Operation == "add-client" && r.Outcome == guard.Done {
			done++
		}
	}
	if done != 1 {
		t.Errorf("done %d times", done)
	}
	if r := add(w.secret, one, "another"); r.Code != http.StatusConflict {
		t.Errorf("with another key: %d", r.Code)
	}
	// What was refused is judged again.
	if _, etag, err := w.root.Client(t.Context(), "DEV/GOV/1001/extra"); err != nil {
		t.Error(err)
	} else if err := w.root.DeleteClient(t.Context(), "DEV/GOV/1001/extra", etag); err != nil {
		t.Error(err)
	}
	if r := add(w.secret, one, "another"); r.Code != http.StatusCreated {
		t.Errorf("after a refusal: %d %s", r.Code, r.Body)
	}
	if r := add(w.secret, two, "k"); r.Code != http.StatusUnprocessableEntity || !strings.Contains(r.Body.String(), guard.CodeKeyReused) {
		t.Errorf("another call with the same key: %d %s", r.Code, r.Body)
	}
	// The key is the caller's own.
	if r := add(w.keyOf(admin.RoleRegistrationOfficer), two, "k"); r.Code != http.StatusCreated {
		t.Errorf("another caller: %d %s", r.Code, r.Body)
	}
	if r := add(w.secret, two, strings.Repeat("k", 256)); r.Code != http.StatusUnprocessableEntity {
		t.Errorf("a long key: %d", r.Code)
	}
	w.shift.Add(int64(25 * time.Hour))
	if r := add(w.secret, one, "k"); r.Code != http.StatusConflict {
		t.Errorf("a day later: %d %s", r.Code, r.Body)
	}
}

// A call that is repeated while it is under way is told to wait, and then gets
// the answer of the first; the client waits by itself.
func TestRepeatedWhileUnderWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	documents := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answer
		_, _ = rw.Write([]byte(`{"openapi":"3.0.3","info":{"title":"t","version":"1"},"servers":[{"url":"http://10.0.0.1"}],"paths":{"/a":{"get":{"responses":{"200":{"description":"ok"}}}}}}`))
	}))
	defer documents.Close()
	body := `{"type":"OPENAPI3","code":"slow","url":"` + documents.URL + `"}`
	add := func(key string) *httptest.ResponseRecorder {
		return w.raw(w.secret, "POST", "/api/v1/clients/DEV%2FGOV%2F1001%2Fportal/descriptions", body, "Idempotency-Key", key)
	}
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- add("k") }()
	<-asked
	if r := add("k"); r.Code != http.StatusConflict || r.Header().Get("Retry-After") != "1" || !strings.Contains(r.Body.String(), guard.CodeUnderWay) || !strings.Contains(r.Body.String(), "the same Idempotency-Key") {
		t.Errorf("under way: %d %v %s", r.Code, r.Header(), r.Body)
	}
	close(answer)
	done := <-first
	again := add("k")
	if done.Code/100 != 2 || again.Code != done.Code || again.Body.String() != done.Body.String() || again.Header().Get("Idempotency-Replayed") != "true" {
		t.Errorf("%d %s\n%d %s", done.Code, done.Body, again.Code, again.Body)
	}
}

// A client whose connection breaks before the answer asks again, and the change
// is made once.
func TestBrokenConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	broken := false
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && !broken {
			broken = true
			w.api.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		w.api.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	c := admin.NewClient(server.URL, w.secret, server.Certificate())
	if got, err := c.AddClient(t.Context(), admin.NewClientEntry{ID: "DEV/GOV/1001/extra"}); err != nil || got.ID != "DEV/GOV/1001/extra" {
		t.Fatal(got, err)
	}
	broken = false
	if err := c.DeleteClient(t.Context(), "DEV/GOV/1001/extra", "*"); err != nil {
		t.Error(err)
	}
	done := map[string]int{}
	for _, r := range w.audit() {
		done[r.Operation+" "+r.Outcome]++
	}
	if done["add-client "+guard.Done] != 1 || done["delete-client "+guard.Done] != 1 {
		t.Error(done)
	}
	// Two changes alike are two.
	if _, err := c.AddClient(t.Context(), admin.NewClientEntry{ID: "DEV/GOV/1001/extra"}); err != nil {
		t.Error(err)
	}
	w.refused(first(c.AddClient(t.Context(), admin.NewClientEntry{ID: "DEV/GOV/1001/extra"})), 409, guard.CodeExists, "already")
}
