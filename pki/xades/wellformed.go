// SPDX-License-Identifier: Apache-2.0

package xades

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// wellFormed checks the bytes of a foreign document before any XML reader sees
// them, so that it cannot mean different things to different readers: it is
// UTF-8, a single element, with a plain XML declaration at most before it, and
// without document type, processing instructions, comments or CDATA sections;
// names are ASCII, attribute values hold no literal line ends. It is within the
// bounds of depth and number. Well-formedness is that of XML 1.0; namespaces
// are checked on the tree.
//
// It returns where the content of the first element with the local name begins
// (0 if there is none or it is an empty-element tag) and that element's prefix
// with its colon.
func wellFormed(doc []byte, local string) (at int, prefix string, err error) {
	w := &lexer{doc: doc}
	if err := w.declaration(); err != nil {
		return 0, "", err
	}
	var open []string
	elements := 0
	for w.at < len(doc) {
		if doc[w.at] != '<' {
			text := doc[w.at:]
			if n := bytes.IndexByte(text, '<'); n >= 0 {
				text = text[:n]
			}
			if err := w.text(text, len(open) > 0); err != nil {
				return 0, "", err
			}
			w.at += len(text)
			continue
		}
		if len(open) == 0 && elements > 0 {
			return 0, "", w.error("more than one element")
		}
		w.at++
		if w.byte('/') {
			name, ok := w.name()
			w.space()
			if !ok || !w.byte('>') || len(open) == 0 || open[len(open)-1] != name {
				return 0, "", w.error("end tag")
			}
			open = open[:len(open)-1]
			continue
		}
		name, ok := w.name()
		if !ok {
			return 0, "", w.error("start tag, or something other than an element")
		}
		empty, err := w.attributes()
		if err != nil {
			return 0, "", err
		}
		elements++
		if elements > maxElements {
			return 0, "", w.error("too many elements")
		}
		if empty {
			continue
		}
		if len(open) == maxDepth {
			return 0, "", w.error("nested too deeply")
		}
		open = append(open, name)
		if at == 0 && name[strings.IndexByte(name, ':')+1:] == local {
			at, prefix = w.at, name[:len(name)-len(local)]
		}
	}
	if len(open) > 0 || elements == 0 {
		return 0, "", w.error("incomplete")
	}
	return at, prefix, nil
}

type lexer struct {
	doc []byte
	at  int
}

func (w *lexer) error(what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrMalformed, what, w.at)
}

func (w *lexer) byte(c byte) bool {
	if w.at < len(w.doc) && w.doc[w.at] == c {
		w.at++
		return true
	}
	return false
}

func (w *lexer) space() bool {
	start := w.at
	for w.at < len(w.doc) && isSpace(w.doc[w.at]) {
		w.at++
	}
	return w.at > start
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// declaration skips an XML declaration.
func (w *lexer) declaration() error {
	if !bytes.HasPrefix(w.doc, []byte("<?xml")) {
		return nil
	}
	end := bytes.Index(w.doc, []byte("?>"))
	if end < 0 || end > 128 {
		return w.error("XML declaration")
	}
	fields := strings.Fields(strings.ReplaceAll(string(w.doc[len("<?xml"):end]), "'", `"`))
	w.at = end + 2
	if len(fields) == 0 || !isSpace(w.doc[len("<?xml")]) || fields[0] != `version="1.0"` {
		return w.error("XML declaration")
	}
	fields = fields[1:]
	if len(fields) > 0 && strings.EqualFold(fields[0], `encoding="UTF-8"`) && strings.HasPrefix(fields[0], "encoding") {
		fields = fields[1:]
	}
	if len(fields) > 0 && (fields[0] == `standalone="yes"` || fields[0] == `standalone="no"`) {
		fields = fields[1:]
	}
	if len(fields) > 0 {
		return w.error("XML declaration")
	}
	return nil
}

// text checks character data: white space only if outside the root element.
func (w *lexer) text(b []byte, inside bool) error {
	if !inside {
		if len(bytes.Trim(b, " \t\r\n")) > 0 {
			return w.error("text outside the root element")
		}
		return nil
	}
	if bytes.Contains(b, []byte("]]>")) {
		return w.error("]]> in text")
	}
	return w.characters(b, false)
}

func (w *lexer) name() (string, bool) {
	start, colons := w.at, 0
	first := true // of a name, or of its part after the colon
	for ; w.at < len(w.doc); w.at++ {
		switch c := w.doc[w.at]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
			first = false
		case !first && ('0' <= c && c <= '9' || c == '-' || c == '.'):
		case !first && c == ':' && colons == 0:
			colons++
			first = true
		default:
			return string(w.doc[start:w.at]), !first
		}
	}
	return "", false
}

// attributes reads from after an element's name to the end of its start tag.
func (w *lexer) attributes() (empty bool, err error) {
	for n := 0; ; n++ {
		spaced := w.space()
		if w.byte('>') {
			return false, nil
		}
		if w.byte('/') {
			if !w.byte('>') {
				return false, w.error("start tag")
			}
			return true, nil
		}
		if n == maxAttributes {
			return false, w.error("too many attributes")
		}
		_, ok := w.name()
		if !spaced || !ok {
			return false, w.error("start tag")
		}
		w.space()
		if !w.byte('=') {
			return false, w.error("attribute")
		}
		w.space()
		if w.at == len(w.doc) || w.doc[w.at] != '"' && w.doc[w.at] != '\'' {
			return false, w.error("attribute")
		}
		quote := w.doc[w.at]
		w.at++
		end := bytes.IndexByte(w.doc[w.at:], quote)
		if end < 0 {
			return false, w.error("attribute")
		}
		if err := w.characters(w.doc[w.at:w.at+end], true); err != nil {
			return false, err
		}
		w.at += end + 1
	}
}

// characters checks text or an attribute value: XML characters and references
// to the predefined entities or to XML characters.
func (w *lexer) characters(b []byte, attribute bool) error {
	for i := 0; i < len(b); {
		switch c := b[i]; {
		case c == '<', attribute && c < 0x20:
			return w.error("character not allowed in an attribute value")
		case c == '&':
			n := bytes.IndexByte(b[i:min(len(b), i+12)], ';')
			if n < 0 || !validReference(string(b[i+1:i+n])) {
				return w.error("entity or character reference")
			}
			i += n + 1
		default:
			r, n := utf8.DecodeRune(b[i:])
			if !validChar(r, n) {
				return w.error("character not allowed in XML")
			}
			i += n
		}
	}
	return nil
}

func validReference(name string) bool {
	switch name {
	case "amp", "lt", "gt", "quot", "apos":
		return true
	}
	digits, base := strings.TrimPrefix(name, "#"), 10
	if len(digits) == len(name) {
		return false
	}
	if strings.HasPrefix(digits, "x") {
		digits, base = digits[1:], 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	return err == nil && n <= utf8.MaxRune && validChar(rune(n), 2)
}

// validChar reports whether r, decoded from size bytes, is a Char of XML 1.0.
func validChar(r rune, size int) bool {
	switch {
	case r == utf8.RuneError && size == 1:
		return false
	case r < 0x20:
		return r == '\t' || r == '\n' || r == '\r'
	}
	return utf8.ValidRune(r) && r != 0xFFFE && r != 0xFFFF
}
