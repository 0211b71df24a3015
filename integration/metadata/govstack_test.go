// SPDX-License-Identifier: Apache-2.0

package metadata_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kontor/config"
	"kontor/integration/testnet"
)

// govStack starts a network whose gateway A has GovStack's view at an address.
func govStack(t *testing.T, address string, byDefault string) (*testnet.Network, string) {
	t.Helper()
	n := testnet.Start(t, testnet.Options{Gateway: func(name string, c *config.Gateway) {
		if name != "A" {
			return
		}
		c.GovStack.Listen = address
		if address == "" {
			c.GovStack.Listen = strings.Replace(c.Listen.Consumer, ":8080", ":8088", 1)
		}
		if byDefault != "" {
			c.GovStack.Client = testnet.ClientID(byDefault)
			c.Faults.Style = "CamelCase" // codes are understood however they are spelt
		}
	}})
	services(n)
	return n, "http://" + n.A.Cfg.GovStack.Listen
}

// The lists of the specification.
type (
	identifierType struct{ ObjectType, InstanceID, MemberClass, MemberCode, ApplicationCode string }
	clientsType    struct {
		Member []struct {
			Name string
			ID   identifierType
		}
	}
	servicesType struct {
		Member []struct {
			ObjectType, ServiceType, InstanceID, MemberClass, MemberCode, ApplicationCode, ServiceCode, ServiceVersion string
			EndpointList                                                                                               struct {
				Member []struct{ Method, Path string }
			}
		}
	}
)

func TestGovStack(t *testing.T) {
	n, base := govStack(t, "", "")
	get := func(path string, header ...string) *testnet.Result {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range header {
			if name, value, ok := strings.Cut(h, ": "); ok {
				r.Header.Set(name, value)
			}
		}
		res := n.Do(http.DefaultTransport, r)
		if res.Err != nil {
			t.Fatal(path, res.Err)
		}
		return res
	}
	// list reads an answer that may have nothing but what the specification has.
	list := func(res *testnet.Result, into any) {
		t.Helper()
		d := json.NewDecoder(bytes.NewReader(res.Body))
		d.DisallowUnknownFields()
		if err := d.Decode(into); err != nil || res.Status != http.StatusOK || res.Header.Get("Content-Type") != jsonType {
			t.Fatalf("%d %v %s: %v", res.Status, res.Header, res.Body, err)
		}
	}

	for path, some := range map[string]bool{
		"/listClients": true, "/listClients?instanceId=TEST": true, "/r1/listClients": true, "/listClients?instanceId=NOWHERE": false,
	} {
		var clients clientsType
		list(get(path), &clients)
		found := false
		for _, c := range clients.Member {
			found = found || c.ID == identifierType{"APPLICATION", "TEST", "GOV", "2002", "population"}
		}
		if found != some || clients.Member == nil {
			t.Errorf("%s: %+v", path, clients)
		}
	}

	const from = "X-GovStack-Client: " + testnet.Portal
	for _, tt := range []struct {
		path, header, want string
	}{
		{"/r1/" + provider + "/listMethods", from, "api closed nowhere dead bare rest"},
		{"/" + provider + "/listMethods?serviceId=x", "Information-Mediator-Client: " + testnet.Portal, "api closed nowhere dead bare rest"},
		{"/r1/" + provider + "/allowedMethods", "X-Road-Client: " + testnet.Portal, "api rest"},
		{"/r1/" + provider + "/allowedMethods", "X-GovStack-Client: " + testnet.Stranger, ""},
		{"/r1/TEST/GOV/2002/nobody/listMethods", from, ""},
		{"/r1/NOWHERE/GOV/2002/population/allowedMethods", from, ""},
	} {
		var services servicesType
		list(get(tt.path, tt.header), &services)
		var got []string
		for _, s := range services.Member {
			got = append(got, s.ServiceCode)
			if s.ObjectType != "SERVICE" || s.InstanceID != "TEST" || s.MemberClass != "GOV" || s.MemberCode != "2002" || s.ApplicationCode != "population" || s.ServiceType == "" {
				t.Errorf("%s: %+v", tt.path, s)
			}
			if s.ServiceCode == "api" && (len(s.EndpointList.Member) < 2 || s.EndpointList.Member[0].Method != "GET" || s.EndpointList.Member[0].Path != "/pets") {
				t.Errorf("%s: %+v", tt.path, s.EndpointList)
			}
		}
		if strings.Join(got, " ") != tt.want || services.Member == nil {
			t.Errorf("%s: %v, want %s", tt.path, got, tt.want)
		}
	}

	n.Service.Handle(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(openapiJSON))
	})
	hidden := strings.Replace(openapiJSON, `:"http://10.1.2.3:8080/v1"`, `: "/v1"`, 1)
	var text string
	list(get("/r1/"+provider+"/getOpenAPI?serviceCode=api", from), &text)
	if text != hidden {
		t.Error(text)
	}
	if res := get("/r1/"+provider+"/getOpenAPI?serviceCode=api", from, "Accept: text/yaml"); string(res.Body) != hidden || res.Header.Get("Content-Type") != "text/yaml; charset=utf-8" {
		t.Errorf("%v %s", res.Header, res.Body)
	}

	for path, want := range map[string]struct {
		status int
		header string
	}{
		"/r1/" + provider + "/getOpenAPI":                     {400, from},
		"/r1/" + provider + "/getOpenAPI?serviceCode=":        {400, from},
		"/r1/" + provider + "/getOpenAPI?serviceCode=nobody":  {400, from},
		"/r1/" + provider + "/getOpenAPI?serviceCode=rest":    {400, from},
		"/r1/" + provider + "/getOpenAPI?serviceCode=dead":    {500, from},
		"/r1/TEST/GOV/2002/nobody/getOpenAPI?serviceCode=api": {400, from},
		"/r1/" + provider + "/listMethods":                    {400, ""},
		"/r1/" + provider + "/allowedMethods":                 {400, "X-GovStack-Client: TEST/GOV/1001/pending"},
		"/r1/" + provider + "/allowedMethods?":                {500, "X-GovStack-Client: " + testnet.Pinned},
		"/r1/" + provider + "/persons":                        {404, from},
		"/r1/TEST/GOV/2002/listMethods":                       {404, from},
		"/r1/a%2Fb/GOV/2002/population/../listMethods":        {404, from},
		"/": {404, from},
	} {
		res := get(path, want.header)
		var text string
		if err := json.Unmarshal(res.Body, &text); err != nil || text == "" || res.Status != want.status {
			t.Errorf("%s: %d %s, want %d", path, res.Status, res.Body, want.status)
		}
		if m := internals.FindString(text); m != "" {
			t.Errorf("%s shows %q: %s", path, m, text)
		}
	}
	if resp, err := http.Post(base+"/listClients", "text/plain", strings.NewReader("x")); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, %v", resp, err)
	}
}

