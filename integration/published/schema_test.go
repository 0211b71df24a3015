// SPDX-License-Identifier: Apache-2.0

package published_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	nsXRoad = "http://x-road.eu/xsd/xroad.xsd"
	nsID    = "http://x-road.eu/xsd/identifiers"
)

// node is an element.
type node struct {
	name     xml.Name
	attrs    []xml.Attr
	children []*node
	text     string
}

// all returns the texts of the elements at a path below.
func (n *node) all(path ...string) (texts []string) {
	for _, c := range n.children {
		switch {
		case c.name.Local != path[0]:
		case len(path) == 1:
			texts = append(texts, c.text)
		default:
			texts = append(texts, c.all(path[1:]...)...)
		}
	}
	return texts
}

func parse(doc []byte) (*node, error) {
	d := xml.NewDecoder(bytes.NewReader(doc))
	root := &node{}
	open := []*node{root}
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		top := open[len(open)-1]
		switch t := t.(type) {
		case xml.StartElement:
			n := &node{name: t.Name}
			for _, a := range t.Attr {
				if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
					n.attrs = append(n.attrs, a)
				}
			}
			top.children = append(top.children, n)
			open = append(open, n)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			top.text += string(t)
		case xml.Directive:
			return nil, errors.New("a directive")
		}
	}
	if len(root.children) != 1 {
		return nil, fmt.Errorf("%d root elements", len(root.children))
	}
	return root.children[0], nil
}

// element is one line of a schema.
type element struct {
	name     string
	min, max int // occurrences; max 0: any number
	from     int // first version that knows it
	until    int // last one; 0: all
	attr     string
	id       bool // an identifier: attribute objectType, children in the namespace of identifiers
	check    func(string) error
	children []element
}

func text(string) error { return nil }

func filled(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("empty")
	}
	return nil
}

func certificate(s string) error {
	der, err := base64.StdEncoding.DecodeString(s)
	if err == nil {
		_, err = x509.ParseCertificate(der)
	}
	return err
}

// quirks are what real central servers write against their own schemas, and we
// never: certificates in PEM inside the base64, profiles of ACME before V4.
func quirks(elements []element) []element {
	out := slices.Clone(elements)
	for i := range out {
		e := &out[i]
		e.children = quirks(e.children)
		if strings.HasSuffix(e.name, "CertificateProfileId") {
			e.from = 3
		}
		if e.name == "cert" {
			e.check = func(s string) error {
				b, err := base64.StdEncoding.DecodeString(s)
				if err != nil {
					return err
				}
				if block, _ := pem.Decode(b); block != nil {
					b = block.Bytes
				}
				_, err = x509.ParseCertificate(b)
				return err
			}
		}
	}
	return out
}

func number(s string) error { _, err := strconv.Atoi(s); return err }

func boolean(s string) error { _, err := strconv.ParseBool(s); return err }

func address(s string) error {
	u, err := url.Parse(s)
	if err == nil && u.Host == "" {
		err = errors.New("no host")
	}
	return err
}

func oneOf(values ...string) func(string) error {
	return func(s string) error {
		for _, v := range values {
			if s == v {
				return nil
			}
		}
		return fmt.Errorf("%q is none of %q", s, values)
	}
}

func one(name string, check func(string) error) element {
	return element{name: name, min: 1, max: 1, check: check}
}

func maybe(from int, name string, check func(string) error) element {
	return element{name: name, max: 1, from: from, check: check}
}

func costType() element { return maybe(6, "costType", oneOf("FREE", "PAID", "UNDEFINED")) }

func ca(name string, min, max int) element {
	return element{name: name, min: min, max: max, children: []element{one("cert", certificate),
		{name: "ocsp", children: []element{one("url", address), maybe(0, "cert", certificate), costType()}}}}
}

func memberClass(min, max int) element {
	return element{name: "memberClass", min: min, max: max, children: []element{one("code", filled), one("description", text)}}
}

