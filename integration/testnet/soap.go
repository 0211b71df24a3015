// SPDX-License-Identifier: Apache-2.0

package testnet

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"

	"kontor/registry/id"
)

// Envelope is a SOAP message that can be wrong wherever a test wants it to be.
type Envelope struct {
	Client, Service, ID string
	Version             string // of the protocol, "4.0" if empty
	Extra               string // XML at the end of the header
	Body                string // the content of the body; empty: an element named after the service
}

// String returns the document, as clients commonly write it.
func (e Envelope) String() string {
	part := func(names []string, values ...string) string {
		var b strings.Builder
		for i, v := range values {
			if v != "" {
				fmt.Fprintf(&b, "<id:%s>%s</id:%s>", names[i], v, names[i])
			}
		}
		return b.String()
	}
	client := must(id.ParseClient(e.Client))
	service := must(id.ParseService(e.Service))
	kind := "SUBSYSTEM"
	if client.IsMember() {
		kind = "MEMBER"
	}
	names := []string{"xRoadInstance", "memberClass", "memberCode", "subsystemCode", "serviceCode"}
	version, body := e.Version, e.Body
	if version == "" {
		version = "4.0"
	}
	if body == "" {
		body = fmt.Sprintf(`<p:%s xmlns:p="http://example.org/population"><code>38001010001</code></p:%[1]s>`, service.Code())
	}
	m, o := client.Member(), service.Owner().Member()
	return `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xro="http://x-road.eu/xsd/xroad.xsd" xmlns:id="http://x-road.eu/xsd/identifiers">` + "\n" +
		"  <soapenv:Header>\n" +
		`    <xro:client id:objectType="` + kind + `">` + part(names, m.Instance(), m.Class(), m.Code(), client.Subsystem()) + "</xro:client>\n" +
		`    <xro:service id:objectType="SERVICE">` + part(names, o.Instance(), o.Class(), o.Code(), service.Owner().Subsystem(), service.Code()) + "</xro:service>\n" +
		"    <xro:userId>EE38001010001</xro:userId>\n" +
		"    <xro:id>" + e.ID + "</xro:id>\n" +
		"    <xro:protocolVersion>" + version + "</xro:protocolVersion>" + e.Extra + "\n" +
		"  </soapenv:Header>\n" +
		"  <soapenv:Body>" + body + "</soapenv:Body>\n" +
		"</soapenv:Envelope>\n"
}

// Part is one part of a multipart message.
type Part struct {
	Header  [][2]string
	Content []byte
}

// Related makes a multipart/related message and its content type; params follow
// the boundary.
func Related(params string, parts ...Part) (contentType string, content []byte) {
	const boundary = "MIME_boundary-1"
	var b bytes.Buffer
	for _, p := range parts {
		b.WriteString("\r\n--" + boundary + "\r\n")
		for _, h := range p.Header {
			b.WriteString(h[0] + ": " + h[1] + "\r\n")
		}
		b.WriteString("\r\n")
		b.Write(p.Content)
	}
	b.WriteString("\r\n--" + boundary + "--\r\n")
	return `multipart/related; boundary="` + boundary + `"` + params, b.Bytes()
}

// ReadRelated reads a multipart message with the reader of the standard library.
func ReadRelated(boundary string, content []byte) (parts []Part, header []textproto.MIMEHeader, err error) {
	r := multipart.NewReader(bytes.NewReader(content), boundary)
	for {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return parts, header, nil
		}
		if err != nil {
			return nil, nil, err
		}
		b, err := io.ReadAll(p)
		if err != nil {
			return nil, nil, err
		}
		parts, header = append(parts, Part{Content: b}), append(header, p.Header)
	}
}

// SOAP sends a SOAP message to gateway A. header holds "Name: value" lines. The
// code and the text of a fault are in the result; SOAP has no status for them.
func (n *Network) SOAP(contentType string, content io.Reader, header ...string) *Result {
	n.tb.Helper()
	r := n.NewRequest("", http.MethodPost, "/", content, header...)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	res := n.Do(&http.Transport{DisableCompression: true, DisableKeepAlives: true}, r)
	if res.Err == nil {
		res.readFault()
	}
	return res
}

// readFault looks for a SOAP fault.
func (r *Result) readFault() {
	var doc struct {
		XMLName xml.Name
		Fault   *struct {
			Code   string `xml:"faultcode"`
			Text   string `xml:"faultstring"`
			Detail string `xml:"detail>faultDetail"`
		} `xml:"http://schemas.xmlsoap.org/soap/envelope/ Body>Fault"`
	}
	if xml.Unmarshal(r.Body, &doc) == nil && doc.Fault != nil {
		r.Code, r.Fault.Type, r.Fault.Message, r.Fault.Detail = doc.Fault.Code, doc.Fault.Code, doc.Fault.Text, doc.Fault.Detail
	}
}
