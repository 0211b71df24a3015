// SPDX-License-Identifier: Apache-2.0

package xades

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
)

// singular lists the local names of elements that may stand but once in a
// document, whatever their namespace and place. What is signed is then found
// without choosing.
var singular = []string{
	"XAdESSignatures", "Signature", "SignedInfo", "SignatureValue", "KeyInfo", "X509Data", "X509Certificate", "Object",
	"QualifyingProperties", "SignedProperties", "SignedSignatureProperties", "SigningTime",
	"UnsignedProperties", "UnsignedSignatureProperties",
}

// tree reads one foreign document. The first error sticks; after it, the
// methods return empty values.
type tree struct {
	parser     *Parser
	sig        *Signature
	namespaces int // declarations seen
	err        error
}

// readTree reads a document of any form that says without doubt what is signed.
func (p *Parser) readTree(doc []byte) (*Signature, error) {
	at, prefix, err := wellFormed(doc, "UnsignedSignatureProperties")
	if err != nil {
		return nil, err
	}
	parsed := etree.NewDocument()
	parsed.ReadSettings = etree.ReadSettings{PreserveDuplicateAttrs: true, MaxDepth: maxDepth + 1}
	if err := parsed.ReadFromBytes(doc); err != nil || parsed.Root() == nil {
		return nil, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	t := &tree{parser: p, sig: &Signature{insertAt: at, prefix: prefix}}
	t.names(parsed.Root(), map[string]bool{}, map[string]bool{})
	t.document(parsed.Root())
	if t.err != nil {
		return nil, t.err
	}
	return t.sig, nil
}

func (t *tree) fail(class error, format string, args ...any) {
	if t.err == nil {
		t.err = fmt.Errorf("%w: %s", class, fmt.Sprintf(format, args...))
	}
}

// names checks the names in el and below: namespaces are declared and ordinary,
// attributes are distinct, so are Ids and the elements called singular.
func (t *tree) names(el *etree.Element, ids, once map[string]bool) {
	if slices.Contains(singular, el.Tag) {
		if once[el.Tag] {
			t.fail(ErrMalformed, "second %s element", el.Tag)
		}
		once[el.Tag] = true
	}
	if el.Space == "xmlns" || el.Space == "xml" || el.Space != "" && el.NamespaceURI() == "" {
		t.fail(ErrMalformed, "prefix %q", el.Space)
	}
	for i, a := range el.Attr {
		if isNamespace(a) {
			if t.namespaces++; t.namespaces > maxNamespaces {
				t.fail(ErrMalformed, "too many namespace declarations")
			}
		}
		switch {
		case a.Space == "" && a.Key == "xmlns":
			if strings.HasPrefix(a.Value, "http://www.w3.org/XML/") || strings.HasPrefix(a.Value, "http://www.w3.org/2000/xmlns") {
				t.fail(ErrMalformed, "reserved namespace")
			}
		case a.Space == "xmlns":
			if a.Value == "" || a.Key == "xml" || a.Key == "xmlns" ||
				strings.HasPrefix(a.Value, "http://www.w3.org/XML/") || strings.HasPrefix(a.Value, "http://www.w3.org/2000/xmlns") {
				t.fail(ErrMalformed, "namespace declaration for prefix %q", a.Key)
			}
		case a.Space == "xml":
			// xml:id, xml:base, xml:space would each need rules of their own.
			t.fail(ErrUnsupported, "attribute xml:%s", a.Key)
		case a.Space != "" && namespaceOf(el, a.Space) == "":
			t.fail(ErrMalformed, "prefix %q", a.Space)
		}
		for _, b := range el.Attr[:i] {
			if a.Key == b.Key && (a.Space == b.Space ||
				a.Space != "" && b.Space != "" && a.Space != "xmlns" && b.Space != "xmlns" && namespaceOf(el, a.Space) == namespaceOf(el, b.Space)) {
				t.fail(ErrMalformed, "attribute %s twice", a.Key)
			}
		}
		if strings.EqualFold(a.Key, "id") && a.Space != "xmlns" {
			if a.Value == "" || ids[a.Value] {
				t.fail(ErrMalformed, "Id %q twice or empty", a.Value)
			}
			ids[a.Value] = true
		}
	}
	for _, child := range el.ChildElements() {
		if t.err == nil {
			t.names(child, ids, once)
		}
	}
}

// namespaceOf returns the namespace that prefix is bound to at el, or "".
func namespaceOf(el *etree.Element, prefix string) string {
	for ; el != nil; el = el.Parent() {
		for _, a := range el.Attr {
			if a.Space == "xmlns" && a.Key == prefix {
				return a.Value
			}
		}
	}
	return ""
}

func is(el *etree.Element, namespace, local string) bool {
	return el.Tag == local && el.NamespaceURI() == namespace
}

// children returns the elements in el, between which may stand white space.
func (t *tree) children(el *etree.Element) []*etree.Element {
	if t.err != nil {
		return nil
	}
	var elements []*etree.Element
	for _, token := range el.Child {
		switch token := token.(type) {
		case *etree.Element:
			elements = append(elements, token)
		case *etree.CharData:
			if strings.Trim(token.Data, " \t\r\n") != "" {
				t.fail(ErrMalformed, "text in %s", el.Tag)
			}
		default:
			t.fail(ErrMalformed, "%T in %s", token, el.Tag)
		}
	}
	return elements
}

// exactly returns the children of el, which must be those named, in order.
func (t *tree) exactly(el *etree.Element, namespace string, locals ...string) []*etree.Element {
	elements := t.children(el)
	if t.err == nil && len(elements) != len(locals) {
		t.fail(ErrMalformed, "%d elements in %s", len(elements), el.Tag)
	}
	if t.err != nil {
		return make([]*etree.Element, len(locals))
	}
	for i, local := range locals {
		t.want(elements[i], namespace, local)
	}
	return elements
}

// want demands that el has the name.
func (t *tree) want(el *etree.Element, namespace, local string) {
	if t.err == nil && !is(el, namespace, local) {
		t.fail(ErrMalformed, "%s where %s is due", el.Tag, local)
	}
}

// child returns the only child of el with the name, nil if there is none.
func (t *tree) child(el *etree.Element, namespace, local string) *etree.Element {
	var found *etree.Element
	for _, c := range t.children(el) {
		if !is(c, namespace, local) {
			continue
		}
		if found != nil {
			t.fail(ErrMalformed, "second %s in %s", local, el.Tag)
		}
		found = c
	}
	return found
}

// attribute returns the value of el's attribute without prefix.
func (t *tree) attribute(el *etree.Element, key string) string {
	if t.err != nil {
		return ""
	}
	for _, a := range el.Attr {
		if a.Space == "" && a.Key == key {
			return a.Value
		}
	}
	return ""
}

// algorithm returns the Algorithm of el, which must have no parameters.
func (t *tree) algorithm(el *etree.Element) string {
	if t.err == nil && len(t.children(el)) > 0 {
		t.fail(ErrUnsupported, "parameters in %s", el.Tag)
	}
	return t.attribute(el, "Algorithm")
}

// text returns the text of el, which must hold nothing else.
func (t *tree) text(el *etree.Element) string {
	if t.err != nil {
		return ""
	}
	var b strings.Builder
	for _, token := range el.Child {
		data, ok := token.(*etree.CharData)
		if !ok {
			t.fail(ErrMalformed, "%T in %s", token, el.Tag)
			return ""
		}
		b.WriteString(data.Data)
	}
	return b.String()
}

// value decodes the base64 in el, which may be broken into lines.
func (t *tree) value(el *etree.Element) []byte {
	text := stripSpace(t.text(el))
	if t.err != nil {
		return nil
	}
	b, err := decodeBase64(nil, text)
	if err != nil {
		t.fail(ErrMalformed, "base64 in %s", el.Tag)
	}
	return b
}

func stripSpace(text string) []byte {
	b := make([]byte, 0, len(text))
	for i := range len(text) {
		if !isSpace(text[i]) {
			b = append(b, text[i])
		}
	}
	return b
}

// digest reads a DigestMethod and a DigestValue.
func (t *tree) digest(method, value *etree.Element) (uri string, digest []byte) {
	uri = t.algorithm(method)
	digest = t.value(value)
	if t.err != nil {
		return "", nil
	}
	hash, err := hashByURI(uri)
	if err != nil {
		t.err = err
		return "", nil
	}
	if len(digest) != hash.Size() {
		t.fail(ErrMalformed, "digest of %d bytes", len(digest))
	}
	return uri, digest
}

func (t *tree) certificate(el *etree.Element) *certificate {
	text := stripSpace(t.text(el))
	if t.err != nil {
		return nil
	}
	c, err := t.parser.certificate(text)
	if err != nil {
		t.err = err
	}
	return c
}

func (t *tree) document(root *etree.Element) {
	signature := root
	if is(root, nsASiC, "XAdESSignatures") || is(root, nsASiCOld, "XAdESSignatures") {
		children := t.children(root)
		if len(children) != 1 {
			t.fail(ErrMalformed, "%d signatures", len(children))
			return
		}
		signature = children[0]
	}
	t.want(signature, nsDS, "Signature")
	parts := t.exactly(signature, nsDS, "SignedInfo", "SignatureValue", "KeyInfo", "Object")
	if t.err != nil {
		return
	}
	t.sig.value = t.value(parts[1])
	data := t.exactly(parts[2], nsDS, "X509Data")[0]
	if t.err != nil {
		return
	}
	if cert := t.exactly(data, nsDS, "X509Certificate")[0]; t.err == nil {
		t.sig.cert = t.certificate(cert)
	}
	qualifying := t.exactly(parts[3], nsXAdES, "QualifyingProperties")[0]
	if t.err != nil {
		return
	}
	if id := t.attribute(signature, "Id"); id == "" || t.attribute(qualifying, "Target") != "#"+id {
		t.fail(ErrMalformed, "qualifying properties of another signature")
	}
	properties := t.children(qualifying)
	if len(properties) == 0 || len(properties) > 2 {
		t.fail(ErrMalformed, "%d elements in QualifyingProperties", len(properties))
		return
	}
	t.want(properties[0], nsXAdES, "SignedProperties")
	t.signedInfo(parts[0], properties[0])
	t.signedProperties(properties[0])
	if len(properties) == 2 {
		t.want(properties[1], nsXAdES, "UnsignedProperties")
		t.unsigned(properties[1])
	}
	if t.sig.insertAt != 0 && len(properties) != 2 {
		t.fail(ErrMalformed, "unsigned properties out of place")
	}
}

// signedInfo reads SignedInfo, whose only reference into the document must be
// to props, the SignedProperties of this very signature.
func (t *tree) signedInfo(info, props *etree.Element) {
	elements := t.children(info)
	if t.err == nil && (len(elements) < 4 || len(elements) > 3+maxReferences) {
		t.fail(ErrMalformed, "%d elements in SignedInfo", len(elements))
	}
	if t.err != nil {
		return
	}
	t.want(elements[0], nsDS, "CanonicalizationMethod")
	t.want(elements[1], nsDS, "SignatureMethod")
	infoForm, methodURI := t.algorithm(elements[0]), t.algorithm(elements[1])
	if t.err != nil {
		return
	}
	if t.sig.method, t.err = methodByURI(methodURI); t.err != nil {
		return
	}
	propsURI := "#" + t.attribute(props, "Id")
	seen := make(map[string]bool)
	for _, ref := range elements[2:] {
		t.want(ref, nsDS, "Reference")
		uri, typ := t.attribute(ref, "URI"), t.attribute(ref, "Type")
		parts := t.children(ref)
		var transforms *etree.Element
		if len(parts) == 3 {
			transforms, parts = parts[0], parts[1:]
		}
		if len(parts) != 2 {
			t.fail(ErrMalformed, "%d elements in Reference", len(parts))
			return
		}
		t.want(parts[0], nsDS, "DigestMethod")
		t.want(parts[1], nsDS, "DigestValue")
		method, digest := t.digest(parts[0], parts[1])
		if uri == "" || uri == "#" || seen[uri] {
			t.fail(ErrMalformed, "reference to %q", uri)
		}
		seen[uri] = true
		switch {
		case t.err != nil:
			return
		case uri == propsURI && typ == typeProperties:
			hash, _ := hashByURI(method)
			t.sig.propsWant = digest
			t.sig.props = sum(hash, t.canonical(props, t.transform(transforms)))
		case uri[0] == '#' || typ == typeProperties:
			t.fail(ErrUnsupported, "reference to %q of type %q", uri, typ)
		case transforms != nil:
			t.fail(ErrUnsupported, "transforms of %q", uri)
		default:
			t.sig.refs = append(t.sig.refs, Reference{URI: uri, DigestMethod: method, Digest: digest})
		}
	}
	if t.sig.propsWant == nil || len(t.sig.refs) == 0 {
		t.fail(ErrMalformed, "no reference to the signed properties, or none to data")
	}
	t.sig.info = sum(t.sig.method.hash, t.canonical(info, infoForm))
}

// transform returns the canonicalisation that el, a Transforms element or nil,
// asks for. By default it is Canonical XML 1.0 (XML Signature, 4.4.3.2).
func (t *tree) transform(el *etree.Element) string {
	if el == nil {
		return c14nInclusive
	}
	t.want(el, nsDS, "Transforms")
	transform := t.exactly(el, nsDS, "Transform")[0]
	return t.algorithm(transform)
}

// canonical returns the canonical form of el in its document.
func (t *tree) canonical(el *etree.Element, algorithm string) []byte {
	if t.err != nil {
		return nil
	}
	var c dsig.Canonicalizer
	switch algorithm {
	case c14nInclusive, c14nInclusive11: // they differ in xml: attributes only, which are refused
		c = dsig.MakeC14N10RecCanonicalizer()
	case c14nExclusive:
		c = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	default:
		t.fail(ErrUnsupported, "canonicalisation or transform %q", algorithm)
		return nil
	}
	// The canonicaliser knows only the namespaces declared in what it is given.
	apex := el.Copy()
	declared := make(map[string]bool)
	for _, a := range apex.Attr {
		if isNamespace(a) {
			declared[a.FullKey()] = true
		}
	}
	for parent := el.Parent(); parent != nil; parent = parent.Parent() {
		for _, a := range parent.Attr {
			if isNamespace(a) && !declared[a.FullKey()] {
				declared[a.FullKey()] = true
				if a.Value != "" {
					apex.CreateAttr(a.FullKey(), a.Value)
				}
			}
		}
	}
	b, err := c.Canonicalize(apex)
	if err != nil {
		t.fail(ErrMalformed, "%v", err)
	}
	return b
}

func isNamespace(a etree.Attr) bool {
	return a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns"
}

func (t *tree) signedProperties(props *etree.Element) {
	children := t.children(props)
	if len(children) == 0 || len(children) > 2 {
		t.fail(ErrMalformed, "%d elements in SignedProperties", len(children))
		return
	}
	t.want(children[0], nsXAdES, "SignedSignatureProperties")
	if len(children) == 2 {
		t.want(children[1], nsXAdES, "SignedDataObjectProperties")
	}
	claimed := t.child(children[0], nsXAdES, "SigningTime")
	signer := t.child(children[0], nsXAdES, "SigningCertificate")
	if v2 := t.child(children[0], nsXAdES, "SigningCertificateV2"); signer == nil {
		signer = v2
	} else if v2 != nil {
		t.fail(ErrMalformed, "two signing certificates")
	}
	if claimed == nil || signer == nil {
		t.fail(ErrMalformed, "no signing time or no signing certificate")
	}
	text := strings.Trim(t.text(claimed), " \t\r\n")
	if t.err != nil {
		return
	}
	var err error
	if t.sig.time, err = time.Parse(time.RFC3339Nano, text); err != nil || strings.Contains(text, ",") {
		t.fail(ErrMalformed, "signing time %q", text)
	}
	certs := t.children(signer)
	if len(certs) != 1 {
		t.fail(ErrMalformed, "%d signing certificates", len(certs))
		return
	}
	t.want(certs[0], nsXAdES, "Cert")
	digest := t.child(certs[0], nsXAdES, "CertDigest")
	if digest == nil {
		t.fail(ErrMalformed, "no digest of the signing certificate")
		return
	}
	parts := t.exactly(digest, nsDS, "DigestMethod", "DigestValue")
	method, want := t.digest(parts[0], parts[1])
	if t.err != nil {
		return
	}
	hash, _ := hashByURI(method)
	t.sig.certWant = want
	t.sig.certDigest = sum(hash, t.sig.cert.cert.Raw)
}

// unsigned reads the unsigned properties known here and skips the others.
func (t *tree) unsigned(el *etree.Element) {
	props := t.child(el, nsXAdES, "UnsignedSignatureProperties")
	if props == nil {
		if t.sig.insertAt != 0 {
			t.fail(ErrMalformed, "unsigned properties out of place")
		}
		return
	}
	for _, prop := range t.children(props) {
		switch {
		case is(prop, nsXAdES, "SignatureTimeStamp"):
			token := t.child(prop, nsXAdES, "EncapsulatedTimeStamp")
			if token == nil {
				t.fail(ErrMalformed, "time-stamp without a token")
				return
			}
			t.sig.timestamps = t.collect(t.sig.timestamps, token)
		case is(prop, nsXAdES, "CertificateValues"):
			for _, value := range t.children(prop) {
				if !is(value, nsXAdES, "EncapsulatedX509Certificate") {
					continue
				}
				if len(t.sig.extras) == maxValues {
					t.fail(ErrMalformed, "too many certificates")
				}
				if c := t.certificate(value); t.err == nil {
					t.sig.extras = append(t.sig.extras, c.cert)
				}
			}
		case is(prop, nsXAdES, "RevocationValues"):
			responses := t.child(prop, nsXAdES, "OCSPValues")
			if responses == nil {
				continue
			}
			for _, value := range t.children(responses) {
				t.want(value, nsXAdES, "EncapsulatedOCSPValue")
				if len(t.sig.ocsp) == maxValues {
					t.fail(ErrMalformed, "too many OCSP responses")
				}
				text := stripSpace(t.text(value))
				if t.err != nil {
					return
				}
				r, err := t.parser.response(text)
				if err != nil {
					t.err = err
					return
				}
				t.sig.addOCSP(r)
			}
		}
	}
}

// collect appends the value in el to the list, which it bounds.
func (t *tree) collect(list [][]byte, el *etree.Element) [][]byte {
	if len(list) == maxValues {
		t.fail(ErrMalformed, "too many %s elements", el.Tag)
	}
	return append(list, t.value(el))
}
