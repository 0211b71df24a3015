// SPDX-License-Identifier: Apache-2.0

package message

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"unicode/utf8"
)

// Limits of XML documents. No service comes near them.
const (
	maxDepth      = 256
	maxAttributes = 128 // of one element
	maxBindings   = 256 // of prefixes, in scope at once
)

// token is what scanner.next found.
type token uint8

const (
	failed token = iota // the reason is in err
	startTag
	endTag
	text // character data or a CDATA section
	documentEnd
)

// scanner reads XML 1.0 with namespaces from memory, without a tree and without
// copying. It checks that the whole document is well formed, prefixes and
// attributes included, and takes what SOAP 1.1 allows: no document type
// declaration, no processing instruction, hence no entities but the five. The
// encoding is UTF-8.
type scanner struct {
	b      []byte
	origin int // where the document starts, after a byte order mark
	i      int
	err    error

	open   [maxDepth]element
	depth  int
	empty  bool // the start tag just read was "<…/>"; its end follows
	begun  bool // the document element has been seen
	attrs  []attribute
	ns     []binding
	recent struct { // the prefix looked up last, until bindings change
		from, to int
		uri      []byte
	}

	// The current token.
	from, to int  // all of it; of text the content only
	name     name // of a start tag
	plain    bool // text: the bytes are the characters
	cdata    bool // text: a CDATA section
}

// name is a qualified name in the document.
type name struct {
	from, local, to int // from == local if there is no prefix
}

type element struct {
	from, to int // its name, with prefix
	bindings int // how many there were around it
}

type attribute struct {
	name     name
	from, to int  // value
	special  bool // the value has references or white space other than blanks
}

type binding struct {
	prefix []byte // empty: the default namespace
	uri    []byte
}

const xmlNamespace = "http://www.w3.org/XML/1998/namespace"

// reset starts a document. A byte order mark is passed over.
func (s *scanner) reset(b []byte) {
	s.b, s.origin, s.err = b, 0, nil
	s.depth, s.empty, s.begun = 0, false, false
	s.attrs, s.ns = s.attrs[:0], s.ns[:0]
	s.recent.from, s.recent.to, s.recent.uri = 0, 0, nil
	s.cdata = false
	if bytes.HasPrefix(b, []byte("\uFEFF")) {
		s.origin = 3
	}
	s.i = s.origin
}

// release forgets the document.
func (s *scanner) release() {
	s.b, s.err, s.recent.uri = nil, nil, nil
	clear(s.ns[:cap(s.ns)])
}

func (s *scanner) fail(format string, args ...any) token {
	if s.err == nil {
		s.err = fmt.Errorf("%w: %s, at byte %d", ErrXML, fmt.Sprintf(format, args...), s.i)
	}
	return failed
}

// next reads one token. Comments are passed over.
func (s *scanner) next() token {
	if s.empty {
		s.empty = false
		s.from = s.to
		return s.pop()
	}
	for {
		b, i := s.b, s.i
		if i >= len(b) {
			if s.depth > 0 || !s.begun {
				return s.fail("the document ends too early")
			}
			return documentEnd
		}
		if b[i] != '<' {
			if t := s.text(); t != text || s.depth > 0 {
				return t
			}
			if !blank(b[s.from:s.to]) {
				return s.fail("text outside the document element")
			}
			continue
		}
		if i+1 >= len(b) {
			return s.fail("the document ends in a tag")
		}
		switch b[i+1] {
		case '/':
			return s.end()
		case '!':
			if bytes.HasPrefix(b[i:], []byte("<!--")) {
				if !s.comment() {
					return failed
				}
				continue
			}
			if bytes.HasPrefix(b[i:], []byte("<![CDATA[")) && s.depth > 0 {
				return s.section()
			}
			return s.fail("document type declarations and the like are not allowed")
		case '?':
			if i != s.origin || !s.declaration() {
				return s.fail("processing instructions are not allowed")
			}
		default:
			return s.start()
		}
	}
}

// Words of eight equal bytes, for looking at eight bytes at once.
const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones

	angleBit = '<' ^ '>' // the one bit in which they differ
)

