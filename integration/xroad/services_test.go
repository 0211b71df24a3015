// SPDX-License-Identifier: Apache-2.0

package xroad_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kontor/config"
	"kontor/gateway/serverconf"
	"kontor/integration/testnet"
	"kontor/registry"
)

// reads has X-Road's classes read a document, and demands that they find all
// the facts in it. Without the classes, the test goes on without their word.
func (j *judge) reads(document []byte, question []string, facts ...string) {
	j.t.Helper()
	file := write(j.t, filepath.Join(j.t.TempDir(), "document"), document)
	yes, words := j.ask(append(question, file)...)
	said := strings.Join(words, " ")
	if strings.Contains(said, "ClassNotFoundException") {
		j.t.Logf("the class path cannot judge %q: %s", question, said)
		return
	}
	if !yes {
		j.t.Errorf("X-Road cannot read %q: %s\n%s", question, said, document)
	}
	for _, f := range facts {
		if !strings.Contains(said, f) {
			j.t.Errorf("X-Road reads %q as %s, without %s", question, said, f)
		}
	}
}

// Questions to the judge.
var (
	metadataXML  = []string{"xml", "service-metainfo.xsd", "ee.ria.xroad.common.metadata.ObjectFactory"}
	metadataJSON = []string{"json", "ee.ria.xroad.common.metadata.RestServiceDetailsListType"}
	dataXML      = []string{"xml", "op-monitoring.xsd", "ee.ria.xroad.opmonitordaemon.message.ObjectFactory"}
	dataJSON     = []string{"json", "org.niis.xroad.opmonitor.core.OperationalDataRecords"}
	metricsXML   = []string{"xml", "monitoring.xsd", "-"}
)

const (
	openAPI = `{"openapi":"3.0.3","servers":[{"url":"http://10.1.2.3/v1"}],"paths":{}}`
	wsdl    = `<wsdl:definitions xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/" xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/"><wsdl:service name="s"><wsdl:port name="p" binding="b"><soap:address location="http://10.1.2.3/soap"/></wsdl:port></wsdl:service></wsdl:definitions>`
)

// ask asks a built-in service by SOAP and returns envelope and attachments.
func (w way) ask(t *testing.T, service, extra, body string) (envelope []byte, attachments []testnet.Part) {
	t.Helper()
	code := service[strings.LastIndexByte(service, '/')+1:]
	question := testnet.Envelope{Client: w.client, Service: service, ID: w.id(code + "-" + time.Now().Format(time.RFC3339Nano)), Extra: extra, Body: body}.String()
	question = strings.Replace(question, "<id:subsystemCode>none</id:subsystemCode>", "", 1) // a service of a member
	res := w.call(t, http.MethodPost, "/", "text/xml; charset=UTF-8", strings.NewReader(question))
	kind, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.Err != nil || err != nil || res.Status != http.StatusOK || bytes.Contains(res.Body, []byte("Fault>")) {
		t.Fatalf("%s: %d %s %v %v", service, res.Status, res.Body, res.Err, err)
	}
	if kind == "text/xml" {
		return res.Body, nil
	}
	parts, _, err := testnet.ReadRelated(params["boundary"], res.Body)
	if err != nil || len(parts) < 2 {
		t.Fatalf("%s: %v %s", service, err, res.Body)
	}
	return parts[0].Content, parts[1:]
}

