// SPDX-License-Identifier: Apache-2.0

package message

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of heads. Java security servers accept 8 KiB of HTTP header, so a
// greater target or head could not have come from one.
const (
	MaxHead   = 64 << 10 // bytes of a serialised head
	MaxFields = 200      // header fields in a head
	MaxTarget = 8 << 10  // bytes of path and query
)

// Field is one header field.
type Field struct {
	Name, Value string
}

// RequestHead is the head of a REST request as it travels between security
// servers.
type RequestHead struct {
	Method string
	Target string // rawPath[?rawQuery], as the client sent it
	Fields []Field
}

// ResponseHead is the head of a REST response.
type ResponseHead struct {
	Status int
	Reason string // may be empty
	Fields []Field
}

// Append appends the serialised head: no blank after the colon, no empty line
// at the end.
func (h *RequestHead) Append(b []byte) []byte {
	b = append(append(b, h.Method...), "\r\n"...)
	b = append(append(b, h.Target...), "\r\n"...)
	return appendFields(b, h.Fields)
}

// Append appends the serialised head.
func (h *ResponseHead) Append(b []byte) []byte {
	b = append(strconv.AppendInt(b, int64(h.Status), 10), "\r\n"...)
	b = append(append(b, h.Reason...), "\r\n"...)
	return appendFields(b, h.Fields)
}

func appendFields(b []byte, fields []Field) []byte {
	for i := range fields {
		b = append(append(b, fields[i].Name...), ':')
		b = append(append(b, fields[i].Value...), "\r\n"...)
	}
	return b
}

func fieldsSize(fields []Field) int {
	n := 0
	for i := range fields {
		n += len(fields[i].Name) + len(fields[i].Value) + 3
	}
	return n
}

// Get returns the value of the last field with the given name, in any case.
func (h *RequestHead) Get(name string) (value string, ok bool) { return last(h.Fields, name) }

// Get returns the value of the last field with the given name, in any case.
func (h *ResponseHead) Get(name string) (value string, ok bool) { return last(h.Fields, name) }

// Header returns the fields as net/http keeps them, with canonical names.
func (h *RequestHead) Header() http.Header { return header(h.Fields) }

// Header returns the fields as net/http keeps them, with canonical names.
func (h *ResponseHead) Header() http.Header { return header(h.Fields) }

func last(fields []Field, name string) (string, bool) {
	for i := len(fields) - 1; i >= 0; i-- {
		if strings.EqualFold(fields[i].Name, name) {
			return fields[i].Value, true
		}
	}
	return "", false
}

func header(fields []Field) http.Header {
	h := make(http.Header, len(fields))
	for _, f := range fields {
		h.Add(f.Name, f.Value)
	}
	return h
}

// ParseRequestHead reads a serialised head. It accepts only what Append gives
// back byte for byte, because peers hash what they re-serialise. Values are not
// trimmed; they may hold UTF-8, which Java servers let through.
func ParseRequestHead(b []byte) (*RequestHead, error) {
	lines, err := newLines(b)
	if err != nil {
		return nil, err
	}
	h := &RequestHead{}
	if h.Method, err = lines.next("method"); err != nil {
		return nil, err
	}
	if err := checkMethod(h.Method); err != nil {
		return nil, err
	}
	if h.Target, err = lines.next("request target"); err != nil {
		return nil, err
	}
	if _, _, err := splitTarget(h.Target); err != nil {
		return nil, err
	}
	h.Fields, err = lines.fields()
	if err != nil {
		return nil, err
	}
	return h, nil
}

// ParseResponseHead reads a serialised head, as strictly as ParseRequestHead.
// Interim statuses (1xx) are refused: they end nothing.
func ParseResponseHead(b []byte) (*ResponseHead, error) {
	lines, err := newLines(b)
	if err != nil {
		return nil, err
	}
	status, err := lines.next("status")
	if err != nil {
		return nil, err
	}
	h := &ResponseHead{}
	if h.Status, err = parseStatus(status); err != nil {
		return nil, err
	}
	if h.Reason, err = lines.next("reason"); err != nil {
		return nil, err
	}
	if !validValue(h.Reason) {
		return nil, fmt.Errorf("%w: illegal character in the reason phrase", ErrHead)
	}
	h.Fields, err = lines.fields()
	if err != nil {
		return nil, err
	}
	return h, nil
}

func parseStatus(s string) (int, error) {
	if len(s) != 3 || s[0] < '2' || s[0] > '9' || s[1] < '0' || s[1] > '9' || s[2] < '0' || s[2] > '9' {
		return 0, fmt.Errorf("%w: status is not a number from 200 to 999", ErrHead)
	}
	return int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0'), nil
}

// lines cuts a head at CR LF. One string holds the whole head, so that its
// lines cost no allocation of their own.
type lines struct {
	rest string
}

