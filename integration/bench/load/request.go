// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"strconv"
	"strings"

	"kontor/integration/bench/service"
)

// Get asks for n bytes. Header lines end in CRLF.
func Get(addr, prefix, header string, n int64) Request {
	c := service.NewContent(n)
	return Request{Addr: addr, Want: &c,
		Head: []byte("GET " + prefix + "/bytes/" + strconv.FormatInt(n, 10) + " HTTP/1.1\r\nHost: " + addr + "\r\nAccept: */*\r\n" + header + "\r\n")}
}

// Post sends n bytes.
func Post(addr, prefix, header string, n int64) Request {
	c := service.NewContent(n)
	return Request{Addr: addr, Upload: &c, Contains: fmt.Appendf(nil, `{"read":%d}`, n),
		Head: []byte("POST " + prefix + "/sink/" + strconv.FormatInt(n, 10) + " HTTP/1.1\r\nHost: " + addr + "\r\nAccept: */*\r\n" + header +
			"Content-Type: application/json\r\nContent-Length: " + strconv.FormatInt(n, 10) + "\r\n\r\n")}
}

// Exchange sends so many bytes, at most 64 KiB, and asks for others. Head and
// body leave in one piece, as those of SOAP do.
func Exchange(addr, prefix, header string, send, ask int64) Request {
	sent, want := service.NewContent(send), service.NewContent(ask)
	return Request{Addr: addr, Want: &want,
		Head: fmt.Appendf(nil, "POST %s/exchange/%d/%d HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			prefix, send, ask, addr, header, send, sent.Bytes())}
}

// SOAP puts a question by SOAP. Client and service are paths of identifiers, as
// in "DEV/GOV/1/portal". With attachment > 0 one of so many bytes follows.
func SOAP(addr, client, provider string, attachment int64) Request {
	const placeholder = "000000000000" // IDDigits
	names := func(path string) string {
		var b strings.Builder
		for i, v := range strings.Split(path, "/") {
			name := []string{"xRoadInstance", "memberClass", "memberCode", "subsystemCode", "serviceCode"}[i]
			fmt.Fprintf(&b, "<id:%s>%s</id:%[1]s>", name, v)
		}
		return b.String()
	}
	code := provider[strings.LastIndexByte(provider, '/')+1:]
	envelope := `<?xml version="1.0" encoding="UTF-8"?>
<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xro="http://x-road.eu/xsd/xroad.xsd" xmlns:id="http://x-road.eu/xsd/identifiers">
<soap:Header><xro:client id:objectType="SUBSYSTEM">` + names(client) + `</xro:client><xro:service id:objectType="SERVICE">` + names(provider) + `</xro:service>` +
		`<xro:id>` + SOAPID + placeholder + `</xro:id><xro:protocolVersion>4.0</xro:protocolVersion></soap:Header>
<soap:Body><b:` + code + ` xmlns:b="urn:bench"><code>1</code></b:` + code + `></soap:Body>
</soap:Envelope>
`
	q := Request{Addr: addr, Contains: []byte(service.SOAPAnswer)}
	kind, before, length := "text/xml; charset=UTF-8", "", int64(0)
	if attachment > 0 {
		c := service.NewContent(attachment)
		const boundary = "PART"
		kind = `multipart/related; type="text/xml"; boundary="` + boundary + `"`
		before = "--" + boundary + "\r\nContent-Type: text/xml; charset=UTF-8\r\n\r\n"
		envelope += "\r\n--" + boundary + "\r\nContent-Type: application/octet-stream\r\nContent-ID: <data>\r\n\r\n"
		q.Upload, q.Tail = &c, []byte("\r\n--"+boundary+"--\r\n")
		length = attachment + int64(len(q.Tail))
	}
	length += int64(len(before) + len(envelope))
	q.Head = fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: %s\r\nSOAPAction: \"\"\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s%s", addr, kind, length, before, envelope)
	q.IDAt = strings.Index(string(q.Head), SOAPID) + len(SOAPID)
	return q
}

// SOAPID is what the ids of SOAP messages begin with.
const SOAPID = "bench-message-"
