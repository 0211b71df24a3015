// SPDX-License-Identifier: Apache-2.0

package metaservice_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kontor/gateway/metaservice"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// A provider's list of very many empty services is not taken into memory.
func TestGovStackLists(t *testing.T) {
	t.Parallel()
	client, err := id.ParseClient("T/GOV/1/app")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		items, status int
	}{{1000, http.StatusOK}, {300_000, http.StatusInternalServerError}} {
		srv := httptest.NewServer(metaservice.GovStack(metaservice.GovStackConfig{
			View: func() (*globalconf.View, error) { return nil, nil }, Known: func(id.Client) bool { return true }, Default: client,
			Client: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, `{"service":[`+strings.Repeat("{},", tt.items)+`{}]}`)
			}),
		}))
		defer srv.Close()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/r1/T/GOV/2/app/listMethods", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.Body.Close() != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(body), "serviceCode"); resp.StatusCode != tt.status || (n > 0) != (tt.status == http.StatusOK) {
			t.Errorf("%d items: status %d, %d services: %.200s", tt.items, resp.StatusCode, n, body)
		}
	}
}
