// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"kontor/gateway/fault"
	"kontor/gateway/message"
	"kontor/integration/testnet"
)

// question is a right SOAP request.
func question(id string) testnet.Envelope {
	return testnet.Envelope{Client: testnet.Portal, Service: testnet.Query, ID: id}
}

const textXML = "text/xml; charset=UTF-8"

// reply is what a service answers to a question of that id.
func reply(id string) string {
	e := question(id)
	e.Body = `<p:soapResponse xmlns:p="http://example.org/population"><name>Lübeck &amp; Co</name></p:soapResponse>`
	return e.String()
}

// hashed is what becomes of an answer on its way: the request hash stands
// directly behind the id.
func hashed(answer, request string) string {
	hash := fmt.Sprintf(`<xro:requestHash algorithmId="http://www.w3.org/2001/04/xmlenc#sha512">%s</xro:requestHash>`, message.EnvelopeHash([]byte(request)))
	return strings.Replace(answer, "</xro:id>", "</xro:id>"+hash, 1)
}

func serveSOAP(status int, contentType, content string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, content)
	}
}

// Envelopes arrive as they were sent, byte for byte but for the request hash,
// and so do attachments; both logs prove all of it.
func TestSOAPShapes(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	big := make([]byte, 5<<20)
	_, _ = rand.Read(big)
	tricky := []byte("line\r\n--xtop\r\n--xatt\r\n\x00\xff\r\n--\r\n")
	part := func(content []byte, header ...string) testnet.Part {
		p := testnet.Part{Content: content}
		for _, h := range header {
			name, value, _ := strings.Cut(h, ": ")
			p.Header = append(p.Header, [2]string{name, value})
		}
		return p
	}
	attach := func(contents ...[]byte) (parts []testnet.Part) {
		for i, c := range contents {
			parts = append(parts, part(c, "Content-Type: application/octet-stream", fmt.Sprintf("Content-ID: <part%d>", i), "Content-Transfer-Encoding: binary"))
		}
		return parts
	}
	tests := []struct {
		name        string
		contentType string // of a bare request
		envelope    string // of the request
		envelopeAs  string // content type of its part
		params      string
		parts       []testnet.Part // of the request, after the envelope
		multipart   bool           // even without parts
		answer      string
		answerType  string
		answerParts []testnet.Part
		answerMulti bool
		action      string
	}{
		{name: "text"},
		{name: "without charset", contentType: "text/xml"},
		{name: "charset in other case", contentType: `text/xml;charset="utf-8"`, action: `""`},
		{name: "SOAPAction", action: `"http://example.org/population#soap"`},
		{name: "byte order mark", envelope: "\ufeff" + question("byte order mark").String()},
		{name: "comments and line feeds", envelope: strings.ReplaceAll(question("comments and line feeds").String(), "<soapenv:Body>", "<!-- x -->\r\n\t<soapenv:Body>")},
		{name: "other fields", envelope: question("other fields").String(), answer: strings.Replace(reply("other fields"), "</soapenv:Header>", `<xro:requestHash>stale</xro:requestHash></soapenv:Header>`, 1)},
		{name: "status 500 without a fault"},
		{name: "multipart without attachments", multipart: true},
		{name: "one attachment", parts: attach(tricky)},
		{name: "an empty attachment", parts: attach(tricky, nil, []byte("x"))},
		{name: "as base64", parts: []testnet.Part{part([]byte("b25l"), "Content-Type: image/png", "Content-Transfer-Encoding: base64")}},
		{name: "5 MB there", parts: attach([]byte("first"), big, tricky)},
		{name: "attachments back", answerParts: attach(tricky, nil)},
		{name: "5 MB both ways", parts: attach(big), answerParts: attach(big[1:], tricky)},
		{name: "MTOM", envelopeAs: `application/xop+xml; charset=UTF-8; type="text/xml"`, params: `; type="application/xop+xml"; start="<e>"; start-info="text/xml"`,
			parts: attach(big[:200<<10]), answerParts: attach(tricky), answerType: `application/xop+xml; charset=UTF-8; type="text/xml"`},
		{name: "answer of many parts", answerParts: attach(make([][]byte, 100)...)},
		{name: "multipart answer without attachments", answerMulti: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n.Service.Reset()
			request, answer := tt.envelope, tt.answer
			if request == "" {
				request = question(tt.name).String()
			}
			if answer == "" {
				answer = reply(tt.name)
			}
			envelope := func(as, doc string) testnet.Part {
				if as == "" {
					as = textXML
				}
				return part([]byte(doc), "Content-Type: "+as, "Content-ID: <e>")
			}
			contentType, content := tt.contentType, []byte(request)
			if contentType == "" {
				contentType = textXML
			}
			if tt.multipart = tt.multipart || tt.parts != nil; tt.multipart {
				contentType, content = testnet.Related(tt.params, append([]testnet.Part{envelope(tt.envelopeAs, request)}, tt.parts...)...)
			}
			status, answerType, answered := 200, "text/xml;charset=utf-8", []byte(answer)
			if tt.answerMulti = tt.answerMulti || tt.answerParts != nil; tt.answerMulti {
				answerType, answered = testnet.Related(tt.params, append([]testnet.Part{envelope(tt.answerType, answer)}, tt.answerParts...)...)
			}
			if strings.HasPrefix(tt.name, "status 500") {
				status = 500
			}
			n.Service.Handle(serveSOAP(status, answerType, string(answered)))
			added := count(n)
			var header []string
			if tt.action != "" {
				header = []string{"SOAPAction: " + tt.action}
			}
			res := n.SOAP(contentType, bytes.NewReader(content), header...)
			if res.Err != nil || res.Code != "" || res.Status != http.StatusOK || res.Header.Get("X-Road-Error") != "" {
				t.Fatalf("status %d, code %q: %v %.500s", res.Status, res.Code, res.Err, res.Body)
			}
			if a, b := added(); a != 2 || b != 2 {
				t.Errorf("%d and %d records", a, b)
			}
			got := n.Service.Requests()
			if len(got) != 1 || got[0].Method != "POST" || got[0].URI != "/soap" || got[0].Header.Get("SOAPAction") != tt.action || got[0].Length != int64(len(got[0].Body)) {
				t.Fatalf("the service got %d requests: %.500v", len(got), got)
			}
			compareSOAP(t, "the service", got[0].Header.Get("Content-Type"), got[0].Body, request, tt.multipart, tt.parts)
			compareSOAP(t, "the client", res.Header.Get("Content-Type"), res.Body, hashed(withoutStaleHash(answer), request), tt.answerMulti, tt.answerParts)
			a, b := n.Proofs(n.A, testnet.Portal, idOf(request)), n.Proofs(n.B, testnet.Population, idOf(request))
			if len(a) != 2 || len(b) != 2 {
				t.Fatalf("%d and %d containers", len(a), len(b))
			}
			for _, proofs := range [][]*testnet.Proof{a, b} {
				compareProof(t, proofs[0], request, tt.parts)
				compareProof(t, proofs[1], hashed(withoutStaleHash(answer), request), tt.answerParts)
			}
			for _, g := range []*testnet.Gateway{n.A, n.B} {
				if left := g.SpoolFiles(); len(left) > 0 {
					t.Errorf("gateway %s left %v", g.Name, left)
				}
			}
		})
	}
}

