// SPDX-License-Identifier: Apache-2.0

package description

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
)

// Namespaces of WSDL 1.1 (W3C Note, 15 March 2001) and of its bindings to SOAP.
const (
	nsWSDL   = "http://schemas.xmlsoap.org/wsdl/"
	nsSOAP   = "http://schemas.xmlsoap.org/wsdl/soap/"
	nsSOAP12 = "http://schemas.xmlsoap.org/wsdl/soap12/"
	overHTTP = "http://schemas.xmlsoap.org/soap/http"
)

// ReadWSDL reads a WSDL 1.1 document, in an encoding that ToUTF8 knows. Each operation of a binding to
// SOAP over HTTP is a service; xrd:version in the binding's operation is its
// version, xrd:title in the documentation of the port type's operation its
// title. If two ports offer an operation, that of SOAP 1.1 counts, else the
// first.
//
// Imported documents are not read. Schemas may be elsewhere, for they name no
// services; bindings may not.
//
// Errors: ErrDocument.
func ReadWSDL(b []byte) (*Document, error) {
	if len(b) > MaxSize {
		return nil, refuse("it is larger than %d bytes", MaxSize)
	}
	b, err := ToUTF8(b)
	if err != nil {
		return nil, err
	}
	root, err := parseXML(b)
	if err != nil {
		return nil, err
	}
	if root.name != (xml.Name{Space: nsWSDL, Local: "definitions"}) {
		if root.name.Local == "description" {
			return nil, refuse("it is a WSDL 2.0 document; X-Road knows WSDL 1.1")
		}
		return nil, refuse("it is no WSDL: its document element is %.100q", root.name.Local)
	}
	w := &wsdl{root: root, target: root.attr("targetNamespace"), seen: map[string]bool{},
		bindings: root.named("binding"), portTypes: root.named("portType"), titles: map[string]map[string]string{}}
	d := &Document{Title: root.attr("name")}
	var ports []*node
	for _, service := range root.all(nsWSDL, "service") {
		ports = append(ports, service.all(nsWSDL, "port")...)
	}
	if len(ports) > maxPorts {
		return nil, refuse("it has more than %d ports", maxPorts)
	}
	for _, soap := range []string{nsSOAP, nsSOAP12} {
		for _, port := range ports {
			if err := w.port(d, port, soap); err != nil {
				return nil, err
			}
		}
	}
	if len(d.Services) == 0 {
		return nil, refuse("it has no service with operations of SOAP over HTTP%s", w.elsewhere())
	}
	return d, nil
}

// maxPorts bounds the ports of a document; usual are one and three.
const maxPorts = 200

// wsdl reads a document's definitions.
type wsdl struct {
	root                *node
	target              string // namespace
	bindings, portTypes map[string]*node
	titles              map[string]map[string]string // of port types, by operation
	seen                map[string]bool              // services
}

func (w *wsdl) elsewhere() string {
	if w.root.child(nsWSDL, "import") != nil {
		return "; it imports other documents, which are not read: put everything into one document"
	}
	return ""
}

// port adds the operations of a port, if it is one of that version of SOAP.
func (w *wsdl) port(d *Document, port *node, soap string) error {
	binding, err := w.find(w.bindings, port, "binding")
	if err != nil {
		return err
	}
	how := binding.child(soap, "binding")
	if how == nil || how.attr("transport") != overHTTP {
		return nil
	}
	address := ""
	if a := port.child(soap, "address"); a != nil {
		if address, err = resolve(nil, a.attr("location")); err != nil {
			return refuse("port %.100q: its address is no URL", port.attr("name"))
		}
	}
	operations := binding.all(nsWSDL, "operation")
	if len(d.Services)+len(operations) > 2*MaxServices {
		return refuse("it has more than %d operations", MaxServices)
	}
	titles := w.titlesOf(binding)
	here := map[string]bool{}
	for _, o := range operations {
		s := Service{Code: o.attr("name"), URL: address}
		s.Title = titles[s.Code]
		if v := o.child("", "version"); v != nil {
			s.Version = strings.TrimSpace(string(v.text))
		}
		name := s.Code + "/" + s.Version
		switch {
		case s.Code == "":
			return refuse("binding %.100q has an operation without a name", binding.attr("name"))
		case here[name]:
			return refuse("binding %.100q has two operations %.100q of one version", binding.attr("name"), s.Code)
		case w.seen[name]:
			d.warn("operation %.100s at port %.100s is not taken: another port offers it", s.Code, port.attr("name"))
		case len(d.Services) == MaxServices:
			return refuse("it has more than %d operations", MaxServices)
		default:
			d.Services = append(d.Services, s)
		}
		here[name], w.seen[name] = true, true
	}
	return nil
}

