// SPDX-License-Identifier: Apache-2.0

package request

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"kontor/registry/id"
)

// Bounds of documents.
const (
	maxDepth = 12
	maxNodes = 256
)

// node is an element with its place in the document.
type node struct {
	name     xml.Name
	attrs    []xml.Attr
	text     string // of an element without children
	children []*node
	// the document from start to inner is the start tag, from outer to end the
	// end tag
	start, inner, outer, end int64
}

// parseXML reads a small document in UTF-8 without document type.
func parseXML(doc []byte) (*node, error) {
	body := bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf"))
	skipped := int64(len(doc) - len(body))
	d := xml.NewDecoder(bytes.NewReader(body))
	var root *node
	var open []*node
	count := 0
	for {
		start := d.InputOffset()
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.Directive:
			return nil, errors.New("document type declarations are not allowed")
		case xml.ProcInst:
			if t.Target != "xml" || start != 0 {
				return nil, errors.New("processing instructions are not allowed")
			}
		case xml.StartElement:
			n := &node{name: t.Name, attrs: t.Copy().Attr, start: start + skipped, inner: d.InputOffset() + skipped}
			if count++; count > maxNodes || len(open) == maxDepth {
				return nil, errors.New("too many elements")
			}
			for i, a := range n.attrs {
				for _, b := range n.attrs[:i] {
					if a.Name == b.Name {
						return nil, fmt.Errorf("attribute %s occurs twice", a.Name.Local)
					}
				}
			}
			switch {
			case len(open) > 0:
				parent := open[len(open)-1]
				parent.children = append(parent.children, n)
			case root != nil:
				return nil, errors.New("more than one root element")
			default:
				root = n
			}
			open = append(open, n)
		case xml.EndElement:
			n := open[len(open)-1]
			n.outer, n.end = start+skipped, d.InputOffset()+skipped
			if len(n.children) > 0 {
				if strings.TrimSpace(n.text) != "" {
					return nil, fmt.Errorf("text between the elements of %s", n.name.Local)
				}
				n.text = ""
			}
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				open[len(open)-1].text += string(t)
			} else if len(bytes.TrimSpace(t)) > 0 {
				return nil, errors.New("text outside the root element")
			}
		}
	}
	if root == nil {
		return nil, errors.New("no root element")
	}
	return root, nil
}

func (n *node) is(space, local string) bool { return n.name.Space == space && n.name.Local == local }

// content is the text of an element that has no children.
func (n *node) content() (string, error) {
	if len(n.children) > 0 {
		return "", fmt.Errorf("element %s has children", n.name.Local)
	}
	return n.text, nil
}

func (n *node) boolean() (bool, error) {
	s, err := n.content()
	if err != nil {
		return false, err
	}
	switch strings.TrimSpace(s) {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, fmt.Errorf("%s is %q, neither true nor false", n.name.Local, s)
}

func (n *node) base64() ([]byte, error) {
	s, err := n.content()
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.name.Local, err)
	}
	return b, nil
}

// identifier returns the parts of an identifier of one of the types, in the
// order of names; the names in brackets may be missing.
func (n *node) identifier(types string, names ...string) (map[string]string, error) {
	kind := ""
	for _, a := range n.attrs {
		if a.Name.Space == idNS && a.Name.Local == "objectType" {
			kind = a.Value
		}
	}
	if kind == "" || !strings.Contains(" "+types+" ", " "+kind+" ") {
		return nil, fmt.Errorf("%s: object type is %q, not %s", n.name.Local, kind, types)
	}
	got := map[string]string{"": kind}
	rest := n.children
	for _, name := range names {
		name, isOptional := strings.CutPrefix(name, "?")
		if len(rest) == 0 || !rest[0].is(idNS, name) {
			if isOptional {
				continue
			}
			return nil, fmt.Errorf("%s: %s is missing", n.name.Local, name)
		}
		s, err := rest[0].content()
		if err != nil {
			return nil, err
		}
		got[name], rest = s, rest[1:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%s: unexpected %s", n.name.Local, rest[0].name.Local)
	}
	return got, nil
}

func (n *node) client() (id.Client, error) {
	got, err := n.identifier("MEMBER SUBSYSTEM", "xRoadInstance", "memberClass", "memberCode", "?subsystemCode")
	if err != nil {
		return id.Client{}, err
	}
	return clientOf(n, got, got[""] == "SUBSYSTEM")
}

func clientOf(n *node, got map[string]string, subsystem bool) (id.Client, error) {
	code, has := got["subsystemCode"]
	if subsystem != has {
		return id.Client{}, fmt.Errorf("%s: the subsystem code is missing or superfluous", n.name.Local)
	}
	m, err := memberOf(n, got)
	if err != nil || !has {
		return m.Client(), err
	}
	c, err := id.NewClient(m, code)
	if err != nil {
		return id.Client{}, faultf(CodeInvalidIdentifier, "%s: %v", n.name.Local, err)
	}
	return c, nil
}

func memberOf(n *node, got map[string]string) (id.Member, error) {
	m, err := id.NewMember(got["xRoadInstance"], got["memberClass"], got["memberCode"])
	if err != nil {
		return m, faultf(CodeInvalidIdentifier, "%s: %v", n.name.Local, err)
	}
	return m, nil
}

func (n *node) server() (id.SecurityServer, error) {
	got, err := n.identifier("SERVER", "xRoadInstance", "memberClass", "memberCode", "serverCode")
	if err != nil {
		return id.SecurityServer{}, err
	}
	m, err := memberOf(n, got)
	if err != nil {
		return id.SecurityServer{}, err
	}
	s, err := id.NewSecurityServer(m, got["serverCode"])
	if err != nil {
		return id.SecurityServer{}, faultf(CodeInvalidIdentifier, "%s: %v", n.name.Local, err)
	}
	return s, nil
}

// service returns the owner and the code of a service.
func (n *node) service() (id.Client, string, error) {
	got, err := n.identifier("SERVICE", "xRoadInstance", "memberClass", "memberCode", "?subsystemCode", "serviceCode", "?serviceVersion")
	if err != nil {
		return id.Client{}, "", err
	}
	_, subsystem := got["subsystemCode"]
	owner, err := clientOf(n, got, subsystem)
	return owner, got["serviceCode"], err
}