func newLines(b []byte) (lines, error) {
	if len(b) > MaxHead {
		return lines{}, fmt.Errorf("%w: head longer than %d bytes", ErrTooLarge, MaxHead)
	}
	if !utf8.Valid(b) {
		return lines{}, fmt.Errorf("%w: not UTF-8", ErrHead)
	}
	return lines{string(b)}, nil
}

func (l *lines) next(what string) (string, error) {
	i := strings.IndexByte(l.rest, '\n')
	if i < 1 || l.rest[i-1] != '\r' {
		return "", fmt.Errorf("%w: no line end after the %s", ErrHead, what)
	}
	line := l.rest[:i-1]
	if strings.IndexByte(line, '\r') >= 0 {
		return "", fmt.Errorf("%w: carriage return in the %s", ErrHead, what)
	}
	l.rest = l.rest[i+1:]
	return line, nil
}

func (l *lines) fields() ([]Field, error) {
	n := strings.Count(l.rest, "\n")
	if n > MaxFields {
		return nil, fmt.Errorf("%w: more than %d header fields", ErrTooLarge, MaxFields)
	}
	if n == 0 && l.rest == "" {
		return nil, nil
	}
	fields := make([]Field, 0, n)
	for l.rest != "" {
		line, err := l.next("header field")
		if err != nil {
			return nil, err
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("%w: header line without a colon", ErrHead)
		}
		if err := checkName(name); err != nil {
			return nil, err
		}
		if forbidden(name) {
			return nil, fmt.Errorf("%w: %s may not be in a message head", ErrHeader, name)
		}
		if !validValue(value) {
			return nil, fmt.Errorf("%w: control character in the value of %s", ErrHeader, name)
		}
		fields = append(fields, Field{name, value})
	}
	return fields, nil
}

func checkMethod(m string) error {
	switch m {
	case "GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE":
		return nil
	}
	if len(m) > 20 {
		m = m[:20] + "…"
	}
	return fmt.Errorf("%w: %q; X-Road carries DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT and TRACE", ErrMethod, m)
}

// forbidden reports whether a header concerns one hop only and so is not part
// of a message.
func forbidden(name string) bool {
	is := func(s string) bool { return strings.EqualFold(name, s) }
	switch len(name) {
	case 2:
		return is("te")
	case 4:
		return is("host")
	case 6:
		return is("server") || is("expect")
	case 7:
		return is("trailer") || is("upgrade")
	case 10:
		return is("connection") || is("keep-alive") || is("user-agent")
	case 14:
		return is("content-length")
	case 17:
		return is("transfer-encoding")
	case 18:
		return is("proxy-authenticate")
	case 19:
		return is("proxy-authorization")
	}
	return false
}

func checkName[T string | []byte](name T) error {
	if len(name) == 0 {
		return fmt.Errorf("%w: no name", ErrHeader)
	}
	for i := 0; i < len(name); i++ {
		if class[name[i]]&tchar == 0 {
			return fmt.Errorf("%w: character %q in the name of a header", ErrHeader, name[i])
		}
	}
	return nil
}

// validValue reports whether s has no control characters but tabs.
func validValue[T string | []byte](s T) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 && s[i] != '\t' || s[i] == 0x7F {
			return false
		}
	}
	return true
}

func ascii(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// Character classes: header names (RFC 9110) and what java.net.URI, with which
// peers read targets, takes in paths and queries.
const (
	tchar byte = 1 << iota
	pathChar
	queryChar
	uriChar // anywhere in a URI
)

var class = func() (t [256]byte) {
	set := func(chars string, bits byte) {
		for i := 0; i < len(chars); i++ {
			t[chars[i]] |= bits
		}
	}
	const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	set(alphanumeric, tchar|pathChar|queryChar|uriChar)
	set("!#$%&'*+-.^_`|~", tchar)
	set("_-!.~'()*:@&=+$,;/", pathChar|queryChar|uriChar)
	set("?[]", queryChar|uriChar)
	set("#", uriChar)
	return t
}()

// splitTarget cuts the target into path and query ("?…" or "") and checks that
// peers can read it.
func splitTarget(target string) (path, query string, err error) {
	if len(target) > MaxTarget {
		return "", "", fmt.Errorf("%w: request target longer than %d bytes", ErrTooLarge, MaxTarget)
	}
	path = target
	if i := strings.IndexByte(target, '?'); i >= 0 {
		path, query = target[:i], target[i:]
	}
	if !strings.HasPrefix(path, "/r1/") {
		return "", "", fmt.Errorf("%w: the path does not start with /r1/", ErrTarget)
	}
	if err := checkURI("path", path, pathChar); err != nil {
		return "", "", err
	}
	return path, query, checkURI("query", query, queryChar)
}

func checkURI(what, s string, allowed byte) error {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case class[c]&allowed != 0:
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			i += 2
		case c == '%':
			return fmt.Errorf("%w: bad percent-encoding in the %s", ErrTarget, what)
		default:
			return fmt.Errorf("%w: character %q in the %s must be percent-encoded", ErrTarget, c, what)
		}
	}
	return nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