// TestLiveMetadata has clients of X-Road's server ask for what a gateway tells
// of its services and of the network, and the other way round.
func TestLiveMetadata(t *testing.T) {
	j := newJudge(t)
	n := testnet.Start(t, testnet.Options{})
	becomeXRoad(t, n)
	provide(n)
	n.Service.Handle(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/openapi":
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, openAPI)
		case "/wsdl":
			w.Header().Set("Content-Type", "text/xml")
			_, _ = io.WriteString(w, wsdl)
		default:
			http.NotFound(w, r)
		}
	})
	n.A.Configure(func(m *serverconf.Model) {
		e := testnet.Entry(m, testnet.Portal)
		system := "http://" + serviceAddress(n)
		e.Descriptions = append(e.Descriptions,
			serverconf.DescriptionEntry{Type: serverconf.OpenAPI3, URL: system + "/openapi", Services: []serverconf.ServiceEntry{{Code: "api", URL: system + "/api",
				Endpoints: []serverconf.EndpointEntry{{Endpoint: serverconf.Endpoint{Method: "GET", Path: "/pets/*"}}}}}},
			serverconf.DescriptionEntry{Type: serverconf.WSDL, URL: system + "/wsdl", Services: []serverconf.ServiceEntry{{Code: "described", URL: system + "/soap"}}})
		e.Access = append(e.Access, serverconf.AccessEntry{Service: "api", Client: n.ClientID(testnet.Population), Method: "GET", Path: "/pets/*"})
	})
	asks, asked := ways(n)[0], ways(n)[1]
	rest := func(w way, path string) []byte {
		t.Helper()
		res := w.call(t, http.MethodGet, testnet.Path(w.provider+path), "", nil, "X-Road-Client: "+w.client)
		if res.Err != nil || res.Status != http.StatusOK {
			t.Fatalf("%s: %d %s %v", path, res.Status, res.Body, res.Err)
		}
		return res.Body
	}
	empty := func(name string) string { return `<x:` + name + ` xmlns:x="http://x-road.eu/xsd/xroad.xsd"/>` }

	j.reads(rest(asked, "/listMethods"), metadataJSON, `"serviceCode":"persons"`, `"serviceCode":"private"`, `"serviceCode":"api"`, `"serviceType":"OPENAPI"`, `"path":"/pets/*"`)
	allowed := rest(asked, "/allowedMethods")
	j.reads(allowed, metadataJSON, `"serviceCode":"persons"`, `"serviceCode":"api"`)
	if bytes.Contains(allowed, []byte("private")) {
		t.Errorf("%s", allowed)
	}
	if got := rest(asked, "/getOpenAPI?serviceCode=api"); !bytes.Contains(got, []byte(`"openapi":"3.0.3"`)) || bytes.Contains(got, []byte("10.1.2.3")) {
		t.Errorf("%s", got)
	}
	list, _ := asked.ask(t, asked.provider+"/listMethods", "", empty("listMethods"))
	j.reads(list, metadataXML, "listMethodsResponse", `"serviceCode":"soap"`, `"serviceCode":"denied"`, `"serviceCode":"described"`)
	list, _ = asked.ask(t, asked.provider+"/allowedMethods", "", empty("allowedMethods"))
	j.reads(list, metadataXML, "allowedMethodsResponse", `"serviceCode":"soap"`)
	if bytes.Contains(list, []byte(">denied<")) {
		t.Errorf("%s", list)
	}
	_, documents := asked.ask(t, asked.provider+"/getWsdl", "", `<x:getWsdl xmlns:x="http://x-road.eu/xsd/xroad.xsd"><x:serviceCode>described</x:serviceCode></x:getWsdl>`)
	if got := documents[0].Content; !bytes.Contains(got, []byte(`<wsdl:port name="p"`)) || bytes.Contains(got, []byte("10.1.2.3")) {
		t.Errorf("%s", got)
	}

	// What both tell of the network, from the same configuration, is the same.
	clients := func(w way, accept string) []byte {
		t.Helper()
		res := w.call(t, http.MethodGet, "/listClients", "", nil, "Accept: "+accept)
		if res.Err != nil || res.Status != http.StatusOK {
			t.Fatalf("%d %s %v", res.Status, res.Body, res.Err)
		}
		return res.Body
	}
	ours := clients(asks, "text/xml")
	j.reads(ours, metadataXML, "clientList", `"subsystemCode":"population"`, `"name":"Member 2002"`)
	theirs := clients(asked, "text/xml")
	if bytes.Contains(theirs, []byte("Fault>")) {
		t.Skip("the class path has no metadata services")
	}
	meaning := func(document []byte) string {
		t.Helper()
		words := j.must(append(metadataXML, write(t, filepath.Join(t.TempDir(), "document"), document))...)
		return strings.Join(words, " ")
	}
	if a, b := meaning(ours), meaning(theirs); a != b {
		t.Errorf("Kontor tells\n%s\nX-Road tells\n%s", a, b)
	}
	var a, b any
	if err := json.Unmarshal(clients(asks, "application/json"), &a); err != nil {
		t.Error(err)
	}
	if err := json.Unmarshal(clients(asked, "application/json"), &b); err != nil || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("Kontor tells\n%v\nX-Road tells\n%v", a, b)
	}

	list, _ = asks.ask(t, asks.provider+"/listMethods", "", empty("listMethods"))
	j.reads(list, metadataXML, "listMethodsResponse", `"serviceCode":"soap"`)
}

