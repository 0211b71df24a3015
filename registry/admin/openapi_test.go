// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kontor/registry/admin"
	"kontor/registry/guard"
)

const (
	registration = admin.RegistrationOfficer
	security     = admin.SecurityOfficer
	system       = admin.SystemAdministrator
	observer     = admin.Observer
)

// permitted says, for every operation, which roles may call it. It is written
// from what the roles are for, not from the code.
var permitted = map[string][]string{
	"list-members":                  {registration, security, system, observer},
	"show-member":                   {registration, security, system, observer},
	"add-member":                    {registration},
	"rename-member":                 {registration},
	"delete-member":                 {registration},
	"list-subsystems":               {registration, security, system, observer},
	"show-subsystem":                {registration, security, system, observer},
	"add-subsystem":                 {registration},
	"rename-subsystem":              {registration},
	"delete-subsystem":              {registration},
	"list-member-classes":           {registration, security, system, observer},
	"show-member-class":             {registration, security, system, observer},
	"add-member-class":              {system},
	"change-member-class":           {system},
	"delete-member-class":           {system},
	"list-security-servers":         {registration, security, system, observer},
	"show-security-server":          {registration, security, system, observer},
	"add-security-server":           {registration},
	"change-security-server":        {registration},
	"delete-security-server":        {registration},
	"begin-maintenance":             {registration},
	"end-maintenance":               {registration},
	"add-certificate":               {registration},
	"delete-certificate":            {registration},
	"add-client":                    {registration},
	"enable-client":                 {registration},
	"delete-client":                 {registration},
	"list-global-groups":            {registration, security, system, observer},
	"show-global-group":             {registration, security, system, observer},
	"add-global-group":              {registration},
	"change-global-group":           {registration},
	"delete-global-group":           {registration},
	"add-group-member":              {registration},
	"delete-group-member":           {registration},
	"list-certification-services":   {registration, security, system, observer},
	"show-certification-service":    {registration, security, system, observer},
	"add-certification-service":     {security},
	"change-certification-service":  {security},
	"delete-certification-service":  {security},
	"add-intermediate":              {security},
	"delete-intermediate":           {security},
	"add-ocsp-responder":            {security},
	"delete-ocsp-responder":         {security},
	"list-timestamping-services":    {registration, security, system, observer},
	"show-timestamping-service":     {registration, security, system, observer},
	"add-timestamping-service":      {security},
	"change-timestamping-service":   {security},
	"delete-timestamping-service":   {security},
	"list-trusted-anchors":          {registration, security, system, observer},
	"show-trusted-anchor":           {registration, security, system, observer},
	"trust-anchor":                  {security},
	"distrust-anchor":               {security},
	"download-configuration-anchor": {registration, security, system, observer},
	"list-signing-keys":             {registration, security, system, observer},
	"generate-signing-key":          {security},
	"activate-signing-key":          {security},
	"retire-signing-key":            {security},
	"show-status":                   {registration, security, system, observer},
	"show-system-parameters":        {registration, security, system, observer},
	"change-system-parameters":      {system},
	"show-management-services":      {registration, security, system, observer},
	"change-management-services":    {system},
	"show-monitoring-client":        {registration, security, system, observer},
	"change-monitoring-client":      {system},
	"delete-monitoring-client":      {system},
	"list-nodes":                    {registration, security, system, observer},
	"change-node":                   {system},
	"remove-node":                   {system},
	"submit-request":                {registration},
	"list-requests":                 {registration, security, system, observer},
	"show-request":                  {registration, security, system, observer},
	"approve-request":               {registration},
	"decline-request":               {registration},
	"read-journal":                  {registration, security, system, observer},
	"plan-declaration":              {registration, security, system, observer},
	"apply-declaration":             {registration, security, system},
	"list-api-keys":                 {system},
	"add-api-key":                   {system},
	"delete-api-key":                {system},
}

