// SPDX-License-Identifier: Apache-2.0

package globalconf_test

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"kontor/registry/id"
)

func client(t testing.TB, s string) id.Client { return must(id.ParseClient(s))(t) }

// node is an element as encoding/xml sees it.
type node struct {
	name  xml.Name
	attrs map[string]string
	text  string
	kids  []*node
}

func tree(doc []byte) (*node, error) {
	d := xml.NewDecoder(bytes.NewReader(doc))
	root := &node{}
	stack := []*node{root}
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			if len(root.kids) != 1 {
				return nil, errors.New("no root")
			}
			return root.kids[0], nil
		}
		if err != nil {
			return nil, err
		}
		top := stack[len(stack)-1]
		switch x := tok.(type) {
		case xml.StartElement:
			n := &node{name: x.Name, attrs: map[string]string{}}
			for _, a := range x.Attr {
				if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
					n.attrs[a.Name.Space+" "+a.Name.Local] = a.Value
				}
			}
			top.kids = append(top.kids, n)
			stack = append(stack, n)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			top.text += string(x)
		}
	}
}

// The schemas, told a second time and independently of the parser: each content
// model is a regular expression over the names of the children. Upper-case
// markers at the end say from which version on an element exists.
var grammar = map[string]struct {
	children string // "" means text
	text     string
}{
	"conf":                   {children: `instanceIdentifier (source@3 )+(approvedCA )*(approvedTSA )*(member )*(securityServer )*(globalGroup )*globalSettings `},
	"source":                 {children: `address (internalVerificationCert )*(externalVerificationCert )*`},
	"approvedCA":             {children: `name (authenticationOnly )?topCA (intermediateCA )*certificateProfileInfo (defaultCsrFormat@6 )?(acmeServer@3 )?`},
	"topCA":                  {children: `cert (ocsp )*`},
	"intermediateCA":         {children: `cert (ocsp )*`},
	"ocsp":                   {children: `url (cert )?(costType@6 )?`},
	"acmeServer":             {children: `directoryURL (ipAddress )?(authenticationCertificateProfileId@4 )?(signingCertificateProfileId@4 )?`},
	"approvedTSA":            {children: `name url cert (costType@6 )?`},
	"member":                 {children: `memberClass memberCode name (subsystem )*`},
	"memberClass":            {children: `code description `},
	"subsystem":              {children: `subsystemCode (subsystemName@5 )?`},
	"securityServer":         {children: `owner serverCode (address )?(authCertHash )*(client )*(inMaintenanceMode@5 )?`},
	"inMaintenanceMode":      {children: `(message )?`},
	"globalGroup":            {children: `groupCode description (groupMember )*`},
	"groupMember":            {children: `id:xRoadInstance id:memberClass id:memberCode (id:subsystemCode )?`},
	"globalSettings":         {children: `(memberClass )*ocspFreshnessSeconds `},
	"authenticationOnly":     {text: `true|false`},
	"defaultCsrFormat":       {text: `PEM|DER`},
	"costType":               {text: `FREE|PAID|UNDEFINED`},
	"ocspFreshnessSeconds":   {text: `[1-9][0-9]*`},
	"certificateProfileInfo": {text: `.+`},
}

var versioned = regexp.MustCompile(`\(?([A-Za-z:]+)@(\d) \)?([*+?]?)`)

// checkStructure validates shared parameters against the grammar.
func checkStructure(t testing.TB, doc []byte, version int) {
	t.Helper()
	root, err := tree(doc)
	if err != nil {
		t.Fatal(err)
	}
	if root.name != (xml.Name{Space: "http://x-road.eu/xsd/xroad.xsd", Local: "conf"}) {
		t.Fatalf("root %v", root.name)
	}
	ids := map[string]string{}
	var refs []*node
	var walk func(n *node, name string)
	walk = func(n *node, name string) {
		for a, v := range n.attrs {
			switch {
			case a == " id" && (name == "member" || name == "subsystem"):
				if ids[v] != "" || !regexp.MustCompile(`^[A-Za-z_][\w.-]*$`).MatchString(v) {
					t.Errorf("ID %q", v)
				}
				ids[v] = name
			case a == "http://x-road.eu/xsd/identifiers objectType" && name == "groupMember":
				if v != map[int]string{3: "MEMBER", 4: "SUBSYSTEM"}[len(n.kids)] {
					t.Errorf("object type %q of %d parts", v, len(n.kids))
				}
			default:
				t.Errorf("attribute %q at %s", a, name)
			}
		}
		g, ok := grammar[name]
		if g.children == "" {
			if len(n.kids) > 0 || g.text != "" && !regexp.MustCompile(`^(`+g.text+`)$`).MatchString(n.text) {
				t.Errorf("content of %s: %q", name, n.text)
			}
			switch {
			case name == "owner" || name == "client":
				refs = append(refs, n)
			case name == "authCertHash":
				b, err := base64.StdEncoding.Strict().DecodeString(n.text)
				if want := map[bool]int{true: 20, false: 32}[version == 2]; err != nil || len(b) != want {
					t.Errorf("hash of %d bytes in version %d", len(b), version)
				}
			case name == "cert" || strings.HasSuffix(name, "Cert"):
				if _, err := base64.StdEncoding.Strict().DecodeString(n.text); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			return
		}
		if !ok || strings.TrimSpace(n.text) != "" {
			t.Errorf("content of %s", name)
		}
		var names strings.Builder
		for _, k := range n.kids {
			kid := k.name.Local
			switch k.name.Space {
			case "":
			case "http://x-road.eu/xsd/identifiers":
				kid = "id:" + kid
			default:
				t.Errorf("namespace %s", k.name.Space)
			}
			names.WriteString(kid + " ")
			walk(k, kid)
		}
		model := versioned.ReplaceAllStringFunc(g.children, func(s string) string {
			m := versioned.FindStringSubmatch(s)
			if since, _ := strconv.Atoi(m[2]); version < since {
				return ""
			}
			return "(" + m[1] + " )" + m[3]
		})
		if !regexp.MustCompile(`^` + model + `$`).MatchString(names.String()) {
			t.Errorf("version %d: %s contains %q, not %q", version, name, names.String(), model)
		}
	}
	walk(root, "conf")
	for _, r := range refs {
		kind := ids[strings.TrimSpace(r.text)]
		if kind == "" || r.name.Local == "owner" && kind != "member" {
			t.Errorf("%s refers to %q, a %q", r.name.Local, r.text, kind)
		}
	}
}
