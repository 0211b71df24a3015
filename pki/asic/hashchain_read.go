// SPDX-License-Identifier: Apache-2.0

package asic

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Bounds on chains that others made. A chain for ten thousand messages with a
// thousand attachments each stays well below them.
const (
	maxChainSize  = 1 << 20
	maxChainSteps = 128
	maxChainRefs  = 8192
)

type valueKind uint8

const (
	hashValue valueKind = iota
	stepRef
	dataRef
)

// chainValue is one child of a step.
type chainValue struct {
	kind   valueKind
	alg    algorithm
	size   uint8  // of digest
	uri    []byte // what a reference names; of steps, without "#"
	digest Digest // only the first size bytes
}

func (v *chainValue) sum() []byte { return v.digest[:v.size] }

type chainStep struct {
	id       []byte
	from, to int // its values
}

// hashChain is a chain as read. It refers to the bytes it was read from. One
// that is read into again needs no new memory.
type hashChain struct {
	steps  []chainStep
	values []chainValue
	walker walker // of verify
}

// chainResult is a chain's result as read.
type chainResult struct {
	uri    []byte
	alg    algorithm
	size   uint8
	digest Digest
}

// VerifyHashChain checks that chain computes to result and covers every one of
// parts, which maps references such as "/message.xml" to digests, and refers
// to nothing else. Both the form for signatures and that for time-stamps are
// accepted.
func VerifyHashChain(result, chain []byte, parts map[string]Digest) error {
	return verifyHashChain(result, chain, parts, readResult, readChain)
}

func verifyHashChain(result, chain []byte, parts map[string]Digest,
	readResult func([]byte) (*chainResult, error), readChain func([]byte, *hashChain) error) error {
	r, err := readResult(result)
	if err != nil {
		return err
	}
	name := nameSigChain
	if bytes.HasPrefix(r.uri, []byte(nameTSChain)) {
		name = nameTSChain
	}
	c := new(hashChain)
	if err := readChain(chain, c); err != nil {
		return err
	}
	digests := make([]Digest, 0, len(parts))
	names := make([]string, 0, len(parts))
	index := make(map[string]int, len(parts))
	for uri, d := range parts {
		index[uri] = len(digests)
		digests, names = append(digests, d), append(names, uri)
	}
	return c.verify(r, name, chainParts{
		n: len(parts),
		find: func(uri []byte) (int, *Digest) {
			if i, ok := index[string(uri)]; ok {
				return i, &digests[i]
			}
			return -1, nil
		},
		name: func(i int) string { return names[i] },
	})
}

// chainParts are the parts a chain must cover.
type chainParts struct {
	n    int
	find func(uri []byte) (int, *Digest) // -1 if there is no such part
	name func(i int) string
	// absent, if not nil, hears of references to parts that are not at
	// hand and whose digest is taken from the chain. If nil, they are errors.
	absent func(uri string, a algorithm, digest []byte) error
}

// verify computes the chain and compares it with its result.
func (c *hashChain) verify(r *chainResult, chainName string, parts chainParts) error {
	base, fragment, _ := bytes.Cut(r.uri, []byte("#"))
	if string(base) != chainName || len(fragment) == 0 {
		return fmt.Errorf("%w: the result refers to %.80q", ErrMalformedHashChain, r.uri)
	}
	w := &c.walker
	w.chain, w.parts = c, parts
	w.seen = append(w.seen[:0], make([]bool, parts.n)...)
	w.used = append(w.used[:0], make([]bool, len(c.steps))...)
	var top Digest
	n, err := w.step(fragment, r.alg, &top)
	if err != nil {
		return err
	}
	if !bytes.Equal(top[:n], r.digest[:r.size]) {
		return ErrHashChain
	}
	for i, ok := range w.seen {
		if !ok {
			return fmt.Errorf("%w: %s", ErrUnusedInputs, parts.name(i))
		}
	}
	for i, ok := range w.used {
		if !ok {
			return fmt.Errorf("%w: step %.80q is not used", ErrMalformedHashChain, c.steps[i].id)
		}
	}
	return nil
}

type walker struct {
	chain *hashChain
	parts chainParts
	seen  []bool // parts referenced
	used  []bool // steps visited: each may be used once, so there is no cycle and no blow-up
	buf   []byte
}

