// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"kontor/gateway/fault"
)

const soapNS = "http://schemas.xmlsoap.org/soap/envelope/"

func envelope(body string) string {
	return `<e:Envelope xmlns:e="` + soapNS + `"><e:Body>` + body + `</e:Body></e:Envelope>`
}

func TestParseSOAP(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct{ doc, code, text, detail string }{
		"own": {string(fault.At(fault.ServerProxy, fault.New(fault.AccessDenied, "a & b")).SOAP()),
			"server.serverproxy.access_denied", "*", "*"},
		"default namespace": {`<Envelope xmlns="` + soapNS + `"><Body><Fault><faultcode>c</faultcode></Fault></Body></Envelope>`, "c", "", ""},
		"indented": {"\n<!-- x --><s:Envelope xmlns:s='" + soapNS + "'>\n<s:Header><x>y</x></s:Header>\n<s:Body>\n<s:Fault>\n" +
			"<faultcode> s:Server </faultcode>\n<faultstring xml:lang='en'>no &#60; <![CDATA[<b>]]></faultstring>\n</s:Fault>\n</s:Body>\n</s:Envelope>\n",
			"s:Server", "no < <b>", ""},
		"byte order mark":     {"\uFEFF" + envelope("<e:Fault><faultcode>c</faultcode></e:Fault>"), "c", "", ""},
		"detail without name": {envelope("<e:Fault><faultcode>c</faultcode><detail> <a>1<b>2</b></a> 3 </detail></e:Fault>"), "c", "", "12 3"},
		"faultDetail preferred": {envelope("<e:Fault><faultcode>c</faultcode><faultstring>s</faultstring><faultactor>who</faultactor>" +
			"<detail><a>1</a><faultDetail xmlns=''>uuid</faultDetail><faultDetail>2</faultDetail></detail></e:Fault>"), "c", "s", "uuid"},
		"qualified": {envelope("<e:Fault><e:faultcode>c</e:faultcode><e:detail>d</e:detail></e:Fault>"), "c", "", "d"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := fault.ParseSOAP([]byte(x.doc))
			if err != nil {
				t.Fatal(err)
			}
			if e.Code() != x.code || x.text != "*" && e.Text() != x.text || x.detail != "*" && e.Detail() != x.detail {
				t.Errorf("code %q text %q detail %q", e.Code(), e.Text(), e.Detail())
			}
			if !e.IsRemote() || string(e.SOAP()) != x.doc {
				t.Error("not relayed byte for byte")
			}
		})
	}
}

func TestParseSOAPRefuses(t *testing.T) {
	t.Parallel()
	ok := "<e:Fault><faultcode>c</faultcode></e:Fault>"
	for name, doc := range map[string]string{
		"nothing":                "",
		"document type":          `<!DOCTYPE x [<!ENTITY a "b">]>` + envelope(ok),
		"document type in body":  envelope(`<!DOCTYPE x>` + ok),
		"unknown entity":         envelope("<e:Fault><faultcode>&a;</faultcode></e:Fault>"),
		"processing instruction": `<?xml-stylesheet href="x"?>` + envelope(ok),
		"late declaration":       "<!-- -->" + `<?xml version="1.0"?>` + envelope(ok),
		"other charset":          `<?xml version="1.0" encoding="ISO-8859-1"?>` + envelope(ok),
		"not an envelope":        `<x xmlns="` + soapNS + `"/>`,
		"SOAP 1.2":               strings.ReplaceAll(envelope(ok), soapNS, "http://www.w3.org/2003/05/soap-envelope"),
		"no body":                `<e:Envelope xmlns:e="` + soapNS + `"/>`,
		"empty body":             envelope(""),
		"a message":              envelope("<x/>"),
		"two faults":             envelope(ok + ok),
		"fault and message":      envelope(ok + "<x/>"),
		"two bodies":             `<e:Envelope xmlns:e="` + soapNS + `"><e:Body>` + ok + `</e:Body><e:Body>` + ok + `</e:Body></e:Envelope>`,
		"no code":                envelope("<e:Fault><faultstring>x</faultstring></e:Fault>"),
		"blank code":             envelope("<e:Fault><faultcode> </faultcode></e:Fault>"),
		"two codes":              envelope("<e:Fault><faultcode>a</faultcode><faultcode>b</faultcode></e:Fault>"),
		"elements in code":       envelope("<e:Fault><faultcode>a<b/></faultcode></e:Fault>"),
		"line break in code":     envelope("<e:Fault><faultcode>a&#13;&#10;b</faultcode></e:Fault>"),
		"long code":              envelope("<e:Fault><faultcode>" + strings.Repeat("a", 2000) + "</faultcode></e:Fault>"),
		"text in fault":          envelope("<e:Fault>x<faultcode>c</faultcode></e:Fault>"),
		"cut off":                envelope(ok)[:len(envelope(ok))-5],
		"trailing text":          envelope(ok) + "x",
		"trailing element":       envelope(ok) + "<x/>",
		"leading text":           "x" + envelope(ok),
		"deep":                   envelope("<e:Fault><faultcode>c</faultcode><detail>" + strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100) + "</detail></e:Fault>"),
		"large":                  envelope("<e:Fault><faultcode>c</faultcode><faultstring>" + strings.Repeat("x", fault.MaxSOAP) + "</faultstring></e:Fault>"),
	} {
		if e, err := fault.ParseSOAP([]byte(doc)); !errors.Is(err, fault.ErrMalformed) || e != nil {
			t.Errorf("%s: %v, %v", name, e, err)
		}
	}
}

func FuzzParseSOAPFault(f *testing.F) {
	f.Add(fault.At(fault.ServerProxy, fault.New(fault.AccessDenied, awkward)).SOAP())
	f.Add([]byte(envelope("<e:Fault><faultcode>c</faultcode><faultstring>s</faultstring><detail><a>1</a><faultDetail>d</faultDetail></detail></e:Fault>")))
	f.Add([]byte(`<!DOCTYPE x>` + envelope("<e:Fault/>")))
	f.Fuzz(func(t *testing.T, doc []byte) {
		e, err := fault.ParseSOAP(doc)
		if err != nil {
			if !errors.Is(err, fault.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if e.Code() == "" || strings.ContainsAny(e.Code(), "\r\n\x00") || !bytes.Equal(e.SOAP(), doc) {
			t.Fatalf("code %q, %s", e.Code(), e.SOAP())
		}
		// What was read must survive being written anew.
		again, err := fault.ParseSOAP(fault.Remote(e.Code(), e.Text(), e.Detail()).SOAP())
		if err != nil {
			t.Fatal(err)
		}
		if again.Code() != e.Code() || again.Text() != e.Text() || again.Detail() != e.Detail() {
			t.Fatalf("%q %q %q became %q %q %q", e.Code(), e.Text(), e.Detail(), again.Code(), again.Text(), again.Detail())
		}
	})
}
