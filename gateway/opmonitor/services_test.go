// SPDX-License-Identifier: Apache-2.0

package opmonitor_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kontor/gateway/fault"
	"kontor/gateway/message"
	"kontor/gateway/opmonitor"
	"kontor/registry/id"
)

const (
	om      = `xmlns:om="http://x-road.eu/xsd/op-monitoring.xsd"`
	dataEnd = `</om:getSecurityServerOperationalData>`
)

// envelope is a request with that body to a service of T/GOV/2.
func envelope(code, body string) []byte {
	return []byte(`<?xml version="1.0" encoding="utf-8"?>
<S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xroad="http://x-road.eu/xsd/xroad.xsd" xmlns:id="http://x-road.eu/xsd/identifiers">
 <S:Header>
  <xroad:client id:objectType="SUBSYSTEM"><id:xRoadInstance>T</id:xRoadInstance><id:memberClass>GOV</id:memberClass><id:memberCode>1</id:memberCode><id:subsystemCode>a</id:subsystemCode></xroad:client>
  <xroad:service id:objectType="SERVICE"><id:xRoadInstance>T</id:xRoadInstance><id:memberClass>GOV</id:memberClass><id:memberCode>2</id:memberCode><id:serviceCode>` + code + `</id:serviceCode></xroad:service>
  <xroad:id>q1</xroad:id><xroad:protocolVersion>4.0</xroad:protocolVersion>
 </S:Header>
 <S:Body>` + body + `</S:Body>
</S:Envelope>`)
}