func idOf(envelope string) string {
	return regexp.MustCompile(`<xro:id>(.*)</xro:id>`).FindStringSubmatch(envelope)[1]
}

func withoutStaleHash(envelope string) string {
	return strings.Replace(envelope, `<xro:requestHash>stale</xro:requestHash>`, "", 1)
}

// compareSOAP checks what an information system got.
func compareSOAP(t *testing.T, who, contentType string, content []byte, envelope string, related bool, parts []testnet.Part) {
	t.Helper()
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatalf("%s got the type %q: %v", who, contentType, err)
	}
	if !related {
		if media != "text/xml" || !strings.EqualFold(params["charset"], "utf-8") || string(content) != envelope {
			t.Errorf("%s got %s\n%s\nwant\n%s", who, contentType, content, envelope)
		}
		return
	}
	got, headers, err := testnet.ReadRelated(params["boundary"], content)
	if err != nil || media != "multipart/related" || params["boundary"] != "MIME_boundary-1" || len(got) != 1+len(parts) {
		t.Fatalf("%s got %s with %d parts: %v", who, contentType, len(got), err)
	}
	if string(got[0].Content) != envelope || headers[0].Get("Content-ID") != "<e>" {
		t.Errorf("%s got %v\n%s", who, headers[0], got[0].Content)
	}
	for i, p := range parts {
		if !bytes.Equal(got[i+1].Content, p.Content) {
			t.Errorf("%s got another attachment %d: %d bytes", who, i+1, len(got[i+1].Content))
		}
		for _, h := range p.Header {
			if headers[i+1].Get(h[0]) != h[1] {
				t.Errorf("%s got attachment %d with %v, want %v", who, i+1, headers[i+1], h)
			}
		}
	}
}

