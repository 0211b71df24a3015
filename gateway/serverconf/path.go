// SPDX-License-Identifier: Apache-2.0

package serverconf

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrPath is what every [PathError] is.
var ErrPath = errors.New("path is ambiguous or malformed")

// PathError tells why a path is refused. Its text may be shown to the caller:
// it does not repeat the path.
type PathError struct {
	Reason string
	Offset int // in bytes, of the path before or after decoding, wherever it shows
}

func (e *PathError) Error() string {
	return fmt.Sprintf("%s at byte %d of the path", e.Reason, e.Offset)
}

// Is makes every PathError an ErrPath.
func (e *PathError) Is(target error) bool { return target == ErrPath }

// NormalisePath returns what a service path means: raw with its percent
// escapes decoded once. raw is the part of a REST request's path after the
// service code, empty or starting with "/", without the query.
//
// The service itself receives raw. So that it cannot understand another path
// than the one that was authorised, everything that servers are known to
// understand differently is refused, with a *[PathError]:
//
//   - characters that RFC 3986 does not allow in a path unescaped, and bad escapes
//   - an escaped "/" and a "\" in any form
//   - empty segments ("//"), and the segments "." and "..", escaped or not, also
//     with path parameters (";…") behind them
//   - control characters and anything that is not UTF-8
//   - an escaped "%" that makes another escape ("%2541"): some decode twice
//
// Other escapes are allowed, a space (%20), "?" and "#" among them. A "/" at
// the end is kept: "/a" and "/a/" are two paths.
func NormalisePath(raw string) (string, error) {
	if raw == "" {
		return "", nil
	}
	if raw[0] != '/' {
		return "", &PathError{"no leading slash", 0}
	}
	path, err := decodePath(raw)
	if err != nil {
		return "", err
	}
	// No slash came out of an escape, so segments are the same before and after.
	for rest, offset, last := path[1:], 1, false; !last; {
		segment, tail, more := strings.Cut(rest, "/")
		name, _, parameters := strings.Cut(segment, ";")
		switch {
		case name == "" && (more || parameters):
			return "", &PathError{"an empty segment", offset}
		case name == "." || name == "..":
			return "", &PathError{"a dot segment", offset}
		}
		rest, last = tail, !more
		offset += len(segment) + 1
	}
	return path, nil
}

// decodePath checks the characters and decodes the escapes of raw, once.
func decodePath(raw string) (string, error) {
	var decoded []byte // nil until the first escape
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c != '%' && !pathCharacter(c):
			return "", &PathError{"a character that must be escaped", i}
		case c != '%':
			if decoded != nil {
				decoded = append(decoded, c)
			}
			continue
		case i+2 >= len(raw) || hexDigit(raw[i+1]) < 0 || hexDigit(raw[i+2]) < 0:
			return "", &PathError{"a bad escape", i}
		}
		if decoded == nil {
			decoded = append(make([]byte, 0, len(raw)), raw[:i]...)
		}
		c = byte(hexDigit(raw[i+1])<<4 | hexDigit(raw[i+2]))
		switch c {
		case '/':
			return "", &PathError{"an escaped slash", i}
		case '\\':
			return "", &PathError{"a backslash", i}
		}
		decoded = append(decoded, c)
		i += 2
	}
	if decoded == nil {
		return raw, nil
	}
	path := string(decoded)
	for i, r := range path {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(path[i:], "\uFFFD"):
			return "", &PathError{"invalid UTF-8", i}
		case unicode.IsControl(r):
			return "", &PathError{"a control character", i}
		case r == '%' && i+2 < len(path) && hexDigit(path[i+1]) >= 0 && hexDigit(path[i+2]) >= 0:
			return "", &PathError{"a double escape", i}
		}
	}
	return path, nil
}

// pathCharacter tells whether RFC 3986 allows c in a path as it is (pchar and
// the slash).
func pathCharacter(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	switch c {
	case '/', '-', '.', '_', '~', '!', '$', '&', '\'', '(', ')', '*', '+', ',', ';', '=', ':', '@':
		return true
	}
	return false
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
