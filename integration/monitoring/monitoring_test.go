// SPDX-License-Identifier: Apache-2.0

// Package monitoring_test asks security servers what they tell of their
// exchanges: operational data, health, the machine, and traces.
package monitoring_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kontor/config"
	"kontor/gateway/message"
	"kontor/gateway/serverconf"
	"kontor/integration/testnet"
	"kontor/registry"
	"kontor/registry/id"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

const (
	owner1 = "TEST/GOV/1001" // of server 1
	owner2 = "TEST/GOV/2002" // of server 2
)

// start starts a network that keeps operational data. Stranger may read all of
// it; the owner of server 1 is a client there.
func start(t *testing.T, change func(name string, c *config.Gateway)) *testnet.Network {
	t.Helper()
	stranger, err := id.ParseClient(testnet.Stranger)
	if err != nil {
		t.Fatal(err)
	}
	n := testnet.Start(t, testnet.Options{Settings: registry.Settings{MonitoringClient: &stranger}, Gateway: func(name string, c *config.Gateway) {
		o := &c.OperationalMonitoring
		o.Enabled, o.Keep, o.MaxSize, o.AvailableAfter, o.MaxRecords = true, time.Hour, 1<<20, time.Second, 100
		if change != nil {
			change(name, c)
		}
	}})
	n.A.Configure(func(m *serverconf.Model) {
		m.Clients = append(m.Clients, serverconf.ClientEntry{ID: testnet.ClientID(owner1), Status: serverconf.Registered, Connection: serverconf.HTTP})
	})
	n.B.Configure(func(m *serverconf.Model) {
		e := testnet.Entry(m, testnet.Population)
		s := &e.Descriptions[0].Services[0]
		s.Endpoints = append(s.Endpoints, serverconf.EndpointEntry{Endpoint: serverconf.Endpoint{Method: "*", Path: "/people/*"}})
	})
	n.Service.Handle(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if !strings.HasPrefix(r.URL.Path, "/soap") {
			if r.URL.Path == "/persons/teapot" {
				w.WriteHeader(http.StatusTeapot)
			}
			_, _ = w.Write([]byte("hello"))
			return
		}
		w.Header().Set("Content-Type", "text/xml")
		if _, rest, ok := bytes.Cut(body, []byte("<soapenv:Envelope")); ok { // in multipart
			envelope, _, _ := bytes.Cut(rest, []byte("\r\n--"))
			body = append([]byte("<soapenv:Envelope"), envelope...)
		}
		e, err := message.ReadEnvelope(body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = w.Write(e.WithBody([]byte(`<soapResponse/>`)))
	})
	return n
}

// ask asks the security server of an owner.
func ask(n *testnet.Network, client, owner, server, code, body string) *testnet.Result {
	extra := ""
	if server != "" {
		s := testnet.ServerID(server)
		extra = fmt.Sprintf(`<xro:securityServer id:objectType="SERVER"><id:xRoadInstance>%s</id:xRoadInstance><id:memberClass>%s</id:memberClass><id:memberCode>%s</id:memberCode><id:serverCode>%s</id:serverCode></xro:securityServer>`,
			s.Owner().Instance(), s.Owner().Class(), s.Owner().Code(), s.Code())
	}
	service := owner + "/" + code
	if strings.Count(service, "/") == 3 { // of a member, which has no form in REST
		service = owner + "/none/" + code
	}
	envelope := testnet.Envelope{Client: client, Service: service, ID: "ask-" + code, Extra: extra, Body: body}.String()
	return n.SOAP("text/xml", strings.NewReader(strings.Replace(envelope, "<id:subsystemCode>none</id:subsystemCode>", "", 1)))
}

// valid checks what is in the body of an envelope against a schema, by xmllint.
func valid(t *testing.T, schema string, envelope []byte) {
	t.Helper()
	xmllint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Log("xmllint is not installed: the answer is not checked against the schema")
		return
	}
	var doc struct {
		Body struct {
			Content []byte `xml:",innerxml"`
		} `xml:"Body"`
	}
	if err := xml.Unmarshal(envelope, &doc); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(xmllint, "--nonet", "--noout", "--schema", filepath.Join("testdata", schema), "-")
	cmd.Stdin = bytes.NewReader(doc.Body.Content)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s\n%s", out, doc.Body.Content)
	}
}