type documented struct {
	OperationID string   `json:"operationId"`
	Summary     string   `json:"summary"`
	Roles       []string `json:"x-roles"`
	Parameters  []struct {
		Name string `json:"name"`
		In   string `json:"in"`
	} `json:"parameters"`
	Responses map[string]struct {
		Content map[string]json.RawMessage `json:"content"`
	} `json:"responses"`
	Security []map[string][]string `json:"security"`
}

func (w *world) document() map[string]map[string]documented {
	w.t.Helper()
	status, _, text := w.call("", "GET", "/openapi.json", "")
	var doc struct {
		OpenAPI string                           `json:"openapi"`
		Paths   map[string]map[string]documented `json:"paths"`
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil || status != http.StatusOK {
		w.t.Fatal(status, err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		w.t.Errorf("OpenAPI %s", doc.OpenAPI)
	}
	return doc.Paths
}

var placeholder = regexp.MustCompile(`\{([a-z0-9]+)\}`)

// The document describes what is served, all of it and nothing else.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := map[string]bool{}
	for path, operations := range w.document() {
		for method, op := range operations {
			name := strings.ToUpper(method) + " " + path
			seen[op.OperationID] = true
			if op.Summary == "" || len(op.Security) != 1 || op.Responses["default"].Content["application/problem+json"] == nil {
				t.Errorf("%s is not described: %+v", name, op)
			}
			var want, got []string
			for _, m := range placeholder.FindAllStringSubmatch(path, -1) {
				want = append(want, m[1])
			}
			named := map[string]bool{}
			for _, p := range op.Parameters {
				named[p.In+" "+p.Name] = true
				if p.In == "path" {
					got = append(got, p.Name)
				}
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s has path parameters %v", name, got)
			}
			reads := method == "get" || op.OperationID == "plan-declaration"
			if !reads && !named["query why"] {
				t.Errorf("%s takes no reason", name)
			}
			if outside := strings.Contains(path, "api-keys"); !reads && !outside && (!named["header If-Match"] || !named["header Idempotency-Key"]) {
				t.Errorf("%s takes no If-Match or Idempotency-Key", name)
			}
			// It is there, and not for strangers.
			if status, _, text := w.call("", strings.ToUpper(method), placeholder.ReplaceAllString(path, "x"), ""); status != http.StatusUnauthorized {
				t.Errorf("%s without a key: %d %s", name, status, text)
			}
			if status, _, _ := w.call("wrong", strings.ToUpper(method), placeholder.ReplaceAllString(path, "x"), ""); status != http.StatusUnauthorized {
				t.Errorf("%s with a wrong key: %d", name, status)
			}
		}
	}
	if want := slices.Sorted(maps.Keys(permitted)); !slices.Equal(slices.Sorted(maps.Keys(seen)), want) {
		t.Errorf("operations %v, want %v", slices.Sorted(maps.Keys(seen)), want)
	}
}

// Every role against every operation.
func TestRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.reg.State().Number()
	for path, operations := range w.document() {
		for method, op := range operations {
			for _, role := range admin.Roles() {
				status, _, text := w.call(w.key(role), strings.ToUpper(method), placeholder.ReplaceAllString(path, "x"), "")
				allowed := status != http.StatusForbidden
				if want := slices.Contains(permitted[op.OperationID], role); allowed != want {
					t.Errorf("%s by %s: %d %s", op.OperationID, role, status, text)
				}
				if !allowed && !strings.Contains(text, guard.CodeRoleNeeded) {
					t.Errorf("%s by %s: %s", op.OperationID, role, text)
				}
			}
			slices.Sort(op.Roles)
			if want := slices.Sorted(slices.Values(permitted[op.OperationID])); !slices.Equal(op.Roles, want) {
				t.Errorf("%s is documented for %v, want %v", op.OperationID, op.Roles, want)
			}
		}
	}
	if w.reg.State().Number() != before {
		t.Error("something was changed")
	}
}
