// SPDX-License-Identifier: Apache-2.0

package message

import (
	"mime"
	"strings"
)

// media is a content type, as far as it matters here.
type media struct {
	name     string // in lower case
	boundary string
	charset  string
	charsets bool // there is a charset, which may be empty
}

// parseMedia reads a content type as [mime.ParseMediaType] does; the common forms
// without its map.
func parseMedia(s string) (media, error) {
	if m, ok := plainMedia(s); ok {
		return m, nil
	}
	name, params, err := mime.ParseMediaType(s)
	if err != nil {
		return media{}, err
	}
	charset, ok := params["charset"]
	return media{name, params["boundary"], charset, ok}, nil
}

// plainMedia reads "type/subtype; name=value; …" in which the type and the names
// are in lower case, each value is a token and no name comes twice or has a
// meaning of its own (RFC 2231).
func plainMedia(s string) (m media, ok bool) {
	name, rest, more := strings.Cut(s, ";")
	kind, subtype, _ := strings.Cut(name, "/")
	if !lowerToken(kind) || !lowerToken(subtype) {
		return media{}, false
	}
	m.name = name
	boundary := false
	for more {
		var item string
		item, rest, more = strings.Cut(rest, ";")
		name, value, _ := strings.Cut(strings.TrimPrefix(item, " "), "=")
		if !isToken(value) {
			return media{}, false
		}
		switch {
		case name == "charset" && !m.charsets:
			m.charset, m.charsets = value, true
		case name == "boundary" && !boundary:
			m.boundary, boundary = value, true
		default:
			return media{}, false
		}
	}
	return m, true
}

func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if class[s[i]]&tchar == 0 {
			return false
		}
	}
	return s != ""
}

func lowerToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if class[s[i]]&tchar == 0 || 'A' <= s[i] && s[i] <= 'Z' {
			return false
		}
	}
	return s != ""
}