func dataBody(fields ...string) string {
	spec := ""
	for _, f := range fields {
		spec += "<om:outputField>" + f + "</om:outputField>"
	}
	return `<om:getSecurityServerOperationalData xmlns:om="http://x-road.eu/xsd/op-monitoring.xsd"><om:searchCriteria><om:recordsFrom>0</om:recordsFrom><om:recordsTo>9999999999</om:recordsTo></om:searchCriteria>` +
		`<om:outputSpec>` + spec + `</om:outputSpec></om:getSecurityServerOperationalData>`
}

type record map[string]any

// data asks for operational data, until there is a record of each of the
// messages, and returns all of it by their ids.
func data(t *testing.T, n *testnet.Network, client, owner, server string, messages ...string) map[string]record {
	t.Helper()
	found := map[string]record{}
	testnet.Eventually(t, func() error {
		res := ask(n, client, owner, server, serverconf.GetOperationalData, dataBody())
		if res.Err != nil || res.Code != "" {
			t.Fatalf("%s %s %v", res.Code, res.Fault.Message, res.Err)
		}
		_, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
		if err != nil {
			return fmt.Errorf("%w: %s", err, res.Body)
		}
		r := multipart.NewReader(bytes.NewReader(res.Body), params["boundary"])
		part, err := r.NextRawPart()
		if err != nil {
			return err
		}
		soap, err := io.ReadAll(part)
		if err != nil {
			return err
		}
		valid(t, "op-monitoring.xsd", soap)
		part, err = r.NextRawPart()
		if err != nil {
			return err
		}
		z, err := gzip.NewReader(part)
		if err != nil {
			return err
		}
		var doc struct{ Records []record }
		if err := json.NewDecoder(z).Decode(&doc); err != nil {
			return err
		}
		clear(found)
		for _, r := range doc.Records {
			name, _ := r["messageId"].(string)
			found[name] = r
		}
		for _, m := range messages {
			if found[m] == nil {
				return fmt.Errorf("no record of %s", m)
			}
		}
		return nil
	})
	return found
}

// equal compares fields of a record; a missing one is nil.
func equal(t *testing.T, r record, want record) {
	t.Helper()
	for name, v := range want {
		if got := r[name]; fmt.Sprint(got) != fmt.Sprint(v) {
			t.Errorf("message %v: %s is %v, expected %v", r["messageId"], name, got, v)
		}
	}
}

