// SPDX-License-Identifier: Apache-2.0

package globalconf

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	nsXRoad = "http://x-road.eu/xsd/xroad.xsd"
	nsID    = "http://x-road.eu/xsd/identifiers"
	nsXSI   = "http://www.w3.org/2001/XMLSchema-instance"
	nsXML   = "http://www.w3.org/XML/1998/namespace"
	nsXMLNS = "http://www.w3.org/2000/xmlns/"

	maxDepth = 32 // the schemas need 6; extensions may nest deeper
	maxAttrs = 32
)

// scanner reads the subset of XML that schema-valid configuration documents
// need: UTF-8, no DOCTYPE, no processing instructions, ASCII names. Strings it
// returns share the document's memory. The first error sticks; afterwards every
// method returns its zero value, so that decoders need no error checks of their
// own.
//
// encoding/xml takes seconds for a configuration of 100,000 subsystems and is
// laxer; the tests compare the two.
type scanner struct {
	s   string
	pos int
	err error

	escapes bool // the document contains an ampersand
	returns bool // … a carriage return
	cdEnd   bool // … the sequence ]]>

	open  []element
	scope []binding

	peeked bool // tag holds a start tag that was read but not entered
	tag    tag
}

type element struct {
	qname  string
	scope  int // length of the scope outside of the element
	closed bool
}

type binding struct{ prefix, uri string }

type tag struct {
	qname, space, local string
	pos                 int // of its '<'
	attrs               []attr
	scope               int
	closed              bool
}

type attr struct{ prefix, space, local, value string }

func newScanner(doc string) *scanner {
	d := &scanner{s: strings.TrimPrefix(doc, "\uFEFF")}
	d.check()
	d.declaration()
	return d
}

// check refuses what no XML document may contain and notes what occurs at all.
func (d *scanner) check() {
	if !utf8.ValidString(d.s) || strings.Contains(d.s, "\uFFFE") || strings.Contains(d.s, "\uFFFF") {
		d.fail("not UTF-8 text")
		return
	}
	for i := 0; i < len(d.s); i++ {
		if c := d.s[i]; c < ' ' {
			switch c {
			case '\n', '\t':
			case '\r':
				d.returns = true
			default:
				d.pos = i
				d.fail("control character %#x", c)
				return
			}
		}
	}
	d.escapes = strings.IndexByte(d.s, '&') >= 0
	d.cdEnd = strings.Contains(d.s, "]]>")
}

func (d *scanner) declaration() {
	if d.err != nil || !strings.HasPrefix(d.s, "<?xml") || len(d.s) > 5 && isName(d.s[5]) {
		return
	}
	body, _, ok := strings.Cut(d.s[:min(len(d.s), 256)], "?>")
	if !ok {
		d.fail("unterminated XML declaration")
		return
	}
	d.pos = len(body) + 2
	rest := body[5:]
	next := func(name string) string {
		trimmed := strings.TrimLeft(rest, " \t\r\n")
		after, ok := strings.CutPrefix(trimmed, name)
		if !ok || len(trimmed) == len(rest) {
			return ""
		}
		after, ok = strings.CutPrefix(strings.TrimLeft(after, " \t\r\n"), "=")
		after = strings.TrimLeft(after, " \t\r\n")
		if !ok || after == "" || after[0] != '"' && after[0] != '\'' {
			return ""
		}
		v, tail, ok := strings.Cut(after[1:], after[:1])
		if !ok {
			return ""
		}
		rest = tail
		return v
	}
	version, encoding, standalone := next("version"), next("encoding"), next("standalone")
	if version != "1.0" || encoding != "" && !strings.EqualFold(encoding, "UTF-8") ||
		standalone != "" && standalone != "yes" && standalone != "no" || strings.Trim(rest, " \t\r\n") != "" {
		d.fail("XML declaration %q is not supported", body+"?>")
	}
}

