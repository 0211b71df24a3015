// SPDX-License-Identifier: Apache-2.0

package message_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"kontor/gateway/message"
	"kontor/registry/id"
)

// soapHead is the header of the example.
const soapHead = `<xroad:client id:objectType="SUBSYSTEM">
            <id:xRoadInstance>DEV</id:xRoadInstance>
            <id:memberClass>COM</id:memberClass>
            <id:memberCode>4321</id:memberCode>
            <id:subsystemCode>TestClient</id:subsystemCode>
        </xroad:client>
        <xroad:service id:objectType="SERVICE">
            <id:xRoadInstance>DEV</id:xRoadInstance>
            <id:memberClass>COM</id:memberClass>
            <id:memberCode>1234</id:memberCode>
            <id:subsystemCode>TestService</id:subsystemCode>
            <id:serviceCode>getRandom</id:serviceCode>
            <id:serviceVersion>v1</id:serviceVersion>
        </xroad:service>
        <xroad:id>dd19fe68</xroad:id>
        <xroad:protocolVersion>4.0</xroad:protocolVersion>
`

const (
	soapStart = `<?xml version="1.0" encoding="utf-8"?>
<SOAP-ENV:Envelope
    xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"
    xmlns:id="http://x-road.eu/xsd/identifiers" xmlns:repr="http://x-road.eu/xsd/representation.xsd"
    xmlns:xroad="http://x-road.eu/xsd/xroad.xsd">
`
	soapBody = `<SOAP-ENV:Body>
        <prod:getRandom xmlns:prod="http://test.x-road.global/producer"/>
    </SOAP-ENV:Body>
`
	soapEnd = "</SOAP-ENV:Envelope>\n"
)

// envelope makes the example with another header.
func envelope(header string) string {
	return soapStart + "    <SOAP-ENV:Header>" + header + "</SOAP-ENV:Header>\n" + soapBody + soapEnd
}

var soapExample = envelope(soapHead)