func TestOperationalData(t *testing.T) {
	n := start(t, nil)
	t.Run("exchanges", func(t *testing.T) {
		res := n.Call(testnet.Portal, "POST", testnet.Path(testnet.Persons)+"/people/38001010001?secret=1", strings.NewReader("12345"), "X-Road-Id: rest-1", "X-Road-UserId: EE1", "X-Road-Issue: i1", "X-Road-Represented-Party: COM/77")
		if res.Status != http.StatusOK {
			t.Fatal(res.Code, res.Err)
		}
		for id, path := range map[string]string{"rest-2": "/teapot", "rest-3": "/nobody/knows"} {
			n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons)+path, nil, "X-Road-Id: "+id)
		}
		if res := n.Call(testnet.Stranger, "GET", testnet.Path(testnet.Persons), nil, "X-Road-Id: denied-1"); res.Code != "server.serverproxy.access_denied" {
			t.Fatal(res.Code)
		}
		envelope := testnet.Envelope{Client: testnet.Portal, Service: testnet.Query, ID: "soap-1"}.String()
		kind, body := testnet.Related(`; type="text/xml"`, testnet.Part{Header: [][2]string{{"Content-Type", "text/xml"}}, Content: []byte(envelope)},
			testnet.Part{Header: [][2]string{{"Content-Type", "text/plain"}, {"Content-Id", "<1>"}}, Content: []byte("attached")})
		if res := n.SOAP(kind, bytes.NewReader(body)); res.Code != "" || res.Err != nil {
			t.Fatal(res.Code, res.Fault.Message, res.Err)
		}

		everything := []string{"rest-1", "rest-2", "rest-3", "denied-1", "soap-1"}
		provider := data(t, n, testnet.Stranger, owner2, testnet.Server2, everything...)
		consumer := data(t, n, owner1, owner1, testnet.Server1, everything...)
		a, b := n.A.IP(), n.B.IP()
		equal(t, provider["rest-1"], record{
			"securityServerType": "Producer", "securityServerInternalIp": b, "clientXRoadInstance": "TEST", "clientMemberClass": "GOV", "clientMemberCode": "1001", "clientSubsystemCode": "portal",
			"serviceXRoadInstance": "TEST", "serviceMemberClass": "GOV", "serviceMemberCode": "2002", "serviceSubsystemCode": "population", "serviceCode": "persons", "serviceVersion": nil,
			"restMethod": "POST", "restPath": "/people/*", "representedPartyClass": "COM", "representedPartyCode": "77", "messageUserId": "EE1", "messageIssue": "i1", "messageProtocolVersion": "1",
			"clientSecurityServerAddress": a, "serviceSecurityServerAddress": b, "requestAttachmentCount": 0, "responseAttachmentCount": 0, "requestMimeSize": nil, "responseMimeSize": nil,
			"succeeded": true, "faultCode": nil, "faultString": nil, "statusCode": 200, "serviceType": "REST", "xRoadVersion": "7.8.1",
		})
		equal(t, consumer["rest-1"], record{
			"securityServerType": "Client", "securityServerInternalIp": a, "restMethod": "POST", "restPath": nil, "succeeded": true, "statusCode": 200,
			"clientSecurityServerAddress": a, "serviceSecurityServerAddress": b, "requestSize": provider["rest-1"]["requestSize"], "responseSize": provider["rest-1"]["responseSize"],
			"xRequestId": provider["rest-1"]["xRequestId"], "serviceType": "REST",
		})
		for _, r := range []record{provider["rest-1"], consumer["rest-1"], provider["soap-1"], consumer["soap-1"]} {
			times := []float64{}
			for _, name := range []string{"requestInTs", "requestOutTs", "responseInTs", "responseOutTs"} {
				v, ok := r[name].(float64)
				if !ok {
					t.Errorf("no %s in %v", name, r)
				}
				times = append(times, v)
			}
			if !slices.IsSorted(times) || r["monitoringDataTs"].(float64)+1 < times[3]/1000-1 {
				t.Errorf("times go back: %v", r)
			}
			for name, v := range r {
				if s, ok := v.(string); ok && (strings.Contains(s, "secret") || strings.Contains(s, "38001010001") && name != "messageUserId") {
					t.Errorf("%s shows %s", name, s)
				}
			}
		}
		if size := provider["rest-1"]["requestSize"].(float64); size < 200 || size > 2000 {
			t.Errorf("request of %v bytes", size)
		}
		equal(t, provider["rest-2"], record{"succeeded": false, "statusCode": 418, "faultCode": nil})
		equal(t, consumer["rest-2"], record{"succeeded": false, "statusCode": 418, "faultCode": nil})
		equal(t, provider["rest-3"], record{"succeeded": true, "restPath": nil})
		equal(t, provider["denied-1"], record{"succeeded": false, "statusCode": nil, "faultCode": "server.serverproxy.access_denied", "requestOutTs": nil, "responseSize": nil, "serviceType": "REST"})
		equal(t, consumer["denied-1"], record{"succeeded": false, "faultCode": "server.serverproxy.access_denied"})
		if text := fmt.Sprint(consumer["denied-1"]["faultString"]); !strings.HasPrefix(text, fmt.Sprint(provider["denied-1"]["faultString"])) {
			t.Error(text)
		}
		equal(t, provider["soap-1"], record{
			"serviceType": "WSDL", "restMethod": nil, "restPath": nil, "messageProtocolVersion": "4.0", "messageUserId": "EE38001010001", "requestAttachmentCount": 1, "responseAttachmentCount": 0,
			"requestSize": len(envelope), "requestMimeSize": len(envelope) + len("attached"), "responseMimeSize": nil, "statusCode": nil, "succeeded": true,
		})
		equal(t, consumer["soap-1"], record{"requestSize": len(envelope), "requestMimeSize": len(envelope) + len("attached"), "responseSize": provider["soap-1"]["responseSize"]})

		// The questions are exchanges, too, which this server answered by itself.
		asked := data(t, n, testnet.Stranger, owner2, testnet.Server2, "ask-"+serverconf.GetOperationalData)["ask-"+serverconf.GetOperationalData]
		equal(t, asked, record{"succeeded": true, "serviceCode": serverconf.GetOperationalData, "requestOutTs": asked["requestInTs"], "responseInTs": asked["responseOutTs"], "responseAttachmentCount": 1})
	})

	t.Run("others see their own", func(t *testing.T) {
		for name, r := range data(t, n, testnet.Portal, owner2, "", "rest-1", "soap-1") {
			if r["clientSubsystemCode"] != "portal" {
				t.Errorf("%s is not the portal's", name)
			}
			equal(t, r, record{"securityServerInternalIp": nil})
		}
	})
	t.Run("an owner must name its server", func(t *testing.T) {
		if all := data(t, n, owner1, owner1, ""); all["rest-1"] != nil {
			t.Errorf("%d records", len(all))
		}
	})
	t.Run("bad requests", func(t *testing.T) {
		for name, body := range map[string]string{
			"unknown field": dataBody("pin"), "other namespace": strings.ReplaceAll(dataBody(), "op-monitoring.xsd", "x"), "the future": strings.Replace(dataBody(), ">0<", ">9999999998<", 1),
		} {
			if res := ask(n, testnet.Portal, owner2, "", serverconf.GetOperationalData, body); res.Code != "client.invalid_request" {
				t.Errorf("%s: %q %s", name, res.Code, res.Fault.Message)
			}
		}
		if res := ask(n, testnet.Portal, testnet.Population, "", serverconf.GetOperationalData, dataBody()); res.Code != "server.serverproxy.unknown_service" {
			t.Errorf("of a client of the server: %q %s", res.Code, res.Fault.Message)
		}
	})
	t.Run("a restart keeps records", func(t *testing.T) {
		n.B.Restart(nil)
		data(t, n, testnet.Stranger, owner2, testnet.Server2, "rest-1", "soap-1")
	})
	if v := n.B.Metric("kontor_operational_lost_total"); v != 0 {
		t.Errorf("%v records were lost", v)
	}
}

