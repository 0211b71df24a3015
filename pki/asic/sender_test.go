// SPDX-License-Identifier: Apache-2.0

package asic_test

import (
	"strings"
	"testing"

	"kontor/pki/asic"
)

const soapRequest = `<?xml version="1.0" encoding="utf-8"?>
<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" xmlns:id="http://x-road.eu/xsd/identifiers" xmlns:xroad="http://x-road.eu/xsd/xroad.xsd">
    <SOAP-ENV:Header>
        <xroad:client id:objectType="SUBSYSTEM">
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
        <other xmlns="urn:other"><client/></other>
    </SOAP-ENV:Header>
    <SOAP-ENV:Body>
        <prod:getRandom xmlns:prod="http://test.x-road.global/producer"><a>1</a></prod:getRandom>
    </SOAP-ENV:Body>
</SOAP-ENV:Envelope>
`

func TestSender(t *testing.T) {
	t.Parallel()
	edit := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(soapRequest) }
	field := func(name string) string {
		i := strings.Index(soapRequest, "        <xroad:"+name)
		end := "</xroad:" + name + ">"
		return soapRequest[i : strings.Index(soapRequest, end)+len(end)]
	}
	tests := []struct{ name, message, sender, service, id string }{
		{"SOAP request", soapRequest, "DEV/COM/4321/TestClient", "DEV/COM/1234/TestService/getRandom/v1", "dd19fe68"},
		{"with BOM", "\uFEFF" + soapRequest, "DEV/COM/4321/TestClient", "DEV/COM/1234/TestService/getRandom/v1", "dd19fe68"},
		{"SOAP response", edit("prod:getRandom", "prod:getRandomResponse"), "DEV/COM/1234/TestService", "DEV/COM/1234/TestService/getRandom/v1", "dd19fe68"},
		{"member as client", edit(`"SUBSYSTEM"`, `"MEMBER"`, "            <id:subsystemCode>TestClient</id:subsystemCode>\n", ""), "DEV/COM/4321", "DEV/COM/1234/TestService/getRandom/v1", "dd19fe68"},
		{"no version", edit("            <id:serviceVersion>v1</id:serviceVersion>\n", ""), "DEV/COM/4321/TestClient", "DEV/COM/1234/TestService/getRandom", "dd19fe68"},
		{"other prefixes", edit("xroad:", "x:", ":xroad", ":x", "id:", "i:", "xmlns:id", "xmlns:i"), "DEV/COM/4321/TestClient", "DEV/COM/1234/TestService/getRandom/v1", "dd19fe68"},
		{"REST request", exampleHead, "DEV/COM/4422/TestClient", "DEV/COM/1234/TestService/mock1", "DEV-d75ea6fd-d24b-48ec-a320-53675c40fb86"},
		{"REST request, last client counts", exampleHead + "x-road-client:DEV/COM/1/s\r\n", "DEV/COM/1/s", "DEV/COM/1234/TestService/mock1", "DEV-d75ea6fd-d24b-48ec-a320-53675c40fb86"},
		{"REST response", "204\r\n\r\nx-road-id:7\r\nx-road-client:DEV/COM/4422/TestClient\r\nx-road-service:DEV/COM/1234/TestService/mock1\r\n",
			"DEV/COM/1234/TestService", "DEV/COM/1234/TestService/mock1", "7"},
		{"REST response, line feeds", "200\nOK\nx-road-client:DEV/COM/4422/TestClient\nx-road-service:DEV/COM/1234/TestService/mock1\n",
			"DEV/COM/1234/TestService", "DEV/COM/1234/TestService/mock1", ""},

		{"document type", "<!DOCTYPE x>" + strings.TrimPrefix(soapRequest, `<?xml version="1.0" encoding="utf-8"?>`), "", "", ""},
		{"two clients", edit(field("id"), field("client")+field("id")), "", "", ""},
		{"two codes", edit("<id:memberClass>COM</id:memberClass>", "<id:memberClass>COM</id:memberClass><id:memberClass>GOV</id:memberClass>"), "", "", ""},
		{"two ids", edit(field("id"), field("id")+field("id")), "", "", ""},
		{"no client", edit(field("client"), ""), "", "", ""},
		{"no service", edit(field("service"), ""), "", "", ""},
		{"subsystem of no subsystem", edit("            <id:subsystemCode>TestClient</id:subsystemCode>\n", ""), "", "", ""},
		{"member with subsystem", edit(`"SUBSYSTEM"`, `"MEMBER"`), "", "", ""},
		{"service as client", edit(`"SUBSYSTEM"`, `"SERVICE"`), "", "", ""},
		{"object type without namespace", edit(`id:objectType="SUBSYSTEM"`, `objectType="SUBSYSTEM"`), "", "", ""},
		{"client in the body", edit(field("client"), "", "<a>1</a>", field("client")), "", "", ""},
		{"SOAP 1.2", edit("http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope"), "", "", ""},
		{"two body elements", edit("    </SOAP-ENV:Body>", "<x/></SOAP-ENV:Body>"), "", "", ""},
		{"two headers", edit("    <SOAP-ENV:Body>", "<SOAP-ENV:Header/><SOAP-ENV:Body>"), "", "", ""},
		{"header after the body", edit("</SOAP-ENV:Envelope>", "<SOAP-ENV:Header/></SOAP-ENV:Envelope>"), "", "", ""},
		{"cut off", soapRequest[:len(soapRequest)-30], "", "", ""},
		{"two envelopes", soapRequest + strings.TrimPrefix(soapRequest, `<?xml version="1.0" encoding="utf-8"?>`), "", "", ""},
		{"deep", strings.Repeat("<a>", 5000), "", "", ""},
		{"REST without subsystem", strings.Replace(exampleHead, "/TestService/mock1/v1/pets", "/TestService", 1), "", "", ""},
		{"REST of another version", strings.Replace(exampleHead, "/r1/", "/r2/", 1), "", "", ""},
		{"REST without client", strings.Replace(exampleHead, "X-Road-Client", "X-Client", 1), "", "", ""},
		{"short", "GET", "", "", ""},
		{"empty", "", "", "", ""},
	}
	for _, tt := range tests {
		sender, service, messageID, _, err := asic.ReadHead([]byte(tt.message))
		if sender != tt.sender || service != tt.service || messageID != tt.id || (err == nil) != (tt.sender != "") {
			t.Errorf("%s: sender %q, service %q, id %q, %v", tt.name, sender, service, messageID, err)
		}
	}
}

func FuzzSOAPSender(f *testing.F) {
	f.Add([]byte(soapRequest))
	f.Add([]byte(exampleHead))
	f.Add([]byte("200\r\nOK\r\nx-road-client:DEV/COM/4422/TestClient\r\nx-road-service:DEV/COM/1234/TestService/mock1\r\n"))
	f.Fuzz(func(t *testing.T, message []byte) {
		sender, service, _, _, err := asic.ReadHead(message)
		if (err == nil) != (sender != "" && service != "") {
			t.Errorf("sender %q, service %q, %v", sender, service, err)
		}
	})
}