func anchorElements() []element {
	return []element{
		maybe(0, "generatedAt", func(s string) error { _, err := time.Parse(time.RFC3339, s); return err }),
		one("instanceIdentifier", filled),
		{name: "source", min: 1, children: []element{one("downloadURL", address), {name: "verificationCert", min: 1, check: certificate}}},
	}
}

var schemas = map[string][]element{
	"SHARED-PARAMETERS": {
		one("instanceIdentifier", filled),
		{name: "source", min: 1, from: 3, children: []element{one("address", filled),
			{name: "internalVerificationCert", check: certificate}, {name: "externalVerificationCert", check: certificate}}},
		{name: "approvedCA", children: []element{
			one("name", filled), maybe(0, "authenticationOnly", boolean), ca("topCA", 1, 1), ca("intermediateCA", 0, 0),
			one("certificateProfileInfo", filled), maybe(6, "defaultCsrFormat", oneOf("PEM", "DER")),
			{name: "acmeServer", max: 1, from: 3, children: []element{one("directoryURL", address), maybe(0, "ipAddress", filled),
				maybe(4, "authenticationCertificateProfileId", filled), maybe(4, "signingCertificateProfileId", filled)}}}},
		{name: "approvedTSA", children: []element{one("name", filled), one("url", address), one("cert", certificate), costType()}},
		{name: "member", attr: "id", children: []element{memberClass(1, 1), one("memberCode", filled), one("name", filled),
			{name: "subsystem", attr: "id", children: []element{one("subsystemCode", filled), maybe(5, "subsystemName", text)}}}},
		{name: "securityServer", children: []element{one("owner", filled), one("serverCode", filled), maybe(0, "address", filled),
			{name: "authCertHash", check: filled}, {name: "client", check: filled},
			{name: "inMaintenanceMode", max: 1, from: 5, children: []element{maybe(0, "message", text)}}}},
		{name: "globalGroup", children: []element{one("groupCode", filled), one("description", text), {name: "groupMember", id: true}}},
		{name: "centralService", children: []element{one("serviceCode", filled), {name: "implementingService", max: 1, id: true}}},
		{name: "globalSettings", min: 1, max: 1, children: []element{memberClass(0, 0), one("ocspFreshnessSeconds", number)}},
	},
	"PRIVATE-PARAMETERS": {
		one("instanceIdentifier", filled),
		{name: "configurationAnchor", children: anchorElements()},
		{name: "managementService", min: 1, max: 1, children: []element{one("authCertRegServiceAddress", address),
			maybe(0, "authCertRegServiceCert", certificate), {name: "managementRequestServiceProviderId", min: 1, max: 1, id: true}}},
		one("timeStampingIntervalSeconds", number),
	},
	"MONITORING":    {{name: "monitoringClient", min: 1, max: 1, children: []element{{name: "monitoringClientId", max: 1, id: true}}}},
	"FETCHINTERVAL": {one("ocspFetchInterval", number)},
	"NEXTUPDATE":    {one("verifyNextUpdate", boolean)},
}

// validate checks a document against the schema of its version.
func validate(n *node, root, identifier string, version int) error {
	if n.name.Space != nsXRoad || n.name.Local != root || len(n.attrs) > 0 {
		return fmt.Errorf("root %v %v", n.name, n.attrs)
	}
	schema, ok := schemas[identifier]
	if root == "configurationAnchor" {
		schema, ok = anchorElements(), true
	}
	if !ok {
		return fmt.Errorf("unknown part %q", identifier)
	}
	return validateChildren(n, schema, version)
}