// step computes the step named id with algorithm a. The recursion is no
// deeper than the chain has steps.
func (w *walker) step(id []byte, a algorithm, out *Digest) (int, error) {
	s := -1
	for i := range w.chain.steps {
		if bytes.Equal(w.chain.steps[i].id, id) {
			s = i
			break
		}
	}
	if s < 0 {
		return 0, fmt.Errorf("%w: no step %.80q", ErrMalformedHashChain, id)
	}
	if w.used[s] {
		return 0, fmt.Errorf("%w: step %.80q is used twice", ErrMalformedHashChain, id)
	}
	w.used[s] = true

	values := w.chain.values[w.chain.steps[s].from:w.chain.steps[s].to]
	// Inner steps first, for they share the buffer.
	for i := range values {
		v := &values[i]
		var err error
		switch v.kind {
		case stepRef:
			var n int
			n, err = w.step(v.uri, v.alg, &v.digest)
			v.size = uint8(n)
		case dataRef:
			err = w.data(v)
		}
		if err != nil {
			return 0, err
		}
	}
	const longestHeader = 6
	b := append(w.buf[:0], make([]byte, longestHeader)...)
	for i := range values {
		b = appendSingleDigest(b, values[i].sum(), values[i].alg)
	}
	h := derHeader(len(b) - longestHeader)
	start := longestHeader - len(h)
	copy(b[start:], h)
	w.buf = b
	return a.sum(b[start:], out), nil
}

// data checks one reference to a part.
func (w *walker) data(v *chainValue) error {
	i, d := w.parts.find(v.uri)
	if i < 0 {
		if w.parts.absent == nil {
			return fmt.Errorf("%w: there is no part %.80q", ErrHashChainRef, v.uri)
		}
		return w.parts.absent(string(v.uri), v.alg, v.sum())
	}
	if w.seen[i] {
		return fmt.Errorf("%w: %.80q is referenced twice", ErrMalformedHashChain, v.uri)
	}
	w.seen[i] = true
	if v.alg != algSHA512 {
		return fmt.Errorf("%w: %s is referenced by %s", ErrHashChainRef, v.uri, v.alg.uri())
	}
	if v.digest != *d {
		return fmt.Errorf("%w: digest of %s", ErrHashChainRef, v.uri)
	}
	return nil
}

// readChain reads a chain into c, by the exact scanner if it is in the form
// that X-Road writes, else as XML.
func readChain(doc []byte, c *hashChain) error {
	if len(doc) > maxChainSize {
		return fmt.Errorf("%w: longer than %d bytes", ErrMalformedHashChain, maxChainSize)
	}
	if scanChain(doc, c) {
		return nil
	}
	if err := parseChain(doc, c); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformedHashChain, err)
	}
	return nil
}

func readResult(doc []byte) (*chainResult, error) {
	if len(doc) > maxChainSize {
		return nil, fmt.Errorf("%w: result longer than %d bytes", ErrMalformedHashChain, maxChainSize)
	}
	if r, ok := scanResult(doc); ok {
		return r, nil
	}
	r, err := parseResult(doc)
	if err != nil {
		return nil, fmt.Errorf("%w: result: %w", ErrMalformedHashChain, err)
	}
	return r, nil
}

// style is one spelling of X-Road's writers. Releases differ in which namespace
// has the prefix and in the order of the declarations, in nothing else.
type style struct {
	chain, result []string // start tags up to the URI or the end
	declared      []string // the rest of a result's start tag

	defaultMethod, stepOpen, stepClose         string
	dataOpen, dataClose, valueOpen, valueClose string
	refOpen, refClose                          string
	method, digestOpen, digestClose            string
	chainClose, resultClose                    string
}

func newStyle(hc, ds string) *style {
	a, b := ` xmlns="`+nsDSig+`"`, ` xmlns:ns2="`+nsHashChain+`"`
	if hc == "" {
		a, b = ` xmlns="`+nsHashChain+`"`, ` xmlns:ns2="`+nsDSig+`"`
	}
	return &style{
		chain:         []string{"<" + hc + "HashChain" + a + b + ">\n", "<" + hc + "HashChain" + b + a + ">\n"},
		result:        []string{"<" + hc + `HashChainResult URI="`},
		declared:      []string{`"` + a + b + ">\n", `"` + b + a + ">\n"},
		defaultMethod: "    <" + hc + "DefaultDigestMethod",
		stepOpen:      "    <" + hc + `HashStep id="`,
		stepClose:     "    </" + hc + "HashStep>\n",
		dataOpen:      "        <" + hc + `DataRef URI="`,
		dataClose:     "        </" + hc + "DataRef>\n",
		valueOpen:     "        <" + hc + "HashValue>\n",
		valueClose:    "        </" + hc + "HashValue>\n",
		refOpen:       "        <" + hc + `StepRef URI="#`,
		refClose:      "        </" + hc + "StepRef>\n",
		method:        "<" + ds + "DigestMethod",
		digestOpen:    "<" + ds + "DigestValue>",
		digestClose:   "</" + ds + "DigestValue>\n",
		chainClose:    "</" + hc + "HashChain>\n",
		resultClose:   "</" + hc + "HashChainResult>\n",
	}
}