func mustClient(t testing.TB, s string) id.Client {
	t.Helper()
	c, err := id.ParseClient(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func readEnvelope(t testing.TB, doc string) *message.Envelope {
	t.Helper()
	e, err := message.ReadEnvelope([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestReadEnvelope(t *testing.T) {
	t.Parallel()
	more := `<repr:representedParty><repr:partyClass>COM</repr:partyClass><repr:partyCode>UNKNOWN_MEMBER</repr:partyCode></repr:representedParty>
		<xroad:userId> EE&amp;<!-- no -->1<![CDATA[<2>]]>&#x41;` + "\r\n" + `</xroad:userId>
		<xroad:issue/><other>text<xroad:id>not this one</xroad:id></other>
		<xroad:securityServer id:objectType="SERVER"><id:xRoadInstance>DEV</id:xRoadInstance><id:memberClass>COM</id:memberClass>
			<id:memberCode>1234</id:memberCode><id:serverCode>ss1</id:serverCode></xroad:securityServer>
		<xroad:requestHash algorithmId="x">abc</xroad:requestHash>`
	e := readEnvelope(t, envelope(soapHead+more))
	if e.Client != mustClient(t, "DEV/COM/4321/TestClient") || e.Service.LogString() != "SERVICE:DEV/COM/1234/TestService/getRandom/v1" {
		t.Errorf("%v %v", e.Client, e.Service.LogString())
	}
	if e.ID != "dd19fe68" || e.ProtocolVersion != "4.0" || e.UserID != " EE&1<2>A\n" || e.Issue != "" || e.RequestHash != "abc" ||
		e.Server.String() != "DEV/COM/1234/ss1" || e.RepresentedParty.String() != "COM/UNKNOWN_MEMBER" || e.BodyName != "getRandom" || e.Fault {
		t.Errorf("%+v", e)
	}
}

// The forms that documents take and that mean the same.
func TestEnvelopeForms(t *testing.T) {
	t.Parallel()
	for name, doc := range map[string]string{
		"byte order mark": "\uFEFF" + soapExample,
		"no declaration":  soapExample[strings.Index(soapExample, "<SOAP"):],
		"comments":        strings.ReplaceAll(soapExample, ">\n", "><!-- - -->\n"),
		"single quotes":   strings.ReplaceAll(soapExample, `"`, `'`),
		"other prefixes":  strings.NewReplacer("SOAP-ENV", "s", "xroad", "å", "id:", "ж:", ":id=", ":ж=").Replace(strings.ReplaceAll(soapExample, "xroad.xsd", "x&#114;oad.xsd")),
		"line ends":       strings.ReplaceAll(soapExample, "\n", "\r\n"),
		"spaces in tags":  strings.NewReplacer("</SOAP-ENV:Body>", "</SOAP-ENV:Body \n>", `="SERVICE"`, "\t= \r\n\"SERVICE\" ").Replace(soapExample),
		"default namespace": strings.NewReplacer("<xroad:id>", `<id xmlns="http://x-road.eu/xsd/xroad.xsd">`, "</xroad:id>", "</id>",
			"<id:memberCode>1234</id:memberCode>", `<x:memberCode xmlns:x="http://x-road.eu/xsd/identifiers">1234</x:memberCode>`).Replace(soapExample),
	} {
		e, err := message.ReadEnvelope([]byte(doc))
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, doc)
			continue
		}
		if e.ID != "dd19fe68" || e.Client != mustClient(t, "DEV/COM/4321/TestClient") || e.Service.LogString() != "SERVICE:DEV/COM/1234/TestService/getRandom/v1" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func TestEnvelopeErrors(t *testing.T) {
	t.Parallel()
	swap := func(old, new string) string {
		if !strings.Contains(soapExample, old) {
			t.Fatalf("no %s", old)
		}
		return strings.Replace(soapExample, old, new, 1)
	}
	without := func(from, to string) string {
		i := strings.Index(soapExample, from)
		return soapExample[:i] + soapExample[i+strings.Index(soapExample[i:], to)+len(to):]
	}
	deep := func(n int) string {
		return swap(`<prod:getRandom xmlns:prod="http://test.x-road.global/producer"/>`,
			"<getRandom>"+strings.Repeat("<a>", n)+strings.Repeat("</a>", n)+"</getRandom>")
	}
	for name, x := range map[string]struct {
		doc  string
		want error
	}{
		"good":                   {soapExample, nil},
		"empty":                  {"", message.ErrXML},
		"no document":            {"  <!-- -->", message.ErrXML},
		"cut":                    {soapExample[:700], message.ErrXML},
		"text":                   {"hello", message.ErrXML},
		"text behind":            {soapExample + "x", message.ErrXML},
		"element behind":         {soapExample + "<a/>", message.ErrXML},
		"end behind":             {soapExample + "</a>", message.ErrXML},
		"document type":          {"<!DOCTYPE a>" + soapExample[strings.Index(soapExample, "<SOAP"):], message.ErrXML},
		"document type behind":   {soapExample + "<!DOCTYPE a>", message.ErrXML},
		"entity":                 {swap("dd19fe68", "&nbsp;"), message.ErrXML},
		"reference to nothing":   {swap("dd19fe68", "&#0;"), message.ErrXML},
		"reference beyond":       {swap("dd19fe68", "&#x110000;"), message.ErrXML},
		"surrogate":              {swap("dd19fe68", "&#xD800;"), message.ErrXML},
		"open reference":         {swap("dd19fe68", "&amp"), message.ErrXML},
		"control":                {swap("dd19fe68", "a\x01b"), message.ErrXML},
		"not UTF-8":              {swap("dd19fe68", "a\xE4b"), message.ErrXML},
		"noncharacter":           {swap("dd19fe68", "a\uFFFEb"), message.ErrXML},
		"end of section":         {swap("dd19fe68", "a]]>b"), message.ErrXML},
		"processing instruction": {swap("<xroad:id>", "<?php?><xroad:id>"), message.ErrXML},
		"second declaration":     {swap("<xroad:id>", `<?xml version="1.0"?><xroad:id>`), message.ErrXML},
		"blank before":           {" " + soapExample, message.ErrXML},
		"stylesheet":             {`<?xml-stylesheet href="x"?>` + soapExample[strings.Index(soapExample, "<SOAP"):], message.ErrXML},
		"Latin-1":                {swap("utf-8", "ISO-8859-1"), message.ErrXML},
		"UTF-16":                 {swap("utf-8", "UTF-16"), message.ErrXML},
		"XML 1.1":                {swap(`"1.0"`, `"1.1"`), message.ErrXML},
		"no version":             {swap(`version="1.0" `, ""), message.ErrXML},
		"standalone":             {swap("utf-8\"", "utf-8\" standalone='maybe'"), message.ErrXML},
		"wrong end":              {swap("</xroad:id>", "</xroad:ID>"), message.ErrXML},
		"other prefix at end":    {swap("</xroad:id>", "</id>"), message.ErrXML},
		"undeclared prefix":      {swap("<prod:getRandom xmlns:prod", "<prod:getRandom xmlns:p"), message.ErrXML},
		"undeclared in body":     {swap("/>\n    </SOAP", "><p:a/></prod:getRandom>\n    </SOAP"), message.ErrXML},
		"undeclared attribute":   {swap("/>\n    </SOAP", " p:a=''/>\n    </SOAP"), message.ErrXML},
		"two attributes":         {swap("/>\n    </SOAP", " a='' a=''/>\n    </SOAP"), message.ErrXML},
		"two by namespace":       {swap("/>\n    </SOAP", " xmlns:p='http://x-road.eu/xsd/identifiers' p:a='' id:a=''/>\n    </SOAP"), message.ErrXML},
		"same local names":       {swap("/>\n    </SOAP", " xmlns:p='http://x-road.eu/xsd/identifier' p:a='' id:a='' a=''/>\n    </SOAP"), nil},
		"attributes touch":       {swap("/>\n    </SOAP", " a=''b=''/>\n    </SOAP"), message.ErrXML},
		"attribute unquoted":     {swap("/>\n    </SOAP", " a=b/>\n    </SOAP"), message.ErrXML},
		"attribute without":      {swap("/>\n    </SOAP", " a/>\n    </SOAP"), message.ErrXML},
		"angle in attribute":     {swap("/>\n    </SOAP", " a='<'/>\n    </SOAP"), message.ErrXML},
		"control in attribute":   {swap("/>\n    </SOAP", " a='\x00'/>\n    </SOAP"), message.ErrXML},
		"entity in attribute":    {swap("/>\n    </SOAP", " a='&x;'/>\n    </SOAP"), message.ErrXML},
		"prefix undeclared":      {swap("/>\n    </SOAP", " xmlns:id=''/>\n    </SOAP"), message.ErrXML},
		"xml prefix":             {swap("/>\n    </SOAP", " xml:lang='et'/>\n    </SOAP"), nil},
		"xml prefix elsewhere":   {swap("/>\n    </SOAP", " xmlns:xml='x'/>\n    </SOAP"), message.ErrXML},
		"two colons":             {swap("/>\n    </SOAP", "><id:a:b/></prod:getRandom>\n    </SOAP"), message.ErrXML},
		"digit":                  {swap("/>\n    </SOAP", "><1/></prod:getRandom>\n    </SOAP"), message.ErrXML},
		"comment":                {swap("<xroad:id>", "<!-- -- --><xroad:id>"), message.ErrXML},
		"control in comment":     {swap("<xroad:id>", "<!-- \x02 --><xroad:id>"), message.ErrXML},
		"control in section":     {swap("dd19fe68", "<![CDATA[\x02]]>"), message.ErrXML},
		"open section":           {swap("dd19fe68", "<![CDATA["), message.ErrXML},
		"depth":                  {deep(300), message.ErrXML},
		"some depth":             {deep(200), nil},
		"element in a value":     {swap("dd19fe68", "<a/>"), message.ErrXML},
		"no object type":         {swap(` id:objectType="SUBSYSTEM"`, ""), message.ErrXML},
		"plain object type":      {swap(`id:objectType="SUBSYSTEM"`, `objectType="SUBSYSTEM"`), message.ErrXML},
		"other object type":      {swap(`id:objectType="SUBSYSTEM"`, `id:objectType="SERVER"`), message.ErrXML},
		"empty object type":      {swap(`id:objectType="SERVICE"`, `id:objectType=""`), message.ErrXML},

		"not SOAP":           {"<a/>", message.ErrSOAP},
		"SOAP 1.2":           {swap("http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope"), message.ErrSOAP},
		"two headers":        {swap("<SOAP-ENV:Body>", "<SOAP-ENV:Header/><SOAP-ENV:Body>"), message.ErrSOAP},
		"header behind body": {soapStart + soapBody + "<SOAP-ENV:Header>" + soapHead + "</SOAP-ENV:Header>" + soapEnd, message.ErrSOAP},
		"two bodies":         {swap("</SOAP-ENV:Envelope>", soapBody+"</SOAP-ENV:Envelope>"), message.ErrSOAP},
		"text in envelope":   {swap("<SOAP-ENV:Body>", "x<SOAP-ENV:Body>"), message.ErrSOAP},
		"text in client":     {swap("<id:memberClass>", "x<id:memberClass>"), message.ErrSOAP},
		"unknown part":       {swap("<SOAP-ENV:Body>", "<SOAP-ENV:Foot/><SOAP-ENV:Body>"), message.ErrSOAP},
		"foreign part":       {swap("</SOAP-ENV:Envelope>", "<foot/></SOAP-ENV:Envelope>"), nil},

		"no header":           {soapStart + soapBody + soapEnd, message.ErrMissingHeader},
		"empty header":        {envelope(""), message.ErrMissingHeaderField},
		"no client":           {without("<xroad:client", "</xroad:client>"), message.ErrMissingHeaderField},
		"no service":          {without("<xroad:service", "</xroad:service>"), message.ErrMissingHeaderField},
		"no id":               {without("<xroad:id>", "</xroad:id>"), message.ErrMissingHeaderField},
		"no protocol version": {without("<xroad:protocolVersion>", "</xroad:protocolVersion>"), message.ErrMissingHeaderField},
		"id elsewhere":        {swap("xroad:id>dd19fe68</xroad:id", "repr:id>dd19fe68</repr:id"), message.ErrMissingHeaderField},
		"two ids":             {swap("<xroad:id>", "<xroad:id/><xroad:id>"), message.ErrDuplicateHeader},
		"two users":           {swap("<xroad:id>", "<xroad:userId/><xroad:userId/><xroad:id>"), message.ErrDuplicateHeader},
		"two clients":         {swap("<xroad:id>", "<xroad:client/><xroad:id>"), message.ErrDuplicateHeader},
		"two parties":         {swap("<xroad:id>", "<repr:representedParty/><repr:representedParty/><xroad:id>"), message.ErrDuplicateHeader},
		"two hashes":          {swap("<xroad:id>", "<xroad:requestHash/><xroad:requestHash/><xroad:id>"), message.ErrDuplicateHeader},
		"two member codes":    {swap("<id:memberCode>", "<id:memberCode>1</id:memberCode><id:memberCode>"), message.ErrDuplicateHeader},
		"version 3":           {swap("4.0<", "3.1<"), message.ErrProtocolVersion},
		"version 40":          {swap("4.0<", "40<"), message.ErrProtocolVersion},
		"version 4.x":         {swap("4.0<", "4.x<"), nil},
		"no instance":         {swap("<id:xRoadInstance>DEV</id:xRoadInstance>", ""), message.ErrIdentifier},
		"blank instance":      {swap("<id:xRoadInstance>DEV<", "<id:xRoadInstance> <"), message.ErrIdentifier},
		"blank subsystem":     {swap("TestClient<", "<"), message.ErrIdentifier},
		"no service code":     {without("<id:serviceCode>", "</id:serviceCode>"), message.ErrIdentifier},
		"empty server":        {swap("<xroad:id>", `<xroad:securityServer id:objectType="SERVER"/><xroad:id>`), message.ErrIdentifier},
		"empty party":         {swap("<xroad:id>", "<repr:representedParty/><xroad:id>"), message.ErrIdentifier},
		"no body":             {soapStart + "<SOAP-ENV:Header>" + soapHead + "</SOAP-ENV:Header>" + soapEnd, message.ErrMissingBody},
		"empty body":          {swap(`<prod:getRandom xmlns:prod="http://test.x-road.global/producer"/>`, ""), message.ErrBody},
		"two elements":        {swap("</SOAP-ENV:Body>", "<a/></SOAP-ENV:Body>"), message.ErrBody},
		"other service":       {swap("<prod:getRandom ", "<prod:getrandom "), message.ErrInconsistentHeaders},
		"longer service":      {swap("<prod:getRandom ", "<prod:getRandomResponse "), nil},
		"a member's service":  {without("<id:subsystemCode>TestS", "</id:subsystemCode>"), nil},
		"a fault and more":    {swap("</SOAP-ENV:Body>", "<SOAP-ENV:Fault/></SOAP-ENV:Body>"), message.ErrBody},
	} {
		_, err := message.ReadEnvelope([]byte(x.doc))
		if !errors.Is(err, x.want) || (x.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
}

func TestEnvelopeFault(t *testing.T) {
	t.Parallel()
	fault := `<SOAP-ENV:Body><SOAP-ENV:Fault><faultcode>x</faultcode></SOAP-ENV:Fault></SOAP-ENV:Body>`
	for _, doc := range []string{
		soapStart + fault + soapEnd,
		soapStart + "<SOAP-ENV:Header><xroad:id/><xroad:id/></SOAP-ENV:Header>" + fault + soapEnd,
	} {
		e, err := message.ReadEnvelope([]byte(doc))
		if err != nil || !e.Fault || e.ID != "" {
			t.Errorf("%+v, %v", e, err)
		}
	}
	for _, doc := range []string{
		soapStart + soapBody + fault + soapEnd,
		soapStart + fault + soapBody + soapEnd,
		soapStart + fault + soapEnd + "x",
	} {
		if e, err := message.ReadEnvelope([]byte(doc)); err == nil {
			t.Errorf("%+v", e)
		}
	}
}

// Names may have letters beyond ASCII; all of them must be letters to others.
func TestLettersOfNames(t *testing.T) {
	t.Parallel()
	for _, l := range message.Letters {
		for r := l[0]; r <= l[1]; r++ {
			d := xml.NewDecoder(strings.NewReader("<" + string(r) + "/>"))
			if _, err := d.Token(); err != nil {
				t.Fatalf("%U: %v", r, err)
			}
		}
	}
}

func TestWithRequestHash(t *testing.T) {
	t.Parallel()
	const added = `<xroad:requestHash algorithmId="http://www.w3.org/2001/04/xmlenc#sha512">HASH</xroad:requestHash>`
	after := func(doc, tag, add string) string {
		i := strings.Index(doc, tag) + len(tag)
		return doc[:i] + add + doc[i:]
	}
	old := `<xroad:requestHash algorithmId="x">old</xroad:requestHash>`
	attributes := strings.Replace(soapExample, "<xroad:id>dd19fe68</xroad:id>", `<x:id xmlns:x="http://x-road.eu/xsd/xroad.xsd" xroad:a='"'
		algorithmId = "&lt;"  b="1"
	>dd19fe68</x:id >`, 1)
	empty := strings.Replace(soapExample, "<xroad:id>dd19fe68</xroad:id>", `<id xmlns="http://x-road.eu/xsd/xroad.xsd" />`, 1)
	for name, x := range map[string][2]string{
		"none":    {soapExample, after(soapExample, "</xroad:id>", added)},
		"before":  {after(soapExample, "</xroad:service>", old), after(soapExample, "</xroad:id>", added)},
		"behind":  {after(soapExample, "</xroad:id>", "\n"+old), after(soapExample, "</xroad:id>", added+"\n")},
		"touches": {after(soapExample, "</xroad:id>", old), after(soapExample, "</xroad:id>", added)},
		"attributes": {attributes, after(attributes, "</x:id >", `<x:requestHash xmlns:x="http://x-road.eu/xsd/xroad.xsd" xroad:a='"'
		  b="1"
	 algorithmId="http://www.w3.org/2001/04/xmlenc#sha512">HASH</x:requestHash>`)},
		"empty": {empty, after(empty, `xroad.xsd" />`, `<requestHash xmlns="http://x-road.eu/xsd/xroad.xsd"  algorithmId="http://www.w3.org/2001/04/xmlenc#sha512">HASH</requestHash>`)},
	} {
		got := readEnvelope(t, x[0]).WithRequestHash("HASH")
		if string(got) != x[1] {
			t.Errorf("%s: got %s", name, got)
		}
		if e := readEnvelope(t, string(got)); e.RequestHash != "HASH" {
			t.Errorf("%s: %q", name, e.RequestHash)
		}
	}
}

func TestWithBody(t *testing.T) {
	t.Parallel()
	for _, doc := range []string{soapExample, "\ufeff" + soapExample} {
		e := readEnvelope(t, doc)
		answer := string(e.WithBody([]byte(`<r:getRandomResponse xmlns:r="urn:r">&amp;</r:getRandomResponse>`)))
		if got := readEnvelope(t, answer); got.BodyName != "getRandomResponse" || got.ID != e.ID || got.Client != e.Client || got.Service != e.Service {
			t.Errorf("the answer reads %+v", got)
		}
		head, _, _ := strings.Cut(doc, "<SOAP-ENV:Body>")
		if !strings.HasPrefix(answer, head+"<SOAP-ENV:Body><r:getRandomResponse") || !strings.HasSuffix(answer, "</r:getRandomResponse></SOAP-ENV:Body>\n"+soapEnd) {
			t.Errorf("more than the content of the body changed:\n%s", answer)
		}
	}
}

func TestEnvelopeHash(t *testing.T) {
	t.Parallel()
	sum := sha512.Sum512([]byte("\uFEFF<a/>"))
	if h := message.EnvelopeHash([]byte("\uFEFF<a/>")); h != base64.StdEncoding.EncodeToString(sum[:]) {
		t.Error(h)
	}
}

// Messages of real security servers, from their containers.
func TestEnvelopesOfRealServers(t *testing.T) {
	t.Parallel()
	containers, _ := filepath.Glob("../../../shared/vectors/asic/*.asice")
	if len(containers) == 0 {
		t.Skip("no vectors here")
	}
	read := 0
	for _, path := range containers {
		z, err := zip.OpenReader(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := z.Open("message.xml")
		if err != nil {
			t.Fatal(err)
		}
		doc, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		z.Close()
		if !bytes.HasPrefix(doc, []byte("<")) {
			continue
		}
		e, err := message.ReadEnvelope(doc)
		if filepath.Base(path) == "invalid-incorrect-references.asice" {
			if !errors.Is(err, message.ErrMissingHeaderField) {
				t.Errorf("%s: %v", path, err)
			}
			continue
		}
		read++
		if err != nil || e.Service.Code() != "getRandom" || e.Client != mustClient(t, "DEV/COM/4321/TestClient") {
			t.Errorf("%s: %+v, %v", path, e, err)
		}
	}
	if read == 0 {
		t.Error("no SOAP message among the vectors")
	}
}

// referenceEnvelope reads an envelope with encoding/xml: the values of the header's
// fields and identifiers by their local names, in order, and the body's element.
func referenceEnvelope(doc []byte) (map[string]string, error) {
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(doc, []byte("\uFEFF"))))
	values := map[string]string{}
	var path []xml.Name
	var content strings.Builder
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return values, nil
		}
		if err != nil {
			return nil, err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			path = append(path, tok.Name)
			content.Reset()
			if len(path) == 3 && path[1].Local == "Body" {
				values["body"] = tok.Name.Local
			}
		case xml.CharData:
			content.Write(tok)
		case xml.EndElement:
			if len(path) > 2 && path[1].Space == "http://schemas.xmlsoap.org/soap/envelope/" && path[1].Local == "Header" {
				key := ""
				for _, n := range path[2:] {
					key += n.Space + " " + n.Local + "/"
				}
				values[key] = content.String()
			}
			path = path[:len(path)-1]
		}
	}
}

const (
	inXRoad = "http://x-road.eu/xsd/xroad.xsd "
	inID    = "http://x-road.eu/xsd/identifiers "
)

// FuzzEnvelope: nothing is read that encoding/xml refuses, and what is read is
// what encoding/xml reads; a request hash can be written into it, which changes
// nothing else.
func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(soapExample))
	f.Add([]byte("\uFEFF" + strings.ReplaceAll(soapExample, "\n", "\r\n")))
	f.Add([]byte(envelope(strings.Replace(soapHead, "dd19fe68", "a&amp;<!-- x --><![CDATA[]]]]>&#xE4;\r\n", 1) + `<xroad:userId/><xroad:requestHash algorithmId="x">abc</xroad:requestHash>`)))
	f.Add([]byte(strings.Replace(soapExample, "<xroad:id>dd19fe68</xroad:id>", `<id a="&gt;" algorithmId='x' xmlns="http://x-road.eu/xsd/xroad.xsd"/>`, 1)))
	f.Add([]byte(strings.Replace(soapExample, "/>\n    </SOAP", " xml:a='\u00e4'>]]<a xmlns='x'>\u20ac</a></prod:getRandom>\n    </SOAP", 1)))
	f.Add([]byte(soapStart + "<SOAP-ENV:Body><SOAP-ENV:Fault/></SOAP-ENV:Body>" + soapEnd))
	f.Fuzz(func(t *testing.T, doc []byte) { checkEnvelope(t, doc) })
}

// FuzzEnvelopeEdit is FuzzEnvelope on documents that are mostly well formed.
func FuzzEnvelopeEdit(f *testing.F) {
	at := func(s string) uint16 { return uint16(strings.Index(soapExample, s)) }
	f.Add(at("dd19"), uint16(8), []byte("a&amp;<![CDATA[<]]>&#13;\r\n<!-- - -->"))
	f.Add(at("<xroad:id>"), uint16(0), []byte(`<xroad:requestHash a="b">c</xroad:requestHash>`))
	f.Add(at(" xmlns:id"), uint16(0), []byte(` xmlns:ID="http://x-road.eu/xsd/identifiers" xmlns='x' xml:lang="&lt;"`))
	f.Add(at("/>\n    </SOAP"), uint16(2), []byte("><p:a xmlns:p='x' p:b='' b='>'/>]]]&gt;\u00e4</prod:getRandom>"))
	f.Add(at(">dd19"), uint16(0), []byte(" algorithmId = 'x' xmlns=\"y\"\t"))
	f.Add(at("<SOAP-ENV:Body"), uint16(0), []byte("<x/><!---->"))
	f.Add(uint16(0), uint16(0), []byte("\uFEFF"))
	f.Fuzz(func(t *testing.T, at, remove uint16, insert []byte) {
		i := min(int(at), len(soapExample))
		checkEnvelope(t, []byte(soapExample[:i]+string(insert)+soapExample[min(i+int(remove), len(soapExample)):]))
	})
}

func checkEnvelope(t *testing.T, doc []byte) {
	e, err := message.ReadEnvelope(doc)
	if err != nil {
		return
	}
	want, err := referenceEnvelope(doc)
	if err != nil {
		t.Fatalf("read, but encoding/xml refuses it: %v", err)
	}
	if e.Fault {
		return
	}
	check := func(what, have, key string) {
		if have != want[key] {
			t.Errorf("%s is %q, encoding/xml reads %q", what, have, want[key])
		}
	}
	check("id", e.ID, inXRoad+"id/")
	check("version", e.ProtocolVersion, inXRoad+"protocolVersion/")
	check("userId", e.UserID, inXRoad+"userId/")
	check("issue", e.Issue, inXRoad+"issue/")
	check("requestHash", e.RequestHash, inXRoad+"requestHash/")
	check("client's class", e.Client.Member().Class(), inXRoad+"client/"+inID+"memberClass/")
	check("client's code", e.Client.Member().Code(), inXRoad+"client/"+inID+"memberCode/")
	check("client's subsystem", e.Client.Subsystem(), inXRoad+"client/"+inID+"subsystemCode/")
	check("owner's code", e.Service.Owner().Member().Code(), inXRoad+"service/"+inID+"memberCode/")
	check("service code", e.Service.Code(), inXRoad+"service/"+inID+"serviceCode/")
	version, _ := e.Service.Version()
	check("service version", version, inXRoad+"service/"+inID+"serviceVersion/")
	check("body", e.BodyName, "body")

	hashed := e.WithRequestHash("HASH")
	if answer, err := e.Answering("HASH"); err == nil {
		if read, err := message.ReadEnvelope(hashed); err != nil || !reflect.DeepEqual(answer, read) {
			t.Errorf("the answer is %+v, but read %+v, %v", answer, read, err)
		}
	}
	again, err := message.ReadEnvelope(hashed)
	if err != nil {
		t.Fatalf("with a request hash: %v\n%s", err, hashed)
	}
	if again.RequestHash != "HASH" || again.ID != e.ID || again.Client != e.Client || again.Service != e.Service || again.BodyName != e.BodyName {
		t.Fatalf("with a request hash: %+v", again)
	}
	if twice := again.WithRequestHash("HASH"); !bytes.Equal(twice, hashed) {
		t.Fatalf("a second hash differs:\n%s\n%s", hashed, twice)
	}
}

func BenchmarkReadEnvelope(b *testing.B) {
	for name, fill := range map[string]string{
		"text":   "lorem ipsum dolor sit amet consectetur adipiscing elit ",
		"rows":   "<row><name>Mari Maasikas</name><code>38001085718</code><amount>125.50</amount></row>\n            ",
		"dense":  `<p:a x="1" y="2"/>`,
		"empty":  "",
		"base64": "TG9yZW0gaXBzdW0gZG9sb3Igc2l0IGFtZXQsIGNvbnNlY3RldHVyIGFkaXBpc2NpbmcgZWxpdAo",
	} {
		head := strings.TrimSuffix(soapExample, "/>\n    </SOAP-ENV:Body>\n</SOAP-ENV:Envelope>\n") + ` xmlns:p="x">`
		tail := "</prod:getRandom></SOAP-ENV:Body></SOAP-ENV:Envelope>"
		doc := []byte(head + strings.Repeat(fill, (10<<10-len(head)-len(tail))/max(1, len(fill))) + tail)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := message.ReadEnvelope(doc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
