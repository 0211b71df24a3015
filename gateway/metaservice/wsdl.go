// SPDX-License-Identifier: Apache-2.0

package metaservice

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/google/uuid"

	"kontor/gateway"
	"kontor/gateway/description"
	"kontor/gateway/fault"
	"kontor/gateway/serverconf"
	"kontor/registry/id"
)

// endpointAddress stands where the address of a service was: consumers reach it
// through their own security server only (X-Road: Service Metadata Protocol,
// section 4).
const endpointAddress = "http://example.org/xroad-endpoint"

// serveWSDL sends the WSDL document of a service as an attachment.
func (d documents) serveWSDL(w http.ResponseWriter, r *http.Request, c *gateway.Call) error {
	code, version, err := wsdlQuestion(c.Request.Raw)
	if err != nil {
		return fault.Wrap(fault.InvalidRequest, err, "The request is malformed: %v", err)
	}
	if strings.TrimSpace(code) == "" {
		return fault.New(fault.InvalidRequest, "Missing serviceCode in message body")
	}
	owner := c.Request.Service.Owner()
	name, err := id.NewService(owner, code)
	if err == nil && version != nil {
		name, err = id.NewServiceVersion(owner, code, *version)
	}
	if err != nil {
		return fault.Wrap(fault.InvalidRequest, err, "Malformed name of a service: %v", err)
	}
	s, ok := c.Conf.Service(name)
	switch {
	case ok && s.Type != serverconf.WSDL:
		return fault.New(fault.ServiceType, "Service is a REST service and does not have a WSDL")
	case !ok, s.Description.URL == "" && s.Description.File == "":
		return fault.New(fault.UnknownService, "Could not find wsdl URL for service %s", name.LogString())
	}
	document, done, err := d.fetch(r.Context(), c, s)
	if err != nil {
		return err
	}
	defer done()
	content, err := d.rewrite(r.Context(), document.Content, hideAddresses)
	if err != nil {
		return fault.Wrap(fault.InternalError, err, "The description of service %s is not a WSDL document that can be passed on: %v", name.LogString(), err)
	}
	return writeWSDL(w, c, code, version, content)
}

// wsdlQuestion reads the body of an envelope that was found proper: the service
// whose WSDL is asked for.
func wsdlQuestion(envelope []byte) (code string, version *string, err error) {
	var q struct {
		Body struct {
			Question struct {
				Code    string  `xml:"http://x-road.eu/xsd/xroad.xsd serviceCode"`
				Version *string `xml:"http://x-road.eu/xsd/xroad.xsd serviceVersion"`
			} `xml:",any"`
		} `xml:"http://schemas.xmlsoap.org/soap/envelope/ Body"`
	}
	err = xml.Unmarshal(bytes.TrimPrefix(envelope, []byte("\ufeff")), &q)
	return q.Body.Question.Code, q.Body.Question.Version, err
}

// writeWSDL writes the answer: the request's header with the question as the
// body, and the document.
func writeWSDL(w http.ResponseWriter, c *gateway.Call, code string, version *string, document []byte) error {
	var body bytes.Buffer
	body.WriteString(`<xroad:getWsdlResponse xmlns:xroad="` + nsXRoad + `"><xroad:serviceCode>`)
	_ = xml.EscapeText(&body, []byte(code)) // to memory
	body.WriteString("</xroad:serviceCode>")
	if version != nil {
		body.WriteString("<xroad:serviceVersion>")
		_ = xml.EscapeText(&body, []byte(*version))
		body.WriteString("</xroad:serviceVersion>")
	}
	body.WriteString("</xroad:getWsdlResponse>")

	parts := multipart.NewWriter(w)
	w.Header().Set("Content-Type", `multipart/related; type="text/xml"; charset=UTF-8; boundary=`+parts.Boundary())
	for _, p := range []struct {
		header  textproto.MIMEHeader
		content []byte
	}{
		{textproto.MIMEHeader{"Content-Type": {typeXML}}, c.Request.SOAP.Envelope.WithBody(body.Bytes())},
		{textproto.MIMEHeader{"Content-Type": {"text/xml"}, "Content-Transfer-Encoding": {"binary"},
			"Content-ID": {"<wsdl=" + uuid.NewString() + "@x-road.eu>"}}, document},
	} {
		part, err := parts.CreatePart(p.header)
		if err == nil {
			_, err = part.Write(p.content)
		}
		if err != nil {
			return err
		}
	}
	return parts.Close()
}

// soapNamespaces are those of the elements named address that hold the address
// of a service: the bindings of SOAP 1.1 and 1.2 and of HTTP.
var soapNamespaces = map[string]bool{
	"http://schemas.xmlsoap.org/wsdl/soap/":   true,
	"http://schemas.xmlsoap.org/wsdl/soap12/": true,
	"http://schemas.xmlsoap.org/wsdl/http/":   true,
}

// hideAddresses replaces the address of each service in a WSDL document.
// Nothing else in it changes, but that another encoding becomes UTF-8. A document
// type declaration is refused.
func hideAddresses(b []byte) ([]byte, error) {
	b, err := description.ToUTF8(b)
	if err != nil {
		return nil, err
	}
	var edits []edit
	dec := xml.NewDecoder(bytes.NewReader(b))
	for depth, roots := 0, 0; ; {
		from := int(dec.InputOffset())
		t, err := dec.Token()
		if err == io.EOF && roots == 1 {
			return apply(b, edits), nil
		}
		if err != nil {
			return nil, fmt.Errorf("malformed XML: %w", err)
		}
		switch t := t.(type) {
		case xml.Directive:
			return nil, errors.New("it has a document type declaration")
		case xml.StartElement:
			if depth == 0 {
				roots++
			}
			depth++
			if t.Name.Local == "address" && soapNamespaces[t.Name.Space] {
				tag := b[from:int(dec.InputOffset())]
				if at, to := attribute(tag, "location"); to > 0 {
					edits = append(edits, edit{from + at, from + to, endpointAddress})
				}
			}
		case xml.EndElement:
			depth--
		}
	}
}

// attribute finds the value of an attribute in a well-formed start tag; to is 0
// if the tag has none of that name.
func attribute(tag []byte, name string) (from, to int) {
	const space = " \t\r\n"
	at := bytes.IndexAny(tag, space)
	for at >= 0 {
		rest := bytes.TrimLeft(tag[at:], space)
		equals := bytes.IndexByte(rest, '=')
		if equals < 0 {
			return 0, 0
		}
		has := string(bytes.TrimRight(rest[:equals], space))
		value := bytes.TrimLeft(rest[equals+1:], space)
		from = len(tag) - len(value) + 1
		length := -1
		if len(value) > 0 {
			length = bytes.IndexByte(value[1:], value[0])
		}
		if length < 0 {
			return 0, 0
		}
		if has == name {
			return from, from + length
		}
		at = from + length + 1
	}
	return 0, 0
}
