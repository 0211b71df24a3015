// SPDX-License-Identifier: Apache-2.0

package request

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const response = "Response"

// Parse reads the SOAP of a management request, strictly. The error is a
// *Fault, ready to be answered.
func Parse(soap []byte) (*Request, error) {
	header, body, err := parseEnvelope(soap)
	if err != nil {
		return nil, err
	}
	if body.is(soapNS, "Fault") {
		return nil, faultf(CodeInvalidBody, "the message is a fault, not a request")
	}
	r, err := parseHeader(header)
	if err != nil {
		return nil, err
	}
	elements, ok := bodies[r.Service]
	if !ok {
		return nil, faultf(CodeInvalidRequest, "unknown service code '%.20s'", r.Service)
	}
	if !body.is(xroadNS, string(r.Service)) {
		return nil, faultf(CodeInconsistent, "the body holds '%.40s', the header names service '%s'", body.name.Local, r.Service)
	}
	rest := body.children
	for _, e := range elements {
		if len(rest) == 0 || !rest[0].is(xroadNS, e.name) {
			if e.optional {
				continue
			}
			return nil, faultf(CodeInvalidRequest, "%s: element %s is missing", r.Service, e.name)
		}
		if err := e.read(r, rest[0]); err != nil {
			return nil, asFault(CodeInvalidRequest, err)
		}
		rest = rest[1:]
	}
	if len(rest) > 0 {
		return nil, faultf(CodeInvalidRequest, "%s: unexpected element '%.40s'", r.Service, rest[0].name.Local)
	}
	return r, nil
}

// asFault gives an error a code unless it has one.
func asFault(code string, err error) error {
	if f := (*Fault)(nil); errors.As(err, &f) {
		return f
	}
	return faultf(code, "%v", err)
}

// parseEnvelope returns the header and the only child of the body. Only a
// fault may lack the header.
func parseEnvelope(soap []byte) (header, body *node, err error) {
	root, err := parseXML(soap)
	if err != nil {
		return nil, nil, faultf(CodeInvalidXML, "malformed XML: %v", err)
	}
	if !root.is(soapNS, "Envelope") {
		return nil, nil, faultf(CodeInvalidSOAP, "the message is not a SOAP 1.1 envelope")
	}
	rest := root.children
	if len(rest) > 0 && rest[0].is(soapNS, "Header") {
		header, rest = rest[0], rest[1:]
	}
	if len(rest) != 1 || !rest[0].is(soapNS, "Body") || len(rest[0].children) != 1 {
		return nil, nil, faultf(CodeInvalidBody, "the envelope must have one body with one element")
	}
	body = rest[0].children[0]
	if header == nil && !body.is(soapNS, "Fault") {
		return nil, nil, faultf(CodeMissingHeader, "the SOAP header is missing")
	}
	return header, body, nil
}

func parseHeader(header *node) (*Request, error) {
	fields := map[xml.Name]*node{}
	for _, n := range header.children {
		if fields[n.name] != nil {
			return nil, faultf(CodeDuplicateHeader, "header field %s occurs twice", n.name.Local)
		}
		fields[n.name] = n
	}
	field := func(name string) (*node, error) {
		if n := fields[xml.Name{Space: xroadNS, Local: name}]; n != nil {
			return n, nil
		}
		return nil, faultf(CodeMissingHeader, "header field %s is missing", name)
	}
	r := new(Request)
	for _, f := range []struct {
		name string
		read func(*node) error
	}{
		{"client", func(n *node) (err error) { r.Sender, err = n.client(); return err }},
		{"service", func(n *node) error {
			provider, code, err := n.service()
			r.Provider, r.Service = provider, Service(code)
			return err
		}},
		{"id", func(n *node) (err error) {
			if r.ID, err = n.content(); err == nil {
				err = checkID(r.ID)
			}
			return err
		}},
		{"protocolVersion", func(n *node) error {
			if v, err := n.content(); err != nil || v != "4" && !strings.HasPrefix(v, "4.") {
				return faultf(CodeProtocolVersion, "protocol version '%.10s' is not 4.0", v)
			}
			return nil
		}},
	} {
		n, err := field(f.name)
		if err != nil {
			return nil, err
		}
		if err := f.read(n); err != nil {
			return nil, asFault(CodeInvalidSOAP, fmt.Errorf("header: %w", err))
		}
	}
	return r, nil
}

// Answer turns the SOAP of a request, which Parse accepted, into the positive
// answer: everything is echoed byte for byte, but the body's element gets its
// response name and the request's number as last child.
func Answer(soap []byte, number uint64) ([]byte, error) {
	_, body, err := parseEnvelope(soap)
	if err != nil {
		return nil, err
	}
	tag := soap[body.start+1 : body.inner] // name, attributes and >
	qname := string(tag[:bytes.IndexAny(tag, " \t\r\n/>")])
	if body.outer == body.end { // <name/>, which no request is
		return nil, faultf(CodeInvalidBody, "the body is empty")
	}
	prefix := qname[:strings.IndexByte(qname, ':')+1]
	var b bytes.Buffer
	b.Grow(len(soap) + 64)
	b.Write(soap[:body.start])
	b.WriteString("<" + qname + response)
	b.Write(tag[len(qname):])
	b.Write(soap[body.inner:body.outer])
	fmt.Fprintf(&b, "<%srequestId>%d</%srequestId>", prefix, number, prefix)
	b.WriteString("</" + qname + response + ">")
	b.Write(soap[body.end:])
	return b.Bytes(), nil
}

// ParseAnswer reads the answer to a request and returns the number that the
// registry gave it; 0 if it was a dry run or the answer has none. A refusal is
// a *Fault.
func ParseAnswer(r *Request, soap []byte) (uint64, error) {
	header, body, err := parseEnvelope(soap)
	if err != nil {
		return 0, err
	}
	if body.is(soapNS, "Fault") {
		return 0, body.fault()
	}
	got, err := parseHeader(header)
	if err != nil {
		return 0, err
	}
	if got.Sender != r.Sender || got.Provider != r.Provider || got.Service != r.Service || got.ID != r.ID ||
		!body.is(xroadNS, string(r.Service)+response) {
		return 0, faultf(CodeInconsistent, "the answer is not to this request")
	}
	for _, n := range body.children {
		if n.is(xroadNS, "requestId") {
			number, err := strconv.ParseUint(strings.TrimSpace(n.text), 10, 63)
			if err != nil {
				return 0, faultf(CodeInvalidBody, "request identifier '%.20s' is not a number", n.text)
			}
			return number, nil
		}
	}
	return 0, nil
}