// text reads character data up to a tag. Eight bytes at a time are passed if
// none needs a look: controls, markup and what is not ASCII.
func (s *scanner) text() token {
	b, i := s.b, s.i
	s.from, s.plain, s.cdata = i, true, false
	for {
		for i+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[i:])
			angle := (w | angleBit*ones) ^ '>'*ones
			amp := w ^ '&'*ones
			// The lowest bit that is set tells the first such byte exactly.
			hit := ((angle-ones)&^angle | (amp-ones)&^amp | (w-' '*ones)&^w | w) & highs
			if hit != 0 {
				i += bits.TrailingZeros64(hit) >> 3
				break
			}
			i += 8
		}
		if i >= len(b) {
			break
		}
		c := b[i]
		if c == '<' {
			break
		}
		switch {
		case c == '&':
			n := reference(b[i:])
			if n == 0 {
				s.i = i
				return s.fail("unknown entity or malformed reference")
			}
			s.plain = false
			i += n
		case c == '>':
			if i-s.from >= 2 && b[i-1] == ']' && b[i-2] == ']' {
				s.i = i
				return s.fail("]]> in text")
			}
			i++
		case c == '\r':
			s.plain = false
			i++
		case c == '\n', c == '\t', ' ' <= c && c < utf8.RuneSelf:
			i++
		default:
			n := character(b[i:])
			if n == 0 {
				s.i = i
				return s.fail("illegal character")
			}
			i += n
		}
	}
	s.i, s.to = i, i
	return text
}

// character returns the length of the character at the start of b, or 0 if XML
// has no such character.
func character(b []byte) int {
	c := b[0]
	if c < utf8.RuneSelf {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' {
			return 0
		}
		return 1
	}
	r, n := utf8.DecodeRune(b)
	if r == utf8.RuneError && n == 1 || r == 0xFFFE || r == 0xFFFF {
		return 0
	}
	return n
}

// characters reports whether b has nothing but characters of XML.
func characters(b []byte) bool {
	for i := 0; i < len(b); {
		if i+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[i:])
			if ((w-' '*ones)&^w|w)&highs == 0 {
				i += 8
				continue
			}
		}
		n := character(b[i:])
		if n == 0 {
			return false
		}
		i += n
	}
	return true
}

// reference returns the length of the reference at the start of b, or 0 if it
// is none that is allowed.
func reference(b []byte) int {
	_, n := resolve(b)
	return n
}

// resolve returns the character that the reference at the start of b stands
// for, and its length, or 0.
func resolve(b []byte) (rune, int) {
	end := bytes.IndexByte(b[:min(len(b), 12)], ';')
	if end < 0 {
		return 0, 0
	}
	switch ref := b[1:end]; string(ref) {
	case "lt":
		return '<', end + 1
	case "gt":
		return '>', end + 1
	case "amp":
		return '&', end + 1
	case "quot":
		return '"', end + 1
	case "apos":
		return '\'', end + 1
	default:
		if len(ref) < 2 || ref[0] != '#' {
			return 0, 0
		}
		base, digits := rune(10), ref[1:]
		if digits[0] == 'x' {
			base, digits = 16, digits[1:]
		}
		if len(digits) == 0 {
			return 0, 0
		}
		var r rune
		for _, c := range digits { // at most nine, and r stays below 0x110000·16
			d := rune(16)
			switch {
			case '0' <= c && c <= '9':
				d = rune(c - '0')
			case 'a' <= c && c <= 'f':
				d = rune(c-'a') + 10
			case 'A' <= c && c <= 'F':
				d = rune(c-'A') + 10
			}
			if d >= base {
				return 0, 0
			}
			if r = r*base + d; r > utf8.MaxRune {
				return 0, 0
			}
		}
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || 0xD800 <= r && r < 0xE000 || r == 0xFFFE || r == 0xFFFF {
			return 0, 0
		}
		return r, end + 1
	}
}