func (d *scanner) fail(format string, args ...any) {
	if d.err == nil {
		pos := min(d.pos, len(d.s))
		d.err = fmt.Errorf("%w: line %d: %s", ErrMalformed, 1+strings.Count(d.s[:pos], "\n"), fmt.Sprintf(format, args...))
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func isNameStart(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
}

func isName(c byte) bool {
	return isNameStart(c) || '0' <= c && c <= '9' || c == '-' || c == '.'
}

func (d *scanner) space() bool {
	start := d.pos
	for d.pos < len(d.s) && isSpace(d.s[d.pos]) {
		d.pos++
	}
	return d.pos > start
}

// qname reads prefix:local.
func (d *scanner) qname() (qname, prefix, local string) {
	start, colon := d.pos, -1
	for ; d.pos < len(d.s); d.pos++ {
		c := d.s[d.pos]
		if c == ':' && colon < 0 && d.pos > start {
			colon = d.pos
			continue
		}
		if !isName(c) || (d.pos == start || d.pos == colon+1) && !isNameStart(c) {
			break
		}
	}
	qname = d.s[start:d.pos]
	if colon >= 0 {
		prefix, local = d.s[start:colon], d.s[colon+1:d.pos]
	} else {
		local = qname
	}
	if local == "" {
		d.fail("name expected")
	}
	return qname, prefix, local
}

func (d *scanner) lookup(prefix string) string {
	for i := len(d.scope) - 1; i >= 0; i-- {
		if d.scope[i].prefix == prefix {
			return d.scope[i].uri
		}
	}
	switch prefix {
	case "":
		return ""
	case "xml":
		return nsXML
	}
	d.fail("undeclared namespace prefix %q", prefix)
	return ""
}

// comment skips one comment.
func (d *scanner) comment() {
	end := strings.Index(d.s[d.pos+4:], "--")
	if end < 0 || !strings.HasPrefix(d.s[d.pos+4+end:], "-->") {
		d.fail("bad comment")
		return
	}
	d.pos += 4 + end + 3
}

// next reports whether the next thing is a start tag, and reads it into d.tag.
// Between elements only white space and comments may stand.
func (d *scanner) next() bool {
	if d.err != nil {
		return false
	}
	if d.peeked {
		return true
	}
	if n := len(d.open); n > 0 && d.open[n-1].closed {
		return false
	}
	for {
		d.space()
		rest := d.s[d.pos:]
		switch {
		case rest == "":
			if len(d.open) > 0 {
				d.fail("unexpected end of document")
			}
			return false
		case rest[0] != '<':
			d.fail("unexpected text")
			return false
		case strings.HasPrefix(rest, "</"):
			return false
		case strings.HasPrefix(rest, "<!--"):
			if d.comment(); d.err != nil {
				return false
			}
		case strings.HasPrefix(rest, "<!DOCTYPE"):
			d.fail("DOCTYPE is refused")
			return false
		case strings.HasPrefix(rest, "<!"), strings.HasPrefix(rest, "<?"):
			d.fail("unexpected markup")
			return false
		default:
			d.start()
			return d.err == nil
		}
	}
}

// start reads a start tag; d.pos is at its '<'.
func (d *scanner) start() {
	t := &d.tag
	t.pos = d.pos
	d.pos++
	var prefix string
	t.qname, prefix, t.local = d.qname()
	t.attrs, t.scope, t.closed = t.attrs[:0], len(d.scope), false
	for d.err == nil {
		spaced := d.space()
		if d.pos >= len(d.s) {
			d.fail("unexpected end of document")
			return
		}
		if d.s[d.pos] == '>' {
			d.pos++
			break
		}
		if strings.HasPrefix(d.s[d.pos:], "/>") {
			d.pos += 2
			t.closed = true
			break
		}
		if !spaced {
			d.fail("white space expected in a tag")
			return
		}
		d.attribute(t)
	}
	if d.err != nil {
		return
	}
	t.space = d.lookup(prefix)
	for i := range t.attrs {
		if a := &t.attrs[i]; a.prefix != "" {
			a.space = d.lookup(a.prefix)
		}
		for _, b := range t.attrs[:i] {
			if b.local == t.attrs[i].local && b.space == t.attrs[i].space {
				d.fail("attribute %s occurs twice", b.local)
			}
		}
	}
	d.peeked = d.err == nil
}

func (d *scanner) attribute(t *tag) {
	qname, prefix, local := d.qname()
	if d.err != nil {
		return
	}
	d.space()
	if d.pos >= len(d.s) || d.s[d.pos] != '=' {
		d.fail("attribute %s has no value", qname)
		return
	}
	d.pos++
	d.space()
	if d.pos >= len(d.s) || d.s[d.pos] != '"' && d.s[d.pos] != '\'' {
		d.fail("attribute %s is not quoted", qname)
		return
	}
	end := strings.IndexByte(d.s[d.pos+1:], d.s[d.pos])
	if end < 0 {
		d.fail("attribute %s is not terminated", qname)
		return
	}
	raw := d.s[d.pos+1 : d.pos+1+end]
	if strings.IndexByte(raw, '<') >= 0 {
		d.fail("'<' in attribute %s", qname)
		return
	}
	value := d.unescape(raw, true)
	d.pos += end + 2
	switch {
	case prefix == "xmlns":
		if value == "" || value == nsXMLNS || (value == nsXML) != (local == "xml") || local == "xmlns" {
			d.fail("bad namespace declaration %s", qname)
		}
		d.bind(t, local, value)
	case prefix == "" && local == "xmlns":
		if value == nsXMLNS || value == nsXML {
			d.fail("bad namespace declaration %s", qname)
		}
		d.bind(t, "", value)
	case len(t.attrs) == maxAttrs:
		d.fail("too many attributes")
	default:
		t.attrs = append(t.attrs, attr{prefix: prefix, local: local, value: value})
	}
}

func (d *scanner) bind(t *tag, prefix, uri string) {
	if len(d.scope)-t.scope == maxAttrs {
		d.fail("too many namespace declarations")
	}
	for _, b := range d.scope[t.scope:] {
		if b.prefix == prefix {
			d.fail("namespace prefix %q is declared twice", prefix)
		}
	}
	d.scope = append(d.scope, binding{prefix, uri})
}

// unescape resolves references and normalises line ends, and white space too in
// attribute values.
func (d *scanner) unescape(raw string, attribute bool) string {
	if !attribute && d.cdEnd && strings.Contains(raw, "]]>") {
		d.fail("\"]]>\" in text")
	}
	if (!d.escapes || strings.IndexByte(raw, '&') < 0) && (!d.returns || strings.IndexByte(raw, '\r') < 0) &&
		(!attribute || strings.IndexByte(raw, '\n') < 0 && strings.IndexByte(raw, '\t') < 0) {
		return raw
	}
	b := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '&':
			end := strings.IndexByte(raw[i:min(len(raw), i+12)], ';')
			if end < 0 {
				d.fail("bad reference")
				return ""
			}
			b = d.reference(b, raw[i+1:i+end])
			i += end
		case c == '\r' && i+1 < len(raw) && raw[i+1] == '\n':
		case attribute && isSpace(c):
			b = append(b, ' ')
		case c == '\r':
			b = append(b, '\n')
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

func (d *scanner) reference(b []byte, name string) []byte {
	switch name {
	case "lt":
		return append(b, '<')
	case "gt":
		return append(b, '>')
	case "amp":
		return append(b, '&')
	case "quot":
		return append(b, '"')
	case "apos":
		return append(b, '\'')
	}
	digits, base := "", 10
	if hex, ok := strings.CutPrefix(name, "#x"); ok {
		digits, base = hex, 16
	} else if dec, ok := strings.CutPrefix(name, "#"); ok {
		digits = dec
	}
	// ParseUint takes no sign, and an underscore only with base 0.
	n, err := strconv.ParseUint(digits, base, 32)
	if r := rune(n); err == nil && n <= utf8.MaxRune && utf8.ValidRune(r) &&
		(r >= ' ' || r == '\n' || r == '\t' || r == '\r') && r != 0xFFFE && r != 0xFFFF {
		return utf8.AppendRune(b, r)
	}
	d.fail("bad reference &%s;", name)
	return b
}

// at reports whether the next child is the unqualified element local.
func (d *scanner) at(local string) bool {
	return d.next() && d.tag.local == local && d.tag.space == ""
}

// enter consumes the start tag just seen. The attribute named here is returned;
// any other but a schema location is refused.
func (d *scanner) enter(space, local string) (value string, ok bool) {
	if d.err != nil {
		return "", false
	}
	t := &d.tag
	for _, a := range t.attrs {
		switch {
		case a.local == local && a.space == space && local != "":
			value, ok = a.value, true
		case a.space == nsXSI && (a.local == "schemaLocation" || a.local == "noNamespaceSchemaLocation"):
		default:
			d.fail("attribute %s is not allowed at %s", a.local, t.local)
			return "", false
		}
	}
	d.push()
	return value, ok
}

func (d *scanner) push() {
	if len(d.open) == maxDepth {
		d.fail("nested too deeply")
		return
	}
	d.open = append(d.open, element{d.tag.qname, d.tag.scope, d.tag.closed})
	d.peeked = false
}

// root enters the document element.
func (d *scanner) root(local string) {
	if d.err == nil && (!d.next() || d.tag.local != local || d.tag.space != nsXRoad) {
		d.fail("root element %s expected", local)
	}
	d.enter("", "")
}

// leave consumes the end tag of the innermost open element.
func (d *scanner) leave() {
	if d.next() {
		d.fail("element %s is not expected here", d.tag.qname)
	}
	d.end()
}

func (d *scanner) end() {
	if d.err != nil {
		return
	}
	e := d.open[len(d.open)-1]
	if !e.closed {
		rest, ok := strings.CutPrefix(d.s[d.pos:], "</")
		if ok {
			rest, ok = strings.CutPrefix(rest, e.qname)
		}
		if ok {
			d.pos = len(d.s) - len(rest)
			d.space()
			ok = d.pos < len(d.s) && d.s[d.pos] == '>'
		}
		if !ok {
			d.fail("end of %s expected", e.qname)
			return
		}
		d.pos++
	}
	d.scope = d.scope[:e.scope]
	d.open = d.open[:len(d.open)-1]
}

// finish leaves the document element and demands the end of the document.
func (d *scanner) finish() error {
	d.leave()
	if d.err == nil && (d.next() || d.pos < len(d.s)) {
		d.fail("content after the root element")
	}
	return d.err
}

// text reads the content of a simple element just entered, and its end tag.
func (d *scanner) text() string {
	if d.err != nil {
		return ""
	}
	if d.open[len(d.open)-1].closed {
		d.end()
		return ""
	}
	first, more := "", []byte(nil) // one piece stays a substring
	add := func(s string) {
		if first == "" && more == nil {
			first = s
			return
		}
		if more == nil {
			more = append(more, first...)
		}
		more = append(more, s...)
	}
	for d.err == nil {
		i := strings.IndexByte(d.s[d.pos:], '<')
		if i < 0 {
			d.fail("unexpected end of document")
			return ""
		}
		add(d.unescape(d.s[d.pos:d.pos+i], false))
		d.pos += i
		rest := d.s[d.pos:]
		switch {
		case strings.HasPrefix(rest, "</"):
			d.end()
			if more != nil {
				return string(more)
			}
			return first
		case strings.HasPrefix(rest, "<!--"):
			d.comment()
		case strings.HasPrefix(rest, "<![CDATA["):
			end := strings.Index(rest, "]]>")
			if end < 0 {
				d.fail("unterminated CDATA section")
				return ""
			}
			add(strings.ReplaceAll(strings.ReplaceAll(rest[9:end], "\r\n", "\n"), "\r", "\n"))
			d.pos += end + 3
		default:
			d.fail("unexpected markup in text")
		}
	}
	return ""
}

// optional reads the simple element local if it comes next.
func (d *scanner) optional(local string) (string, bool) {
	if !d.at(local) {
		return "", false
	}
	d.enter("", "")
	return d.text(), d.err == nil
}

// required reads the simple element local, which must come next.
func (d *scanner) required(local string) string {
	d.expect(local)
	d.enter("", "")
	return d.text()
}

// expect fails unless local comes next.
func (d *scanner) expect(local string) {
	if d.err == nil && !d.at(local) && d.err == nil {
		d.fail("element %s expected", local)
	}
}

// skipRest skips all remaining children of the innermost open element: the lax
// wildcard at the end of newer documents.
func (d *scanner) skipRest() {
	floor := len(d.open)
	for d.err == nil {
		// Below the wildcard text and CDATA are free.
		if len(d.open) > floor && !d.peeked && !d.open[len(d.open)-1].closed {
			d.skipText()
		}
		if d.next() {
			d.push()
			continue
		}
		if len(d.open) == floor {
			return
		}
		d.end()
	}
}

func (d *scanner) skipText() {
	for d.err == nil {
		i := strings.IndexByte(d.s[d.pos:], '<')
		if i < 0 {
			d.fail("unexpected end of document")
			return
		}
		d.unescape(d.s[d.pos:d.pos+i], false)
		d.pos += i
		rest := d.s[d.pos:]
		switch {
		case strings.HasPrefix(rest, "<!--"):
			d.comment()
		case strings.HasPrefix(rest, "<![CDATA["):
			end := strings.Index(rest, "]]>")
			if end < 0 {
				d.fail("unterminated CDATA section")
				return
			}
			d.pos += end + 3
		default:
			return
		}
	}
}

// The simple types of XML Schema.

func collapse(s string) string { return strings.Trim(s, " \t\r\n") }

func (d *scanner) base64(s string) []byte {
	if d.err != nil {
		return nil
	}
	if strings.ContainsAny(s, " \t\r\n") {
		s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < 0x80 && isSpace(byte(r)) }), "")
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		d.fail("bad base64: %v", err)
	}
	return b
}