func compareProof(t *testing.T, p *testnet.Proof, envelope string, parts []testnet.Part) {
	t.Helper()
	if string(p.Message) != envelope || len(p.Bodies) != len(parts) || len(p.Report.Unverified) > 0 {
		t.Errorf("the log has %d attachments, want %d, %v unverified, and\n%s\nwant\n%s", len(p.Bodies), len(parts), p.Report.Unverified, p.Message, envelope)
		return
	}
	for i := range parts {
		if !bytes.Equal(p.Bodies[i], parts[i].Content) {
			t.Errorf("the log has another attachment %d", i+1)
		}
	}
}

// refusedSOAP checks a fault as a SOAP client sees it.
func refusedSOAP(t *testing.T, res *testnet.Result, code, cause string) {
	t.Helper()
	if res.Err != nil || res.Status != http.StatusOK || res.Code != code {
		t.Errorf("code %q, want %q: status %d, %v, %.300s", res.Code, code, res.Status, res.Err, res.Body)
		return
	}
	if action, ok := res.Header["Soapaction"]; res.Header.Get("Content-Type") != "text/xml;charset=utf-8" || !ok || action[0] != "" ||
		res.Header.Get("Content-Length") != strconv.Itoa(len(res.Body)) || res.Header.Get("X-Road-Error") != "" {
		t.Errorf("header %v", res.Header)
	}
	publicText(t, res.Fault.Message, cause)
	if len(res.Fault.Detail) != 36 {
		t.Errorf("detail %q is not an identifier", res.Fault.Detail)
	}
}