// Whoever names no known client is served as the client that the operator chose.
func TestGovStackDefaultClient(t *testing.T) {
	_, base := govStack(t, "", testnet.Portal)
	for _, header := range []string{"", "eGovStack/GOV/90000009/digitalregistries", "nonsense"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/r1/"+provider+"/allowedMethods", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-GovStack-Client", header)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var services servicesType
		err = json.NewDecoder(resp.Body).Decode(&services)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || len(services.Member) != 2 {
			t.Errorf("%q: %d, %+v, %v", header, resp.StatusCode, services, err)
		}
	}
	resp, err := http.Get(base + "/r1/TEST/GOV/2002/nobody/listMethods")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK || string(b) != `{"member":[]}` {
		t.Errorf("%d %s %v", resp.StatusCode, b, err)
	}
}

// TestGovStackHarness runs GovStack's own tests, if KONTOR_GOVSTACK_HARNESS names
// the folder test/openAPI of their Information Mediator, with its packages
// installed (npm install). It expects a mock at port 3366, so the positive
// scenarios of getOpenAPI, which read a document of services that only the mock
// has, cannot succeed; all others must.
func TestGovStackHarness(t *testing.T) {
	harness := os.Getenv("KONTOR_GOVSTACK_HARNESS")
	if harness == "" {
		t.Skip("KONTOR_GOVSTACK_HARNESS does not name a checkout of GovStack's tests")
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("npm is not installed")
	}
	govStack(t, "127.0.0.1:3366", testnet.Portal)
	report := filepath.Join(t.TempDir(), "report.json")
	cmd := exec.CommandContext(t.Context(), npm, "test", "--", "--publish-quiet", "--format", "json:"+report)
	cmd.Dir = harness
	out, _ := cmd.CombinedOutput() // its status tells of the expected failures, too
	b, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var features []struct {
		Name     string
		Elements []struct {
			Name  string
			Steps []struct {
				Name   string
				Result struct {
					Status  string
					Message string `json:"error_message"`
				}
			}
		}
	}
	if err := json.Unmarshal(b, &features); err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, f := range features {
		for _, scenario := range f.Elements {
			failed := ""
			for _, s := range scenario.Steps {
				if s.Result.Status != "passed" && failed == "" {
					failed = s.Result.Status + ": " + s.Name + "\n" + s.Result.Message
				}
			}
			switch {
			case failed == "":
				passed++
			case strings.HasPrefix(scenario.Name, "Retrieve the openAPI description"):
				t.Logf("expected of %s: %.60s", scenario.Name, failed)
			default:
				t.Errorf("%s: %s: %s", f.Name, scenario.Name, failed)
			}
		}
	}
	if passed < 15 {
		t.Errorf("%d scenarios passed\n%s", passed, out)
	}
}