func (d *scanner) boolean(s string) bool {
	switch collapse(s) {
	case "true", "1":
		return true
	case "false", "0":
		return false
	}
	if d.err == nil {
		d.fail("%q is not a boolean", s)
	}
	return false
}

// maxSeconds bounds all intervals: a hundred years fit into a time.Duration.
const maxSeconds = 100 * 365 * 24 * 60 * 60

// seconds reads a positive integer.
func (d *scanner) seconds(s string, least int64) time.Duration {
	digits := strings.TrimPrefix(collapse(s), "+")
	n, err := strconv.ParseUint(digits, 10, 63)
	if d.err == nil && (err != nil || int64(n) < least || n > maxSeconds) {
		d.fail("%q is not a number of seconds from %d to %d", s, least, maxSeconds)
	}
	if d.err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// dateTime reads an xs:dateTime; one without a time zone is taken as UTC.
func (d *scanner) dateTime(s string) time.Time {
	if d.err != nil {
		return time.Time{}
	}
	s = collapse(s)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	d.fail("%q is not a date and time", s)
	return time.Time{}
}

func (d *scanner) oneOf(s string, values ...string) string {
	for _, v := range values {
		if s == v {
			return v
		}
	}
	if d.err == nil {
		d.fail("%q is not one of %s", s, strings.Join(values, ", "))
	}
	return ""
}

// xmlWriter emits documents that need no canonical form but a stable one.
type xmlWriter struct {
	b       []byte
	depth   int
	control bool // a control character was to be written
}

// document opens the document.
func (w *xmlWriter) document(root string) {
	w.b = append(w.b, "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n<x:"...)
	w.b = append(w.b, root...)
	w.b = append(w.b, " xmlns:x=\""+nsXRoad+"\" xmlns:id=\""+nsID+"\">\n"...)
	w.depth = 1
}

// close ends the document and refuses text that XML cannot carry.
func (w *xmlWriter) close(root string) ([]byte, error) {
	w.b = append(w.b, "</x:"...)
	w.b = append(w.b, root...)
	w.b = append(w.b, ">\n"...)
	if w.control || !utf8.Valid(w.b) || bytes.Contains(w.b, []byte("\uFFFE")) || bytes.Contains(w.b, []byte("\uFFFF")) {
		return nil, fmt.Errorf("%w: a value holds characters that XML cannot carry", ErrMalformed)
	}
	return w.b, nil
}

func (w *xmlWriter) indent() {
	for range w.depth {
		w.b = append(w.b, ' ')
	}
}

// begin opens an element; attribute is written as given, with a leading space.
func (w *xmlWriter) begin(name, attribute string) {
	w.indent()
	w.b = append(w.b, '<')
	w.b = append(w.b, name...)
	w.b = append(w.b, attribute...)
	w.b = append(w.b, '>', '\n')
	w.depth++
}

func (w *xmlWriter) end(name string) {
	w.depth--
	w.indent()
	w.b = append(w.b, '<', '/')
	w.b = append(w.b, name...)
	w.b = append(w.b, '>', '\n')
}

func (w *xmlWriter) leaf(name, text string) {
	w.indent()
	w.b = append(w.b, '<')
	w.b = append(w.b, name...)
	w.b = append(w.b, '>')
	w.text(text)
	w.b = append(w.b, '<', '/')
	w.b = append(w.b, name...)
	w.b = append(w.b, '>', '\n')
}

func (w *xmlWriter) base64(name string, data []byte) {
	w.leaf(name, base64.StdEncoding.EncodeToString(data))
}

func (w *xmlWriter) seconds(name string, d time.Duration) {
	w.leaf(name, strconv.FormatInt(int64(d/time.Second), 10))
}

func (w *xmlWriter) text(s string) {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '<':
			w.b = append(w.b, "&lt;"...)
		case '>':
			w.b = append(w.b, "&gt;"...)
		case '&':
			w.b = append(w.b, "&amp;"...)
		case '\r':
			w.b = append(w.b, "&#xD;"...)
		default:
			w.control = w.control || c < ' ' && c != '\n' && c != '\t'
			w.b = append(w.b, c)
		}
	}
}
