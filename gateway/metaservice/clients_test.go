// SPDX-License-Identifier: Apache-2.0

package metaservice_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kontor/gateway/fault"
	"kontor/gateway/metaservice"
	"kontor/registry/globalconf"
)

// view makes a configuration of many members with one subsystem each, whose
// names are hard on writers.
func view(t *testing.T, members int) *globalconf.View {
	t.Helper()
	dir := t.TempDir()
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?><ns3:conf xmlns:ns2="http://x-road.eu/xsd/identifiers" xmlns:ns3="http://x-road.eu/xsd/xroad.xsd"><instanceIdentifier>T</instanceIdentifier><source><address>cs</address><internalVerificationCert>AA==</internalVerificationCert><externalVerificationCert>AA==</externalVerificationCert></source>`)
	for i := range members {
		fmt.Fprintf(&b, `<member id="m%d"><memberClass><code>GOV</code><description>x</description></memberClass><memberCode>%d</memberCode><name>A &amp; &lt;B&gt; "%d"</name><subsystem id="s%d"><subsystemCode>süd</subsystemCode><subsystemName>Süd</subsystemName></subsystem></member>`, i, i, i, i)
	}
	b.WriteString(`<globalSettings><memberClass><code>GOV</code><description>x</description></memberClass><ocspFreshnessSeconds>3600</ocspFreshnessSeconds></globalSettings></ns3:conf>`)
	if err := os.MkdirAll(filepath.Join(dir, "T"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"instance-identifier": "T", "T/shared-params.xml": b.String(), "T/shared-params.xml.metadata": `{"configurationVersion":"5"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v, err := globalconf.LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A list of many clients is whole, in both forms, and goes out in pieces.
func TestManyClients(t *testing.T) {
	t.Parallel()
	const members = 5000
	v := view(t, members)
	srv := httptest.NewServer(metaservice.ListClients(func() (*globalconf.View, error) { return v, nil }, fault.SnakeCase))
	defer srv.Close()
	get := func(accept string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.ContentLength >= 0 {
			t.Error("the list was held back as a whole")
		}
		return resp
	}
	type client struct {
		ID struct {
			Code      string `xml:"memberCode" json:"member_code"`
			Subsystem string `xml:"subsystemCode" json:"subsystem_code"`
		} `xml:"id" json:"id"`
		Name          string `xml:"name" json:"name"`
		SubsystemName string `xml:"subsystemName" json:"subsystem_name"`
	}
	check := func(list []client, err error) {
		t.Helper()
		if err != nil || len(list) != 2*members {
			t.Fatalf("%d clients, %v", len(list), err)
		}
		for i := range members {
			m, s := list[2*i], list[2*i+1]
			code, name := fmt.Sprint(i), fmt.Sprintf(`A & <B> "%d"`, i)
			if m.ID.Code != code || m.Name != name || m.ID.Subsystem != "" || m.SubsystemName != "" ||
				s.ID.Code != code || s.Name != name || s.ID.Subsystem != "süd" || s.SubsystemName != "Süd" {
				t.Fatalf("%+v, %+v", m, s)
			}
		}
	}
	var doc struct {
		Member []client `xml:"member" json:"member"`
	}
	resp := get("text/xml")
	err := xml.NewDecoder(resp.Body).Decode(&doc)
	resp.Body.Close()
	check(doc.Member, err)
	doc.Member = nil
	resp = get("application/json")
	err = json.NewDecoder(resp.Body).Decode(&doc)
	resp.Body.Close()
	check(doc.Member, err)
}

// Codes are spelt as the operator wants them.
func TestSpelling(t *testing.T) {
	t.Parallel()
	none := func() (*globalconf.View, error) { return nil, fault.New(fault.GlobalConfOutdated, "expired") }
	for spelling, want := range map[fault.Style]string{
		"": "<faultcode>server.clientproxy.global_conf_outdated<", fault.CamelCase: "<faultcode>Server.ClientProxy.OutdatedGlobalConf<",
	} {
		for _, h := range []http.Handler{metaservice.ListClients(none, spelling), metaservice.VerificationConf(none, spelling)} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) || w.Header().Get("Content-Disposition") != "" {
				t.Errorf("%d %v %s, want %s", w.Code, w.Header(), w.Body, want)
			}
		}
	}
}

// Whoever does not read the answer does not get half of it as a whole.
func TestListBreaksOff(t *testing.T) {
	t.Parallel()
	v := view(t, 100)
	h := metaservice.ListClients(func() (*globalconf.View, error) { return v, nil }, fault.SnakeCase)
	defer func() {
		if r := recover(); r != http.ErrAbortHandler {
			t.Errorf("the handler ended with %v", r)
		}
	}()
	h.ServeHTTP(brokenWriter{http.Header{}}, httptest.NewRequest(http.MethodGet, "/listClients", nil))
}

type brokenWriter struct{ header http.Header }

func (b brokenWriter) Header() http.Header              { return b.header }
func (b brokenWriter) WriteHeader(int)                  {}
func (b brokenWriter) Write([]byte) (int, error)        { return 0, errors.New("gone") }
func (b brokenWriter) SetWriteDeadline(time.Time) error { return nil }
