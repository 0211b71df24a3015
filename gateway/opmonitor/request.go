// SPDX-License-Identifier: Apache-2.0

package opmonitor

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"kontor/registry/id"
)

// Namespaces of the services.
const (
	nsSOAP        = "http://schemas.xmlsoap.org/soap/envelope/"
	nsIdentifiers = "http://x-road.eu/xsd/identifiers"
	nsOperational = "http://x-road.eu/xsd/op-monitoring.xsd"
	nsMetrics     = "http://x-road.eu/xsd/monitoring"
)

// Bounds of requests to the services, in bytes and in names.
const (
	maxRequest = 256 << 10
	maxNames   = 1000
)

// ErrRequest: the body of a request is not what its service takes.
var ErrRequest = errors.New("malformed request")

// element is one of a request's body.
type element struct {
	name     xml.Name
	kind     string // attribute objectType
	text     string
	children []*element
}

// readBody returns the element in the body of an envelope that
// [kontor/gateway/message.ReadEnvelope] has read: it is well formed and has no
// document type.
func readBody(envelope []byte) (*element, error) {
	if len(envelope) > maxRequest {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", ErrRequest, maxRequest)
	}
	dec := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(envelope, []byte("\ufeff"))))
	dec.CharsetReader = func(string, io.Reader) (io.Reader, error) { return nil, errors.New("it is not in UTF-8") }
	root := &element{}
	open := []*element{root}
	for {
		t, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRequest, err)
		}
		top := open[len(open)-1]
		switch t := t.(type) {
		case xml.StartElement:
			e := &element{name: t.Name}
			for _, a := range t.Attr {
				if a.Name == (xml.Name{Space: nsIdentifiers, Local: "objectType"}) {
					e.kind = a.Value
				}
			}
			top.children = append(top.children, e)
			open = append(open, e)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			top.text += string(t)
		case xml.Directive:
			return nil, fmt.Errorf("%w: it has a document type", ErrRequest)
		}
	}
	for _, envelope := range root.children {
		for _, part := range envelope.children {
			if part.name == (xml.Name{Space: nsSOAP, Local: "Body"}) && len(part.children) == 1 {
				return part.children[0], nil
			}
		}
	}
	return nil, fmt.Errorf("%w: it has no body with one element", ErrRequest)
}

// is tells whether e has that name.
func (e *element) is(space, local string) bool {
	return e.name == xml.Name{Space: space, Local: local}
}

// take returns the children of e by the names of a schema's sequence, each of
// which occurs at most once. Any other child is an error.
func (e *element) take(space string, names ...string) (map[string]*element, error) {
	found := map[string]*element{}
	at := 0
	for _, c := range e.children {
		i := slices.Index(names[at:], c.name.Local)
		if c.name.Space != space || i < 0 {
			return nil, fmt.Errorf("%w: %s is not expected in %s", ErrRequest, printable(c.name.Local), e.name.Local)
		}
		found[c.name.Local] = c
		at += i + 1
	}
	return found, nil
}

// long reads a non-negative xs:long.
func (e *element) long(what string) (int64, error) {
	if e == nil {
		return 0, fmt.Errorf("%w: %s is missing", ErrRequest, what)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(e.text), 10, 64)
	switch {
	case err != nil || len(e.children) > 0:
		return 0, fmt.Errorf("%w: %s is not a number", ErrRequest, what)
	case n < 0:
		return 0, fmt.Errorf("%w: %s is a negative number", ErrRequest, what)
	}
	return n, nil
}

// client reads an identifier of a member or subsystem; e may be nil.
func (e *element) client() (id.Client, error) {
	if e == nil {
		return id.Client{}, nil
	}
	parts, err := e.take(nsIdentifiers, "xRoadInstance", "memberClass", "memberCode", "subsystemCode")
	if err != nil {
		return id.Client{}, err
	}
	value := func(name string) string {
		if parts[name] == nil {
			return ""
		}
		return parts[name].text
	}
	m, err := id.NewMember(value("xRoadInstance"), value("memberClass"), value("memberCode"))
	if err != nil {
		return id.Client{}, fmt.Errorf("%w: client: %w", ErrRequest, err)
	}
	sub := parts["subsystemCode"]
	switch {
	case e.kind == "MEMBER" && sub == nil:
		return m.Client(), nil
	case e.kind == "SUBSYSTEM" && sub != nil:
		c, err := id.NewClient(m, sub.text)
		if err != nil {
			return c, fmt.Errorf("%w: client: %w", ErrRequest, err)
		}
		return c, nil
	}
	return id.Client{}, fmt.Errorf("%w: client is neither a MEMBER nor a SUBSYSTEM with its code", ErrRequest)
}