var styles = [...]*style{newStyle("ns2:", ""), newStyle("", "ns2:")}

// scanner reads the one form that X-Road's writers produce, byte by byte: four
// spaces of indentation, one blank between attributes, strict base64. What it
// accepts has no second spelling within its style.
type scanner struct {
	*style
	in  []byte
	bad bool
}

func (s *scanner) lit(t string) {
	if !s.try(t) {
		s.bad = true
	}
}

func (s *scanner) try(t string) bool {
	if s.bad || len(s.in) < len(t) || string(s.in[:len(t)]) != t {
		return false
	}
	s.in = s.in[len(t):]
	return true
}

func (s *scanner) one(of []string) bool {
	for _, t := range of {
		if s.try(t) {
			return true
		}
	}
	return false
}

// name reads an attribute value: a non-empty run of plain characters.
func (s *scanner) name() []byte {
	i := 0
	for i < len(s.in) && i <= maxName && plain(s.in[i]) {
		i++
	}
	if i == 0 || i > maxName {
		s.bad = true
		return nil
	}
	v := s.in[:i:i]
	s.in = s.in[i:]
	return v
}

const maxName = 256

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '/' || c == '.' || c == '-' || c == '_' || c == '#' || c == ':'
}

func (s *scanner) algorithm() algorithm {
	if s.try(algSHA512Attribute) { // what is usual
		return algSHA512
	}
	s.lit(` Algorithm="`)
	a, ok := algorithmByURI(s.name())
	if !ok {
		s.bad = true
	}
	s.lit("\"/>\n")
	return a
}

// optionalMethod reads a value's own digest method, if there is one.
func (s *scanner) optionalMethod(otherwise algorithm) algorithm {
	rest := s.in
	if s.try("            ") && s.try(s.method) {
		return s.algorithm()
	}
	s.in = rest
	return otherwise
}

func (s *scanner) digestValue(indent string, a algorithm, out *Digest) uint8 {
	s.lit(indent)
	s.lit(s.digestOpen)
	if s.bad {
		return 0
	}
	n := base64.StdEncoding.EncodedLen(a.size())
	var buf [sha512.Size + 2]byte
	if len(s.in) < n {
		s.bad = true
		return 0
	}
	// The decoder skips line ends; then the length would not fit.
	if m, err := strictBase64.Decode(buf[:], s.in[:n]); err != nil || m != a.size() {
		s.bad = true
		return 0
	}
	copy(out[:], buf[:a.size()])
	s.in = s.in[n:]
	s.lit(s.digestClose)
	return uint8(a.size())
}

var strictBase64 = base64.StdEncoding.Strict()

func scanResult(doc []byte) (*chainResult, bool) {
	for _, st := range styles {
		s := scanner{style: st, in: doc}
		if !s.try(xmlHead) || !s.one(st.result) {
			continue
		}
		var r chainResult
		r.uri = s.name()
		if !s.one(st.declared) {
			return nil, false
		}
		s.lit("    ")
		s.lit(st.method)
		if r.alg = s.algorithm(); s.bad {
			return nil, false
		}
		r.size = s.digestValue("    ", r.alg, &r.digest)
		s.lit(st.resultClose)
		return &r, !s.bad && len(s.in) == 0
	}
	return nil, false
}

// scanChain reads a chain into c. If it returns false, c is of no use.
func scanChain(doc []byte, c *hashChain) bool {
	for _, st := range styles {
		s := scanner{style: st, in: doc}
		if s.try(xmlHead) && s.one(st.chain) {
			s.chainBody(c)
			return !s.bad && len(s.in) == 0
		}
	}
	return false
}

func (s *scanner) chainBody(c *hashChain) {
	s.lit(s.defaultMethod)
	standard := s.algorithm()
	c.steps, c.values = slices.Grow(c.steps[:0], 4), slices.Grow(c.values[:0], 8)
	for !s.bad && s.try(s.stepOpen) {
		id := s.name()
		s.lit("\">\n")
		from := len(c.values)
		for !s.bad && !s.try(s.stepClose) {
			if len(c.values) == maxChainRefs {
				s.bad = true
				return
			}
			c.values = append(c.values, chainValue{})
			s.value(&c.values[len(c.values)-1], standard)
		}
		if len(c.steps) == maxChainSteps {
			s.bad = true
			return
		}
		c.steps = append(c.steps, chainStep{id, from, len(c.values)})
	}
	s.lit(s.chainClose)
}

