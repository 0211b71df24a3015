// SPDX-License-Identifier: Apache-2.0

package asic

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"kontor/registry/id"
)

// head is what a message says of itself.
type head struct {
	rest      bool
	response  bool
	client    id.Client
	service   id.Service
	id        string // x-road-id or the SOAP header id
	requestID string // x-road-request-id; none in SOAP
}

// sender is who must have signed the message: the client a request, the
// service's owner a response.
func (h *head) sender() id.Client {
	if h.response {
		return h.service.Owner()
	}
	return h.client
}

var errMessage = errors.New("malformed message")

// readHead reads a SOAP message or a REST head.
func readHead(message []byte) (*head, error) {
	const bom = "\uFEFF"
	if m := bytes.TrimLeft(bytes.TrimPrefix(message, []byte(bom)), xmlSpace); len(m) > 0 && m[0] == '<' {
		return readSOAP(m)
	}
	return readREST(message)
}

// readREST reads a head of the REST protocol as it is logged: a request or
// status line in two lines, then the headers (X-Road: Message Protocol for
// REST).
func readREST(message []byte) (*head, error) {
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(message)), "\n")
	if len(lines) < 3 || lines[0] == "" {
		return nil, fmt.Errorf("%w: neither SOAP nor REST", errMessage)
	}
	h := &head{rest: true, response: lines[0][0] >= '1' && lines[0][0] <= '9'}
	var client, service string
	for _, line := range lines[2:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		switch strings.ToLower(name) {
		case "x-road-client":
			client = value // the last one counts
		case "x-road-service":
			service = value
		case "x-road-id":
			h.id = value
		case "x-road-request-id":
			h.requestID = value
		}
	}
	if !h.response {
		path, _, _ := strings.Cut(lines[1], "?")
		p := strings.SplitN(path, "/", 8)
		if len(p) < 7 || p[0] != "" || p[1] != "r1" {
			return nil, fmt.Errorf("%w: request target %.100q", errMessage, lines[1])
		}
		service = strings.Join(p[2:7], "/")
	}
	var err error
	if h.client, err = id.ParseClient(client); err != nil {
		return nil, fmt.Errorf("%w: x-road-client: %w", errMessage, err)
	}
	if h.service, err = id.ParseService(service); err != nil {
		return nil, fmt.Errorf("%w: service: %w", errMessage, err)
	}
	return h, nil
}

const (
	nsSOAP        = "http://schemas.xmlsoap.org/soap/envelope/"
	nsXRoad       = "http://x-road.eu/xsd/xroad.xsd"
	nsIdentifiers = "http://x-road.eu/xsd/identifiers"
)

// soapReader collects what counts of a SOAP message.
type soapReader struct {
	path      []xml.Name
	attrs     map[string]string // objectType of client and service
	texts     map[string][]byte // "client/memberCode" → text
	headers   int
	bodies    int
	bodyNames []string
}

// readSOAP reads the X-Road header of a SOAP message and the name of the
// body's element (X-Road: Message Protocol v4.0).
func readSOAP(message []byte) (*head, error) {
	s := soapReader{attrs: make(map[string]string), texts: make(map[string][]byte)}
	d := xml.NewDecoder(bytes.NewReader(message))
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = s.token(tok)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errMessage, err)
		}
	}
	if s.headers != 1 || s.bodies != 1 || len(s.bodyNames) != 1 {
		return nil, fmt.Errorf("%w: not a SOAP message with one header and one body element", errMessage)
	}
	h := &head{response: strings.HasSuffix(s.bodyNames[0], "Response"), id: string(s.texts["id"])}
	var err error
	if h.client, err = s.client("client", s.attrs["client"]); err != nil {
		return nil, fmt.Errorf("%w: client: %w", errMessage, err)
	}
	if h.service, err = s.service(); err != nil {
		return nil, fmt.Errorf("%w: service: %w", errMessage, err)
	}
	return h, nil
}

// Bounds on SOAP messages. Identifier parts have at most 255 characters.
const (
	maxSOAPDepth = 1000
	maxSOAPField = 4096
)