// Whatever is wrong with a client's message is said in X-Road's words, before
// anybody else hears of it.
func TestSOAPClientFaults(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	good := question("1").String()
	drop := func(pattern string) string { return regexp.MustCompile(pattern).ReplaceAllString(good, "") }
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	related := func(params string, header string, parts ...string) (string, string) {
		all := []testnet.Part{{Header: [][2]string{{"Content-Type", header}}, Content: []byte(good)}}
		for _, p := range parts {
			all = append(all, testnet.Part{Header: [][2]string{{"Content-Type", "a/b"}}, Content: []byte(p)})
		}
		contentType, content := testnet.Related(params, all...)
		return contentType, string(content)
	}
	relatedType, one := related("", textXML, "x")
	_, thousand := related("", textXML, make([]string, 1000)...)
	_, noSOAP := related("", "application/json")
	const c, p = "client.", "server.clientproxy."
	tests := []struct {
		name        string
		contentType string
		content     string
		code, cause string
		header      []string
	}{
		{name: "no content type", contentType: "-", content: good, code: c + "invalid_request", cause: "Content-Type"},
		{name: "JSON", contentType: "application/json", content: "{}", code: c + "invalid_content_type", cause: "text/xml"},
		{name: "SOAP 1.2 type", contentType: "application/soap+xml", content: good, code: c + "invalid_content_type", cause: "text/xml"},
		{name: "charset", contentType: "text/xml; charset=ISO-8859-1", content: good, code: c + "invalid_content_type", cause: "UTF-8"},
		{name: "encoding", content: swap(`encoding="UTF-8"`, `encoding="ISO-8859-1"`), code: c + "invalid_xml", cause: "UTF-8|encoding"},
		{name: "empty", content: "", code: c + "invalid_xml", cause: "."},
		{name: "not XML", content: "hello", code: c + "invalid_xml", cause: "."},
		{name: "DOCTYPE", content: swap("?>\n", "?>\n<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>"), code: c + "invalid_xml", cause: "document type"},
		{name: "processing instruction", content: swap("<soapenv:Body>", "<?php x?><soapenv:Body>"), code: c + "invalid_xml", cause: "."},
		{name: "SOAP 1.2", content: swap("http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope"), code: c + "invalid_soap", cause: "Envelope"},
		{name: "no header", content: drop(`(?s)<soapenv:Header>.*</soapenv:Header>`), code: c + "missing_header", cause: "header"},
		{name: "no client", content: drop(`<xro:client.*</xro:client>`), code: c + "missing_header_field", cause: "client"},
		{name: "no service", content: drop(`<xro:service.*</xro:service>`), code: c + "missing_header_field", cause: "service"},
		{name: "no id", content: drop(`<xro:id>.*</xro:id>`), code: c + "missing_header_field", cause: "id"},
		{name: "empty id", content: swap("<xro:id>1</xro:id>", "<xro:id/>"), code: c + "missing_header_field", cause: "id"},
		{name: "endless id", content: swap("<xro:id>1", "<xro:id>"+strings.Repeat("1", 5000)), code: c + "internal_error", cause: "longer"},
		{name: "endless service", content: swap("<id:serviceCode>", "<id:serviceCode>"+strings.Repeat("s", 5000)), code: c + "inconsistent_headers", cause: "service"},
		{name: "no version", content: drop(`<xro:protocolVersion>.*</xro:protocolVersion>`), code: c + "missing_header_field", cause: "protocolVersion"},
		{name: "version 3", content: swap("4.0", "3.1"), code: c + "invalid_protocol_version", cause: "4.0"},
		{name: "id twice", content: swap("<xro:id>1</xro:id>", "<xro:id>1</xro:id><xro:id>2</xro:id>"), code: c + "duplicate_header_field", cause: "id"},
		{name: "member twice", content: swap("<id:memberCode>1001</id:memberCode>", "<id:memberCode>1001</id:memberCode><id:memberCode>1</id:memberCode>"), code: c + "duplicate_header_field", cause: "memberCode"},
		{name: "no member", content: drop(`<id:memberCode>1001</id:memberCode>`), code: c + "internal_error", cause: "client"},
		{name: "object type", content: swap(`id:objectType="SUBSYSTEM"`, `id:objectType="SERVER"`), code: c + "invalid_xml", cause: "objectType"},
		{name: "no body", content: drop(`(?s)<soapenv:Body>.*</soapenv:Body>`), code: c + "missing_body", cause: "body"},
		{name: "empty body", content: drop(`(?s)<p:soap.*</p:soap>`), code: c + "invalid_body", cause: "one element"},
		{name: "two elements", content: swap("</soapenv:Body>", "<soap/></soapenv:Body>"), code: c + "invalid_body", cause: "one element"},
		{name: "wrong element", content: strings.ReplaceAll(good, "p:soap", "p:other"), code: c + "inconsistent_headers", cause: "other"},
		{name: "a fault", content: string(fault.Remote("x", "y", "z").SOAP()), code: c + "invalid_message", cause: "fault"},
		{name: "SOAPAction", content: good, header: []string{"SOAPAction: urn:x"}, code: c + "invalid_soap_action", cause: "quotes"},
		{name: "two SOAPActions", content: good, header: []string{`SOAPAction: "urn:x"`, `SOAPAction: "urn:x"`}, code: c + "invalid_soap_action", cause: "one"},
		{name: "no boundary", contentType: "multipart/related", content: one, code: c + "invalid_content_type", cause: "boundary"},
		{name: "broken multipart", contentType: relatedType, content: one[:len(one)-10], code: c + "mime_parsing_failed", cause: "broke off"},
		{name: "no part", contentType: relatedType, content: "\r\n--MIME_boundary-1--\r\n", code: c + "missing_soap", cause: "SOAP"},
		{name: "first part is JSON", contentType: relatedType, content: noSOAP, code: c + "invalid_content_type", cause: "envelope"},
		{name: "a thousand parts", contentType: relatedType, content: thousand, code: c + "mime_parsing_failed", cause: "100"},
		{name: "unknown client", content: swap(">portal<", ">ghost<"), code: p + "unknown_member", cause: "ghost"},
		{name: "client by HTTPS only", content: swap(">portal<", ">noauth<"), code: p + "ssl_authentication_failed", cause: "noauth"},
		{name: "unknown provider", content: swap(">population<", ">ghost<"), code: p + "unknown_member", cause: "ghost"},
		{name: "another server", content: swap("</xro:client>", "</xro:client>"+server("ss1", "1001")), code: p + "invalid_security_server", cause: "ss1"},
		{name: "the right server", content: swap("</xro:client>", "</xro:client>"+server("ss2", "2002"))},
		{name: "unknown service", content: strings.ReplaceAll(good, "soap<", "ghosts<"), code: c + "inconsistent_headers", cause: "ghosts"},
		{name: "REST service", content: testnet.Envelope{Client: testnet.Portal, Service: testnet.Persons, ID: "1"}.String(), code: "server.serverproxy.service_type", cause: "REST service"},
		{name: "service that is not", content: testnet.Envelope{Client: testnet.Portal, Service: testnet.Population + "/ghosts", ID: "1"}.String(), code: "server.serverproxy.unknown_service", cause: "ghosts"},
		{name: "another version", content: swap("</id:serviceCode>", "</id:serviceCode><id:serviceVersion>v2</id:serviceVersion>"), code: "server.serverproxy.unknown_service", cause: "v2"},
		{name: "no right", content: swap(">portal<", ">stranger<"), code: "server.serverproxy.access_denied", cause: "not allowed"},
		{name: "disabled", content: testnet.Envelope{Client: testnet.Portal, Service: testnet.Population + "/soapDisabled", ID: "1"}.String(), code: "server.serverproxy.service_disabled", cause: "winter"},
		{name: "dead", content: testnet.Envelope{Client: testnet.Portal, Service: testnet.Population + "/soapDead", ID: "1"}.String(), code: "server.serverproxy.service_failed.network_error", cause: "connection"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n.Service.Reset()
			n.Service.Handle(serveSOAP(200, textXML, good))
			added := count(n)
			contentType := tt.contentType
			switch contentType {
			case "":
				contentType = textXML
			case "-":
				contentType = ""
			}
			res := n.SOAP(contentType, strings.NewReader(tt.content), tt.header...)
			if tt.code == "" {
				if res.Err != nil || res.Code != "" || res.Status != 200 {
					t.Errorf("%+v %s", res, res.Body)
				}
				return
			}
			refusedSOAP(t, res, tt.code, tt.cause)
			untouched(t, n)
			if a, _ := added(); a != 0 && strings.HasPrefix(tt.code, "client.") {
				t.Errorf("%d records", a)
			}
		})
	}
	for _, method := range []string{"GET", "PUT", "OPTIONS"} {
		res := n.Do(http.DefaultTransport, n.NewRequest(testnet.Portal, method, "/r2/x", nil))
		if !bytes.Contains(res.Body, []byte("<faultcode>client.invalid_http_method</faultcode>")) || res.Status != 200 {
			t.Errorf("%s: %+v %s", method, res, res.Body)
		}
	}
}