// request is what the message path makes of an envelope.
func request(t testing.TB, raw []byte) *message.Request {
	t.Helper()
	e, err := message.ReadEnvelope(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &message.Request{SOAP: &message.SOAP{Envelope: e}, Raw: raw, Client: e.Client, Service: e.Service, ID: e.ID}
}

func dataBody(criteria, spec string) string {
	return `<om:getSecurityServerOperationalData ` + om + `><om:searchCriteria>` + criteria + `</om:searchCriteria>` + spec + dataEnd
}

const (
	fromTo    = `<om:recordsFrom>10</om:recordsFrom><om:recordsTo> 20 </om:recordsTo>`
	subsystem = `<om:client id:objectType="SUBSYSTEM"><id:xRoadInstance>T</id:xRoadInstance><id:memberClass>GOV</id:memberClass><id:memberCode>2</id:memberCode><id:subsystemCode>p</id:subsystemCode></om:client>`
)

func TestReadDataRequest(t *testing.T) {
	t.Parallel()
	read := func(body string) (*opmonitor.DataRequest, error) {
		return opmonitor.ReadDataRequest(envelope("getSecurityServerOperationalData", body))
	}
	r, err := read(dataBody(fromTo+subsystem, `<om:outputSpec><om:outputField>messageId</om:outputField><om:outputField>succeeded</om:outputField></om:outputSpec>`))
	if err != nil || r.From != 10 || r.To != 20 || r.Provider != client(t, "T/GOV/2/p") || !slices.Equal(r.Fields, []string{"messageId", "succeeded"}) {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = read(dataBody(fromTo, `<om:outputSpec/>`)); err != nil || !r.Provider.IsZero() || len(r.Fields) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = opmonitor.ReadDataRequest(append([]byte("\ufeff"), envelope("x", dataBody(fromTo, ""))...)); err != nil || r.To != 20 {
		t.Errorf("with a byte order mark: %+v, %v", r, err)
	}
	member := strings.NewReplacer("SUBSYSTEM", "MEMBER", "<id:subsystemCode>p</id:subsystemCode>", "").Replace(subsystem)
	if r, err = read(dataBody(fromTo+member, "")); err != nil || r.Provider != client(t, "T/GOV/2") {
		t.Errorf("%+v, %v", r, err)
	}

	field := func(s string) string {
		return `<om:outputSpec><om:outputField>` + s + `</om:outputField></om:outputSpec>`
	}
	swap := func(old, new string) string { return dataBody(fromTo+strings.Replace(subsystem, old, new, 1), "") }
	for name, body := range map[string]string{
		"other element":      `<om:getSecurityServerHealthData ` + om + `/>`,
		"other namespace":    `<om:getSecurityServerOperationalData xmlns:om="urn:x"><om:searchCriteria>` + fromTo + `</om:searchCriteria>` + dataEnd,
		"empty":              `<om:getSecurityServerOperationalData ` + om + `/>`,
		"two elements":       dataBody(fromTo, "") + dataBody(fromTo, ""),
		"no from":            dataBody(`<om:recordsTo>20</om:recordsTo>`, ""),
		"no to":              dataBody(`<om:recordsFrom>10</om:recordsFrom>`, ""),
		"wrong order":        dataBody(`<om:recordsTo>20</om:recordsTo><om:recordsFrom>10</om:recordsFrom>`, ""),
		"twice":              dataBody(`<om:recordsFrom>10</om:recordsFrom>`+fromTo, ""),
		"to before from":     dataBody(`<om:recordsFrom>20</om:recordsFrom><om:recordsTo>10</om:recordsTo>`, ""),
		"negative":           dataBody(`<om:recordsFrom>-1</om:recordsFrom><om:recordsTo>10</om:recordsTo>`, ""),
		"too large":          dataBody(`<om:recordsFrom>1</om:recordsFrom><om:recordsTo>99999999999999999999</om:recordsTo>`, ""),
		"no number":          dataBody(`<om:recordsFrom>now</om:recordsFrom><om:recordsTo>10</om:recordsTo>`, ""),
		"number of elements": dataBody(`<om:recordsFrom>1<om:x/></om:recordsFrom><om:recordsTo>10</om:recordsTo>`, ""),
		"unknown criterion":  dataBody(fromTo+`<om:everything/>`, ""),
		"unknown part":       dataBody(fromTo, `<om:more/>`),
		"unknown field":      dataBody(fromTo, field("pin")),
		"empty field":        dataBody(fromTo, field("")),
		"field of elements":  dataBody(fromTo, field("messageId<om:x/>")),
		"not a field":        dataBody(fromTo, `<om:outputSpec><om:x/></om:outputSpec>`),
		"too many fields":    dataBody(fromTo, `<om:outputSpec>`+strings.Repeat(`<om:outputField>messageId</om:outputField>`, 1001)+`</om:outputSpec>`),
		"huge":               dataBody(fromTo, field(strings.Repeat("x", 300<<10))),
		"client: no type":    swap(` id:objectType="SUBSYSTEM"`, ""),
		"client: a service":  swap("SUBSYSTEM", "SERVICE"),
		"client: member":     swap("SUBSYSTEM", "MEMBER"),
		"client: no class":   swap("<id:memberClass>GOV</id:memberClass>", ""),
		"client: blank":      swap("<id:memberCode>2<", "<id:memberCode> <"),
		"client: no code":    swap("<id:subsystemCode>p</id:subsystemCode>", ""),
		"client: group":      swap("<id:subsystemCode>p</id:subsystemCode>", "<id:groupCode>p</id:groupCode>"),
	} {
		if r, err := read(body); !errors.Is(err, opmonitor.ErrRequest) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	for name, raw := range map[string]string{
		"nothing": "", "no XML": "hello", "entity": strings.Replace(string(envelope("x", dataBody(fromTo, ""))), "<S:Envelope", `<!DOCTYPE x [<!ENTITY a "10">]><S:Envelope`, 1),
		"encoding": `<?xml version="1.0" encoding="utf-16"?><a/>`, "cut off": string(envelope("x", dataBody(fromTo, ""))[:900]),
	} {
		if r, err := opmonitor.ReadDataRequest([]byte(raw)); !errors.Is(err, opmonitor.ErrRequest) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func FuzzReadRequests(f *testing.F) {
	f.Add(envelope("getSecurityServerOperationalData", dataBody(fromTo+subsystem, `<om:outputSpec><om:outputField>messageId</om:outputField></om:outputSpec>`)))
	f.Add(envelope("getSecurityServerHealthData", `<om:getSecurityServerHealthData `+om+`><om:filterCriteria>`+subsystem+`</om:filterCriteria></om:getSecurityServerHealthData>`))
	f.Add(envelope("getSecurityServerMetrics", `<m:getSecurityServerMetrics xmlns:m="http://x-road.eu/xsd/monitoring"><m:outputSpec><m:outputField>Packages</m:outputField></m:outputSpec></m:getSecurityServerMetrics>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := opmonitor.ReadDataRequest(b); err == nil && (r.From < 0 || r.To < r.From || slices.ContainsFunc(r.Fields, func(s string) bool { return !opmonitor.Known(s) })) {
			t.Errorf("%+v", r)
		}
		if _, err := opmonitor.ReadHealthRequest(b); err != nil && !errors.Is(err, opmonitor.ErrRequest) {
			t.Error(err)
		}
		if names, err := opmonitor.ReadMetricsRequest(b); err == nil && len(names) > 1000 {
			t.Errorf("%d names", len(names))
		}
	})
}

// dataAnswer is what a client reads of an answer with operational data.
type dataAnswer struct {
	Count   int    `xml:"Body>getSecurityServerOperationalDataResponse>recordsCount"`
	Records string `xml:"Body>getSecurityServerOperationalDataResponse>records"`
	Next    int64  `xml:"Body>getSecurityServerOperationalDataResponse>nextRecordsFrom"`
}

func TestOperationalData(t *testing.T) {
	t.Parallel()
	store, c := open(t, opmonitor.Config{})
	for i := range 5 {
		c.Time = start.Add(time.Duration(i) * time.Second)
		add(store, fmt.Sprint(i))
	}
	c.Time = start.Add(63 * time.Second) // what is younger than second 3 is not told yet
	services := opmonitor.NewServices(store, opmonitor.ServicesConfig{Now: c.now, MaxRecords: 2})
	ask := func(from, to int64) (*dataAnswer, string, error) {
		t.Helper()
		req := request(t, envelope("getSecurityServerOperationalData", dataBody(fmt.Sprintf(`<om:recordsFrom>%d</om:recordsFrom><om:recordsTo>%d</om:recordsTo>`, from, to),
			`<om:outputSpec><om:outputField>messageId</om:outputField></om:outputSpec>`)))
		w := httptest.NewRecorder()
		if err := services.OperationalData(t.Context(), w, req, id.Client{}); err != nil {
			return nil, "", err
		}
		kind, params, err := mime.ParseMediaType(w.Header().Get("Content-Type"))
		if err != nil || kind != "multipart/related" || params["type"] != "text/xml" {
			t.Fatalf("%s: %v", w.Header(), err)
		}
		r := multipart.NewReader(w.Body, params["boundary"])
		part, err := r.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		soap, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		e, err := message.ReadEnvelope(soap)
		if err != nil || e.ID != "q1" || e.BodyName != "getSecurityServerOperationalDataResponse" {
			t.Fatalf("%s: %v", soap, err)
		}
		a := &dataAnswer{}
		if err := xml.Unmarshal(soap, a); err != nil {
			t.Fatal(err)
		}
		if part, err = r.NextRawPart(); err != nil {
			t.Fatal(err)
		}
		if h := part.Header; h.Get("Content-Type") != "application/gzip" || h.Get("Content-Transfer-Encoding") != "binary" || "cid:"+strings.Trim(h.Get("Content-Id"), "<>") != a.Records {
			t.Errorf("attachment: %v, reference %s", h, a.Records)
		}
		z, err := gzip.NewReader(part)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.NextRawPart(); err != io.EOF {
			t.Errorf("a third part: %v", err)
		}
		return a, string(b), nil
	}
	at := start.Unix()
	for _, test := range []struct {
		from, to int64
		want     string
		next     int64
	}{
		{at, at + 1, `[{"messageId":"0"},{"messageId":"1"}]`, 0},
		{at, at + 2, `[{"messageId":"0"},{"messageId":"1"}]`, at + 2}, // two fit
		{at + 2, at + 2, `[{"messageId":"2"}]`, 0},
		{at + 2, at + 3, `[{"messageId":"2"}]`, at + 3}, // the end is not available yet
		{at + 1, 1 << 60, `[{"messageId":"1"},{"messageId":"2"}]`, at + 3},
		{0, at - 1, `[]`, 0},
	} {
		a, got, err := ask(test.from, test.to)
		if err != nil || got != `{"records":`+test.want+`}` || a.Next != test.next || a.Count != strings.Count(got, "messageId") {
			t.Errorf("%d to %d: %+v %s, %v", test.from-at, test.to-at, a, got, err)
		}
	}
	if _, _, err := ask(at+3, at+9); !fault.Is(err, fault.InvalidRequest) || !strings.HasPrefix(codeOf(t, err), "client.") {
		t.Errorf("what is not available yet: %v", err)
	}
	bad := request(t, envelope("getSecurityServerOperationalData", `<getSecurityServerOperationalData/>`))
	if err := services.OperationalData(t.Context(), httptest.NewRecorder(), bad, id.Client{}); codeOf(t, err) != "client.invalid_request" {
		t.Errorf("a bad request: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	good := request(t, envelope("getSecurityServerOperationalData", dataBody(fromTo, "")))
	good.Raw = bytes.Replace(good.Raw, []byte(">10<"), []byte(">1700000000<"), 1)
	good.Raw = bytes.Replace(good.Raw, []byte("> 20 <"), []byte(">1800000002<"), 1)
	if err := services.OperationalData(over, httptest.NewRecorder(), good, id.Client{}); err == nil {
		t.Error("an exchange that has ended is still answered")
	}
}

func codeOf(t *testing.T, err error) string {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatalf("no fault: %v", err)
	}
	return f.Code()
}

// events is what a client reads of an answer with health data.
type events struct {
	Started  int64 `xml:"Body>getSecurityServerHealthDataResponse>monitoringStartupTimestamp"`
	Period   int   `xml:"Body>getSecurityServerHealthDataResponse>statisticsPeriodSeconds"`
	Services []struct {
		Service struct {
			Type      string `xml:"http://x-road.eu/xsd/identifiers objectType,attr"`
			Member    string `xml:"http://x-road.eu/xsd/identifiers memberCode"`
			Subsystem string `xml:"http://x-road.eu/xsd/identifiers subsystemCode"`
			Code      string `xml:"http://x-road.eu/xsd/identifiers serviceCode"`
			Version   string `xml:"http://x-road.eu/xsd/identifiers serviceVersion"`
		} `xml:"service"`
		Good  int64  `xml:"lastSuccessfulRequestTimestamp"`
		Bad   int64  `xml:"lastUnsuccessfulRequestTimestamp"`
		Type  string `xml:"serviceType"`
		Stats struct {
			Good      int      `xml:"successfulRequestCount"`
			Bad       int      `xml:"unsuccessfulRequestCount"`
			Min       *int64   `xml:"requestMinDuration"`
			Average   *float64 `xml:"requestAverageDuration"`
			Max       *int64   `xml:"requestMaxDuration"`
			Deviation *float64 `xml:"requestDurationStdDev"`
			Request   *float64 `xml:"requestAverageSize"`
			Response  *int64   `xml:"responseMaxSize"`
		} `xml:"lastPeriodStatistics"`
	} `xml:"Body>getSecurityServerHealthDataResponse>servicesEvents>serviceEvents"`
}

func TestHealthData(t *testing.T) {
	t.Parallel()
	store, c := open(t, opmonitor.Config{})
	services := opmonitor.NewServices(store, opmonitor.ServicesConfig{Now: c.now})
	ask := func(filter string) *events {
		t.Helper()
		w := httptest.NewRecorder()
		req := request(t, envelope("getSecurityServerHealthData", `<om:getSecurityServerHealthData `+om+`>`+filter+`</om:getSecurityServerHealthData>`))
		if err := services.HealthData(w, req); err != nil {
			t.Fatal(err)
		}
		if _, err := message.ReadEnvelope(w.Body.Bytes()); err != nil || w.Header().Get("Content-Type") != "text/xml; charset=UTF-8" {
			t.Fatalf("%s: %v", w.Body, err)
		}
		e := &events{}
		if err := xml.Unmarshal(w.Body.Bytes(), e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := ask(""); e.Started != start.UnixMilli() || e.Period != 600 || len(e.Services) != 0 {
		t.Errorf("at first: %+v", e)
	}
	exchange := func(name, side string, took int64, ok bool) {
		now := c.UnixMilli()
		store.Add(&opmonitor.Record{ServerType: side, Service: service(t, name), ServiceType: "REST", Succeeded: ok,
			RequestIn: opmonitor.Num(now - took), ResponseOut: opmonitor.Num(now), RequestSize: opmonitor.Num(took * 10), ResponseSize: opmonitor.Num(took * 100)})
		store.Flush()
	}
	const a, b = "T/GOV/2/p/a", "T/GOV/2/q/b"
	exchange(a, opmonitor.Producer, 10, true)
	exchange(a, opmonitor.Producer, 20, true)
	c.Time = start.Add(5 * time.Minute)
	exchange(a, opmonitor.Producer, 60, true)
	exchange(a, opmonitor.Producer, 999, false)
	exchange(b, opmonitor.Producer, 7, false)
	exchange("T/GOV/2/p/c", opmonitor.Client, 7, true) // the consumer's side is not its health
	e := ask("")
	if len(e.Services) != 2 || e.Services[0].Service.Code != "a" || e.Services[1].Service.Code != "b" {
		t.Fatalf("%+v", e)
	}
	s := e.Services[0]
	if s.Service.Type != "SERVICE" || s.Service.Subsystem != "p" || s.Service.Member != "2" || s.Type != "REST" || s.Good != c.UnixMilli() || s.Bad != c.UnixMilli() {
		t.Errorf("%+v", s)
	}
	if st := s.Stats; st.Good != 3 || st.Bad != 1 || *st.Min != 10 || *st.Max != 60 || *st.Average != 30 || int(*st.Deviation*1000) != 26457 || *st.Request != 300 || *st.Response != 6000 {
		t.Errorf("%+v", st)
	}
	if s := e.Services[1]; s.Good != 0 || s.Bad == 0 || s.Stats.Good != 0 || s.Stats.Bad != 1 || s.Stats.Min != nil || s.Stats.Response != nil {
		t.Errorf("%+v", s)
	}
	if e := ask(`<om:filterCriteria>` + subsystem + `</om:filterCriteria>`); len(e.Services) != 1 || e.Services[0].Service.Code != "a" {
		t.Errorf("of one provider: %+v", e)
	}
	c.Time = start.Add(11 * time.Minute) // the first two are too old now
	if st := ask("").Services[0].Stats; st.Good != 1 || *st.Min != 60 {
		t.Errorf("later: %+v", st)
	}
	c.Time = start.Add(time.Hour)
	if s := ask("").Services[0]; s.Stats.Good != 0 || s.Stats.Bad != 0 || s.Stats.Min != nil || s.Good == 0 {
		t.Errorf("much later: %+v", s)
	}
}

func TestHealthIsBounded(t *testing.T) {
	t.Parallel()
	store, c := open(t, opmonitor.Config{})
	for i := range 2100 {
		store.Add(&opmonitor.Record{ServerType: opmonitor.Producer, Service: service(t, fmt.Sprintf("T/GOV/2/p/s%04d", i)), ResponseOut: opmonitor.Num(int64(i))})
	}
	store.Flush()
	w := httptest.NewRecorder()
	req := request(t, envelope("getSecurityServerHealthData", `<om:getSecurityServerHealthData `+om+`/>`))
	if err := opmonitor.NewServices(store, opmonitor.ServicesConfig{Now: c.now}).HealthData(w, req); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(w.Body.String(), "<om:serviceEvents>"); n != 2000 || strings.Contains(w.Body.String(), ">s0099<") || !strings.Contains(w.Body.String(), ">s0100<") {
		t.Errorf("%d services are watched, not the 2000 last ones", n)
	}
}

// Requests for services that do not exist push none out that does.
func TestHealthOutlastsUnknownNames(t *testing.T) {
	t.Parallel()
	store, c := open(t, opmonitor.Config{})
	store.Add(&opmonitor.Record{ServerType: opmonitor.Producer, Service: service(t, "T/GOV/2/p/real"), Succeeded: true, ResponseOut: opmonitor.Num(1)})
	for i := range 2100 {
		store.Add(&opmonitor.Record{ServerType: opmonitor.Producer, Service: service(t, fmt.Sprintf("T/GOV/2/p/s%04d", i)), ResponseOut: opmonitor.Num(int64(i + 2))})
	}
	store.Flush()
	w := httptest.NewRecorder()
	req := request(t, envelope("getSecurityServerHealthData", `<om:getSecurityServerHealthData `+om+`/>`))
	if err := opmonitor.NewServices(store, opmonitor.ServicesConfig{Now: c.now}).HealthData(w, req); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(w.Body.String(), "<om:serviceEvents>"); n != 2000 || !strings.Contains(w.Body.String(), ">real<") {
		t.Errorf("%d services are watched, and the real one is not among them", n)
	}
}

// set is a set of metrics as a client reads it.
type set struct {
	Name    string `xml:"name"`
	Sets    []set  `xml:"metricSet"`
	Numbers []leaf `xml:"numericMetric"`
	Texts   []leaf `xml:"stringMetric"`
	Spreads []struct {
		Name    string    `xml:"name"`
		Updated time.Time `xml:"updated"`
		Min     float64   `xml:"min"`
		Max     float64   `xml:"max"`
		Mean    float64   `xml:"mean"`
		Median  float64   `xml:"median"`
		Dev     float64   `xml:"stddev"`
	} `xml:"histogramMetric"`
}

type leaf struct {
	Name  string `xml:"name"`
	Value string `xml:"value"`
}

func (s *set) names() []string {
	var all []string
	for _, v := range s.Sets {
		all = append(all, v.Name)
	}
	for _, v := range slices.Concat(s.Numbers, s.Texts) {
		all = append(all, v.Name)
	}
	for _, v := range s.Spreads {
		all = append(all, v.Name)
	}
	slices.Sort(all)
	return all
}

// fakeProc is a machine as its kernel would show it.
func fakeProc(t *testing.T) (proc, dpkg string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"version":     "Linux version 6.1 & <more>\n",
		"meminfo":     "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\n",
		"stat":        "cpu  100 0 100 700 100 0 0 0 0 0\nbtime 1799996400\n",
		"self/statm":  "10 5 1 1 0 1 0\n",
		"self/limits": "Limit Soft Hard Units\nMax open files            1024                 4096                 files\n",
		"self/fd/0":   "", "self/fd/1": "", "self/fd/2": "",
		"42/stat":   "42 (a (b) c) S 1 1 1 0 -1 0 0 0 0 0 3000 1000 0 0 20 0 1 0 100 4096 10 0\n",
		"42/status": "Name: x\nUid:\t4242\t4343\t0\t0\n",
		"43/stat":   "garbage",
		"dpkg":      "Package: bash\nStatus: install ok installed\nVersion: 5.2-1\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: number\nStatus: install ok installed\nVersion: 1.5",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, filepath.Join(dir, "dpkg")
}

func metrics(t *testing.T, machine *opmonitor.Environment, all bool, names ...string) *set {
	t.Helper()
	store, c := open(t, opmonitor.Config{})
	server, err := id.ParseSecurityServer("T/GOV/2/ss")
	if err != nil {
		t.Fatal(err)
	}
	services := opmonitor.NewServices(store, opmonitor.ServicesConfig{Now: c.now, Server: server, Version: "7.8.1", Machine: machine})
	spec := ""
	for _, n := range names {
		spec += `<m:outputField>` + n + `</m:outputField>`
	}
	w := httptest.NewRecorder()
	req := request(t, envelope("getSecurityServerMetrics", `<m:getSecurityServerMetrics xmlns:m="http://x-road.eu/xsd/monitoring"><m:outputSpec>`+spec+`</m:outputSpec></m:getSecurityServerMetrics>`))
	if err := services.Metrics(w, req, all); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Root set `xml:"Body>getSecurityServerMetricsResponse>metricSet"`
	}
	if err := xml.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Root.Name != "SERVER:T/GOV/2/ss" || len(doc.Root.Texts) != 1 || doc.Root.Texts[0] != (leaf{"proxyVersion", "7.8.1"}) || len(doc.Root.Sets) != 1 || doc.Root.Sets[0].Name != "systemMetrics" {
		t.Fatalf("%+v", doc.Root)
	}
	return &doc.Root.Sets[0]
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	proc, dpkg := fakeProc(t)
	raw := []byte("certificate")
	machine := opmonitor.NewEnvironment(opmonitor.EnvironmentConfig{Proc: proc, Packages: dpkg, Now: func() time.Time { return start }, Certificates: func() []opmonitor.Certificate {
		return []opmonitor.Certificate{{Certificate: &x509.Certificate{Raw: raw, NotBefore: start, NotAfter: start.Add(time.Hour)}, Type: opmonitor.AuthOrSign, Active: true}}
	}})
	hash := strings.ReplaceAll(fmt.Sprintf("% X", sha1.Sum(raw)), " ", ":")
	m := metrics(t, machine, true)
	want := []string{"Certificates", "CommittedVirtualMemory", "DiskSpaceFree_/", "DiskSpaceTotal_/", "FreePhysicalMemory", "FreeSwapSpace", "MaxFileDescriptorCount",
		"OpenFileDescriptorCount", "OperatingSystem", "Packages", "Processes", "TotalPhysicalMemory", "TotalSwapSpace", "Xroad Processes"}
	if got := m.names(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	get := func(list []leaf, name string) string {
		i := slices.IndexFunc(list, func(l leaf) bool { return l.Name == name })
		if i < 0 {
			t.Fatalf("no %s in %v", name, list)
		}
		return list[i].Value
	}
	if get(m.Numbers, "TotalPhysicalMemory") != "1024000" || get(m.Numbers, "MaxFileDescriptorCount") != "1024" || get(m.Texts, "OperatingSystem") != "Linux version 6.1 & <more>" {
		t.Errorf("%+v", m)
	}
	for _, s := range m.Spreads {
		value := map[string]float64{"FreePhysicalMemory": 409600, "FreeSwapSpace": 20480, "OpenFileDescriptorCount": 3, "CommittedVirtualMemory": float64(10 * os.Getpagesize())}[s.Name]
		if s.Min != value || s.Max != value || s.Mean != value || s.Median != value || s.Dev != 0 || !s.Updated.Equal(start) {
			t.Errorf("%+v", s)
		}
	}
	sub := func(name string) *set {
		i := slices.IndexFunc(m.Sets, func(s set) bool { return s.Name == name })
		return &m.Sets[i]
	}
	if c := sub("Certificates").Sets; len(c) != 1 || c[0].Name != "certificate-"+hash || get(c[0].Texts, "sha1Hash") != hash || get(c[0].Texts, "notBefore") != "2027-01-15T08:00:00Z" ||
		get(c[0].Texts, "certificateType") != "AUTH_OR_SIGN" || get(c[0].Texts, "active") != "true" {
		t.Errorf("%+v", c)
	}
	if p := sub("Processes").Sets; len(p) != 1 || p[0].Name != "42" || get(p[0].Numbers, "processId") != "42" || get(p[0].Texts, "command") != "a (b) c" || get(p[0].Numbers, "userId") != "4343" ||
		get(p[0].Numbers, "cpuLoad") != "1.1" {
		t.Errorf("%+v", p)
	}
	if p := sub("Packages"); len(p.Texts) != 1 || p.Texts[0] != (leaf{"bash", "5.2-1"}) || len(p.Numbers) != 1 || p.Numbers[0] != (leaf{"number", "1.5"}) {
		t.Errorf("%+v", p)
	}
	if got := metrics(t, machine, true, "OperatingSystem", "TotalSwapSpace", "unheard of").names(); !slices.Equal(got, []string{"OperatingSystem", "TotalSwapSpace"}) {
		t.Errorf("two names: %q", got)
	}
	if got := metrics(t, machine, false).names(); !slices.Equal(got, []string{"Certificates", "OperatingSystem"}) {
		t.Errorf("for those who may not see all: %q", got)
	}
}

func TestSystemLoad(t *testing.T) {
	t.Parallel()
	proc, dpkg := fakeProc(t)
	cfg := opmonitor.EnvironmentConfig{Proc: proc, Packages: dpkg}
	c := &clock{start}
	cfg.Now = c.now
	machine := opmonitor.NewEnvironment(cfg)
	for i, stat := range []string{"cpu  150 0 150 800 100 0 0 0 7 7\n", "cpu  150 0 150 1000 100 0 0 0 9 9\n"} {
		c.Time = start.Add(time.Duration(i+1) * time.Second)
		if err := os.WriteFile(filepath.Join(proc, "stat"), []byte(stat), 0o600); err != nil {
			t.Fatal(err)
		}
		machine.Sample()
	}
	m := metrics(t, machine, true, "SystemCpuLoad")
	if len(m.Spreads) != 1 || m.Spreads[0].Max != 50 || m.Spreads[0].Min != 0 || m.Spreads[0].Mean != 25 || m.Spreads[0].Median != 25 {
		t.Errorf("%+v", m)
	}
	c.Time = start.Add(2 * time.Hour)
	machine.Sample()
	if m := metrics(t, machine, true, "FreeSwapSpace"); !m.Spreads[0].Updated.Equal(c.Time) {
		t.Errorf("%+v", m)
	}
}

// TestThisMachine reads the real one, wherever the tests run.
func TestThisMachine(t *testing.T) {
	t.Parallel()
	m := metrics(t, opmonitor.NewEnvironment(opmonitor.EnvironmentConfig{}), true)
	if _, err := os.Stat("/proc/meminfo"); err != nil {
		t.Skip("this machine has no /proc")
	}
	i := slices.IndexFunc(m.Sets, func(s set) bool { return s.Name == "Xroad Processes" })
	if i < 0 || len(m.Sets[i].Sets) != 1 || m.Sets[i].Sets[0].Name != fmt.Sprint(os.Getpid()) {
		t.Errorf("this process is not in the list: %+v", m)
	}
	if names := m.names(); !slices.Contains(names, "TotalPhysicalMemory") || !slices.Contains(names, "DiskSpaceFree_/") {
		t.Errorf("%q", names)
	}
}