// unescape appends b with references resolved and line ends as XML has them. In
// attributes white space becomes blanks.
func unescape(dst, b []byte, references, attribute bool) []byte {
	for i := 0; i < len(b); {
		switch c := b[i]; {
		case c == '&' && references:
			r, n := resolve(b[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		case c == '\r' && i+1 < len(b) && b[i+1] == '\n': // the line feed counts
		case attribute && (c == '\r' || c == '\n' || c == '\t'):
			dst = append(dst, ' ')
		case c == '\r':
			dst = append(dst, '\n')
		default:
			dst = append(dst, c)
		}
		i++
	}
	return dst
}

// comment passes over a comment.
func (s *scanner) comment() bool {
	from := s.i + len("<!--")
	n := bytes.Index(s.b[from:], []byte("--"))
	if n < 0 || from+n+2 >= len(s.b) || s.b[from+n+2] != '>' {
		s.fail("comment without end, or with two hyphens in it")
		return false
	}
	if !characters(s.b[from : from+n]) {
		s.fail("illegal character in a comment")
		return false
	}
	s.i = from + n + len("-->")
	return true
}

// section reads a CDATA section.
func (s *scanner) section() token {
	s.from = s.i + len("<![CDATA[")
	n := bytes.Index(s.b[s.from:], []byte("]]>"))
	if n < 0 {
		return s.fail("CDATA section without end")
	}
	s.to = s.from + n
	content := s.b[s.from:s.to]
	if !characters(content) {
		return s.fail("illegal character in a CDATA section")
	}
	s.plain, s.cdata = bytes.IndexByte(content, '\r') < 0, true
	s.i = s.to + len("]]>")
	return text
}

// declaration passes over the XML declaration.
func (s *scanner) declaration() bool {
	end := bytes.Index(s.b[s.i:], []byte("?>"))
	if end < 0 || end > 200 || !bytes.HasPrefix(s.b[s.i:], []byte("<?xml")) {
		return false
	}
	rest := string(s.b[s.i+len("<?xml") : s.i+end])
	version, rest, ok := pseudoAttribute(rest, "version")
	if !ok || version != "1.0" {
		s.fail("XML declaration without version 1.0")
		return false
	}
	if encoding, after, ok := pseudoAttribute(rest, "encoding"); ok {
		if rest = after; !strings.EqualFold(encoding, "UTF-8") {
			s.fail("the encoding must be UTF-8")
			return false
		}
	}
	if alone, after, ok := pseudoAttribute(rest, "standalone"); ok {
		if rest = after; alone != "yes" && alone != "no" {
			s.fail("malformed XML declaration")
			return false
		}
	}
	if !blank([]byte(rest)) {
		s.fail("malformed XML declaration")
		return false
	}
	s.i += end + len("?>")
	return true
}

// pseudoAttribute cuts the named item off the front of an XML declaration.
func pseudoAttribute(s, name string) (value, rest string, ok bool) {
	const space = " \t\r\n"
	t := strings.TrimLeft(s, space)
	if len(t) == len(s) || !strings.HasPrefix(t, name) {
		return "", s, false
	}
	t = strings.TrimLeft(t[len(name):], space)
	if !strings.HasPrefix(t, "=") {
		return "", s, false
	}
	t = strings.TrimLeft(t[1:], space)
	if t == "" || t[0] != '"' && t[0] != '\'' {
		return "", s, false
	}
	value, rest, ok = strings.Cut(t[1:], t[:1])
	return value, rest, ok
}

// start reads a start tag.
func (s *scanner) start() token {
	b := s.b
	s.from = s.i
	if s.depth == 0 && s.begun {
		return s.fail("more than one document element")
	}
	if s.depth == maxDepth {
		return s.fail("elements nested deeper than %d", maxDepth)
	}
	s.begun = true
	i := s.qname(s.i+1, &s.name)
	if i < 0 {
		return failed
	}
	s.attrs = s.attrs[:0]
	bindings := len(s.ns)
	if i < len(b) && b[i] == '>' {
		i++
	} else if i = s.attributes(i); i < 0 {
		return failed
	}
	s.i, s.to = i, i
	if s.name.local > s.name.from {
		if _, ok := s.lookup(s.name); !ok {
			return s.fail("undeclared prefix")
		}
	}
	s.open[s.depth] = element{s.name.from, s.name.to, bindings}
	s.depth++
	return startTag
}

// attributes reads what follows the name of an element, up to and including the
// end of the tag. It returns the index after it, or -1.
func (s *scanner) attributes(i int) int {
	b := s.b
	bindings := len(s.ns)
	for {
		from := i
		i = space(b, i)
		if i >= len(b) {
			s.fail("the document ends in a tag")
			return -1
		}
		if b[i] == '>' {
			i++
			break
		}
		if b[i] == '/' {
			if i+1 >= len(b) || b[i+1] != '>' {
				s.i = i
				s.fail("malformed tag")
				return -1
			}
			s.empty = true
			i += 2
			break
		}
		if i == from {
			s.i = i
			s.fail("malformed tag")
			return -1
		}
		if i = s.attribute(i); i < 0 {
			return -1
		}
	}
	if !s.distinct(bindings) {
		return -1
	}
	return i
}

// attribute reads one attribute, and binds its prefix if it declares one.
func (s *scanner) attribute(i int) int {
	b := s.b
	var a attribute
	if i = s.qname(i, &a.name); i < 0 {
		return -1
	}
	i = space(b, i)
	if i >= len(b) || b[i] != '=' {
		s.i = i
		s.fail("attribute without a value")
		return -1
	}
	i = space(b, i+1)
	if i >= len(b) || b[i] != '"' && b[i] != '\'' {
		s.i = i
		s.fail("attribute value without quotes")
		return -1
	}
	quote := b[i]
	i++
	a.from = i
	for {
		for i < len(b) && xmlClass[b[i]]&valueByte != 0 {
			i++
		}
		if i >= len(b) {
			s.fail("the document ends in an attribute")
			return -1
		}
		c := b[i]
		if c == quote {
			break
		}
		n := 0
		switch {
		case c == '"' || c == '\'':
			n = 1
		case c == '<':
		case c == '&':
			n = reference(b[i:])
			a.special = true
		case c == '\t' || c == '\n' || c == '\r':
			n = 1
			a.special = true
		default:
			n = character(b[i:])
		}
		if n == 0 {
			s.i = i
			s.fail("illegal character in an attribute")
			return -1
		}
		i += n
	}
	a.to = i
	if len(s.attrs) == maxAttributes {
		s.fail("more than %d attributes", maxAttributes)
		return -1
	}
	s.attrs = append(s.attrs, a)
	if !s.bind(a) {
		return -1
	}
	return i + 1
}

// bind takes note of a namespace declaration.
func (s *scanner) bind(a attribute) bool {
	var prefix []byte
	switch full := s.b[a.name.from:a.name.to]; {
	case a.name.local == a.name.from:
		if string(full) != "xmlns" {
			return true
		}
	case string(s.b[a.name.from:a.name.local-1]) == "xmlns":
		prefix = s.b[a.name.local:a.name.to]
	default:
		return true
	}
	uri := s.attributeValue(a)
	switch {
	case string(prefix) == "xmlns", (string(prefix) == "xml") != (string(uri) == xmlNamespace),
		string(uri) == "http://www.w3.org/2000/xmlns/", prefix != nil && len(uri) == 0:
		s.fail("illegal namespace declaration")
		return false
	case len(s.ns) == maxBindings:
		s.fail("more than %d namespace declarations", maxBindings)
		return false
	}
	s.ns = append(s.ns, binding{prefix, uri})
	s.recent.uri = nil
	return true
}

// attributeValue returns the value of an attribute; a copy if it had to be
// unescaped.
func (s *scanner) attributeValue(a attribute) []byte {
	if !a.special {
		return s.b[a.from:a.to:a.to]
	}
	return unescape(nil, s.b[a.from:a.to], true, true)
}

// distinct checks that the prefixes of the attributes are declared and that no
// two attributes are the same.
func (s *scanner) distinct(bindings int) bool {
	for k := range s.attrs {
		a := s.attrs[k].name
		var uri []byte
		if a.local > a.from && !s.declares(a) {
			var ok bool
			if uri, ok = s.lookup(a); !ok {
				s.fail("undeclared prefix of an attribute")
				return false
			}
		}
		for _, other := range s.attrs[:k] {
			o := other.name
			switch {
			case string(s.b[a.local:a.to]) != string(s.b[o.local:o.to]):
				continue
			case string(s.b[a.from:a.local]) == string(s.b[o.from:o.local]):
			case uri == nil || o.local == o.from || s.declares(o):
				continue
			default:
				if theirs, _ := s.lookup(o); !bytes.Equal(uri, theirs) {
					continue
				}
			}
			s.fail("attribute occurs twice")
			return false
		}
	}
	return true
}

// declares reports whether an attribute with a prefix declares a namespace.
func (s *scanner) declares(n name) bool {
	return string(s.b[n.from:n.local-1]) == "xmlns"
}

// lookup returns the namespace of a name's prefix.
func (s *scanner) lookup(n name) ([]byte, bool) {
	prefix := s.b[n.from:max(n.from, n.local-1)]
	if s.recent.uri != nil && string(s.b[s.recent.from:s.recent.to]) == string(prefix) {
		return s.recent.uri, true
	}
	for k := len(s.ns) - 1; k >= 0; k-- {
		if string(s.ns[k].prefix) == string(prefix) {
			s.recent.from, s.recent.to, s.recent.uri = n.from, n.from+len(prefix), s.ns[k].uri
			return s.ns[k].uri, true
		}
	}
	if string(prefix) == "xml" {
		return []byte(xmlNamespace), true
	}
	return nil, len(prefix) == 0
}

// space returns the namespace of the start tag just read.
func (s *scanner) space() []byte {
	uri, _ := s.lookup(s.name)
	return uri
}

// is reports whether the start tag just read has that name.
func (s *scanner) is(space, local string) bool {
	if string(s.b[s.name.local:s.name.to]) != local {
		return false
	}
	uri, _ := s.lookup(s.name)
	return string(uri) == space
}

// attr returns the value of an attribute of the start tag just read, nil if
// there is none.
func (s *scanner) attr(space, local string) []byte {
	for _, a := range s.attrs {
		if a.name.local == a.name.from || string(s.b[a.name.local:a.name.to]) != local || s.declares(a.name) {
			continue
		}
		if uri, _ := s.lookup(a.name); string(uri) == space {
			return s.attributeValue(a)
		}
	}
	return nil
}

// end reads an end tag.
func (s *scanner) end() token {
	b := s.b
	s.from = s.i
	if s.depth == 0 {
		return s.fail("end tag without a start tag")
	}
	o := &s.open[s.depth-1]
	i, n := s.i+2, o.to-o.from
	if i+n >= len(b) || string(b[i:i+n]) != string(b[o.from:o.to]) {
		return s.fail("end tag of another element")
	}
	if i += n; b[i] != '>' {
		if i = space(b, i); i >= len(b) || b[i] != '>' {
			return s.fail("malformed end tag")
		}
	}
	s.i, s.to = i+1, i+1
	return s.pop()
}

func (s *scanner) pop() token {
	s.depth--
	if n := s.open[s.depth].bindings; n < len(s.ns) {
		s.ns = s.ns[:n]
		s.recent.uri = nil
	}
	return endTag
}

// skip reads to the end of the element whose start tag was just read.
func (s *scanner) skip() bool {
	for depth := s.depth; ; {
		switch s.next() {
		case failed:
			return false
		case endTag:
			if s.depth < depth {
				return true
			}
		}
	}
}

// qname reads a name that may have a prefix. It returns the index after it, or
// -1.
func (s *scanner) qname(i int, n *name) int {
	n.from, n.local = i, i
	end := ncName(s.b, i)
	if end > i && end < len(s.b) && s.b[end] == ':' {
		n.local = end + 1
		end = ncName(s.b, n.local)
	}
	if n.to = end; end == n.local || end < len(s.b) && s.b[end] == ':' {
		s.i = i
		s.fail("malformed name")
		return -1
	}
	return end
}

// ncName returns the index after the name without colon at i; i if there is
// none.
func ncName(b []byte, i int) int {
	if i < len(b) && xmlClass[b[i]]&nameStart == 0 {
		return i
	}
	for {
		for i < len(b) && xmlClass[b[i]]&nameByte != 0 {
			i++
		}
		if i == len(b) || b[i] < utf8.RuneSelf {
			return i
		}
		r, n := utf8.DecodeRune(b[i:])
		if !letter(r) {
			return i
		}
		i += n
	}
}

// letters are those outside ASCII that names may have: ranges that all editions
// of XML 1.0, and hence all parsers, agree on.
var letters = [...][2]rune{
	{0xC0, 0xD6}, {0xD8, 0xF6}, {0xF8, 0x131}, {0x134, 0x13E}, {0x141, 0x148}, {0x14A, 0x17E}, {0x180, 0x1C3},
	{0x388, 0x38A}, {0x38E, 0x3A1}, {0x3A3, 0x3CE}, {0x401, 0x40C}, {0x40E, 0x44F}, {0x451, 0x45C}, {0x45E, 0x481},
	{0x531, 0x556}, {0x561, 0x586}, {0x5D0, 0x5EA}, {0x621, 0x63A}, {0x641, 0x64A}, {0x905, 0x939}, {0xE01, 0xE2E},
	{0x10A0, 0x10C5}, {0x10D0, 0x10F6}, {0x3041, 0x3094}, {0x30A1, 0x30FA}, {0x4E00, 0x9FA5}, {0xAC00, 0xD7A3},
}

func letter(r rune) bool {
	for _, l := range letters {
		if r <= l[1] {
			return r >= l[0]
		}
	}
	return false
}

// Character classes of XML.
const (
	nameStart byte = 1 << iota // or the first byte of a letter outside ASCII
	nameByte
	valueByte // in an attribute value, needs no look
	spaceByte
)

var xmlClass = func() (t [256]byte) {
	for c := range t {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
			t[c] |= nameStart | nameByte
		case '0' <= c && c <= '9', c == '-', c == '.':
			t[c] |= nameByte
		case c == ' ', c == '\t', c == '\n', c == '\r':
			t[c] |= spaceByte
		case c >= utf8.RuneSelf:
			t[c] |= nameStart
		}
		if c >= ' ' && c < utf8.RuneSelf && c != '<' && c != '&' && c != '"' && c != '\'' {
			t[c] |= valueByte
		}
	}
	return t
}()

func space(b []byte, i int) int {
	for i < len(b) && xmlClass[b[i]]&spaceByte != 0 {
		i++
	}
	return i
}

// blank reports whether b is white space only.
func blank(b []byte) bool { return space(b, 0) == len(b) }