func server(code, member string) string {
	return `<xro:securityServer id:objectType="SERVER"><id:xRoadInstance>TEST</id:xRoadInstance><id:memberClass>GOV</id:memberClass><id:memberCode>` +
		member + `</id:memberCode><id:serverCode>` + code + `</id:serverCode></xro:securityServer>`
}

// Whatever is wrong with a service's answer, the client learns what, and no
// record of a response is made. The service's own fault arrives untouched.
func TestSOAPServiceFaults(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	request, good := question("1").String(), reply("1")
	drop := func(pattern string) string { return regexp.MustCompile(pattern).ReplaceAllString(good, "") }
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	ownFault := "\ufeff<?xml version='1.0'?>\n<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Header><x/></e:Header>\n<e:Body><e:Fault><faultcode>e:Server</faultcode>" +
		"<faultstring>böse</faultstring><detail><why a='1'>because</why></detail></e:Fault></e:Body><!-- end --></e:Envelope>\n"
	const f = "server.serverproxy.service_failed."
	relatedType, related := testnet.Related("", testnet.Part{Header: [][2]string{{"Content-Type", textXML}}, Content: []byte(good)},
		testnet.Part{Header: [][2]string{{"Content-Type", "a/b"}}, Content: make([]byte, 300<<10)})
	tests := []struct {
		name        string
		status      int
		contentType string
		content     string
		code, cause string
	}{
		{"its own fault", 500, textXML, ownFault, "", ""},
		{"its own fault with status 200", 200, "text/xml", ownFault, "", ""},
		{"status 404", 404, textXML, good, f + "http_error", "404"},
		{"redirect", 302, textXML, good, f + "http_error", "302"},
		{"no content", 204, "", "", f + "http_error", "204"},
		{"no content type", 200, "", good, f + "invalid_request", "Content-Type"},
		{"HTML", 500, "text/html", "<html/>", f + "invalid_content_type", "text/xml"},
		{"charset", 200, "text/xml; charset=UTF-16", good, f + "invalid_content_type", "UTF-8"},
		{"empty", 200, textXML, "", f + "invalid_message", "empty"},
		{"not XML", 200, textXML, "oops", f + "invalid_xml", "."},
		{"DOCTYPE", 200, textXML, swap("?>\n", "?>\n<!DOCTYPE x>"), f + "invalid_xml", "document type"},
		{"not SOAP", 200, textXML, "<a/>", f + "invalid_soap", "Envelope"},
		{"no header", 200, textXML, drop(`(?s)<soapenv:Header>.*</soapenv:Header>`), f + "missing_header", "header"},
		{"no id", 200, textXML, drop(`<xro:id>.*</xro:id>`), f + "missing_header_field", "id"},
		{"other client", 200, textXML, swap(">portal<", ">stranger<"), f + "inconsistent_headers", "client"},
		{"other service", 200, textXML, strings.ReplaceAll(good, "soap<", "soapR<"), f + "inconsistent_headers", "service"},
		{"other id", 200, textXML, swap("<xro:id>1<", "<xro:id>2<"), f + "inconsistent_headers", "id"},
		{"no user", 200, textXML, drop(`<xro:userId>.*</xro:userId>`), f + "inconsistent_headers", "userId"},
		{"an issue", 200, textXML, swap("</soapenv:Header>", "<xro:issue/></soapenv:Header>"), f + "inconsistent_headers", "issue"},
		{"wrong element", 200, textXML, strings.ReplaceAll(good, "p:soapResponse", "p:other"), f + "inconsistent_headers", "other"},
		{"broken multipart", 200, relatedType, string(related[:len(related)-200<<10]), f + "mime_parsing_failed", "broke off"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n.Service.Reset()
			n.Service.Handle(serveSOAP(tt.status, tt.contentType, tt.content))
			added := count(n)
			res := n.SOAP(textXML, strings.NewReader(request))
			if tt.code != "" {
				refusedSOAP(t, res, tt.code, tt.cause)
			} else if res.Err != nil || res.Status != 200 || string(res.Body) != tt.content {
				t.Errorf("status %d: %v %s", res.Status, res.Err, res.Body)
			}
			if a, b := added(); a != 1 || b != 1 {
				t.Errorf("%d and %d records, want those of the request", a, b)
			}
		})
	}
}