// outputFields reads the names in an outputSpec; e may be nil.
func (e *element) outputFields(space string) ([]string, error) {
	if e == nil {
		return nil, nil
	}
	if len(e.children) > maxNames {
		return nil, fmt.Errorf("%w: more than %d output fields", ErrRequest, maxNames)
	}
	var names []string
	for _, c := range e.children {
		if !c.is(space, "outputField") || len(c.children) > 0 {
			return nil, fmt.Errorf("%w: %s is not expected in outputSpec", ErrRequest, printable(c.name.Local))
		}
		names = append(names, c.text)
	}
	return names, nil
}

// dataRequest is a request for operational data.
type dataRequest struct {
	from, to int64 // s since 1970
	provider id.Client
	fields   []string
}

// readDataRequest reads the body of getSecurityServerOperationalData.
func readDataRequest(envelope []byte) (*dataRequest, error) {
	body, err := readBody(envelope)
	if err != nil {
		return nil, err
	}
	if !body.is(nsOperational, "getSecurityServerOperationalData") {
		return nil, fmt.Errorf("%w: the element in the body is not getSecurityServerOperationalData of %s", ErrRequest, nsOperational)
	}
	parts, err := body.take(nsOperational, "searchCriteria", "outputSpec")
	if err != nil {
		return nil, err
	}
	criteria := parts["searchCriteria"]
	if criteria == nil {
		return nil, fmt.Errorf("%w: searchCriteria is missing", ErrRequest)
	}
	c, err := criteria.take(nsOperational, "recordsFrom", "recordsTo", "client")
	if err != nil {
		return nil, err
	}
	r := &dataRequest{}
	if r.from, err = c["recordsFrom"].long("recordsFrom"); err != nil {
		return nil, err
	}
	if r.to, err = c["recordsTo"].long("recordsTo"); err != nil {
		return nil, err
	}
	if r.to < r.from {
		return nil, fmt.Errorf("%w: recordsTo is earlier than recordsFrom", ErrRequest)
	}
	if r.provider, err = c["client"].client(); err != nil {
		return nil, err
	}
	if r.fields, err = parts["outputSpec"].outputFields(nsOperational); err != nil {
		return nil, err
	}
	for _, name := range r.fields {
		if !Known(name) {
			return nil, fmt.Errorf("%w: unknown output field %s", ErrRequest, printable(name))
		}
	}
	return r, nil
}

// readHealthRequest reads the body of getSecurityServerHealthData, and returns
// the provider that is asked for; zero means all.
func readHealthRequest(envelope []byte) (id.Client, error) {
	body, err := readBody(envelope)
	if err != nil {
		return id.Client{}, err
	}
	if !body.is(nsOperational, "getSecurityServerHealthData") {
		return id.Client{}, fmt.Errorf("%w: the element in the body is not getSecurityServerHealthData of %s", ErrRequest, nsOperational)
	}
	parts, err := body.take(nsOperational, "filterCriteria")
	if err != nil || parts["filterCriteria"] == nil {
		return id.Client{}, err
	}
	c, err := parts["filterCriteria"].take(nsOperational, "client")
	if err != nil {
		return id.Client{}, err
	}
	return c["client"].client()
}

// readMetricsRequest reads the body of getSecurityServerMetrics, and returns the
// names of the metrics that are asked for; none means all.
func readMetricsRequest(envelope []byte) ([]string, error) {
	body, err := readBody(envelope)
	if err != nil {
		return nil, err
	}
	if !body.is(nsMetrics, "getSecurityServerMetrics") {
		return nil, fmt.Errorf("%w: the element in the body is not getSecurityServerMetrics of %s", ErrRequest, nsMetrics)
	}
	parts, err := body.take(nsMetrics, "outputSpec")
	if err != nil {
		return nil, err
	}
	return parts["outputSpec"].outputFields(nsMetrics)
}

// printable is a foreign name as an error may show it.
func printable(s string) string { return strconv.Quote(cut(s, 60)) }
