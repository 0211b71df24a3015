// SPDX-License-Identifier: Apache-2.0

package description

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
)

// encodingDeclaration finds the encoding in an XML declaration.
var encodingDeclaration = regexp.MustCompile(`^<\?xml\s[^?>]*\bencoding\s*=\s*["']([A-Za-z0-9._-]+)["']`)

// ToUTF8 returns an XML document in UTF-8 that says so, without a byte order
// mark. It knows UTF-8, UTF-16 (XML 1.0, appendix F), US-ASCII and ISO 8859-1.
//
// Errors: ErrDocument.
func ToUTF8(b []byte) ([]byte, error) {
	wide, b, err := fromUTF16(b)
	if err != nil {
		return nil, err
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	m := encodingDeclaration.FindSubmatchIndex(b)
	if m == nil {
		return b, nil // UTF-8, or the parser says what it is not
	}
	content := b[m[3]:]
	switch name := strings.ToUpper(string(b[m[2]:m[3]])); {
	case wide && strings.HasPrefix(name, "UTF-16"), !wide && (name == "UTF-8" || name == "US-ASCII"):
	case wide:
		return nil, refuse("it is in UTF-16 and says that it is in %s", name)
	case name == "ISO-8859-1", name == "LATIN1":
		runes := make([]rune, len(content))
		for i, c := range content {
			runes[i] = rune(c)
		}
		content = []byte(string(runes))
	default:
		return nil, refuse("its encoding is %s; give it in UTF-8, UTF-16 or ISO-8859-1", name)
	}
	return slices.Concat(b[:m[2]], []byte("UTF-8"), content), nil
}

// fromUTF16 returns a document that begins as one in UTF-16 as UTF-8, and any
// other as it is.
func fromUTF16(b []byte) (wide bool, out []byte, err error) {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(b, []byte{0xFE, 0xFF}), bytes.HasPrefix(b, []byte{0, '<'}):
		order = binary.BigEndian
	case bytes.HasPrefix(b, []byte{0xFF, 0xFE}), bytes.HasPrefix(b, []byte{'<', 0}):
		order = binary.LittleEndian
	default:
		return false, b, nil
	}
	if len(b)%2 != 0 {
		return true, nil, refuse("it is in UTF-16 and breaks off within a character")
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = order.Uint16(b[2*i:])
	}
	for _, r := range utf16.Decode(units) {
		out = append(out, string(r)...)
	}
	return true, out, nil
}