// What a peer answers must be the answer to the question, and signed.
func TestSOAPHostileProvider(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	e := testnet.Envelope{Client: testnet.Portal, Service: testnet.Bad, ID: "7"}
	request := e.String()
	e.Body = "<badResponse/>"
	good := e.String()
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	answer := func(doc string) func(*testnet.PeerExchange) {
		return func(x *testnet.PeerExchange) { x.Send(x.AnswerSOAP(doc, nil)) }
	}
	const inner = proxy + "service_failed.inconsistent_response"
	for _, tt := range []struct {
		name        string
		serve       func(*testnet.PeerExchange)
		code, cause string
	}{
		{"right", answer(good), "", ""},
		{"right, with an attachment", func(x *testnet.PeerExchange) { x.Send(x.AnswerSOAP(good, []byte("attached"))) }, "", ""},
		{"other client", answer(swap(">portal<", ">stranger<")), inner, "client"},
		{"other service", answer(swap(">bad<", ">ba<")), inner, "service"},
		{"other id", answer(swap("<xro:id>7<", "<xro:id>8<")), inner, "id"},
		{"other user", answer(swap("EE3", "EE4")), inner, "userId"},
		{"an issue", answer(swap("</soapenv:Header>", "<xro:issue>1</xro:issue></soapenv:Header>")), inner, "issue"},
		{"a represented party", answer(swap("</soapenv:Header>", `<r:representedParty xmlns:r="http://x-road.eu/xsd/representation.xsd"><r:partyCode>1</r:partyCode></r:representedParty></soapenv:Header>`)), inner, "representedParty"},
		{"no hash", func(x *testnet.PeerExchange) {
			x.Send(x.Sign(&testnet.Message{Kind: message.SOAPResponse, Head: []byte(good)}))
		}, proxy + "inconsistent_response", "requestHash"},
		{"other hash", func(x *testnet.PeerExchange) {
			x.Send(x.Sign(&testnet.Message{Kind: message.SOAPResponse, Head: []byte(hashed(good, "x"))}))
		}, proxy + "inconsistent_response", "requestHash"},
		{"changed after signing", func(x *testnet.PeerExchange) {
			m := x.AnswerSOAP(good, nil)
			m.Head = append(m.Head, ' ')
			x.Send(m)
		}, proxySig + "invalid_reference", "not signed"},
		{"attachment added", func(x *testnet.PeerExchange) {
			m := x.AnswerSOAP(good, nil)
			m.Body = []byte("added")
			x.Send(m)
		}, proxySig + "invalid_reference", "not signed"},
		{"attachment changed", func(x *testnet.PeerExchange) {
			m := x.AnswerSOAP(good, []byte("one"))
			m.Body = []byte("two")
			x.Send(m)
		}, proxySig + "invalid_hash_chain_ref", "not signed"},
		{"attachment removed", func(x *testnet.PeerExchange) {
			m := x.AnswerSOAP(good, []byte("one"))
			m.Body = nil
			x.Send(m)
		}, proxySig + "invalid_hash_chain_ref", "not signed"},
		{"an answer of REST", func(x *testnet.PeerExchange) {
			x.Send(&testnet.Message{Kind: message.RESTResponse, Head: []byte("200\r\nOK\r\n"), Signed: x.Signed})
		}, proxy + "service_failed.invalid_message", "malformed"},
		{"not SOAP", func(x *testnet.PeerExchange) {
			x.Send(x.Sign(&testnet.Message{Kind: message.SOAPResponse, Head: []byte("<a/>")}))
		}, proxy + "service_failed.invalid_soap", "Envelope"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n.Peer.Reset()
			n.Peer.Serve(tt.serve)
			added := count(n)
			res := n.SOAP(textXML, strings.NewReader(request))
			a, _ := added()
			if tt.code == "" {
				if res.Err != nil || res.Code != "" || !bytes.Contains(res.Body, []byte(hashed(good, request))) || a != 2 {
					t.Errorf("%d records, %+v %s", a, res, res.Body)
				}
				return
			}
			refusedSOAP(t, res, tt.code, tt.cause)
			if a != 1 {
				t.Errorf("%d records, want the request's", a)
			}
		})
	}
	t.Run("its fault", func(t *testing.T) {
		n.Peer.Reset()
		doc := fault.Remote("server.serverproxy.access_denied", "no", "detail-of-the-peer").SOAP()
		for _, serve := range []func(*testnet.PeerExchange){
			func(x *testnet.PeerExchange) { x.SendRaw(200, "text/xml", doc) },
			func(x *testnet.PeerExchange) {
				x.SendRaw(200, "multipart/mixed; boundary=B", []byte("--B\r\ncontent-type: text/xml\r\n\r\n"+string(doc)+"\r\n--B--\r\n"))
			},
		} {
			n.Peer.Serve(serve)
			if res := n.SOAP(textXML, strings.NewReader(request)); res.Status != 200 || !bytes.Equal(res.Body, doc) {
				t.Errorf("%+v %s", res, res.Body)
			}
		}
	})
}