func (s *scanner) value(v *chainValue, standard algorithm) {
	switch {
	case s.try(s.refOpen):
		v.kind = stepRef
		v.uri = s.name()
		v.alg = standard
		if s.try("\"/>\n") {
			return
		}
		s.lit("\">\n            ")
		s.lit(s.method)
		v.alg = s.algorithm()
		s.lit(s.refClose)
	case s.try(s.dataOpen):
		v.kind = dataRef
		v.uri = s.name()
		s.lit("\">\n")
		if v.alg = s.optionalMethod(standard); s.bad {
			return
		}
		v.size = s.digestValue("            ", v.alg, &v.digest)
		s.lit(s.dataClose)
	case s.try(s.valueOpen):
		v.kind = hashValue
		if v.alg = s.optionalMethod(standard); s.bad {
			return
		}
		v.size = s.digestValue("            ", v.alg, &v.digest)
		s.lit(s.valueClose)
	default:
		s.bad = true
	}
}

// element is a node of a small foreign document: no mixed content, only
// attributes without a namespace.
type element struct {
	space, local string
	attr         map[string]string
	text         []byte
	children     []*element
}

const xmlSpace = " \t\r\n"

var errForm = errors.New("not of the expected form")

// maxElements bounds foreign documents: every value has at most three.
const maxElements = 4 * maxChainRefs

// readXML reads a small document into a tree. Document types, processing
// instructions and comments are refused, as is text between elements.
func readXML(doc []byte) (*element, error) {
	d := xml.NewDecoder(bytes.NewReader(doc))
	var root *element
	var open []*element
	count := 0
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			count++
			if count > maxElements || len(open) == 8 {
				return nil, fmt.Errorf("%w: too large", errForm)
			}
			e, err := newElement(tok)
			if err != nil {
				return nil, err
			}
			switch {
			case len(open) > 0:
				up := open[len(open)-1]
				up.children = append(up.children, e)
			case root == nil:
				root = e
			default:
				return nil, fmt.Errorf("%w: two roots", errForm)
			}
			open = append(open, e)
		case xml.EndElement:
			e := open[len(open)-1]
			open = open[:len(open)-1]
			if !e.is(nsDSig, "DigestValue") && len(bytes.Trim(e.text, xmlSpace)) > 0 {
				return nil, fmt.Errorf("%w: text in %s", errForm, e.local)
			}
		case xml.CharData:
			if len(open) > 0 {
				up := open[len(open)-1]
				up.text = append(up.text, tok...)
			} else if len(bytes.Trim(tok, xmlSpace)) > 0 {
				return nil, fmt.Errorf("%w: text outside the root", errForm)
			}
		case xml.ProcInst:
			if tok.Target != "xml" || root != nil || count > 0 {
				return nil, fmt.Errorf("%w: processing instruction", errForm)
			}
		default:
			return nil, fmt.Errorf("%w: comment or document type", errForm)
		}
	}
	if root == nil {
		return nil, fmt.Errorf("%w: empty", errForm)
	}
	return root, nil
}

func newElement(t xml.StartElement) (*element, error) {
	e := &element{space: t.Name.Space, local: t.Name.Local, attr: make(map[string]string, len(t.Attr))}
	for i, a := range t.Attr {
		for _, b := range t.Attr[:i] {
			if a.Name == b.Name {
				return nil, fmt.Errorf("%w: attribute %s twice", errForm, a.Name.Local)
			}
		}
		switch {
		case a.Name.Space == "xmlns", a.Name.Space == "" && a.Name.Local == "xmlns":
		case a.Name.Space == "":
			e.attr[a.Name.Local] = a.Value
		default:
			return nil, fmt.Errorf("%w: attribute %s", errForm, a.Name.Local)
		}
	}
	return e, nil
}

func (e *element) is(space, local string) bool { return e.space == space && e.local == local }

// only demands that e has exactly the named attributes.
func (e *element) only(names ...string) error {
	for _, n := range names {
		if _, ok := e.attr[n]; !ok {
			return fmt.Errorf("%w: %s without %s", errForm, e.local, n)
		}
	}
	if len(e.attr) != len(names) {
		return fmt.Errorf("%w: attributes of %s", errForm, e.local)
	}
	return nil
}

func (e *element) leaf() error {
	if len(e.children) > 0 {
		return fmt.Errorf("%w: %s has children", errForm, e.local)
	}
	return nil
}

