// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"

	"kontor/gateway/message"
	"kontor/gateway/serverconf"
	"kontor/registry/id"
)

// Namespaces of services that security servers themselves provide.
var ownNamespaces = map[string]string{
	serverconf.GetOperationalData: "http://x-road.eu/xsd/op-monitoring.xsd",
	serverconf.GetHealthData:      "http://x-road.eu/xsd/op-monitoring.xsd",
	serverconf.GetMetrics:         "http://x-road.eu/xsd/monitoring",
}

const nsXRoad = "http://x-road.eu/xsd/xroad.xsd"

// soapRequest makes a SOAP request: of an envelope as it is, or around an
// element.
func (o *call) soapRequest(ctx context.Context, client id.Client, body []byte) (*http.Request, error) {
	if o.method != "" && !strings.EqualFold(o.method, http.MethodPost) {
		return nil, usageError{fmt.Errorf("a SOAP message is sent by POST, not by %s", o.method)}
	}
	if e, err := message.ReadEnvelope(body); err == nil && !e.Fault {
		o.messageID = e.ID
	} else {
		if body, err = o.envelope(client, body); err != nil {
			return nil, err
		}
		if _, err := message.ReadEnvelope(body); err != nil {
			return nil, usageError{fmt.Errorf("-d does not make a SOAP message: %w; give one element, named after the service, with its namespaces", err)}
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.gateway+"/", bytes.NewReader(body))
	if err != nil {
		return nil, usageError{err}
	}
	req.Header.Set("Content-Type", "text/xml; charset=UTF-8")
	req.Header.Set("SOAPAction", `""`)
	req.Header["User-Agent"] = nil
	if len(o.attached) > 0 {
		if err := o.attachTo(req, body); err != nil {
			return nil, err
		}
	}
	return req, o.addHeaders(req.Header)
}

// envelope puts an element, or an empty one, into an envelope.
func (o *call) envelope(client id.Client, element []byte) ([]byte, error) {
	parts := strings.Split(o.service, "/")
	if len(parts) != 4 && len(parts) != 5 {
		return nil, usageError{fmt.Errorf("%q is no SOAP service; give instance/class/member[/subsystem]/service", o.service)}
	}
	code := parts[len(parts)-1]
	member, err := id.NewMember(parts[0], parts[1], parts[2])
	owner := member.Client()
	if err == nil && len(parts) == 5 {
		owner, err = id.NewClient(member, parts[3])
	}
	if err == nil {
		_, err = id.NewService(owner, code)
	}
	if err != nil {
		return nil, usageError{err}
	}
	if len(bytes.TrimSpace(element)) == 0 {
		space := ownNamespaces[code]
		if space == "" {
			space = nsXRoad
		}
		element = fmt.Appendf(nil, `<q:%s xmlns:q="%s"/>`, code, space)
	}
	var b bytes.Buffer
	leaf := func(name, value string) {
		if value != "" {
			b.WriteString("<" + name + ">")
			_ = xml.EscapeText(&b, []byte(value)) // a buffer takes everything
			b.WriteString("</" + name + ">")
		}
	}
	identify := func(name, kind string, m id.Member) {
		fmt.Fprintf(&b, `<xro:%s id:objectType="%s">`, name, kind)
		leaf("id:xRoadInstance", m.Instance())
		leaf("id:memberClass", m.Class())
		leaf("id:memberCode", m.Code())
	}
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>
<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xro="` + nsXRoad + `" xmlns:id="http://x-road.eu/xsd/identifiers">
<soap:Header>`)
	kind := "SUBSYSTEM"
	if client.IsMember() {
		kind = "MEMBER"
	}
	identify("client", kind, client.Member())
	leaf("id:subsystemCode", client.Subsystem())
	b.WriteString("</xro:client>")
	identify("service", "SERVICE", member)
	leaf("id:subsystemCode", owner.Subsystem())
	leaf("id:serviceCode", code)
	leaf("id:serviceVersion", o.version)
	b.WriteString("</xro:service>")
	if o.server != "" {
		server, err := id.ParseSecurityServer(o.server)
		if err != nil {
			return nil, usageError{fmt.Errorf("--server: %w", err)}
		}
		identify("securityServer", "SERVER", server.Owner())
		leaf("id:serverCode", server.Code())
		b.WriteString("</xro:securityServer>")
	}
	leaf("xro:userId", o.user)
	leaf("xro:id", o.messageID)
	leaf("xro:protocolVersion", "4.0")
	b.WriteString("</soap:Header>\n<soap:Body>")
	b.Write(element)
	b.WriteString("</soap:Body>\n</soap:Envelope>\n")
	return b.Bytes(), nil
}