func validateChildren(n *node, schema []element, version int) error {
	rest := n.children
	if strings.TrimSpace(n.text) != "" {
		return fmt.Errorf("%s: text %q", n.name.Local, n.text)
	}
	for _, e := range schema {
		count := 0
		for len(rest) > 0 && rest[0].name.Local == e.name && version >= e.from && (e.until == 0 || version <= e.until) {
			if err := validateElement(rest[0], e, version); err != nil {
				return fmt.Errorf("%s: %w", n.name.Local, err)
			}
			rest = rest[1:]
			count++
		}
		if version >= e.from && count < e.min || e.max > 0 && count > e.max {
			return fmt.Errorf("%s: %d times %s", n.name.Local, count, e.name)
		}
	}
	if len(rest) > 0 {
		return fmt.Errorf("%s: unexpected %s in version %d", n.name.Local, rest[0].name.Local, version)
	}
	return nil
}

func validateElement(n *node, e element, version int) error {
	if n.name.Space != "" {
		return fmt.Errorf("%s is qualified", e.name)
	}
	if e.id {
		return validateID(n)
	}
	if e.attr != "" && (len(n.attrs) != 1 || n.attrs[0].Name != xml.Name{Local: e.attr}) || e.attr == "" && len(n.attrs) > 0 {
		return fmt.Errorf("attributes of %s: %v", e.name, n.attrs)
	}
	if e.check != nil {
		if len(n.children) > 0 {
			return fmt.Errorf("%s has children", e.name)
		}
		if err := e.check(n.text); err != nil {
			return fmt.Errorf("%s %q: %w", e.name, n.text, err)
		}
		return nil
	}
	return validateChildren(n, e.children, version)
}

// validateID checks an identifier: its type says which parts it has.
func validateID(n *node) error {
	if len(n.attrs) != 1 || n.attrs[0].Name != (xml.Name{Space: nsID, Local: "objectType"}) {
		return fmt.Errorf("attributes of %s: %v", n.name.Local, n.attrs)
	}
	parts, ok := map[string]string{
		"MEMBER":    "xRoadInstance memberClass memberCode",
		"SUBSYSTEM": "xRoadInstance memberClass memberCode subsystemCode",
		"SERVICE":   "xRoadInstance memberClass memberCode subsystemCode serviceCode",
	}[n.attrs[0].Value]
	var got []string
	for _, c := range n.children {
		if c.name.Space != nsID || len(c.children) > 0 || strings.TrimSpace(c.text) == "" {
			return fmt.Errorf("%s: %v %q", n.name.Local, c.name, c.text)
		}
		got = append(got, c.name.Local)
	}
	if !ok || strings.Join(got, " ") != parts {
		return fmt.Errorf("%s of type %s has %q", n.name.Local, n.attrs[0].Value, got)
	}
	return nil
}

var ncName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9._-]*$`)

// validateReferences checks what a schema says by xs:ID and xs:IDREF, and the
// length of certificate hashes, which depends on the version.
func validateReferences(n *node, version int) error {
	members, all := map[string]bool{}, map[string]bool{}
	declare := func(n *node) error {
		id := n.attrs[0].Value
		if !ncName.MatchString(id) || all[id] {
			return fmt.Errorf("ID %q", id)
		}
		all[id] = true
		return nil
	}
	for _, m := range n.children {
		if m.name.Local != "member" {
			continue
		}
		if err := declare(m); err != nil {
			return err
		}
		members[m.attrs[0].Value] = true
		for _, s := range m.children {
			if s.name.Local == "subsystem" {
				if err := declare(s); err != nil {
					return err
				}
			}
		}
	}
	length := 32
	if version == 2 {
		length = 20
	}
	for _, s := range n.children {
		if s.name.Local != "securityServer" {
			continue
		}
		for _, c := range s.children {
			switch c.name.Local {
			case "owner":
				if !members[c.text] {
					return fmt.Errorf("owner %q is no member", c.text)
				}
			case "client":
				if !all[c.text] {
					return fmt.Errorf("client %q is nobody", c.text)
				}
			case "authCertHash":
				if b, err := base64.StdEncoding.DecodeString(c.text); err != nil || len(b) != length {
					return fmt.Errorf("certificate hash %q", c.text)
				}
			}
		}
	}
	return nil
}