// What a peer asks is believed only as far as it is signed.
func TestSOAPHostileClient(t *testing.T) {
	n := testnet.Start(t, testnet.Options{})
	e := testnet.Envelope{Client: testnet.Evil, Service: testnet.Query, ID: "9"}
	good := e.String()
	const sp, sf = "server.serverproxy.", "server.serverproxy.service_failed."
	swap := func(old, new string) *testnet.Message {
		return n.Peer.SOAPRequest(strings.Replace(good, old, new, 1), nil)
	}
	with := func(change func(m *testnet.Message)) *testnet.Message {
		m := n.Peer.SOAPRequest(good, []byte("attached"))
		change(m)
		return m
	}
	for _, tt := range []struct {
		name string
		m    *testnet.Message
		code string
	}{
		{"right", with(func(*testnet.Message) {}), ""},
		{"no request id", with(func(m *testnet.Message) { delete(m.Header, "x-road-request-id") }), ""},
		{"no original type", with(func(m *testnet.Message) { delete(m.Header, "x-original-content-type") }), ""},
		{"this server", swap("</xro:client>", "</xro:client>"+server("ss2", "2002")), ""},
		{"another server", swap("</xro:client>", "</xro:client>"+server("ss1", "1001")), sf + "invalid_security_server"},
		{"another's client", swap(">evil<", ">portal<"), sf + "ssl_authentication_failed"},
		{"SOAPAction", with(func(m *testnet.Message) { m.Header["x-original-soapaction"] = []string{"a b"} }), sf + "invalid_soap_action"},
		{"changed envelope", with(func(m *testnet.Message) { m.Head = append(m.Head, '\n') }), sp + "signature_verification.invalid_hash_chain_ref"},
		{"changed attachment", with(func(m *testnet.Message) { m.Body = []byte("another") }), sp + "signature_verification.invalid_hash_chain_ref"},
		{"not signed", with(func(m *testnet.Message) { m.Signed, m.Body = nil, nil }), sp + "missing_signature"},
		{"no envelope", with(func(m *testnet.Message) { m.Kind, m.Head, m.Body = message.RESTRequest, []byte("GET\r\n/x\r\n"), nil }), sf + "invalid_message"},
		{"no id", swap("<xro:id>9</xro:id>", ""), sf + "missing_header_field"},
		{"wrong element", swap("<p:soap ", "<p:other a='</p:soap>'"), sf + "invalid_xml"},
		{"no right", n.Peer.SOAPRequest(strings.Replace(good, ">evil<", ">nosey<", 1), nil), sp + "access_denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n.Service.Reset()
			n.Service.Handle(serveSOAP(200, textXML, good))
			r, err := n.Peer.Post("auth", tt.m)
			if err != nil {
				t.Fatal(err)
			}
			if tt.code != "" {
				if r.Fault == nil || r.Fault.Code() != tt.code {
					t.Errorf("fault %v, want %s", r.Fault, tt.code)
				}
				untouched(t, n)
				return
			}
			if r.Fault != nil || string(r.Head.Raw) != hashed(good, string(tt.m.Head)) || r.Header.Get("X-Original-Content-Type") != textXML || len(n.Service.Requests()) != 1 {
				t.Errorf("%v %+v", r.Fault, r)
			}
		})
	}
	t.Run("no part", func(t *testing.T) {
		h := n.Peer.SOAPRequest(good, nil).Header
		h["Content-Type"] = []string{"multipart/mixed; boundary=B"}
		r, err := n.Peer.PostRaw("auth", "POST", h, strings.NewReader("--B--\r\n"))
		if err != nil || r.Fault == nil || r.Fault.Code() != sp+"missing_soap" {
			t.Errorf("%+v %v", r, err)
		}
	})
}