// TestLiveMonitoring has clients of X-Road's server ask a gateway for its
// operational data.
func TestLiveMonitoring(t *testing.T) {
	j := newJudge(t)
	monitor := testnet.ClientID(testnet.Population)
	n := testnet.Start(t, testnet.Options{Settings: registry.Settings{MonitoringClient: &monitor}, Gateway: func(_ string, c *config.Gateway) {
		o := &c.OperationalMonitoring
		o.Enabled, o.Keep, o.MaxSize, o.AvailableAfter, o.MaxRecords = true, time.Hour, 1<<20, time.Second, 100
	}})
	becomeXRoad(t, n)
	echo(n)
	provide(n)
	for _, w := range ways(n) {
		w.rest(t, "monitored", []byte("{}"))
		kind, message, parts := w.attachments("monitored-soap", []byte("a"))
		w.soap(t, "monitored-soap", kind, bytes.NewReader(message), parts...)
		w.restFault(t, w.provider+"/missing", "server.serverproxy.unknown_service", "")
	}

	w := ways(n)[1]
	owner := n.ServerID(testnet.Server1).Owner()
	server := fmt.Sprintf(`<xro:securityServer id:objectType="SERVER"><id:xRoadInstance>%s</id:xRoadInstance><id:memberClass>%s</id:memberClass><id:memberCode>%s</id:memberCode><id:serverCode>%s</id:serverCode></xro:securityServer>`,
		owner.Instance(), owner.Class(), owner.Code(), n.ServerID(testnet.Server1).Code())
	service := owner.String() + "/none/"
	const om = ` xmlns:om="http://x-road.eu/xsd/op-monitoring.xsd"`

	var envelope, records []byte
	testnet.Eventually(t, func() error {
		var attachments []testnet.Part
		envelope, attachments = w.ask(t, service+serverconf.GetOperationalData, server, `<om:getSecurityServerOperationalData`+om+
			`><om:searchCriteria><om:recordsFrom>0</om:recordsFrom><om:recordsTo>9999999999</om:recordsTo></om:searchCriteria></om:getSecurityServerOperationalData>`)
		z, err := gzip.NewReader(bytes.NewReader(attachments[0].Content))
		if err != nil {
			return err
		}
		if records, err = io.ReadAll(z); err != nil {
			return err
		}
		for _, w := range ways(n) {
			for _, name := range []string{"monitored", "monitored-soap"} {
				if !bytes.Contains(records, []byte(w.id(name))) {
					return fmt.Errorf("no record of %s in %s", w.id(name), records)
				}
			}
		}
		if bytes.Count(records, []byte(`"server.serverproxy.unknown_service"`)) < 2 {
			return fmt.Errorf("no record of the faults in %s", records)
		}
		return nil
	})
	j.reads(envelope, dataXML, "getSecurityServerOperationalDataResponse", `"recordsCount":`)
	j.reads(records, dataJSON, `"messageId":"`+w.id("monitored-soap")+`"`, `"faultCode":"server.serverproxy.unknown_service"`, `"securityServerType":"Client"`, `"securityServerType":"Producer"`)

	envelope, _ = w.ask(t, service+serverconf.GetHealthData, server, `<om:getSecurityServerHealthData`+om+`/>`)
	j.reads(envelope, dataXML, "getSecurityServerHealthDataResponse", `"successfulRequestCount":`, `"serviceCode":"persons"`)
	envelope, _ = w.ask(t, service+serverconf.GetMetrics, server, `<m:getSecurityServerMetrics xmlns:m="http://x-road.eu/xsd/monitoring"/>`)
	j.reads(envelope, metricsXML, "getSecurityServerMetricsResponse")
}