// titlesOf returns the titles of the operations of a binding's port type.
func (w *wsdl) titlesOf(binding *node) map[string]string {
	t, err := w.find(w.portTypes, binding, "type")
	if err != nil {
		return nil // titles are for people; the port type may be imported
	}
	titles := w.titles[t.attr("name")]
	if titles != nil {
		return titles
	}
	titles = map[string]string{}
	for _, o := range t.all(nsWSDL, "operation") {
		if about := o.child(nsWSDL, "documentation"); about != nil {
			if title := about.child("", "title"); title != nil {
				titles[o.attr("name")] = strings.TrimSpace(string(title.text))
			}
		}
	}
	w.titles[t.attr("name")] = titles
	return titles
}

// find returns the definition that an attribute of n names.
func (w *wsdl) find(among map[string]*node, n *node, attribute string) (*node, error) {
	name := n.attr(attribute)
	prefix, local, qualified := strings.Cut(name, ":")
	if !qualified {
		prefix, local = "", name
	}
	if space, known := n.scope.resolve(prefix); known && space == w.target && among[local] != nil {
		return among[local], nil
	}
	return nil, refuse("%s %.100q: there is no %s %.100q%s", n.name.Local, n.attr("name"), attribute, name, w.elsewhere())
}

// node is an element.
type node struct {
	name     xml.Name
	attrs    []xml.Attr
	scope    *scope
	children []*node
	text     []byte // its own character data before the first child
}

func (n *node) attr(name string) string {
	for _, a := range n.attrs {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// all returns the children of that name; an empty space is any.
func (n *node) all(space, local string) []*node {
	var found []*node
	for _, c := range n.children {
		if c.name.Local == local && (space == "" || c.name.Space == space) {
			found = append(found, c)
		}
	}
	return found
}

// named returns the children of that kind by their names.
func (n *node) named(kind string) map[string]*node {
	m := map[string]*node{}
	for _, c := range n.all(nsWSDL, kind) {
		m[c.attr("name")] = c
	}
	return m
}

func (n *node) child(space, local string) *node {
	if all := n.all(space, local); len(all) > 0 {
		return all[0]
	}
	return nil
}

// scope holds the prefixes that an element binds.
type scope struct {
	up       *scope
	prefixes map[string]string
}

func (s *scope) resolve(prefix string) (string, bool) {
	for ; s != nil; s = s.up {
		if space, ok := s.prefixes[prefix]; ok {
			return space, true
		}
	}
	return "", prefix == ""
}

// bind returns the scope of an element.
func (s *scope) bind(attrs []xml.Attr) *scope {
	var own map[string]string
	for _, a := range attrs {
		prefix := a.Name.Local
		switch {
		case a.Name.Space == "xmlns":
		case a.Name.Space == "" && a.Name.Local == "xmlns":
			prefix = ""
		default:
			continue
		}
		if own == nil {
			own = map[string]string{}
		}
		own[prefix] = a.Value
	}
	if own == nil {
		return s
	}
	return &scope{s, own}
}

// parseXML reads a document without DOCTYPE, and hence without entities but the
// five. What is in <types> is passed over.
func parseXML(b []byte) (*node, error) {
	dec := xml.NewDecoder(bytes.NewReader(b))
	var root *node
	var open []*node
	for left := maxNodes; ; left-- {
		t, err := dec.Token()
		switch {
		case errors.Is(err, io.EOF) && root == nil:
			return nil, refuse("it is empty")
		case errors.Is(err, io.EOF):
			return root, nil
		case err != nil:
			return nil, refuse("%w", err)
		case left == 0:
			return nil, refuse("it has more than %d elements and texts", maxNodes)
		}
		switch t := t.(type) {
		case xml.Directive:
			return nil, refuse("line %d: document type declarations are not allowed", line(dec))
		case xml.StartElement:
			n := &node{name: t.Name, attrs: t.Attr}
			switch {
			case root == nil:
				root, n.scope = n, (*scope)(nil).bind(t.Attr)
			case len(open) == 0:
				return nil, refuse("line %d: a second document element", line(dec))
			case len(open) == maxDepth:
				return nil, refuse("it is nested more than %d levels deep", maxDepth)
			default:
				up := open[len(open)-1]
				n.scope = up.scope.bind(t.Attr)
				up.children = append(up.children, n)
			}
			if err := twice(t.Attr); err != nil {
				return nil, err
			}
			open = append(open, n)
		case xml.EndElement:
			if n := open[len(open)-1]; n.name == (xml.Name{Space: nsWSDL, Local: "types"}) {
				n.children = nil
			}
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 && len(open[len(open)-1].children) == 0 {
				open[len(open)-1].text = append(open[len(open)-1].text, t...)
			} else if len(open) == 0 && len(bytes.TrimSpace(t)) > 0 {
				return nil, refuse("line %d: text outside the document element", line(dec))
			}
		}
	}
}

func twice(attrs []xml.Attr) error {
	seen := make(map[xml.Name]bool, len(attrs))
	for _, a := range attrs {
		if seen[a.Name] {
			return refuse("attribute %.100q stands twice in one element", a.Name.Local)
		}
		seen[a.Name] = true
	}
	return nil
}

func line(dec *xml.Decoder) int {
	n, _ := dec.InputPos()
	return n
}