func TestHealthAndMetrics(t *testing.T) {
	n := start(t, nil)
	for range 3 {
		n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil)
	}
	n.Call(testnet.Stranger, "GET", testnet.Path(testnet.Persons), nil)
	type health struct {
		Services []struct {
			Code string `xml:"service>serviceCode"`
			Good int    `xml:"lastPeriodStatistics>successfulRequestCount"`
			Bad  int    `xml:"lastPeriodStatistics>unsuccessfulRequestCount"`
		} `xml:"Body>getSecurityServerHealthDataResponse>servicesEvents>serviceEvents"`
	}
	const question = `<om:getSecurityServerHealthData xmlns:om="http://x-road.eu/xsd/op-monitoring.xsd"/>`
	testnet.Eventually(t, func() error {
		res := ask(n, testnet.Portal, owner2, testnet.Server2, serverconf.GetHealthData, question)
		var h health
		if err := xml.Unmarshal(res.Body, &h); err != nil || res.Code != "" {
			t.Fatal(res.Code, res.Fault.Message, err)
		}
		for _, s := range h.Services {
			if s.Code == "persons" && s.Good == 3 && s.Bad == 1 {
				valid(t, "op-monitoring.xsd", res.Body)
				return nil
			}
		}
		return fmt.Errorf("%s", res.Body)
	})

	const metrics = `<m:getSecurityServerMetrics xmlns:m="http://x-road.eu/xsd/monitoring"/>`
	if res := ask(n, testnet.Portal, owner2, testnet.Server2, serverconf.GetMetrics, metrics); res.Code != "server.serverproxy.access_denied" {
		t.Errorf("anybody: %q %s", res.Code, res.Fault.Message)
	}
	for client, server := range map[string][2]string{testnet.Stranger: {owner2, testnet.Server2}, owner1: {owner1, testnet.Server1}} {
		res := ask(n, client, server[0], server[1], serverconf.GetMetrics, metrics)
		valid(t, "monitoring.xsd", res.Body)
		for _, want := range []string{"<m:name>SERVER:" + server[1] + "</m:name>", "SECURITY_SERVER_TLS", "AUTH_OR_SIGN", "TotalPhysicalMemory"} {
			if !bytes.Contains(res.Body, []byte(want)) {
				t.Errorf("%s does not see %s: %q %s", client, want, res.Code, res.Fault.Message)
			}
		}
	}
	n.B.Restart(func(c *config.Gateway) { c.OperationalMonitoring.LimitRemote = true })
	res := ask(n, testnet.Stranger, owner2, testnet.Server2, serverconf.GetMetrics, metrics)
	if !bytes.Contains(res.Body, []byte("AUTH_OR_SIGN")) || bytes.Contains(res.Body, []byte("TotalPhysicalMemory")) {
		t.Errorf("limited: %s", res.Body)
	}
	n.B.Restart(func(c *config.Gateway) { c.OperationalMonitoring.Enabled = false })
	if res := ask(n, testnet.Stranger, owner2, testnet.Server2, serverconf.GetMetrics, metrics); res.Code == "" {
		t.Errorf("off: %s", res.Body)
	}
}