func (s *soapReader) token(tok xml.Token) error {
	switch tok := tok.(type) {
	case xml.StartElement:
		s.path = append(s.path, tok.Name)
		return s.start(tok)
	case xml.EndElement:
		s.path = s.path[:len(s.path)-1]
	case xml.CharData:
		if key := s.key(); key != "" {
			if s.texts[key] = append(s.texts[key], tok...); len(s.texts[key]) > maxSOAPField {
				return fmt.Errorf("header %s is too long", key)
			}
		} else if len(s.path) == 0 && len(bytes.Trim(tok, xmlSpace)) > 0 {
			return errors.New("text outside the envelope")
		}
	case xml.Directive:
		return errors.New("document type")
	}
	return nil
}

// key names the header field that the current element is: "id", or
// "client/memberCode"; "" if none that counts.
func (s *soapReader) key() string {
	p := s.path
	if len(p) < 3 || len(p) > 4 || p[1] != (xml.Name{Space: nsSOAP, Local: "Header"}) || p[2].Space != nsXRoad {
		return ""
	}
	switch field := p[2].Local; {
	case field == "id" && len(p) == 3:
		return field
	case (field == "client" || field == "service") && len(p) == 4 && p[3].Space == nsIdentifiers:
		return field + "/" + p[3].Local
	}
	return ""
}

func (s *soapReader) start(t xml.StartElement) error {
	switch p := s.path; {
	case len(p) > maxSOAPDepth:
		return errors.New("too deep")
	case len(p) == 1:
		if t.Name != (xml.Name{Space: nsSOAP, Local: "Envelope"}) || s.headers+s.bodies > 0 {
			return errors.New("not one SOAP envelope")
		}
	case len(p) == 2 && t.Name == xml.Name{Space: nsSOAP, Local: "Header"}:
		if s.headers++; s.headers > 1 || s.bodies > 0 {
			return errors.New("header out of place")
		}
	case len(p) == 2 && t.Name == xml.Name{Space: nsSOAP, Local: "Body"}:
		if s.bodies++; s.bodies > 1 {
			return errors.New("two bodies")
		}
	case len(p) == 2:
		return fmt.Errorf("element %.80s in the envelope", t.Name.Local)
	case len(p) == 3 && p[1].Local == "Body":
		if len(s.bodyNames) > 0 {
			return errors.New("two elements in the body")
		}
		s.bodyNames = append(s.bodyNames, t.Name.Local)
	case len(p) == 3 && t.Name.Space == nsXRoad && (t.Name.Local == "client" || t.Name.Local == "service"):
		if _, ok := s.attrs[t.Name.Local]; ok {
			return fmt.Errorf("two headers %s", t.Name.Local)
		}
		s.attrs[t.Name.Local] = ""
		for _, a := range t.Attr {
			if a.Name == (xml.Name{Space: nsIdentifiers, Local: "objectType"}) {
				s.attrs[t.Name.Local] = a.Value
			}
		}
	}
	if key := s.key(); key != "" {
		if _, ok := s.texts[key]; ok {
			return fmt.Errorf("two headers %.80s", key)
		}
		s.texts[key] = nil
	}
	return nil
}

// anyOwner is the object type of a service's owner, which the message does not
// state.
const anyOwner = "\x00owner"

// client builds the client identifier from the parts under field.
func (s *soapReader) client(field, objectType string) (id.Client, error) {
	text := func(part string) string { return string(s.texts[field+"/"+part]) }
	m, err := id.NewMember(text("xRoadInstance"), text("memberClass"), text("memberCode"))
	if err != nil {
		return id.Client{}, err
	}
	_, ok := s.texts[field+"/subsystemCode"]
	switch {
	case objectType == "MEMBER" && !ok, objectType == anyOwner && !ok:
		return m.Client(), nil
	case objectType == "SUBSYSTEM" && ok, objectType == anyOwner && ok:
		return id.NewClient(m, text("subsystemCode"))
	}
	return id.Client{}, fmt.Errorf("object type %.80q", objectType)
}

func (s *soapReader) service() (id.Service, error) {
	if t := s.attrs["service"]; t != "SERVICE" {
		return id.Service{}, fmt.Errorf("object type %.80q", t)
	}
	owner, err := s.client("service", anyOwner)
	if err != nil {
		return id.Service{}, err
	}
	code := string(s.texts["service/serviceCode"])
	if version, ok := s.texts["service/serviceVersion"]; ok {
		return id.NewServiceVersion(owner, code, string(version))
	}
	return id.NewService(owner, code)
}