func digestMethod(e *element) (algorithm, error) {
	if err := e.leaf(); err != nil {
		return algNone, err
	}
	if err := e.only("Algorithm"); err != nil {
		return algNone, err
	}
	a, ok := algorithmByURI(e.attr["Algorithm"])
	if !ok {
		return algNone, fmt.Errorf("%w: digest algorithm %.80q", errForm, e.attr["Algorithm"])
	}
	return a, nil
}

func parseResult(doc []byte) (*chainResult, error) {
	e, err := readXML(doc)
	if err != nil {
		return nil, err
	}
	if !e.is(nsHashChain, "HashChainResult") || len(e.children) != 2 || !e.children[0].is(nsDSig, "DigestMethod") {
		return nil, errForm
	}
	if err := e.only("URI"); err != nil {
		return nil, err
	}
	r := &chainResult{uri: []byte(e.attr["URI"])}
	if r.alg, err = digestMethod(e.children[0]); err != nil {
		return nil, err
	}
	r.size, err = digestOf(e.children[1], r.alg, &r.digest)
	return r, err
}

func digestOf(e *element, a algorithm, out *Digest) (uint8, error) {
	if !e.is(nsDSig, "DigestValue") {
		return 0, fmt.Errorf("%w: %.80s in place of a digest", errForm, e.local)
	}
	if err := e.leaf(); err != nil {
		return 0, err
	}
	if err := e.only(); err != nil {
		return 0, err
	}
	b, err := strictBase64.DecodeString(string(bytes.Join(bytes.Fields(e.text), nil)))
	if err != nil || len(b) != a.size() {
		return 0, fmt.Errorf("%w: digest value", errForm)
	}
	return uint8(copy(out[:], b)), nil
}

func parseChain(doc []byte, c *hashChain) error {
	root, err := readXML(doc)
	if err != nil {
		return err
	}
	if !root.is(nsHashChain, "HashChain") {
		return errForm
	}
	if err := root.only(); err != nil {
		return err
	}
	standard := algNone
	steps := root.children
	if len(steps) > 0 && steps[0].is(nsHashChain, "DefaultDigestMethod") {
		if standard, err = digestMethod(steps[0]); err != nil {
			return err
		}
		steps = steps[1:]
	}
	if len(steps) > maxChainSteps {
		return fmt.Errorf("%w: too many steps", errForm)
	}
	c.steps, c.values = c.steps[:0], c.values[:0]
	for _, s := range steps {
		if !s.is(nsHashChain, "HashStep") {
			return fmt.Errorf("%w: element %.80s", errForm, s.local)
		}
		if err := s.only("id"); err != nil {
			return err
		}
		from := len(c.values)
		if from+len(s.children) > maxChainRefs {
			return fmt.Errorf("%w: too many values", errForm)
		}
		for _, e := range s.children {
			v, err := parseValue(e, standard)
			if err != nil {
				return err
			}
			c.values = append(c.values, v)
		}
		c.steps = append(c.steps, chainStep{[]byte(s.attr["id"]), from, len(c.values)})
	}
	return nil
}

func parseValue(e *element, standard algorithm) (v chainValue, err error) {
	v.alg = standard
	rest := e.children
	if len(rest) > 0 && rest[0].is(nsDSig, "DigestMethod") {
		if v.alg, err = digestMethod(rest[0]); err != nil {
			return v, err
		}
		rest = rest[1:]
	}
	if v.alg == algNone {
		return v, fmt.Errorf("%w: value without a digest algorithm", errForm)
	}
	switch {
	case e.is(nsHashChain, "StepRef"):
		v.kind, v.uri = stepRef, []byte(e.attr["URI"])
		if err := e.only("URI"); err != nil {
			return v, err
		}
		if len(rest) > 0 || len(v.uri) < 2 || v.uri[0] != '#' {
			return v, fmt.Errorf("%w: step reference %.80q", errForm, v.uri)
		}
		v.uri = v.uri[1:]
		return v, nil
	case e.is(nsHashChain, "DataRef"):
		v.kind, v.uri = dataRef, []byte(e.attr["URI"])
		err = e.only("URI")
	case e.is(nsHashChain, "HashValue"):
		v.kind = hashValue
		err = e.only()
	default:
		err = fmt.Errorf("%w: element %.80s", errForm, e.local)
	}
	if err != nil {
		return v, err
	}
	if len(rest) != 1 { // a transform would stand here
		return v, fmt.Errorf("%w: content of %s", errForm, e.local)
	}
	v.size, err = digestOf(rest[0], v.alg, &v.digest)
	return v, err
}
